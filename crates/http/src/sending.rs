//! Waiting for a peer that reads slowly: as long as it takes anything at all, it is not late.

use std::io;
use std::time::Duration;

use event::Tcp;

/// Waits until at most `limit` bytes are queued. The peer may take `patience` for each byte of them.
///
/// # Errors
/// `TimedOut` when it took nothing for so long, or how the connection died.
pub(crate) async fn room(tcp: &Tcp, limit: usize, patience: Duration) -> io::Result<()> {
    loop {
        tcp.set_write_deadline(tcp.thread().now() + patience);
        tcp.room(limit.max(tcp.queued().saturating_sub(1))).await?;
        if tcp.queued() <= limit {
            return Ok(());
        }
    }
}

//! The response's body, from the origin to the client.

use std::io;

use buf::Chunk;
use event::Tcp;

use crate::inbox::Inbox;
use crate::plan::Plan;
use crate::rules::framing::Framing;
use crate::session::Session;
use crate::upload::{Framer, class_for};
use crate::wire::Body;
use crate::wire::body::Decoder;

/// Why a body did not reach the client whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DownloadError {
    /// The origin ended or failed in the middle of it, or its framing is broken.
    OriginBroke,
    /// The origin sent nothing for too long.
    OriginLate,
    /// The client's connection failed.
    ClientGone,
    /// The client took nothing for too long.
    ClientLate,
}

/// A body on its way, and how it goes on.
pub(crate) struct Download<'a> {
    pub(crate) session: &'a Session,
    pub(crate) origin: &'a Tcp,
    /// What has come from the origin behind the head.
    pub(crate) inbox: &'a mut Inbox,
    pub(crate) body: Body,
    pub(crate) framing: Framing,
    pub(crate) framer: Framer,
    pub(crate) plan: &'a Plan,
    /// Counts the bytes made on the client's side, chunk framing included, whatever the outcome.
    pub(crate) sent: &'a mut u64,
}

/// Passes a body on.
pub(crate) async fn run(download: Download<'_>) -> Result<(), DownloadError> {
    let Download { session, origin, inbox, body, framing, mut framer, plan, sent } = download;
    let (client, thread) = (&session.tcp, session.worker.thread());
    let mut decoder = Decoder::new(body, &plan.limits);
    let mut send = |chunk: Chunk| {
        *sent += chunk.len() as u64;
        client.send(chunk);
    };
    loop {
        while !decoder.is_done() && !inbox.is_empty() {
            let step = decoder.step(inbox.bytes()).map_err(|_| DownloadError::OriginBroke)?;
            if !step.data.is_empty() {
                let data = inbox.chunk(step.data.clone());
                if framing == Framing::Chunked { framer.send_chunk(data, &mut send) } else { send(data) }
            }
            inbox.consume(step.consumed);
            if step.consumed == 0 && !step.done {
                break;
            }
        }
        if decoder.is_done() {
            if framing == Framing::Chunked {
                framer.send_last(&decoder, &mut send);
            }
            return Ok(());
        }
        if client.queued() > plan.body_window {
            client.set_write_deadline(thread.now() + plan.timeouts.client_send);
            client.room(plan.body_window).await.map_err(|error| match error.kind() {
                io::ErrorKind::TimedOut => DownloadError::ClientLate,
                _ => DownloadError::ClientGone,
            })?;
        } else if client.failure().is_some() {
            return Err(DownloadError::ClientGone);
        }
        origin.set_read_deadline(thread.now() + plan.timeouts.origin_idle);
        match inbox.fill(origin, class_for(decoder.expected())).await {
            Ok(0) => {
                decoder.feed_eof().map_err(|_| DownloadError::OriginBroke)?;
                if framing == Framing::Chunked {
                    framer.send_last(&decoder, &mut send);
                }
                return Ok(());
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(DownloadError::OriginLate),
            Err(_) => return Err(DownloadError::OriginBroke),
        }
    }
}

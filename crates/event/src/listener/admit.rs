//! Connections that another process accepted.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::{Listener, Share, start};
use crate::tcp::Detached;

impl Listener {
    /// Takes a connection that another process accepted and let go of, as if it had been accepted here: it counts, and
    /// goes to the thread with the fewest. May be called on any thread. `false`: no thread takes it, it is closed.
    pub fn admit(&self, fd: OwnedFd, peer: Option<SocketAddr>) -> bool {
        let owner = self.shares.owner(0);
        let Some(thread) = self.peers.get().and_then(|peers| peers.get(owner)) else { return false };
        let share = Share::take(&self.shares, owner);
        let (connection, on_accept) = (Detached::from_fd(fd, peer), Arc::clone(&self.on_accept));
        thread.run(move |thread| start(thread, connection, share, &on_accept)).is_ok()
    }
}

//! Connections that another process accepted.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::{Listener, Share};
use crate::tcp::{Detached, Tcp};
use crate::thread::Thread;

impl Listener {
    /// Takes a connection that another process accepted and let go of, as if it had been accepted here: it counts, and
    /// goes to the thread with the fewest. May be called on any thread. `false`: no thread takes it, it is closed.
    pub fn admit(&self, fd: OwnedFd, peer: Option<SocketAddr>) -> bool {
        let on_accept = Arc::clone(&self.on_accept);
        self.admit_to(fd, peer, move |thread, tcp| on_accept(thread, tcp))
    }

    /// As [`Listener::admit`], given to `serve` on its thread: for a connection that comes with more than itself.
    pub fn admit_to(
        &self,
        fd: OwnedFd,
        peer: Option<SocketAddr>,
        serve: impl FnOnce(&Thread, Tcp) + Send + 'static,
    ) -> bool {
        let owner = self.shares.owner(0);
        let Some(thread) = self.peers.get().and_then(|peers| peers.get(owner)) else { return false };
        let share = Share::take(&self.shares, owner);
        let connection = Detached::from_fd(fd, peer);
        let admitted = thread.run(move |thread| {
            // As with one that was accepted: it closes when it cannot be had.
            if let Ok(tcp) = Tcp::register(thread, connection.socket, connection.peer, Some(share), false) {
                serve(thread, tcp);
            }
        });
        admitted.is_ok()
    }
}

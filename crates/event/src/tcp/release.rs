//! Letting go of a connection, for another thread or another process, and taking one over.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use sys::epoll::Ready;

use super::{Phase, Tcp};
use crate::driver::Socket;
use crate::thread::Thread;

/// A connection between two threads: registered nowhere, nothing queued, nobody waiting. Send.
#[derive(Debug)]
pub struct Detached {
    pub(crate) socket: Socket,
    pub(crate) peer: Option<SocketAddr>,
}

impl Detached {
    /// Whether it is still open and silent, as an idle connection should be. One system call.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.socket.is_quiet()
    }

    /// A connected socket from elsewhere: accepted, or handed over by another process.
    #[must_use]
    pub fn from_fd(fd: std::os::fd::OwnedFd, peer: Option<SocketAddr>) -> Self {
        Self { socket: Socket::Kernel(fd), peer }
    }
}

impl Tcp {
    /// Takes over a connection that another thread, or another process, let go.
    ///
    /// # Errors
    /// When it cannot be registered: no memory, or too many watches.
    pub fn attach(thread: &Thread, detached: Detached) -> io::Result<Self> {
        let tcp = Self::register(thread, detached.socket, detached.peer, None, false)?;
        // What arrived before the registration is reported by it; nothing to read is not known, so try.
        tcp.0.ready.set(tcp.0.ready.get().with(Ready::READ));
        Ok(tcp)
    }

    /// Lets go of the connection, so that another thread may take it. `None`, and it closes, when something is still
    /// queued or it has failed.
    #[must_use]
    pub fn detach(self) -> Option<Detached> {
        let stream = &self.0;
        let whole = stream.phase.get() == Phase::Open
            && stream.error.get().is_none()
            && stream.queued() == 0
            && stream.share.is_none()
            && stream.thread.core().driver.unregister(&stream.socket).is_ok();
        if !whole {
            return None;
        }
        let socket = stream.socket.duplicate().ok()?;
        Some(Detached { socket, peer: stream.peer.address() })
    }

    /// Has the kernel probe the connection while it is idle. A hint: a kernel that cannot is not complained of.
    pub fn keep_alive(&self) {
        match &self.0.socket {
            Socket::Kernel(fd) => drop(sys::socket::set_keepalive(fd, true)),
            #[cfg(any(test, feature = "sim"))]
            Socket::Sim(_) => {}
        }
    }

    /// The socket, for a process that is to serve the connection from here on: this thread hears nothing more of it.
    /// What the peer has sent and nobody has read stays in it. `None`, and nothing has happened, when something is still
    /// queued, or it has failed or is ending. Drop the connection afterwards: that closes this process's copy alone.
    #[must_use]
    pub fn release(&self) -> Option<OwnedFd> {
        let stream = &self.0;
        let whole = stream.phase.get() == Phase::Open && stream.error.get().is_none() && stream.queued() == 0;
        if !whole {
            return None;
        }
        match &stream.socket {
            Socket::Kernel(fd) => {
                let copy = fd.try_clone().ok()?;
                stream.thread.core().driver.unregister(&stream.socket).ok()?;
                Some(copy)
            }
            #[cfg(any(test, feature = "sim"))]
            Socket::Sim(_) => None,
        }
    }
}

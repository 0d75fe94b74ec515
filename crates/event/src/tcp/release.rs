//! Letting go of a connection for another process.

use std::os::fd::OwnedFd;

use super::{Phase, Tcp};
use crate::driver::Socket;

impl Tcp {
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
        let whole = stream.phase.get() == Phase::Open && stream.error.get().is_none() && stream.out.borrow().is_empty();
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

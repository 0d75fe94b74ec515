//! Waking a thread out of its wait from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

/// An event counter that a poll can wait for.
#[derive(Debug)]
pub struct Wake(OwnedFd);

impl Wake {
    /// # Errors
    /// What `eventfd(2)` says: too many descriptors, or no memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Makes the waiting thread's current or next wait return. Many wakes may merge into one.
    ///
    /// # Errors
    /// What `write(2)` says, except `EAGAIN`: a full counter means that a wake is already pending.
    pub fn wake(&self) -> io::Result<()> {
        match rustix::io::write(&self.0, &1_u64.to_ne_bytes()) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes all pending wakes back. Not needed with an edge-triggered registration.
    pub fn drain(&self) {
        let mut counter = [0; 8];
        // An error here is `EAGAIN`: there was no wake, which is what draining wants.
        let _ = rustix::io::read(&self.0, &mut counter);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

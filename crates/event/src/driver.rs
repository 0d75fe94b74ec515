//! Where bytes, connections and readiness come from: the machine, or a simulation of one.
//!
//! An enum and not a type parameter: above this crate nobody knows which it is. The simulated variant takes its place
//! beside [`Driver::Epoll`] and [`Socket::Kernel`]; io_uring does later.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use sys::epoll::{Epoll, Events, Interest, Ready};
use sys::wake::Wake;

/// Reports with this token mean: look into the external queue.
pub(crate) const WAKE_TOKEN: u64 = u64::MAX;

pub(crate) enum Driver {
    Epoll { epoll: Epoll, events: RefCell<Events> },
}

/// A stream socket of a driver.
#[derive(Debug)]
pub(crate) enum Socket {
    Kernel(OwnedFd),
}

impl Driver {
    pub(crate) fn epoll(wake: &Wake) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(wake, WAKE_TOKEN, Interest::Wake)?;
        Ok(Self::Epoll { epoll, events: RefCell::default() })
    }

    /// Reports what becomes readable on `socket`, and with `writes` what becomes writable too.
    pub(crate) fn register(&self, socket: &Socket, token: u64, writes: bool) -> io::Result<()> {
        let interest = if writes { Interest::StreamWrites } else { Interest::Stream };
        match (self, socket) {
            (Self::Epoll { epoll, .. }, Socket::Kernel(fd)) => epoll.add(fd, token, interest),
        }
    }

    /// From now on reports writability too.
    pub(crate) fn watch_writes(&self, socket: &Socket, token: u64) -> io::Result<()> {
        match (self, socket) {
            (Self::Epoll { epoll, .. }, Socket::Kernel(fd)) => epoll.change(fd, token, Interest::StreamWrites),
        }
    }

    pub(crate) fn unregister(&self, socket: &Socket) -> io::Result<()> {
        match (self, socket) {
            (Self::Epoll { epoll, .. }, Socket::Kernel(fd)) => epoll.remove(fd),
        }
    }

    pub(crate) fn register_listener(&self, listener: impl AsFd, token: u64) -> io::Result<()> {
        match self {
            Self::Epoll { epoll, .. } => epoll.add(listener, token, Interest::SharedListener),
        }
    }

    pub(crate) fn unregister_listener(&self, listener: impl AsFd) -> io::Result<()> {
        match self {
            Self::Epoll { epoll, .. } => epoll.remove(listener),
        }
    }

    pub(crate) fn accept(&self, listener: impl AsFd) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Self::Epoll { .. } => sys::socket::accept(listener).map(|(fd, peer)| (Socket::Kernel(fd), peer)),
        }
    }

    pub(crate) fn connect(&self, address: SocketAddr) -> io::Result<Socket> {
        match self {
            Self::Epoll { .. } => sys::socket::connect(address).map(Socket::Kernel),
        }
    }

    #[inline]
    pub(crate) fn wait(&self, timeout_ns: Option<u64>, deliver: impl FnMut(u64, Ready)) -> io::Result<usize> {
        match self {
            Self::Epoll { epoll, events } => epoll.wait(&mut events.borrow_mut(), timeout_ns, deliver),
        }
    }
}

impl Socket {
    #[inline]
    pub(crate) fn receive(&self, into: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        match self {
            Self::Kernel(fd) => sys::socket::receive(fd, into),
        }
    }

    #[inline]
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Kernel(fd) => sys::socket::send(fd, bytes),
        }
    }

    #[inline]
    pub(crate) fn send_gathered(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Kernel(fd) => sys::socket::send_gathered(fd, slices),
        }
    }

    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Kernel(fd) => sys::socket::shutdown_write(fd),
        }
    }

    pub(crate) fn abort_on_close(&self) -> io::Result<()> {
        match self {
            Self::Kernel(fd) => sys::socket::abort_on_close(fd),
        }
    }

    pub(crate) fn take_error(&self) -> io::Result<()> {
        match self {
            Self::Kernel(fd) => sys::socket::take_error(fd),
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        match self {
            Self::Kernel(fd) => sys::socket::is_quiet(fd),
        }
    }

    /// A second hold on the same socket.
    pub(crate) fn duplicate(&self) -> io::Result<Self> {
        match self {
            Self::Kernel(fd) => fd.try_clone().map(Self::Kernel),
        }
    }

    pub(crate) fn local_address(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Self::Kernel(fd) => sys::socket::local_address(fd),
        }
    }
}

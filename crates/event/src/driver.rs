//! Where bytes, connections and readiness come from: the machine, or a simulation of one.
//!
//! An enum and not a type parameter: above this crate nobody knows which it is. The simulated variants exist in tests
//! and with the feature `sim` only, so that a server is built without them; io_uring takes its place here later.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use sys::epoll::{Epoll, Events, Interest, Ready};
use sys::wake::Wake;

#[cfg(any(test, feature = "sim"))]
use crate::sim::{SimDriver, SimListener, SimSocket};

/// Reports with this token mean: look into the external queue.
pub(crate) const WAKE_TOKEN: u64 = u64::MAX;

pub(crate) enum Driver {
    Epoll {
        epoll: Epoll,
        events: RefCell<Events>,
    },
    #[cfg(any(test, feature = "sim"))]
    Sim(SimDriver),
}

/// A stream socket of a driver.
#[derive(Debug)]
pub(crate) enum Socket {
    Kernel(OwnedFd),
    #[cfg(any(test, feature = "sim"))]
    Sim(std::sync::Arc<SimSocket>),
}

/// A listening socket of a driver.
#[derive(Debug)]
pub(crate) enum ListenSocket {
    Kernel(OwnedFd),
    #[cfg(any(test, feature = "sim"))]
    Sim(SimListener),
}

/// A socket was brought to the driver of another world.
#[cfg(any(test, feature = "sim"))]
fn foreign() -> io::Error {
    io::Error::other("a socket of another driver")
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
            #[cfg(any(test, feature = "sim"))]
            (Self::Sim(driver), Socket::Sim(socket)) => {
                driver.register(socket, token, writes);
                Ok(())
            }
            #[cfg(any(test, feature = "sim"))]
            _ => Err(foreign()),
        }
    }

    /// Looks at nothing for so long. Simulated time does not pass for it.
    pub(crate) fn gather(&self, time: Duration) {
        match self {
            Self::Epoll { .. } => std::thread::sleep(time),
            #[cfg(any(test, feature = "sim"))]
            Self::Sim(_) => {}
        }
    }

    /// From now on reports writability too.
    pub(crate) fn watch_writes(&self, socket: &Socket, token: u64) -> io::Result<()> {
        match (self, socket) {
            (Self::Epoll { epoll, .. }, Socket::Kernel(fd)) => epoll.change(fd, token, Interest::StreamWrites),
            #[cfg(any(test, feature = "sim"))]
            (Self::Sim(driver), Socket::Sim(socket)) => {
                driver.register(socket, token, true);
                Ok(())
            }
            #[cfg(any(test, feature = "sim"))]
            _ => Err(foreign()),
        }
    }

    pub(crate) fn unregister(&self, socket: &Socket) -> io::Result<()> {
        match (self, socket) {
            (Self::Epoll { epoll, .. }, Socket::Kernel(fd)) => epoll.remove(fd),
            #[cfg(any(test, feature = "sim"))]
            (Self::Sim(driver), Socket::Sim(socket)) => {
                driver.unregister(socket);
                Ok(())
            }
            #[cfg(any(test, feature = "sim"))]
            _ => Err(foreign()),
        }
    }

    pub(crate) fn register_listener(&self, listener: &ListenSocket, token: u64) -> io::Result<()> {
        match (self, listener) {
            (Self::Epoll { epoll, .. }, ListenSocket::Kernel(fd)) => epoll.add(fd, token, Interest::SharedListener),
            #[cfg(any(test, feature = "sim"))]
            (Self::Sim(driver), ListenSocket::Sim(listener)) => {
                driver.register_listener(listener, token);
                Ok(())
            }
            #[cfg(any(test, feature = "sim"))]
            _ => Err(foreign()),
        }
    }

    pub(crate) fn unregister_listener(&self, listener: &ListenSocket) -> io::Result<()> {
        match (self, listener) {
            (Self::Epoll { epoll, .. }, ListenSocket::Kernel(fd)) => epoll.remove(fd),
            #[cfg(any(test, feature = "sim"))]
            (Self::Sim(driver), ListenSocket::Sim(listener)) => {
                driver.unregister_listener(listener);
                Ok(())
            }
            #[cfg(any(test, feature = "sim"))]
            _ => Err(foreign()),
        }
    }

    pub(crate) fn accept(&self, listener: &ListenSocket) -> io::Result<(Socket, Option<SocketAddr>)> {
        match (self, listener) {
            (Self::Epoll { .. }, ListenSocket::Kernel(fd)) => {
                sys::socket::accept(fd).map(|(fd, peer)| (Socket::Kernel(fd), peer))
            }
            #[cfg(any(test, feature = "sim"))]
            (Self::Sim(driver), ListenSocket::Sim(listener)) => {
                driver.accept(listener).map(|(socket, peer)| (Socket::Sim(socket), Some(peer)))
            }
            #[cfg(any(test, feature = "sim"))]
            _ => Err(foreign()),
        }
    }

    pub(crate) fn connect(&self, address: SocketAddr) -> io::Result<Socket> {
        match self {
            Self::Epoll { .. } => sys::socket::connect(address).map(Socket::Kernel),
            #[cfg(any(test, feature = "sim"))]
            Self::Sim(driver) => driver.connect(address).map(Socket::Sim),
        }
    }

    #[inline]
    pub(crate) fn wait(&self, timeout_ns: Option<u64>, deliver: impl FnMut(u64, Ready)) -> io::Result<usize> {
        match self {
            Self::Epoll { epoll, events } => epoll.wait(&mut events.borrow_mut(), timeout_ns, deliver),
            #[cfg(any(test, feature = "sim"))]
            Self::Sim(driver) => Ok(driver.wait(deliver)),
        }
    }
}

impl Socket {
    #[inline]
    pub(crate) fn receive(&self, into: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        match self {
            Self::Kernel(fd) => sys::socket::receive(fd, into),
            #[cfg(any(test, feature = "sim"))]
            Self::Sim(socket) => socket.receive(into),
        }
    }

    #[inline]
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Kernel(fd) => sys::socket::send(fd, bytes),
            #[cfg(any(test, feature = "sim"))]
            Self::Sim(socket) => socket.send(&[IoSlice::new(bytes)]),
        }
    }

    #[inline]
    pub(crate) fn send_gathered(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Kernel(fd) => sys::socket::send_gathered(fd, slices),
            #[cfg(any(test, feature = "sim"))]
            Self::Sim(socket) => socket.send(slices),
        }
    }

    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Kernel(fd) => sys::socket::shutdown_write(fd),
            #[cfg(any(test, feature = "sim"))]
            Self::Sim(socket) => socket.shutdown_write(),
        }
    }

    pub(crate) fn abort_on_close(&self) -> io::Result<()> {
        match self {
            Self::Kernel(fd) => sys::socket::abort_on_close(fd),
            #[cfg(any(test, feature = "sim"))]
            Self::Sim(socket) => socket.abort_on_close(),
        }
    }

    pub(crate) fn take_error(&self) -> io::Result<()> {
        match self {
            Self::Kernel(fd) => sys::socket::take_error(fd),
            #[cfg(any(test, feature = "sim"))]
            Self::Sim(socket) => socket.take_error(),
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        match self {
            Self::Kernel(fd) => sys::socket::is_quiet(fd),
            #[cfg(any(test, feature = "sim"))]
            Self::Sim(socket) => socket.is_quiet(),
        }
    }

    /// A second hold on the same socket.
    pub(crate) fn duplicate(&self) -> io::Result<Self> {
        match self {
            Self::Kernel(fd) => fd.try_clone().map(Self::Kernel),
            #[cfg(any(test, feature = "sim"))]
            Self::Sim(socket) => Ok(Self::Sim(std::sync::Arc::clone(socket))),
        }
    }

    pub(crate) fn local_address(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Self::Kernel(fd) => sys::socket::local_address(fd),
            #[cfg(any(test, feature = "sim"))]
            Self::Sim(socket) => Ok(Some(socket.local_address())),
        }
    }
}

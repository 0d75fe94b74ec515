//! The floors: what the kernel alone asks for the same work, so that a proxy's own cost can be read as a ratio.
//!
//! Each is a single-threaded, level-triggered epoll loop on non-blocking sockets: one `recv` and one `send` a message,
//! no parsing, no timeouts, no log, no probing for `EAGAIN` where it is not needed. They are not proxies: they trust that
//! one `recv` yields one whole request (true of the load generator, which does not pipeline).
//!
//! | floor | for | per request |
//! | --- | --- | --- |
//! | [`ready`] | hits on kept connections | recv, send of one ready response |
//! | [`sendfile`] | large hits that are not copied | recv, sendfile of one ready response |
//! | [`copy`] | pass-through and misses on kept connections | recv, send, recv, send between a client and its own origin connection |
//! | [`close`] | hits, one client connection a request | accept, recv, send, close |
//! | [`relay`] | pass-through, one client connection a request | accept, recv, send and recv on a kept origin connection, send, close |
//! | [`mux`] | key-value commands | recv and send of a client; of the server's connection, for all clients of a turn together |
//!
//! An idle connection costs [`copy`] a table slot of some tens of bytes: no buffer belongs to a connection.

mod close;
mod copy;
pub(crate) mod mux;
mod ready;
mod relay;
mod sendfile;

use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::event::epoll;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Events taken by one `epoll_wait`.
const EVENTS_MAX: usize = 256;
/// Bytes one `recv` can yield. As large as the large workloads' pieces, small enough to stay in the second cache.
const BUFFER_SIZE: usize = 256 * 1024;
/// Connections that may wait to be accepted: what the proxies get too.
const BACKLOG: i32 = 4096;
/// Connections accepted for one event of the listener.
const ACCEPT_MAX: usize = 64;
/// The listener's mark in the epoll set; connections are marked by their slot.
const LISTENER: u64 = u64::MAX;

/// Which floor, with what it must know beforehand.
#[derive(clap::Subcommand, Clone, Debug)]
pub(crate) enum Floor {
    /// recv, then send of one ready response
    Ready {
        /// Port on 127.0.0.1
        #[arg(long)]
        port: u16,
        /// Bytes of body in the response
        #[arg(long)]
        body: usize,
    },
    /// recv, then sendfile of one ready response
    Sendfile {
        /// Port on 127.0.0.1
        #[arg(long)]
        port: u16,
        /// Bytes of body in the response
        #[arg(long)]
        body: usize,
    },
    /// Bytes copied between a client and its own origin connection
    Copy {
        /// Port on 127.0.0.1
        #[arg(long)]
        port: u16,
        /// The origin's port on 127.0.0.1
        #[arg(long)]
        origin: u16,
    },
    /// accept, recv, send of one ready response, close
    Close {
        /// Port on 127.0.0.1
        #[arg(long)]
        port: u16,
        /// Bytes of body in the response
        #[arg(long)]
        body: usize,
    },
    /// accept, recv, send and recv on a kept origin connection, send, close
    Relay {
        /// Port on 127.0.0.1
        #[arg(long)]
        port: u16,
        /// The origin's port on 127.0.0.1
        #[arg(long)]
        origin: u16,
        /// The path that is asked of the origin, whatever the client asks
        #[arg(long)]
        path: String,
    },
    /// Key-value commands of fixed length over one connection to a server
    Mux {
        /// Port on 127.0.0.1
        #[arg(long)]
        port: u16,
        /// The server's port on 127.0.0.1
        #[arg(long)]
        server: u16,
        /// Threads, each with its own listener, clients and connection
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// The lengths
        #[command(flatten)]
        shape: mux::Shape,
    },
}

/// Runs a floor until it is killed.
pub(crate) fn run(floor: &Floor) -> io::Result<()> {
    match floor {
        Floor::Ready { port, body } => ready::run(*port, *body),
        Floor::Sendfile { port, body } => sendfile::run(*port, *body),
        Floor::Copy { port, origin } => copy::run(*port, *origin),
        Floor::Close { port, body } => close::run(*port, *body),
        Floor::Relay { port, origin, path } => relay::run(*port, *origin, path),
        Floor::Mux { port, server, threads, shape } => mux::run(*port, *server, *threads, *shape),
    }
}

/// A ready response of `body` bytes, its head like that of a small cache.
fn ready_response(body: usize, connection: &str) -> Vec<u8> {
    let mut response = format!(
        "HTTP/1.1 200 OK\r\nServer: floor\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\nContent-Type: text/plain\r\n\
         Cache-Control: max-age=3600\r\nAge: 1\r\nContent-Length: {body}\r\nConnection: {connection}\r\n\r\n"
    )
    .into_bytes();
    response.extend(crate::origin::body_of_size(body));
    response
}

fn local(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

/// A listener. `TCP_NODELAY` is inherited by what it accepts.
fn listen(port: u16) -> io::Result<OwnedFd> {
    listen_with(port, false)
}

/// One of several that share the port, or the only one.
fn listen_with(port: u16, shared: bool) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let listener = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    rustix::net::sockopt::set_socket_reuseport(&listener, shared)?;
    rustix::net::sockopt::set_socket_reuseaddr(&listener, true)?;
    rustix::net::sockopt::set_tcp_nodelay(&listener, true)?;
    rustix::net::bind(&listener, &local(port))?;
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// A connection to the origin: connected blocking, then made non-blocking.
fn connect(port: u16) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &local(port))?;
    rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

/// Room for the events of one wait.
fn event_room() -> Vec<epoll::Event> {
    vec![epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; EVENTS_MAX]
}

/// Waits; a signal in between is not an error.
fn wait(epoll: &OwnedFd, room: &mut [epoll::Event]) -> io::Result<usize> {
    match epoll::wait(epoll, &mut *room, None) {
        Ok(count) => Ok(count),
        Err(rustix::io::Errno::INTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

fn add(epoll: &OwnedFd, fd: &OwnedFd, mark: u64, flags: epoll::EventFlags) -> io::Result<()> {
    Ok(epoll::add(epoll, fd, epoll::EventData::new_u64(mark), flags)?)
}

/// What one `recv` said.
enum Received {
    /// So many bytes are in the buffer.
    Bytes(usize),
    /// Nothing there yet.
    Later,
    /// The peer has closed or broken the connection.
    Ended,
}

fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> Received {
    match rustix::net::recv(fd, buffer, RecvFlags::empty()) {
        Ok((0, _)) => Received::Ended,
        Ok((count, _)) => Received::Bytes(count),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Received::Later,
        Err(_) => Received::Ended,
    }
}

/// One `send`: how many bytes the kernel took, `None` when the connection is broken.
fn transmit(fd: &OwnedFd, bytes: &[u8]) -> Option<usize> {
    match rustix::net::send(fd, bytes, SendFlags::NOSIGNAL) {
        Ok(count) => Some(count),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Some(0),
        Err(_) => None,
    }
}

/// Accepts one connection, non-blocking; `None` when no more wait.
fn accept(listener: &OwnedFd) -> Option<OwnedFd> {
    rustix::net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC).ok()
}

/// Slots with a free list: the smallest table of connections there is.
struct Slots<T> {
    slots: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Slots<T> {
    fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    fn insert(&mut self, value: T) -> usize {
        if let Some(slot) = self.free.pop() {
            self.slots[slot] = Some(value);
            slot
        } else {
            self.slots.push(Some(value));
            self.slots.len() - 1
        }
    }

    fn at(&mut self, slot: usize) -> Option<&mut T> {
        self.slots.get_mut(slot).and_then(Option::as_mut)
    }

    fn remove(&mut self, slot: usize) {
        if self.slots.get_mut(slot).and_then(Option::take).is_some() {
            self.free.push(slot);
        }
    }
}

/// A slot as an epoll mark and back. `usize` has 64 bits wherever this program runs.
const _: () = assert!(size_of::<usize>() == size_of::<u64>());

#[expect(clippy::cast_possible_truncation, reason = "asserted above: usize has 64 bits")]
fn slot_of(mark: u64) -> usize {
    mark as usize
}

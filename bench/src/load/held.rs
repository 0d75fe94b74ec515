//! Connections that are used once and then held open: what an idle client costs.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use crate::error::{Doing, Outcome, Trouble};
use crate::probe;

/// Connections that share one source address: below the number of ephemeral ports, with room for others.
const CONNECTIONS_PER_SOURCE: usize = 20_000;
/// Bound of each wait on one connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Open connections to one port.
pub(crate) struct Held {
    port: u16,
    path: String,
    streams: Vec<TcpStream>,
}

impl Held {
    /// Opens `count` connections one after the other, and on each makes one request.
    pub(crate) fn open(port: u16, path: &str, count: usize) -> Outcome<Self> {
        let mut held = Self { port, path: path.to_owned(), streams: Vec::with_capacity(count) };
        for number in 0..count {
            let last = u8::try_from(1 + number / CONNECTIONS_PER_SOURCE).unwrap_or(u8::MAX);
            let mut stream = connect_from(Ipv4Addr::new(127, 0, 0, last), port)
                .map_err(|trouble| Trouble::Wrong(format!("connection {number} of {count}: {trouble}")))?;
            ask(&mut stream, port, path)?;
            held.streams.push(stream);
        }
        Ok(held)
    }

    /// Makes one more request on each.
    pub(crate) fn use_again(&mut self) -> Outcome<()> {
        for stream in &mut self.streams {
            ask(stream, self.port, &self.path)?;
        }
        Ok(())
    }

    /// How many the other side has not closed.
    pub(crate) fn living(&self) -> usize {
        self.streams
            .iter()
            .filter(|stream| {
                let mut byte = [0_u8; 1];
                let peeked = rustix::net::recv(*stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
                matches!(peeked, Err(rustix::io::Errno::AGAIN))
            })
            .count()
    }
}

fn connect_from(source: Ipv4Addr, port: u16) -> Outcome<TcpStream> {
    let socket: OwnedFd = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .doing("making a socket")?;
    rustix::net::bind(&socket, &SocketAddr::V4(SocketAddrV4::new(source, 0))).doing("binding a source")?;
    rustix::net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).doing("connecting")?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).doing("setting a timeout")?;
    stream.set_write_timeout(Some(PATIENCE)).doing("setting a timeout")?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream, port: u16, path: &str) -> Outcome<()> {
    let answer = probe::exchange(stream, port, path, &[])?;
    if answer.status == 200 { Ok(()) } else { Err(Trouble::Wrong(format!("{path}: status {}", answer.status))) }
}

//! Connections that are used once and then held open: what an idle client costs.

use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use rustix::net::RecvFlags;

use crate::error::{Doing, Outcome, Trouble};
use crate::probe;

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
            let mut stream = connect(port)
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

/// The source port is left to the kernel: it may then share one with connections to other ports.
fn connect(port: u16) -> Outcome<TcpStream> {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let stream = TcpStream::connect_timeout(&address.into(), PATIENCE).doing("connecting")?;
    stream.set_read_timeout(Some(PATIENCE)).doing("setting a timeout")?;
    stream.set_write_timeout(Some(PATIENCE)).doing("setting a timeout")?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream, port: u16, path: &str) -> Outcome<()> {
    let answer = probe::exchange(stream, port, path, &[])?;
    if answer.status == 200 { Ok(()) } else { Err(Trouble::Wrong(format!("{path}: status {}", answer.status))) }
}

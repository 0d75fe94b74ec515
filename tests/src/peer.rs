//! One end of a raw connection.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::PATIENCE;
use crate::message::{End, Framing, Kind, Message, fields};

/// A head that is longer than this is none.
const HEAD_MAX: usize = 1 << 20;

/// One end of a raw connection. Every read and write has a bound.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    /// Read and not yet used.
    ahead: Vec<u8>,
}

impl Peer {
    /// Connects.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    /// Connects, if somebody listens.
    ///
    /// # Errors
    /// Why not.
    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect_timeout(&address, PATIENCE).map(Self::over)
    }

    /// Connects, and asks before for a small receive buffer, so that what is not read stays with the sender.
    #[must_use]
    pub fn connect_narrow(address: SocketAddr) -> Self {
        use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = socket(family, SocketType::STREAM, None).unwrap();
        sockopt::set_socket_recv_buffer_size(&fd, 4096).unwrap();
        connect(&fd, &address).unwrap();
        Self::over(fd.into())
    }

    /// Over a connection that is there.
    #[must_use]
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, ahead: Vec::new() }
    }

    /// The socket.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The socket alone; what was read and not used is lost.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Sends.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    /// Sends, if the other end takes it.
    ///
    /// # Errors
    /// Why not.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends every byte in a segment of its own.
    pub fn send_byte_by_byte(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref().chunks(1) {
            self.send(byte);
            // Long enough for the other end to wake up and see just this.
            crate::pause(Duration::from_micros(200));
        }
    }

    /// Ends the own direction.
    pub fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Closes with a reset.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }

    /// Reads more. `None`: something came.
    fn fill(&mut self) -> Option<End> {
        let mut block = [0; 16 << 10];
        match self.stream.read(&mut block) {
            Ok(0) => Some(End::Eof),
            Ok(n) => {
                self.ahead.extend_from_slice(&block[..n]);
                None
            }
            Err(error) => match error.kind() {
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Some(End::Reset),
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Some(End::Late),
                ErrorKind::Interrupted => None,
                _ => panic!("receiving: {error}"),
            },
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.ahead.split_off(count);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// Up to and with the first `end`, searched in what comes.
    fn through(&mut self, end: &[u8]) -> Result<Vec<u8>, End> {
        let mut from = 0;
        loop {
            if let Some(at) = self.ahead[from..].windows(end.len()).position(|window| window == end) {
                return Ok(self.take(from + at + end.len()));
            }
            assert!(self.ahead.len() < HEAD_MAX, "no end of a head in {} bytes", self.ahead.len());
            from = self.ahead.len().saturating_sub(end.len() - 1);
            if let Some(end) = self.fill() {
                return Err(end);
            }
        }
    }

    /// Reads the next message. One without a head has an empty first line, or what came instead.
    pub fn receive(&mut self, kind: Kind<'_>) -> Message {
        let message = self.receive_head();
        if message.end == End::Whole { self.receive_content(message, kind) } else { message }
    }

    /// Reads what follows a head that was read alone.
    pub fn receive_content(&mut self, mut message: Message, kind: Kind<'_>) -> Message {
        message.end = match message.framing(kind) {
            Framing::None => End::Whole,
            Framing::Length(length) => self.receive_length(length, &mut message.body),
            Framing::Chunked => self.receive_chunks(&mut message),
            Framing::UntilClose => loop {
                let end = self.fill();
                message.body.append(&mut self.ahead);
                match end {
                    None => {}
                    Some(End::Eof) => break End::Whole,
                    Some(end) => break end,
                }
            },
        };
        message
    }

    /// Reads a head alone.
    pub fn receive_head(&mut self) -> Message {
        match self.through(b"\r\n\r\n") {
            Ok(head) => Message::of_head(&head),
            Err(end) => {
                let start = String::from_utf8_lossy(&self.ahead).into_owned();
                Message { start, ..Message::none(end) }
            }
        }
    }

    fn receive_length(&mut self, length: usize, body: &mut Vec<u8>) -> End {
        while self.ahead.len() < length {
            if let Some(end) = self.fill() {
                body.append(&mut self.ahead);
                return end;
            }
        }
        body.append(&mut self.take(length));
        End::Whole
    }

    fn receive_chunks(&mut self, message: &mut Message) -> End {
        loop {
            let line = match self.through(b"\r\n") {
                Ok(line) => line,
                Err(end) => return end,
            };
            let size = String::from_utf8_lossy(&line);
            let size = size.trim_end().split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("no chunk size: {line:?}"));
            if size == 0 {
                break;
            }
            match self.receive_length(size, &mut message.body) {
                End::Whole => {}
                end => return end,
            }
            match self.through(b"\r\n") {
                Ok(end) => assert_eq!(end, b"\r\n", "behind a chunk"),
                Err(end) => return end,
            }
        }
        loop {
            match self.through(b"\r\n") {
                Ok(line) if line == b"\r\n" => return End::Whole,
                Ok(line) => message.trailers.extend(fields(String::from_utf8_lossy(&line).lines())),
                Err(end) => return end,
            }
        }
    }

    /// Reads a request; `None` when the connection ended before one began.
    pub fn request(&mut self) -> Option<Message> {
        let message = self.receive(Kind::Request);
        if message.start.is_empty() { None } else { Some(message) }
    }

    /// Reads a response that must be whole.
    pub fn response_to(&mut self, method: &str) -> Message {
        let message = self.receive(Kind::ResponseTo(method));
        assert_eq!(message.end, End::Whole, "{message:?}");
        message
    }

    /// Reads a response to GET that must be whole.
    pub fn response(&mut self) -> Message {
        self.response_to("GET")
    }

    /// Reads a response to GET that may be broken.
    pub fn response_if_any(&mut self) -> Message {
        self.receive(Kind::ResponseTo("GET"))
    }

    /// Sends a request and reads its response.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Message {
        let method = String::from_utf8_lossy(request.as_ref()).split(' ').next().unwrap_or_default().to_owned();
        self.send(request);
        self.response_to(&method)
    }

    /// Sends GET for a path of `a.example` and reads its response.
    pub fn get(&mut self, path: &str) -> Message {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n"))
    }

    /// Reads until the connection ends; says how, and what came.
    pub fn rest(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Some(end) = self.fill() {
                return (std::mem::take(&mut self.ahead), end);
            }
        }
    }

    /// The connection ends here, with nothing before its end.
    pub fn assert_closed(&mut self) {
        let (bytes, end) = self.rest();
        assert!(bytes.is_empty(), "something came: {:?}", String::from_utf8_lossy(&bytes));
        assert!(end != End::Late, "the connection is open");
    }

    /// Nothing comes within `time`, and the connection stays open.
    pub fn assert_silent(&mut self, time: Duration) {
        assert!(self.ahead.is_empty(), "something came: {:?}", String::from_utf8_lossy(&self.ahead));
        self.stream.set_read_timeout(Some(time)).unwrap();
        let end = self.fill();
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(end, Some(End::Late), "something came: {:?}", String::from_utf8_lossy(&self.ahead));
    }

    /// Reads so many bytes of content past a head, and hands them out as they come. Says how many came.
    pub fn stream_body(&mut self, length: u64, mut each: impl FnMut(&[u8])) -> u64 {
        let mut left = length;
        let mut block = vec![0; 256 << 10];
        while left > 0 {
            if !self.ahead.is_empty() {
                let count = self.ahead.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                each(&self.take(count));
                left -= count as u64;
                continue;
            }
            let room = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match self.stream.read(&mut block[..room]) {
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    each(&block[..n]);
                    left -= n as u64;
                }
            }
        }
        length - left
    }
}

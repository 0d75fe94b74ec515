//! The floor under pass-through with one client connection a request: accept, recv, send and recv on a kept origin
//! connection, send, close.
//!
//! The origin must not see the client's `Connection: close`, and the client must be told it: so the origin is sent one
//! ready request, and in its response the word `keep-alive` is overwritten by `close` and spaces at the place where the
//! first response had it. The length of the first response is that of all. Idle origin connections wait on a stack;
//! when it is empty a new one is made.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, EventFlags};

use super::{ACCEPT_MAX, BUFFER_SIZE, LISTENER, Received, Slots};
use crate::error::Trouble;

/// The bytes that tell the client, and those they replace.
const KEEP_ALIVE: &[u8] = b"keep-alive";
const CLOSE: &[u8] = b"close     ";

/// One connection, client's or origin's; both live in one table.
enum End {
    /// A client whose request has not come yet.
    Client(OwnedFd),
    /// An origin connection, with the client it works for.
    Origin { fd: OwnedFd, client: Option<OwnedFd>, received: usize },
}

/// What is known of every response beforehand.
struct Shape {
    length: usize,
    keep_alive_at: usize,
}

pub(super) fn run(port: u16, origin: u16, path: &str) -> io::Result<()> {
    let shape = first_shape(origin, path)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{origin}\r\n\r\n").into_bytes();
    let listener = super::listen(port)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    super::add(&epoll, &listener, LISTENER, EventFlags::IN)?;
    let mut relay = Relay { epoll, origin, request, shape, ends: Slots::new(), idle: Vec::new() };
    let mut events = super::event_room();
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        let count = super::wait(&relay.epoll, &mut events)?;
        let mut accepting = false;
        for event in &events[..count] {
            match event.data.u64() {
                LISTENER => accepting = true,
                mark => relay.ready(super::slot_of(mark), &mut buffer)?,
            }
        }
        if accepting {
            for client in std::iter::from_fn(|| super::accept(&listener)).take(ACCEPT_MAX) {
                relay.accepted(client)?;
            }
        }
    }
}

/// Asks the origin once and learns how long its response is and where it says `keep-alive`.
fn first_shape(origin: u16, path: &str) -> io::Result<Shape> {
    let unfit = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let answer = crate::probe::get(origin, path, &[]).map_err(|trouble| match trouble {
        Trouble::Io(_, error) => error,
        other => unfit(&other.to_string()),
    })?;
    let at = answer.head.windows(KEEP_ALIVE.len()).position(|window| window == KEEP_ALIVE);
    let keep_alive_at = at.ok_or_else(|| unfit("the origin's response does not say keep-alive"))?;
    Ok(Shape { length: answer.head.len() + answer.body.len(), keep_alive_at })
}

struct Relay {
    epoll: OwnedFd,
    origin: u16,
    request: Vec<u8>,
    shape: Shape,
    ends: Slots<End>,
    idle: Vec<usize>,
}

impl Relay {
    /// Waits for the client's request: once, since after it only the origin's answer matters, and closing removes it.
    fn accepted(&mut self, client: OwnedFd) -> io::Result<()> {
        let slot = self.ends.insert(End::Client(client));
        if let Some(End::Client(fd)) = self.ends.at(slot) {
            super::add(&self.epoll, fd, slot as u64, EventFlags::IN | EventFlags::ONESHOT)?;
        }
        Ok(())
    }

    /// Sends the ready request on an idle origin connection, or on a new one.
    fn ask(&mut self, client: OwnedFd) -> io::Result<()> {
        let slot = match self.idle.pop() {
            Some(slot) => slot,
            None => {
                let fd = super::connect(self.origin)?;
                let slot = self.ends.insert(End::Origin { fd, client: None, received: 0 });
                if let Some(End::Origin { fd, .. }) = self.ends.at(slot) {
                    super::add(&self.epoll, fd, slot as u64, EventFlags::IN)?;
                }
                slot
            }
        };
        if let Some(End::Origin { fd, client: working_for, received }) = self.ends.at(slot) {
            super::transmit(fd, &self.request);
            *working_for = Some(client);
            *received = 0;
        }
        Ok(())
    }

    fn ready(&mut self, slot: usize, buffer: &mut [u8]) -> io::Result<()> {
        match self.ends.at(slot) {
            None => {}
            Some(End::Client(fd)) => {
                let received = super::receive(fd, buffer);
                if matches!(received, Received::Later) {
                    return Ok(());
                }
                let taken = self.ends.slots[slot].take();
                self.ends.free.push(slot);
                if let (Received::Bytes(_), Some(End::Client(fd))) = (received, taken) {
                    self.ask(fd)?;
                }
            }
            Some(End::Origin { fd, client, received }) => match super::receive(fd, buffer) {
                Received::Later => {}
                Received::Ended => {
                    self.idle.retain(|idle| *idle != slot);
                    self.ends.remove(slot);
                }
                Received::Bytes(count) => {
                    let place = self.shape.keep_alive_at..self.shape.keep_alive_at + KEEP_ALIVE.len();
                    if *received == 0 && count >= place.end && buffer[place.clone()] == *KEEP_ALIVE {
                        buffer[place].copy_from_slice(CLOSE);
                    }
                    if let Some(client) = client {
                        super::transmit(client, &buffer[..count]);
                    }
                    *received += count;
                    if *received >= self.shape.length {
                        drop(client.take());
                        self.idle.push(slot);
                    }
                }
            },
        }
        Ok(())
    }
}

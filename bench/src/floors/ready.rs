//! The floor under hits: recv, then send of one ready response.
//!
//! What a response of more than the socket buffer leaves unsent is sent when the socket takes more: one integer per
//! connection says where.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, EventFlags};

use super::{ACCEPT_MAX, BUFFER_SIZE, LISTENER, Received, Slots};

struct Connection {
    fd: OwnedFd,
    /// Bytes of the response already sent, while it is on its way.
    sent: Option<usize>,
}

pub(super) fn run(port: u16, body: usize) -> io::Result<()> {
    let response = super::ready_response(body, "keep-alive");
    let listener = super::listen(port)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    super::add(&epoll, &listener, LISTENER, EventFlags::IN)?;
    let mut events = super::event_room();
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut connections: Slots<Connection> = Slots::new();
    loop {
        let count = super::wait(&epoll, &mut events)?;
        for event in &events[..count] {
            let mark = event.data.u64();
            if mark == LISTENER {
                for fd in std::iter::from_fn(|| super::accept(&listener)).take(ACCEPT_MAX) {
                    let slot = connections.insert(Connection { fd, sent: None });
                    if let Some(connection) = connections.at(slot) {
                        super::add(&epoll, &connection.fd, slot as u64, EventFlags::IN)?;
                    }
                }
                continue;
            }
            let slot = super::slot_of(mark);
            let Some(connection) = connections.at(slot) else { continue };
            if !serve(connection, &epoll, slot, &mut buffer, &response)? {
                connections.remove(slot);
            }
        }
    }
}

/// One event of one connection; false when it has ended.
fn serve(
    connection: &mut Connection,
    epoll: &OwnedFd,
    slot: usize,
    buffer: &mut [u8],
    response: &[u8],
) -> io::Result<bool> {
    let before = match connection.sent {
        Some(sent) => sent,
        None => match super::receive(&connection.fd, buffer) {
            Received::Bytes(_) => 0,
            Received::Later => return Ok(true),
            Received::Ended => return Ok(false),
        },
    };
    let Some(now) = super::transmit(&connection.fd, &response[before..]) else { return Ok(false) };
    let left = before + now < response.len();
    if left != connection.sent.is_some() {
        let interest = if left { EventFlags::OUT } else { EventFlags::IN };
        epoll::modify(epoll, &connection.fd, epoll::EventData::new_u64(slot as u64), interest)?;
    }
    connection.sent = left.then_some(before + now);
    Ok(true)
}

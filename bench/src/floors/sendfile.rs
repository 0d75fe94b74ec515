//! The floor under large hits that are not copied: recv, then sendfile of one ready response from a memory file.
//!
//! What the socket does not take at once is sent when it takes more, as in [`super::ready`].

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, EventFlags};
use rustix::fs::MemfdFlags;

use super::{ACCEPT_MAX, BUFFER_SIZE, LISTENER, Received, Slots};

struct Connection {
    fd: OwnedFd,
    /// Bytes of the response already sent, while it is on its way.
    sent: Option<u64>,
}

/// The response in a memory file.
struct Ready {
    file: File,
    length: u64,
}

pub(super) fn run(port: u16, body: usize) -> io::Result<()> {
    let response = super::ready_response(body, "keep-alive");
    let mut file = File::from(rustix::fs::memfd_create("response", MemfdFlags::CLOEXEC)?);
    file.write_all(&response)?;
    let ready = Ready { file, length: response.len() as u64 };
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
            if !serve(connection, &epoll, slot, &mut buffer, &ready)? {
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
    ready: &Ready,
) -> io::Result<bool> {
    let mut at = match connection.sent {
        Some(sent) => sent,
        None => match super::receive(&connection.fd, buffer) {
            Received::Bytes(_) => 0,
            Received::Later => return Ok(true),
            Received::Ended => return Ok(false),
        },
    };
    let left = usize::try_from(ready.length - at).unwrap_or(usize::MAX);
    match rustix::fs::sendfile(&connection.fd, &ready.file, Some(&mut at), left) {
        Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
        Err(_) => return Ok(false),
    }
    let unsent = at < ready.length;
    if unsent != connection.sent.is_some() {
        let interest = if unsent { EventFlags::OUT } else { EventFlags::IN };
        epoll::modify(epoll, &connection.fd, epoll::EventData::new_u64(slot as u64), interest)?;
    }
    connection.sent = unsent.then_some(at);
    Ok(true)
}

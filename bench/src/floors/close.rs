//! The floor under hits with one client connection a request: accept, recv, send of one ready response, close.
//!
//! A connection is always put into the epoll set first: the request is rarely there when the connection is accepted, and
//! a `recv` in vain costs as much as it would save.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, EventFlags};

use super::{ACCEPT_MAX, BUFFER_SIZE, LISTENER, Received, Slots};

pub(super) fn run(port: u16, body: usize) -> io::Result<()> {
    let response = super::ready_response(body, "close");
    let listener = super::listen(port)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    super::add(&epoll, &listener, LISTENER, EventFlags::IN)?;
    let mut events = super::event_room();
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut connections: Slots<OwnedFd> = Slots::new();
    loop {
        let count = super::wait(&epoll, &mut events)?;
        let mut accepting = false;
        for event in &events[..count] {
            let mark = event.data.u64();
            accepting |= mark == LISTENER;
            let slot = super::slot_of(mark);
            if connections.at(slot).is_some_and(|fd| served(fd, &mut buffer, &response)) {
                connections.remove(slot);
            }
        }
        if accepting {
            for fd in std::iter::from_fn(|| super::accept(&listener)).take(ACCEPT_MAX) {
                let slot = connections.insert(fd);
                if let Some(fd) = connections.at(slot) {
                    super::add(&epoll, fd, slot as u64, EventFlags::IN)?;
                }
            }
        }
    }
}

/// True when the connection is done with, well or badly; false when its request is not there yet.
fn served(fd: &OwnedFd, buffer: &mut [u8], response: &[u8]) -> bool {
    match super::receive(fd, buffer) {
        Received::Later => return false,
        Received::Bytes(_) => {
            super::transmit(fd, response);
        }
        Received::Ended => {}
    }
    true
}

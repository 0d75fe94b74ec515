//! The floor under pass-through and misses: bytes copied between a client and its own origin connection.
//!
//! Per request four transfers: recv and send each way. What one side does not take at once waits in a buffer of the
//! pair, and the other side is not read until it is gone.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, EventFlags};

use super::{ACCEPT_MAX, BUFFER_SIZE, LISTENER, Received, Slots};

/// The two ends. `ends[0]` is the client, `ends[1]` the origin.
struct Pair {
    ends: [OwnedFd; 2],
    /// What the end with the same index has not taken yet. Unallocated while empty.
    waiting: [Vec<u8>; 2],
}

pub(super) fn run(port: u16, origin: u16) -> io::Result<()> {
    let listener = super::listen(port)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    super::add(&epoll, &listener, LISTENER, EventFlags::IN)?;
    let mut events = super::event_room();
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut pairs: Slots<Pair> = Slots::new();
    loop {
        let count = super::wait(&epoll, &mut events)?;
        for event in &events[..count] {
            let mark = event.data.u64();
            if mark == LISTENER {
                for client in std::iter::from_fn(|| super::accept(&listener)).take(ACCEPT_MAX) {
                    let ends = [client, super::connect(origin)?];
                    let slot = pairs.insert(Pair { ends, waiting: [Vec::new(), Vec::new()] });
                    if let Some(pair) = pairs.at(slot) {
                        super::add(&epoll, &pair.ends[0], mark_of(slot, 0), EventFlags::IN)?;
                        super::add(&epoll, &pair.ends[1], mark_of(slot, 1), EventFlags::IN)?;
                    }
                }
                continue;
            }
            let (slot, end) = (super::slot_of(mark / 2), super::slot_of(mark % 2));
            let Some(pair) = pairs.at(slot) else { continue };
            if !pair.serve(&epoll, slot, end, event.flags, &mut buffer)? {
                pairs.remove(slot);
            }
        }
    }
}

fn mark_of(slot: usize, end: usize) -> u64 {
    (slot * 2 + end) as u64
}

impl Pair {
    /// One event of one end; false when the pair has ended.
    fn serve(
        &mut self,
        epoll: &OwnedFd,
        slot: usize,
        end: usize,
        flags: EventFlags,
        buffer: &mut [u8],
    ) -> io::Result<bool> {
        let other = 1 - end;
        if flags.contains(EventFlags::OUT) {
            let Some(taken) = super::transmit(&self.ends[end], &self.waiting[end]) else { return Ok(false) };
            self.waiting[end].drain(..taken);
            if self.waiting[end].is_empty() {
                self.waiting[end] = Vec::new();
                self.interest(epoll, slot)?;
            }
        } else {
            let count = match super::receive(&self.ends[end], buffer) {
                Received::Bytes(count) => count,
                Received::Later => return Ok(true),
                Received::Ended => return Ok(false),
            };
            let Some(taken) = super::transmit(&self.ends[other], &buffer[..count]) else { return Ok(false) };
            if taken < count {
                self.waiting[other].extend_from_slice(&buffer[taken..count]);
                self.interest(epoll, slot)?;
            }
        }
        Ok(true)
    }

    /// An end that must take more is watched for that; one whose other end must take more is not read.
    fn interest(&self, epoll: &OwnedFd, slot: usize) -> io::Result<()> {
        for end in [0, 1] {
            let mut flags = EventFlags::empty();
            flags.set(EventFlags::OUT, !self.waiting[end].is_empty());
            flags.set(EventFlags::IN, self.waiting[1 - end].is_empty() && self.waiting[end].is_empty());
            epoll::modify(epoll, &self.ends[end], epoll::EventData::new_u64(mark_of(slot, end)), flags)?;
        }
        Ok(())
    }
}

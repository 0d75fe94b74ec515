//! One end of a simulated connection: what its kernel keeps, and what it says when asked. Pure; what happens when is
//! the business of `network`.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::time::Duration;

use base::Rng;
use sys::epoll::Ready;

use super::faults::{Faults, duration_within, hits, size_within};

// Linux's numbers, for `io::Error::from_raw_os_error`.
pub(super) const EMFILE: i32 = 24;
pub(super) const EPIPE: i32 = 32;
pub(super) const ENETUNREACH: i32 = 101;
pub(super) const ECONNRESET: i32 = 104;
pub(super) const ENOTCONN: i32 = 107;
pub(super) const ETIMEDOUT: i32 = 110;
pub(super) const ECONNREFUSED: i32 = 111;

pub(super) fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Connecting,
    Open,
    /// Reset, refused, or given up: nothing moves any more.
    Dead,
}

/// Who is told of readiness.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub(super) driver: usize,
    pub(super) token: u64,
    pub(super) writes: bool,
    /// In its driver's list.
    pub(super) pending: bool,
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) rng: Rng,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) phase: Phase,
    pub(super) incoming: VecDeque<u8>,
    incoming_max: usize,
    /// Sent and not delivered, on this side or on its way.
    pub(super) outgoing: VecDeque<u8>,
    outgoing_max: usize,
    pub(super) end_received: bool,
    pub(super) end_sent: bool,
    pub(super) end_delivered: bool,
    /// A send found no room: tell when there is.
    pub(super) wants_room: bool,
    pub(super) error: Option<i32>,
    pub(super) abort_on_close: bool,
    /// Nobody holds it any more.
    pub(super) orphan: bool,
    pub(super) watch: Option<Watch>,
    /// A delivery is due.
    pub(super) travelling: bool,
    /// Nothing is delivered any more, and nobody is told.
    pub(super) cut: bool,
    pub(super) latency: Duration,
    segment_max: usize,
}

impl End {
    pub(super) fn new(seed: u64, faults: &Faults, local: SocketAddr, peer: SocketAddr) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            local,
            peer,
            phase: Phase::Connecting,
            incoming: VecDeque::new(),
            incoming_max: size_within(&mut rng, faults.buffer).max(1),
            outgoing: VecDeque::new(),
            outgoing_max: size_within(&mut rng, faults.buffer).max(1),
            end_received: false,
            end_sent: false,
            end_delivered: false,
            wants_room: false,
            error: None,
            abort_on_close: false,
            orphan: false,
            watch: None,
            travelling: false,
            cut: false,
            latency: duration_within(&mut rng, faults.latency),
            segment_max: size_within(&mut rng, [faults.segment_min, faults.segment_max]),
            rng,
        }
    }

    /// What epoll would say. A look that finds no room asks to be told of it, as the kernel's does.
    pub(super) fn readiness(&mut self) -> Ready {
        match self.phase {
            Phase::Connecting => Ready::default(),
            Phase::Dead => {
                let over = Ready::READ.with(Ready::WRITE).with(Ready::READ_CLOSED).with(Ready::HANG_UP);
                if self.error.is_some() { over.with(Ready::ERROR) } else { over }
            }
            Phase::Open => {
                let mut ready = Ready::default();
                if !self.incoming.is_empty() {
                    ready = ready.with(Ready::READ);
                }
                if self.end_received {
                    ready = ready.with(Ready::READ).with(Ready::READ_CLOSED);
                }
                if self.end_received && self.end_sent {
                    ready = ready.with(Ready::HANG_UP);
                }
                if self.end_sent || self.has_room() {
                    ready = ready.with(Ready::WRITE);
                } else {
                    self.wants_room = true;
                }
                ready
            }
        }
    }

    /// Writable means a third of the buffer, as in Linux: not each byte that leaves is told.
    pub(super) fn has_room(&self) -> bool {
        (self.outgoing_max - self.outgoing.len()) * 3 >= self.outgoing_max
    }

    pub(super) fn receive(&mut self, into: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        if self.phase == Phase::Connecting {
            return Err(errno(ENOTCONN));
        }
        let n = self.incoming.len().min(into.len());
        if n > 0 {
            for (place, byte) in into.iter_mut().zip(self.incoming.drain(..n)) {
                place.write(byte);
            }
            return Ok(n);
        }
        if self.end_received {
            return Ok(0);
        }
        if let Some(code) = self.error.take() {
            return Err(errno(code));
        }
        if self.phase == Phase::Dead { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.phase == Phase::Open && self.incoming.is_empty() && !self.end_received && self.error.is_none()
    }

    pub(super) fn send(&mut self, faults: &Faults, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.phase == Phase::Dead || self.end_sent || self.error.is_some() {
            return Err(errno(self.error.take().unwrap_or(EPIPE)));
        }
        let mut room = self.outgoing_max - self.outgoing.len();
        if self.phase == Phase::Connecting || room == 0 {
            self.wants_room = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if hits(&mut self.rng, faults.short_send) {
            room = size_within(&mut self.rng, [1, room]);
        }
        let before = self.outgoing.len();
        for slice in slices {
            let taken = slice.len().min(room);
            self.outgoing.extend(&slice[..taken]);
            room -= taken;
        }
        Ok(self.outgoing.len() - before)
    }

    /// How many of `waiting` bytes arrive here next.
    pub(super) fn next_segment(&mut self, waiting: usize) -> usize {
        let room = self.incoming_max - self.incoming.len();
        let most = waiting.min(room);
        if most <= 1 {
            return most;
        }
        let most = most.min(self.segment_max);
        if self.rng.one_in(4) { size_within(&mut self.rng, [1, most]) } else { most }
    }
}

//! A request that is too large for a block: put together in memory of its own, up to a bound.

use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use base::Instant;
use buf::{Block, SizeClass};
use event::Action;

use super::STALLED_MAX;
use super::requests::Outcome;
use super::{Client, Phase};
use crate::memory::Kept;
use crate::plan::Protocol;
use crate::wire::memcached;
use crate::wire::resp::{Malformed, Request, Scan};

/// The largest request that is put together.
const GATHERED_MAX: usize = 64 << 20;
/// Bytes taken in a turn.
const TURN_MAX: usize = 1 << 20;

/// A request as far as it has come.
pub(super) struct Gathered {
    /// When something of it came last.
    progress: Instant,
    watch: Option<Action>,
    /// Of the bytes those that are counted.
    kept: Kept,
    bytes: Vec<u8>,
    /// How many of them have been looked at.
    looked: usize,
    request: Request,
    /// All of it, and what came behind it.
    whole: Option<(Arc<[u8]>, Block)>,
}

impl Gathered {
    /// What it takes: its bytes, and the list of its arguments.
    fn size(&self) -> usize {
        self.bytes.len() + self.request.arguments_room() * size_of::<Range<u32>>()
    }

    /// Counts what has come. False: it is too much.
    fn tell(&mut self) -> bool {
        self.kept.add(self.size().saturating_sub(self.kept.len()))
    }

    fn scan(&mut self, protocol: Protocol) -> Scan {
        self.looked = self.bytes.len();
        match protocol {
            Protocol::Redis => self.request.scan(&self.bytes),
            Protocol::Memcached => match self.scan_line() {
                memcached::Scan::Whole(len) | memcached::Scan::Odd(len) => Scan::Whole(len),
                // What has not come yet is dropped later.
                memcached::Scan::Refused(len, _) => Scan::Whole(len.min(self.bytes.len())),
                memcached::Scan::More(size) => Scan::More(size),
                memcached::Scan::Hopeless(_) | memcached::Scan::Binary => Scan::Malformed(Malformed::TooLong),
            },
        }
    }

    /// Forgets what was seen.
    fn look_again(&mut self) {
        self.looked = 0;
        self.request.clear();
    }

    fn scan_line(&mut self) -> memcached::Scan {
        let (words, searched) = self.request.line();
        memcached::scan_on(&self.bytes, searched, words)
    }
}

impl Client {
    /// What is said of a request that is too large.
    fn too_long(&self) -> Vec<u8> {
        match self.pool.plan().protocol {
            Protocol::Redis => Malformed::TooLong.line(),
            Protocol::Memcached => memcached::TOO_LARGE.to_vec(),
        }
    }

    /// Begins with what has come, and goes on in the next turn.
    pub(super) fn gather(&mut self, block: &Block) {
        if !self.authenticated {
            // Whoever has not said who it is has nothing long to say.
            self.refuse_all(self.too_long());
            return;
        }
        let gathered = Gathered {
            progress: self.worker.now(),
            watch: self.watch_gathered(),
            kept: Kept::new(&self.worker, &self.pool),
            bytes: block[self.parsed..].to_vec(),
            looked: 0,
            request: Request::default(),
            whole: None,
        };
        self.parsed = 0;
        self.begun = None;
        self.gathered = Some(Box::new(gathered));
        self.again();
    }

    fn watch_gathered(&self) -> Option<Action> {
        let me = self.me.upgrade()?;
        Some(self.worker.thread().schedule_in(me, STALLED_MAX))
    }

    /// Looks whether anything of the request still comes: what has come takes room from others.
    pub(super) fn look_at_gathered(&mut self) {
        let (now, kept_waiting) = (self.worker.now(), self.base < self.barrier || self.is_unsettled());
        let Some(gathered) = &mut self.gathered else { return };
        if kept_waiting {
            // It is not read from, by our doing.
            gathered.progress = now;
        }
        if gathered.whole.is_none() && now - gathered.progress >= STALLED_MAX {
            self.cut();
        } else {
            let watch = self.watch_gathered();
            if let Some(gathered) = &mut self.gathered {
                gathered.watch = watch;
            }
        }
    }

    /// Goes on.
    pub(super) fn read_gathered(&mut self) {
        if self.shut_out {
            return;
        }
        let Some(mut gathered) = self.gathered.take() else { return };
        let mut taken = 0;
        while gathered.whole.is_none() {
            if gathered.looked < gathered.bytes.len() {
                match self.look_into(&mut gathered) {
                    Look::On => {}
                    Look::Later => {
                        self.gathered = Some(gathered);
                        return;
                    }
                    Look::Ended => return,
                }
                continue;
            }
            if taken >= TURN_MAX || !self.may_read() {
                self.gathered = Some(gathered);
                if taken >= TURN_MAX {
                    self.again();
                } else {
                    self.held = true;
                }
                return;
            }
            let mut block = Block::new(SizeClass::Large);
            let Some(tcp) = &self.tcp else { return };
            match tcp.poll_recv(&mut Context::from_waker(Waker::noop()), &mut block) {
                Poll::Pending => {
                    self.gathered = Some(gathered);
                    return;
                }
                Poll::Ready(Ok(0)) => {
                    // What has not been asked whole is not asked.
                    self.has_ended();
                    self.phase = Phase::Ending;
                    self.mark();
                    return;
                }
                Poll::Ready(Err(_)) => {
                    self.fail();
                    return;
                }
                Poll::Ready(Ok(got)) => {
                    taken += got;
                    self.has_received(got);
                }
            }
            gathered.progress = self.worker.now();
            gathered.bytes.extend_from_slice(&block);
        }
        self.follow_with_request();
        if self.base < self.barrier || self.is_unsettled() {
            // What was asked before has been held up since, or was asked of servers that are no longer those.
            self.held = true;
            self.gathered = Some(gathered);
            return;
        }
        let Some((bytes, rest)) = gathered.whole.take() else { return };
        match self.take_shared(&bytes, &mut gathered.request) {
            Outcome::Done => {
                self.parsed = 0;
                if !rest.is_empty() {
                    self.input = Some(rest);
                }
                self.again();
            }
            Outcome::Full => {
                gathered.whole = Some((bytes, rest));
                self.gathered = Some(gathered);
            }
        }
    }

    /// Looks at what has come.
    fn look_into(&mut self, gathered: &mut Gathered) -> Look {
        if !gathered.tell() {
            return self.too_much(gathered);
        }
        let scan = gathered.scan(self.pool.plan().protocol);
        if !gathered.tell() {
            gathered.look_again();
            return self.too_much(gathered);
        }
        match scan {
            Scan::Whole(len) => {
                let rest = gathered.bytes.split_off(len);
                // At most what the last block held: less than one holds.
                let mut block = Block::new(SizeClass::Large);
                block.append(&rest);
                gathered.whole = Some((std::mem::take(&mut gathered.bytes).into(), block));
                Look::On
            }
            Scan::More(size) if size.max(gathered.bytes.len()) <= GATHERED_MAX => {
                let more = size.saturating_sub(gathered.bytes.len());
                // Once, and exactly: what it says of itself has been bounded.
                gathered.bytes.reserve_exact(more.min(gathered.bytes.len() * 4));
                Look::On
            }
            Scan::More(_) | Scan::Malformed(Malformed::TooLong) => self.end_with(self.too_long()),
            Scan::Malformed(why) => self.end_with(why.line()),
            // It began as an array.
            Scan::Blank(_) | Scan::Inline(_) => self.end_with(Malformed::MultibulkLength.line()),
        }
    }

    /// More has come than may be kept.
    fn too_much(&mut self, gathered: &Gathered) -> Look {
        if gathered.size() > self.pool.memory_max(&self.worker) / 4 {
            return self.end_with(self.too_long());
        }
        // It is the others who keep so much.
        self.wait_for_memory();
        Look::Later
    }

    fn end_with(&mut self, line: Vec<u8>) -> Look {
        self.refuse_all(line);
        Look::Ended
    }
}

/// What a look at a request that is put together came to.
enum Look {
    /// It goes on, or is whole.
    On,
    /// It goes on when there is memory for it.
    Later,
    /// Nothing follows.
    Ended,
}

//! A request too large for a block, of one key: it passes through to a connection of its own while it comes.
//!
//! What the client asked before has been answered by then, or was given up and is settled, and nothing after it is asked
//! before it is: so no order changes. When the server answers early, or fails, the rest of the request is received and dropped.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use base::Instant;
use buf::{Block, SizeClass};
use event::Action;

use super::requests::Asked;
use super::{Client, Phase, STALLED_MAX};
use crate::commands::{self, Find, Treat};
use crate::lane::{Lane, LaneCell};
use crate::metrics::Kv;
use crate::numbers::{CommandIndex, KvPool};
use crate::outbox::Source;
use crate::pending::Owner;
use crate::plan::{Class, Protocol};
use crate::wire::Scanned;
use crate::wire::memcached;
use crate::wire::resp::{Malformed, Request, Tail};

/// Bytes taken in a turn.
const TURN_MAX: usize = 1 << 20;
/// A block with less room than this is followed by a new one.
const ROOM_MIN: usize = 16 << 10;

/// What of the request is still to come.
#[derive(Debug)]
enum Rest {
    Arguments(Tail),
    Bytes(usize),
}

impl Rest {
    fn scan(&mut self, bytes: &[u8]) -> Scanned {
        match self {
            Self::Arguments(tail) => tail.scan(bytes),
            Self::Bytes(left) if *left <= bytes.len() => Scanned::Whole(*left),
            Self::Bytes(left) => {
                *left -= bytes.len();
                Scanned::Part(bytes.len())
            }
        }
    }
}

/// A request that passes through.
pub(super) struct Streamed {
    /// None: it is dropped.
    lane: Option<Rc<LaneCell>>,
    rest: Rest,
    block: Option<Block>,
    /// When something of it came last.
    progress: Instant,
    watch: Option<Action>,
}

impl Streamed {
    /// The connection it goes to.
    pub(super) fn into_lane(self) -> Option<Rc<LaneCell>> {
        self.lane
    }
}

/// What became of the beginning of a large request.
pub(super) enum Begun {
    /// It passes through from here on.
    Streams,
    /// What was asked before is to be answered first.
    Waits,
    /// It must be seen whole.
    MustBeWhole,
}

impl Client {
    /// Begins to pass the request through that begins in `block` and does not end there.
    pub(super) fn stream(&mut self, block: &Block) -> Begun {
        let mut request = self.begun.take().unwrap_or_default();
        let found = self.where_to(block, &mut request);
        self.begun = Some(request);
        let Some((server, command, rest)) = found else { return Begun::MustBeWhole };
        if !self.slots.is_empty() {
            self.barrier = self.next_seq();
            return Begun::Waits;
        }
        // It is not to overtake a write of its own that was given up on the connection it shares.
        if let Some(lane) = self.pool.lane_in_use(server, self.id) {
            let own = lane.borrow_mut().part_with(&self.me);
            self.wait_to_settle_all(own);
        }
        if self.is_unsettled() {
            return Begun::Waits;
        }
        let Some(me) = self.me.upgrade() else { return Begun::MustBeWhole };
        let lane = match self.pool.lane_alone(&self.worker, server, Owner::Client(me, self.next_seq()), command) {
            Ok(lane) => {
                self.wait();
                lane.borrow_mut().stream(block.chunk(self.parsed..block.len()));
                Some(lane)
            }
            Err(fault) => {
                self.failed(command, fault);
                self.fail_now(fault);
                None
            }
        };
        self.worker.cells().add(Kv::COMMANDS, 1);
        self.pool.cells().add(KvPool::REQUESTS, 1);
        self.worker.cells().add(Kv::STREAMED, 1);
        self.parsed = 0;
        self.begun = None;
        let mut streamed = Streamed { lane, rest, block: None, progress: self.worker.now(), watch: None };
        streamed.watch = self.watch_stream();
        self.streamed = Some(Box::new(streamed));
        self.again();
        Begun::Streams
    }

    /// The server of a request of which only the beginning is there, and what is to come. None when it is not certain
    /// that one server has it, or that it is allowed.
    fn where_to(&self, block: &Block, request: &mut Request) -> Option<(Option<usize>, CommandIndex, Rest)> {
        let begun = self.parsed..block.len();
        let bytes = block.get(begun.clone())?;
        if self.pool.plan().protocol == Protocol::Memcached {
            let memcached::Scan::More(len) = memcached::scan(bytes, request.words()) else { return None };
            let asked = Asked { source: Source::Block(block), range: begun, arguments: request.arguments() };
            let words = if asked.argument(0) == b"cas" { 6 } else { 5 };
            let right = memcached::has_data(asked.argument(0))
                && asked.count() == words
                && memcached::is_plain(bytes, asked.arguments);
            let command = CommandIndex::of_memcached(asked.argument(0));
            return right.then(|| (self.pool.pick(asked.argument(1)), command, Rest::Bytes(len - bytes.len())));
        }
        let asked = Asked { source: Source::Block(block), range: begun, arguments: request.arguments() };
        let command = commands::look_up(asked.argument(0))?;
        let (first, last, step) = command.places;
        let (first, last, step) =
            (usize::try_from(first).ok()?, usize::try_from(last).ok()?, usize::try_from(step).ok()?);
        let known = (command.treat, command.find) == (Treat::Forward, Find::Range) && first > 0 && step > 0;
        if !known || !self.authenticated || !command.takes(request.promised()?) || last >= asked.count() {
            return None;
        }
        let mut servers = (first..=last).step_by(step).map(|at| self.pool.pick(asked.argument(at)));
        let server = servers.next()?;
        if servers.any(|other| other != server) {
            return None;
        }
        let mut tail = request.tail()?;
        let rest = bytes.get(request.position()..)?;
        matches!(tail.scan(rest), Scanned::Part(_)).then_some(())?;
        Some((server, CommandIndex::of(command), Rest::Arguments(tail)))
    }

    /// Drops so many bytes that are still to come.
    pub(super) fn drop_next(&mut self, len: usize) {
        let rest = Rest::Bytes(len);
        let mut streamed = Streamed { lane: None, rest, block: None, progress: self.worker.now(), watch: None };
        streamed.watch = self.watch_stream();
        self.streamed = Some(Box::new(streamed));
        self.again();
    }

    fn watch_stream(&self) -> Option<Action> {
        let me = self.me.upgrade()?;
        Some(self.worker.thread().schedule_in(me, STALLED_MAX))
    }

    /// Looks whether anything of the request still comes.
    pub(super) fn look_at_stream(&mut self) {
        let Some(streamed) = &self.streamed else { return };
        if self.worker.now() - streamed.progress >= STALLED_MAX {
            self.cut();
        } else {
            let watch = self.watch_stream();
            if let Some(streamed) = &mut self.streamed {
                streamed.watch = watch;
            }
        }
    }

    /// Takes what has come of it.
    pub(super) fn read_stream(&mut self) {
        let mut taken = 0;
        while let Some(mut streamed) = self.streamed.take() {
            if let Some(lane) = &streamed.lane {
                let mut to = lane.borrow_mut();
                if to.is_full() && !to.is_down() {
                    to.wait_for_room(&self.me);
                    drop(to);
                    self.streamed = Some(streamed);
                    return;
                }
            }
            if taken >= TURN_MAX {
                self.streamed = Some(streamed);
                self.again();
                return;
            }
            let mut block = match streamed.block.take() {
                Some(block) if block.room() >= ROOM_MIN => block,
                _ => Block::new(SizeClass::Large),
            };
            let before = block.len();
            let Some(tcp) = &self.tcp else { return };
            match tcp.poll_recv(&mut Context::from_waker(Waker::noop()), &mut block) {
                Poll::Pending => {
                    self.streamed = Some(streamed);
                    return;
                }
                Poll::Ready(Ok(0)) => {
                    self.has_ended();
                    if streamed.lane.is_some() {
                        // What has not been asked whole is not asked.
                        self.streamed = Some(streamed);
                        self.close();
                    } else {
                        // What is dropped was answered, and so will be what was asked before.
                        self.phase = Phase::Ending;
                        self.mark();
                    }
                    return;
                }
                Poll::Ready(Err(_)) => {
                    self.streamed = Some(streamed);
                    self.fail();
                    return;
                }
                Poll::Ready(Ok(got)) => {
                    taken += got;
                    self.has_received(got);
                }
            }
            streamed.progress = self.worker.now();
            let outcome = streamed.rest.scan(&block[before..]);
            let end = match outcome {
                Scanned::Whole(len) => before + len,
                Scanned::Part(_) => block.len(),
                Scanned::Malformed => {
                    if let Some(lane) = streamed.lane {
                        self.worker.lane_has_failed(lane, crate::fault::Fault::Nonsense);
                    }
                    self.refuse_all(Malformed::BulkLength.line());
                    return;
                }
            };
            if let Some(lane) = &streamed.lane {
                lane.borrow_mut().stream(block.chunk(before..end));
            }
            if matches!(outcome, Scanned::Part(_)) {
                streamed.block = Some(block);
                self.streamed = Some(streamed);
                continue;
            }
            if let Some(lane) = &streamed.lane {
                lane.borrow_mut().asked_whole(self.deadline(Class::Write));
            }
            // Nothing more is asked before it is answered.
            self.barrier = self.next_seq();
            if end < block.len() {
                let mut next = Block::new(SizeClass::Large);
                // Part of a block fits into a block.
                next.append(&block[end..]);
                self.input = Some(next);
            }
            self.again();
        }
    }
}

impl crate::pool::Pool {
    /// A connection to that server for one request alone.
    fn lane_alone(
        &self,
        worker: &crate::worker::Worker,
        server: Option<usize>,
        owner: Owner,
        command: CommandIndex,
    ) -> Result<Rc<LaneCell>, crate::fault::Fault> {
        let Some(server) = server.and_then(|server| self.servers().get(server)) else {
            return Err(crate::fault::Fault::Refused);
        };
        server.admits()?;
        Ok(Lane::open_alone(worker, server, owner, command))
    }
}

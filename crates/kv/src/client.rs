//! A client's connection: what it asked, in order, and what it is still to be told.
//!
//! ```text
//! Tcp ──> input ──requests──> lanes          slots: one a request, the front is the next to be answered
//! Tcp <── out <──────────── slots <── lanes
//! ```
//!
//! A reply whose turn it is goes straight to `out`; neighbours in the server's block stay neighbours and go as one
//! piece. Others wait in their slots. An idle client holds no buffer and no list. `requests` reads and routes,
//! `local` answers what the proxy answers itself, `untaken` waits for those who do not take what they are sent.

mod about;
mod described;
mod gather;
mod kind;
mod leave;
mod local;
mod memcached;
mod parts;
mod requests;
mod slots;
mod slowlog;
mod stream;
mod untaken;

pub use leave::{HandOver, Moving};
pub use local::Identity;
pub(crate) use slots::Slots;

use std::cell::RefCell;
use std::num::NonZeroU32;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};
use std::time::Duration;

use buf::{Block, Chunk};
use event::{Cont, Continuation, Event, Tcp, Thread};

use crate::fault::Fault;
use crate::join::Joining;
use crate::metrics::Kv;
use crate::numbers::KvPool;
use crate::outbox::{COPY_MAX, Outbox, Source};
use crate::pool::Pool;
use crate::wire::resp::Request;
use crate::worker::Worker;
use untaken::{Awaited, Left};

/// Requests of one client that wait for their replies; it is not read from while there are so many.
pub(crate) const PIPELINE_MAX: usize = 1_024;
/// Bytes a client may have been sent and not taken before it is not read from, nor its servers' large replies.
const UNTAKEN_MAX: usize = 256 << 10;
/// Bytes of replies that wait for earlier ones before a client that does not take its own gets no more of them.
pub(crate) const KEPT_SOFT: usize = 1 << 20;
/// Bytes of replies that wait for earlier ones before it gets no more of them though it takes its own: an earlier one
/// is late.
const KEPT_AHEAD: usize = 32 << 20;
/// The most of them; a reply that would be more is an error.
pub(crate) const KEPT_MAX: usize = 64 << 20;
/// How long a client may take next to none of what waits for it before it is cut.
const STALLED_MAX: Duration = Duration::from_secs(120);

// There may be a hundred thousand of them, idle: with its counts it fits into the allocator's 192 bytes.
const _: () = assert!(size_of::<ClientCell>() <= 192 - 2 * size_of::<usize>());

/// A shared hold on a client.
pub(crate) type ClientCell = RefCell<Client>;

/// One request's answer.
pub(crate) enum Slot {
    Waiting,
    Ready(Chunk),
    Pieces(Vec<Chunk>),
}

impl Slot {
    fn len(&self) -> usize {
        match self {
            Self::Waiting => 0,
            Self::Ready(chunk) => chunk.len(),
            Self::Pieces(pieces) => pieces.iter().map(|piece| piece.len()).sum(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    /// Nothing more is read; it closes when all is answered.
    Ending,
    Gone,
}

/// See the module.
pub(crate) struct Client {
    worker: Worker,
    pool: Rc<Pool>,
    me: Weak<ClientCell>,
    tcp: Option<Tcp>,
    phase: Phase,
    id: u64,
    authenticated: bool,
    identity: Option<Box<local::Identity>>,
    input: Option<Block>,
    /// Where in the input the first request begins that was not taken.
    parsed: usize,
    /// The first request there, as far as it was looked at.
    begun: Option<Box<Request>>,
    /// A request too large for a block.
    gathered: Option<Box<gather::Gathered>>,
    /// A request that passes through while it comes.
    streamed: Option<Box<stream::Streamed>>,
    slots: Slots,
    /// Bytes in them.
    kept: usize,
    /// The number of the request at the front of the slots.
    base: u64,
    /// The piece of the block that a lane looks at right now which goes to `out`.
    run: Range<u32>,
    out: Outbox<false>,
    dirty: bool,
    /// Nothing more is asked before the requests up to this number are answered.
    barrier: u64,
    /// It is not read from until more of what it asked is answered.
    held: bool,
    /// It is not read from until its pool keeps less.
    shut_out: bool,
    /// It is counted among those who wait for a reply.
    waits: bool,
    /// It is looked at whether it takes what it is sent.
    watched: bool,
    /// Who waits for the client: seldom anybody.
    awaited: Option<Box<Awaited>>,
    /// Since when something it asked is not answered, by the worker's microseconds; 0 counts as one earlier.
    busy_since: Option<NonZeroU32>,
    /// When it was last received from, more had come than a usual block holds.
    plenty: bool,
    /// The worker's changes that it has followed.
    changes: u32,
}

impl Client {
    /// Starts serving a connection, with what it brings from another server.
    pub(crate) fn start(worker: &Worker, pool: &Rc<Pool>, tcp: Tcp, moved: Option<Moving>) {
        let (authenticated, identity) = moved.map_or((false, None), |moved| (moved.authenticated, moved.identity));
        worker.cells().add(Kv::CLIENT_CONNECTIONS, 1);
        let Some(id) = pool.admit() else {
            worker.cells().add(Kv::CLIENT_REFUSED, 1);
            return;
        };
        worker.cells().add(Kv::CLIENT_OPEN, 1);
        pool.cells().add(KvPool::CLIENTS, 1);
        pool.cells().add(KvPool::CLIENTS_OPEN, 1);
        let client = Rc::new_cyclic(|me| {
            RefCell::new(Self {
                worker: worker.clone(),
                pool: Rc::clone(pool),
                me: me.clone(),
                tcp: None,
                phase: Phase::Open,
                id,
                authenticated: authenticated || pool.plan().source.redis_auth.is_none(),
                identity: identity.map(Box::new),
                input: None,
                parsed: 0,
                begun: None,
                gathered: None,
                streamed: None,
                slots: Slots::default(),
                kept: 0,
                base: 0,
                run: 0..0,
                out: Outbox::new(),
                dirty: false,
                barrier: 0,
                held: false,
                shut_out: false,
                waits: false,
                watched: false,
                awaited: None,
                busy_since: None,
                plenty: false,
                changes: worker.changes(),
            })
        });
        tcp.set_handler(Rc::clone(&client) as Cont);
        let mut started = client.borrow_mut();
        started.tcp = Some(tcp);
        if worker.successor().is_some() {
            // Accepted by the way out: it goes with the others.
            started.changes = worker.changes().wrapping_sub(1);
            started.again();
        }
    }

    /// Its number, of all clients of its pool.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Whether nothing can be sent to it any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// When it went, by the worker's microseconds, if something that it asked was not answered then.
    pub(crate) fn left_at(&self) -> Option<u32> {
        self.awaited.as_ref()?.left.as_ref().map(|left| left.at)
    }

    /// Its pool keeps little enough again.
    pub(crate) fn is_let_in(&mut self) {
        self.shut_out = false;
    }

    /// Whether this request's reply is the next to be sent.
    pub(crate) fn is_front(&self, seq: u64) -> bool {
        seq == self.base && self.run.is_empty()
    }

    /// Something is asked that is not answered at once.
    #[inline]
    fn wait(&mut self) {
        if self.slots.is_empty() {
            self.busy_since = Some(NonZeroU32::new(self.worker.micros()).unwrap_or(NonZeroU32::MAX));
        }
        self.slots.push_back(Slot::Waiting);
    }

    fn next_seq(&self) -> u64 {
        self.base + self.slots.len() as u64
    }

    #[inline]
    fn mark(&mut self) {
        if !self.dirty {
            self.dirty = true;
            if let Some(me) = self.me.upgrade() {
                self.worker.client_is_dirty(me);
            }
        }
    }

    /// A whole reply within `block`. True when it begins a run: call [`Client::close_run`] before the block goes.
    #[inline]
    pub(crate) fn fill(&mut self, seq: u64, block: &Block, range: Range<usize>) -> bool {
        if self.phase == Phase::Gone {
            return false;
        }
        if seq != self.base {
            self.put(seq, || Slot::Ready(block.chunk(range)));
            return false;
        }
        self.slots.pop_front();
        self.base += 1;
        let opened = self.run.is_empty();
        // A place within a block.
        #[expect(clippy::cast_possible_truncation, reason = "blocks are smaller than 4 GiB")]
        let (start, end) = (range.start as u32, range.end as u32);
        if self.run.end == start && !opened {
            self.run.end = end;
        } else {
            self.push_run(block);
            self.run = start..end;
        }
        if !matches!(self.slots.front(), None | Some(Slot::Waiting)) {
            self.close_run(block);
            return false;
        }
        opened
    }

    /// Hands the run over as one piece.
    fn push_run(&mut self, block: &Block) {
        let run = std::mem::take(&mut self.run);
        if !run.is_empty() {
            self.out.push(Source::Block(block), run.start as usize..run.end as usize);
            self.mark();
        }
    }

    /// The lane is done with the block.
    pub(crate) fn close_run(&mut self, block: &Block) {
        self.push_run(block);
        // A joined reply may have come for the place behind the run while it was open.
        if !matches!(self.slots.front(), None | Some(Slot::Waiting)) {
            self.drain_ready();
        }
    }

    fn put(&mut self, seq: u64, slot: impl FnOnce() -> Slot) {
        let place = seq.checked_sub(self.base).and_then(|at| usize::try_from(at).ok());
        if let Some(place) = place.filter(|at| *at < self.slots.len()) {
            let mut slot = slot();
            // One whose turn it is does not wait.
            if place > 0 && slot.len() > COPY_MAX && !self.may_hold(0, slot.len()) {
                self.pool.cells().add(KvPool::failed(Fault::TooLarge), 1);
                slot = Slot::Ready(Chunk::from_static(Fault::TooLarge.line(self.pool.plan().protocol)));
            }
            let len = slot.len();
            if let Some(place) = self.slots.get_mut(place) {
                *place = slot;
            }
            self.hold(len);
        }
    }

    /// So many bytes wait in the slots from now on.
    fn hold(&mut self, len: usize) {
        self.kept += len;
        self.pool.keep(&self.worker, len);
    }

    /// An answer behind those that are awaited.
    fn push_ready(&mut self, reply: Chunk) {
        self.hold(reply.len());
        self.slots.push_back(Slot::Ready(reply));
    }

    /// Whether so many more bytes may wait for earlier replies, beside so many that are counted elsewhere.
    pub(crate) fn may_hold(&self, counted: usize, len: usize) -> bool {
        self.kept + counted + len <= KEPT_MAX && self.pool.may_keep(&self.worker, len)
    }

    /// Whether it has enough to take before it gets more that would wait.
    pub(crate) fn is_full(&self) -> bool {
        self.is_far_ahead() || self.kept > KEPT_SOFT && self.is_backed_up()
    }

    /// Whether so much waits for an earlier reply that this had better come first.
    fn is_far_ahead(&self) -> bool {
        self.kept > KEPT_AHEAD.min(self.pool.memory_max(&self.worker) / 8)
    }

    /// The request whose reply everything waits for, if it is not the client itself that everything waits for.
    pub(crate) fn waits_for(&self) -> Option<u64> {
        (self.is_far_ahead() && !self.is_backed_up()).then_some(self.base)
    }

    /// A whole reply in pieces. While a run is open it waits for that.
    pub(crate) fn fill_pieces(&mut self, seq: u64, pieces: Vec<Chunk>) {
        if self.phase == Phase::Gone {
            return;
        }
        self.put(seq, || Slot::Pieces(pieces));
        if self.run.is_empty() {
            self.drain_ready();
        }
    }

    /// The answer to a request that was split: written at once when it is its turn.
    pub(crate) fn fill_joined(&mut self, seq: u64, joined: &Joining) {
        if self.phase == Phase::Gone {
            return;
        }
        if self.is_front(seq) && !self.slots.is_empty() && joined.write(&mut self.out) {
            self.slots.pop_front();
            self.base += 1;
            self.drain_ready();
            return;
        }
        self.fill_pieces(seq, joined.whole());
    }

    /// A request that wants no reply has been carried out, or will not be.
    pub(crate) fn pass_over(&mut self, seq: u64) {
        self.fill_pieces(seq, Vec::new());
    }

    /// An error in the place of a reply.
    pub(crate) fn fault(&mut self, seq: u64, fault: Fault) {
        let line = fault.line(self.pool.plan().protocol);
        self.fill_pieces(seq, vec![Chunk::from_static(line)]);
    }

    /// Part of the front request's reply, more to come.
    pub(crate) fn pass(&mut self, piece: Chunk) {
        if self.phase != Phase::Gone {
            self.out.chunk(piece);
            self.mark();
        }
    }

    /// The last parts of the front request's reply.
    pub(crate) fn pass_last(&mut self, pieces: Vec<Chunk>) {
        for piece in pieces {
            self.pass(piece);
        }
        if self.phase != Phase::Gone && self.slots.pop_front().is_some() {
            self.base += 1;
            self.drain_ready();
        }
    }

    /// Moves what is ready at the front to `out`.
    fn drain_ready(&mut self) {
        let before = self.kept;
        while let Some(front) = self.slots.front_mut() {
            self.kept -= front.len();
            match front {
                Slot::Waiting => break,
                Slot::Ready(chunk) => self.out.push_chunk(chunk),
                Slot::Pieces(pieces) => pieces.iter().for_each(|piece| self.out.push_chunk(piece)),
            }
            self.slots.pop_front();
            self.base += 1;
        }
        self.pool.let_go(&self.worker, before - self.kept);
        self.mark();
    }

    /// Asks nothing more before all that was asked is answered.
    pub(crate) fn wait_for_all(&mut self) {
        self.barrier = self.next_seq();
        self.mark();
    }

    /// The turn's end: hands over what is to be sent.
    pub(crate) fn flush(&mut self) {
        self.dirty = false;
        let Some(queued) = self.tcp.as_ref().map(Tcp::queued) else { return };
        let sent = self.out.len();
        self.mind_untaken(sent, queued);
        let Some(tcp) = &self.tcp else { return };
        self.pool.cells().add(KvPool::SENT, sent as u64);
        self.out.take(|chunk| tcp.send(chunk));
        self.out.rest();
        let far_ahead = self.is_far_ahead();
        let mut owes_room = false;
        if let Some(awaited) = &mut self.awaited {
            if !far_ahead {
                awaited.resume.append(&mut awaited.ahead);
            }
            owes_room = !awaited.resume.is_empty();
        }
        if tcp.queued() > UNTAKEN_MAX || owes_room {
            self.wait_for_room();
        }
        if self.held && self.may_read() && self.base >= self.barrier && self.slots.len() <= PIPELINE_MAX / 2 {
            self.held = false;
            self.again();
        }
        self.count_waiting();
        if self.slots.is_empty() {
            self.count_time();
            if self.phase == Phase::Ending {
                self.end();
            } else if self.changes != self.worker.changes() && self.phase == Phase::Open {
                self.again();
            } else {
                self.give_slots_back();
            }
        }
    }

    /// All is answered: closes, after it has taken that. Until then it counts, and so does what it has not taken.
    fn end(&mut self) {
        if self.watched && self.tcp.as_ref().is_some_and(|tcp| tcp.queued() > 0) {
            self.wait_for_room();
        } else {
            self.close();
        }
    }

    /// Who waits for nothing keeps no list for it.
    fn give_slots_back(&mut self) {
        if self.slots.is_empty() && self.slots.has_memory() {
            self.slots = self.worker.keep_slots(std::mem::take(&mut self.slots));
        }
    }

    /// Nothing that it asked is unanswered any more, or it has waited long enough.
    fn count_time(&mut self) {
        if let Some(since) = self.busy_since.take() {
            let nanos = u64::from(self.worker.micros().wrapping_sub(since.get())) * 1_000;
            self.pool.cells().observe(KvPool::CLIENT_TIME, nanos);
        }
    }

    /// Tells the worker whether it waits for a reply.
    pub(crate) fn count_waiting(&mut self) {
        let waits = !self.slots.is_empty();
        if waits != std::mem::replace(&mut self.waits, waits) {
            self.worker.count_waiting(waits);
        }
    }

    /// Counts what has come.
    fn has_received(&self, len: usize) {
        self.worker.cells().add(Kv::CLIENT_RECEIVED, len as u64);
        self.pool.cells().add(KvPool::RECEIVED, len as u64);
    }

    /// Counts that it has ended its direction.
    fn has_ended(&self) {
        self.pool.cells().add(KvPool::CLIENT_EOF, 1);
    }

    /// Its connection has failed.
    fn fail(&mut self) {
        self.worker.cells().add(Kv::CLIENT_ERRORS, 1);
        self.pool.cells().add(KvPool::CLIENT_ERR, 1);
        self.close();
    }

    /// Ends the connection at once, visibly before its time.
    pub(crate) fn cut(&mut self) {
        if let Some(tcp) = &self.tcp {
            tcp.abort();
            self.fail();
        }
    }

    /// Closes after what was handed over. Replies that come later are dropped.
    fn close(&mut self) {
        if std::mem::replace(&mut self.phase, Phase::Gone) == Phase::Gone {
            return;
        }
        self.pool.dismiss();
        self.worker.cells().sub(Kv::CLIENT_OPEN, 1);
        self.pool.cells().sub(KvPool::CLIENTS_OPEN, 1);
        let Awaited { resume, ahead, room, .. } = self.awaited.take().map_or_else(Awaited::default, |awaited| *awaited);
        if let Some(task) = room {
            task.cancel();
        }
        self.input = None;
        self.gathered = None;
        if let Some(lane) = self.streamed.take().and_then(|streamed| streamed.into_lane()) {
            self.worker.lane_has_failed(lane, Fault::Closed);
        }
        self.count_time();
        if !self.slots.is_empty() {
            let left = Some(Left { address: self.peer(), at: self.worker.micros() });
            self.awaited = Some(Box::new(Awaited { left, ..Awaited::default() }));
        }
        self.slots = Slots::default();
        self.pool.let_go(&self.worker, std::mem::take(&mut self.kept));
        self.count_waiting();
        self.run = 0..0;
        self.out.take(drop);
        self.out.rest();
        for lane in resume.into_iter().chain(ahead) {
            // Its handler may be the one that closes us.
            if let Ok(mut lane) = lane.try_borrow_mut() {
                lane.resume();
            } else {
                self.worker.resume_later(lane);
            }
        }
        if let Some(tcp) = self.tcp.take() {
            // Dropped at the turn's end: a connection must not go while its own handler runs.
            self.worker.bury(tcp);
        }
    }
}

impl Continuation for Client {
    fn handle_event(&mut self, event: Event, _thread: &Thread) {
        match event {
            Event::Io(_) | Event::Immediate => {
                let read = AssertUnwindSafe(|| {
                    if self.changes == self.worker.changes() || self.follow() {
                        self.read();
                    }
                });
                if let Err(panic) = catch_unwind(read) {
                    // Nobody knows what it has asked. Its thread counts this.
                    self.cut();
                    resume_unwind(panic);
                }
            }
            Event::Drain => self.drain(),
            // The connection's own deadline is the waiting task's.
            Event::Interval => {
                self.look_at_stream();
                self.look_at_gathered();
            }
            Event::Message => {}
            Event::Cancelled => self.close(),
        }
    }

    fn name(&self) -> &'static str {
        "kv client"
    }
}

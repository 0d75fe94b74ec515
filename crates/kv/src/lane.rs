//! One connection to a server, shared by all clients of its thread.
//!
//! ```text
//! clients ──push──> out (held) ──flush──> Tcp ──> server
//!              queue: [ … handed over, awaiting reply … | held ]
//! clients <─fill── replies, first in first out  <──── server
//! ```
//!
//! While a batch is on its way the next is held until the replies have come or it has the pool's size: requests travel
//! together, and nobody waits longer than the server takes. What was handed over is kept until it is answered, so that
//! a read can be repeated when the connection fails. `receive` holds what becomes of replies, `late` of those that do not
//! come, `relief` of those who wait behind a client that does not take its own, `unsettled` of writes that were given up,
//! `failure` of all when the connection ends; `tally` and `slow` what is told of them.

mod alone;
mod failure;
mod late;
mod receive;
mod relief;
mod slow;
mod tally;
#[cfg(test)]
pub(crate) mod tests;
mod unsettled;

pub(crate) use failure::{end, fail, give_fault, give_nothing, give_up};

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::{Rc, Weak};
use std::time::Duration;

use base::Instant;
use buf::{Block, Chunk};
use event::{Action, Cont, Continuation, Event, Task, Tcp, Thread};

use crate::client::ClientCell;
use crate::fault::Fault;
use crate::memory::Kept;
use crate::metrics::Kv;
use crate::numbers::{CommandIndex, KvServer};
use crate::outbox::{Outbox, Source};
use crate::pending::{Again, Owner, Pending};
use crate::pool::Pool;
use crate::server::Server;
use crate::wire::Reply;
use crate::worker::Worker;
use unsettled::Unsettled;

/// Requests that one connection may have, held and on their way, before whoever asks more waits. The last goes beyond with
/// all its parts: a `gat` of 2 MiB is some thousand lines.
pub(crate) const REQUESTS_MAX: usize = 16 << 10;
/// Bytes of them. The last goes beyond with all that it has, at most what a client puts together: one that waited for an
/// empty connection would wait for ever where others ask little all the time.
const REQUEST_BYTES_MAX: u64 = 4 << 20;
/// Places that an empty queue keeps memory for.
const QUEUE_KEPT_MAX: usize = 256;
/// Held bytes that are sent whatever is on its way.
const HELD_BYTES_MAX: usize = 32 << 10;
/// A connection that nobody asked anything for so long may be closed for that.
const UNASKED_MAX: Duration = Duration::from_secs(5);
/// What servers say to connections beyond those that they take, before they close them.
const TURNED_AWAY: [&[u8]; 2] = [b"-ERR max number of clients", b"ERROR Too many open connections"];
/// Requests longer than this are not kept for being sent again.
const KEPT_MAX: u64 = 1 << 20;

/// A shared hold on a lane.
pub(crate) type LaneCell = RefCell<Lane>;

enum Link {
    Connecting,
    Up(Tcp),
    Down,
}

/// See the module.
pub(crate) struct Lane {
    worker: Worker,
    server: Rc<Server>,
    me: Weak<LaneCell>,
    link: Link,
    out: Outbox<true>,
    queue: VecDeque<Pending>,
    /// How many of the queue were handed over.
    handed: usize,
    /// How many at the front of the queue have expired.
    expired: usize,
    /// The stream's length with what is held, and without.
    pushed: u64,
    /// Bytes of the reply that is coming which are not with the rest any more.
    passed: usize,
    handed_bytes: u64,
    /// Bytes that went before the stream: the handshake.
    lead: u64,
    /// What was handed over and not answered yet, by its end in the stream.
    kept: VecDeque<(u64, Chunk)>,
    dirty: bool,
    timer: Option<Action>,
    /// When that comes, and when it is to come: somebody may be due, or the server has been silent for too long.
    wakes_at: Instant,
    soonest: Instant,
    relief: Option<Action>,
    /// Clients that wait for room here.
    waiting: Vec<Weak<ClientCell>>,
    // Receiving.
    input: Option<Block>,
    /// Where the current reply begins in the input, and how far it was looked at.
    at: usize,
    scanned: usize,
    reply: Reply,
    /// Parts of the current reply that are in earlier blocks, unless they were passed on.
    pieces: Vec<Chunk>,
    pieces_len: usize,
    pieces_kept: Option<Kept>,
    /// The current reply's earlier parts have been passed on.
    passing: bool,
    /// What is being answered right now.
    current: Option<Pending>,
    /// Who has got something of the block that is looked at.
    touched: Vec<Rc<ClientCell>>,
    /// Nothing is received until a client has taken what it has.
    paused: bool,
    /// Who paused it last.
    slow: Weak<ClientCell>,
    /// What that client waits for while the lane is paused because it is ahead of that.
    ahead_of: Option<relief::Ahead>,
    /// It has waited long enough for this reply of that client: others are kept as far as may be.
    impatient: Option<u64>,
    /// Since when others wait because of a client, and nothing more is asked here.
    slow_since: Option<Instant>,
    /// Writes that were given up here and may yet be carried out.
    unsettled: Unsettled,
    /// It takes no new requests, and closes when those it has are answered.
    retired: bool,
    /// It is there for one request, see `alone`.
    alone: bool,
    /// Itself, while it connects and nobody else may hold it.
    own: Option<Rc<LaneCell>>,
    /// Waits until the server has taken most of what it was sent.
    room: Option<Task>,
    /// The last receive filled its block: there is more than a small one holds.
    plenty: bool,
    /// When the server last said something, or was asked something after it had said all.
    heard: Instant,
    /// When the other end was last asked why it is silent, of one that is left behind.
    asked_at: Instant,
    opened: Instant,
    /// It has answered something that a client asked.
    served: bool,
    /// Replies to what was said first, in the receive at hand.
    shaken: usize,
    /// Bytes that have come and are not counted: they may belong to such a reply.
    uncounted: usize,
    /// The server has said that it has no place for it.
    turned_away: Cell<bool>,
}

/// Those bytes of the stream that are in `kept`, by their ends.
fn bytes_of(kept: &VecDeque<(u64, Chunk)>, from: u64, to: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for (end, chunk) in kept {
        let start = end - chunk.len() as u64;
        if *end <= from || start >= to {
            continue;
        }
        let low = usize::try_from(from.saturating_sub(start)).ok()?;
        let high = usize::try_from(to.min(*end) - start).ok()?;
        bytes.extend_from_slice(chunk.get(low..high)?);
    }
    (bytes.len() as u64 == to - from).then_some(bytes)
}

impl Lane {
    /// A lane that connects.
    pub(crate) fn open(worker: &Worker, server: &Rc<Server>) -> Rc<LaneCell> {
        let lane = Rc::new_cyclic(|me| {
            RefCell::new(Self {
                worker: worker.clone(),
                server: Rc::clone(server),
                me: me.clone(),
                link: Link::Connecting,
                out: Outbox::new(),
                queue: VecDeque::new(),
                handed: 0,
                expired: 0,
                pushed: 0,
                passed: 0,
                handed_bytes: 0,
                lead: 0,
                kept: VecDeque::new(),
                dirty: false,
                timer: None,
                wakes_at: Instant::FAR_FUTURE,
                soonest: Instant::FAR_FUTURE,
                relief: None,
                waiting: Vec::new(),
                input: None,
                at: 0,
                scanned: 0,
                reply: Reply::new(server.protocol()),
                pieces: Vec::new(),
                pieces_len: 0,
                pieces_kept: None,
                passing: false,
                current: None,
                touched: Vec::new(),
                paused: false,
                slow: Weak::new(),
                ahead_of: None,
                impatient: None,
                slow_since: None,
                unsettled: Unsettled::default(),
                retired: false,
                alone: false,
                own: None,
                room: None,
                plenty: false,
                heard: worker.now(),
                asked_at: Instant::ORIGIN,
                opened: worker.now(),
                served: false,
                shaken: 0,
                uncounted: 0,
                turned_away: Cell::new(false),
            })
        });
        if worker.successor().is_some() {
            // What its clients ask next may be asked by another process.
            lane.borrow_mut().part();
        }
        worker.lane_opened(&lane);
        worker.cells().add(Kv::SERVER_OPEN, 1);
        server.cells().add(KvServer::CONNECTS, 1);
        let (worker, server, me) = (worker.clone(), Rc::clone(server), Rc::downgrade(&lane));
        worker.thread().clone().spawn("kv connect", async move {
            let result = server.connect(&worker).await;
            let Some(lane) = me.upgrade() else { return };
            match result {
                Ok(tcp) => lane.borrow_mut().up(tcp, &lane),
                Err(error) => fail(&lane, Fault::of(&error)),
            }
        });
        lane
    }

    fn up(&mut self, tcp: Tcp, me: &Rc<LaneCell>) {
        let handshake = self.server.handshake();
        if self.expired > 0 {
            self.expired += handshake.1;
        }
        for _ in 0..handshake.1 {
            self.queue.push_front(Pending {
                owner: Owner::Handshake,
                deadline: Instant::FAR_FUTURE,
                start: 0,
                again: Again::Unsent,
                attempts: 0,
                command: CommandIndex::NONE,
                asked: self.worker.micros(),
            });
            self.handed += 1;
        }
        if !handshake.0.is_empty() {
            self.lead = handshake.0.len() as u64;
            let bytes: std::sync::Arc<[u8]> = handshake.0.into();
            tcp.send(Chunk::from_shared(std::sync::Arc::clone(&bytes), 0..bytes.len()));
        }
        tcp.set_handler(Rc::clone(me) as Cont);
        self.link = Link::Up(tcp);
        self.heard = self.worker.now();
        self.mark();
        self.own = None;
        if self.alone {
            self.wake_waiting();
        }
    }

    /// It is that server's from now on, which is the same as its own was.
    pub(crate) fn belong_to(&mut self, server: &Rc<Server>) {
        self.server = Rc::clone(server);
    }

    /// It takes no new requests: those who have one here ask nothing more before it is answered, and who waits for room here
    /// finds some elsewhere. True when nothing is on it: it can go.
    pub(crate) fn finish(&mut self) -> bool {
        self.retired = true;
        self.part();
        self.hold_back();
        self.wake_all_waiting();
        self.mark();
        if matches!(self.link, Link::Connecting) && !self.queue.is_empty() {
            // Its server lets go of it, and what is on it waits.
            self.own = self.me.upgrade();
        }
        self.queue.is_empty()
    }

    /// Keys may belong to other servers from now on: nobody who has a request of that pool here asks anything more before
    /// it is answered.
    pub(crate) fn hold_back_if_of(&self, pool: &Pool) {
        if self.server.pool().is_some_and(|own| std::ptr::eq(&*own, pool)) {
            self.hold_back();
        }
    }

    /// What those who have a request here ask later must not overtake it.
    fn hold_back(&self) {
        for client in self.queue.iter().filter_map(|pending| pending.owner.client()) {
            client.borrow_mut().wait_for_all();
        }
    }

    /// Whether it takes more requests.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() < REQUESTS_MAX && self.pushed - self.answered() < REQUEST_BYTES_MAX
    }

    /// Requests that wait to be sent, and their bytes; those that wait for their replies, and theirs.
    pub(crate) fn queues(&self) -> [u64; 4] {
        let held = self.queue.len() - self.handed;
        let answered = self.answered().min(self.handed_bytes);
        [held as u64, self.pushed - self.handed_bytes, self.handed as u64, self.handed_bytes - answered]
    }

    /// Gives back what a crowd needed and nobody needs now.
    pub(crate) fn tidy(&mut self) {
        if self.queue.is_empty() {
            self.queue.shrink_to(QUEUE_KEPT_MAX);
            self.kept.shrink_to(QUEUE_KEPT_MAX);
            self.unsettled.shrink_to(QUEUE_KEPT_MAX);
            self.waiting.shrink_to(QUEUE_KEPT_MAX);
        }
    }

    /// Whether it ended, `asked` or not, as one that could not be opened: before it answered anything. Of one that nobody
    /// asked for long this says nothing.
    pub(crate) fn was_in_vain(&self, now: Instant, asked: bool) -> bool {
        let served = self.served && !self.turned_away.get();
        !served && (asked || now - self.opened < UNASKED_MAX)
    }

    /// A reply is an error: it may say something of the server itself.
    #[cold]
    fn heed(&self, error: &[u8]) {
        if error.starts_with(b"-LOADING") {
            self.server.is_loading(&self.worker);
        } else if TURNED_AWAY.iter().any(|words| error.starts_with(words)) {
            self.turned_away.set(true);
        }
    }

    /// Whether it is gone.
    pub(crate) fn is_down(&self) -> bool {
        matches!(self.link, Link::Down)
    }

    /// Wakes the client when there is room again.
    pub(crate) fn wait(&mut self, client: Weak<ClientCell>) {
        if !self.waiting.iter().any(|other| other.ptr_eq(&client)) {
            self.waiting.push(client);
        }
    }

    /// Where the first request that is not answered begins.
    fn answered(&self) -> u64 {
        self.queue.front().map_or(self.pushed, |pending| pending.start)
    }

    /// A request of `len` bytes will follow by [`Lane::push`], in order.
    #[inline]
    pub(crate) fn expect(&mut self, owner: Owner, len: usize, deadline: Instant, again: Again, command: CommandIndex) {
        let asked = self.worker.micros();
        self.expect_again(Pending { owner, deadline, start: 0, again, attempts: 0, command, asked }, len);
    }

    /// As [`Lane::expect`], one that was asked before.
    #[inline]
    pub(crate) fn expect_again(&mut self, pending: Pending, len: usize) {
        self.soonest = self.soonest.min(pending.deadline);
        if self.queue.is_empty() {
            // Before it was asked anything it had nothing to say.
            self.heard = self.worker.now();
        }
        self.queue.push_back(Pending { start: self.pushed, ..pending });
        self.pushed += len as u64;
        self.mark();
    }

    /// The bytes of requests that were announced.
    #[inline]
    pub(crate) fn push(&mut self, source: Source<'_>, range: Range<usize>) {
        self.out.push(source, range);
    }

    /// Bytes of the request that was announced last, beyond as many as were announced.
    #[inline]
    pub(crate) fn add(&mut self, source: Source<'_>, range: Range<usize>) {
        self.pushed += range.len() as u64;
        self.out.push(source, range);
    }

    /// As [`Lane::add`], of bytes that live nowhere else.
    #[inline]
    pub(crate) fn add_made(&mut self, bytes: &[u8]) {
        self.pushed += bytes.len() as u64;
        self.out.copy(bytes);
    }

    #[inline]
    fn mark(&mut self) {
        if !self.dirty {
            self.dirty = true;
            if let Some(me) = self.me.upgrade() {
                self.worker.lane_is_dirty(me);
            }
        }
    }

    /// The turn's end: hands over what is held, unless it should wait for company.
    pub(crate) fn flush(&mut self) {
        self.dirty = false;
        if self.alone {
            return self.flush_alone();
        }
        let held = self.queue.len() - self.handed;
        if held == 0 {
            self.watch_time();
            return;
        }
        let wait = !self.retired && self.handed > 0 && held < self.server.batch() && self.out.len() < HELD_BYTES_MAX;
        if self.handed_bytes + self.out.len() as u64 != self.pushed {
            return self.give_up_unsent();
        }
        if let Link::Up(tcp) = &self.link
            && !wait
        {
            let (mut at, kept) = (self.handed_bytes, &mut self.kept);
            self.out.take(|chunk| {
                at += chunk.len() as u64;
                kept.push_back((at, chunk.clone()));
                tcp.send(chunk);
            });
            let bytes = at - self.handed_bytes;
            self.handed_bytes = at;
            if let Some(first) = self.queue.get(self.handed) {
                let waited = self.worker.micros().wrapping_sub(first.asked);
                self.server.cells().observe(KvServer::QUEUE_TIME, u64::from(waited) * 1_000);
            }
            self.handed = self.queue.len();
            self.server.cells().add(KvServer::REQUESTS, held as u64);
            self.server.cells().add(KvServer::REQUEST_BYTES, bytes);
            let cells = self.worker.cells();
            cells.add(Kv::BATCHES, 1);
            cells.add(Kv::REQUESTS, held as u64);
        }
        self.watch_time();
    }

    /// What is held is not what was announced: something panicked between the two, and no reply could be told whose it is.
    #[cold]
    fn give_up_unsent(&self) {
        if let Some(me) = self.me.upgrade() {
            self.worker.lane_has_failed(me, Fault::Internal);
        }
    }

    /// Lets go of what has been answered.
    fn forget(&mut self) {
        let answered = self.answered();
        if !self.unsettled.is_empty() {
            self.settle(answered);
        }
        while let Some((end, _)) = self.kept.front()
            && (*end <= answered || self.handed_bytes - answered > KEPT_MAX)
        {
            self.kept.pop_front();
        }
    }

    fn wake_waiting(&mut self) {
        if !self.waiting.is_empty() && self.queue.len() <= REQUESTS_MAX / 2 {
            self.wake_all_waiting();
        }
    }

    fn wake_all_waiting(&mut self) {
        for client in self.waiting.drain(..) {
            if let Some(client) = client.upgrade() {
                self.worker.thread().schedule_imm(client).detach();
            }
        }
    }
}

impl Continuation for Lane {
    fn handle_event(&mut self, event: Event, _thread: &Thread) {
        let failed = match event {
            Event::Io(_) | Event::Immediate => self.receive(),
            Event::Interval => {
                if self.relief.is_some() && self.paused {
                    self.relief = None;
                    self.relieve();
                }
                let now = self.worker.now();
                let late = self.expire(now);
                let failed = self.is_silent(now) || late > 0 && (self.alone || self.is_condemned(now, late));
                failed.then_some(Fault::TimedOut)
            }
            Event::Drain | Event::Message => None,
            Event::Cancelled => Some(Fault::Closed),
        };
        if let Some(fault) = failed
            && let Some(me) = self.me.upgrade()
        {
            // Not from within: failing gives requests to others, which may be us.
            self.worker.lane_has_failed(me, fault);
        }
    }

    fn name(&self) -> &'static str {
        "kv server"
    }
}

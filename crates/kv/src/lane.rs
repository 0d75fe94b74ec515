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
//! come.

mod alone;
mod late;
mod receive;
mod tally;

use std::cell::RefCell;
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
use crate::numbers::{CommandIndex, KvPool, KvServer};
use crate::outbox::{Outbox, Source};
use crate::pending::{Again, Owner, Pending};
use crate::server::Server;
use crate::wire::Reply;
use crate::worker::Worker;

/// Requests that one connection may have, held and on their way.
pub(crate) const REQUESTS_MAX: usize = 16 << 10;
/// Bytes of them.
const REQUEST_BYTES_MAX: u64 = 4 << 20;
/// Places that an empty queue keeps memory for.
const QUEUE_KEPT_MAX: usize = 256;
/// Held bytes that are sent whatever is on its way.
const HELD_BYTES_MAX: usize = 32 << 10;
/// Requests longer than this are not kept for being sent again.
const KEPT_MAX: u64 = 1 << 20;
/// How long others wait behind a client that does not take its reply before they are asked for elsewhere.
const RELIEF: Duration = Duration::from_millis(20);
/// How long others wait, who cannot be asked elsewhere, behind a client that takes its replies so slowly before it is cut.
const BLOCKED_MAX: Duration = Duration::from_secs(5);
/// How long a lane that is ahead of a client's earlier reply waits for any progress of that client before it goes on, as
/// far as may be kept. What the client waits for may be behind this lane, by way of others that wait alike.
const AHEAD_MAX: Duration = Duration::from_secs(1);

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
    /// Nothing is received until a client has taken what it has.
    paused: bool,
    /// Who paused it last.
    slow: Weak<ClientCell>,
    /// What that client waits for, and since when at least, while the lane is paused because it is ahead of that.
    ahead_of: Option<(u64, Instant)>,
    /// It has waited long enough for this reply of that client: others are kept as far as may be.
    impatient: Option<u64>,
    /// Since when it takes no new requests because of a client.
    slow_since: Option<Instant>,
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
    heard: Instant,
}

/// What failing took out of a lane.
struct Remains {
    queue: VecDeque<Pending>,
    kept: VecDeque<(u64, Chunk)>,
    ends: u64,
    /// The stream's bytes that the kernel took.
    sent: u64,
    passing: bool,
}

impl Remains {
    /// The stream's bytes of this range, if they were kept.
    fn bytes(&self, from: u64, to: u64) -> Option<Vec<u8>> {
        bytes_of(&self.kept, from, to)
    }
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
                paused: false,
                slow: Weak::new(),
                ahead_of: None,
                impatient: None,
                slow_since: None,
                retired: false,
                alone: false,
                own: None,
                room: None,
                plenty: false,
                heard: worker.now(),
            })
        });
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
        if self.alone {
            self.own = None;
            self.wake_waiting();
        }
    }

    /// It is that server's from now on, which is the same as its own was.
    pub(crate) fn belong_to(&mut self, server: &Rc<Server>) {
        self.server = Rc::clone(server);
    }

    /// It takes no new requests. True when nothing is on it: it can go.
    pub(crate) fn finish(&mut self) -> bool {
        self.retired = true;
        self.mark();
        self.queue.is_empty()
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
            self.waiting.shrink_to(QUEUE_KEPT_MAX);
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
        self.queue.push_back(Pending { start: self.pushed, ..pending });
        self.pushed += len as u64;
        self.mark();
    }

    /// The bytes of requests that were announced.
    #[inline]
    pub(crate) fn push(&mut self, source: Source<'_>, range: Range<usize>) {
        self.out.push(source, range);
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
        if held == 0 || self.out.is_empty() {
            self.watch_time();
            return;
        }
        let wait = !self.retired && self.handed > 0 && held < self.server.batch() && self.out.len() < HELD_BYTES_MAX;
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

    /// Lets go of what has been answered.
    fn forget(&mut self) {
        let answered = self.answered();
        while let Some((end, _)) = self.kept.front()
            && (*end <= answered || self.handed_bytes - answered > KEPT_MAX)
        {
            self.kept.pop_front();
        }
    }

    /// Goes on receiving after a client has taken what it had.
    pub(crate) fn resume(&mut self) {
        self.ahead_of = None;
        if std::mem::take(&mut self.paused)
            && let Some(me) = self.me.upgrade()
        {
            self.worker.thread().schedule_imm(me).detach();
        }
    }

    /// A client does not take what it asked for: others go another way from now on, and soon also those of them that
    /// wait behind it and may be asked twice.
    fn retire(&mut self) {
        let Some(me) = self.me.upgrade() else { return };
        if !std::mem::replace(&mut self.retired, true) {
            self.server.forget(&me);
            self.slow_since = Some(self.worker.now());
            // Who waits for room here finds some elsewhere.
            self.wake_all_waiting();
            // What they ask later must not overtake what they asked here.
            for pending in &self.queue {
                let client = match &pending.owner {
                    Owner::Client(client, _) => Rc::clone(client),
                    Owner::Part(joining, _) => joining.borrow().client(),
                    Owner::Handshake | Owner::Nobody => continue,
                };
                client.borrow_mut().wait_for_all();
            }
            self.mark();
        }
        self.relief = Some(self.worker.thread().schedule_in(me, RELIEF));
    }

    /// Asks again elsewhere for those who wait behind the one that does not take its reply.
    fn relieve(&mut self) {
        if !self.paused {
            return;
        }
        let slow = self.slow.upgrade();
        let Some((slow, me)) = slow.filter(|slow| !slow.borrow().is_gone()).zip(self.me.upgrade()) else {
            return self.resume();
        };
        let begun = self.passing || !self.pieces.is_empty();
        if begun && matches!(self.queue.front().map(|pending| &pending.owner), Some(Owner::Nobody)) {
            // What comes is dropped.
            return self.resume();
        }
        let now = self.worker.now();
        let waits_for = slow.borrow().waits_for();
        if let Some(seq) = waits_for {
            let since = self.ahead_of.filter(|ahead| ahead.0 == seq).map_or(now, |ahead| ahead.1);
            if now - since >= AHEAD_MAX {
                self.impatient = Some(seq);
                return self.resume();
            }
            self.ahead_of = Some((seq, since));
        }
        self.ask_elsewhere(&slow, usize::from(begun));
        let others_wait = self.queue.iter().any(|pending| match &pending.owner {
            Owner::Client(client, _) => !Rc::ptr_eq(client, &slow),
            Owner::Part(joining, _) => !Rc::ptr_eq(&joining.borrow().client(), &slow),
            Owner::Handshake | Owner::Nobody => false,
        });
        if waits_for.is_none() && others_wait && self.slow_since.is_some_and(|since| now - since >= BLOCKED_MAX) {
            slow.borrow_mut().cut();
            return;
        }
        self.relief = Some(self.worker.thread().schedule_in(me, AHEAD_MAX));
    }

    /// Asks what the server has been asked from the one at `first` on at another connection, as far as it is not of `slow`.
    fn ask_elsewhere(&mut self, slow: &Rc<ClientCell>, first: usize) {
        for at in first..self.handed.min(self.queue.len()) {
            let end = self.queue.get(at + 1).map_or(self.pushed, |next| next.start);
            let Some(pending) = self.queue.get_mut(at) else { return };
            let other = match &pending.owner {
                Owner::Client(client, _) => !Rc::ptr_eq(client, slow),
                Owner::Part(joining, _) => !Rc::ptr_eq(&joining.borrow().client(), slow),
                Owner::Handshake | Owner::Nobody => false,
            };
            if !other || pending.again != Again::Always || pending.attempts > 0 {
                continue;
            }
            let Some(bytes) = bytes_of(&self.kept, pending.start, end) else { continue };
            let owner = std::mem::replace(&mut pending.owner, Owner::Nobody);
            let (deadline, start) = (pending.deadline, pending.start);
            let (command, asked) = (pending.command, pending.asked);
            let pending = Pending { owner, deadline, start, again: Again::Always, attempts: 0, command, asked };
            self.server.retry(&self.worker, pending, Fault::TimedOut, false, |_| Some(bytes));
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

    /// Takes everything out and closes.
    fn close(&mut self) -> Remains {
        let sent = match &self.link {
            Link::Up(tcp) => tcp.sent().saturating_sub(self.lead),
            Link::Connecting | Link::Down => 0,
        };
        if let Link::Up(tcp) = &self.link {
            // What was not sent must not be: it may go elsewhere.
            tcp.abort();
        }
        if !self.is_down() {
            self.worker.cells().sub(Kv::SERVER_OPEN, 1);
        }
        self.link = Link::Down;
        self.own = None;
        if let Some(task) = self.room.take() {
            task.cancel();
        }
        self.timer = None;
        self.relief = None;
        self.input = None;
        self.pieces.clear();
        self.pieces_kept = None;
        let (mut at, mut kept) = (self.handed_bytes, std::mem::take(&mut self.kept));
        self.out.take(|chunk| {
            at += chunk.len() as u64;
            kept.push_back((at, chunk));
        });
        // It may be held on to by somebody who has yet to hear of this.
        self.out.rest();
        (self.handed, self.expired, self.soonest) = (0, 0, Instant::FAR_FUTURE);
        let queue = std::mem::take(&mut self.queue);
        Remains { queue, kept, ends: self.pushed, sent, passing: std::mem::take(&mut self.passing) }
    }
}

/// The connection failed: each request on it is sent again where that is right, or gets its error.
pub(crate) fn fail(lane: &Rc<LaneCell>, fault: Fault) {
    let (worker, server, mut remains, waiting) = {
        let mut lane = lane.borrow_mut();
        if lane.is_down() {
            return;
        }
        let (worker, server) = (lane.worker.clone(), Rc::clone(&lane.server));
        (worker, server, lane.close(), std::mem::take(&mut lane.waiting))
    };
    let asked =
        remains.queue.iter().any(|pending| !matches!(pending.owner, Owner::Handshake)) || fault == Fault::Handshake;
    server.lane_failed(&worker, lane, fault, asked);
    let mut first = true;
    while let Some(pending) = remains.queue.pop_front() {
        let end = remains.queue.front().map_or(remains.ends, |next| next.start);
        let broken_off = std::mem::take(&mut first) && remains.passing;
        if broken_off {
            if let Owner::Client(client, _) = &pending.owner {
                client.borrow_mut().cut();
            }
            continue;
        }
        let unsent = pending.start >= remains.sent;
        server.retry(&worker, pending, fault, unsent, |start| remains.bytes(start, end));
    }
    for client in waiting {
        if let Some(client) = client.upgrade() {
            worker.thread().schedule_imm(client).detach();
        }
    }
}

/// Gives the answer of a server that has nothing in a reply's place.
pub(crate) fn give_nothing(owner: Owner, nothing: Vec<u8>) {
    let len = nothing.len();
    let reply = Chunk::from_shared(nothing.into(), 0..len);
    match owner {
        Owner::Client(client, seq) => {
            let mut client = client.borrow_mut();
            client.pool().cells().add(KvPool::MISSES, 1);
            client.fill_pieces(seq, vec![reply]);
        }
        Owner::Part(joining, part) => crate::join::give(&joining, part, reply),
        Owner::Handshake | Owner::Nobody => {}
    }
}

/// Gives an error in a reply's place.
pub(crate) fn give_fault(worker: &Worker, owner: Owner, fault: Fault) {
    let pool = match &owner {
        Owner::Client(client, _) => *client.borrow().pool().cells(),
        Owner::Part(joining, _) => *joining.borrow().client().borrow().pool().cells(),
        Owner::Handshake | Owner::Nobody => return,
    };
    pool.add(KvPool::failed(fault), 1);
    worker.cells().add(Kv::FORWARD_ERRORS, 1);
    match owner {
        Owner::Client(client, seq) => client.borrow_mut().fault(seq, fault),
        Owner::Part(joining, part) => crate::join::fault(&joining, part, fault),
        Owner::Handshake | Owner::Nobody => {}
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

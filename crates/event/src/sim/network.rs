//! The simulated network: connections, listeners, names, and who is told of what. Pure: told the time and asked what
//! happens next; all chance is the seed's.
//!
//! Each end draws from a generator of its own, so that what happens on one connection does not depend on the order in
//! which others were touched within a moment.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use base::{Instant, Rng};
use sys::epoll::Ready;

use super::end::{ECONNREFUSED, ECONNRESET, EMFILE, ENETUNREACH, ENOTCONN, EPIPE, ETIMEDOUT, End, Phase, Watch, errno};
use super::faults::{Faults, duration_within, hits};

/// A connect whose first packet is dropped asks again after one second, then two, four, as Linux does.
const CONNECT_RETRIES: u32 = 6;
/// After so long the kernel itself gives a connect up.
const CONNECT_GIVEN_UP: Duration = Duration::from_secs(127);
/// A connection that is to be reset or cut is so within this time, mostly much sooner.
const DOOM_MAX: Duration = Duration::from_secs(20);
/// Readiness events one wait hands out at most.
const EVENTS_MAX: usize = 256;

/// Which end of which connection: the ends of one differ in the lowest bit.
pub(super) type EndId = usize;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Happening {
    /// A connect reaches the other side, for the so-manieth time.
    Connect(u32),
    GiveUp,
    /// Bytes, or the end, leave this end's pipe at the other end.
    Deliver,
    /// A reset arrives at this end.
    Reset,
    Cut,
}

#[derive(Debug)]
struct Listening {
    address: SocketAddr,
    backlog: usize,
    queue: VecDeque<EndId>,
    /// Who is told, by driver: token, and whether it is in the driver's list.
    watches: BTreeMap<usize, (u64, bool)>,
    open: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    End(EndId),
    Listener(usize),
}

#[derive(Debug)]
pub(crate) struct Network {
    seed: u64,
    pub(super) faults: Faults,
    pub(super) now: Instant,
    ends: Vec<End>,
    listeners: Vec<Listening>,
    /// By driver: what to report at its next wait.
    ready: Vec<Vec<Source>>,
    names: BTreeMap<Box<str>, Vec<IpAddr>>,
    happenings: BinaryHeap<Reverse<(Instant, EndId, Happening)>>,
    rng: Rng,
    trace: u64,
    /// Ends that a socket stands for.
    held: usize,
    pub(super) narrates: bool,
}

impl Network {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self {
            seed,
            faults,
            now: Instant::ORIGIN,
            ends: Vec::new(),
            listeners: Vec::new(),
            ready: Vec::new(),
            names: BTreeMap::new(),
            happenings: BinaryHeap::new(),
            rng: Rng::new(seed ^ 0x6e65_7477_6f72_6b00),
            trace: 0xcbf2_9ce4_8422_2325,
            held: 0,
            narrates: false,
        }
    }

    /// Makes one fact part of the story.
    pub(super) fn note(&mut self, what: &str, id: usize, value: u64) {
        let length = what.len() as u64;
        for part in [self.now.as_nanos(), length, what.as_bytes()[0].into(), id as u64, value] {
            self.trace = (self.trace ^ part).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
        if self.narrates {
            eprintln!("{:>14} {what} {id} {value}", self.now.as_nanos());
        }
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace
    }

    pub(super) fn add_driver(&mut self) -> usize {
        self.ready.push(Vec::new());
        self.ready.len() - 1
    }

    pub(super) fn set_name(&mut self, name: &str, addresses: Vec<IpAddr>) {
        self.names.insert(name.into(), addresses);
    }

    /// How long the look-up takes, and its outcome; `None`: it is never answered.
    pub(super) fn look_up(&mut self, name: &str) -> (Duration, Option<Result<Vec<IpAddr>, String>>) {
        let delay = duration_within(&mut self.rng, [Duration::ZERO, self.faults.lookup_max]);
        if hits(&mut self.rng, self.faults.lookup_lost) {
            return (delay, None);
        }
        if hits(&mut self.rng, self.faults.lookup_failed) {
            return (delay, Some(Err("simulated failure".into())));
        }
        let known = self.names.get(name).filter(|addresses| !addresses.is_empty());
        (delay, Some(known.cloned().ok_or_else(|| "no such name in this world".into())))
    }

    pub(super) fn ends_held(&self) -> usize {
        self.held
    }

    // What happens.

    pub(super) fn next_happening(&self) -> Option<Instant> {
        self.happenings.peek().map(|Reverse((at, _, _))| *at)
    }

    fn plan(&mut self, id: EndId, after: Duration, happening: Happening) {
        self.happenings.push(Reverse((self.now + after, id, happening)));
    }

    /// Lets happen what is due.
    pub(super) fn run_due(&mut self) {
        while let Some(Reverse((at, id, happening))) = self.happenings.peek().copied()
            && at <= self.now
        {
            self.happenings.pop();
            match happening {
                Happening::Connect(attempt) => self.connect_arrives(id, attempt),
                Happening::GiveUp => self.fail(id, ETIMEDOUT),
                Happening::Deliver => self.deliver(id),
                Happening::Reset => self.reset(id),
                Happening::Cut => {
                    self.note("cut", id, 0);
                    self.ends[id].cut = true;
                    self.ends[id ^ 1].cut = true;
                }
            }
        }
    }

    fn connect_arrives(&mut self, id: EndId, attempt: u32) {
        if self.ends[id].phase != Phase::Connecting || self.ends[id].orphan {
            return;
        }
        let address = self.ends[id].peer;
        let Some(listener) = self.listeners.iter().position(|listener| listener.open && listener.address == address)
        else {
            self.fail(id, ECONNREFUSED);
            return;
        };
        if self.listeners[listener].queue.len() >= self.listeners[listener].backlog {
            if attempt >= CONNECT_RETRIES {
                self.fail(id, ETIMEDOUT);
            } else {
                self.plan(id, Duration::from_secs(1 << attempt), Happening::Connect(attempt + 1));
            }
            return;
        }
        self.note("established", id, listener as u64);
        self.ends[id].phase = Phase::Open;
        self.ends[id ^ 1].phase = Phase::Open;
        self.tell(id, None);
        self.listeners[listener].queue.push_back(id ^ 1);
        self.doom(id);
        // One of the waiting threads is woken, as the kernel does; sometimes more, as it also does.
        let all: Vec<usize> = self.listeners[listener].watches.keys().copied().collect();
        if let Some(first) = usize::try_from(self.rng.below(all.len() as u64)).ok().and_then(|n| all.get(n)) {
            let more = self.rng.one_in(8);
            for driver in all.iter().filter(|&driver| more || driver == first) {
                self.tell_listener(listener, *driver);
            }
        }
    }

    /// Draws whether, when and how the connection of client end `id` comes to a bad end.
    fn doom(&mut self, id: EndId) {
        let (reset, cut) = (self.faults.reset, self.faults.cut);
        let rng = &mut self.ends[id].rng;
        let after = duration_within(rng, [Duration::ZERO, DOOM_MAX]);
        let which = id ^ usize::from(rng.one_in(2));
        if hits(rng, reset) {
            let later = after + duration_within(rng, [Duration::ZERO, DOOM_MAX]);
            self.plan(which, after, Happening::Reset);
            self.plan(which ^ 1, later, Happening::Reset);
        } else if hits(rng, cut) {
            let happening = if rng.one_in(2) { Happening::Reset } else { Happening::Cut };
            self.plan(which, after, happening);
        }
    }

    /// A connect comes to nothing.
    fn fail(&mut self, id: EndId, code: i32) {
        let end = &mut self.ends[id];
        if end.phase == Phase::Connecting {
            end.phase = Phase::Dead;
            end.error = Some(code);
            self.note("connect failed", id, code.unsigned_abs().into());
            self.tell(id, None);
        }
    }

    fn reset(&mut self, id: EndId) {
        let end = &mut self.ends[id];
        // What was on its way here from an end that aborted is lost; what was delivered can still be received.
        let died = end.phase == Phase::Open;
        if died {
            end.phase = Phase::Dead;
            end.outgoing.clear();
            end.error = Some(if end.end_received { EPIPE } else { ECONNRESET });
        }
        let other = &mut self.ends[id ^ 1];
        if other.orphan || other.phase == Phase::Dead {
            other.outgoing.clear();
        }
        if died {
            self.note("reset", id, 0);
            self.tell(id, None);
        }
    }

    /// Sets the pipe of `id` going when it has something to deliver.
    fn start(&mut self, id: EndId) {
        let end = &mut self.ends[id];
        let something = !end.outgoing.is_empty() || (end.end_sent && !end.end_delivered && end.phase == Phase::Open);
        if end.travelling || !something || end.phase == Phase::Connecting {
            return;
        }
        end.travelling = true;
        let mut after = end.latency;
        if hits(&mut end.rng, self.faults.stall) {
            after += duration_within(&mut end.rng, [Duration::ZERO, self.faults.stall_max]);
        }
        self.plan(id, after, Happening::Deliver);
    }

    fn deliver(&mut self, id: EndId) {
        let peer = id ^ 1;
        self.ends[id].travelling = false;
        if self.ends[id].cut {
            return;
        }
        let waiting = self.ends[id].outgoing.len();
        if waiting > 0 && (self.ends[peer].orphan || self.ends[peer].phase == Phase::Dead) {
            // Bytes for a closed end: it answers with a reset, and what it was still sending is lost.
            self.note("unwanted", peer, waiting as u64);
            self.ends[id].outgoing.clear();
            self.ends[peer].phase = Phase::Dead;
            self.ends[peer].outgoing.clear();
            let back = self.ends[peer].latency;
            self.plan(id, back, Happening::Reset);
            return;
        }
        if waiting > 0 {
            let n = self.ends[peer].next_segment(waiting);
            let [from, to] = self.pair(id);
            to.incoming.extend(from.outgoing.drain(..n));
            if n > 0 {
                self.note("delivered", peer, n as u64);
                self.tell(peer, Some(Ready::READ));
                if self.ends[id].wants_room && self.ends[id].has_room() {
                    self.ends[id].wants_room = false;
                    self.tell(id, Some(Ready::WRITE));
                }
            }
            if !self.ends[id].outgoing.is_empty() {
                // A receiver without room starts us again when it has some.
                if n > 0 {
                    self.start(id);
                }
                return;
            }
            // The end may come together with the last bytes, or behind them.
            if self.ends[id].rng.one_in(2) {
                self.start(id);
                return;
            }
        }
        let end = &mut self.ends[id];
        if end.end_sent && !end.end_delivered && end.phase == Phase::Open {
            end.end_delivered = true;
            if self.ends[peer].phase == Phase::Open {
                self.ends[peer].end_received = true;
                self.note("ended", peer, 0);
                self.tell(peer, None);
            } else {
                let back = self.ends[peer].latency;
                self.plan(id, back, Happening::Reset);
            }
        }
    }

    /// An end and its other end.
    fn pair(&mut self, id: EndId) -> [&mut End; 2] {
        let (low, high) = self.ends.split_at_mut(id | 1);
        let (even, odd) = (&mut low[id & !1], &mut high[0]);
        if id & 1 == 0 { [even, odd] } else { [odd, even] }
    }

    /// Tells whoever watches `id` that something changed. `Some`: only who asked for that.
    fn tell(&mut self, id: EndId, what: Option<Ready>) {
        let Some(watch) = &mut self.ends[id].watch else { return };
        if what == Some(Ready::WRITE) && !watch.writes {
            return;
        }
        if !std::mem::replace(&mut watch.pending, true) {
            self.ready[watch.driver].push(Source::End(id));
        }
    }

    fn tell_listener(&mut self, listener: usize, driver: usize) {
        if let Some((_, pending)) = self.listeners[listener].watches.get_mut(&driver)
            && !std::mem::replace(pending, true)
        {
            self.ready[driver].push(Source::Listener(listener));
        }
    }

    // What drivers ask for.

    pub(super) fn has_ready(&self, driver: usize) -> bool {
        !self.ready[driver].is_empty()
    }

    /// What became ready for `driver`, in an order of chance, and no longer than one wait may be.
    pub(super) fn take_ready(&mut self, driver: usize, events: &mut Vec<(u64, Ready)>) {
        let mut sources = std::mem::take(&mut self.ready[driver]);
        for n in (1..sources.len()).rev() {
            let other = usize::try_from(self.rng.below(n as u64 + 1)).unwrap_or(n);
            sources.swap(n, other);
        }
        let most = if self.rng.one_in(16) { 1 } else { EVENTS_MAX };
        let rest = sources.split_off(sources.len().min(most));
        for source in sources {
            match source {
                Source::End(id) => {
                    let end = &mut self.ends[id];
                    let mut ready = end.readiness();
                    let Some(watch) = &mut end.watch else { continue };
                    if watch.driver != driver {
                        continue;
                    }
                    watch.pending = false;
                    if !watch.writes {
                        ready = ready.without(Ready::WRITE);
                    }
                    if ready != Ready::default() {
                        events.push((watch.token, ready));
                    }
                }
                Source::Listener(id) => {
                    let listener = &mut self.listeners[id];
                    let Some((token, pending)) = listener.watches.get_mut(&driver) else { continue };
                    *pending = !listener.queue.is_empty();
                    if *pending {
                        events.push((*token, Ready::READ));
                        // Level-triggered: again at the next wait, as long as somebody waits to be accepted.
                        self.ready[driver].push(source);
                    }
                }
            }
        }
        self.ready[driver].extend(rest);
    }

    pub(super) fn watch(&mut self, driver: usize, id: EndId, token: u64, writes: bool) {
        let end = &mut self.ends[id];
        let pending = end.watch.is_some_and(|watch| watch.pending);
        end.watch = Some(Watch { driver, token, writes, pending });
        let ready = end.readiness();
        if ready.without(if writes { Ready::default() } else { Ready::WRITE }) != Ready::default() {
            self.tell(id, None);
        }
    }

    pub(super) fn unwatch(&mut self, id: EndId) {
        if let Some(watch) = self.ends[id].watch.take() {
            self.ready[watch.driver].retain(|source| *source != Source::End(id));
        }
    }

    pub(super) fn watch_listener(&mut self, driver: usize, id: usize, token: u64) {
        self.listeners[id].watches.insert(driver, (token, false));
        if !self.listeners[id].queue.is_empty() {
            self.tell_listener(id, driver);
        }
    }

    pub(super) fn unwatch_listener(&mut self, driver: usize, id: usize) {
        self.listeners[id].watches.remove(&driver);
        self.ready[driver].retain(|source| *source != Source::Listener(id));
    }

    pub(super) fn listen(&mut self, address: SocketAddr, backlog: usize) -> usize {
        self.listeners.push(Listening {
            address,
            backlog,
            queue: VecDeque::new(),
            watches: BTreeMap::new(),
            open: true,
        });
        self.listeners.len() - 1
    }

    /// Closes a listener: who waits in its queue is reset, who comes later is refused.
    pub(super) fn close_listener(&mut self, id: usize) {
        let listener = &mut self.listeners[id];
        listener.open = false;
        listener.watches.clear();
        for end in std::mem::take(&mut listener.queue) {
            self.ends[end].abort_on_close = true;
            self.close(end);
        }
        for ready in &mut self.ready {
            ready.retain(|source| *source != Source::Listener(id));
        }
    }

    pub(super) fn accept(&mut self, id: usize) -> io::Result<(EndId, SocketAddr)> {
        if self.listeners[id].queue.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if hits(&mut self.rng, self.faults.exhausted) {
            return Err(errno(EMFILE));
        }
        let Some(end) = self.listeners[id].queue.pop_front() else { return Err(io::ErrorKind::WouldBlock.into()) };
        self.note("accepted", end, id as u64);
        self.held += 1;
        Ok((end, self.ends[end].peer))
    }

    /// Starts a connection: makes both ends, of which the other waits for the connect to arrive.
    pub(super) fn connect(&mut self, address: SocketAddr) -> io::Result<EndId> {
        if hits(&mut self.rng, self.faults.exhausted) {
            return Err(errno(if self.rng.one_in(2) { EMFILE } else { ENETUNREACH }));
        }
        let id = self.ends.len();
        let port = 10_000 + u16::try_from(id / 2 % 50_000).unwrap_or(0);
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        for (end, local, peer) in [(id, local, address), (id + 1, address, local)] {
            let seed = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ end as u64;
            self.ends.push(End::new(seed, &self.faults, local, peer));
        }
        let faults = &self.faults;
        let end = &mut self.ends[id];
        let happening = if hits(&mut end.rng, faults.lost_connect) {
            (CONNECT_GIVEN_UP, Happening::GiveUp)
        } else {
            let mut after = end.latency;
            if hits(&mut end.rng, faults.slow_connect) {
                after += duration_within(&mut end.rng, [Duration::ZERO, faults.slow_connect_max]);
            }
            if hits(&mut end.rng, faults.refused) {
                // As if nobody listened there at that moment.
                end.peer.set_port(0);
            }
            (after, Happening::Connect(0))
        };
        self.note("connect", id, address.port().into());
        self.plan(id, happening.0, happening.1);
        self.held += 1;
        Ok(id)
    }

    // What sockets ask for.

    pub(super) fn receive(&mut self, id: EndId, into: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        let result = self.ends[id].receive(into);
        match &result {
            Ok(n) => {
                self.note("received", id, *n as u64);
                // There is room again for what the other end holds.
                self.start(id ^ 1);
            }
            Err(error) => self.note("receive failed", id, error.raw_os_error().unwrap_or(0).unsigned_abs().into()),
        }
        result
    }

    pub(super) fn send(&mut self, id: EndId, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let result = self.ends[id].send(&self.faults, slices);
        match &result {
            Ok(n) => {
                self.note("sent", id, *n as u64);
                self.start(id);
            }
            Err(error) => self.note("send failed", id, error.raw_os_error().unwrap_or(0).unsigned_abs().into()),
        }
        result
    }

    pub(super) fn end_mut(&mut self, id: EndId) -> &mut End {
        &mut self.ends[id]
    }

    pub(super) fn shutdown_write(&mut self, id: EndId) -> io::Result<()> {
        let end = &mut self.ends[id];
        if end.phase != Phase::Open {
            return Err(errno(ENOTCONN));
        }
        if !std::mem::replace(&mut end.end_sent, true) {
            self.note("shutdown", id, 0);
            self.start(id);
            self.tell(id, None);
        }
        Ok(())
    }

    /// The last holder of a socket let go.
    pub(super) fn release(&mut self, id: EndId) {
        self.held -= 1;
        self.close(id);
    }

    fn close(&mut self, id: EndId) {
        self.unwatch(id);
        let end = &mut self.ends[id];
        if std::mem::replace(&mut end.orphan, true) {
            return;
        }
        let (phase, abort) = (end.phase, end.abort_on_close || !end.incoming.is_empty());
        end.incoming = VecDeque::new();
        self.note("closed", id, u64::from(abort));
        let end = &mut self.ends[id];
        match phase {
            Phase::Connecting => end.phase = Phase::Dead,
            Phase::Dead => {}
            Phase::Open if abort => {
                end.phase = Phase::Dead;
                // Of what was sent some is on its way already, and may or may not be faster than the reset.
                let on_its_way = usize::try_from(end.rng.below(end.outgoing.len() as u64 + 1)).unwrap_or(0);
                end.outgoing.truncate(on_its_way);
                let after = end.latency + duration_within(&mut end.rng, [Duration::ZERO, end.latency]);
                if !end.cut {
                    self.plan(id ^ 1, after, Happening::Reset);
                }
            }
            Phase::Open => {
                end.end_sent = true;
                self.start(id);
            }
        }
    }
}

//! The event thread: its queues, its loop, and what continuations ask of it.
//!
//! ```text
//! one turn: external queue → due timers → local queue → poll I/O → deliver → tail (flush what this turn wrote)
//! ```
//!
//! The local queue is run twice a turn, each time only as far as it reached at that moment: before the poll (what was
//! queued before this turn) and after it (what the I/O woke). What is queued meanwhile waits for the next turn, so
//! that nobody starves the sockets. The poll sleeps only when nothing is queued and nothing is unsent.
//!
//! A [`Thread`] is a shared hold on one loop, not Send: state belongs to a thread, others send it messages through a
//! [`Handle`].

mod run;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use base::{Clock, Instant, Rng, SystemClock, WallTime};
use buf::Chain;
use slab::Slab;
use stats::{Beat, BeatName, Cells};

use crate::continuation::{Action, ActionKey, Actions, Cont, Event, Every, PERIOD_MIN, Scheduled, Target};
use crate::driver::Driver;
use crate::external::{External, Message, Put, Refused};
use crate::listener::ListenerState;
use crate::metrics::Loop;
use crate::parcel::Code;
use crate::registry;
use crate::remote::{Arrival, When};
use crate::sleep::Sleep;
use crate::task::{Task, TaskId, Tasks};
use crate::tcp::Stream;
use crate::timer::{TimerKey, Wheel};
use crate::turn::{Running, TurnStats};

/// The longest that readiness may gather: what an interrupt of a network card waits for its fellows.
const GATHER_MAX: Duration = Duration::from_micros(100);
/// Messages from other threads that one turn takes; the rest wait for the next.
const EXTERNAL_MAX: u64 = 1_024;
/// Due timers whose list a thread keeps for the next turn.
const DUE_KEPT_MAX: usize = 4_096;
/// Places that a thread's lists keep memory for, whatever is in them.
const LIST_KEPT_MIN: usize = 256;
/// Empty chains a thread keeps ready for the next response.
const CHAINS_MAX: usize = 256;
/// How often the allocator is asked to give memory back after some was freed: it waits a while with each piece.
const COLLECT_TIMES: u8 = 5;
/// How often a thread's end looks whether ending something has started something.
const ENDS_MAX: usize = 8;
/// How long a closed connection may take to accept what was sent before it is cut.
pub(crate) const FLUSH_AFTER_CLOSE_MAX: Duration = Duration::from_secs(30);

/// What a pending timer is for.
pub(crate) enum TimerTarget {
    Waker(Waker),
    Action(ActionKey),
    /// The deadline of a connection.
    Stream(Rc<Stream>),
    /// A listener that paused looks again.
    Listener(usize),
}

type AtTail = Rc<dyn Fn(&Thread)>;

/// What waits in the local queue.
enum Local {
    Task(TaskId),
    Action(ActionKey),
}

/// What a loop's token means.
#[derive(Clone)]
pub(crate) enum Source {
    Stream(Rc<Stream>),
    Listener(Rc<ListenerState>),
}

pub(crate) enum ThreadClock {
    System(SystemClock),
    #[cfg(any(test, feature = "sim"))]
    Manual(base::ManualClock),
}

impl ThreadClock {
    #[inline]
    fn now(&self) -> Instant {
        match self {
            Self::System(clock) => clock.now(),
            #[cfg(any(test, feature = "sim"))]
            Self::Manual(clock) => clock.now(),
        }
    }

    fn wall(&self) -> WallTime {
        match self {
            Self::System(clock) => clock.wall(),
            #[cfg(any(test, feature = "sim"))]
            Self::Manual(clock) => clock.wall(),
        }
    }
}

pub(crate) struct Core {
    pub(crate) id: u16,
    name: Box<str>,
    index: usize,
    clock: ThreadClock,
    now: Cell<Instant>,
    rng: RefCell<Rng>,
    pub(crate) tasks: Tasks,
    pub(crate) actions: RefCell<Actions>,
    local: RefCell<VecDeque<Local>>,
    pub(crate) wheel: RefCell<Wheel<TimerTarget>>,
    pub(crate) driver: Driver,
    pub(crate) sources: RefCell<Slab<Source>>,
    pub(crate) dirty: RefCell<Vec<Rc<Stream>>>,
    #[expect(clippy::vec_box, reason = "they move between this list and connections by their address")]
    pub(crate) chains: RefCell<Vec<Box<Chain>>>,
    /// Since the lists were tidied: the fewest chains there were, the most that the others held.
    chains_spare: Cell<usize>,
    dirty_most: Cell<usize>,
    local_most: Cell<usize>,
    /// How often the allocator is still to be asked to give memory back.
    collect: Cell<u8>,
    external: Arc<External>,
    running: Running,
    pub(crate) stats: TurnStats,
    stop: Cell<bool>,
    /// How long the loop is to let readiness gather before it looks, when it would sleep.
    gather: Cell<Duration>,
    tail: RefCell<Vec<AtTail>>,
    /// Emptied between turns: its memory is kept.
    due: Cell<Vec<(Instant, TimerTarget)>>,
}

/// One event thread, from the inside. Clones share it.
#[derive(Clone)]
pub struct Thread(Rc<Core>);

/// One event thread, from the outside: Send, Sync, cheap to clone.
#[derive(Clone)]
pub struct Handle {
    external: Arc<External>,
}

impl Handle {
    /// Runs `f` on that thread's loop, soon, after what was sent before.
    ///
    /// # Errors
    /// When the thread's queue is full, or it has ended; `f` is dropped.
    pub fn run(&self, f: impl FnOnce(&Thread) + Send + 'static) -> Result<(), Refused> {
        match self.external.put(Code(f)) {
            Put::Done(..) => Ok(()),
            Put::NoRoom(Code(f)) => self.external.offer_over(Message::Run(Box::new(f))),
            Put::Ended => Err(Refused::Ended),
        }
    }

    /// As [`Handle::run`], for what must not be refused and is sent a few times only.
    pub(crate) fn must_run(&self, f: impl FnOnce(&Thread) + Send + 'static) {
        if let Put::NoRoom(Code(f)) = self.external.put(Code(f)) {
            self.external.push(Message::Run(Box::new(f)));
        }
    }

    pub(crate) fn external(&self) -> &Arc<External> {
        &self.external
    }

    /// Messages that wait to be taken.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.external.len()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({} queued)", self.external.len())
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Thread({})", self.0.name)
    }
}

/// What a thread is called, its number within its group, and the seed of its chance.
#[derive(Clone, Debug)]
pub struct ThreadOptions {
    /// As `ps` shows it: `[ET_NET 0]`.
    pub name: String,
    /// From 0, within its group.
    pub index: usize,
    /// Of [`Thread::random`].
    pub seed: u64,
}

impl Thread {
    /// An event thread for the calling OS thread, on epoll and the system's clocks. Nothing runs before
    /// [`Thread::run`] or [`Thread::turn`].
    ///
    /// # Errors
    /// When descriptors or memory ran out, or there are 1,024 event threads already.
    pub fn new(options: ThreadOptions) -> io::Result<Self> {
        let external = Arc::new(External::new()?);
        let driver = Driver::epoll(external.wake())?;
        Self::with(options, external, driver, ThreadClock::System(SystemClock))
    }

    pub(crate) fn with(
        options: ThreadOptions,
        external: Arc<External>,
        driver: Driver,
        clock: ThreadClock,
    ) -> io::Result<Self> {
        let id = registry::register(&external)?;
        let now = clock.now();
        Ok(Self(Rc::new(Core {
            id,
            name: options.name.into_boxed_str(),
            index: options.index,
            now: Cell::new(now),
            clock,
            rng: RefCell::new(Rng::new(options.seed)),
            tasks: Tasks::default(),
            actions: RefCell::default(),
            local: RefCell::default(),
            wheel: RefCell::new(Wheel::new(now)),
            driver,
            sources: RefCell::default(),
            dirty: RefCell::default(),
            chains: RefCell::default(),
            chains_spare: Cell::new(0),
            dirty_most: Cell::new(0),
            local_most: Cell::new(0),
            collect: Cell::new(0),
            external,
            running: Running::default(),
            stats: TurnStats::default(),
            stop: Cell::new(false),
            gather: Cell::new(Duration::ZERO),
            tail: RefCell::default(),
            due: Cell::default(),
        })))
    }

    pub(crate) fn core(&self) -> &Rc<Core> {
        &self.0
    }

    /// The name given at its creation.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its number within its group.
    #[must_use]
    pub fn index(&self) -> usize {
        self.0.index
    }

    /// The face for other threads.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { external: Arc::clone(&self.0.external) }
    }

    /// The moment this turn's events are of. Read once a turn: within a turn it stands still.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Instant {
        self.0.now.get()
    }

    /// The monotonic clock itself, for measuring within a turn.
    #[must_use]
    pub fn precise_now(&self) -> Instant {
        self.0.clock.now()
    }

    /// Civil time, read now.
    #[must_use]
    pub fn wall(&self) -> WallTime {
        self.0.clock.wall()
    }

    /// 64 random bits of this thread's own seed.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.0.rng.borrow_mut().next_u64()
    }

    /// Numbers about this loop.
    #[must_use]
    pub fn stats(&self) -> &TurnStats {
        &self.0.stats
    }

    /// Futures that have not ended.
    #[must_use]
    pub fn tasks_live(&self) -> usize {
        self.0.tasks.live()
    }

    /// Starts a future; it is polled for the first time when its turn in the local queue comes.
    // Inlined as far as its memory, so that a future is made there and not moved.
    #[inline]
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + 'static) -> Task {
        let id = self.0.tasks.insert(self.0.id, name, future);
        self.0.local.borrow_mut().push_back(Local::Task(id));
        Task { thread: self.clone(), id }
    }

    /// Starts a future and polls it at once: for an event handler whose work must not wait for another turn.
    pub fn spawn_now(&self, name: &'static str, future: impl Future<Output = ()> + 'static) -> Task {
        let id = self.0.tasks.insert(self.0.id, name, future);
        let before = self.0.running.name();
        self.0.run_task(id);
        self.0.running.resume(before);
        Task { thread: self.clone(), id }
    }

    /// A future that ends `after` from now.
    #[must_use]
    pub fn sleep(&self, after: Duration) -> Sleep {
        self.sleep_until(self.now() + after)
    }

    /// A future that ends at `at`, or at its first poll when that is past.
    #[must_use]
    pub fn sleep_until(&self, at: Instant) -> Sleep {
        Sleep::new(self.clone(), at)
    }

    #[inline]
    fn schedule(&self, cont: Cont, at: Option<Instant>, every: Option<Box<Every>>) -> Action {
        let core = &self.0;
        let key = {
            let arm = |key| at.map(|at| core.wheel.borrow_mut().insert(at, TimerTarget::Action(key)));
            core.actions.borrow_mut().insert_with(|key| Scheduled {
                target: Some(Target::Local(cont)),
                timer: arm(key),
                every,
            })
        };
        if at.is_none() {
            core.local.borrow_mut().push_back(Local::Action(key));
        }
        Action { thread: self.clone(), key: Some(key) }
    }

    /// Files an event that another thread scheduled; one that is to come at once is delivered. It may panic.
    fn arrive(&self, mut arrival: Arrival) {
        let core = &self.0;
        let (at, every) = match arrival.when() {
            When::Now => {
                arrival.deliver(Event::Immediate, self);
                return;
            }
            When::At(at) => (at, None),
            When::In(after) => (self.now() + after, None),
            When::Every(period) => {
                let next = self.now() + period;
                (next, Some(Box::new(Every { next, period })))
            }
        };
        if arrival.is_cancelled() {
            return;
        }
        let mut actions = core.actions.borrow_mut();
        let key = actions.insert_with(|key| {
            arrival.filed(key);
            Scheduled { target: Some(Target::Remote(arrival)), timer: None, every }
        });
        drop(actions);
        core.arm(key, at);
    }

    /// Delivers [`Event::Immediate`] at the next run of the local queue.
    pub fn schedule_imm(&self, cont: Cont) -> Action {
        self.schedule(cont, None, None)
    }

    /// Delivers [`Event::Interval`] at `at`.
    pub fn schedule_at(&self, cont: Cont, at: Instant) -> Action {
        self.schedule(cont, Some(at), None)
    }

    /// Delivers [`Event::Interval`] `after` from now.
    pub fn schedule_in(&self, cont: Cont, after: Duration) -> Action {
        self.schedule(cont, Some(self.now() + after), None)
    }

    /// Delivers [`Event::Interval`] every `period` (at least 1 ms), the first time one period from now. Moments are
    /// counted from the first: lateness does not add up, and periods missed altogether are skipped.
    pub fn schedule_every(&self, cont: Cont, period: Duration) -> Action {
        let period = period.max(PERIOD_MIN);
        let next = self.now() + period;
        self.schedule(cont, Some(next), Some(Box::new(Every { next, period })))
    }

    /// Makes this thread's signs of life visible through `beat`, from now on.
    pub fn set_beat(&self, beat: Beat) {
        beat.begin(&BeatName::new(&self.0.name), sys::thread::id());
        self.0.running.set_beat(beat);
    }

    /// Makes the loop write its numbers into `cells`, from now on.
    pub fn set_cells(&self, cells: Cells<Loop>) {
        self.0.stats.set_cells(cells);
    }

    /// Timers that are pending.
    #[must_use]
    pub fn timers_pending(&self) -> usize {
        self.0.wheel.borrow().len()
    }

    /// The name of the continuation that runs now, or ran last.
    #[must_use]
    pub fn running(&self) -> &'static str {
        self.0.running.name()
    }

    /// Gives back memory that this thread keeps for reuse and has not needed since the last call. Call it now and then.
    pub fn trim(&self) {
        let core = &self.0;
        let freed = core.tidy() | crate::memory::trim() | buf::trim();
        let times = if freed { COLLECT_TIMES } else { core.collect.get() };
        if times > 0 {
            core.collect.set(times - 1);
            sys::memory::give_back();
        }
    }

    /// When this turn ends with nothing left to do, lets readiness gather for so long, at most 100 µs, before the loop
    /// looks again; the kernel's timer slack comes on top. For whoever knows that many will be ready soon, and that
    /// a turn for the first of them alone costs more than it hastens.
    pub fn gather(&self, time: Duration) {
        self.0.gather.set(time.min(GATHER_MAX));
    }

    /// Calls `f` at the end of each turn, before what the turn wrote is flushed; and in the middle of a turn in which
    /// something ran, before the loop sleeps.
    pub fn at_tail(&self, f: impl Fn(&Self) + 'static) {
        self.0.tail.borrow_mut().push(Rc::new(f));
    }

    /// Delivers [`Event::Drain`] to every handler of a connection: those that are idle. Listeners whose shares drain
    /// stop: at once, so that the next connection wakes whoever else holds the socket.
    pub fn drain(&self) {
        let sources: Vec<Source> = self.0.sources.borrow().iter().map(|(_, source)| source.clone()).collect();
        for source in sources {
            match source {
                Source::Stream(stream) => self.0.contain_as("drain", || stream.drain(self)),
                Source::Listener(listener) => listener.drain(self),
            }
        }
    }

    /// Makes [`Thread::run`] return after this turn.
    pub fn stop(&self) {
        self.0.stop.set(true);
    }

    /// Runs `setup` as if within the loop: futures it spawns start with the first turn.
    pub(crate) fn prepare(&self, setup: impl Fn(&Self) -> io::Result<()>) -> io::Result<()> {
        let _entered = registry::enter(self);
        setup(self)
    }
}

impl Core {
    pub(crate) fn wake_local(&self, id: TaskId) {
        if self.tasks.wake(id) {
            self.local.borrow_mut().push_back(Local::Task(id));
        }
    }

    #[inline]
    fn run_task(&self, id: TaskId) {
        self.contain(|| {
            if self.tasks.poll(id, |name| self.running.enter(name)) {
                self.local.borrow_mut().push_back(Local::Task(id));
            }
        });
    }

    /// A continuation of that name begins to run.
    #[inline]
    pub(crate) fn enter(&self, name: &'static str) {
        self.running.enter(name);
    }

    /// Runs one piece of work; a panic in it ends that piece alone and is counted. Whether it ended well.
    #[inline]
    fn contain(&self, work: impl FnOnce()) -> bool {
        let whole = catch_unwind(AssertUnwindSafe(work)).is_ok();
        if !whole {
            self.stats.panicked(self.running.name());
        }
        whole
    }

    /// As [`Core::contain`], of work that has no name of its own.
    #[inline]
    fn contain_as(&self, name: &'static str, work: impl FnOnce()) {
        self.running.enter(name);
        self.contain(work);
    }

    fn arm(&self, key: ActionKey, at: Instant) {
        let timer = self.wheel.borrow_mut().insert(at, TimerTarget::Action(key));
        if let Some(scheduled) = self.actions.borrow_mut().entry(key) {
            scheduled.timer = Some(timer);
        }
    }

    #[inline]
    pub(crate) fn cancel(&self, key: ActionKey) {
        let Some((target, timer)) = self.actions.borrow_mut().cancel(key) else { return };
        if let Some(timer) = timer {
            drop(self.cancel_timer(timer));
        }
        drop(target);
    }

    #[inline]
    pub(crate) fn cancel_timer(&self, key: TimerKey) -> Option<TimerTarget> {
        self.wheel.borrow_mut().cancel(key)
    }

    /// Gives back what nobody has needed since the last call. Says whether a list was shortened.
    fn tidy(&self) -> bool {
        let mut chains = self.chains.borrow_mut();
        let spare = self.chains_spare.get().min(chains.len());
        let kept = chains.len() - spare;
        chains.truncate(kept);
        self.chains_spare.set(kept);
        let mut dirty = self.dirty.borrow_mut();
        let mut local = self.local.borrow_mut();
        let capacities = (dirty.capacity(), local.capacity());
        dirty.shrink_to(places_to_keep(capacities.0, self.dirty_most.take()));
        local.shrink_to(places_to_keep(capacities.1, self.local_most.take()));
        capacities != (dirty.capacity(), local.capacity())
    }

    /// An empty chain, with memory if a used one is at hand.
    pub(crate) fn take_chain(&self) -> Box<Chain> {
        let mut chains = self.chains.borrow_mut();
        let taken = chains.pop();
        self.chains_spare.set(self.chains_spare.get().min(chains.len()));
        taken.unwrap_or_default()
    }

    /// Takes an emptied chain back.
    pub(crate) fn give_chain(&self, chain: Box<Chain>) {
        let mut chains = self.chains.borrow_mut();
        if chains.len() < CHAINS_MAX {
            chains.push(chain);
        }
    }
}

/// Of a list with memory for `capacity`, of which at most `most` were needed lately: all, unless it is far more than that.
fn places_to_keep(capacity: usize, most: usize) -> usize {
    let enough = most.max(LIST_KEPT_MIN).next_power_of_two();
    if capacity / 2 > enough { enough } else { capacity }
}

#[cfg(test)]
mod tests;

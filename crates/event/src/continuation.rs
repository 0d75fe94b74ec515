//! Hand-written state machines, what is delivered to them, and the handle that takes a delivery back.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use base::Instant;
use sys::epoll::Ready;

use crate::remote::Arrival;
use crate::thread::Thread;
use crate::timer::TimerKey;

/// The shortest period of `schedule_every`: one tick of the timers.
pub(crate) const PERIOD_MIN: Duration = Duration::from_millis(1);

/// What a continuation is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// `schedule_imm`: it is your turn.
    Immediate,
    /// `schedule_at`, `schedule_in`, `schedule_every`: the time has come. Or: the deadline of your connection passed.
    Interval,
    /// Your connection is ready for this.
    Io(Ready),
    /// Your channel holds messages, or has been closed ([`crate::channel::Receiver::deliver_to`]).
    Message,
    /// The thread drains: a connection that is idle should go.
    Drain,
    /// The thread ends, and what you scheduled will not come. The last event.
    Cancelled,
}

/// A passive state machine, owned by one event thread. It runs when an event is delivered, until it must wait.
pub trait Continuation {
    /// Takes one event. Called by the loop only, never from within itself.
    fn handle_event(&mut self, event: Event, thread: &Thread);

    /// What it is called in reports: `"http accept"`.
    fn name(&self) -> &'static str;
}

/// A shared hold on a continuation.
pub type Cont = Rc<RefCell<dyn Continuation>>;

/// Delivers one event; a continuation that is just running (an event to itself, by mistake of a driver) is not entered
/// again: false.
pub(crate) fn deliver(cont: &Cont, event: Event, thread: &Thread) -> bool {
    let Ok(mut cont) = cont.try_borrow_mut() else { return false };
    thread.core().enter(cont.name());
    cont.handle_event(event, thread);
    true
}

/// To whom a scheduled event goes.
pub(crate) enum Target {
    Local(Cont),
    Remote(Arrival),
}

impl Target {
    pub(crate) fn deliver(&mut self, event: Event, thread: &Thread) {
        match self {
            Self::Local(cont) => {
                deliver(cont, event, thread);
            }
            Self::Remote(arrival) => arrival.deliver(event, thread),
        }
    }

    /// After a delivery of a periodic event: whether another may follow.
    pub(crate) fn again(&self) -> bool {
        match self {
            Self::Local(_) => true,
            Self::Remote(arrival) => arrival.again(),
        }
    }

    pub(crate) fn tell_end(&mut self, thread: &Thread) {
        match self {
            Self::Local(cont) => {
                deliver(cont, Event::Cancelled, thread);
            }
            Self::Remote(arrival) => arrival.tell_end(thread),
        }
    }
}

/// The moments of a periodic event: counted from the first, so that it does not drift.
#[derive(Clone, Copy)]
pub(crate) struct Every {
    pub(crate) next: Instant,
    pub(crate) period: Duration,
}

impl Every {
    /// The next moment after `now`: whole periods that were missed (suspended, or a long turn) are skipped, so that
    /// there is no burst and the grid stays.
    pub(crate) fn after(self, now: Instant) -> Self {
        let mut next = self.next + self.period;
        if next <= now {
            let missed = (now - self.next).as_nanos() / self.period.as_nanos().max(1);
            next = self.next + self.period * u32::try_from(missed + 1).unwrap_or(u32::MAX);
        }
        Self { next, period: self.period }
    }
}

pub(crate) struct Scheduled {
    /// Away while a periodic event is being delivered.
    pub(crate) target: Option<Target>,
    pub(crate) timer: Option<TimerKey>,
    pub(crate) every: Option<Box<Every>>,
}

/// Names one scheduled event of one thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ActionKey {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl ActionKey {
    /// Names no event.
    pub(crate) const NONE: Self = Self { index: u32::MAX, generation: 0 };

    pub(crate) fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    #[expect(clippy::cast_possible_truncation, reason = "each half is cut to itself")]
    pub(crate) fn unpack(packed: u64) -> Self {
        Self { index: packed as u32, generation: (packed >> 32) as u32 }
    }
}

/// The cancellable handle of a scheduled event. Dropping it cancels: nothing is delivered afterwards. Keep it as long
/// as the event is wanted, or [`Action::detach`] it.
#[must_use = "dropping an action cancels it"]
pub struct Action {
    pub(crate) thread: Thread,
    pub(crate) key: Option<ActionKey>,
}

impl Action {
    /// Takes the event back. Nothing is delivered after this.
    pub fn cancel(self) {}

    /// Lets the event come whatever becomes of this handle. One from `schedule_every` then comes as long as the
    /// thread lives.
    pub fn detach(mut self) {
        self.key = None;
    }
}

impl Drop for Action {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.thread.core().cancel(key);
        }
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Action({:?})", self.key)
    }
}

/// The scheduled events of one thread, by key.
#[derive(Default)]
pub(crate) struct Actions {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

struct Entry {
    generation: u32,
    scheduled: Option<Scheduled>,
}

impl Actions {
    /// Files what `make` makes of the key that it will have.
    #[inline]
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(ActionKey) -> Scheduled) -> ActionKey {
        let index = self.free.pop().unwrap_or_else(|| self.add());
        let entry = &mut self.entries[index as usize];
        let key = ActionKey { index, generation: entry.generation };
        // A free entry holds nothing: nothing is to be dropped.
        std::mem::forget(entry.scheduled.replace(make(key)));
        key
    }

    #[cold]
    fn add(&mut self) -> u32 {
        let index = u32::try_from(self.entries.len()).expect("fewer than 2^32 events fit into memory");
        self.entries.push(Entry { generation: 0, scheduled: None });
        index
    }

    pub(crate) fn entry(&mut self, key: ActionKey) -> Option<&mut Scheduled> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation == key.generation { entry.scheduled.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, key: ActionKey) -> Option<Scheduled> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        let scheduled = entry.scheduled.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(key.index);
        Some(scheduled)
    }

    /// Takes an event back: what it held, and its timer.
    #[inline]
    pub(crate) fn cancel(&mut self, key: ActionKey) -> Option<(Option<Target>, Option<TimerKey>)> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        let Scheduled { target, timer, every: _ } = entry.scheduled.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(key.index);
        Some((target, timer))
    }

    /// What is to be delivered now: the target, the event, and whether it is periodic; a periodic one's entry stays.
    pub(crate) fn due(&mut self, key: ActionKey) -> Option<(Target, Event, bool)> {
        let scheduled = self.entry(key)?;
        if scheduled.every.is_some() {
            scheduled.timer = None;
            return scheduled.target.take().map(|target| (target, Event::Interval, true));
        }
        let event = if scheduled.timer.is_some() { Event::Interval } else { Event::Immediate };
        let target = self.remove(key)?.target?;
        Some((target, event, false))
    }

    /// Takes everything out.
    pub(crate) fn clear(&mut self) -> Vec<Scheduled> {
        let mut all = Vec::new();
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if let Some(scheduled) = entry.scheduled.take() {
                entry.generation = entry.generation.wrapping_add(1);
                // Keys are indexes of this very list, so they fit.
                self.free.extend(u32::try_from(index));
                all.push(scheduled);
            }
        }
        all
    }
}

//! Hand-written state machines, what is delivered to them, and the handle that takes a delivery back.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use sys::epoll::Ready;

use crate::thread::Thread;
use crate::timer::TimerKey;

/// What a continuation is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// `schedule_imm`: it is your turn.
    Immediate,
    /// `schedule_at`, `schedule_in`, `schedule_every`: the time has come. Or: the deadline of your connection passed.
    Interval,
    /// Your connection is ready for this.
    Io(Ready),
    /// The thread drains: a connection that is idle should go.
    Drain,
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
    thread.core().running.set(cont.name());
    cont.handle_event(event, thread);
    true
}

pub(crate) struct Scheduled {
    pub(crate) cont: Cont,
    pub(crate) event: Event,
    pub(crate) timer: Option<TimerKey>,
    /// The next moment and the period, for `schedule_every`: counted from the first moment, so that it does not drift.
    pub(crate) every: Option<(base::Instant, std::time::Duration)>,
}

/// Names one scheduled event of one thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ActionKey {
    pub(crate) index: u32,
    pub(crate) generation: u32,
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
    entries: Vec<(u32, Option<Scheduled>)>,
    free: Vec<u32>,
}

impl Actions {
    pub(crate) fn insert(&mut self, scheduled: Scheduled) -> ActionKey {
        if let Some(index) = self.free.pop() {
            let entry = &mut self.entries[index as usize];
            entry.1 = Some(scheduled);
            return ActionKey { index, generation: entry.0 };
        }
        let index = u32::try_from(self.entries.len()).expect("fewer than 2^32 events fit into memory");
        self.entries.push((0, Some(scheduled)));
        ActionKey { index, generation: 0 }
    }

    pub(crate) fn entry(&mut self, key: ActionKey) -> Option<&mut Scheduled> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.0 == key.generation { entry.1.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, key: ActionKey) -> Option<Scheduled> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.0 != key.generation {
            return None;
        }
        let scheduled = entry.1.take()?;
        entry.0 = entry.0.wrapping_add(1);
        self.free.push(key.index);
        Some(scheduled)
    }

    pub(crate) fn clear(&mut self) -> Vec<Scheduled> {
        self.free.clear();
        self.entries.drain(..).filter_map(|(_, scheduled)| scheduled).collect()
    }
}

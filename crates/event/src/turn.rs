//! What a loop knows about itself.

use std::cell::Cell;
use std::time::Duration;

/// Counters of one event thread's loop, written by that thread alone.
#[derive(Debug, Default)]
pub struct TurnStats {
    turns: Cell<u64>,
    events: Cell<u64>,
    busy_ns: Cell<u64>,
    slept_ns: Cell<u64>,
    longest_ns: Cell<u64>,
    queue_max: Cell<usize>,
    panics: Cell<u64>,
    last_panic: Cell<&'static str>,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl TurnStats {
    /// Turns so far.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.turns.get()
    }

    /// Readiness events so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events.get()
    }

    /// Time spent working, and sleeping in the poll.
    #[must_use]
    pub fn busy_and_slept(&self) -> (Duration, Duration) {
        (Duration::from_nanos(self.busy_ns.get()), Duration::from_nanos(self.slept_ns.get()))
    }

    /// The longest stretch of work between two polls since the last call.
    #[must_use]
    pub fn take_longest(&self) -> Duration {
        Duration::from_nanos(self.longest_ns.take())
    }

    /// The longest local queue since the last call.
    #[must_use]
    pub fn take_queue_max(&self) -> usize {
        self.queue_max.take()
    }

    /// Panics contained so far, and the name of the continuation that panicked last.
    #[must_use]
    pub fn panics(&self) -> (u64, &'static str) {
        (self.panics.get(), self.last_panic.get())
    }

    pub(crate) fn polled(&self, worked: Duration, slept: Duration, events: usize) {
        self.busy(worked);
        self.slept_ns.set(self.slept_ns.get().saturating_add(nanos(slept)));
        self.events.set(self.events.get().wrapping_add(events as u64));
    }

    pub(crate) fn turn_ended(&self, worked: Duration) {
        self.turns.set(self.turns.get().wrapping_add(1));
        self.busy(worked);
    }

    pub(crate) fn queue_seen(&self, len: usize) {
        if len > self.queue_max.get() {
            self.queue_max.set(len);
        }
    }

    pub(crate) fn panicked(&self, name: &'static str) {
        self.panics.set(self.panics.get() + 1);
        self.last_panic.set(name);
    }

    fn busy(&self, worked: Duration) {
        let worked = nanos(worked);
        self.busy_ns.set(self.busy_ns.get().saturating_add(worked));
        if worked > self.longest_ns.get() {
            self.longest_ns.set(worked);
        }
    }
}

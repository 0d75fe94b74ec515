//! What a loop knows about itself: how long it works, how deep its queues are, what runs now and what ran longest.
//!
//! Reading a clock costs as much as delivering an event, so a loop reads it a few times a turn and not around each
//! continuation. A stretch of work that was long is blamed on the continuation that ran in it, or, when there were
//! several, on all their names; and the next [`WATCHED`] continuations are timed one by one, so that whoever is long
//! again is found out.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use base::Instant;
use stats::{Beat, BeatName, Cells};

use crate::metrics::Loop;

/// A stretch of work of so much is worth finding out who it was.
const LONG: Duration = Duration::from_millis(1);
/// So many continuations are timed one by one after a long stretch.
const WATCHED: u32 = 1_024;
/// Names that are remembered of one stretch.
const NAMES: usize = 8;
/// Different continuations whose panics are counted apart; those of the others together.
const PANIC_NAMES_MAX: usize = 64;
/// Names that are kept in the form a beat takes them.
const BEAT_NAMES: usize = 32;

/// The longest stretch of work that is known, and whose it was.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Longest {
    /// How long.
    pub took: Duration,
    /// The continuation; or several that ran in the stretch, of which one or all were it.
    pub names: Vec<&'static str>,
}

/// Different names, the latest first. Without memory of its own: it is filled within the loop.
#[derive(Clone, Copy, Default)]
struct RecentNames {
    names: [&'static str; NAMES],
    len: usize,
}

impl RecentNames {
    fn of_one(name: &'static str) -> Self {
        let mut names = Self::default();
        names.add(name);
        names
    }

    /// Adds a name that is not among them yet, while there is room.
    fn add(&mut self, name: &'static str) {
        if !self.as_slice().contains(&name)
            && let Some(place) = self.names.get_mut(self.len)
        {
            *place = name;
            self.len += 1;
        }
    }

    fn as_slice(&self) -> &[&'static str] {
        &self.names[..self.len]
    }
}

/// Numbers of one event thread's loop, written by that thread alone.
#[derive(Default)]
pub struct TurnStats {
    turns: Cell<u64>,
    events: Cell<u64>,
    busy_ns: Cell<u64>,
    slept_ns: Cell<u64>,
    longest_ns: Cell<u64>,
    queue_max: Cell<usize>,
    panics: Cell<u64>,
    last_panic: Cell<&'static str>,
    panics_by_name: RefCell<Vec<(&'static str, u64)>>,
    longest: Cell<(Duration, RecentNames)>,
    watched: Cell<u32>,
    cells: Cell<Option<Cells<Loop>>>,
}

impl std::fmt::Debug for TurnStats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TurnStats({} turns)", self.turns.get())
    }
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

    /// Panics contained so far, by the name of the continuation.
    #[must_use]
    pub fn panics_by_name(&self) -> Vec<(&'static str, u64)> {
        self.panics_by_name.borrow().clone()
    }

    /// The longest run of a continuation since the last call, if any was long enough to be noticed (1 ms).
    #[must_use]
    pub fn take_longest_continuation(&self) -> Longest {
        let (took, names) = self.longest.take();
        Longest { took, names: names.as_slice().to_vec() }
    }

    pub(crate) fn set_cells(&self, cells: Cells<Loop>) {
        self.cells.set(Some(cells));
    }

    pub(crate) fn polled(&self, worked: Duration, slept: Duration, events: usize) {
        self.busy(worked);
        self.slept_ns.set(self.slept_ns.get().saturating_add(nanos(slept)));
        self.events.set(self.events.get().wrapping_add(events as u64));
    }

    #[inline]
    pub(crate) fn turn_ended(&self, worked: Duration) {
        self.turns.set(self.turns.get().wrapping_add(1));
        self.busy(worked);
        if let Some(cells) = self.cells.get() {
            cells.set(Loop::TURNS, self.turns.get());
            cells.set(Loop::EVENTS, self.events.get());
            cells.set(Loop::BUSY, self.busy_ns.get());
            cells.set(Loop::SLEPT, self.slept_ns.get());
        }
    }

    #[inline]
    pub(crate) fn queue_seen(&self, len: usize) {
        if len > self.queue_max.get() {
            self.queue_max.set(len);
        }
        if let Some(cells) = self.cells.get() {
            cells.observe(Loop::QUEUE, len as u64);
        }
    }

    #[inline]
    pub(crate) fn messages_taken(&self, count: u64) {
        if let Some(cells) = self.cells.get() {
            cells.observe(Loop::MESSAGES, count);
        }
    }

    #[inline]
    pub(crate) fn timer_fired(&self, late: Duration) {
        if let Some(cells) = self.cells.get() {
            cells.observe(Loop::LATENESS, nanos(late));
        }
    }

    #[cold]
    pub(crate) fn panicked(&self, name: &'static str) {
        self.panics.set(self.panics.get() + 1);
        self.last_panic.set(name);
        let mut by_name = self.panics_by_name.borrow_mut();
        let name = if by_name.len() < PANIC_NAMES_MAX { name } else { "others" };
        match by_name.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => by_name.push((name, 1)),
        }
        if let Some(cells) = self.cells.get() {
            cells.set(Loop::PANICS, self.panics.get());
        }
    }

    /// Whether the next continuation is to be timed by itself.
    #[inline]
    pub(crate) fn watches(&self) -> bool {
        self.watched.get() > 0
    }

    /// One continuation was timed by itself.
    pub(crate) fn watched(&self, name: &'static str, took: Duration) {
        self.watched.set(self.watched.get().saturating_sub(1));
        if took >= LONG {
            self.blame(took, RecentNames::of_one(name));
        }
    }

    /// A stretch of work ended in which these ran.
    #[inline]
    pub(crate) fn stretch(&self, took: Duration, running: &Running) {
        if took >= LONG {
            self.was_long(took, running);
        }
    }

    #[cold]
    fn was_long(&self, took: Duration, running: &Running) {
        let names = running.names();
        if names.len > 1 {
            if self.watches() {
                // Timed one by one, and whoever was long by himself has been blamed.
                return;
            }
            self.watched.set(WATCHED);
        }
        if names.len > 0 {
            self.blame(took, names);
        }
    }

    fn blame(&self, took: Duration, names: RecentNames) {
        if took > self.longest.get().0 {
            self.longest.set((took, names));
        }
    }

    #[inline]
    fn busy(&self, worked: Duration) {
        let worked = nanos(worked);
        self.busy_ns.set(self.busy_ns.get().saturating_add(worked));
        if worked > self.longest_ns.get() {
            self.longest_ns.set(worked);
        }
        if let Some(cells) = self.cells.get() {
            cells.observe(Loop::TURN, worked);
        }
    }
}

/// Which continuation runs, which ran before it in this stretch of work, and the beat that shows it to others.
pub(crate) struct Running {
    recent: [Cell<&'static str>; NAMES],
    at: Cell<usize>,
    /// How many ran in this stretch, as far as they are remembered.
    count: Cell<usize>,
    beat: Cell<Option<Beat>>,
    /// What the beat says now: the address of a name, or nothing.
    told: Cell<*const u8>,
    beat_names: [Cell<(*const u8, BeatName)>; BEAT_NAMES],
}

impl Default for Running {
    fn default() -> Self {
        Self {
            recent: [const { Cell::new("idle") }; NAMES],
            at: Cell::new(0),
            count: Cell::new(0),
            beat: Cell::new(None),
            told: Cell::new(std::ptr::null()),
            beat_names: [const { Cell::new((std::ptr::null(), BeatName::EMPTY)) }; BEAT_NAMES],
        }
    }
}

impl Running {
    pub(crate) fn set_beat(&self, beat: Beat) {
        self.beat.set(Some(beat));
    }

    /// A continuation of that name begins to run.
    #[inline]
    pub(crate) fn enter(&self, name: &'static str) {
        let at = (self.at.get() + 1) % NAMES;
        self.at.set(at);
        self.recent[at].set(name);
        self.count.set(self.count.get() + 1);
        if self.told.get() != name.as_ptr()
            && let Some(beat) = self.beat.get()
        {
            self.tell(beat, name);
        }
    }

    fn tell(&self, beat: Beat, name: &'static str) {
        let key = name.as_ptr();
        self.told.set(key);
        // Names are constants: their address stands for them. Two of one address and different lengths may be taken
        // for each other, which harms nobody.
        let place = &self.beat_names[(key.addr() >> 3) % BEAT_NAMES];
        let (known, form) = place.get();
        if known == key {
            beat.enter(&form);
        } else {
            let form = BeatName::new(name);
            place.set((key, form));
            beat.enter(&form);
        }
    }

    /// What runs now, or ran last.
    pub(crate) fn name(&self) -> &'static str {
        self.recent[self.at.get()].get()
    }

    /// Back to a continuation that was interrupted by another.
    pub(crate) fn resume(&self, name: &'static str) {
        self.enter(name);
        self.count.set(self.count.get() - 1);
    }

    /// A new stretch of work begins.
    #[inline]
    pub(crate) fn begin(&self) {
        self.count.set(0);
    }

    /// Whether a continuation ran in this stretch.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.count.get() > 0
    }

    /// Nothing runs.
    #[inline]
    pub(crate) fn leave(&self) {
        if !self.told.get().is_null()
            && let Some(beat) = self.beat.get()
        {
            self.told.set(std::ptr::null());
            beat.leave();
        }
    }

    /// A turn begins.
    #[inline]
    pub(crate) fn turn(&self, now: Instant) {
        if let Some(beat) = self.beat.get() {
            beat.turn(now.as_nanos());
        }
    }

    /// The loop goes to sleep.
    pub(crate) fn poll(&self, now: Instant) {
        if let Some(beat) = self.beat.get() {
            beat.poll(now.as_nanos());
        }
    }

    pub(crate) fn end(&self) {
        self.leave();
        if let Some(beat) = self.beat.take() {
            beat.end();
        }
    }

    /// The different names of this stretch, the latest first.
    fn names(&self) -> RecentNames {
        let mut names = RecentNames::default();
        for back in 0..self.count.get().min(NAMES) {
            names.add(self.recent[(self.at.get() + NAMES - back) % NAMES].get());
        }
        names
    }
}

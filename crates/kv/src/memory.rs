//! What a pool keeps of requests and replies, on all its threads together, and what all pools do: until they are whole or
//! have their turn, and until their client has taken them.
//!
//! What clients have not taken is looked at now and then, see [`Pool::watch_untaken`]: of one that takes what it is sent
//! at once, as nearly all do, nothing is ever counted. While there is much room only so many are looked at in a go as cost
//! nothing to speak of, however many there are; and all when these have so much more that there may not be much room.
//!
//! From half of what a pool may keep on, its clients are read from no more; what would be beyond the whole becomes an
//! error. So it is with the bound for all pools together, which is every client's. A thread counts for itself and tells
//! the others in steps, see [`Count`], so that the sum is true but for a step a thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::Instant;
use event::Cont;

use crate::client::ClientCell;
use crate::pool::Pool;
use crate::worker::Worker;

/// So many bytes a thread may count more or less than the others know of.
const STEP: usize = 64 << 10;
/// How often it is looked whether clients may be read from again, and what others have taken.
const LOOK: Duration = Duration::from_millis(20);
/// Of clients that have been looked at before, how many are looked at in a go while there is much room: a look costs some
/// hundred instructions and as many nanoseconds again for what is not in the processor's cache, so this is less than one
/// part in a hundred of a thread. Ten thousand have their turn in a fifth of a second.
const LOOKED_MAX: usize = 1 << 10;
/// So many times what others may have left since they were looked at counts: clients of other threads may have as much.
const UNSEEN_WEIGHT: usize = 4;
/// How long a client may take next to none of what it was sent while that is what keeps a pool from reading.
const STUCK_MAX: Duration = Duration::from_secs(5);
/// What it takes in this time at least, in bytes, and of what it has left to take: who takes a trickle of much keeps
/// others waiting as long as who takes nothing.
const TAKEN_MIN: u64 = 16 << 10;
const TAKEN_PART: u64 = 8;

/// One thread's share of what is kept: by a pool, or by all.
#[derive(Default)]
pub(crate) struct Count {
    own: Cell<usize>,
    told: Cell<usize>,
    /// What clients have not taken, which is part of it; all threads know of it.
    untaken: Cell<usize>,
}

/// One thread's share of a pool's count, and whom it is about.
#[derive(Default)]
pub(crate) struct Memory {
    count: Count,
    waiting: RefCell<Vec<Weak<ClientCell>>>,
    untaken: RefCell<Watched>,
}

/// What the threads tell each other of what is kept, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Told {
    kept: AtomicUsize,
    /// That of it which clients have not taken.
    untaken: AtomicUsize,
}

/// A client that may have something to take.
struct Untaken {
    client: Weak<ClientCell>,
    counted: usize,
    /// How much it had taken then, by which it is told whether it takes anything.
    taken: u64,
    since: Instant,
}

/// Clients that may have something to take.
#[derive(Default)]
struct Watched {
    /// Those that nobody has looked at yet.
    new: Vec<Untaken>,
    /// The others; who was looked at longest ago is first.
    known: VecDeque<Untaken>,
    /// What they all have left.
    sum: usize,
}

impl Watched {
    fn len(&self) -> usize {
        self.new.len() + self.known.len()
    }

    /// Looks at those that are new, and at `all` others or at those whose turn it is. `look` brings what one has left up to
    /// date; who has nothing left is watched no more. Says how much more those may have left whose turn it was not, if it
    /// is with them as with those whose turn it was.
    fn look(&mut self, all: bool, mut look: impl FnMut(&mut Untaken)) -> usize {
        let known = if all { self.known.len() } else { self.known.len().min(LOOKED_MAX) };
        let (rest, new) = (self.known.len() - known, self.new.len());
        let (mut more, mut less) = (0, 0);
        for at in 0..new + known {
            let Some(mut entry) = self.new.pop().or_else(|| self.known.pop_front()) else { break };
            let before = entry.counted;
            look(&mut entry);
            self.sum = (self.sum + entry.counted).saturating_sub(before);
            if at >= new {
                more += entry.counted.saturating_sub(before);
                less += before.saturating_sub(entry.counted);
            }
            if entry.counted > 0 {
                self.known.push_back(entry);
            }
        }
        more.saturating_sub(less).saturating_mul(rest) / known.max(1)
    }

    /// Looks at as few as may be: at all unless there is room for so much that nobody has seen. True when it was all.
    fn look_as_needed(&mut self, has_room: impl Fn(usize) -> bool, mut look: impl FnMut(&mut Untaken)) -> bool {
        if has_room(0) {
            let unseen = self.look(false, &mut look);
            if has_room(unseen.saturating_mul(UNSEEN_WEIGHT)) {
                return false;
            }
        }
        self.look(true, look);
        true
    }
}

impl Memory {
    /// What this thread keeps.
    pub(crate) fn own(&self) -> usize {
        self.count.own()
    }

    /// Nothing is kept here any more.
    pub(crate) fn end(&self, all: &Told) {
        self.count.end(all);
    }
}

impl Count {
    /// What all threads keep, `all` being what they have told.
    #[inline]
    pub(crate) fn sum(&self, all: &Told) -> usize {
        (all.kept.load(Ordering::Relaxed) + self.own.get()).saturating_sub(self.told.get())
    }

    /// What this thread keeps.
    pub(crate) fn own(&self) -> usize {
        self.own.get()
    }

    /// Whether it is what clients have not taken that makes it more than `bound`.
    fn is_too_much_by_untaken(&self, all: &Told, bound: usize) -> bool {
        let sum = self.sum(all);
        sum > bound && sum.saturating_sub(all.untaken.load(Ordering::Relaxed)) <= bound
    }

    fn more(&self, len: usize, all: &Told) {
        self.set(self.own.get() + len, all);
    }

    fn less(&self, len: usize, all: &Told) {
        self.set(self.own.get().saturating_sub(len), all);
    }

    fn set(&self, own: usize, all: &Told) {
        self.own.set(own);
        let told = self.told.get();
        if own.abs_diff(told) < STEP && (own > 0 || told == 0) {
            return;
        }
        // The sum passes through no value that is less than what this thread has told.
        if own > told {
            all.kept.fetch_add(own - told, Ordering::Relaxed);
        } else {
            all.kept.fetch_sub(told - own, Ordering::Relaxed);
        }
        self.told.set(own);
    }

    /// This thread's clients have left so much.
    fn count_untaken(&self, now: usize, all: &Told) {
        let before = self.untaken.replace(now);
        if now >= before {
            all.untaken.fetch_add(now - before, Ordering::Relaxed);
        } else {
            all.untaken.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    /// Nothing is kept here any more.
    pub(crate) fn end(&self, all: &Told) {
        self.count_untaken(0, all);
        all.kept.fetch_sub(self.told.take(), Ordering::Relaxed);
        self.own.set(0);
    }
}

impl Pool {
    /// So many bytes more are kept.
    pub(crate) fn keep(&self, worker: &Worker, len: usize) {
        worker.memory().more(len, worker.shared().told());
        self.memory().count.more(len, self.told());
    }

    /// So many less.
    pub(crate) fn let_go(&self, worker: &Worker, len: usize) {
        worker.memory().less(len, worker.shared().told());
        self.memory().count.less(len, self.told());
    }

    /// The most that may be kept if nobody else keeps anything.
    pub(crate) fn memory_max(&self, worker: &Worker) -> usize {
        self.plan().source.memory.min(worker.memory_max())
    }

    /// Whether so many more may be kept.
    pub(crate) fn may_keep(&self, worker: &Worker, len: usize) -> bool {
        worker.memory().sum(worker.shared().told()) + len <= worker.memory_max()
            && self.memory().count.sum(self.told()) + len <= self.plan().source.memory
    }

    /// Whether so much is kept that nothing new is to be asked.
    #[inline]
    pub(crate) fn is_pressed(&self, worker: &Worker) -> bool {
        worker.memory().sum(worker.shared().told()) > worker.memory_max() / 2
            || self.memory().count.sum(self.told()) > self.plan().source.memory / 2
    }

    /// Whether so little is kept, with so much that nobody has seen, that what comes between two looks does not make it too
    /// much.
    fn has_much_room(&self, worker: &Worker, unseen: usize) -> bool {
        let is_little = |kept: usize, most: usize| kept.saturating_add(unseen) <= most / 4;
        is_little(worker.memory().sum(worker.shared().told()), worker.memory_max())
            && is_little(self.memory().count.sum(self.told()), self.plan().source.memory)
    }

    /// Whether nothing new is asked because of what clients have not taken: without that there would be room.
    fn is_pressed_by_untaken(&self, worker: &Worker) -> bool {
        worker.memory().is_too_much_by_untaken(worker.shared().told(), worker.memory_max() / 2)
            || self.memory().count.is_too_much_by_untaken(self.told(), self.plan().source.memory / 2)
    }

    /// This pool's clients have left so much.
    fn count_untaken(&self, worker: &Worker, now: usize) {
        let before = self.memory().count.untaken.get();
        self.memory().count.count_untaken(now, self.told());
        let all = worker.memory();
        all.count_untaken((all.untaken.get() + now).saturating_sub(before), worker.shared().told());
    }

    /// Has the client read when there is room again.
    pub(crate) fn wait_for_memory(self: &Rc<Self>, worker: &Worker, client: Weak<ClientCell>) {
        let mut waiting = self.memory().waiting.borrow_mut();
        waiting.push(client);
        if waiting.len() > 1 {
            return;
        }
        // Not weakly: a pool that another took the place of has its clients wait all the same.
        let (pool, worker, thread) = (Rc::clone(self), worker.clone(), worker.thread().clone());
        thread.clone().spawn("kv memory", async move {
            loop {
                thread.sleep(LOOK).await;
                if !pool.is_pressed(&worker) {
                    let waiting = pool.memory().waiting.take();
                    for client in waiting.iter().filter_map(Weak::upgrade) {
                        client.borrow_mut().is_let_in();
                        thread.schedule_imm(client as Cont).detach();
                    }
                    return;
                }
            }
        });
    }
}

impl Pool {
    /// Counts from now on what the client has been sent and not taken, until it has taken all.
    pub(crate) fn watch_untaken(self: &Rc<Self>, worker: &Worker, client: Weak<ClientCell>) {
        let mut untaken = self.memory().untaken.borrow_mut();
        untaken.new.push(Untaken { client, counted: 0, taken: 0, since: worker.now() });
        if untaken.len() > 1 {
            return;
        }
        let (pool, worker, thread) = (Rc::clone(self), worker.clone(), worker.thread().clone());
        thread.clone().spawn("kv memory", async move {
            loop {
                thread.sleep(LOOK).await;
                if pool.look_at_untaken(&worker) {
                    return;
                }
            }
        });
    }

    /// Looks what each of them has left to take. True when it is nothing.
    fn look_at_untaken(&self, worker: &Worker) -> bool {
        let now = worker.now();
        let pressed = self.is_pressed_by_untaken(worker);
        let mut watched = self.memory().untaken.borrow_mut();
        let has_room = |unseen| self.has_much_room(worker, unseen);
        let all = watched.look_as_needed(has_room, |entry| {
            let client = entry.client.upgrade();
            let (left, taken) = client.as_ref().and_then(|client| client.borrow().untaken()).unwrap_or_default();
            if left >= entry.counted {
                self.keep(worker, left - entry.counted);
            } else {
                self.let_go(worker, entry.counted - left);
            }
            entry.counted = left;
            let least = if pressed { TAKEN_MIN.max(left as u64 / TAKEN_PART) } else { TAKEN_MIN };
            if taken.saturating_sub(entry.taken) >= least {
                (entry.taken, entry.since) = (taken, now);
            }
            if left == 0
                && let Some(client) = client
            {
                client.borrow_mut().has_taken_all();
            }
        });
        self.count_untaken(worker, watched.sum);
        // Judged is who was looked at just now.
        if all && self.is_pressed_by_untaken(worker) {
            let Watched { known, sum, .. } = &mut *watched;
            // Nobody is heard because of those who take nothing: they go, whoever has the most first.
            known.make_contiguous().sort_unstable_by_key(|entry| std::cmp::Reverse(entry.counted));
            for entry in known.iter_mut().filter(|entry| now - entry.since >= STUCK_MAX) {
                if !self.is_pressed_by_untaken(worker) {
                    break;
                }
                if let Some(client) = entry.client.upgrade() {
                    client.borrow_mut().cut();
                }
                let counted = std::mem::take(&mut entry.counted);
                self.let_go(worker, counted);
                *sum = sum.saturating_sub(counted);
                self.count_untaken(worker, *sum);
            }
        }
        let is_over = watched.len() == 0;
        if is_over {
            // A crowd that has gone leaves nothing behind.
            *watched = Watched::default();
        }
        is_over
    }
}

/// Bytes that are kept as long as this is.
pub(crate) struct Kept {
    worker: Worker,
    pool: Rc<Pool>,
    len: usize,
}

impl Kept {
    /// None yet.
    pub(crate) fn new(worker: &Worker, pool: &Rc<Pool>) -> Self {
        Self { worker: worker.clone(), pool: Rc::clone(pool), len: 0 }
    }

    /// So many more. False: that is too much; they do not count, and are not to be kept for long.
    pub(crate) fn add(&mut self, len: usize) -> bool {
        let may = self.pool.may_keep(&self.worker, len);
        if may {
            self.pool.keep(&self.worker, len);
            self.len += len;
        }
        may
    }

    /// None any more.
    pub(crate) fn release(&mut self) {
        self.pool.let_go(&self.worker, std::mem::take(&mut self.len));
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_know_of_each_other_but_for_a_step() {
        let all = Told::default();
        let (one, two) = (Count::default(), Count::default());
        one.set(STEP - 1, &all);
        assert_eq!((one.sum(&all), two.sum(&all)), (STEP - 1, 0));
        one.set(3 * STEP, &all);
        assert_eq!((one.sum(&all), two.sum(&all)), (3 * STEP, 3 * STEP));
        two.set(10, &all);
        assert_eq!((one.sum(&all), two.sum(&all)), (3 * STEP, 3 * STEP + 10));
        two.set(5 * STEP, &all);
        one.set(2 * STEP + 1, &all);
        assert_eq!(one.sum(&all), 7 * STEP + 1, "its own is always known");
        one.set(0, &all);
        assert_eq!(two.sum(&all), 5 * STEP, "what is given back altogether is told at once");
        two.end(&all);
        assert_eq!(all.kept.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_look_at_a_crowd_costs_no_more_than_its_bound_and_each_has_its_turn() {
        const CROWD: usize = 10_000;
        let (client, taken, since) = (Weak::new(), 0, Instant::ORIGIN);
        let mut watched = Watched::default();
        watched.new.extend((0..CROWD).map(|_| Untaken { client: client.clone(), counted: 0, taken, since }));
        let look = |watched: &mut Watched, all: bool, left: usize| {
            let mut looks = 0;
            watched.look(all, |entry| {
                looks += 1;
                entry.counted = left;
                entry.taken += 1;
            });
            looks
        };
        assert_eq!(look(&mut watched, false, 7), CROWD, "all that are new");
        assert_eq!(watched.sum, 7 * CROWD);
        let rounds = CROWD.div_ceil(LOOKED_MAX);
        for _ in 0..rounds {
            assert_eq!(look(&mut watched, false, 9), LOOKED_MAX);
        }
        assert!(watched.known.iter().all(|entry| entry.taken >= 2 && entry.counted == 9), "each has had its turn");
        assert_eq!(watched.sum, 9 * CROWD);
        watched.new.push(Untaken { client, counted: 0, taken, since });
        assert_eq!(look(&mut watched, false, 9), LOOKED_MAX + 1, "who is new waits for nobody");
        assert_eq!(look(&mut watched, true, 0), CROWD + 1, "all, where it matters");
        assert_eq!((watched.len(), watched.sum), (0, 0), "and who has taken all is forgotten");
    }

    #[test]
    fn a_crowd_that_stops_taking_is_looked_at_as_a_whole_long_before_each_has_had_its_turn() {
        const CROWD: usize = 10_000;
        const ROOM: usize = 64 << 20;
        let (client, taken, since) = (Weak::new(), 0, Instant::ORIGIN);
        let mut watched = Watched::default();
        let crowd = (0..CROWD).map(|_| Untaken { client: client.clone(), counted: 1, taken, since });
        watched.known.extend(crowd);
        watched.sum = CROWD;
        // What each has left, and whether all were looked at.
        let look = |watched: &mut Watched, left: usize| {
            let seen = Cell::new(watched.sum);
            let has_room = |unseen: usize| seen.get() + unseen <= ROOM;
            watched.look_as_needed(has_room, |entry| {
                seen.set(seen.get() + left - entry.counted);
                entry.counted = left;
            })
        };
        assert!((0..20).all(|_| !look(&mut watched, 1)), "as few as may be while nothing happens");
        // Two gigabytes a second, of which a look sees a tenth.
        let looks = (1..).find(|looks| look(&mut watched, looks * 4_096)).unwrap();
        assert!(looks * 4_096 * CROWD <= 2 * ROOM, "after {looks} looks");
        assert_eq!(watched.sum, looks * 4_096 * CROWD);
    }

    #[test]
    fn nobody_is_to_go_where_what_they_have_not_taken_is_not_what_makes_it_too_much() {
        let all = Told::default();
        let (one, two) = (Count::default(), Count::default());
        one.set(10 * STEP, &all);
        one.count_untaken(STEP, &all);
        assert!(!one.is_too_much_by_untaken(&all, 8 * STEP), "others keep more than that by themselves");
        assert!(one.is_too_much_by_untaken(&all, 9 * STEP));
        assert!(!one.is_too_much_by_untaken(&all, 10 * STEP), "it is not too much");
        two.count_untaken(2 * STEP, &all);
        assert!(one.is_too_much_by_untaken(&all, 7 * STEP), "those of other threads count");
        two.end(&all);
        assert!(!one.is_too_much_by_untaken(&all, 8 * STEP));
    }
}

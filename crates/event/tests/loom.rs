//! Every interleaving of the park and wake protocol, of the ring between threads, and of the cancel states, tried by loom.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p beltway-event --test loom --target-dir target/loom
//! ```
//!
//! The files under test are the crate's own, compiled here once more with loom's atomics. The lock-free queue is
//! another crate's and stands for itself; here a queue behind a lock takes its place, which keeps what the protocol
//! relies on: what was put in before the announcement is seen after it. An epoll wait is loom's `Notify`, which
//! remembers one notification as an eventfd does.
#![cfg(loom)]
#![allow(unsafe_code, reason = "the ring lends memory by pointer")]
#![allow(clippy::unwrap_used, reason = "a test: what fails is to end it")]
#![allow(dead_code, unreachable_pub, reason = "what the crate uses of these files and this test does not")]

mod sync {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU64, Ordering};

    pub(crate) fn will_write<T>(_of: &T) {}
}

#[path = "../src/cancel.rs"]
mod cancel;
#[path = "../src/overflow.rs"]
mod overflow;
#[path = "../src/parking.rs"]
mod parking;
#[path = "../src/ring.rs"]
mod ring;

use std::collections::VecDeque;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex, Notify};
use loom::thread;

use cancel::{CancelState, Cancelled};
use overflow::Overflow;
use parking::{Heard, Parking};
use ring::{Ring, Taken};

const PREEMPTIONS_MAX: usize = 3;

struct Model {
    queue: Mutex<VecDeque<usize>>,
    parking: Parking,
    eventfd: Notify,
    wakes: AtomicUsize,
}

impl Model {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(VecDeque::new()),
            parking: Parking::new(),
            eventfd: Notify::new(),
            wakes: AtomicUsize::new(0),
        })
    }

    /// As `External::push`.
    fn push(&self, item: usize) {
        self.queue.lock().unwrap().push_back(item);
        if self.parking.announce() == Heard::Asleep {
            self.wakes.fetch_add(1, Ordering::Relaxed);
            self.eventfd.notify();
        }
    }

    /// As the loop: takes what there is, and sleeps when nothing is. A wake-up that was lost makes this wait for ever,
    /// which loom reports.
    fn take(&self, count: usize) -> Vec<usize> {
        let mut taken = Vec::new();
        loop {
            while let Some(item) = { self.queue.lock().unwrap().pop_front() } {
                taken.push(item);
            }
            if taken.len() >= count {
                return taken;
            }
            if self.parking.park(taken.len() as u64) {
                self.eventfd.wait();
                self.parking.unpark();
            }
        }
    }
}

#[test]
fn no_wake_up_is_lost_between_two_producers_and_a_consumer_that_sleeps() {
    bounded(|| {
        let model = Model::new();
        let producers: Vec<_> = (0..2)
            .map(|n| {
                let model = Arc::clone(&model);
                thread::spawn(move || model.push(n))
            })
            .collect();
        let mut taken = model.take(2);
        taken.sort_unstable();
        assert_eq!(taken, [0, 1]);
        for producer in producers {
            producer.join().unwrap();
        }
    });
}

#[test]
fn a_producer_of_several_items_wakes_at_most_once_for_each_sleep() {
    loom::model(|| {
        let model = Model::new();
        let producer = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                model.push(1);
                model.push(2);
            })
        };
        assert_eq!(model.take(2), [1, 2]);
        producer.join().unwrap();
        assert!(model.wakes.load(Ordering::Relaxed) <= 2);
    });
}

#[test]
fn many_events_for_one_sleep_make_one_wake_up() {
    loom::model(|| {
        let model = Model::new();
        assert!(model.parking.park(0));
        let producers: Vec<_> = (0..2)
            .map(|n| {
                let model = Arc::clone(&model);
                thread::spawn(move || model.push(n))
            })
            .collect();
        for producer in producers {
            producer.join().unwrap();
        }
        assert_eq!(model.wakes.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn the_last_senders_end_wakes_a_reader_that_sleeps() {
    loom::model(|| {
        let model = Model::new();
        let senders = Arc::new(AtomicUsize::new(1));
        let sender = {
            let (model, senders) = (Arc::clone(&model), Arc::clone(&senders));
            // As the drop of `channel::Sender`.
            thread::spawn(move || {
                if senders.fetch_sub(1, Ordering::AcqRel) == 1 && model.parking.nudge() {
                    model.eventfd.notify();
                }
            })
        };
        // As `channel::Receiver::poll_recv`.
        while senders.load(Ordering::Acquire) > 0 {
            if model.parking.park(0) && senders.load(Ordering::Acquire) > 0 {
                model.eventfd.wait();
            }
        }
        sender.join().unwrap();
    });
}

#[test]
fn an_event_is_delivered_or_prevented_and_never_both() {
    loom::model(|| {
        let state = Arc::new(CancelState::new());
        let delivered = Arc::new(AtomicBool::new(false));
        let returned = Arc::new(AtomicBool::new(false));
        let owner = {
            let (state, delivered, returned) = (Arc::clone(&state), Arc::clone(&delivered), Arc::clone(&returned));
            thread::spawn(move || {
                let too_late = returned.load(Ordering::Acquire);
                if state.begin_once() {
                    assert!(!too_late, "a delivery began after cancel had returned");
                    delivered.store(true, Ordering::Release);
                }
            })
        };
        let outcome = state.cancel();
        returned.store(true, Ordering::Release);
        owner.join().unwrap();
        assert_eq!(outcome == Cancelled::AlreadyBegun, delivered.load(Ordering::Acquire));
    });
}

#[test]
fn no_delivery_of_a_periodic_event_begins_after_its_cancel_returned() {
    loom::model(|| {
        let state = Arc::new(CancelState::new());
        let returned = Arc::new(AtomicBool::new(false));
        let owner = {
            let (state, returned) = (Arc::clone(&state), Arc::clone(&returned));
            thread::spawn(move || {
                for _ in 0..2 {
                    let too_late = returned.load(Ordering::Acquire);
                    if !state.begin() {
                        return;
                    }
                    assert!(!too_late, "a delivery began after cancel had returned");
                    if !state.again() {
                        return;
                    }
                }
            })
        };
        state.cancel();
        returned.store(true, Ordering::Release);
        owner.join().unwrap();
        assert!(state.is_cancelled());
    });
}

/// As `External`: a ring, and a queue behind it.
struct External {
    ring: Ring<usize>,
    queue: Mutex<VecDeque<usize>>,
    overflow: Overflow,
    parking: Parking,
}

/// What `External` keeps in cells of its owner.
#[derive(Default)]
struct Owner {
    taken: u64,
    open: u64,
}

/// Gives an item's memory to the caller, as `external::unpack`.
fn unpack(taken: Taken<'_, usize>) -> usize {
    // SAFETY: the item was begun, so that nobody else reaches it.
    taken.read(|slot| unsafe { slot.read() })
}

impl External {
    fn new(slots: usize) -> Arc<Self> {
        Arc::new(Self {
            ring: Ring::new(slots, || 0),
            queue: Mutex::new(VecDeque::new()),
            overflow: Overflow::new(),
            parking: Parking::new(),
        })
    }

    /// As `External::announce`, but that nobody sleeps here.
    fn announce(&self) -> bool {
        self.parking.announce() != Heard::Ended
    }

    /// As `External::put`: the position; `Err` with whether the thread has ended.
    fn put(&self, item: usize) -> Result<u64, bool> {
        if self.parking.has_ended() {
            return Err(true);
        }
        if self.overflow.is_used() {
            return Err(false);
        }
        let claim = self.ring.claim().ok_or(false)?;
        // SAFETY: the slot is claimed, so that nobody else reaches it.
        let position = claim.fill(|slot| unsafe { slot.write(item) });
        if self.announce() || self.ring.begin(position).map(unpack).is_none() { Ok(position) } else { Err(true) }
    }

    /// As `External::push`, but that whoever puts in gives up at the end.
    fn push(&self, item: usize) {
        if self.put(item).is_err() {
            self.overflow.enter();
            self.queue.lock().unwrap().push_back(item);
            self.overflow.entered();
            assert!(self.announce(), "nobody ends here");
        }
    }

    /// As `External::pop`.
    fn pop(&self, owner: &mut Owner) -> Option<usize> {
        if owner.open == 0 {
            if let Some(taken) = self.ring.take() {
                return Some(unpack(taken));
            }
            if !self.overflow.is_used() {
                return None;
            }
            let open = self.overflow.open(owner.taken);
            if !self.ring.is_through() {
                return self.ring.take().map(unpack);
            }
            owner.open = open;
        }
        if owner.open == 0 {
            return None;
        }
        let item = self.queue.lock().unwrap().pop_front()?;
        owner.open -= 1;
        owner.taken += 1;
        self.overflow.left();
        Some(item)
    }

    /// What is there, at most so many.
    fn take(&self, owner: &mut Owner, most: usize) -> Vec<usize> {
        std::iter::from_fn(|| self.pop(owner)).take(most).collect()
    }
}

/// Bounds the number of preemptions, for all of them would take hours; most bugs need one or two.
fn bounded(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX);
    builder.check(model);
}

#[test]
fn what_two_producers_put_into_a_full_ring_arrives_once_and_in_the_order_of_each() {
    bounded(|| {
        let external = External::new(1);
        let producers: Vec<_> = [[10, 11], [20, 21]]
            .map(|items| {
                let external = Arc::clone(&external);
                thread::spawn(move || items.into_iter().for_each(|item| external.push(item)))
            })
            .into();
        let mut owner = Owner::default();
        let mut items = external.take(&mut owner, 3);
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        items.extend(external.take(&mut owner, 4));
        let of = |from: usize| items.iter().copied().filter(|&item| item / 10 == from).collect::<Vec<_>>();
        assert_eq!((of(1), of(2)), (vec![10, 11], vec![20, 21]));
    });
}

#[test]
fn what_one_producer_puts_in_keeps_its_order_through_ring_overflow_and_ring_again() {
    bounded(|| {
        let external = External::new(1);
        let producer = {
            let external = Arc::clone(&external);
            thread::spawn(move || (0..4).for_each(|n| external.push(n)))
        };
        let mut owner = Owner::default();
        let mut items = external.take(&mut owner, 4);
        producer.join().unwrap();
        items.extend(external.take(&mut owner, 4));
        assert_eq!(items, [0, 1, 2, 3]);
    });
}

#[test]
fn an_item_of_the_ring_is_begun_or_prevented_and_a_stale_handle_does_not_touch_the_next_in_its_slot() {
    loom::model(|| {
        let external = External::new(1);
        let first = external.put(1).unwrap();
        let returned = Arc::new(AtomicBool::new(false));
        let owner = {
            let (external, returned) = (Arc::clone(&external), Arc::clone(&returned));
            thread::spawn(move || {
                let too_late = returned.load(Ordering::Acquire);
                let taken = external.ring.take().unwrap();
                let begun = !taken.cancelled;
                assert!(!(begun && too_late), "a delivery began after cancel had returned");
                assert_eq!(unpack(taken), 1);
                // The next lap's, in the same slot.
                external.put(2).unwrap();
                let next = external.ring.take().unwrap();
                assert!(!next.cancelled, "cancelled by a handle of the item before");
                assert_eq!(unpack(next), 2);
                begun
            })
        };
        let outcome = external.ring.cancel(first);
        returned.store(true, Ordering::Release);
        assert_eq!(outcome == Cancelled::AlreadyBegun, owner.join().unwrap());
    });
}

#[test]
fn what_is_put_in_while_the_owner_ends_is_either_seen_by_it_or_refused() {
    bounded(|| {
        let external = External::new(2);
        let producers: Vec<_> = [1, 2]
            .map(|item| {
                let external = Arc::clone(&external);
                thread::spawn(move || external.put(item).map(|_| item))
            })
            .into();
        // As `External::end`.
        external.parking.end();
        let mut seen = Vec::new();
        external.ring.sweep(|taken| seen.push(unpack(taken)));
        let mut accepted: Vec<_> = producers.into_iter().filter_map(|producer| producer.join().unwrap().ok()).collect();
        seen.sort_unstable();
        accepted.sort_unstable();
        assert_eq!(seen, accepted);
    });
}

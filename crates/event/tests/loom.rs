//! Every interleaving of the park and wake protocol and of the cancel states, tried by loom.
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
#![allow(clippy::unwrap_used, reason = "a test: what fails is to end it")]
#![allow(dead_code, unreachable_pub, reason = "what the crate uses of these files and this test does not")]

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU64, Ordering};
}

#[path = "../src/cancel.rs"]
mod cancel;
#[path = "../src/parking.rs"]
mod parking;

use std::collections::VecDeque;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex, Notify};
use loom::thread;

use cancel::{CancelState, Cancelled};
use parking::Parking;

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
        if self.parking.announce() {
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
    // Three threads: without a bound on preemptions this takes minutes, and most bugs need one or two.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS_MAX);
    model.check(|| {
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

//! Where fetches wait for their turn after a cold start: [`Ramp`] says how many may run, the gate who is next.
//!
//! First in, first out, across all event threads; each wait has a bound. Once the ramp is over, to pass costs one load.
//! One gate may stand before all origins, or one before each.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use base::Instant;
use event::Thread;

use crate::ramp::{Outcome, Ramp, RampOptions};

/// A gate. Clones share it.
#[derive(Clone)]
pub struct Gate(Arc<Inside>);

struct Inside {
    over: AtomicBool,
    state: Mutex<State>,
}

struct State {
    ramp: Ramp,
    /// In the order of their tickets.
    waiting: VecDeque<Waiting>,
    tickets: u64,
    counts: GateNumbers,
}

struct Waiting {
    ticket: u64,
    waker: Option<Waker>,
}

/// Why a fetch may not begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Its turn did not come in time.
    Late,
    /// Too many wait already.
    Full,
}

/// What a gate counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GateNumbers {
    /// Fetches that may run at once now; none once all may.
    pub allowed: Option<u32>,
    /// Those that run and passed here.
    pub running: u32,
    /// Those that wait now.
    pub waiting: usize,
    /// Those that had to wait, since the start.
    pub waited: u64,
    /// Those whose turn did not come in time, since the start.
    pub late: u64,
    /// Those that found too many waiting, since the start.
    pub full: u64,
}

impl Gate {
    /// Closed as far as a cold start has it.
    #[must_use]
    pub fn new(options: RampOptions) -> Self {
        let ramp = Ramp::new(options);
        let over = AtomicBool::new(ramp.is_over());
        let state = State { ramp, waiting: VecDeque::new(), tickets: 0, counts: GateNumbers::default() };
        Self(Arc::new(Inside { over, state: Mutex::new(state) }))
    }

    /// Waits until a fetch may begin, until a moment at most. Say on the permit how it ended.
    ///
    /// # Errors
    /// Why it may not: then serve what is stale, or refuse the request; to fetch all the same defeats the gate.
    pub async fn pass(&self, thread: &Thread, until: Instant) -> Result<Permit, Refused> {
        let mut turn = match self.ask() {
            Asked::Passed(permit) => return Ok(permit),
            Asked::Full => return Err(Refused::Full),
            Asked::Wait(turn) => turn,
        };
        let mut bound = pin!(thread.sleep_until(until));
        let permit = poll_fn(|context| {
            if let Poll::Ready(permit) = turn.poll(context) {
                return Poll::Ready(Some(permit));
            }
            bound.as_mut().poll(context).map(|()| None)
        })
        .await;
        permit.ok_or_else(|| {
            self.0.lock().counts.late += 1;
            Refused::Late
        })
    }

    /// As [`Gate::pass`], without waiting: none when it would have to.
    #[must_use]
    pub fn try_pass(&self) -> Option<Permit> {
        if self.0.over.load(Ordering::Relaxed) {
            return Some(Permit(None));
        }
        let mut state = self.0.lock();
        (state.waiting.is_empty() && state.ramp.begin()).then(|| Permit(Some(Arc::clone(&self.0))))
    }

    fn ask(&self) -> Asked {
        if let Some(permit) = self.try_pass() {
            return Asked::Passed(permit);
        }
        let mut state = self.0.lock();
        if state.ramp.is_over() {
            return Asked::Passed(Permit(None));
        }
        if state.waiting.len() >= state.ramp.waiting_max() {
            state.counts.full += 1;
            return Asked::Full;
        }
        state.tickets += 1;
        state.counts.waited += 1;
        let ticket = state.tickets;
        state.waiting.push_back(Waiting { ticket, waker: None });
        // One may have ended since it was asked.
        let wakers = state.admit();
        drop(state);
        wake(wakers);
        Asked::Wait(Turn { gate: Arc::clone(&self.0), ticket: Some(ticket) })
    }

    /// What it counts.
    #[must_use]
    pub fn numbers(&self) -> GateNumbers {
        let state = self.0.lock();
        let allowed = (!state.ramp.is_over()).then(|| state.ramp.allowed());
        GateNumbers { allowed, running: state.ramp.running(), waiting: state.waiting.len(), ..state.counts }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({:?})", self.numbers())
    }
}

enum Asked {
    Passed(Permit),
    Wait(Turn),
    Full,
}

fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

impl Inside {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, outcome: Outcome, now: Instant) {
        let mut state = self.lock();
        state.ramp.end(outcome, now);
        self.over.store(state.ramp.is_over(), Ordering::Relaxed);
        let wakers = state.admit();
        drop(state);
        wake(wakers);
    }
}

impl State {
    /// Lets in who may, the oldest first: they are among the waiting no more, and that tells them.
    fn admit(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while !self.waiting.is_empty() && self.ramp.begin() {
            wakers.extend(self.waiting.pop_front().and_then(|waiting| waiting.waker));
        }
        wakers
    }

    fn find(&self, ticket: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&ticket, |waiting| waiting.ticket).ok()
    }
}

/// A place in the queue.
struct Turn {
    gate: Arc<Inside>,
    /// None once it passed.
    ticket: Option<u64>,
}

impl Turn {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Permit> {
        let Some(ticket) = self.ticket else { return Poll::Pending };
        let mut state = self.gate.lock();
        if let Some(at) = state.find(ticket) {
            state.waiting[at].waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        self.ticket = None;
        Poll::Ready(Permit(Some(Arc::clone(&self.gate))))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.gate.lock();
        match state.find(ticket) {
            Some(at) => drop(state.waiting.remove(at)),
            None => {
                // It was let in and did not come: the next one is.
                drop(state);
                drop(Permit(Some(Arc::clone(&self.gate))));
            }
        }
    }
}

/// The right to fetch. Dropped without a word, it says nothing about the origin.
#[must_use]
pub struct Permit(Option<Arc<Inside>>);

impl Permit {
    /// The origin answered, and not that it is overloaded.
    pub fn answered(mut self) {
        if let Some(gate) = self.0.take() {
            gate.end(Outcome::Answered, Instant::ORIGIN);
        }
    }

    /// The origin refused, was too late, or said that it is overloaded (502, 503, 504).
    pub fn overloaded(mut self, now: Instant) {
        if let Some(gate) = self.0.take() {
            gate.end(Outcome::Overloaded, now);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(gate) = self.0.take() {
            gate.end(Outcome::Unknown, Instant::ORIGIN);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Permit" } else { "Permit(free)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    use event::sim::{Faults, World};

    fn gate(first: u32, last: u32, waiting_max: usize) -> Gate {
        Gate::new(RampOptions { first, last, waiting_max, ..RampOptions::default() })
    }

    #[test]
    fn fetches_pass_in_the_order_they_came_and_never_more_than_allowed() {
        let world = World::new(3, Faults::none());
        let threads = world.group("ET_NET", 2).unwrap();
        let gate = gate(2, 40, 1_000);
        let order = Rc::new(RefCell::new(Vec::new()));
        for n in 0..100_u64 {
            let (me, gate, order) = (threads[0].clone(), gate.clone(), Rc::clone(&order));
            drop(threads[0].spawn("fetch", async move {
                let permit = gate.pass(&me, me.now() + Duration::from_secs(60)).await.unwrap();
                order.borrow_mut().push(n);
                let numbers = gate.numbers();
                assert!(numbers.allowed.is_none_or(|allowed| numbers.running <= allowed), "{numbers:?}");
                me.sleep(Duration::from_millis(100)).await;
                permit.answered();
            }));
        }
        world.run_until(|| order.borrow().len() == 100, Duration::from_secs(10)).unwrap();
        assert!(order.borrow().is_sorted());
        let numbers = gate.numbers();
        assert!(numbers.allowed.is_none() && numbers.waiting == 0 && numbers.waited == 98, "{numbers:?}");
        assert!(matches!(gate.try_pass(), Some(Permit(None))), "it is over: nothing is counted");
    }

    #[test]
    fn who_waits_too_long_is_told_and_leaves_no_gap() {
        let world = World::new(4, Faults::none());
        let thread = world.thread("ET_NET 0").unwrap();
        let gate = gate(1, 1_000, 2);
        let running = gate.try_pass().unwrap();
        let results = Rc::new(RefCell::new(Vec::new()));
        let ask = |limit: u64| {
            let (me, gate, results) = (thread.clone(), gate.clone(), Rc::clone(&results));
            thread.spawn("fetch", async move {
                let result = gate.pass(&me, me.now() + Duration::from_secs(limit)).await;
                results.borrow_mut().push(result.map(|permit| permit.answered()));
            })
        };
        drop(ask(1));
        let gone = ask(50);
        drop(ask(60));
        world.run_until(|| results.borrow().len() == 2, Duration::from_secs(3)).unwrap();
        assert_eq!(*results.borrow(), [Err(Refused::Full), Err(Refused::Late)]);
        gone.cancel();
        drop(ask(60));
        running.overloaded(thread.now());
        world.run_until(|| results.borrow().len() == 3, Duration::from_secs(1)).unwrap();
        assert_eq!(results.borrow()[2], Ok(()));
        let numbers = gate.numbers();
        assert_eq!((numbers.running, numbers.waiting, numbers.late, numbers.full), (0, 0, 1, 1));
    }

    #[test]
    fn who_was_let_in_and_left_lets_the_next_one_in() {
        let gate = gate(1, 1_000, 10);
        let first = gate.try_pass().unwrap();
        let (Asked::Wait(second), Asked::Wait(mut third)) = (gate.ask(), gate.ask()) else { panic!("both wait") };
        drop(first);
        drop(second);
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(third.poll(&mut context), Poll::Ready(Permit(Some(_)))));
        assert_eq!(gate.numbers().running, 0, "the permit was dropped");
    }
}

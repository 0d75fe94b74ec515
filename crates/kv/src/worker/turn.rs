//! What one turn of the event thread has touched, and what its end does about it: fails what failed, hands over what is
//! held, sends what is ready; once each, however much has come.
//!
//! Whoever panics there is given up alone, and the others have their end all the same, see `contain`. Start with
//! `Worker::turn_ends`.

use std::cell::{Cell, RefCell};
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::Duration;

use event::Tcp;

use super::Worker;
use crate::client::ClientCell;
use crate::contain::each;
use crate::fault::Fault;
use crate::lane::{self, LaneCell};

/// So many clients that wait for replies make the loop take more of them in a turn, see [`GATHER`].
const CROWD: usize = 8;
/// How long a turn's events gather when there is a [`CROWD`]; the kernel adds its timer slack of 50 µs. Their requests would
/// be held for the batch that is on its way all the same, and waking up for each costs more than forwarding it:
/// measured at pipeline 1 with 50 clients, 5.5 µs a command in place of 8.6, at the same latency.
const GATHER: Duration = Duration::from_nanos(1);
/// How often a turn's end looks whether failing something has failed something else.
const FAILURES_MAX: usize = 16;

/// What waits for the end of this turn.
#[derive(Default)]
pub(super) struct Turn {
    dirty_clients: RefCell<Vec<Rc<ClientCell>>>,
    dirty_lanes: RefCell<Vec<Rc<LaneCell>>>,
    failed: RefCell<Vec<(Rc<LaneCell>, Fault)>>,
    /// There may be verdicts of other threads to go by.
    verdicts: Cell<bool>,
    resume: RefCell<Vec<Rc<LaneCell>>>,
    buried: RefCell<Vec<Tcp>>,
}

impl Turn {
    /// Gives memory back beyond what so many places need.
    pub(super) fn shrink_to(&self, places: usize) {
        self.dirty_clients.borrow_mut().shrink_to(places);
    }

    /// Lets go of all that it has.
    pub(super) fn clear(&self) {
        drop((self.failed.take(), self.resume.take(), self.dirty_clients.take()));
        drop((self.dirty_lanes.take(), self.buried.take()));
    }
}

impl Worker {
    #[inline]
    pub(crate) fn client_is_dirty(&self, client: Rc<ClientCell>) {
        self.0.turn.dirty_clients.borrow_mut().push(client);
    }

    #[inline]
    pub(crate) fn lane_is_dirty(&self, lane: Rc<LaneCell>) {
        self.0.turn.dirty_lanes.borrow_mut().push(lane);
    }

    /// When the turn ends every server goes by what other threads have found of it.
    pub(crate) fn follow_verdicts(&self) {
        self.0.turn.verdicts.set(true);
    }

    pub(crate) fn lane_has_failed(&self, lane: Rc<LaneCell>, fault: Fault) {
        self.0.turn.failed.borrow_mut().push((lane, fault));
    }

    pub(crate) fn resume_later(&self, lane: Rc<LaneCell>) {
        self.0.turn.resume.borrow_mut().push(lane);
    }

    /// Keeps a connection until the turn ends.
    pub(crate) fn bury(&self, tcp: Tcp) {
        self.0.turn.buried.borrow_mut().push(tcp);
    }

    /// Fails what failed, hands over what is held, sends what is ready.
    pub(super) fn turn_ends(&self) {
        self.0.now.set(None);
        let mut panic = None;
        if self.0.turn.verdicts.take() {
            for pool in self.pools().iter() {
                each(pool.servers(), &mut panic, |server| server.mind_verdict(self), |_| {});
            }
        }
        for _ in 0..FAILURES_MAX {
            let failed = self.0.turn.failed.take();
            if failed.is_empty() {
                break;
            }
            each(&failed, &mut panic, |(lane, fault)| lane::fail(lane, *fault), |_| {});
        }
        let resume = self.0.turn.resume.take();
        each(&resume, &mut panic, |lane| lane.borrow_mut().resume(), lane::give_up);
        let mut lanes = self.0.turn.dirty_lanes.take();
        each(&lanes, &mut panic, |lane| lane.borrow_mut().flush(), lane::give_up);
        lanes.clear();
        put_back(&self.0.turn.dirty_lanes, lanes);
        let mut clients = self.0.turn.dirty_clients.take();
        each(&clients, &mut panic, |client| client.borrow_mut().flush(), |client| client.borrow_mut().cut());
        clients.clear();
        put_back(&self.0.turn.dirty_clients, clients);
        drop(self.0.turn.buried.take());
        if self.0.waiting.get() >= CROWD {
            self.0.thread.gather(GATHER);
        }
        self.0.now.set(None);
        if !self.0.turn.failed.borrow().is_empty() {
            self.0.thread.spawn("kv turn", async {});
        }
        if let Some(panic) = panic {
            // What was given up ends with the next turn, which is to come at once. Its thread counts it.
            self.0.thread.spawn("kv turn", async {});
            resume_unwind(panic);
        }
    }
}

/// Keeps an emptied list's memory.
fn put_back<T>(list: &RefCell<Vec<T>>, emptied: Vec<T>) {
    let mut now = list.borrow_mut();
    if now.is_empty() {
        *now = emptied;
    }
}

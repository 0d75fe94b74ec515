//! What the threads of a process share of all pools: who is connected and what is kept, what was said and took long, which
//! servers are held out by hand and when others were ejected; and how one thread wakes the others to follow a verdict.
//!
//! Nothing here is touched by a request that goes well. What is found of a server stands with the plan, see `server::judge`.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use base::WallTime;
use event::log::LogSender;

use crate::memory::Told;
use crate::plan::Plan;
use crate::pool::Census;
use crate::say::Voice;
use crate::slow::{Slow, SlowLog};

/// Servers whose last ejection is remembered.
const EJECTED_MAX: usize = 4_096;

/// See the module.
#[derive(Debug)]
pub struct Shared {
    /// Of each pool, in the plan's order.
    censuses: Vec<Arc<Census>>,
    /// When servers were last ejected, by pool and name.
    ejected_at: Mutex<HashMap<(String, String), WallTime>>,
    slow: SlowLog,
    voice: Voice,
    /// The servers that are out of their rings by hand, by pool and name.
    held: Mutex<BTreeSet<(String, String)>>,
    /// What all pools keep.
    told: Told,
    /// Who follows a verdict that one thread comes to: a task of each.
    followers: Mutex<Vec<Waker>>,
}

impl Shared {
    /// For this plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Arc<Self> {
        let censuses = plan.pools.iter().map(|_| Arc::default()).collect();
        Arc::new(Self {
            censuses,
            ejected_at: Mutex::default(),
            slow: SlowLog::default(),
            voice: Voice::default(),
            held: Mutex::default(),
            told: Told::default(),
            followers: Mutex::default(),
        })
    }

    /// When that server was last ejected, on any thread.
    #[must_use]
    pub fn ejected_at(&self, pool: &str, server: &str) -> Option<WallTime> {
        let ejected = self.ejected_at.lock().unwrap_or_else(PoisonError::into_inner);
        ejected.get(&(pool.to_owned(), server.to_owned())).copied()
    }

    /// Says in that log from now on what becomes of servers.
    pub fn report_to(&self, log: LogSender) {
        self.voice.report_to(log);
    }

    /// Of each pool, in the order of the plan that this was made for.
    pub(crate) fn censuses(&self) -> &[Arc<Census>] {
        &self.censuses
    }

    pub(crate) fn voice(&self) -> &Voice {
        &self.voice
    }

    /// The newest requests that took long, the newest first.
    #[must_use]
    pub fn slow(&self) -> Vec<Slow> {
        self.slow.read()
    }

    /// The servers that are out of their rings by hand, by pool and name. Workers that are made from now on, and
    /// configurations that they take, keep them out; running workers are told of a change by [`crate::Worker::hold`].
    #[must_use]
    pub fn held(&self) -> BTreeSet<(String, String)> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets them.
    pub fn set_held(&self, held: BTreeSet<(String, String)>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    /// Which servers of that pool are.
    pub(crate) fn held_of(&self, pool: &str) -> Vec<String> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().filter(|(of, _)| of == pool).map(|(_, server)| server.clone()).collect()
    }

    /// Whoever is woken by that follows every verdict from now on.
    pub(crate) fn wake_on_verdict(&self, waker: Waker) {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).push(waker);
    }

    /// A thread has come to a verdict, which the others are to follow.
    pub(crate) fn tell_verdict(&self) {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(Waker::wake_by_ref);
    }

    pub(crate) fn slow_log(&self) -> &SlowLog {
        &self.slow
    }

    /// What all threads keep, as far as they have told.
    pub(crate) fn told(&self) -> &Told {
        &self.told
    }

    pub(crate) fn ejected(&self, pool: &str, server: &str, at: WallTime) {
        // Rare, and nothing is done while it is held.
        let mut ejected = self.ejected_at.lock().unwrap_or_else(PoisonError::into_inner);
        let one = (pool.to_owned(), server.to_owned());
        if ejected.len() < EJECTED_MAX || ejected.contains_key(&one) {
            ejected.insert(one, at);
        }
    }
}

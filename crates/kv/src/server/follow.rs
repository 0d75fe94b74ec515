//! A server that is told by its name is followed to where the name leads.
//!
//! As long as a connection lives nothing asks for its name, so it is asked here now and then, of the memory of names that
//! new connections ask too: what is fresh there costs no look-up, and nobody waits for one. When the address in use is no
//! longer among the answers, the connections to it take no new requests, and close when those that they have are
//! answered. Of several addresses the one in use stays while it is among them. Where nothing is known, all stays.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use base::Instant;

use super::Server;
use super::renew::leave;
use crate::lane::LaneCell;
use crate::plan::Address;
use crate::worker::Worker;

/// How often the name is asked for, at most. It is looked up when what is remembered of it is as old as it may be.
const EVERY: Duration = Duration::from_secs(1);
/// Where a server's name leads, as far as one thread knows.
#[derive(Default)]
pub(super) struct Following {
    in_use: Cell<Option<IpAddr>>,
    asked_at: Cell<Option<Instant>>,
    /// It is being asked.
    asks: Cell<bool>,
}

impl Following {
    /// Goes on from what an older plan's server knew.
    pub(super) fn take_over(&self, old: &Self) {
        self.in_use.set(old.in_use.get());
    }
}

impl Server {
    /// Which of its name's addresses is connected to; none when there are none.
    pub(super) fn choose(&self, found: &[IpAddr]) -> Option<IpAddr> {
        let in_use = &self.following.in_use;
        in_use.set(in_use.get().filter(|used| found.contains(used)).or_else(|| found.first().copied()));
        in_use.get()
    }

    /// The address that its name led to last; none of a server without a name, or that was never connected to.
    pub(crate) fn address_in_use(&self) -> Option<IpAddr> {
        self.following.in_use.get()
    }

    /// Looks whether its name leads elsewhere by now, unless it was looked a moment ago.
    pub(crate) fn follow(self: &Rc<Self>, worker: &Worker) {
        let Address::Name(name, _) = &self.told().address else { return };
        let (now, following) = (worker.now(), &self.following);
        if following.asks.get() || following.asked_at.get().is_some_and(|at| now - at < EVERY) {
            return;
        }
        following.asked_at.set(Some(now));
        if self.lanes.borrow().iter().all(Option::is_none) {
            return;
        }
        following.asks.set(true);
        let (server, worker, name) = (Rc::clone(self), worker.clone(), name.clone());
        let thread = worker.thread().clone();
        thread.clone().spawn("kv name", async move {
            // Within the time that look-ups have.
            let found = worker.names().resolve(&thread, &name).await;
            server.following.asks.set(false);
            if let Ok(found) = found {
                server.leave_all_but(&found);
            }
        });
    }

    /// Its connections to other addresses end when what is on them is answered.
    fn leave_all_but(&self, found: &[IpAddr]) {
        let is_elsewhere = |lane: &mut Rc<LaneCell>| lane.borrow().is_elsewhere(found);
        let gone: Vec<_> = self.lanes.borrow_mut().iter_mut().filter_map(|place| place.take_if(is_elsewhere)).collect();
        gone.iter().for_each(leave);
    }
}

//! What becomes of a server when the pool gets a new plan.
//!
//! Its connections stay when it is the same server, told the same at the beginning; so does what is known of it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use stats::Gauge;

use super::{Server, State, probe};
use crate::fault::Fault;
use crate::lane::{self, LaneCell};
use crate::numbers::KvServer;
use crate::pool::Pool;
use crate::worker::Worker;

/// How long a server may owe a reply that has no deadline before it is asked whether it is there. With
/// [`ANSWERS_WITHIN`] and the time between two looks this bounds how long a request waits for a server that has stopped.
pub(crate) const SILENT: Duration = Duration::from_secs(15);
/// How long it may take to answer then.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// What [`Server::tell`] writes down.
const GAUGES: [Gauge<KvServer>; 7] = [
    KvServer::IN_QUEUE,
    KvServer::IN_QUEUE_BYTES,
    KvServer::OUT_QUEUE,
    KvServer::OUT_QUEUE_BYTES,
    KvServer::CONNECTIONS,
    KvServer::EJECTED,
    KvServer::DOWN,
];

/// What a probe of a new server came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Probed {
    /// It answered.
    Well,
    /// It answered that it loads its data.
    Loading,
    /// It did not, or not as one that is well does.
    Silent(Fault),
}

impl Server {
    /// Whether it is that server by another plan: of its name, which no other of its pool has, and with connections that
    /// are as good for that one. Two names on one address are two servers.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let (one, two) = (&self.plan, &other.plan);
        self.name() == other.name()
            && self.told().address == other.told().address
            && one.protocol == two.protocol
            && one.source.redis_auth == two.source.redis_auth
            && one.source.redis_db == two.source.redis_db
            && one.source.tcpkeepalive == two.source.tcpkeepalive
    }

    /// Takes over what there is of `old`, the same server by an older plan.
    pub(crate) fn take_over(self: &Rc<Self>, worker: &Worker, old: &Self) {
        let mut surplus = Vec::new();
        {
            let (mut lanes, old_lanes) = (self.lanes.borrow_mut(), old.lanes.take());
            let are_dealt_anew = lanes.len() != old_lanes.len();
            for (at, lane) in old_lanes.into_iter().enumerate() {
                let Some(lane) = lane else { continue };
                lane.borrow_mut().belong_to(self);
                if are_dealt_anew {
                    lane.borrow_mut().part_with_all();
                }
                match lanes.get_mut(at) {
                    Some(place) => *place = Some(lane),
                    None => surplus.push(lane),
                }
            }
        }
        self.inherit(old);
        self.following.take_over(&old.following);
        let was = match old.state.replace(State::Past) {
            // The one before had none of its name, and so forgot that it is held; it came to nothing, as this one came first.
            State::Held if !self.is_to_be_held(worker) => self.as_found(),
            state => state,
        };
        self.go_on_from(worker, was, old.inspected.get());
        old.move_to(self.pool());
        surplus.iter().for_each(leave);
    }

    fn is_to_be_held(&self, worker: &Worker) -> bool {
        let pool = self.pool();
        let held = pool.map(|pool| worker.shared().held_of(&pool.plan().source.name)).unwrap_or_default();
        held.iter().any(|name| name == self.name())
    }

    /// It is new, and has been asked whether it is well.
    pub(crate) fn begin(self: &Rc<Self>, worker: &Worker, probed: Probed) {
        self.judge_new(worker, probed == Probed::Well);
        if probed == Probed::Well {
            for lane in 0..self.plan.source.server_connections {
                // It fails by itself and is opened anew when it is needed.
                let _ = self.lane(worker, lane as u64);
            }
        }
    }

    /// It is no longer one of the pool: what is on its connections is answered, nothing new is asked.
    pub(crate) fn depart(&self, worker: &Worker, pool: &Rc<Pool>) {
        self.state.set(State::Past);
        // Another may have its name, elsewhere.
        if !pool.servers().iter().any(|other| other.name() == self.name()) {
            self.say_gone(worker);
        }
        self.move_to(Some(Rc::clone(pool)));
        let lanes: Vec<_> = self.lanes.take().into_iter().flatten().collect();
        lanes.iter().for_each(leave);
        // Nobody tells them again, unless a server of the new pool has its name.
        GAUGES.into_iter().for_each(|gauge| self.cells().set(gauge, 0));
    }

    /// What fails on it is asked again by that pool.
    fn move_to(&self, pool: Option<Rc<Pool>>) {
        if let Some(pool) = pool {
            *self.pool.borrow_mut() = Rc::downgrade(&pool);
        }
    }

    /// Writes down what is not counted as it happens.
    pub(crate) fn tell(&self) {
        let lanes = self.lanes.borrow();
        let (mut connections, mut queues) = (0, [0; 4]);
        for lane in lanes.iter().flatten() {
            connections += 1;
            queues.iter_mut().zip(lane.borrow().queues()).for_each(|(sum, of_lane)| *sum += of_lane);
            lane.borrow_mut().tidy();
        }
        let (is_out, is_down) = (u64::from(!self.is_live()), u64::from(self.is_down()));
        let values = queues.into_iter().chain([connections, is_out, is_down]);
        GAUGES.into_iter().zip(values).for_each(|(gauge, value)| self.cells().set(gauge, value));
    }

    /// Where requests have no deadline: asks a server that owes replies and says nothing whether it is there at all, and
    /// gives its silent connections up when it is not.
    pub(crate) fn mind_silence(self: &Rc<Self>, worker: &Worker) {
        let now = worker.now();
        if !self.plan.waits_for_ever() || now - self.asked_at.get() < SILENT {
            return;
        }
        if self.lanes.borrow().iter().flatten().any(|lane| lane.borrow().is_mute(now, SILENT)) {
            self.ask_why_silent(worker);
        }
    }

    /// One of its connections is silent, of those that take no new requests as well: probes it, and gives those up if it is
    /// not well. One that is slow and answers is waited for.
    pub(crate) fn ask_why_silent(self: &Rc<Self>, worker: &Worker) {
        let now = worker.now();
        if now - self.asked_at.get() < SILENT {
            return;
        }
        self.asked_at.set(now);
        let (server, worker) = (Rc::clone(self), worker.clone());
        worker.thread().clone().spawn("kv probe", async move {
            if server.probe(&worker, ANSWERS_WITHIN).await == Probed::Well {
                return;
            }
            let now = worker.now();
            let is_silent = |lane: &Rc<LaneCell>| lane.borrow().is_of(&server) && lane.borrow().is_mute(now, SILENT);
            let lanes: Vec<_> = worker.lanes().into_iter().filter(is_silent).collect();
            if !lanes.is_empty() {
                // What is asked again must not wait for the same once more.
                server.is_gone(&worker);
            }
            for lane in lanes {
                worker.lane_has_failed(lane, Fault::TimedOut);
            }
        });
    }

    /// As [`Server::ask_why_silent`], of one connection that was left behind where no other is: whoever is at its other end is
    /// asked, and nothing else depends on the answer.
    pub(crate) fn ask_why_lane_is_silent(self: &Rc<Self>, worker: &Worker, lane: Rc<LaneCell>) {
        if !lane.borrow_mut().is_to_be_asked(worker.now()) {
            return;
        }
        let (server, worker, peer) = (Rc::clone(self), worker.clone(), lane.borrow().peer());
        worker.thread().clone().spawn("kv probe", async move {
            if server.probe_at(&worker, ANSWERS_WITHIN, peer).await != Probed::Well
                && lane.borrow().is_mute(worker.now(), SILENT)
            {
                worker.lane_has_failed(lane, Fault::TimedOut);
            }
        });
    }

    /// Asks it whether it is well, for so long at most.
    pub(crate) async fn probe(self: &Rc<Self>, worker: &Worker, within: Duration) -> Probed {
        self.probe_at(worker, within, None).await
    }

    /// The same, at this address if there is one.
    async fn probe_at(self: &Rc<Self>, worker: &Worker, within: Duration, at: Option<SocketAddr>) -> Probed {
        event::timeout(worker.thread(), within, probe::ask_at(self, worker, at))
            .await
            .unwrap_or(Probed::Silent(Fault::TimedOut))
    }
}

/// The connection ends when what is on it is answered.
pub(super) fn leave(lane: &Rc<LaneCell>) {
    if lane.borrow_mut().finish() {
        lane::fail(lane, Fault::Closed);
    }
}

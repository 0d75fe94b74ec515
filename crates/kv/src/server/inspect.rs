//! Looks after a server that is in the ring and may not be well, where one that is not is ejected: it is asked at once, not
//! by the next client's request.

use std::rc::Rc;

use super::renew::leave;
use super::{Probed, Server, State, probe};
use crate::fault::Fault;
use crate::worker::Worker;

impl Server {
    /// One of its connections is lost: asks it whether it is well until it is, or is ejected. Each time that it does not
    /// answer is a failure like another.
    pub(super) fn inspect(self: &Rc<Self>, worker: &Worker) {
        if !self.may_be_ejected() || self.inspected.replace(true) {
            return;
        }
        let (weak, worker) = (Rc::downgrade(self), worker.clone());
        let thread = worker.thread().clone();
        thread.clone().spawn("kv probe", async move {
            let mut interval = probe::FIRST;
            while let Some(server) = weak.upgrade() {
                match probe::ask(&server, &worker).await {
                    _ if !server.may_be_ejected() => {}
                    // It says nothing of requests: their failures still count.
                    Probed::Well => {}
                    Probed::Loading => server.retire(&worker),
                    Probed::Silent => {
                        server.failed(&worker, Fault::Closed, false);
                        if server.may_be_ejected() {
                            drop(server);
                            probe::pause(&thread, interval).await;
                            interval = (interval * 2).min(probe::INTERVAL_MAX);
                            continue;
                        }
                    }
                }
                server.inspected.set(false);
                return;
            }
        });
    }

    /// It answers that it loads its data.
    pub(crate) fn is_loading(self: &Rc<Self>, worker: &Worker) {
        if !self.may_be_ejected() || self.loads.replace(true) {
            return;
        }
        let (server, worker) = (Rc::clone(self), worker.clone());
        // Not from within: its connection is being looked at.
        worker.thread().clone().spawn("kv loading", async move {
            server.loads.set(false);
            if server.may_be_ejected() {
                server.retire(&worker);
            }
        });
    }

    fn may_be_ejected(&self) -> bool {
        self.plan.source.auto_eject_hosts && self.state.get() == State::Well
    }

    /// Takes it out of the ring as one that failed, though it answers: what is on its connections is answered.
    fn retire(self: &Rc<Self>, worker: &Worker) {
        self.put_out(worker);
        let lanes: Vec<_> = self.lanes.borrow_mut().iter_mut().filter_map(Option::take).collect();
        lanes.iter().for_each(leave);
    }
}

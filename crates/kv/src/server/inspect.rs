//! Looks after a server that is in the ring and may not be well, where one that is not is ejected: it is asked at once, not
//! by the next client's request.

use std::rc::Rc;

use super::judge::Inspection;
use super::{Probed, Server, State, probe};
use crate::fault::Fault;
use crate::worker::Worker;

impl Server {
    /// One of its connections is lost: asks it whether it is well until it is, or is ejected. Each time that it does not
    /// answer is a failure like another. One thread does that at a time.
    pub(super) fn inspect(self: &Rc<Self>, worker: &Worker) {
        if self.may_be_ejected()
            && let Some(inspection) = Inspection::begin(self.standing(), false)
        {
            self.run_inspection(worker, inspection);
        }
    }

    /// Goes on with what was begun by an older plan.
    pub(super) fn inspect_on(self: &Rc<Self>, worker: &Worker) {
        if self.may_be_ejected()
            && let Some(inspection) = Inspection::begin(self.standing(), true)
        {
            self.run_inspection(worker, inspection);
        }
    }

    fn run_inspection(self: &Rc<Self>, worker: &Worker, inspection: Inspection) {
        self.inspected.set(true);
        let (weak, worker) = (Rc::downgrade(self), worker.clone());
        let thread = worker.thread().clone();
        thread.clone().spawn("kv probe", async move {
            let mut interval = probe::FIRST;
            while let Some(server) = weak.upgrade() {
                let answer = probe::ask(&server, &worker).await;
                if server.may_be_ejected() && inspection.is_valid() {
                    match answer {
                        // It says nothing of requests: their failures still count. A refusal is an answer.
                        Probed::Well | Probed::Silent(Fault::Handshake) => {}
                        Probed::Loading => server.retire(&worker),
                        Probed::Silent(fault) => server.failed(&worker, fault, false),
                    }
                }
                let is_silent = matches!(answer, Probed::Silent(fault) if fault != Fault::Handshake);
                if !is_silent || !server.may_be_ejected() || !inspection.is_valid() {
                    server.inspected.set(false);
                    return;
                }
                drop(server);
                probe::pause(&thread, interval).await;
                interval = (interval * 2).min(probe::INTERVAL_MAX);
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
}

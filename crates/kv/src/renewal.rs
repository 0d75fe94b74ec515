//! A new plan for a running worker: new servers are asked first, then pools change between two turns, and clients follow
//! between two requests.
//!
//! What is under way goes on where it is. Connections to servers that stay, stay; those to servers that go end when what
//! is on them is answered. A server that does not answer in time takes no keys before it does, unless there is nobody else
//! to take them.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use net::NamesOptions;

use crate::fault::Fault;
use crate::plan::Plan;
use crate::pool::Pool;
use crate::server::{Probed, Server};
use crate::worker::Worker;

/// How long a new server may take to answer before the others go on without it.
const PROBED_WITHIN: Duration = Duration::from_millis(1_000);

/// A server that a new plan brought and that did not answer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Unanswered {
    /// Its pool.
    pub pool: String,
    /// The name that places its keys.
    pub server: String,
    /// Whether it takes no keys before it answers. Else requests for its keys fail: there was nobody else to take them.
    pub waits: bool,
}

impl Unanswered {
    /// What threads told, as one list.
    #[must_use]
    pub fn together(told: Vec<Vec<Self>>) -> Vec<Self> {
        let mut all: Vec<Self> = told.into_iter().flatten().collect();
        all.sort();
        all.dedup_by(|next, one| (&next.pool, &next.server) == (&one.pool, &one.server));
        all
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, server, waits } = self;
        let keys = if *waits {
            "it takes no keys before it answers a probe"
        } else {
            "requests for its keys fail until it answers a probe, since the pool has no other server to take them"
        };
        write!(f, "pool {pool}: the new server {server} does not answer: {keys}")
    }
}

/// A pool that is to take another's place.
struct Change {
    old: Rc<Pool>,
    new: Rc<Pool>,
    /// Of each new server: the old one that it is, or what asking it came to.
    servers: Vec<Result<Rc<Server>, Rc<Cell<Probed>>>>,
}

/// What is done once.
type Finish = Cell<Option<Box<dyn FnOnce()>>>;

fn run(finish: &Finish) {
    if let Some(finish) = finish.take() {
        finish();
    }
}

impl Worker {
    /// Takes over a new plan, whose pools are those there were. `done` is told which of its new servers did not answer,
    /// when the plan is in force; it is dropped when a newer plan came first.
    pub fn renew(&self, plan: &Arc<Plan>, names: NamesOptions, done: impl FnOnce(Vec<Unanswered>) + 'static) {
        let renewal = self.begin_renewal();
        self.names().set_options(names);
        let thread = self.thread().clone();
        let changes: Vec<Change> = plan
            .pools
            .iter()
            .filter_map(|plan| {
                let old = self.pool(&plan.source.name)?;
                let new = old.renewed(plan, thread.random(), self.numbers());
                let find = |server: &Rc<Server>| old.servers().iter().find(|old| old.is_same(server)).cloned();
                let servers = new
                    .servers()
                    .iter()
                    .map(|s| find(s).ok_or_else(|| Rc::new(Cell::new(Probed::Silent(Fault::TimedOut)))));
                let servers = servers.collect();
                Some(Change { old, new, servers })
            })
            .collect();
        let asked: Vec<_> = changes
            .iter()
            .flat_map(|change| change.new.servers().iter().zip(&change.servers))
            .filter_map(|(server, state)| Some((Rc::clone(server), Rc::clone(state.as_ref().err()?))))
            .collect();
        let waiting = Rc::new(Cell::new(asked.len()));
        let (worker, plan) = (self.clone(), Arc::clone(plan));
        // With the last answer, or at once.
        let finish: Rc<Finish> = Rc::new(Cell::new(Some(Box::new(move || {
            if worker.is_newest(renewal) {
                worker.shared().slow_log().retain(|pool| plan.pools.iter().any(|plan| plan.source.name == pool));
                worker.set_memory_max(plan.memory);
                done(worker.put_in_force(changes));
            }
        }))));
        if asked.is_empty() {
            run(&finish);
        }
        for (server, probed) in asked {
            let (worker, waiting, finish) = (self.clone(), Rc::clone(&waiting), Rc::clone(&finish));
            thread.spawn("kv probe", async move {
                probed.set(server.probe(&worker, PROBED_WITHIN).await);
                waiting.set(waiting.get() - 1);
                if waiting.get() == 0 {
                    run(&finish);
                }
            });
        }
    }

    fn put_in_force(&self, changes: Vec<Change>) -> Vec<Unanswered> {
        let mut unanswered = Vec::new();
        let mut pools: Vec<Rc<Pool>> = self.pools().to_vec();
        for Change { old, new, servers } in changes {
            for (server, state) in new.servers().iter().zip(&servers) {
                match state {
                    Ok(same) => server.take_over(self, same),
                    Err(probed) => server.begin(self, probed.get()),
                }
            }
            new.keep_held(self);
            let waits = new.any().is_some();
            if !waits {
                new.servers().iter().for_each(|server| server.take_in(self));
            }
            for (server, state) in new.servers().iter().zip(&servers) {
                // Another thread may have had an answer, and one that is held is asked nothing.
                let is_unanswered = state.as_ref().is_err_and(|probed| probed.get() != Probed::Well);
                if is_unanswered && !server.is_well() && !server.is_held() {
                    let (pool, server) = (new.plan().source.name.clone(), server.name().to_owned());
                    unanswered.push(Unanswered { pool, server, waits });
                }
            }
            for server in old.servers() {
                if !servers.iter().any(|state| state.as_ref().is_ok_and(|same| Rc::ptr_eq(same, server))) {
                    server.depart(self, &new);
                }
            }
            if let Some(place) = pools.iter_mut().find(|pool| Rc::ptr_eq(pool, &old)) {
                *place = Rc::clone(&new);
            }
        }
        self.replace_pools(pools);
        for pool in self.pools().iter() {
            pool.rebuild(self);
            if pool.plan().source.preconnect {
                pool.preconnect(self);
            }
        }
        unanswered
    }
}

//! A new plan for a running worker: new servers are asked first, then pools change between two turns, and clients follow
//! between two requests.
//!
//! What is under way goes on where it is. Connections to servers that stay, stay; those to servers that go end when what
//! is on them is answered. A server that does not answer in time begins outside of its ring, or failing, as one that
//! stopped answering would be.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use net::NamesOptions;

use crate::plan::Plan;
use crate::pool::Pool;
use crate::server::{Probed, Server};
use crate::worker::Worker;

/// How long a new server may take to answer before the others go on without it.
const PROBED_WITHIN: Duration = Duration::from_millis(1_000);

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
    /// Takes over a new plan, whose pools are those there were. `done` is told how many of its new servers did not answer,
    /// when the plan is in force; it is dropped when a newer plan came first.
    pub fn renew(&self, plan: &Arc<Plan>, names: NamesOptions, done: impl FnOnce(usize) + 'static) {
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
                let servers = new.servers().iter().map(|s| find(s).ok_or_else(|| Rc::new(Cell::new(Probed::Silent))));
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

    fn put_in_force(&self, changes: Vec<Change>) -> usize {
        let mut silent = 0;
        let mut pools: Vec<Rc<Pool>> = self.pools().to_vec();
        for Change { old, new, servers } in changes {
            for (server, state) in new.servers().iter().zip(&servers) {
                match state {
                    Ok(same) => server.take_over(self, same),
                    Err(probed) => {
                        silent += usize::from(probed.get() == Probed::Silent);
                        server.begin(self, probed.get());
                    }
                }
            }
            for server in old.servers() {
                if !servers.iter().any(|state| state.as_ref().is_ok_and(|same| Rc::ptr_eq(same, server))) {
                    server.depart(&new);
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
        silent
    }
}

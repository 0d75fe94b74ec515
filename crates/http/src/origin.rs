//! Reaching an origin: which one, at which address, on which connection.

use std::io;
use std::net::SocketAddr;

use event::Tcp;
use net::Connection;

use crate::metrics::Http;
use crate::plan::{HostPlan, Plan};
use crate::remap::{Balance, hash_key};
use crate::transact::failure::Fault;
use crate::worker::Worker;

/// The order in which a request tries the origins of its rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    rule: usize,
    key: u64,
}

/// The choice for one attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) rule: usize,
    pub(crate) origin: usize,
    /// Which of a name's addresses to begin with.
    round: usize,
}

impl Order {
    /// For a request of `rule` with this path and query.
    pub(crate) fn new(worker: &Worker, plan: &Plan, rule: usize, path_and_query: &[u8]) -> Self {
        let key = match plan.remap.rule(rule) {
            Some(compiled) if compiled.origin_count() > 1 => match compiled.balance() {
                Balance::RoundRobin => worker.turn_of(rule),
                Balance::ConsistentHash => hash_key(path_and_query),
            },
            _ => 0,
        };
        Self { rule, key }
    }

    /// The origin for the attempt after those at the origins in `tried`. Origins that took no connection a moment ago
    /// come last, those tried for this request come only when all were.
    pub(crate) fn choice(self, worker: &Worker, plan: &Plan, tried: &[usize]) -> Choice {
        let attempt = tried.len();
        let (Some(rule), Some(origins)) = (plan.remap.rule(self.rule), plan.rules.get(self.rule)) else {
            return Choice { rule: self.rule, origin: 0, round: attempt };
        };
        let count = rule.origin_count().max(1);
        if count == 1 {
            return Choice { rule: self.rule, origin: 0, round: attempt };
        }
        let avoided = |origin: usize| {
            origins.origins.get(origin).and_then(|origin| origin.address()).is_some_and(|at| worker.avoids(at))
        };
        let in_order = |avoided_wanted: bool| {
            (0..count).map(|n| rule.order(self.key, n)).filter(move |&origin| avoided(origin) == avoided_wanted)
        };
        // Not by position: the failed attempt itself has changed who is avoided, and so the order.
        let origin = in_order(false).chain(in_order(true)).find(|origin| !tried.contains(origin));
        Choice {
            rule: self.rule,
            origin: origin.unwrap_or_else(|| rule.order(self.key, attempt)),
            round: attempt / count,
        }
    }
}

/// A connection for a choice: a kept one, unless `fresh`, or a new one.
pub(crate) async fn reach(worker: &Worker, plan: &Plan, choice: Choice, fresh: bool) -> Result<Connection, Fault> {
    let origin = plan.rules.get(choice.rule).and_then(|rule| rule.origins.get(choice.origin));
    let Some(origin) = origin else { return Err(Fault::Unresolved) };
    let address = match &origin.host {
        HostPlan::Address(address) => SocketAddr::new(*address, origin.port),
        HostPlan::Name(name) => {
            let addresses = worker.names().resolve(worker.thread(), name).await.map_err(|_| Fault::Unresolved)?;
            let count = addresses.len().max(1);
            let at = |n: usize| addresses.get(n % count).map(|&ip| SocketAddr::new(ip, origin.port));
            // From the one whose turn it is, the first that is not avoided; all avoided: the one whose turn it is.
            let candidates = (choice.round..choice.round + count).filter_map(at);
            candidates
                .clone()
                .find(|&at| !worker.avoids(at))
                .or_else(|| candidates.clone().next())
                .ok_or(Fault::Unresolved)?
        }
    };
    if !fresh && let Some(kept) = worker.pool().take(worker.thread(), address) {
        worker.cells().add(Http::ORIGIN_REUSES, 1);
        return Ok(kept);
    }
    connect(worker, plan, address).await
}

/// What we lack ourselves is no fault of the origin's: kept connections are closed for it, and the origin is not avoided.
async fn connect(worker: &Worker, plan: &Plan, address: SocketAddr) -> Result<Connection, Fault> {
    let deadline = worker.thread().now() + plan.timeouts.origin_connect;
    let mut connected = Tcp::connect(worker.thread(), address, deadline).await;
    if connected.as_ref().is_err_and(sys::socket::is_want_of_means) && worker.pool().close_idle() > 0 {
        connected = Tcp::connect(worker.thread(), address, deadline).await;
    }
    match connected {
        Ok(tcp) => {
            worker.cells().add(Http::ORIGIN_CONNECTS, 1);
            Ok(worker.pool().enrol(tcp, address))
        }
        Err(error) => {
            worker.cells().add(Http::ORIGIN_CONNECT_FAILURES, 1);
            if !sys::socket::is_want_of_means(&error) {
                worker.avoid(address);
            }
            let late = error.kind() == io::ErrorKind::TimedOut;
            Err(if late { Fault::ConnectTimedOut } else { Fault::Unreachable })
        }
    }
}

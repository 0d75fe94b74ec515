//! A stored response validated while it is served stale (RFC 5861 §3): an exchange without a client.

use std::cell::Cell;
use std::sync::Arc;

use cache::{Entrance, Hit, Lane, Role, Store};

use crate::inbox::Inbox;
use crate::metrics::Http;
use crate::rules::caching::{Forwarded, RequestControl, StoredMeta};
use crate::storing::Storing;
use crate::transaction::{Account, Client, Exchange};
use crate::wire::h1::Status;

/// Begins to validate `hit` for whoever comes next, unless somebody does already. The question is that of the exchange's
/// request, without its conditions.
pub(crate) fn begin(exchange: &Exchange<'_>, store: &Arc<dyn Store>, hit: &Hit, rule: usize) {
    let worker = exchange.worker.clone();
    let now = worker.thread().now();
    let role = store.enter(Entrance { key: hit.key(), lane: Lane::PRIMARY, seen: hit.seen(), now });
    let (Role::Writer(writer) | Role::Bypass(_, writer)) = role else { return };
    worker.cells().add(Http::REFRESHES, 1);
    let (plan, text, peer, hit) = (Arc::clone(exchange.plan), exchange.text.clone(), exchange.client.peer, hit.clone());
    let key = exchange.desk.key.clone();
    let thread = worker.thread().clone();
    thread.spawn("http refresh", async move {
        let mut scratch = worker.take_scratch();
        scratch.request.clear();
        // It was whole when the client sent it.
        if scratch.request.parse(&text, &plan.limits) == Ok(Status::Complete) {
            scratch.desk.key = key;
            let asks = StoredMeta::decode(hit.metadata()).is_some_and(|record| record.has_validator());
            let scratch = &mut *scratch;
            let mut exchange = Exchange {
                worker: &worker,
                client: Client { session: None, lost: Cell::new(false), peer },
                plan: &plan,
                head: &scratch.request,
                text: &text,
                continued: &Cell::new(false),
                account: Account::new(0),
                storing: Storing {
                    writer: Some(writer),
                    stale: Some(hit),
                    asks,
                    why: Some(Forwarded::Stale),
                    control: RequestControl::default(),
                    ..Storing::NOTHING
                },
                desk: &mut scratch.desk,
            };
            let _ = exchange.forward(rule, &mut Inbox::default(), &mut scratch.response).await;
        }
        worker.give_scratch(scratch);
    });
}

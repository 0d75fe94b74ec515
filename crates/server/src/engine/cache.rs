//! The cache that all event threads share.

use std::sync::Arc;

use base::{ByteCount, Clock, SystemClock};
use cache::{Cache, Gate, Key, Publisher, Purge, RamOptions, RamStore, RampOptions, Store};
use config::Config;
use http::{CacheParts, inspect};
use stats::Segment;
use supervise::cache::{CacheFetch, CacheKnown, CacheQuestion, CacheReply, CacheStored, CacheTotals};
use supervise::control::Reply;

fn cache(reply: CacheReply) -> Reply {
    Reply::Cache(Box::new(reply))
}

/// The store, and who may fill it how fast after a start.
#[derive(Clone, Debug)]
pub(super) struct EngineCache {
    store: RamStore,
    gate: Gate,
}

impl EngineCache {
    /// An empty one.
    pub(super) fn new(config: &Config, threads: usize) -> Self {
        let options = RamOptions {
            // A writer may wait for its origin's head as long as that is configured; after that it is taken for dead.
            stall: config.http.timeouts.origin_connect + config.http.timeouts.origin_response,
            ..RamOptions::new(config.cache.ram, threads)
        };
        Self { store: RamStore::new(options), gate: Gate::new(RampOptions::default()) }
    }

    /// What the HTTP engine needs of it.
    pub(super) fn parts(&self) -> CacheParts {
        CacheParts { store: Arc::new(self.store.clone()), gate: self.gate.clone() }
    }

    /// Changes how much memory it may use.
    pub(super) fn set_budget(&self, bytes: ByteCount) {
        self.store.set_budget(bytes);
    }

    /// Who writes its numbers into the segment, now and then. One of them.
    pub(super) fn teller(&self, segment: &Segment) -> impl FnMut() + use<> {
        let (store, cells) = (self.store.clone(), segment.process::<Cache>());
        let mut publisher = Publisher::default();
        move || {
            if let Some(cells) = &cells {
                publisher.publish(&store.numbers(), cells);
            }
        }
    }

    /// Answers a question about it.
    pub(super) fn answer(&self, asked: &CacheQuestion) -> Reply {
        let url = match asked {
            CacheQuestion::LookUp(url) | CacheQuestion::Purge(url) => url,
            CacheQuestion::Totals => return cache(CacheReply::Totals(self.totals())),
            CacheQuestion::Clear => {
                let had = self.store.numbers().objects > 0;
                self.store.clear();
                return cache(CacheReply::Removed(had));
            }
        };
        let key = match inspect::key_of(url) {
            Ok(key) => key,
            Err(why) => return Reply::Refused(why),
        };
        if let CacheQuestion::Purge(_) = asked {
            return cache(CacheReply::Removed(self.store.purge(Key::of(&key), Purge::Remove)));
        }
        let known = inspect::look_up(&self.store, &key, SystemClock.now(), SystemClock.wall());
        cache(CacheReply::Known(CacheKnown {
            key: known.key,
            stored: known
                .stored
                .into_iter()
                .map(|one| CacheStored {
                    status: one.status,
                    age_s: one.age_s,
                    fresh_for_s: one.fresh_for_s,
                    verdict: one.verdict.to_owned(),
                    length: one.length,
                    memory_bytes: one.memory,
                    validator: one.validator,
                    vary: one.vary,
                    marked_stale: one.marked_stale,
                })
                .collect(),
            fetches: known
                .fetches
                .into_iter()
                .map(|(state, followers, length)| CacheFetch { state: state.to_owned(), followers, length })
                .collect(),
            declined: known.declined,
            queue: known.queue.map(str::to_owned),
        }))
    }

    fn totals(&self) -> CacheTotals {
        let numbers = self.store.numbers();
        CacheTotals {
            objects: numbers.objects,
            used_bytes: numbers.used,
            budget_bytes: numbers.budget,
            object_max_bytes: self.store.object_max().0,
            found: numbers.found,
            absent: numbers.absent,
            stored: numbers.stored,
            evicted: numbers.evicted_small + numbers.evicted_main,
            ramp_allows: self.gate.numbers().allowed,
        }
    }

    /// Worth a line in the log: what works, but not as well as it could.
    pub(super) fn complaint(&self) -> Option<String> {
        let error = self.store.arena_error()?;
        Some(format!("the cache has no huge pages for long bodies, and works without: {error}"))
    }
}

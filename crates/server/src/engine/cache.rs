//! The cache that all event threads share.

use std::sync::Arc;

use base::ByteCount;
use cache::{Cache, Gate, Publisher, RamOptions, RamStore, RampOptions, Store};
use config::Config;
use http::CacheParts;
use stats::Segment;

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

    /// Worth a line in the log: what works, but not as well as it could.
    pub(super) fn complaint(&self) -> Option<String> {
        let error = self.store.arena_error()?;
        Some(format!("the cache has no huge pages for long bodies, and works without: {error}"))
    }
}

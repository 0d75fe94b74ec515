//! What a cache counts.

use stats::SharedCells;

stats::metrics! {
    /// The numbers of the cache in memory.
    pub struct Cache;

    /// Keys stored now.
    gauge OBJECTS = "beltway_cache_objects";
    /// Bytes in use: bodies, metadata, tags, tables, fetches under way.
    gauge USED = "beltway_cache_used_bytes" in Bytes;
    /// Bytes the cache may use.
    gauge BUDGET = "beltway_cache_budget_bytes" in Bytes;
    /// Bytes of those in use that are blocks of long bodies.
    gauge BLOCKS = "beltway_cache_block_bytes" in Bytes;
    /// Fetches under way that others may follow.
    gauge FETCHES = "beltway_cache_fetches";
    /// Look-ups by whether the key was there.
    counter FOUND = "beltway_cache_lookups_total" { result = "found" };
    /// Look-ups by whether the key was there.
    counter ABSENT = "beltway_cache_lookups_total" { result = "absent" };
    /// Alternates stored.
    counter STORED = "beltway_cache_stored_total";
    /// Metadata replaced after a revalidation.
    counter REFRESHED = "beltway_cache_refreshed_total";
    /// Fetched wholly and not stored: the budget, a purge, or others were in the way.
    counter NOT_STORED = "beltway_cache_not_stored_total";
    /// Objects that were used while they were new, and stay in the main queue.
    counter PROMOTED = "beltway_cache_promoted_total";
    /// Objects evicted, by the queue they were in.
    counter EVICTED_SMALL = "beltway_cache_evicted_total" { queue = "small" };
    /// Objects evicted, by the queue they were in.
    counter EVICTED_MAIN = "beltway_cache_evicted_total" { queue = "main" };
    /// Bytes evicted.
    counter EVICTED_BYTES = "beltway_cache_evicted_bytes_total" in Bytes;
    /// Objects that came back soon after they had been evicted.
    counter GHOST_HITS = "beltway_cache_ghost_hits_total";
    /// Fetches begun as the writer of a key.
    counter WRITERS = "beltway_cache_writers_total";
    /// Requests that followed another's fetch.
    counter FOLLOWERS = "beltway_cache_followers_total";
    /// Fetches that a follower took over from a writer that went or stalled.
    counter HANDED_OVER = "beltway_cache_handed_over_total";
    /// Followers cut because they read too slowly.
    counter LAGGED = "beltway_cache_lagged_total";
    /// Requests that did not wait for one another, since what they ask for was not storable lately.
    counter BYPASSED = "beltway_cache_bypassed_total";
    /// Requests that found too many fetches or followers under way.
    counter FULL = "beltway_cache_full_total";
    /// Alternates removed or marked stale on demand.
    counter PURGED = "beltway_cache_purged_total";
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $field:ident = $row:ident),+ $(,)?) => {
        /// What was counted since the start, and the levels of now.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Numbers {
            /// Keys stored now.
            pub objects: u64,
            /// Bytes in use now.
            pub used: u64,
            /// Bytes that may be used.
            pub budget: u64,
            /// Bytes of those in use that are blocks of long bodies.
            pub blocks: u64,
            /// Fetches under way now.
            pub fetches: u64,
            $($(#[$doc])* pub $field: u64),+
        }

        impl Numbers {
            /// Adds the counts of `other`; the levels stay.
            pub(crate) fn add_counts(&mut self, other: &Self) {
                $(self.$field += other.$field;)+
            }
        }

        impl Publisher {
            /// Adds what was counted since the last call, and sets the levels.
            pub fn publish(&mut self, now: &Numbers, cells: &SharedCells<Cache>) {
                $(cells.add(Cache::$row, now.$field.saturating_sub(self.last.$field));)+
                cells.set(Cache::OBJECTS, now.objects);
                cells.set(Cache::USED, now.used);
                cells.set(Cache::BUDGET, now.budget);
                cells.set(Cache::BLOCKS, now.blocks);
                cells.set(Cache::FETCHES, now.fetches);
                self.last = *now;
            }
        }
    };
}

numbers! {
    /// Look-ups of keys that were there.
    found = FOUND,
    /// Look-ups of keys that were not.
    absent = ABSENT,
    /// Alternates stored.
    stored = STORED,
    /// Metadata replaced.
    refreshed = REFRESHED,
    /// Fetched wholly and not stored.
    not_stored = NOT_STORED,
    /// Objects that went from the small queue to the main one.
    promoted = PROMOTED,
    /// Objects evicted from the small queue.
    evicted_small = EVICTED_SMALL,
    /// Objects evicted from the main queue.
    evicted_main = EVICTED_MAIN,
    /// Bytes evicted.
    evicted_bytes = EVICTED_BYTES,
    /// Objects that came back soon after eviction.
    ghost_hits = GHOST_HITS,
    /// Fetches begun as the writer of a key.
    writers = WRITERS,
    /// Requests that followed a writer.
    followers = FOLLOWERS,
    /// Fetches taken over.
    handed_over = HANDED_OVER,
    /// Followers cut for slowness.
    lagged = LAGGED,
    /// Requests that did not wait.
    bypassed = BYPASSED,
    /// Requests that found too many under way.
    full = FULL,
    /// Alternates purged.
    purged = PURGED,
}

/// Carries a store's numbers into the process's segment; one per store, called now and then.
#[derive(Debug, Default)]
pub struct Publisher {
    last: Numbers,
}

//! What the server tells of its cache on its control socket, and what it may be told to remove from it.

use serde::{Deserialize, Serialize};

/// What may be asked of the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheQuestion {
    /// How much there is. Answered by [`CacheReply::Totals`].
    Totals,
    /// What is stored for a URL, and why it is served or not. Answered by [`CacheReply::Known`].
    LookUp(String),
    /// What is stored for a URL goes. Answered by [`CacheReply::Removed`].
    Purge(String),
    /// Everything goes. Answered by [`CacheReply::Removed`].
    Clear,
}

/// What the server answers of its cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheReply {
    /// How much there is.
    Totals(CacheTotals),
    /// What is known of a URL.
    Known(CacheKnown),
    /// Whether something was there to be removed.
    Removed(bool),
}

/// The cache as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheTotals {
    /// Keys stored.
    pub objects: u64,
    /// Bytes in use, all that belongs to them counted.
    pub used_bytes: u64,
    /// Bytes that may be used.
    pub budget_bytes: u64,
    /// The longest body that is stored.
    pub object_max_bytes: u64,
    /// Look-ups of keys that were there.
    pub found: u64,
    /// Look-ups of keys that were not.
    pub absent: u64,
    /// Responses stored.
    pub stored: u64,
    /// Objects evicted.
    pub evicted: u64,
    /// Fetches that may begin now, after a cold start; none when as many as wish to.
    pub ramp_allows: Option<u32>,
}

/// One URL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheKnown {
    /// The key: the URL in one spelling.
    pub key: String,
    /// What is stored, the alternates that `Vary` tells apart.
    pub stored: Vec<CacheStored>,
    /// Fetches under way, each with how many wait for it.
    pub fetches: Vec<CacheFetch>,
    /// Why its responses are not stored, as far as that is remembered, and for how many more seconds.
    pub declined: Option<(String, u64)>,
    /// Where it stands in the order of eviction.
    pub queue: Option<String>,
}

/// One stored response.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheStored {
    /// Status line.
    pub status: String,
    /// Seconds since it was made, as `Age` says it.
    pub age_s: u64,
    /// Seconds it is fresh from now; negative when it is stale.
    pub fresh_for_s: i64,
    /// What a plain GET would get of it now, in a word or two.
    pub verdict: String,
    /// Bytes of body.
    pub length: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// What the origin can be asked about it by.
    pub validator: Option<String>,
    /// The fields that it varies with, and what the request said for each.
    pub vary: Vec<(String, Option<String>)>,
    /// Somebody marked it stale.
    pub marked_stale: bool,
}

/// One fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheFetch {
    /// What it waits for.
    pub state: String,
    /// Who reads along.
    pub followers: u64,
    /// Bytes of body that came.
    pub length: u64,
}

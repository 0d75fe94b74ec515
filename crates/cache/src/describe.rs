//! What a store says of a key when it is asked, for operators: plain values, bounded, and nothing is changed by asking.
//!
//! What the metadata says (status, freshness, validators) is the engine's to read.

use std::sync::Arc;
use std::time::Duration;

use base::Instant;

use crate::alternate::Tags;
use crate::store::Reason;

/// Fetches of one key that are described, at most.
pub(crate) const FETCHES_DESCRIBED_MAX: usize = 16;

/// What is known of a key.
#[derive(Clone, Debug)]
pub struct Description {
    /// The stored alternates, the oldest first. At most [`RamOptions::alternates_max`](crate::RamOptions::alternates_max).
    pub alternates: Vec<AlternateDescription>,
    /// In which queue it waits, `small` or `main`; none when nothing is stored.
    pub queue: Option<&'static str>,
    /// Uses that count for keeping it, at most 3.
    pub uses: u8,
    /// How often it was found since it was put in, whichever alternate was then chosen.
    pub hits: u32,
    /// Fetches under way, at most 16 of them.
    pub fetches: Vec<FetchDescription>,
    /// Remembered as not to be waited for: what came for it could not be stored.
    pub declined: Vec<DeclinedDescription>,
}

/// What is known of an alternate.
#[derive(Clone, Debug)]
pub struct AlternateDescription {
    /// The engine's record.
    pub metadata: Arc<[u8]>,
    /// When it was stored first; a refresh does not change it.
    pub stored: Instant,
    /// Since it was stored.
    pub age: Duration,
    /// Bytes of body held.
    pub length: u64,
    /// Bytes of the whole body, when that is known.
    pub complete_length: Option<u64>,
    /// Bytes of memory, the engine's record included.
    pub bytes: u64,
    /// Whether the body is complete.
    pub complete: bool,
    /// Whether it is marked stale.
    pub stale: bool,
    /// By which it is purged.
    pub tags: Tags,
    /// Whether somebody reads it just now, so that evicting it would free nothing yet.
    pub busy: bool,
}

/// What is known of a fetch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchDescription {
    /// Whether it is for all requests of the key; else for those with certain selecting fields.
    pub primary: bool,
    /// What it waits for.
    pub state: &'static str,
    /// Who reads along.
    pub followers: usize,
    /// Bytes of body that came.
    pub length: u64,
    /// Bytes of body in all, when that is known.
    pub expected: Option<u64>,
    /// Since its writer was last heard of; zero when that began at an unknown moment.
    pub silent: Duration,
    /// Why it will not be stored, if that is known already.
    pub not_kept: Option<Reason>,
}

/// What is remembered of what could not be stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeclinedDescription {
    /// Whether it is for all requests of the key; else for those with certain selecting fields.
    pub primary: bool,
    /// Why.
    pub reason: Reason,
    /// How much longer it is remembered.
    pub left: Duration,
}

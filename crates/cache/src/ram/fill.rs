//! A flight behind its lock, as the table holds it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::budget::Charge;
use crate::flight::Flight;
use crate::key::{Key, Lane};

/// Shared by the writer, its followers and the table. Its lock is taken after a shard's, never before one.
#[derive(Debug)]
pub(crate) struct Fill {
    pub(crate) key: Key,
    pub(crate) lane: Lane,
    flight: Mutex<Flight>,
    /// This record itself.
    _charge: Charge,
}

impl Fill {
    pub(crate) fn new(key: Key, lane: Lane, flight: Flight, charge: Charge) -> Self {
        Self { key, lane, flight: Mutex::new(flight), _charge: charge }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Flight> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! A flight behind its lock, as the table holds it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::budget::Charge;
use crate::flight::Flight;
use crate::key::{Key, Lane};
use crate::ram::shard::Shard;

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

    /// Takes it out of its shard's table, if it is there: it is the caller's to drop, after the lock.
    pub(crate) fn take_out_of(self: &Arc<Self>, shard: &mut Shard) -> Option<Arc<Self>> {
        let place = (self.key, self.lane);
        let registered = shard.flights.get(&place).is_some_and(|registered| Arc::ptr_eq(registered, self));
        if registered { shard.flights.remove(&place) } else { None }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Flight> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

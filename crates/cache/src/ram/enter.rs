//! Who fetches, who follows, who goes alone.

use std::sync::Arc;

use crate::budget::{Charge, footprint_of};
use crate::flight::{Flight, NoSeat};
use crate::follow::Follower;
use crate::key::{Key, Lane};
use crate::ram::Inside;
use crate::ram::fill::Fill;
use crate::store::{Entrance, Reason, Role};
use crate::write::Writer;

/// What a fetch under way takes beside its body: itself and its place in a map that may be half empty.
const FILL_BYTES: u64 = footprint_of::<Fill>() + 2 * (size_of::<(Key, Lane, usize)>() as u64 + 1);

impl Inside {
    pub(crate) fn enter(self: &Arc<Self>, entry: Entrance) -> Role {
        // Most who come here fetch; what others took for nothing goes back at once.
        let mut charge = self.budget.take(FILL_BYTES).then(|| Charge::of_taken(&self.budget, FILL_BYTES));
        loop {
            // What leaves the table is dropped after the lock.
            let _over;
            let mut guard = self.cell(entry.key).lock();
            let shard = &mut *guard;
            let version = shard.version(entry.key);
            if version != 0 && version != entry.seen.0 {
                return Role::LookAgain;
            }
            if let Some((reason, _)) = shard.declined.recall(entry.key, entry.lane, entry.now) {
                shard.counts.bypassed += 1;
                drop(guard);
                return self.bypass(entry, reason);
            }
            let place = (entry.key, entry.lane);
            if let Some(fill) = shard.flights.get(&place) {
                let joined = fill.lock().join(entry.now, self.options.stall);
                match joined {
                    Ok(seat) => {
                        let fill = Arc::clone(fill);
                        shard.counts.followers += 1;
                        drop(guard);
                        return Role::Follow(Follower::new(self, fill, seat));
                    }
                    Err(NoSeat::Declined(reason)) => {
                        shard.counts.bypassed += 1;
                        drop(guard);
                        return self.bypass(entry, reason);
                    }
                    Err(NoSeat::Full) => {
                        shard.counts.full += 1;
                        return Role::Full;
                    }
                    Err(NoSeat::Over | NoSeat::Stalled) => _over = shard.flights.remove(&place),
                }
            }
            if shard.flights.len() >= (self.options.flights_max / self.shards.len()).max(1) {
                shard.counts.full += 1;
                return Role::Full;
            }
            let Some(charge) = charge.take() else {
                drop(guard);
                charge = self.reserve(FILL_BYTES);
                if charge.is_none() {
                    self.cell(entry.key).lock().counts.full += 1;
                    return Role::Full;
                }
                continue;
            };
            let fill = Arc::new(self.fill(entry, charge));
            shard.flights.insert(place, Arc::clone(&fill));
            shard.counts.writers += 1;
            drop(guard);
            return Role::Writer(Writer::new(self, fill, 0));
        }
    }

    fn fill(&self, entry: Entrance, charge: Charge) -> Fill {
        Fill::new(entry.key, entry.lane, Flight::new(entry.now, self.options.followers_max), charge)
    }

    /// A writer whom nobody can follow.
    fn bypass(self: &Arc<Self>, entry: Entrance, reason: Reason) -> Role {
        match self.reserve(FILL_BYTES) {
            Some(charge) => Role::Bypass(reason, Writer::new(self, Arc::new(self.fill(entry, charge)), 0)),
            None => Role::Full,
        }
    }

    /// Takes a fetch out of the table: it is over, or nobody is to join it any more.
    pub(crate) fn unregister(&self, fill: &Arc<Fill>) {
        let mut shard = self.cell(fill.key).lock();
        let removed = fill.take_out_of(&mut shard);
        drop(shard);
        drop(removed);
    }
}

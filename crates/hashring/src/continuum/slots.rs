//! Redis Cluster's slots dealt to the servers of a pool: contiguous ranges by weight.
//!
//! Ranges go to the servers in the order they are given in, cut where `redis-cli --cluster create` cuts them when
//! weights are equal. A server that is not live keeps its range; meanwhile each of its slots belongs to whoever bids
//! highest for it, so that no other slot moves.

use super::{ContinuumError, Server};
use crate::cluster::CLUSTER_SLOTS;
use crate::rendezvous::Rendezvous;
use std::ops::Range;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    /// Where each server's own range ends, by the servers' indices.
    ends: Vec<u16>,
    /// Who has each slot now.
    owners: Box<[u16]>,
}

impl Slots {
    /// Over those of `servers` whose indices are in `live`, which are some.
    pub(super) fn deal(servers: &[Server<'_>], live: &[u16]) -> Result<Self, ContinuumError> {
        let total: u64 = servers.iter().map(|server| u64::from(server.weight)).sum();
        let (mut sum, mut begin) = (0_u64, 0);
        let mut ends = Vec::with_capacity(servers.len());
        for (index, server) in servers.iter().enumerate() {
            sum += u64::from(server.weight);
            let end = rounded(sum, total);
            if end == begin {
                return Err(ContinuumError::NoSlot(index));
            }
            ends.push(end);
            begin = end;
        }
        let bids = Rendezvous::build(live.iter().map(|index| {
            let server = &servers[usize::from(*index)];
            (server.name, server.weight)
        }));
        let mut is_live = vec![false; servers.len()];
        live.iter().for_each(|index| is_live[usize::from(*index)] = true);
        let mut own = 0;
        let owners = (0..CLUSTER_SLOTS).map(|slot| {
            while ends[own] <= slot {
                own += 1;
            }
            if is_live[own] {
                // There is a slot for each server, so there are no more of them than slots.
                u16::try_from(own).unwrap_or(u16::MAX)
            } else {
                live[bids.pick(&slot.to_be_bytes()).unwrap_or(0)]
            }
        });
        Ok(Self { owners: owners.collect(), ends })
    }

    /// Whose this slot is now.
    pub(super) fn owner(&self, slot: u16) -> u16 {
        self.owners[usize::from(slot % CLUSTER_SLOTS)]
    }

    /// The server in whose own range the slot is, and the range.
    pub(super) fn home(&self, slot: u16) -> (usize, Range<u16>) {
        let at = self.ends.partition_point(|end| *end <= slot).min(self.ends.len() - 1);
        (at, if at == 0 { 0 } else { self.ends[at - 1] }..self.ends[at])
    }

    /// How many slots this server has now.
    pub(super) fn count(&self, server: usize) -> u64 {
        self.owners.iter().filter(|owner| usize::from(**owner) == server).count() as u64
    }
}

/// The share of all slots that `sum` is of `total`, to the nearest.
fn rounded(sum: u64, total: u64) -> u16 {
    let slots = u128::from(CLUSTER_SLOTS);
    let nearest = (u128::from(sum) * slots * 2 + u128::from(total)) / (u128::from(total) * 2);
    u16::try_from(nearest).unwrap_or(CLUSTER_SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(weights: &[u32]) -> Vec<Server<'static>> {
        const NAMES: [&str; 6] = ["f", "a", "bb", "c", "dd", "e"];
        NAMES.iter().zip(weights).map(|(name, weight)| Server { name, weight: *weight }).collect()
    }

    fn all(servers: &[Server<'_>]) -> Vec<u16> {
        (0..u16::try_from(servers.len()).unwrap()).collect()
    }

    #[test]
    fn equal_servers_get_the_ranges_that_a_new_cluster_gives_its_masters() {
        let ends = |weights: &[u32]| {
            let servers = servers(weights);
            Slots::deal(&servers, &all(&servers)).unwrap().ends
        };
        // As `redis-cli --cluster create` prints them: 0-5460, 5461-10922, 10923-16383.
        assert_eq!(ends(&[1, 1, 1]), [5_461, 10_923, 16_384]);
        assert_eq!(ends(&[7, 7, 7, 7, 7]), [3_277, 6_554, 9_830, 13_107, 16_384]);
        assert_eq!(ends(&[1, 3]), [4_096, 16_384]);
        assert_eq!(ends(&[u32::MAX, u32::MAX]), [8_192, 16_384]);
    }

    #[test]
    fn every_range_is_in_one_piece_in_the_order_given_and_as_long_as_its_weight_says() {
        let mut rng = base::Rng::new(7);
        for _ in 0..200 {
            let count = 1 + usize::try_from(rng.below(6)).unwrap();
            let weights: Vec<u32> = (0..count).map(|_| 1 + u32::try_from(rng.below(40)).unwrap()).collect();
            let servers = servers(&weights);
            let slots = Slots::deal(&servers, &all(&servers)).unwrap();
            let owners: Vec<u16> = (0..CLUSTER_SLOTS).map(|slot| slots.owner(slot)).collect();
            assert!(owners.is_sorted(), "{weights:?}");
            let total: u32 = weights.iter().sum();
            for (index, weight) in weights.iter().enumerate() {
                let due = f64::from(CLUSTER_SLOTS) * f64::from(*weight) / f64::from(total);
                let has = u32::try_from(slots.count(index)).unwrap();
                assert!((f64::from(has) - due).abs() <= 1.0, "{weights:?}: {index} has {has}, {due} are due");
            }
        }
    }

    #[test]
    fn a_server_that_leaves_moves_its_own_slots_alone_and_spreads_them() {
        let servers = servers(&[5, 1, 3, 2, 4, 2]);
        let before = Slots::deal(&servers, &all(&servers)).unwrap();
        for gone in 0..6_u16 {
            let live: Vec<u16> = all(&servers).into_iter().filter(|index| *index != gone).collect();
            let after = Slots::deal(&servers, &live).unwrap();
            let mut heirs = [0_u32; 6];
            for slot in 0..CLUSTER_SLOTS {
                let (was, is) = (before.owner(slot), after.owner(slot));
                if was == gone {
                    heirs[usize::from(is)] += 1
                } else {
                    assert_eq!(was, is)
                }
                assert_eq!(after.home(slot), before.home(slot));
            }
            assert_eq!(heirs[usize::from(gone)], 0);
            assert_eq!(heirs.iter().filter(|count| **count > 0).count(), 5, "{heirs:?}");
        }
    }

    #[test]
    fn a_server_too_light_for_a_single_slot_is_refused() {
        let light = servers(&[40_000, 1, 40_000]);
        assert_eq!(Slots::deal(&light, &all(&light)).map(|_| ()), Err(ContinuumError::NoSlot(1)));
        let servers = vec![Server { name: "a", weight: 1 }; usize::from(CLUSTER_SLOTS)];
        assert!(Slots::deal(&servers, &all(&servers)).is_ok());
        let one_more = vec![Server { name: "a", weight: 1 }; usize::from(CLUSTER_SLOTS) + 1];
        assert!(matches!(Slots::deal(&one_more, &all(&one_more)), Err(ContinuumError::NoSlot(_))));
    }
}

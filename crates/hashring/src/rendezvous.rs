//! Rendezvous hashing: every server bids for every key, the highest bid has it.

use xxhash_rust::xxh3::xxh3_64;

/// Chooses among weighted servers so that a server's coming or going moves only the keys it gains or loses, and gives
/// every key its own order of fail-over, so that a lost server's keys spread over all others.
///
/// Highest random weight (Thaler and Ravishankar, 1998) on XXH3, weighted by −w / ln u. A choice costs about 2 ns a
/// server (10 with unequal weights) and allocates nothing; for hundreds of servers a ring is cheaper. Names decide, not
/// positions: two processes with the same names and weights in whatever order agree.
#[derive(Clone, Debug, Default)]
pub struct Rendezvous {
    bidders: Vec<Bidder>,
    equal_weights: bool,
}

#[derive(Clone, Debug)]
struct Bidder {
    seed: u64,
    weight: f64,
}

/// Ordered by weighted draw, then by the draw itself.
type Bid = (f64, u64);

impl Rendezvous {
    /// A rendezvous of servers with these names and weights. Weight 0 never wins.
    #[must_use]
    pub fn build<'a>(servers: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let bidders: Vec<Bidder> = servers
            .into_iter()
            .map(|(name, weight)| Bidder { seed: xxh3_64(name.as_bytes()), weight: f64::from(weight) })
            .collect();
        let equal_weights = bidders.windows(2).all(|pair| pair[0].weight.total_cmp(&pair[1].weight).is_eq());
        Self { bidders, equal_weights }
    }

    /// The index of the server `key` belongs to; none when nobody has weight.
    #[must_use]
    pub fn pick(&self, key: &[u8]) -> Option<usize> {
        self.pick_where(key, |_| true)
    }

    /// The index of the first in `key`'s order of preference that is `usable`. One pass, no allocation.
    #[must_use]
    pub fn pick_where(&self, key: &[u8], usable: impl Fn(usize) -> bool) -> Option<usize> {
        let key = xxh3_64(key);
        let mut best: Option<(Bid, usize)> = None;
        for (index, bidder) in self.bidders.iter().enumerate() {
            if bidder.weight > 0.0 && usable(index) {
                let bid = self.bid(bidder, key);
                if best.is_none_or(|(highest, _)| higher(bid, highest)) {
                    best = Some((bid, index));
                }
            }
        }
        best.map(|(_, index)| index)
    }

    /// Writes `key`'s whole order of preference into `order`, the owner first: who takes over when those before are
    /// down. Servers without weight are left out.
    pub fn order(&self, key: &[u8], order: &mut Vec<usize>) {
        let key = xxh3_64(key);
        order.clear();
        order.extend((0..self.bidders.len()).filter(|&index| self.bidders[index].weight > 0.0));
        let bid = |index: &usize| self.bid(&self.bidders[*index], key);
        order.sort_by(|a, b| {
            let ((a, a_draw), (b, b_draw)) = (bid(a), bid(b));
            b.total_cmp(&a).then(b_draw.cmp(&a_draw))
        });
    }

    /// The part of all keys that the server of this index gets, from 0 to 1.
    #[must_use]
    pub fn share(&self, server: usize) -> f64 {
        let total: f64 = self.bidders.iter().map(|bidder| bidder.weight).sum();
        self.bidders.get(server).filter(|_| total > 0.0).map_or(0.0, |bidder| bidder.weight / total)
    }

    fn bid(&self, bidder: &Bidder, key: u64) -> Bid {
        let draw = mix(key ^ bidder.seed);
        if self.equal_weights { (0.0, draw) } else { (-bidder.weight / unit(draw).ln(), draw) }
    }
}

fn higher(a: Bid, b: Bid) -> bool {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).is_gt()
}

/// The finalizer of `splitmix64`: each input bit changes each output bit with even odds.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A draw as a number above 0 and below 1, growing with it: its upper 52 bits and a half.
#[expect(clippy::cast_precision_loss, reason = "52 bits fit a double exactly, with room for the half")]
fn unit(draw: u64) -> f64 {
    ((draw >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> impl Iterator<Item = Vec<u8>> {
        (0..20_000).map(|n| format!("key:{n}").into_bytes())
    }

    #[test]
    fn keys_are_spread_by_weight() {
        let names = ["a", "b", "c", "d"];
        for weights in [[1, 1, 1, 1], [1, 2, 3, 4], [0, 1, 0, 9]] {
            let servers = Rendezvous::build(names.into_iter().zip(weights));
            let mut counts = [0_u32; 4];
            keys().for_each(|key| counts[servers.pick(&key).unwrap()] += 1);
            let total: u32 = weights.iter().sum();
            for (count, weight) in counts.into_iter().zip(weights) {
                let due = 20_000 * weight / total;
                assert!(count.abs_diff(due) <= due / 20, "{weights:?} gave {counts:?}");
            }
        }
    }

    #[test]
    fn a_lost_server_moves_only_its_own_keys_and_spreads_them() {
        for weights in [[5, 5, 5, 5, 5], [1, 2, 3, 4, 5]] {
            let all = Rendezvous::build(["a", "b", "c", "d", "e"].into_iter().zip(weights));
            let mut heirs = [0_u32; 5];
            for key in keys() {
                let (before, after) = (all.pick(&key).unwrap(), all.pick_where(&key, |index| index != 2).unwrap());
                if before == 2 { heirs[after] += 1 } else { assert_eq!(before, after) }
            }
            assert!(heirs[2] == 0 && [0, 1, 3, 4].iter().all(|&index| heirs[index] > 100), "{heirs:?}");
        }
    }

    #[test]
    fn the_order_is_what_picking_among_fewer_and_fewer_gives() {
        for weights in [[1; 6], [1, 9, 0, 2, 3, 1]] {
            let servers = Rendezvous::build(["a", "b", "c", "d", "e", "f"].into_iter().zip(weights));
            let mut order = Vec::new();
            for key in keys().take(500) {
                servers.order(&key, &mut order);
                assert_eq!(order.len(), weights.iter().filter(|weight| **weight > 0).count());
                for taken in 0..order.len() {
                    let next = servers.pick_where(&key, |index| !order[..taken].contains(&index));
                    assert_eq!(next, Some(order[taken]));
                }
            }
        }
    }

    #[test]
    fn names_decide_and_not_positions() {
        let (forth, back) = (["a", "b", "c"], ["c", "b", "a"]);
        let there = Rendezvous::build(forth.into_iter().zip([1, 1, 1]));
        let here = Rendezvous::build(back.into_iter().zip([1, 1, 1]));
        assert!(keys().take(500).all(|key| forth[there.pick(&key).unwrap()] == back[here.pick(&key).unwrap()]));
    }

    #[test]
    fn equal_weights_of_any_height_place_alike() {
        let names = ["a", "b", "c"];
        let ones = Rendezvous::build(names.into_iter().zip([1, 1, 1]));
        // The fourth, without weight, forces the weighted formula.
        let sevens = Rendezvous::build(["a", "b", "c", "none"].into_iter().zip([7, 7, 7, 0]));
        assert!(keys().all(|key| ones.pick(&key) == sevens.pick(&key)));
    }

    #[test]
    fn with_nobody_to_choose_nobody_is_chosen() {
        assert_eq!(Rendezvous::build([]).pick(b"key"), None);
        assert_eq!(Rendezvous::build([("a", 0)]).pick(b"key"), None);
        assert_eq!(Rendezvous::build([("a", 1)]).pick_where(b"key", |_| false), None);
    }
}

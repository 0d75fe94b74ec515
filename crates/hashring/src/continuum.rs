//! From key to server over those that are live: twemproxy's distributions, bit for bit as `nutcracker` does it, and two
//! that it has not.
//!
//! A [`Continuum`] is built for one set of live servers and never changed; when a server is ejected or restored, build
//! another (about 10 µs a server for ketama) and swap it in. Looking up neither allocates nor locks.
//!
//! The traps that old data depends on: servers are put in order by name, shorter names first, so the order in the file
//! does not matter; ketama's points are MD5 whatever the pool's hash; the number of points is computed in 32-bit
//! floats; weights count even with names; an empty key, and every key of a pool of one server, hashes to 0.

mod ketama;
mod slots;

use crate::cluster::CLUSTER_SLOTS;
use crate::hash::{Hash, UnknownName, crc16_xmodem};
use crate::rendezvous::Rendezvous;
use crate::tag::HashTag;
use base::Rng;
use ketama::Ketama;
use slots::Slots;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

pub use ketama::POINTS_PER_SERVER;

/// The most servers one pool may have: their indices are kept in 16 bits, for small rings.
pub const SERVERS_MAX: usize = 1 << u16::BITS;

/// How a hash chooses among the live servers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Distribution {
    /// libmemcached's consistent hashing: when one of n servers goes, about 1/n of the keys move.
    #[default]
    Ketama,
    /// The remainder by the total weight: when one of n servers goes, nearly all keys move.
    Modula,
    /// Any live server, anew for every key and every request; weights do not count. For read-only replicas.
    Random,
    /// The highest bid on XXH3 ([`Rendezvous`]): when one of n servers goes, its own keys move and no other.
    Rendezvous,
    /// Redis Cluster's slot of the key ([`cluster_slot`](crate::cluster_slot)), and contiguous ranges of slots by
    /// weight, in the order of the servers. When a server goes, its own slots move and no other.
    Slots,
}

impl Distribution {
    /// Every distribution: twemproxy's in its order, then those it has not.
    pub const ALL: [Self; 5] = [Self::Ketama, Self::Modula, Self::Random, Self::Rendezvous, Self::Slots];

    /// Whether the pool's [`Hash`](enum@Hash) has a part in it.
    #[must_use]
    pub fn hashes(self) -> bool {
        matches!(self, Self::Ketama | Self::Modula)
    }

    /// The name in a configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ketama => "ketama",
            Self::Modula => "modula",
            Self::Random => "random",
            Self::Rendezvous => "rendezvous",
            Self::Slots => "slots",
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Distribution {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|way| way.name() == text).ok_or_else(|| UnknownName::new("distribution", text))
    }
}

/// The settings of a pool that decide where a key goes. The default is twemproxy's: `fnv1a_64`, `ketama`, no tag.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Rules {
    /// Turns the key into 32 bits, where the distribution does not hash by itself.
    pub hash: Hash,
    /// Turns the 32 bits into a server.
    pub distribution: Distribution,
    /// The part of the key to be hashed, if not all of it. None is [`HashTag::BRACES`] to slots, as in every cluster.
    pub tag: Option<HashTag>,
}

/// A server as the ring sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Server<'a> {
    /// What its points are made of: the name in the configuration or, without one, [`default_name`].
    pub name: &'a str,
    /// Its share relative to the others', at least 1.
    pub weight: u32,
}

/// The name of a server that was given none: `host:port`, or just `host` at memcached's port 11211, as libmemcached
/// has it. For a unix socket it is the path and a colon.
#[must_use]
pub fn default_name(host: &str, port: u16) -> Cow<'_, str> {
    const PORT_WITHOUT_SUFFIX: u16 = 11_211;
    if port == PORT_WITHOUT_SUFFIX { Cow::Borrowed(host) } else { Cow::Owned(format!("{host}:{port}")) }
}

/// Why no ring can be built.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ContinuumError {
    /// More than [`SERVERS_MAX`] servers.
    TooManyServers(usize),
    /// The server of this index has weight 0. To take a server out, leave it out of the live ones.
    NoWeight(usize),
    /// The server of this index is too light beside the others to get a single slot.
    NoSlot(usize),
}

impl fmt::Display for ContinuumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyServers(count) => write!(f, "{count} servers in one pool, {SERVERS_MAX} are allowed"),
            Self::NoWeight(index) => write!(f, "server {index} has weight 0, the least is 1"),
            Self::NoSlot(index) => {
                write!(
                    f,
                    "server {index} gets none of the {CLUSTER_SLOTS} slots: its share of the weights is too small"
                )
            }
        }
    }
}

impl std::error::Error for ContinuumError {}

/// The ring of one pool with one set of live servers. Immutable; share it behind an `Arc`.
///
/// | | memory | a look-up |
/// | --- | --- | --- |
/// | ketama | 160 points of 6 bytes a server, and an index of 4 to 8 bytes a point | the hash, then 4 ns and one or two cache lines, whatever the size |
/// | modula | 10 bytes a server | the hash, a division, a binary search over the servers |
/// | random | 2 bytes a server | one number |
/// | rendezvous | 18 bytes a server | XXH3, then 2 ns a server, 10 with unequal weights |
/// | slots | 32 KiB | CRC-16, a byte at a time, then one access |
#[derive(Clone, Debug)]
pub struct Continuum {
    rules: Rules,
    /// A pool of one server hashes nothing, even while that server is not live.
    alone: bool,
    ring: Ring,
}

#[derive(Clone, Debug)]
enum Ring {
    Nobody,
    Ketama(Ketama),
    /// For each live server in order the sum of weights up to and including it, and its index.
    Modula {
        ends: Vec<u64>,
        owners: Vec<u16>,
    },
    Random {
        owners: Vec<u16>,
    },
    Rendezvous {
        bids: Rendezvous,
        owners: Vec<u16>,
    },
    Slots(Slots),
}

impl Continuum {
    /// The ring over those of `servers` that are `live`, which is asked with their index once each.
    ///
    /// Indices in and out are those of `servers` as given; its order has no influence on where keys go, but for slots.
    /// With nobody live there is a ring too, and [`pick`](Self::pick) finds nobody on it.
    ///
    /// # Errors
    /// When a weight is 0, there are more than [`SERVERS_MAX`] servers, or one would get no slot.
    pub fn build(servers: &[Server<'_>], rules: Rules, live: impl Fn(usize) -> bool) -> Result<Self, ContinuumError> {
        if let Some(index) = servers.iter().position(|server| server.weight == 0) {
            return Err(ContinuumError::NoWeight(index));
        }
        let mut order = Vec::with_capacity(servers.len());
        for (index, server) in servers.iter().enumerate() {
            let owner = u16::try_from(index).map_err(|_| ContinuumError::TooManyServers(servers.len()))?;
            if live(index) {
                order.push((owner, *server));
            }
        }
        order.sort_by_key(|(_, server)| (server.name.len(), server.name));
        let owners = || order.iter().map(|(owner, _)| *owner).collect();
        let ring = match rules.distribution {
            _ if order.is_empty() => Ring::Nobody,
            Distribution::Ketama => Ring::Ketama(Ketama::build(&order)),
            Distribution::Modula => {
                let mut sum = 0_u64;
                let ends = order.iter().map(|(_, server)| {
                    sum += u64::from(server.weight);
                    sum
                });
                Ring::Modula { ends: ends.collect(), owners: owners() }
            }
            Distribution::Random => Ring::Random { owners: owners() },
            Distribution::Rendezvous => {
                let bids = Rendezvous::build(order.iter().map(|(_, server)| (server.name, server.weight)));
                Ring::Rendezvous { bids, owners: owners() }
            }
            Distribution::Slots => {
                let live: Vec<u16> = owners();
                Ring::Slots(Slots::deal(servers, &live)?)
            }
        };
        Ok(Self { rules, alone: servers.len() == 1, ring })
    }

    /// The index of the server `key` belongs to; none when nobody is live.
    ///
    /// `chance` is drawn from by the distribution `random` only.
    #[must_use]
    pub fn pick(&self, key: &[u8], chance: &mut Rng) -> Option<usize> {
        let owner = match &self.ring {
            Ring::Nobody => return None,
            Ring::Ketama(ring) => ring.owner(ring.position(self.hash(key))),
            Ring::Modula { ends, owners } => owners[modula(ends, self.hash(key)).1],
            Ring::Random { owners } => owners[random(owners, chance)],
            Ring::Rendezvous { bids, owners } => owners[self.highest(bids, key)],
            Ring::Slots(slots) => slots.owner(self.slot(key)),
        };
        Some(usize::from(owner))
    }

    /// As [`pick`](Self::pick), with the reason: for people who ask where a key is and why.
    #[must_use]
    pub fn explain(&self, key: &[u8], chance: &mut Rng) -> Placement {
        let hash = match &self.ring {
            Ring::Slots(_) => u32::from(crc16_xmodem(&key[self.hashed(key)])),
            _ if self.rules.distribution.hashes() => self.hash(key),
            _ => 0,
        };
        let (way, owner) = match &self.ring {
            Ring::Nobody => (Way::NobodyLive, None),
            Ring::Ketama(ring) => {
                let position = ring.position(hash);
                let point = ring.value(position);
                let way = Way::Ketama { point, position, points: ring.len(), wrapped: point < hash };
                (way, Some(ring.owner(position)))
            }
            Ring::Modula { ends, owners } => {
                let (remainder, at) = modula(ends, hash);
                let total_weight = ends.last().copied().unwrap_or(0);
                (Way::Modula { remainder, total_weight }, Some(owners[at]))
            }
            Ring::Random { owners } => (Way::Random { live: owners.len() }, Some(owners[random(owners, chance)])),
            Ring::Rendezvous { bids, owners } => {
                (Way::Rendezvous { live: owners.len() }, Some(owners[self.highest(bids, key)]))
            }
            Ring::Slots(slots) => {
                let slot = self.slot(key);
                let (home, range) = slots.home(slot);
                let owner = slots.owner(slot);
                (Way::Slots { slot, range, lent: home != usize::from(owner) }, Some(owner))
            }
        };
        Placement { server: owner.map(usize::from), hashed: self.hashed(key), hash, alone: self.alone, way }
    }

    /// The part of all hashes that belongs to the server of this index, from 0 to 1: what it should get of keys that
    /// are hashed well.
    #[must_use]
    pub fn share(&self, server: usize) -> f64 {
        let is_it = |owner: &u16| usize::from(*owner) == server;
        match &self.ring {
            Ring::Nobody => 0.0,
            Ring::Ketama(ring) => ring.share(server),
            Ring::Modula { ends, owners } => owners.iter().position(is_it).map_or(0.0, |at| {
                let begin = if at == 0 { 0 } else { ends[at - 1] };
                ratio(ends[at] - begin, ends[ends.len() - 1])
            }),
            Ring::Random { owners } if owners.iter().any(is_it) => ratio(1, owners.len() as u64),
            Ring::Random { .. } => 0.0,
            Ring::Rendezvous { bids, owners } => owners.iter().position(is_it).map_or(0.0, |at| bids.share(at)),
            Ring::Slots(slots) => ratio(slots.count(server), u64::from(CLUSTER_SLOTS)),
        }
    }

    /// The settings this ring was built by.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.rules
    }

    fn hashed(&self, key: &[u8]) -> Range<usize> {
        let tag = match self.rules.distribution {
            Distribution::Slots => self.rules.tag.or(Some(HashTag::BRACES)),
            _ => self.rules.tag,
        };
        tag.map_or(0..key.len(), |tag| tag.span(key))
    }

    /// Redis Cluster's slot, within the pool's own tag where it has one.
    fn slot(&self, key: &[u8]) -> u16 {
        crc16_xmodem(&key[self.hashed(key)]) % CLUSTER_SLOTS
    }

    /// The place among the live of the highest bidder. There is one: all have weight.
    fn highest(&self, bids: &Rendezvous, key: &[u8]) -> usize {
        if self.alone { 0 } else { bids.pick(&key[self.hashed(key)]).unwrap_or(0) }
    }

    fn hash(&self, key: &[u8]) -> u32 {
        if self.alone || key.is_empty() { 0 } else { self.rules.hash.hash(&key[self.hashed(key)]) }
    }
}

/// The remainder and whose it is. `ends` is not empty and grows, its last element being the total weight.
fn modula(ends: &[u64], hash: u32) -> (u64, usize) {
    let remainder = u64::from(hash) % ends[ends.len() - 1];
    (remainder, ends.partition_point(|end| *end <= remainder))
}

fn random(owners: &[u16], chance: &mut Rng) -> usize {
    usize::try_from(chance.below(owners.len() as u64)).unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "for people to read; 53 bits are plenty")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// Where a key goes, and every step that led there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Placement {
    /// The server's index; none when nobody is live.
    pub server: Option<usize>,
    /// The bytes of the key that were hashed: all, or those within the hash tag.
    pub hashed: Range<usize>,
    /// Their hash; 0 for an empty key, in a pool of one server, and where the distribution has no use for it.
    pub hash: u32,
    /// Whether the pool has one server only, so that the key does not matter.
    pub alone: bool,
    /// What the distribution made of the hash.
    pub way: Way,
}

/// The step from hash to server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Way {
    /// The first point of the ring at or above the hash or, `wrapped`, the ring's first.
    Ketama {
        /// The point's value.
        point: u32,
        /// The point's place on the ring, from 0.
        position: usize,
        /// All points of the ring.
        points: usize,
        /// Whether the hash lies above the last point.
        wrapped: bool,
    },
    /// The hash by remainder.
    Modula {
        /// The remainder.
        remainder: u64,
        /// What it is the remainder by.
        total_weight: u64,
    },
    /// No reason: the next request may go elsewhere.
    Random {
        /// How many it may go to.
        live: usize,
    },
    /// The highest bid for the key.
    Rendezvous {
        /// Of how many.
        live: usize,
    },
    /// The slot of the key.
    Slots {
        /// The hash by [`CLUSTER_SLOTS`](crate::CLUSTER_SLOTS).
        slot: u16,
        /// The slots that are one server's own, among which this one is.
        range: Range<u16>,
        /// Whether that server is not live, and another has the slot meanwhile.
        lent: bool,
    },
    /// Every server is ejected, or there is none.
    NobodyLive,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.way {
            Way::NobodyLive => return f.write_str("no server is live"),
            _ if self.alone => return f.write_str("the pool's only server, whatever the key"),
            Way::Random { live } => return write!(f, "by chance one of {live} live servers, anew for each request"),
            Way::Rendezvous { live } => {
                return write!(f, "the highest of {live} bids for bytes {}..{}", self.hashed.start, self.hashed.end);
            }
            Way::Ketama { .. } | Way::Modula { .. } | Way::Slots { .. } => {}
        }
        write!(f, "bytes {}..{} hash to {:#010x}, ", self.hashed.start, self.hashed.end, self.hash)?;
        match &self.way {
            Way::Ketama { point, position, points, wrapped: false } => {
                write!(f, "the next point is {point:#010x}, number {position} of {points}")
            }
            Way::Ketama { point, points, .. } => {
                write!(f, "above the last of {points} points, so around to the first, {point:#010x}")
            }
            Way::Modula { remainder, total_weight } => write!(f, "by {total_weight} leaves {remainder}"),
            Way::Slots { slot, range, lent } => {
                let of = format_args!("slot {slot} of {} to {}", range.start, range.end - 1).to_string();
                let whose = if *lent { "whose own server is not live" } else { "its own" };
                write!(f, "{of}, {whose}")
            }
            Way::Random { .. } | Way::Rendezvous { .. } | Way::NobodyLive => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;

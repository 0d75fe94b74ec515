//! What can only be judged when a whole pool is known. For both files.

use std::collections::HashMap;

use super::{COUNTED_POOLS_MAX, COUNTED_SERVERS_MAX, Kv, KvListen, KvPool};
use crate::choice::{EjectPolicy, KvDistribution};
use crate::diagnostic::{Findings, quoted};

/// Looks at every pool.
pub(crate) fn check(kv: &Kv, findings: &mut Findings<'_>) {
    sockets(kv, findings);
    for pool in &kv.pools {
        names(pool, findings);
        protocol(pool, findings);
        placement(pool, findings);
    }
    counted(kv, findings);
}

/// Not everything has numbers of its own when there is very much of it.
fn counted(kv: &Kv, findings: &mut Findings<'_>) {
    if let Some(pool) = kv.pools.get(COUNTED_POOLS_MAX) {
        findings.warning(pool.name.place, || {
            let message =
                format!("{} pools: from {} on they have no numbers of their own", kv.pools.len(), quoted(&pool.name));
            (message, Some(format!("the first {COUNTED_POOLS_MAX} have; all others are counted together")))
        });
    }
    let servers = kv.pools.iter().take(COUNTED_POOLS_MAX).flat_map(|pool| &pool.servers);
    let total = servers.clone().count();
    if let Some(server) = servers.clone().nth(COUNTED_SERVERS_MAX) {
        findings.warning(server.place, || {
            let name = quoted(&server.ring_name());
            let message = format!("{total} servers: from {name} on they have no numbers of their own");
            let hint =
                "the first {MAX} of all pools have; all others are counted together, and their state is told as well";
            (message, Some(hint.replace("{MAX}", &COUNTED_SERVERS_MAX.to_string())))
        });
    }
}

/// No two pools may listen on one Unix socket. Addresses are compared with those of all listeners.
fn sockets(kv: &Kv, findings: &mut Findings<'_>) {
    let mut seen = HashMap::new();
    for pool in &kv.pools {
        let KvListen::Unix { path, .. } = &pool.listen.value else { continue };
        if let Some(first) = seen.insert(path, pool) {
            findings.error(pool.listen.place, || {
                let message = format!(
                    "pools {} and {} listen on the same socket {}",
                    quoted(&first.name),
                    quoted(&pool.name),
                    quoted(&path.display().to_string())
                );
                (message, Some("give each its own".to_owned()))
            });
        }
    }
}

/// No two servers of a pool may have one name: keys are placed by it.
fn names(pool: &KvPool, findings: &mut Findings<'_>) {
    let mut seen = HashMap::new();
    for server in &pool.servers {
        let name = server.ring_name();
        if let Some(first) = seen.get(&name) {
            findings.error(server.place, || {
                let message =
                    format!("pool {} has a server {} already, on line {first}", quoted(&pool.name), quoted(&name));
                let hint = "keys are placed by a server's name: give one of them a name of its own, after a space";
                (message, Some(hint.to_owned()))
            });
        } else {
            seen.insert(name, server.place.line);
        }
    }
}

/// What chooses a server goes together.
fn placement(pool: &KvPool, findings: &mut Findings<'_>) {
    let way = pool.distribution;
    if way.hashes_by_itself() && pool.hash.place.is_written() {
        findings.error(pool.hash.place, || {
            let message =
                format!("pool {} has a `hash`, and `distribution: {way}` hashes by itself", quoted(&pool.name));
            (message, Some("remove one of the two".to_owned()))
        });
    }
    if way == KvDistribution::Random && pool.eject_policy != EjectPolicy::Rehash {
        findings.error(pool.name.place, || {
            let message = format!(
                "pool {} has `eject_policy: {}`, and with `distribution: random` no key belongs to a server",
                quoted(&pool.name),
                pool.eject_policy
            );
            (message, Some("remove one of the two: a live server is chosen for each request".to_owned()))
        });
    }
    if way == KvDistribution::Slots {
        slots(pool, findings);
    }
}

/// Every server of a pool gets at least one of Redis Cluster's slots.
fn slots(pool: &KvPool, findings: &mut Findings<'_>) {
    const SLOTS: u128 = 16_384;
    let total: u128 = pool.servers.iter().map(|server| u128::from(server.weight)).sum();
    // As the ring deals them: each range ends at the nearest slot.
    let end = |sum: u128| (sum * SLOTS * 2 + total) / (total * 2);
    let mut sum = 0;
    for server in &pool.servers {
        let begin = end(sum);
        sum += u128::from(server.weight);
        if begin == end(sum) {
            findings.error(server.place, || {
                let message = format!(
                    "pool {}: the weight of {} is too small beside the others' for one of the {SLOTS} slots",
                    quoted(&pool.name),
                    quoted(&server.ring_name())
                );
                (message, Some("make the weights more alike, or use another distribution".to_owned()))
            });
            return;
        }
    }
}

/// A password is Redis', and so is a database.
fn protocol(pool: &KvPool, findings: &mut Findings<'_>) {
    if pool.redis_db != 0 && !pool.redis {
        findings.error(pool.name.place, || {
            let message = format!("pool {} has `redis_db`, and speaks memcached's protocol", quoted(&pool.name));
            (message, Some("write `redis: true` in it, or remove the database".to_owned()))
        });
    }
    if pool.redis_auth.is_some() && !pool.redis {
        findings.error(pool.name.place, || {
            let message = format!("pool {} has `redis_auth`, and speaks memcached's protocol", quoted(&pool.name));
            (message, Some("write `redis: true` in it, or remove the password".to_owned()))
        });
    }
}

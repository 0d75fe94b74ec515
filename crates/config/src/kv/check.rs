//! What can only be judged when a whole pool is known. For both files.

use std::collections::HashMap;

use super::{Kv, KvListen, KvPool};
use crate::diagnostic::{Findings, quoted};

/// Looks at every pool.
pub(crate) fn check(kv: &Kv, findings: &mut Findings<'_>) {
    sockets(kv, findings);
    for pool in &kv.pools {
        names(pool, findings);
        protocol(pool, findings);
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

/// A password is Redis'.
fn protocol(pool: &KvPool, findings: &mut Findings<'_>) {
    if pool.redis_auth.is_some() && !pool.redis {
        findings.error(pool.name.place, || {
            let message = format!("pool {} has `redis_auth`, and speaks memcached's protocol", quoted(&pool.name));
            (message, Some("write `redis: true` in it, or remove the password".to_owned()))
        });
    }
}

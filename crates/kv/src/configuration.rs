//! Pools as the configuration has them become pools as the engine wants them.

use std::net::IpAddr;

use config::kv::{Kv as Configured, KvAddress, KvPool, KvTimeouts};
use hashring::ContinuumError;

use crate::plan::{Address, EjectPolicy, MultigetPolicy, PlanError, PoolSource, ServerSource, Timeouts};

/// The part of the machine's memory that the pools may keep together where nothing is configured.
const MEMORY_SHARE: u64 = 4;

/// The pools of a configuration, in its order. Listening, with all its settings, is the caller's.
///
/// # Errors
/// What the engine cannot do; nothing is accepted and ignored.
pub fn pools(kv: &Configured) -> Result<Vec<PoolSource>, PlanError> {
    kv.pools.iter().map(pool).collect()
}

/// What all of its pools may keep together, on a machine, or in a cgroup, of so many bytes: what is configured or else a
/// share that leaves room for the rest, and is never less than what one of them may keep by itself.
#[must_use]
pub fn memory(kv: &Configured, machine: Option<u64>) -> usize {
    let largest = kv.pools.iter().map(|pool| pool.memory.0).max().unwrap_or(0);
    let share = machine.map_or(u64::MAX, |machine| machine / MEMORY_SHARE);
    usize::try_from(kv.memory.map_or(share.max(largest), |memory| memory.0)).unwrap_or(usize::MAX)
}

fn pool(from: &KvPool) -> Result<PoolSource, PlanError> {
    let name = &from.name.value;
    let unavailable = |what: &'static str| PlanError::NotAvailable(name.clone(), what);
    let servers = from.servers.iter().map(|server| ServerSource {
        address: match &server.value.address {
            KvAddress::Tcp { host, port } => match host.parse::<IpAddr>() {
                Ok(ip) => Address::Ip(ip, *port),
                Err(_) => Address::Name(host.as_str().into(), *port),
            },
            KvAddress::Unix(path) => Address::Unix(path.clone()),
        },
        weight: server.value.weight,
        // What places its keys has been settled by the configuration.
        name: Some(server.value.ring_name().into_owned()),
    });
    let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    Ok(PoolSource {
        hash: from.hash.word().parse().map_err(|_| unavailable("this hash"))?,
        hash_tag: from.hash_tag.map(|[open, close]| hashring::HashTag::new(open, close)),
        distribution: from.distribution.word().parse().map_err(|_| unavailable("this distribution"))?,
        timeout: from.timeout,
        client_connections: from.client_connections.map(count),
        redis: from.redis,
        redis_auth: from.redis_auth.as_ref().map(|password| password.reveal().to_owned()),
        redis_db: from.redis_db,
        preconnect: from.preconnect,
        tcpkeepalive: from.tcpkeepalive,
        memcached_flush_all: from.memcached_flush_all,
        auto_eject_hosts: from.auto_eject_hosts,
        server_retry_timeout: from.server_retry_timeout,
        server_failure_limit: from.server_failure_limit,
        server_connections: count(from.server_connections),
        eject_policy: match from.eject_policy {
            config::EjectPolicy::Rehash => EjectPolicy::Rehash,
            config::EjectPolicy::Error => EjectPolicy::Error,
            config::EjectPolicy::Miss => EjectPolicy::Miss,
        },
        multiget_policy: match from.multiget_policy {
            config::MultigetPolicy::Error => MultigetPolicy::Error,
            config::MultigetPolicy::Miss => MultigetPolicy::Miss,
        },
        timeouts: {
            let KvTimeouts { read, write, split, script } = from.timeouts;
            Timeouts { read, write, split, script }
        },
        memory: usize::try_from(from.memory.0).unwrap_or(usize::MAX),
        slowlog: Some(from.slowlog).filter(|limit| !limit.is_zero()),
        ..PoolSource::new(name, servers.collect())
    })
}

impl PlanError {
    /// The server of that pool that it is about, by its place there.
    #[must_use]
    pub fn server(&self) -> Option<usize> {
        match self {
            Self::Ring(_, ContinuumError::NoWeight(at) | ContinuumError::NoSlot(at)) => Some(*at),
            _ => None,
        }
    }

    /// The pool that it is about, by its name.
    #[must_use]
    pub fn pool(&self) -> &str {
        match self {
            Self::NoServers(pool)
            | Self::ServerConnections(pool, _)
            | Self::RedisOnly(pool, _)
            | Self::NotAvailable(pool, _)
            | Self::TwoServers(pool, _)
            | Self::Ring(pool, _) => pool,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_of_the_configuration_is_a_pool_of_the_engine() {
        let text = "kv:\n  pools:\n    alpha:\n      listen: 127.0.0.1:22121\n      hash: md5\n      hash_tag: \"{}\"\n      \
                    redis: true\n      auto_eject_hosts: true\n      eject_policy: error\n      servers:\n        - 127.0.0.1:6379:1\n        - \
                    localhost:6380:2 beta\n";
        let config = config::parse_as_if("test.yaml", text, true).unwrap();
        let pools = pools(&config.kv).unwrap();
        let [alpha] = pools.as_slice() else { panic!("one pool") };
        assert_eq!((alpha.name.as_str(), alpha.hash.name(), alpha.redis), ("alpha", "md5", true));
        assert_eq!(alpha.eject_policy, EjectPolicy::Error);
        assert_eq!(alpha.servers[0].name.as_deref(), Some("127.0.0.1:6379"));
        assert_eq!(alpha.servers[1].address, Address::Name("localhost".into(), 6380));
        assert_eq!((alpha.servers[1].weight, alpha.servers[1].name.as_deref()), (2, Some("beta")));
        assert!(crate::Plan::prepare(pools).is_ok());
    }

    #[test]
    fn all_pools_together_may_keep_what_is_configured_or_a_share_that_is_no_less_than_what_one_of_them_may() {
        let memory_of = |all: &str, machine| {
            let text = format!(
                "kv:\n  memory: {all}\n  pools:\n    alpha:\n      listen: 127.0.0.1:22121\n      memory: 32MiB\n      servers:\n        \
                 - 127.0.0.1:6379:1\n"
            );
            memory(&config::parse_as_if("test.yaml", &text, true).unwrap().kv, machine)
        };
        assert_eq!(memory_of("auto", Some(1 << 30)), 256 << 20);
        assert_eq!(memory_of("auto", Some(64 << 20)), 32 << 20, "what the pool may");
        assert_eq!(memory_of("auto", None), usize::MAX);
        assert_eq!(memory_of("8MiB", Some(1 << 30)), 8 << 20);
    }
}

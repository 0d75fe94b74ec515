//! From settings to [`Kv`].

use super::rows::POOL;
use super::{Kv, KvPool, KvStats, KvTimeouts};
use crate::choice::{EjectPolicy, KvDistribution, KvHash, MultigetPolicy};
use crate::diagnostic::Spanned;
use crate::read::Settings;
use crate::table::Key;
use crate::value::Value;

/// A pool as it is read: its name, and its keys by their paths below [`POOL`].
pub(crate) type NamedSettings = Spanned<(String, Settings)>;

/// What `settings` of the whole file say of `kv`.
pub(crate) fn kv(settings: &Settings) -> Kv {
    let stats = settings.is_present("kv.stats").then(|| KvStats {
        listen: settings.address("kv.stats.listen").expect("the address of the stats port cannot be off"),
        interval: settings.duration("kv.stats.interval"),
    });
    Kv { stats, memory: settings.size_or_auto("kv.memory"), pools: pools(settings).iter().map(pool).collect() }
}

fn pools(settings: &Settings) -> &[NamedSettings] {
    settings.take("kv.pools", |value| if let Value::Pools(pools) = value { Some(pools.as_slice()) } else { None })
}

fn pool(named: &NamedSettings) -> KvPool {
    let (name, s) = &named.value;
    KvPool {
        name: Spanned::new(name.clone(), named.place),
        listen: s.take("kv.pools.NAME.listen", |value| match value {
            Value::Listen(listen) => Some(Spanned::new(listen.clone(), s.place("kv.pools.NAME.listen"))),
            _ => None,
        }),
        hash: Spanned::new(s.choice("kv.pools.NAME.hash", KvHash::from_word), s.place("kv.pools.NAME.hash")),
        hash_tag: s.find("kv.pools.NAME.hash_tag").and_then(|value| match value.value {
            Value::Tag(tag) => Some(tag),
            _ => None,
        }),
        distribution: s.choice("kv.pools.NAME.distribution", KvDistribution::from_word),
        timeout: Some(s.duration("kv.pools.NAME.timeout")),
        timeouts: {
            let own = |path| Some(s.duration(path)).filter(|time| !time.is_zero());
            KvTimeouts {
                read: own("kv.pools.NAME.timeouts.read"),
                write: own("kv.pools.NAME.timeouts.write"),
                split: own("kv.pools.NAME.timeouts.split"),
                script: own("kv.pools.NAME.timeouts.script"),
            }
        },
        backlog: s.count("kv.pools.NAME.backlog"),
        client_connections: Some(s.count("kv.pools.NAME.client_connections")).filter(|limit| *limit > 0),
        redis: s.switch("kv.pools.NAME.redis"),
        redis_auth: s.find("kv.pools.NAME.redis_auth").and_then(|value| match &value.value {
            Value::Secret(password) => Some(password.clone()),
            _ => None,
        }),
        redis_db: s.count("kv.pools.NAME.redis_db"),
        preconnect: s.switch("kv.pools.NAME.preconnect"),
        tcpkeepalive: s.switch("kv.pools.NAME.tcpkeepalive"),
        reuseport: s.switch("kv.pools.NAME.reuseport"),
        server_connections: s.count("kv.pools.NAME.server_connections"),
        auto_eject_hosts: s.switch("kv.pools.NAME.auto_eject_hosts"),
        server_retry_timeout: s.duration("kv.pools.NAME.server_retry_timeout"),
        server_failure_limit: s.count("kv.pools.NAME.server_failure_limit"),
        eject_policy: s.choice("kv.pools.NAME.eject_policy", EjectPolicy::from_word),
        memcached_flush_all: s.switch("kv.pools.NAME.memcached_flush_all"),
        multiget_policy: s.choice("kv.pools.NAME.multiget_policy", MultigetPolicy::from_word),
        memory: s.size("kv.pools.NAME.memory"),
        slowlog: s.duration("kv.pools.NAME.slowlog"),
        servers: s.take("kv.pools.NAME.servers", |value| match value {
            Value::Servers(servers) => Some(servers.clone()),
            _ => None,
        }),
    }
}

/// Whether `key`, of `kv.pools` or below it, differs between two files; none for any other key.
///
/// A pool that only one of them has is a difference of `kv.pools`, and of `listen` because its listener comes or goes;
/// every other key is compared in the pools that both have.
pub(crate) fn pool_key_changed(old: &Settings, new: &Settings, key: &Key) -> Option<bool> {
    let in_pools = key.path.strip_prefix(POOL).is_some_and(|rest| rest.starts_with('.'));
    if !in_pools && key.path != "kv.pools" {
        return None;
    }
    let (old, new) = (pools(old), pools(new));
    let same_name =
        |pool: &NamedSettings, pools: &[NamedSettings]| pools.iter().position(|other| other.value.0 == pool.value.0);
    let other_pools = || {
        old.iter().any(|pool| same_name(pool, new).is_none()) || new.iter().any(|pool| same_name(pool, old).is_none())
    };
    let differs = || {
        old.iter().any(|pool| {
            same_name(pool, new).is_some_and(|at| pool.value.1.find(key.path) != new[at].value.1.find(key.path))
        })
    };
    Some(match key.name() {
        "listen" => other_pools() || differs(),
        _ if in_pools => differs(),
        _ => other_pools(),
    })
}

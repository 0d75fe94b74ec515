//! The key-value proxy's rows of the table.
//!
//! Keys that twemproxy has keep its names, units and defaults; where they differ, docs/kv-differences.md says so.

use std::time::Duration;

use base::ByteCount;

use super::text::NUMBER_MAX;
use crate::choice::{EjectPolicy, KvDistribution, KvHash, MultigetPolicy};
use crate::kind::Kind;
use crate::table::Applied::{Reload, Restart};
use crate::table::{Key, WAIT_MAX, choice, count, key, required, section};

/// The most pools.
const POOLS_MAX: usize = 1024;

/// The most servers of one pool: the ring keeps their indices in 16 bits.
const SERVERS_MAX: usize = 65_536;

/// The least memory of a pool: a few large replies.
const MEMORY_MIN: ByteCount = ByteCount(1 << 20);

/// The most memory of a pool.
const MEMORY_MAX: ByteCount = ByteCount(1 << 44);

/// The path that every pool's keys stand below; `NAME` stands for the name it is given.
pub(crate) const POOL: &str = "kv.pools.NAME";

const SWITCH: Kind = Kind::Switch { available: true };

const fn millis(min_ms: u64) -> Kind {
    Kind::Millis { min: Duration::from_millis(min_ms), max: WAIT_MAX }
}

const fn optional(path: &'static str, kind: Kind, meaning: &'static str) -> Key {
    Key { path, kind, default: None, applied: Reload, meaning }
}

/// Every key of `kv`.
pub(crate) const ROWS: [Key; 35] = [
    section("kv", "The Redis and memcached proxy."),
    key(
        "kv.memory",
        Kind::Size { min: MEMORY_MIN, max: MEMORY_MAX, auto: true },
        "auto",
        Reload,
        "Bytes of requests and replies that all pools together may keep. From half of it on no client is read from; what would be beyond it is answered with an error. `auto` is a quarter of what the machine or the cgroup has, and no less than the largest `memory` of a pool.",
    ),
    key(
        "kv.stats",
        Kind::Section { off: true },
        "off",
        Restart,
        "twemproxy's stats port: whoever connects is sent the numbers as one line of JSON.",
    ),
    key("kv.stats.listen", Kind::Address { off: false }, "127.0.0.1:22222", Restart, "Where it listens."),
    key("kv.stats.interval", millis(1), "30000", Reload, "How old the numbers may be."),
    key(
        "kv.pools",
        Kind::Map { max: POOLS_MAX },
        "{}",
        Reload,
        "The pools, each by a name of its own. A pool that is new brings a listener, so it needs a restart.",
    ),
    required(
        "kv.pools.NAME.listen",
        Kind::Listen,
        Restart,
        "Where the pool's clients connect: an address and a port, or the path of a Unix socket and, after a space, its permissions.",
    ),
    key(
        "kv.pools.NAME.hash",
        choice(KvHash::WORDS),
        "fnv1a_64",
        Reload,
        "What turns a key into a number. The default, twemproxy's, puts keys that differ in their last letter on one server; `murmur` or `md5` are better for a new pool.",
    ),
    optional(
        "kv.pools.NAME.hash_tag",
        Kind::HashTag,
        "Two characters: of a key that has both, only what stands between them is hashed, so that keys can be kept together.",
    ),
    key(
        "kv.pools.NAME.distribution",
        choice(KvDistribution::WORDS),
        "ketama",
        Reload,
        "How the number chooses a server. `rendezvous` and `slots` hash by themselves, so `hash` cannot stand beside them: `rendezvous` asks every server for its bid; `slots` are Redis Cluster's, with ranges by weight in the order of the servers, and `{}` for a hash tag unless another is written.",
    ),
    key(
        "kv.pools.NAME.timeout",
        millis(1),
        "5000",
        Reload,
        "How long a request may take in all, from its arrival to its answer: queueing and connecting count.",
    ),
    section("kv.pools.NAME.timeouts", "Other times than `timeout` for requests of a kind."),
    key("kv.pools.NAME.timeouts.read", millis(0), "0", Reload, "Requests that read. 0: as `timeout`."),
    key("kv.pools.NAME.timeouts.write", millis(0), "0", Reload, "Requests that may change something. 0: as `timeout`."),
    key(
        "kv.pools.NAME.timeouts.split",
        millis(0),
        "0",
        Reload,
        "Requests that go to several servers in parts, whatever they do. 0: as `timeout`.",
    ),
    key(
        "kv.pools.NAME.timeouts.script",
        millis(0),
        "0",
        Reload,
        "Redis' scripts and functions: EVAL, EVALSHA, FCALL. 0: as `timeout`.",
    ),
    key(
        "kv.pools.NAME.backlog",
        count(1, 65_535),
        "512",
        Restart,
        "How many connections may wait in the kernel to be accepted; the kernel cuts it to net.core.somaxconn.",
    ),
    key(
        "kv.pools.NAME.client_connections",
        count(0, 4_000_000),
        "0",
        Reload,
        "Client connections at a time; at the limit no more are accepted. 0: no limit but the process's.",
    ),
    key("kv.pools.NAME.redis", SWITCH, "false", Reload, "Whether the pool speaks Redis' protocol; else memcached's."),
    optional(
        "kv.pools.NAME.redis_auth",
        Kind::Secret,
        "The password that servers are sent, and that clients must give.",
    ),
    key(
        "kv.pools.NAME.redis_db",
        count(0, NUMBER_MAX),
        "0",
        Reload,
        "The database that is selected on every connection to a server. Clients see it as their database 0.",
    ),
    key("kv.pools.NAME.preconnect", SWITCH, "false", Reload, "Whether servers are connected before they are needed."),
    key(
        "kv.pools.NAME.tcpkeepalive",
        SWITCH,
        "false",
        Reload,
        "Whether the kernel probes idle connections, of clients and to servers.",
    ),
    key(
        "kv.pools.NAME.reuseport",
        SWITCH,
        "false",
        Restart,
        "Whether other processes may listen on the same address and port.",
    ),
    key(
        "kv.pools.NAME.server_connections",
        count(1, 64),
        "1",
        Reload,
        "Connections to each server, for each event thread; opened on demand.",
    ),
    key(
        "kv.pools.NAME.auto_eject_hosts",
        SWITCH,
        "false",
        Reload,
        "Whether a server that fails again and again is taken out until it answers a probe.",
    ),
    key(
        "kv.pools.NAME.server_retry_timeout",
        millis(1),
        "30000",
        Reload,
        "How long an ejected server is left alone before it is probed.",
    ),
    key(
        "kv.pools.NAME.server_failure_limit",
        count(1, 1_000_000),
        "2",
        Reload,
        "How many failures in a row eject a server.",
    ),
    key(
        "kv.pools.NAME.eject_policy",
        choice(EjectPolicy::WORDS),
        "rehash",
        Reload,
        "What becomes of an ejected server's keys: they go to the others (`rehash`), requests for them are answered with an error (`error`), or reads find nothing (`miss`).",
    ),
    key(
        "kv.pools.NAME.memcached_flush_all",
        SWITCH,
        "false",
        Reload,
        "Whether memcached's flush_all empties all servers of the pool; else it is refused.",
    ),
    key(
        "kv.pools.NAME.multiget_policy",
        choice(MultigetPolicy::WORDS),
        "error",
        Reload,
        "What becomes of memcached's get of several keys when the servers of some of them fail: the whole is an error (`error`), or those keys are missing from the answer (`miss`).",
    ),
    key(
        "kv.pools.NAME.memory",
        Kind::Size { min: MEMORY_MIN, max: MEMORY_MAX, auto: false },
        "256MiB",
        Reload,
        "Bytes of requests and replies that the pool may keep on all threads together, until they are whole or have their turn, and until clients have taken them. From half of it on its clients are read from no more; what would be beyond it is answered with an error.",
    ),
    key(
        "kv.pools.NAME.slowlog",
        millis(0),
        "100",
        Reload,
        "Requests that take longer, from their arrival to the server's reply or to the error in its place, are put in the slow log: `ctl kv slowlog`, or `SLOWLOG GET` of Redis. 0: none.",
    ),
    required(
        "kv.pools.NAME.servers",
        Kind::Servers { max: SERVERS_MAX },
        Reload,
        "The servers, each HOST:PORT:WEIGHT or /PATH:WEIGHT and, after a space, a name. The name, or without one HOST:PORT, places the keys; the order does not matter.",
    ),
    Key {
        path: "kv.pools.NAME.sentinels",
        kind: Kind::Unavailable,
        default: None,
        applied: Restart,
        meaning: "The Sentinels that know the servers.",
    },
];

//! The pools, judged and made ready for use. Immutable.
//!
//! [`PoolSource`] is what an operator says of one pool, key by key as twemproxy has them; [`Plan::prepare`] judges it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hashring::{Continuum, Distribution, Hash, HashTag, Rules, Server, default_name};

use crate::server::Standing;

/// What a pool's servers speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// RESP2.
    Redis,
    /// memcached's text protocol.
    Memcached,
}

/// Where a server is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// By address.
    Ip(IpAddr, u16),
    /// By name, resolved anew as its answers age.
    Name(Box<str>, u16),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip, port) => write!(f, "{ip}:{port}"),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What happens to the keys of an ejected server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EjectPolicy {
    /// They go to the servers that are left, as with twemproxy.
    #[default]
    Rehash,
    /// Requests for them get an error.
    Error,
    /// Reads of them find nothing; what may change something gets an error.
    Miss,
}

/// What becomes of memcached's request for several keys when the servers of some of them fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MultigetPolicy {
    /// The whole is answered with an error, as with twemproxy.
    #[default]
    Error,
    /// Those keys are missing from the answer.
    Miss,
}

/// Kinds of requests whose time may be limited by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    Read,
    Write,
    /// In parts, to several servers.
    Split,
    Script,
}

/// Other times than the pool's `timeout`. `None`: as that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timeouts {
    /// Requests that read.
    pub read: Option<Duration>,
    /// Requests that may change something.
    pub write: Option<Duration>,
    /// Requests that go to several servers in parts.
    pub split: Option<Duration>,
    /// Scripts and functions.
    pub script: Option<Duration>,
}

/// One server of a pool: `host:port:weight name`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerSource {
    /// Where it is.
    pub address: Address,
    /// Its share, at least 1.
    pub weight: u32,
    /// What its place on the ring is made of; without one, its address as twemproxy writes it.
    pub name: Option<String>,
}

/// What an operator says of one pool. The fields are named as twemproxy's keys.
#[derive(Clone, Debug)]
pub struct PoolSource {
    /// The pool's name.
    pub name: String,
    /// How a key becomes 32 bits.
    pub hash: Hash,
    /// The two characters between which the hashed part of a key stands.
    pub hash_tag: Option<HashTag>,
    /// How 32 bits become a server.
    pub distribution: Distribution,
    /// How long a request may take, from being read to its reply. `None`: as long as it takes.
    pub timeout: Option<Duration>,
    /// How long requests of a kind may take.
    pub timeouts: Timeouts,
    /// Clients at a time on all threads together. `None`: as many as come.
    pub client_connections: Option<usize>,
    /// Redis or memcached.
    pub redis: bool,
    /// The password that servers are told and clients must tell.
    pub redis_auth: Option<String>,
    /// The database of the servers.
    pub redis_db: u32,
    /// Connect at the start, not at the first request.
    pub preconnect: bool,
    /// Take a server that fails out of the ring.
    pub auto_eject_hosts: bool,
    /// What happens to its keys meanwhile.
    pub eject_policy: EjectPolicy,
    /// How long an ejected server stays out before it is probed.
    pub server_retry_timeout: Duration,
    /// So many failures running eject it.
    pub server_failure_limit: u32,
    /// Connections to each server, from each event thread.
    pub server_connections: usize,
    /// Commands held back, while others are on their way to the same server, to travel together.
    pub batch: usize,
    /// Whether the kernel probes idle connections to the servers.
    pub tcpkeepalive: bool,
    /// Whether memcached's `flush_all` reaches the servers.
    pub memcached_flush_all: bool,
    /// What becomes of memcached's requests for several keys when some of their servers fail.
    pub multiget_policy: MultigetPolicy,
    /// Bytes of requests and replies that may be kept on all threads together.
    pub memory: usize,
    /// What takes longer is put in the slow log. `None`: nothing is.
    pub slowlog: Option<Duration>,
    /// The servers.
    pub servers: Vec<ServerSource>,
}

impl PoolSource {
    /// A pool of that name and those servers, with twemproxy's defaults for all else.
    #[must_use]
    pub fn new(name: &str, servers: Vec<ServerSource>) -> Self {
        Self {
            name: name.into(),
            hash: Hash::default(),
            hash_tag: None,
            distribution: Distribution::default(),
            timeout: None,
            timeouts: Timeouts::default(),
            client_connections: None,
            redis: false,
            redis_auth: None,
            redis_db: 0,
            preconnect: false,
            auto_eject_hosts: false,
            eject_policy: EjectPolicy::default(),
            server_retry_timeout: Duration::from_secs(30),
            server_failure_limit: 2,
            server_connections: 1,
            batch: BATCH,
            tcpkeepalive: false,
            memcached_flush_all: false,
            multiget_policy: MultigetPolicy::default(),
            memory: MEMORY,
            slowlog: None,
            servers,
        }
    }
}

/// How many commands are held back unless the pool says otherwise. Measured: 8 to 16 cost the least.
pub const BATCH: usize = 16;
/// Bytes that a pool may keep unless it says otherwise.
pub const MEMORY: usize = 256 << 20;
/// The most connections to one server from one thread.
pub const SERVER_CONNECTIONS_MAX: usize = 64;

/// Why a pool cannot be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PlanError {
    /// It has no server.
    NoServers(String),
    /// `server_connections` is 0 or beyond [`SERVER_CONNECTIONS_MAX`].
    ServerConnections(String, usize),
    /// `redis_auth` or `redis_db` of a pool that is not Redis.
    RedisOnly(String, &'static str),
    /// What this version cannot do.
    NotAvailable(String, &'static str),
    /// Two servers bear this name.
    TwoServers(String, String),
    /// No ring can be built of the servers.
    Ring(String, hashring::ContinuumError),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServers(pool) => write!(f, "pool \"{pool}\" has no servers"),
            Self::ServerConnections(pool, count) => {
                write!(f, "pool \"{pool}\": server_connections is {count}, 1 to {SERVER_CONNECTIONS_MAX} are allowed")
            }
            Self::RedisOnly(pool, key) => write!(f, "pool \"{pool}\": {key} needs redis: true"),
            Self::NotAvailable(pool, what) => write!(f, "pool \"{pool}\": there is no {what}"),
            Self::TwoServers(pool, name) => write!(f, "pool \"{pool}\" has two servers of the name \"{name}\""),
            Self::Ring(pool, error) => write!(f, "pool \"{pool}\": {error}"),
        }
    }
}

impl std::error::Error for PlanError {}

/// A server, ready for use.
#[derive(Debug)]
pub(crate) struct ServerPlan {
    pub(crate) name: String,
    pub(crate) weight: u32,
    pub(crate) address: Address,
    /// What the threads that use it have found of it.
    pub(crate) standing: OnceLock<Arc<Standing>>,
}

/// A pool, ready for use.
#[derive(Debug)]
pub(crate) struct PoolPlan {
    pub(crate) source: PoolSource,
    pub(crate) protocol: Protocol,
    pub(crate) servers: Vec<ServerPlan>,
    /// How long a request may take, by its [`Class`].
    limits: [Option<Duration>; 4],
}

impl PoolPlan {
    /// How long a request of this kind may take.
    #[inline]
    pub(crate) fn limit(&self, class: Class) -> Option<Duration> {
        self.limits[class as usize]
    }

    /// Whether a request may be due before one that was asked earlier.
    pub(crate) fn limits_differ(&self) -> bool {
        self.limits.iter().any(|limit| *limit != self.limits[0])
    }

    /// Whether some requests wait as long as it takes.
    pub(crate) fn waits_for_ever(&self) -> bool {
        self.limits.contains(&None)
    }

    /// How long a server may take for one request before it is thought to be ill: the pool's `timeout` or, without one,
    /// the longest time of a kind of requests.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.source.timeout.or_else(|| self.limits.into_iter().flatten().max())
    }

    /// The ring over the live servers.
    pub(crate) fn ring(&self, live: impl Fn(usize) -> bool) -> Result<Continuum, hashring::ContinuumError> {
        let servers: Vec<_> =
            self.servers.iter().map(|server| Server { name: &server.name, weight: server.weight }).collect();
        let source = &self.source;
        let rules = Rules { hash: source.hash, distribution: source.distribution, tag: source.hash_tag };
        Continuum::build(&servers, rules, live)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Plan {
    pub(crate) pools: Vec<Arc<PoolPlan>>,
    /// Bytes of requests and replies that all pools together may keep.
    pub(crate) memory: usize,
}

impl Plan {
    /// Judges the pools, which together may keep as much as each of them may.
    ///
    /// # Errors
    /// The first thing that cannot be.
    pub fn prepare(pools: Vec<PoolSource>) -> Result<Arc<Self>, PlanError> {
        Self::prepare_within(pools, usize::MAX)
    }

    /// Judges the pools, which together may keep so many bytes of requests and replies.
    ///
    /// # Errors
    /// The first thing that cannot be.
    pub fn prepare_within(pools: Vec<PoolSource>, memory: usize) -> Result<Arc<Self>, PlanError> {
        let pools = pools.into_iter().map(|pool| prepare(pool).map(Arc::new)).collect::<Result<_, _>>()?;
        Ok(Arc::new(Self { pools, memory }))
    }

    /// The pools' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pools.iter().map(|pool| pool.source.name.as_str())
    }
}

fn prepare(source: PoolSource) -> Result<PoolPlan, PlanError> {
    let name = || source.name.clone();
    if source.servers.is_empty() {
        return Err(PlanError::NoServers(name()));
    }
    if source.server_connections == 0 || source.server_connections > SERVER_CONNECTIONS_MAX {
        return Err(PlanError::ServerConnections(name(), source.server_connections));
    }
    if !source.redis && source.redis_auth.is_some() {
        return Err(PlanError::RedisOnly(name(), "redis_auth"));
    }
    if !source.redis && source.redis_db != 0 {
        return Err(PlanError::RedisOnly(name(), "redis_db"));
    }
    let servers: Vec<_> = source.servers.iter().map(server).collect();
    for (at, server) in servers.iter().enumerate() {
        if servers[..at].iter().any(|other| other.name == server.name) {
            return Err(PlanError::TwoServers(name(), server.name.clone()));
        }
    }
    let protocol = if source.redis { Protocol::Redis } else { Protocol::Memcached };
    let Timeouts { read, write, split, script } = source.timeouts;
    let limits = [read, write, split, script].map(|own| own.or(source.timeout));
    let plan = PoolPlan { protocol, servers, limits, source };
    match plan.ring(|_| true) {
        Ok(_) => Ok(plan),
        Err(error) => Err(PlanError::Ring(plan.source.name, error)),
    }
}

fn server(source: &ServerSource) -> ServerPlan {
    let name = source.name.clone().unwrap_or_else(|| match &source.address {
        Address::Ip(ip, port) => default_name(&ip.to_string(), *port).into_owned(),
        Address::Name(host, port) => default_name(host, *port).into_owned(),
        // As twemproxy was seen to do: it takes the colon before the weight with it.
        Address::Unix(path) => format!("{}:", path.display()),
    });
    ServerPlan { name, weight: source.weight, address: source.address.clone(), standing: OnceLock::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(ports: &[u16]) -> PoolSource {
        let server = |port: &u16| ServerSource {
            address: Address::Ip(IpAddr::from([127, 0, 0, 1]), *port),
            weight: 1,
            name: None,
        };
        PoolSource::new("alpha", ports.iter().map(server).collect())
    }

    #[test]
    fn a_pool_that_cannot_be_is_refused_by_name() {
        assert_eq!(Plan::prepare(vec![pool(&[])]).unwrap_err().to_string(), "pool \"alpha\" has no servers");
        let twice = Plan::prepare(vec![pool(&[6379, 6379])]).unwrap_err();
        assert_eq!(twice, PlanError::TwoServers("alpha".into(), "127.0.0.1:6379".into()));
        let many = PoolSource { server_connections: 0, ..pool(&[1]) };
        assert_eq!(Plan::prepare(vec![many]).unwrap_err(), PlanError::ServerConnections("alpha".into(), 0));
        let auth = PoolSource { redis_auth: Some("x".into()), ..pool(&[1]) };
        assert_eq!(Plan::prepare(vec![auth]).unwrap_err(), PlanError::RedisOnly("alpha".into(), "redis_auth"));
        assert!(Plan::prepare(vec![pool(&[1, 2])]).is_ok());
    }
}

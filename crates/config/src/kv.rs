//! The key-value proxy's settings: pools of servers, whichever of two files they are written in.
//!
//! `rows` is their part of the table, `text` reads what is written as one text (listeners, servers), `build` takes the
//! settings to the types here, `check` judges pools as a whole. [`nutcracker`] reads twemproxy's own file to the same
//! types, with that program's strictness and defaults. Nothing here connects, resolves or hashes.
//!
//! Start at [`KvPool`].

pub(crate) mod build;
pub(crate) mod check;
pub mod nutcracker;
pub(crate) mod rows;
pub(crate) mod text;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use base::ByteCount;

use crate::choice::{EjectPolicy, KvDistribution, KvHash, MultigetPolicy};
use crate::diagnostic::Spanned;

/// Pools that have numbers of their own; those of all others are counted together.
pub const COUNTED_POOLS_MAX: usize = 64;
/// Servers that have numbers of their own, of all those pools together and in the order of the file; those of all others
/// are counted together.
pub const COUNTED_SERVERS_MAX: usize = 128;

/// `kv`: the key-value proxy. Empty when nothing is configured.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Kv {
    /// twemproxy's stats port; none: it is not served.
    pub stats: Option<KvStats>,
    /// How many bytes of requests and replies all pools may keep at a time; none: a share of what the machine has.
    pub memory: Option<ByteCount>,
    /// The pools, in the order of the file.
    pub pools: Vec<KvPool>,
}

impl Kv {
    /// The pool of that name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&KvPool> {
        self.pools.iter().find(|pool| pool.name.value == name)
    }
}

/// `kv.stats`: twemproxy's stats port, which writes one JSON line to whoever connects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KvStats {
    /// Where it listens.
    pub listen: Spanned<SocketAddr>,
    /// How old the numbers may be.
    pub interval: Duration,
}

/// One pool: a listener, and servers that share its keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KvPool {
    /// Its name in the file, in messages and in numbers; its place is the pool's.
    pub name: Spanned<String>,
    /// Where its clients connect.
    pub listen: Spanned<KvListen>,
    /// What turns a key into 32 bits, where the distribution does not do that by itself.
    pub hash: Spanned<KvHash>,
    /// The two bytes between which the hashed part of a key stands; none: all of the key is hashed.
    pub hash_tag: Option<[u8; 2]>,
    /// How the hash chooses a server.
    pub distribution: KvDistribution,
    /// A request's whole time, queueing and connecting included. None, for ever: only from twemproxy's own file.
    pub timeout: Option<Duration>,
    /// Other times for requests of a kind.
    pub timeouts: KvTimeouts,
    /// How many connections may wait in the kernel to be accepted.
    pub backlog: u32,
    /// Client connections at a time; none: no limit of its own.
    pub client_connections: Option<u32>,
    /// Whether it speaks Redis' protocol; else memcached's.
    pub redis: bool,
    /// The password that servers are sent and clients must give. Never empty.
    pub redis_auth: Option<Password>,
    /// The database selected on every server connection.
    pub redis_db: u32,
    /// Whether servers are connected at start, before anybody asks.
    pub preconnect: bool,
    /// Whether connections are probed by the kernel while idle.
    pub tcpkeepalive: bool,
    /// Whether other processes may listen on the same address.
    pub reuseport: bool,
    /// Connections to each server, for each event thread. At least 1.
    pub server_connections: u32,
    /// Whether failing servers are taken out.
    pub auto_eject_hosts: bool,
    /// How long an ejected server stays out before it is probed.
    pub server_retry_timeout: Duration,
    /// Failures in a row that eject a server. At least 1.
    pub server_failure_limit: u32,
    /// What happens to the keys of an ejected server.
    pub eject_policy: EjectPolicy,
    /// Whether memcached's `flush_all` reaches the servers.
    pub memcached_flush_all: bool,
    /// What becomes of memcached's requests for several keys when some of their servers fail.
    pub multiget_policy: MultigetPolicy,
    /// How many bytes of requests and replies it may keep at a time.
    pub memory: ByteCount,
    /// What takes longer is put in the slow log. Zero: nothing is.
    pub slowlog: Duration,
    /// The servers, in the order of the file; never empty. No two have the same [`KvServer::ring_name`].
    pub servers: Vec<Spanned<KvServer>>,
}

/// Other times than a pool's `timeout` for requests of a kind. None: as that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KvTimeouts {
    /// Requests that read.
    pub read: Option<Duration>,
    /// Requests that may change something.
    pub write: Option<Duration>,
    /// Requests that go to several servers in parts.
    pub split: Option<Duration>,
    /// Scripts and functions.
    pub script: Option<Duration>,
}

/// Where the clients of a pool connect.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum KvListen {
    /// An address and a port. Port 0 is any free port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix {
        /// Its path; what is there already is replaced when it is a socket.
        path: PathBuf,
        /// Its permissions, at most 0o777; none: as the umask has it.
        mode: Option<u32>,
    },
}

impl fmt::Display for KvListen {
    /// As it is written in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { path, mode: None } => path.display().fmt(f),
            Self::Unix { path, mode: Some(mode) } => write!(f, "{} {mode:04o}", path.display()),
        }
    }
}

/// One server of a pool.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct KvServer {
    /// Where it is.
    pub address: KvAddress,
    /// Its share relative to the others', at least 1.
    pub weight: u32,
    /// The name it was given. What places its keys is [`ring_name`](Self::ring_name).
    pub name: Option<String>,
}

/// Where a server is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum KvAddress {
    /// A name or IP address, and a port.
    Tcp {
        /// The name, to be resolved when it is connected to; an IPv6 address is without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl KvServer {
    /// What the server is called in hashing, in numbers and in messages: its name or, without one, `host:port`, at
    /// memcached's port 11211 just `host`, and for a Unix socket its path and a colon, as twemproxy was seen to do.
    #[must_use]
    pub fn ring_name(&self) -> Cow<'_, str> {
        match (&self.name, &self.address) {
            (Some(name), _) => Cow::Borrowed(name),
            (None, KvAddress::Tcp { host, port: PORT_WITHOUT_SUFFIX }) => Cow::Borrowed(host),
            (None, KvAddress::Tcp { host, port }) => Cow::Owned(format!("{host}:{port}")),
            (None, KvAddress::Unix(path)) => Cow::Owned(format!("{}:", path.display())),
        }
    }
}

/// libmemcached leaves this port out of a server's name.
const PORT_WITHOUT_SUFFIX: u16 = 11_211;

impl fmt::Display for KvAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A password: shown to nobody, not even in a panic's message.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// The password itself, to be sent or compared (in constant time).
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_a_name_is_called_by_its_address_as_twemproxy_does() {
        let name = |text: &str| text::server("servers", text).unwrap().ring_name().into_owned();
        assert_eq!(name("127.0.0.1:6379:1"), "127.0.0.1:6379");
        assert_eq!(name("127.0.0.1:11211:1"), "127.0.0.1");
        assert_eq!(name("127.0.0.1:06379:1"), "127.0.0.1:06379");
        assert_eq!(name("127.0.0.1:011211:1"), "127.0.0.1");
        assert_eq!(name("/tmp/x.sock:1"), "/tmp/x.sock:");
        assert_eq!(name("/tmp/x.sock:1 n"), "n");
        assert_eq!(name("::1:6379:1"), "::1:6379");
    }

    #[test]
    fn a_password_is_not_shown() {
        assert!(!format!("{:?}", Password::new("open sesame".to_owned())).contains("sesame"));
    }
}

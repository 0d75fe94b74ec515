//! Listening sockets that outlive the processes which accept from them: their names, and how they are handed over.
//!
//! Manager binds, server and cop hold copies. A listener is known by its [`ListenerName`]: what it is for, and the
//! address as configured (which, for port 0, is not the address it has). On a command line it is
//! `PORT:fd=NUMBER`, several separated by commas, in the order of the configuration; a Unix socket's port is 0.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use config::kv::KvListen;
use serde::{Deserialize, Serialize};

/// Listeners that one Beltway has at most.
pub const LISTENERS_MAX: usize = sys::ancillary::DESCRIPTORS_MAX;

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", from = "String")]
pub enum ListenerKind {
    /// HTTP clients.
    Http,
    /// The server's own page.
    Server,
    /// The embedded origin.
    Demo,
    /// Clients of a key-value pool.
    Kv,
    /// The key-value engine's stats port.
    KvStats,
    /// The embedded Redis store.
    DemoRedis,
    /// The embedded memcached store.
    DemoMemcached,
    /// Manager's admin port.
    Admin,
    /// One that a process of a later version has a name for.
    Unknown,
}

/// As others say it: with words that we may not know.
impl From<String> for ListenerKind {
    fn from(word: String) -> Self {
        match word.as_str() {
            "http" => Self::Http,
            "server" => Self::Server,
            "demo" => Self::Demo,
            "kv" => Self::Kv,
            "kv_stats" => Self::KvStats,
            "demo_redis" => Self::DemoRedis,
            "demo_memcached" => Self::DemoMemcached,
            "admin" => Self::Admin,
            _ => Self::Unknown,
        }
    }
}

impl ListenerKind {
    /// Those that the server accepts from, in the order in which they are handed to it.
    pub const OF_SERVER: [Self; 7] =
        [Self::Http, Self::Server, Self::Demo, Self::Kv, Self::KvStats, Self::DemoRedis, Self::DemoMemcached];

    /// As it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Server => "server",
            Self::Demo => "demo",
            Self::Kv => "kv",
            Self::KvStats => "kv-stats",
            Self::DemoRedis => "demo-redis",
            Self::DemoMemcached => "demo-memcached",
            Self::Admin => "admin",
            Self::Unknown => "unknown",
        }
    }

    /// The server accepts from it.
    #[must_use]
    pub const fn is_servers(self) -> bool {
        !matches!(self, Self::Admin | Self::Unknown)
    }
}

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Place {
    /// An address and a port.
    Ip(SocketAddr),
    /// A Unix socket.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Its permissions, when they are not left to the umask.
        mode: Option<u32>,
    },
}

impl Place {
    /// Whether a listener there is a listener here, whatever its permissions.
    #[must_use]
    pub fn is_at(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix { path: one, .. }, Self::Unix { path: other, .. }) => one == other,
            _ => self == other,
        }
    }

    /// The port; 0 for a Unix socket.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Ip(address) => address.port(),
            Self::Unix { .. } => 0,
        }
    }

    /// The address; `None` for a Unix socket.
    #[must_use]
    pub const fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix { .. } => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix { path, .. } => path.display().fmt(f),
        }
    }
}

/// Which listener is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerName {
    /// What it is for.
    pub kind: ListenerKind,
    /// Its place among those of its kind.
    pub index: usize,
    /// The address as configured.
    pub configured: Place,
    /// How many connections may wait in its queue.
    pub backlog: u32,
    /// Of a pool: its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Other processes may listen on the same address.
    #[serde(default)]
    pub beside: bool,
}

impl ListenerName {
    /// One that is no pool's.
    #[must_use]
    pub const fn new(kind: ListenerKind, index: usize, configured: SocketAddr, backlog: u32) -> Self {
        Self { kind, index, configured: Place::Ip(configured), backlog, pool: None, beside: false }
    }

    /// Whether a listener of that name can stand in for one of this.
    #[must_use]
    pub fn is_met_by(&self, other: &Self) -> bool {
        self.kind == other.kind && self.configured.is_at(&other.configured) && self.beside == other.beside
    }
}

/// A listener that we hold.
#[derive(Debug)]
pub struct Listener {
    /// Which it is.
    pub name: ListenerName,
    /// The socket.
    pub fd: OwnedFd,
}

impl Listener {
    /// Binds and listens.
    ///
    /// # Errors
    /// What the kernel says: the address is taken, or not ours.
    pub fn bind(name: ListenerName) -> std::io::Result<Self> {
        let fd = match &name.configured {
            Place::Ip(address) => sys::socket::listen_beside(*address, name.backlog, name.beside)?,
            Place::Unix { path, mode } => sys::socket::listen_unix(path, *mode, name.backlog)?,
        };
        Ok(Self { name, fd })
    }

    /// The address it is bound to.
    #[must_use]
    pub fn address(&self) -> Place {
        // The socket was bound by us or handed over as a listener; a kernel that cannot say leaves what was asked for.
        let bound = sys::socket::local_address(&self.fd).ok().flatten();
        bound.map_or_else(|| self.name.configured.clone(), Place::Ip)
    }

    /// Gives the socket what is configured for `name` instead of what it was bound with.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn renamed(self, name: ListenerName) -> std::io::Result<Self> {
        if self.name.backlog != name.backlog {
            rustix::net::listen(&self.fd, i32::try_from(name.backlog).unwrap_or(i32::MAX))?;
        }
        if let Place::Unix { path, mode: Some(mode) } = &name.configured
            && self.name.configured != name.configured
        {
            sys::socket::set_mode(path, *mode)?;
        }
        Ok(Self { name, fd: self.fd })
    }
}

/// Every listener that `config` asks for, in its order.
#[must_use]
pub fn wanted(config: &config::Config) -> Vec<ListenerName> {
    const BACKLOG: u32 = 128; // for the few who ask a page or an admin port
    const STORE_BACKLOG: u32 = 512; // of the demonstration stores: their clients are our own event threads
    let one = |kind, address: &Option<config::Spanned<SocketAddr>>, backlog| {
        address.as_ref().map(|address| ListenerName::new(kind, 0, address.value, backlog))
    };
    let http = config.http.listen.iter().enumerate().map(|(index, listener)| {
        ListenerName::new(ListenerKind::Http, index, listener.address.value, listener.backlog)
    });
    let pools = config.kv.pools.iter().enumerate().map(|(index, pool)| ListenerName {
        kind: ListenerKind::Kv,
        index,
        configured: match &pool.listen.value {
            KvListen::Tcp(address) => Place::Ip(*address),
            KvListen::Unix { path, mode } => Place::Unix { path: path.clone(), mode: *mode },
        },
        backlog: pool.backlog,
        pool: Some(pool.name.value.clone()),
        beside: pool.reuseport,
    });
    let stats =
        config.kv.stats.as_ref().map(|stats| ListenerName::new(ListenerKind::KvStats, 0, stats.listen.value, BACKLOG));
    http.chain(one(ListenerKind::Server, &config.server.listen, BACKLOG))
        .chain(one(ListenerKind::Demo, &config.demo.origin, BACKLOG))
        .chain(pools)
        .chain(stats)
        .chain(one(ListenerKind::DemoRedis, &config.demo.redis, STORE_BACKLOG))
        .chain(one(ListenerKind::DemoMemcached, &config.demo.memcached, STORE_BACKLOG))
        .chain(one(ListenerKind::Admin, &config.admin.listen, BACKLOG))
        .collect()
}

/// Says which of these listeners have a longer queue configured than the kernel allows.
pub fn warn_of_cut_queues(listeners: &[Listener]) {
    let Some(allowed) = sys::queue::allowed() else { return };
    for Listener { name, .. } in listeners.iter().filter(|listener| listener.name.backlog > allowed) {
        crate::warn!(
            "{} {}: of its backlog of {} the kernel allows {allowed}: raise net.core.somaxconn",
            name.kind.as_str(),
            name.configured,
            name.backlog
        );
    }
}

/// Pairs names and descriptors that came in one packet.
///
/// # Errors
/// Their numbers differ: nothing of it can be trusted.
pub fn paired(names: Vec<ListenerName>, fds: Vec<OwnedFd>) -> Result<Vec<Listener>, String> {
    if names.len() != fds.len() {
        return Err(format!("{} listeners were named and {} came", names.len(), fds.len()));
    }
    Ok(names.into_iter().zip(fds).map(|(name, fd)| Listener { name, fd }).collect())
}

/// A descriptor promised on a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promised {
    /// The port it is bound to; 0 when it does not matter.
    pub port: u16,
    /// Its number.
    pub fd: RawFd,
}

/// Why a text is no list of promised descriptors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{item}` is not PORT:fd=NUMBER, such as 8080:fd=9")]
pub struct PromiseError {
    /// The part that is wrong.
    pub item: String,
}

/// Reads `8080:fd=9,8443:fd=10`.
///
/// # Errors
/// The first part that is something else.
pub fn parse_promised(text: &str) -> Result<Vec<Promised>, PromiseError> {
    let parse = |item: &str| {
        let (port, fd) = item.split_once(":fd=")?;
        // `parse` alone would take a sign.
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        (digits(port) && digits(fd)).then_some(())?;
        Some(Promised { port: port.parse().ok()?, fd: fd.parse().ok()? })
    };
    text.split(',').map(|item| parse(item).ok_or_else(|| PromiseError { item: item.to_owned() })).collect()
}

/// Writes what [`parse_promised`] reads.
#[must_use]
pub fn format_promised(promised: &[Promised]) -> String {
    promised.iter().map(|p| format!("{}:fd={}", p.port, p.fd)).collect::<Vec<_>>().join(",")
}

/// The option that hands a listener of this kind to a server; `None` for one that the server does not accept from.
#[must_use]
pub const fn option(kind: ListenerKind) -> Option<&'static str> {
    match kind {
        ListenerKind::Http => Some("--httpport"),
        ListenerKind::Server => Some("--serverport"),
        ListenerKind::Demo => Some("--demoport"),
        ListenerKind::Kv => Some("--kvport"),
        ListenerKind::KvStats => Some("--kvstatsport"),
        ListenerKind::DemoRedis => Some("--demoredisport"),
        ListenerKind::DemoMemcached => Some("--demomemcachedport"),
        ListenerKind::Admin | ListenerKind::Unknown => None,
    }
}

/// The server's command line and descriptors for some listeners: the first gets number `first`, and so on.
#[must_use]
pub fn promise(listeners: &[Listener], first: RawFd) -> (Vec<String>, Vec<(BorrowedFd<'_>, RawFd)>) {
    let mut arguments = Vec::new();
    let mut descriptors = Vec::new();
    let mut number = first;
    for kind in ListenerKind::OF_SERVER {
        let mut promised = Vec::new();
        for listener in listeners.iter().filter(|l| l.name.kind == kind) {
            promised.push(Promised { port: listener.address().port(), fd: number });
            descriptors.push((listener.fd.as_fd(), number));
            number += 1;
        }
        if let (Some(option), false) = (option(kind), promised.is_empty()) {
            arguments.push(option.to_owned());
            arguments.push(format_promised(&promised));
        }
    }
    (arguments, descriptors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(kind: ListenerKind, index: usize) -> Listener {
        let configured = "127.0.0.1:0".parse().unwrap();
        Listener::bind(ListenerName::new(kind, index, configured, 16)).unwrap()
    }

    #[test]
    fn a_list_of_descriptors_reads_back_as_it_was_written() {
        let promised = parse_promised("8080:fd=9,8443:fd=10").unwrap();
        assert_eq!(promised, [Promised { port: 8080, fd: 9 }, Promised { port: 8443, fd: 10 }]);
        assert_eq!(format_promised(&promised), "8080:fd=9,8443:fd=10");
        for wrong in ["", "8080", "8080:fd=", ":fd=3", "8080:fd=-1", "+80:fd=3", "99999:fd=3", "80:fd=3,", "80:fd=3 "] {
            assert!(parse_promised(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(
            parse_promised("80:fd=3,x").unwrap_err().to_string(),
            "`x` is not PORT:fd=NUMBER, such as 8080:fd=9"
        );
    }

    #[test]
    fn the_server_is_promised_its_own_listeners_and_not_the_admin_port() {
        let listeners = [
            listener(ListenerKind::Http, 0),
            listener(ListenerKind::Http, 1),
            listener(ListenerKind::Server, 0),
            listener(ListenerKind::Admin, 0),
        ];
        let (arguments, descriptors) = promise(&listeners, 9);
        let ports: Vec<_> = listeners.iter().map(|l| l.address().port()).collect();
        assert_eq!(
            arguments,
            [
                "--httpport".to_owned(),
                format!("{}:fd=9,{}:fd=10", ports[0], ports[1]),
                "--serverport".to_owned(),
                format!("{}:fd=11", ports[2]),
            ]
        );
        assert_eq!(descriptors.iter().map(|d| d.1).collect::<Vec<_>>(), [9, 10, 11]);
    }

    #[test]
    fn every_kind_is_understood_by_the_word_it_is_told_by() {
        for kind in ListenerKind::OF_SERVER.into_iter().chain([ListenerKind::Admin, ListenerKind::Unknown]) {
            let word = serde_json::to_string(&kind).unwrap();
            assert_eq!(serde_json::from_str::<ListenerKind>(&word).unwrap(), kind, "{word}");
        }
    }

    #[test]
    fn names_without_their_descriptors_are_refused() {
        let listener = listener(ListenerKind::Http, 0);
        assert!(paired(vec![listener.name.clone()], vec![]).is_err());
        assert_eq!(paired(vec![listener.name], vec![listener.fd]).unwrap().len(), 1);
    }
}

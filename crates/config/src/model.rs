//! The configuration as the program sees it: typed, complete, with the places of what may yet be judged.
//!
//! Start at [`Config`]. It is immutable; share it in an `Arc`. What a value may be is said once, in `table.rs`.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use base::ByteCount;
use ipnet::IpNet;

use crate::choice::{Balance, Forwarded, HostHeader, Io, Level, LogFormat};
use crate::diagnostic::{Diagnostic, Place, Severity, Source, Spanned};
use crate::kv::{self, Kv};
use crate::read::Settings;
use crate::remap::{OriginUrl, RemapFrom};
use crate::table::{Applied, TABLE};

/// The whole configuration. Two are equal when all their values are, wherever they are written.
#[derive(Clone, Debug)]
pub struct Config {
    /// Lock files, control socket, shared numbers.
    pub runtime_dir: PathBuf,
    /// Whom to become at the start; none: whoever started it.
    pub user: Option<String>,
    /// Event threads of the server.
    pub threads: Threads,
    /// Whether each of them is tied to a core of its own.
    pub pin_threads: bool,
    /// How event threads do their I/O.
    pub io: Io,
    /// The log of what the processes do.
    pub log: Log,
    /// Manager's port for operators.
    pub admin: Admin,
    /// The server process by itself.
    pub server: Server,
    /// The embedded origin and stores.
    pub demo: Demo,
    /// The HTTP proxy.
    pub http: Http,
    /// The key-value proxy.
    pub kv: Kv,
    /// The cache of HTTP responses.
    pub cache: Cache,
    /// Resolution of origin names.
    pub names: Names,
    /// How the processes watch each other.
    pub supervise: Supervise,
    pub(crate) settings: Settings,
    pub(crate) source: Source,
    pub(crate) warnings: Vec<Diagnostic>,
}

/// How many event threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Threads {
    /// One for each core available to the process.
    Auto,
    /// So many.
    Count(NonZeroUsize),
}

/// `log`: what the processes tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// How much.
    pub level: Level,
    /// Where to.
    pub file: LogFile,
}

/// Where lines go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogFile {
    /// Standard error.
    Stderr,
    /// A file, appended to.
    Path(PathBuf),
}

/// `admin`: manager's port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admin {
    /// Where it listens; none: nowhere.
    pub listen: Option<Spanned<SocketAddr>>,
    /// Where the token for changes is; none: it only reads.
    pub token_file: Option<PathBuf>,
}

/// `server`: the server by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// Where it answers /healthz and /metrics; none: nowhere.
    pub listen: Option<Spanned<SocketAddr>>,
    /// How long open requests may take when it stops.
    pub drain_timeout: Duration,
    /// A second one stands by.
    pub standby: bool,
    /// How long readiness fails before it stops accepting.
    pub drain_delay: Duration,
}

/// `demo`: the embedded origin and stores.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Demo {
    /// Where the origin listens; none: it does not run.
    pub origin: Option<Spanned<SocketAddr>>,
    /// Where the Redis store listens; none: it does not run.
    pub redis: Option<Spanned<SocketAddr>>,
    /// Where the memcached store listens; none: it does not run.
    pub memcached: Option<Spanned<SocketAddr>>,
}

/// `cache`: the cache of HTTP responses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cache {
    /// All memory of it; zero: there is none.
    pub ram: ByteCount,
    /// How long a stale response may stand in for an origin that cannot be reached.
    pub stale_if_unreachable: Duration,
}

/// `http`: the HTTP proxy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Http {
    /// Where clients connect.
    pub listen: Vec<HttpListener>,
    /// From request to origin; the first rule that matches is taken.
    pub remap: Vec<RemapRule>,
    /// A line for each request; none: no log.
    pub access_log: Option<AccessLog>,
    /// How long each wait may take.
    pub timeouts: HttpTimeouts,
    /// How much of each thing there may be.
    pub limits: HttpLimits,
    /// Who may purge.
    pub allow: Vec<IpNet>,
    /// The pseudonym in Via: a token of RFC 9110.
    pub via: String,
    /// How an origin is told who the client is.
    pub forwarded: Forwarded,
}

/// One item of `http.listen`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpListener {
    /// Where. Port 0 is any free port.
    pub address: Spanned<SocketAddr>,
    /// How many connections may wait in the kernel to be accepted.
    pub backlog: u32,
}

/// One item of `http.remap`. Two are equal when their values are.
#[derive(Clone, Debug)]
pub struct RemapRule {
    /// Which requests it is for.
    pub from: Spanned<RemapFrom>,
    /// The origins; never empty.
    pub to: Vec<Spanned<OriginUrl>>,
    /// How to choose among them.
    pub balance: Balance,
    /// The Host they receive.
    pub host_header: HostHeader,
    /// Whether responses are stored.
    pub cache: bool,
    /// Where the rule begins in the file.
    pub place: Place,
}

impl PartialEq for RemapRule {
    fn eq(&self, other: &Self) -> bool {
        self.from == other.from
            && self.to == other.to
            && self.balance == other.balance
            && self.host_header == other.host_header
            && self.cache == other.cache
    }
}

impl Eq for RemapRule {}

/// `http.access_log`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessLog {
    /// Where the lines go.
    pub file: LogFile,
    /// The shape of a line.
    pub format: LogFormat,
}

/// `http.timeouts`: none is zero, none is without end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpTimeouts {
    /// From the first byte of a request to the end of its head; from connecting to the first request.
    pub request_head: Duration,
    /// A client connection idle between two requests.
    pub keep_alive: Duration,
    /// No byte of an incomplete request body.
    pub client_idle: Duration,
    /// The client takes no byte.
    pub client_send: Duration,
    /// A connection to an origin is being established.
    pub origin_connect: Duration,
    /// Request sent, no byte of the answer yet.
    pub origin_response: Duration,
    /// No byte of an incomplete answer.
    pub origin_idle: Duration,
    /// The origin takes no byte.
    pub origin_send: Duration,
    /// A pooled origin connection idle.
    pub origin_keep_alive: Duration,
    /// The origin has not answered `Expect: 100-continue`.
    pub expect_continue: Duration,
}

/// `http.limits`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpLimits {
    /// Client connections at a time; none: what the limit on open files allows, less a reserve.
    pub connections: Option<usize>,
    /// Size of a head, request or response.
    pub head_size: ByteCount,
    /// Field lines in a head.
    pub head_fields: usize,
    /// Bytes of one body on their way, in one direction.
    pub body_window: ByteCount,
    /// Pipelined requests answered before other connections have their turn.
    pub pipeline: usize,
    /// Idle origin connections an event thread keeps.
    pub origin_idle_per_thread: usize,
    /// Idle origin connections shared among event threads.
    pub origin_idle_shared: usize,
    /// Tries for one request.
    pub origin_attempts: u32,
    /// Bytes of a request body kept for another try.
    pub request_body_replay: ByteCount,
}

/// `names`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names {
    /// How long an answer is used.
    pub ttl: Duration,
    /// How long a failure is remembered.
    pub negative_ttl: Duration,
    /// How long a request waits for an answer.
    pub timeout: Duration,
    /// How long after its ttl an answer is used while no newer one can be had.
    pub stale: Duration,
}

/// `supervise`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Supervise {
    /// Between two questions for a sign of life.
    pub heartbeat_interval: Duration,
    /// Without a sign of life, although it had the processor, a process is replaced after this.
    pub hang_timeout: Duration,
    /// A new process must be ready within this.
    pub start_timeout: Duration,
    /// A process told to stop is killed after this. Longer than `server.drain_delay` and `server.drain_timeout` together.
    pub stop_timeout: Duration,
    /// The longest pause before a dying process is started again.
    pub respawn_backoff_max: Duration,
}

impl Config {
    /// An error at `place` of the file this was read from, for whoever judges a value further than its reader could.
    #[must_use]
    pub fn diagnose(&self, place: Place, message: impl Into<String>, hint: impl Into<Option<String>>) -> Diagnostic {
        self.source.diagnostic(Severity::Error, place, message.into(), hint.into())
    }

    /// The text this was read from, without a byte order mark.
    #[must_use]
    pub fn source_text(&self) -> &str {
        &self.source.text
    }

    /// The file this was read from, as it was named.
    #[must_use]
    pub fn file_name(&self) -> &str {
        &self.source.file
    }

    /// What is allowed and yet probably not meant, in the order of the file.
    #[must_use]
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// The keys whose values differ in `new` and take effect only in new processes, in the order of the table.
    #[must_use]
    pub fn restart_needed(&self, new: &Self) -> Vec<&'static str> {
        self.changed(new).filter(|(_, applied)| *applied == Applied::Restart).map(|(path, _)| path).collect()
    }

    /// The keys whose values differ in `new`, and when each takes effect, in the order of the table. A list is one key, and
    /// so is a key that several pools have.
    pub fn changed(&self, new: &Self) -> impl Iterator<Item = (&'static str, Applied)> {
        TABLE
            .iter()
            .filter(|key| {
                kv::build::pool_key_changed(&self.settings, &new.settings, key)
                    .unwrap_or_else(|| self.settings.find(key.path) != new.settings.find(key.path))
            })
            .map(|key| (key.path, key.applied))
    }
}

impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        self.runtime_dir == other.runtime_dir && self.settings == other.settings
    }
}

impl fmt::Display for LogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => f.write_str("stderr"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

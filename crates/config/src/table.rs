//! The one table of keys: what exists, what it means, what it may be.
//!
//! The parser takes kinds, bounds and defaults from here, and so do `check --explain`, the reference page and the
//! verdict of a reload. A key that is not here does not exist; a key that is here is read in `build.rs`.
//!
//! Read [`Key`] first, then [`TABLE`]; what a value may be is [`Kind`]'s to say.

use std::fmt;
use std::time::Duration;

use base::ByteCount;

use crate::choice::{Balance, Forwarded, HostHeader, Io, Level, LogFormat};
use crate::kind::Kind;
use crate::kv;

/// One key of the file.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The dotted path; `[]` stands for each item of a list, as in `http.remap[].from`.
    pub path: &'static str,
    /// What its value is, with unit and bounds.
    pub kind: Kind,
    /// What it is when it is not written, as it would be written. None: it must be written, or it has keys below it.
    pub default: Option<&'static str>,
    /// When a changed value takes effect.
    pub applied: Applied,
    /// What it does, in a sentence or two.
    pub meaning: &'static str,
}

/// When a changed value takes effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// At the next reload, in the running server.
    Reload,
    /// Only in new processes.
    Restart,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reload => "reload",
            Self::Restart => "restart",
        })
    }
}

impl Key {
    /// The path of the section or list item this key stands in: empty at the top.
    #[must_use]
    pub fn parent(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(parent, _)| parent)
    }

    /// Whether whoever writes its section must write it.
    #[must_use]
    pub fn is_required(&self) -> bool {
        let can_be_left_out =
            matches!(self.kind, Kind::Section { .. } | Kind::HashTag | Kind::Secret | Kind::Unavailable);
        self.default.is_none() && !can_be_left_out
    }

    /// The last name of the path, as it is written in the file.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }
}

/// The row of `path`.
pub(crate) fn find(path: &str) -> Option<&'static Key> {
    TABLE.iter().find(|key| key.path == path)
}

/// The rows directly below `parent` (empty: the top), in the order of the table.
pub(crate) fn below(parent: &str) -> impl Iterator<Item = &'static Key> {
    TABLE.iter().filter(move |key| key.parent() == parent)
}

/// The largest head that can be asked for: a head and its end must fit one pooled 64 KiB block with room to spare.
const HEAD_MAX: u64 = 60 << 10;

/// The longest wait that can be asked for. Long enough for any use, and never without end.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

pub(crate) const fn section(path: &'static str, meaning: &'static str) -> Key {
    Key { path, kind: Kind::Section { off: false }, default: None, applied: Applied::Reload, meaning }
}

pub(crate) const fn key(
    path: &'static str,
    kind: Kind,
    default: &'static str,
    applied: Applied,
    meaning: &'static str,
) -> Key {
    Key { path, kind, default: Some(default), applied, meaning }
}

pub(crate) const fn required(path: &'static str, kind: Kind, applied: Applied, meaning: &'static str) -> Key {
    Key { path, kind, default: None, applied, meaning }
}

const fn later(path: &'static str, meaning: &'static str) -> Key {
    Key { path, kind: Kind::Unavailable, default: None, applied: Applied::Restart, meaning }
}

const fn wait(path: &'static str, default: &'static str, meaning: &'static str) -> Key {
    key(path, Kind::Duration { min: Duration::from_millis(10), max: WAIT_MAX }, default, Applied::Reload, meaning)
}

pub(crate) const fn count(min: u64, max: u64) -> Kind {
    Kind::Count { min, max, auto: false }
}

const fn count_or_auto(min: u64, max: u64) -> Kind {
    Kind::Count { min, max, auto: true }
}

const fn size(min: u64, max: u64) -> Kind {
    Kind::Size { min: ByteCount(min), max: ByteCount(max), auto: false }
}

const fn duration_ms(min: u64, max: u64) -> Kind {
    Kind::Duration { min: Duration::from_millis(min), max: Duration::from_millis(max) }
}

pub(crate) const fn choice(words: &'static [&'static str]) -> Kind {
    Kind::Choice { words, later: &[] }
}

use Applied::{Reload, Restart};

/// Every key, section by section, in the order of the reference page.
pub(crate) static TABLE: &[Key] = &joined();

/// [`ROWS`], and behind them those of the key-value proxy, which stand beside what reads them.
const fn joined() -> [Key; ROWS.len() + kv::rows::ROWS.len()] {
    let mut all = [ROWS[0]; ROWS.len() + kv::rows::ROWS.len()];
    let mut i = 0;
    while i < all.len() {
        all[i] = if i < ROWS.len() { ROWS[i] } else { kv::rows::ROWS[i - ROWS.len()] };
        i += 1;
    }
    all
}

const ROWS: &[Key] = &[
    key(
        "runtime_dir",
        Kind::Path { word: "auto" },
        "auto",
        Restart,
        "The directory of lock files, the control socket and shared numbers. `auto` is /run/beltway for root, else $XDG_RUNTIME_DIR/beltway, else /tmp/beltway-UID.",
    ),
    key(
        "user",
        Kind::Token,
        "stay",
        Restart,
        "The user to become at the start, by root alone: of root's power only the binding of ports below 1024 is kept, and the server keeps none. `stay`: whoever started it.",
    ),
    key(
        "threads",
        count_or_auto(1, 256),
        "auto",
        Restart,
        "How many event threads the server runs. `auto` is one for each core available to the process.",
    ),
    key(
        "pin_threads",
        Kind::Switch { available: true },
        "false",
        Restart,
        "Ties each of them to a core of its own. For machines that do nothing else; without effect when there are fewer cores than threads, or a quota makes others use them too.",
    ),
    later("memory", "The whole memory budget."),
    key(
        "io",
        Kind::Choice { words: Io::WORDS, later: &["io_uring"] },
        "auto",
        Restart,
        "How event threads do their I/O.",
    ),
    section("log", "The log of what the processes do; not the access log."),
    key("log.level", choice(Level::WORDS), "info", Reload, "How much the log tells; a level includes those before it."),
    key("log.file", Kind::Path { word: "stderr" }, "stderr", Reload, "Where the log goes."),
    section("admin", "Manager's port for operators: status page, /metrics, API."),
    key(
        "admin.listen",
        Kind::Address { off: true },
        "127.0.0.1:9001",
        Restart,
        "Where manager listens for operators. `off`: nowhere.",
    ),
    key(
        "admin.token_file",
        Kind::Path { word: "off" },
        "off",
        Reload,
        "The file with the token that whoever changes something over the admin port must show; nobody else may read it. `off`: the port only reads.",
    ),
    section("server", "The server process by itself."),
    key(
        "server.listen",
        Kind::Address { off: true },
        "127.0.0.1:9002",
        Restart,
        "Where the server answers /healthz, and /metrics when it runs alone. `off`: nowhere.",
    ),
    key(
        "server.drain_timeout",
        duration_ms(0, 3_600_000),
        "30s",
        Reload,
        "How long a stopping server lets open requests finish before it closes them.",
    ),
    key(
        "server.drain_delay",
        duration_ms(0, 3_600_000),
        "0s",
        Reload,
        "How long a server that is told to stop goes on as before while /healthz says `draining`, so that balancers take their clients elsewhere. Not when another server takes over.",
    ),
    key(
        "server.standby",
        Kind::Switch { available: true },
        "false",
        Reload,
        "Whether a second server stands by, started and with nothing stored, for the one that dies: clients wait some milliseconds less.",
    ),
    section("demo", "The embedded origin and stores, for demonstration."),
    key(
        "demo.origin",
        Kind::Address { off: true },
        "off",
        Restart,
        "Where the demonstration origin listens. `off`: it does not run.",
    ),
    key(
        "demo.redis",
        Kind::Address { off: true },
        "off",
        Restart,
        "Where the demonstration Redis store listens: a few commands, little memory, gone when the server ends. `off`: it does not run.",
    ),
    key(
        "demo.memcached",
        Kind::Address { off: true },
        "off",
        Restart,
        "Where the demonstration memcached store listens: little memory, gone when the server ends. `off`: it does not run.",
    ),
    section("http", "The HTTP proxy."),
    key(
        "http.listen",
        Kind::List { max: 64, bare: Some("address") },
        "[]",
        Restart,
        "Where HTTP clients connect. An item is an address, or a map of the keys below.",
    ),
    required("http.listen[].address", Kind::Address { off: false }, Restart, "The address and port."),
    key(
        "http.listen[].backlog",
        count(1, 65_535),
        "4096",
        Restart,
        "How many connections may wait in the kernel to be accepted; the kernel cuts it to net.core.somaxconn.",
    ),
    later("http.listen[].tls", "Certificate and key of a TLS listener."),
    later("http.listen[].protocols", "The protocols a TLS listener offers."),
    key(
        "http.remap",
        Kind::List { max: 10_000, bare: None },
        "[]",
        Reload,
        "The rules that find an origin for a request. The first that matches wins; without one the answer is 404.",
    ),
    required(
        "http.remap[].from",
        Kind::RemapFrom,
        Reload,
        "Which requests: http://HOST[:PORT]/PREFIX, with *.DOMAIN for every name below a domain; /PREFIX for any host; `*` or `/` for everything. A prefix ends at a `/`: /a is for /a and /a/b, not for /ab. Without a port, any port.",
    ),
    required(
        "http.remap[].to",
        Kind::Origins { max: 256 },
        Reload,
        "The origin, or several: http://HOST[:PORT]/PREFIX. The prefix replaces that of `from`; they join in one `/`.",
    ),
    key(
        "http.remap[].balance",
        choice(Balance::WORDS),
        "round_robin",
        Reload,
        "How to choose among several origins: one after the other, or by the request's URL.",
    ),
    key(
        "http.remap[].host_header",
        choice(HostHeader::WORDS),
        "preserve",
        Reload,
        "The Host the origin receives: the client's own, or that of the origin's URL.",
    ),
    key(
        "http.remap[].cache",
        Kind::Switch { available: true },
        "true",
        Reload,
        "Whether responses for these requests are stored and served from the cache, as far as HTTP allows.",
    ),
    key(
        "http.forward_proxy",
        Kind::Switch { available: false },
        "false",
        Reload,
        "Whether clients may name any origin, by absolute-form targets and CONNECT.",
    ),
    key(
        "http.allow",
        Kind::Networks { max: 1_024 },
        "127.0.0.0/8 ::1",
        Reload,
        "Who may use PURGE: addresses, and ranges of them. `[]`: nobody.",
    ),
    key("http.access_log", Kind::Section { off: true }, "off", Reload, "A line for each request."),
    key("http.access_log.file", Kind::Path { word: "stderr" }, "access.log", Reload, "Where the lines go."),
    key("http.access_log.format", choice(LogFormat::WORDS), "squid", Reload, "The shape of a line."),
    section("http.timeouts", "How long the HTTP proxy waits, for each thing it can wait for."),
    wait(
        "http.timeouts.request_head",
        "30s",
        "From the first byte of a request to the end of its head, and from a client's connecting to its first request.",
    ),
    wait("http.timeouts.keep_alive", "60s", "How long a client connection may stay idle between two requests."),
    wait("http.timeouts.client_idle", "60s", "Without a byte of a request body that is not complete."),
    wait("http.timeouts.client_send", "60s", "Without the client taking a byte of what is being sent to it."),
    wait("http.timeouts.origin_connect", "3s", "For a connection to an origin to be established."),
    wait(
        "http.timeouts.origin_response",
        "60s",
        "From the request being sent to the first byte of the origin's answer.",
    ),
    wait("http.timeouts.origin_idle", "60s", "Without a byte of an origin's answer that is not complete."),
    wait("http.timeouts.origin_send", "60s", "Without the origin taking a byte of what is being sent to it."),
    wait(
        "http.timeouts.origin_keep_alive",
        "30s",
        "How long an idle connection to an origin is kept for another request.",
    ),
    wait(
        "http.timeouts.expect_continue",
        "1s",
        "How long an origin is given to answer `Expect: 100-continue` before the body is sent all the same.",
    ),
    section("http.limits", "The most the HTTP proxy takes, holds or tries."),
    key(
        "http.limits.connections",
        count_or_auto(1, 4_000_000),
        "auto",
        Restart,
        "Client connections at a time; at the limit no more are accepted. `auto` is what the limit on open files allows, less a reserve.",
    ),
    key(
        "http.limits.head_size",
        size(4 << 10, HEAD_MAX),
        "32KiB",
        Reload,
        "The size of a request's or response's head.",
    ),
    key("http.limits.head_fields", count(8, 256), "100", Reload, "The field lines in a head."),
    key(
        "http.limits.body_window",
        size(16 << 10, 16 << 20),
        "64KiB",
        Reload,
        "The bytes of one body on their way, in one direction: the faster side waits for the slower one.",
    ),
    key(
        "http.limits.pipeline",
        count(1, 1024),
        "16",
        Reload,
        "The pipelined requests of one connection that are answered before other connections have their turn.",
    ),
    key(
        "http.limits.origin_idle_per_thread",
        count(0, 65_536),
        "1024",
        Reload,
        "The idle origin connections that an event thread keeps.",
    ),
    key(
        "http.limits.origin_idle_shared",
        count(0, 65_536),
        "1024",
        Reload,
        "The idle origin connections kept for whichever event thread needs one.",
    ),
    key(
        "http.limits.origin_attempts",
        count(1, 16),
        "3",
        Reload,
        "The origins, or times, that are tried for one request.",
    ),
    key(
        "http.limits.request_body_replay",
        size(0, 1 << 20),
        "64KiB",
        Reload,
        "The bytes of a request body kept for another try; a request with a larger one is tried once.",
    ),
    key("http.via", Kind::Token, "beltway", Reload, "What the proxy calls itself in Via."),
    key("http.forwarded", choice(Forwarded::WORDS), "both", Reload, "How an origin is told who the client is."),
    section("names", "The resolution of origin names."),
    key(
        "names.ttl",
        duration_ms(100, 86_400_000),
        "30s",
        Reload,
        "How long an answer is used before the name is asked for again.",
    ),
    key(
        "names.negative_ttl",
        duration_ms(100, 86_400_000),
        "5s",
        Reload,
        "How long a failure is remembered before the name is asked for again.",
    ),
    key(
        "names.timeout",
        duration_ms(100, 60_000),
        "5s",
        Reload,
        "How long a request waits for a name that has no answer yet.",
    ),
    key(
        "names.stale",
        duration_ms(0, 7 * 86_400_000),
        "1h",
        Reload,
        "How long after its ttl an answer is still used while a newer one cannot be had.",
    ),
    section("supervise", "How the processes watch each other."),
    key(
        "supervise.heartbeat_interval",
        duration_ms(100, 10_000),
        "500ms",
        Restart,
        "How often a process is asked for a sign of life.",
    ),
    key(
        "supervise.hang_timeout",
        duration_ms(1_000, 300_000),
        "1500ms",
        Restart,
        "How long a process may give no sign of life, although it had the processor, before it is replaced.",
    ),
    key(
        "supervise.start_timeout",
        duration_ms(1_000, 600_000),
        "30s",
        Restart,
        "How long a new process may take to become ready.",
    ),
    key(
        "supervise.stop_timeout",
        duration_ms(100, 7_200_000),
        "35s",
        Restart,
        "How long a process that was told to stop may take before it is killed. Longer than `server.drain_delay` and `server.drain_timeout` together.",
    ),
    key(
        "supervise.respawn_backoff_max",
        duration_ms(100, 600_000),
        "60s",
        Restart,
        "The longest pause before a process that keeps dying is started again; the first pauses are shorter.",
    ),
    section("cache", "The cache of HTTP responses."),
    key(
        "cache.ram",
        Kind::Size { min: ByteCount(0), max: ByteCount(1 << 42), auto: false },
        "64MiB",
        Reload,
        "Memory for stored responses, all that belongs to them counted. One response takes at most a tenth of it. `0B`: nothing is stored.",
    ),
    key(
        "cache.stale_if_unreachable",
        duration_ms(0, 604_800_000),
        "24h",
        Reload,
        "How long beyond its lifetime a stored response may stand in for an origin that cannot be reached, where neither side says anything about errors. `0s`: never.",
    ),
    later("cache.disk", "The cache on disk."),
];

/// Every key there is, in the order of the reference page.
#[must_use]
pub fn table() -> &'static [Key] {
    TABLE
}

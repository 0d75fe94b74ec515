//! The one table of keys: what exists, what it means, what it may be.
//!
//! The parser takes kinds, bounds and defaults from here, and so do `check --explain`, the reference page and the
//! verdict of a reload. A key that is not here does not exist; a key that is here is read in `build.rs`.
//!
//! Read [`Key`] first, then [`TABLE`].

use std::fmt;
use std::time::Duration;

use base::ByteCount;

use crate::choice::{Balance, Forwarded, HostHeader, Io, Level, LogFormat};
use crate::value::show_duration;

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

/// What the value of a key may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Keys below this one. With `off`, the word `off` stands for their absence, and is the default.
    Section {
        /// Whether the whole section can be absent.
        off: bool,
    },
    /// A list, each item with the keys of `path[]`.
    List {
        /// The most items.
        max: usize,
        /// The key that an item written as a bare text stands for.
        bare: Option<&'static str>,
    },
    /// `true` or `false`.
    Switch {
        /// False: `true` is refused, because what it would switch on does not exist yet.
        available: bool,
    },
    /// A whole number.
    Count {
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
        /// Whether `auto` is a value too.
        auto: bool,
    },
    /// A time with its unit: ms, s, m, h.
    Duration {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// A size with its unit: B, KiB, MiB, GiB, KB, MB, GB.
    Size {
        /// The smallest.
        min: ByteCount,
        /// The largest.
        max: ByteCount,
    },
    /// One of some words.
    Choice {
        /// The words.
        words: &'static [&'static str],
        /// Words that will be there one day, and are refused until then.
        later: &'static [&'static str],
    },
    /// An IP address and a port to listen on.
    Address {
        /// Whether `off` is a value too.
        off: bool,
    },
    /// A path. A relative one counts from the directory of the file.
    Path {
        /// A word that is a value too, instead of a path.
        word: &'static str,
    },
    /// A name of letters, digits and the marks that HTTP allows in a token.
    Token,
    /// Which requests a rule is for.
    RemapFrom,
    /// One origin's URL, or a list of them.
    Origins {
        /// The most.
        max: usize,
    },
    /// Known, and not built yet: refused.
    Unavailable,
}

impl Kind {
    /// The kind in a word or two.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Section { .. } => "section",
            Self::List { .. } => "list",
            Self::Switch { .. } => "switch",
            Self::Count { .. } => "count",
            Self::Duration { .. } => "duration",
            Self::Size { .. } => "size",
            Self::Choice { .. } => "choice",
            Self::Address { .. } => "address",
            Self::Path { .. } => "path",
            Self::Token => "name",
            Self::RemapFrom => "URL pattern",
            Self::Origins { .. } => "URL or list of URLs",
            Self::Unavailable => "not available in this version",
        }
    }

    /// The units a value takes, if any.
    #[must_use]
    pub fn unit(&self) -> Option<&'static str> {
        match self {
            Self::Duration { .. } => Some("ms, s, m, h"),
            Self::Size { .. } => Some("B, KiB, MiB, GiB, KB, MB, GB"),
            _ => None,
        }
    }

    /// What a value may be, in words: bounds, choices, special words.
    #[must_use]
    pub fn bounds(&self) -> Option<String> {
        match self {
            Self::Section { off: true } => Some("`off`, or the keys below".to_owned()),
            Self::List { max, .. } => Some(format!("at most {max}")),
            Self::Switch { available: true } => Some("`true` or `false`".to_owned()),
            Self::Switch { available: false } => Some("`false`; `true` is not available in this version".to_owned()),
            Self::Count { min, max, auto } => Some(format!("{min} to {max}{}", if *auto { ", or `auto`" } else { "" })),
            Self::Duration { min, max } => Some(format!("{} to {}", show_duration(*min), show_duration(*max))),
            Self::Size { min, max } => Some(format!("{min} to {max}")),
            Self::Choice { words, .. } => Some(one_of(words)),
            Self::Address { off: true } => Some("IP:PORT, or `off`".to_owned()),
            Self::Address { off: false } => Some("IP:PORT".to_owned()),
            Self::Path { word } => Some(format!("a path, or `{word}`")),
            Self::Origins { max } => Some(format!("1 to {max}")),
            Self::Section { off: false } | Self::Token | Self::RemapFrom | Self::Unavailable => None,
        }
    }

    /// A value that would be right, as it would be written.
    #[must_use]
    pub fn example(&self) -> &'static str {
        match self {
            Self::Section { .. } => "{}",
            Self::List { .. } => "[]",
            Self::Switch { .. } => "false",
            Self::Count { .. } => "16",
            Self::Duration { .. } => "30s",
            Self::Size { .. } => "64KiB",
            Self::Choice { words, .. } => words.first().copied().unwrap_or(""),
            Self::Address { .. } => "127.0.0.1:8080",
            Self::Path { .. } => "/var/log/beltway/access.log",
            Self::Token => "beltway",
            Self::RemapFrom => "http://www.example.com/",
            Self::Origins { .. } => "http://10.0.0.5:8000/",
            Self::Unavailable => "",
        }
    }
}

/// `` `a`, `b` or `c` ``.
pub(crate) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [head @ .., last] => {
            let head: Vec<String> = head.iter().map(|word| format!("`{word}`")).collect();
            format!("{} or `{last}`", head.join(", "))
        }
    }
}

impl Key {
    /// The path of the section or list item this key stands in: empty at the top.
    #[must_use]
    pub fn parent(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(parent, _)| parent)
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
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

const fn section(path: &'static str, meaning: &'static str) -> Key {
    Key { path, kind: Kind::Section { off: false }, default: None, applied: Applied::Reload, meaning }
}

const fn key(path: &'static str, kind: Kind, default: &'static str, applied: Applied, meaning: &'static str) -> Key {
    Key { path, kind, default: Some(default), applied, meaning }
}

const fn required(path: &'static str, kind: Kind, applied: Applied, meaning: &'static str) -> Key {
    Key { path, kind, default: None, applied, meaning }
}

const fn later(path: &'static str, meaning: &'static str) -> Key {
    Key { path, kind: Kind::Unavailable, default: None, applied: Applied::Restart, meaning }
}

const fn wait(path: &'static str, default: &'static str, meaning: &'static str) -> Key {
    key(path, Kind::Duration { min: Duration::from_millis(10), max: WAIT_MAX }, default, Applied::Reload, meaning)
}

const fn count(min: u64, max: u64) -> Kind {
    Kind::Count { min, max, auto: false }
}

const fn count_or_auto(min: u64, max: u64) -> Kind {
    Kind::Count { min, max, auto: true }
}

const fn size(min: u64, max: u64) -> Kind {
    Kind::Size { min: ByteCount(min), max: ByteCount(max) }
}

const fn duration_ms(min: u64, max: u64) -> Kind {
    Kind::Duration { min: Duration::from_millis(min), max: Duration::from_millis(max) }
}

const fn choice(words: &'static [&'static str]) -> Kind {
    Kind::Choice { words, later: &[] }
}

use Applied::{Reload, Restart};

/// Every key, section by section, in the order of the reference page.
pub(crate) static TABLE: &[Key] = &[
    key(
        "runtime_dir",
        Kind::Path { word: "auto" },
        "auto",
        Restart,
        "The directory of lock files, the control socket and shared numbers. `auto` is /run/beltway for root, else $XDG_RUNTIME_DIR/beltway, else /tmp/beltway-UID.",
    ),
    later("user", "The user to become after the listeners are bound."),
    key(
        "threads",
        count_or_auto(1, 256),
        "auto",
        Restart,
        "How many event threads the server runs. `auto` is one for each core available to the process.",
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
    section("demo", "The embedded origin, for demonstration."),
    key(
        "demo.origin",
        Kind::Address { off: true },
        "off",
        Restart,
        "Where the demonstration origin listens. `off`: it does not run.",
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
        "http.forward_proxy",
        Kind::Switch { available: false },
        "false",
        Reload,
        "Whether clients may name any origin, by absolute-form targets and CONNECT.",
    ),
    later("http.allow", "Who may use forward proxying and PURGE."),
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
        Reload,
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
        "5s",
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
        "How long a process that was told to stop may take before it is killed. Longer than `server.drain_timeout`.",
    ),
    key(
        "supervise.respawn_backoff_max",
        duration_ms(100, 600_000),
        "60s",
        Restart,
        "The longest pause before a process that keeps dying is started again; the first pauses are shorter.",
    ),
    later("cache", "The cache in memory and on disk."),
    later("kv", "The Redis and memcached proxy."),
];

/// Every key there is, in the order of the reference page.
#[must_use]
pub fn table() -> &'static [Key] {
    TABLE
}

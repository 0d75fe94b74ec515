//! twemproxy's own file: a map of pools, each with keys of one line and one list, its servers.
//!
//! As strict as that program, with its defaults, and the meaning of its messages; what it takes and could never work
//! with is refused too, and docs/kv-differences.md lists both. The keys and values are those of `kv.pools` in
//! Beltway's own file, less what twemproxy does not know.
//!
//! Start at [`load`].

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use base::ByteCount;

use super::rows::POOL;
use super::text::{self, NUMBER_MAX};
use super::{Kv, KvListen, KvPool, KvServer, KvStats, KvTimeouts, Password, check};
use crate::choice::{EjectPolicy, KvDistribution, KvHash, MultigetPolicy};
use crate::diagnostic::{Diagnostic, Diagnostics, Findings, Place, Severity, Source, Spanned, quoted};
use crate::kind::one_of;
use crate::model::{Config, Log};
use crate::nearest::nearest;
use crate::table::{Key, below};
use crate::tree::{self, Content, Entry, Node};
use crate::value::{Fault, hash_tag};

/// Keys of a pool that only Beltway's own file has.
const NOT_OF_TWEMPROXY: [&str; 6] =
    ["eject_policy", "memcached_flush_all", "memory", "multiget_policy", "sentinels", "timeouts"];

/// How a listener's host becomes an address: the first that the system's resolver names.
pub type Resolve<'r> = &'r dyn Fn(&str, u16) -> io::Result<SocketAddr>;

/// What the file says.
#[derive(Clone, Debug)]
pub struct Nutcracker {
    /// The pools. The stats port is not in the file but on the command line.
    pub kv: Kv,
    /// What is allowed and does something else here, in the order of the file.
    pub warnings: Vec<Diagnostic>,
    source: Source,
}

impl Nutcracker {
    /// An error at `place` of the file, for whoever judges a value further than its reader could.
    #[must_use]
    pub fn diagnose(&self, place: Place, message: impl Into<String>, hint: impl Into<Option<String>>) -> Diagnostic {
        self.source.diagnostic(Severity::Error, place, message.into(), hint.into())
    }

    /// The configuration of a server that serves these pools and nothing else: no HTTP, no port of its own but the
    /// stats port. Reloading is not for it, as twemproxy knows none.
    #[must_use]
    pub fn into_config(self, stats: KvStats, log: Log) -> Config {
        const NOTHING_ELSE: &str = "admin: {listen: off}\nserver: {listen: off}\n";
        let base = crate::parse_as_if(&self.source.file, NOTHING_ELSE, true).expect("a file of two switches is right");
        let kv = Kv { stats: Some(stats), ..self.kv };
        Config { kv, log, source: self.source, warnings: self.warnings, ..base }
    }
}

/// Reads the file at `path`.
///
/// # Errors
/// Everything that is wrong with it, at most [`DIAGNOSTICS_MAX`](crate::DIAGNOSTICS_MAX) findings.
pub fn load(path: &Path, resolve: Resolve<'_>) -> Result<Nutcracker, Diagnostics> {
    let (name, text) = crate::read_file(path)?;
    parse(&name, &text, resolve)
}

/// Reads `text` as the file `file_name`, which need not exist.
///
/// # Errors
/// As [`load`].
pub fn parse(file_name: &str, text: &str, resolve: Resolve<'_>) -> Result<Nutcracker, Diagnostics> {
    let source = Source::new(file_name, text.strip_prefix('\u{feff}').unwrap_or(text));
    tree::strict::only_plain_blocks(&source)?;
    let mut findings = Findings::new(&source);
    let root = tree::read(&source, &mut findings)?;
    let mut reader = Reader { resolve, findings: &mut findings };
    let kv = Kv { stats: None, memory: None, pools: reader.pools(root.as_deref()) };
    listeners(&kv, &mut findings);
    check::check(&kv, &mut findings);
    let warnings = findings.verdict()?;
    Ok(Nutcracker { kv, warnings, source })
}

struct Reader<'r, 's> {
    resolve: Resolve<'r>,
    findings: &'r mut Findings<'s>,
}

/// What a pool's keys say, so far.
struct Draft {
    pool: KvPool,
    listen: Option<Spanned<KvListen>>,
    /// A key that cannot be without was written, and wrongly: it is not missing.
    failed: bool,
}

impl Reader<'_, '_> {
    fn pools(&mut self, root: Option<&Node>) -> Vec<KvPool> {
        let entries = match root.map(|root| (&root.content, root)) {
            Some((Content::Map(entries), _)) => entries.as_slice(),
            Some((_, node)) => {
                self.error(node.place, "the file is a map of pools", "write `NAME:`, and the pool's keys below it");
                return Vec::new();
            }
            None => {
                self.error(Place::NOWHERE, "has no pools", "write `NAME:`, and the pool's keys below it");
                return Vec::new();
            }
        };
        entries.iter().filter_map(|entry| self.pool(entry)).collect()
    }

    fn pool(&mut self, entry: &Entry) -> Option<KvPool> {
        if entry.key.is_empty() {
            self.error(entry.place, "a pool needs a name", "write one before the colon");
            return None;
        }
        let Content::Map(keys) = &entry.value.content else {
            let message = format!("pool {} takes keys, not {}", quoted(&entry.key), entry.value.describe());
            self.error(entry.place, &message, "write them below it, further indented");
            return None;
        };
        let mut draft = Draft { pool: defaults(&entry.key, entry.place), listen: None, failed: false };
        for key in keys {
            if let Err(fault) = self.key(key, &mut draft) {
                draft.failed |= matches!(key.key.as_str(), "listen" | "servers");
                self.findings.error(key.value.place, || (fault.message, fault.hint));
            }
        }
        let pool = quoted(&entry.key);
        if draft.listen.is_none() && !draft.failed {
            self.error(entry.place, &format!("pool {pool} has no `listen`"), "write `listen: 127.0.0.1:22121`");
        }
        if draft.pool.servers.is_empty() && !draft.failed {
            self.error(entry.place, &format!("pool {pool} has no `servers`"), "write a list of HOST:PORT:WEIGHT");
        }
        if draft.pool.timeout.is_none() {
            self.findings.warning(draft_place(keys, "timeout").unwrap_or(entry.place), || {
                let message = format!("pool {pool} has no `timeout`: requests wait for a silent server for ever");
                (message, Some("as with twemproxy; but a silent connection is probed here".to_owned()))
            });
        }
        if draft.pool.redis_db != 0 && !draft.pool.redis {
            draft.pool.redis_db = 0;
            self.findings.warning(draft_place(keys, "redis_db").unwrap_or(entry.place), || {
                let message = format!("pool {pool} speaks memcached's protocol: its `redis_db` selects nothing");
                (message, Some("as with twemproxy; write `redis: true`, or remove the key".to_owned()))
            });
        }
        draft.listen.map(|listen| KvPool { listen, ..draft.pool })
    }

    fn key(&mut self, entry: &Entry, draft: &mut Draft) -> Result<(), Fault> {
        let (name, place, pool) = (entry.key.as_str(), entry.value.place, &mut draft.pool);
        let known = || below(POOL).map(Key::name).filter(|name| !NOT_OF_TWEMPROXY.contains(name));
        if !known().any(|known| known == name) {
            let hint = match nearest(name, known()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys of a pool are {}", known().collect::<Vec<_>>().join(", ")),
            };
            return Err(Fault::new(format!("directive {} is unknown", quoted(name)), hint));
        }
        if name == "servers" {
            pool.servers = self.servers(&entry.value)?;
            // None of a list that is never empty: each was reported.
            draft.failed |= pool.servers.is_empty();
            return Ok(());
        }
        let Content::Scalar { text, .. } = &entry.value.content else {
            let message = format!("`{name}` takes one value, not {}", entry.value.describe());
            return Err(Fault::new(message, "write it behind the colon"));
        };
        match name {
            "listen" => draft.listen = Some(Spanned::new(self.listen(text)?, place)),
            "hash" => pool.hash = Spanned::new(word(name, text, KvHash::WORDS, KvHash::from_word)?, place),
            "hash_tag" => pool.hash_tag = Some(hash_tag(name, text)?),
            "distribution" => {
                let words = KvDistribution::OF_TWEMPROXY.map(KvDistribution::word);
                let known = |text: &str| KvDistribution::from_word(text).filter(|way| words.contains(&way.word()));
                pool.distribution = word(name, text, &words, known)?;
            }
            "timeout" => pool.timeout = Some(millis(name, text)?).filter(|timeout| !timeout.is_zero()),
            "backlog" => pool.backlog = number(name, text)?,
            "client_connections" => {
                pool.client_connections = Some(number(name, text)?).filter(|limit| *limit > 0);
                if pool.client_connections.is_some() {
                    let message = "`client_connections` limits the clients of the pool";
                    self.warn(place, message, "twemproxy reads the number and does nothing with it");
                }
            }
            "redis" => pool.redis = switch(name, text)?,
            "redis_auth" if text.is_empty() => {
                return Err(Fault::new("`redis_auth` is empty", "write the password, or remove the key"));
            }
            "redis_auth" => pool.redis_auth = Some(Password::new(text.clone())),
            "redis_db" => pool.redis_db = number(name, text)?,
            "preconnect" => pool.preconnect = switch(name, text)?,
            "tcpkeepalive" => pool.tcpkeepalive = switch(name, text)?,
            "reuseport" => pool.reuseport = switch(name, text)?,
            "server_connections" => {
                pool.server_connections = number(name, text)?;
                if pool.server_connections == 0 {
                    return Err(Fault::new("`server_connections` cannot be 0", "write 1, or remove the key"));
                }
                self.warn(
                    place,
                    "`server_connections` counts for each event thread",
                    "twemproxy has one thread; here there are as many as cores",
                );
            }
            "auto_eject_hosts" => pool.auto_eject_hosts = switch(name, text)?,
            "server_retry_timeout" => pool.server_retry_timeout = millis(name, text)?,
            // Both 0 and 1 mean that the first failure ejects.
            "server_failure_limit" => pool.server_failure_limit = number(name, text)?.max(1),
            _ => unreachable!("the table has no other keys for a pool than these: {name}"),
        }
        Ok(())
    }

    fn servers(&mut self, node: &Node) -> Result<Vec<Spanned<KvServer>>, Fault> {
        let Content::List(items) = &node.content else {
            let message = format!("`servers` takes a list, not {}", node.describe());
            return Err(Fault::new(message, "write each server on a line of its own, after a dash"));
        };
        let mut servers = Vec::new();
        for item in items {
            let read = match &item.content {
                Content::Scalar { text, .. } => text::server("servers", text),
                _ => Err(Fault::new(
                    format!("a server is one text, not {}", item.describe()),
                    "write HOST:PORT:WEIGHT after the dash",
                )),
            };
            match read {
                Ok(server) => servers.push(Spanned::new(server, item.place)),
                Err(fault) => self.findings.error(item.place, || (fault.message, fault.hint)),
            }
        }
        Ok(servers)
    }

    fn listen(&mut self, text: &str) -> Result<KvListen, Fault> {
        text::listen("listen", text, |text| {
            let wrong = |what: String| Fault::new(what, "write IP:PORT, HOST:PORT, or /PATH and its permissions");
            let Some((host, digits)) = text.rsplit_once(':') else {
                return Err(wrong(format!("`listen`: {} has no port", quoted(text))));
            };
            let port = match text::number(digits).map(u16::try_from) {
                Some(Ok(port)) if port > 0 => port,
                _ => return Err(wrong(format!("`listen`: {} is not a port", quoted(digits)))),
            };
            if host.is_empty() {
                return Err(wrong("`listen` has no address before the port; 0.0.0.0 is all of IPv4".to_owned()));
            }
            if let Ok(ip) = host.parse() {
                return Ok(SocketAddr::new(ip, port));
            }
            // As twemproxy has it, where `*` is this machine alone.
            let name = if host == "*" { "localhost" } else { host };
            (self.resolve)(name, port).map_err(|error| {
                Fault::new(
                    format!("`listen`: {} is no address of a host: {error}", quoted(host)),
                    "write its IP address",
                )
            })
        })
    }

    fn error(&mut self, place: Place, message: &str, hint: &str) {
        self.findings.error(place, || (message.to_owned(), Some(hint.to_owned())));
    }

    fn warn(&mut self, place: Place, message: &str, hint: &str) {
        self.findings.warning(place, || (message.to_owned(), Some(hint.to_owned())));
    }
}

/// Where the value of `name` is written.
fn draft_place(keys: &[Entry], name: &str) -> Option<Place> {
    keys.iter().find(|key| key.key == name).map(|key| key.value.place)
}

/// twemproxy's own defaults.
fn defaults(name: &str, place: Place) -> KvPool {
    const BACKLOG: u32 = 512;
    const SERVER_RETRY_TIMEOUT: Duration = Duration::from_secs(30);
    const SERVER_FAILURE_LIMIT: u32 = 2;
    const MEMORY: ByteCount = ByteCount(256 << 20);
    /// What is slow here; twemproxy has no such log.
    const SLOWLOG: Duration = Duration::from_millis(100);
    KvPool {
        name: Spanned::new(name.to_owned(), place),
        // Put in when it is known; a pool without one is an error.
        listen: Spanned::new(KvListen::Unix { path: "/".into(), mode: None }, Place::NOWHERE),
        hash: Spanned::new(KvHash::Fnv1a64, Place::NOWHERE),
        hash_tag: None,
        distribution: KvDistribution::Ketama,
        timeout: None,
        timeouts: KvTimeouts::default(),
        backlog: BACKLOG,
        client_connections: None,
        redis: false,
        redis_auth: None,
        redis_db: 0,
        preconnect: false,
        tcpkeepalive: false,
        reuseport: false,
        server_connections: 1,
        auto_eject_hosts: false,
        server_retry_timeout: SERVER_RETRY_TIMEOUT,
        server_failure_limit: SERVER_FAILURE_LIMIT,
        eject_policy: EjectPolicy::Rehash,
        memcached_flush_all: false,
        multiget_policy: MultigetPolicy::Error,
        memory: MEMORY,
        slowlog: SLOWLOG,
        servers: Vec::new(),
    }
}

fn number(name: &str, text: &str) -> Result<u32, Fault> {
    text::number(text).ok_or_else(|| {
        Fault::new(format!("`{name}` is not a number: {}", quoted(text)), format!("digits only, up to {NUMBER_MAX}"))
    })
}

fn millis(name: &str, text: &str) -> Result<Duration, Fault> {
    number(name, text).map(|millis| Duration::from_millis(u64::from(millis)))
}

fn switch(name: &str, text: &str) -> Result<bool, Fault> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Fault::new(format!("`{name}` is not `true` or `false`: {}", quoted(text)), "write one of the two")),
    }
}

fn word<T>(name: &str, text: &str, words: &[&str], from: impl Fn(&str) -> Option<T>) -> Result<T, Fault> {
    from(text).ok_or_else(|| {
        let hint = match nearest(text, words.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write {}", one_of(words)),
        };
        Fault::new(format!("{} is not a valid {name}", quoted(text)), hint)
    })
}

/// No two pools may listen on one address.
fn listeners(kv: &Kv, findings: &mut Findings<'_>) {
    for (i, pool) in kv.pools.iter().enumerate() {
        let KvListen::Tcp(address) = pool.listen.value else { continue };
        let first = kv.pools[..i].iter().find(|other| match other.listen.value {
            KvListen::Tcp(other) => crate::check::collide(address, other),
            KvListen::Unix { .. } => false,
        });
        if let Some(first) = first {
            findings.error(pool.listen.place, || {
                let (one, two) = (quoted(&first.name), quoted(&pool.name));
                let message = format!("pools {one} and {two} have the same listen address: {}", pool.listen.value);
                (message, Some("give each its own port".to_owned()))
            });
        }
    }
}

//! From settings to [`Config`]: each key of the table is taken to its field. No text is read here, nothing is judged.
//!
//! What a key's value is follows from its kind in the table, so a mismatch is a mistake in this file or in the table,
//! and every such mistake shows in the first file that is read (the built-in default in the tests).

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use base::ByteCount;
use ipnet::IpNet;

use crate::choice::{Balance, Forwarded, HostHeader, Io, Level, LogFormat};
use crate::diagnostic::{Place, Source, Spanned};
use crate::kv;
use crate::model::{
    AccessLog, Admin, Cache, Config, Demo, Http, HttpLimits, HttpListener, HttpTimeouts, Log, LogFile, Names,
    RemapRule, Server, Supervise, Threads,
};
use crate::read::Settings;
use crate::value::Value;

/// The configuration that `settings` say.
pub(crate) fn config(settings: Settings, source: &Source) -> Config {
    let s = &settings;
    Config {
        runtime_dir: s.path("runtime_dir").unwrap_or_else(runtime_dir_here),
        threads: match s.count_or_auto("threads").and_then(NonZeroUsize::new) {
            Some(count) => Threads::Count(count),
            None => Threads::Auto,
        },
        pin_threads: s.switch("pin_threads"),
        io: s.choice("io", Io::from_word),
        log: Log { level: s.choice("log.level", Level::from_word), file: s.log_file("log.file") },
        admin: Admin { listen: s.address("admin.listen"), token_file: s.path("admin.token_file") },
        user: Some(s.text("user")).filter(|user| user != "stay"),
        server: Server {
            listen: s.address("server.listen"),
            drain_timeout: s.duration("server.drain_timeout"),
            drain_delay: s.duration("server.drain_delay"),
            standby: s.switch("server.standby"),
        },
        demo: Demo {
            origin: s.address("demo.origin"),
            redis: s.address("demo.redis"),
            memcached: s.address("demo.memcached"),
        },
        http: http(s),
        kv: kv::build::kv(s),
        names: Names {
            ttl: s.duration("names.ttl"),
            negative_ttl: s.duration("names.negative_ttl"),
            timeout: s.duration("names.timeout"),
            stale: s.duration("names.stale"),
        },
        cache: Cache { ram: s.size("cache.ram"), stale_if_unreachable: s.duration("cache.stale_if_unreachable") },
        supervise: Supervise {
            heartbeat_interval: s.duration("supervise.heartbeat_interval"),
            hang_timeout: s.duration("supervise.hang_timeout"),
            start_timeout: s.duration("supervise.start_timeout"),
            stop_timeout: s.duration("supervise.stop_timeout"),
            respawn_backoff_max: s.duration("supervise.respawn_backoff_max"),
        },
        source: source.clone(),
        warnings: Vec::new(),
        settings,
    }
}

fn http(s: &Settings) -> Http {
    Http {
        listen: s.listeners("http.listen"),
        remap: s.remap("http.remap"),
        access_log: s.is_present("http.access_log").then(|| AccessLog {
            file: s.log_file("http.access_log.file"),
            format: s.choice("http.access_log.format", LogFormat::from_word),
        }),
        timeouts: HttpTimeouts {
            request_head: s.duration("http.timeouts.request_head"),
            keep_alive: s.duration("http.timeouts.keep_alive"),
            client_idle: s.duration("http.timeouts.client_idle"),
            client_send: s.duration("http.timeouts.client_send"),
            origin_connect: s.duration("http.timeouts.origin_connect"),
            origin_response: s.duration("http.timeouts.origin_response"),
            origin_idle: s.duration("http.timeouts.origin_idle"),
            origin_send: s.duration("http.timeouts.origin_send"),
            origin_keep_alive: s.duration("http.timeouts.origin_keep_alive"),
            expect_continue: s.duration("http.timeouts.expect_continue"),
        },
        limits: HttpLimits {
            connections: s.count_or_auto("http.limits.connections"),
            head_size: s.size("http.limits.head_size"),
            head_fields: s.count("http.limits.head_fields"),
            body_window: s.size("http.limits.body_window"),
            pipeline: s.count("http.limits.pipeline"),
            origin_idle_per_thread: s.count("http.limits.origin_idle_per_thread"),
            origin_idle_shared: s.count("http.limits.origin_idle_shared"),
            origin_attempts: s.count("http.limits.origin_attempts"),
            request_body_replay: s.size("http.limits.request_body_replay"),
        },
        allow: s.networks("http.allow"),
        via: s.text("http.via"),
        forwarded: s.choice("http.forwarded", Forwarded::from_word),
    }
}

/// The items of the list `path`, each complete, as one value.
pub(crate) fn items(path: &str, items: Vec<(Place, Settings)>) -> Value {
    match path {
        "http.listen" => Value::Listeners(
            items
                .into_iter()
                .map(|(_, s)| HttpListener {
                    address: s.address("http.listen[].address").expect("a listener's address cannot be off"),
                    backlog: s.count("http.listen[].backlog"),
                })
                .collect(),
        ),
        "http.remap" => Value::Remap(
            items
                .into_iter()
                .map(|(place, s)| RemapRule {
                    from: s.take("http.remap[].from", |value| match value {
                        Value::From(from) => Some(Spanned::new(from.clone(), s.place("http.remap[].from"))),
                        _ => None,
                    }),
                    to: s.take("http.remap[].to", |value| match value {
                        Value::Origins(origins) => Some(origins.clone()),
                        _ => None,
                    }),
                    balance: s.choice("http.remap[].balance", Balance::from_word),
                    host_header: s.choice("http.remap[].host_header", HostHeader::from_word),
                    cache: s.switch("http.remap[].cache"),
                    place,
                })
                .collect(),
        ),
        _ => unreachable!("the table has no other list than these: {path}"),
    }
}

/// What `runtime_dir: auto` is for this process.
fn runtime_dir_here() -> PathBuf {
    runtime_dir(rustix::process::geteuid().as_raw(), std::env::var_os("XDG_RUNTIME_DIR"))
}

/// What `runtime_dir: auto` is for user `uid`. The XDG specification has relative paths ignored.
fn runtime_dir(uid: u32, xdg: Option<OsString>) -> PathBuf {
    if uid == 0 {
        return PathBuf::from("/run/beltway");
    }
    match xdg.map(PathBuf::from) {
        Some(directory) if directory.is_absolute() => directory.join("beltway"),
        _ => PathBuf::from(format!("/tmp/beltway-{uid}")),
    }
}

/// The typed views of a value, each for the kinds that have it.
impl Settings {
    /// The value of `path` as `view` sees it.
    pub(crate) fn take<'s, T>(&'s self, path: &str, view: impl FnOnce(&'s Value) -> Option<T>) -> T {
        self.find(path)
            .and_then(|value| view(&value.value))
            .unwrap_or_else(|| unreachable!("`{path}` is not of the kind that its field needs"))
    }

    pub(crate) fn is_present(&self, path: &str) -> bool {
        matches!(self.find(path), Some(Spanned { value: Value::Present, .. }))
    }

    pub(crate) fn duration(&self, path: &str) -> Duration {
        self.take(path, |value| if let Value::Duration(duration) = value { Some(*duration) } else { None })
    }

    pub(crate) fn size(&self, path: &str) -> ByteCount {
        self.take(path, |value| if let Value::Size(size) = value { Some(*size) } else { None })
    }

    pub(crate) fn size_or_auto(&self, path: &str) -> Option<ByteCount> {
        self.take(path, |value| match value {
            Value::Word(_) => Some(None),
            Value::Size(size) => Some(Some(*size)),
            _ => None,
        })
    }

    pub(crate) fn count<T: TryFrom<u64>>(&self, path: &str) -> T {
        self.take(path, |value| if let Value::Count(count) = value { T::try_from(*count).ok() } else { None })
    }

    fn count_or_auto(&self, path: &str) -> Option<usize> {
        self.take(path, |value| match value {
            Value::Word(_) => Some(None),
            Value::Count(count) => usize::try_from(*count).ok().map(Some),
            _ => None,
        })
    }

    pub(crate) fn choice<T>(&self, path: &str, from_word: impl FnOnce(&str) -> Option<T>) -> T {
        self.take(path, |value| if let Value::Word(word) = value { from_word(word) } else { None })
    }

    pub(crate) fn address(&self, path: &str) -> Option<Spanned<SocketAddr>> {
        self.take(path, |value| match value {
            Value::Word(_) => Some(None),
            Value::Address(address) => Some(Some(Spanned::new(*address, self.place(path)))),
            _ => None,
        })
    }

    /// None: the key's special word.
    fn path(&self, path: &str) -> Option<PathBuf> {
        self.take(path, |value| match value {
            Value::Word(_) => Some(None),
            Value::Path(path) => Some(Some(path.clone())),
            _ => None,
        })
    }

    fn log_file(&self, path: &str) -> LogFile {
        self.path(path).map_or(LogFile::Stderr, LogFile::Path)
    }

    pub(crate) fn switch(&self, path: &str) -> bool {
        self.take(path, |value| if let Value::Switch(on) = value { Some(*on) } else { None })
    }

    fn text(&self, path: &str) -> String {
        self.take(path, |value| if let Value::Text(text) = value { Some(text.clone()) } else { None })
    }

    fn networks(&self, path: &str) -> Vec<IpNet> {
        self.take(path, |value| if let Value::Networks(list) = value { Some(list.clone()) } else { None })
    }

    fn listeners(&self, path: &str) -> Vec<HttpListener> {
        self.take(path, |value| if let Value::Listeners(list) = value { Some(list.clone()) } else { None })
    }

    fn remap(&self, path: &str) -> Vec<RemapRule> {
        self.take(path, |value| if let Value::Remap(list) = value { Some(list.clone()) } else { None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_directory_is_the_users_own_unless_it_is_root() {
        let xdg = |path: &str| Some(OsString::from(path));
        assert_eq!(runtime_dir(0, xdg("/run/user/0")), PathBuf::from("/run/beltway"));
        assert_eq!(runtime_dir(7, xdg("/run/user/7")), PathBuf::from("/run/user/7/beltway"));
        assert_eq!(runtime_dir(7, xdg("relative")), PathBuf::from("/tmp/beltway-7"));
        assert_eq!(runtime_dir(7, None), PathBuf::from("/tmp/beltway-7"));
    }
}

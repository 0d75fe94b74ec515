//! The table, the parser and the reference page say the same.

use std::path::Path;
use std::time::Duration;

use config::{
    Applied, BUILTIN_DEFAULT, Config, Forwarded, HostHeader, Io, KV_AVAILABLE, Key, Kind, Level, LogFile, Threads,
    builtin_default, explain, nearest_key, parse, parse_as_if, reference_markdown, reference_markdown_as_if, table,
};

fn good(text: &str) -> Config {
    parse_as_if("test.yaml", text, true).unwrap_or_else(|wrong| panic!("{wrong}\nin\n{text}"))
}

/// A file in which `key` is written as `value`, and else only what the items around it cannot be without.
fn file_with(key: &Key, value: &str) -> String {
    let value = if value == "*" { "\"*\"" } else { value };
    if let Some(name) = key.path.strip_prefix("http.listen[].") {
        let address = if name == "address" { "" } else { "address: 127.0.0.1:1, " };
        return format!("http: {{listen: [{{{address}{name}: {value}}}]}}");
    }
    if let Some(name) = key.path.strip_prefix("http.remap[].") {
        let from = if name == "from" { "" } else { "from: /, " };
        let to = if name == "to" { "" } else { "to: http://127.0.0.1:1, " };
        return format!("http: {{remap: [{{{from}{to}{name}: {value}}}]}}");
    }
    if let Some(name) = key.path.strip_prefix("kv.pools.NAME.") {
        let listen = if name == "listen" { "" } else { "listen: 127.0.0.1:1, " };
        let servers = if name == "servers" { "" } else { "servers: [\"127.0.0.1:2:1\"], " };
        let redis = if name == "redis" { "" } else { "redis: true, " };
        if let Some(time) = name.strip_prefix("timeouts.") {
            return format!("kv: {{pools: {{a: {{{listen}{servers}timeouts: {{{time}: {value}}}}}}}}}");
        }
        return format!("kv: {{pools: {{a: {{{listen}{servers}{redis}{name}: {value}}}}}}}");
    }
    let names: Vec<&str> = key.path.split('.').collect();
    let open: String = names.iter().map(|name| format!("{{{name}: ")).collect();
    format!("{open}{value}{}", "}".repeat(names.len()))
}

#[test]
fn every_row_is_accepted_with_its_default_which_changes_nothing() {
    let empty = good("");
    for key in table() {
        let Some(default) = key.default else { continue };
        let config = good(&file_with(key, default));
        let within = ["http.access_log.", "kv.stats.", "kv.pools.NAME."];
        if !key.path.contains("[]") && !within.iter().any(|within| key.path.starts_with(within)) {
            assert_eq!(config, empty, "{}", key.path);
        }
    }
}

#[test]
fn every_row_is_accepted_with_its_example_and_its_bounds() {
    for key in table() {
        let values = match key.kind {
            Kind::Unavailable => continue,
            // Bounded from below by another key, and tested there.
            Kind::Duration { .. } if key.path == "supervise.stop_timeout" || key.path.starts_with("server.drain_") => {
                continue;
            }
            Kind::Duration { min, max } => vec![format!("{}ms", min.as_millis()), format!("{}ms", max.as_millis())],
            Kind::Millis { min, max } => vec![min.as_millis().to_string(), format!("{}ms", max.as_millis())],
            Kind::Size { min, max, .. } => vec![min.to_string(), max.to_string()],
            Kind::Count { min, max, .. } => vec![min.to_string(), max.to_string()],
            Kind::Choice { words, .. } => words.iter().map(|word| (*word).to_owned()).collect(),
            _ => vec![key.kind.example().to_owned()],
        };
        for value in values {
            good(&file_with(key, &value));
        }
    }
}

#[test]
fn every_bound_is_kept_on_both_sides() {
    for key in table() {
        let beyond = match key.kind {
            Kind::Duration { min, max } | Kind::Millis { min, max } => {
                let mut beyond = vec![format!("{}ms", max.as_millis() + 1)];
                if min > Duration::ZERO {
                    beyond.push(format!("{}ms", min.as_millis() - 1));
                }
                beyond
            }
            Kind::Size { min, max, .. } => {
                let mut beyond = vec![format!("{}B", max.0 + 1)];
                if min.0 > 0 {
                    beyond.push(format!("{}B", min.0 - 1));
                }
                beyond
            }
            Kind::Count { min, max, .. } => {
                let mut beyond = vec![(max + 1).to_string(), "18446744073709551616".to_owned()];
                if min > 0 {
                    beyond.push((min - 1).to_string());
                }
                beyond
            }
            _ => continue,
        };
        for value in beyond {
            let wrong = parse_as_if("t", &file_with(key, &value), true).expect_err(key.path).to_string();
            assert!(wrong.contains("out of bounds") && wrong.contains(key.path), "{wrong}");
        }
    }
}

#[test]
fn what_is_not_built_yet_is_refused_and_says_so() {
    let mut refused = 0;
    for key in table().iter().filter(|key| matches!(key.kind, Kind::Unavailable)) {
        for value in ["{}", "[a]", "x", ""] {
            let wrong = parse_as_if("t", &file_with(key, value), true).expect_err(key.path).to_string();
            assert!(wrong.contains(&format!("`{}` is not available in this version", key.path)), "{wrong}");
        }
        refused += 1;
    }
    assert!(refused >= 3, "disk, tls and protocols");
    for text in ["io: io_uring", "http: {forward_proxy: true}"] {
        let wrong = parse_as_if("t", text, true).expect_err(text).to_string();
        assert!(wrong.contains("not available in this version"), "{wrong}");
    }
}

/// The one switch that the engine's arrival turns.
#[test]
fn pools_are_refused_as_a_whole_while_nothing_runs_them_and_read_when_something_does() {
    let text = "kv:\n  stats: {listen: 127.0.0.1:1}\n";
    let wrong = parse_as_if("t", text, false).unwrap_err();
    assert_eq!(wrong.0.len(), 1);
    assert!(wrong.to_string().starts_with("t:1:1: `kv` is not available in this version\n"), "{wrong}");
    assert!(parse_as_if("t", text, true).unwrap().kv.stats.is_some());
    assert_eq!(parse("t", text).is_ok(), KV_AVAILABLE);

    let (without, with) = (reference_markdown_as_if(false), reference_markdown_as_if(true));
    assert!(without.contains("- `kv`: ") && !without.contains("server_failure_limit"));
    assert!(!with.contains("- `kv`: ") && with.contains("## `kv.pools`") && with.contains("server_failure_limit"));
    let refusal = explain("kv.pools.alpha.hash").unwrap().contains("not available");
    assert_eq!(refusal, !KV_AVAILABLE);
}

#[test]
fn every_key_can_be_explained_and_found_from_a_slip() {
    for key in table() {
        let text = explain(key.path).expect(key.path);
        assert!(text.contains(key.meaning), "{text}");
        assert_eq!(nearest_key(key.path), Some(key.path));
    }
    assert!(explain("http.remap.from").is_some_and(|text| text.starts_with("http.remap[].from\n")));
    assert_eq!(explain("http.timeouts.keepalive"), None);
    assert_eq!(nearest_key("http.timeouts.keepalive"), Some("http.timeouts.keep_alive"));
    assert_eq!(nearest_key("keep_alive"), Some("http.timeouts.keep_alive"));
    assert_eq!(nearest_key("xyzzy"), None);
}

#[test]
fn paths_are_unique_and_every_key_stands_in_a_section_that_exists() {
    for (i, key) in table().iter().enumerate() {
        assert!(table()[..i].iter().all(|other| other.path != key.path), "{} stands twice", key.path);
        let parent = key.parent();
        let holder = parent.strip_suffix("[]").or_else(|| parent.strip_suffix(".NAME")).unwrap_or(parent);
        assert!(holder.is_empty() || table().iter().any(|other| other.path == holder), "{}", key.path);
        assert!(key.meaning.ends_with('.'), "{}", key.path);
    }
}

#[test]
fn an_empty_file_is_all_defaults() {
    let config = good("");
    assert_eq!(config, good("# nothing\n"));
    assert_eq!(config, good("---\n"));
    assert_eq!(config, good("http:\nlog: ~\n"));
    assert_eq!(config, good("\u{feff}{}"));
    assert_eq!((config.threads, config.io, config.log.level), (Threads::Auto, Io::Auto, Level::Info));
    assert_eq!(config.log.file, LogFile::Stderr);
    assert_eq!(config.admin.listen.unwrap().to_string(), "127.0.0.1:9001");
    assert!(!config.admin.listen.unwrap().place.is_written());
    assert_eq!(config.server.listen.unwrap().to_string(), "127.0.0.1:9002");
    assert!(config.demo.origin.is_none() && config.http.listen.is_empty() && config.http.access_log.is_none());
    assert_eq!(config.http.timeouts.origin_connect, Duration::from_secs(3));
    assert_eq!(config.http.limits.connections, None);
    assert_eq!((config.http.limits.head_size.0, config.http.limits.origin_attempts), (32 << 10, 3));
    assert_eq!((config.http.via.as_str(), config.http.forwarded), ("beltway", Forwarded::Both));
    assert_eq!(config.names.stale, Duration::from_secs(3600));
    assert_eq!(config.warnings().len(), 1, "it says that nothing listens");
}

#[test]
fn the_built_in_default_is_right_and_has_nothing_to_be_warned_of() {
    let config = builtin_default();
    assert_eq!(config.warnings(), []);
    assert_eq!(config.source_text(), BUILTIN_DEFAULT);
    assert_eq!(config.http.listen[0].address.to_string(), "127.0.0.1:8080");
    assert_eq!(config.http.listen[0].backlog, 4096);
    assert_eq!(config.http.remap[0].to[0].to_string(), "http://127.0.0.1:8081/");
    assert_eq!(config.http.remap[0].host_header, HostHeader::Preserve);
    assert_eq!(config.demo.origin.unwrap().to_string(), "127.0.0.1:8081");
    for (pool, port, store) in [("redis", 22121, config.demo.redis), ("memcached", 22122, config.demo.memcached)] {
        let configured = config.kv.pool(pool).unwrap();
        assert_eq!(configured.listen.to_string(), format!("127.0.0.1:{port}"));
        assert_eq!(configured.servers[0].address.to_string(), store.unwrap().to_string());
        assert_eq!(configured.redis, pool == "redis");
    }
}

#[test]
fn a_configuration_can_be_shared_among_threads() {
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    shared(&builtin_default());
}

#[test]
fn a_changed_key_is_named_with_what_it_needs() {
    let old = good("threads: 2\nlog: {level: warn}\nhttp: {listen: [127.0.0.1:1]}\n");
    let new = good("# moved\nhttp: {listen: [127.0.0.1:2], via: x}\nthreads: 3\n");
    assert_eq!(old.restart_needed(&new), ["threads", "http.listen"]);
    let all: Vec<_> = old.changed(&new).collect();
    assert!(all.contains(&("log.level", Applied::Reload)) && all.contains(&("http.via", Applied::Reload)), "{all:?}");
    assert_eq!(all.len(), 4);
    let moved = good("\n\nhttp:\n  listen: [{address: 127.0.0.1:1}]\nlog:\n  level: warn\nthreads: 2\n");
    assert_eq!(old, moved, "places do not matter");
    assert!(old.restart_needed(&moved).is_empty());
}

#[test]
fn the_reference_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = reference_markdown();
    if std::env::var_os("BELTWAY_REWRITE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/configuration.md is out of date: run BELTWAY_REWRITE=1 cargo test -p beltway-config"
    );
}

//! Every key of the table in a running tree: a change of it is in force after a reload, in the same server, or is said
//! beforehand to need a new one and changes nothing. What some of them do is looked at from outside.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "tree/mod.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod tree;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use config::{Applied, Kind, table};
use serde_json::Value;
use supervise::role::Role;
use tree::{PATIENCE, Tree, eventually};

/// Values of every kind. The first that the table takes for a key, and that is another than before, is tried.
const CANDIDATES: [&str; 26] = [
    "7s",
    "61s",
    "4KiB",
    "1MiB",
    "17",
    "9",
    "2",
    "1",
    "true",
    "false",
    "other",
    "[10.0.0.0/8]",
    "[{from: /, to: \"http://127.0.0.1:9/\"}]",
    "[\"127.0.0.1:3:1\"]",
    "\"<>\"",
    "off",
    "modula",
    "md5",
    "error",
    "miss",
    "json",
    "none",
    "debug",
    "x_forwarded_for",
    "epoll",
    "127.0.0.1:1",
];

fn json(tree: &Tree, command: &[&str]) -> Value {
    let mut process = tree.command(&format!("ctl config {}", command[0]));
    process.args(&command[1..]).arg("--json");
    let output = tree::bounded(process);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{command:?}: {error}: {output:?}"))
}

/// The digest that the server that serves says it runs.
fn runs(tree: &Tree) -> Option<(u64, bool)> {
    let status = tree.status()?;
    let server = status["servers"].as_array()?.iter().find(|server| server["state"] == "ready")?.clone();
    Some((server["process"]["pid"].as_u64()?, server["other_configuration"].as_bool()?))
}

#[test]
fn every_key_is_applied_by_a_reload_or_said_to_need_a_restart() {
    let tree = Tree::new("keys");
    let [stats, address] = [(); 2].map(|()| tree::free_address());
    let base = format!(
        "{}kv:\n  stats: {{listen: \"{stats}\"}}\n  pools:\n    alpha: {{listen: \"{address}\", redis: true, servers: [\"127.0.0.1:1:1\"]}}\n",
        tree.original().replacen("http:\n", "cache: {ram: 2MiB}\nhttp:\n  access_log: {file: access.log}\n", 1)
    );
    tree.configure(&base);
    let mut tree = tree;
    tree.start_stub();
    tree.await_serving();
    let server = tree.pid(Role::Server);
    let name = tree.file().display().to_string();
    let old = config::parse(&name, &base).unwrap();
    let (mut reloaded, mut restarted, mut untried) = (0, 0, Vec::new());
    for row in table() {
        let no_value = matches!(row.kind, Kind::Unavailable | Kind::Section { .. } | Kind::Map { .. });
        // The log is looked at last: it does not come back.
        if no_value || row.path.contains("[]") || row.path == "log.file" {
            continue;
        }
        let key = row.path.replace("NAME", "alpha");
        let other_file = tree.home.join("other.log").display().to_string();
        let value = CANDIDATES.into_iter().chain([other_file.as_str()]).find(|value| {
            let new = config::set(&name, &base, &key, value);
            new.is_ok_and(|new| old.changed(&new).any(|(path, _)| path == row.path))
        });
        let Some(value) = value else {
            untried.push(row.path);
            continue;
        };
        let judged = json(&tree, &["set", &key, value, "--judge"]);
        let named = judged["changed"].as_array().unwrap().iter().find(|changed| changed["key"] == row.path);
        assert!(named.is_some(), "{key}: {value}: {judged}");
        let verdict = json(&tree, &["set", &key, value]);
        match row.applied {
            Applied::Reload => {
                assert_eq!(verdict["outcome"], "applied", "{key}: {value}: {verdict}");
                eventually("the server runs it", || (runs(&tree)? == (u64::from(server), false)).then_some(()));
                let shown = if matches!(row.kind, Kind::Secret) { "(hidden)" } else { value };
                assert_eq!(json(&tree, &["get", &key])["value"], shown, "{key}");
                tree.configure(&base);
                let back = tree.ask("reload --json");
                assert!(back.status.success(), "{key} back: {back:?}");
                reloaded += 1;
            }
            Applied::Restart => {
                let refused = verdict["outcome"] == "needs_restart" || row.path == "runtime_dir";
                assert!(refused, "{key}: {value}: {verdict}");
                assert!(verdict["changed"].as_array().unwrap().iter().any(|c| c["key"] == row.path), "{verdict}");
                assert_eq!(fs::read_to_string(tree.file()).unwrap(), base, "{key}: the file stays");
                restarted += 1;
            }
        }
    }
    assert_eq!(runs(&tree).unwrap().0, u64::from(server), "nothing has replaced the server");
    println!("{reloaded} by reload, {restarted} by restart; no other value for {untried:?}");
    assert!(reloaded > 40 && restarted > 10, "{reloaded} {restarted}");
}

/// Head and body of the answer to one request, and of nothing when the connection ends before.
fn send(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    // A reset is an end, too.
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn status_of(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n";

#[test]
fn what_a_reload_changes_is_seen_from_outside() {
    let tree = Tree::run("keys-seen");
    let server = tree.pid(Role::Server);
    let (http, home) = (tree.http, tree.home.clone());
    let set = |key: &str, value: &str| {
        let verdict = json(&tree, &["set", key, value]);
        assert_eq!(verdict["outcome"], "applied", "{key}: {value}: {verdict}");
    };
    let close = "Connection: close\r\n\r\n";

    set("http.via", "observed");
    assert!(tree.get().unwrap().contains("observed"));
    // Each of these ends a connection that does not do what is waited for; the others end it after PATIENCE or later. Each
    // is taken back: who follows may be slow.
    set("http.timeouts.keep_alive", "100ms");
    assert_eq!(status_of(&send(http, &format!("{GET}\r\n"))), 200, "and the connection ends by itself");
    set("http.timeouts.keep_alive", "60s");
    set("http.timeouts.client_idle", "100ms");
    let late = send(http, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12");
    assert_ne!(status_of(&late), 200, "{late}");
    set("http.timeouts.client_idle", "60s");
    set("http.timeouts.request_head", "100ms");
    assert_ne!(status_of(&send(http, "GET / HT")), 200);
    set("http.timeouts.request_head", "30s");

    set("http.limits.head_size", "4KiB");
    let long = "x".repeat(6 << 10);
    assert_eq!(status_of(&send(http, &format!("{GET}Long: {long}\r\n{close}"))), 431);
    set("http.limits.head_fields", "8");
    let many: String = (0..20).map(|number| format!("F{number}: x\r\n")).collect();
    assert_eq!(status_of(&send(http, &format!("{GET}{many}{close}"))), 431);

    let purge = "PURGE / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_ne!(status_of(&send(http, purge)), 403);
    set("http.allow", "[10.0.0.0/8]");
    assert_eq!(status_of(&send(http, purge)), 403);

    let log = home.join("requests.json");
    set("http.access_log", &format!("{{file: {}}}", log.display()));
    set("http.access_log.format", "json");
    tree.get().unwrap();
    let logged = |log: &Path| fs::read_to_string(log).ok().filter(|text| text.contains('{'));
    eventually("a line in JSON", || logged(&log));
    let other = home.join("other.json");
    set("http.access_log.file", &other.display().to_string());
    tree.get().unwrap();
    eventually("a line in the other file", || logged(&other));

    set("cache.ram", "3MiB");
    let budget = || {
        let text = tree.ask("ctl metric get beltway_cache_budget_bytes").stdout;
        String::from_utf8_lossy(&text).trim().ends_with(&(3_u64 << 20).to_string()).then_some(())
    };
    eventually("the cache's new budget", budget);

    // An origin that takes the request and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    set("http.timeouts.origin_response", "100ms");
    let text = fs::read_to_string(tree.file()).unwrap();
    let silent_at = silent.local_addr().unwrap();
    tree.configure(&text.replacen(
        "  remap:\n",
        &format!("  remap:\n    - {{from: /silent, to: \"http://{silent_at}/\"}}\n"),
        1,
    ));
    assert!(tree.ask("reload").status.success());
    assert_eq!(status_of(&send(http, &format!("GET /silent HTTP/1.1\r\nHost: localhost\r\n{close}"))), 504);
    set("http.timeouts.origin_response", "60s");
    let text = fs::read_to_string(tree.file()).unwrap();
    tree.configure(&text.replacen("{from: \"/\",", "{from: \"/elsewhere/\",", 1));
    assert!(tree.ask("reload").status.success());
    assert_eq!(status_of(&send(http, &format!("{GET}{close}"))), 404);

    let token = home.join("token");
    fs::write(&token, "correct-horse-battery").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let ask = "POST /api/v1/log/reopen HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer \
               correct-horse-battery\r\n\r\n";
    assert_eq!(status_of(&send(tree.admin, ask)), 403);
    set("admin.token_file", &token.display().to_string());
    assert_eq!(status_of(&send(tree.admin, ask)), 200);

    set("log.level", "error");
    let quiet = tree.log().len();
    assert!(tree.ask("reload").status.success());
    assert!(!tree.log().split_off(quiet).contains("reload:"));
    set("log.level", "info");
    let file = home.join("beltway.log");
    set("log.file", &file.display().to_string());
    set("server.drain_timeout", "3s");
    assert_eq!(tree.pid(Role::Server), server, "the same server all the time");
    assert!(tree.ask("ctl server stop").status.success());
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("traffic_server[") && text.contains("draining, for 3s at most"), "{text}");
    tree.configure(&tree.original());
    let back = tree.ask("reload");
    assert!(String::from_utf8_lossy(&back.stdout).contains("takes a stop and a start"), "{back:?}");
}

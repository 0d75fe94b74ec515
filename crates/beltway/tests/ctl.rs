//! Everything an operator can ask and do while all three processes run: by `beltway ctl`, and by HTTP with the token.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "tree/mod.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod tree;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use supervise::role::Role;
use tree::{PATIENCE, Tree, eventually};

const TOKEN: &str = "correct-horse-battery";

/// A tree whose admin port takes [`TOKEN`].
fn tree(name: &str) -> Tree {
    let mut tree = Tree::new(name);
    let token = tree.home.join("token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    tree.configure(&tree.original().replacen(
        &format!("admin: {{listen: {}}}", tree.admin),
        &format!("admin:\n  listen: {}  # ours\n  token_file: {}", tree.admin, token.display()),
        1,
    ));
    tree.start_stub();
    tree.await_serving();
    tree
}

fn json(tree: &Tree, command: &str) -> Value {
    let output = tree.ask(&format!("{command} --json"));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{command}: {error}: {output:?}"))
}

fn code(tree: &Tree, command: &str) -> i32 {
    tree.ask(command).status.code().unwrap()
}

/// Status code and body.
fn http(tree: &Tree, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(tree.admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n");
    write!(stream, "{head}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// Status code of a page that says whether we are well.
fn health(address: std::net::SocketAddr) -> u16 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_key_is_set_in_the_running_server_and_in_the_file_or_in_neither() {
    let tree = tree("ctl-set");
    let server = tree.pid(Role::Server);
    assert_eq!(json(&tree, "ctl config get http.via")["value"], "beltway");
    let verdict = json(&tree, "ctl config set http.via mine --judge");
    assert_eq!((&verdict["outcome"], &verdict["changed"][0]["after"]), (&"possible".into(), &"mine".into()));
    assert_eq!(json(&tree, "ctl config get http.via")["value"], "beltway", "only judged");

    assert_eq!(code(&tree, "ctl config set http.via mine"), 0);
    assert!(tree.get().unwrap().contains("mine"), "the new Via is used");
    let text = fs::read_to_string(tree.file()).unwrap();
    assert!(text.contains("via: mine") && text.contains("# ours"), "{text}");
    assert_eq!(json(&tree, "ctl config diff")["outcome"], "unchanged", "file and server agree");

    for (words, exit) in [
        ("ctl config set threads 2", 1),
        ("ctl config set http.via two,words", 3),
        ("ctl config set http.vai mine", 1),
        ("ctl config set http {}", 1),
        ("ctl config set", 2),
        ("ctl config get http.vai", 1),
    ] {
        assert_eq!(code(&tree, words), exit, "{words}");
        assert_eq!(fs::read_to_string(tree.file()).unwrap(), text, "{words}");
    }
    assert_eq!(tree.pid(Role::Server), server, "never replaced");
    assert_eq!(code(&tree, "ctl config set threads 2 --restart"), 0);
    assert_ne!(tree.pid(Role::Server), server);

    // What the file says beside is not put in force by the way.
    tree.configure(&fs::read_to_string(tree.file()).unwrap().replacen("via: mine", "via: theirs", 1));
    let verdict = json(&tree, "ctl config set names.ttl 7s");
    assert!(verdict["why"].as_str().unwrap().contains("http.via"), "{verdict}");
    let verdict = json(&tree, "ctl config rollback 2");
    assert_eq!(verdict["outcome"], "needs_restart", "{verdict}");
    let verdict = json(&tree, "ctl config rollback 2 --restart");
    assert!(verdict["diagnostics"][0].as_str().unwrap().contains("is as it was"), "{verdict}");
}

#[test]
fn a_key_that_is_taken_out_has_its_default_and_the_history_keeps_what_was() {
    let tree = tree("ctl-unset");
    let server = tree.pid(Role::Server);
    let before = fs::read_to_string(tree.file()).unwrap();
    assert_eq!(code(&tree, "ctl config set http.via mine"), 0);
    let verdict = json(&tree, "ctl config unset http.via --judge");
    assert_eq!((&verdict["outcome"], &verdict["changed"][0]["after"]), (&"possible".into(), &"beltway".into()));
    assert_eq!(json(&tree, "ctl config get http.via")["value"], "mine", "only judged");

    assert_eq!(code(&tree, "ctl config unset http.via"), 0);
    assert!(!tree.get().unwrap().contains("mine"), "the default is used");
    assert_eq!(json(&tree, "ctl config get http.via")["written"], false);
    assert_eq!(fs::read_to_string(tree.file()).unwrap(), before, "as if it had never been set");
    assert_eq!(json(&tree, "ctl config unset http.via")["outcome"], "unchanged");

    // Also one that is written as it is by default.
    assert_eq!(code(&tree, "ctl config set http.via beltway"), 0);
    assert_eq!(json(&tree, "ctl config get http.via")["written"], true);
    assert_eq!(code(&tree, "ctl config unset http.via"), 0);
    assert_eq!(fs::read_to_string(tree.file()).unwrap(), before);
    assert_eq!(json(&tree, "ctl config history").as_array().unwrap().len(), 5, "each was committed");

    for (words, exit) in [("unset http.vai", 1), ("unset http", 1), ("unset threads", 1), ("unset", 2)] {
        assert_eq!(code(&tree, &format!("ctl config {words}")), exit, "{words}");
        assert_eq!(fs::read_to_string(tree.file()).unwrap(), before, "{words}");
    }
    assert_eq!(tree.pid(Role::Server), server, "never replaced");
    assert_eq!(code(&tree, "ctl config rollback 2"), 0);
    assert!(tree.get().unwrap().contains("mine"), "what was can be had back");
    assert_eq!(code(&tree, "ctl config reload"), 0);
    let (status, verdict) = http(&tree, "DELETE", "/api/v1/config/keys/threads?restart=true", "");
    assert_eq!((status, &verdict["outcome"]), (200, &"applied".into()), "{verdict}");
    assert_ne!(tree.pid(Role::Server), server);
}

#[test]
fn readiness_fails_when_asked_and_everything_goes_on_also_over_a_death_and_a_new_manager() {
    let tree = tree("ctl-drain");
    assert_eq!(health(tree.admin), 200);
    assert_eq!(code(&tree, "ctl server drain"), 0);
    assert_eq!(health(tree.admin), 503);
    tree.get().unwrap();
    assert_eq!(json(&tree, "ctl status")["leaving"], true);

    let before = tree.kill(Role::Server);
    tree.await_another(Role::Server, before);
    tree.await_serving();
    assert_eq!(health(tree.admin), 503, "a new server does not take it back");
    let before = tree.kill(Role::Manager);
    tree.await_another(Role::Manager, before);
    eventually("the new manager knows it, too", || {
        let status = tree.status()?;
        (status["leaving"] == true).then_some(())
    });
    // It has heard the server, too.
    tree.await_serving();
    tree.get().unwrap();
    assert_eq!(code(&tree, "ctl server start"), 0);
    assert_eq!(health(tree.admin), 200);
}

/// A listener as `ctl status` shows it.
fn listener(tree: &Tree, kind: &str) -> Option<Value> {
    let status = tree.status()?;
    status["listeners"].as_array()?.iter().find(|listener| listener["kind"] == kind).cloned()
}

#[test]
fn each_queue_shows_who_waits_and_how_many_may_and_counts_whom_it_turned_away() {
    let mut tree = Tree::new("ctl-queue");
    let small = format!("listen: [{{address: {}, backlog: 2}}]", tree.http);
    tree.configure(&tree.original().replacen(&format!("listen: [{}]", tree.http), &small, 1));
    tree.start_stub();
    tree.await_serving();
    tree.get().unwrap();
    for kind in ["http", "server", "demo", "admin"] {
        let queue = listener(&tree, kind).unwrap();
        assert!(queue["waiting"].is_u64() && queue["waiting_max"].as_u64() > Some(0), "{queue}");
    }
    assert_eq!(listener(&tree, "http").unwrap()["waiting_max"], 2);

    // Nobody accepts: the kernel takes as many as there is room for, and turns the others away.
    assert_eq!(code(&tree, "ctl server stop"), 0);
    let clients: Vec<_> = (0..8).map(|_| sys::socket::connect(tree.http).unwrap()).collect();
    let full = || listener(&tree, "http").filter(|it| it["waiting"].as_u64() >= Some(2) && it["dropped"] != 0);
    let (queue, _) = eventually("it is full, and somebody was turned away", full);
    let text = String::from_utf8(tree.ask("ctl status").stdout).unwrap();
    let told = format!("{} of 2 wait, ", queue["waiting"]);
    assert!(text.lines().any(|line| line.contains(&told) && line.contains(" turned away")), "{told:?} in\n{text}");
    let counted = String::from_utf8(tree.ask("ctl metric get beltway_listener_dropped_total").stdout).unwrap();
    assert!(counted.lines().any(|line| line.contains("kind=\"http\"") && !line.ends_with(" 0")), "{counted}");

    assert_eq!(code(&tree, "ctl server start"), 0);
    eventually("nobody waits", || listener(&tree, "http").filter(|queue| queue["waiting"] == 0));
    tree.get().unwrap();
    assert_ne!(listener(&tree, "http").unwrap()["dropped"], 0, "what was counted stays counted");
    drop(clients);
}

#[test]
fn the_memory_is_told_by_process_and_by_room() {
    let tree = tree("ctl-memory");
    let memory = json(&tree, "ctl memory --exact");
    let names: Vec<_> = memory["processes"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["beltway", "traffic_cop", "traffic_manager", "traffic_server"]);
    for process in memory["processes"].as_array().unwrap() {
        let (share, resident) = (process["proportional_bytes"].as_u64(), process["resident_bytes"].as_u64().unwrap());
        assert!(share.is_some_and(|share| 0 < share && share <= resident), "{process}");
    }
    let rooms: Vec<_> = memory["rooms"].as_array().unwrap().iter().map(|room| room["name"].as_str().unwrap()).collect();
    assert!(["buffers", "cache", "connections", "heap"].iter().all(|room| rooms.contains(room)), "{rooms:?}");
    // A server that is given no processor for long is left out.
    eventually("the server's memory", || {
        let text = String::from_utf8(tree.ask("ctl memory").stdout).unwrap();
        text.contains("traffic_server[").then_some(())
    });
}

#[test]
fn the_level_of_the_log_reaches_everybody_and_those_who_come_later() {
    let tree = tree("ctl-level");
    assert_eq!(code(&tree, "ctl log level error"), 0);
    let before = tree.kill(Role::Server);
    tree.await_another(Role::Server, before);
    tree.await_serving();
    // The stub has no control socket, and looks by itself: soon a death and a start are passed over in silence by all.
    eventually("nobody tells of a death", || {
        let quiet = tree.log().len();
        let before = tree.kill(Role::Cop);
        tree.await_another(Role::Cop, before);
        tree.await_serving();
        let said = tree.log().split_off(quiet);
        (!said.contains("info:") && !said.contains("warning:")).then_some(())
    });
    let quiet = tree.log().len();
    assert_eq!(code(&tree, "ctl config set names.ttl 9s"), 0);
    eventually("a reload brings the configuration's level back", || {
        let before = tree.kill(Role::Cop);
        tree.await_another(Role::Cop, before);
        tree.log().split_off(quiet).contains("beltway[").then_some(())
    });
    assert_eq!(code(&tree, "ctl log level loud"), 2);
}

#[test]
fn who_is_not_there_is_said_in_both_languages() {
    let tree = Tree::new("ctl-nobody");
    for command in
        ["ctl status", "ctl memory", "ctl config get", "ctl metric get x", "ctl log level info", "ctl server stop"]
    {
        let output = tree.ask(&format!("{command} --json"));
        assert_eq!(output.status.code(), Some(5), "{command}: {output:?}");
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["exit"], 5, "{command}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("not running"), "{command}");
    }
}

#[test]
fn with_the_token_the_same_is_done_over_http() {
    let tree = tree("ctl-http");
    let (status, verdict) = http(&tree, "PUT", "/api/v1/config/keys/http.via", "mine");
    assert_eq!((status, &verdict["outcome"]), (200, &"applied".into()), "{verdict}");
    assert!(tree.get().unwrap().contains("mine"));
    assert_eq!(http(&tree, "GET", "/api/v1/config/keys/http.via", "").1["value"], "mine");
    assert_eq!(http(&tree, "PUT", "/api/v1/config/keys/threads", "2").0, 409);
    assert_eq!(http(&tree, "PUT", "/api/v1/config/keys/names.ttl", "soon").0, 422);
    let (status, verdict) = http(&tree, "POST", "/api/v1/server/restart", "");
    assert_eq!((status, &verdict["generation"]), (200, &2.into()), "{verdict}");
    assert_eq!(http(&tree, "GET", "/api/v1/config/history", "").1.as_array().unwrap().len(), 2);
    let (status, verdict) = http(&tree, "POST", "/api/v1/config/rollback/1", "");
    assert_eq!((status, &verdict["outcome"]), (200, &"applied".into()), "{verdict}");
    assert_eq!(http(&tree, "POST", "/api/v1/server/drain", "").0, 200);
    assert_eq!(health(tree.admin), 503);
    assert_eq!(http(&tree, "DELETE", "/api/v1/server/drain", "").0, 200);
    assert_eq!(health(tree.admin), 200);
    let (status, memory) = http(&tree, "GET", "/api/v1/memory", "");
    assert!(status == 200 && memory["processes"].as_array().unwrap().len() >= 4, "{memory}");
    assert_eq!(http(&tree, "POST", "/api/v1/server/stop", "").0, 202);
    eventually("it stops", || tree.process(Role::Server).is_none().then_some(()));
    assert_eq!(http(&tree, "POST", "/api/v1/server/start", "").0, 202);
    tree.await_serving();
}

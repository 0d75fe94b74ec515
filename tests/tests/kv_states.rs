//! What operators are told of servers is how they are: whether or not they are counted, and through every death.

#![allow(clippy::unwrap_used, reason = "a walk that cannot set up its surroundings fails")]

use std::net::SocketAddr;

use serde_json::Value;
use walks::kv::{KvClient, KvTree, Store};
use walks::{eventually, free_address};

fn pool(name: &str, listen: SocketAddr, keys: &str, servers: &[String]) -> String {
    let servers: String = servers.iter().map(|server| format!("    - \"{server}\"\n")).collect();
    format!("{name}:\n  listen: {listen}\n  redis: true\n  hash: murmur\n  timeout: 60s\n{keys}  servers:\n{servers}")
}

fn at(address: SocketAddr, name: &str) -> String {
    format!("{address}:1 {name}")
}

/// The server of that name in `ctl kv servers`.
fn server(tree: &KvTree, pool: &str, name: &str) -> Value {
    let servers = tree.json(&["ctl", "kv", "servers"]);
    let found = servers[pool].as_array().unwrap().iter().find(|server| server["name"] == name).cloned();
    found.unwrap_or_else(|| panic!("no {name} in {servers}"))
}

#[test]
fn a_dead_server_that_a_reload_brings_is_called_so_wherever_it_is_told_of() {
    let one = Store::redis(&[]);
    let (listen, nobody) = (free_address(), free_address());
    let keys = "  auto_eject_hosts: true\n  server_failure_limit: 1\n  server_retry_timeout: 30s\n";
    let of = |servers: &[String]| pool("alpha", listen, keys, servers);
    let tree = KvTree::run(&of(&[at(one.address(), "one")]));
    tree.write(&of(&[at(one.address(), "one"), at(nobody, "dead")]));
    let _ = tree.say(&["reload"]);
    eventually("it is in force", || tree.done(&["ctl", "kv", "servers"]).contains("dead").then_some(()));
    let mut client = KvClient::connect(listen);
    for key in 0..20 {
        assert!(client.ask(&format!("SET key:{key} x")).is_some());
    }
    let told = eventually("it is told of as dead", || {
        let told = server(&tree, "alpha", "dead");
        let state = told["state"].as_str().unwrap();
        assert!(!state.starts_with("live on 2") && state != "live", "{told}");
        (state == "ejected").then_some(told)
    });
    assert_eq!((&told["requests"], &told["time"]), (&Value::Null, &Value::Null), "{told}");
    assert!(tree.done(&["ctl", "kv", "pools"]).lines().nth(1).unwrap().contains(" 1/2 "));
    for key in 0..20 {
        let place = tree.done(&["ctl", "kv", "where", "alpha", &format!("key:{key}")]);
        assert!(place.contains("called one"), "{place}");
    }
    let table = tree.done(&["ctl", "kv", "servers"]);
    let line = table.lines().find(|line| line.contains(" dead ")).unwrap();
    assert!(line.contains(" - ") && line.ends_with("(counted from the next restart on)"), "{table}");
    // And so it is.
    tree.done(&["restart"]);
    let told = server(&tree, "alpha", "dead");
    assert!(told["requests"].is_u64() && told["note"] == "", "{told}");
}

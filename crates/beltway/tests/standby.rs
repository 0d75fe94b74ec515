//! A server that stands by: what happens when the one that serves dies, when the configuration changes, and when manager
//! dies too.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "tree/mod.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod tree;

use serde_json::Value;
use supervise::role::Role;
use sys::process::{Pidfd, Signal};
use tree::{Load, Tree, eventually};

fn with_standby(name: &str) -> Tree {
    let mut tree = Tree::new(name);
    tree.configure(&tree.original().replacen("drain_timeout: 2s", "drain_timeout: 2s, standby: true", 1));
    tree.start_stub();
    tree.await_serving();
    tree
}

/// Generation and pid of the servers in `state`.
fn servers(tree: &Tree, state: &str) -> Vec<(u64, u32)> {
    let status = tree.status().unwrap_or(Value::Null);
    let servers = status["servers"].as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_u64().unwrap();
    let of =
        |server: &Value| (number(&server["generation"]), u32::try_from(number(&server["process"]["pid"])).unwrap());
    servers.iter().filter(|server| server["state"] == state).map(of).collect()
}

/// The one that serves and the one that stands by.
fn pair(tree: &Tree) -> ((u64, u32), (u64, u32)) {
    let both = || match (&servers(tree, "ready")[..], &servers(tree, "standby")[..]) {
        ([ready], [standby]) => Some((*ready, *standby)),
        _ => None,
    };
    eventually("one serves and one stands by", both).0
}

fn kill(pid: u32) {
    let process = Pidfd::open(pid).unwrap();
    process.signal(Signal::KILL).unwrap();
    eventually("death", || process.is_dead().then_some(()));
}

#[test]
fn the_one_that_stands_by_takes_over_from_the_dead_and_another_comes() {
    let tree = with_standby("standby");
    let ((first, _), (second, heir)) = pair(&tree);
    assert!(second > first);
    for _ in 0..5 {
        tree.get().unwrap();
    }
    assert_eq!(servers(&tree, "standby"), [(second, heir)], "it accepted nothing");
    for _ in 0..3 {
        let ((_, serving), (generation, heir)) = pair(&tree);
        let load = Load::begin(tree.http);
        let begin = tree::now();
        kill(serving);
        tree.get().unwrap();
        println!("an answer {:?} after the death", begin.elapsed());
        assert_eq!(servers(&tree, "ready"), [(generation, heir)], "no new one was waited for");
        load.more(20);
        let (_, refused, broken) = load.end();
        assert_eq!(refused, 0);
        assert!(broken <= 1, "what was in flight: {broken}");
    }
    // One that stands by dies by itself: nobody notices, another comes.
    let ((_, serving), (_, heir)) = pair(&tree);
    kill(heir);
    tree.get().unwrap();
    let ((_, still), (_, next)) = pair(&tree);
    assert_eq!(still, serving);
    assert_ne!(next, heir);
}

#[test]
fn it_is_of_the_configuration_in_force_and_goes_when_it_is_not_wanted() {
    let tree = with_standby("standby-follows");
    let (serving, old) = pair(&tree);
    assert!(tree.ask("ctl config set http.via followed").status.success());
    let (same, new) = pair(&tree);
    assert_eq!(same, serving, "a reload replaces no server");
    assert_ne!(new, old);
    kill(serving.1);
    assert!(tree.get().unwrap().contains("followed"));

    pair(&tree);
    assert!(tree.ask("restart").status.success());
    let ((generation, _), _) = pair(&tree);
    assert!(generation > new.0, "the one that was started serves, not the one that stood by");
    assert!(tree.ask("ctl server stop").status.success());
    assert_eq!((servers(&tree, "ready"), servers(&tree, "standby")), (vec![], vec![]));
    assert!(tree.ask("ctl server start").status.success());
    pair(&tree);
    assert!(tree.ask("ctl config set server.standby false").status.success());
    eventually("nobody stands by", || servers(&tree, "standby").is_empty().then_some(()));
    tree.get().unwrap();
}

#[test]
fn a_new_manager_adopts_both_and_manager_and_server_may_die_together() {
    let mut tree = with_standby("standby-adopted");
    let before = pair(&tree);
    let manager = tree.kill(Role::Manager);
    tree.await_another(Role::Manager, manager);
    assert_eq!(pair(&tree), before, "adopted, both as they were");

    let manager = tree.process(Role::Manager).unwrap();
    let load = Load::begin(tree.http);
    manager.signal(Signal::KILL).unwrap();
    kill(before.0.1);
    tree.await_another(Role::Manager, manager.pid());
    tree.await_serving();
    assert_eq!(servers(&tree, "ready"), [before.1], "the one that stood by serves");
    load.more(10);
    let (_, refused, broken) = load.end();
    assert_eq!(refused, 0);
    assert!(broken <= 1, "what was in flight: {broken}");
    pair(&tree);
    assert_eq!(tree.terminate(), Some(0));
    tree.assert_nothing_is_left();
}

//! Who cannot start is tried again, ever more slowly, says why, and comes back by itself when the reason is gone.

#[path = "tree/mod.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod tree;

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use supervise::role::Role;
use sys::process::{Pidfd, Signal};
use tree::{Failed, Tree, eventually, now, pause};

/// The configured maximum of the pause between two starts.
const BACKOFF_MAX: Duration = Duration::from_millis(500);

fn starts(tree: &Tree, role: &str) -> usize {
    tree.log().lines().filter(|line| line.contains(&format!("{role}[")) && line.contains("] started")).count()
}

#[test]
fn a_server_that_dies_at_every_start_is_tried_ever_more_slowly_and_nobody_is_refused_meanwhile() {
    let mut tree = Tree::new("dying");
    let directory = tree.directory();
    directory.create().unwrap();
    // What is in the way of its control socket and cannot be removed: the first seven generations fail.
    for generation in 1..=7 {
        fs::create_dir_all(directory.server_socket(generation).join("in the way")).unwrap();
    }
    tree.start_stub();
    let (status, _) = eventually("a status that tells", || {
        let status = tree.status()?;
        (status["respawn"]["failures"].as_u64() >= Some(3)).then_some(status)
    });
    let respawn = &status["respawn"];
    assert!(respawn["last_death"].as_str().unwrap().contains("exited with 1"), "{status}");
    assert!(respawn["next_try_in_ms"].as_u64().unwrap() <= u64::try_from(BACKOFF_MAX.as_millis()).unwrap());
    let text = tree.ask("status");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("traffic_server") && text.contains("failures, next try in"), "{text}");
    // The listeners are manager's: whoever connects now waits, and is served by the one that can start.
    tree.get().unwrap();
    tree.await_serving();
    let status = tree.status().unwrap();
    assert_eq!(status["servers"][0]["generation"], 8, "{status}");
    assert!(status["respawn"].is_null(), "{status}");
    assert_eq!(starts(&tree, "traffic_server"), 8, "{}", tree.log());
    for generation in 1..=7 {
        fs::remove_dir_all(directory.server_socket(generation)).unwrap();
    }
    assert_eq!(tree.terminate(), Some(0));
}

#[test]
fn when_all_are_dead_and_the_port_is_taken_they_try_until_it_is_free() {
    let tree = Tree::run("port");
    let stub = Pidfd::open(tree.stub.as_ref().unwrap().id()).unwrap();
    stub.signal(Signal::STOP).unwrap();
    // Stopped first: or one of them brings back another that has just died.
    for role in [Role::Cop, Role::Manager] {
        Pidfd::open(tree.pid(role)).unwrap().signal(Signal::STOP).unwrap();
    }
    for role in [Role::Cop, Role::Manager, Role::Server] {
        let _ = tree.kill(role);
    }
    let (stranger, _) = eventually("the port", || TcpListener::bind(tree.http).ok());
    let (before, begin) = (starts(&tree, "traffic_manager"), now());
    stub.signal(Signal::CONT).unwrap();
    let failures = || tree.log().matches("cannot listen on").count();
    eventually("manager has failed four times", || (failures() >= 4).then_some(()));
    assert_eq!(tree.status(), None);
    pause(2 * BACKOFF_MAX);
    // At once, after 100, 200 and 400 ms, and from then on twice a second.
    let tried = u32::try_from(starts(&tree, "traffic_manager") - before).unwrap();
    let most = 5 + u32::try_from(begin.elapsed().as_millis() / BACKOFF_MAX.as_millis()).unwrap();
    assert!(tried <= most, "{tried} of at most {most}");
    drop(stranger);
    tree.await_serving();
    tree.get().unwrap();
}

#[test]
fn a_role_whose_configuration_is_wrong_ends_at_once_and_says_where() {
    let tree = Tree::new("wrong");
    tree.configure("http: {listen: [nowhere]}\n");
    for command in ["run", "start", "manager", "server"] {
        let output = tree.ask(command);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("beltway.yaml:1:"), "{output:?}");
    }
    assert!(matches!(tree.get(), Err(Failed::Refused)));
}

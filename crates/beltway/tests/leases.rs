//! What lies in the runtime directory when somebody starts: left by the dead, by strangers, or held by the living.

#[path = "tree/mod.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod tree;

use std::fs;
use std::process::Stdio;

use supervise::lease::Lease;
use supervise::role::Role;
use tree::{Tree, eventually};

#[test]
fn files_left_by_the_dead_and_by_strangers_hinder_nobody() {
    let mut tree = Tree::new("left");
    let directory = tree.directory();
    directory.create().unwrap();
    // A pid that lives and holds nothing; no pid; none at all; too much.
    fs::write(directory.stub_lease(), format!("{}\n", std::process::id())).unwrap();
    fs::write(directory.cop_lease(), "not a number\n").unwrap();
    fs::write(directory.manager_lease(), "").unwrap();
    fs::write(directory.server_lease(3), "x".repeat(10_000)).unwrap();
    fs::write(directory.server_socket(3), "").unwrap();
    fs::write(directory.manager_socket(), "").unwrap();
    tree.start_stub();
    tree.await_serving();
    tree.get().unwrap();
    assert!(!directory.server_lease(3).exists(), "what the dead left is cleared away");
    assert_eq!(tree.terminate(), Some(0));
    tree.assert_nothing_is_left();
}

#[test]
fn of_two_who_start_at_the_same_moment_one_serves_and_the_other_names_it() {
    for round in 0..3 {
        let tree = Tree::new(&format!("both{round}"));
        let start = || tree.command("start").stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let both = [start(), start()].map(|child| child.wait_with_output().unwrap());
        let mut codes = both.each_ref().map(|output| output.status.code());
        codes.sort_unstable();
        assert_eq!(codes, [Some(0), Some(4)], "{both:?}");
        let refused = both.iter().find(|output| output.status.code() == Some(4)).unwrap();
        let stub = fs::read_to_string(tree.directory().stub_lease()).unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains(&format!("process {}", stub.trim())), "{said}");
        tree.get().unwrap();
        assert_eq!(tree.ask("stop").status.code(), Some(0));
        tree.assert_nothing_is_left();
    }
}

#[test]
fn what_is_no_file_in_a_leases_place_is_named() {
    let tree = Tree::new("odd");
    let directory = tree.directory();
    directory.create().unwrap();
    fs::create_dir(directory.stub_lease()).unwrap();
    for command in ["run", "start"] {
        let output = tree.ask(command);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("beltway.lock: "), "{output:?}");
    }
    fs::remove_dir(directory.stub_lease()).unwrap();
    std::os::unix::fs::symlink("/dev/null", directory.stub_lease()).unwrap();
    assert_eq!(tree.ask("run").status.code(), Some(1), "a link is not followed");
    fs::remove_file(directory.stub_lease()).unwrap();
    fs::create_dir(directory.manager_lease()).unwrap();
    let output = tree.ask("run");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("manager.lock: "), "{output:?}");
}

#[test]
fn a_lease_that_a_stranger_holds_is_taken_from_nobody() {
    let tree = Tree::new("stranger");
    let directory = tree.directory();
    directory.create().unwrap();
    let held = Lease::reserve(&directory.stub_lease()).unwrap();
    let output = tree.ask("run");
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("beltway.lock is held by"), "{output:?}");
    drop(held);
}

#[test]
fn a_lease_removed_while_it_is_held_comes_back_with_the_same_holder() {
    let tree = Tree::run("removed");
    let roles = [Role::Cop, Role::Manager, Role::Server];
    let pids = roles.map(|role| tree.pid(role));
    let directory = tree.directory();
    for path in [directory.cop_lease(), directory.manager_lease(), directory.server_lease(1)] {
        fs::remove_file(path).unwrap();
    }
    let whole = || roles.map(|role| tree.process(role).map(|process| process.pid())) == pids.map(Some);
    eventually("all leases are back", || whole().then_some(()));
    tree.get().unwrap();
}

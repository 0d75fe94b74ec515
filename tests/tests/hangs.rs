//! Who hangs is found and replaced, one thread of many included; who is only slow is left alone.

#![allow(clippy::unwrap_used, reason = "a walk that cannot set up its surroundings fails")]

use std::time::Duration;

use walks::{Kind, Nginx, Peer, Tree, now};

/// The hang timeout of these trees is two seconds; a busy machine may take five times what is promised.
const SERVING_WITHIN: Duration = Duration::from_millis(5 * 3_500);

fn start() -> (Nginx, Tree) {
    let nginx = Nginx::start(|files| std::fs::write(files.join("object"), "x").unwrap());
    let tree = Tree::run_fragile(&format!("remap: [{{from: \"/\", to: \"{}\"}}]", nginx.url()));
    (nginx, tree)
}

fn is_served(tree: &Tree) -> bool {
    let Ok(mut peer) = Peer::try_connect(tree.address()) else { return false };
    let request = "GET /object HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    peer.try_send(request).is_ok() && peer.receive(Kind::ResponseTo("GET")).end == walks::End::Whole
}

/// Breaks one event thread; the obituary of that server.
fn broken_by(fault: &str) -> serde_json::Value {
    let (_nginx, tree) = start();
    let hung = tree.pid("server");
    let begin = now();
    let _kept = tree.break_by(fault);
    let back = tree.await_back(&[hung]);
    assert!(is_served(&tree));
    let serving = begin.elapsed();
    println!("{fault}: all back after {back:?}, serving after {serving:?}");
    assert!(serving < SERVING_WITHIN, "{serving:?}");
    let deaths = tree.obituaries();
    println!("{}", serde_json::to_string_pretty(&deaths).unwrap());
    deaths.into_iter().find(|death| death["pid"] == hung).unwrap()
}

/// Whether the first thread of an obituary, which is the one that matters, was in that function.
fn has_frame(death: &serde_json::Value, function: &str) -> bool {
    let frames = death["threads"][0]["frames"].as_array().unwrap();
    frames.iter().any(|frame| frame.as_str().unwrap().contains(function))
}

/// Has the server die of a fault; its obituary.
fn dead_of(fault: &str) -> serde_json::Value {
    let (_nginx, tree) = start();
    let dying = tree.pid("server");
    let _kept = tree.break_by(fault);
    let back = tree.await_back(&[dying]);
    assert!(is_served(&tree));
    println!("{fault}: all back after {back:?}");
    // Each witness writes in its own time.
    let death = walks::eventually("the kernel's word and its own", || {
        let death = tree.obituaries().into_iter().find(|death| death["pid"] == dying)?;
        death["cause"].as_str().unwrap().contains("ended by").then_some(death)
    });
    println!("{death:#}");
    death
}

#[test]
fn a_server_that_overflows_its_stack_leaves_where_and_in_which_continuation() {
    let death = dead_of("overflow");
    let cause = death["cause"].as_str().unwrap();
    assert!(cause.contains("fault: SIGSEGV (11) at address 0x"), "{cause}");
    assert!(cause.contains("[ET_NET ") && cause.contains("in \"http session\""), "{cause}");
    assert!(has_frame(&death, "faults::overflow"), "{death:#}");
}

#[test]
fn a_server_that_aborts_leaves_who_called_for_it_and_dies_of_the_signal() {
    let death = dead_of("abort");
    let cause = death["cause"].as_str().unwrap();
    assert!(cause.contains("it aborted itself") && cause.contains("ended by SIGABRT (6)"), "{cause}");
    assert!(has_frame(&death, "faults::commit") || has_frame(&death, "Pages"), "{death:#}");
}

#[test]
fn one_event_thread_that_spins_is_named_and_its_server_replaced() {
    let death = broken_by("spin");
    let cause = death["cause"].as_str().unwrap();
    assert!(cause.starts_with("hang: [ET_NET ") && cause.contains("of processor time in one turn"), "{death}");
    assert!(cause.contains("in \"http session\""), "{death}");
    assert!(has_frame(&death, "faults::spin"), "{death:#}");
}

#[test]
fn one_event_thread_that_is_blocked_is_named_and_its_server_replaced() {
    let death = broken_by("block");
    let cause = death["cause"].as_str().unwrap();
    assert!(cause.starts_with("hang: [ET_NET ") && cause.contains("for something in one turn"), "{death}");
    assert!(has_frame(&death, "faults::block"), "{death:#}");
}

//! Who hangs is found and replaced, one thread of many included. Who is only held up is left alone: see `left_alone`.

#![allow(clippy::unwrap_used, reason = "a walk that cannot set up its surroundings fails")]

use std::time::Duration;

use rustix::process::Signal;
use walks::process::{is_stopped, send};
use walks::{Kind, Nginx, Peer, Tree, eventually, now};

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
    assert!(cause.contains("SIGABRT (6) by its own doing") && cause.contains("ended by SIGABRT (6)"), "{cause}");
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

#[test]
fn a_server_that_turns_and_no_longer_answers_its_page_is_replaced() {
    let (_nginx, tree) = start();
    let deaf = tree.pid("server");
    let begin = now();
    let _kept = tree.break_by("deaf");
    let _ = tree.await_back(&[deaf]);
    assert!(is_served(&tree));
    assert!(begin.elapsed() < SERVING_WITHIN, "{:?}", begin.elapsed());
    // Cop writes when it has named all frames, and the next server waits for nobody.
    eventually("its obituary", || {
        let death = tree.obituaries().into_iter().find(|death| death["pid"] == deaf)?;
        let cause = death["cause"].as_str()?;
        cause.starts_with("hang: its threads turned, and its page was not answered").then_some(())
    });
}

/// Stops a process for good, and waits until another has its place; every request meanwhile is answered.
fn stopped(role: &str) -> serde_json::Value {
    let (_nginx, tree) = start();
    let (server, manager) = (tree.pid("server"), tree.pid("manager"));
    let hung = tree.pid(role);
    let begin = now();
    assert!(send(hung, Signal::STOP));
    eventually("another takes its place", || {
        assert!(is_served(&tree), "after {:?}", begin.elapsed());
        (tree.pid_now(role).is_some_and(|pid| pid != hung)).then_some(())
    });
    let _ = tree.await_back(&[hung]);
    println!("stopped {role}: all back after {:?}", begin.elapsed());
    assert!(begin.elapsed() < SERVING_WITHIN, "{:?}", begin.elapsed());
    assert_eq!(tree.pid("server"), server, "the server serves on");
    assert!(role == "manager" || tree.pid("manager") == manager, "nobody else is harmed");
    tree.obituaries().into_iter().find(|death| death["pid"] == hung).unwrap()
}

#[test]
fn a_stopped_manager_is_replaced_by_cop_and_costs_nobody_anything() {
    let death = stopped("manager");
    assert!(death["cause"].as_str().unwrap().contains("it was stopped by a signal"), "{death:#}");
}

#[test]
fn a_stopped_cop_is_replaced_by_manager_and_costs_nobody_anything() {
    let death = stopped("cop");
    assert!(death["cause"].as_str().unwrap().contains("it was stopped by a signal"), "{death:#}");
}

#[test]
fn a_manager_that_dies_of_a_fault_leaves_where() {
    let (_nginx, tree) = start();
    let dying = tree.pid("manager");
    assert!(send(dying, Signal::ABORT));
    let _ = tree.await_back(&[dying]);
    let death = eventually("its obituary", || tree.obituaries().into_iter().find(|death| death["pid"] == dying));
    let cause = death["cause"].as_str().unwrap();
    let sender = format!("SIGABRT (6) sent by process {}", std::process::id());
    assert!(cause.contains(&sender) && cause.contains("ended by SIGABRT (6)"), "{cause}");
    assert!(has_frame(&death, "manager::supervisor"), "{death:#}");
}

#[test]
fn who_waits_while_nobody_accepts_is_shown_and_served_afterwards() {
    let (_nginx, tree) = start();
    let queue = || {
        let status = tree.status()?;
        let listeners = status["listeners"].as_array()?;
        listeners.iter().find(|listener| listener["kind"] == "http").cloned()
    };
    let before = eventually("a status", queue);
    assert!(before["waiting_max"].as_u64().unwrap() > 0 && before["waiting"] == 0, "{before}");
    let server = tree.pid("server");
    assert!(send(server, Signal::STOP));
    // The signal is sent before every thread has heard it, and one that has not would accept.
    eventually("every thread stopped", || is_stopped(server).then_some(()));
    let mut waiting: Vec<_> = (0..5).map(|_| Peer::connect(tree.address())).collect();
    let seen = eventually("five who wait", || queue().filter(|queue| queue["waiting"].as_u64() >= Some(5)));
    println!("{seen}");
    assert!(send(server, Signal::CONT));
    for peer in &mut waiting {
        peer.send("GET /object HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
        assert_eq!(peer.receive(Kind::ResponseTo("GET")).end, walks::End::Whole);
    }
    eventually("nobody waits", || queue().filter(|queue| queue["waiting"] == 0));
}

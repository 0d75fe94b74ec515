//! All three processes under load: who may die, and what clients notice.
//!
//! How processes find, adopt and replace each other is tried beside the program, in `crates/beltway/tests`. Here are
//! many clients, of which most keep their connections.

#![allow(clippy::unwrap_used, reason = "a walk that cannot set up its surroundings fails")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use walks::process::{arguments, lives, name};
use walks::{End, Kind, Nginx, PATIENCE, Peer, Tree, eventually, now, pause, thread};

/// Clients that keep their connections.
const KEEPING: usize = 16;
/// Clients that connect for each request.
const RECONNECTING: usize = 4;
/// Between two requests of a client: what there is of a machine is shared with the processes.
const PACE: Duration = Duration::from_millis(10);
/// Deaths of each kind.
const ROUNDS: usize = 3;

const SIZE: usize = 2_000;

#[derive(Debug, Default)]
struct Counts {
    good: AtomicU64,
    /// No connection.
    refused: AtomicU64,
    /// A connection, and no whole answer.
    failed: AtomicU64,
    /// Of those, the answers that had begun.
    cut: AtomicU64,
    /// The longest that a client waited, in microseconds.
    longest: AtomicU64,
    ended: AtomicBool,
}

/// Clients that ask until this is ended.
struct Load {
    counts: Arc<Counts>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn begin(address: SocketAddr) -> Self {
        let counts = Arc::new(Counts::default());
        let client = |number: usize| {
            let counts = Arc::clone(&counts);
            thread(&format!("client {number}"), move || ask(address, number < KEEPING, &counts))
        };
        let clients = (0..KEEPING + RECONNECTING).map(client).collect();
        let load = Self { counts, clients };
        load.more(100);
        load
    }

    /// Waits for so many more good answers.
    fn more(&self, count: u64) {
        let good = || self.counts.good.load(Ordering::Relaxed);
        let wanted = good() + count;
        eventually("more good answers", || (good() >= wanted).then_some(()));
    }

    /// What became of all requests.
    fn end(self) -> Outcome {
        self.counts.ended.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
        let counts = &self.counts;
        let [good, refused, failed, cut, longest] =
            [&counts.good, &counts.refused, &counts.failed, &counts.cut, &counts.longest]
                .map(|count| count.load(Ordering::Relaxed));
        Outcome { good, refused, failed, cut, longest: Duration::from_micros(longest) }
    }
}

/// [`Counts`], read.
#[derive(Debug)]
#[allow(dead_code, reason = "all of it is printed")]
struct Outcome {
    good: u64,
    refused: u64,
    failed: u64,
    cut: u64,
    longest: Duration,
}

fn ask(address: SocketAddr, keeps: bool, counts: &Counts) {
    let request = if keeps {
        "GET /object HTTP/1.1\r\nHost: a.example\r\n\r\n"
    } else {
        "GET /object HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"
    };
    let mut kept: Option<Peer> = None;
    while !counts.ended.load(Ordering::Relaxed) {
        let begin = now();
        let Some(mut peer) = kept.take().or_else(|| Peer::try_connect(address).ok()) else {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            pause(PACE);
            continue;
        };
        let whole = peer.try_send(request).is_ok() && {
            let response = peer.receive(Kind::ResponseTo("GET"));
            let whole = response.end == End::Whole && response.status() == 200 && response.body.len() == SIZE;
            if !whole && !response.start.is_empty() {
                counts.cut.fetch_add(1, Ordering::Relaxed);
            }
            if whole && keeps && !response.closes() {
                kept = Some(peer);
            }
            whole
        };
        let waited = u64::try_from(begin.elapsed().as_micros()).unwrap();
        counts.longest.fetch_max(waited, Ordering::Relaxed);
        if whole { &counts.good } else { &counts.failed }.fetch_add(1, Ordering::Relaxed);
        pause(PACE);
    }
}

fn start() -> (Nginx, Tree) {
    let nginx = Nginx::start(|files| std::fs::write(files.join("object"), vec![b'x'; SIZE]).unwrap());
    let tree = Tree::run_patient(&format!("remap: [{{from: \"/\", to: \"{}\"}}]", nginx.url()), "", 30);
    (nginx, tree)
}

/// Kills these roles under load, again and again; the failed requests of each round.
fn rounds(tree: &Tree, roles: &[&str]) -> Vec<u64> {
    (0..ROUNDS)
        .map(|round| {
            let load = Load::begin(tree.address());
            let dead = tree.kill(roles);
            let back = tree.await_back(&dead);
            load.more(100);
            let outcome = load.end();
            println!("round {round}, {roles:?} dead: {outcome:?}; all back after {back:?}");
            assert_eq!(outcome.refused, 0, "{roles:?}");
            outcome.failed
        })
        .collect()
}

#[test]
fn the_processes_show_their_names_and_a_client_is_served_through_them() {
    let (_nginx, tree) = start();
    for role in ["cop", "manager", "server"] {
        let pid = tree.pid(role);
        assert_eq!(name(pid), format!("traffic_{role}"));
        assert!(arguments(pid).starts_with(&format!("traffic_{role} ")), "{}", arguments(pid));
    }
    let server = arguments(tree.pid("server"));
    assert!(server.contains(&format!("--httpport {}:fd=", tree.address().port())), "{server}");
    let mut curl = std::process::Command::new("curl");
    curl.args(["--silent", "--show-error", "--include", "--max-time", "5"]);
    curl.arg(format!("http://{}/object", tree.address()));
    let answer = walks::process::bounded(curl);
    let answer = String::from_utf8_lossy(&answer.stdout);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.to_lowercase().contains("\r\nvia: 1.1 beltway\r\n"), "{answer}");
    assert!(answer.ends_with(&"x".repeat(SIZE)), "{answer}");
}

#[test]
fn a_killed_server_refuses_nobody_and_costs_no_more_than_what_it_was_serving() {
    let (_nginx, tree) = start();
    // Who kept a connection to it loses that, once; who was just being served loses that request.
    for failed in rounds(&tree, &["server"]) {
        assert!(failed <= (KEEPING + RECONNECTING) as u64, "{failed}");
    }
}

#[test]
fn a_killed_manager_costs_nobody_anything() {
    let (_nginx, tree) = start();
    let server = tree.pid("server");
    assert_eq!(rounds(&tree, &["manager"]), [0; ROUNDS]);
    assert_eq!(tree.pid("server"), server);
}

#[test]
fn a_killed_cop_costs_nobody_anything() {
    let (_nginx, tree) = start();
    let server = tree.pid("server");
    assert_eq!(rounds(&tree, &["cop"]), [0; ROUNDS]);
    assert_eq!(tree.pid("server"), server);
}

#[test]
fn killed_manager_and_cop_together_cost_nobody_anything() {
    let (_nginx, tree) = start();
    let server = tree.pid("server");
    assert_eq!(rounds(&tree, &["manager", "cop"]), [0; ROUNDS]);
    assert_eq!(tree.pid("server"), server);
}

#[test]
fn killed_manager_and_server_together_refuse_nobody_for_the_listeners_live_in_cop() {
    let (_nginx, tree) = start();
    for failed in rounds(&tree, &["manager", "server"]) {
        assert!(failed <= (KEEPING + RECONNECTING) as u64, "{failed}");
    }
}

#[test]
fn a_stop_under_load_cuts_no_answer_and_leaves_nothing_behind() {
    let (_nginx, mut tree) = start();
    let pids = ["cop", "manager", "server"].map(|role| tree.pid(role));
    let load = Load::begin(tree.address());
    let begin = now();
    assert_eq!(tree.stub().terminate(), Some(0));
    let took = begin.elapsed();
    let outcome = load.end();
    println!("{outcome:?}; stopped in {took:?}");
    assert_eq!(outcome.cut, 0);
    assert!(took < PATIENCE);
    assert!(outcome.refused > 0, "nobody listens any more");
    assert!(pids.iter().all(|&pid| !lives(pid)), "{pids:?}");
    assert_eq!(tree.processes(), [0_u32; 0]);
    // What the next start wants to know may stay; what belongs to a process may not.
    let left = tree.left();
    let belongs = |file: &String| [".lock", ".sock", ".numbers"].iter().any(|end| file.ends_with(end));
    assert!(!left.iter().any(belongs), "{left:?}");
    // A kept connection may be closed while its next request is on the way, once.
    assert!(outcome.failed <= KEEPING as u64, "{outcome:?}");
}

//! Another program in place of the running one, with real processes: USR2 and `beltway upgrade`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "tree/mod.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod tree;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use supervise::role::Role;
use sys::process::{Pidfd, Signal};
use tree::{Kept, Tree, eventually, origin, pause};

/// A tree that runs a copy of the program, which can be replaced.
fn installed(name: &str) -> Tree {
    let mut tree = Tree::new(name);
    // An origin outside the tree: what is in flight there is not the tree's to lose. And however long all the upgrades
    // take, no client is idle for too long.
    let idle = "http:\n  timeouts: {request_head: 10m, keep_alive: 10m}\n";
    tree.configure(&Tree::patient(&tree.original_to(origin())).replacen("http:\n", idle, 1));
    let program = tree.home.join("program");
    install(&program, None);
    tree.program = program;
    tree.start_stub();
    tree.await_serving();
    tree
}

/// Puts a program in place: that under test, or a script.
fn install(program: &Path, script: Option<&str>) {
    let new = program.with_extension("new");
    match script {
        None => drop(fs::copy(env!("CARGO_BIN_EXE_beltway"), &new).unwrap()),
        Some(text) => fs::write(&new, text).unwrap(),
    }
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, program).unwrap();
}

fn stub(tree: &Tree) -> u32 {
    tree.stub.as_ref().unwrap().id()
}

fn pids(tree: &Tree) -> [u32; 3] {
    [stub(tree), tree.pid(Role::Cop), tree.pid(Role::Manager)]
}

fn generation(tree: &Tree) -> u64 {
    let status = tree.status().unwrap_or_default();
    status["servers"].as_array().and_then(|servers| servers.last()?["generation"].as_u64()).unwrap_or(0)
}

/// Whether every process of the tree is the program in the file.
fn all_are(tree: &Tree, program: &Path) -> bool {
    let inode = fs::metadata(program).unwrap().ino();
    let runs = |pid: u32| fs::metadata(format!("/proc/{pid}/exe")).is_ok_and(|metadata| metadata.ino() == inode);
    let server = tree.process(Role::Server);
    pids(tree).into_iter().all(runs) && server.is_some_and(|server| runs(server.pid()))
}

fn verdict(tree: &Tree) -> (Option<i32>, Value) {
    // The client is the program under test, whatever is installed.
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_beltway"));
    command.args(["upgrade", "--json", "-c"]).arg(tree.file());
    let output = tree::bounded(command);
    let verdict = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), verdict)
}

#[test]
fn twenty_upgrades_under_load_fail_no_request_and_clients_keep_their_connections() {
    const UPGRADES: u64 = 20;
    let tree = installed("upgrades");
    let http = tree.http;
    let before = pids(&tree);
    let mut idle: Vec<_> = (0..50).map(|_| Kept::connect(http)).collect();
    idle.iter_mut().step_by(2).for_each(|client| drop(client.get().unwrap()));
    let ended = AtomicBool::new(false);
    let requests = std::thread::scope(|scope| {
        let busy: Vec<_> = (0..4)
            .map(|_| {
                let work = || {
                    let mut requests = 0_u64;
                    let mut client = Kept::connect(http);
                    while !ended.load(Ordering::Relaxed) {
                        client.get().unwrap_or_else(|error| panic!("request {requests} failed: {error}"));
                        requests += 1;
                        if client.told_to_close {
                            client = Kept::connect(http);
                        }
                        pause(Duration::from_millis(1));
                    }
                    requests
                };
                std::thread::Builder::new().spawn_scoped(scope, work).unwrap()
            })
            .collect();
        for round in 0..UPGRADES {
            install(&tree.program, None);
            if round % 2 == 0 {
                let (code, verdict) = verdict(&tree);
                if code != Some(0) {
                    ended.store(true, Ordering::Relaxed);
                    panic!("{verdict}");
                }
            } else {
                Pidfd::open(stub(&tree)).unwrap().signal(Signal::USR2).unwrap();
            }
            eventually("all are the new program", || {
                if busy.iter().any(|client| client.is_finished()) {
                    ended.store(true, Ordering::Relaxed);
                    panic!("a client gave up");
                }
                (generation(&tree) == round + 2 && all_are(&tree, &tree.program)).then_some(())
            });
        }
        ended.store(true, Ordering::Relaxed);
        busy.into_iter().map(|client| client.join().unwrap()).sum::<u64>()
    });
    println!("{UPGRADES} upgrades, {requests} requests, 0 failed");
    idle.iter_mut().for_each(|client| drop(client.get().unwrap()));
    assert_eq!(pids(&tree), before, "the same processes");
    assert_eq!(tree.status().unwrap()["server_deaths"], 0, "none was an accident");
    let mut tree = tree;
    assert_eq!(tree.terminate(), Some(0));
    tree.assert_nothing_is_left();
}

#[test]
fn a_program_that_is_not_fit_changes_nothing_and_it_is_said_why() {
    let tree = installed("unfit");
    let before = (pids(&tree), generation(&tree));
    let other_minor = r#"{"version":"0.999.0","protocol":1,"moved":1,"verdict":{"outcome":"possible"}}"#;
    let fit = format!(r#"{{"version":"{}","protocol":1,"moved":1,"verdict":{{"outcome":"possible"}}}}"#, base::VERSION);
    for (script, said) in [
        ("no program at all".to_owned(), "cannot"),
        ("#!/bin/sh\necho a library is missing; exit 7\n".to_owned(), "a library is missing"),
        (format!("#!/bin/sh\necho '{other_minor}'\n"), "0.999.0"),
        // Says that it is fit, and is nothing that a process can become.
        (format!("#!/bin/sh\necho '{fit}'\n"), "cannot be started"),
        ("#!/bin/sh\nkill -9 $$\n".to_owned(), "SIGKILL"),
    ] {
        install(&tree.program, Some(&script));
        let (code, verdict) = verdict(&tree);
        assert_eq!((code, &verdict["outcome"]), (Some(1), &"failed".into()), "{script}: {verdict}");
        assert!(verdict["why"].as_str().unwrap().contains(said), "{script}: {verdict}");
        assert_eq!((pids(&tree), generation(&tree)), before, "{script}");
        tree.get().unwrap();
    }
    fs::remove_file(&tree.program).unwrap();
    let (code, verdict) = verdict(&tree);
    assert_eq!(code, Some(1), "{verdict}");
    tree.await_serving();
    // A file that the program on disk does not understand: nothing is begun.
    install(&tree.program, None);
    let right = fs::read_to_string(tree.file()).unwrap();
    tree.configure(&format!("{right}nonsense: true\n"));
    let (code, verdict) = {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_beltway"));
        command.args(["upgrade", "--json", "-c"]).arg(tree.file()).arg("--runtime-dir").arg(tree.directory().path());
        let output = tree::bounded(command);
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    assert_eq!((code, &verdict["outcome"]), (Some(3), &"wrong".into()), "{verdict}");
    assert!(verdict["diagnostics"][0].as_str().unwrap().contains("nonsense"), "{verdict}");
    tree.configure(&right);
    assert_eq!((pids(&tree), generation(&tree)), before);
}

#[test]
fn when_the_new_server_cannot_start_all_go_back_to_the_former_program() {
    let tree = installed("back");
    let (before, server) = (pids(&tree), tree.pid(Role::Server));
    let former = fs::metadata(&tree.program).unwrap().ino();
    let right = fs::read_to_string(tree.file()).unwrap();
    let log = tree.home.join("no-such-directory").join("access.log");
    let wrong = right.replacen("http:\n", &format!("http:\n  access_log: {{file: {}}}\n", log.display()), 1);
    tree.configure(&wrong);
    install(&tree.program, None);
    let (code, verdict) = verdict(&tree);
    assert_eq!((code, &verdict["outcome"]), (Some(1), &"failed".into()), "{verdict}");
    assert!(verdict["why"].as_str().unwrap().contains("the new server"), "{verdict}");
    assert_eq!((pids(&tree), tree.pid(Role::Server)), (before, server));
    for pid in before.into_iter().chain([server]) {
        assert_eq!(fs::metadata(format!("/proc/{pid}/exe")).unwrap().ino(), former, "process {pid}");
    }
    tree.get().unwrap();
    // What runs now can be upgraded as before.
    tree.configure(&right);
    let (code, verdict) = self::verdict(&tree);
    assert_eq!(code, Some(0), "{verdict}");
    eventually("all are the new program", || all_are(&tree, &tree.program).then_some(()));
}

#[test]
fn whoever_is_killed_in_the_middle_of_an_upgrade_the_tree_serves_on_and_can_be_upgraded() {
    let tree = installed("killed");
    let load = tree::Load::begin(tree.http);
    for round in 0..8 {
        install(&tree.program, None);
        Pidfd::open(stub(&tree)).unwrap().signal(Signal::USR2).unwrap();
        pause(Duration::from_millis(15 * (round / 2)));
        let role = if round % 2 == 0 { Role::Manager } else { Role::Cop };
        let before = tree.kill(role);
        tree.await_another(role, before);
        tree.await_serving();
        eventually("one server", || {
            let status = tree.status()?;
            let servers = status["servers"].as_array()?;
            (servers.len() == 1 && servers[0]["state"] == "ready").then_some(())
        });
    }
    let (_, refused, broken) = load.end();
    assert_eq!((refused, broken), (0, 0));
    eventually("an upgrade to the end", || {
        let (code, verdict) = verdict(&tree);
        assert!(code == Some(0) || verdict["why"].as_str().unwrap_or_default().contains("under way"), "{verdict}");
        (code == Some(0)).then_some(())
    });
    eventually("all are the new program", || all_are(&tree, &tree.program).then_some(()));
}

/// An origin that sends a body bit by bit, so that it takes this long at least, and the last of them when it is told to.
fn trickling(takes: Duration, enough: &Arc<AtomicBool>) -> std::net::SocketAddr {
    let enough = Arc::clone(enough);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let send = move |mut stream: std::net::TcpStream| {
        let mut head = Vec::new();
        let mut block = [0; 1024];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut block) {
                Ok(count @ 1..) => head.extend_from_slice(&block[..count]),
                _ => return,
            }
        }
        let _ =
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\r\n", PIECES * PIECE);
        for piece in 0..PIECES {
            if stream.write_all(&[b'a' + u8::try_from(piece % 26).unwrap(); PIECE]).is_err() {
                return;
            }
            pause(takes / u32::try_from(PIECES).unwrap());
            while piece + 2 == PIECES && !enough.load(Ordering::Relaxed) {
                pause(Duration::from_millis(10));
            }
        }
    };
    let accept = move || {
        for stream in listener.incoming().flatten() {
            let send = send.clone();
            let _ = std::thread::Builder::new().name("trickle".to_owned()).spawn(move || send(stream));
        }
    };
    std::thread::Builder::new().name("trickling origin".to_owned()).spawn(accept).unwrap();
    address
}

const PIECES: usize = 100;
const PIECE: usize = 1_000;

#[test]
fn a_long_download_outlives_restarts_and_an_upgrade_and_both_servers_count() {
    let takes = if std::env::var_os("BELTWAY_FULL").is_some() { 30 } else { 3 };
    let mut tree = Tree::new("download");
    let enough = Arc::new(AtomicBool::new(false));
    let text = tree.original_to(trickling(Duration::from_secs(takes), &enough));
    let text = text.replacen("http:\n", "http:\n  timeouts: {origin_idle: 10m}\n", 1);
    tree.configure(&Tree::patient(&text));
    tree.program = tree.home.join("program");
    install(&tree.program, None);
    tree.start_stub();
    tree.await_serving();
    let http = tree.http;
    let download = std::thread::Builder::new().spawn(move || {
        let mut client = tree::Raw::connect(http).unwrap();
        client.patience(Duration::from_secs(600));
        client.ask("/").unwrap()
    });
    let download = download.unwrap();
    let counted = |tree: &Tree| -> u64 {
        let output = tree.ask("ctl metric get beltway_http_client_connections_total");
        String::from_utf8_lossy(&output.stdout).trim().rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    eventually("the download has begun", || (counted(&tree) >= 1).then_some(()));
    let mut before = counted(&tree);
    for change in ["restart", "restart", "upgrade"] {
        install(&tree.program, None);
        let output = tree.ask(change);
        assert_eq!(output.status.code(), Some(0), "{change}: {output:?}");
        let now = counted(&tree);
        assert!(now >= before, "{change}: {now} after {before}");
        before = now;
    }
    let status = tree.status().unwrap();
    let draining = status["servers"].as_array().unwrap().iter().filter(|server| server["state"] == "draining").count();
    assert!(draining >= 1 && !download.is_finished(), "it goes on in the first server: {status}");
    enough.store(true, Ordering::Relaxed);
    let answer = download.join().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(body.len(), PIECES * PIECE);
    assert!((0..PIECES).all(|piece| body.as_bytes()[piece * PIECE] == b'a' + u8::try_from(piece % 26).unwrap()));
    eventually("the first server is done", || (tree.status()?["servers"].as_array()?.len() == 1).then_some(()));
    assert_eq!(tree.status().unwrap()["server_deaths"], 0, "none was an accident");
    assert!(counted(&tree) >= before, "the dead count, too");
}

#[test]
fn cop_at_the_top_of_its_own_tree_is_replaced_as_well() {
    let mut tree = Tree::new("cop-upgrade");
    tree.program = tree.home.join("program");
    install(&tree.program, None);
    let log = fs::File::create(tree.home.join("log")).unwrap();
    let mut command = std::process::Command::new(&tree.program);
    command.args(["cop", "-c"]).arg(tree.file()).stdin(std::process::Stdio::null()).stderr(log);
    tree.stub = Some(command.spawn().unwrap());
    let before = [tree.pid(Role::Cop), tree.pid(Role::Manager)];
    eventually("it serves", || tree.get().ok());
    install(&tree.program, None);
    let inode = fs::metadata(&tree.program).unwrap().ino();
    Pidfd::open(stub(&tree)).unwrap().signal(Signal::USR2).unwrap();
    eventually("all are the new program", || {
        let server = tree.process(Role::Server)?.pid();
        let all = [before[0], before[1], server];
        all.iter().all(|pid| fs::metadata(format!("/proc/{pid}/exe")).is_ok_and(|m| m.ino() == inode)).then_some(())
    });
    assert_eq!([tree.pid(Role::Cop), tree.pid(Role::Manager)], before);
    tree.get().unwrap();
    assert_eq!(tree.terminate(), Some(0));
}

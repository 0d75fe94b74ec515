//! What surrounds the processes: who they are, where their logs go, and that neither full disks nor readers who do not read
//! stop them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "tree/mod.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod tree;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use rustix::process::{Resource, Rlimit};
use supervise::lease;
use supervise::role::Role;
use sys::process::{Pidfd, Signal};
use tree::{Tree, eventually};

/// A line of `/proc/PID/status`.
fn status(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
    line[name.len() + 1..].split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A field of `/proc/PID/stat`, counted behind the name: 0 is the state.
fn stat(pid: u32, field: usize) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    text.rsplit(')').next().unwrap().split_whitespace().nth(field).unwrap().to_owned()
}

fn stub(tree: &Tree) -> u32 {
    eventually("the top", || lease::process(&tree.directory().stub_lease()).ok()?).0.pid()
}

#[test]
fn a_daemon_has_no_terminal_leads_no_session_and_stands_in_nobodys_way() {
    let tree = Tree::new("daemon");
    let output = tree.ask("start");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let top = stub(&tree);
    assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("process {top}")), "{output:?}");
    for pid in [top, tree.pid(Role::Cop), tree.pid(Role::Manager), tree.pid(Role::Server)] {
        assert_ne!(stat(pid, 3), pid.to_string(), "it leads no session");
        assert_eq!(stat(pid, 4), "0", "it has no terminal");
        assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/"));
        assert_eq!(status(pid, "Umask"), "0027");
        for standard in 0..2 {
            let leads = fs::read_link(format!("/proc/{pid}/fd/{standard}")).unwrap();
            assert_eq!(leads.to_str(), Some("/dev/null"), "{standard}");
        }
    }
    // The file that is on disk takes over from a daemon, too.
    let output = tree.ask("upgrade");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stub(&tree), top);
    tree.get().unwrap();
    let output = tree.ask("stop");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    tree.assert_nothing_is_left();
}

/// A port that only root may bind, and that nobody has.
fn privileged_port() -> Option<SocketAddr> {
    let ports = (600..1024).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    ports.into_iter().find(|address| TcpListener::bind(address).is_ok())
}

#[test]
fn root_becomes_the_configured_user_and_keeps_the_low_ports_alone() {
    const NET_BIND_SERVICE: &str = "0000000000000400";
    const NOTHING: &str = "0000000000000000";
    let Some(address) = privileged_port().filter(|_| sys::privilege::user() == 0) else {
        println!("not tried: this takes root");
        return;
    };
    let account = sys::privilege::account("nobody").unwrap().unwrap();
    let mut tree = Tree::new("user");
    let text = tree.original().replacen(&format!("listen: [{}]", tree.http), &format!("listen: [{address}]"), 1);
    let text = format!("{text}user: nobody\nlog: {{file: {}}}\n", tree.home.join("a.log").display());
    tree.configure(&text);
    tree.http = address;
    tree.start_stub();
    tree.await_serving();
    tree.get().unwrap();
    let four = [account.user; 4].map(|user| user.to_string()).join(" ");
    let check = |tree: &Tree| {
        let others = [Role::Cop, Role::Manager].map(|role| tree.pid(role));
        let server = tree.pid(Role::Server);
        for pid in [stub(tree), others[0], others[1], server] {
            assert_eq!(status(pid, "Uid"), four, "process {pid}");
            assert_eq!(status(pid, "Groups"), account.group.to_string());
            let kept = if pid == server { NOTHING } else { NET_BIND_SERVICE };
            for set in ["CapEff", "CapPrm", "CapAmb"] {
                assert_eq!(status(pid, set), kept, "{set} of {pid}");
            }
            assert_eq!(status(pid, "CapBnd"), NET_BIND_SERVICE);
            assert_eq!(status(pid, "NoNewPrivs"), "1");
        }
    };
    check(&tree);
    // A further low port, another program, another server: none takes more power than was kept.
    let other = privileged_port().unwrap();
    tree.configure(&text.replacen(&format!("listen: [{address}]"), &format!("listen: [{address}, {other}]"), 1));
    assert_eq!(tree.ask("upgrade").status.code(), Some(0), "{}", tree.log());
    tree::get(other).unwrap();
    check(&tree);
    let server = tree.kill(Role::Server);
    tree.await_another(Role::Server, server);
    tree.get().unwrap();
    assert!(fs::read_to_string(tree.home.join("a.log")).unwrap().contains("traffic_server"));
    assert_eq!(tree.terminate(), Some(0));
    tree.assert_nothing_is_left();

    tree.configure(&text.replacen("user: nobody", "user: nobody-is-called-this", 1));
    let output = tree.ask("run");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no user"), "{output:?}");
}

#[test]
fn a_full_disk_under_the_logs_stops_nothing() {
    let mut tree = Tree::new("full");
    let access = tree.home.join("access.log");
    let named = format!("http:\n  access_log: {{file: {}}}\n", access.display());
    tree.configure(&format!("{}log: {{file: /dev/full}}\n", tree.original().replacen("http:\n", &named, 1)));
    tree.start_stub();
    tree.await_serving();
    tree.get().unwrap();
    let pids = [Role::Cop, Role::Manager, Role::Server].map(|role| tree.pid(role));
    // From now on no file of theirs can grow: a line of the access log is lost, and not the process.
    eventually("a line", || fs::metadata(&access).ok().filter(|metadata| metadata.len() > 0));
    for pid in pids {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap());
        let none = Rlimit { current: Some(1), maximum: Some(1) };
        rustix::process::prlimit(pid, Resource::Fsize, none).unwrap();
    }
    for _ in 0..20 {
        tree.get().unwrap();
    }
    tree::pause(std::time::Duration::from_millis(300)); // what would be written would have been
    tree.get().unwrap();
    assert_eq!([Role::Cop, Role::Manager, Role::Server].map(|role| tree.pid(role)), pids);
    tree.await_serving();
    assert_eq!(tree.status().unwrap()["server_deaths"], 0);
}

#[test]
fn a_log_that_nobody_reads_or_whose_reader_is_gone_stops_nothing() {
    let mut tree = Tree::new("stalled");
    tree.configure(&tree.original().replacen("http:\n", "http:\n  access_log: {file: stderr, format: squid}\n", 1));
    let (reader, writer) = std::io::pipe().unwrap();
    // Full before the first line.
    let mut full = writer.try_clone().unwrap();
    while sys::output::writable_within(full.as_fd(), std::time::Duration::ZERO).unwrap() {
        let _ = full.write(&[b'\n'; 4096]).unwrap();
    }
    tree.start_stub_as(|command| {
        command.stderr(writer);
    });
    tree.await_serving();
    for _ in 0..50 {
        tree.get().unwrap();
    }
    assert_eq!(tree.ask("reload").status.code(), Some(0));
    assert_eq!(tree.ask("restart").status.code(), Some(0));
    let pids = [Role::Cop, Role::Manager, Role::Server].map(|role| tree.pid(role));
    drop((reader, full));
    for _ in 0..50 {
        tree.get().unwrap();
    }
    assert_eq!(tree.ask("restart").status.code(), Some(0));
    assert_eq!([Role::Cop, Role::Manager].map(|role| tree.pid(role)), pids[..2]);
    tree.get().unwrap();
    assert_eq!(tree.terminate(), Some(0));
}

#[test]
fn logs_that_were_renamed_are_begun_anew_on_usr1() {
    let mut tree = Tree::new("rotated");
    let (log, access) = (tree.home.join("all.log"), tree.home.join("access.log"));
    let named = format!("http:\n  access_log: {{file: {}}}\n", access.display());
    let text = tree.original().replacen("http:\n", &named, 1);
    tree.configure(&format!("{text}log: {{file: {}}}\n", log.display()));
    tree.start_stub();
    tree.await_serving();
    for round in 0..3 {
        tree.get().unwrap();
        let lines = |path| fs::read_to_string(path).unwrap_or_default().lines().count();
        eventually("the request's line", || (lines(&access) > 0).then_some(()));
        for path in [&log, &access] {
            fs::rename(path, path.with_extension(round.to_string())).unwrap();
        }
        Pidfd::open(stub(&tree)).unwrap().signal(Signal::USR1).unwrap();
        eventually("all write to the new file", || {
            let text = fs::read_to_string(&log).ok()?;
            let all = ["traffic_cop[", "traffic_manager[", "traffic_server["].iter().all(|who| text.contains(who));
            (all && access.exists()).then_some(())
        });
    }
    assert_eq!(tree.terminate(), Some(0));
    assert!(fs::read_to_string(&log).unwrap().contains("beltway["), "the top as well");
}

#[test]
fn readiness_fails_for_the_configured_time_before_a_stopping_server_refuses_anybody() {
    let mut tree = Tree::new("delay");
    let text = tree.original();
    let page = text.lines().find_map(|line| line.strip_prefix("server: {listen: ")).unwrap();
    let page: SocketAddr = page.split(',').next().unwrap().parse().unwrap();
    // Long enough for a slow machine to see all that goes on meanwhile.
    let text = text.replacen("drain_timeout: 2s", "drain_timeout: 2s, drain_delay: 4s", 1);
    tree.configure(&text.replacen("stop_timeout: 5s", "stop_timeout: 1m", 1));
    tree.start_stub();
    tree.await_serving();
    let health = || {
        let mut client = tree::Raw::connect(page)?;
        client.ask("/healthz")
    };
    assert!(health().unwrap().contains(" 200 "));
    let mut kept = tree::Kept::connect(tree.http);
    kept.get().unwrap();
    let begin = tree::now();
    Pidfd::open(stub(&tree)).unwrap().signal(Signal::TERM).unwrap();
    eventually("readiness fails", || health().filter(|answer| answer.contains(" 503 ") && answer.contains("draining")));
    // New clients and old ones are served meanwhile.
    kept.get().unwrap();
    tree.get().unwrap();
    let mut stub = tree.stub.take().unwrap();
    let code = eventually("the end", || stub.try_wait().unwrap()).0.code();
    assert_eq!(code, Some(0));
    let took = begin.elapsed();
    assert!(took >= std::time::Duration::from_secs(4), "{took:?}");
    tree.assert_nothing_is_left();
}

#[test]
fn wrong_use_is_told_with_what_would_be_right() {
    let tree = Tree::new("usage");
    for (words, said) in [
        ("", "Usage: beltway"),
        ("strat", "start"),
        ("run --confg x", "--config"),
        ("ctl", "Usage: beltway ctl"),
        ("server --lease 11", "fd=NUMBER"),
        ("ctl log level loud", "debug"),
    ] {
        let mut command = std::process::Command::new(&tree.program);
        command.args(words.split(' ').filter(|word| !word.is_empty()));
        let output = tree::bounded(command);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words}: {text}");
        assert!(text.contains(said), "{words}: {text}");
    }
}

#[test]
fn more_connections_than_files_may_be_open_are_warned_of() {
    let most: u64 = fs::read_to_string("/proc/sys/fs/nr_open").unwrap().trim().parse().unwrap();
    let connections = most.min(4_000_000);
    let mut tree = Tree::new("files");
    let named = format!("http:\n  limits: {{connections: {connections}}}\n");
    tree.configure(&tree.original().replacen("http:\n", &named, 1));
    tree.start_stub();
    tree.await_serving();
    tree.get().unwrap();
    if most <= connections {
        assert!(tree.log().contains("the limit on open files allows"), "{}", tree.log());
    }
}

/// One command of a client of a pool; its answer, when there is one soon.
fn ping(stream: &mut TcpStream) -> Option<String> {
    stream.write_all(b"*1\r\n$4\r\nPING\r\n").ok()?;
    let mut answer = [0; 64];
    let len = stream.read(&mut answer).ok().filter(|len| *len > 0)?;
    Some(String::from_utf8_lossy(&answer[..len]).into_owned())
}

#[test]
fn clients_of_both_engines_together_leave_descriptors_for_everything_else() {
    /// Descriptors that a process may open, and clients of each engine: more than that together.
    const LIMIT: usize = 512;
    const CLIENTS: usize = 280;
    let mut tree = Tree::new("descriptors");
    let [pool, store] = [(); 2].map(|()| tree::free_address());
    let text = tree.original().replacen("demo: {", &format!("demo: {{redis: \"{store}\", "), 1);
    let servers = format!("servers: [\"{store}:1\"]");
    tree.configure(&format!("{text}kv: {{pools: {{alpha: {{listen: \"{pool}\", redis: true, {servers}}}}}}}\n"));
    let limited = tree.home.join("limited");
    let beltway = tree.program.display().to_string();
    fs::write(&limited, format!("#!/bin/sh\nulimit -n {LIMIT}\nexec {beltway} \"$@\"\n")).unwrap();
    fs::set_permissions(&limited, fs::Permissions::from_mode(0o755)).unwrap();
    tree.program = limited;
    tree.start_stub();
    tree.await_serving();

    // HTTP's come first and take all they may; those of the pool find the places that are theirs.
    let connect = |address: SocketAddr| {
        let stream = TcpStream::connect_timeout(&address, tree::PATIENCE).unwrap();
        stream.set_read_timeout(Some(tree::PATIENCE)).unwrap();
        stream
    };
    let number = |name: &str| {
        let output = tree.ask(&format!("ctl metric get {name}"));
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().last().and_then(|word| word.parse::<u64>().ok())
    };
    let http: Vec<_> = (0..CLIENTS).map(|_| connect(tree.http)).collect();
    eventually("HTTP has all it may", || number("beltway_accept_paused_at_limit").filter(|paused| *paused > 0));
    let mut kv: Vec<_> = (0..CLIENTS).map(|_| connect(pool)).collect();
    assert_eq!(ping(&mut kv[0]).as_deref(), Some("+PONG\r\n"), "beside an engine that is full");
    let server = tree.pid(Role::Server);
    let open = || fs::read_dir(format!("/proc/{server}/fd")).unwrap().count();
    let waits = || {
        let status = tree.status()?;
        let listeners = status["listeners"].as_array()?.clone();
        let waiting = |kind: &str| {
            let listener = listeners.iter().find(|listener| listener["kind"] == kind)?;
            listener["waiting"].as_u64()
        };
        (waiting("http")? > 0 && waiting("kv")? > 0).then_some(())
    };
    eventually("who finds no place waits", waits);
    assert!(open() < LIMIT, "{} descriptors", open());
    for what in ["ctl config set http.via full", "ctl log reopen", "ctl memory"] {
        let output = tree.ask(what);
        assert!(output.status.success(), "{what}: {output:?}");
    }
    assert_eq!(number("beltway_accept_paused_without_descriptors"), Some(0));

    // Places that one kind gives back are had by the other and by who waits.
    drop(http);
    for client in &mut kv[1..CLIENTS / 8] {
        assert_eq!(ping(client).as_deref(), Some("+PONG\r\n"));
    }
    tree.get().unwrap();
    drop(kv);
    eventually("nobody waits", || waits().is_none().then_some(()));
    tree.get().unwrap();
    assert_eq!(number("beltway_accept_paused_without_descriptors"), Some(0));
    assert_eq!(tree.pid(Role::Server), server, "it is the same server");
}

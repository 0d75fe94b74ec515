//! Real processes: start, the death of each of them, hangs, stop. Each test has a tree of its own.

#[path = "tree/mod.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod tree;

use std::io::Write;
use std::process::{Command, Stdio};

use supervise::role::Role;
use sys::process::{Pidfd, Signal};
use tree::{Load, Tree, arguments, bounded, eventually, group, name};

#[test]
fn run_shows_three_named_processes_with_inherited_listeners_and_stop_leaves_nothing() {
    let mut tree = Tree::run("run");
    tree.get().unwrap();
    let pids = [Role::Cop, Role::Manager, Role::Server].map(|role| (role, tree.pid(role)));
    for (role, pid) in pids {
        assert_eq!(name(pid), role.name());
        assert!(arguments(pid).starts_with(role.name()), "{}", arguments(pid));
        assert_eq!(group(pid), pid, "a group of its own");
    }
    let server = arguments(pids[2].1);
    assert!(server.contains(&format!("--httpport {}:fd=9", tree.http.port())), "{server}");

    let status = tree.status().unwrap();
    assert_eq!(status["manager"]["pid"], pids[1].1);
    assert_eq!(status["cop"]["pid"], pids[0].1);
    assert_eq!(status["servers"][0]["process"]["pid"], pids[2].1);
    assert_eq!(status["stub"]["pid"], tree.stub.as_ref().unwrap().id());
    let drawn = String::from_utf8(tree.ask("status").stdout).unwrap();
    assert!(drawn.contains("serving") && drawn.contains("traffic_server"), "{drawn}");
    eventually("heartbeats", || {
        let status = tree.status()?;
        let answered = |process: &serde_json::Value| process["heartbeat"]["answered"].as_u64().unwrap_or(0) >= 2;
        (answered(&status["cop"]) && answered(&status["servers"][0]["process"])).then_some(())
    });
    assert!(tree.log().contains(&format!("  {}", tree.http)), "the banner\n{}", tree.log());

    assert_eq!(tree.terminate(), Some(0));
    tree.assert_nothing_is_left();
}

#[test]
fn a_killed_server_is_replaced_and_no_connection_is_refused() {
    let tree = Tree::run("server");
    for round in 0..3 {
        let load = Load::begin(tree.http);
        let before = tree.kill(Role::Server);
        load.more(20);
        let back = tree.await_another(Role::Server, before);
        let (good, refused, broken) = load.end();
        println!("round {round}: {good} good, {refused} refused, {broken} broken, another after {back:?}");
        assert_eq!(refused, 0);
        assert!(broken <= 1, "the one in flight at most: {broken}");
    }
    let status = tree.status().unwrap();
    assert_eq!(status["server_deaths"], 3);
    assert_eq!(status["servers"].as_array().unwrap().len(), 1);
}

#[test]
fn a_server_that_is_stopped_when_both_its_watchers_die_is_replaced_all_the_same() {
    // Whoever comes next has never heard of it, and it hands over nothing of what it holds.
    let tree = Tree::run("deaf-mute");
    let before = tree.pid(Role::Server);
    Pidfd::open(before).unwrap().signal(Signal::STOP).unwrap();
    for (role, dead) in [Role::Cop, Role::Manager].map(|role| (role, tree.kill(role))) {
        tree.await_another(role, dead);
    }
    tree.await_another(Role::Server, before);
    tree.await_serving();
    tree.get().unwrap();
}

#[test]
fn the_death_of_manager_cop_or_both_costs_no_request_and_the_server_serves_on() {
    let tree = Tree::run("watchers");
    let server = tree.pid(Role::Server);
    for round in 0..3 {
        for victims in [&[Role::Manager][..], &[Role::Cop], &[Role::Manager, Role::Cop], &[Role::Cop, Role::Manager]] {
            let load = Load::begin(tree.http);
            let dead: Vec<_> = victims.iter().map(|&role| (role, tree.kill(role))).collect();
            for (role, before) in dead {
                tree.await_another(role, before);
            }
            let back = tree.await_serving();
            load.more(5);
            let (good, refused, broken) = load.end();
            println!("round {round} {victims:?}: {good} good, all back after {back:?}");
            assert_eq!((refused, broken), (0, 0), "{victims:?}");
            assert_eq!(tree.pid(Role::Server), server, "the same server");
        }
    }
    let status = tree.status().unwrap();
    assert_eq!(status["servers"][0]["adopted"], true);
    assert_eq!(status["servers"][0]["generation"], 1);
}

#[test]
fn with_manager_and_server_dead_the_listeners_live_in_cop() {
    let tree = Tree::run("both");
    for _ in 0..3 {
        eventually("cop holds copies", || {
            let questions = supervise::control::Connection::open(&tree.directory().cop_socket()).ok()?;
            let request = supervise::control::Request::Listeners;
            let (_, fds) = questions.ask(request, tree::PATIENCE).ok()?;
            (fds.len() == 4).then_some(())
        });
        let load = Load::begin(tree.http);
        // Manager first, or it would bring the server back before it dies itself.
        let (manager, server) = (tree.process(Role::Manager).unwrap(), tree.process(Role::Server).unwrap());
        manager.signal(Signal::KILL).unwrap();
        server.signal(Signal::KILL).unwrap();
        tree.await_another(Role::Server, server.pid());
        load.more(5);
        let (_, refused, _) = load.end();
        assert_eq!(refused, 0);
        tree.await_serving();
    }
}

#[test]
fn a_stopped_server_is_proven_to_hang_and_replaced_and_a_stopped_manager_costs_nothing() {
    let mut tree = Tree::new("hang");
    tree.configure(&tree.original().replacen("hang_timeout: 5s", "hang_timeout: 1s", 1));
    tree.start_stub();
    tree.await_serving();
    let server = tree.process(Role::Server).unwrap();
    // At once: whether cop has had a sign of life of it by then or not.
    server.signal(Signal::STOP).unwrap();
    let replaced = tree.await_another(Role::Server, server.pid());
    println!("stopped server replaced after {replaced:?}");
    tree.await_serving();
    tree.get().unwrap();

    // Each witness writes in its own time.
    let account = || {
        let deaths = tree.ask("ctl server obituaries --json");
        let deaths: serde_json::Value = serde_json::from_slice(&deaths.stdout).ok()?;
        let cause = deaths[0]["cause"].as_str()?;
        let told = cause.starts_with("hang: it was stopped by a signal") && cause.contains("ended by");
        told.then_some(deaths)
    };
    let (deaths, _) = eventually("the account of its death", account);
    let death = &deaths[0];
    assert_eq!((&death["pid"], &death["generation"]), (&server.pid().into(), &1.into()), "{deaths}");
    let threads = death["threads"].as_array().unwrap();
    assert!(threads.iter().any(|t| t["name"] == "[ET_NET 0]" && t["state"] == "T"), "the kernel's word: {deaths}");
    assert!(threads.iter().any(|t| t["name"] == "[ET_NET 0]" && t["turns"] != 0), "its own word: {deaths}");

    let (server, manager) = (tree.pid(Role::Server), tree.process(Role::Manager).unwrap());
    let load = Load::begin(tree.http);
    manager.signal(Signal::STOP).unwrap();
    let replaced = tree.await_another(Role::Manager, manager.pid());
    println!("stopped manager replaced after {replaced:?}");
    tree.await_serving();
    let (_, refused, broken) = load.end();
    assert_eq!((refused, broken), (0, 0));
    assert_eq!(tree.pid(Role::Server), server, "the server serves on");
}

#[test]
fn a_file_spoiled_after_the_start_takes_no_effect_when_processes_die() {
    let mut tree = Tree::run("spoiled");
    let run = format!("--runtime-dir {}", tree.directory().path().display());
    tree.configure("this: is nonsense\n");
    for role in [Role::Server, Role::Manager, Role::Cop] {
        let before = tree.kill(role);
        tree.await_another(role, before);
    }
    eventually("it serves", || tree.get().ok());
    assert_eq!(tree.ask("check").status.code(), Some(1));
    let output = tree.ask(&format!("status {run}"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // HUP is answered with what is wrong, and nothing changes.
    Pidfd::open(tree.stub.as_ref().unwrap().id()).unwrap().signal(Signal::HUP).unwrap();
    eventually("the verdict", || tree.log().contains("the one in force stays").then_some(()));
    tree.get().unwrap();
    assert_eq!(tree.terminate(), Some(0));
}

#[test]
fn exit_codes_are_those_of_the_contract() {
    let tree = Tree::new("codes");
    assert_eq!(tree.ask("check").status.code(), Some(0));
    assert_eq!(tree.ask("stop").status.code(), Some(5));
    assert_eq!(tree.ask("status").status.code(), Some(5));
    let beltway = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beltway"));
        command.args(words);
        bounded(command)
    };
    assert_eq!(beltway(&[]).status.code(), Some(2));
    assert_eq!(beltway(&["no-such-command"]).status.code(), Some(2));
    assert_eq!(beltway(&["--version"]).status.code(), Some(0));
    assert_eq!(beltway(&["check", "--explain", "http.listen"]).status.code(), Some(0));
    assert_eq!(beltway(&["check", "--explain", "http.lisen"]).status.code(), Some(2));

    let taken = std::net::TcpListener::bind(tree.http).unwrap();
    let output = tree.ask("run");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("cannot listen on {}", tree.http)));
    tree.directory().create().unwrap();
    let output = tree.ask("start");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    drop(taken);
    tree.assert_nothing_is_left();

    tree.configure("http: {lisen: []}\n");
    for command in ["run", "start", "server", "manager"] {
        let output = tree.ask(command);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("beltway.yaml:1:8"), "{output:?}");
    }
}

#[test]
fn a_second_start_names_the_first_and_leaves_it_alone() {
    let tree = Tree::run("second");
    let stub = tree.stub.as_ref().unwrap().id();
    for command in ["run", "start"] {
        let output = tree.ask(command);
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("process {stub}")), "{output:?}");
    }
    let manager = tree.ask("manager");
    assert_eq!(manager.status.code(), Some(4), "{manager:?}");
    assert!(String::from_utf8_lossy(&manager.stderr).contains(&tree.pid(Role::Manager).to_string()));
    assert_eq!(tree.ask("server").status.code(), Some(4));
    tree.get().unwrap();
}

#[test]
fn start_returns_when_it_serves_and_stop_when_all_is_gone() {
    let tree = Tree::new("daemon");
    let output = tree.ask("start");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    tree.get().unwrap();
    assert_eq!(tree.ask("start").status.code(), Some(4));
    let server = tree.kill(Role::Server);
    tree.await_another(Role::Server, server);
    eventually("it serves", || tree.get().ok());

    // Logs are reopened under their name after they were renamed.
    let log = tree.directory().daemon_log();
    std::fs::rename(&log, tree.home.join("old.log")).unwrap();
    assert_eq!(tree.ask("ctl log reopen").status.code(), Some(0));
    eventually("a new log", || std::fs::read_to_string(&log).ok().filter(|text| text.contains("reopened")));

    let output = tree.ask("stop");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    tree.assert_nothing_is_left();
    assert_eq!(tree.ask("stop").status.code(), Some(5));
}

#[test]
fn a_stop_lets_the_request_in_flight_finish() {
    let mut tree = Tree::new("drain");
    let origin = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // The test says when the request ends, not the clock.
    tree.configure(&Tree::patient(&tree.original_to(origin.local_addr().unwrap())));
    tree.start_stub();
    tree.await_serving();

    let http = tree.http;
    let client = std::thread::Builder::new().spawn(move || tree::get(http)).unwrap();
    let (mut request, _) = origin.accept().unwrap();
    let stub = tree.stub.as_ref().unwrap().id();
    Pidfd::open(stub).unwrap().signal(Signal::TERM).unwrap();
    eventually("the drain", || tree.log().contains("draining").then_some(()));
    eventually("new connections are refused", || std::net::TcpStream::connect(http).err());
    assert!(!client.is_finished());
    request.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").unwrap();
    let answer = client.join().unwrap().unwrap();
    assert!(answer.ends_with("late"), "{answer}");
    let mut stub = tree.stub.take().unwrap();
    assert_eq!(eventually("the stub ends", || stub.try_wait().unwrap()).0.code(), Some(0));
    tree.assert_nothing_is_left();
}

#[test]
fn a_stop_is_not_held_up_for_longer_than_the_drain_timeout() {
    let mut tree = Tree::new("impatient");
    let origin = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    origin.set_nonblocking(true).unwrap();
    let text = tree.original_to(origin.local_addr().unwrap());
    tree.configure(&text.replacen("stop_timeout: 5s", "stop_timeout: 1m", 1));
    tree.start_stub();
    tree.await_serving();
    let mut half = std::net::TcpStream::connect(tree.http).unwrap();
    half.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf").unwrap();
    let _asked = eventually("the origin is asked", || origin.accept().ok());
    assert_eq!(tree.terminate(), Some(0));
    // By the server itself: nobody had to kill it when the time for the stop was over.
    assert!(tree.log().contains("connections are still open after 2s: they are cut"), "{}", tree.log());
    tree.assert_nothing_is_left();
}

#[test]
fn without_its_stub_a_tree_serves_on_and_the_next_run_adopts_it() {
    let mut tree = Tree::run("stub");
    let server = tree.pid(Role::Server);
    let mut stub = tree.stub.take().unwrap();
    stub.kill().unwrap();
    stub.wait().unwrap();
    let before = tree.kill(Role::Manager);
    tree.await_another(Role::Manager, before);
    tree.get().unwrap();

    tree.start_stub();
    eventually("the new stub is known", || {
        (tree.status()?["stub"]["pid"] == tree.stub.as_ref().unwrap().id()).then_some(())
    });
    assert_eq!(tree.pid(Role::Server), server, "adopted");
    let (cop, manager) = (tree.kill(Role::Cop), tree.kill(Role::Manager));
    tree.await_another(Role::Cop, cop);
    tree.await_another(Role::Manager, manager);
    assert_eq!(tree.pid(Role::Server), server);
    assert_eq!(tree.terminate(), Some(0));
    tree.assert_nothing_is_left();
}

#[test]
fn stop_ends_a_tree_whose_stub_is_dead() {
    let mut tree = Tree::run("orphans");
    let mut stub = tree.stub.take().unwrap();
    stub.kill().unwrap();
    stub.wait().unwrap();
    let output = tree.ask("stop");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(tree.ask("status").status.code(), Some(5));
}

#[test]
fn a_server_by_itself_serves_and_drains() {
    let mut tree = Tree::new("alone");
    let log = std::fs::File::create(tree.home.join("log")).unwrap();
    let server = tree.command("server").stdin(Stdio::null()).stderr(log).spawn().unwrap();
    tree.stub = Some(server);
    eventually("it serves", || tree.get().ok());
    assert_eq!(name(tree.stub.as_ref().unwrap().id()), "traffic_server");
    assert_eq!(tree.ask("server").status.code(), Some(4));
    let status = String::from_utf8(tree.ask("status").stdout).unwrap();
    assert!(status.contains("traffic_server"), "{status}");
    assert_eq!(tree.terminate(), Some(0));
    tree.assert_nothing_is_left();
}

#[test]
fn a_removed_lease_socket_or_directory_is_put_back() {
    let tree = Tree::run("removed");
    let directory = tree.directory();
    let files = [
        directory.stub_lease(),
        directory.cop_lease(),
        directory.manager_lease(),
        directory.cop_socket(),
        directory.manager_socket(),
        directory.server_lease(1),
        directory.server_socket(1),
    ];
    let pids = [Role::Cop, Role::Manager, Role::Server].map(|role| tree.pid(role));
    for file in &files {
        std::fs::remove_file(file).unwrap();
    }
    for file in &files {
        eventually("the file is back", || file.exists().then_some(()));
    }
    tree.await_serving();
    // Who puts something back in the middle of it has to be removed once more.
    eventually("the directory is gone", || std::fs::remove_dir_all(directory.path()).ok());
    for file in files.iter().chain([&directory.committed_configuration()]) {
        eventually("the directory and the file are back", || file.exists().then_some(()));
    }
    tree.await_serving();
    assert_eq!([Role::Cop, Role::Manager, Role::Server].map(|role| tree.pid(role)), pids, "nobody was replaced");
}

#[test]
fn the_program_answers_to_its_other_names() {
    let tree = Tree::new("names");
    let mut install = Command::new(env!("CARGO_BIN_EXE_beltway"));
    install.arg("install-links").arg(&tree.home);
    assert!(bounded(install).status.success());
    let mut check = Command::new(tree.home.join("traffic_ctl"));
    check.args(["status", "-c"]).arg(tree.file());
    assert_eq!(bounded(check).status.code(), Some(5));
    let mut version = Command::new(tree.home.join("nutcracker"));
    version.arg("-V");
    let nutcracker = bounded(version);
    assert!(String::from_utf8_lossy(&nutcracker.stderr).starts_with("This is nutcracker-"), "{nutcracker:?}");
    // What is there and is no link is left alone.
    std::fs::remove_file(tree.home.join("traffic_cop")).unwrap();
    std::fs::write(tree.home.join("traffic_cop"), "mine").unwrap();
    let mut install = Command::new(env!("CARGO_BIN_EXE_beltway"));
    install.arg("install-links").arg(&tree.home);
    assert_eq!(bounded(install).status.code(), Some(1));
}

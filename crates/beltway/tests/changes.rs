//! Planned change with real processes: reload, restart, rollback, under load. Each test has a tree of its own.

#[path = "tree/mod.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod tree;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use supervise::configuration;
use supervise::control::{Connection, Reply, Request};
use supervise::kv::KvQuestion;
use supervise::role::Role;
use sys::process::{Pidfd, Signal};
use tree::{Kept, Load, Tree, eventually};

/// What the tree calls itself in Via, as the embedded origin sees it.
fn via(tree: &Tree) -> String {
    let answer = tree.get().expect("an answer");
    let line = answer.lines().find(|line| line.to_ascii_lowercase().starts_with("via:")).unwrap_or_default();
    line.rsplit(' ').next().unwrap_or_default().to_owned()
}

/// The tree's file with another `via` and more.
fn rewrite(tree: &Tree, via: &str, more: &str) {
    let text = tree.original();
    tree.configure(&format!("{}{more}", text.replacen("http:\n", &format!("http:\n  via: {via}\n"), 1)));
}

fn stdout(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(tree: &Tree, command: &str) -> Value {
    let output = tree.ask(command);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{command}: {error}: {output:?}"))
}

#[test]
fn a_reload_under_load_fails_no_request_and_is_seen_by_the_next_one() {
    let tree = Tree::run("reload");
    let server = tree.pid(Role::Server);
    let load = Load::begin(tree.http);
    for round in 0..10 {
        rewrite(&tree, &format!("round{round}"), "");
        let diff = json(&tree, "ctl config diff --json");
        assert_eq!((&diff["outcome"], &diff["changed"][0]["key"]), (&"possible".into(), &"http.via".into()), "{diff}");
        let output = tree.ask("reload");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(via(&tree), format!("round{round}"));
        load.more(5);
    }
    let (good, refused, broken) = load.end();
    println!("{good} good");
    assert_eq!((refused, broken), (0, 0));
    assert_eq!(tree.pid(Role::Server), server, "the same server");
    let output = tree.ask("reload");
    assert!(stdout(&output).contains("nothing differs"), "{output:?}");
    assert_eq!(output.status.code(), Some(0));

    // What was committed is what a new server and a new manager run.
    rewrite(&tree, "uncommitted", "");
    let before = tree.kill(Role::Server);
    tree.await_another(Role::Server, before);
    let before = tree.kill(Role::Manager);
    tree.await_another(Role::Manager, before);
    tree.await_serving();
    assert_eq!(via(&tree), "round9");
    assert_eq!(tree.status().unwrap()["servers"][0]["other_configuration"], false);

    // By signal, too.
    Pidfd::open(tree.stub.as_ref().unwrap().id()).unwrap().signal(Signal::HUP).unwrap();
    eventually("the new name", || (via(&tree) == "uncommitted").then_some(()));
}

#[test]
fn a_wrong_file_changes_nothing_and_says_where() {
    let tree = Tree::run("wrong");
    rewrite(&tree, "named", "");
    assert_eq!(tree.ask("reload").status.code(), Some(0));
    let directory = format!("--runtime-dir {}", tree.directory().path().display());
    rewrite(&tree, "named", "nonsense: true\n");
    let lines = std::fs::read_to_string(tree.file()).unwrap().lines().count();
    for command in ["reload", "restart", "ctl config diff", "ctl config reload", "ctl server restart"] {
        let output = tree.ask(&format!("{command} {directory}"));
        assert_eq!(output.status.code(), Some(3), "{command}: {output:?}");
        assert!(stdout(&output).contains(&format!("beltway.yaml:{lines}:1: ")), "{command}: {output:?}");
    }
    assert_eq!(via(&tree), "named");
    let get = tree.ask(&format!("ctl config get {directory}"));
    assert!(stdout(&get).contains("via: named") && !stdout(&get).contains("nonsense"), "{get:?}");
    assert_eq!(tree.status_by(&directory).unwrap()["servers"][0]["generation"], 1);
}

#[test]
fn a_key_that_takes_a_new_server_is_refused_by_reload_and_taken_by_restart() {
    let tree = Tree::run("restart-key");
    let other = tree::free_address();
    let text = tree.original().replacen("threads: 1", "threads: 2", 1).replacen(
        &format!("listen: [{}]", tree.http),
        &format!("listen: [{}, {other}]", tree.http),
        1,
    );
    tree.configure(&text);
    let verdict = json(&tree, "reload --json");
    assert_eq!(verdict["outcome"], "needs_restart", "{verdict}");
    let keys: Vec<_> = verdict["changed"].as_array().unwrap().iter().map(|c| c["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["threads", "http.listen"]);
    assert_eq!(tree.ask("reload").status.code(), Some(1));
    assert!(std::net::TcpStream::connect(other).is_err());

    let load = Load::begin(tree.http);
    let output = tree.ask("restart");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    tree::get(other).unwrap();
    load.more(5);
    let (_, refused, broken) = load.end();
    assert_eq!((refused, broken), (0, 0));
    eventually("the new server tells of its threads", || {
        let status = tree.status()?;
        let server = status["servers"].as_array()?.last()?;
        (server["generation"] == 2 && server["threads"].as_array()?.len() == 2).then_some(())
    });

    // Back again: nobody listens there any more.
    tree.configure(&tree.original());
    assert_eq!(tree.ask("restart").status.code(), Some(0));
    eventually("it is let go of", || std::net::TcpStream::connect(other).err());
    tree.get().unwrap();

    // An address that cannot be had: everything goes on.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = tree.original().replacen(
        &format!("listen: [{}]", tree.http),
        &format!("listen: [{}, {}]", tree.http, taken.local_addr().unwrap()),
        1,
    );
    tree.configure(&text);
    let output = tree.ask("restart");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stdout(&output).contains("cannot listen on"), "{output:?}");
    tree.get().unwrap();
}

#[test]
fn twenty_restarts_under_load_fail_no_request() {
    let mut tree = Tree::new("restarts");
    tree.configure(&Tree::patient(&tree.original()));
    tree.start_stub();
    tree.await_serving();
    let load = Load::begin(tree.http);
    let begin = tree::now();
    for round in 2..=21 {
        let output = tree.ask("restart --json");
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&verdict["outcome"], &verdict["generation"]), (&"applied".into(), &round.into()), "{verdict}");
        load.more(3);
    }
    println!("20 restarts in {:?}", begin.elapsed());
    let (good, refused, broken) = load.end();
    println!("{good} good");
    assert_eq!((refused, broken), (0, 0));
    // The old ones are done, were no accidents, and their numbers count.
    eventually("one server is left", || {
        let status = tree.status()?;
        assert_eq!(status["server_deaths"], 0);
        (status["servers"].as_array()?.len() == 1).then_some(())
    });
    let metric = tree.ask("ctl metric get beltway_http_client_connections_total");
    let counted: u64 = stdout(&metric).trim().rsplit(' ').next().unwrap().parse().unwrap_or(0);
    assert!(counted >= good, "{counted} of {good}: {metric:?}");
}

#[test]
fn clients_that_keep_their_connections_notice_nothing_of_restarts() {
    const RESTARTS: u64 = 20;
    let mut tree = Tree::new("kept");
    // However long all the restarts take, no client is idle for too long.
    let idle = "http:\n  timeouts: {request_head: 10m, keep_alive: 10m}\n";
    let text = tree.original_to(tree::origin()).replacen("threads: 1", "threads: 2", 1);
    tree.configure(&Tree::patient(&text).replacen("http:\n", idle, 1));
    tree.start_stub();
    tree.await_serving();
    let http = tree.http;
    let mut idle: Vec<_> = (0..200).map(|_| Kept::connect(http)).collect();
    for (at, client) in idle.iter_mut().enumerate() {
        if at % 2 == 0 {
            client.get().unwrap(); // the others have asked nothing yet
        }
    }
    let ended = AtomicBool::new(false);
    let (requests, closes) = std::thread::scope(|scope| {
        let busy: Vec<_> = (0..4)
            .map(|_| {
                let work = || {
                    let (mut requests, mut closes) = (0_u64, 0_u64);
                    let mut client = Kept::connect(http);
                    while !ended.load(Ordering::Relaxed) {
                        if let Err(error) = client.get() {
                            panic!("request {requests} failed: {error}");
                        }
                        requests += 1;
                        if client.told_to_close {
                            closes += 1;
                            client = Kept::connect(http);
                        }
                    }
                    (requests, closes)
                };
                std::thread::Builder::new().spawn_scoped(scope, work).unwrap()
            })
            .collect();
        for _ in 0..RESTARTS {
            let output = tree.ask("restart");
            if output.status.code() != Some(0) {
                ended.store(true, Ordering::Relaxed);
                panic!("{output:?}");
            }
        }
        ended.store(true, Ordering::Relaxed);
        busy.into_iter().map(|client| client.join().unwrap()).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    println!("{RESTARTS} restarts, {requests} requests, {closes} connections told to close, 0 failed");
    for client in &mut idle {
        client.get().unwrap();
    }
    let generation = RESTARTS + 1;
    assert_eq!(json(&tree, "status --json")["servers"].as_array().unwrap().last().unwrap()["generation"], generation);
    drop(idle);
    eventually("the last one counts none as open", || {
        let status = tree.status()?;
        let servers = status["servers"].as_array()?;
        (servers.len() == 1 && servers[0]["open_connections"] == 0).then_some(())
    });
}

#[test]
fn a_connection_that_moved_may_be_idle_as_long_as_any_other() {
    let mut tree = Tree::new("idle-moved");
    // Who has just connected must say something sooner than who has been answered.
    let text = tree.original().replacen("http:\n", "http:\n  timeouts: {request_head: 2s, keep_alive: 10m}\n", 1);
    tree.configure(&text);
    tree.start_stub();
    tree.await_serving();
    let mut idle: Vec<_> = (0..8)
        .map(|_| {
            let mut client = Kept::connect(tree.http);
            client.get().unwrap();
            client
        })
        .collect();
    let before = tree.pid(Role::Server);
    let moves = TcpStream::connect(tree.http).unwrap();
    assert_eq!(tree.ask("restart").status.code(), Some(0));
    assert_ne!(tree.pid(Role::Server), before);
    // Who has not said anything yet is let go before long, whether it moved or has just come.
    for mut silent in [moves, TcpStream::connect(tree.http).unwrap()] {
        silent.set_read_timeout(Some(tree::PATIENCE)).unwrap();
        silent.read_to_end(&mut Vec::new()).unwrap();
    }
    for client in &mut idle {
        client.get().unwrap();
    }
}

#[test]
fn a_new_server_that_cannot_start_leaves_the_old_one_and_says_why() {
    let tree = Tree::run("stillborn");
    let server = tree.pid(Role::Server);
    let log = tree.home.join("no-such-directory").join("access.log");
    let named = format!("http:\n  access_log: {{file: {}}}\n", log.display());
    tree.configure(&tree.original().replacen("http:\n", &named, 1));
    for command in ["reload", "restart"] {
        let output = tree.ask(command);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stdout(&output).contains("no-such-directory"), "{output:?}");
    }
    assert_eq!(tree.pid(Role::Server), server);
    // One that dies before it is ready.
    tree.configure(&tree.original());
    let asked = std::thread::scope(|scope| {
        let asked = std::thread::Builder::new().spawn_scoped(scope, || tree.ask("restart")).unwrap();
        let (successor, _) = eventually("the successor", || tree.process(Role::Server).filter(|p| p.pid() != server));
        let _ = successor.signal(Signal::KILL);
        asked.join().unwrap()
    });
    println!("{asked:?}");
    tree.get().unwrap();
    eventually("one server", || (tree.status()?["servers"].as_array()?.len() == 1).then_some(()));
}

#[test]
fn a_server_that_never_judges_is_replaced_by_a_restart_all_the_same() {
    let mut tree = Tree::new("never");
    // Nobody else is to take its silence ill.
    tree.configure(&tree.original().replacen("hang_timeout: 5s", "hang_timeout: 5m", 1));
    tree.start_stub();
    tree.await_serving();
    let stuck = tree.process(Role::Server).unwrap();
    stuck.signal(Signal::STOP).unwrap();
    // It waits for the judgment as long as it may.
    let output = tree.command("restart").output().unwrap();
    let _ = stuck.signal(Signal::KILL);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(tree.log().contains("did not judge the configuration within"), "{}", tree.log());
    tree.get().unwrap();
    assert_ne!(tree.pid(Role::Server), stuck.pid());
}

#[test]
fn a_manager_killed_in_the_middle_of_restarts_leaves_one_server_with_what_is_in_force() {
    let tree = Tree::run("middle");
    for round in 0..6 {
        rewrite(&tree, &format!("round{round}"), "");
        std::thread::scope(|scope| {
            let restart = std::thread::Builder::new().spawn_scoped(scope, || tree.ask("restart")).unwrap();
            tree::pause(Duration::from_millis(5 * round));
            let before = tree.kill(Role::Manager);
            tree.await_another(Role::Manager, before);
            restart.join().unwrap()
        });
        eventually("one server, with what is in force", || {
            tree.get().unwrap();
            let status = tree.status()?;
            let servers = status["servers"].as_array()?;
            let fits = servers.len() == 1
                && servers[0]["state"] == "ready"
                && servers[0]["heartbeat"]["answered"] != 0
                && servers[0]["other_configuration"] == false;
            fits.then_some(())
        });
    }
}

#[test]
fn a_server_that_runs_another_configuration_than_manager_knows_of_is_told_of_the_one_in_force() {
    let tree = Tree::run("unlike");
    rewrite(&tree, "in-force", "");
    assert_eq!(tree.ask("reload").status.code(), Some(0));
    let server = tree.pid(Role::Server);
    // As when manager does not hear that the server took what it was to take, whatever the reason.
    let text = std::fs::read_to_string(tree.file()).unwrap().replacen("via: in-force", "via: other", 1);
    let other = config::parse("beltway.yaml", &text).unwrap();
    configuration::propose(&tree.directory(), &other).unwrap();
    let digest = configuration::digest(&other);
    let generation = *tree.directory().server_generations().unwrap().last().unwrap();
    let connection = Connection::open(&tree.directory().server_socket(generation)).unwrap();
    let (verdict, _) = connection.ask(Request::Prepare(digest.clone()), tree::PATIENCE).unwrap();
    assert!(matches!(&verdict, Reply::Verdict(verdict) if verdict.is_success()), "{verdict:?}");
    let (committed, _) = connection.ask(Request::Commit(digest), tree::PATIENCE).unwrap();
    assert!(matches!(committed, Reply::Done | Reply::Verdict(_)), "{committed:?}");
    eventually("the server was told", || tree.log().contains(": it is told").then_some(()));
    eventually("it runs what is in force", || (via(&tree) == "in-force").then_some(()));
    eventually("everybody knows", || (tree.status()?["servers"][0]["other_configuration"] == false).then_some(()));
    assert_eq!(tree.pid(Role::Server), server);
}

#[test]
fn one_reload_behind_the_other_makes_nobody_think_that_the_server_runs_another_configuration() {
    let tree = Tree::run("quick");
    // Signs of life fall between any two of them.
    for round in 0..250 {
        rewrite(&tree, ["one", "other"][round % 2], "");
        let output = tree.ask("reload");
        assert_eq!(output.status.code(), Some(0), "{round}: {output:?}");
    }
    assert!(!tree.log().contains("runs another configuration"), "{}", tree.log());
}

#[test]
fn what_was_in_force_can_be_had_back_by_its_number() {
    let tree = Tree::run("rollback");
    for name in ["first", "second"] {
        rewrite(&tree, name, "");
        assert_eq!(tree.ask("reload").status.code(), Some(0));
    }
    let history = json(&tree, "ctl config history --json");
    let numbers: Vec<_> = history.as_array().unwrap().iter().map(|past| past["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let output = tree.ask("ctl config rollback 2");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(via(&tree), "first");
    let output = tree.ask("ctl config rollback 99");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(via(&tree), "first");
}

#[test]
fn the_log_level_can_be_changed_while_running_and_a_server_stopped_and_started() {
    let tree = Tree::run("ctl");
    for (level, told) in [("error", false), ("info", true)] {
        assert_eq!(tree.ask(&format!("ctl log level {level}")).status.code(), Some(0));
        assert_eq!(tree.ask("reload").status.code(), Some(0));
        assert_eq!(tree.log().contains("says what is in force already"), told, "{level}");
    }
    let output = tree.ask("ctl server stop");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(tree.process(Role::Server).is_none());
    tree::pause(Duration::from_millis(200));
    assert!(tree.process(Role::Server).is_none(), "down on purpose");
    let http = tree.http;
    let client = std::thread::Builder::new().spawn(move || tree::get(http)).unwrap();
    let output = tree.ask("ctl server start");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    client.join().unwrap().unwrap();
    let numbers = json(&tree, "ctl metric match beltway_http --json");
    assert!(numbers.as_array().unwrap().len() > 3, "{numbers}");
    assert_eq!(tree.ask("ctl metric get beltway_no_such_thing").status.code(), Some(1));
    let watched = tree.ask("ctl metric watch beltway_server_generation --count 1");
    assert!(stdout(&watched).starts_with("beltway_server_generation "), "{watched:?}");
}

#[test]
fn a_server_by_itself_reads_its_file_anew_when_it_is_told_to() {
    let mut tree = Tree::new("alone-anew");
    let log = std::fs::File::create(tree.home.join("log")).unwrap();
    tree.stub = Some(tree.command("server").stderr(log).spawn().unwrap());
    eventually("it serves", || tree.get().ok());
    let hang_up = || Pidfd::open(tree.stub.as_ref().unwrap().id()).unwrap().signal(Signal::HUP).unwrap();
    rewrite(&tree, "anew", "");
    hang_up();
    eventually("the new name", || (via(&tree) == "anew").then_some(()));
    eventually("it is said", || tree.log().contains(" is in force").then_some(()));
    rewrite(&tree, "wrong", "nonsense: true\n");
    hang_up();
    eventually("what is wrong is said", || {
        tree.log().contains("the configuration is wrong, the one in force stays:").then_some(())
    });
    let other = tree.original().replacen("threads: 1", "threads: 2", 1);
    tree.configure(&other);
    hang_up();
    eventually("what takes a new server is said", || {
        tree.log().contains("nothing has changed: threads take effect after a stop and a start").then_some(())
    });
    assert_eq!(via(&tree), "anew");
    assert_eq!(tree.terminate(), Some(0));
}

/// Asks the server for signs of life, one after the other, while `what` is under way: the answer to that, how many there
/// were, and the longest wait for one.
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
fn asked_while<T: Send>(tree: &Tree, what: impl FnOnce() -> T + Send) -> (T, u32, Duration) {
    let generation = *tree.directory().server_generations().unwrap().last().unwrap();
    let server = Connection::open(&tree.directory().server_socket(generation)).unwrap();
    std::thread::scope(|scope| {
        let what = std::thread::Builder::new().spawn_scoped(scope, what).unwrap();
        let (mut count, mut longest) = (0, Duration::ZERO);
        while !what.is_finished() {
            let asked = tree::now();
            server.ask(Request::Ping, tree::PATIENCE).unwrap();
            longest = longest.max(asked.elapsed());
            count += 1;
            tree::pause(Duration::from_millis(5));
        }
        (what.join().unwrap(), count, longest)
    })
}

#[test]
fn a_server_whose_threads_are_late_to_take_a_reload_gives_signs_of_life_and_is_left_alone() {
    /// What the tree's file says; more than a loaded machine makes anybody wait.
    const HANG: Duration = Duration::from_secs(5);
    /// So long the verdict waits for a new server.
    const PROBED: Duration = Duration::from_secs(1);
    let mut tree = Tree::new("late");
    let [pool, store, page] = [(); 3].map(|()| tree::free_address());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = tree.original();
    assert!(text.contains("hang_timeout: 5s"));
    let at = text.find("server: {listen: ").unwrap() + "server: {listen: ".len();
    let end = at + text[at..].find(',').unwrap();
    let text = format!("{}{page}{}", &text[..at], &text[end..]);
    let text = text.replacen("demo: {", &format!("demo: {{redis: \"{store}\", "), 1);
    let with = |servers: &str| {
        format!("{text}kv: {{pools: {{alpha: {{listen: \"{pool}\", redis: true, servers: [{servers}]}}}}}}\n")
    };
    let known = format!("\"{store}:1\"");
    tree.configure(&with(&known));
    tree.start_stub_as(|command| {
        command.env("BELTWAY_FAULTS_FOR_TESTS", "let this server be broken by requests");
    });
    tree.await_serving();
    eventually("cop has heard of it", || tree.log().contains("holds copies").then_some(()));
    let pids = || [Role::Cop, Role::Manager, Role::Server].map(|role| tree.pid(role));
    let before = pids();

    // The only event thread is busy for half a second; then a new server has a second to answer, and does not.
    tree.configure(&with(&format!("{known}, \"{}:1 silent\"", silent.local_addr().unwrap())));
    let mut dawdles = TcpStream::connect(page).unwrap();
    dawdles.set_read_timeout(Some(tree::PATIENCE)).unwrap();
    dawdles.write_all(b"POST /fault/dawdle HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap();
    let begin = tree::now();
    let (verdict, count, longest) = asked_while(&tree, || json(&tree, "reload --json"));
    println!("in force after {:?}; {count} signs of life, the longest wait {longest:?}", begin.elapsed());
    assert_eq!(verdict["outcome"], "applied", "{verdict}");
    assert!(verdict["diagnostics"].to_string().contains("the new server silent does not answer"), "{verdict}");
    assert!(begin.elapsed() > PROBED && longest < HANG && count > 1, "{longest:?}");

    // However many ask how the servers are.
    dawdles.read_exact(&mut [0; 12]).unwrap();
    dawdles.write_all(b"POST /fault/dawdle HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap();
    let ask_much = || {
        let generation = *tree.directory().server_generations().unwrap().last().unwrap();
        let socket = tree.directory().server_socket(generation);
        let callers: Vec<_> = (0..20).map(|_| Connection::open(&socket).unwrap()).collect();
        for caller in &callers {
            (0..8).for_each(|number| caller.send(number, Request::Kv(KvQuestion::Report), &[]).unwrap());
        }
        let mut answers = 0;
        eventually("all are told", || {
            for caller in &callers {
                while let Some((packet, _)) = caller.receive::<Reply>().unwrap() {
                    assert!(matches!(packet.body, Reply::Kv(_)), "{packet:?}");
                    answers += 1;
                }
            }
            (answers == 20 * 8).then_some(())
        });
    };
    let ((), count, longest) = asked_while(&tree, ask_much);
    println!("{count} signs of life, the longest wait {longest:?}");
    assert!(longest < HANG, "{longest:?}");
    assert_eq!(pids(), before, "everybody is who he was");
    assert_eq!(tree.status().unwrap()["server_deaths"], 0);
}

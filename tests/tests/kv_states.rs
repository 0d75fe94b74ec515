//! What operators are told of servers is how they are: whether or not they are counted, and through every death.

#![allow(clippy::unwrap_used, reason = "a walk that cannot set up its surroundings fails")]

use std::fs;
use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::Value;
use supervise::control::{Connection, Reply, Request};
use supervise::kv::KvQuestion;
use walks::kv::{KvClient, KvTree, Store};
use walks::{eventually, free_address, process};

fn pool(name: &str, listen: SocketAddr, keys: &str, servers: &[String]) -> String {
    let servers: String = servers.iter().map(|server| format!("    - \"{server}\"\n")).collect();
    format!("{name}:\n  listen: {listen}\n  redis: true\n  hash: murmur\n  timeout: 60s\n{keys}  servers:\n{servers}")
}

fn at(address: SocketAddr, name: &str) -> String {
    format!("{address}:1 {name}")
}

/// The server of that name in `ctl kv servers`.
fn server(tree: &KvTree, pool: &str, name: &str) -> Value {
    let servers = tree.json(&["ctl", "kv", "servers"]);
    let found = servers[pool].as_array().unwrap().iter().find(|server| server["name"] == name).cloned();
    found.unwrap_or_else(|| panic!("no {name} in {servers}"))
}

/// The server of that name, once all event threads say that it is in that state: one that is busy may not say in time.
fn server_is(tree: &KvTree, pool: &str, name: &str, state: &str) -> Value {
    eventually(&format!("{name} is {state}"), || {
        let told = server(tree, pool, name);
        (told["state"] == state).then_some(told)
    })
}

/// Waits until a pool has so many servers live of so many.
fn live_are(tree: &KvTree, counts: &str) {
    let words = format!(" {counts} ");
    eventually(&format!("{counts} are live"), || {
        tree.done(&["ctl", "kv", "pools"]).lines().nth(1)?.contains(&words).then_some(())
    });
}

/// Kills manager, and waits for another.
fn kill_manager(tree: &KvTree) {
    let manager = manager(tree);
    assert!(process::send(manager, Signal::KILL));
    another_manager(tree, manager);
}

fn manager(tree: &KvTree) -> u32 {
    tree.json(&["status"])["manager"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap()
}

/// Has manager do nothing more.
fn stop_manager(tree: &KvTree) -> u32 {
    let manager = manager(tree);
    assert!(process::send(manager, Signal::STOP));
    eventually("it does nothing more", || {
        let stat = fs::read_to_string(format!("/proc/{manager}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T').then_some(())
    });
    manager
}

/// Waits for another manager than that.
fn another_manager(tree: &KvTree, than: u32) {
    eventually("there is another manager", || {
        let status: Value = serde_json::from_slice(&tree.say(&["status", "--json"]).stdout).ok()?;
        let pid = status["manager"]["pid"].as_u64()?;
        (pid != u64::from(than)).then_some(())
    });
}

/// Ejects or restores a server by hand. A server process that is busy may not hear it in time: then it is asked again.
fn by_hand(tree: &KvTree, what: &str, server: &str) {
    eventually("it is done by hand", || tree.say(&["ctl", "kv", what, server]).status.success().then_some(()));
}

/// A key that lives on the server of that name.
fn key_on(tree: &KvTree, pool: &str, name: &str) -> String {
    let keys: Vec<String> = (0..3_000).map(|at| format!("key:{at}")).collect();
    let told = tree.places(pool, &keys.iter().map(String::as_str).collect::<Vec<_>>());
    let lives = |line: &&str| line.split_whitespace().any(|word| word.trim_end_matches([',', ';']) == name);
    let line = told.lines().find(lives).unwrap();
    keys.iter().find(|key| line.starts_with(&format!("{key}: "))).unwrap().clone()
}

#[test]
fn a_dead_server_that_a_reload_brings_is_called_so_wherever_it_is_told_of() {
    let one = Store::redis(&[]);
    let (listen, nobody) = (free_address(), free_address());
    let keys = "  auto_eject_hosts: true\n  server_failure_limit: 1\n  server_retry_timeout: 30s\n";
    let of = |servers: &[String]| pool("alpha", listen, keys, servers);
    let tree = KvTree::run(&of(&[at(one.address(), "one")]));
    tree.write(&of(&[at(one.address(), "one"), at(nobody, "dead")]));
    let _ = tree.say(&["reload"]);
    eventually("it is in force", || tree.done(&["ctl", "kv", "servers"]).contains("dead").then_some(()));
    let mut client = KvClient::connect(listen);
    for key in 0..20 {
        assert!(client.ask(&format!("SET key:{key} x")).is_some());
    }
    server_is(&tree, "alpha", "dead", "new");
    live_are(&tree, "1/2");
    for key in 0..20 {
        let place = tree.places("alpha", &[&format!("key:{key}")]);
        assert!(place.contains("called one"), "{place}");
    }
}

#[test]
fn servers_that_reloads_bring_are_counted_at_once_and_those_that_are_too_many_say_why_not() {
    // As many as have room beside one.
    const ROOM: usize = 8;
    let (one, two) = (Store::redis(&[]), Store::redis(&[]));
    let (listen, nobody) = (free_address(), free_address());
    let of = |servers: &[String]| pool("alpha", listen, "", servers);
    let tree = KvTree::run_counted(&of(&[at(one.address(), "one")]));
    let mut servers = vec![at(one.address(), "one"), at(two.address(), "two")];
    tree.write(&of(&servers));
    tree.done(&["reload"]);
    server_is(&tree, "alpha", "two", "live");
    let key = key_on(&tree, "alpha", "two");
    for _ in 0..20 {
        assert_eq!(KvClient::connect(listen).ask(&format!("SET {key} x")).unwrap(), "+OK\r\n");
    }
    eventually("it is counted by itself", || {
        let told = server(&tree, "alpha", "two");
        (told["requests"] == 20 && told["time"]["count"] == 20).then_some(())
    });
    let series = "beltway_kv_server_replies_total{pool=\"alpha\",server=\"two\"}";
    assert_eq!(tree.metrics().sample(series), Some(20.0));

    servers.extend((0..ROOM).map(|late| at(nobody, &format!("late{late}"))));
    tree.write(&of(&servers));
    tree.done(&["reload"]);
    let last = format!("late{}", ROOM - 1);
    assert!(server(&tree, "alpha", "late0")["requests"].is_u64());
    let told = server(&tree, "alpha", &last);
    assert_eq!((&told["requests"], &told["time"]), (&Value::Null, &Value::Null), "{told}");
    eventually("why it has no numbers is told", || {
        let table = tree.done(&["ctl", "kv", "servers"]);
        let line = table.lines().find(|line| line.contains(&last))?;
        (line.contains(" - ") && line.ends_with("(counted from the next restart on)")).then_some(())
    });
    // And so it is, and what was counted is not lost.
    tree.done(&["restart"]);
    let told = server(&tree, "alpha", &last);
    assert!(told["requests"].is_u64() && told["note"] == "", "{told}");
    eventually("what was counted counts on", || (server(&tree, "alpha", "two")["requests"] == 20).then_some(()));
}

#[test]
fn a_reload_says_which_new_servers_do_not_answer_and_they_take_no_keys() {
    let one = Store::redis(&[]);
    let (listen, nobody) = (free_address(), free_address());
    let of = |servers: &[String]| pool("alpha", listen, "", servers);
    let tree = KvTree::run(&of(&[at(one.address(), "one")]));
    tree.write(&of(&[at(one.address(), "one"), at(nobody, "dead")]));
    let said = tree.done(&["reload"]);
    assert!(said.contains("in force"), "{said}");
    let warned = "warning: pool alpha: the new server dead does not answer: it takes no keys before it answers a probe";
    assert!(said.contains(warned), "{said}");
    server_is(&tree, "alpha", "dead", "new");
    let mut client = KvClient::connect(listen);
    for key in 0..40 {
        assert_eq!(client.ask(&format!("SET key:{key} x")).unwrap(), "+OK\r\n");
    }
    tree.write(&of(&[at(nobody, "dead")]));
    tree.done(&["reload"]);
    assert_eq!(client.ask("GET key:1").unwrap(), "-ERR Connection refused\r\n", "nobody else has its keys");
}

#[test]
fn a_server_that_is_ejected_by_hand_stays_out_through_every_death_until_it_is_restored() {
    let (one, two) = (Store::redis(&[]), Store::redis(&[]));
    let listen = free_address();
    let both = [at(one.address(), "one"), at(two.address(), "two")];
    let tree = KvTree::run(&pool("alpha", listen, "", &both));
    let key = key_on(&tree, "alpha", "two");
    let mut client = KvClient::connect(listen);
    assert_eq!(client.ask(&format!("SET {key} x")).unwrap(), "+OK\r\n");
    by_hand(&tree, "eject", "two");
    let state = || server(&tree, "alpha", "two")["state"].as_str().unwrap().to_owned();
    // A server that serves may not be known to do so yet.
    let is_held = |when: &str| {
        eventually(&format!("it is held {when}"), || {
            let told: Value = serde_json::from_slice(&tree.say(&["ctl", "kv", "servers", "--json"]).stdout).ok()?;
            let servers = told["alpha"].as_array()?;
            servers.iter().any(|server| server["name"] == "two" && server["state"] == "held").then_some(())
        })
    };
    // Asked by new clients, of whichever process serves: never the one that has the key.
    let is_out = || {
        for _ in 0..8 {
            let reply =
                eventually("the pool answers", || KvClient::try_connect(listen).ok()?.ask(&format!("GET {key}")));
            assert_eq!(reply, "$-1\r\n");
        }
    };
    is_held("from now on");
    is_out();
    tree.done(&["restart"]);
    is_out();
    is_held("after a restart");
    let before = tree.server();
    assert!(process::send(before, Signal::KILL));
    is_out();
    assert_ne!(tree.server(), before);
    is_held("after the death of the server");
    kill_manager(&tree);
    assert!(process::send(tree.server(), Signal::KILL));
    is_out();
    is_held("after the death of both");
    live_are(&tree, "1/2");

    // A reload keeps it, one without the server forgets it and says so.
    tree.write(&pool("alpha", listen, "  slowlog: 7ms\n", &both));
    tree.done(&["reload"]);
    is_held("after a reload");
    is_out();
    tree.write(&pool("alpha", listen, "", &both[..1]));
    let told = tree.done(&["reload"]);
    assert!(told.contains("two is there no more, and is no longer held by hand"), "{told}");
    tree.write(&pool("alpha", listen, "", &both));
    tree.done(&["reload"]);
    eventually("it is a server like any other", || (state() == "live").then_some(()));

    by_hand(&tree, "eject", "two");
    is_held("again");
    by_hand(&tree, "restore", "two");
    eventually("it is back", || (state() == "live").then_some(()));
    tree.done(&["restart"]);
    eventually("a restore is remembered, too", || (state() == "live").then_some(()));
    let reply = KvClient::connect(listen).ask(&format!("GET {key}")).unwrap();
    assert_eq!(reply, "$1\r\nx\r\n");
}

#[test]
fn however_many_eject_and_restore_manager_gives_signs_of_life_first_and_after_each() {
    const ASKED: u64 = 7;
    let (one, two) = (Store::redis(&[]), Store::redis(&[]));
    let tree = KvTree::run(&pool("alpha", free_address(), "", &[at(one.address(), "one"), at(two.address(), "two")]));
    let manager = stop_manager(&tree);
    let connection = Connection::open(&tree.running_file("manager.sock")).unwrap();
    // As many as are taken of one in a turn, and one more.
    for number in 0..ASKED {
        let hold = KvQuestion::Hold { pool: None, server: "two".to_owned(), out: number % 2 == 0 };
        connection.send(number, Request::Kv(hold), &[]).unwrap();
    }
    let (first, second) = (ASKED, ASKED + 1);
    connection.send(first, Request::Ping, &[]).unwrap();
    connection.send(second, Request::Ping, &[]).unwrap();
    assert!(process::send(manager, Signal::CONT));
    let answered = || eventually("it answers", || connection.receive::<Reply>().unwrap()).0.sequence;
    let order: Vec<_> = (0..ASKED + 2).map(|_| answered()).collect();
    assert_eq!(order, [&[first, 0, second], &(1..ASKED).collect::<Vec<_>>()[..]].concat());
    server_is(&tree, "alpha", "two", "held");
}

#[test]
fn of_many_who_eject_and_restore_at_once_each_is_answered_and_what_he_wants_is_done_once() {
    const CALLERS: u64 = 70;
    let (one, two) = (Store::redis(&[]), Store::redis(&[]));
    let tree = KvTree::run(&pool("alpha", free_address(), "", &[at(one.address(), "one"), at(two.address(), "two")]));
    let manager = manager(&tree);
    let connect = || eventually("there is room", || Connection::open(&tree.running_file("manager.sock")).ok());
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| {
            let caller = connect();
            let hold = KvQuestion::Hold { pool: None, server: "two".to_owned(), out: number % 2 == 0 };
            caller.send(number, Request::Kv(hold), &[]).unwrap();
            caller
        })
        .collect();
    let alive = connect();
    for (number, caller) in (0..).zip(&callers) {
        alive.send(number, Request::Ping, &[]).unwrap();
        let (pong, _) = eventually("it gives a sign of life", || alive.receive::<Reply>().unwrap());
        assert!(matches!(pong.body, Reply::Pong(_)) && pong.sequence == number, "{pong:?}");
        let (said, _) = eventually("he is answered", || caller.receive::<Reply>().unwrap());
        // A server process that is busy may not hear it in time.
        let is_done = match &said.body {
            Reply::Refused(why) => why.starts_with("it is remembered, and told again"),
            other => *other == Reply::Done,
        };
        assert!(is_done && said.sequence == number, "{said:?}");
    }
    let log = tree.log();
    for what in ["is held out of its ring by hand", "is restored by hand"] {
        assert_eq!(log.matches(&format!("pool alpha: two {what}")).count() as u64, CALLERS / 2, "{log}");
    }
    assert_eq!(self::manager(&tree), manager, "nobody had it killed");
}

#[test]
fn what_is_held_stays_so_while_the_file_about_it_cannot_be_read() {
    let (one, two) = (Store::redis(&[]), Store::redis(&[]));
    let tree = KvTree::run(&pool("alpha", free_address(), "", &[at(one.address(), "one"), at(two.address(), "two")]));
    by_hand(&tree, "eject", "two");
    server_is(&tree, "alpha", "two", "held");
    let file = tree.running_file("held");
    let good = fs::read(&file).unwrap();
    let manager = stop_manager(&tree);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(process::send(manager, Signal::KILL));
    another_manager(&tree, manager);
    let refused = tree.say(&["ctl", "kv", "eject", "one"]);
    let said = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
    assert!(said.contains("which servers are held by hand is not known"), "{said}");
    eventually("servers are told of", || tree.say(&["ctl", "kv", "servers"]).status.success().then_some(()));
    server_is(&tree, "alpha", "two", "held");
    assert!(file.is_dir(), "nothing is written over what was not read");
    fs::remove_dir(&file).unwrap();
    fs::write(&file, good).unwrap();
    by_hand(&tree, "restore", "two");
    server_is(&tree, "alpha", "two", "live");
    assert!(!file.exists());
}

#[test]
fn a_damaged_file_of_what_is_held_costs_nothing_while_somebody_lives_who_knows() {
    let stores = ["one", "two", "three"].map(|name| (Store::redis(&[]), name));
    let servers: Vec<_> = stores.iter().map(|(store, name)| at(store.address(), name)).collect();
    let tree = KvTree::run(&pool("alpha", free_address(), "", &servers));
    by_hand(&tree, "eject", "two");
    by_hand(&tree, "eject", "three");
    let file = tree.running_file("held");
    let manager = stop_manager(&tree);
    let damaged = fs::read_to_string(&file).unwrap().replace("\"two\"", "\"tw");
    fs::write(&file, &damaged).unwrap();
    assert!(process::send(manager, Signal::KILL));
    another_manager(&tree, manager);
    by_hand(&tree, "eject", "one");
    for name in ["one", "two", "three"] {
        server_is(&tree, "alpha", name, "held");
    }
    let log = tree.log();
    assert!(log.contains(&format!("{}:3: ", file.display())), "{log}");
    assert!(
        log.contains("`beltway ctl kv eject SERVER`") && log.contains("two is held still by generation 1"),
        "{log}"
    );
    assert_eq!(fs::read_to_string(tree.running_file("held.damaged.1")).unwrap(), damaged);
    assert!(process::send(tree.server(), Signal::KILL));
    for name in ["one", "two", "three"] {
        eventually("it is held by the next server, too", || {
            let told: Value = serde_json::from_slice(&tree.say(&["ctl", "kv", "servers", "--json"]).stdout).ok()?;
            let servers = told["alpha"].as_array()?;
            servers.iter().any(|server| server["name"] == name && server["state"] == "held").then_some(())
        });
    }
    // While manager lives it knows best.
    fs::write(&file, "[").unwrap();
    eventually("it is written again", || fs::read_to_string(&file).ok()?.contains("\"two\"").then_some(()));
}

#[test]
fn of_a_damaged_file_nothing_is_forgotten_before_a_server_could_be_asked_whose_socket_is_away() {
    let (one, two) = (Store::redis(&[]), Store::redis(&[]));
    let tree = KvTree::run(&pool("alpha", free_address(), "", &[at(one.address(), "one"), at(two.address(), "two")]));
    by_hand(&tree, "eject", "two");
    let (server, manager) = (tree.server(), stop_manager(&tree));
    let (file, socket) = (tree.running_file("held"), tree.running_file("server.1.sock"));
    fs::write(&file, "[").unwrap();
    // What is no file the server does not replace.
    eventually("the socket is away", || fs::remove_file(&socket).and_then(|()| fs::create_dir(&socket)).ok());
    assert!(process::send(manager, Signal::KILL));
    let says = "generation 1 does not say what it holds: nobody answers at ";
    eventually("manager asks in vain", || tree.log().contains(says).then_some(()));
    assert_eq!(fs::read_to_string(&file).unwrap(), "[");
    fs::remove_dir(&socket).unwrap();
    eventually("it is written again", || fs::read_to_string(&file).ok()?.contains("\"two\"").then_some(()));
    server_is(&tree, "alpha", "two", "held");
    assert_eq!(tree.server(), server, "it is the one that knew");
}

/// A tree whose server `two` was ejected by failures, for longer than any test takes, and would answer again.
fn with_one_ejected(one: &Store, two: &Store) -> KvTree {
    let listen = free_address();
    let keys = "  auto_eject_hosts: true\n  server_failure_limit: 1\n  server_retry_timeout: 10m\n";
    let pool = pool("alpha", listen, keys, &[at(one.address(), "one"), at(two.address(), "two")]);
    let tree = KvTree::run(&pool.replacen("timeout: 60s", "timeout: 200ms", 1));
    let key = key_on(&tree, "alpha", "two");
    assert!(process::send(two.pid(), Signal::STOP));
    eventually("failures eject it on every thread", || {
        let _ = KvClient::connect(listen).ask(&format!("GET {key}"));
        (server(&tree, "alpha", "two")["state"] == "ejected").then_some(())
    });
    assert!(process::send(two.pid(), Signal::CONT));
    tree
}

/// Restores it while the server process is away, and so in vain.
fn restore_while_away(tree: &KvTree) -> u32 {
    let away = tree.server();
    assert!(process::send(away, Signal::STOP));
    let untold = tree.say(&["ctl", "kv", "restore", "two"]);
    let said = String::from_utf8_lossy(&untold.stderr).into_owned();
    assert!(!untold.status.success() && said.contains("it is remembered, and told again to generation 1"), "{said}");
    away
}

#[test]
fn a_restore_reaches_a_server_that_was_away_when_it_was_asked() {
    let (one, two) = (Store::redis(&[]), Store::redis(&[]));
    let tree = with_one_ejected(&one, &two);
    let away = restore_while_away(&tree);
    assert!(process::send(away, Signal::CONT));
    server_is(&tree, "alpha", "two", "live");
    assert_eq!(tree.server(), away, "it is the one that was away");
    eventually("nobody is to hear it any more", || (!tree.running_file("restored").exists()).then_some(()));
}

#[test]
fn a_restore_that_a_dead_manager_could_not_deliver_is_delivered_by_the_next() {
    let (one, two) = (Store::redis(&[]), Store::redis(&[]));
    let tree = with_one_ejected(&one, &two);
    let away = restore_while_away(&tree);
    let manager = stop_manager(&tree);
    assert!(process::send(manager, Signal::KILL));
    assert!(process::send(away, Signal::CONT));
    another_manager(&tree, manager);
    server_is(&tree, "alpha", "two", "live");
    assert_eq!(tree.server(), away, "it is the one that was away");
}

#[test]
fn of_more_servers_than_are_counted_and_than_one_packet_tells_all_are_told_of() {
    const SERVERS: usize = 300;
    let one = Store::redis(&[]);
    let (listen, nobody) = (free_address(), free_address());
    let server = |at: usize| if at == 0 { one.address() } else { nobody };
    let servers: Vec<_> = (0..SERVERS).map(|number| at(server(number), &format!("s{number}"))).collect();
    let keys = "  auto_eject_hosts: true\n  server_failure_limit: 1\n  server_retry_timeout: 60s\n";
    let tree = KvTree::run(&pool("alpha", listen, keys, &servers));
    let warning = "300 servers: from `s128` on they have no numbers of their own";
    assert!(tree.log().contains(warning), "{}", tree.log());
    let checked = tree.say(&["check"]);
    assert!(checked.status.success() && String::from_utf8_lossy(&checked.stderr).contains(warning), "{checked:?}");
    let mut client = KvClient::connect(listen);
    let dead = key_on(&tree, "alpha", "s299");
    for _ in 0..3 {
        assert!(client.ask(&format!("GET {dead}")).is_some());
    }
    let told = tree.json(&["ctl", "kv", "servers"])["alpha"].clone();
    let told = told.as_array().unwrap();
    let names: Vec<_> = told.iter().map(|server| server["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, (0..SERVERS).map(|number| format!("s{number}")).collect::<Vec<_>>());
    assert!(told[0]["requests"].is_u64() && told[127]["requests"].is_u64(), "{}", told[127]);
    assert_eq!((&told[299]["requests"], &told[128]["note"]), (&Value::Null, &told[299]["note"]));
    assert_eq!(told[299]["note"], "only the first 128 servers are counted by themselves");
    server_is(&tree, "alpha", "s0", "live");
    eventually("the dead one is out where it was asked", || {
        let state = self::server(&tree, "alpha", "s299")["state"].clone();
        (state == "live on 1 of 2 threads" || state == "ejected").then_some(())
    });
}

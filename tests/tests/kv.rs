//! Pools under the three processes: reload and restart under load, death, and what an operator is told.

#![allow(clippy::unwrap_used, reason = "a walk that cannot set up its surroundings fails")]

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;
use walks::kv::{KvClient, KvTree, Store, request};
use walks::{eventually, free_address, pause, process, thread};

const CLIENTS: usize = 6;
const PIPELINE: usize = 8;

fn pool(name: &str, listen: SocketAddr, keys: &str, servers: &[String]) -> String {
    let servers: String = servers.iter().map(|server| format!("    - \"{server}\"\n")).collect();
    format!("{name}:\n  listen: {listen}\n  redis: true\n  timeout: 5s\n{keys}  servers:\n{servers}")
}

fn server(store: &Store, weight: u32, name: &str) -> String {
    format!("{}:{weight} {name}", store.address())
}

/// Clients that set and get their own keys until this is ended. Whatever they read is their own.
struct Load {
    ended: Arc<AtomicBool>,
    good: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

impl Load {
    fn begin(address: SocketAddr) -> Self {
        let (ended, good) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |number| {
            let (ended, good) = (Arc::clone(&ended), Arc::clone(&good));
            thread(&format!("client {number}"), move || talk(address, number, &ended, &good))
        };
        let load = Self { clients: (0..CLIENTS).map(client).collect(), ended, good };
        load.more(200);
        load
    }

    /// Waits for so many more good answers.
    fn more(&self, count: u64) {
        let wanted = self.good.load(Ordering::Relaxed) + count;
        eventually("more good answers", || {
            let failed = self.clients.iter().any(JoinHandle::is_finished);
            (failed || self.good.load(Ordering::Relaxed) >= wanted).then_some(())
        });
    }

    /// What went wrong, if anything did.
    fn end(self) -> Vec<String> {
        self.ended.store(true, Ordering::Relaxed);
        self.clients.into_iter().filter_map(|client| client.join().unwrap().err()).collect()
    }
}

fn talk(address: SocketAddr, number: usize, ended: &AtomicBool, good: &AtomicU64) -> Result<(), String> {
    let mut client = KvClient::connect(address);
    let mut round = 0_u64;
    while !ended.load(Ordering::Relaxed) {
        round += 1;
        let mut bytes = Vec::new();
        for at in 0..PIPELINE {
            bytes.extend(request(&format!("SET {number}:{at} {number}:{at}:{round}")));
            bytes.extend(request(&format!("GET {number}:{at}")));
        }
        client.send(&bytes).map_err(|error| format!("{number}: {error}"))?;
        for at in 0..PIPELINE {
            let (set, got) = (client.reply(), client.reply());
            let (Some(set), Some(got)) = (set, got) else { return Err(format!("{number}: the connection ended")) };
            // A key that moves between the two requests is not there yet.
            let own = got == "$-1\r\n" || got.contains(&format!("\n{number}:{at}:"));
            if set != "+OK\r\n" || !own {
                return Err(format!("{number}:{at}: {set:?} {got:?}"));
            }
            good.fetch_add(2, Ordering::Relaxed);
        }
        pause(Duration::from_millis(1));
    }
    Ok(())
}

#[test]
fn a_reload_of_pools_closes_no_client_and_fails_no_request() {
    let stores: Vec<Store> = (0..3).map(|_| Store::redis(&[])).collect();
    let listen = free_address();
    let of = |servers: &[String], keys: &str| pool("alpha", listen, keys, servers);
    let [one, two, three] = [0, 1, 2].map(|at| server(&stores[at], 1, ["one", "two", "three"][at]));
    let tree = KvTree::run(&of(std::slice::from_ref(&one), ""));
    let before = tree.server();
    let mut idle = KvClient::connect(listen);
    assert_eq!(idle.ask("SET idle here").unwrap(), "+OK\r\n");
    let load = Load::begin(listen);
    let steps = [
        of(&[one.clone(), two.clone()], ""),
        of(&[one.clone(), server(&stores[1], 3, "two"), three.clone()], "  hash: murmur\n"),
        of(&[two.clone(), three], "  server_connections: 2\n  client_connections: 100\n"),
        of(&[one], "  auto_eject_hosts: true\n"),
    ];
    for step in &steps {
        tree.write(step);
        let said = tree.done(&["reload"]);
        assert!(said.contains("in force"), "{said}");
        load.more(200);
    }
    assert_eq!(load.end(), Vec::<String>::new());
    assert_eq!(idle.ask("GET idle").unwrap(), "$4\r\nhere\r\n");
    assert_eq!(tree.server(), before, "it is the same server");
    // A pool that cannot be changes nothing.
    tree.write(&of(&[format!("{}:0", stores[0].address())], ""));
    assert_eq!(tree.say(&["reload"]).status.code(), Some(3));
    assert_eq!(idle.ask("GET idle").unwrap(), "$4\r\nhere\r\n");
}

#[test]
fn a_restart_moves_clients_between_two_requests_with_what_they_have_said() {
    let store = Store::redis(&["--requirepass", "word"]);
    let listen = free_address();
    let tree = KvTree::run(&pool("alpha", listen, "  redis_auth: word\n", &[server(&store, 1, "one")]));
    let before = tree.server();
    let mut idle = KvClient::connect(listen);
    assert!(idle.ask("GET a").unwrap().starts_with("-NOAUTH"));
    assert_eq!(idle.ask("AUTH word").unwrap(), "+OK\r\n");
    assert_eq!(idle.ask("CLIENT SETNAME bob").unwrap(), "+OK\r\n");
    assert_eq!(idle.ask("SET a 1").unwrap(), "+OK\r\n");
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let busy = {
        let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
        thread("busy", move || {
            let mut client = KvClient::connect(listen);
            client.ask("AUTH word").unwrap();
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(client.ask("GET a").as_deref(), Some("$1\r\n1\r\n"), "after {asked:?} answers");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let more = |count| {
        let wanted = asked.load(Ordering::Relaxed) + count;
        eventually("more is answered", || {
            (busy.is_finished() || asked.load(Ordering::Relaxed) >= wanted).then_some(())
        });
    };
    for _ in 0..3 {
        more(50);
        tree.done(&["restart"]);
        more(50);
    }
    assert_ne!(tree.server(), before);
    eventually("the old servers have gone", || (!process::lives(before)).then_some(()));
    assert_eq!(idle.ask("CLIENT GETNAME").unwrap(), "$3\r\nbob\r\n");
    assert_eq!(idle.ask("GET a").unwrap(), "$1\r\n1\r\n", "its password is known");
    stop.store(true, Ordering::Relaxed);
    busy.join().unwrap();
}

#[test]
fn the_death_of_a_server_refuses_nobody() {
    let store = Store::redis(&[]);
    let listen = free_address();
    let tree = KvTree::run(&pool("alpha", listen, "", &[server(&store, 1, "one")]));
    for _ in 0..2 {
        let old = tree.server();
        assert!(process::send(old, Signal::KILL));
        // Connections wait in the queue of a listener that nobody accepts from at the moment.
        let mut client = KvClient::try_connect(listen).expect("the listener lives");
        assert_eq!(client.ask("SET a 1").as_deref(), Some("+OK\r\n"));
        eventually("another serves", || (tree.server() != old).then_some(()));
    }
}

#[test]
fn the_stores_that_are_built_in_answer_through_their_pools() {
    let [redis, memcached, to_redis, to_memcached] = [(); 4].map(|()| free_address());
    let demo = format!("demo: {{redis: {redis}, memcached: {memcached}}}");
    let pools = format!(
        "redis: {{listen: {to_redis}, redis: true, servers: [\"{redis}:1\"]}}\n\
         memcached: {{listen: {to_memcached}, memcached_flush_all: true, servers: [\"{memcached}:1\"]}}\n"
    );
    let _tree = KvTree::run_with(&pools, &demo);
    let mut client = KvClient::connect(to_redis);
    assert_eq!(client.ask("SET a 1").unwrap(), "+OK\r\n");
    assert_eq!(client.ask("INCRBY a 41").unwrap(), ":42\r\n");
    assert_eq!(client.ask("MGET a b").unwrap(), "*2\r\n$2\r\n42\r\n$-1\r\n");
    let mut direct = KvClient::connect(redis);
    assert!(direct.ask("INFO").unwrap().contains("for demonstration"), "it says what it is");
    let mut client = KvClient::connect(to_memcached);
    assert_eq!(client.until("set a 5 0 1\r\n1\r\n", "\r\n").unwrap(), "STORED\r\n");
    assert_eq!(client.until("get a\r\n", "END\r\n").unwrap(), "VALUE a 5 1\r\n1\r\nEND\r\n");
    let said = the_line_of_the_readme(to_memcached);
    assert_eq!(said, "STORED\r\nVALUE a 0 1\r\n1\r\nEND\r\n");
    let mut direct = KvClient::connect(memcached);
    assert!(direct.until("stats\r\n", "END\r\n").unwrap().contains("for demonstration"));
}

/// What is printed by the line that README has for a memcached pool, said to this one.
fn the_line_of_the_readme(pool: SocketAddr) -> String {
    let readme = include_str!("../../README.md");
    let line = readme.lines().find(|line| line.contains("/dev/tcp/127.0.0.1/22122")).unwrap();
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(line.replace("22122", &pool.port().to_string()));
    let output = process::bounded(shell);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_operator_sees_pools_servers_and_commands_and_takes_a_server_out() {
    let stores: Vec<Store> = (0..2).map(|_| Store::redis(&[])).collect();
    let listen = free_address();
    let servers = [server(&stores[0], 1, "one"), server(&stores[1], 1, "two")];
    let tree = KvTree::run(&pool("alpha", listen, "  hash: murmur\n", &servers));
    let mut client = KvClient::connect(listen);
    for key in 0..20 {
        assert_eq!(client.ask(&format!("SET key:{key} x")).unwrap(), "+OK\r\n");
        assert_eq!(client.ask(&format!("GET key:{key}")).unwrap(), "$1\r\nx\r\n");
    }
    assert_eq!(client.ask("GET nothing").unwrap(), "$-1\r\n");
    assert!(client.ask("INCR key:1").unwrap().starts_with('-'));
    let pools = tree.json(&["ctl", "kv", "pools"]);
    let alpha = &pools[0];
    assert_eq!((&alpha["name"], &alpha["protocol"]), (&"alpha".into(), &"redis".into()));
    assert_eq!(
        (alpha["requests"].as_u64(), alpha["hits"].as_u64(), alpha["misses"].as_u64()),
        (Some(42), Some(20), Some(1))
    );
    assert!(alpha["client_time"]["count"].as_u64() > Some(30), "{alpha}");
    let both = tree.json(&["ctl", "kv", "servers"])["alpha"].clone();
    let total =
        |field: &str| both.as_array().unwrap().iter().map(|server| server[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!((total("requests"), total("responses"), total("error_replies")), (42, 42, 1), "{both}");
    let top = tree.json(&["ctl", "kv", "top"]);
    let calls = |name: &str| {
        let found = top.as_array().unwrap().iter().find(|command| command["name"] == name).cloned();
        found.map(|command| command["calls"].as_u64().unwrap())
    };
    assert_eq!((calls("get"), calls("set"), calls("incr")), (Some(21), Some(20), Some(1)), "{top}");

    let place = |key: &str| tree.done(&["ctl", "kv", "where", "alpha", key]);
    let keys: Vec<String> = (0..20).map(|key| format!("key:{key}")).collect();
    let on_two: Vec<&String> = keys.iter().filter(|key| place(key).contains("called two")).take(3).collect();
    assert!(!on_two.is_empty());
    tree.done(&["ctl", "kv", "eject", "two"]);
    eventually("the server is out", || {
        let servers = tree.json(&["ctl", "kv", "servers"]);
        (servers["alpha"][1]["state"] == "held").then_some(())
    });
    for key in &on_two {
        assert!(place(key).contains("called one"), "{}", place(key));
        assert_eq!(client.ask(&format!("GET {key}")).unwrap(), "$-1\r\n", "the other server does not have it");
    }
    tree.done(&["ctl", "kv", "restore", "two"]);
    eventually("the server is back", || {
        (client.ask(&format!("GET {}", on_two[0])).unwrap() == "$1\r\nx\r\n").then_some(())
    });
    let unknown = tree.say(&["ctl", "kv", "eject", "three"]);
    assert!(!unknown.status.success() && String::from_utf8_lossy(&unknown.stderr).contains("no pool has a server"));
    assert!(tree.done(&["status"]).contains("pool alpha"));
}

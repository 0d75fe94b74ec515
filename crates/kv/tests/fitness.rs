//! Which servers are fit to be asked: those that a reload brings, those that close what is opened, those that load.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kv::{Address, EjectPolicy, PoolSource, ServerSource};
use world::{Client, Proxy, Server, eventually, pool};

fn servers(count: usize) -> Vec<Server> {
    (0..count).map(|_| Server::redis(&[])).collect()
}

/// So many different keys.
fn keys(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("{n}:{}", n * 7_919))
}

fn named(server: &Server, name: &str) -> ServerSource {
    ServerSource { name: Some(name.to_owned()), ..server.source() }
}

/// What `INFO` says of the server of this number.
fn state(client: &mut Client, server: usize) -> String {
    let info = client.say("INFO");
    let line = info.lines().find(|line| line.starts_with(&format!("server{server}:"))).unwrap_or_default().to_owned();
    line.split("state=").nth(1).unwrap_or_default().split(',').next().unwrap_or_default().to_owned()
}

/// More clients than one thread's share, and a key that lives on that server, with the value `x`.
fn crowd(proxy: &Proxy, server: &Server) -> (Vec<Client>, String) {
    let mut clients: Vec<Client> = (0..12).map(|_| proxy.client()).collect();
    for key in keys(100) {
        assert_eq!(clients[0].ask(&["SET", &key, "x"]), "+OK\r\n");
    }
    let is_there = |key: &String| server.client().ask(&["EXISTS", key]) == ":1\r\n";
    (clients, keys(100).find(is_there).expect("some key lives there"))
}

#[test]
fn two_names_on_one_address_are_two_servers_and_outlive_a_reload() {
    let all = servers(2);
    for auto_eject_hosts in [false, true] {
        let servers = vec![named(&all[0], "r1"), named(&all[1], "r2"), named(&all[0], "r1b")];
        let source = PoolSource { servers, auto_eject_hosts, ..pool(&all, true) };
        let proxy = Proxy::start(source.clone(), 1);
        let mut client = proxy.client();
        for key in keys(60) {
            assert_eq!(client.ask(&["SET", &key, &key]), "+OK\r\n");
        }
        for _ in 0..3 {
            assert_eq!(proxy.renew(source.clone()), [], "nothing is new");
            for key in keys(60) {
                assert_eq!(client.ask(&["GET", &key]), format!("${}\r\n{key}\r\n", key.len()));
            }
        }
        let connected = (0..3).map(|at| state(&mut client, at)).collect::<Vec<_>>();
        assert_eq!(connected, ["live"; 3]);
    }
}

/// Where nobody listens, and nobody will but who is told.
fn with_absent(all: &[Server], late: &Server) -> PoolSource {
    let mut both = pool(all, true);
    both.servers.push(late.source());
    both
}

#[test]
fn a_new_server_takes_no_keys_before_it_has_answered_whatever_becomes_of_those_that_fail() {
    let ways = [(false, EjectPolicy::Rehash), (true, EjectPolicy::Rehash), (true, EjectPolicy::Error)];
    for (auto_eject_hosts, eject_policy) in ways {
        let (all, mut late) = (servers(1), Server::absent_redis());
        let proxy = Proxy::start(pool(&all, true), 2);
        let mut client = proxy.client();
        let server_retry_timeout = Duration::from_millis(100);
        let source = PoolSource { auto_eject_hosts, eject_policy, server_retry_timeout, ..with_absent(&all, &late) };
        let unanswered = proxy.renew(source.clone());
        let [told] = unanswered.as_slice() else { panic!("{unanswered:?}") };
        let name = format!("127.0.0.1:{}", late.port);
        assert_eq!((told.pool.as_str(), told.server.as_str(), told.waits), ("test", name.as_str(), true));
        assert_eq!(state(&mut client, 1), "new");
        // Told the same once more: it is not new to the pool, and has answered no more than before.
        assert_eq!(proxy.renew(source), []);
        assert_eq!(state(&mut client, 1), "new");
        for key in keys(100) {
            assert_eq!(client.ask(&["SET", &key, "x"]), "+OK\r\n");
        }
        late.run();
        eventually("it is taken in when it answers", || {
            keys(100).all(|key| client.ask(&["SET", &key, "x"]) == "+OK\r\n") && late.client().say("DBSIZE") != ":0\r\n"
        });
        assert_eq!(state(&mut client, 1), "live");
    }
}

#[test]
fn new_servers_of_which_none_answers_have_the_keys_that_nobody_else_could_take() {
    let (all, mut late) = (servers(1), Server::absent_redis());
    let proxy = Proxy::start(pool(&all, true), 1);
    let mut client = proxy.client();
    let unanswered = proxy.renew(with_absent(&[], &late));
    assert_eq!(unanswered.iter().map(|told| told.waits).collect::<Vec<_>>(), [false]);
    assert_eq!(state(&mut client, 0), "down");
    assert_eq!(client.ask(&["GET", "a"]), "-ERR Connection refused\r\n");
    late.run();
    eventually("it answers", || client.ask(&["GET", "a"]) == "$-1\r\n");
}

#[test]
fn a_server_that_is_held_is_not_told_of_as_one_that_does_not_answer_nor_counted_on_for_the_keys_of_others() {
    let (all, late) = (servers(1), Server::absent_redis());
    let held = |port: u16| BTreeSet::from([("test".to_owned(), format!("127.0.0.1:{port}"))]);
    let proxy = Proxy::start(pool(&all, true), 1);
    let mut client = proxy.client();
    proxy.shared.set_held(held(late.port));
    assert_eq!(proxy.renew(with_absent(&all, &late)), []);
    assert_eq!([0, 1].map(|at| state(&mut client, at)), ["live", "held"]);
    assert_eq!(proxy.renew(pool(&all, true)), []);
    proxy.shared.set_held(held(all[0].port));
    let unanswered = proxy.renew(with_absent(&all, &late));
    assert_eq!(unanswered.iter().map(|told| told.waits).collect::<Vec<_>>(), [false]);
    assert_eq!([0, 1].map(|at| state(&mut client, at)), ["held", "down"]);
}

#[test]
fn a_server_that_is_held_no_longer_serves_when_a_plan_has_it_though_the_one_before_was_without_it_and_never_in_force() {
    let all = servers(2);
    let proxy = Proxy::start(pool(&all, true), 2);
    let mut client = proxy.client();
    proxy.shared.set_held(BTreeSet::from([("test".to_owned(), format!("127.0.0.1:{}", all[1].port))]));
    assert_eq!(proxy.renew(pool(&all, true)), []);
    assert_eq!(state(&mut client, 1), "held");
    assert_eq!(proxy.renew(pool(&all, true)), []);
    assert_eq!(state(&mut client, 1), "held", "it stays so as long as nothing is said");
    proxy.shared.set_held(BTreeSet::new());
    assert_eq!(proxy.renew(pool(&all, true)), []);
    assert_eq!(state(&mut client, 1), "live");
    for key in keys(60) {
        assert_eq!(client.ask(&["SET", &key, "x"]), "+OK\r\n");
    }
    assert_ne!(all[1].client().say("DBSIZE"), ":0\r\n");
}

#[test]
fn a_server_that_is_new_has_the_keys_when_a_reload_takes_all_others_away() {
    let (all, late) = (servers(1), Server::absent_redis());
    let proxy = Proxy::start(pool(&all, true), 1);
    let mut client = proxy.client();
    assert_eq!(proxy.renew(with_absent(&all, &late)).len(), 1);
    assert_eq!(state(&mut client, 1), "new");
    assert_eq!(proxy.renew(with_absent(&[], &late)), []);
    assert_eq!(state(&mut client, 0), "down");
    assert_eq!(client.ask(&["GET", "a"]), "-ERR Connection refused\r\n");
}

#[test]
fn a_server_that_is_down_is_ejected_and_back_down_as_the_configuration_says() {
    let mut all = servers(2);
    let quiet = PoolSource { server_retry_timeout: Duration::from_mins(10), ..pool(&all, true) };
    let proxy = Proxy::start(quiet.clone(), 1);
    let mut client = proxy.client();
    for key in keys(100) {
        assert_eq!(client.ask(&["SET", &key, "x"]), "+OK\r\n");
    }
    all[1].kill();
    let there = keys(100).find(|key| client.ask(&["GET", key]) != "$1\r\nx\r\n").expect("some key lives there");
    assert_eq!(client.ask(&["GET", &there]), "-ERR Connection refused\r\n");
    let ejecting = PoolSource { auto_eject_hosts: true, ..quiet.clone() };
    for _ in 0..2 {
        assert_eq!(proxy.renew(ejecting.clone()), []);
        assert_eq!(client.ask(&["GET", &there]), "$-1\r\n", "the other has its keys");
        assert_eq!(state(&mut client, 1), "ejected");
        assert_eq!(proxy.renew(quiet.clone()), []);
        assert_eq!(client.ask(&["GET", &there]), "-ERR Connection refused\r\n");
        assert_eq!(state(&mut client, 1), "down");
    }
    all[1].run();
    eventually("it is back", || client.ask(&["GET", &there]) == "$-1\r\n" && state(&mut client, 1) == "live");
}

/// What becomes of a connection to a [`Host`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It is closed at once.
    Closes,
    /// What is asked is answered `+OK` once, and then it is closed.
    AnswersOnce,
}

/// Something that listens as a server does, and counts the connections.
struct Host {
    port: u16,
    connections: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Host {
    fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&connections), Arc::clone(&ended));
        let accept = move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                if end.load(Ordering::Relaxed) {
                    return;
                }
                count.fetch_add(1, Ordering::Relaxed);
                if manner == Manner::AnswersOnce && stream.read(&mut [0; 4_096]).is_ok_and(|got| got > 0) {
                    let _ = stream.write_all(b"+OK\r\n");
                }
            }
        };
        std::thread::Builder::new().spawn(accept).unwrap();
        Self { port, connections, ended }
    }

    fn source(&self) -> ServerSource {
        ServerSource { address: Address::Ip([127, 0, 0, 1].into(), self.port), weight: 1, name: None }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // It looks when somebody comes.
        let _ = std::net::TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Probes at growing intervals, in as long as a test may take: far fewer than requests.
const PROBES_MAX: usize = 20;

#[test]
fn a_server_that_closes_what_is_opened_is_not_connected_to_in_a_tight_loop() {
    for preconnect in [false, true] {
        let host = Host::start(Manner::Closes);
        let proxy = Proxy::start(PoolSource { servers: vec![host.source()], preconnect, ..pool(&[], true) }, 1);
        let mut client = proxy.client();
        for _ in 0..1_000 {
            let reply = client.ask(&["GET", "a"]);
            assert!(reply.starts_with("-ERR "), "{reply}");
        }
        assert_eq!(state(&mut client, 0), "down");
        let connections = host.connections();
        assert!((2..PROBES_MAX).contains(&connections), "{connections}");
    }
}

#[test]
fn a_server_that_is_full_is_not_connected_to_in_a_tight_loop_and_comes_back_when_it_has_room() {
    let all = [Server::redis(&["--maxclients", "1"])];
    // The one place.
    let mut direct = all[0].client();
    eventually("the place is ours", || {
        direct = all[0].client();
        direct.say("PING") == "+PONG\r\n"
    });
    let proxy = Proxy::start(pool(&all, true), 1);
    let mut client = proxy.client();
    for _ in 0..1_000 {
        let reply = client.ask(&["SET", "a", "1"]);
        assert!(reply.starts_with("-ERR "), "{reply}");
    }
    assert_eq!(state(&mut client, 0), "down");
    let stats = direct.say("INFO stats");
    let rejected = stats.lines().find_map(|line| line.strip_prefix("rejected_connections:")).unwrap();
    let rejected: usize = rejected.parse().unwrap();
    assert!((1..PROBES_MAX * 2).contains(&rejected), "{rejected}");
    drop(direct);
    eventually("it has room", || client.ask(&["SET", "a", "1"]) == "+OK\r\n");
}

#[test]
fn a_server_that_serves_and_closes_is_connected_to_again() {
    let host = Host::start(Manner::AnswersOnce);
    let proxy = Proxy::start(PoolSource { servers: vec![host.source()], ..pool(&[], true) }, 1);
    let mut client = proxy.client();
    for _ in 0..100 {
        // A read, so that one which meets the closing is asked again.
        assert_eq!(client.ask(&["TYPE", "a"]), "+OK\r\n");
        assert_eq!(state(&mut client, 0), "live");
    }
    assert!(host.connections() >= 100);
}

#[test]
fn a_server_that_is_lost_while_nobody_asks_is_ejected_before_anybody_does() {
    let mut all = servers(2);
    let server_retry_timeout = Duration::from_millis(100);
    let source = PoolSource { auto_eject_hosts: true, server_retry_timeout, preconnect: true, ..pool(&all, true) };
    let proxy = Proxy::start(source, 1);
    let mut client = proxy.client();
    for key in keys(100) {
        assert_eq!(client.ask(&["SET", &key, "x"]), "+OK\r\n");
    }
    all[1].kill();
    eventually("it is out", || state(&mut client, 1) == "ejected");
    for key in keys(100) {
        assert_eq!(client.ask(&["SET", &key, "x"]), "+OK\r\n");
    }
    all[1].run();
    eventually("it is back", || state(&mut client, 1) == "live");
}

#[test]
fn the_first_answer_that_a_server_loads_its_data_is_passed_on_and_ejects_it() {
    let directory = world::directory("fitness");
    let place = directory.display().to_string();
    let mut slow = vec!["--dir", &place, "--enable-debug-command", "yes", "--key-load-delay", "400"];
    slow.extend(["--loading-process-events-interval-bytes", "1024"]);
    let mut all = vec![Server::redis(&[]), Server::redis(&slow)];
    assert_eq!(all[1].client().say("DEBUG POPULATE 100000"), "+OK\r\n");
    assert_eq!(all[1].client().say("SAVE"), "+OK\r\n");
    all[1].kill();
    all[1].run();
    let server_retry_timeout = Duration::from_millis(50);
    let source =
        PoolSource { auto_eject_hosts: true, server_failure_limit: 3, server_retry_timeout, ..pool(&all, true) };
    // It was loading before anybody could know.
    let proxy = Proxy::start(source, 1);
    let mut client = proxy.client();
    let mut loading = 0;
    for key in keys(100) {
        let reply = client.ask(&["SET", &key, "x"]);
        loading += usize::from(reply.starts_with("-LOADING"));
        assert!(reply.starts_with("-LOADING") || reply == "+OK\r\n", "{reply}");
    }
    assert_eq!((loading, state(&mut client, 1).as_str()), (1, "ejected"));
    assert_eq!(all[1].client().say("CONFIG SET key-load-delay 0"), "+OK\r\n");
    eventually("it has loaded", || state(&mut client, 1) == "live");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_server_that_restarts_into_loading_while_nobody_asks_has_no_keys_before_it_has_loaded() {
    let directory = world::directory("fitness-quiet");
    let place = directory.display().to_string();
    let mut slow = vec!["--dir", &place, "--enable-debug-command", "yes", "--key-load-delay", "400"];
    slow.extend(["--loading-process-events-interval-bytes", "1024"]);
    let mut all = vec![Server::redis(&[]), Server::redis(&slow)];
    let server_retry_timeout = Duration::from_millis(50);
    let source =
        PoolSource { auto_eject_hosts: true, server_failure_limit: 1_000, server_retry_timeout, ..pool(&all, true) };
    let proxy = Proxy::start(source, 1);
    let mut client = proxy.client();
    for key in keys(100) {
        assert_eq!(client.ask(&["SET", &key, "x"]), "+OK\r\n");
    }
    assert_eq!(all[1].client().say("DEBUG POPULATE 100000"), "+OK\r\n");
    assert_eq!(all[1].client().say("SAVE"), "+OK\r\n");
    all[1].kill();
    all[1].run();
    // Nobody asks for a key; it is not ejected for having been away, but for what it says.
    eventually("it is out", || state(&mut client, 1) == "ejected");
    for key in keys(100) {
        assert_eq!(client.ask(&["SET", &key, "y"]), "+OK\r\n");
    }
    assert!(all[1].client().say("PING").starts_with("-LOADING"), "it is still loading");
    assert_eq!(all[1].client().say("CONFIG SET key-load-delay 0"), "+OK\r\n");
    eventually("it has loaded", || state(&mut client, 1) == "live");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn all_threads_eject_a_server_together_and_take_it_back_together() {
    let all = servers(2);
    let source = PoolSource {
        auto_eject_hosts: true,
        server_failure_limit: 1,
        server_retry_timeout: Duration::from_millis(500),
        // One failure is enough, and nothing may fail before it is stopped, however busy the machine.
        timeout: Some(Duration::from_secs(3)),
        ..pool(&all, true)
    };
    let proxy = Proxy::start(source, 3);
    let (mut clients, there) = crowd(&proxy, &all[1]);
    for client in &mut clients {
        assert_eq!(client.ask(&["GET", &there]), "$1\r\nx\r\n", "every thread is connected");
    }
    all[1].signal("-STOP");
    let mut timeouts = 0;
    for client in &mut clients {
        let reply = client.ask(&["GET", &there]);
        timeouts += usize::from(reply.contains("timed out"));
    }
    assert_eq!(timeouts, 1, "whoever asks first finds out for all");
    for client in &mut clients {
        assert_eq!(client.ask(&["SET", &there, "elsewhere"]), "+OK\r\n");
        assert_eq!(state(client, 1), "ejected");
    }
    let numbers = proxy.numbers();
    assert_eq!(numbers.gauge("beltway_kv_servers_ejected"), 1, "servers are counted, not threads");
    assert_eq!(numbers.counter("beltway_kv_ejections_total"), 1);
    all[1].signal("-CONT");
    eventually("it is back", || clients.iter_mut().all(|client| state(client, 1) == "live"));
    for client in &mut clients {
        assert_eq!(client.ask(&["GET", &there]), "$1\r\nx\r\n");
    }
    let numbers = proxy.numbers();
    assert_eq!(numbers.gauge("beltway_kv_servers_ejected"), 0);
    assert_eq!(numbers.counter("beltway_kv_restorations_total"), 1, "one probe brings it back");
}

#[test]
fn failures_are_counted_over_all_threads() {
    let mut all = servers(2);
    let source = PoolSource { auto_eject_hosts: true, server_failure_limit: 6, ..pool(&all, true) };
    let proxy = Proxy::start(source, 3);
    let (mut clients, there) = crowd(&proxy, &all[1]);
    all[1].kill();
    let mut failed = 0;
    for _ in 0..10 {
        for client in &mut clients {
            failed += usize::from(client.ask(&["SET", &there, "y"]).starts_with('-'));
        }
    }
    assert!(failed <= 6, "{failed}");
    assert_eq!(proxy.numbers().counter("beltway_kv_ejections_total"), 1);
}

#[test]
fn what_becomes_of_a_dead_server_changes_with_the_configuration_on_all_threads() {
    let mut all = servers(2);
    let source = PoolSource { server_retry_timeout: Duration::from_millis(50), ..pool(&all, true) };
    let proxy = Proxy::start(source.clone(), 3);
    let (mut clients, there) = crowd(&proxy, &all[1]);
    all[1].kill();
    // One thread alone has found it dead when it is to be ejected.
    assert_eq!(clients[0].ask(&["GET", &there]), "-ERR Connection refused\r\n");
    for round in 0..6 {
        let auto_eject_hosts = round % 2 == 0;
        assert_eq!(proxy.renew(PoolSource { auto_eject_hosts, ..source.clone() }), []);
        let (reply, named) =
            if auto_eject_hosts { ("$-1\r\n", "ejected") } else { ("-ERR Connection refused\r\n", "down") };
        eventually("all threads go by it", || {
            clients.iter_mut().all(|client| client.ask(&["GET", &there]) == reply && state(client, 1) == named)
        });
    }
    all[1].run();
    eventually("it is back on all threads", || {
        clients.iter_mut().all(|client| {
            let is_back = client.ask(&["SET", &there, "y"]) == "+OK\r\n";
            is_back && state(client, 1) == "live"
        })
    });
    assert_eq!(proxy.numbers().gauge("beltway_kv_servers_ejected"), 0);
}

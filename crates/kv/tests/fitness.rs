//! Which servers are fit to be asked: those that a reload brings, those that close what is opened, those that load.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use std::time::Duration;

use kv::{EjectPolicy, PoolSource, ServerSource};
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

//! Pools that change while clients are connected and ask.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kv::PoolSource;
use world::{Proxy, Server, eventually, pool};

fn servers(count: usize) -> Vec<Server> {
    (0..count).map(|_| Server::redis(&[])).collect()
}

#[test]
fn servers_come_and_go_under_load_and_no_request_fails() {
    let all = servers(4);
    let proxy = Proxy::start(pool(&all[..2], true), 2);
    let (ended, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..6)
        .map(|number| {
            let (mut client, ended, asked) = (proxy.client(), Arc::clone(&ended), Arc::clone(&asked));
            let talk = move || {
                let mut round = 0_u64;
                while !ended.load(Ordering::Relaxed) {
                    round += 1;
                    let mut bytes = Vec::new();
                    for at in 0..8 {
                        let (key, value) = (format!("{number}:{at}"), format!("{number}:{round}:{at}"));
                        bytes.extend(kv::wire::resp::request::encode(&["SET", &key, &value]));
                        bytes.extend(kv::wire::resp::request::encode(&["GET", &key]));
                    }
                    client.send(&bytes);
                    for at in 0..8 {
                        assert_eq!(client.reply(), b"+OK\r\n");
                        let got = String::from_utf8(client.reply()).unwrap();
                        // A key may have moved between the two; what is read is never another key's.
                        let own = got == "$-1\r\n"
                            || got.contains(&format!("\n{number}:")) && got.ends_with(&format!(":{at}\r\n"));
                        assert!(own, "{number}:{at}: {got}");
                    }
                    asked.fetch_add(16, Ordering::Relaxed);
                }
            };
            std::thread::Builder::new().spawn(talk).unwrap()
        })
        .collect();
    let more = |count: u64| {
        let before = asked.load(Ordering::Relaxed);
        eventually("more is asked", || asked.load(Ordering::Relaxed) >= before + count);
    };
    for (from, to) in [(0, 3), (1, 4), (0, 4), (2, 4), (0, 2), (0, 1), (0, 4)] {
        more(500);
        let changed = PoolSource { server_connections: 1 + (to - from) % 3, ..pool(&all[from..to], true) };
        assert_eq!(proxy.renew(changed), [], "every new server answers");
    }
    more(500);
    ended.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
}

#[test]
fn an_idle_client_and_one_that_waits_follow_the_new_plan() {
    let all = servers(2);
    let proxy = Proxy::start(pool(&all[..1], true), 1);
    let (mut idle, mut waiting) = (proxy.client(), proxy.client());
    let mut direct = all[0].client();
    assert_eq!(idle.ask(&["SET", "a", "first"]), "+OK\r\n");
    // Nothing is written until we say so.
    assert_eq!(direct.ask(&["CLIENT", "PAUSE", "3600000", "WRITE"]), "+OK\r\n");
    let asked: [&[&str]; 2] = [&["APPEND", "a", "!"], &["GET", "a"]];
    waiting.send(&asked.map(kv::wire::resp::request::encode).concat());
    // A plan is put in force at once, so what was asked before it must have been seen before it.
    eventually("the server has what was asked", || {
        direct.say("CLIENT LIST").lines().any(|line| line.contains(" flags=b ") && line.contains(" cmd=append "))
    });
    assert_eq!(proxy.renew(pool(&all[1..], true)), []);
    assert_eq!(idle.ask(&["GET", "a"]), "$-1\r\n", "the other server has no such key");
    waiting.put(&["GET", "a"]);
    assert_eq!(direct.ask(&["CLIENT", "UNPAUSE"]), "+OK\r\n");
    let replies: Vec<_> = (0..3).map(|_| String::from_utf8(waiting.reply()).unwrap()).collect();
    assert_eq!(replies, [":6\r\n", "$6\r\nfirst!\r\n", "$-1\r\n"], "what was asked is answered where it was asked");
}

#[test]
fn a_new_server_that_does_not_answer_takes_no_keys() {
    let all = servers(1);
    let proxy = Proxy::start(pool(&all, true), 1);
    let mut client = proxy.client();
    let mut both = pool(&all, true);
    let mut late = Server::absent_redis();
    both.servers.push(late.source());
    both.auto_eject_hosts = true;
    both.server_retry_timeout = Duration::from_millis(100);
    assert_eq!(proxy.renew(both).len(), 1);
    for key in 0..100 {
        assert_eq!(client.ask(&["SET".to_owned(), format!("{key}{key}"), "x".into()]), "+OK\r\n");
    }
    late.run();
    eventually("it is taken in when it answers", || {
        client.ask(&["SET".to_owned(), "k".to_owned() + &rand(&late), "x".into()]);
        late.client().say("DBSIZE") != ":0\r\n"
    });
}

/// A key that was not there before.
fn rand(late: &Server) -> String {
    late.client().say("TIME").lines().last().unwrap_or_default().chars().rev().collect()
}

#[test]
fn limits_and_passwords_change_for_those_who_come_later() {
    let all = servers(1);
    let proxy = Proxy::start(pool(&all, true), 1);
    let mut here = proxy.client();
    assert_eq!(here.ask(&["PING"]), "+PONG\r\n");
    assert_eq!(proxy.renew(PoolSource { client_connections: Some(1), ..pool(&all, true) }), []);
    assert!(proxy.client().try_reply().is_none(), "the pool has as many clients as it may");
    assert_eq!(here.ask(&["SET", "a", "1"]), "+OK\r\n");
    assert_eq!(all[0].client().ask(&["CONFIG", "SET", "requirepass", "word"]), "+OK\r\n");
    let locked = PoolSource { redis_auth: Some("word".into()), ..pool(&all, true) };
    assert_eq!(proxy.renew(locked), [], "the server is told the password");
    assert_eq!(here.ask(&["GET", "a"]), "$1\r\n1\r\n", "who was in stays in");
    let mut late = proxy.client();
    assert!(late.ask(&["GET", "a"]).starts_with("-NOAUTH"));
    assert_eq!(late.ask(&["AUTH", "word"]), "+OK\r\n");
    assert_eq!(late.ask(&["GET", "a"]), "$1\r\n1\r\n");
}

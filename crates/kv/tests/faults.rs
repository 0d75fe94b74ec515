//! Servers that die and come back, under clients that check every byte of what they are told.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use std::time::Duration;

use world::{Client, Proxy, Server, eventually, pool};

fn servers(count: usize) -> Vec<Server> {
    (0..count).map(|_| Server::redis(&[])).collect()
}

/// A key that lives on the server of this number.
fn key_on(servers: &[Server], proxy: &Proxy, server: usize) -> String {
    let mut client = proxy.client();
    (0..1_000)
        .map(|n| format!("{n}:{}", n * 7919))
        .find(|key| {
            assert_eq!(client.ask(&["SET", key, "x"]), "+OK\r\n");
            servers[server].client().ask(&["EXISTS", key]) == ":1\r\n"
        })
        .expect("some key lives there")
}

#[test]
fn a_dead_server_is_an_error_and_comes_back_by_a_probe_while_the_client_stays() {
    let mut servers = servers(2);
    let proxy = Proxy::start(pool(&servers, true), 1);
    let (here, there) = (key_on(&servers, &proxy, 0), key_on(&servers, &proxy, 1));
    let mut client = proxy.client();
    servers[1].kill();
    let reply = client.ask(&["GET", &there]);
    assert!(reply.starts_with("-ERR Connection re"), "{reply}");
    assert_eq!(client.ask(&["GET", &here]), "$1\r\nx\r\n");
    let both = client.ask(&["MGET", &here, &there]);
    assert_eq!(both, "*2\r\n$1\r\nx\r\n-ERR Connection refused\r\n", "the good part is kept");
    servers[1].run();
    eventually("it is back", || client.ask(&["GET", &there]) == "$-1\r\n");
}

#[test]
fn reads_do_not_notice_that_a_server_is_ejected() {
    let mut servers = servers(2);
    let source = kv::PoolSource {
        auto_eject_hosts: true,
        server_failure_limit: 2,
        server_retry_timeout: Duration::from_millis(200),
        ..pool(&servers, true)
    };
    let proxy = Proxy::start(source, 1);
    let there = key_on(&servers, &proxy, 1);
    let mut clients: Vec<Client> = (0..8).map(|_| proxy.client()).collect();
    servers[1].kill();
    for _ in 0..50 {
        for client in &mut clients {
            assert_eq!(client.ask(&["GET", &there]), "$-1\r\n", "answered by the other server");
        }
    }
    assert!(clients[0].say("INFO").contains("state=ejected"));
    servers[1].run();
    eventually("it is back", || clients[0].say("INFO").matches("state=live").count() == 2);
    assert_eq!(clients[0].ask(&["SET", &there, "new"]), "+OK\r\n");
    assert_eq!(servers[1].client().ask(&["GET", &there]), "$3\r\nnew\r\n");
}

#[test]
fn keys_of_an_ejected_server_get_an_error_where_the_policy_says_so() {
    let mut servers = servers(2);
    let source = kv::PoolSource {
        auto_eject_hosts: true,
        server_failure_limit: 1,
        eject_policy: kv::EjectPolicy::Error,
        ..pool(&servers, true)
    };
    let proxy = Proxy::start(source, 1);
    let (here, there) = (key_on(&servers, &proxy, 0), key_on(&servers, &proxy, 1));
    let mut client = proxy.client();
    servers[1].kill();
    for _ in 0..5 {
        assert_eq!(client.ask(&["GET", &here]), "$1\r\nx\r\n");
        assert!(client.ask(&["GET", &there]).starts_with("-ERR Connection re"));
    }
    assert!(client.say("INFO").contains("state=ejected"));
}

#[test]
fn no_reply_reaches_the_wrong_client_while_servers_die_and_return() {
    let mut servers = servers(3);
    let source = kv::PoolSource {
        auto_eject_hosts: true,
        server_failure_limit: 1,
        server_retry_timeout: Duration::from_millis(100),
        server_connections: 2,
        ..pool(&servers, true)
    };
    let proxy = Proxy::start(source, 2);
    let mut clients: Vec<Client> = (0..6).map(|_| proxy.client()).collect();
    let mut good = 0;
    for round in 0..60 {
        if round % 20 == 5 {
            servers[round / 20].kill();
        }
        if round % 20 == 12 {
            servers[round / 20].run();
        }
        for (number, client) in clients.iter_mut().enumerate() {
            for at in 0..20 {
                let (key, value) = (format!("{at}:{number}:{}", at * 7919), format!("{number}.{round}.{at}"));
                client.put(&["SET", &key, &value]);
                client.put(&["GET", &key]);
                client.put(&["ECHO", &value]);
            }
        }
        for (number, client) in clients.iter_mut().enumerate() {
            for at in 0..20 {
                let set = client.reply();
                let get = String::from_utf8(client.reply()).unwrap();
                let echo = format!("{number}.{round}.{at}");
                assert_eq!(client.reply(), format!("${}\r\n{echo}\r\n", echo.len()).as_bytes());
                assert!(set == b"+OK\r\n" || set[0] == b'-');
                if get.starts_with('-') || get == "$-1\r\n" {
                    continue;
                }
                let value = get.split("\r\n").nth(1).unwrap();
                let parts: Vec<usize> = value.split('.').map(|part| part.parse().unwrap()).collect();
                // The key's own value, of this round, or an older one where the new one was refused or went elsewhere.
                assert_eq!((parts[0], parts[2]), (number, at), "{get}");
                assert!(parts[1] <= round);
                good += usize::from(parts[1] == round);
            }
        }
    }
    assert!(good > 60 * 6 * 20 * 2 / 3, "{good}");
}

#[test]
fn a_server_that_was_found_dead_and_restarts_into_loading_gets_no_requests_before_it_has_loaded() {
    let directory = world::directory("loading");
    let place = directory.display().to_string();
    // For longer than this test is patient, unless it is told to hurry; and answering meanwhile.
    let mut slow = vec!["--dir", &place, "--enable-debug-command", "yes", "--key-load-delay", "400"];
    slow.extend(["--loading-process-events-interval-bytes", "1024"]);
    for ejects in [true, false] {
        let mut servers = vec![Server::redis(&[]), Server::redis(&slow)];
        let source = kv::PoolSource {
            auto_eject_hosts: ejects,
            server_failure_limit: 1,
            server_retry_timeout: Duration::from_millis(50),
            ..pool(&servers, true)
        };
        let proxy = Proxy::start(source, 1);
        let there = key_on(&servers, &proxy, 1);
        let mut client = proxy.client();
        let mut direct = servers[1].client();
        assert_eq!(direct.say("DEBUG POPULATE 100000"), "+OK\r\n");
        assert_eq!(direct.say("SAVE"), "+OK\r\n");
        servers[1].kill();
        client.ask(&["GET", &there]);
        servers[1].run();
        let mut loading = 0;
        eventually("it has loaded", || {
            let is_loading = servers[1].client().say("PING").starts_with("-LOADING");
            let reply = client.ask(&["GET", &there]);
            if ejects {
                // The other server's answer, or its own again.
                assert!(reply == "$-1\r\n" || reply == "$1\r\nx\r\n", "{reply}");
            } else {
                assert!(reply.starts_with("-ERR Connection refused") || reply == "$1\r\nx\r\n", "{reply}");
            }
            loading += usize::from(is_loading && reply != "$1\r\nx\r\n");
            if loading == 10 {
                assert_eq!(servers[1].client().say("CONFIG SET key-load-delay 0"), "+OK\r\n");
            }
            reply == "$1\r\nx\r\n"
        });
        assert!(loading >= 10, "it was seen loading {loading} times");
        std::fs::remove_file(directory.join("dump.rdb")).unwrap();
    }
    std::fs::remove_dir_all(directory).unwrap();
}

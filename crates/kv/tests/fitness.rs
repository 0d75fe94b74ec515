//! Which servers are fit to be asked: those that a reload brings, those that close what is opened, those that load.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use kv::{PoolSource, ServerSource};
use world::{Client, Proxy, Server, pool};

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
            assert_eq!(proxy.renew(source.clone()), 0, "nothing is new");
            for key in keys(60) {
                assert_eq!(client.ask(&["GET", &key]), format!("${}\r\n{key}\r\n", key.len()));
            }
        }
        let connected = (0..3).map(|at| state(&mut client, at)).collect::<Vec<_>>();
        assert_eq!(connected, ["live"; 3]);
    }
}

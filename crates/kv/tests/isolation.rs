//! Whatever bytes one client sends, another's answers are its own: both share a connection to a real server.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use std::io::Write;
use std::net::Shutdown;

use base::Rng;
use kv::PoolSource;
use kv::wire::resp::request::encode;
use world::{Client, Proxy, Server, pool};

/// Connections of the client that sends nonsense, and requests on each.
const CONNECTIONS: usize = 1_000;
const REQUESTS: u64 = 8;

/// What the nonsense is made of.
const LINES: &[&str] = &[
    "get a b",
    "gat 0 a",
    "set a 0 0 7\r\nversion",
    "set a 0 0 7 noreply\r\nversion",
    "append a 0 0 7 noreply\r\nversion",
    "cas a 0 0 7 1 noreply\r\nversion",
    "incr a 1 noreply",
    "decr a 1",
    "delete a 0 noreply",
    "touch a 0 noreply",
    "verbosity 1 noreply",
    "version",
    "stats",
];
const COMMANDS: &[&str] = &[
    "SET a 1",
    "GET a",
    "MGET a b c",
    "MSET a 1 b 2",
    "XREAD COUNT 1 STREAMS a 0",
    "ZUNION 2 a b",
    "EVAL x 1 a",
    "SORT a BY b GET c STORE d",
    "OBJECT ENCODING a",
    "XGROUP CREATE a b 0",
    "CLIENT SETNAME a",
    "HELLO 2 SETNAME a",
];
/// Bytes that mean something to somebody.
const BYTES: &[u8] = b"\0\t\r\n 0179-+*$:xA\x7f\x80\xff";

fn nonsense(rng: &mut Rng, redis: bool) -> Vec<u8> {
    let mut one_of = |all: &[&str]| all[usize::try_from(rng.below(all.len() as u64)).unwrap()].to_owned();
    let mut bytes = if redis {
        encode(&one_of(COMMANDS).split(' ').collect::<Vec<_>>())
    } else {
        (one_of(LINES) + "\r\n").into_bytes()
    };
    for _ in 0..rng.below(4) {
        let at = usize::try_from(rng.below(bytes.len() as u64)).unwrap();
        let byte = BYTES[usize::try_from(rng.below(BYTES.len() as u64)).unwrap()];
        match rng.below(3) {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => drop(bytes.remove(at)),
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

/// Nonsense on connections of its own, and `ask` between.
fn among_nonsense(proxy: &Proxy, redis: bool, mut ask: impl FnMut(u64)) {
    let mut rng = Rng::new(7);
    for number in 0..CONNECTIONS as u64 {
        let mut client = proxy.client();
        for _ in 0..1 + rng.below(REQUESTS) {
            // It may have been closed already.
            let _ = client.stream.write_all(&nonsense(&mut rng, redis));
            ask(number);
        }
        let _ = client.stream.shutdown(Shutdown::Write);
        ask(number);
    }
}

fn world(redis: bool) -> (Server, Proxy, Client) {
    let server = if redis { Server::redis(&[]) } else { Server::memcached() };
    let source = PoolSource { server_connections: 1, ..pool(std::slice::from_ref(&server), redis) };
    let proxy = Proxy::start(source, 1);
    let client = proxy.client();
    (server, proxy, client)
}

#[test]
fn whatever_one_client_of_memcached_sends_another_gets_its_own() {
    let (_server, proxy, mut client) = world(false);
    among_nonsense(&proxy, false, |number| {
        let store = format!("set mine 7 0 8\r\n{number:08}\r\nget mine\r\ndelete nothing\r\n");
        client.expect(&store, &format!("STORED\r\nVALUE mine 7 8\r\n{number:08}\r\nEND\r\nNOT_FOUND\r\n"));
    });
}

#[test]
fn whatever_one_client_of_redis_sends_another_gets_its_own() {
    let (_server, proxy, mut client) = world(true);
    among_nonsense(&proxy, true, |number| {
        assert_eq!(client.ask(&["SET", "mine", &number.to_string()]), "+OK\r\n");
        assert_eq!(client.say("STRLEN mine"), format!(":{}\r\n", number.to_string().len()));
    });
}

//! Values that are too large to keep: they pass through, in order, and nobody waits behind them.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use std::io::Write;

use world::{Client, Proxy, Server, eventually, pool};

const SIZE: usize = 24 << 20;

fn byte(at: usize) -> u8 {
    b'a' + u8::try_from(at / 5 % 26).unwrap()
}

/// Sends a SET of `SIZE` bytes in pieces, as far as `end`.
fn put_large(client: &mut Client, key: &str, end: usize) {
    let head = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${SIZE}\r\n", key.len());
    client.send(head.as_bytes());
    let mut at = 0;
    while at < end {
        let piece: Vec<u8> = (at..end.min(at + 100_000)).map(byte).collect();
        client.stream.write_all(&piece).unwrap();
        at += piece.len();
    }
}

fn is_whole(reply: &[u8]) -> bool {
    let head = format!("${SIZE}\r\n");
    let body = reply.strip_prefix(head.as_bytes()).and_then(|rest| rest.strip_suffix(b"\r\n")).unwrap();
    body.len() == SIZE && body.iter().enumerate().all(|(at, value)| *value == byte(at))
}

#[test]
fn a_large_value_passes_both_ways_in_its_order_and_others_are_answered_meanwhile() {
    let servers: Vec<Server> = (0..2).map(|_| Server::redis(&[])).collect();
    let proxy = Proxy::start(pool(&servers, true), 1);
    let (mut client, mut other) = (proxy.client(), proxy.client());
    assert_eq!(other.say("SET small x"), "+OK\r\n");
    for _ in 0..2 {
        client.send(b"SET large before\r\nGET large\r\n");
        put_large(&mut client, "large", SIZE / 2);
        for _ in 0..20 {
            assert_eq!(other.say("GET small"), "$1\r\nx\r\n");
            assert_eq!(other.say("GET large"), "$6\r\nbefore\r\n", "not yet");
        }
        let rest: Vec<u8> = (SIZE / 2..SIZE).map(byte).collect();
        client.send(&rest);
        client.send(b"\r\nSTRLEN large\r\nPING\r\nGET large\r\nSET large before\r\n");
        assert_eq!(client.reply(), b"+OK\r\n");
        assert_eq!(client.reply(), b"$6\r\nbefore\r\n");
        assert_eq!(client.reply(), b"+OK\r\n");
        assert_eq!(client.reply(), format!(":{SIZE}\r\n").as_bytes());
        assert_eq!(client.reply(), b"+PONG\r\n");
        assert!(is_whole(&client.reply()));
        assert_eq!(client.reply(), b"+OK\r\n");
    }
}

#[test]
fn a_large_request_that_breaks_off_is_not_asked() {
    let servers = vec![Server::redis(&[])];
    let proxy = Proxy::start(pool(&servers, true), 1);
    for key in ["one", "two"] {
        let mut client = proxy.client();
        put_large(&mut client, key, SIZE / 2);
    }
    let mut direct = servers[0].client();
    eventually("the proxy has let go", || direct.say("CLIENT LIST").matches(" laddr=").count() <= 2);
    assert_eq!(direct.say("EXISTS one two"), ":0\r\n");
    assert_eq!(proxy.client().say("SET one x"), "+OK\r\n");
}

#[test]
fn a_server_that_refuses_or_dies_meanwhile_is_an_error_and_the_rest_is_dropped() {
    let mut servers = vec![Server::redis(&["--maxmemory", "2mb"])];
    let proxy = Proxy::start(pool(&servers, true), 1);
    let mut client = proxy.client();
    put_large(&mut client, "large", SIZE);
    client.send(b"\r\nPING\r\n");
    assert!(client.reply().starts_with(b"-OOM"));
    assert_eq!(client.reply(), b"+PONG\r\n");
    put_large(&mut client, "large", SIZE / 2);
    servers[0].kill();
    let rest: Vec<u8> = (SIZE / 2..SIZE).map(byte).collect();
    client.send(&rest);
    client.send(b"\r\nPING\r\n");
    assert!(client.reply().starts_with(b"-ERR"));
    assert_eq!(client.reply(), b"+PONG\r\n");
    put_large(&mut client, "large", SIZE);
    client.send(b"\r\nPING\r\n");
    assert!(client.reply().starts_with(b"-ERR Connection refused"));
    assert_eq!(client.reply(), b"+PONG\r\n");
}

#[test]
fn a_large_value_of_memcached_passes_too_and_one_too_large_is_refused_in_its_place() {
    let servers = vec![Server::memcached()];
    let proxy = Proxy::start(pool(&servers, false), 1);
    let mut client = proxy.client();
    let value = "v".repeat(900_000);
    for _ in 0..2 {
        client.send(format!("set a 7 0 {}\r\n{value}\r\nget a\r\nversion\r\n", value.len()).as_bytes());
        client.expect("", &format!("STORED\r\nVALUE a 7 {}\r\n{value}\r\nEND\r\nVERSION ", value.len()));
        while client.take(1) != b"\n" {}
    }
    let value = "v".repeat(3 << 20);
    client.send(format!("set b 0 0 {}\r\n{value}\r\nget b\r\n", value.len()).as_bytes());
    client.expect("", "SERVER_ERROR object too large for cache\r\nEND\r\n");
}

/// Bytes this process holds.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

#[test]
fn a_client_that_does_not_read_makes_the_proxy_hold_little_whatever_the_sizes_and_servers() {
    let servers: Vec<Server> = (0..3).map(|_| Server::redis(&[])).collect();
    let proxy = Proxy::start(pool(&servers, true), 1);
    let mut other = proxy.client();
    for (size, count) in [(1 << 20, 200), (40_000, 1_000)] {
        let value = "x".repeat(size);
        let keys: Vec<String> = (0..24).map(|n| format!("{n}:{}", n * 7919)).collect();
        keys.iter().for_each(|key| assert_eq!(other.ask(&["SET", key, &value]), "+OK\r\n"));
        // The proxy's connections and the test's own buffers are warm.
        let before = resident();
        let mut lazy = proxy.client();
        for at in 0..count {
            lazy.put(&["GET", &keys[at % keys.len()]]);
        }
        let mut most = 0;
        for _ in 0..40 {
            std::thread::sleep(std::time::Duration::from_millis(10));
            assert_eq!(other.say("PING"), "+PONG\r\n");
            assert!(other.ask(&["STRLEN", &keys[0]]).starts_with(':'), "others go on");
            most = most.max(resident().saturating_sub(before));
        }
        // What waits for earlier replies is bounded by 64 MiB a client.
        assert!(most < 96 << 20, "{most} bytes for {count} of {size}");
        let mut whole = 0;
        for at in 0..count {
            let reply = lazy.reply();
            // Where one server is given no processor for more than a second, the others' replies are as many as may wait
            // for its, and errors (`waiting` has that in virtual time).
            if !reply.starts_with(b"-ERR the reply is too large to wait for earlier ones\r\n") {
                assert_eq!(reply.len(), size + size.to_string().len() + 5, "{at} of {count}");
                whole += 1;
            }
        }
        assert!(whole >= count.min((60 << 20) / size), "{whole} of {count} of {size} came whole");
    }
}

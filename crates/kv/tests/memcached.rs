//! Clients of memcached through the proxy, with real servers behind.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use std::net::Shutdown;

use world::{Proxy, Server, eventually, pool};

fn servers(count: usize) -> Vec<Server> {
    (0..count).map(|_| Server::memcached()).collect()
}

#[test]
fn every_command_says_what_memcached_says() {
    let servers = servers(2);
    let proxy = Proxy::start(pool(&servers, false), 1);
    let mut client = proxy.client();
    client.expect("set a 5 0 3\r\nabc\r\n", "STORED\r\n");
    client.expect("get a\r\n", "VALUE a 5 3\r\nabc\r\nEND\r\n");
    client.expect("add a 0 0 1\r\nx\r\n", "NOT_STORED\r\n");
    client.expect("replace b 0 0 1\r\nx\r\n", "NOT_STORED\r\n");
    client.expect(
        "append a 0 0 1\r\nd\r\nprepend a 0 0 1\r\n-\r\nget a\r\n",
        "STORED\r\nSTORED\r\nVALUE a 5 5\r\n-abcd\r\nEND\r\n",
    );
    client.expect("set n 0 0 2\r\n10\r\nincr n 5\r\ndecr n 1\r\nincr z 1\r\n", "STORED\r\n15\r\n14\r\nNOT_FOUND\r\n");
    client.expect("touch n 100\r\ngat 100 n\r\n", "TOUCHED\r\nVALUE n 0 2\r\n14\r\nEND\r\n");
    client.expect("set e 0 -1 1\r\nx\r\nget e\r\n", "STORED\r\nEND\r\n");
    client.expect("delete n\r\ndelete n\r\n", "DELETED\r\nNOT_FOUND\r\n");
    client.expect("cas a 0 0 1 999999\r\nx\r\ncas q 0 0 1 1\r\nx\r\n", "EXISTS\r\nNOT_FOUND\r\n");
    client.expect("version\r\n", "VERSION 1.");
    while client.take(1) != b"\n" {}
    client.expect(
        "foo\r\nget\r\n\r\nset a 0 0 1\r\nab\r\n",
        "ERROR\r\nERROR\r\nERROR\r\nCLIENT_ERROR bad data chunk\r\n",
    );
    client.expect("get a\r\n", "ERROR\r\nVALUE a 5 5\r\n-abcd\r\nEND\r\n");
    client.expect(&format!("get {}\r\n", "k".repeat(251)), "CLIENT_ERROR bad command line format\r\n");
    client.expect(&format!("get {}\r\n", "k".repeat(250)), "END\r\n");
    client.expect("flush_all\r\n", "SERVER_ERROR flush_all is not allowed through the proxy\r\n");
    client.expect("verbosity 1\r\n", "OK\r\n");
    client.expect("verbosity\r\n", "ERROR\r\n");
    client.expect("verbosity noreply foo\r\n", "CLIENT_ERROR bad command line format\r\n");
    client.expect("stats\r\n", "STAT beltway_servers ");
    while client.take(1) != *b"E" {}
    client.expect("", "ND\r\n");
    client.send(b"get a\r\nquit\r\n");
    assert_eq!(client.rest(), "VALUE a 5 5\r\n-abcd\r\nEND\r\n");
}

#[test]
fn a_multiget_over_several_servers_comes_in_the_order_of_its_keys() {
    let servers = servers(3);
    let proxy = Proxy::start(kv::PoolSource { memcached_flush_all: true, ..pool(&servers, false) }, 1);
    let mut client = proxy.client();
    let keys: Vec<String> = (0..60).map(|n| format!("{n}:{}", n * 7919)).collect();
    for key in &keys {
        client.expect(&format!("set {key} 1 0 {}\r\nv{key}\r\n", key.len() + 1), "STORED\r\n");
    }
    let mut expected = String::new();
    keys.iter().for_each(|key| expected.push_str(&format!("VALUE {key} 1 {}\r\nv{key}\r\n", key.len() + 1)));
    client.expect(&format!("get {} missing\r\n", keys.join(" ")), &format!("{expected}END\r\n"));
    client.expect(&format!("gat 0 {}\r\n", keys.join(" ")), &format!("{expected}END\r\n"));
    client.expect("flush_all\r\nget 0:0 1:7919 2:15838\r\n", "OK\r\nEND\r\n");
}

#[test]
fn what_wants_no_reply_gets_none_and_takes_nobody_elses() {
    let servers = servers(2);
    let proxy = Proxy::start(pool(&servers, false), 1);
    let mut client = proxy.client();
    for n in 0..50 {
        client.send(
            format!("set k{n} 0 0 1 noreply\r\nx\r\nincr k{n} 1 noreply\r\ndelete gone{n} noreply\r\n").as_bytes(),
        );
    }
    // An error that memcached says in spite of noreply reaches nobody.
    client.send(format!("set big 0 0 {} noreply\r\n{}\r\n", 2 << 20, "x".repeat(2 << 20)).as_bytes());
    for n in 0..50 {
        client.expect(&format!("get k{n}\r\n"), &format!("VALUE k{n} 0 1\r\nx\r\nEND\r\n"));
    }
}

#[test]
fn the_binary_protocol_is_refused_in_its_own_words() {
    let servers = servers(1);
    let proxy = Proxy::start(pool(&servers, false), 1);
    let mut client = proxy.client();
    let mut request = vec![0_u8; 24];
    request[..2].copy_from_slice(&[0x80, 0x0b]);
    request[12..16].copy_from_slice(b"abcd");
    client.send(&request);
    let header = client.take(24);
    assert_eq!((&header[..2], &header[6..8], &header[12..16]), (&[0x81, 0x0b][..], &[0, 0x81][..], &b"abcd"[..]));
    assert_eq!(client.rest().len(), usize::from(header[11]));
}

#[test]
fn no_line_makes_a_server_answer_more_or_less_than_once() {
    let servers = servers(1);
    let proxy = Proxy::start(pool(&servers, false), 1);
    let (mut client, mut other) = (proxy.client(), proxy.client());
    other.expect("set mine 0 0 4\r\nmine\r\n", "STORED\r\n");
    for line in [
        // memcached refuses the line, and takes what was to be its data for a request.
        "set a x 0 7\r\nversion\r\n",
        "set a 0 0 7 x y\r\nversion\r\n",
        "set a 0 2147483648 7\r\nversion\r\n",
        "cas a 0 0 7 x\r\nversion\r\n",
        // It reads another last word than there is, and says nothing.
        "set a 0 0 7 noreply\0\r\nversion\r\n",
        "incr a 1 noreply\0\r\n",
        // It closes the connection.
        &format!("delete {} a\r\n", " ".repeat(3_000)),
    ] {
        client.send(line.as_bytes());
        for _ in 0..3 {
            other.expect("get mine\r\n", "VALUE mine 0 4\r\nmine\r\nEND\r\n");
        }
    }
}

#[test]
fn what_the_meta_command_stores_is_never_carried_out() {
    let servers = servers(1);
    let proxy = Proxy::start(kv::PoolSource { memcached_flush_all: true, ..pool(&servers, false) }, 1);
    let mut client = proxy.client();
    client.expect("set mine 0 0 4\r\nmine\r\n", "STORED\r\n");
    for line in ["ms a 13", "ms a 13 T60 q", "ms YQ== 13 b T60", "ms a S13 T60"] {
        client.expect(
            &format!("{line}\r\ndelete mine\r\n\r\nget mine\r\n"),
            "ERROR\r\nVALUE mine 0 4\r\nmine\r\nEND\r\n",
        );
    }
    // However it comes.
    client.expect("ms a 40\r\n", "ERROR\r\n");
    client.send(b"flush_all\r\ndelete mine\r\n");
    client.expect("delete mine\r\n   \r\nget mine\r\n", "VALUE mine 0 4\r\nmine\r\nEND\r\n");
}

#[test]
fn no_line_makes_a_server_close_what_all_clients_share() {
    const BAD_TIME: &str = "CLIENT_ERROR invalid exptime argument\r\n";
    const TOO_LONG: &str = "CLIENT_ERROR line too long\r\n";
    let keys: String = (0..8_000).map(|at| format!(" k{at:05}")).collect();
    let (blank, zero) = (|count| " ".repeat(count), |count| "0".repeat(count));
    let lines = [
        // A server looks for the name of so long a line no further.
        (format!("{}get{keys}", blank(101)), TOO_LONG),
        (format!("{}gets{keys}", blank(200)), TOO_LONG),
        (format!("{}get a", blank(2_500)), TOO_LONG),
        (format!("{}gat 0{keys}", blank(101)), TOO_LONG),
        (format!("{}get{keys}", blank(100)), "END\r\n"),
        (format!("{}gat 0{keys}", blank(100)), "END\r\n"),
        (format!("{}get a", blank(1_900)), "END\r\n"),
        (format!("get{} a{}b{}", blank(3_000), blank(50_000), blank(3_000)), "END\r\n"),
        (format!("gat{} 0{}a b{}", blank(3_000), blank(50_000), blank(3_000)), "END\r\n"),
        // The time goes with each part.
        (format!("gat {} a", zero(40_000)), BAD_TIME),
        (format!("gats {}{keys}", zero(33)), BAD_TIME),
        (format!("gat {}", zero(40_000)), BAD_TIME),
        (format!("gat x{keys}"), BAD_TIME),
        (format!("gat {}{keys}", zero(32)), "END\r\n"),
        (format!("gats {} a", zero(32)), "END\r\n"),
    ];
    for count in [1, 2] {
        let servers = servers(count);
        let proxy = Proxy::start(pool(&servers, false), 1);
        let (mut client, mut other) = (proxy.client(), proxy.client());
        for (line, said) in &lines {
            client.send(format!("{line}\r\n").as_bytes());
            let start: String = line.trim_start().chars().take(20).collect();
            assert_eq!(String::from_utf8(client.memcached_reply()).unwrap(), *said, "after {start:?} of {count}");
            other.expect("get mine\r\n", "END\r\n");
        }
        assert_eq!(proxy.numbers().counter("beltway_kv_forward_errors_total"), 0);
        assert_eq!(proxy.numbers().counter("beltway_kv_server_failures_total"), 0);
    }
}

#[test]
fn who_ends_in_the_data_of_a_refused_line_is_answered_all_the_same() {
    let servers = servers(1);
    let proxy = Proxy::start(pool(&servers, false), 1);
    let mut client = proxy.client();
    client.expect("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    servers[0].signal("-STOP");
    client.send(b"get a\r\nset k x 0 100\r\nabc");
    client.stream.shutdown(Shutdown::Write).unwrap();
    eventually("the proxy has seen its end", || proxy.numbers().counter("beltway_kv_pool_client_ends_total") == 1);
    servers[0].signal("-CONT");
    let said = "VALUE a 0 1\r\nx\r\nEND\r\nCLIENT_ERROR bad command line format\r\n";
    assert_eq!(client.rest(), said);
}

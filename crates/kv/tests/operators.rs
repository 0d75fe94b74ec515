//! What the proxy answers of itself: its slow log.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use std::time::Duration;

use kv::PoolSource;
use world::{Client, Proxy, Server, pool};

/// A pool for which everything is slow.
fn slow_pool(servers: &[Server]) -> PoolSource {
    PoolSource { slowlog: Some(Duration::from_nanos(1)), ..pool(servers, true) }
}

/// The entries of the slow log, each as the lines of its reply without lengths and counts.
fn entries(client: &mut Client, line: &str) -> Vec<Vec<String>> {
    let reply = client.say(line);
    let mut entries: Vec<Vec<String>> = Vec::new();
    for line in reply.split("\r\n").skip(1) {
        match (line, entries.last_mut()) {
            ("*6", _) => entries.push(Vec::new()),
            (line, Some(entry)) if !line.starts_with(['$', '*']) => entry.push(line.to_owned()),
            _ => {}
        }
    }
    entries
}

#[test]
fn every_thread_s_slow_requests_are_told_in_redis_own_shape() {
    let servers = [Server::redis(&[]), Server::redis(&[])];
    let proxy = Proxy::start(slow_pool(&servers), 2);
    let mut clients: Vec<Client> = (0..6).map(|_| proxy.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.say(&format!("CLIENT SETNAME name-{number}")), "+OK\r\n");
        assert_eq!(client.say(&format!("SET key-{number} x")), "+OK\r\n");
    }
    let long = format!("{}{}", "k".repeat(64), "l".repeat(10));
    assert_eq!(clients[5].say(&format!("XINFO STREAM {long}")), "-ERR no such key\r\n");
    let mut asking = proxy.client();
    assert_eq!(asking.say("SLOWLOG LEN"), ":7\r\n");
    let told = entries(&mut asking, "SLOWLOG GET -1");
    let numbers: Vec<&str> = told.iter().map(|entry| entry[0].as_str()).collect();
    assert_eq!(numbers, [":6", ":5", ":4", ":3", ":2", ":1", ":0"]);
    for (number, client) in clients.iter().enumerate() {
        let entry = &told[6 - number];
        let address = client.stream.local_addr().unwrap().to_string();
        assert_eq!((entry[3].as_str(), entry[4].as_str()), ("set", format!("key-{number}").as_str()));
        assert_eq!(entry[6..8], [address, format!("name-{number}")], "who asked");
        assert!(servers.iter().any(|server| entry[5].ends_with(&format!(", answered by 127.0.0.1:{})", server.port))));
    }
    // A subcommand is a word of its own, and of what is cut it is said how much.
    let reply = asking.say("SLOWLOG GET 1");
    let argument = format!("{}... (10 more bytes)", "k".repeat(64));
    assert!(reply.starts_with("*1\r\n*6\r\n:6\r\n:"), "{reply}");
    let words = format!("\r\n*4\r\n$5\r\nxinfo\r\n$6\r\nstream\r\n${}\r\n{argument}\r\n$", argument.len());
    assert!(reply.contains(&words), "{reply}");
}

#[test]
fn whoever_begins_anew_sees_what_comes_after() {
    let servers = [Server::redis(&[])];
    let proxy = Proxy::start(slow_pool(&servers), 1);
    let mut client = proxy.client();
    for _ in 0..12 {
        assert_eq!(client.say("GET a"), "$-1\r\n");
    }
    assert_eq!(entries(&mut client, "SLOWLOG GET").len(), 10, "where nobody says how many");
    assert_eq!(entries(&mut client, "slowlog get 3").len(), 3);
    assert_eq!(entries(&mut client, "SLOWLOG GET 99").len(), 12);
    assert_eq!(client.say("SLOWLOG RESET"), "+OK\r\n");
    assert_eq!((client.say("SLOWLOG LEN"), client.say("SLOWLOG GET")), (":0\r\n".into(), "*0\r\n".into()));
    assert_eq!(client.say("GET a"), "$-1\r\n");
    assert_eq!(entries(&mut client, "SLOWLOG GET")[0][0], ":12");
    // What the proxy answers itself is not slow.
    assert_eq!(client.say("PING"), "+PONG\r\n");
    assert_eq!(client.say("SLOWLOG LEN"), ":1\r\n");
}

#[test]
fn what_is_wrong_with_the_question_is_said_in_redis_own_words() {
    let servers = [Server::redis(&[])];
    let proxy = Proxy::start(slow_pool(&servers), 1);
    let (mut through, mut direct) = (proxy.client(), servers[0].client());
    for line in [
        "SLOWLOG",
        "SLOWLOG nonsense",
        "SLOWLOG nonsense 1",
        "SLOWLOG LEN 1",
        "SLOWLOG RESET 1",
        "SLOWLOG HELP 1",
        "SLOWLOG GET x",
        "SLOWLOG GET -2",
        "SLOWLOG GET 99999999999999999999",
        "SLOWLOG GET 1 2",
        "SLOWLOG GET 0",
    ] {
        assert_eq!(through.say(line), direct.say(line), "{line}");
    }
    assert!(through.say("SLOWLOG HELP").starts_with("*9\r\n+SLOWLOG"));
}

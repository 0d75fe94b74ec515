//! What a pool keeps has a bound: first nothing new is asked, then the newest gets an error, then all is as it was.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use std::time::Duration;

use kv::PoolSource;
use world::{Proxy, Server, pool};

const VALUE: usize = 20 << 10;
const TOO_LARGE: &[u8] = b"-ERR the reply is too large to wait for earlier ones\r\n";

/// Keys with large values on the second server, and one key on the first.
fn fill(servers: &[Server], proxy: &Proxy) -> (String, Vec<String>) {
    let mut client = proxy.client();
    let (mut first, mut second) = (None, Vec::new());
    for n in 0..200 {
        let key = format!("{n}:{}", n * 7919);
        let is_first = {
            assert_eq!(client.ask(&["SET", &key, "x"]), "+OK\r\n");
            servers[0].client().ask(&["EXISTS", &key]) == ":1\r\n"
        };
        if is_first {
            first = Some(key);
        } else if second.len() < 40 {
            assert_eq!(client.ask(&["SET", &key, &"v".repeat(VALUE)]), "+OK\r\n");
            second.push(key);
        }
    }
    assert_eq!(second.len(), 40);
    (first.unwrap(), second)
}

#[test]
fn beyond_half_of_its_memory_a_pool_asks_nothing_new_and_beyond_all_of_it_the_newest_gets_an_error() {
    let servers: Vec<Server> = (0..2).map(|_| Server::redis(&[])).collect();
    let memory = 400 << 10;
    let proxy = Proxy::start(PoolSource { memory, ..pool(&servers, true) }, 1);
    let (late, large) = fill(&servers, &proxy);
    let mut client = proxy.client();
    servers[0].signal("-STOP");
    // The first is answered last: what comes for the others waits.
    let mut asked = kv::wire::resp::request::encode(&["GET", &late]);
    for key in &large {
        asked.extend(kv::wire::resp::request::encode(&["GET", key]));
    }
    client.send(&asked);
    // When somebody else is no longer heard, half of the memory is in use.
    let mut other = proxy.client();
    other.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut heard = 0;
    loop {
        use std::io::Read as _;
        other.send(b"PING\r\n");
        let mut pong = [0; 7];
        match other.stream.read_exact(&mut pong) {
            Ok(()) => assert_eq!(&pong, b"+PONG\r\n"),
            Err(error) => break assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        heard += 1;
        assert!(heard < 2_000, "the others are heard for ever");
        std::thread::sleep(Duration::from_millis(1));
    }
    servers[0].signal("-CONT");
    assert_eq!(client.reply(), b"$1\r\nx\r\n");
    let (mut whole, mut refused) = (0, 0);
    for _ in &large {
        match client.reply() {
            reply if reply == TOO_LARGE => refused += 1,
            reply => {
                assert_eq!(reply.len(), VALUE + 10, "{}", String::from_utf8_lossy(&reply[..40.min(reply.len())]));
                assert_eq!(refused, 0, "the newest are refused, in their order");
                whole += 1;
            }
        }
    }
    // Each thread's count is exact for itself.
    assert!((10..=20).contains(&whole) && refused >= 20, "{whole} whole, {refused} refused");
    other.stream.set_read_timeout(Some(world::PATIENCE)).unwrap();
    assert_eq!(other.reply(), b"+PONG\r\n", "and is heard again");
    for key in &large {
        assert_eq!(client.ask(&["GET", key]).len(), VALUE + 10, "all of it was given back");
    }
}

#[test]
fn parts_of_a_joined_reply_count_while_they_wait_for_each_other() {
    let servers: Vec<Server> = (0..2).map(|_| Server::redis(&[])).collect();
    let proxy = Proxy::start(PoolSource { memory: 400 << 10, ..pool(&servers, true) }, 1);
    let (late, large) = fill(&servers, &proxy);
    let mut client = proxy.client();
    let mut words = vec!["MGET".to_owned(), late];
    words.extend(large.iter().cloned());
    let reply = client.ask(&words);
    let expected = format!("*{}\r\n$1\r\nx\r\n-ERR the reply is too large", large.len() + 1);
    assert!(reply.starts_with(&expected), "{}", &reply[..80]);
    assert_eq!(client.ask(&["MGET", &words[1], &large[0], &large[1]]).len(), 4 + 7 + 2 * (VALUE + 10));
}

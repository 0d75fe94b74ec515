//! A scripted server that breaks off after every single byte of what it says, or says more than it was asked.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kv::wire::resp::request::encode;
use kv::{Address, PoolSource, ServerSource};
use world::{Proxy, eventually};

/// How the server's next connection goes wrong, if it does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Resets,
    Closes,
    /// It goes on after a pause.
    Pauses,
}

struct Script {
    /// Bytes after which it happens; `usize::MAX`: it does not.
    after: AtomicUsize,
    manner: Manner,
    /// With each answer comes another, which nobody asked for.
    chatters: AtomicBool,
    /// Connections that it closes, and of those the ones that the other side has closed as well.
    closed: [AtomicUsize; 2],
}

impl Script {
    /// Nothing is sent any more on a connection that is over.
    fn is_settled(&self) -> bool {
        let [begun, over] = self.closed.each_ref().map(|count| count.load(Ordering::SeqCst));
        begun == over
    }
}

/// What it says to a pipeline of requests: to each the value is its own key.
fn answers(requests: &[u8]) -> (Vec<u8>, usize) {
    let (mut said, mut at) = (Vec::new(), 0);
    loop {
        let mut request = kv::wire::resp::Request::default();
        let kv::wire::resp::Scan::Whole(len) = request.scan(&requests[at..]) else { return (said, at) };
        let words: Vec<&[u8]> =
            request.arguments().iter().map(|word| &requests[at..][word.start as usize..word.end as usize]).collect();
        match words.as_slice() {
            [b"GET", key] => said.extend([format!("${}\r\n", key.len()).as_bytes(), key, b"\r\n"].concat()),
            [b"PING"] => said.extend(b"+PONG\r\n"),
            _ => said.extend(b":7\r\n"),
        }
        at += len;
    }
}

fn start(script: &Arc<Script>) -> PoolSource {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = Arc::clone(script);
    #[expect(clippy::disallowed_methods, reason = "a server of a test has threads of its own")]
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, script) = (stream.unwrap(), Arc::clone(&script));
            std::thread::spawn(move || {
                stream.set_nodelay(true).unwrap();
                let (mut have, mut buffer) = (Vec::new(), [0; 4_096]);
                while let Ok(got @ 1..) = stream.read(&mut buffer) {
                    have.extend_from_slice(&buffer[..got]);
                    let (mut said, taken) = answers(&have);
                    have.drain(..taken);
                    if said.is_empty() {
                        continue;
                    }
                    if script.chatters.swap(false, Ordering::SeqCst) {
                        said.extend(b"$5\r\nnever\r\n");
                    }
                    let after = script.after.swap(usize::MAX, Ordering::SeqCst);
                    if after > said.len() {
                        stream.write_all(&said).unwrap();
                        continue;
                    }
                    if script.manner == Manner::Closes {
                        script.closed[0].fetch_add(1, Ordering::SeqCst);
                    }
                    stream.write_all(&said[..after]).unwrap();
                    match script.manner {
                        Manner::Pauses => {
                            std::thread::sleep(Duration::from_millis(1));
                            stream.write_all(&said[after..]).unwrap();
                        }
                        Manner::Closes => {
                            // With something unread it would be a reset.
                            stream.shutdown(Shutdown::Write).unwrap();
                            while stream.read(&mut buffer).is_ok_and(|got| got > 0) {}
                            script.closed[1].fetch_add(1, Ordering::SeqCst);
                            return;
                        }
                        Manner::Resets => {
                            let socket = socket2::Socket::from(stream);
                            socket.set_linger(Some(Duration::ZERO)).unwrap();
                            return;
                        }
                    }
                }
            });
        }
    });
    let address = Address::Ip([127, 0, 0, 1].into(), port);
    let source = PoolSource::new("test", vec![ServerSource { address, weight: 1, name: None }]);
    PoolSource { redis: true, server_failure_limit: 1_000_000, ..source }
}

fn script(manner: Manner) -> Arc<Script> {
    let (after, chatters) = (AtomicUsize::new(usize::MAX), AtomicBool::new(false));
    Arc::new(Script { after, manner, chatters, closed: Default::default() })
}

#[test]
fn a_connection_that_breaks_after_any_byte_costs_no_read_its_answer() {
    for manner in [Manner::Resets, Manner::Closes, Manner::Pauses] {
        let script = script(manner);
        let proxy = Proxy::start(start(&script), 1);
        let mut client = proxy.client();
        let keys = ["a", "twelve-bytes", "b"];
        let requests: Vec<u8> = keys.iter().flat_map(|key| encode(&["GET", key])).collect();
        let (whole, _) = answers(&requests);
        for after in 0..=whole.len() {
            script.after.store(after, Ordering::SeqCst);
            client.send(&requests);
            for key in keys {
                let reply = String::from_utf8(client.reply()).unwrap();
                assert_eq!(reply, format!("${}\r\n{key}\r\n", key.len()), "broken off after {after}");
            }
        }
    }
}

#[test]
fn a_connection_that_breaks_after_any_byte_answers_a_write_rightly_or_says_that_it_failed() {
    for manner in [Manner::Resets, Manner::Closes] {
        let script = script(manner);
        let proxy = Proxy::start(start(&script), 1);
        let mut client = proxy.client();
        let words: [&[&str]; 4] = [&["INCR", "a"], &["GET", "key"], &["INCR", "b"], &["ECHO", "e"]];
        let requests: Vec<u8> = words.iter().flat_map(|words| encode(words)).collect();
        for after in 0..20 {
            // What is written to a connection that has just ended is lost: nobody can know whether it was carried out.
            eventually("the last connection is over", || script.is_settled());
            script.after.store(after, Ordering::SeqCst);
            client.send(&requests);
            let replies: [String; 4] = std::array::from_fn(|_| String::from_utf8(client.reply()).unwrap());
            let failed = |reply: &str| reply.starts_with("-ERR ");
            // A reset takes along what has come and was not read yet.
            let may_fail = after < 4 || manner == Manner::Resets;
            assert!(replies[0] == ":7\r\n" || (failed(&replies[0]) && may_fail), "{after}: {replies:?}");
            assert_eq!(replies[1], "$3\r\nkey\r\n", "{after}");
            assert!(replies[2] == ":7\r\n" || failed(&replies[2]), "{after}: {replies:?}");
            assert_eq!(replies[3], "$1\r\ne\r\n");
        }
    }
}

#[test]
fn a_reply_that_nobody_asked_for_reaches_nobody() {
    let script = script(Manner::Closes);
    let proxy = Proxy::start(start(&script), 1);
    let (mut client, mut other) = (proxy.client(), proxy.client());
    for round in 0..50 {
        script.chatters.store(true, Ordering::SeqCst);
        let key = format!("key-{round}");
        let expected = format!("${}\r\n{key}\r\n", key.len());
        assert_eq!(client.ask(&["GET", &key]), expected);
        assert_eq!(other.ask(&["GET", &key]), expected, "on another connection than that which said too much");
        assert_eq!(client.ask(&["GET", &key]), expected);
    }
}

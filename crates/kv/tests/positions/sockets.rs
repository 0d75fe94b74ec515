//! A scripted server that breaks off after every single byte of what it says, or says more than it was asked.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kv::{Address, PoolSource, ServerSource};

use crate::dialect::Dialect;
use crate::world::{Client, Proxy, eventually};

/// How the server's next connection goes wrong, if it does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Resets,
    Closes,
    /// It goes on after a pause.
    Pauses,
}

struct Script {
    dialect: Dialect,
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

/// A value: its own key.
fn value(key: &str, dialect: Dialect) -> String {
    match dialect {
        Dialect::Redis => format!("${}\r\n{key}\r\n", key.len()),
        Dialect::Memcached => format!("VALUE {key} 0 {}\r\n{key}\r\nEND\r\n", key.len()),
    }
}

fn get(key: &str, dialect: Dialect) -> Vec<u8> {
    match dialect {
        Dialect::Redis => kv::wire::resp::request::encode(&["GET", key]),
        Dialect::Memcached => format!("get {key}\r\n").into_bytes(),
    }
}

fn incr(key: &str, dialect: Dialect) -> Vec<u8> {
    match dialect {
        Dialect::Redis => kv::wire::resp::request::encode(&["INCR", key]),
        Dialect::Memcached => format!("incr {key} 1\r\n").into_bytes(),
    }
}

fn number(dialect: Dialect) -> &'static str {
    if dialect.is_redis() { ":7\r\n" } else { "7\r\n" }
}

/// What it says to a pipeline of requests.
fn answers(have: &mut Vec<u8>, dialect: Dialect) -> Vec<u8> {
    let mut said = Vec::new();
    while let Some(words) = dialect.take_request(have) {
        match words.as_slice() {
            [name, key] if name.eq_ignore_ascii_case(b"get") => {
                said.extend(value(&String::from_utf8_lossy(key), dialect).into_bytes());
            }
            [name] if **name == *b"PING" => said.extend(b"+PONG\r\n"),
            [name] if **name == *b"version" => said.extend(b"VERSION 1\r\n"),
            _ => said.extend(number(dialect).as_bytes()),
        }
    }
    said
}

fn reply(client: &mut Client, dialect: Dialect) -> String {
    let reply = if dialect.is_redis() { client.reply() } else { client.memcached_reply() };
    String::from_utf8(reply).unwrap()
}

fn start(script: &Arc<Script>) -> PoolSource {
    let redis = script.dialect.is_redis();
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
                    let mut said = answers(&mut have, script.dialect);
                    if said.is_empty() {
                        continue;
                    }
                    if script.chatters.swap(false, Ordering::SeqCst) {
                        said.extend(value("never", script.dialect).into_bytes());
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
    PoolSource { redis, server_failure_limit: 1_000_000, ..source }
}

fn script(manner: Manner, dialect: Dialect) -> Arc<Script> {
    let (after, chatters) = (AtomicUsize::new(usize::MAX), AtomicBool::new(false));
    Arc::new(Script { dialect, after, manner, chatters, closed: Default::default() })
}

const DIALECTS: [Dialect; 2] = [Dialect::Redis, Dialect::Memcached];

#[test]
fn a_connection_that_breaks_after_any_byte_costs_no_read_its_answer() {
    for (manner, dialect) in
        [Manner::Resets, Manner::Closes, Manner::Pauses].into_iter().flat_map(|manner| DIALECTS.map(|of| (manner, of)))
    {
        let script = script(manner, dialect);
        let proxy = Proxy::start(start(&script), 1);
        let mut client = proxy.client();
        let keys = ["a", "twelve-bytes", "b"];
        let requests: Vec<u8> = keys.iter().flat_map(|key| get(key, dialect)).collect();
        let whole = answers(&mut requests.clone(), dialect);
        for after in 0..=whole.len() {
            script.after.store(after, Ordering::SeqCst);
            client.send(&requests);
            for key in keys {
                assert_eq!(reply(&mut client, dialect), value(key, dialect), "broken off after {after}");
            }
        }
    }
}

#[test]
fn a_connection_that_breaks_after_any_byte_answers_a_write_rightly_or_says_that_it_failed() {
    for (manner, dialect) in
        [Manner::Resets, Manner::Closes].into_iter().flat_map(|manner| DIALECTS.map(|of| (manner, of)))
    {
        let script = script(manner, dialect);
        let proxy = Proxy::start(start(&script), 1);
        let mut client = proxy.client();
        // The last is answered by the proxy itself.
        let (local, said) = match dialect {
            Dialect::Redis => (&b"*2\r\n$4\r\nECHO\r\n$1\r\ne\r\n"[..], "$1\r\ne\r\n"),
            Dialect::Memcached => (&b"verbosity 1\r\n"[..], "OK\r\n"),
        };
        let requests = [incr("a", dialect), get("key", dialect), incr("b", dialect), local.to_vec()].concat();
        let whole = answers(&mut requests[..requests.len() - local.len()].to_vec(), dialect).len();
        let number = number(dialect);
        for after in 0..=whole {
            // What is written to a connection that has just ended is lost: nobody can know whether it was carried out.
            eventually("the last connection is over", || script.is_settled());
            script.after.store(after, Ordering::SeqCst);
            client.send(&requests);
            let replies: [String; 4] = std::array::from_fn(|_| reply(&mut client, dialect));
            let failed = |reply: &str| reply.starts_with("-ERR ") || reply.starts_with("SERVER_ERROR ");
            // A reset takes along what has come and was not read yet.
            let may_fail = after < number.len() || manner == Manner::Resets;
            assert!(replies[0] == number || (failed(&replies[0]) && may_fail), "{after}: {replies:?}");
            assert_eq!(replies[1], value("key", dialect), "{after}");
            assert!(replies[2] == number || failed(&replies[2]), "{after}: {replies:?}");
            assert_eq!(replies[3], said);
        }
    }
}

#[test]
fn a_reply_that_nobody_asked_for_reaches_nobody() {
    for dialect in DIALECTS {
        let script = script(Manner::Closes, dialect);
        let proxy = Proxy::start(start(&script), 1);
        let (mut client, mut other) = (proxy.client(), proxy.client());
        let ask = |client: &mut Client, key: &str| {
            client.send(&get(key, dialect));
            reply(client, dialect)
        };
        for round in 0..50 {
            script.chatters.store(true, Ordering::SeqCst);
            let key = format!("key-{round}");
            let expected = value(&key, dialect);
            assert_eq!(ask(&mut client, &key), expected);
            assert_eq!(ask(&mut other, &key), expected, "on another connection than that which said too much");
            assert_eq!(ask(&mut client, &key), expected);
        }
    }
}

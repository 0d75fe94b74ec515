//! What the log says of servers, and that a server's password is no reason not to use one that has none.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use event::log::LogThread;
use kv::{Address, PoolSource, ServerSource};
use world::{Proxy, Server, directory, eventually, pool};

/// A log of this test's own.
struct Log {
    path: PathBuf,
    thread: Option<LogThread>,
}

impl Log {
    fn of(proxy: &Proxy, name: &str) -> Self {
        let (thread, sender) = LogThread::start("log").unwrap();
        let path = directory(name).join("log");
        sender.report_to(sender.open(&path).unwrap());
        proxy.shared.report_to(sender);
        Self { path, thread: Some(thread) }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.path).unwrap_or_default()
    }

    fn says(&self, what: &str) {
        eventually(&format!("the log says {what:?}; it says {}", self.text()), || self.text().contains(what));
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.stop(Duration::from_secs(5));
        }
        let _ = std::fs::remove_dir_all(self.path.parent().unwrap());
    }
}

#[test]
fn a_server_that_fails_and_comes_back_is_told_of_once_whatever_is_asked_on_how_many_threads() {
    let mut servers: Vec<Server> = (0..2).map(|_| Server::redis(&[])).collect();
    let source = PoolSource {
        auto_eject_hosts: true,
        server_failure_limit: 2,
        server_retry_timeout: Duration::from_millis(200),
        ..pool(&servers, true)
    };
    let proxy = Proxy::start(source, 2);
    let log = Log::of(&proxy, "said-ejected");
    let ask = || {
        for _ in 0..4 {
            let mut client = proxy.client();
            (0..20).for_each(|at| drop(client.say(&format!("SET key{} 1", at * 7_919))));
        }
    };
    ask();
    servers[0].kill();
    eventually("it is ejected", || {
        ask();
        log.text().contains("ejected after")
    });
    let name = format!("test: 127.0.0.1:{}: ", servers[0].port);
    // It is refused, unless the end of a connection that was there is seen first.
    log.says(&format!("warning: {name}connection "));
    ask();
    servers[0].run();
    log.says(&format!("info: {name}back after "));
    let text = log.text();
    assert_eq!(text.matches("ejected after").count(), 1, "{text}");
    assert!(text.lines().count() <= 5, "{text}");
}

#[test]
fn a_server_that_is_ejected_since_it_loads_its_data_is_told_of_as_that() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    let serve = move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            if told.load(Ordering::Relaxed) {
                return;
            }
            let mut stream = stream.unwrap();
            if stream.read(&mut [0; 4_096]).is_ok_and(|got| got > 0) {
                stream.write_all(b"-LOADING Redis is loading the dataset in memory\r\n").unwrap();
            }
            open.push(stream);
        }
    };
    let serving = std::thread::Builder::new().spawn(serve).unwrap();
    let servers = vec![ServerSource { address: Address::Ip([127, 0, 0, 1].into(), port), weight: 1, name: None }];
    let server_retry_timeout = Duration::from_mins(10);
    let proxy =
        Proxy::start(PoolSource { auto_eject_hosts: true, server_retry_timeout, servers, ..pool(&[], true) }, 1);
    let log = Log::of(&proxy, "said-loads");
    assert!(proxy.client().say("GET a").starts_with("-LOADING"));
    log.says(": ejected, it loads its data");
    ended.store(true, Ordering::Relaxed);
    drop(TcpStream::connect(("127.0.0.1", port)));
    serving.join().unwrap();
}

#[test]
fn what_is_said_of_a_server_ends_with_it() {
    let mut servers: Vec<Server> = (0..2).map(|_| Server::redis(&[])).collect();
    let source = PoolSource {
        auto_eject_hosts: true,
        server_failure_limit: 1,
        server_retry_timeout: Duration::from_mins(10),
        ..pool(&servers, true)
    };
    let proxy = Proxy::start(source.clone(), 1);
    let log = Log::of(&proxy, "said-gone");
    servers[0].kill();
    eventually("it is ejected", || {
        let mut client = proxy.client();
        (0..20).for_each(|at| drop(client.say(&format!("SET key{} 1", at * 7_919))));
        log.text().contains("ejected after a failure")
    });
    let one = PoolSource { servers: vec![servers[1].source()], ..source.clone() };
    assert_eq!(proxy.renew(one), []);
    servers[0].run();
    assert_eq!(proxy.renew(source), []);
    assert!(!log.text().contains("back after"), "{}", log.text());
    servers[0].kill();
    eventually("it is told of anew", || {
        let mut client = proxy.client();
        (0..20).for_each(|at| drop(client.say(&format!("SET key{} 1", at * 7_919))));
        log.text().matches("ejected after a failure").count() == 2
    });
}

#[test]
fn a_server_without_a_password_is_used_though_one_is_told() {
    let servers = vec![Server::redis(&[])];
    let source = PoolSource { redis_auth: Some("secret".into()), ..pool(&servers, true) };
    let proxy = Proxy::start(source, 1);
    let log = Log::of(&proxy, "said-password");
    for _ in 0..3 {
        let mut client = proxy.client();
        assert_eq!(client.say("SET a 1"), "-NOAUTH Authentication required.\r\n");
        assert_eq!(client.say("AUTH secret"), "+OK\r\n");
        assert_eq!(client.say("SET a 1"), "+OK\r\n");
        assert_eq!(client.say("GET a"), "$1\r\n1\r\n");
    }
    log.says("has no password though redis_auth is set");
    assert_eq!(log.text().lines().count(), 1, "{}", log.text());
}

#[test]
fn what_else_a_server_refuses_and_a_name_that_is_none_are_said() {
    let servers = vec![Server::redis(&["--requirepass", "other"])];
    let refused = PoolSource { redis_auth: Some("secret".into()), ..pool(&servers, true) };
    let database = PoolSource { redis_auth: Some("other".into()), redis_db: 99, ..pool(&servers, true) };
    let mut nowhere = pool(&servers, true);
    // The system knows without asking anybody that this is no name, so that no server of names need answer.
    nowhere.servers[0].address = Address::Name("a..b".into(), 1);
    for (source, said) in [
        (refused, "refused the proxy's password or database: WRONGPASS "),
        (database, "refused the proxy's password or database: ERR DB index is out of range"),
        (nowhere, "at a..b:1: the name does not resolve"),
    ] {
        let password = source.redis_auth.clone();
        let proxy = Proxy::start(source, 1);
        let log = Log::of(&proxy, "said-refused");
        let mut client = proxy.client();
        if let Some(password) = password {
            assert_eq!(client.say(&format!("AUTH {password}")), "+OK\r\n");
        }
        assert!(client.say("GET a").starts_with("-ERR "));
        log.says(said);
        assert!(client.say("GET a").starts_with("-ERR "));
        assert_eq!(log.text().matches(said).count(), 1, "{}", log.text());
    }
}

#[test]
fn who_speaks_http_is_told_of_once() {
    let servers = vec![Server::redis(&[])];
    let proxy = Proxy::start(pool(&servers, true), 1);
    let log = Log::of(&proxy, "said-http");
    for _ in 0..3 {
        let mut client = proxy.client();
        let at = client.stream.local_addr().unwrap();
        client.send(b"POST / HTTP/1.1\r\n");
        assert_eq!(client.rest(), "");
        if log.text().is_empty() {
            log.says(&format!("warning: test: a client at {at} spoke HTTP"));
        }
    }
    assert_eq!(log.text().lines().count(), 1, "{}", log.text());
}

//! What the proxy answers of itself: its slow log and its numbers.

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

/// The lines of a section of `INFO`.
fn section(client: &mut Client, line: &str) -> Vec<String> {
    let reply = client.say(line);
    reply.split("\r\n").skip(1).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The number behind this name, in lines of `INFO` or of memcached's `stats`.
fn number(lines: &[String], name: &str) -> u64 {
    let value = |line: &String| line.strip_prefix(name)?.strip_prefix([':', ' '])?.parse().ok();
    lines.iter().find_map(value).unwrap_or_else(|| panic!("no {name} in {lines:?}"))
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

#[test]
fn info_tells_what_all_threads_have_counted_of_the_pool() {
    let servers = [Server::redis(&[]), Server::redis(&[])];
    let proxy = Proxy::start(slow_pool(&servers), 2);
    let mut clients: Vec<Client> = (0..6).map(|_| proxy.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.say(&format!("SET key-{number} x")), "+OK\r\n");
        assert_eq!(client.say(&format!("GET key-{number}")), "$1\r\nx\r\n");
        assert_eq!(client.say("GET nothing"), "$-1\r\n");
        assert!(client.say(&format!("INCR key-{number}")).starts_with("-ERR"));
    }
    drop(clients.pop());
    let asking = &mut clients[0];
    world::eventually("the client has gone", || number(&section(asking, "INFO clients"), "connected_clients") == 5);
    let stats = section(asking, "INFO stats");
    assert_eq!(number(&stats, "total_connections_received"), 6);
    assert!(number(&stats, "total_commands_processed") >= 24);
    assert_eq!((number(&stats, "keyspace_hits"), number(&stats, "keyspace_misses")), (6, 6));
    assert_eq!((number(&stats, "beltway_forward_errors"), number(&stats, "beltway_slow_requests")), (0, 24));
    let received = 6 * (encoded("SET key-0 x") + encoded("GET key-0") + encoded("GET nothing") + encoded("INCR key-0"));
    assert!(number(&stats, "total_net_input_bytes") >= received && number(&stats, "total_net_output_bytes") > 0);
    let server = section(asking, "INFO SERVER");
    assert_eq!(number(&server, "process_id"), u64::from(std::process::id()));
    assert_eq!(number(&server, "beltway_threads"), 2);
    let memory = section(asking, "INFO memory");
    assert_eq!(number(&memory, "beltway_memory_max"), slow_pool(&servers).memory as u64);
    let mut commands = section(asking, "INFO commandstats");
    commands.sort();
    let [title, get, incr, set] = commands.as_slice() else { panic!("{commands:?}") };
    assert!(title == "# Commandstats" && set.starts_with("cmdstat_set:calls=6,usec="), "{commands:?}");
    assert!(get.starts_with("cmdstat_get:calls=12,usec=") && get.ends_with(",failed_calls=0"), "{get}");
    assert!(incr.starts_with("cmdstat_incr:calls=6,usec=") && incr.ends_with(",failed_calls=6"), "{incr}");
}

#[test]
fn large_requests_are_counted_as_others_are() {
    let servers = [Server::redis(&[])];
    let proxy = Proxy::start(pool(&servers, true), 1);
    let (mut client, mut other) = (proxy.client(), proxy.client());
    let mut counted = |name: &str| number(&section(&mut other, "INFO stats"), name);
    let (commands, bytes) = (counted("total_commands_processed"), counted("total_net_input_bytes"));
    let value = "v".repeat(1 << 20);
    // The one passes through, the other is put together: what it does is not said in its beginning.
    assert_eq!(client.ask(&["SET", "key", &value]), "+OK\r\n");
    assert_eq!(client.ask(&["EVAL", "return #ARGV[1]", "0", &value]), format!(":{}\r\n", 1 << 20));
    // Those of this connection in between, of which each is counted when it is answered, and bytes of three.
    assert_eq!(counted("total_commands_processed") - commands, 2 + 2);
    let asked = encoded("INFO stats") * 3;
    let large = kv::wire::resp::request::encode(&["SET", "key", &value]).len()
        + kv::wire::resp::request::encode(&["EVAL", "return #ARGV[1]", "0", &value]).len();
    assert_eq!(counted("total_net_input_bytes") - bytes, large as u64 + asked - encoded("INFO stats"));
}

fn encoded(line: &str) -> u64 {
    kv::wire::resp::request::encode(&line.split(' ').collect::<Vec<_>>()).len() as u64
}

#[test]
fn info_tells_the_sections_that_are_named() {
    let servers = [Server::redis(&[])];
    let proxy = Proxy::start(slow_pool(&servers), 1);
    let mut client = proxy.client();
    let mut titles = |line: &str| -> String {
        let lines = section(&mut client, line);
        lines.iter().filter_map(|line| line.strip_prefix("# ")).collect::<Vec<_>>().join(" ")
    };
    let by_default = "Server Clients Memory Stats Servers";
    assert_eq!(titles("INFO"), by_default);
    assert_eq!(titles("INFO default"), by_default);
    assert_eq!(titles("INFO everything"), format!("{by_default} Commandstats"));
    assert_eq!(titles("INFO CLIENTS server"), "Server Clients");
    assert_eq!(titles("INFO default commandstats"), format!("{by_default} Commandstats"));
    assert_eq!(titles("INFO keyspace"), "");
    assert_eq!(client.say("INFO keyspace"), "$0\r\n\r\n");
}

#[test]
fn memcached_s_clients_are_told_the_proxy_s_own_numbers() {
    let servers = [Server::memcached(), Server::memcached()];
    let proxy = Proxy::start(pool(&servers, false), 2);
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.expect(&format!("set key-{number} 0 0 1\r\nx\r\n"), "STORED\r\n");
        client.expect(&format!("get key-{number}\r\n"), &format!("VALUE key-{number} 0 1\r\nx\r\nEND\r\n"));
        client.expect("gets nothing\r\n", "END\r\n");
        client.expect(&format!("append key-{number} 0 0 1\r\ny\r\n"), "STORED\r\n");
        client.expect(&format!("touch key-{number} 100\r\n"), "TOUCHED\r\n");
    }
    clients[1].send(b"stats proxy\r\n");
    let reply = String::from_utf8(clients[1].memcached_reply()).unwrap();
    let lines: Vec<String> = reply.split("\r\n").map(|line| line.trim_start_matches("STAT ").to_owned()).collect();
    assert!(reply.starts_with("STAT pid ") && reply.ends_with("\r\nEND\r\n"), "{reply}");
    assert_eq!(number(&lines, "pid"), u64::from(std::process::id()));
    let expected = [("threads", 2), ("curr_connections", 4), ("total_connections", 4), ("cmd_get", 8), ("cmd_set", 8)];
    let more = [("cmd_touch", 4), ("cmd_flush", 0), ("get_hits", 4), ("get_misses", 4), ("beltway_forward_errors", 0)];
    for (name, value) in expected.into_iter().chain(more) {
        assert_eq!(number(&lines, name), value, "{name} in {reply}");
    }
    assert!(number(&lines, "bytes_read") > 0 && number(&lines, "bytes_written") > 0, "{reply}");
    assert!(reply.contains(&format!("STAT beltway_server1 live 127.0.0.1:{}\r\n", servers[1].port)), "{reply}");
    // Those of servers are as they were, and those of one are still refused.
    clients[0].send(b"stats\r\n");
    assert!(clients[0].memcached_reply().starts_with(b"STAT beltway_servers 2\r\n"));
    clients[0].expect("stats items\r\n", "SERVER_ERROR these stats are those of one server, ask it directly\r\n");
    clients[0].expect("stats proxy x\r\n", "SERVER_ERROR these stats are those of one server, ask it directly\r\n");
}

//! What operators see of pools: the numbers of each command, told in three ways, what is kept, and the slow log.

#![allow(clippy::unwrap_used, reason = "a walk that cannot set up its surroundings fails")]

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use walks::kv::{KvClient, KvTree, Metrics, Store};
use walks::{eventually, free_address, now, pause};

/// What is slow in these walks. No test needs anything to be faster than this.
const SLOW: Duration = Duration::from_millis(200);
/// Times are good to a turn of the event loop, or several: more than those.
const BLUR: Duration = Duration::from_millis(50);
/// The bytes of an argument that the slow log tells.
const ARGUMENT_MAX: usize = 64;

fn pool(name: &str, listen: SocketAddr, keys: &str, servers: &[(&Store, &str)]) -> String {
    let server = |(store, name): &(&Store, &str)| format!("    - \"{}:1 {name}\"\n", store.address());
    let servers: String = servers.iter().map(server).collect();
    format!("{name}:\n  listen: {listen}\n  timeout: 60s\n{keys}  servers:\n{servers}")
}

/// How often a command was called, and how often that was an error.
fn called(metrics: &Metrics, pool: &str, protocol: &str, command: &str) -> (Option<f64>, f64) {
    let labels = format!("{{pool=\"{pool}\",protocol=\"{protocol}\",command=\"{command}\"}}");
    let errors = metrics.sample(&format!("beltway_kv_command_error_replies_total{labels}"));
    (metrics.sample(&format!("beltway_kv_command_calls_total{labels}")), errors.unwrap_or(0.0))
}

/// A field of all servers of a pool in twemproxy's line.
fn of_servers(pool: &Value, field: &str) -> u64 {
    let servers = pool.as_object().unwrap().values().filter(|value| value.is_object());
    servers.map(|server| server[field].as_u64().unwrap()).sum()
}

#[test]
fn what_clients_ask_is_counted_by_pool_and_command_wherever_numbers_are_told() {
    let (one, two, cache) = (Store::redis(&[]), Store::redis(&[]), Store::memcached());
    let [alpha, beta] = [(); 2].map(|()| free_address());
    let tree = KvTree::run_counted(&format!(
        "{}{}",
        pool("alpha", alpha, "  redis: true\n  hash: murmur\n", &[(&one, "one"), (&two, "two")]),
        pool("beta", beta, "", &[(&cache, "cache")])
    ));
    let mut client = KvClient::connect(alpha);
    for key in 0..20 {
        assert_eq!(client.ask(&format!("SET key:{key} x")).unwrap(), "+OK\r\n");
        assert_eq!(client.ask(&format!("GET key:{key}")).unwrap(), "$1\r\nx\r\n");
    }
    for key in 0..10 {
        assert_eq!(client.ask(&format!("get none:{key}")).unwrap(), "$-1\r\n");
    }
    for key in 0..3 {
        assert!(client.ask(&format!("INCR key:{key}")).unwrap().starts_with("-ERR value is not"));
    }
    let all: String = (0..20).map(|key| format!(" key:{key}")).collect();
    assert!(client.ask(&format!("MGET{all}")).unwrap().starts_with("*20\r\n$1\r\nx\r\n"));
    assert_eq!(client.ask("PING").unwrap(), "+PONG\r\n");
    assert!(client.ask("NONSENSE").unwrap().starts_with("-ERR unknown command"));
    let mut client = KvClient::connect(beta);
    for key in 0..5 {
        assert_eq!(client.until(&format!("set key:{key} 0 0 1\r\nx\r\n"), "\r\n").unwrap(), "STORED\r\n");
        assert_eq!(client.until(&format!("get key:{key}\r\n"), "END\r\n").unwrap().matches("VALUE").count(), 1);
    }
    assert_eq!(client.until("get none\r\n", "END\r\n").unwrap(), "END\r\n");
    assert!(client.until("incr key:1 1\r\n", "\r\n").unwrap().starts_with("CLIENT_ERROR"));

    // Prometheus. A part of a split command is a call, and what servers are not asked is none.
    let metrics = tree.metrics();
    let redis = ["set", "get", "incr", "mget", "ping"].map(|name| called(&metrics, "alpha", "redis", name));
    let expected = [(Some(20.0), 0.0), (Some(30.0), 0.0), (Some(3.0), 3.0), (Some(2.0), 0.0), (None, 0.0)];
    assert_eq!(redis, expected);
    let memcached = ["set", "get", "incr", "delete"].map(|name| called(&metrics, "beta", "memcached", name));
    assert_eq!(memcached, [(Some(5.0), 0.0), (Some(6.0), 0.0), (Some(1.0), 1.0), (None, 0.0)]);
    let of_pool = |name: &str| ["alpha", "beta"].map(|pool| metrics.sample(&name.replace("POOL", pool)).unwrap());
    assert_eq!(of_pool("beltway_kv_pool_requests_total{pool=\"POOL\"}"), [56.0, 12.0]);
    assert_eq!(of_pool("beltway_kv_pool_reads_total{pool=\"POOL\",found=\"something\"}"), [40.0, 5.0]);
    assert_eq!(of_pool("beltway_kv_pool_reads_total{pool=\"POOL\",found=\"nothing\"}"), [10.0, 1.0]);
    assert_eq!(of_pool("beltway_kv_pool_clients_open{pool=\"POOL\"}"), [1.0, 1.0]);

    // Of each command also bytes, what reads found, and how long it took; of servers what reads found.
    let command = |pool: &str, protocol: &str, command: &str, name: &str, more: &str| {
        let labels = format!("{{pool=\"{pool}\",protocol=\"{protocol}\",command=\"{command}\"{more}}}");
        metrics.sample(&format!("beltway_kv_command_{name}{labels}")).unwrap_or(0.0)
    };
    let reads = |pool: &str, protocol: &str, name: &str| {
        ["something", "nothing"]
            .map(|found| command(pool, protocol, name, "reads_total", &format!(",found=\"{found}\"")))
    };
    assert_eq!(reads("alpha", "redis", "get"), [20.0, 10.0]);
    assert_eq!(reads("alpha", "redis", "mget"), [20.0, 0.0]);
    assert_eq!(reads("alpha", "redis", "set"), [0.0, 0.0]);
    assert_eq!(reads("beta", "memcached", "get"), [5.0, 1.0]);
    let len = |line: &str| walks::kv::request(line).len();
    let asked: usize = (0..20).map(|key| len(&format!("GET key:{key}"))).sum();
    let asked = asked + (0..10).map(|key| len(&format!("GET none:{key}"))).sum::<usize>();
    let told = ["request", "reply"].map(|which| command("alpha", "redis", "get", &format!("{which}_bytes_total"), ""));
    #[expect(clippy::cast_precision_loss, reason = "they are small")]
    let expected = [asked as f64, (20 * "$1\r\nx\r\n".len() + 10 * "$-1\r\n".len()) as f64];
    assert_eq!(told, expected);
    for (name, count) in [("get", 30.0), ("set", 20.0), ("incr", 3.0), ("mget", 2.0)] {
        assert_eq!(command("alpha", "redis", name, "seconds_count", ""), count);
    }
    let servers = tree.json(&["ctl", "kv", "servers"]);
    let of_servers_of = |pool: &str, field: &str| -> u64 {
        servers[pool].as_array().unwrap().iter().map(|server| server[field].as_u64().unwrap()).sum()
    };
    let found = ["alpha", "beta"].map(|pool| ["hits", "misses"].map(|field| of_servers_of(pool, field)));
    assert_eq!(found, [[40, 10], [5, 1]]);

    // `ctl`.
    let top = tree.json(&["ctl", "kv", "top"]);
    let get = top.as_array().unwrap().iter().find(|row| row["pool"] == "alpha" && row["name"] == "get").unwrap();
    assert_eq!((&get["hits"], &get["misses"], &get["time"]["count"]), (&20.into(), &10.into(), &30.into()));
    let row = |pool: &str, name: &str| {
        let found = top.as_array().unwrap().iter().find(|row| row["pool"] == pool && row["name"] == name);
        found.map(|row| (row["calls"].as_u64().unwrap(), row["error_replies"].as_u64().unwrap()))
    };
    let redis = ["set", "get", "incr", "mget", "ping"].map(|name| row("alpha", name));
    assert_eq!(redis, [Some((20, 0)), Some((30, 0)), Some((3, 3)), Some((2, 0)), None], "{top}");
    let memcached = ["set", "get", "incr"].map(|name| row("beta", name));
    assert_eq!(memcached, [Some((5, 0)), Some((6, 0)), Some((1, 1))], "{top}");
    let told = tree.done(&["ctl", "kv", "top"]);
    assert!(told.lines().any(|line| line.starts_with("alpha") && line.contains(" mget ")), "{told}");

    // twemproxy's line.
    let line = tree.stats();
    let of = |field: &str| ["alpha", "beta"].map(|pool| of_servers(&line[pool], field));
    assert_eq!((of("requests"), of("responses")), ([55, 12], [55, 12]), "{line}");
    assert_eq!((of("in_queue"), of("out_queue"), of("server_timedout")), ([0, 0], [0, 0], [0, 0]), "{line}");
    let of = |field: &str| ["alpha", "beta"].map(|pool| line[pool][field].as_u64().unwrap());
    assert_eq!((of("fragments"), of("client_connections"), of("forward_error")), ([2, 0], [1, 1], [0, 0]), "{line}");

    // Whoever dies and whoever takes over, numbers never go back, wherever they are told.
    let all = |wanted: u64| {
        eventually("the numbers go on", || {
            let metrics = tree.metrics();
            assert!(called(&metrics, "alpha", "redis", "get").0 >= Some(30.0));
            let pool = tree.json(&["ctl", "kv", "pools"])[0]["requests"].as_u64().unwrap();
            let servers = tree.json(&["ctl", "kv", "servers"]);
            let servers: u64 =
                servers["alpha"].as_array().unwrap().iter().map(|server| server["requests"].as_u64().unwrap()).sum();
            let top = tree.json(&["ctl", "kv", "top"]);
            let top = top.as_array().unwrap().iter().find(|row| row["pool"] == "alpha" && row["name"] == "get");
            let top = top.unwrap()["calls"].as_u64().unwrap();
            let line = of_servers(&tree.stats()["alpha"], "requests");
            let of_metrics = called(&metrics, "alpha", "redis", "get").0.unwrap();
            assert!(pool >= 56 && servers >= 55 && top >= 30 && line >= 55, "{pool} {servers} {top} {line}");
            let more = [pool - 56, servers - 55, top - 30, line - 55];
            #[expect(clippy::cast_precision_loss, reason = "it is small")]
            let same = of_metrics == (30 + wanted) as f64;
            (more == [wanted; 4] && same).then_some(())
        });
    };
    let one_more = || assert_eq!(KvClient::connect(alpha).ask("GET key:1").unwrap(), "$1\r\nx\r\n");
    all(0);
    tree.done(&["restart"]);
    one_more();
    all(1);
    // More than are kept apart: they are added up meanwhile.
    for death in 2..12 {
        let server = tree.server();
        assert!(walks::process::send(server, Signal::KILL));
        eventually("another serves", || (tree.server() != server).then_some(()));
        one_more();
        if death % 4 == 0 {
            all(death);
        }
    }
    all(11);
}

#[test]
fn what_no_server_answered_is_told_by_command_and_why() {
    let (alpha, nobody) = (free_address(), free_address());
    let mut silent = Store::redis(&[]);
    let beta = free_address();
    let tree = KvTree::run_counted(&format!(
        "alpha:\n  listen: {alpha}\n  redis: true\n  servers:\n    - \"{nobody}:1 nobody\"\n\
         beta:\n  listen: {beta}\n  redis: true\n  timeout: 100ms\n  servers:\n    - \"{}:1 silent\"\n",
        silent.address()
    ));
    let mut client = KvClient::connect(alpha);
    for _ in 0..3 {
        assert!(client.ask("GET a").unwrap().starts_with("-ERR"));
    }
    assert!(client.ask("HSET a b c").unwrap().starts_with("-ERR"));
    silent.process().signal(Signal::STOP);
    assert!(KvClient::connect(beta).ask("INCR a").unwrap().contains("timed out"));
    silent.process().signal(Signal::CONT);
    let top = tree.json(&["ctl", "kv", "top"]);
    let failed = |pool: &str, name: &str| {
        let row = top.as_array().unwrap().iter().find(|row| row["pool"] == pool && row["name"] == name);
        let row = row.unwrap_or_else(|| panic!("no {name} of {pool} in {top}"));
        (row["forward_errors"].as_u64().unwrap(), row["forward_errors_by"].clone())
    };
    assert_eq!(failed("alpha", "get"), (3, serde_json::json!({"refused": 3})));
    assert_eq!(failed("alpha", "hset"), (1, serde_json::json!({"refused": 1})));
    assert_eq!(failed("beta", "incr"), (1, serde_json::json!({"timed_out": 1})));
    let sample = "beltway_kv_command_forward_errors_total\
                  {pool=\"alpha\",protocol=\"redis\",command=\"get\",kind=\"refused\"}";
    assert_eq!(tree.metrics().sample(sample), Some(3.0));
}

/// Requests of a pool that wait to be sent or answered, as of a moment ago.
fn waiting(tree: &KvTree, pool: &str) -> u64 {
    let servers = tree.json(&["ctl", "kv", "servers"]);
    let number = |server: &Value, field: &str| server[field].as_u64().unwrap();
    let of = |server: &Value| number(server, "in_queue") + number(server, "out_queue");
    servers[pool].as_array().unwrap().iter().map(of).sum()
}

/// Asks for something of a store that is stopped until the answer is surely slow. The answer, and how long it was
/// waited for.
fn slowly(tree: &KvTree, pool: &str, store: &mut Store, ask: impl FnOnce() -> String + Send) -> (String, Duration) {
    eventually("nothing is asked", || (waiting(tree, pool) == 0).then_some(()));
    store.process().signal(Signal::STOP);
    let begin = now();
    std::thread::scope(|scope| {
        let asking = scope.spawn(ask);
        eventually("the request has arrived", || (waiting(tree, pool) > 0).then_some(()));
        pause(SLOW + BLUR);
        store.process().signal(Signal::CONT);
        (asking.join().unwrap(), begin.elapsed())
    })
}

#[test]
fn a_slow_request_is_in_the_slow_log_with_its_key_its_server_and_its_time() {
    let (mut one, mut two, mut silent, mut cache) =
        (Store::redis(&[]), Store::redis(&[]), Store::redis(&[]), Store::memcached());
    let [alpha, quiet, beta] = [(); 3].map(|()| free_address());
    let slow = format!("  slowlog: {}ms\n", SLOW.as_millis());
    let redis = format!("  redis: true\n  hash: murmur\n{slow}");
    let tree = KvTree::run_counted(&format!(
        "{}{}{}",
        pool("alpha", alpha, &redis, &[(&one, "one"), (&two, "two")]),
        pool("quiet", quiet, "  redis: true\n  slowlog: 0\n", &[(&silent, "silent")]),
        pool("beta", beta, &slow, &[(&cache, "cache")]),
    ));
    let key = format!("key:{}", "k".repeat(300));
    let place = tree.places("alpha", &[&key]);
    let (name, store) = if place.contains("called one") { ("one", &mut one) } else { ("two", &mut two) };
    let mut client = KvClient::connect(alpha);
    assert_eq!(client.ask("CLIENT SETNAME me").unwrap(), "+OK\r\n");
    assert_eq!(client.ask(&format!("SET {key} value")).unwrap(), "+OK\r\n");
    let (answer, waited) = slowly(&tree, "alpha", store, || client.ask(&format!("GET {key}")).unwrap());
    assert_eq!(answer, "$5\r\nvalue\r\n");
    let mut of_quiet = KvClient::connect(quiet);
    let (answer, _) = slowly(&tree, "quiet", &mut silent, || of_quiet.ask("GET unseen").unwrap());
    assert_eq!(answer, "$-1\r\n");
    let mut of_beta = KvClient::connect(beta);
    let set = "set seen 0 0 3\r\nabc\r\n";
    let (answer, _) = slowly(&tree, "beta", &mut cache, || of_beta.until(set, "\r\n").unwrap());
    assert_eq!(answer, "STORED\r\n");

    // Others may be slow, too, on a machine that is: they are older, of other commands, or of other pools.
    let log = tree.json(&["ctl", "kv", "slowlog"]);
    let log = log.as_array().unwrap();
    let find = |pool: &str, command: &str| {
        let found = log.iter().find(|entry| entry["pool"] == pool && entry["command"] == command);
        found.unwrap_or_else(|| panic!("no {command} of {pool} in {log:?}"))
    };
    let got = find("alpha", "get");
    assert_eq!((&got["server"], &got["argument"]), (&name.into(), &key[..ARGUMENT_MAX].into()));
    assert_eq!(got["argument_more"].as_u64(), u64::try_from(key.len() - ARGUMENT_MAX).ok());
    assert_eq!((&got["client"], &got["client_name"]), (&client.local_address().into(), &"me".into()));
    let asked = u64::try_from(walks::kv::request(&format!("GET {key}")).len()).unwrap();
    assert_eq!(got["bytes"].as_u64(), Some(asked));
    let took = Duration::from_micros(got["took_us"].as_u64().unwrap());
    // Generous above: that it is in the right unit.
    assert!(took >= SLOW && took < waited * 10, "{took:?} of {waited:?}");
    let set = find("beta", "set");
    assert_eq!((&set["server"], &set["argument"]), (&"cache".into(), &"seen".into()));
    assert!(set["took_us"].as_u64().unwrap() >= u64::try_from(SLOW.as_micros()).unwrap());
    let at = |entry: &Value| entry["at_us"].as_i64().unwrap();
    assert!(at(set) > at(got), "the one was asked after the other had been answered");
    assert!(log.iter().is_sorted_by(|newer, older| at(newer) >= at(older)), "the newest first: {log:?}");
    assert!(log.iter().all(|entry| entry["pool"] != "quiet"), "{log:?}");
    let told = tree.done(&["ctl", "kv", "slowlog"]);
    assert!(told.lines().any(|line| line.contains(" set ") && line.ends_with("  seen")), "{told}");

    // A client reads its pool's, whichever thread it is on.
    let reply = KvClient::connect(alpha).ask("SLOWLOG GET -1").unwrap();
    let words = format!("\r\n$3\r\nget\r\n$84\r\n{}... (240 more bytes)\r\n", &key[..ARGUMENT_MAX]);
    assert!(reply.contains(&words) && !reply.contains("seen"), "{reply}");
    assert_eq!(KvClient::connect(quiet).ask("SLOWLOG GET").unwrap(), "*0\r\n");
}

#[test]
fn what_a_pool_keeps_is_told_while_it_keeps_it() {
    const VALUE: usize = 32 << 10;
    const ASKED: usize = 20;
    let (mut one, two) = (Store::redis(&[]), Store::redis(&[]));
    let alpha = free_address();
    let keys = "  redis: true\n  hash: murmur\n  hash_tag: \"{}\"\n  memory: 16MiB\n";
    let tree = KvTree::run_counted(&pool("alpha", alpha, keys, &[(&one, "one"), (&two, "two")]));
    let tag_on = |name: &str| {
        let tags = (0..).map(|at| format!("{{{at}}}"));
        let lives = |tag: &String| tree.places("alpha", &[tag]).contains(&format!("called {name}"));
        tags.take(100).find(lives).unwrap()
    };
    let (late, large) = (tag_on("one"), tag_on("two"));
    let mut client = KvClient::connect(alpha);
    assert_eq!(client.ask(&format!("SET {late} x")).unwrap(), "+OK\r\n");
    assert_eq!(client.ask(&format!("SET {large} {}", "v".repeat(VALUE))).unwrap(), "+OK\r\n");
    let kept = || {
        let told = tree.json(&["ctl", "kv", "pools"])[0].clone();
        assert_eq!(told["memory_max_bytes"].as_u64(), Some(16 << 20));
        told["memory_bytes"].as_u64().unwrap()
    };
    eventually("nothing is kept", || (kept() == 0).then_some(()));
    // The first is answered last, and what comes for the others waits for it.
    one.process().signal(Signal::STOP);
    client.send(&walks::kv::request(&format!("GET {late}"))).unwrap();
    for _ in 0..ASKED {
        client.send(&walks::kv::request(&format!("GET {large}"))).unwrap();
    }
    let all = u64::try_from(ASKED * VALUE).unwrap();
    eventually("the replies are kept", || (kept() >= all).then_some(()));
    let told = tree.metrics().sample("beltway_kv_pool_memory_bytes{pool=\"alpha\"}").unwrap();
    assert!((655_360.0..1_000_000.0).contains(&told), "{told}");
    let table = tree.done(&["ctl", "kv", "pools"]);
    assert!(table.lines().next().is_some_and(|line| line.contains("memory KiB")), "{table}");
    // The proxy's own thread may be another one.
    let info = KvClient::connect(alpha).ask("INFO memory").unwrap();
    let told: u64 = info.split("beltway_memory:").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
    assert!(told >= all && info.contains("\r\nbeltway_memory_max:16777216\r\n"), "{info}");
    one.process().signal(Signal::CONT);
    assert_eq!(client.reply().unwrap(), "$1\r\nx\r\n");
    for _ in 0..ASKED {
        assert_eq!(client.reply().unwrap().len(), "$32768\r\n\r\n".len() + VALUE);
    }
    eventually("all of it is given back", || (kept() == 0).then_some(()));
}

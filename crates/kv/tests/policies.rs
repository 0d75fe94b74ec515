//! What an operator may choose: what becomes of an ejected server's keys, and of a part that fails.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use kv::commands::{Access, Treat};
use kv::{EjectPolicy, MultigetPolicy, PoolSource};
use world::{Proxy, Server, eventually, pool};

/// Keys that live on the one and on the other of two servers of Redis.
fn apart(servers: &[Server], proxy: &Proxy) -> [String; 2] {
    let mut client = proxy.client();
    let mut on = |server: usize| {
        let mut keys = (0..1_000).map(|n| format!("{n}:{}", n * 7919));
        let is_there = |key: &String| {
            assert_eq!(client.ask(&["SET", key, "x"]), "+OK\r\n");
            servers[server].client().ask(&["EXISTS", key]) == ":1\r\n"
        };
        keys.find(is_there).expect("some key lives there")
    };
    [on(0), on(1)]
}

#[test]
fn reads_of_an_ejected_servers_keys_find_nothing_where_the_policy_says_so() {
    let mut servers: Vec<Server> = (0..2).map(|_| Server::redis(&[])).collect();
    let source = PoolSource {
        auto_eject_hosts: true,
        server_failure_limit: 1,
        server_retry_timeout: Duration::from_millis(200),
        eject_policy: EjectPolicy::Miss,
        ..pool(&servers, true)
    };
    let proxy = Proxy::start(source, 1);
    let [here, there] = apart(&servers, &proxy);
    let mut client = proxy.client();
    // Known to the proxy as well: what is in flight when the server dies.
    servers[1].kill();
    for _ in 0..3 {
        assert_eq!(client.ask(&["GET", &there]), "$-1\r\n");
        assert_eq!(client.ask(&["GET", &here]), "$1\r\nx\r\n");
        assert_eq!(client.ask(&["MGET", &here, &there, &here]), "*3\r\n$1\r\nx\r\n$-1\r\n$1\r\nx\r\n");
        assert_eq!(client.ask(&["EXISTS", &here, &there]), ":1\r\n");
        assert_eq!(client.ask(&["HMGET", &there, "a", "b"]), "*2\r\n$-1\r\n$-1\r\n");
        assert_eq!(client.ask(&["OBJECT", "ENCODING", &there]), "$-1\r\n");
    }
    assert_eq!(client.ask(&["SET", &there, "y"]), "-ERR Connection refused\r\n");
    assert_eq!(client.ask(&["DEL", &here, &there]), "-ERR Connection refused\r\n");
    // In their order among others.
    client.put(&["SET", &here, "z"]);
    client.put(&["GET", &there]);
    client.put(&["GET", &here]);
    let replies: Vec<Vec<u8>> = (0..3).map(|_| client.reply()).collect();
    assert_eq!(replies, [b"+OK\r\n".to_vec(), b"$-1\r\n".to_vec(), b"$1\r\nz\r\n".to_vec()]);
    assert!(client.say("INFO").contains("state=ejected"));
    servers[1].run();
    eventually("it takes writes again", || client.ask(&["SET", &there, "new"]) == "+OK\r\n");
    assert_eq!(client.ask(&["GET", &there]), "$3\r\nnew\r\n");
}

#[test]
fn a_server_that_has_nothing_answers_as_the_table_of_nothing_says() {
    let server = Server::redis(&[]);
    let mut client = server.client();
    let mut compared = BTreeSet::new();
    for line in [
        "GET k",
        "HGET k f",
        "LINDEX k 0",
        "DUMP k",
        "ZSCORE k m",
        "GEODIST k a b",
        "MEMORY USAGE k",
        "OBJECT ENCODING k",
        "OBJECT FREQ k",
        "OBJECT IDLETIME k",
        "OBJECT REFCOUNT k",
        "ZRANK k m",
        "ZREVRANK k m",
        "HRANDFIELD k",
        "HRANDFIELD k 2",
        "HRANDFIELD k 2 WITHVALUES",
        "SRANDMEMBER k",
        "SRANDMEMBER k -3",
        "ZRANDMEMBER k",
        "ZRANDMEMBER k 1",
        "LPOS k e",
        "LPOS k e RANK 1",
        "LPOS k e COUNT 0",
        "HGETALL k",
        "HKEYS k",
        "HVALS k",
        "LRANGE k 0 -1",
        "SMEMBERS k",
        "SDIFF k j",
        "SINTER k",
        "SUNION k j",
        "ZDIFF 1 k",
        "ZINTER 2 k j",
        "ZUNION 1 k",
        "ZRANGE k 0 -1",
        "ZRANGEBYLEX k - +",
        "ZRANGEBYSCORE k 0 1",
        "ZREVRANGE k 0 1",
        "ZREVRANGEBYLEX k + -",
        "ZREVRANGEBYSCORE k 1 0",
        "XRANGE k - +",
        "XREVRANGE k + -",
        "GEORADIUS_RO k 1 1 1 m",
        "GEORADIUSBYMEMBER_RO k m 1 m",
        "GEOSEARCH k FROMLONLAT 1 1 BYRADIUS 1 m",
        "SORT_RO k",
        "XREAD STREAMS k 0",
        "XREAD COUNT 2 STREAMS k j 0 0",
        "BITCOUNT k",
        "EXISTS k j",
        "GETBIT k 7",
        "HEXISTS k f",
        "HLEN k",
        "HSTRLEN k f",
        "LLEN k",
        "PFCOUNT k j",
        "SCARD k",
        "SINTERCARD 1 k",
        "SISMEMBER k m",
        "STRLEN k",
        "TOUCH k j",
        "XLEN k",
        "ZCARD k",
        "ZCOUNT k 0 1",
        "ZINTERCARD 1 k",
        "ZLEXCOUNT k - +",
        "BITPOS k 0",
        "BITPOS k 1",
        "BITPOS k 1 2 3",
        "TTL k",
        "PTTL k",
        "EXPIRETIME k",
        "PEXPIRETIME k",
        "GETRANGE k 0 3",
        "SUBSTR k 0 3",
        "TYPE k",
        "HSCAN k 0",
        "SSCAN k 0 COUNT 3",
        "ZSCAN k 0",
        "LCS k j",
        "LCS k j LEN",
        "LCS k j IDX",
        "LCS k len",
        "LCS k idx",
        "LPOS k count",
        "LPOS k count COUNT 2",
        "MGET k j k",
        "HMGET k a b",
        "ZMSCORE k a b",
        "GEOHASH k a",
        "SMISMEMBER k a b c",
        "GEOPOS k a b",
        "XINFO STREAM k",
        "XINFO GROUPS k",
        "XINFO CONSUMERS k g",
        "XPENDING k g",
        "BITFIELD_RO k",
        "BITFIELD_RO k GET u8 0",
        "BITFIELD_RO k get i64 #3 GET u63 7 GET u1 #9",
    ] {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let command = kv::commands::of_request(words.len(), |at| words.get(at).copied().unwrap_or_default()).unwrap();
        let told = nothing(line).unwrap_or_else(|| panic!("{line} has no row"));
        assert_eq!(told, client.say(line), "{line}");
        compared.insert(command.name);
    }
    // What only a server can tell, and what this one does not know.
    compared.extend(["eval_ro", "evalsha_ro", "fcall_ro"]);
    for name in ["hexpiretime", "hpexpiretime", "hpttl", "httl"] {
        let line = format!("{name} k FIELDS 2 a b");
        assert_eq!(nothing(&line).as_deref(), Some("*2\r\n:-2\r\n:-2\r\n"));
        let known = client.say(&line);
        assert!(known.starts_with("-ERR unknown command") || known == nothing(&line).unwrap(), "{line}: {known}");
        compared.insert(name);
    }
    let reads = kv::commands::all()
        .iter()
        .filter(|command| command.access == Access::Read && matches!(command.treat, Treat::Forward | Treat::Split(_)));
    let left: Vec<_> = reads.map(|command| command.name).filter(|name| !compared.contains(name)).collect();
    assert!(left.is_empty(), "no row for {left:?}");
}

/// What is said where there is nothing, of a command by this line.
fn nothing(line: &str) -> Option<String> {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let argument = |at: usize| words.get(at).copied().unwrap_or_default();
    let command = kv::commands::of_request(words.len(), argument).unwrap();
    let told = command.takes(words.len()).then(|| kv::commands::nothing(command, words.len(), argument));
    told.flatten().map(|told| String::from_utf8(told).unwrap())
}

#[test]
fn what_a_server_would_say_is_wrong_with_a_request_is_not_said_in_its_place() {
    let server = Server::redis(&[]);
    let mut client = server.client();
    for line in [
        "BITFIELD_RO k GET u64 0",
        "BITFIELD_RO k GET u8",
        "BITFIELD_RO k GET u8 x",
        "BITFIELD_RO k GET u8 +1",
        "BITFIELD_RO k GET U8 1",
        "BITFIELD_RO k GET i64 #67108864",
        "BITFIELD_RO k GET u8 4294967296",
        "BITFIELD_RO k GET i65 0",
        "BITFIELD_RO k GET i8 -1",
        "BITFIELD_RO k SET u8 0 1",
        "XPENDING k g x",
        "XINFO GROUPS k x",
    ] {
        assert_eq!(nothing(line), None, "{line}");
        assert!(client.say(line).starts_with("-ERR"), "{line}");
    }
    for line in ["HTTL k FIELDS 2 a", "HTTL k FIELDS 0 a", "HTTL k x 1 a", "EVAL_RO x 1 k", "SET k v", "DBSIZE"] {
        assert_eq!(nothing(line), None, "{line}");
    }
}

#[test]
fn keys_of_a_part_that_fails_are_missing_or_the_whole_is_an_error_by_policy() {
    for policy in [MultigetPolicy::Error, MultigetPolicy::Miss] {
        let mut servers: Vec<Server> = (0..2).map(|_| Server::memcached()).collect();
        let proxy = Proxy::start(PoolSource { multiget_policy: policy, ..pool(&servers, false) }, 1);
        let mut client = proxy.client();
        let keys: Vec<String> = (0..40).map(|n| format!("{n}:{}", n * 7919)).collect();
        for key in &keys {
            client.expect(&format!("set {key} 0 0 1\r\nx\r\n"), "STORED\r\n");
        }
        let mut left = servers[0].client();
        let mut expected = String::new();
        for key in &keys {
            left.send(format!("get {key}\r\n").as_bytes());
            let mut got = left.take(5);
            if got == b"VALUE" {
                while !got.ends_with(b"END\r\n") {
                    got.extend(left.take(1));
                }
                expected.push_str(std::str::from_utf8(&got[..got.len() - 5]).unwrap());
            }
        }
        servers[1].kill();
        let all = format!("get {}\r\n", keys.join(" "));
        match policy {
            MultigetPolicy::Error => client.expect(&all, "SERVER_ERROR Connection re"),
            MultigetPolicy::Miss => client.expect(&all, &format!("{expected}END\r\n")),
        }
        let mut servers = servers;
        servers[0].kill();
        proxy.client().expect(&all, "SERVER_ERROR Connection re");
    }
}

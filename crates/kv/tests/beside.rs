//! The same bytes to a server and through a pool of several: what is said, and what becomes of the connection, is the same
//! where nothing else is written down.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use std::fmt::Write as _;
use std::io::Write as _;

use world::{Proxy, Server, pool};

/// Two servers behind a pool, and one beside it.
struct Sides {
    proxy: Proxy,
    alone: Server,
    servers: Vec<Server>,
}

impl Sides {
    fn memcached() -> Self {
        Self::of(Server::memcached, false)
    }

    fn redis() -> Self {
        Self::of(|| Server::redis(&[]), true)
    }

    fn of(start: impl Fn() -> Server, redis: bool) -> Self {
        let servers: Vec<_> = (0..2).map(|_| start()).collect();
        Self { proxy: Proxy::start(pool(&servers, redis), 1), alone: start(), servers }
    }

    /// What each says to these bytes until its end, which `quit` brings.
    fn say(&self, bytes: &[u8]) -> [String; 2] {
        [self.alone.client(), self.proxy.client()].map(|mut client| {
            // Who closes early may reset what is still being sent.
            let _ = client.stream.write_all(&[bytes, b"quit\r\n"].concat());
            client.rest()
        })
    }

    fn agree(&self, bytes: &str) -> String {
        let [alone, pool] = self.say(bytes.as_bytes());
        assert_eq!(pool, alone, "after {bytes:?}");
        pool
    }
}

#[test]
fn a_value_is_stored_whatever_the_numbers_before_it_that_memcached_takes() {
    let sides = Sides::memcached();
    let data = "delete vict\r\nget k vict\r\n";
    for line in [
        "set k 0 2208988800 11",
        "set k 0 4294967295 11",
        "set k 0 4294967297 11 noreply",
        "set k 0 -2147483649 11",
        "set k 0 9223372036854775807 11",
        "set k 4294967295 0 11",
        "set k 4294967296 0 11",
        "set k 18446744073709551615 0 11",
        "set k -18446744073709551615 0 11",
        "set k +5 0 11",
        "set k 007 -0 0011",
        "set k 1\t \t1 11\tx",
        "set k 0 0 4294967307",
        "set k 0 0 -4294967285",
        "cas k 0 0 11 18446744073709551615",
        "cas k 0 0 11 +1",
        "add other 4294967297 4294967295 11",
        "set k 0 0 11 whatever",
    ] {
        let said = sides.agree(&format!("set vict 0 0 1\r\n1\r\n{line}\r\n{data}"));
        assert!(said.contains("VALUE vict"), "after {line}: {said}");
    }
    // As pymemcache says it.
    sides.agree("set e 0 2179000000 1\r\nv\r\nget e\r\n");
}

#[test]
fn a_value_is_no_request_where_its_line_is_refused() {
    let sides = Sides::memcached();
    let long = "l".repeat(251);
    let wide = " ".repeat(3_000);
    for line in [
        "set k x 0 11",
        "set k -1 0 11",
        "set k 0 9223372036854775808 11",
        "set k 0 x 11 noreply",
        "set k b 0 0 11",
        "set k b c 0 0 11",
        "cas k 0 0 11",
        "cas k 0 0 11 x",
        &format!("set {long} 0 0 11"),
        &format!("set k 0 0{wide}11"),
        "set k\0 0 0 11",
    ] {
        let mut client = sides.proxy.client();
        client.expect("set vict 0 0 1\r\n1\r\n", "STORED\r\n");
        let before = format!("{line}\r\n");
        client.send(before.as_bytes());
        if !line.ends_with("noreply") {
            let said = String::from_utf8(client.memcached_reply()).unwrap();
            assert!(said.starts_with("CLIENT_ERROR ") || said == "ERROR\r\n", "{said}");
        }
        // It is answered before its data have come, and they are dropped in pieces as well.
        for byte in b"delete vict\r" {
            client.send(&[*byte]);
        }
        client.expect("\nget vict\r\n", "VALUE vict 0 1\r\n1\r\nEND\r\n");
    }
    // More than anybody holds is dropped while it comes.
    let large = 70 << 20;
    let mut client = sides.proxy.client();
    client.expect(&format!("set k x 0 {large}\r\n"), "CLIENT_ERROR bad command line format\r\n");
    let piece = b"delete vict\r\n".repeat(10_000);
    for at in (0..large).step_by(piece.len()) {
        client.send(&piece[..piece.len().min(large - at)]);
    }
    client.expect("\r\nget vict\r\n", "VALUE vict 0 1\r\n1\r\nEND\r\n");
}

#[test]
fn a_retrieval_may_be_as_long_as_the_keys_of_a_page() {
    let sides = Sides::memcached();
    let keys = |count: usize, len: usize| {
        (0..count).fold(String::new(), |mut line, at| {
            write!(line, " k{at:0>len$}").unwrap();
            line
        })
    };
    let (some, many) = (keys(5_000, 20), keys(30_000, 40));
    for name in ["get", "gets"] {
        assert_eq!(sides.agree(&format!("{name}{some}\r\n{name}{many}\r\n")), "END\r\nEND\r\n");
    }
    // A server closes the connection for a longer one of these.
    assert_eq!(sides.agree(&format!("gat 100{}\r\n", keys(230, 20))), "END\r\n");
    // Of these it gets several short ones.
    for pool in [pool(&sides.servers, false), pool(&sides.servers[..1], false)] {
        let proxy = Proxy::start(pool, 1);
        let mut client = proxy.client();
        let time = " ".repeat(2_100);
        client.expect("set k00000000000000000007 5 0 1\r\nx\r\n", "STORED\r\n");
        let found = "VALUE k00000000000000000007 5 1\r\nx\r\nEND\r\n";
        client.expect(&format!("gat 100{some}\r\ngat{time}100 k00000000000000000007\r\n"), &found.repeat(2));
        client.expect(&format!("gat x{some}\r\n"), "CLIENT_ERROR invalid exptime argument\r\n");
        client.expect(&format!("gat 100{many}\r\nversion\r\n"), "END\r\nVERSION ");
    }
    let mut client = sides.proxy.client();
    for at in [0, 7, 4_999] {
        client.expect(&format!("set k{at:0>20} 5 0 1\r\nx\r\n"), "STORED\r\n");
    }
    let found: String = [0, 7, 4_999].map(|at| format!("VALUE k{at:0>20} 5 1\r\nx\r\n")).concat();
    client.expect(&format!("get{some}\r\n"), &format!("{found}END\r\n"));
    // In small pieces, which are not looked at again and again.
    for piece in format!("get{some}\r\n").as_bytes().chunks(7) {
        client.send(piece);
    }
    client.expect("", &format!("{found}END\r\n"));
    client.expect(&format!("get{many}{some}\r\nversion\r\n"), &format!("{found}END\r\nVERSION "));
}

#[test]
fn a_time_is_what_memcached_takes_for_one() {
    let sides = Sides::memcached();
    let long = "l".repeat(251);
    for time in [
        "0",
        "-1",
        "+5",
        "0007",
        "2147483648",
        "4294967296",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "\t5",
        "5\tx",
        "5x",
        "0x10",
        "1e3",
        "--5",
        "x",
    ] {
        sides.agree(&format!("gat {time} a\r\ngats {time} a b c\r\ngat {time}\r\ngat {time} a {long}\r\n"));
    }
}

#[test]
fn http_is_ended_as_the_servers_end_it() {
    let after = "set e 0 0 1\r\nx\r\n";
    let sides = Sides::memcached();
    for line in ["GET / HTTP/1.1", "POST / HTTP/1.1", "PUT /x HTTP/1.0", "foo HTTP/", "HTTP/2", "foo a HTTP/1.1  "] {
        assert_eq!(sides.agree(&format!("{line}\r\n{after}")), "", "after {line}");
    }
    for line in ["GET /", "POST", "Host: x", "HTTP/1.1 200 OK", "get HTTP/1.1", "foo http/1.1", "set HTTP/1.1"] {
        assert_ne!(sides.agree(&format!("{line}\r\n{after}")), "", "after {line}");
    }
    // What was asked before is answered here.
    let mut client = sides.proxy.client();
    client.send(format!("get none\r\nGET / HTTP/1.1\r\n{after}").as_bytes());
    assert_eq!(client.rest(), "END\r\n");

    let sides = Sides::redis();
    let after = "SET evil 1\r\n";
    for line in [
        "POST / HTTP/1.1",
        "post",
        "Host: x",
        "HOST:",
        "'Post' /",
        "*2\r\n$4\r\nPOST\r\n$1\r\n/",
        "*1\r\n$5\r\nhost:",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n",
    ] {
        assert_eq!(sides.agree(&format!("{line}\r\n{after}")), "", "after {line}");
    }
    for line in ["POST: x", "hostx", "GET / HTTP/1.1", "HEAD /"] {
        assert_ne!(sides.agree(&format!("{line}\r\n{after}")), "", "after {line}");
    }
    assert_eq!(sides.proxy.client().say("PING"), "+PONG\r\n");
}

#[test]
fn a_request_may_have_more_than_a_million_arguments() {
    const PAIRS: usize = 525_000;
    let sides = Sides::redis();
    let pairs = (0..PAIRS).flat_map(|at| [format!("k{at}"), format!("v{at}")]);
    let words: Vec<String> = std::iter::once("MSET".to_owned()).chain(pairs).collect();
    let mut client = sides.proxy.client();
    client.send(&kv::wire::resp::request::encode(&words));
    assert_eq!(client.reply(), b"+OK\r\n");
    for at in [0, 1, PAIRS / 2, PAIRS - 1] {
        assert_eq!(client.say(&format!("GET k{at}")), format!("${}\r\nv{at}\r\n", at.to_string().len() + 1));
    }
    // Beyond what is taken.
    client.send(b"*4194305\r\n");
    assert_eq!(client.rest(), "-ERR Protocol error: invalid multibulk length\r\n");
}

#[test]
fn the_list_of_a_requests_arguments_counts_and_is_given_back() {
    const EMPTY: usize = 500_000;
    let servers = vec![Server::redis(&[])];
    let proxy = Proxy::start(kv::PoolSource { memory: 5 << 20, ..pool(&servers, true) }, 1);
    let request = [format!("*{}\r\n$3\r\nDEL\r\n", EMPTY + 1).as_bytes(), &b"$0\r\n\r\n".repeat(EMPTY)].concat();
    assert!(request.len() < 4 << 20, "its bytes alone would have room");
    for _ in 0..8 {
        let mut client = proxy.client();
        // Who is refused may be gone before all is sent.
        let _ = client.stream.write_all(&request);
        let said = client.rest();
        assert!(said.is_empty() || said == "-ERR Protocol error: too big request\r\n", "{said}");
        assert_eq!(proxy.client().say("SET a 1"), "+OK\r\n");
    }
}

#[test]
fn a_copy_stays_in_the_pools_database() {
    let servers = vec![Server::redis(&[])];
    for (ours, other) in [(0, 1), (3, 0)] {
        let proxy = Proxy::start(kv::PoolSource { redis_db: ours, ..pool(&servers, true) }, 1);
        let mut client = proxy.client();
        client.say("SET {a}1 x");
        assert_eq!(client.say("COPY {a}1 {a}2"), ":1\r\n");
        assert_eq!(client.say(&format!("COPY {{a}}1 {{a}}3 REPLACE DB {ours}")), ":1\r\n");
        let refused = "-ERR 'copy' is not supported by the proxy: a pool is one database\r\n";
        for line in [format!("DB {other}"), format!("REPLACE db {other}"), format!("DB {ours} DB {other}")] {
            assert_eq!(client.say(&format!("COPY {{a}}1 {{a}}4 {line}")), refused);
        }
        for line in ["DB x", "DB", "db 01", "x", "REPLACE x"] {
            assert!(client.say(&format!("COPY {{a}}1 {{a}}4 {line}")).starts_with("-ERR "), "{line}");
        }
        assert_eq!(client.say("EXISTS {a}1 {a}2 {a}3 {a}4"), ":3\r\n");
    }
}

#[test]
fn names_databases_and_versions_are_read_as_redis_reads_them() {
    let sides = Sides::redis();
    for line in [
        "SELECT 0",
        "SELECT 00",
        "SELECT +0",
        "SELECT -0",
        "SELECT 99",
        "SELECT -1",
        "SELECT x",
        "SELECT 2147483648",
        "HELLO 2 SETNAME \"a b\"",
        "CLIENT SETNAME \"a b\"",
        "HELLO 4",
        "HELLO x",
        "HELLO 02",
        "HELLO 2 SETNAME \"a b\"\r\nCLIENT GETNAME",
    ] {
        sides.agree(&format!("{line}\r\n"));
    }
    let mut client = sides.proxy.client();
    let said = client.say("HELLO 3");
    assert!(said.starts_with("-NOPROTO unsupported protocol version") && said.contains("protocol=2"), "{said}");
    assert!(client.say("HELLO 2 SETNAME ab").starts_with("*14\r\n"));
    assert_eq!(client.say("CLIENT GETNAME"), "$2\r\nab\r\n");
}

#[test]
fn commands_are_described_in_the_fields_of_redis() {
    use serde_json::{Value, json};
    let sides = Sides::redis();
    // Each as a list, with what both are to tell alike.
    let told = |client: &mut world::Client, name: &str| {
        let said = client.say(&format!("COMMAND INFO {name}"));
        let mut words = said.split("\r\n").filter(|word| !word.starts_with('$'));
        let one = value(&mut words)[0].clone();
        let some = |at: usize, known: &[&str]| {
            let words = one[at].as_array().unwrap().iter().filter_map(Value::as_str);
            let mut words: Vec<String> = words.filter(|word| known.contains(word)).map(str::to_owned).collect();
            words.sort();
            words
        };
        let flags = some(2, &["fast", "movablekeys"]);
        json!([one.as_array().unwrap().len(), one[1], flags, one[3], one[4], one[5], some(6, &["@fast", "@slow"])])
    };
    let (mut alone, mut pool) = (sides.alone.client(), sides.proxy.client());
    for name in ["get", "mget", "set", "eval", "zadd", "xread", "sort", "zunionstore", "georadius", "hgetall", "ping"] {
        assert_eq!(told(&mut pool, name), told(&mut alone, name), "{name}");
    }
    assert_eq!(told(&mut pool, "get"), json!([10, "2", ["fast"], "1", "1", "1", ["@fast"]]));
}

/// A reply's elements, each a line: lists of what lines say.
fn value<'a>(lines: &mut impl Iterator<Item = &'a str>) -> serde_json::Value {
    let line = lines.next().unwrap();
    match line.split_at_checked(1) {
        Some(("*", count)) => (0..count.parse::<usize>().unwrap()).map(|_| value(lines)).collect(),
        Some((":" | "+", word)) => word.into(),
        _ => line.into(),
    }
}

/// Reading commands that are right, of keys under which there is nothing.
const RIGHT: &[&str] = &[
    "GET k",
    "MGET k l",
    "STRLEN k",
    "GETRANGE k 0 -1",
    "SUBSTR k 0 -1",
    "GETBIT k 7",
    "BITCOUNT k",
    "BITCOUNT k 0 -1",
    "BITCOUNT k 0 -1 BIT",
    "BITPOS k 0",
    "BITPOS k 1",
    "BITPOS k 1 0",
    "BITPOS k 0 0 -1",
    "BITPOS k 1 0 -1 BYTE",
    "BITFIELD_RO k",
    "BITFIELD_RO k GET u8 0",
    "BITFIELD_RO k GET u8 #1 GET i64 100",
    "LCS k l",
    "LCS k l LEN",
    "LCS k l IDX",
    "LCS k l IDX MINMATCHLEN 4 WITHMATCHLEN",
    "EXISTS k l",
    "TOUCH k",
    "TYPE k",
    "TTL k",
    "PTTL k",
    "EXPIRETIME k",
    "PEXPIRETIME k",
    "DUMP k",
    "OBJECT ENCODING k",
    "OBJECT FREQ k",
    "OBJECT IDLETIME k",
    "OBJECT REFCOUNT k",
    "MEMORY USAGE k",
    "MEMORY USAGE k SAMPLES 5",
    "PFCOUNT k l",
    "SORT_RO k",
    "SORT_RO k BY w* LIMIT 0 5 GET o* GET # ASC ALPHA",
    "SORT_RO k DESC",
    "LINDEX k 0",
    "LLEN k",
    "LRANGE k 0 -1",
    "LPOS k e",
    "LPOS k e RANK -1",
    "LPOS k e RANK 2 COUNT 0 MAXLEN 10",
    "LPOS k count",
    "HGET k f",
    "HMGET k f g",
    "HGETALL k",
    "HKEYS k",
    "HVALS k",
    "HLEN k",
    "HEXISTS k f",
    "HSTRLEN k f",
    "HRANDFIELD k",
    "HRANDFIELD k 2",
    "HRANDFIELD k -2 WITHVALUES",
    "HSCAN k 0",
    "HSCAN k 0 MATCH * COUNT 10",
    "SCARD k",
    "SISMEMBER k m",
    "SMISMEMBER k m n",
    "SMEMBERS k",
    "SRANDMEMBER k",
    "SRANDMEMBER k 3",
    "SSCAN k 5 COUNT 1",
    "SDIFF k l",
    "SINTER k l",
    "SUNION k l",
    "SINTERCARD 2 k l",
    "SINTERCARD 1 k LIMIT 3",
    "ZCARD k",
    "ZSCORE k m",
    "ZMSCORE k m n",
    "ZRANK k m",
    "ZREVRANK k m",
    "ZCOUNT k -inf +inf",
    "ZCOUNT k (1 2.5",
    "ZLEXCOUNT k - +",
    "ZLEXCOUNT k [a (b",
    "ZRANGE k 0 -1",
    "ZRANGE k 0 -1 WITHSCORES",
    "ZRANGE k 0 -1 REV",
    "ZRANGE k (1 5 BYSCORE LIMIT 0 2 WITHSCORES",
    "ZRANGE k [a + BYLEX REV LIMIT 0 -1",
    "ZREVRANGE k 0 -1 WITHSCORES",
    "ZRANGEBYSCORE k -inf 5 LIMIT 0 1 WITHSCORES",
    "ZREVRANGEBYSCORE k 5 (1",
    "ZRANGEBYLEX k - [b LIMIT 1 2",
    "ZREVRANGEBYLEX k + -",
    "ZRANDMEMBER k",
    "ZRANDMEMBER k 2 WITHSCORES",
    "ZSCAN k 0 MATCH a",
    "ZDIFF 2 k l",
    "ZDIFF 1 k WITHSCORES",
    "ZINTER 2 k l WEIGHTS 1 2.5 AGGREGATE MAX WITHSCORES",
    "ZUNION 1 k",
    "ZINTERCARD 2 k l LIMIT 0",
    "GEODIST k a b",
    "GEODIST k a b km",
    "GEOHASH k m",
    "GEOPOS k m n",
    "GEORADIUS_RO k 13.3 52.5 10 km",
    "GEORADIUS_RO k 13.3 52.5 10 km WITHDIST COUNT 3 ANY ASC",
    "GEORADIUSBYMEMBER_RO k m 10 mi WITHCOORD DESC",
    "GEOSEARCH k FROMLONLAT 13.3 52.5 BYRADIUS 10 km",
    "GEOSEARCH k FROMMEMBER m BYBOX 10 20 ft ASC COUNT 2 WITHHASH",
    "XLEN k",
    "XRANGE k - +",
    "XRANGE k 1-2 (5 COUNT 3",
    "XREVRANGE k + -",
    "XREAD STREAMS k 0",
    "XREAD COUNT 2 STREAMS k l 0-0 $",
    "XINFO STREAM k",
    "XINFO STREAM k FULL COUNT 3",
    "XINFO GROUPS k",
    "XINFO CONSUMERS k g",
    "XPENDING k g",
];

/// What may stand in the place of a word, or be one too many.
const WORDS: &[&str] = &[
    "",
    "0",
    "1",
    "-1",
    "2",
    "00",
    "+1",
    "1.5",
    "-0",
    " 1",
    "1 ",
    "x",
    "k",
    "e",
    "-inf",
    "+inf",
    "inf",
    "nan",
    "1e3",
    "0x10",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "4294967295",
    "4294967296",
    "1-1",
    "(1-1",
    "(0-0",
    "(0",
    "(",
    "[",
    "-",
    "+",
    "$",
    ">",
    "1-",
    "*",
    "#1",
    "u64",
    "i65",
    "GET",
    "COUNT",
    "LIMIT",
    "MATCH",
    "WITHSCORES",
    "WITHVALUES",
    "BYSCORE",
    "BYLEX",
    "REV",
    "RANK",
    "MAXLEN",
    "BIT",
    "BYTE",
    "STREAMS",
    "FULL",
    "WEIGHTS",
    "AGGREGATE",
    "SUM",
    "km",
    "M",
    "parsec",
    "ANY",
    "ASC",
    "BYRADIUS",
    "FROMMEMBER",
    "IDX",
    "LEN",
    "SAMPLES",
    "1e400",
    "181",
    "90",
    "18446744073709551615",
    "18446744073709551616",
];

#[test]
fn what_is_said_of_keys_that_an_ejected_server_has_is_what_one_says_that_has_none() {
    const BATCH: usize = 500;
    const ROUNDS: usize = 120;
    let server = Server::redis(&[]);
    let mut client = server.client();
    let mut rng = base::Rng::new(7);
    let mut pick = |words: &[&'static str]| words[usize::try_from(rng.below(words.len() as u64)).unwrap()];
    let (mut same, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let requests: Vec<Vec<&str>> = (0..BATCH)
            .map(|at| {
                if round == 0 && at < RIGHT.len() {
                    return RIGHT[at].split(' ').collect();
                }
                let mut words: Vec<&str> = pick(RIGHT).split(' ').collect();
                for _ in 0..1 + at % 2 {
                    let place = 1 + at / 3 % words.len();
                    match at % 5 {
                        0 => words.insert(place, pick(WORDS)),
                        1 if place < words.len() => drop(words.remove(place)),
                        _ if place < words.len() => words[place] = pick(WORDS),
                        _ => words.push(pick(WORDS)),
                    }
                }
                words
            })
            .collect();
        let bytes: Vec<u8> = requests.iter().flat_map(|words| kv::wire::resp::request::encode(words)).collect();
        client.send(&bytes);
        for (at, words) in requests.iter().enumerate() {
            let said = String::from_utf8(client.reply()).unwrap();
            let argument = |at: usize| words.get(at).map_or(&b""[..], |word| word.as_bytes());
            let command = kv::commands::of_request(words.len(), argument).filter(|command| command.takes(words.len()));
            let ours = command.and_then(|command| kv::commands::nothing(command, words.len(), argument));
            match ours {
                Some(ours) => {
                    same += 1;
                    assert_eq!(String::from_utf8(ours).unwrap(), said, "to {words:?}");
                }
                None => {
                    refused += 1;
                    assert!(round > 0 || at >= RIGHT.len(), "{words:?} is right: {said}");
                }
            }
        }
    }
    assert!(same > 5_000 && refused > 5_000, "{same} alike, {refused} left to an error");
}

//! Seeded random commands, to one server directly and through a pool of four: equal answers, or the documented refusal.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use base::Rng;
use world::{Proxy, Server, pool};

const COMMANDS: usize = 100_000;
/// Commands on their way at once. A client's order on one server is its own, so that the outcome is determined.
const DEPTH: usize = 100;
const SEED: u64 = 42;

/// Commands with `k` for a key, `f` for a small word, `n` for a small number.
const SHAPES: &[&str] = &[
    "SET k f",
    "GET k",
    "GETSET k f",
    "SETNX k f",
    "APPEND k f",
    "STRLEN k",
    "INCR k",
    "INCRBY k n",
    "DECRBY k n",
    "SETRANGE k n f",
    "GETRANGE k n n",
    "SETBIT k n 1",
    "BITCOUNT k",
    "GETDEL k",
    "SET k f EX 1000",
    "PERSIST k",
    "TYPE k",
    "EXISTS k",
    "EXISTS k k k",
    "DEL k",
    "DEL k k k",
    "UNLINK k k",
    "TOUCH k k k",
    "MGET k k k k",
    "MGET k",
    "MSET k f k f k f",
    "MSET k f k",
    "LPUSH k f f",
    "RPUSH k f",
    "LRANGE k 0 -1",
    "LPOP k",
    "RPOP k n",
    "LLEN k",
    "LINDEX k n",
    "LREM k 0 f",
    "HSET k f f",
    "HGET k f",
    "HMGET k f f",
    "HDEL k f",
    "HLEN k",
    "HEXISTS k f",
    "HINCRBY k f n",
    "SADD k f",
    "SREM k f",
    "SCARD k",
    "SISMEMBER k f",
    "SMISMEMBER k f f",
    "ZADD k n f",
    "ZSCORE k f",
    "ZRANK k f",
    "ZRANGE k 0 -1 WITHSCORES",
    "ZINCRBY k n f",
    "ZCARD k",
    "ZREM k f",
    "ZPOPMIN k",
    "XADD k n-n f f",
    "XLEN k",
    "XRANGE k - +",
    "PFADD k f",
    "PFCOUNT k",
    "GEOADD k n n f",
    "GEOPOS k f",
    "SUNION k k",
    "SINTER k k",
    "RENAME k k",
    "RPOPLPUSH k k",
    "SMOVE k k f",
    "ZUNIONSTORE k 2 k k",
    "BITOP AND k k k",
    "COPY k k",
    "LMPOP 2 k k LEFT",
    "EVAL s 1 k f",
    "EVAL s 2 k k",
    "SORT k ALPHA",
    "SORT k BY nosort GET # STORE k",
    "OBJECT ENCODING k",
    "FOO k f",
    "GET",
    "GET k k",
    "SET k",
    "PING",
    "PING f",
    "ECHO f",
    "LPOP k x",
    "EXPIRE k 0",
    "DUMP k",
    "XREAD COUNT 2 STREAMS k 0",
    "ZADD k x f",
    "SETEX k 0 f",
    "BITFIELD k GET u4 0",
    "SINTERCARD 2 k k",
    "ZMPOP 1 k MIN",
    "ZUNION x k",
    "EVAL s 9 k",
    "SMEMBERS k",
    "SDIFF k k",
    "HGETALL k",
    "HKEYS k",
    "HVALS k",
    "SRANDMEMBER k",
    "HRANDFIELD k",
    "TTL k",
    "PTTL k",
    "SETEX k 1000 f",
    "PSETEX k 1000000 f",
    "GETEX k PERSIST",
    "EXPIRE k 1000 NX",
    "EXPIRETIME f",
    "LPUSHX k f",
    "RPUSHX k f",
    "LINSERT k BEFORE f f",
    "LSET k n f",
    "LTRIM k 0 n",
    "LPOS k f",
    "LMOVE k k LEFT RIGHT",
    "SETNX k f",
    "SUBSTR k 0 n",
    "INCRBYFLOAT k 1.5",
    "DECR k",
    "GETBIT k n",
    "BITPOS k 1",
    "BITFIELD_RO k GET u8 0",
    "LCS k k",
    "MSETNX k f k f",
    "HSETNX k f f",
    "HMSET k f f",
    "HSTRLEN k f",
    "HINCRBYFLOAT k f 1.5",
    "SDIFFSTORE k k k",
    "SUNIONSTORE k k",
    "ZADD k NX CH n f n f",
    "ZCOUNT k 0 n",
    "ZLEXCOUNT k - +",
    "ZRANGEBYSCORE k 0 n",
    "ZRANGEBYLEX k - +",
    "ZREVRANGE k 0 -1",
    "ZREVRANGEBYSCORE k n 0",
    "ZREVRANK k f",
    "ZMSCORE k f f",
    "ZREMRANGEBYRANK k 0 0",
    "ZREMRANGEBYSCORE k 0 1",
    "ZPOPMAX k n",
    "ZRANGESTORE k k 0 -1",
    "ZDIFF 2 k k",
    "ZINTER 2 k k",
    "ZINTERCARD 2 k k",
    "ZINTERSTORE k 2 k k",
    "ZDIFFSTORE k 2 k k",
    "XDEL k n-n",
    "XTRIM k MAXLEN n",
    "XREVRANGE k + -",
    "XGROUP CREATE k f 0 MKSTREAM",
    "XGROUP DESTROY k f",
    "XREADGROUP GROUP f f COUNT 1 STREAMS k >",
    "XACK k f n-n",
    "XPENDING k f",
    "GEODIST k f f",
    "GEOHASH k f",
    "GEOSEARCH k FROMLONLAT n n BYRADIUS 9999 km ASC",
    "PFMERGE k k",
    "RENAMENX k k",
    "SORT_RO k ALPHA LIMIT 0 n",
    "EVAL_RO s 1 k f",
    "TOUCH k",
    "UNLINK k k k",
];

fn command(rng: &mut Rng) -> Vec<String> {
    let below = |rng: &mut Rng, n: u64| rng.below(n);
    let shape = SHAPES[usize::try_from(below(rng, SHAPES.len() as u64)).unwrap()];
    let mut word = |word: &str| match word {
        "k" => format!("{}:{}", below(rng, 12) * 7919, below(rng, 3)),
        "f" => format!("w{}", below(rng, 6)),
        "n" => below(rng, 20).to_string(),
        "n-n" => format!("{}-{}", below(rng, 50), below(rng, 50)),
        "s" => "return {KEYS[1], ARGV[1]}".into(),
        other => other.into(),
    };
    shape.split(' ').map(&mut word).collect()
}

/// What may differ, by name: commands of several keys that live apart are refused.
fn is_refusal(reply: &str) -> bool {
    reply.starts_with("-CROSSSERVER ")
}

#[test]
fn a_pool_of_four_answers_as_one_server_does_or_refuses_by_name() {
    let one = [Server::redis(&[])];
    let four: Vec<Server> = (0..4).map(|_| Server::redis(&[])).collect();
    let proxy = Proxy::start(pool(&four, true), 1);
    let (mut direct, mut through) = (one[0].client(), proxy.client());
    let (mut rng, mut equal, mut refused) = (Rng::new(SEED), 0, 0);
    for first in (0..COMMANDS).step_by(DEPTH) {
        let batch: Vec<Vec<String>> = (0..DEPTH).map(|_| command(&mut rng)).collect();
        batch.iter().for_each(|words| through.put(words));
        let replies: Vec<String> = batch.iter().map(|_| text(through.reply())).collect();
        // What was refused did not happen; so it must not on the other side either.
        let taken = |reply: &&String| !is_refusal(reply);
        batch.iter().zip(&replies).filter(|(_, reply)| taken(reply)).for_each(|(words, _)| direct.put(words));
        for (at, (words, got)) in batch.iter().zip(&replies).enumerate() {
            if is_refusal(got) {
                refused += 1;
                continue;
            }
            let (expected, got) = normal(&words[0], text(direct.reply()), got.clone());
            assert_eq!(got, expected, "command {} of seed {SEED}: {words:?}", first + at);
            equal += 1;
        }
    }
    assert!(equal > COMMANDS * 3 / 4 && refused > 100, "{equal} equal, {refused} refused");
}

fn text(reply: Vec<u8>) -> String {
    String::from_utf8_lossy(&reply).into_owned()
}

/// Both answers with what is not determined made equal, by the command's name.
fn normal(name: &str, expected: String, got: String) -> (String, String) {
    match name {
        // The order of a set's members.
        "SUNION" | "SINTER" | "SDIFF" | "SMEMBERS" | "HGETALL" | "HKEYS" | "HVALS" => (sorted(&expected), sorted(&got)),
        // Any member may be chosen, but as many, and the same ones are left out of the choice.
        "SRANDMEMBER" | "HRANDFIELD" | "ZRANDMEMBER" => {
            let shape = |reply: &str| (reply.matches("\r\n").count().to_string(), reply.starts_with('-'));
            (format!("{:?}", shape(&expected)), format!("{:?}", shape(&got)))
        }
        // The order of a set's members, in bytes: as many of them.
        "DUMP" => (length(&expected), length(&got)),
        // Asked a moment later.
        "TTL" => (rounded(&expected), rounded(&got)),
        "PTTL" => (rounded(&expected), rounded(&got)),
        _ => (expected, got),
    }
}

/// How long a bulk string says that it is.
fn length(reply: &str) -> String {
    reply.split("\r\n").next().unwrap_or_default().to_owned()
}

/// A time to live of about a thousand seconds, whatever the moment and the unit.
fn rounded(reply: &str) -> String {
    match reply.trim_start_matches(':').trim_end().parse::<i64>() {
        Ok(900..=1_000 | 900_000..=1_000_000) => "about 1,000 s".into(),
        _ => reply.into(),
    }
}

fn sorted(reply: &str) -> String {
    let mut lines: Vec<&str> = reply.split("\r\n").collect();
    lines.sort_unstable();
    lines.join("\n")
}

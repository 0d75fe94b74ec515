//! Seeded random commands, to one server directly and through a pool of four: equal answers, or the documented refusal.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use base::Rng;
use world::{Client, Proxy, Server, pool};

const COMMANDS: usize = 20_000;
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
    let ask = |client: &mut Client, words: &[String]| client.ask(words);
    for number in 0..COMMANDS {
        let words = command(&mut rng);
        let got = ask(&mut through, &words);
        if is_refusal(&got) {
            // Nothing happened; so it must not on the other side either.
            refused += 1;
            continue;
        }
        let mut expected = ask(&mut direct, &words);
        let mut got = got;
        if matches!(words[0].as_str(), "SUNION" | "SINTER") {
            // The order of a set's members is not determined.
            (expected, got) = (sorted(&expected), sorted(&got));
        }
        assert_eq!(got, expected, "command {number} of seed {SEED}: {words:?}");
        equal += 1;
    }
    assert!(equal > COMMANDS * 3 / 4 && refused > 100, "{equal} equal, {refused} refused");
}

fn sorted(reply: &str) -> String {
    let mut lines: Vec<&str> = reply.split("\r\n").collect();
    lines.sort_unstable();
    lines.join("\n")
}

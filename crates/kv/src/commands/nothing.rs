//! What a server answers to a command that reads keys which are not there.

use super::{Access, Command};

/// Values that are repeated, one for each of so many arguments.
fn each(value: &str, count: usize) -> Option<Vec<u8>> {
    Some(format!("*{count}\r\n{}", value.repeat(count)).into_bytes())
}

/// The reply of a server that has none of the keys of this request, which is right in its number of arguments. None for
/// what writes, what has no such answer, and what cannot be told without a server.
pub fn nothing<'a>(command: &Command, count: usize, argument: impl Fn(usize) -> &'a [u8]) -> Option<Vec<u8>> {
    if command.access != Access::Read {
        return None;
    }
    // Before that stand keys and elements, which may be called as options are.
    let has = |word: &[u8]| (3..count).any(|at| argument(at).eq_ignore_ascii_case(word));
    let line = match command.name {
        "get" | "hget" | "lindex" | "dump" | "zscore" | "geodist" | "memory|usage" | "object|encoding"
        | "object|freq" | "object|idletime" | "object|refcount" | "zrank" | "zrevrank" => "$-1\r\n",
        // With a number they answer a list.
        "hrandfield" | "srandmember" | "zrandmember" => {
            if count > 2 {
                "*0\r\n"
            } else {
                "$-1\r\n"
            }
        }
        "lpos" => {
            if has(b"count") {
                "*0\r\n"
            } else {
                "$-1\r\n"
            }
        }
        "hgetall"
        | "hkeys"
        | "hvals"
        | "lrange"
        | "smembers"
        | "sdiff"
        | "sinter"
        | "sunion"
        | "zdiff"
        | "zinter"
        | "zunion"
        | "zrange"
        | "zrangebylex"
        | "zrangebyscore"
        | "zrevrange"
        | "zrevrangebylex"
        | "zrevrangebyscore"
        | "xrange"
        | "xrevrange"
        | "georadius_ro"
        | "georadiusbymember_ro"
        | "geosearch"
        | "sort_ro" => "*0\r\n",
        "xread" => "*-1\r\n",
        "bitcount" | "exists" | "getbit" | "hexists" | "hlen" | "hstrlen" | "llen" | "pfcount" | "scard"
        | "sintercard" | "sismember" | "strlen" | "touch" | "xlen" | "zcard" | "zcount" | "zintercard"
        | "zlexcount" => ":0\r\n",
        "bitpos" => {
            if argument(2) == b"1" {
                ":-1\r\n"
            } else {
                ":0\r\n"
            }
        }
        "ttl" | "pttl" | "expiretime" | "pexpiretime" => ":-2\r\n",
        "getrange" | "substr" => "$0\r\n\r\n",
        "type" => "+none\r\n",
        "hscan" | "sscan" | "zscan" => "*2\r\n$1\r\n0\r\n*0\r\n",
        "lcs" if has(b"idx") => "*4\r\n$7\r\nmatches\r\n*0\r\n$3\r\nlen\r\n:0\r\n",
        "lcs" => {
            if has(b"len") {
                ":0\r\n"
            } else {
                "$0\r\n\r\n"
            }
        }
        "mget" => return each("$-1\r\n", count - 1),
        "hmget" | "zmscore" | "geohash" => return each("$-1\r\n", count - 2),
        "smismember" => return each(":0\r\n", count - 2),
        "geopos" => return each("*-1\r\n", count - 2),
        _ => return None,
    };
    Some(line.as_bytes().to_vec())
}

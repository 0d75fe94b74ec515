//! What a server answers to a command that reads keys which are not there.

use super::arguments::are_right;
use super::{Access, Command};

/// Values that are repeated, one for each of so many arguments.
fn each(value: &str, count: usize) -> Option<Vec<u8>> {
    Some(format!("*{count}\r\n{}", value.repeat(count)).into_bytes())
}

/// A number as Redis reads it: digits, and no zero before others.
fn number(text: &[u8]) -> Option<u64> {
    let plain = text.iter().all(u8::is_ascii_digit) && (text.len() == 1 || text.first() != Some(&b'0'));
    if plain { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// For each operation of a `BITFIELD_RO` a zero. None where the server would say what is wrong with one.
fn fields<'a>(count: usize, argument: impl Fn(usize) -> &'a [u8]) -> Option<Vec<u8>> {
    /// A value has no more bits.
    const BITS_MAX: u64 = 1 << 32;
    for at in (2..count).step_by(3) {
        let (kind, width) = argument(at + 1).split_first()?;
        let width = number(width)?;
        let most = if *kind == b'i' { 64 } else { 63 };
        // Before it is counted with.
        (matches!(kind, b'i' | b'u') && (1..=most).contains(&width)).then_some(())?;
        let offset = match argument(at + 2) {
            [b'#', times @ ..] => number(times)?.checked_mul(width)?,
            offset => number(offset)?,
        };
        let room = offset < BITS_MAX - width;
        (room && argument(at).eq_ignore_ascii_case(b"get")).then_some(())?;
    }
    each(":0\r\n", (count - 2) / 3)
}

/// For each field of a command about fields' ages that there is none.
fn ages<'a>(count: usize, argument: impl Fn(usize) -> &'a [u8]) -> Option<Vec<u8>> {
    let right = argument(2).eq_ignore_ascii_case(b"fields") && number(argument(3))? == count as u64 - 4;
    if right { each(":-2\r\n", count - 4) } else { None }
}

/// That there is no such group, as no such stream. None where the server would say what else is wrong.
fn no_group<'a>(count: usize, argument: impl Fn(usize) -> &'a [u8]) -> Option<Vec<u8>> {
    // What is asked of the entries has its own mistakes; a line's end would end the reply's line.
    let told = |at: usize| argument(at).iter().all(|byte| !matches!(byte, b'\r' | b'\n' | 0));
    (count == 3 && told(1) && told(2)).then(|| {
        let parts: [&[u8]; 5] =
            [b"-NOGROUP No such key '", argument(1), b"' or consumer group '", argument(2), b"'\r\n"];
        parts.concat()
    })
}

/// The reply of a server that has none of the keys of this request, which is right in its number of arguments. None for
/// what writes, what only the server can tell (whatever a script does, and what is wrong with a request), and what is not
/// about keys.
pub fn nothing<'a>(command: &Command, count: usize, argument: impl Fn(usize) -> &'a [u8]) -> Option<Vec<u8>> {
    if command.access != Access::Read {
        return None;
    }
    let words: Vec<&[u8]> = (0..count).map(&argument).collect();
    if !are_right(command.name, &words) {
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
        "xinfo|stream" | "xinfo|groups" | "xinfo|consumers" => "-ERR no such key\r\n",
        "xpending" => return no_group(count, argument),
        "bitfield_ro" => return fields(count, argument),
        "httl" | "hpttl" | "hexpiretime" | "hpexpiretime" => return ages(count, argument),
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

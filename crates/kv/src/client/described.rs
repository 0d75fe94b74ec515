//! A command as `COMMAND` and `COMMAND INFO` describe it, in the ten fields of Redis 7.

use super::local::bulk;
use crate::commands::{Access, Command, Find};

/// Commands that Redis calls fast, in the order of their names.
#[rustfmt::skip]
const FAST: &[&str] = &[
    "append", "asking", "auth", "bitfield_ro", "bzpopmax", "bzpopmin", "dbsize", "decr", "decrby", "discard",
    "echo", "exists", "expire", "expireat", "expiretime", "get", "getbit", "getdel", "getex", "getset", "hdel",
    "hello", "hexists", "hget", "hincrby", "hincrbyfloat", "hlen", "hmget", "hmset", "hset", "hsetnx",
    "hstrlen", "incr", "incrby", "incrbyfloat", "lastsave", "llen", "lolwut", "lpop", "lpush", "lpushx", "mget",
    "move", "multi", "persist", "pexpire", "pexpireat", "pexpiretime", "pfadd", "ping", "pttl", "publish",
    "quit", "readonly", "readwrite", "renamenx", "reset", "role", "rpop", "rpush", "rpushx", "sadd", "scard",
    "select", "setnx", "sismember", "smismember", "smove", "spop", "spublish", "srem", "strlen", "swapdb",
    "time", "touch", "ttl", "type", "unlink", "unwatch", "watch", "xack", "xadd", "xautoclaim", "xclaim",
    "xdel", "xlen", "xsetid", "zadd", "zcard", "zcount", "zincrby", "zlexcount", "zmscore", "zpopmax",
    "zpopmin", "zrank", "zrem", "zrevrank", "zscore",
];

/// Appends what is known of a command. Of its tips, its keys' specifications and its subcommands nothing is told.
pub(super) fn describe(reply: &mut Vec<u8>, command: &Command) {
    let (first, last, step) = command.places;
    let is_fast = FAST.binary_search(&command.name).is_ok();
    let access = match command.access {
        Access::Read => Some(("readonly", "@read")),
        Access::Write => Some(("write", "@write")),
        Access::Other => None,
    };
    let moves = command.find != Find::Range;
    reply.extend_from_slice(b"*10\r\n");
    bulk(reply, command.name.as_bytes());
    reply.extend_from_slice(format!(":{}\r\n", command.arity).as_bytes());
    let flags = [access.map(|(flag, _)| flag), is_fast.then_some("fast"), moves.then_some("movablekeys")];
    list(reply, flags.into_iter().flatten());
    reply.extend_from_slice(format!(":{first}\r\n:{last}\r\n:{step}\r\n").as_bytes());
    let speed = if is_fast { "@fast" } else { "@slow" };
    list(reply, access.map(|(_, category)| category).into_iter().chain([speed]));
    reply.extend_from_slice(b"*0\r\n*0\r\n*0\r\n");
}

fn list(reply: &mut Vec<u8>, words: impl Iterator<Item = &'static str> + Clone) {
    reply.extend_from_slice(format!("*{}\r\n", words.clone().count()).as_bytes());
    words.for_each(|word| reply.extend_from_slice(format!("+{word}\r\n").as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_commands_are_found_by_halves() {
        assert!(FAST.is_sorted() && FAST.iter().all(|name| crate::commands::look_up(name.as_bytes()).is_some()));
    }
}

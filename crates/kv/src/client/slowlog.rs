//! Redis's `SLOWLOG`, of the client's pool: what the proxy has measured, on all its threads.
//!
//! An entry is as Redis has it: number, seconds since 1970, microseconds, the request, the client's address and name. Of
//! the request its command and the beginning of the first argument are known; what Redis would say of arguments that it
//! leaves out is said of the whole, with the server that answered or what became of it there. The time is that from the
//! request's arrival to the server's reply, or to what the client got in its place.

use super::Client;
use super::local::{OK, TOLD_MAX, bulk, printable, unknown_subcommand, wrong_count};
use super::requests::Asked;
use crate::slow::{ANSWERED, SLOW_MAX, Slow};

/// Entries that are told where nobody says how many.
const COUNT: usize = 10;

const HELP: [&str; 9] = [
    "SLOWLOG GET [<count>] | LEN | RESET | HELP: slow requests of this pool, as the proxy has measured them.",
    "GET [<count>]",
    "    The newest <count> (10 where nothing is said, -1: all). Of each: its number, when its reply came or what was said",
    "    in its place, how many microseconds after the request, the request, the client's address and name.",
    "LEN",
    "    How many there are.",
    "RESET",
    "    Begin anew: those that there are will be told to operators alone.",
    "HELP",
];

impl Client {
    pub(super) fn slow_log(&mut self, asked: &Asked<'_>) {
        let sub = asked.argument(1).to_ascii_lowercase();
        let shared = self.worker.shared();
        let (log, pool) = (shared.slow_log(), self.pool.plan().source.name.as_str());
        match (sub.as_slice(), asked.count()) {
            (b"get", 2 | 3) => match count(asked) {
                Some(count) => {
                    let reply = told(&log.of_pool(pool, count));
                    self.answer(reply);
                }
                None => self.answer_static(b"-ERR count should be greater than or equal to -1\r\n"),
            },
            (b"get", _) => {
                let what = printable(asked.argument(1), TOLD_MAX);
                let begins = &b"-ERR unknown subcommand or wrong number of arguments for '"[..];
                self.answer([begins, &what, b"'. Try SLOWLOG HELP.\r\n"].concat());
            }
            (b"len", 2) => {
                let reply = format!(":{}\r\n", log.len_of_pool(pool));
                self.answer(reply.into_bytes());
            }
            (b"reset", 2) => {
                log.forget(pool);
                self.answer_static(OK);
            }
            (b"help", 2) => {
                let lines: String = HELP.iter().map(|line| format!("+{line}\r\n")).collect();
                self.answer(format!("*{}\r\n{lines}", HELP.len()).into_bytes());
            }
            (b"len" | b"reset" | b"help", _) => self.answer(wrong_count("slowlog", &sub)),
            _ => self.answer(unknown_subcommand("slowlog", asked.argument(1))),
        }
    }
}

/// How many are wanted; none when it is no such number.
fn count(asked: &Asked<'_>) -> Option<usize> {
    if asked.count() < 3 {
        return Some(COUNT);
    }
    match std::str::from_utf8(asked.argument(2)).ok()?.parse::<i64>().ok()? {
        -1 => Some(SLOW_MAX),
        count => usize::try_from(count).ok(),
    }
}

fn told(entries: &[(u64, Slow)]) -> Vec<u8> {
    let mut reply = format!("*{}\r\n", entries.len()).into_bytes();
    for (number, slow) in entries {
        let (seconds, took) = (slow.at.as_secs(), slow.took.as_micros());
        reply.extend_from_slice(format!("*6\r\n:{number}\r\n:{seconds}\r\n:{took}\r\n").as_bytes());
        // A subcommand is a word of its own.
        let words: Vec<&str> = slow.command.split('|').collect();
        let at = if slow.outcome == ANSWERED { "by" } else { "at" };
        let more = format!("... ({} bytes in all, {} {at} {})", slow.bytes, slow.outcome, slow.server);
        reply.extend_from_slice(format!("*{}\r\n", words.len() + 2).as_bytes());
        words.iter().for_each(|word| bulk(&mut reply, word.as_bytes()));
        let mut argument = slow.argument.clone();
        if slow.argument_more > 0 {
            argument.extend_from_slice(format!("... ({} more bytes)", slow.argument_more).as_bytes());
        }
        bulk(&mut reply, &argument);
        bulk(&mut reply, more.as_bytes());
        bulk(&mut reply, slow.client.address.as_bytes());
        bulk(&mut reply, &slow.client.name);
    }
    reply
}

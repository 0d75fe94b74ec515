//! The memcached store: one request, its reply.

use std::time::Duration;

use base::Instant;

use super::{MEMORY_MAX, Store, VALUE_MAX, Value, after};

const ERROR: &[u8] = b"ERROR\r\n";
const STORED: &[u8] = b"STORED\r\n";
const NOT_STORED: &[u8] = b"NOT_STORED\r\n";
const NOT_FOUND: &[u8] = b"NOT_FOUND\r\n";
const BAD_LINE: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
/// Times beyond this are dates.
const RELATIVE_MAX: i64 = 30 * 86_400;

/// The time of a request, for both kinds of times that clients give.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the monotonic clock.
    pub now: Instant,
    /// Seconds since 1970.
    pub wall: i64,
}

/// Answers one request: the words of its line, and the data behind it. `false`: the connection ends behind the answer.
pub fn answer(store: &mut Store, words: &[&[u8]], data: &[u8], at: Moment, to: &mut Vec<u8>) -> bool {
    let Some((name, rest)) = words.split_first() else {
        to.extend_from_slice(ERROR);
        return true;
    };
    store.commands += 1;
    let from = to.len();
    let mut request = Request { store, at, to };
    match *name {
        b"get" | b"gets" if !rest.is_empty() => request.get(rest, *name == b"gets"),
        b"gat" | b"gats" if rest.len() > 1 => request.get_and_touch(rest, *name == b"gats"),
        b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" => request.store(name, rest, data),
        b"delete" if !rest.is_empty() => request.delete(rest[0]),
        b"incr" | b"decr" if rest.len() > 1 => request.add(rest[0], rest[1], *name == b"incr"),
        b"touch" if rest.len() > 1 => request.touch(rest[0], rest[1]),
        b"flush_all" => {
            request.store.clear();
            request.say(b"OK\r\n");
        }
        b"version" => request.to.extend(format!("VERSION 1.6.18 Beltway {}\r\n", base::VERSION).bytes()),
        b"verbosity" => request.say(b"OK\r\n"),
        b"stats" => request.stats(),
        b"quit" => return false,
        _ => request.say(ERROR),
    }
    // Errors are told all the same.
    let silent = words.last().is_some_and(|last| *last == b"noreply");
    if silent && !is_error(&to[from..]) {
        to.truncate(from);
    }
    true
}

fn is_error(reply: &[u8]) -> bool {
    [ERROR, b"CLIENT_ERROR", b"SERVER_ERROR"].iter().any(|error| reply.starts_with(error))
}

fn number<T: std::str::FromStr>(word: &[u8]) -> Option<T> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

struct Request<'a> {
    store: &'a mut Store,
    at: Moment,
    to: &'a mut Vec<u8>,
}

impl Request<'_> {
    fn say(&mut self, line: &[u8]) {
        self.to.extend_from_slice(line);
    }

    /// When an item ends, by the time that was given; `Err`: at once.
    fn expiry(&self, given: i64) -> Result<Option<Instant>, ()> {
        let left = if given > RELATIVE_MAX { given - self.at.wall } else { given };
        match u64::try_from(left) {
            Ok(0) if given == 0 => Ok(None),
            Ok(seconds) if seconds > 0 => Ok(after(self.at.now, Duration::from_secs(seconds))),
            _ => Err(()),
        }
    }

    fn get(&mut self, keys: &[&[u8]], with_unique: bool) {
        for key in keys {
            let Some(entry) = self.store.find(key, self.at.now) else {
                self.store.misses += 1;
                continue;
            };
            let (flags, unique) = (entry.flags, entry.unique);
            let Value::Text(text) = &entry.value else { continue };
            self.to.extend_from_slice(b"VALUE ");
            self.to.extend_from_slice(key);
            let end = if with_unique { format!(" {unique}\r\n") } else { "\r\n".to_owned() };
            self.to.extend(format!(" {flags} {}{end}", text.len()).bytes());
            self.to.extend_from_slice(text);
            self.to.extend_from_slice(b"\r\n");
            self.store.hits += 1;
        }
        self.say(b"END\r\n");
    }

    fn get_and_touch(&mut self, rest: &[&[u8]], with_unique: bool) {
        let Some(given) = number(rest[0]) else {
            return self.say(b"CLIENT_ERROR invalid exptime argument\r\n");
        };
        self.get(&rest[1..], with_unique);
        for key in &rest[1..] {
            self.set_expiry(key, given);
        }
    }

    fn set_expiry(&mut self, key: &[u8], given: i64) -> bool {
        match self.expiry(given) {
            Ok(expires) => self.store.set_expiry(key, expires, self.at.now),
            Err(()) => self.store.remove(key).is_some(),
        }
    }

    fn touch(&mut self, key: &[u8], given: &[u8]) {
        let Some(given) = number(given) else {
            return self.say(b"CLIENT_ERROR invalid exptime argument\r\n");
        };
        let there = self.store.find(key, self.at.now).is_some() && self.set_expiry(key, given);
        self.say(if there { b"TOUCHED\r\n" } else { NOT_FOUND });
    }

    fn store(&mut self, name: &[u8], rest: &[&[u8]], data: &[u8]) {
        let (Some(key), Some(flags), Some(given)) = (
            rest.first().copied(),
            rest.get(1).and_then(|word| number::<u32>(word)),
            rest.get(2).and_then(|word| number::<i64>(word)),
        ) else {
            return self.say(BAD_LINE);
        };
        if key.len() > kv::wire::memcached::KEY_MAX {
            return self.say(BAD_LINE);
        }
        let there = self.store.find(key, self.at.now).cloned();
        let joined;
        let (mut flags, mut data, mut keeps) = (flags, data, None);
        match (name, &there) {
            (b"add", Some(_)) | (b"replace" | b"append" | b"prepend", None) => return self.say(NOT_STORED),
            (b"cas", None) => return self.say(NOT_FOUND),
            (b"cas", Some(entry)) => match rest.get(4).and_then(|word| number::<u64>(word)) {
                None => return self.say(BAD_LINE),
                Some(unique) if unique != entry.unique => return self.say(b"EXISTS\r\n"),
                Some(_) => {}
            },
            (b"append" | b"prepend", Some(entry)) => {
                let Value::Text(text) = &entry.value else { return self.say(NOT_STORED) };
                let parts = if name == b"append" { [text.as_slice(), data] } else { [data, text.as_slice()] };
                joined = parts.concat();
                (flags, data, keeps) = (entry.flags, &joined, Some(entry.expires));
            }
            _ => {}
        }
        if data.len() > VALUE_MAX {
            self.store.remove(key);
            return self.say(b"SERVER_ERROR object too large for cache\r\n");
        }
        let expires = match keeps.map_or_else(|| self.expiry(given), Ok) {
            Ok(expires) => expires,
            Err(()) => Some(self.at.now),
        };
        self.store.sets += 1;
        let put = self.store.put(key, Value::Text(data.to_vec()), flags, expires, self.at.now);
        self.say(if put.is_ok() { STORED } else { b"SERVER_ERROR out of memory storing object\r\n" });
    }

    fn delete(&mut self, key: &[u8]) {
        let there = self.store.find(key, self.at.now).is_some() && self.store.remove(key).is_some();
        self.say(if there { b"DELETED\r\n" } else { NOT_FOUND });
    }

    fn add(&mut self, key: &[u8], step: &[u8], up: bool) {
        let Some(step) = number::<u64>(step) else {
            return self.say(b"CLIENT_ERROR invalid numeric delta argument\r\n");
        };
        let Some(entry) = self.store.find(key, self.at.now) else { return self.say(NOT_FOUND) };
        let (flags, expires) = (entry.flags, entry.expires);
        let before = match &entry.value {
            Value::Text(text) => number::<u64>(text),
            _ => None,
        };
        let Some(before) = before else {
            return self.say(b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n");
        };
        let sum = if up { before.wrapping_add(step) } else { before.saturating_sub(step) };
        let text = sum.to_string();
        let put = self.store.put(key, Value::Text(text.clone().into_bytes()), flags, expires, self.at.now);
        match put {
            Ok(()) => self.to.extend(format!("{text}\r\n").bytes()),
            Err(_) => self.say(b"SERVER_ERROR out of memory in incr\r\n"),
        }
    }

    fn stats(&mut self) {
        let store = &*self.store;
        let numbers = [
            ("cmd_set", store.sets),
            ("get_hits", store.hits),
            ("get_misses", store.misses),
            ("curr_items", store.len() as u64),
            ("bytes", store.used() as u64),
            ("limit_maxbytes", MEMORY_MAX as u64),
        ];
        let what = "embedded, for demonstration; gone when the server ends";
        let mut text = format!("STAT version 1.6.18\r\nSTAT beltway_store {what}\r\n");
        for (name, value) in numbers {
            text.push_str(&format!("STAT {name} {value}\r\n"));
        }
        text.push_str("END\r\n");
        self.to.extend(text.bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment { now: Instant::ORIGIN, wall: 1_800_000_000 };

    fn ask(store: &mut Store, line: &str, data: &str, at: Moment) -> String {
        let words: Vec<&[u8]> = line.split_whitespace().map(str::as_bytes).collect();
        let mut to = Vec::new();
        answer(store, &words, data.as_bytes(), at, &mut to);
        String::from_utf8(to).unwrap().replace("\r\n", " ").trim().to_owned()
    }

    #[test]
    fn requests_answer_as_a_memcached_does() {
        let mut store = Store::new();
        let talk = [
            ("set a 5 0 1", "1", "STORED"),
            ("get a b", "", "VALUE a 5 1 1 END"),
            ("gets a", "", "VALUE a 5 1 1 1 END"),
            ("cas a 5 0 1 7", "2", "EXISTS"),
            ("cas a 5 0 1 1", "2", "STORED"),
            ("add a 0 0 1", "3", "NOT_STORED"),
            ("append a 0 0 1", "3", "STORED"),
            ("prepend a 0 0 1", "1", "STORED"),
            ("incr a 1", "", "124"),
            ("decr a 1000", "", "0"),
            ("replace b 0 0 1", "3", "NOT_STORED"),
            ("touch a 10", "", "TOUCHED"),
            ("gat 0 a", "", "VALUE a 5 1 0 END"),
            ("delete a noreply", "", ""),
            ("delete a", "", "NOT_FOUND"),
            ("set s 0 -1 1", "1", "STORED"),
            ("get s", "", "END"),
            ("set x y 0 1", "1", "CLIENT_ERROR bad command line format"),
            ("flush_all", "", "OK"),
            ("mg a", "", "ERROR"),
        ];
        for (line, data, reply) in talk {
            assert_eq!(ask(&mut store, line, data, NOW), reply, "{line}");
        }
        assert!(ask(&mut store, "stats", "", NOW).contains("for demonstration"));
    }

    #[test]
    fn items_expire_after_a_time_or_at_a_date() {
        let mut store = Store::new();
        let later = |seconds: i64| Moment {
            now: NOW.now + Duration::from_secs(seconds.unsigned_abs()),
            wall: NOW.wall + seconds,
        };
        ask(&mut store, "set a 0 10 1", "1", NOW);
        ask(&mut store, &format!("set b 0 {} 1", NOW.wall + 20), "1", NOW);
        assert_eq!(ask(&mut store, "get a b", "", later(9)).matches("VALUE").count(), 2);
        assert_eq!(ask(&mut store, "get a b", "", later(10)).matches("VALUE").count(), 1);
        assert_eq!(ask(&mut store, "get a b", "", later(20)), "END");
    }
}

//! The Redis store: one command, one reply.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use base::Instant;

use super::{Full, MEMORY_MAX, Store, VALUE_MAX, Value, after};

const OK: &[u8] = b"+OK\r\n";
const NIL: &[u8] = b"$-1\r\n";
const SYNTAX: &[u8] = b"-ERR syntax error\r\n";
const NOT_AN_INTEGER: &[u8] = b"-ERR value is not an integer or out of range\r\n";
const WRONG_TYPE: &[u8] = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
const FULL: &[u8] = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n";
const TOO_LONG: &[u8] = b"-ERR string exceeds maximum allowed size\r\n";

/// An error line in a reply's place.
struct Refused(&'static [u8]);

impl From<Full> for Refused {
    fn from(_: Full) -> Self {
        Self(FULL)
    }
}

type Answer = Result<(), Refused>;

/// Answers one command, whose name comes first. `false`: the connection ends behind the answer.
pub fn answer(store: &mut Store, words: &[&[u8]], now: Instant, to: &mut Vec<u8>) -> bool {
    let Some((name, arguments)) = words.split_first() else { return true };
    let name = name.to_ascii_lowercase();
    store.commands += 1;
    let Some((_, least, most)) = COMMANDS.iter().find(|(known, ..)| known.as_bytes() == name) else {
        let shown: String = String::from_utf8_lossy(&name).chars().filter(|c| !c.is_control()).take(64).collect();
        to.extend(format!("-ERR unknown command '{shown}': this is Beltway's demonstration store\r\n").bytes());
        return true;
    };
    if arguments.len() < *least || arguments.len() > *most {
        let name = String::from_utf8_lossy(&name).into_owned();
        to.extend(format!("-ERR wrong number of arguments for '{name}' command\r\n").bytes());
        return true;
    }
    let mut command = Command { store, arguments, now, to };
    if let Err(Refused(line)) = command.run(&name) {
        to.extend(line);
    }
    name != b"quit"
}

const MANY: usize = usize::MAX;

/// Each command with the least and the most arguments behind its name.
const COMMANDS: [(&str, usize, usize); 59] = [
    ("append", 2, 2),
    ("client", 1, MANY),
    ("command", 0, MANY),
    ("dbsize", 0, 0),
    ("decr", 1, 1),
    ("decrby", 2, 2),
    ("del", 1, MANY),
    ("echo", 1, 1),
    ("exists", 1, MANY),
    ("expire", 2, 2),
    ("flushall", 0, 1),
    ("flushdb", 0, 1),
    ("get", 1, 1),
    ("getdel", 1, 1),
    ("getset", 2, 2),
    ("hdel", 2, MANY),
    ("hexists", 2, 2),
    ("hget", 2, 2),
    ("hgetall", 1, 1),
    ("hincrby", 3, 3),
    ("hkeys", 1, 1),
    ("hlen", 1, 1),
    ("hmget", 2, MANY),
    ("hmset", 3, MANY),
    ("hset", 3, MANY),
    ("hvals", 1, 1),
    ("incr", 1, 1),
    ("incrby", 2, 2),
    ("info", 0, 1),
    ("llen", 1, 1),
    ("lpop", 1, 1),
    ("lpush", 2, MANY),
    ("lrange", 3, 3),
    ("mget", 1, MANY),
    ("mset", 2, MANY),
    ("persist", 1, 1),
    ("pexpire", 2, 2),
    ("ping", 0, 1),
    ("psetex", 3, 3),
    ("pttl", 1, 1),
    ("quit", 0, 0),
    ("rpop", 1, 1),
    ("rpush", 2, MANY),
    ("sadd", 2, MANY),
    ("scard", 1, 1),
    ("select", 1, 1),
    ("set", 2, 7),
    ("setex", 3, 3),
    ("setnx", 2, 2),
    ("sismember", 2, 2),
    ("smembers", 1, 1),
    ("srem", 2, MANY),
    ("strlen", 1, 1),
    ("substr", 3, 3),
    ("getrange", 3, 3),
    ("touch", 1, MANY),
    ("ttl", 1, 1),
    ("type", 1, 1),
    ("unlink", 1, MANY),
];

struct Command<'a> {
    store: &'a mut Store,
    arguments: &'a [&'a [u8]],
    now: Instant,
    to: &'a mut Vec<u8>,
}

fn integer(text: &[u8]) -> Result<i64, Refused> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Refused(NOT_AN_INTEGER))
}

impl Command<'_> {
    fn say(&mut self, line: &[u8]) {
        self.to.extend_from_slice(line);
    }

    fn number(&mut self, number: i64) {
        self.to.extend(format!(":{number}\r\n").bytes());
    }

    fn count(&mut self, count: usize) {
        self.number(i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn bulk(&mut self, bytes: &[u8]) {
        self.to.extend(format!("${}\r\n", bytes.len()).bytes());
        self.to.extend_from_slice(bytes);
        self.to.extend_from_slice(b"\r\n");
    }

    fn maybe(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.say(NIL),
        }
    }

    fn array<'b>(&mut self, items: impl ExactSizeIterator<Item = &'b [u8]>) {
        self.to.extend(format!("*{}\r\n", items.len()).bytes());
        items.for_each(|item| self.bulk(item));
    }

    fn key(&self) -> &[u8] {
        self.arguments.first().copied().unwrap_or_default()
    }

    fn run(&mut self, name: &[u8]) -> Answer {
        match name {
            b"ping" => match self.arguments.first() {
                Some(text) => self.bulk(text),
                None => self.say(b"+PONG\r\n"),
            },
            b"echo" => self.bulk(self.arguments[0]),
            b"quit" => self.say(OK),
            b"select" if self.arguments[0] == b"0" => self.say(OK),
            b"select" => self.say(b"-ERR DB index is out of range\r\n"),
            b"client" | b"command" => self.say(if name == b"client" { OK } else { b"*0\r\n" }),
            b"dbsize" => self.count(self.store.len()),
            b"flushall" | b"flushdb" => {
                self.store.clear();
                self.say(OK);
            }
            b"info" => self.info(),
            b"get" | b"getset" | b"getdel" | b"mget" | b"strlen" | b"substr" | b"getrange" => self.read_text(name)?,
            b"set" | b"setnx" | b"setex" | b"psetex" | b"mset" | b"append" => self.write_text(name)?,
            b"incr" => self.add(1)?,
            b"decr" => self.add(-1)?,
            b"incrby" => self.add(integer(self.arguments[1])?)?,
            b"decrby" => self.add(integer(self.arguments[1])?.checked_neg().ok_or(Refused(NOT_AN_INTEGER))?)?,
            b"del" | b"unlink" | b"exists" | b"touch" => self.keys(matches!(name, b"del" | b"unlink")),
            b"type" => self.kind(),
            b"expire" | b"pexpire" | b"persist" | b"ttl" | b"pttl" => self.expiry(name)?,
            _ => match name[0] {
                b'h' => self.hash(name)?,
                b's' => self.set(name)?,
                _ => self.list(name)?,
            },
        }
        Ok(())
    }

    fn info(&mut self) {
        let text = format!(
            "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nbeltway_version:{}\r\n\
             beltway_store:embedded, for demonstration: a few commands, {MEMORY_MAX} bytes, gone when the server ends\r\n\
             \r\n# Memory\r\nused_memory:{}\r\nmaxmemory:{MEMORY_MAX}\r\nmaxmemory_policy:noeviction\r\n\r\n# Persistence\r\n\
             loading:0\r\n\r\n# Stats\r\ntotal_commands_processed:{}\r\nkeyspace_hits:{}\r\nkeyspace_misses:{}\r\n\r\n\
             # Keyspace\r\ndb0:keys={},expires=0,avg_ttl=0\r\n",
            base::VERSION,
            self.store.used(),
            self.store.commands,
            self.store.hits,
            self.store.misses,
            self.store.len(),
        );
        self.bulk(text.as_bytes());
    }

    /// What is under a key.
    fn value(&mut self, key: &[u8]) -> Option<Value> {
        let found = self.store.find(key, self.now).map(|entry| entry.value.clone());
        match found {
            Some(_) => self.store.hits += 1,
            None => self.store.misses += 1,
        }
        found
    }

    fn text(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(Refused(WRONG_TYPE)),
        }
    }

    /// Puts `value` in the key's place, which keeps its expiry.
    fn keep(&mut self, key: &[u8], value: Value) -> Answer {
        let expires = self.store.find(key, self.now).and_then(|entry| entry.expires);
        Ok(self.store.put(key, value, 0, expires, self.now)?)
    }

    fn read_text(&mut self, name: &[u8]) -> Answer {
        let arguments = self.arguments;
        if name == b"mget" {
            self.to.extend(format!("*{}\r\n", arguments.len()).bytes());
            for key in arguments {
                let text = self.text(key).unwrap_or(None);
                self.maybe(text.as_deref());
            }
            return Ok(());
        }
        let text = self.text(arguments[0])?;
        match name {
            b"strlen" => self.count(text.map_or(0, |text| text.len())),
            b"substr" | b"getrange" => {
                let text = text.unwrap_or_default();
                let range = span(integer(arguments[1])?, integer(arguments[2])?, text.len());
                self.bulk(&text[range]);
            }
            _ => {
                if name == b"getset" {
                    fits(arguments[1])?;
                    self.store.put(arguments[0], Value::Text(arguments[1].to_vec()), 0, None, self.now)?;
                } else if name == b"getdel" {
                    self.store.remove(arguments[0]);
                }
                self.maybe(text.as_deref());
            }
        }
        Ok(())
    }

    fn write_text(&mut self, name: &[u8]) -> Answer {
        let arguments = self.arguments;
        match name {
            b"mset" => {
                if !arguments.len().is_multiple_of(2) {
                    return Err(Refused(b"-ERR wrong number of arguments for 'mset' command\r\n"));
                }
                for pair in arguments.chunks_exact(2) {
                    fits(pair[1])?;
                    self.store.put(pair[0], Value::Text(pair[1].to_vec()), 0, None, self.now)?;
                }
                self.say(OK);
            }
            b"append" => {
                let mut text = self.text(arguments[0])?.unwrap_or_default();
                text.extend_from_slice(arguments[1]);
                fits(&text)?;
                let len = text.len();
                self.keep(arguments[0], Value::Text(text))?;
                self.count(len);
            }
            b"setnx" => {
                let there = self.store.find(arguments[0], self.now).is_some();
                if !there {
                    fits(arguments[1])?;
                    self.store.put(arguments[0], Value::Text(arguments[1].to_vec()), 0, None, self.now)?;
                }
                self.number(i64::from(!there));
            }
            b"setex" | b"psetex" => {
                let unit = if name == b"setex" { 1_000 } else { 1 };
                let expires = self.moment(arguments[1], unit)?;
                fits(arguments[2])?;
                self.store.put(arguments[0], Value::Text(arguments[2].to_vec()), 0, expires, self.now)?;
                self.say(OK);
            }
            _ => self.set_text()?,
        }
        Ok(())
    }

    /// `SET key value [NX | XX] [GET] [EX s | PX ms | KEEPTTL]`.
    fn set_text(&mut self) -> Answer {
        let (key, value) = (self.arguments[0], self.arguments[1]);
        let there = self.store.find(key, self.now).map(|entry| entry.expires);
        let (mut wanted, mut expires, mut get) = (None, None, false);
        let mut words = self.arguments[2..].iter();
        while let Some(word) = words.next() {
            match word.to_ascii_lowercase().as_slice() {
                b"nx" if wanted.is_none() => wanted = Some(false),
                b"xx" if wanted.is_none() => wanted = Some(true),
                b"get" => get = true,
                b"keepttl" => expires = there.flatten(),
                unit @ (b"ex" | b"px") => {
                    let time = words.next().ok_or(Refused(SYNTAX))?;
                    expires = self.moment(time, if unit == b"ex" { 1_000 } else { 1 })?;
                }
                _ => return Err(Refused(SYNTAX)),
            }
        }
        fits(value)?;
        let before = if get { self.text(key)? } else { None };
        let sets = wanted.is_none_or(|wanted| wanted == there.is_some());
        if sets {
            self.store.put(key, Value::Text(value.to_vec()), 0, expires, self.now)?;
        }
        match (get, sets) {
            (true, _) => self.maybe(before.as_deref()),
            (false, true) => self.say(OK),
            (false, false) => self.say(NIL),
        }
        Ok(())
    }

    /// So many milliseconds, or seconds, from now.
    fn moment(&self, text: &[u8], unit_ms: u64) -> Result<Option<Instant>, Refused> {
        let time = u64::try_from(integer(text)?).ok().filter(|time| *time > 0);
        let time = time.ok_or(Refused(b"-ERR invalid expire time in 'set' command\r\n"))?;
        Ok(after(self.now, Duration::from_millis(time.saturating_mul(unit_ms))))
    }

    fn add(&mut self, step: i64) -> Answer {
        let key = self.arguments[0];
        let before = self.text(key)?.map_or(Ok(0), |text| integer(&text))?;
        let sum = before.checked_add(step).ok_or(Refused(b"-ERR increment or decrement would overflow\r\n"))?;
        self.keep(key, Value::Text(sum.to_string().into_bytes()))?;
        self.number(sum);
        Ok(())
    }

    fn keys(&mut self, remove: bool) {
        let mut count = 0;
        for key in self.arguments {
            let there = self.store.find(key, self.now).is_some();
            count += usize::from(there);
            if there && remove {
                self.store.remove(key);
            }
        }
        self.count(count);
    }

    fn kind(&mut self) {
        let kind: &[u8] = match self.store.find(self.arguments[0], self.now).map(|entry| &entry.value) {
            None => b"+none\r\n",
            Some(Value::Text(_)) => b"+string\r\n",
            Some(Value::Hash(_)) => b"+hash\r\n",
            Some(Value::List(_)) => b"+list\r\n",
            Some(Value::Set(_)) => b"+set\r\n",
        };
        self.say(kind);
    }

    fn expiry(&mut self, name: &[u8]) -> Answer {
        let (key, now) = (self.arguments[0], self.now);
        match name {
            b"expire" | b"pexpire" => {
                let time = integer(self.arguments[1])?;
                let unit = if name == b"expire" { 1_000 } else { 1 };
                let done = match u64::try_from(time) {
                    Ok(time) if time > 0 => {
                        let expires = after(now, Duration::from_millis(time.saturating_mul(unit)));
                        self.store.set_expiry(key, expires, now)
                    }
                    _ => self.store.find(key, now).is_some() && self.store.remove(key).is_some(),
                };
                self.number(i64::from(done));
            }
            b"persist" => {
                let expires = self.store.find(key, now).is_some_and(|entry| entry.expires.is_some());
                let persists = expires && self.store.set_expiry(key, None, now);
                self.number(i64::from(persists));
            }
            _ => {
                let expires = self.store.find(key, now).map(|entry| entry.expires);
                let left = match expires {
                    None => -2,
                    Some(None) => -1,
                    Some(Some(at)) => {
                        let left = at - now;
                        let whole = if name == b"ttl" { (left.as_millis() + 500) / 1_000 } else { left.as_millis() };
                        i64::try_from(whole).unwrap_or(i64::MAX)
                    }
                };
                self.number(left);
            }
        }
        Ok(())
    }

    fn hash(&mut self, name: &[u8]) -> Answer {
        let key = self.key().to_vec();
        let mut fields = match self.value(&key) {
            None => BTreeMap::new(),
            Some(Value::Hash(fields)) => fields,
            Some(_) => return Err(Refused(WRONG_TYPE)),
        };
        let rest = &self.arguments[1..];
        match name {
            b"hget" => self.maybe(fields.get(rest[0]).map(Vec::as_slice)),
            b"hmget" => {
                self.to.extend(format!("*{}\r\n", rest.len()).bytes());
                rest.iter().for_each(|field| self.maybe(fields.get(*field).map(Vec::as_slice)));
            }
            b"hexists" => self.number(i64::from(fields.contains_key(rest[0]))),
            b"hlen" => self.count(fields.len()),
            b"hkeys" => self.array(fields.keys().map(Vec::as_slice)),
            b"hvals" => self.array(fields.values().map(Vec::as_slice)),
            b"hgetall" => {
                let all: Vec<&[u8]> =
                    fields.iter().flat_map(|(field, value)| [field.as_slice(), value.as_slice()]).collect();
                self.array(all.into_iter());
            }
            b"hset" | b"hmset" => {
                if !rest.len().is_multiple_of(2) {
                    return Err(Refused(b"-ERR wrong number of arguments for 'hset' command\r\n"));
                }
                let mut new = 0;
                for pair in rest.chunks_exact(2) {
                    new += usize::from(fields.insert(pair[0].to_vec(), pair[1].to_vec()).is_none());
                }
                self.keep(&key, Value::Hash(fields))?;
                if name == b"hset" { self.count(new) } else { self.say(OK) }
            }
            b"hincrby" => {
                let before = fields.get(rest[0]).map_or(Ok(0), |text| integer(text))?;
                let sum = before.checked_add(integer(rest[1])?);
                let sum = sum.ok_or(Refused(b"-ERR increment or decrement would overflow\r\n"))?;
                fields.insert(rest[0].to_vec(), sum.to_string().into_bytes());
                self.keep(&key, Value::Hash(fields))?;
                self.number(sum);
            }
            _ => {
                let gone = rest.iter().filter(|field| fields.remove(**field).is_some()).count();
                let empty = fields.is_empty();
                self.shrink(&key, Value::Hash(fields), empty)?;
                self.count(gone);
            }
        }
        Ok(())
    }

    fn set(&mut self, name: &[u8]) -> Answer {
        let key = self.key().to_vec();
        let mut members = match self.value(&key) {
            None => BTreeSet::new(),
            Some(Value::Set(members)) => members,
            Some(_) => return Err(Refused(WRONG_TYPE)),
        };
        let rest = &self.arguments[1..];
        match name {
            b"scard" => self.count(members.len()),
            b"sismember" => self.number(i64::from(members.contains(rest[0]))),
            b"smembers" => self.array(members.iter().map(Vec::as_slice).collect::<Vec<_>>().into_iter()),
            b"sadd" => {
                let new = rest.iter().filter(|member| members.insert(member.to_vec())).count();
                self.keep(&key, Value::Set(members))?;
                self.count(new);
            }
            _ => {
                let gone = rest.iter().filter(|member| members.remove(**member)).count();
                let empty = members.is_empty();
                self.shrink(&key, Value::Set(members), empty)?;
                self.count(gone);
            }
        }
        Ok(())
    }

    fn list(&mut self, name: &[u8]) -> Answer {
        let key = self.key().to_vec();
        let mut items = match self.value(&key) {
            None => VecDeque::new(),
            Some(Value::List(items)) => items,
            Some(_) => return Err(Refused(WRONG_TYPE)),
        };
        let rest = &self.arguments[1..];
        match name {
            b"llen" => self.count(items.len()),
            b"lrange" => {
                let range = span(integer(rest[0])?, integer(rest[1])?, items.len());
                self.array(items.range(range).map(Vec::as_slice).collect::<Vec<_>>().into_iter());
            }
            b"lpush" | b"rpush" => {
                for item in rest {
                    if name == b"lpush" { items.push_front(item.to_vec()) } else { items.push_back(item.to_vec()) }
                }
                let len = items.len();
                self.keep(&key, Value::List(items))?;
                self.count(len);
            }
            _ => {
                let item = if name == b"lpop" { items.pop_front() } else { items.pop_back() };
                let empty = items.is_empty();
                self.shrink(&key, Value::List(items), empty)?;
                self.maybe(item.as_deref());
            }
        }
        Ok(())
    }

    /// Keeps what is left, unless nothing is.
    fn shrink(&mut self, key: &[u8], value: Value, empty: bool) -> Answer {
        if empty {
            self.store.remove(key);
            return Ok(());
        }
        self.keep(key, value)
    }
}

fn fits(value: &[u8]) -> Answer {
    if value.len() > VALUE_MAX { Err(Refused(TOO_LONG)) } else { Ok(()) }
}

/// From the first to the last, both counted from the end when they are negative, as a range within `len`.
fn span(first: i64, last: i64, len: usize) -> std::ops::Range<usize> {
    let len_signed = i64::try_from(len).unwrap_or(i64::MAX);
    let place = |at: i64| if at < 0 { at.saturating_add(len_signed) } else { at };
    let first = usize::try_from(place(first).max(0)).unwrap_or(len).min(len);
    let end = usize::try_from(place(last).saturating_add(1).max(0)).unwrap_or(len).min(len);
    first..end.max(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(store: &mut Store, line: &str, now: Instant) -> String {
        let words: Vec<&[u8]> = line.split_whitespace().map(str::as_bytes).collect();
        let mut to = Vec::new();
        answer(store, &words, now, &mut to);
        String::from_utf8(to).unwrap().replace("\r\n", " ").trim().to_owned()
    }

    #[test]
    fn commands_answer_as_a_redis_does() {
        let mut store = Store::new();
        let talk = [
            ("SET a 1", "+OK"),
            ("get a", "$1 1"),
            ("INCRBY a 41", ":42"),
            ("SET a 2 NX", "$-1"),
            ("SET a 2 XX GET", "$2 42"),
            ("GETDEL a", "$1 2"),
            ("GET a", "$-1"),
            ("MSET a 1 b 2", "+OK"),
            ("MGET a b c", "*3 $1 1 $1 2 $-1"),
            ("DEL a b c", ":2"),
            ("APPEND a xyz", ":3"),
            ("GETRANGE a -2 -1", "$2 yz"),
            ("INCR a", "-ERR value is not an integer or out of range"),
            ("HSET h f 1 g 2", ":2"),
            ("HGETALL h", "*4 $1 f $1 1 $1 g $1 2"),
            ("HINCRBY h f 4", ":5"),
            ("HDEL h f g", ":2"),
            ("EXISTS h", ":0"),
            ("RPUSH l a b c", ":3"),
            ("LPUSH l z", ":4"),
            ("LRANGE l 1 -1", "*3 $1 a $1 b $1 c"),
            ("LPOP l", "$1 z"),
            ("SADD s a b a", ":2"),
            ("SMEMBERS s", "*2 $1 a $1 b"),
            ("TYPE s", "+set"),
            ("GET s", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("PING", "+PONG"),
            ("GET", "-ERR wrong number of arguments for 'get' command"),
            ("LOLWUT", "-ERR unknown command 'lolwut': this is Beltway's demonstration store"),
            ("FLUSHALL", "+OK"),
            ("DBSIZE", ":0"),
        ];
        for (line, reply) in talk {
            assert_eq!(ask(&mut store, line, Instant::ORIGIN), reply, "{line}");
        }
        assert_eq!(store.used(), 0);
        assert!(ask(&mut store, "INFO", Instant::ORIGIN).contains("for demonstration"));
    }

    #[test]
    fn keys_expire() {
        let (mut store, now) = (Store::new(), Instant::ORIGIN);
        let later = |ms| now + Duration::from_millis(ms);
        assert_eq!(ask(&mut store, "SET a 1 PX 100", now), "+OK");
        assert_eq!(ask(&mut store, "PTTL a", later(40)), ":60");
        assert_eq!(ask(&mut store, "INCR a", later(50)), ":2");
        assert_eq!(ask(&mut store, "GET a", later(100)), "$-1");
        assert_eq!(ask(&mut store, "SETEX b 10 x", now), "+OK");
        assert_eq!(ask(&mut store, "PERSIST b", later(1)), ":1");
        assert_eq!(ask(&mut store, "TTL b", later(1)), ":-1");
        assert_eq!(ask(&mut store, "EXPIRE b -1", later(1)), ":1");
        assert_eq!(ask(&mut store, "TTL b", later(1)), ":-2");
    }

    #[test]
    fn a_range_stays_within_what_there_is() {
        assert_eq!(span(0, -1, 3), 0..3);
        assert_eq!(span(-100, 100, 3), 0..3);
        assert_eq!(span(2, 1, 3), 2..2);
        assert_eq!(span(i64::MAX, i64::MIN, 3), 3..3);
    }
}

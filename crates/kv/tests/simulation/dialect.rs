//! What clients ask and servers say, in either protocol: written and read here by the plainest code that does.

use std::rc::Rc;

use kv::wire::resp::{Request, Scan, reply, request};

/// The protocol of a world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    Redis,
    Memcached,
}

pub(crate) type Bytes = Rc<[u8]>;

/// A value: its key and its counter stand in it.
pub(crate) fn value_of(key: &[u8], counter: u64, len: usize) -> Bytes {
    let mut value = key.to_vec();
    value.extend_from_slice(format!("#{counter}#").as_bytes());
    value.resize(value.len() + len, b'.');
    value.into()
}

/// The counter of a value.
pub(crate) fn counter_of(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value.split(|byte| *byte == b'#').nth(1)?).ok()?.parse().ok()
}

/// One request.
pub(crate) enum Ask {
    Get(Bytes),
    Many(Vec<Bytes>),
    Set(Vec<(Bytes, Bytes)>),
    Delete(Vec<Bytes>),
    /// What the proxy answers itself.
    Word(Vec<u8>),
}

/// What was found in one key's place.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Value(Bytes),
    Nothing,
    /// Nobody knows.
    Error,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(bytes) => {
                write!(out, "{} of {}", String::from_utf8_lossy(&bytes[..bytes.len().min(40)]), bytes.len())
            }
            Self::Nothing => out.write_str("nothing"),
            Self::Error => out.write_str("an error"),
        }
    }
}

/// One reply.
pub(crate) enum Said {
    Done,
    Values(Vec<Found>),
    Count(u64),
    Word,
    Error,
}

pub(crate) fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn bulk_value(element: &[u8]) -> Option<Found> {
    match element {
        [b'-', ..] => Some(Found::Error),
        b"$-1\r\n" => Some(Found::Nothing),
        [b'$', ..] => {
            let at = element.iter().position(|byte| *byte == b'\n')? + 1;
            Some(Found::Value(element.get(at..element.len() - 2)?.into()))
        }
        _ => None,
    }
}

impl Dialect {
    pub(crate) fn is_redis(self) -> bool {
        self == Self::Redis
    }

    /// The request as a client writes it. `quiet`: it wants no reply.
    pub(crate) fn write(self, ask: &Ask, quiet: bool) -> Vec<u8> {
        let words = |name: &str, rest: Vec<&[u8]>| request::encode(&[vec![name.as_bytes()], rest].concat());
        let all =
            |keys: &'_ [Bytes]| keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect::<Vec<_>>();
        let tail = if quiet { " noreply" } else { "" };
        match (self, ask) {
            (Self::Redis, Ask::Get(key)) => words("GET", vec![key]),
            (Self::Redis, Ask::Many(keys)) => words("MGET", keys.iter().map(|key| &**key).collect()),
            (Self::Redis, Ask::Set(pairs)) => {
                let name = if pairs.len() == 1 { "SET" } else { "MSET" };
                words(name, pairs.iter().flat_map(|(key, value)| [&**key, &**value]).collect())
            }
            (Self::Redis, Ask::Delete(keys)) => words("DEL", keys.iter().map(|key| &**key).collect()),
            (Self::Redis, Ask::Word(word)) => words("ECHO", vec![word]),
            (Self::Memcached, Ask::Get(key)) => format!("gets {}\r\n", String::from_utf8_lossy(key)).into_bytes(),
            (Self::Memcached, Ask::Many(keys)) => format!("get {}\r\n", all(keys).join(" ")).into_bytes(),
            (Self::Memcached, Ask::Set(pairs)) => {
                let [(key, value)] = pairs.as_slice() else { panic!("one at a time") };
                // The flags are the counter: they must come back with their value.
                let (name, flags) = (String::from_utf8_lossy(key), counter_of(value).unwrap());
                let line = format!("set {name} {flags} 0 {}{tail}\r\n", value.len());
                [line.as_bytes(), value, b"\r\n"].concat()
            }
            (Self::Memcached, Ask::Delete(keys)) => format!("delete {}{tail}\r\n", all(keys).join(" ")).into_bytes(),
            // No command, which is answered at once.
            (Self::Memcached, Ask::Word(word)) => [word, b"\r\n".as_slice()].concat(),
        }
    }

    /// The reply to that, if it is one.
    pub(crate) fn read(self, ask: &Ask, got: &[u8]) -> Option<Said> {
        match self {
            Self::Redis => read_redis(ask, got),
            Self::Memcached => read_memcached(ask, got),
        }
    }

    /// Takes a request of the proxy's out of what has come: its words, of `set` the data last.
    pub(crate) fn take_request(self, have: &mut Vec<u8>) -> Option<Vec<Bytes>> {
        if self.is_redis() {
            let mut request = Request::default();
            let Scan::Whole(len) = request.scan(have) else { return None };
            let words = request.arguments().iter().map(|at| have[at.start as usize..at.end as usize].into()).collect();
            have.drain(..len);
            return Some(words);
        }
        let end = have.windows(2).position(|two| two == b"\r\n")?;
        let mut words: Vec<Bytes> = have[..end].split(|byte| *byte == b' ').map(Bytes::from).collect();
        let mut whole = end + 2;
        if *words[0] == *b"set" {
            let len: usize = std::str::from_utf8(&words[4]).unwrap().parse().unwrap();
            if have.len() < whole + len + 2 {
                return None;
            }
            words.push(have[whole..whole + len].into());
            assert_eq!(have[whole + len..whole + len + 2], *b"\r\n", "the data end where they should");
            whole += len + 2;
        }
        have.drain(..whole);
        Some(words)
    }
}

fn read_redis(ask: &Ask, got: &[u8]) -> Option<Said> {
    if got.starts_with(b"-") {
        return Some(Said::Error);
    }
    match ask {
        Ask::Get(_) => Some(Said::Values(vec![bulk_value(got)?])),
        Ask::Many(_) => {
            let elements = reply::elements(got)?;
            Some(Said::Values(elements.into_iter().map(|at| bulk_value(&got[at])).collect::<Option<_>>()?))
        }
        Ask::Set(_) => (got == b"+OK\r\n").then_some(Said::Done),
        Ask::Delete(_) => Some(Said::Count(std::str::from_utf8(got).ok()?.strip_prefix(':')?.trim_end().parse().ok()?)),
        Ask::Word(word) => (got == bulk(word)).then_some(Said::Word),
    }
}

fn read_memcached(ask: &Ask, got: &[u8]) -> Option<Said> {
    if let Ask::Word(_) = ask {
        return (got == b"ERROR\r\n").then_some(Said::Word);
    }
    let last_line = got.strip_suffix(b"\r\n")?.rsplit(|byte| *byte == b'\n').next()?;
    if last_line.starts_with(b"SERVER_ERROR ") {
        return Some(Said::Error);
    }
    let keys = match ask {
        Ask::Set(_) => return (got == b"STORED\r\n").then_some(Said::Done),
        Ask::Delete(_) if got == b"DELETED\r\n" => return Some(Said::Count(1)),
        Ask::Delete(_) => return (got == b"NOT_FOUND\r\n").then_some(Said::Count(0)),
        Ask::Get(key) => std::slice::from_ref(key),
        Ask::Many(keys) => keys,
        Ask::Word(_) => return None,
    };
    let mut values = Vec::new();
    let mut rest = got;
    while rest != b"END\r\n" {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let words: Vec<&str> = std::str::from_utf8(&rest[..end]).ok()?.split(' ').collect();
        let ["VALUE", key, flags, len, unique @ ..] = words.as_slice() else { return None };
        let len: usize = len.parse().ok()?;
        let value: Bytes = rest.get(end + 2..end + 2 + len)?.into();
        rest = rest.get(end + 2 + len..)?.strip_prefix(b"\r\n")?;
        // What travels with a value is of that value.
        let of_value = |word: &str| word.parse().ok() == counter_of(&value);
        let is_single = matches!(ask, Ask::Get(_));
        if !of_value(flags) || unique.len() != usize::from(is_single) || !unique.iter().all(|unique| of_value(unique)) {
            return None;
        }
        values.push((key.as_bytes(), value));
    }
    // In the order of the keys, without those that have none.
    let mut values = values.into_iter().peekable();
    let found = keys.iter().map(|key| match values.next_if(|(of, _)| *of == &**key) {
        Some((_, value)) => Found::Value(value),
        None => Found::Nothing,
    });
    let found: Vec<Found> = found.collect();
    values.next().is_none().then_some(Said::Values(found))
}

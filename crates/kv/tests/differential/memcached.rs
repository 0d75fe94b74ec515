//! Commands of memcached, drawn by a seed, to one server and through a pool of four.
//!
//! Ordinary ones go in batches, odd ones alone: what is said to them, if anything, ends where the answer to a question
//! behind them begins.

use std::collections::BTreeMap;
use std::io::Write;

use base::Rng;
use kv::PoolSource;

use super::seed;
use super::world::{Client, Proxy, Server, pool};

/// Ordinary commands, of which there are more than those asked for in all.
const COMMANDS: usize = 100_000;
/// At most so many are on their way at once.
const DEPTH: u64 = 100;
/// One in so many is odd.
const ODD: u64 = 12;
/// Keys of values, and of numbers.
const KEYS: u64 = 60;

/// Lines with `K` for a key and `L` for one that is too long, of which something is wrong or unusual.
const ODD_LINES: &[&str] = &[
    "get",
    "gets",
    "gat",
    "gat 0",
    "gat x K",
    "get L",
    "get K L",
    "get  K ",
    " get K",
    "GET K",
    "FOO",
    "",
    "set K",
    "set K 0 0",
    "set K 0 0 x",
    "set K 0 0 -1",
    "set K x 0 1\r\nv",
    "set K 0 x 1\r\nv",
    "set K -1 0 1\r\nv",
    "set K 4294967295 0 1\r\nv",
    "set K 0 2000000000 1\r\nv",
    "set K 0 0 1\r\nvv",
    "set K 0 0 6\r\nv\r\nabcd",
    "set K 0 0 1 extra more\r\nv",
    "set L 0 0 1\r\nv",
    "set K 4294967296 4294967295 1\r\nv",
    "set K 0 2208988800 +1\r\nv",
    "set K 0 9223372036854775808 1\r\nv",
    "set K 0 0 4294967297\r\nv",
    "set K L 0 0 1\r\nv",
    "cas K 0 0 1 -1\r\nv",
    "add K",
    "append K 0 0",
    "cas K 0 0 1\r\nv",
    "cas K 0 0 1 x\r\nv",
    "cas K 0 0 x 1",
    "cas K 0 0 1 1 extra more\r\nv",
    "delete",
    "delete K 0",
    "delete K 1",
    "delete K x y",
    "delete L",
    "incr K",
    "incr K x",
    "incr K -1",
    "incr K 18446744073709551616",
    "incr K 1 extra",
    "incr L 1",
    "decr",
    "decr K x",
    "touch K",
    "touch K x",
    "touch L 1",
    "version x",
    "verbosity",
    "verbosity 0",
    "verbosity x",
    "verbosity 0 0 0",
    "flush_all x",
    "flush_all 0",
    "flush_all 0 0",
    "flush_all 0 0 0",
    "delete K 0 0 0",
];

/// What in an answer is not determined.
#[derive(Clone, Copy, Debug)]
enum Normaliser {
    /// Uniques are each server's own: left out of the answer, and kept for `cas`.
    Unique,
    /// A number that has grown shorter has blanks behind it, unless an answer with it was still under way.
    BlanksBehindNumbers,
    /// Nothing is said, whatever the server says when it is asked for an answer.
    Quiet,
}

/// One ordinary command. The unique of `cas` is each side's own.
struct Drawn {
    head: String,
    /// The key whose unique stands behind the head.
    unique: Option<String>,
    quiet: bool,
    /// The data behind the line of a storage command.
    data: Option<Vec<u8>>,
}

impl Drawn {
    fn name(&self) -> &str {
        self.head.split(' ').next().unwrap()
    }

    fn normaliser(&self) -> Normaliser {
        match self.name() {
            _ if self.quiet => Normaliser::Quiet,
            "gets" | "gats" => Normaliser::Unique,
            _ => Normaliser::BlanksBehindNumbers,
        }
    }

    fn line(&self, side: &Side, quiet: bool) -> Vec<u8> {
        let mut line = self.head.clone();
        if let Some(key) = &self.unique {
            line = format!("{line} {}", side.uniques.get(key).copied().unwrap_or(u64::MAX));
        }
        line.push_str(if quiet { " noreply\r\n" } else { "\r\n" });
        let data = self.data.as_ref().map_or_else(Vec::new, |data| [data.as_slice(), b"\r\n"].concat());
        [line.into_bytes(), data].concat()
    }
}

fn key(rng: &mut Rng, kind: char) -> String {
    format!("{kind}{}", rng.below(KEYS) * 7_919)
}

fn time(rng: &mut Rng) -> &'static str {
    // None, long from now, long ago, at once; since 1970 when it is more than a month.
    ["0", "100000", "-1", "2000000000", "1000000000"][usize::try_from(rng.below(5)).unwrap()]
}

fn value(rng: &mut Rng) -> Vec<u8> {
    let byte = b'a' + u8::try_from(rng.below(26)).unwrap();
    match rng.below(400) {
        0 => vec![byte; 300_000],
        1..=3 => vec![byte; 20_000],
        4..=40 => Vec::new(),
        41..=80 => b"\r\nEND\r\n\0\xff".to_vec(),
        _ => vec![byte; usize::try_from(rng.below(80)).unwrap()],
    }
}

fn ordinary(rng: &mut Rng) -> Drawn {
    let any = |rng: &mut Rng| {
        let kind = if rng.one_in(4) { 'n' } else { 'k' };
        key(rng, kind)
    };
    let keys = |rng: &mut Rng, count: u64| (0..count).map(|_| any(rng)).collect::<Vec<_>>().join(" ");
    let mut drawn = Drawn { head: String::new(), unique: None, quiet: rng.one_in(8), data: None };
    let mut store = |rng: &mut Rng, name: &str, kind: char, data: Vec<u8>| {
        drawn.head = format!("{name} {} {} {} {}", key(rng, kind), rng.below(1 << 32), time(rng), data.len());
        drawn.data = Some(data);
    };
    let choice = rng.below(32);
    match choice {
        0..=4 => {
            let count = 1 + rng.below(8);
            let name = if rng.one_in(3) { "gets" } else { "get" };
            (drawn.head, drawn.quiet) = (format!("{name} {}", keys(rng, count)), false);
        }
        5..=6 => {
            let count = 1 + rng.below(4);
            let name = if rng.one_in(2) { "gats" } else { "gat" };
            (drawn.head, drawn.quiet) = (format!("{name} {} {}", time(rng), keys(rng, count)), false);
        }
        7..=10 => {
            let data = value(rng);
            store(rng, "set", 'k', data);
        }
        11..=12 => {
            let data = rng.below(1_000).to_string().into_bytes();
            store(rng, "set", 'n', data);
        }
        13..=17 => {
            let (name, data) =
                (["add", "replace", "append", "prepend", "add"][usize::try_from(choice - 13).unwrap()], value(rng));
            store(rng, name, 'k', data);
        }
        18..=21 => {
            let data = value(rng);
            store(rng, "cas", 'k', data);
            drawn.unique = drawn.head.split(' ').nth(1).map(str::to_owned);
        }
        22..=23 => drawn.head = format!("delete {}", keys(rng, 1)),
        24..=28 => {
            let (name, kind) = (if rng.one_in(2) { "incr" } else { "decr" }, if rng.one_in(10) { 'k' } else { 'n' });
            let by = [1, 7, 90, 12_345, u64::MAX][usize::try_from(rng.below(5)).unwrap()];
            drawn.head = format!("{name} {} {by}", key(rng, kind));
        }
        29..=30 => drawn.head = format!("touch {} {}", keys(rng, 1), time(rng)),
        _ if rng.one_in(8) => drawn.head = "flush_all".into(),
        _ => (drawn.head, drawn.quiet) = ("version".into(), false),
    }
    drawn
}

/// A connection, and the uniques it was told.
struct Side {
    client: Client,
    uniques: BTreeMap<String, u64>,
}

impl Side {
    /// Writes while it reads: neither side need hold more than it likes.
    fn exchange(&mut self, bytes: &[u8], replies: usize) -> Vec<Vec<u8>> {
        let mut writer = self.client.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || writer.write_all(bytes).unwrap());
            (0..replies).map(|_| self.client.memcached_reply()).collect()
        })
    }

    /// What is said to this, up to the answer to the question behind it.
    fn alone(&mut self, bytes: &[u8], number: u64) -> String {
        let question = format!("set question 0 0 20\r\n{number:020}\r\nget question\r\n");
        let end = format!("STORED\r\nVALUE question 0 20\r\n{number:020}\r\nEND\r\n");
        self.client.send(&[bytes, question.as_bytes()].concat());
        let mut said = Vec::new();
        while !said.ends_with(end.as_bytes()) {
            said.extend(self.client.take(1));
        }
        said.truncate(said.len() - end.len());
        String::from_utf8_lossy(&said).into_owned()
    }

    /// The answer with what is not determined made equal.
    fn normal(&mut self, normaliser: Normaliser, reply: &[u8]) -> Vec<u8> {
        if matches!(normaliser, Normaliser::Quiet) {
            return Vec::new();
        }
        let mut rest = reply;
        let mut normal = Vec::new();
        while rest.starts_with(b"VALUE ") {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
            let line = String::from_utf8(rest[..end - 1].to_vec()).unwrap();
            let mut words: Vec<&str> = line.split(' ').collect();
            let length: usize = words[3].parse().unwrap();
            let mut data = &rest[end + 1..end + 1 + length];
            if data.first().is_some_and(u8::is_ascii_digit) {
                data = data.trim_ascii_end();
            }
            let length_told = data.len().to_string();
            words[3] = &length_told;
            if let (Normaliser::Unique, Some(unique)) = (normaliser, words.get(4)) {
                self.uniques.insert(words[1].to_owned(), unique.parse().unwrap());
                words[4] = "unique";
            }
            normal.extend([words.join(" ").as_bytes(), b"\r\n", data, b"\r\n"].concat());
            rest = &rest[end + 1 + length + 2..];
        }
        normal.extend(rest);
        normal
    }
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().take(600).collect()
}

struct Run {
    rng: Rng,
    one: Side,
    four: Side,
    /// By command: answers, and those that say that something was found or done.
    answered: BTreeMap<String, (u64, u64)>,
}

impl Run {
    fn batch(&mut self) -> usize {
        let count = 1 + self.rng.below(DEPTH);
        let batch: Vec<Drawn> = (0..count).map(|_| ordinary(&mut self.rng)).collect();
        let loud = batch.iter().filter(|drawn| !drawn.quiet).count();
        let bytes: Vec<u8> = batch.iter().flat_map(|drawn| drawn.line(&self.four, drawn.quiet)).collect();
        let mut replies = self.four.exchange(&bytes, loud).into_iter();
        let bytes: Vec<u8> = batch.iter().flat_map(|drawn| drawn.line(&self.one, false)).collect();
        let expected = self.one.exchange(&bytes, batch.len());
        for (drawn, expected) in batch.iter().zip(expected) {
            let got = if drawn.quiet { Vec::new() } else { replies.next().unwrap() };
            let normaliser = drawn.normaliser();
            let (expected, got) = (self.one.normal(normaliser, &expected), self.four.normal(normaliser, &got));
            assert!(
                expected == got,
                "seed {}: {} {}\n  one server: {}\n  the pool:   {}",
                seed(),
                drawn.head,
                drawn.data.as_deref().map(show).unwrap_or_default(),
                show(&expected),
                show(&got)
            );
            let (answers, good) = self.answered.entry(drawn.name().to_owned()).or_default();
            *answers += 1;
            let misses: [&[u8]; 4] = [b"NOT_", b"END", b"CLIENT_ERROR", b"EXISTS"];
            *good += u64::from(!got.is_empty() && !misses.iter().any(|miss| got.starts_with(miss)));
        }
        batch.len()
    }

    fn odd(&mut self) {
        let line = ODD_LINES[usize::try_from(self.rng.below(ODD_LINES.len() as u64)).unwrap()];
        let (own, long, number) = (key(&mut self.rng, 'n'), "l".repeat(251), self.rng.next_u64());
        let mut words: Vec<String> = Vec::new();
        let (head, data) = line.split_once("\r\n").map_or((line, None), |(head, data)| (head, Some(data)));
        for word in head.split(' ') {
            words.push(match word {
                "K" => own.clone(),
                "L" => long.clone(),
                other => other.to_owned(),
            });
        }
        if self.rng.one_in(3) {
            words.push("noreply".into());
        }
        let end = if data.is_none() && self.rng.one_in(4) { "\n" } else { "\r\n" };
        let mut bytes = (words.join(" ") + end).into_bytes();
        bytes.extend(data.map_or_else(Vec::new, |data| [data, "\r\n"].concat().into_bytes()));
        let expected = self.one.alone(&bytes, number);
        let got = self.four.alone(&bytes, number);
        // Data whose line memcached refuses are a request to it, and to a pool never.
        let dropped = data.is_some() && expected.strip_suffix("ERROR\r\n") == Some(&got);
        assert!(got == expected || dropped, "seed {}: {} {got:?} {expected:?}", seed(), show(&bytes));
    }
}

#[test]
fn a_pool_of_four_answers_as_one_memcached_does() {
    let mut servers: Vec<Server> = (0..5).map(|_| Server::memcached()).collect();
    let one = servers.remove(0);
    let mut source = PoolSource { memcached_flush_all: true, ..pool(&servers, false) };
    // Keys go by names, so that they are placed alike each time.
    (0..).zip(&mut source.servers).for_each(|(at, server)| server.name = Some(format!("server{at}")));
    let proxy = Proxy::start(source, 1);
    let side = |client| Side { client, uniques: BTreeMap::new() };
    let (one, four) = (side(one.client()), side(proxy.client()));
    let mut run = Run { rng: Rng::new(seed()), one, four, answered: BTreeMap::new() };
    let mut ordinary = 0;
    while ordinary < COMMANDS {
        for _ in 0..DEPTH / ODD {
            run.odd();
        }
        ordinary += run.batch();
    }
    let never: Vec<_> = run.answered.iter().filter(|(_, (answers, good))| *answers < 100 || *good == 0).collect();
    assert!(run.answered.len() == 16 && never.is_empty(), "{:?}", run.answered);
}

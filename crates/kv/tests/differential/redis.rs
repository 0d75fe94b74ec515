//! Commands of Redis, drawn by a seed, to one server and through pools.

use std::collections::BTreeMap;
use std::io::Write;

use kv::PoolSource;
use kv::commands::{Treat, all, look_up};
use kv::wire::resp::request::encode;

use super::draw::{Draw, Drawn, Word};
use super::shapes::{LIBRARY, SCRIPTS, SHAPES};
use super::value::Value;
use super::world::{Client, Proxy, Server, pool};
use super::{normal, seed};

/// Commands through a pool of four.
const COMMANDS: u64 = 120_000;
/// Commands through a pool of one, where nothing is split or refused for where keys are.
const COMMANDS_OF_ONE: u64 = 30_000;
/// At most so many are on their way at once.
const DEPTH: u64 = 200;

/// The names of the table whose commands a pool passes on or answers.
fn passed_on(single: bool) -> impl Iterator<Item = &'static str> {
    let treated = move |treat| match treat {
        Treat::Forward | Treat::OneDatabase | Treat::Split(_) | Treat::Any | Treat::Local(_) => true,
        Treat::Alone => single,
        Treat::Container | Treat::Refuse(_) => false,
    };
    // `QUIT` ends the conversation: see below.
    all().iter().filter(move |command| treated(command.treat) && command.name != "quit").map(|command| command.name)
}

/// The name of a row.
fn row_of(words: &[Word]) -> String {
    let name = normal::name(words);
    match name.split_once('|') {
        Some((first, _)) if look_up(name.as_bytes()).is_none() => first.to_owned(),
        _ => name,
    }
}

fn words_of(line: &str) -> Vec<Word> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

/// Whether a pool of several refuses this line, or has nothing to tell where it belongs.
fn is_for_one(line: &str) -> bool {
    let row = row_of(&words_of(line));
    let alone = look_up(row.as_bytes()).is_some_and(|command| command.treat == Treat::Alone);
    let several = line.starts_with("XREAD STREAMS $w $w") || (line.starts_with("SORT ") && line.contains("BY {"));
    alone || line == "EVAL $script 0" || several
}

#[test]
fn every_command_that_is_passed_on_is_drawn() {
    let drawn: Vec<String> = SHAPES.lines().map(|line| row_of(&words_of(line))).collect();
    let missing: Vec<_> = passed_on(true).filter(|name| !drawn.iter().any(|row| row == name)).collect();
    assert!(missing.is_empty(), "no line in shapes: {missing:?}");
    for (name, _) in normal::NORMALISERS {
        let row = row_of(&words_of(&name.replace('|', " ")));
        assert!(drawn.contains(&row), "{name} is normalised and not drawn");
    }
}

/// One server, and a pool; clients of both.
struct Run {
    _servers: Vec<Server>,
    proxy: Proxy,
    direct: Client,
    through: Client,
    draw: Draw,
    single: bool,
    equal: u64,
    refused: u64,
    /// By name of the row: answers, and those that are no errors.
    answered: BTreeMap<String, (u64, u64)>,
}

impl Run {
    fn new(count: usize) -> Self {
        let mut servers: Vec<Server> = (0..=count).map(|_| Server::redis(&[])).collect();
        let mut shas = Vec::new();
        for server in &servers {
            let mut client = server.client();
            shas = SCRIPTS.iter().map(|script| client.ask(&["SCRIPT", "LOAD", script])[5..45].to_owned()).collect();
            assert_eq!(client.ask(&["FUNCTION", "LOAD", LIBRARY]), "$12\r\ndifferential\r\n");
        }
        let one = servers.remove(0);
        let mut source = PoolSource { hash_tag: "{}".parse().ok(), ..pool(&servers, true) };
        // Keys go by names, so that they are placed alike each time.
        (0..).zip(&mut source.servers).for_each(|(at, server)| server.name = Some(format!("server{at}")));
        let proxy = Proxy::start(source, 1);
        let (direct, through) = (one.client(), proxy.client());
        servers.push(one);
        let single = count == 1;
        let draw = Draw::new(seed(), shas, |line| single || !is_for_one(line));
        let answered = BTreeMap::new();
        Self { _servers: servers, proxy, direct, through, draw, single, equal: 0, refused: 0, answered }
    }

    /// Sends a batch through the pool, what was not refused to the server as well, and compares the answers.
    fn batch(&mut self) {
        let count = 1 + self.draw.below(DEPTH);
        let batch: Vec<Drawn> = (0..count).map(|_| self.draw.command()).collect();
        let mut bytes = Vec::new();
        batch.iter().for_each(|drawn| bytes.extend(self.draw.written(&drawn.words)));
        let replies = exchange(&mut self.through, &bytes, batch.len());
        let mut asked = Vec::new();
        let mut bytes = Vec::new();
        for (drawn, got) in batch.iter().zip(replies) {
            if got.starts_with(b"-CROSSSERVER ") {
                self.check_refusal(drawn, &got);
                continue;
            }
            let asks = Asks::of(drawn, got);
            bytes.extend(encode(&asks.words));
            asked.push((drawn, asks));
        }
        let expected = exchange(&mut self.direct, &bytes, asked.len());
        for ((drawn, asks), expected) in asked.into_iter().zip(expected) {
            self.compare(drawn, &asks, &expected);
        }
    }

    fn check_refusal(&mut self, drawn: &Drawn, got: &[u8]) {
        self.refused += 1;
        let splits = look_up(&drawn.words[0]).is_some_and(|command| matches!(command.treat, Treat::Split(_)));
        let right = !self.single && !splits && (drawn.damaged || !drawn.together);
        assert!(right, "seed {}: {} of {}", seed(), show(got), shown(&drawn.words));
    }

    fn compare(&mut self, drawn: &Drawn, asks: &Asks, expected: &[u8]) {
        let same = normal::same(&asks.words, expected, &asks.got);
        assert!(
            same,
            "seed {}, command {}: {}\n  one server: {}\n  the pool:   {}",
            seed(),
            self.equal + self.refused,
            shown(&drawn.words),
            show(expected),
            show(&asks.got)
        );
        self.equal += 1;
        let (answers, good) = self.answered.entry(row_of(&drawn.words)).or_default();
        *answers += 1;
        *good += u64::from(!asks.got.starts_with(b"-"));
        let is_dump = expected == asks.got && drawn.words[0].eq_ignore_ascii_case(b"dump");
        if is_dump && let Value::Bulk(payload) = Value::of(expected) {
            self.draw.remember(payload);
        }
    }

    /// Nothing is left out, and nothing is but refused by name.
    fn check(&mut self) {
        let mut seldom = Vec::new();
        for name in passed_on(self.single) {
            let info = self.direct.ask(&["COMMAND", "INFO", name]);
            let known = !info.ends_with("-1\r\n");
            let (answers, good) = self.answered.get(name).copied().unwrap_or_default();
            if answers < 10 || (known && good == 0 && !ALWAYS_ERRORS.contains(&name)) {
                seldom.push((name, answers, good));
            }
        }
        assert!(seldom.is_empty(), "hardly drawn, or never well answered: {seldom:?}");
    }
}

/// Commands that servers as they are by default answer with errors alone.
const ALWAYS_ERRORS: &[&str] = &["auth"];

/// What the one server is asked so that the same comes of it, and the answer that it should give.
struct Asks {
    words: Vec<Word>,
    got: Vec<u8>,
}

impl Asks {
    fn of(drawn: &Drawn, got: Vec<u8>) -> Self {
        let words = drawn.words.clone();
        let name = words[0].to_ascii_lowercase();
        if got.starts_with(b"-") {
            return Self { words, got };
        }
        match name.as_slice() {
            // Members are chosen by chance: the other is to give the same away.
            b"spop" => {
                let members = match Value::of(&got) {
                    Value::Bulk(member) => vec![Value::Bulk(member)],
                    Value::Array(members) => members,
                    _ => Vec::new(),
                };
                if members.is_empty() {
                    return Self { words, got };
                }
                let mut removes = vec![b"SREM".to_vec(), words[1].clone()];
                let gone = format!(":{}\r\n", members.len()).into_bytes();
                removes.extend(members.into_iter().map(|member| match member {
                    Value::Bulk(member) => member,
                    other => panic!("{other:?} is no member"),
                }));
                Self { words: removes, got: gone }
            }
            // The server's clock gives the id: the other is to have the same.
            b"xadd" => {
                let star = words.iter().position(|word| word == b"*").filter(|_| got.starts_with(b"$"));
                let mut words = words;
                if let (Some(star), Value::Bulk(id)) = (star, Value::of(&got)) {
                    words[star] = id;
                }
                Self { words, got }
            }
            _ => Self { words, got },
        }
    }
}

/// Writes while it reads: neither side need hold more than it likes.
fn exchange(client: &mut Client, bytes: &[u8], replies: usize) -> Vec<Vec<u8>> {
    let mut writer = client.stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(bytes).unwrap());
        (0..replies).map(|_| client.reply()).collect()
    })
}

fn show(bytes: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(bytes).escape_debug().take(1_000).collect();
    text
}

fn shown(words: &[Word]) -> String {
    words.iter().map(|word| show(word)).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_pool_of_four_answers_as_one_server_does_or_refuses_by_name() {
    let mut run = Run::new(4);
    while run.equal + run.refused < COMMANDS {
        run.batch();
    }
    run.check();
    assert!(run.equal > COMMANDS * 3 / 4 && run.refused > 1_000, "{} equal, {} refused", run.equal, run.refused);
    assert_eq!(run.through.say("QUIT"), run.direct.say("QUIT"));
    assert_eq!(run.through.rest(), "");
    drop(run.proxy);
}

#[test]
fn a_pool_of_one_answers_as_the_server_does() {
    let mut run = Run::new(1);
    while run.equal < COMMANDS_OF_ONE {
        run.batch();
    }
    run.check();
    assert_eq!(run.refused, 0);
}

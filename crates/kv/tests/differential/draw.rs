//! Fills the lines of `shapes` with keys and values.

use base::Rng;
use kv::wire::resp::request::encode;

use super::shapes::{FUNCTIONS, SCRIPTS, SHAPES};

/// One word of a command.
pub(crate) type Word = Vec<u8>;

/// Tags, of which each is on one server of the pool.
const TAGS: u64 = 8;
/// Keys of a kind with one tag.
const KEYS: u64 = 3;
/// What keys are named after, and usually hold: strings, numbers, bits, HyperLogLogs, lists, hashes, sets of words and
/// of numbers, sorted sets, places, streams, streams with ids of the server.
const KINDS: &[u8] = b"snbplhmizgxy";
/// And those that hold nothing else: short strings for `LCS`, which takes the time of a product, and sorted sets with
/// one score, whose order by name is determined.
const PURE: &[u8] = b"ce";
/// Ids of streams that are remembered.
const IDS: usize = 48;
/// Values of `DUMP` that are remembered.
const PAYLOADS: usize = 16;

/// A command, and what is to be known of it.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    pub(crate) words: Vec<Word>,
    /// All keys have one tag.
    pub(crate) together: bool,
    /// Something was done to it, so that it may be anything.
    pub(crate) damaged: bool,
}

/// Draws commands.
pub(crate) struct Draw {
    rng: Rng,
    lines: Vec<&'static str>,
    number: u64,
    ids: Vec<String>,
    payloads: Vec<Word>,
    /// Of scripts; the last is nobody's.
    shas: Vec<String>,
}

impl Draw {
    /// `only` says which lines are drawn from.
    pub(crate) fn new(seed: u64, mut shas: Vec<String>, only: impl Fn(&&str) -> bool) -> Self {
        let (ids, payloads) = (vec!["1-1".into()], vec![b"x".to_vec()]);
        shas.push("f".repeat(40));
        let lines = SHAPES.lines().filter(|line| !line.is_empty()).filter(only).collect();
        Self { rng: Rng::new(seed), lines, number: 0, ids, payloads, shas }
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    fn one_of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[usize::try_from(self.rng.below(all.len() as u64)).unwrap()]
    }

    /// A value of `DUMP`, for `RESTORE`.
    pub(crate) fn remember(&mut self, payload: Word) {
        if self.payloads.len() >= PAYLOADS {
            self.payloads.remove(0);
        }
        self.payloads.push(payload);
    }

    pub(crate) fn command(&mut self) -> Drawn {
        self.number += 1;
        let line = self.rng.below(self.lines.len() as u64);
        let line = self.lines[usize::try_from(line).unwrap()];
        let tag = self.rng.below(TAGS);
        let mut together = true;
        let mut words: Vec<Word> = line.split(' ').map(|word| self.word(word, tag, &mut together)).collect();
        if self.rng.one_in(4) {
            words[0].make_ascii_lowercase();
        }
        // Scores that are not all the same make the order of members one of chance. And behind an option that is unknown a
        // pool takes the word `block` for one, which a server that knows no such option does not get to.
        let damaged = !line.contains("@e") && !line.contains("$w") && self.rng.one_in(40);
        if damaged {
            self.damage(&mut words);
        }
        Drawn { words, together, damaged }
    }

    /// As a client writes it: mostly as an array, now and then as a line where it can be one.
    pub(crate) fn written(&mut self, words: &[Word]) -> Vec<u8> {
        let plain = |word: &Word| {
            !word.is_empty() && word.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'"' && *byte != b'\'')
        };
        let short = words.iter().map(Vec::len).sum::<usize>() < 4_000;
        if short && words.iter().all(plain) && self.rng.one_in(30) {
            return [words.join(&b' '), b"\r\n".to_vec()].concat();
        }
        encode(words)
    }

    /// Takes from it, or adds to it, or spoils a word.
    fn damage(&mut self, words: &mut Vec<Word>) {
        let first = if is_container(&words[0]) { 2 } else { 1 };
        match self.rng.below(3) {
            0 if words.len() > first => drop(words.pop()),
            1 if words.len() > first => {
                let at = first + usize::try_from(self.rng.below((words.len() - first) as u64)).unwrap();
                words[at] = self.one_of(&["x", "", "-1", "99999999999999999999", "0"]).into();
            }
            _ => words.push(b"x".to_vec()),
        }
    }

    fn key(&mut self, kind: u8, tag: u64) -> Word {
        let any = kind == b'a' || (!PURE.contains(&kind) && self.rng.one_in(24));
        let kind = if any { self.one_of(&KINDS.chunks(1).collect::<Vec<_>>())[0] } else { kind };
        format!("{{{}}}{}{}", tag * 7_919, char::from(kind), self.rng.below(KEYS)).into_bytes()
    }

    fn word(&mut self, word: &str, tag: u64, together: &mut bool) -> Word {
        let bytes = word.as_bytes();
        match bytes {
            // The command's tag, but for one in eight.
            [b'@', kind] => {
                let own = if self.rng.one_in(8) { self.rng.below(TAGS) } else { tag };
                *together &= own == tag;
                self.key(*kind, own)
            }
            // Any tag.
            [b'&', kind] => {
                let own = self.rng.below(TAGS);
                *together &= own == tag;
                self.key(*kind, own)
            }
            [b'$', _, ..] => self.filled(word).unwrap_or_else(|| panic!("{word} in a shape means nothing")),
            _ => word.into(),
        }
    }

    fn filled(&mut self, word: &str) -> Option<Word> {
        let below = |rng: &mut Rng, bound| rng.below(bound).to_string();
        Some(match word {
            "$v" => return Some(self.value()),
            // A field, a member, an element.
            "$f" if self.rng.one_in(6) => below(&mut self.rng, 12).into_bytes(),
            "$f" => format!("w{}", self.rng.below(8)).into_bytes(),
            // Whole numbers of either sign, and without.
            "$i" => (i64::try_from(self.rng.below(16)).unwrap() - 4).to_string().into_bytes(),
            "$u" => below(&mut self.rng, 12).into_bytes(),
            // A bit's place.
            "$o" => below(&mut self.rng, 300).into_bytes(),
            // A score, and a bound of one.
            "$d" => match self.rng.below(12) {
                0 => "-2.25".into(),
                1 => "1e3".into(),
                2 => "inf".into(),
                3 => "-inf".into(),
                other => (other as f64 / 2.0).to_string().into_bytes(),
            },
            "$R" => self.one_of(&["-inf", "+inf", "(2", "3", "1.5", "(4", "0", "1000"]).into(),
            "$L" => self.one_of(&["-", "+", "[w1", "(w3", "[w6", "(5"]).into(),
            // Seconds and milliseconds from now: so long, and so seldom alike, that a moment does not matter.
            "$t" => (100_000 + self.rng.below(1_000_000_000)).to_string().into_bytes(),
            "$ms" => (100_000_000 + self.rng.below(1_000_000_000_000)).to_string().into_bytes(),
            // And since 1970.
            "$T" => (4_000_000_000 + self.rng.below(1_000_000)).to_string().into_bytes(),
            "$Tms" => (4_000_000_000_000 + self.rng.below(1_000_000_000)).to_string().into_bytes(),
            // An id of a stream: a new one, one whose second half the server finds, one that may be there.
            "$new" => {
                let id = format!("{}-{}", self.number, self.rng.below(3));
                if self.ids.len() >= IDS {
                    self.ids.remove(0);
                }
                self.ids.push(id.clone());
                id.into_bytes()
            }
            "$half" => format!("{}-*", self.number).into_bytes(),
            "$id" => {
                let at = self.rng.below(self.ids.len() as u64);
                self.ids[usize::try_from(at).unwrap()].clone().into_bytes()
            }
            "$g" => format!("g{}", self.rng.below(2)).into_bytes(),
            "$c" => format!("c{}", self.rng.below(3)).into_bytes(),
            // A group, a consumer or a stream, of the name that an option has.
            "$w" => self.one_of(&["block", "streams", "COUNT", "group", "noack"]).into(),
            "$lon" => format!("{}.5", i64::try_from(self.rng.below(360)).unwrap() - 180).into_bytes(),
            "$lat" => format!("{}.25", i64::try_from(self.rng.below(168)).unwrap() - 84).into_bytes(),
            "$payload" => {
                let at = self.rng.below(self.payloads.len() as u64);
                self.payloads[usize::try_from(at).unwrap()].clone()
            }
            "$script" => self.one_of(SCRIPTS).into(),
            "$sha" => {
                let at = self.rng.below(self.shas.len() as u64);
                self.shas[usize::try_from(at).unwrap()].clone().into_bytes()
            }
            "$function" => self.one_of(FUNCTIONS).into(),
            _ => return None,
        })
    }

    fn value(&mut self) -> Word {
        let long =
            |len: usize, seed: u64| (0..len).map(move |at| b'a' + u8::try_from((at as u64 / 7 + seed) % 26).unwrap());
        match self.rng.below(1_600) {
            // Large enough to pass through in pieces, both ways.
            0 => long(300_000, self.number).collect(),
            1..=5 => long(20_000, self.number).collect(),
            6..=60 => Word::new(),
            61..=200 => b"\r\n$-1\r\n\0\xff*".to_vec(),
            201..=700 => self.rng.below(100).to_string().into_bytes(),
            _ => format!("value {}", self.rng.below(1_000)).into_bytes(),
        }
    }
}

/// Whether the second word belongs to the name.
pub(crate) fn is_container(name: &[u8]) -> bool {
    kv::commands::look_up(name).is_some_and(|command| command.treat == kv::commands::Treat::Container)
}

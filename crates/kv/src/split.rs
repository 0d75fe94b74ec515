//! A request with many keys becomes one for each server. Pure.

use std::cell::Cell;
use std::ops::Range;

use crate::commands::Keys;
use crate::wire::memcached::RETRIEVAL_MAX;
use crate::wire::resp::Line;

/// Keys that what is kept for the next request may have room for.
const KEYS_KEPT_MAX: usize = 1_024;
/// Parts that [`Split::divide`] may make, beyond one for each server. Of the longest retrieval it makes fewer.
const CUTS_MAX: usize = RETRIEVAL_MAX / 1_000;

/// Which keys of a request live on which server.
#[derive(Default)]
pub(crate) struct Split {
    /// Of each part its server; none when none is live.
    servers: Vec<Option<usize>>,
    /// Of each part where its keys end in `keys`.
    ends: Vec<usize>,
    /// The keys' places among the arguments, part by part, in the order of the request.
    keys: Vec<usize>,
    /// For each key, in the order of the request, the number of its part.
    places: Vec<u16>,
    /// How many arguments a key is, with those that belong to it.
    step: usize,
}

/// A piece of a part's request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Piece<'a> {
    /// Made here.
    Made(&'a [u8]),
    /// As it stands in the whole request.
    Asked(Range<usize>),
}

thread_local! {
    static KEPT: Cell<Option<Box<Split>>> = const { Cell::new(None) };
}

impl Split {
    /// An empty one, with the memory of an earlier one.
    pub(crate) fn take() -> Box<Self> {
        KEPT.take().unwrap_or_default()
    }

    /// Keeps its memory for the next.
    pub(crate) fn keep(self: Box<Self>) {
        if self.keys.capacity() <= KEYS_KEPT_MAX && self.servers.capacity() <= KEYS_KEPT_MAX {
            KEPT.set(Some(self));
        }
    }

    /// Groups keys by server. What can be split has them in one range.
    #[inline]
    pub(crate) fn by_server(&mut self, keys: &Keys, mut server_of: impl FnMut(usize) -> Option<usize>) {
        self.clear();
        debug_assert_eq!((keys.before, keys.after), (0, 0), "keys apart from the others");
        self.step = keys.step.max(1);
        let mut at = keys.first;
        while at < keys.end {
            let server = server_of(at);
            at += self.step;
            let part = self.servers.iter().position(|other| *other == server).unwrap_or_else(|| {
                self.servers.push(server);
                self.ends.push(0);
                self.servers.len() - 1
            });
            self.ends[part] += 1;
            // A pool has at most 65,536 servers.
            self.places.push(u16::try_from(part).unwrap_or(u16::MAX));
        }
        // From how many each has to where each begins; filling the places then moves that to where it ends.
        let mut begin = 0;
        for end in &mut self.ends {
            (*end, begin) = (begin, begin + *end);
        }
        self.keys.resize(self.places.len(), 0);
        let mut at = keys.first;
        for part in &self.places {
            let end = &mut self.ends[usize::from(*part)];
            self.keys[*end] = at;
            *end += 1;
            at += self.step;
        }
    }

    /// Cuts parts whose lines of memcached, with `first` words before the keys, would be longer than `most`.
    /// False when they would become too many: nothing is cut then.
    #[must_use]
    pub(crate) fn divide(&mut self, first: usize, words: &[Range<u32>], most: usize) -> bool {
        let len = |at: &usize| words.get(*at).map_or(0, |word| (word.end - word.start) as usize + 1);
        let head: usize = (0..first).map(|at| len(&at)).sum();
        let (mut servers, mut ends, mut part_of) = (Vec::new(), Vec::new(), Vec::with_capacity(self.keys.len()));
        let mut begins = Vec::with_capacity(self.servers.len());
        let parts_max = self.servers.len() + CUTS_MAX;
        let mut begin = 0;
        for (server, end) in self.servers.iter().zip(&self.ends) {
            begins.push(begin);
            // A part of its own even where nothing is left to cut.
            let (mut size, mut part) = (usize::MAX, 0);
            for key in &self.keys[begin..*end] {
                if size.saturating_add(len(key)) > most {
                    let number = u16::try_from(servers.len()).ok().filter(|_| servers.len() < parts_max);
                    let Some(number) = number else { return false };
                    part = number;
                    servers.push(*server);
                    ends.push(part_of.len());
                    size = head + 1;
                }
                size += len(key);
                part_of.push(part);
                if let Some(last) = ends.last_mut() {
                    *last = part_of.len();
                }
            }
            begin = *end;
        }
        for place in &mut self.places {
            let at = &mut begins[usize::from(*place)];
            *place = part_of[*at];
            *at += 1;
        }
        (self.servers, self.ends) = (servers, ends);
        true
    }

    /// One part for each of these servers, without keys.
    pub(crate) fn for_all(&mut self, servers: impl IntoIterator<Item = usize>) {
        self.clear();
        self.servers.extend(servers.into_iter().map(Some));
        self.ends.resize(self.servers.len(), 0);
    }

    fn clear(&mut self) {
        self.servers.clear();
        self.ends.clear();
        self.keys.clear();
        self.places.clear();
    }

    /// Of each part its server; none when none is live.
    pub(crate) fn servers(&self) -> &[Option<usize>] {
        &self.servers
    }

    /// For each key, in the order of the request, the number of its part.
    pub(crate) fn places(&self) -> &[u16] {
        &self.places
    }

    /// The places of a part's keys among the arguments.
    #[inline]
    pub(crate) fn keys(&self, part: usize) -> &[usize] {
        let begin = part.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.keys[begin..self.ends[part]]
    }

    /// A part's request in RESP: the command, and each of its keys with the arguments that belong to it, as they stand in
    /// the whole request, where `arguments` lie.
    #[inline]
    pub(crate) fn resp(&self, part: usize, arguments: &[Range<u32>], mut each: impl FnMut(Piece<'_>)) {
        let Some(name) = arguments.first() else { return };
        let keys = self.keys(part);
        each(Piece::Made(Line::of(b'*', 1 + keys.len() * self.step).bytes()));
        // `$`, the length and `\r\n` stand before the name. An argument goes from the end of the one before it to its own:
        // the end of its line belongs to what follows.
        let length = (name.end - name.start).checked_ilog10().unwrap_or(0) + 1;
        let mut run = name.start.saturating_sub(length + 3)..name.end;
        for key in keys {
            let (Some(before), Some(last)) = (arguments.get(*key - 1), arguments.get(*key + self.step - 1)) else {
                continue;
            };
            if run.end != before.end {
                each(Piece::Asked(run.start as usize..run.end as usize));
                run.start = before.end;
            }
            run.end = last.end;
        }
        each(Piece::Asked(run.start as usize..run.end as usize + b"\r\n".len()));
    }

    /// A part's request of memcached: the words before the keys, and its keys.
    pub(crate) fn line(&self, part: usize, first: usize, words: &[Range<u32>], mut each: impl FnMut(Piece<'_>)) {
        let mut run = 0..0;
        for word in (0..first).chain(self.keys(part).iter().copied()) {
            let Some(word) = words.get(word) else { continue };
            let word = word.start as usize..word.end as usize;
            if run.end + 1 == word.start && !run.is_empty() {
                run.end = word.end;
                continue;
            }
            if !run.is_empty() {
                each(Piece::Asked(run));
                each(Piece::Made(b" "));
            }
            run = word;
        }
        each(Piece::Asked(run));
        each(Piece::Made(b"\r\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::memcached;
    use crate::wire::resp::request::encode;
    use crate::wire::resp::{Request, Scan};

    #[test]
    fn lines_that_are_too_long_for_a_server_are_cut_in_the_order_of_their_keys() {
        let whole: String = (0..100).fold("gat 7".into(), |line, at| format!("{line} key{at}"));
        let mut words = Vec::new();
        memcached::scan(format!("{whole}\r\n").as_bytes(), &mut words);
        let keys = Keys { first: 2, end: words.len(), step: 1, ..Keys::default() };
        for most in [14, 64, 1_000, 10_000] {
            let mut split = Split::default();
            split.by_server(&keys, |at| Some(at % 3));
            assert!(split.divide(2, &words, most));
            let mut cursors = vec![0; split.servers().len()];
            for (at, part) in (2..).zip(split.places()) {
                let part = usize::from(*part);
                assert_eq!(split.servers()[part], Some(at % 3));
                assert_eq!(split.keys(part)[cursors[part]], at, "at most {most}");
                cursors[part] += 1;
            }
            for (part, asked) in cursors.iter().enumerate() {
                assert_eq!(split.keys(part).len(), *asked);
                let (line, _) = text(whole.as_bytes(), |each| split.line(part, 2, &words, each));
                assert!(line.len() <= most && line.starts_with("gat 7 key"), "{line:?} at most {most}");
            }
            assert_eq!(cursors.len() == 3, most >= 1_000);
        }
    }

    #[test]
    fn what_would_be_cut_into_too_many_lines_is_not_cut() {
        let whole: String = (0..=CUTS_MAX + 1).fold("gat 7".into(), |line, _| line + " k");
        let mut words = Vec::new();
        memcached::scan(format!("{whole}\r\n").as_bytes(), &mut words);
        let split_of = |end| {
            let mut split = Split::default();
            split.by_server(&Keys { first: 2, end, step: 1, ..Keys::default() }, |_| Some(0));
            split
        };
        // Each key in a line of its own.
        let mut split = split_of(words.len() - 1);
        assert!(split.divide(2, &words, 8));
        assert_eq!(split.servers().len(), CUTS_MAX + 1);
        let mut split = split_of(words.len());
        assert!(!split.divide(2, &words, 8));
        assert_eq!(split.servers(), [Some(0)]);
        // No part has a number that stands for another one's.
        let mut wide = Split { servers: vec![Some(0); 65_536], ends: (1..=65_536).collect(), ..Split::default() };
        wide.keys = vec![2; 65_536];
        wide.places = (0..=u16::MAX).collect();
        assert!(wide.divide(2, &words, 8));
        wide.keys.push(2);
        wide.places.push(u16::MAX);
        wide.ends[65_535] += 1;
        assert!(!wide.divide(2, &words, 8));
    }

    fn text(whole: &[u8], pieces: impl FnOnce(&mut dyn FnMut(Piece<'_>))) -> (String, usize) {
        let (mut bytes, mut count) = (Vec::new(), 0);
        pieces(&mut |piece| {
            count += 1;
            match &piece {
                Piece::Made(made) => bytes.extend_from_slice(made),
                Piece::Asked(range) => bytes.extend_from_slice(&whole[range.clone()]),
            }
        });
        (String::from_utf8(bytes).unwrap(), count)
    }

    #[test]
    fn keys_are_grouped_by_server_in_their_order_and_duplicates_stay() {
        let whole = encode(&["MSET", "a", "1", "b", "2", "a", "345678901234"]);
        let mut request = Request::default();
        assert_eq!(request.scan(&whole), Scan::Whole(whole.len()));
        let keys = Keys { first: 1, end: 7, step: 2, ..Keys::default() };
        let mut split = Split::take();
        // What an earlier request left does not show.
        for _ in 0..2 {
            split.by_server(&keys, |at| Some(at / 2 % 2));
            assert_eq!(split.servers(), [Some(0), Some(1)]);
            assert_eq!(split.places(), [0, 1, 0]);
            assert_eq!((split.keys(0), split.keys(1)), ([1, 5].as_slice(), [3].as_slice()));
        }
        let part = |part| text(&whole, |each| split.resp(part, request.arguments(), each)).0;
        assert_eq!(part(0), "*5\r\n$4\r\nMSET\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\na\r\n$12\r\n345678901234\r\n");
        assert_eq!(part(1), "*3\r\n$4\r\nMSET\r\n$1\r\nb\r\n$1\r\n2\r\n");
    }

    #[test]
    fn a_part_is_the_request_that_somebody_would_write_for_its_keys() {
        let keys: Vec<String> = (0..40).map(|at| "k".repeat([0, 1, 9, 10, 99, 100, 1_000][at % 7])).collect();
        let words: Vec<&str> = std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
        let whole = encode(&words);
        let mut request = Request::default();
        assert_eq!(request.scan(&whole), Scan::Whole(whole.len()));
        let mut split = Split::default();
        for servers in 1..6 {
            let server_of = |at: usize| at * at / 3 % servers;
            split.by_server(&Keys { first: 1, end: 41, step: 1, ..Keys::default() }, |at| Some(server_of(at)));
            assert_eq!(split.places().len(), 40);
            for (part, server) in split.servers().iter().enumerate() {
                let own = (1..41).filter(|at| Some(server_of(*at)) == *server).map(|at| words[at]);
                let expected = encode(&std::iter::once("MGET").chain(own).collect::<Vec<_>>());
                let (made, _) = text(&whole, |each| split.resp(part, request.arguments(), each));
                assert_eq!(made.as_bytes(), expected, "part {part} of {servers}");
            }
        }
    }

    #[test]
    fn neighbours_of_one_server_go_as_one_piece() {
        let whole = encode(&["DEL", "a", "b", "c", "d"]);
        let mut request = Request::default();
        assert_eq!(request.scan(&whole), Scan::Whole(whole.len()));
        let mut split = Split::default();
        split.by_server(&Keys { first: 1, end: 5, step: 1, ..Keys::default() }, |at| Some(at / 3));
        for part in 0..2 {
            let (_, pieces) = text(&whole, |each| split.resp(part, request.arguments(), each));
            assert_eq!(pieces, 2 + part, "how many there are, the command with its neighbours, other keys");
        }
    }

    #[test]
    fn memcacheds_keys_keep_their_order_and_get_one_space_each() {
        let whole = b"gat 10  a b  c d\r\n";
        let mut words = Vec::new();
        assert_eq!(memcached::scan(whole, &mut words), memcached::Scan::Whole(whole.len()));
        let mut split = Split::default();
        split.by_server(&Keys { first: 2, end: 6, step: 1, ..Keys::default() }, |at| Some(usize::from(at == 3)));
        let part = |part| text(whole, |each| split.line(part, 2, &words, each)).0;
        assert_eq!((part(0).as_str(), part(1).as_str()), ("gat 10 a c d\r\n", "gat 10 b\r\n"));
        split.for_all([4, 7]);
        assert_eq!((split.servers(), split.places().len()), ([Some(4), Some(7)].as_slice(), 0));
    }
}

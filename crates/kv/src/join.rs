//! The replies to a split request become one, in the client's order.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use buf::Chunk;

use crate::client::ClientCell;
use crate::commands::Join;
use crate::fault::Fault;
use crate::memory::Kept;
use crate::outbox::{COPY_MAX, Outbox};
use crate::plan::Protocol;
use crate::split::Split;
use crate::wire::memcached::values;
use crate::wire::resp::Line;
use crate::wire::resp::reply::{array, element_end, integer};

/// Lists that a thread keeps for the next, and the places that each may have room for.
const SPARE_MAX: usize = 64;
const PLACES_KEPT_MAX: usize = 1_024;

/// How parts' replies become one.
pub(crate) enum How {
    /// As Redis's command has it.
    Joined(Join),
    /// memcached's values, in the order of these keys of the request. `forgiving`: keys of parts that failed are missing,
    /// unless all failed.
    Lines { request: Arc<[u8]>, keys: Vec<Range<u32>>, forgiving: bool },
    /// One line each, and one for all: the first that is not as the others.
    SameLine,
    /// No reply is wanted.
    Nothing,
    /// memcached's `stats`: numbers are added up.
    Stats,
}

/// A split request whose parts are on their way.
pub(crate) struct Joining {
    client: Rc<ClientCell>,
    seq: u64,
    protocol: Protocol,
    how: How,
    /// For each key of the request the part it went with.
    places: Vec<u16>,
    parts: Vec<Option<Chunk>>,
    missing: usize,
    /// The parts' bytes that have come.
    kept: Kept,
}

/// The lists of a request that has been answered.
type Spare = (Vec<u16>, Vec<Option<Chunk>>);

thread_local! {
    static SPARE: RefCell<Vec<Spare>> = const { RefCell::new(Vec::new()) };
}

impl Drop for Joining {
    fn drop(&mut self) {
        let (mut places, mut parts) = (std::mem::take(&mut self.places), std::mem::take(&mut self.parts));
        places.clear();
        parts.clear();
        if places.capacity() > PLACES_KEPT_MAX || parts.capacity() > PLACES_KEPT_MAX {
            return;
        }
        // When the thread ends there is no next.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push((places, parts));
            }
        });
    }
}

impl Joining {
    pub(crate) fn new(
        client: Rc<ClientCell>,
        protocol: Protocol,
        seq: u64,
        how: How,
        split: &Split,
        kept: Kept,
    ) -> Rc<RefCell<Self>> {
        let (mut places, mut parts) = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        places.extend_from_slice(split.places());
        let missing = split.servers().len();
        parts.resize(missing, None);
        Rc::new(RefCell::new(Self { client, seq, protocol, how, places, parts, missing, kept }))
    }

    /// The answer, all parts having come: straight to those who can take it now.
    ///
    /// False when it is not of the kind that is put together piece by piece: then it is [`Joining::whole`].
    pub(crate) fn write<const WIDE: bool>(&self, out: &mut Outbox<WIDE>) -> bool {
        matches!(self.how, How::Joined(Join::Values)) && elements_of_all(&self.places, &self.parts, out)
    }

    /// The answer, all parts having come.
    pub(crate) fn whole(&self) -> Vec<Chunk> {
        match &self.how {
            How::Joined(join) => whole(*join, &self.places, &self.parts),
            How::Lines { request, keys, forgiving } => lines(request, keys, &self.places, &self.parts, *forgiving),
            How::SameLine => same_line(&self.parts),
            How::Nothing => Vec::new(),
            How::Stats => stats(&self.parts),
        }
    }

    /// Who asked.
    pub(crate) fn client(&self) -> Rc<ClientCell> {
        Rc::clone(&self.client)
    }
}

/// Several pieces in one: only for what must be looked into.
pub(crate) fn together(pieces: &[Chunk]) -> Chunk {
    match pieces {
        [one] => one.clone(),
        pieces => {
            let bytes: Arc<[u8]> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
            let len = bytes.len();
            Chunk::from_shared(bytes, 0..len)
        }
    }
}

/// An error takes the place of a part's reply.
pub(crate) fn fault(joining: &Rc<RefCell<Joining>>, part: usize, fault: Fault) {
    let line = fault.line(joining.borrow().protocol);
    give(joining, part, Chunk::from_static(line));
}

/// One part's reply. With the last the client gets its answer. Not for the client's own handler: see [`arrive`].
pub(crate) fn give(joining: &Rc<RefCell<Joining>>, part: usize, reply: Chunk) {
    if arrive(joining, part, reply) {
        let joining = joining.borrow();
        joining.client.borrow_mut().fill_joined(joining.seq, &joining);
    }
}

/// One part's reply. True when it was the last.
pub(crate) fn arrive(joining: &Rc<RefCell<Joining>>, part: usize, reply: Chunk) -> bool {
    let mut joining = joining.borrow_mut();
    let Joining { parts, kept, protocol, .. } = &mut *joining;
    match parts.get_mut(part) {
        // A single piece for all its keys: what it is too large for is said in their places.
        Some(place @ None) if kept.add(reply.len()) || reply.len() <= COPY_MAX => *place = Some(reply),
        Some(place @ None) => *place = Some(Chunk::from_static(Fault::TooLarge.line(*protocol))),
        _ => return false,
    }
    joining.missing -= 1;
    if joining.missing > 0 {
        return false;
    }
    // From here on it is the client's, who counts it.
    joining.kept.release();
    true
}

/// Of the servers' `STAT` lines one of each name: numbers added up, of what cannot be added the first server's.
fn stats(parts: &[Option<Chunk>]) -> Vec<Chunk> {
    const NOT_ADDED: [&[u8]; 7] =
        [b"pid", b"uptime", b"time", b"pointer_size", b"max_connections", b"version", b"libevent"];
    let mut lines: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut servers = 0_u64;
    for part in parts.iter().flatten() {
        let mut told = part.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
        let own: Vec<(&[u8], &[u8])> = told
            .by_ref()
            .map_while(|line| line.strip_prefix(b"STAT "))
            .filter_map(|line| line.iter().position(|byte| *byte == b' ').map(|at| (&line[..at], &line[at + 1..])))
            .collect();
        if own.is_empty() {
            // An error of one is told when nobody else has anything to tell.
            if servers == 0 && parts.len() == 1 {
                return vec![part.clone()];
            }
            continue;
        }
        servers += 1;
        for (name, value) in own {
            let Some((_, sum)) = lines.iter_mut().find(|(known, _)| known == name) else {
                lines.push((name.to_vec(), value.to_vec()));
                continue;
            };
            let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u64>().ok();
            if let (Some(one), Some(other), false) = (number(sum), number(value), NOT_ADDED.contains(&name)) {
                *sum = one.saturating_add(other).to_string().into_bytes();
            }
        }
    }
    if servers == 0 {
        return same_line(parts);
    }
    let mut text = format!("STAT beltway_servers {servers}\r\n").into_bytes();
    for (name, value) in lines {
        for piece in [b"STAT ".as_slice(), &name, b" ", &value, b"\r\n"] {
            text.extend_from_slice(piece);
        }
    }
    text.extend_from_slice(b"END\r\n");
    let len = text.len();
    vec![Chunk::from_shared(text.into(), 0..len)]
}

fn is_error(reply: &[u8]) -> bool {
    reply.first() == Some(&b'-')
}

fn unlike() -> Vec<Chunk> {
    vec![Chunk::from_static(Fault::Unlike.line(Protocol::Redis))]
}

/// The answer made of all parts' replies. Pure.
fn whole(join: Join, places: &[u16], parts: &[Option<Chunk>]) -> Vec<Chunk> {
    match join {
        Join::Values => {
            let mut out = Outbox::<true>::new();
            if !elements_of_all(places, parts, &mut out) {
                return match parts.first() {
                    Some(Some(error)) if all_failed(parts) => vec![error.clone()],
                    _ => unlike(),
                };
            }
            let mut chunks = Vec::new();
            out.take(|chunk| chunks.push(chunk));
            out.rest();
            chunks
        }
        Join::Sum | Join::Ok => {
            if let Some(error) = parts.iter().flatten().find(|part| is_error(part)) {
                return vec![error.clone()];
            }
            if join == Join::Ok {
                return parts.iter().flatten().next().map_or_else(unlike, |part| vec![part.clone()]);
            }
            match parts.iter().flatten().map(|part| integer(part)).try_fold(0_i64, |sum, part| sum.checked_add(part?)) {
                Some(sum) => {
                    let line: Arc<[u8]> = format!(":{sum}\r\n").into_bytes().into();
                    let len = line.len();
                    vec![Chunk::from_shared(line, 0..len)]
                }
                None => unlike(),
            }
        }
    }
}

fn all_failed(parts: &[Option<Chunk>]) -> bool {
    parts.iter().flatten().all(|part| is_error(part))
}

/// How far a part's elements have been taken.
#[derive(Clone, Copy)]
struct Cursor {
    at: usize,
    /// Elements it has; none when it failed.
    elements: Option<usize>,
    /// Keys that went with it.
    keys: usize,
}

thread_local! {
    static CURSORS: Cell<Vec<Cursor>> = const { Cell::new(Vec::new()) };
}

/// Writes one array of all keys' elements. A part that failed gives its error in each of its keys' places, so that the
/// others' values are not lost. False, and nothing is written, when all failed or a reply is not what it is to be.
fn elements_of_all<const WIDE: bool>(places: &[u16], parts: &[Option<Chunk>], out: &mut Outbox<WIDE>) -> bool {
    let mut cursors = CURSORS.take();
    cursors.clear();
    let good = begin_all(places, parts, &mut cursors);
    if good {
        out.copy(Line::of(b'*', places.len()).bytes());
        write_all(places, parts, &mut cursors, out);
    }
    if cursors.capacity() <= PLACES_KEPT_MAX {
        CURSORS.set(cursors);
    }
    good
}

/// Finds where each part's elements begin. Whether there are as many as keys, and one part at least did not fail.
fn begin_all(places: &[u16], parts: &[Option<Chunk>], cursors: &mut Vec<Cursor>) -> bool {
    for part in parts {
        let Some(part) = part else { return false };
        if is_error(part) {
            cursors.push(Cursor { at: 0, elements: None, keys: 0 });
        } else {
            let Some((elements, at)) = array(part) else { return false };
            cursors.push(Cursor { at, elements: Some(elements), keys: 0 });
        }
    }
    for place in places {
        let Some(cursor) = cursors.get_mut(usize::from(*place)) else { return false };
        cursor.keys += 1;
    }
    cursors.iter().all(|cursor| cursor.elements.is_none_or(|elements| elements == cursor.keys))
        && cursors.iter().any(|cursor| cursor.elements.is_some())
}

/// Neighbouring small elements of one part go as one.
fn write_all<const WIDE: bool>(
    mut places: &[u16],
    parts: &[Option<Chunk>],
    cursors: &mut [Cursor],
    out: &mut Outbox<WIDE>,
) {
    while let Some(place) = places.first() {
        let neighbours = places.iter().take_while(|other| *other == place).count();
        let place = usize::from(*place);
        places = &places[neighbours..];
        let (Some(Some(part)), Some(cursor)) = (parts.get(place), cursors.get_mut(place)) else { continue };
        if cursor.elements.is_none() {
            (0..neighbours).for_each(|_| out.copy(part));
            continue;
        }
        let bytes: &[u8] = part;
        let (mut begin, mut at) = (cursor.at, cursor.at);
        for _ in 0..neighbours {
            // It was looked at when it came: each of its elements has an end.
            let end = element_end(bytes, at).unwrap_or(bytes.len());
            if end - at > COPY_MAX {
                out.copy(&bytes[begin..at]);
                out.chunk(part.part(at..end));
                begin = end;
            }
            at = end;
        }
        out.copy(&bytes[begin..at]);
        cursor.at = at;
    }
}

/// The values of all keys in the order of the request. An error of one part is the answer or, when that is `forgiving`,
/// an error of all parts.
fn lines(request: &[u8], keys: &[Range<u32>], places: &[u16], parts: &[Option<Chunk>], forgiving: bool) -> Vec<Chunk> {
    let unlike = || vec![Chunk::from_static(Fault::Unlike.line(Protocol::Memcached))];
    let mut found = Vec::with_capacity(parts.len());
    let mut failed = Vec::new();
    for part in parts.iter().flatten() {
        match values(part) {
            Some(values) => found.push((part, values.into_iter().peekable())),
            None if part.starts_with(b"VALUE ") => return unlike(),
            None => {
                failed.push(part);
                found.push((part, Vec::new().into_iter().peekable()));
            }
        }
    }
    if let Some(first) = failed.first()
        && (!forgiving || failed.len() == found.len())
    {
        return vec![(*first).clone()];
    }
    let mut out = Outbox::<true>::new();
    for (key, place) in keys.iter().zip(places) {
        let key = request.get(key.start as usize..key.end as usize).unwrap_or_default();
        let Some((part, values)) = found.get_mut(usize::from(*place)) else { return unlike() };
        // A server leaves out what it has not, and keeps the order of what it was asked for.
        if let Some((_, at)) = values.next_if(|(name, _)| &part[name.clone()] == key) {
            if at.len() <= COPY_MAX {
                out.copy(&part[at]);
            } else {
                out.chunk(part.part(at));
            }
        }
    }
    if found.iter_mut().any(|(_, values)| values.next().is_some()) {
        return unlike();
    }
    out.copy(b"END\r\n");
    let mut chunks = Vec::new();
    out.take(|chunk| chunks.push(chunk));
    chunks
}

fn same_line(parts: &[Option<Chunk>]) -> Vec<Chunk> {
    let mut parts = parts.iter().flatten();
    let Some(first) = parts.next() else { return Vec::new() };
    vec![parts.find(|part| part[..] != first[..]).unwrap_or(first).clone()]
}

#[cfg(test)]
fn bytes_of(chunks: &[Chunk]) -> Vec<u8> {
    chunks.iter().flat_map(|chunk| chunk.to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_several_servers_are_added_up() {
        let part = |text: &'static str| Some(Chunk::from_static(text.as_bytes()));
        let one = part("STAT pid 7\r\nSTAT version 1.6.18\r\nSTAT get_hits 3\r\nEND\r\n");
        let two = part("STAT pid 8\r\nSTAT version 1.6.18\r\nSTAT get_hits 4\r\nSTAT more 1\r\nEND\r\n");
        let failed = part("SERVER_ERROR Connection refused\r\n");
        let expected =
            "STAT beltway_servers 2\r\nSTAT pid 7\r\nSTAT version 1.6.18\r\nSTAT get_hits 7\r\nSTAT more 1\r\nEND\r\n";
        assert_eq!(String::from_utf8(bytes_of(&stats(&[one, failed.clone(), two]))).unwrap(), expected);
        assert_eq!(bytes_of(&stats(&[failed.clone(), failed])), b"SERVER_ERROR Connection refused\r\n");
    }

    fn joined(join: Join, places: &[u16], parts: &[&'static [u8]]) -> String {
        let parts: Vec<_> = parts.iter().map(|part| Some(Chunk::from_static(part))).collect();
        String::from_utf8(bytes_of(&whole(join, places, &parts))).unwrap()
    }

    #[test]
    fn values_come_in_the_order_of_the_keys() {
        let parts: [&[u8]; 2] = [b"*2\r\n$1\r\na\r\n$-1\r\n", b"*1\r\n$1\r\nb\r\n"];
        assert_eq!(joined(Join::Values, &[0, 1, 0], &parts), "*3\r\n$1\r\na\r\n$1\r\nb\r\n$-1\r\n");
    }

    #[test]
    fn a_part_that_failed_leaves_the_others_values_whole() {
        let parts: [&[u8]; 2] = [b"-LOADING wait\r\n", b"*1\r\n$1\r\nb\r\n"];
        assert_eq!(joined(Join::Values, &[0, 1], &parts), "*2\r\n-LOADING wait\r\n$1\r\nb\r\n");
        assert_eq!(joined(Join::Values, &[0, 1], &[b"-A\r\n", b"-B\r\n"]), "-A\r\n");
    }

    #[test]
    fn sums_add_up_and_one_error_is_the_answer() {
        assert_eq!(joined(Join::Sum, &[0, 1], &[b":2\r\n", b":40\r\n"]), ":42\r\n");
        assert_eq!(joined(Join::Sum, &[0, 1], &[b":2\r\n", b"-READONLY x\r\n"]), "-READONLY x\r\n");
        assert_eq!(joined(Join::Ok, &[0, 1], &[b"+OK\r\n", b"-OOM x\r\n"]), "-OOM x\r\n");
        assert_eq!(joined(Join::Ok, &[0, 1], &[b"+OK\r\n", b"+OK\r\n"]), "+OK\r\n");
    }

    #[test]
    fn memcached_values_come_in_the_order_of_the_keys_and_misses_are_left_out() {
        let request = b"get a b c a";
        let keys = [4..5, 6..7, 8..9, 10..11];
        let joined = |parts: [&'static [u8]; 2], forgiving| {
            let parts = parts.map(|part| Some(Chunk::from_static(part)));
            String::from_utf8(bytes_of(&lines(request, &keys, &[0, 1, 0, 0], &parts, forgiving))).unwrap()
        };
        let join = |parts| joined(parts, false);
        let (a, b) = ("VALUE a 0 1\r\n1\r\n", "VALUE b 0 1\r\n2\r\n");
        assert_eq!(
            join([b"VALUE a 0 1\r\n1\r\nVALUE a 0 1\r\n1\r\nEND\r\n", b"VALUE b 0 1\r\n2\r\nEND\r\n"]),
            format!("{a}{b}{a}END\r\n")
        );
        assert_eq!(join([b"END\r\n", b"VALUE b 0 1\r\n2\r\nEND\r\n"]), format!("{b}END\r\n"));
        assert_eq!(join([b"SERVER_ERROR x\r\n", b"END\r\n"]), "SERVER_ERROR x\r\n");
        let partly: [&[u8]; 2] = [b"SERVER_ERROR x\r\n", b"VALUE b 0 1\r\n2\r\nEND\r\n"];
        assert_eq!(joined(partly, true), format!("{b}END\r\n"));
        assert_eq!(joined([b"SERVER_ERROR x\r\n", b"ERROR\r\n"], true), "SERVER_ERROR x\r\n", "nobody answered");
        assert!(join([b"VALUE z 0 1\r\n1\r\nEND\r\n", b"END\r\n"]).starts_with("SERVER_ERROR"));
    }

    #[test]
    fn what_cannot_be_joined_is_an_error_and_never_a_wrong_answer() {
        assert!(joined(Join::Sum, &[0, 1], &[b":2\r\n", b"+OK\r\n"]).starts_with("-ERR"));
        assert!(joined(Join::Values, &[0, 1, 1], &[b"*1\r\n:1\r\n", b"*1\r\n:1\r\n"]).starts_with("-ERR"));
        assert!(joined(Join::Values, &[0, 1], &[b":1\r\n", b"*1\r\n:1\r\n"]).starts_with("-ERR"));
        assert!(joined(Join::Values, &[0, 1], &[b"*2\r\n:1\r\n:2\r\n", b"*1\r\n:1\r\n"]).starts_with("-ERR"));
    }
}

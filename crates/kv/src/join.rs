//! The replies to a split request become one, in the client's order.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use buf::{Chunk, SizeClass};

use crate::client::ClientCell;
use crate::commands::Join;
use crate::fault::Fault;
use crate::outbox::Outbox;
use crate::plan::Protocol;
use crate::wire::resp::reply::{elements, integer};

/// A split request whose parts are on their way.
pub(crate) struct Joining {
    client: Rc<ClientCell>,
    seq: u64,
    join: Join,
    /// For each key of the request the part it went with.
    places: Vec<u16>,
    parts: Vec<Option<Chunk>>,
    missing: usize,
}

impl Joining {
    pub(crate) fn new(
        client: Rc<ClientCell>,
        seq: u64,
        join: Join,
        places: Vec<u16>,
        parts: usize,
    ) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self { client, seq, join, places, parts: vec![None; parts], missing: parts }))
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
    give(joining, part, Chunk::from_static(fault.line(Protocol::Redis)));
}

/// One part's reply. With the last the client gets its answer. Not for the client's own
/// handler: see [`arrive`].
pub(crate) fn give(joining: &Rc<RefCell<Joining>>, part: usize, reply: Chunk) {
    if let Some(whole) = arrive(joining, part, reply) {
        let (client, seq) = {
            let joining = joining.borrow();
            (Rc::clone(&joining.client), joining.seq)
        };
        client.borrow_mut().fill_pieces(seq, whole);
    }
}

/// One part's reply; with the last, the answer.
pub(crate) fn arrive(joining: &Rc<RefCell<Joining>>, part: usize, reply: Chunk) -> Option<Vec<Chunk>> {
    let mut joining = joining.borrow_mut();
    match joining.parts.get_mut(part) {
        Some(place @ None) => *place = Some(reply),
        _ => return None,
    }
    joining.missing -= 1;
    (joining.missing == 0).then(|| whole(joining.join, &joining.places, &joining.parts))
}

fn is_error(reply: &[u8]) -> bool {
    reply.first() == Some(&b'-')
}

fn unlike() -> Vec<Chunk> {
    vec![Chunk::from_static(Fault::Unlike.line(Protocol::Redis))]
}

/// The answer made of all parts' replies. Pure.
fn whole(join: Join, places: &[u16], parts: &[Option<Chunk>]) -> Vec<Chunk> {
    let parts: Vec<&Chunk> = parts.iter().flatten().collect();
    match join {
        Join::Values => values(places, &parts),
        Join::Sum | Join::Ok => {
            if let Some(error) = parts.iter().find(|part| is_error(part)) {
                return vec![(*error).clone()];
            }
            if join == Join::Ok {
                return parts.first().map_or_else(unlike, |part| vec![(*part).clone()]);
            }
            match parts.iter().map(|part| integer(part)).sum::<Option<i64>>() {
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

/// One array of all keys' elements. A part that failed gives its error in each of its keys' places, so that the
/// others' values are not lost; when all failed the answer is the error.
fn values(places: &[u16], parts: &[&Chunk]) -> Vec<Chunk> {
    if let Some(error) = parts.first()
        && parts.iter().all(|part| is_error(part))
    {
        return vec![(*error).clone()];
    }
    let mut found = Vec::with_capacity(parts.len());
    for part in parts {
        if is_error(part) {
            found.push(None);
            continue;
        }
        match elements(part) {
            Some(elements) => found.push(Some(elements.into_iter())),
            None => return unlike(),
        }
    }
    let mut out = Outbox::new(SizeClass::Medium);
    out.copy(format!("*{}\r\n", places.len()).as_bytes());
    for place in places {
        let place = usize::from(*place);
        let (Some(part), Some(elements)) = (parts.get(place), found.get_mut(place)) else { return unlike() };
        match elements {
            None => out.copy(part),
            Some(elements) => match elements.next() {
                Some(at) if at.len() <= 1 << 10 => out.copy(&part[at]),
                Some(at) => out.chunk(part.part(at)),
                None => return unlike(),
            },
        }
    }
    let mut chunks = Vec::new();
    out.take(|chunk| chunks.push(chunk));
    chunks
}

#[cfg(test)]
fn bytes_of(chunks: &[Chunk]) -> Vec<u8> {
    chunks.iter().flat_map(|chunk| chunk.to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_cannot_be_joined_is_an_error_and_never_a_wrong_answer() {
        assert!(joined(Join::Sum, &[0, 1], &[b":2\r\n", b"+OK\r\n"]).starts_with("-ERR"));
        assert!(joined(Join::Values, &[0, 1, 1], &[b"*1\r\n:1\r\n", b"*1\r\n:1\r\n"]).starts_with("-ERR"));
        assert!(joined(Join::Values, &[0, 1], &[b":1\r\n", b"*1\r\n:1\r\n"]).starts_with("-ERR"));
    }
}

//! A request with many keys becomes one for each server. Pure.

use crate::commands::Keys;

/// The keys of a request that live on one server.
pub(crate) struct Part {
    /// The server; none when none is live.
    pub(crate) server: Option<usize>,
    /// The places of its keys among the arguments.
    pub(crate) keys: Vec<usize>,
}

/// Groups keys by server. For each key, in order, also the number of its part.
pub(crate) fn by_server(keys: &Keys, server_of: impl Fn(usize) -> Option<usize>) -> (Vec<Part>, Vec<u16>) {
    let mut parts: Vec<Part> = Vec::new();
    let mut places = Vec::with_capacity(keys.end.saturating_sub(keys.first) / keys.step.max(1));
    for at in keys.iter() {
        let server = server_of(at);
        let part = parts.iter().position(|part| part.server == server).unwrap_or_else(|| {
            parts.push(Part { server, keys: Vec::new() });
            parts.len() - 1
        });
        parts[part].keys.push(at);
        // A pool has at most 65,536 servers.
        places.push(u16::try_from(part).unwrap_or(u16::MAX));
    }
    (parts, places)
}

/// The request for one part: the command, and each of its keys with the `step - 1` arguments behind it.
pub(crate) fn encode<'a>(name: &str, keys: &[usize], step: usize, argument: impl Fn(usize) -> &'a [u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32 + keys.len() * 32 * step);
    number(&mut bytes, b'*', 1 + keys.len() * step);
    bulk(&mut bytes, name.as_bytes());
    for key in keys {
        for at in *key..*key + step {
            bulk(&mut bytes, argument(at));
        }
    }
    bytes
}

fn bulk(bytes: &mut Vec<u8>, word: &[u8]) {
    number(bytes, b'$', word.len());
    bytes.extend_from_slice(word);
    bytes.extend_from_slice(b"\r\n");
}

fn number(bytes: &mut Vec<u8>, kind: u8, mut value: usize) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    bytes.push(kind);
    bytes.extend_from_slice(&digits[at..]);
    bytes.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_grouped_by_server_in_their_order_and_duplicates_stay() {
        let keys = Keys { first: 1, end: 7, step: 2, ..Keys::default() };
        let (parts, places) = by_server(&keys, |at| Some(at / 2 % 2));
        assert_eq!(places, [0, 1, 0]);
        assert_eq!(parts.iter().map(|part| part.keys.clone()).collect::<Vec<_>>(), [vec![1, 5], vec![3]]);
        let words: [&[u8]; 7] = [b"MSET", b"a", b"1", b"b", b"2", b"a", b"345678901234"];
        assert_eq!(
            encode("mset", &parts[0].keys, 2, |at| words[at]),
            b"*5\r\n$4\r\nmset\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\na\r\n$12\r\n345678901234\r\n"
        );
    }
}

//! Our parser of RESP beside another: what one takes the other takes, with the same length and the same parts.
//!
//! Plain functions over bytes: the tests beside this file call them, and the fuzzer. Where the two differ on purpose
//! has a name: [`is_spelled_oddly`], [`has_bare_line_feed`], and the limits, which the other has none of.

use kv::wire::Scanned;
use kv::wire::resp::{Reply, Request, Scan, reply};
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::{OwnedFrame, Resp2Frame};

/// The other follows arrays within arrays on its stack.
const NESTED_MAX: usize = 500;

/// What the other makes of the bytes: a frame and its length, nothing yet, or no frame.
fn other(bytes: &[u8]) -> Result<Option<(OwnedFrame, usize)>, ()> {
    decode(bytes).map_err(drop)
}

/// Numbers with a plus sign or zeros before them, or of more than eighteen digits: the other takes them, we and Redis do
/// not.
fn is_spelled_oddly(bytes: &[u8]) -> bool {
    let signed = bytes.windows(2).any(|pair| matches!(pair, [b'$' | b'*' | b':', b'+']));
    let zeros = |run: &[u8]| matches!(run, [b'$' | b'*' | b':', b'0', b'0'..=b'9'] | [b'$' | b'*' | b':', b'-', b'0']);
    signed || bytes.windows(3).any(zeros) || bytes.windows(19).any(|run| run.iter().all(u8::is_ascii_digit))
}

/// A line feed without a carriage return: the other goes on to the next that has one, for us no line has it.
fn has_bare_line_feed(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || bytes[at - 1] != b'\r'))
}

fn is_nested_deeply(bytes: &[u8]) -> bool {
    bytes.iter().filter(|byte| **byte == b'*').count() > NESTED_MAX
}

/// A request of Redis.
///
/// # Panics
/// When the two differ, but for what is named in the module.
pub(crate) fn request(bytes: &[u8]) {
    if bytes.first() != Some(&b'*') || is_nested_deeply(bytes) {
        // An inline command: the other knows none.
        return;
    }
    let mut scanner = Request::default();
    let ours = scanner.scan(bytes);
    let theirs = other(bytes);
    if let Scan::Whole(len) = ours {
        let Ok(Some((OwnedFrame::Array(words), their_len))) = theirs else {
            panic!("we take what the other does not: {theirs:?}");
        };
        assert_eq!(len, their_len, "the request's length");
        let arguments: Vec<&[u8]> =
            scanner.arguments().iter().map(|at| &bytes[at.start as usize..at.end as usize]).collect();
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes().expect("a bulk string")).collect();
        assert_eq!(arguments, words);
        return;
    }
    if is_spelled_oddly(bytes) {
        return;
    }
    match theirs {
        Ok(Some((OwnedFrame::Array(words), len))) if words.is_empty() => assert_eq!(ours, Scan::Blank(len)),
        Ok(Some((OwnedFrame::Null, len))) => assert_eq!(ours, Scan::Blank(len)),
        Ok(Some((OwnedFrame::Array(words), len))) => {
            let bulk = words.iter().all(|word| matches!(word, OwnedFrame::BulkString(_)));
            // It does not look at what stands behind a bulk string: encoded again it is what it was.
            let clean = bulk && same_when_written(&words, &bytes[..len]);
            assert!(!clean, "the other takes what is {ours:?} for us");
        }
        Ok(Some(_)) => panic!("an array is something else"),
        // We may see earlier that nothing can come of it.
        Ok(None) => assert!(matches!(ours, Scan::More(_) | Scan::Malformed(_) | Scan::Blank(_)), "{ours:?}"),
        // It looks at no sign of an array that asks for nothing.
        Err(()) => assert!(matches!(ours, Scan::Malformed(_) | Scan::Blank(_) | Scan::More(_)), "{ours:?}"),
    }
}

/// Whether the words, written as a client does, are these bytes.
fn same_when_written(words: &[OwnedFrame], bytes: &[u8]) -> bool {
    let words: Vec<&[u8]> = words.iter().filter_map(OwnedFrame::as_bytes).collect();
    kv::wire::resp::request::encode(&words) == bytes
}

/// A reply of Redis.
///
/// # Panics
/// When the two differ, but for what is named in the module.
pub(crate) fn reply(bytes: &[u8]) {
    if is_nested_deeply(bytes) || is_spelled_oddly(bytes) || has_bare_line_feed(bytes) {
        return;
    }
    let ours = Reply::default().scan(bytes);
    match other(bytes) {
        Ok(Some((frame, len))) => {
            assert_eq!(ours, Scanned::Whole(len), "of {frame:?}");
            let whole = &bytes[..len];
            match frame {
                OwnedFrame::Array(items) => {
                    let places = reply::elements(whole).expect("an array");
                    assert_eq!(places.len(), items.len());
                    for (place, item) in places.into_iter().zip(items) {
                        assert_eq!(other(&whole[place.clone()]), Ok(Some((item, place.len()))));
                    }
                }
                OwnedFrame::Integer(value) => assert_eq!(reply::integer(whole), Some(value)),
                _ => {}
            }
        }
        Ok(None) => assert!(matches!(ours, Scanned::Part(_) | Scanned::Malformed), "{ours:?}"),
        // What a line says is nothing to us: an integer that is none, an error that is no text.
        Err(()) => {
            let looked_at = |byte: &u8| matches!(byte, b':' | b'+' | b'-');
            let whole = matches!(ours, Scanned::Whole(_));
            assert!(!whole || bytes.iter().any(looked_at), "we take what the other does not");
        }
    }
}

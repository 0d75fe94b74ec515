//! Our parser of memcached's text protocol beside a plain one, written from the protocol's description: line by line,
//! word by word, everything copied.
//!
//! What the plain one takes ours takes, as the same words and data of the same length, and asks a server for it as it is.
//! What ours takes and the plain one does not has a name: [`Plain::Loose`], where servers read numbers more generously
//! than the description says: then ours rewrites the line into one that the plain one takes.

use kv::wire::Scanned;
use kv::wire::memcached::{self, Reply, Scan};

/// From here on ours has limits for a line, and the plain one has none.
const LONG: usize = 1_500;
/// The most data that ours takes.
const DATA_MAX: usize = 1 << 30;
/// Servers count data and what ends them in 31 bits.
const LENGTH_MAX: u64 = (1 << 31) - 3;

/// What the plain parser makes of a request.
#[derive(Debug, PartialEq, Eq)]
enum Plain {
    /// Not all of it has come.
    Unfinished,
    /// The binary protocol.
    Binary,
    /// A line with nothing in it.
    Blank(usize),
    /// A request as it is described: its words, its data if it has any, and its length.
    Request(Vec<Vec<u8>>, Option<Vec<u8>>, usize),
    /// A request whose data do not end where they should.
    BadData(usize),
    /// A storage command whose line, of so many bytes, is not as described.
    Loose(usize),
}

/// A decimal number without a sign.
fn number(word: &[u8]) -> Option<u64> {
    if word.is_empty() || !word.iter().all(u8::is_ascii_digit) {
        return None;
    }
    String::from_utf8(word.to_vec()).ok()?.parse().ok()
}

/// `<command> <key> <flags> <exptime> <bytes> [noreply]`, with `<cas unique>` behind the bytes of `cas`. Says how many
/// bytes of data follow.
fn data_len(words: &[Vec<u8>]) -> Option<usize> {
    let mut rest = words[1..].to_vec();
    let is_cas = words[0] == b"cas";
    // Whatever stands in the place of `noreply` is nothing to servers.
    if rest.len() == if is_cas { 6 } else { 5 } {
        rest.pop();
    }
    let unique = if is_cas { rest.pop()? } else { b"0".to_vec() };
    let [key, flags, time, length] = rest.as_slice() else { return None };
    // A time may be in the past.
    let past = time.strip_prefix(b"-");
    let time_max = u64::from(i32::MAX.unsigned_abs()) + u64::from(past.is_some());
    let time = number(past.unwrap_or(time))?;
    // Of zeros there are as many as one likes, and below nothing is nothing.
    let length = number(length).or_else(|| number(length.strip_prefix(b"-")?).filter(|below| *below == 0))?;
    let holds = key.len() <= 250 && number(flags)? <= u64::from(u32::MAX) && time <= time_max && length <= LENGTH_MAX;
    number(&unique).filter(|_| holds)?;
    usize::try_from(length).ok()
}

fn plain(bytes: &[u8]) -> Plain {
    if bytes.first() == Some(&0x80) {
        return Plain::Binary;
    }
    let Some(at) = bytes.iter().position(|byte| *byte == b'\n') else { return Plain::Unfinished };
    let (mut line, len) = (bytes[..at].to_vec(), at + 1);
    if line.ends_with(b"\r") {
        line.pop();
    }
    let words: Vec<Vec<u8>> =
        line.split(|byte| *byte == b' ').map(<[u8]>::to_vec).filter(|word| !word.is_empty()).collect();
    let Some(name) = words.first() else { return Plain::Blank(len) };
    // No word has one.
    let has_zero = line.contains(&0);
    if !["set", "add", "replace", "append", "prepend", "cas"].iter().any(|known| known.as_bytes() == name) {
        return if has_zero { Plain::Loose(len) } else { Plain::Request(words, None, len) };
    }
    let Some(data) = data_len(&words).filter(|_| !has_zero) else { return Plain::Loose(len) };
    let whole = len + data + 2;
    if bytes.len() < whole {
        return Plain::Unfinished;
    }
    if &bytes[len + data..whole] != b"\r\n" {
        return Plain::BadData(whole);
    }
    Plain::Request(words, Some(bytes[len..len + data].to_vec()), whole)
}

/// A request of memcached.
///
/// # Panics
/// When the two differ, but for what is named in the module.
pub(crate) fn request(bytes: &[u8]) {
    let mut places = Vec::new();
    let ours = memcached::scan(bytes, &mut places);
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.len() >= LONG {
        return;
    }
    let theirs = plain(bytes);
    match (&theirs, ours) {
        (Plain::Unfinished, Scan::More(_)) | (Plain::Binary, Scan::Binary) => {}
        (Plain::Unfinished, Scan::Refused(len, _)) => assert!(len > DATA_MAX, "refused before it has come"),
        (Plain::Blank(len), Scan::Refused(ours, said)) => assert_eq!((*len, &b"ERROR\r\n"[..]), (ours, said)),
        (Plain::BadData(len), Scan::Refused(ours, _)) => assert_eq!(*len, ours),
        (Plain::Request(words, data, len), Scan::Whole(ours)) => {
            assert_eq!(*len, ours, "the request's length");
            let found: Vec<&[u8]> = places.iter().map(|at| &bytes[at.start as usize..at.end as usize]).collect();
            assert_eq!(*words, found);
            assert_eq!(data.is_some(), memcached::has_data(&words[0]));
        }
        // What a server would take for another line, or for none.
        (Plain::Loose(len), Scan::Refused(ours, _)) => assert!(*len <= ours),
        (Plain::Loose(_), Scan::More(_)) => {}
        (Plain::Loose(len), Scan::Odd(ours)) => {
            let rewritten = memcached::rewritten(&bytes[..ours], &places);
            let Plain::Request(_, Some(data), whole) = plain(&rewritten) else {
                panic!("asked for as {:?}", String::from_utf8_lossy(&rewritten));
            };
            assert_eq!(whole, rewritten.len(), "one request, and nothing behind it");
            assert_eq!(data, bytes[*len..ours - 2], "its data are the same");
        }
        (theirs, ours) => panic!("{ours:?} is {theirs:?}"),
    }
}

/// What the plain parser makes of a reply.
#[derive(Debug, PartialEq, Eq)]
enum PlainReply {
    Unfinished,
    /// Of this length: values with their keys, and nothing but their end behind them.
    Values(usize, Vec<(Vec<u8>, Vec<u8>)>),
    /// Of this length: another, or one that begins with values and does not go on so.
    Other(usize),
    /// It is none.
    Nonsense,
}

fn plain_reply(bytes: &[u8]) -> PlainReply {
    let mut values = Vec::new();
    let mut has_others = false;
    let mut at = 0;
    loop {
        let Some(end) = bytes[at..].iter().position(|byte| *byte == b'\n') else { return PlainReply::Unfinished };
        let Some(line) = bytes[at..at + end].strip_suffix(b"\r") else { return PlainReply::Nonsense };
        at += end + 1;
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        match words.as_slice() {
            [b"VALUE", key, flags, length] | [b"VALUE", key, flags, length, _] => {
                let length = number(length).and_then(|length| usize::try_from(length).ok());
                let Some(length) = length.filter(|length| *length <= DATA_MAX && number(flags).is_some()) else {
                    return PlainReply::Nonsense;
                };
                if bytes.len() < at + length + 2 {
                    return PlainReply::Unfinished;
                }
                if &bytes[at + length..at + length + 2] != b"\r\n" {
                    return PlainReply::Nonsense;
                }
                values.push((key.to_vec(), bytes[at..at + length].to_vec()));
                at += length + 2;
            }
            [b"VALUE", ..] => return PlainReply::Nonsense,
            // Each word of memcached's is in capitals, and a number is one.
            _ if !matches!(line.first(), Some(b'A'..=b'Z' | b'0'..=b'9')) => return PlainReply::Nonsense,
            [b"STAT", _, ..] => has_others = true,
            [b"END"] if !has_others => return PlainReply::Values(at, values),
            _ => return PlainReply::Other(at),
        }
    }
}

/// A reply of memcached.
///
/// # Panics
/// When the two differ, but for what is no reply: ours need not look so closely.
pub(crate) fn reply(bytes: &[u8]) {
    if bytes.split(|byte| *byte == b'\n').any(|line| line.len() >= LONG) {
        return;
    }
    let ours = Reply::default().scan(bytes);
    match plain_reply(bytes) {
        PlainReply::Nonsense => {}
        PlainReply::Unfinished => assert!(matches!(ours, Scanned::Part(_)), "{ours:?}"),
        PlainReply::Other(len) => {
            assert_eq!(ours, Scanned::Whole(len));
            assert_eq!(memcached::values(&bytes[..len]), None, "there is more than values");
        }
        PlainReply::Values(len, values) => {
            assert_eq!(ours, Scanned::Whole(len));
            let whole = &bytes[..len];
            let found = memcached::values(whole).expect("nothing but values");
            assert_eq!(found.len(), values.len());
            for ((key, place), (expected, data)) in found.into_iter().zip(values) {
                assert_eq!(&whole[key], expected);
                assert!(whole[place].ends_with(&[&data, b"\r\n".as_slice()].concat()));
            }
        }
    }
}

//! memcached's text protocol: a line, and for storage commands a block of data behind it.
//!
//! A reply tells its own end: `VALUE` lines with their data and `STAT` lines go on, any other line ends it.

use std::ops::Range;

use super::{Found, Scanned};

/// The longest line of a request: many keys of a multiget.
pub const LINE_MAX: usize = 48 << 10;
/// The longest line of a request that is no `get` or `gets`: beyond it memcached closes the connection.
const OTHER_LINE_MAX: usize = 2_000;
/// The longest key.
pub const KEY_MAX: usize = 250;
/// The most data behind one line: what servers can be set to take.
pub const DATA_MAX: usize = 1 << 30;
/// The most data of one value in a reply: what servers can be set to take, and some more.
const REPLY_DATA_MAX: u64 = 4 << 30;
/// The longest line of a reply.
const REPLY_LINE_MAX: usize = 8 << 10;
/// The first byte of a request of the binary protocol.
const BINARY_REQUEST: u8 = 0x80;

/// What a look at the bytes came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scan {
    /// A whole request of so many bytes.
    Whole(usize),
    /// So many bytes are no request, and are answered with this, which may be nothing; what follows may be one.
    Refused(usize, &'static [u8]),
    /// More bytes are needed: so many in all, as far as is known.
    More(usize),
    /// Nothing can follow: answered with this.
    Hopeless(&'static [u8]),
    /// The binary protocol.
    Binary,
}

/// The end of what was found.
pub const END: &[u8] = b"END\r\n";
/// `ERROR`: there is no such command.
pub const ERROR: &[u8] = b"ERROR\r\n";
/// The line is not as it should be.
pub const BAD_LINE: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
/// The data are not as long as the line says.
pub const BAD_DATA: &[u8] = b"CLIENT_ERROR bad data chunk\r\n";
const TOO_LONG: &[u8] = b"CLIENT_ERROR line too long\r\n";
/// The data are longer than any server takes.
pub const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";

/// The last word of a request that wants no reply.
pub const NOREPLY: &[u8] = b"noreply";
/// The time of expiry is no number.
pub const BAD_TIME: &[u8] = b"CLIENT_ERROR invalid exptime argument\r\n";
/// What follows `delete` is not what may.
pub const BAD_DELETE: &[u8] = b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n";

/// Where in a storage command's line its data's length stands.
const LENGTH_AT: usize = 4;

/// Whether a command has data behind its line.
#[must_use]
pub fn has_data(name: &[u8]) -> bool {
    matches!(name, b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas")
}

/// Looks at `bytes`, which begin with a request. The words of its line are left in `words`.
pub fn scan(bytes: &[u8], words: &mut Vec<Range<u32>>) -> Scan {
    words.clear();
    if bytes.first() == Some(&BINARY_REQUEST) {
        return Scan::Binary;
    }
    let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(LINE_MAX)]) else {
        return if bytes.len() >= LINE_MAX { Scan::Hopeless(TOO_LONG) } else { Scan::More(0) };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let mut at = 0;
    while at < line.len() {
        if line[at] == b' ' {
            at += 1;
            continue;
        }
        let stop = memchr::memchr(b' ', &line[at..]).map_or(line.len(), |len| at + len);
        // A line is shorter than LINE_MAX.
        let (Ok(from), Ok(to)) = (u32::try_from(at), u32::try_from(stop)) else { return Scan::Hopeless(TOO_LONG) };
        words.push(from..to);
        at = stop;
    }
    let word = |at: usize| words.get(at).and_then(|word| line.get(word.start as usize..word.end as usize));
    let len = end + 1;
    let Some(name) = word(0) else { return Scan::Refused(len, ERROR) };
    // For memcached a zero byte ends the line, so that it would read another one: and a last word of its own.
    if memchr::memchr(0, line).is_some() {
        return Scan::Refused(len, BAD_LINE);
    }
    if line.len() > OTHER_LINE_MAX && !line.starts_with(b"get ") && !line.starts_with(b"gets ") {
        return Scan::Refused(len, TOO_LONG);
    }
    if !has_data(name) {
        return Scan::Whole(len);
    }
    // What memcached refuses by its line alone has no data there: what follows is the next request, and it would answer
    // that as well. So nothing may come to a server that it could refuse in this way.
    let plain = if name == b"cas" { LENGTH_AT + 2 } else { LENGTH_AT + 1 };
    if words.len() != plain && words.len() != plain + 1 {
        return Scan::Refused(len, ERROR);
    }
    let quiet = word(words.len() - 1) == Some(NOREPLY);
    let refused = |len, line| Scan::Refused(len, if quiet { b"" } else { line });
    let number = |at| word(at).and_then(|word| std::str::from_utf8(word).ok());
    let right = word(1).is_some_and(is_key)
        && number(LENGTH_AT - 2).is_some_and(|flags| flags.parse::<u32>().is_ok())
        && number(LENGTH_AT - 1).is_some_and(|time| time.parse::<i32>().is_ok())
        && (name != b"cas" || number(LENGTH_AT + 1).is_some_and(|unique| unique.parse::<u64>().is_ok()));
    let length = number(LENGTH_AT).and_then(|length| length.parse::<i32>().ok());
    let Some(length) = length.filter(|_| right).and_then(|length| usize::try_from(length).ok()) else {
        return refused(len, BAD_LINE);
    };
    if length > DATA_MAX {
        return Scan::Hopeless(TOO_LARGE);
    }
    let whole = len + length + 2;
    match bytes.get(len + length..whole) {
        Some(b"\r\n") => Scan::Whole(whole),
        Some(_) => refused(whole, BAD_DATA),
        None => Scan::More(whole),
    }
}

/// Whether this is a key that servers take.
#[must_use]
pub fn is_key(word: &[u8]) -> bool {
    !word.is_empty() && word.len() <= KEY_MAX
}

/// The binary protocol's answer "unknown command" to this request.
#[must_use]
pub fn binary_refusal(request: &[u8]) -> Vec<u8> {
    const TEXT: &[u8] = b"the proxy speaks the text protocol";
    let mut reply = vec![0_u8; 24];
    reply[0] = 0x81;
    reply[1] = request.get(1).copied().unwrap_or(0);
    reply[7] = 0x81;
    reply[11] = u8::try_from(TEXT.len()).unwrap_or(0);
    if let Some(opaque) = request.get(12..16) {
        reply[12..16].copy_from_slice(opaque);
    }
    reply.extend_from_slice(TEXT);
    reply
}

/// One reply, as far as it was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reply {
    skip: u64,
    values: u32,
    last: Found,
}

impl Reply {
    /// Values of the last whole reply. Of keys without one nothing is said, so that there are none is one nothing.
    #[inline]
    #[must_use]
    pub fn found(&self) -> Found {
        self.last
    }

    /// Looks at `bytes`, which go on where it said that it had looked for good.
    #[inline]
    pub fn scan(&mut self, bytes: &[u8]) -> Scanned {
        let mut at = 0;
        loop {
            if self.skip > 0 {
                let here = bytes.len() - at;
                let skip = usize::try_from(self.skip).unwrap_or(usize::MAX);
                if here < skip {
                    self.skip -= here as u64;
                    return Scanned::Part(bytes.len());
                }
                at += skip;
                self.skip = 0;
            }
            let rest = &bytes[at..];
            let Some(end) = memchr::memchr(b'\n', &rest[..rest.len().min(REPLY_LINE_MAX)]) else {
                return if rest.len() >= REPLY_LINE_MAX { Scanned::Malformed } else { Scanned::Part(at) };
            };
            let line = &rest[..end];
            if line.last() != Some(&b'\r') {
                return Scanned::Malformed;
            }
            at += end + 1;
            if line.starts_with(b"VALUE ") {
                match value_length(line) {
                    Some(length) => {
                        self.skip = length + 2;
                        self.values = self.values.wrapping_add(1);
                    }
                    None => return Scanned::Malformed,
                }
            } else if !line.starts_with(b"STAT ") {
                let values = std::mem::take(&mut self.values);
                self.last = Found { values, nothing: u32::from(values == 0 && line.starts_with(b"EN")) };
                return Scanned::Whole(at);
            }
        }
    }
}

/// The data's length in `VALUE key flags length [cas]`.
fn value_length(line: &[u8]) -> Option<u64> {
    let length = line.trim_ascii_end().split(|byte| *byte == b' ').nth(3)?;
    let length: u64 = std::str::from_utf8(length).ok()?.parse().ok()?;
    (length <= REPLY_DATA_MAX).then_some(length)
}

/// The values in a whole reply to a retrieval, each with its key and the data; `None` when it is something else.
#[must_use]
pub fn values(bytes: &[u8]) -> Option<Vec<(Range<usize>, Range<usize>)>> {
    const BEGIN: &[u8] = b"VALUE ";
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        let rest = bytes.get(at..)?;
        if rest == b"END\r\n" {
            return Some(found);
        }
        let end = memchr::memchr(b'\n', rest)?;
        let line = rest.get(..end)?;
        if !line.starts_with(BEGIN) {
            return None;
        }
        let length = usize::try_from(value_length(line)?).ok()?;
        let key = memchr::memchr(b' ', &line[BEGIN.len()..])?;
        let whole = at..at + end + 1 + length + 2;
        found.push((at + BEGIN.len()..at + BEGIN.len() + key, whole.clone()));
        at = whole.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(bytes: &[u8]) -> (Scan, Vec<String>) {
        let mut words = Vec::new();
        let scan = scan(bytes, &mut words);
        let text =
            |word: Range<u32>| String::from_utf8_lossy(&bytes[word.start as usize..word.end as usize]).into_owned();
        (scan, words.into_iter().map(text).collect())
    }

    #[test]
    fn a_request_is_its_line_and_its_data() {
        assert_eq!(look(b"get a  b\r\nx"), (Scan::Whole(10), vec!["get".into(), "a".into(), "b".into()]));
        assert_eq!(look(b"set a 0 0 3\r\na\nb\r\nget").0, Scan::Whole(18));
        assert_eq!(look(b"set a 0 -1 3 noreply\r\na").0, Scan::More(27));
        assert_eq!(look(b"get a").0, Scan::More(0));
        assert_eq!(look(b"version\n").0, Scan::Whole(8));
    }

    #[test]
    fn what_is_no_request_is_answered_and_the_next_may_be_one() {
        assert_eq!(look(b"\r\n").0, Scan::Refused(2, ERROR));
        assert_eq!(look(b"set a 0 0\r\n").0, Scan::Refused(11, ERROR));
        assert_eq!(look(b"set a 0 0 x\r\n").0, Scan::Refused(13, BAD_LINE));
        assert_eq!(look(b"set a 0 0 -1\r\n").0, Scan::Refused(14, BAD_LINE));
        assert_eq!(look(b"set a 0 0 1 x y\r\nabc").0, Scan::Refused(17, ERROR));
        assert_eq!(look(b"set a 0 0 1 x\r\na\r\n").0, Scan::Whole(18));
        for bad in ["4294967296 0 1", "-1 0 1", "0 2147483648 1", "0 x 1", "0 0 noreply"] {
            let quiet = bad.ends_with("noreply");
            let line = format!("set a {bad}\r\na\r\n");
            assert_eq!(look(line.as_bytes()).0, Scan::Refused(line.len() - 3, if quiet { b"" } else { BAD_LINE }));
        }
        assert_eq!(look(b"cas a 0 0 1\r\na\r\n").0, Scan::Refused(13, ERROR));
        assert_eq!(look(b"cas a 0 0 1 x\r\na\r\n").0, Scan::Refused(15, BAD_LINE));
        assert_eq!(look(b"set a\0 0 0 1\r\na\r\n").0, Scan::Refused(14, BAD_LINE));
        assert_eq!(look(b"incr a 1 noreply\0\r\n").0, Scan::Refused(19, BAD_LINE));
        assert_eq!(look(b"set a 0 0 1 noreply\r\nabcd").0, Scan::Refused(24, b""));
        let long = format!("{} a b\r\n", "x".repeat(OTHER_LINE_MAX));
        assert_eq!(look(long.as_bytes()).0, Scan::Refused(long.len(), TOO_LONG));
        assert_eq!(look(format!("get {long}").as_bytes()).0, Scan::Whole(long.len() + 4));
        assert_eq!(look(b"set a 0 0 1\r\nabcd").0, Scan::Refused(16, BAD_DATA));
        assert_eq!(look(&[b'a'; LINE_MAX]).0, Scan::Hopeless(TOO_LONG));
        assert_eq!(look(&[b'a'; LINE_MAX - 1]).0, Scan::More(0));
        assert_eq!(look(b"\x80\x00").0, Scan::Binary);
    }

    #[test]
    fn replies_end_where_they_end_whatever_the_split() {
        let replies: [&[u8]; 5] = [
            b"STORED\r\n",
            b"VALUE a 0 5\r\nEND\r\n\r\nVALUE b 1 0 77\r\n\r\nEND\r\n",
            b"END\r\n",
            b"STAT a 1\r\nSTAT b 2\r\nEND\r\n",
            b"SERVER_ERROR out of memory\r\n",
        ];
        for reply in replies {
            for split in 0..reply.len() {
                let mut scan = Reply::default();
                let Scanned::Part(done) = scan.scan(&reply[..split]) else { panic!("{reply:?} at {split}") };
                assert_eq!(scan.scan(&reply[done..]), Scanned::Whole(reply.len() - done), "{reply:?} at {split}");
            }
        }
        assert_eq!(Reply::default().scan(b"VALUE a 0 x\r\n"), Scanned::Malformed);
        assert_eq!(Reply::default().scan(b"OK\n"), Scanned::Malformed);
    }

    #[test]
    fn values_are_found_with_their_keys() {
        let bytes = b"VALUE a 0 5\r\nEND\r\n\r\nVALUE bc 1 0\r\n\r\nEND\r\n";
        let found = values(bytes).unwrap();
        let keys: Vec<_> = found.iter().map(|(key, _)| &bytes[key.clone()]).collect();
        assert_eq!(keys, [&b"a"[..], b"bc"]);
        assert_eq!(&bytes[found[1].1.clone()], b"VALUE bc 1 0\r\n\r\n");
        assert!(values(b"SERVER_ERROR x\r\n").is_none());
    }
}

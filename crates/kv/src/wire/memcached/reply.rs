//! memcached's replies.
//!
//! A reply tells its own end: `VALUE` lines with their data and `STAT` lines go on, any other line ends it.

use std::ops::Range;

use super::super::{Found, Scanned};

/// The most data of one value in a reply: what servers can be set to take, and some more.
const REPLY_DATA_MAX: u64 = 4 << 30;
/// The longest line of a reply.
const REPLY_LINE_MAX: usize = 8 << 10;

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
            } else if !line[0].is_ascii_uppercase() && !line[0].is_ascii_digit() {
                // No word of memcached's: another protocol speaks, or this is not where a reply begins.
                return Scanned::Malformed;
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
    // Behind the first word, the key and the flags: every value costs this.
    let rest = line.get(b"VALUE ".len()..)?;
    let rest = &rest[memchr::memchr(b' ', rest)? + 1..];
    let rest = &rest[rest.iter().position(|byte| *byte == b' ')? + 1..];
    let mut length = None;
    for byte in rest {
        match byte {
            b'0'..=b'9' => {
                let longer = length.unwrap_or(0) * 10 + u64::from(byte - b'0');
                length = Some(longer).filter(|length| *length <= REPLY_DATA_MAX);
                length?;
            }
            b' ' | b'\r' => break,
            _ => return None,
        }
    }
    length
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
        for foreign in [&b"$-1\r\n"[..], b"-ERR syntax error\r\n", b"+OK\r\n", b"value\r\n", b"\r\n", b"\x81\r\n"] {
            assert_eq!(Reply::default().scan(foreign), Scanned::Malformed);
        }
        assert_eq!(Reply::default().scan(b"12\r\n"), Scanned::Whole(4));
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

//! A reply: where it ends. What it says concerns only those who join several.

use super::{Number, number};
use crate::wire::Found;

/// The longest line of a simple string or an error.
pub const LINE_MAX: usize = 64 << 10;
/// Elements of all arrays of one reply together.
pub const ELEMENTS_MAX: u64 = 1 << 32;

/// What a look at the bytes came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scanned {
    /// The reply ends after so many of these bytes.
    Whole(usize),
    /// It does not end in them. So many of them were looked at for good, the rest must be there next time.
    Part(usize),
    /// No reply.
    Malformed,
}

/// One reply, as far as it was looked at: a number of elements to come, and bytes to pass over.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    elements: u64,
    skip: u64,
    /// Bulk strings so far, and of the last whole reply: those that are there above 32 bits, those that are not below.
    found: u64,
    last: u64,
}

impl Default for Reply {
    fn default() -> Self {
        Self { elements: 1, skip: 0, found: 0, last: 0 }
    }
}

impl Reply {
    /// Bytes of the reply that are known to come, beyond those looked at.
    #[must_use]
    pub fn known(&self) -> u64 {
        self.skip
    }

    /// Bulk strings of the last whole reply, those that are there and those that are not.
    #[inline]
    #[must_use]
    pub fn found(&self) -> Found {
        // Each to its half.
        #[expect(clippy::cast_possible_truncation, reason = "it is cut on purpose")]
        Found { values: (self.last >> 32) as u32, nothing: self.last as u32 }
    }

    /// Looks at `bytes`, which go on where it said that it had looked for good. After [`Scanned::Whole`] it is ready
    /// for the next reply.
    #[inline]
    pub fn scan(&mut self, bytes: &[u8]) -> Scanned {
        let mut at = 0;
        if self.skip > 0 {
            match usize::try_from(self.skip) {
                Ok(skip) if skip <= bytes.len() => at = skip,
                _ => {
                    self.skip -= bytes.len() as u64;
                    return Scanned::Part(bytes.len());
                }
            }
            self.skip = 0;
        }
        // Kept apart from `self` while it goes on, which costs less.
        let (mut elements, mut found) = (self.elements, self.found);
        let scanned = loop {
            if elements == 0 {
                self.last = found;
                (elements, found) = (1, 0);
                break Scanned::Whole(at);
            }
            let rest = &bytes[at..];
            match rest.first() {
                None => break Scanned::Part(at),
                Some(b'$') => match number(rest) {
                    Number::Is(-1, line) => {
                        at += line;
                        found = found.wrapping_add(1);
                    }
                    Number::Is(size, line) => {
                        let Ok(size) = usize::try_from(size) else { break Scanned::Malformed };
                        found = found.wrapping_add(1 << 32);
                        let whole = line + size + 2;
                        if whole > rest.len() {
                            elements -= 1;
                            self.skip = (whole - rest.len()) as u64;
                            break Scanned::Part(bytes.len());
                        }
                        at += whole;
                    }
                    Number::More => break Scanned::Part(at),
                    Number::No => break Scanned::Malformed,
                },
                Some(b'*') => match number(rest) {
                    Number::Is(count, line) => {
                        // -1 is the array that is not there.
                        elements += u64::try_from(count).unwrap_or(0);
                        if elements > ELEMENTS_MAX || count < -1 {
                            break Scanned::Malformed;
                        }
                        at += line;
                    }
                    Number::More => break Scanned::Part(at),
                    Number::No => break Scanned::Malformed,
                },
                Some(b'+' | b'-' | b':') => match memchr::memchr(b'\n', rest) {
                    Some(end) if end > 0 && rest[end - 1] == b'\r' => at += end + 1,
                    Some(_) => break Scanned::Malformed,
                    None if rest.len() > LINE_MAX => break Scanned::Malformed,
                    None => break Scanned::Part(at),
                },
                Some(_) => break Scanned::Malformed,
            }
            elements -= 1;
        };
        (self.elements, self.found) = (elements, found);
        scanned
    }
}

/// How many elements a whole array reply has, and where the first begins; `None` when it is no array.
#[must_use]
pub fn array(bytes: &[u8]) -> Option<(usize, usize)> {
    match (bytes.first(), number(bytes)) {
        (Some(b'*'), Number::Is(count, at)) => Some((usize::try_from(count).ok()?, at)),
        _ => None,
    }
}

/// The end of the element that begins at `at` of a whole array reply; `None` when none does.
#[inline]
#[must_use]
pub fn element_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    if rest.first() == Some(&b'$')
        && let Number::Is(size @ -1.., line) = number(rest)
    {
        // What is not there has no bytes, and no end of them.
        let size = usize::try_from(size).map_or(Some(0), |size| size.checked_add(2))?;
        let end = size.checked_add(at + line)?;
        return (end <= bytes.len()).then_some(end);
    }
    match Reply::default().scan(rest) {
        Scanned::Whole(len) => Some(at + len),
        _ => None,
    }
}

/// Where all elements of a whole array reply are; `None` when it is no array.
#[must_use]
pub fn elements(bytes: &[u8]) -> Option<Vec<std::ops::Range<usize>>> {
    let (count, mut at) = array(bytes)?;
    let mut found = Vec::with_capacity(count.min(bytes.len() / 4));
    for _ in 0..count {
        let end = element_end(bytes, at)?;
        found.push(at..end);
        at = end;
    }
    Some(found)
}

/// The number in a whole reply `:123`.
#[must_use]
pub fn integer(bytes: &[u8]) -> Option<i64> {
    match (bytes.first(), number(bytes)) {
        (Some(b':'), Number::Is(value, _)) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLIES: [&[u8]; 8] = [
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":-12\r\n",
        b"$5\r\na\r\nbc\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*3\r\n*2\r\n$1\r\na\r\n:1\r\n$-1\r\n*1\r\n+x\r\n",
    ];

    #[test]
    fn replies_end_where_they_end_whatever_the_split() {
        for reply in REPLIES {
            for split in 0..reply.len() {
                let mut scan = Reply::default();
                let Scanned::Part(done) = scan.scan(&reply[..split]) else { panic!("{reply:?} at {split}") };
                assert_eq!(scan.scan(&reply[done..]), Scanned::Whole(reply.len() - done), "{reply:?} at {split}");
                assert_eq!(scan.scan(b"+\r\n"), Scanned::Whole(3), "ready for the next");
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_seen() {
        for bytes in [&b"x"[..], b"$-2\r\n", b"$x\r\n", b"*-2\r\n", b"*99999999999\r\n", b"+a\n", b":1\n"] {
            assert_eq!(Reply::default().scan(bytes), Scanned::Malformed, "{bytes:?}");
        }
    }

    #[test]
    fn elements_are_found_in_an_array() {
        let bytes = b"*3\r\n$1\r\na\r\n$-1\r\n*1\r\n:1\r\n";
        let found = elements(bytes).unwrap();
        assert_eq!(
            found.iter().map(|at| &bytes[at.clone()]).collect::<Vec<_>>(),
            [&b"$1\r\na\r\n"[..], b"$-1\r\n", b"*1\r\n:1\r\n"]
        );
        assert_eq!(element_end(bytes, bytes.len()), None);
        assert_eq!(element_end(b"*1\r\n$5\r\nab", 4), None, "it has no end");
        assert_eq!([array(b"-ERR\r\n"), array(b"*-1\r\n")], [None, None]);
        assert_eq!(integer(b":42\r\n"), Some(42));
        assert_eq!(integer(b"+OK\r\n"), None);
    }
}

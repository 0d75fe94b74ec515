//! A request: its end, and where its arguments are.

use std::ops::Range;

use super::{Number, Tail, number};

/// The most arguments of one request: Redis has no such bound, and the list of them takes memory beside the request.
pub const ARGUMENTS_MAX: usize = 1 << 22;
/// The longest argument, as Redis has it.
pub const ARGUMENT_SIZE_MAX: usize = 512 << 20;
/// The longest inline command, as Redis has it.
pub const INLINE_SIZE_MAX: usize = 64 << 10;
/// The longest request of all: one argument of the greatest size, and what stands around it.
pub const REQUEST_SIZE_MAX: usize = ARGUMENT_SIZE_MAX + (64 << 10);

/// Why bytes are no request. Says what Redis says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// `*` and no number, or too many.
    MultibulkLength,
    /// `$` and no number, or too much.
    BulkLength,
    /// Something else where `$` belongs.
    ExpectedDollar(u8),
    /// An argument does not end where it should.
    Unterminated,
    /// An inline command without an end.
    InlineTooLong,
    /// A quote without its fellow.
    UnbalancedQuotes,
    /// All arguments together are too long.
    TooLong,
}

impl Malformed {
    /// The error line, as Redis words it.
    #[must_use]
    pub fn line(self) -> Vec<u8> {
        let text = match self {
            Self::MultibulkLength => "invalid multibulk length",
            Self::BulkLength => "invalid bulk length",
            Self::ExpectedDollar(got) => {
                // Any byte but what would end the line.
                let got = if matches!(got, b'\r' | b'\n' | 0) { b' ' } else { got };
                return [b"-ERR Protocol error: expected '$', got '", &[got][..], b"'\r\n"].concat();
            }
            Self::Unterminated => "a bulk string does not end with CRLF",
            Self::InlineTooLong => "too big inline request",
            Self::UnbalancedQuotes => "unbalanced quotes in request",
            Self::TooLong => "too big request",
        };
        format!("-ERR Protocol error: {text}\r\n").into_bytes()
    }
}

/// What a look at the bytes came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scan {
    /// A whole request of so many bytes.
    Whole(usize),
    /// Nothing is asked for in these bytes: an empty line, an empty array.
    Blank(usize),
    /// A whole inline command of so many bytes: see [`super::request::inline`].
    Inline(usize),
    /// More bytes are needed: so many in all, as far as is known.
    More(usize),
    /// No request, and none can follow.
    Malformed(Malformed),
}

/// One request, as far as it was looked at.
#[derive(Debug, Default)]
pub struct Request {
    arguments: Vec<Range<u32>>,
    /// Arguments still to come; `None` before the header.
    left: Option<u32>,
    at: usize,
}

impl Request {
    /// Where the arguments are in the bytes that [`Request::scan`] saw, the command's name first.
    #[must_use]
    pub fn arguments(&self) -> &[Range<u32>] {
        &self.arguments
    }

    /// How many arguments it has memory for.
    #[must_use]
    pub fn arguments_room(&self) -> usize {
        self.arguments.capacity()
    }

    /// The places themselves, for another protocol's words.
    pub fn words(&mut self) -> &mut Vec<Range<u32>> {
        &mut self.arguments
    }

    /// The same, and up to where that protocol's line was looked at for good.
    pub fn line(&mut self) -> (&mut Vec<Range<u32>>, &mut usize) {
        (&mut self.arguments, &mut self.at)
    }

    /// Forgets all, before the next request.
    #[inline]
    pub fn clear(&mut self) {
        self.arguments.clear();
        self.left = None;
        self.at = 0;
    }

    /// Whether part of a request was looked at for good.
    #[inline]
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.left.is_some() || self.at > 0
    }

    /// How many arguments the header promises, once it was read.
    #[must_use]
    pub fn promised(&self) -> Option<usize> {
        self.left.map(|left| left as usize + self.arguments.len())
    }

    /// How many of the request's bytes were looked at for good.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// What is still to come behind [`Request::position`], once the header was read.
    #[must_use]
    pub fn tail(&self) -> Option<Tail> {
        self.left.map(Tail::new)
    }

    /// Looks at `bytes`, which begin with the request and hold at least what they held last time. Goes on where it
    /// stopped.
    #[inline]
    pub fn scan(&mut self, bytes: &[u8]) -> Scan {
        let mut left = match self.left {
            Some(left) => left,
            None => match bytes.first() {
                Some(b'*') => match number(bytes) {
                    Number::Is(count, len) if count <= 0 => return Scan::Blank(len),
                    Number::Is(count, len) => match u32::try_from(count) {
                        Ok(count) if count as usize <= ARGUMENTS_MAX => {
                            self.at = len;
                            count
                        }
                        _ => return Scan::Malformed(Malformed::MultibulkLength),
                    },
                    Number::More => return Scan::More(0),
                    Number::No => return Scan::Malformed(Malformed::MultibulkLength),
                },
                Some(_) => return inline_end(bytes),
                None => return Scan::More(0),
            },
        };
        while left > 0 {
            self.left = Some(left);
            let rest = bytes.get(self.at..).unwrap_or_default();
            match rest.first() {
                Some(b'$') => {}
                Some(&other) => return Scan::Malformed(Malformed::ExpectedDollar(other)),
                None => return Scan::More(0),
            }
            let (size, line) = match number(rest) {
                Number::Is(size, line) => (size, line),
                Number::More => return Scan::More(0),
                Number::No => return Scan::Malformed(Malformed::BulkLength),
            };
            let size = match usize::try_from(size) {
                Ok(size) if size <= ARGUMENT_SIZE_MAX => size,
                _ => return Scan::Malformed(Malformed::BulkLength),
            };
            let start = self.at + line;
            let end = start + size;
            if end + 2 > REQUEST_SIZE_MAX {
                return Scan::Malformed(Malformed::TooLong);
            }
            match bytes.get(end..end + 2) {
                Some(b"\r\n") => {}
                Some(_) => return Scan::Malformed(Malformed::Unterminated),
                None => return Scan::More(end + 2),
            }
            // Within REQUEST_SIZE_MAX, so they fit.
            let (Ok(from), Ok(to)) = (u32::try_from(start), u32::try_from(end)) else {
                return Scan::Malformed(Malformed::TooLong);
            };
            self.arguments.push(from..to);
            self.at = end + 2;
            left -= 1;
        }
        Scan::Whole(self.at)
    }
}

fn inline_end(bytes: &[u8]) -> Scan {
    match memchr::memchr(b'\n', &bytes[..bytes.len().min(INLINE_SIZE_MAX)]) {
        Some(end) if bytes[..end].iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) => Scan::Blank(end + 1),
        Some(end) => Scan::Inline(end + 1),
        None if bytes.len() >= INLINE_SIZE_MAX => Scan::Malformed(Malformed::InlineTooLong),
        None => Scan::More(0),
    }
}

/// The words of an inline command, by Redis's rules: blanks divide, quotes hold together.
///
/// # Errors
/// When a quote is not closed, or something follows one directly.
pub fn inline(line: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0);
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        if rest.first().is_none_or(blank) {
            return Ok(words);
        }
        let mut word = Vec::new();
        let mut quote = None;
        let mut at = 0;
        loop {
            match (quote, rest.get(at).copied()) {
                (None, byte) if byte.as_ref().is_none_or(blank) => break,
                (None, Some(byte @ (b'"' | b'\''))) => quote = Some(byte),
                (Some(b'"'), Some(b'\\')) => at += escaped(&rest[at..], &mut word),
                (Some(b'\''), Some(b'\\')) if rest.get(at + 1) == Some(&b'\'') => {
                    word.push(b'\'');
                    at += 1;
                }
                (Some(open), Some(byte)) if byte == open => {
                    // A closing quote ends the word.
                    if !rest.get(at + 1).is_none_or(blank) {
                        return Err(Malformed::UnbalancedQuotes);
                    }
                    at += 1;
                    quote = None;
                    break;
                }
                (Some(_), None) => return Err(Malformed::UnbalancedQuotes),
                (_, Some(byte)) => word.push(byte),
                (None, None) => break,
            }
            at += 1;
        }
        if quote.is_some() {
            return Err(Malformed::UnbalancedQuotes);
        }
        words.push(word);
        rest = rest.get(at..).unwrap_or_default();
    }
}

/// Takes what stands behind a backslash within double quotes, and says how many bytes more than one that were.
fn escaped(rest: &[u8], word: &mut Vec<u8>) -> usize {
    let hex = |at: usize| rest.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    if rest.get(1) == Some(&b'x')
        && let (Some(high), Some(low)) = (hex(2), hex(3))
    {
        word.extend(u8::try_from(high * 16 + low));
        return 3;
    }
    match rest.get(1) {
        Some(b'n') => word.push(b'\n'),
        Some(b'r') => word.push(b'\r'),
        Some(b't') => word.push(b'\t'),
        Some(b'b') => word.push(8),
        Some(b'a') => word.push(7),
        Some(&other) => word.push(other),
        None => return 0,
    }
    1
}

/// A request as an array of bulk strings.
#[must_use]
pub fn encode<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(request: &Request, bytes: &[u8]) -> Vec<Vec<u8>> {
        request.arguments().iter().map(|at| bytes[at.start as usize..at.end as usize].to_vec()).collect()
    }

    #[test]
    fn a_request_is_found_whole_whatever_the_split() {
        let bytes = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nx\r\nyz\r\n*1\r\n$4\r\nPING\r\n";
        for split in 0..31 {
            let mut request = Request::default();
            assert!(matches!(request.scan(&bytes[..split]), Scan::More(_)), "at {split}");
            assert_eq!(request.scan(bytes), Scan::Whole(31));
            assert_eq!(words(&request, bytes), [&b"SET"[..], b"a", b"x\r\nyz"]);
        }
    }

    #[test]
    fn what_is_no_request_gets_the_words_that_redis_uses() {
        let line = |bytes: &[u8]| match Request::default().scan(bytes) {
            Scan::Malformed(why) => String::from_utf8_lossy(&why.line()).into_owned(),
            other => format!("{other:?}"),
        };
        assert_eq!(line(b"*x\r\n"), "-ERR Protocol error: invalid multibulk length\r\n");
        assert_eq!(line(b"*4194305\r\n"), "-ERR Protocol error: invalid multibulk length\r\n");
        assert_eq!(line(b"*1\r\n:3\r\n"), "-ERR Protocol error: expected '$', got ':'\r\n");
        assert_eq!(line(b"*1\r\n$-1\r\n"), "-ERR Protocol error: invalid bulk length\r\n");
        assert_eq!(line(b"*1\r\n$536870913\r\n"), "-ERR Protocol error: invalid bulk length\r\n");
        assert_eq!(line(&[b'a'; INLINE_SIZE_MAX]), "-ERR Protocol error: too big inline request\r\n");
        assert!(matches!(Request::default().scan(&[b'a'; INLINE_SIZE_MAX - 1]), Scan::More(_)));
        assert!(matches!(Request::default().scan(b"*1\r\n$536870912\r\n"), Scan::More(536_870_930)));
    }

    #[test]
    fn nothing_asked_is_nothing_answered() {
        assert_eq!(Request::default().scan(b"\r\n*1"), Scan::Blank(2));
        assert_eq!(Request::default().scan(b"*0\r\n"), Scan::Blank(4));
        assert_eq!(Request::default().scan(b"*-1\r\n"), Scan::Blank(5));
        assert_eq!(Request::default().scan(b" \n"), Scan::Blank(2));
    }

    #[test]
    fn inline_words_are_quoted_as_in_redis() {
        let split = |line: &str| {
            inline(line.as_bytes()).map(|words| {
                words.into_iter().map(|word| String::from_utf8_lossy(&word).into_owned()).collect::<Vec<_>>()
            })
        };
        assert_eq!(split("set  a b\r\n").unwrap(), ["set", "a", "b"]);
        assert_eq!(split("set \"a b\" '\\'' \"\\x41\\n\" \"\"\n").unwrap(), ["set", "a b", "'", "A\n", ""]);
        assert_eq!(split("set \"a"), Err(Malformed::UnbalancedQuotes));
        assert_eq!(split("set 'a'b"), Err(Malformed::UnbalancedQuotes));
    }
}

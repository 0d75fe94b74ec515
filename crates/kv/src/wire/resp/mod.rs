//! RESP2, the protocol of Redis.
//!
//! - [`request`]: arrays of bulk strings, and inline commands.
//! - [`reply`]: where a reply ends, without looking at what it says.

pub mod reply;
pub mod request;
mod tail;

pub use reply::{Reply, Scanned};
pub use request::{Malformed, Request, Scan};
pub use tail::Tail;

/// The longest line with a number in it: `$536870912\r\n` and room to spare.
const NUMBER_LINE_MAX: usize = 32;

/// A header line: its first byte, a number, and its end.
pub(crate) struct Line {
    bytes: [u8; Self::MAX],
    begin: usize,
}

impl Line {
    /// The first byte, the digits of the greatest number, the end.
    const MAX: usize = 1 + 20 + 2;

    #[inline]
    pub(crate) fn of(kind: u8, mut value: usize) -> Self {
        let mut bytes = [0; Self::MAX];
        bytes[Self::MAX - 2..].copy_from_slice(b"\r\n");
        let mut begin = Self::MAX - 2;
        loop {
            begin -= 1;
            bytes[begin] = b'0' + u8::try_from(value % 10).unwrap_or(0);
            value /= 10;
            if value == 0 {
                break;
            }
        }
        begin -= 1;
        bytes[begin] = kind;
        Self { bytes, begin }
    }

    /// As it goes over the wire.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.begin..]
    }
}

/// What stands at the start of a header line `:123\r\n`, the first byte having been looked at already.
enum Number {
    /// The number, and the length of the whole line.
    Is(i64, usize),
    /// The line has not ended.
    More,
    /// It is no number, or too long for one.
    No,
}

/// Reads the number behind the first byte of `bytes`.
#[inline]
fn number(bytes: &[u8]) -> Number {
    // Nearly all have one digit or two: this is what a request costs most with.
    if let Some([_, tens, ones, end @ ..]) = bytes.first_chunk::<5>() {
        let (first, second) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
        if first <= 9 {
            if [*ones, end[0]] == *b"\r\n" {
                return Number::Is(i64::from(first), 4);
            }
            if first > 0 && second <= 9 && end == b"\r\n" {
                return Number::Is(i64::from(first) * 10 + i64::from(second), 5);
            }
        } else if [*tens, *ones, end[0], end[1]] == *b"-1\r\n" {
            // What is not there.
            return Number::Is(-1, 5);
        }
    }
    any_number(bytes)
}

/// As [`number`], of any length.
#[inline(never)]
fn any_number(bytes: &[u8]) -> Number {
    let mut at = 1;
    let negative = bytes.get(1) == Some(&b'-');
    if negative {
        at = 2;
    }
    let first = at;
    let mut value: i64 = 0;
    loop {
        match bytes.get(at) {
            Some(digit @ b'0'..=b'9') => {
                // Eighteen digits fit into 63 bits.
                if at - first >= 18 {
                    return Number::No;
                }
                value = value * 10 + i64::from(digit - b'0');
                at += 1;
            }
            Some(b'\r') if at > first => {
                // Redis takes a number in one way alone, and closes the connection at any other.
                if bytes[first] == b'0' && (negative || at > first + 1) {
                    return Number::No;
                }
                return match bytes.get(at + 1) {
                    Some(b'\n') => Number::Is(if negative { -value } else { value }, at + 2),
                    Some(_) => Number::No,
                    None => Number::More,
                };
            }
            Some(_) => return Number::No,
            None => return if at > NUMBER_LINE_MAX { Number::No } else { Number::More },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_is_written() {
        for value in [0, 7, 10, 99, 100, 12_345, 1 << 40, 999_999_999_999_999_999] {
            let line = Line::of(b'$', value);
            assert_eq!(line.bytes(), format!("${value}\r\n").as_bytes());
            assert!(matches!(number(line.bytes()), Number::Is(read, len)
                if usize::try_from(read) == Ok(value) && len == line.bytes().len()));
        }
        assert_eq!(Line::of(b'*', usize::MAX).bytes(), format!("*{}\r\n", usize::MAX).as_bytes());
    }

    #[test]
    fn a_number_is_written_in_one_way_alone() {
        let value = |bytes: &[u8]| match number(bytes) {
            Number::Is(value, len) if len == bytes.len() => Some(value),
            _ => None,
        };
        assert_eq!([value(b"*0\r\n"), value(b"*-1\r\n"), value(b"$10\r\n")], [Some(0), Some(-1), Some(10)]);
        for bytes in [&b"*00\r\n"[..], b"*01\r\n", b"$-0\r\n", b"$-01\r\n", b"*+1\r\n", b"*\r\n", b"$1 \r\n"] {
            assert!(matches!(number(bytes), Number::No), "{bytes:?}");
        }
        assert!(matches!(number(b"*0"), Number::More));
        for bytes in [&b"*1"[..], b"*1\r", b"$12", b"$12\r", b"$1\rx", b"$12\rx", b"$0\r\n", b"$90\r\nx", b"$07\r\n"] {
            let (quick, slow) = (number(bytes), any_number(bytes));
            let told = |number| match number {
                Number::Is(value, len) => Some((value, len)),
                Number::More => Some((-1, 0)),
                Number::No => None,
            };
            assert_eq!(told(quick), told(slow), "{bytes:?}");
        }
    }
}

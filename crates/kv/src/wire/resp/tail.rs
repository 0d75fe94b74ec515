//! The rest of a request whose beginning was looked at: only its end matters.

use super::request::ARGUMENT_SIZE_MAX;
use super::{NUMBER_LINE_MAX, Number, Scanned, number};

/// Arguments to come, and bytes to pass over.
#[derive(Clone, Debug)]
pub struct Tail {
    arguments: u32,
    skip: u64,
    /// The beginning of an argument's header.
    line: Vec<u8>,
}

impl Tail {
    /// So many arguments.
    pub(super) fn new(arguments: u32) -> Self {
        Self { arguments, skip: 0, line: Vec::new() }
    }

    /// Looks at the next bytes, all of them for good.
    pub fn scan(&mut self, bytes: &[u8]) -> Scanned {
        let mut at = 0;
        loop {
            let here = bytes.len() - at;
            let skip = usize::try_from(self.skip).unwrap_or(usize::MAX);
            if here < skip {
                self.skip -= here as u64;
                return Scanned::Part(bytes.len());
            }
            at += skip;
            self.skip = 0;
            if self.arguments == 0 {
                return Scanned::Whole(at);
            }
            let rest = &bytes[at..bytes.len().min(at + NUMBER_LINE_MAX)];
            let end = memchr::memchr(b'\n', rest);
            self.line.extend_from_slice(&rest[..end.map_or(rest.len(), |end| end + 1)]);
            let Some(end) = end else {
                if self.line.len() >= NUMBER_LINE_MAX {
                    return Scanned::Malformed;
                }
                return Scanned::Part(bytes.len());
            };
            at += end + 1;
            match (self.line.first(), number(&self.line)) {
                (Some(b'$'), Number::Is(size, _))
                    if usize::try_from(size).is_ok_and(|size| size <= ARGUMENT_SIZE_MAX) =>
                {
                    self.skip = u64::try_from(size).unwrap_or(0) + 2;
                    self.arguments -= 1;
                }
                _ => return Scanned::Malformed,
            }
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::resp::{Request, Scan};

    #[test]
    fn the_rest_of_a_request_ends_where_the_request_ends_whatever_the_splits() {
        let bytes = b"*4\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nx\r\nyz\r\n$2\r\nNX\r\n*1\r\n";
        let whole = bytes.len() - 4;
        for first in 4..whole {
            let mut request = Request::default();
            assert!(matches!(request.scan(&bytes[..first]), Scan::More(_)), "{first}");
            let from = request.position();
            for second in from..whole {
                let mut tail = request.tail().unwrap();
                assert_eq!(tail.scan(&bytes[from..second]), Scanned::Part(second - from), "{first} {second}");
                assert_eq!(tail.scan(&bytes[second..]), Scanned::Whole(whole - second), "{first} {second}");
            }
        }
    }

    #[test]
    fn what_is_no_argument_is_seen() {
        for bytes in [&b":1\r\n"[..], b"$-1\r\n", b"$x\r\n", b"$536870913\r\n", &[b'$'; 40]] {
            assert_eq!(Tail::new(1).scan(bytes), Scanned::Malformed, "{bytes:?}");
        }
    }
}

//! How much of a head has arrived: so that a head which comes byte by byte costs no more than one that comes whole.

use super::{EMPTY_LINES_MAX, HEAD_SIZE_MAX, METHOD_LEN_MAX, Reason};

/// What was seen of a head that is not complete. Zero for a new one.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Arrival {
    /// The bytes looked at when the tokenizer last ran, and those in which no end was found since.
    tokenized: usize,
    searched: usize,
}

impl Arrival {
    /// Is it worth to run the tokenizer over `head`? It is when the end may be there, and, to find faults early, each
    /// time the head has doubled: all runs together cost at most twice the last.
    #[inline]
    pub(super) fn is_worth_it(&mut self, head: &[u8]) -> bool {
        self.tokenized == 0 || self.has_end_or_doubled(head)
    }

    #[cold]
    fn has_end_or_doubled(&mut self, head: &[u8]) -> bool {
        let from = self.searched.saturating_sub(2).min(head.len());
        self.searched = head.len();
        head.len() >= self.tokenized.saturating_mul(2) || has_end(head, from)
    }

    /// The tokenizer wants more. An error when it has had as much as may be.
    #[cold]
    pub(super) fn partial(&mut self, head: &[u8], size_max: usize) -> Result<(), Reason> {
        self.tokenized = head.len().max(1);
        self.searched = head.len();
        if head.len() < size_max { Ok(()) } else { Err(too_large(head, size_max)) }
    }

    /// The tokenizer refused `head`. An error as soon as the fault has a name; while more bytes decide which, as for
    /// [`partial`](Self::partial). A head whose end is there is refused in any case.
    #[cold]
    pub(super) fn refused(&mut self, head: &[u8], size_max: usize, fault: Option<Reason>) -> Result<(), Reason> {
        match fault {
            Some(reason) => Err(reason),
            None if has_end(head, 0) => Err(Reason::Malformed),
            None => self.partial(head, size_max),
        }
    }
}

/// Is there an empty line at or behind `from`?
fn has_end(head: &[u8], from: usize) -> bool {
    memchr::memchr_iter(b'\n', &head[from..])
        .any(|at| matches!(head[from + at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

/// The configured size, or the largest there can be.
#[inline]
pub(super) fn size_max(configured: usize) -> usize {
    configured.min(HEAD_SIZE_MAX - 2 * EMPTY_LINES_MAX)
}

/// Which of the three kinds of "too large" this is.
#[cold]
pub(super) fn too_large(head: &[u8], size_max: usize) -> Reason {
    let start = &head[..size_max.min(head.len())];
    if memchr::memchr(b'\n', start).is_some() {
        Reason::HeadTooLarge
    } else if memchr::memchr(b' ', start).is_none_or(|at| at > METHOD_LEN_MAX) {
        Reason::MethodTooLong
    } else {
        Reason::LineTooLarge
    }
}

/// Length of the empty lines in front of a request; `None` when more bytes are needed to know.
#[inline]
pub(super) fn empty_lines(buf: &[u8]) -> Result<Option<usize>, Reason> {
    match buf.first() {
        Some(b'\r' | b'\n') => empty_lines_slow(buf),
        Some(_) => Ok(Some(0)),
        None => Ok(None),
    }
}

#[cold]
fn empty_lines_slow(buf: &[u8]) -> Result<Option<usize>, Reason> {
    let mut at = 0;
    loop {
        match buf[at..] {
            [b'\r', b'\n', ..] if at == 2 * EMPTY_LINES_MAX => return Err(Reason::TooManyEmptyLines),
            [b'\r', b'\n', ..] => at += 2,
            [] | [b'\r'] => return Ok(None),
            [b'\r', ..] => return Err(Reason::BareCr),
            [b'\n', ..] => return Err(Reason::BareLf),
            _ => return Ok(Some(at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_lines_in_front_are_passed_over_up_to_their_maximum() {
        assert_eq!(empty_lines(b"G"), Ok(Some(0)));
        assert_eq!(empty_lines(b""), Ok(None));
        assert_eq!(empty_lines(b"\r\n\r"), Ok(None));
        assert_eq!(empty_lines(b"\r\n\r\nG"), Ok(Some(4)));
        assert_eq!(empty_lines(b"\r\n\r\n\r\n\r\nG"), Ok(Some(8)));
        assert_eq!(empty_lines(b"\r\n\r\n\r\n\r\n\r\n"), Err(Reason::TooManyEmptyLines));
        assert_eq!(empty_lines(b"\nG"), Err(Reason::BareLf));
        assert_eq!(empty_lines(b"\rG"), Err(Reason::BareCr));
    }

    #[test]
    fn a_head_that_comes_byte_by_byte_is_tokenized_a_few_times_only() {
        let head = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ".as_slice(), &[b'x'; 4000], b"\r\n\r\n"].concat();
        let mut arrival = Arrival::default();
        let mut runs = 0;
        for end in 1..head.len() {
            if arrival.is_worth_it(&head[..end]) {
                runs += 1;
                arrival.partial(&head[..end], 8192).unwrap();
            }
        }
        assert!(arrival.is_worth_it(&head), "the end is found whatever came before");
        assert!(runs < 16, "{runs}");
    }
}

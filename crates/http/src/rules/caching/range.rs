//! Which part of a stored response a request wants (RFC 9110 §14).
//!
//! One range of bytes is honoured. Everything that this is not (several ranges, other units, what cannot be read) is
//! answered with the whole, as every server may (§14.2). Whether the range counts at all is said by
//! [`super::conditional::range_applies`].

use std::ops::Range;

use crate::rules::sink::{Decimal, HeadSink};
use crate::wire::field::Known;
use crate::wire::h1::RequestHead;

/// What is sent of a representation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// All of it: 200.
    Whole,
    /// These bytes, at least one: 206.
    Bytes(Range<u64>),
    /// The range begins behind its end: 416.
    Unsatisfiable,
}

/// The part of a representation of `length` bytes that a GET wants.
#[must_use]
pub fn wanted(request: &RequestHead, text: &[u8], length: u64) -> Part {
    if !request.present().has(Known::Range) {
        return Part::Whole;
    }
    let mut lines = request.find(Known::Range, text);
    match (lines.next(), lines.next()) {
        (Some(line), None) => part(line, length),
        _ => Part::Whole,
    }
}

fn part(line: &[u8], length: u64) -> Part {
    let Some((unit, set)) = split_at(line, b'=') else { return Part::Whole };
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return Part::Whole;
    }
    let Some((first, last)) = split_at(set.trim_ascii(), b'-') else { return Part::Whole };
    match (first, last) {
        (b"", suffix) => match number(suffix) {
            Some(0) => Part::Unsatisfiable,
            // Of nothing there is no last byte to name: the whole says the same.
            Some(_) if length == 0 => Part::Whole,
            Some(suffix) => Part::Bytes(length.saturating_sub(suffix)..length),
            None => Part::Whole,
        },
        (first, last) => {
            let Some(first) = number(first) else { return Part::Whole };
            let last = if last.is_empty() { Some(u64::MAX) } else { number(last) };
            match last {
                Some(last) if last < first => Part::Whole,
                Some(_) if first >= length => Part::Unsatisfiable,
                Some(last) => Part::Bytes(first..last.saturating_add(1).min(length)),
                None => Part::Whole,
            }
        }
    }
}

fn split_at(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = text.iter().position(|&byte| byte == at)?;
    Some((&text[..place], &text[place + 1..]))
}

/// Digits and nothing else; a number beyond all lengths is the largest.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    })
}

/// Writes the line that says which part of `length` bytes is sent; with none of them, that none could be.
pub fn put_content_range(sink: &mut impl HeadSink, part: Option<&Range<u64>>, length: u64) {
    sink.put(b"Content-Range: bytes ");
    match part {
        Some(part) => {
            sink.put(Decimal::new(part.start).as_bytes());
            sink.put(b"-");
            sink.put(Decimal::new(part.end.saturating_sub(1)).as_bytes());
        }
        None => sink.put(b"*"),
    }
    sink.put(b"/");
    sink.put(Decimal::new(length).as_bytes());
    sink.put(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::h1::{Limits, Status};
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { head_size: 8_192, head_fields: 100 };

    fn asked(lines: &str, length: u64) -> Part {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut head = RequestHead::default();
        assert_eq!(head.parse(text.as_bytes(), &LIMITS).unwrap(), Status::Complete);
        wanted(&head, text.as_bytes(), length)
    }

    #[test]
    fn one_range_of_bytes_is_a_part_and_all_else_is_the_whole() {
        use Part::{Bytes, Unsatisfiable, Whole};
        for (value, length, expected) in [
            ("bytes=0-0", 10, Bytes(0..1)),
            ("bytes=2-4", 10, Bytes(2..5)),
            ("bytes=2-", 10, Bytes(2..10)),
            ("bytes=9-", 10, Bytes(9..10)),
            ("bytes=0-9", 10, Bytes(0..10)),
            ("bytes=0-10", 10, Bytes(0..10)),
            ("bytes=5-99999999999999999999999999", 10, Bytes(5..10)),
            ("bytes=0-18446744073709551615", 10, Bytes(0..10)),
            ("BYTES=1-1", 10, Bytes(1..2)),
            ("bytes= 1-1", 10, Bytes(1..2)),
            ("bytes=-1", 10, Bytes(9..10)),
            ("bytes=-10", 10, Bytes(0..10)),
            ("bytes=-11", 10, Bytes(0..10)),
            ("bytes=-99999999999999999999999999", 10, Bytes(0..10)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-20", 10, Unsatisfiable),
            ("bytes=99999999999999999999999999-", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=0-0", 0, Unsatisfiable),
            ("bytes=-5", 0, Whole),
            // Backwards: not a range at all.
            ("bytes=4-2", 10, Whole),
            ("bytes=20-15", 10, Whole),
            ("bytes=0-1,3-4", 10, Whole),
            ("bytes=0-1, -1", 10, Whole),
            ("bytes=", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes", 10, Whole),
            ("bytes=1", 10, Whole),
            ("bytes=a-2", 10, Whole),
            ("bytes=1-b", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes=1--2", 10, Whole),
            ("bytes=1 - 2", 10, Whole),
            ("bytes =1-2", 10, Whole),
            ("lines=1-2", 10, Whole),
            ("", 10, Whole),
        ] {
            assert_eq!(asked(&format!("Range: {value}\r\n"), length), expected, "{value:?} of {length}");
        }
        assert_eq!(asked("", 10), Whole);
        assert_eq!(asked("Range: bytes=1-2\r\nRange: bytes=1-2\r\n", 10), Whole, "said twice");
    }

    #[test]
    fn what_is_sent_is_named_with_its_last_byte() {
        let said = |part: Option<&Range<u64>>, length| {
            let mut out = Vec::new();
            put_content_range(&mut out, part, length);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(said(Some(&(0..1)), 1), "Content-Range: bytes 0-0/1\r\n");
        assert_eq!(said(Some(&(5..10)), 2_048), "Content-Range: bytes 5-9/2048\r\n");
        assert_eq!(said(None, 10), "Content-Range: bytes */10\r\n");
    }

    proptest! {
        #[test]
        fn a_part_lies_within_and_is_never_empty(value in "(bytes=)?[0-9]{0,21}-?[0-9]{0,21}.{0,3}", length in 0_u64..100) {
            if let Part::Bytes(part) = part(value.as_bytes(), length) {
                prop_assert!(part.start < part.end && part.end <= length, "{part:?} of {length}");
            }
        }
    }
}

//! Names the first fault of a head that was refused. Slow and plain, and never reached by a lawful head.
//!
//! The tokenizer sometimes refuses before the whole mistake is there (`HTTP/2` could become `HTTP/2.0` or nonsense). Then
//! the answer is `None`: more bytes decide, so that a fault has the same name however it comes.

use super::super::list;
use super::{METHOD_LEN_MAX, Reason};

/// The first fault of a request head, reading from its method on.
#[cold]
pub(super) fn request(head: &[u8]) -> Option<Reason> {
    let method_len = head.iter().take_while(|&&b| list::is_token_byte(b)).count();
    if method_len > METHOD_LEN_MAX {
        return Some(Reason::MethodTooLong);
    }
    let rest = match head[method_len..] {
        [] => return None,
        [b' ', ref rest @ ..] if method_len > 0 => rest,
        [b'\r' | b'\n', ..] => return Some(Reason::BadRequestLine),
        _ => return Some(Reason::BadMethod),
    };
    let target_len = rest.iter().take_while(|&&b| b > b' ' && b < 0x7f).count();
    let rest = match rest[target_len..] {
        [] | [b'\r'] => return None,
        [b' ', ref rest @ ..] if target_len > 0 => rest,
        [b' ' | b'\t', ..] => return Some(Reason::BadRequestLine),
        [b'\r', b'\n', ..] | [b'\n', ..] => return Some(Reason::NoVersion),
        [b'\r', ..] => return Some(Reason::BareCr),
        _ => return Some(Reason::BadTarget),
    };
    let version_len = rest.iter().take_while(|&&b| b > b' ' && b < 0x7f).count();
    let (version, end) = rest.split_at(version_len);
    let is_version = matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit());
    Some(match (end, version) {
        ([] | [b'\r'], _) => return None,
        ([b' ' | b'\t', ..], []) => Reason::BadRequestLine,
        // One word too many: the line has a tail, or the target a blank.
        ([b' ' | b'\t', ..], _) if is_version => Reason::BadRequestLine,
        ([b' ' | b'\t', ..], _) => Reason::SpaceInTarget,
        ([b'\r', other, ..], _) if *other != b'\n' => Reason::BareCr,
        ([b'\r' | b'\n', ..], []) => Reason::NoVersion,
        _ if !is_version => Reason::BadVersion,
        _ if version != b"HTTP/1.0" && version != b"HTTP/1.1" => Reason::UnknownVersion,
        ([b'\r', b'\n', fields @ ..], _) => return self::fields(fields),
        ([b'\n', ..], _) => Reason::BareLf,
        _ => Reason::BadVersion,
    })
}

/// The first fault of a response head.
#[cold]
pub(super) fn response(head: &[u8]) -> Option<Reason> {
    let line_len = memchr::memchr2(b'\r', b'\n', head).unwrap_or(head.len());
    let (line, end) = head.split_at(line_len);
    if line.iter().any(|&b| b != b'\t' && (b < b' ' || b == 0x7f)) {
        return Some(Reason::BadStatusLine);
    }
    let lawful = match line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', b' ', rest @ ..] => match rest {
            [a, b, c, tail @ ..] => [a, b, c].iter().all(|d| d.is_ascii_digit()) && matches!(tail, [] | [b' ', ..]),
            _ => false,
        },
        [b'H', b'T', b'T', b'P', b'/', a, b'.', b, b' ', ..] if a.is_ascii_digit() && b.is_ascii_digit() => {
            return Some(Reason::UnknownVersion);
        }
        _ => false,
    };
    match end {
        [] | [b'\r'] => None,
        _ if !lawful => Some(Reason::BadStatusLine),
        [b'\r', b'\n', fields @ ..] => self::fields(fields),
        [b'\n', ..] => Some(Reason::BareLf),
        _ => Some(Reason::BareCr),
    }
}

/// The first fault of field lines, from the first of them on; the empty line ends them.
#[cold]
pub(crate) fn fields(mut lines: &[u8]) -> Option<Reason> {
    loop {
        let name_len = lines.iter().take_while(|&&b| list::is_token_byte(b)).count();
        let rest = match lines[name_len..] {
            [] | [b'\r'] => return None,
            [b' ' | b'\t', ..] if name_len == 0 => return Some(Reason::ObsFold),
            [b'\n', ..] if name_len == 0 => return Some(Reason::BareLf),
            [b'\r', b'\n', ..] if name_len == 0 => return None,
            [b'\r', b'\n', ..] | [b'\n', ..] => return Some(Reason::NoColon),
            [b'\r', ..] => return Some(Reason::BareCr),
            [b' ' | b'\t', ref rest @ ..] => {
                let after = rest.iter().find(|&&b| b != b' ' && b != b'\t')?;
                return Some(if *after == b':' { Reason::SpaceBeforeColon } else { Reason::BadFieldName });
            }
            [b':', ref rest @ ..] if name_len > 0 => rest,
            _ => return Some(Reason::BadFieldName),
        };
        let value_len = rest.iter().take_while(|&&b| b == b'\t' || (b >= b' ' && b != 0x7f)).count();
        lines = match rest[value_len..] {
            [] | [b'\r'] => return None,
            [b'\r', b'\n', ref rest @ ..] => rest,
            [b'\n', ..] => return Some(Reason::BareLf),
            [b'\r', ..] => return Some(Reason::BareCr),
            _ => return Some(Reason::BadFieldValue),
        };
    }
}

//! Names the first fault of a head that was refused. Slow and plain, and never reached by a lawful head.

use super::super::list;
use super::{METHOD_LEN_MAX, Reason};

/// The first fault of a request head, reading from its method on.
#[cold]
pub(super) fn request(head: &[u8]) -> Reason {
    let method_len = head.iter().take_while(|&&b| list::is_token_byte(b)).count();
    if method_len > METHOD_LEN_MAX {
        return Reason::MethodTooLong;
    }
    let rest = match head[method_len..] {
        [b' ', ..] if method_len > 0 => &head[method_len + 1..],
        [b'\r' | b'\n', ..] => return Reason::BadRequestLine,
        _ => return Reason::BadMethod,
    };
    let target_len = rest.iter().take_while(|&&b| b > b' ' && b != 0x7f).count();
    let rest = match rest[target_len..] {
        [b' ', ..] if target_len > 0 => &rest[target_len + 1..],
        [b' ' | b'\t', ..] => return Reason::BadRequestLine,
        [b'\r', b'\n', ..] | [b'\n', ..] => return Reason::NoVersion,
        [b'\r', _, ..] => return Reason::BareCr,
        _ => return Reason::BadTarget,
    };
    let version_len = rest.iter().take_while(|&&b| b > b' ' && b < 0x7f).count();
    let (version, end) = rest.split_at(version_len);
    let is_version = matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit());
    match (end, version) {
        ([b' ' | b'\t', ..], []) => Reason::BadRequestLine,
        // More words: the last of them is the version, and the target has a space in it; or the line has a tail.
        ([b' ' | b'\t', ..], _) if is_version => Reason::BadRequestLine,
        ([b' ' | b'\t', ..], _) => Reason::SpaceInTarget,
        ([b'\r' | b'\n', ..], []) => Reason::NoVersion,
        ([b'\r', other, ..], _) if *other != b'\n' => Reason::BareCr,
        _ if !is_version => Reason::BadVersion,
        _ if version != b"HTTP/1.0" && version != b"HTTP/1.1" => Reason::UnknownVersion,
        ([b'\r', b'\n', fields @ ..], _) => self::fields(fields),
        ([b'\n', ..], _) => Reason::BareLf,
        _ => Reason::BadVersion,
    }
}

/// The first fault of a response head.
#[cold]
pub(super) fn response(head: &[u8]) -> Reason {
    let line_len = memchr::memchr2(b'\r', b'\n', head).unwrap_or(head.len());
    let (line, end) = head.split_at(line_len);
    let lawful = match line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', b' ', rest @ ..] => match rest {
            [a, b, c, tail @ ..] => [a, b, c].iter().all(|d| d.is_ascii_digit()) && matches!(tail, [] | [b' ', ..]),
            _ => false,
        },
        [b'H', b'T', b'T', b'P', b'/', a, b'.', b, ..] if a.is_ascii_digit() && b.is_ascii_digit() => {
            return Reason::UnknownVersion;
        }
        _ => false,
    };
    if !lawful || line.iter().any(|&b| b != b'\t' && (b < b' ' || b == 0x7f)) {
        return Reason::BadStatusLine;
    }
    match end {
        [b'\r', b'\n', fields @ ..] => self::fields(fields),
        [b'\n', ..] => Reason::BareLf,
        _ => Reason::BareCr,
    }
}

/// The first fault of field lines, from the first of them on; the empty line ends them.
pub(crate) fn fields(mut lines: &[u8]) -> Reason {
    loop {
        let name_len = lines.iter().take_while(|&&b| list::is_token_byte(b)).count();
        let rest = match lines[name_len..] {
            [b' ' | b'\t', ..] if name_len == 0 => return Reason::ObsFold,
            [b'\n', ..] if name_len == 0 => return Reason::BareLf,
            [b'\r', b'\n', ..] if name_len == 0 => return Reason::Malformed,
            [b'\r', b'\n', ..] | [b'\n', ..] => return Reason::NoColon,
            [b'\r', _, ..] => return Reason::BareCr,
            [b' ' | b'\t', ref rest @ ..] => {
                let after = rest.trim_ascii_start();
                return if after.first() == Some(&b':') { Reason::SpaceBeforeColon } else { Reason::BadFieldName };
            }
            [b':', ..] if name_len > 0 => &lines[name_len + 1..],
            _ => return Reason::BadFieldName,
        };
        let value_len = rest.iter().take_while(|&&b| b == b'\t' || (b >= b' ' && b != 0x7f)).count();
        lines = match rest[value_len..] {
            [b'\r', b'\n', ..] => &rest[value_len + 2..],
            [b'\n', ..] => return Reason::BareLf,
            [b'\r', ..] => return Reason::BareCr,
            _ => return Reason::BadFieldValue,
        };
    }
}

//! Paths that mean something else than they say.
//!
//! By RFC 3986 `/a/../b`, `/./b` and `/%62` all mean `/b` (§5.2.4 and §6.2.2), and origins act on that. Rules compare
//! bytes. So that no spelling gets around a rule, a path that is not plain is judged twice: as it is written and as it
//! is meant, and both must come to the same rule; and from the rule's prefix on it may at no point climb above it.
//!
//! `%2F`, `\` and `%5C` stay what they are when a path is normalised, for they are not the same as `/`. But some origins
//! take them for it, so climbing counts them as separators.

/// Is this path spelled the only way it can be, as far as rules go? Nearly all are; this is the only function here that
/// they meet.
#[inline]
pub(super) fn is_plain(path: &[u8]) -> bool {
    memchr::memchr2_iter(b'.', b'%', path).all(|at| {
        if path[at] == b'.' {
            at == 0 || !matches!(path[at - 1], b'/' | b'\\') || !starts_dot_segment(&path[at..])
        } else {
            !escaped(&path[at..]).is_some_and(|b| is_unreserved(b) || matches!(b, b'/' | b'\\'))
        }
    })
}

/// Is the segment that starts here `.` or `..`?
fn starts_dot_segment(rest: &[u8]) -> bool {
    match rest {
        [b'.', b'.', after @ ..] | [b'.', after @ ..] => matches!(after, [] | [b'/' | b'\\' | b'%', ..]),
        _ => false,
    }
}

/// The path it means: escapes of unreserved characters undone, dot segments resolved.
pub(super) fn normalised(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        match escaped(&path[at..]).filter(|&b| is_unreserved(b)) {
            Some(b) => {
                plain.push(b);
                at += 3;
            }
            None => {
                plain.push(path[at]);
                at += 1;
            }
        }
    }
    let mut out = Vec::with_capacity(plain.len());
    let mut segments = plain.strip_prefix(b"/").unwrap_or(&plain).split(|&b| b == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." | b".." => {
                if segment.len() == 2 {
                    out.truncate(out.iter().rposition(|&b| b == b'/').unwrap_or(0));
                }
                if last {
                    out.push(b'/');
                }
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    out
}

/// Does this path, read segment by segment, at any point stand above where it started?
pub(super) fn climbs_out(path: &[u8]) -> bool {
    let mut depth = 0_usize;
    let mut segment = Segment::default();
    let mut at = 0;
    loop {
        let (byte, len) = match path.get(at) {
            None => (None, 0),
            Some(&b) => match escaped(&path[at..]) {
                Some(b) => (Some(b), 3),
                None => (Some(b), 1),
            },
        };
        match byte {
            Some(b'/' | b'\\') | None => {
                match (segment.dots, segment.others) {
                    (0, false) | (1, false) => {}
                    (2, false) => match depth.checked_sub(1) {
                        Some(above) => depth = above,
                        None => return true,
                    },
                    _ => depth += 1,
                }
                segment = Segment::default();
            }
            Some(b'.') => segment.dots = segment.dots.saturating_add(1),
            Some(_) => segment.others = true,
        }
        if byte.is_none() {
            return false;
        }
        at += len;
    }
}

#[derive(Default)]
struct Segment {
    dots: u8,
    others: bool,
}

/// The byte that an escape at the start of `rest` stands for.
fn escaped(rest: &[u8]) -> Option<u8> {
    let hex = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    match *rest {
        [b'%', high, low, ..] => Some(hex(high)? << 4 | hex(low)?),
        _ => None,
    }
}

const fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_paths_are_plain() {
        for path in [
            "/",
            "/index.html",
            "/a/b.c/d..e",
            "/a/...",
            "/.well-known/x",
            "/a%20b",
            "/%C3%BC",
            "/100%",
            "/%zz",
            "/..a",
        ] {
            assert!(is_plain(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn other_spellings_are_not() {
        for path in [
            "/.",
            "/..",
            "/a/./b",
            "/a/../b",
            "/%2e%2e/b",
            "/.%2e/b",
            "/%61",
            "/a%2Fb",
            "/a/..%2fb",
            "/a\\..\\b",
            "/%5c",
        ] {
            assert!(!is_plain(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn normalising_follows_rfc_3986() {
        for (path, meant) in [
            ("/a/b/c/./../../g", "/a/g"),
            ("/../x", "/x"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/%7Ea", "/~a"),
            ("/a//../b", "/a/b"),
            ("/%2e%2E/x", "/x"),
            ("/a%2f..", "/a%2f.."),
            ("/", "/"),
            ("/a/", "/a/"),
            ("/..", "/"),
        ] {
            assert_eq!(String::from_utf8(normalised(path.as_bytes())).unwrap(), meant, "{path}");
        }
    }

    #[test]
    fn climbing_is_seen_whatever_the_separator() {
        for path in ["/..", "/a/../..", "/a/../../a", "/..%2fx", "/a%2f..%2f..", "\\..\\x", "/%2e%2e/x", "/a/%5c../.."]
        {
            assert!(climbs_out(path.as_bytes()), "{path}");
        }
        for path in ["", "/", "/a/..", "/a/../b", "/...", "/a/b/../..", "/.", "/..a"] {
            assert!(!climbs_out(path.as_bytes()), "{path}");
        }
    }
}

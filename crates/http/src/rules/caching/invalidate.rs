//! What an unsafe request makes obsolete (RFC 9111 §4.4).
//!
//! When a request that may have changed something was answered without an error, what is stored for its URL is not
//! served again without validation; nor is what is stored for the URLs that `Location` and `Content-Location` name, if
//! they are of the same origin: others could otherwise empty each other's caches.

use super::key;
use crate::wire::field::Known;
use crate::wire::h1::{ResponseHead, Scheme, is_authority};
use crate::wire::method::Method;

/// Does an answer of this status to this method make anything obsolete? Methods of unknown safety count as unsafe.
#[inline]
#[must_use]
pub const fn invalidates(method: Method, status: u16) -> bool {
    !method.is_safe() && !matches!(method, Method::Connect | Method::Purge) && status >= 200 && status < 400
}

/// Calls `each` with every key that is obsolete: the target's own first. `scratch` is overwritten.
pub fn targets(
    target: &[u8],
    response: &ResponseHead,
    text: &[u8],
    scratch: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]),
) {
    each(target);
    for known in [Known::Location, Known::ContentLocation] {
        let mut lines = response.find(known, text);
        // Of a field that may come once, two say nothing.
        let (Some(reference), None) = (lines.next(), lines.next()) else { continue };
        if resolve(scratch, target, reference).is_some() && scratch != target {
            each(scratch);
        }
    }
}

/// Writes the key that `reference` (RFC 3986 §4.1) means in a message about `target`, itself a key. `None` when it is of
/// another origin, another scheme, or no reference.
fn resolve(out: &mut Vec<u8>, target: &[u8], reference: &[u8]) -> Option<()> {
    let reference = reference.split(|&b| b == b'#').next().unwrap_or_default();
    if !reference.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let (origin, base) = key::split(target)?;
    let base_path = base.split(|&b| b == b'?').next().unwrap_or_default();
    let scheme = if origin.starts_with(b"https:") { Scheme::Https } else { Scheme::Http };
    let (directory, path) = match absolute(reference, scheme) {
        Some((scheme, rest)) => {
            let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            if !is_authority(authority) {
                return None;
            }
            key::write_key(out, scheme, authority, b"").ok()?;
            if out.strip_suffix(b"/") != Some(origin) {
                return None;
            }
            (b"".as_slice(), path)
        }
        None if has_scheme(reference) => return None,
        None => match reference {
            [] => (base, reference),
            [b'/', ..] => (b"".as_slice(), reference),
            [b'?', ..] => (base_path, reference),
            _ => (&base_path[..memchr::memrchr(b'/', base_path).map_or(0, |at| at + 1)], reference),
        },
    };
    if origin.len() + directory.len() + path.len() > key::KEY_LEN_MAX {
        return None;
    }
    out.clear();
    out.extend_from_slice(origin);
    let (path, query) = path.split_at(memchr::memchr(b'?', path).unwrap_or(path.len()));
    // The base's own segments are as its client sent them; only what is new is taken for what it means.
    let root = out.len();
    out.extend_from_slice(directory.strip_suffix(b"/").unwrap_or(directory));
    if !path.is_empty() {
        append_path(out, root, path);
    } else if directory.is_empty() || directory.ends_with(b"/") {
        out.push(b'/');
    }
    out.extend_from_slice(query);
    Some(())
}

/// Appends the segments of `path`, without `.` and `..` (RFC 3986 §5.2.4); never climbs above `root`.
fn append_path(out: &mut Vec<u8>, root: usize, path: &[u8]) {
    let mut segments = path.strip_prefix(b"/").unwrap_or(path).split(|&b| b == b'/').peekable();
    while let Some(segment) = segments.next() {
        if segment == b".." {
            let parent = memchr::memrchr(b'/', &out[root..]).unwrap_or(0);
            out.truncate(root + parent);
        } else if segment != b"." {
            out.push(b'/');
            out.extend_from_slice(segment);
            continue;
        }
        if segments.peek().is_none() {
            out.push(b'/');
        }
    }
}

/// Scheme, and what follows `//`.
fn absolute(reference: &[u8], base: Scheme) -> Option<(Scheme, &[u8])> {
    let behind = |prefix: &[u8]| {
        let (start, rest) = reference.split_at_checked(prefix.len())?;
        start.eq_ignore_ascii_case(prefix).then_some(rest)
    };
    behind(b"//")
        .map(|rest| (base, rest))
        .or_else(|| Some((Scheme::Http, behind(b"http://")?)))
        .or_else(|| Some((Scheme::Https, behind(b"https://")?)))
}

/// A colon before any slash or question mark.
fn has_scheme(reference: &[u8]) -> bool {
    reference.iter().find(|b| matches!(b, b':' | b'/' | b'?')) == Some(&b':')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rules::caching::tests::response;

    #[test]
    fn unsafe_methods_that_succeed_make_things_obsolete() {
        for (method, safe) in [
            (Method::Get, true),
            (Method::Head, true),
            (Method::Options, true),
            (Method::Trace, true),
            (Method::Connect, true),
            (Method::Purge, true),
            (Method::Post, false),
            (Method::Put, false),
            (Method::Delete, false),
            (Method::Patch, false),
            (Method::Other, false),
        ] {
            for (status, error) in
                [(100, true), (200, false), (204, false), (303, false), (399, false), (400, true), (500, true)]
            {
                assert_eq!(invalidates(method, status), !safe && !error, "{method:?} {status}");
            }
        }
    }

    fn resolved(target: &str, reference: &str) -> Option<String> {
        let mut out = Vec::new();
        resolve(&mut out, target.as_bytes(), reference.as_bytes()).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn references_are_resolved_within_the_origin_and_not_beyond() {
        let target = "http://a.example/b/c/d?q=1";
        for (reference, expected) in [
            ("http://a.example/x", Some("http://a.example/x")),
            ("HTTP://A.EXAMPLE:80/x?y#z", Some("http://a.example/x?y")),
            ("http://a.example", Some("http://a.example/")),
            ("http://a.example?q", Some("http://a.example/?q")),
            ("//a.example/x", Some("http://a.example/x")),
            ("/x/y?z", Some("http://a.example/x/y?z")),
            ("x", Some("http://a.example/b/c/x")),
            ("./x", Some("http://a.example/b/c/x")),
            ("x/", Some("http://a.example/b/c/x/")),
            ("../x", Some("http://a.example/b/x")),
            ("../../../../x", Some("http://a.example/x")),
            ("..", Some("http://a.example/b/")),
            (".", Some("http://a.example/b/c/")),
            ("/x/./y/../z", Some("http://a.example/x/z")),
            ("x//y", Some("http://a.example/b/c/x//y")),
            ("?r", Some("http://a.example/b/c/d?r")),
            ("#top", Some("http://a.example/b/c/d?q=1")),
            ("", Some("http://a.example/b/c/d?q=1")),
            ("x?a=/../b", Some("http://a.example/b/c/x?a=/../b")),
            ("x:y", None),
            ("./x:y", Some("http://a.example/b/c/x:y")),
            ("https://a.example/x", None),
            ("http://a.example:8080/x", None),
            ("http://b.example/x", None),
            ("http://a.example.evil/x", None),
            ("http://user@a.example/x", None),
            ("//b.example/x", None),
            ("mailto:a@b", None),
            ("a b", None),
            ("\u{fc}", None),
        ] {
            assert_eq!(resolved(target, reference).as_deref(), expected, "{reference}");
        }
        assert_eq!(resolved("http://a/", "x").as_deref(), Some("http://a/x"));
        assert_eq!(resolved("https://a:8443/", "https://A:8443/y").as_deref(), Some("https://a:8443/y"));
        assert_eq!(resolved("no key", "x"), None);
    }

    #[test]
    fn the_target_and_what_the_answer_names_are_obsolete() {
        let (head, text) = response(201, "Location: /made\r\nContent-Location: http://b.example/x\r\n");
        let mut found = Vec::new();
        targets(b"http://a.example/list", &head, &text, &mut Vec::new(), |key| {
            found.push(String::from_utf8(key.to_vec()).unwrap());
        });
        assert_eq!(found, ["http://a.example/list", "http://a.example/made"]);
        let (head, text) = response(200, "Location: /a\r\nLocation: /b\r\nContent-Location: /list\r\n");
        let mut count = 0;
        targets(b"http://a.example/list", &head, &text, &mut Vec::new(), |_| count += 1);
        assert_eq!(count, 1);
    }

    proptest! {
        #[test]
        fn whatever_is_resolved_is_a_key_of_the_same_origin(
            path in "[a/.?]{0,12}", reference in "(http://|//|/|)?[abc:./?#@%]{0,20}",
        ) {
            let target = format!("http://a/{path}");
            if let Some(found) = resolved(&target, &reference) {
                prop_assert!(found.starts_with("http://a/"), "{} {} {}", target, reference, found);
            }
        }
    }
}

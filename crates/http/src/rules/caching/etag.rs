//! Entity tags and how they are compared (RFC 9110 §8.8.3).

/// One entity tag, with its quotes, and with `W/` if it is weak. What is not in the grammar (a tag without quotes) equals
/// itself weakly, and nothing strongly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Etag<'a>(&'a [u8]);

impl<'a> Etag<'a> {
    /// The tag in a field value that holds one.
    #[inline]
    #[must_use]
    pub const fn new(value: &'a [u8]) -> Self {
        Self(value)
    }

    /// Marked as weak.
    #[must_use]
    pub fn is_weak(self) -> bool {
        self.0.starts_with(b"W/")
    }

    /// In the grammar: quoted, without quotes inside.
    #[must_use]
    pub fn is_lawful(self) -> bool {
        matches!(self.opaque(), [b'"', inner @ .., b'"'] if memchr::memchr(b'"', inner).is_none())
    }

    /// Weak comparison: marks of weakness do not count.
    #[inline]
    #[must_use]
    pub fn matches_weakly(self, other: Etag<'_>) -> bool {
        self.opaque() == other.opaque()
    }

    /// Strong comparison: neither is weak, both are lawful.
    #[must_use]
    pub fn matches_strongly(self, other: Etag<'_>) -> bool {
        self.0 == other.0 && !self.is_weak() && self.is_lawful()
    }

    #[inline]
    fn opaque(self) -> &'a [u8] {
        self.0.strip_prefix(b"W/").unwrap_or(self.0)
    }
}

/// The tags of one `If-None-Match` line. `*` comes out as a tag of its own: see [`is_any`].
pub fn list(value: &[u8]) -> impl Iterator<Item = Etag<'_>> {
    Tags { rest: value }
}

/// Is this value the `*` that stands for every tag?
#[must_use]
pub fn is_any(value: &[u8]) -> bool {
    value == b"*"
}

struct Tags<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tags<'a> {
    type Item = Etag<'a>;

    fn next(&mut self) -> Option<Etag<'a>> {
        while let [b',' | b' ' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        // A tag may hold commas, but no quotes; so the second quote ends it.
        let start = if self.rest.starts_with(b"W/") { 2 } else { 0 };
        let quoted_end = match &self.rest[start..] {
            [b'"', inner @ ..] => memchr::memchr(b'"', inner).map(|at| start + at + 2),
            _ => None,
        };
        let from = quoted_end.unwrap_or(0);
        let end = from + memchr::memchr(b',', &self.rest[from..]).unwrap_or(self.rest.len() - from);
        let tag = self.rest[..end].trim_ascii_end();
        self.rest = &self.rest[end..];
        Some(Etag(tag))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_of_the_standard() {
        // RFC 9110 §8.8.3.2
        for (a, b, strong, weak) in [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
            ("\"1\"", "1", false, false),
            ("1", "1", false, true),
            ("\"1\"", "w/\"1\"", false, false),
            ("\"a\"b\"", "\"a\"b\"", false, true),
        ] {
            let (a, b) = (Etag::new(a.as_bytes()), Etag::new(b.as_bytes()));
            assert_eq!((a.matches_strongly(b), a.matches_weakly(b)), (strong, weak), "{a:?} {b:?}");
            assert_eq!((b.matches_strongly(a), b.matches_weakly(a)), (strong, weak), "{a:?} {b:?}");
        }
    }

    #[test]
    fn tags_come_out_of_lists_with_their_commas() {
        for (value, expected) in [
            ("", &[][..]),
            ("\"a\"", &["\"a\""]),
            (" , \"a\" ,, W/\"b\",c", &["\"a\"", "W/\"b\"", "c"]),
            ("\"a,b\", \"c\"", &["\"a,b\"", "\"c\""]),
            ("W/\"a,b\",\"\"", &["W/\"a,b\"", "\"\""]),
            ("\"a", &["\"a"]),
            ("\"a, b", &["\"a", "b"]),
            ("\"a\" x, b", &["\"a\" x", "b"]),
            ("*", &["*"]),
            ("W/", &["W/"]),
        ] {
            let found: Vec<_> = list(value.as_bytes()).map(|tag| String::from_utf8_lossy(tag.0).into_owned()).collect();
            assert_eq!(found, expected, "{value}");
        }
        assert!(is_any(b"*") && !is_any(b"\"*\""));
    }

    proptest! {
        #[test]
        fn no_list_panics_or_repeats_itself(value in prop::collection::vec(prop::sample::select(b"W/\"*a, \t".to_vec()), 0..50)) {
            let bytes: usize = list(&value).map(|tag| tag.0.len()).sum();
            prop_assert!(bytes <= value.len());
        }
    }
}

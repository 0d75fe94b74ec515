//! The part of a key that is hashed, so that related keys can be kept on one server.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// twemproxy's `hash_tag:`, two characters that may be equal: `{}`, `$$`.
///
/// Of a key that has the first, then later the second, and something between them, only that something is hashed.
/// Redis Cluster's rule is the same with `{}`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HashTag {
    open: u8,
    close: u8,
}

impl HashTag {
    /// Redis Cluster's `{}`.
    pub const BRACES: Self = Self { open: b'{', close: b'}' };

    /// A tag between two bytes.
    #[must_use]
    pub const fn new(open: u8, close: u8) -> Self {
        Self { open, close }
    }

    /// Where in `key` the bytes to be hashed are: between the tag, or all of it.
    #[must_use]
    pub fn span(self, key: &[u8]) -> Range<usize> {
        self.between(key).unwrap_or(0..key.len())
    }

    fn between(self, key: &[u8]) -> Option<Range<usize>> {
        let begin = key.iter().position(|&byte| byte == self.open)? + 1;
        let end = begin + key[begin..].iter().position(|&byte| byte == self.close)?;
        (begin < end).then_some(begin..end)
    }
}

impl fmt::Display for HashTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", char::from(self.open), char::from(self.close))
    }
}

impl FromStr for HashTag {
    type Err = TagLength;

    fn from_str(text: &str) -> Result<Self, TagLength> {
        match *text.as_bytes() {
            [open, close] => Ok(Self { open, close }),
            _ => Err(TagLength(text.len())),
        }
    }
}

/// A hash tag that is not two bytes long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TagLength(usize);

impl fmt::Display for TagLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a hash tag is two bytes, as in \"{{}}\"; this one has {}", self.0)
    }
}

impl std::error::Error for TagLength {}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(tag: &str, key: &'static str) -> &'static str {
        &key[tag.parse::<HashTag>().unwrap().span(key.as_bytes())]
    }

    #[test]
    fn only_what_stands_between_the_tag_is_hashed() {
        assert_eq!(hashed("{}", "user:{42}:name"), "42");
        assert_eq!(hashed("{}", "}a{b}c{d}"), "b");
        assert_eq!(hashed("$$", "a$b$c"), "b");
        assert_eq!(hashed("{}", "{{a}}"), "{a");
    }

    #[test]
    fn a_tag_that_is_empty_or_open_hides_nothing() {
        for key in ["", "plain", "{}a{b}", "{a", "a}", "}a{"] {
            assert_eq!(hashed("{}", key), key);
        }
        assert_eq!(hashed("$$", "a$$b$c"), "a$$b$c");
    }

    #[test]
    fn a_tag_is_two_bytes() {
        assert_eq!("{".parse::<HashTag>(), Err(TagLength(1)));
        assert_eq!("{}}".parse::<HashTag>(), Err(TagLength(3)));
        assert!("€".parse::<HashTag>().unwrap_err().to_string().contains('3'));
        assert_eq!(HashTag::BRACES.to_string(), "{}");
    }
}

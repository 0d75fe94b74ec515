//! Comma-separated lists in field values (RFC 9110 §5.6.1).

/// The elements of a list without the whitespace around them. Empty elements are passed over, as §5.6.1.2 asks.
///
/// Commas within quoted strings separate here too: use it for lists of tokens only.
#[inline]
pub fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// Is this one or more `tchar` (RFC 9110 §5.6.2)?
#[must_use]
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().copied().all(is_token_byte)
}

/// `tchar` of RFC 9110 §5.6.2.
#[inline]
#[must_use]
pub const fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(
            b,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_trimmed_and_empty_ones_not_at_all() {
        let found: Vec<&[u8]> = elements(b" close ,, \t keep-alive,").collect();
        assert_eq!(found, [b"close".as_slice(), b"keep-alive"]);
        assert_eq!(elements(b"").count(), 0);
    }
}

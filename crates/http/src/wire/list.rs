//! The grammar that field values share: lists (RFC 9110 §5.6.1), tokens (§5.6.2), numbers.

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

/// One or more digits and nothing else (`1*DIGIT`); `None` beyond 64 bits.
#[inline]
#[must_use]
pub fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |n, &b| {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 { None } else { n.checked_mul(10)?.checked_add(u64::from(digit)) }
    })
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

    #[test]
    fn only_digits_make_a_number() {
        assert_eq!(decimal(b"007"), Some(7));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for text in ["", "+1", "-1", "1 ", "0x1", "1e3", "18446744073709551616"] {
            assert_eq!(decimal(text.as_bytes()), None, "{text}");
        }
    }
}

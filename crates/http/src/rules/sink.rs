//! Where heads are written to.

/// Takes the bytes of a head, piece by piece, in order. Heads come in ten to thirty pieces, so `put` should be small
/// enough to be inlined.
pub trait HeadSink {
    /// Appends `bytes`. What cannot be taken any more is the sink's to remember and report.
    fn put(&mut self, bytes: &[u8]);

    /// About so many bytes will come.
    fn reserve(&mut self, bytes: usize) {
        let _ = bytes;
    }
}

impl HeadSink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn reserve(&mut self, bytes: usize) {
        Self::reserve(self, bytes);
    }
}

/// A number in decimal digits, without allocation.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    digits: [u8; 20],
    start: u8,
}

impl Decimal {
    /// The digits of `n`.
    #[must_use]
    pub fn new(mut n: u64) -> Self {
        let mut digits = [b'0'; 20];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 || start == 0 {
                break;
            }
        }
        Self { digits, start: u8::try_from(start).unwrap_or(0) }
    }

    /// Without leading zeros.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[usize::from(self.start)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_standard_library_does() {
        for n in [0, 1, 9, 10, 99, 1024, 1_000_000, u64::MAX] {
            assert_eq!(Decimal::new(n).as_bytes(), n.to_string().as_bytes());
        }
    }
}

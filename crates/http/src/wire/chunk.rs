//! Writing chunks (RFC 9112 §7.1): what stands around the content, which itself is sent from where it lies.

/// Behind the content of each chunk.
pub const END: &[u8] = b"\r\n";
/// The end of a chunked body that has no trailers.
pub const LAST: &[u8] = b"0\r\n\r\n";
/// The end of the chunks when trailers follow; behind them comes [`END`].
pub const LAST_BEFORE_TRAILERS: &[u8] = b"0\r\n";

/// 16 digits and the line end.
const HEADER_LEN_MAX: usize = 18;

/// The line in front of a chunk's content.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHeader {
    bytes: [u8; HEADER_LEN_MAX],
    start: u8,
}

impl ChunkHeader {
    /// The line for `len` bytes of content. `len` is not 0: that would end the body.
    #[must_use]
    pub fn new(len: u64) -> Self {
        debug_assert!(len > 0, "an empty chunk is the last one");
        let mut bytes = [0; HEADER_LEN_MAX];
        bytes[HEADER_LEN_MAX - 2..].copy_from_slice(END);
        let mut start = HEADER_LEN_MAX - 2;
        let mut rest = len;
        while rest > 0 && start > 0 {
            start -= 1;
            bytes[start] = b"0123456789abcdef"[usize::from((rest & 0xf) as u8)];
            rest >>= 4;
        }
        Self { bytes, start: u8::try_from(start).unwrap_or(0) }
    }

    /// The line, with its end.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_in_hex_without_leading_zeros() {
        for (len, line) in
            [(1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (1024, "400\r\n"), (u64::MAX, "ffffffffffffffff\r\n")]
        {
            assert_eq!(ChunkHeader::new(len).as_bytes(), line.as_bytes());
        }
    }
}

//! Under which name an object is stored, and which requests for it are told apart while it is fetched.

use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// The hash of what the engine calls an object: 128 bits of XXH3 over the canonical text.
///
/// Two texts may have one key, and somebody may look for such a pair on purpose. So the engine keeps the text in the
/// metadata and compares it whenever it is offered an alternate, by [`Choose`](crate::Choose) or as a follower.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    high: u64,
    low: u64,
}

impl Key {
    /// The key of a canonical text.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        Self::from_u128(xxh3_128(text))
    }

    /// From a number.
    #[must_use]
    pub const fn from_u128(number: u128) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the number")]
        let (high, low) = ((number >> 64) as u64, number as u64);
        Self { high, low }
    }

    /// As a number.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        (self.high as u128) << 64 | self.low as u128
    }

    /// Bits that choose the shard; independent of those that choose the place within.
    pub(crate) const fn shard_bits(self) -> u64 {
        self.high
    }

    /// Bits for a short memory of keys; independent of the shard's.
    pub(crate) const fn fingerprint(self) -> u32 {
        (self.low >> 32) as u32
    }
}

impl std::hash::Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.low);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.high, self.low)
    }
}

/// Which of the responses of one key a fetch is for. Requests collapse when key and lane are the same.
///
/// Until the engine knows what a response depends on, all requests of a key use [`Lane::PRIMARY`]; a follower whose
/// head turns out not to fit enters again with the lane of its own selecting fields.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Lane(u64);

impl Lane {
    /// The one lane of a key whose responses are not known to differ.
    pub const PRIMARY: Self = Self(0);

    /// The lane of a text of selecting fields.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        Self(xxh3_64(text) | 1)
    }
}

/// Tables by key need no second hashing.
pub(crate) type KeyHash = BuildHasherDefault<Uniform>;

/// Takes words that are uniform already.
#[derive(Default)]
pub(crate) struct Uniform(u64);

impl Hasher for Uniform {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes) ^ self.0.rotate_left(32);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = self.0.rotate_left(32) ^ word;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_128_bits_of_xxh3_and_reads_back_as_a_number() {
        let key = Key::of(b"http://example.com/");
        assert_eq!(key, Key::from_u128(key.as_u128()));
        assert_eq!(Key::of(b"").as_u128(), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f, "the published test value");
        assert_ne!(Key::of(b"a"), Key::of(b"b"));
    }

    #[test]
    fn no_text_has_the_primary_lane() {
        assert!((0..1_000_u32).all(|n| Lane::of(&n.to_le_bytes()) != Lane::PRIMARY));
    }
}

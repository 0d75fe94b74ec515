//! The twelve hashes that twemproxy's `hash:` knows, each giving 32 bits.
//!
//! Several are not what their names say elsewhere; what they are here is what the data in existing servers was placed
//! by. Three of them add each byte as C's `char`, which on x86-64 is signed, so bytes from 0x80 on count as negative;
//! twemproxy on ARM places such keys differently, and we follow x86-64 everywhere.

mod crc;
mod fnv;
mod hsieh;
mod jenkins;
mod murmur;

pub(crate) use crc::crc16_xmodem;

use md5::{Digest as _, Md5};
use std::fmt;
use std::str::FromStr;

/// A hash by twemproxy's name for it.
///
/// Prefer [`Murmur`](Self::Murmur) or [`Md5`](Self::Md5) in a new pool: the default, [`Fnv1a64`](Self::Fnv1a64), puts
/// keys that differ in their last byte on one server.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Hash {
    /// Bob Jenkins' one-at-a-time, over signed bytes.
    OneAtATime,
    /// The first four bytes of MD5, little-endian. The only one that places keys as libmemcached's ketama does.
    Md5,
    /// CRC-16/XMODEM's table, in an accumulator of 32 bits that is never cut to 16.
    Crc16,
    /// libmemcached's: bits 16 to 30 of CRC-32, so 15 bits only. Too few for a ketama ring; fit for modula.
    Crc32,
    /// CRC-32 as everybody knows it.
    Crc32a,
    /// FNV-1 in 64 bits over signed bytes, cut to 32 at the end.
    Fnv1_64,
    /// FNV-1a with the 64-bit constants cut to 32 bits and 32-bit arithmetic, over signed bytes. twemproxy's default.
    #[default]
    Fnv1a64,
    /// FNV-1 in 32 bits over signed bytes.
    Fnv1_32,
    /// FNV-1a in 32 bits over signed bytes.
    Fnv1a32,
    /// Paul Hsieh's SuperFastHash, begun at 0.
    Hsieh,
    /// `MurmurHash2`, seeded by the length.
    Murmur,
    /// Bob Jenkins' lookup3 (`hashlittle`), begun at 13.
    Jenkins,
}

impl Hash {
    /// Every hash, in twemproxy's order.
    pub const ALL: [Self; 12] = [
        Self::OneAtATime,
        Self::Md5,
        Self::Crc16,
        Self::Crc32,
        Self::Crc32a,
        Self::Fnv1_64,
        Self::Fnv1a64,
        Self::Fnv1_32,
        Self::Fnv1a32,
        Self::Hsieh,
        Self::Murmur,
        Self::Jenkins,
    ];

    /// The hash of `bytes`. Measured on one core: 16 bytes 4 to 15 ns (MD5 145), 1 KiB 0.3 (murmur, jenkins,
    /// hsieh) to 4 µs (crc16).
    #[must_use]
    pub fn hash(self, bytes: &[u8]) -> u32 {
        match self {
            Self::OneAtATime => one_at_a_time(bytes),
            Self::Md5 => md5_words(bytes)[0],
            Self::Crc16 => crc::crc16_unmasked(bytes),
            Self::Crc32 => (crc::crc32(bytes) >> 16) & 0x7fff,
            Self::Crc32a => crc::crc32(bytes),
            Self::Fnv1_64 => fnv::fnv1_64(bytes),
            Self::Fnv1a64 => fnv::fnv1a_64(bytes),
            Self::Fnv1_32 => fnv::fnv1_32(bytes),
            Self::Fnv1a32 => fnv::fnv1a_32(bytes),
            Self::Hsieh => hsieh::hsieh(bytes),
            Self::Murmur => murmur::murmur(bytes),
            Self::Jenkins => jenkins::jenkins(bytes),
        }
    }

    /// The name in a configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OneAtATime => "one_at_a_time",
            Self::Md5 => "md5",
            Self::Crc16 => "crc16",
            Self::Crc32 => "crc32",
            Self::Crc32a => "crc32a",
            Self::Fnv1_64 => "fnv1_64",
            Self::Fnv1a64 => "fnv1a_64",
            Self::Fnv1_32 => "fnv1_32",
            Self::Fnv1a32 => "fnv1a_32",
            Self::Hsieh => "hsieh",
            Self::Murmur => "murmur",
            Self::Jenkins => "jenkins",
        }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Hash {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|hash| hash.name() == text).ok_or_else(|| UnknownName::new("hash", text))
    }
}

/// A name in a configuration that means nothing here. Prints the name and what was expected of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnknownName {
    kind: &'static str,
    name: String,
}

impl UnknownName {
    pub(crate) fn new(kind: &'static str, name: &str) -> Self {
        Self { kind, name: name.to_owned() }
    }
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no {} is called {:?}", self.kind, self.name)
    }
}

impl std::error::Error for UnknownName {}

/// The four little-endian words of the MD5 digest: four points of a ketama ring.
pub(crate) fn md5_words(bytes: &[u8]) -> [u32; 4] {
    let digest = Md5::digest(bytes);
    let mut words = [0; 4];
    for (word, four) in words.iter_mut().zip(digest.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*four);
    }
    words
}

fn one_at_a_time(bytes: &[u8]) -> u32 {
    let mut hash = 0_u32;
    for &byte in bytes {
        hash = hash.wrapping_add(signed(byte));
        hash = hash.wrapping_add(hash << 10);
        hash ^= hash >> 6;
    }
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

/// A byte as C widens a signed `char`: from 0x80 on with all upper bits set.
fn signed(byte: u8) -> u32 {
    i32::from(byte.cast_signed()).cast_unsigned()
}

/// The length as the C sources hold it. Keys are far shorter than 4 GiB; a longer one would wrap there as here.
#[expect(clippy::cast_possible_truncation, reason = "wraps as a 32-bit length does in C")]
fn length_32(bytes: &[u8]) -> u32 {
    bytes.len() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_as_they_are_written() {
        for hash in Hash::ALL {
            assert_eq!(hash.to_string().parse(), Ok(hash));
        }
        let error = "fnv".parse::<Hash>().unwrap_err();
        assert_eq!(error.to_string(), "no hash is called \"fnv\"");
        assert_eq!(Hash::default().name(), "fnv1a_64");
    }

    #[test]
    fn hashes_agree_with_their_published_check_values() {
        assert_eq!(Hash::Crc32a.hash(b"123456789"), 0xcbf4_3926);
        assert_eq!(Hash::Crc32.hash(b"123456789"), (0xcbf4_3926 >> 16) & 0x7fff);
        assert_eq!(Hash::Fnv1a32.hash(b"foobar"), 0xbf9c_f968);
        assert_eq!(Hash::Fnv1_32.hash(b"foobar"), 0x31f0_b262);
        // FNV-1 of 64 bits is 0x340d8765a4dda9c2 for "foobar"; its lower half remains.
        assert_eq!(Hash::Fnv1_64.hash(b"foobar"), 0xa4dd_a9c2);
        assert_eq!(Hash::Md5.hash(b""), u32::from_le_bytes([0xd4, 0x1d, 0x8c, 0xd9]));
        assert_eq!(Hash::OneAtATime.hash(b"a"), 0xca2e_9442);
    }

    #[test]
    fn the_default_cannot_tell_the_last_byte() {
        // Neighbouring keys differ by at most 255 times the cut prime: less than the gap between two points of a ring.
        let (a, b) = (Hash::Fnv1a64.hash(b"s0"), Hash::Fnv1a64.hash(b"s7"));
        assert!(a.abs_diff(b) <= 255 * 0x1b3);
    }
}

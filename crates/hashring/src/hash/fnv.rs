//! Fowler-Noll-Vo in the four forms twemproxy has, over signed bytes.

use super::signed;

const INIT_64: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME_64: u64 = 0x0100_0000_01b3;
const INIT_32: u32 = 0x811c_9dc5;
const PRIME_32: u32 = 0x0100_0193;

/// The lower halves of the 64-bit constants: what is left of them in 32-bit arithmetic.
const INIT_64_CUT: u32 = 0x8422_2325;
const PRIME_64_CUT: u32 = 0x0000_01b3;

pub(super) fn fnv1_64(bytes: &[u8]) -> u32 {
    let hash = bytes
        .iter()
        .fold(INIT_64, |hash, &byte| hash.wrapping_mul(PRIME_64) ^ i64::from(byte.cast_signed()).cast_unsigned());
    low_half(hash)
}

pub(super) fn fnv1a_64(bytes: &[u8]) -> u32 {
    fnv1a(bytes, INIT_64_CUT, PRIME_64_CUT)
}

pub(super) fn fnv1_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(INIT_32, |hash, &byte| hash.wrapping_mul(PRIME_32) ^ signed(byte))
}

pub(super) fn fnv1a_32(bytes: &[u8]) -> u32 {
    fnv1a(bytes, INIT_32, PRIME_32)
}

fn fnv1a(bytes: &[u8], init: u32, prime: u32) -> u32 {
    bytes.iter().fold(init, |hash, &byte| (hash ^ signed(byte)).wrapping_mul(prime))
}

#[expect(clippy::cast_possible_truncation, reason = "cutting to the lower half is the definition")]
fn low_half(wide: u64) -> u32 {
    wide as u32
}

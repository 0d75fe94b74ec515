//! Austin Appleby's MurmurHash2 as libmemcached calls it: the seed is made of the length.

const MULTIPLIER: u32 = 0x5bd1_e995;

pub(super) fn murmur(bytes: &[u8]) -> u32 {
    let length = super::length_32(bytes);
    let seed = 0xdead_beef_u32.wrapping_mul(length);
    let (fours, tail) = bytes.as_chunks::<4>();
    let mut hash = seed ^ length;
    for &four in fours {
        let mut word = u32::from_le_bytes(four).wrapping_mul(MULTIPLIER);
        word = (word ^ (word >> 24)).wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER) ^ word;
    }
    if !tail.is_empty() {
        let mut word = [0; 4];
        word[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u32::from_le_bytes(word)).wrapping_mul(MULTIPLIER);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

//! Redis Cluster's slots.

use crate::hash::crc16_xmodem;
use crate::tag::HashTag;

/// The number of slots of every Redis Cluster.
pub const CLUSTER_SLOTS: u16 = 16_384;

/// The slot of `key`: CRC-16/XMODEM of its hash tag (`{…}`, see [`HashTag`]) or of all of it, in [`CLUSTER_SLOTS`].
///
/// One table step a byte, no allocation.
#[must_use]
pub fn cluster_slot(key: &[u8]) -> u16 {
    crc16_xmodem(&key[HashTag::BRACES.span(key)]) % CLUSTER_SLOTS
}

#[test]
fn slots_are_those_of_the_cluster_specification() {
    // What CLUSTER KEYSLOT of Redis 7.0 answers.
    assert_eq!(cluster_slot(b""), 0);
    assert_eq!(cluster_slot(b"123456789"), 12_739);
    assert_eq!(cluster_slot(b"foo"), 12_182);
    assert_eq!(cluster_slot(b"foo{hash_tag}"), cluster_slot(b"bar{hash_tag}"));
    assert_eq!(cluster_slot(b"{user1000}.following"), 3_443);
    assert_eq!(cluster_slot(b"foo{}{bar}"), 8_363);
    assert_eq!(cluster_slot(b"foo{{bar}}zap"), 4_015);
}

//! The ketama ring: points sorted by value, each owned by a server, and an index that finds a place in them at once.

use super::{Server, ratio};
use crate::hash::md5_words;
use std::fmt::Write as _;

/// Points of each server when all weights are equal.
pub const POINTS_PER_SERVER: u32 = 160;

/// One MD5 digest gives four points.
const POINTS_PER_DIGEST: u32 = 4;

/// The ring. Never empty.
#[derive(Clone, Debug)]
pub(super) struct Ketama {
    /// The points' values, ascending. Apart from the owners, so that a search touches half the memory.
    values: Vec<u32>,
    owners: Vec<u16>,
    /// For each of the 2^n equal parts of the hash space, the first point in or above it. There are at least as many
    /// parts as points, so that the search from there passes about one point.
    first_in_part: Vec<u32>,
    /// From hash to part.
    shift: u32,
}

impl Ketama {
    /// The ring over `order`, which is not empty: live servers in twemproxy's order with their indices.
    pub(super) fn build(order: &[(u16, Server<'_>)]) -> Self {
        let total_weight: u64 = order.iter().map(|(_, server)| u64::from(server.weight)).sum();
        let mut points: Vec<(u32, u16)> = Vec::with_capacity(order.len() * POINTS_PER_SERVER as usize);
        let mut source = String::new();
        for (owner, server) in order {
            for digest in 0..digests(server.weight, total_weight, order.len()) {
                source.clear();
                // Writing to a String cannot fail.
                let _ = write!(source, "{}-{digest}", server.name);
                points.extend(md5_words(source.as_bytes()).map(|value| (value, *owner)));
            }
        }
        // Stable, as glibc's qsort is in practice: of two points with one value the first server's comes first.
        points.sort_by_key(|(value, _)| *value);
        let parts_log2 = points.len().next_power_of_two().trailing_zeros().max(1);
        let shift = u32::BITS - parts_log2;
        let values: Vec<u32> = points.iter().map(|(value, _)| *value).collect();
        let mut first_in_part = Vec::with_capacity(1 << parts_log2);
        let mut next = 0_u32;
        for part in 0..1_u32 << parts_log2 {
            while values.get(next as usize).is_some_and(|value| *value < part << shift) {
                next += 1;
            }
            first_in_part.push(next);
        }
        Self { owners: points.iter().map(|(_, owner)| *owner).collect(), values, first_in_part, shift }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// The place of the first point at or above `hash`, around the end if need be.
    pub(super) fn position(&self, hash: u32) -> usize {
        let mut at = self.first_in_part[(hash >> self.shift) as usize] as usize;
        while let Some(value) = self.values.get(at) {
            if *value >= hash {
                return at;
            }
            at += 1;
        }
        0
    }

    pub(super) fn value(&self, position: usize) -> u32 {
        self.values[position]
    }

    pub(super) fn owner(&self, position: usize) -> u16 {
        self.owners[position]
    }

    /// The part of the hash space whose next point is this server's.
    pub(super) fn share(&self, server: usize) -> f64 {
        let mut below = self.values[self.values.len() - 1];
        let mut owned = 0_u64;
        for (value, owner) in self.values.iter().zip(&self.owners) {
            if usize::from(*owner) == server {
                owned += u64::from(value.wrapping_sub(below));
            }
            below = *value;
        }
        ratio(owned, 1 << u32::BITS)
    }
}

/// How many digests, of four points each, a server of this weight has on a ring of `live` servers.
///
/// In 32-bit floats and in this order of operations, as twemproxy computes it: for some numbers of servers the product
/// falls just short of 40 and one digest is lost, which moves keys.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as in C")]
fn digests(weight: u32, total_weight: u64, live: usize) -> u32 {
    let part = weight as f32 / total_weight as f32;
    let product = part * POINTS_PER_SERVER as f32 / POINTS_PER_DIGEST as f32 * live as f32;
    // twemproxy adds 1e-10 here, which is nothing to a float above 0.001.
    (f64::from(product) + 1e-10) as f32 as u32
}

//! Telling the processor which memory is needed soon, so that several lines are on their way at once.

use std::mem::MaybeUninit;

/// What a processor loads at a time.
const LINE: usize = 64;

/// Begins to load `bytes` into the processor's cache, without waiting for them. Worth it for what is rarely in the cache
/// and will be read soon: each line costs an instruction, and a processor has a dozen or two on their way at once.
#[inline]
pub fn prefetch(bytes: &[u8]) {
    let mut at = 0;
    while at < bytes.len() {
        line(bytes[at..].as_ptr());
        at += LINE;
    }
}

/// As [`prefetch`], for a value itself: not for what it refers to.
#[inline]
pub fn prefetch_value<T>(value: &T) {
    let start = std::ptr::from_ref(value).cast::<u8>();
    let mut at = 0;
    while at < size_of::<T>() {
        line(start.wrapping_add(at));
        at += LINE;
    }
}

/// As [`prefetch`], for memory that will be written soon.
#[inline]
pub(crate) fn prefetch_to_write(room: &[MaybeUninit<u8>]) {
    let mut at = 0;
    while at < room.len() {
        line_to_write(room[at..].as_ptr().cast());
        at += LINE;
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn line_to_write(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
    // SAFETY: prefetching changes nothing that the program could see and faults on no address; a processor that has no
    // such hint for writing takes the instruction for none at all.
    unsafe { _mm_prefetch::<_MM_HINT_ET0>(address.cast()) };
}

/// Elsewhere it is left to the processor.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn line_to_write(_address: *const u8) {}

#[cfg(target_arch = "x86_64")]
#[inline]
fn line(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: prefetching reads nothing that the program could see and faults on no address; every x86-64 has it.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

/// Elsewhere it is left to the processor.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn line(_address: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_and_values_may_be_announced() {
        prefetch(&[]);
        prefetch(&[1; 1_000]);
        prefetch_to_write(&[]);
        prefetch_to_write(&[MaybeUninit::uninit(); 1_000]);
        prefetch_value(&());
        prefetch_value(&[0_u64; 100]);
    }
}

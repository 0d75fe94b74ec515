//! Memory for shared bytes whose number is known before they come.

use std::mem::MaybeUninit;
use std::sync::Arc;

use crate::prefetch::prefetch_to_write;

/// Memory that is taken early: by the time its bytes come, the processor has it at hand, and nobody waits for it.
#[derive(Debug)]
pub struct Room(Arc<[MaybeUninit<u8>]>);

impl Room {
    /// Memory for `len` bytes, on its way to the processor's cache.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let room = Arc::new_uninit_slice(len);
        prefetch_to_write(&room);
        Self(room)
    }

    /// Bytes it has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.len()
    }

    /// The memory, with `bytes` in it. None when they are not as many as were announced.
    #[must_use]
    pub fn fill(self, bytes: &[u8]) -> Option<Arc<[u8]>> {
        let Self(mut room) = self;
        let place = Arc::get_mut(&mut room)?;
        if place.len() != bytes.len() {
            return None;
        }
        // SAFETY: `place` is as long as `bytes`, which was just looked at, and both are made of bytes; it is borrowed
        // exclusively from memory that nobody else knows of, so that the two do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place.as_mut_ptr().cast(), bytes.len()) };
        // SAFETY: each byte of it was written by the copy, as it is just as long.
        Some(unsafe { room.assume_init() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_was_announced_and_nothing_else() {
        for len in [0, 1, 63, 64, 1_024, 100_000] {
            let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
            assert_eq!(Room::new(len).capacity(), len);
            assert_eq!(Room::new(len).fill(&bytes).as_deref(), Some(&bytes[..]));
            assert!(Room::new(len + 1).fill(&bytes).is_none());
        }
        assert!(Room::new(1).fill(b"ab").is_none());
    }
}

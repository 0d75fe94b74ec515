//! The thread's pool of raw blocks: a bounded free list for each size.
//!
//! Memory above the bound goes back to the allocator at once. What a burst left behind below the bound goes back when
//! the owner of the thread calls [`trim`] now and then: only as many blocks stay as were needed since the last call.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;

use crate::block::Header;

/// The sizes blocks come in, header included, so that each is a whole number of pages or a fraction of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum SizeClass {
    /// 2 KiB: rewritten heads and small answers.
    Small = 0,
    /// 16 KiB: what one receive asks for.
    Medium = 1,
    /// 64 KiB: long bodies, and the largest head.
    Large = 2,
}

const CLASSES: usize = 3;

impl SizeClass {
    /// Bytes of memory behind one block, header included.
    #[must_use]
    pub const fn memory(self) -> usize {
        match self {
            Self::Small => 2 << 10,
            Self::Medium => 16 << 10,
            Self::Large => 64 << 10,
        }
    }

    /// Bytes a block of this class can hold.
    #[must_use]
    pub const fn capacity(self) -> usize {
        self.memory() - size_of::<Header>()
    }

    /// The smallest class that holds `bytes`; `None` when none does.
    #[must_use]
    pub const fn for_bytes(bytes: usize) -> Option<Self> {
        if bytes <= Self::Small.capacity() {
            Some(Self::Small)
        } else if bytes <= Self::Medium.capacity() {
            Some(Self::Medium)
        } else if bytes <= Self::Large.capacity() {
            Some(Self::Large)
        } else {
            None
        }
    }

    /// How many free blocks a thread keeps: 256 KiB, 2 MiB and 2 MiB.
    const fn kept(self) -> usize {
        match self {
            Self::Small => 128,
            Self::Medium => 128,
            Self::Large => 32,
        }
    }

    fn layout(self) -> Layout {
        // The size is a constant power of two and never overflows when rounded up to its alignment.
        Layout::from_size_align(self.memory(), 64).expect("constant sizes make valid layouts")
    }
}

/// What this thread's blocks occupy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUse {
    /// Bytes of blocks in use, headers included.
    pub used: usize,
    /// Bytes kept for the next block.
    pub free: usize,
}

#[derive(Default)]
struct Pool {
    free: [Vec<NonNull<Header>>; CLASSES],
    used: usize,
    /// The shortest each list has been since the last trim: so many blocks nobody needed.
    spare: [usize; CLASSES],
}

impl Drop for Pool {
    fn drop(&mut self) {
        release_beyond(self, |_| 0);
    }
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::new(Pool::default());
}

const ALL: [SizeClass; CLASSES] = [SizeClass::Small, SizeClass::Medium, SizeClass::Large];

fn release_beyond(pool: &mut Pool, keep: impl Fn(SizeClass) -> usize) {
    for class in ALL {
        let list = &mut pool.free[class as usize];
        while list.len() > keep(class) {
            if let Some(memory) = list.pop() {
                // SAFETY: `memory` came from `alloc` with this class's layout (only `take` fills the lists' blocks,
                // `give` files each under the class it was taken for) and nobody refers to a block in the free list.
                unsafe { dealloc(memory.as_ptr().cast(), class.layout()) };
            }
        }
    }
}

/// Raw memory of `class`, at least 8-aligned, header not initialised.
pub(crate) fn take(class: SizeClass) -> NonNull<Header> {
    let pooled = POOL
        .try_with(|pool| {
            let mut pool = pool.borrow_mut();
            pool.used += class.memory();
            let taken = pool.free[class as usize].pop();
            let left = pool.free[class as usize].len();
            pool.spare[class as usize] = pool.spare[class as usize].min(left);
            taken
        })
        .ok()
        .flatten();
    pooled.unwrap_or_else(|| {
        let layout = class.layout();
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc(layout) };
        NonNull::new(memory.cast::<Header>()).unwrap_or_else(|| handle_alloc_error(layout))
    })
}

/// Takes back what [`take`] gave for the same class. The caller holds the last reference.
pub(crate) fn give(memory: NonNull<Header>, class: SizeClass) {
    let kept = POOL
        .try_with(|pool| {
            let mut pool = pool.borrow_mut();
            pool.used = pool.used.saturating_sub(class.memory());
            let list = &mut pool.free[class as usize];
            let keep = list.len() < class.kept();
            if keep {
                list.push(memory);
            }
            keep
        })
        .unwrap_or(false);
    if !kept {
        // SAFETY: `memory` was allocated by `take` with this class's layout and the caller gave up the last reference.
        unsafe { dealloc(memory.as_ptr().cast(), class.layout()) };
    }
}

/// What this thread's pool holds now.
#[must_use]
pub fn pool_use() -> PoolUse {
    POOL.try_with(|pool| {
        let pool = pool.borrow();
        let free = ALL.iter().map(|&class| pool.free[class as usize].len() * class.memory()).sum();
        PoolUse { used: pool.used, free }
    })
    .unwrap_or_default()
}

/// Returns to the allocator those of this thread's free blocks that nobody needed since the last call. Says whether
/// there were any.
pub fn trim() -> bool {
    POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        let keep = ALL.map(|class| pool.free[class as usize].len() - pool.spare[class as usize]);
        let any = pool.spare.iter().any(|&spare| spare > 0);
        release_beyond(&mut pool, |class| keep[class as usize]);
        pool.spare = ALL.map(|class| pool.free[class as usize].len());
        any
    })
    .unwrap_or(false)
}

//! Pooled memory for futures: a thread's free lists by size, so that a transaction costs no allocation.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;

/// Sizes are rounded up to a multiple of this: what is lost by it is lost for every idle future.
const STEP: usize = 16;
/// Larger futures come from the allocator each time.
const POOLED_MAX: usize = 8 << 10;
/// Free pieces of one size that a thread keeps.
const KEPT_MAX: usize = 256;
/// Allocators have sizes for multiples of the step and want some bytes for themselves.
const ALLOCATORS: usize = 8;
/// Alignment of every pooled piece. Futures that need more are rare.
const ALIGN: usize = 8;

/// For each size: the free pieces, and the fewest there have been since the last trim.
struct FreeLists(Vec<(Vec<NonNull<u8>>, usize)>);

impl Drop for FreeLists {
    fn drop(&mut self) {
        for (class, (list, _)) in self.0.iter_mut().enumerate() {
            for memory in list.drain(..) {
                // SAFETY: pieces in list `class` were allocated by `take` with exactly this layout.
                unsafe { dealloc(memory.as_ptr(), class_layout(class)) };
            }
        }
    }
}

thread_local! {
    static FREE: RefCell<FreeLists> = const { RefCell::new(FreeLists(Vec::new())) };
}

fn class_layout(class: usize) -> Layout {
    Layout::from_size_align((class + 1) * STEP - ALLOCATORS, ALIGN).expect("small sizes make valid layouts")
}

/// The free list for a layout, and `None` for what is not pooled.
fn class_of(layout: Layout) -> Option<usize> {
    (layout.size() <= POOLED_MAX && layout.align() <= ALIGN)
        .then(|| (layout.size().max(1) + ALLOCATORS).div_ceil(STEP) - 1)
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // A future without state still gets an address of its own.
    let layout = if layout.size() == 0 { Layout::from_size_align(1, layout.align()).unwrap_or(layout) } else { layout };
    // SAFETY: the layout's size is not zero.
    let memory = unsafe { alloc(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

/// Memory for `layout`, not initialised.
pub(crate) fn take(layout: Layout) -> NonNull<u8> {
    let Some(class) = class_of(layout) else { return allocate(layout) };
    let pooled = FREE
        .try_with(|free| {
            let mut free = free.borrow_mut();
            let (list, spare) = free.0.get_mut(class)?;
            let taken = list.pop();
            *spare = list.len().min(*spare);
            taken
        })
        .ok()
        .flatten();
    pooled.unwrap_or_else(|| allocate(class_layout(class)))
}

/// Takes back what [`take`] gave for the same layout.
pub(crate) fn give(memory: NonNull<u8>, layout: Layout) {
    let Some(class) = class_of(layout) else {
        let layout =
            if layout.size() == 0 { Layout::from_size_align(1, layout.align()).unwrap_or(layout) } else { layout };
        // SAFETY: `take` allocated it with this very layout, and the caller gives up the last reference.
        unsafe { dealloc(memory.as_ptr(), layout) };
        return;
    };
    let kept = FREE
        .try_with(|free| {
            let lists = &mut free.borrow_mut().0;
            if lists.len() <= class {
                lists.resize_with(class + 1, Default::default);
            }
            let keep = lists[class].0.len() < KEPT_MAX;
            if keep {
                lists[class].0.push(memory);
            }
            keep
        })
        .unwrap_or(false);
    if !kept {
        // SAFETY: `take` allocated pooled sizes with their class's layout.
        unsafe { dealloc(memory.as_ptr(), class_layout(class)) };
    }
}

/// Returns to the allocator those pieces that nobody needed since the last call. Says whether there were any.
pub(crate) fn trim() -> bool {
    FREE.try_with(|free| {
        let mut any = false;
        for (class, (list, spare)) in free.borrow_mut().0.iter_mut().enumerate() {
            for memory in list.drain(..(*spare).min(list.len())) {
                any = true;
                // SAFETY: pieces in list `class` were allocated by `take` with exactly this layout.
                unsafe { dealloc(memory.as_ptr(), class_layout(class)) };
            }
            *spare = list.len();
        }
        any
    })
    .unwrap_or(false)
}

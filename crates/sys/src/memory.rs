//! What the allocator keeps.

/// Asks the allocator to give memory that nobody uses back to the system: it does so by itself only when it is next
/// asked for some, which in an idle process may be never. The calling thread's memory, and what is shared.
pub fn give_back() {
    // SAFETY: it may be called on any thread at any time; the allocator sets itself up first where it has not yet.
    unsafe { libmimalloc_sys::mi_collect(false) };
}

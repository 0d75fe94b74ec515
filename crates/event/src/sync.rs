//! What the protocols that `tests/loom.rs` proves are made of: there, a module of the same name holds loom's.

pub(crate) use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Memory that is reached by pointer, for a time that the callee knows.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) const fn new(content: T) -> Self {
        Self(std::cell::UnsafeCell::new(content))
    }

    /// Lends the pointer to whoever has the memory to himself during the call.
    #[inline]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// Asks for the line of memory that `of` lies on, to write to it soon: it is fetched meanwhile.
#[inline]
pub(crate) fn will_write<T>(of: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: a prefetch reads and writes nothing and never faults, whatever the address; every x86-64 processor
        // has the instruction or takes it for nothing.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(std::ptr::from_ref(of).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = of;
}

//! The atomics of the protocols that `tests/loom.rs` proves: there, a module of the same name holds loom's.

pub(crate) use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

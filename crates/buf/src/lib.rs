//! Bytes on their way: pooled blocks from the socket, shared bytes from the cache, and chains of both.
//!
//! ```text
//! recv ──> Block (pooled, one writer) ──chunk(range)──> Chunk ──┐
//! cache ─> Arc<[u8]> (immutable, crosses threads) ──────Chunk ──┼──> Chain ──> one gathered send
//! cache ─> Piece of an arena (the same, in pages) ──────Chunk ──┤       pieces: their pages lent, not copied
//! text ──> &'static [u8] ───────────────────────────────Chunk ──┘
//! ```
//!
//! A [`Block`] belongs to one thread: its count is not atomic and its memory returns to that thread's pool when the
//! last [`Chunk`] of it is dropped. An idle connection holds none. What must cross threads is copied once into an
//! `Arc<[u8]>`. Nothing here does I/O.
//!
//! Read [`Block`] first, then [`Chunk`] and [`Chain`].
#![allow(unsafe_code, reason = "blocks are raw pooled memory with a count of their own")]

mod block;
mod chain;
mod pool;
mod prefetch;
mod room;

pub use block::{Block, Chunk, LEND_MIN};
pub use chain::{Chain, SLICES_MAX};
pub use pool::{PoolUse, SizeClass, pool_use, trim};
pub use prefetch::{prefetch, prefetch_value};
pub use room::Room;

//! Numbers: counters, gauges and histograms, written by event threads and read by anybody.
//!
//! Each event thread adds to cells of its own, with a plain load and store: no lock, no locked instruction, no line
//! of memory shared with another writer. All cells of a process lie in one **segment** of memory that describes itself,
//! so that another process — even of another version, even after the writer died — reads it by the metrics' names.
//!
//! ```text
//! metrics! rows ─> Registry ─> Layout ─> Segment ─> Cells, one per thread and table   (the writers)
//!                                           │
//!                                      memory, file ─> Snapshot ─> prometheus::render (the readers)
//! ```
//!
//! Nothing here opens a file, reads a clock or asks for a process's id: memory, times and ids are arguments. Memory
//! shared between processes is `sys::shm`.
//!
//! Read [`metrics!`] first, then [`Registry`], then [`Snapshot`]. The bytes of the segment are in `format`.

mod beat;
mod cells;
mod format;
mod histogram;
pub mod prometheus;
mod segment;
mod snapshot;
mod table;

pub use beat::{Beat, BeatName, BeatPlace, BeatReading, BeatState};
pub use cells::{Cells, HeapWords, SharedCells};
pub use histogram::{BUCKET_COUNT, Distribution};
pub use segment::{Identity, Instance, Layout, Registry, RegistryError, Segment};
pub use snapshot::{Metric, SegmentError, Snapshot, Value};
pub use table::{Additive, Counter, Gauge, Histogram, Kind, MetricDef, Table, Unit};

/// What the [`metrics!`] macro needs at compile time; not for use by hand.
#[doc(hidden)]
pub mod at_compile_time {
    pub use crate::table::{check, offset_of};
}

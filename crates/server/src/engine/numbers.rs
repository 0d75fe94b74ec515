//! The segment of a server's numbers, and those of its event loops.

use std::path::PathBuf;
use std::sync::Arc;

use base::{Clock, SystemClock};
use event::{Shares, Thread};
use http::Http;
use stats::{Cells, Registry, Segment};

use super::Identity;

/// Connections to the server's own pages.
pub(super) const PAGE_CONNECTIONS_MAX: usize = 1_024;

stats::metrics! {
    /// What one event loop counts, and what all accepts count (told by thread 0).
    pub struct Loop;

    /// Turns of the event loops.
    gauge TURNS = "beltway_event_turns";
    /// Readiness events delivered.
    gauge EVENTS = "beltway_event_ready_events";
    /// Time the loops worked.
    gauge BUSY = "beltway_event_busy_seconds" in Nanoseconds;
    /// Time the loops slept.
    gauge SLEPT = "beltway_event_slept_seconds" in Nanoseconds;
    /// The longest stretch of work between two polls, in each fifth of a second.
    histogram LONGEST = "beltway_event_longest_turn_seconds" in Nanoseconds;
    /// Futures that have not ended.
    gauge TASKS = "beltway_event_tasks";
    /// Panics contained.
    gauge PANICS = "beltway_event_panics";
    /// Memory of blocks in use.
    gauge BLOCKS_USED = "beltway_buffer_used_bytes" in Bytes;
    /// Memory of blocks kept for the next use.
    gauge BLOCKS_FREE = "beltway_buffer_free_bytes" in Bytes;
    /// Connections handed on to another thread.
    gauge HANDED_ON = "beltway_accept_handed_on";
    /// Pauses of accepting at the connection limit.
    gauge AT_LIMIT = "beltway_accept_paused_at_limit";
    /// Pauses of accepting for want of descriptors.
    gauge NO_DESCRIPTORS = "beltway_accept_paused_without_descriptors";
}

/// Makes the segment: in a file for all to read, or on the heap for a server that runs alone without a directory.
pub(super) fn create(threads: usize, identity: Identity, path: Option<PathBuf>) -> Result<Segment, String> {
    let mut registry = Registry::new();
    registry.add::<Http>().map_err(|error| error.to_string())?;
    registry.add::<Loop>().map_err(|error| error.to_string())?;
    let layout = registry.layout(threads).map_err(|error| error.to_string())?;
    let identity = stats::Identity {
        pid: identity.pid,
        generation: identity.generation,
        started_micros: SystemClock.wall().as_micros(),
    };
    match path {
        None => layout.create_on_heap(identity).map_err(|error| error.to_string()),
        Some(path) => {
            let words = sys::shm::SharedWords::create(&path, layout.words())
                .map_err(|error| format!("{}: {error}", path.display()))?;
            layout.create(words, identity).map_err(|error| error.to_string())
        }
    }
}

/// Writes down what a loop knows of itself.
pub(super) fn tell(thread: &Thread, cells: Cells<Loop>, shares: &Arc<Shares>) {
    let stats = thread.stats();
    let (busy, slept) = stats.busy_and_slept();
    let nanos = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    cells.set(Loop::TURNS, stats.turns());
    cells.set(Loop::EVENTS, stats.events());
    cells.set(Loop::BUSY, nanos(busy));
    cells.set(Loop::SLEPT, nanos(slept));
    cells.observe(Loop::LONGEST, nanos(stats.take_longest()));
    cells.set(Loop::TASKS, thread.tasks_live() as u64);
    cells.set(Loop::PANICS, stats.panics().0);
    let blocks = buf::pool_use();
    cells.set(Loop::BLOCKS_USED, blocks.used as u64);
    cells.set(Loop::BLOCKS_FREE, blocks.free as u64);
    if thread.index() == 0 {
        let [_, handed_on, at_limit, no_descriptors] = shares.counts();
        cells.set(Loop::HANDED_ON, handed_on);
        cells.set(Loop::AT_LIMIT, at_limit);
        cells.set(Loop::NO_DESCRIPTORS, no_descriptors);
    }
}

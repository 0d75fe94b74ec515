//! The segment of a server's numbers, and those of its event loops.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use base::{Clock, SystemClock};
use event::metrics::Loop;
use event::{Shares, Thread, background};
use http::Http;
use stats::{Cells, Registry, Segment};

use super::Identity;

/// Makes the segment: in a file for all to read, or on the heap for a server that runs alone without a directory.
pub(super) fn create(
    threads: usize,
    identity: Identity,
    path: Option<PathBuf>,
    pools: &kv::Plan,
) -> Result<(Segment, kv::numbers::Ledger), String> {
    let mut registry = Registry::new();
    registry.add::<cache::Cache>().map_err(|error| error.to_string())?;
    registry.add::<Http>().map_err(|error| error.to_string())?;
    registry.add::<kv::Kv>().map_err(|error| error.to_string())?;
    registry.add::<Loop>().map_err(|error| error.to_string())?;
    let ledger = kv::numbers::Ledger::declare(&mut registry, pools).map_err(|error| error.to_string())?;
    let layout = registry.layout(threads).map_err(|error| error.to_string())?;
    let identity = stats::Identity {
        pid: identity.pid,
        generation: identity.generation,
        started_micros: SystemClock.wall().as_micros(),
    };
    let segment = match path {
        None => layout.create_on_heap(identity).map_err(|error| error.to_string())?,
        Some(path) => {
            let failed = |error| format!("{}: {error}", path.display());
            let (layout, words) = match sys::shm::SharedWords::create(&path, layout.words()) {
                // A full disk keeps nobody from starting: commands are counted together then.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    let layout = registry.without_late().layout(threads).map_err(|error| error.to_string())?;
                    let words = sys::shm::SharedWords::create(&path, layout.words()).map_err(failed)?;
                    (layout, words)
                }
                words => (layout, words.map_err(failed)?),
            };
            layout.create(words, identity).map_err(|error| error.to_string())?
        }
    };
    Ok((segment, ledger))
}

/// Writes down what a loop does not write by itself; thread 0 does so for what belongs to the process.
pub(super) fn tell(thread: &Thread, cells: Cells<Loop>, accepting: &[Arc<Shares>]) {
    let longest = thread.stats().take_longest();
    cells.observe(Loop::LONGEST, u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX));
    cells.set(Loop::TASKS, thread.tasks_live() as u64);
    cells.set(Loop::TIMERS, thread.timers_pending() as u64);
    let blocks = buf::pool_use();
    cells.set(Loop::BLOCKS_USED, blocks.used as u64);
    cells.set(Loop::BLOCKS_FREE, blocks.free as u64);
    if thread.index() == 0 {
        let counts = accepting.iter().map(|shares| shares.counts());
        let sum = |a: [u64; 4], b: [u64; 4]| std::array::from_fn(|at| a[at] + b[at]);
        let [_, handed_on, at_limit, no_descriptors] = counts.fold([0; 4], sum);
        cells.set(Loop::HANDED_ON, handed_on);
        cells.set(Loop::AT_LIMIT, at_limit);
        cells.set(Loop::NO_DESCRIPTORS, no_descriptors);
        if let Some(background) = background() {
            background.tell(cells);
        }
    }
}

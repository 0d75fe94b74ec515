//! Memory of long bodies, in huge pages: as many addresses as the budget may grow to, reserved when it does.

use std::io;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use sys::arena::{Appender, Arena, BLOCK};

use crate::budget::Budget;

/// A smaller budget is not given out in blocks of 2 MiB.
const BUDGET_MIN: u64 = 32 * BLOCK as u64;
/// Reservations, at most: each is as large as all before it, so that this is reached by nobody.
const ARENAS_MAX: usize = 32;

/// See the module.
#[derive(Debug)]
pub(crate) struct Arenas {
    budget: Arc<Budget>,
    reserved: RwLock<Reserved>,
    error: OnceLock<io::Error>,
}

#[derive(Debug, Default)]
struct Reserved {
    arenas: Vec<Arena>,
    bytes: u64,
}

impl Arenas {
    /// None yet. What they give out is charged to `budget` by the block.
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), reserved: RwLock::default(), error: OnceLock::new() }
    }

    /// Sees to it that there are addresses for `budget` bytes, if that is worth it.
    pub(crate) fn reserve(&self, budget: u64) {
        let mut reserved = self.reserved.write().unwrap_or_else(PoisonError::into_inner);
        if budget < BUDGET_MIN || budget <= reserved.bytes || reserved.arenas.len() >= ARENAS_MAX {
            return;
        }
        let bytes = (budget - reserved.bytes).max(reserved.bytes);
        let charged = Arc::clone(&self.budget);
        match Arena::reserve(bytes, Box::new(move || charged.give(BLOCK as u64))) {
            Ok(arena) => {
                reserved.arenas.push(arena);
                reserved.bytes += bytes;
            }
            Err(error) => {
                // The first one is told; those after it are of the same kind.
                let _ = self.error.set(error);
            }
        }
    }

    /// Why there are none, or too few.
    pub(crate) fn error(&self) -> Option<&io::Error> {
        self.error.get()
    }

    /// Room in a block that is in use.
    pub(crate) fn allocate(&self, bytes: usize) -> Option<Appender> {
        self.read(|arenas| arenas.iter().find_map(|arena| arena.allocate(bytes)))
    }

    /// Room in a new block, for which the caller has taken the bytes from the budget.
    pub(crate) fn allocate_in_new_block(&self, bytes: usize) -> Option<Appender> {
        self.read(|arenas| arenas.iter().find_map(|arena| arena.allocate_in_new_block(bytes)))
    }

    /// Whether there are none at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.read(|arenas| arenas.is_empty())
    }

    /// Bytes of the blocks in use.
    pub(crate) fn bytes(&self) -> u64 {
        self.read(|arenas| arenas.iter().map(|arena| (arena.open_blocks() * BLOCK) as u64).sum())
    }

    fn read<R>(&self, read: impl FnOnce(&[Arena]) -> R) -> R {
        read(&self.reserved.read().unwrap_or_else(PoisonError::into_inner).arenas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_a_budget_that_grows() {
        let budget = Budget::new(BUDGET_MIN * 4);
        let arenas = Arenas::new(&budget);
        arenas.reserve(BUDGET_MIN - 1);
        assert!(arenas.is_empty() && arenas.allocate_in_new_block(1).is_none());
        arenas.reserve(BUDGET_MIN);
        let take = || budget.take(BLOCK as u64).then(|| arenas.allocate_in_new_block(1)).flatten();
        let mut pieces: Vec<_> = std::iter::from_fn(take).collect();
        assert_eq!((pieces.len(), arenas.bytes()), (32, BUDGET_MIN));
        budget.give(BLOCK as u64);
        arenas.reserve(BUDGET_MIN + 1);
        pieces.extend(std::iter::from_fn(take));
        assert_eq!(pieces.len(), 64, "as much again");
        budget.give(BLOCK as u64);
        drop(pieces);
        assert_eq!((budget.used(), arenas.bytes()), (0, 0));
    }
}

//! The slow log: for each pool the newest requests that took longer than it bears, on whichever thread they were. Those
//! that never got a reply are among them, with the time that their client waited and what became of them.
//!
//! Of neighbours on one connection that are alike only the first is told, and of one receive's replies a few: so that a
//! server that is slow with everything does not cost more than it does already. Clients of a pool read theirs as Redis
//! tells it, and may begin anew; what operators read, [`crate::Shared::slow`], stays.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::WallTime;

/// Requests of each pool that are remembered, and the most that are told of all pools together.
pub const SLOW_MAX: usize = 128;
/// Bytes of the first argument that are told.
const ARGUMENT_MAX: usize = 64;
/// Bytes of a client's name that are told.
const NAME_MAX: usize = 64;
/// What became of a request that has its reply.
pub(crate) const ANSWERED: &str = "answered";
/// What became of one whose client did not wait for it.
pub(crate) const LEFT: &str = "client left";

/// A request that took long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slow {
    /// When its reply came, or was no longer to be expected.
    pub at: WallTime,
    /// Its pool.
    pub pool: String,
    /// The server that answered, or did not, by the name that places its keys.
    pub server: String,
    /// Its command.
    pub command: &'static str,
    /// The beginning of its first argument, mostly its key; empty when it is not known any more.
    pub argument: Vec<u8>,
    /// How many bytes more it has.
    pub argument_more: u64,
    /// The length of the request.
    pub bytes: u64,
    /// From its arrival to the reply, or to what its client got instead.
    pub took: Duration,
    /// What became of it, in a word or two: `answered`, `timed out`, `connection reset`.
    pub outcome: &'static str,
    /// Who asked.
    pub client: Asker,
}

/// A client, as the slow log names it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Asker {
    /// Its address; empty when it is not known any more, or has none.
    pub address: String,
    /// The beginning of the name that it gave itself; empty: none.
    pub name: Vec<u8>,
}

impl Slow {
    /// What is told of an argument, and how many bytes are not.
    pub(crate) fn argument(argument: &[u8]) -> (Vec<u8>, u64) {
        let (told, more) = argument.split_at(argument.len().min(ARGUMENT_MAX));
        (told.to_vec(), more.len() as u64)
    }
}

impl Asker {
    /// Keeps of a client's name what is told of it.
    pub(crate) fn new(address: String, name: &[u8]) -> Self {
        Self { address, name: name[..name.len().min(NAME_MAX)].to_vec() }
    }
}

/// One pool's, the oldest first, each with its number of all that there were.
#[derive(Debug, Default)]
struct OfPool {
    next: u64,
    newest: VecDeque<(u64, Slow)>,
    /// Where clients have begun anew.
    forgotten: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SlowLog(Mutex<BTreeMap<String, OfPool>>);

impl SlowLog {
    /// Little is done while it is held.
    fn pools(&self) -> MutexGuard<'_, BTreeMap<String, OfPool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one in, in the place of its pool's oldest when there are as many as may be.
    pub(crate) fn put(&self, slow: Slow) {
        let mut pools = self.pools();
        if !pools.contains_key(&slow.pool) {
            pools.insert(slow.pool.clone(), OfPool::default());
        }
        let Some(log) = pools.get_mut(&slow.pool) else { return };
        if log.newest.len() >= SLOW_MAX {
            log.newest.pop_front();
        }
        log.newest.push_back((log.next, slow));
        log.next += 1;
    }

    /// The newest of all pools, the newest first.
    pub(crate) fn read(&self) -> Vec<Slow> {
        let pools = self.pools();
        let mut all: Vec<&Slow> =
            pools.values().flat_map(|log| log.newest.iter().rev()).map(|(_, slow)| slow).collect();
        // Stable: of one pool they are in order, even when the clock was set back.
        all.sort_by_key(|slow| std::cmp::Reverse(slow.at));
        all.into_iter().take(SLOW_MAX).cloned().collect()
    }

    /// So many of a pool's since clients began anew, the newest first, with their numbers.
    pub(crate) fn of_pool(&self, pool: &str, count: usize) -> Vec<(u64, Slow)> {
        let pools = self.pools();
        let Some(log) = pools.get(pool) else { return Vec::new() };
        let known = log.newest.iter().rev().take_while(|(number, _)| *number >= log.forgotten);
        known.take(count).cloned().collect()
    }

    /// How many [`SlowLog::of_pool`] has.
    pub(crate) fn len_of_pool(&self, pool: &str) -> usize {
        let pools = self.pools();
        let since = |log: &OfPool| log.newest.iter().filter(|(number, _)| *number >= log.forgotten).count();
        pools.get(pool).map_or(0, since)
    }

    /// How many there have been.
    pub(crate) fn count_of_pool(&self, pool: &str) -> u64 {
        self.pools().get(pool).map_or(0, |log| log.next)
    }

    /// Forgets all pools but these.
    pub(crate) fn retain(&self, stays: impl Fn(&str) -> bool) {
        self.pools().retain(|pool, _| stays(pool));
    }

    /// Clients begin anew.
    pub(crate) fn forget(&self, pool: &str) {
        if let Some(log) = self.pools().get_mut(pool) {
            log.forgotten = log.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow(pool: &str, at: i64) -> Slow {
        let (argument, argument_more) = Slow::argument(&[b'k'; 300]);
        Slow {
            at: WallTime::from_micros(at),
            pool: pool.into(),
            server: "server".into(),
            command: "get",
            argument,
            argument_more,
            bytes: at.unsigned_abs(),
            took: Duration::from_millis(101),
            outcome: ANSWERED,
            client: Asker::new(String::new(), &[b'n'; 300]),
        }
    }

    #[test]
    fn the_newest_are_remembered_and_told_first() {
        let log = SlowLog::default();
        for at in 0..200 {
            log.put(slow("pool", at));
        }
        let read = log.read();
        assert_eq!((read.len(), read[0].bytes, read[SLOW_MAX - 1].bytes), (SLOW_MAX, 199, 200 - SLOW_MAX as u64));
        assert_eq!((read[0].argument.len(), read[0].argument_more), (ARGUMENT_MAX, 300 - ARGUMENT_MAX as u64));
        assert_eq!(read[0].client.name.len(), NAME_MAX);
    }

    #[test]
    fn a_pool_that_is_slow_with_everything_hides_no_other() {
        let log = SlowLog::default();
        log.put(slow("seldom", 1_000));
        for at in 0..1_000 {
            log.put(slow("always", at));
        }
        assert_eq!(log.len_of_pool("seldom"), 1);
        let read = log.read();
        assert_eq!((read.len(), read[0].pool.as_str(), read[1].bytes), (SLOW_MAX, "seldom", 999));
    }

    #[test]
    fn clients_who_begin_anew_take_nothing_from_operators_nor_numbers_again() {
        let log = SlowLog::default();
        log.forget("pool");
        (0..3).for_each(|at| log.put(slow("pool", at)));
        assert_eq!(log.of_pool("pool", 2).iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2, 1]);
        log.forget("pool");
        assert_eq!((log.of_pool("pool", 9).len(), log.len_of_pool("pool"), log.read().len()), (0, 0, 3));
        log.put(slow("pool", 3));
        let (number, newest) = log.of_pool("pool", 9).remove(0);
        assert_eq!((number, newest.bytes, log.len_of_pool("pool")), (3, 3, 1));
    }

    #[test]
    fn of_a_pool_that_is_no_more_nothing_is_remembered() {
        let log = SlowLog::default();
        ["stays", "goes"].into_iter().for_each(|pool| log.put(slow(pool, 1)));
        log.retain(|pool| pool == "stays");
        assert_eq!((log.len_of_pool("stays"), log.count_of_pool("goes"), log.read().len()), (1, 0, 1));
    }
}

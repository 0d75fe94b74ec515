//! What all threads together have counted of a pool, for clients who ask the proxy about itself.

use base::WallTime;
use stats::{Cells, Counter, Gauge, Segment, Table};

use super::{KvCommand, KvPool, Ledger, command};
use crate::fault::Fault;

/// The cells of all threads. They are read here and written by each thread alone.
#[derive(Debug)]
pub(crate) struct Totals {
    pool: Vec<Cells<KvPool>>,
    segment: Segment,
    /// Where its commands are counted: looked at by who wants to know of them.
    commands: command::Ledger,
    name: String,
    /// When the process began to count.
    pub(crate) since: WallTime,
}

/// One command's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OfCommand {
    pub(crate) name: &'static str,
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) micros: u64,
}

impl Ledger {
    /// Of this pool; none when it has no numbers of its own.
    pub(super) fn totals(&self, segment: &Segment, pool: &str) -> Option<Totals> {
        let (_, place) = self.pools.iter().find(|(name, _)| name == pool)?;
        Some(Totals {
            pool: of_threads(segment, |thread| segment.cells_of(*place, thread)),
            segment: segment.clone(),
            commands: self.commands.clone(),
            name: pool.to_owned(),
            since: WallTime::from_micros(segment.started_micros()),
        })
    }
}

fn of_threads<T>(segment: &Segment, cells: impl Fn(usize) -> Option<Cells<T>>) -> Vec<Cells<T>> {
    (0..segment.threads()).filter_map(cells).collect()
}

fn sum<T: Table>(cells: &[Cells<T>], counter: Counter<T>) -> u64 {
    cells.iter().map(|cells| cells.value(counter)).fold(0, u64::wrapping_add)
}

impl Totals {
    /// A counter of the pool.
    pub(crate) fn count(&self, counter: Counter<KvPool>) -> u64 {
        sum(&self.pool, counter)
    }

    /// A gauge of the pool. Threads that are read at different moments may make it negative for once.
    pub(crate) fn gauge(&self, gauge: Gauge<KvPool>) -> u64 {
        let sum = self.pool.iter().map(|cells| cells.value(gauge)).fold(0, u64::wrapping_add);
        if sum.cast_signed() < 0 { 0 } else { sum }
    }

    /// Event threads.
    pub(crate) fn threads(&self) -> usize {
        self.pool.len()
    }

    /// Requests that got an error because no server answered them.
    pub(crate) fn forward_errors(&self) -> u64 {
        Fault::ALL.into_iter().map(|fault| self.count(KvPool::failed(fault))).sum()
    }

    /// The commands that servers were asked, but for those that are [`Self::shared`].
    pub(crate) fn commands(&self) -> impl Iterator<Item = OfCommand> {
        let of = |(name, cells): (&'static str, Vec<Cells<KvCommand>>)| OfCommand {
            name,
            calls: sum(&cells, KvCommand::CALLS),
            errors: sum(&cells, KvCommand::ERRORS),
            micros: cells.iter().map(|cells| cells.distribution(KvCommand::TIME).sum()).sum::<u64>() / 1_000,
        };
        self.cells().map(of).filter(|command| command.calls > 0)
    }

    fn cells(&self) -> impl Iterator<Item = (&'static str, Vec<Cells<KvCommand>>)> {
        let places = self.commands.of_pool(&self.name).into_iter();
        places.map(|(name, place)| (name, of_threads(&self.segment, |thread| self.segment.cells_of(place, thread))))
    }

    /// Calls of these commands together; none when one of them was seen and is counted with the others.
    pub(crate) fn calls(&self, names: &[&str]) -> Option<u64> {
        if self.shared().iter().any(|name| names.contains(name)) {
            return None;
        }
        let counted = self.cells().filter(|(name, _)| names.contains(name));
        Some(counted.map(|(_, cells)| sum(&cells, KvCommand::CALLS)).sum())
    }

    /// Commands that servers were asked and that are counted with those of other pools: nobody knows how often.
    pub(crate) fn shared(&self) -> Vec<&'static str> {
        self.commands.shared_of_pool(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers::command::{CommandIndex, Places};
    use crate::plan::Protocol;

    #[test]
    fn of_a_command_that_is_counted_with_others_is_not_told_that_nobody_asked() {
        let mut registry = stats::Registry::new();
        let commands = command::Ledger::declare(&mut registry, 1).unwrap();
        let segment = registry.layout(1).unwrap().create_on_heap(stats::Identity::default()).unwrap();
        let places = Places::new(commands.clone(), segment.clone(), 0);
        let ask = |pool: &str, name: &str| {
            let cells = places.of_pool(pool, Protocol::Memcached).of(CommandIndex::of_memcached(name.as_bytes()));
            cells.unwrap().add(KvCommand::CALLS, 1);
        };
        ask("pool", "get");
        (0..200).for_each(|other| ask(&format!("other{other}"), "get"));
        ask("pool", "gets");
        let (name, since) = ("pool".to_owned(), WallTime::from_micros(0));
        let totals = Totals { pool: Vec::new(), segment, commands, name, since };
        assert_eq!((totals.calls(&["get"]), totals.calls(&["touch"])), (Some(1), Some(0)));
        assert_eq!(totals.calls(&["get", "gets"]), None);
        assert_eq!(totals.shared(), ["gets"]);
        assert_eq!(totals.commands().map(|command| command.name).collect::<Vec<_>>(), ["get"]);
    }
}

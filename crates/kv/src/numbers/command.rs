//! What is counted of each command of each pool.
//!
//! There are hundreds of commands, and a pool sees few of them: so a command has its place when it is seen for the first
//! time. There are [`COMMANDS_OF_POOL`] places for each pool, [`COMMANDS_MAX`] at most, of some 2.6 KB for each event thread (most of it one histogram), which no
//! thread touches before it needs them; what comes when all are taken is counted as `(others)`, by protocol. A run of
//! replies to neighbours of one command costs some ten additions, whatever its length.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use stats::{Cells, Counter, Instance, Registry, RegistryError, Segment};

use super::OTHERS;
use crate::commands::{self, Command, Join, Treat};
use crate::fault::Fault;
use crate::plan::Protocol;

stats::metrics! {
    /// One thread's share of a command's numbers in a pool.
    pub struct KvCommand;

    /// Requests of the command that servers answered; a part of a split one is one.
    counter CALLS = "beltway_kv_command_calls_total";
    /// Replies to the command that are errors.
    counter ERRORS = "beltway_kv_command_error_replies_total";
    /// Bytes of those requests.
    counter REQUEST_BYTES = "beltway_kv_command_request_bytes_total" in Bytes;
    /// Bytes of the replies to them.
    counter REPLY_BYTES = "beltway_kv_command_reply_bytes_total" in Bytes;
    /// Reads by the command, by what they found.
    counter HITS = "beltway_kv_command_reads_total" { found = "something" };
    /// Reads by the command, by what they found.
    counter MISSES = "beltway_kv_command_reads_total" { found = "nothing" };
    /// Requests of the command that got an error because no server answered them, by why.
    counter REFUSED = "beltway_kv_command_forward_errors_total" { kind = "refused" };
    /// Requests of the command that got an error because no server answered them, by why.
    counter RESET = "beltway_kv_command_forward_errors_total" { kind = "reset" };
    /// Requests of the command that got an error because no server answered them, by why.
    counter CLOSED = "beltway_kv_command_forward_errors_total" { kind = "closed" };
    /// Requests of the command that got an error because no server answered them, by why.
    counter TIMED_OUT = "beltway_kv_command_forward_errors_total" { kind = "timed_out" };
    /// Requests of the command that got an error because no server answered them, by why.
    counter UNREACHABLE = "beltway_kv_command_forward_errors_total" { kind = "unreachable" };
    /// Requests of the command that got an error because no server answered them, by why.
    counter HANDSHAKE = "beltway_kv_command_forward_errors_total" { kind = "handshake" };
    /// Requests of the command that got an error because no server answered them, by why.
    counter OTHER_FAULT = "beltway_kv_command_forward_errors_total" { kind = "other" };
    /// From arrival to reply.
    histogram TIME = "beltway_kv_command_seconds" in Nanoseconds;
}

impl KvCommand {
    const fn failed(fault: Fault) -> Counter<Self> {
        match fault {
            Fault::Refused => Self::REFUSED,
            Fault::Reset => Self::RESET,
            Fault::Closed => Self::CLOSED,
            Fault::TimedOut => Self::TIMED_OUT,
            Fault::Unreachable => Self::UNREACHABLE,
            Fault::Handshake => Self::HANDSHAKE,
            _ => Self::OTHER_FAULT,
        }
    }
}

/// Commands of all pools together that are counted each by itself, and how many there is room for by each pool: what is
/// kept room for takes memory and has to be there when a server starts.
const COMMANDS_MAX: usize = 128;
const COMMANDS_OF_POOL: usize = 24;

/// memcached's commands, which have no table.
const MEMCACHED: [&str; 17] = [
    "get",
    "gets",
    "gat",
    "gats",
    "set",
    "add",
    "replace",
    "append",
    "prepend",
    "cas",
    "delete",
    "incr",
    "decr",
    "touch",
    "flush_all",
    "version",
    "stats",
];

/// Which command of its protocol a request is, for its numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CommandIndex(u16);

impl CommandIndex {
    /// None that is counted.
    pub(crate) const NONE: Self = Self(u16::MAX);

    /// Of Redis.
    #[inline]
    pub(crate) fn of(command: &'static Command) -> Self {
        let first = std::ptr::from_ref(&commands::all()[0]).addr();
        let at = (std::ptr::from_ref(command).addr() - first) / size_of::<Command>();
        Self(u16::try_from(at).unwrap_or(u16::MAX))
    }

    /// Of memcached, by its name.
    #[inline]
    pub(crate) fn of_memcached(name: &[u8]) -> Self {
        let at = MEMCACHED.iter().position(|known| known.as_bytes() == name);
        Self(at.and_then(|at| u16::try_from(at).ok()).unwrap_or(u16::MAX))
    }

    /// Its name.
    pub(crate) fn name(self, protocol: Protocol) -> &'static str {
        let at = usize::from(self.0);
        let name = match protocol {
            Protocol::Redis => commands::all().get(at).map(|command| command.name),
            Protocol::Memcached => MEMCACHED.get(at).copied(),
        };
        name.unwrap_or("?")
    }

    /// Whether Redis answers it with an array of values, one for each key.
    pub(crate) fn has_many_values(self) -> bool {
        commands::all().get(usize::from(self.0)).is_some_and(|command| command.treat == Treat::Split(Join::Values))
    }
}

/// A command of a pool: its name and protocol, and the command's index.
type Key = (String, &'static str, u16);

/// Where commands that were seen are counted, for all threads.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    /// With their names.
    seen: Arc<Mutex<BTreeMap<Key, (&'static str, Instance)>>>,
    others: [(Protocol, Instance); 2],
}

impl Ledger {
    pub(super) fn declare(registry: &mut Registry, pools: usize) -> Result<Self, RegistryError> {
        registry.reserve::<KvCommand>(COMMANDS_MAX.min(pools.saturating_mul(COMMANDS_OF_POOL)));
        let mut others = |protocol| {
            let labels = [("pool", OTHERS), ("protocol", word(protocol)), ("command", OTHERS)];
            Ok((protocol, registry.add_for::<KvCommand>(&labels)?))
        };
        Ok(Self { seen: Arc::default(), others: [others(Protocol::Redis)?, others(Protocol::Memcached)?] })
    }

    /// The place of a command, which may be seen for the first time.
    fn place(&self, segment: &Segment, pool: &str, protocol: Protocol, command: CommandIndex) -> Option<Instance> {
        let key = (pool.to_owned(), word(protocol), command.0);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, place)) = seen.get(&key) {
            return Some(*place);
        }
        let name = command.name(protocol);
        let labels = [("pool", pool), ("protocol", word(protocol)), ("command", name)];
        let place = segment.add_late::<KvCommand>(&labels);
        let place = place.or_else(|| self.others.iter().find(|(own, _)| *own == protocol).map(|(_, place)| *place))?;
        seen.insert(key, (name, place));
        Some(place)
    }

    /// The commands of a pool that were seen and have places of their own.
    pub(super) fn of_pool(&self, pool: &str) -> Vec<(&'static str, Instance)> {
        self.seen_of(pool, false)
    }

    /// Those that were seen and are counted with the others.
    pub(super) fn shared_of_pool(&self, pool: &str) -> Vec<&'static str> {
        self.seen_of(pool, true).into_iter().map(|(name, _)| name).collect()
    }

    fn seen_of(&self, pool: &str, with_others: bool) -> Vec<(&'static str, Instance)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let own = seen.iter().filter(|((name, ..), _)| name == pool).map(|(_, seen)| *seen);
        own.filter(|(_, place)| self.others.iter().any(|(_, other)| other == place) == with_others).collect()
    }
}

const fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Redis => "redis",
        Protocol::Memcached => "memcached",
    }
}

/// One thread's cells of all commands.
#[derive(Debug, Default)]
pub(super) struct Places {
    everywhere: Option<Rc<(Ledger, Segment, usize)>>,
    pools: RefCell<HashMap<(String, &'static str), Commands>>,
}

impl Places {
    pub(super) fn new(ledger: Ledger, segment: Segment, thread: usize) -> Self {
        Self { everywhere: Some(Rc::new((ledger, segment, thread))), pools: RefCell::default() }
    }

    pub(super) fn of_pool(&self, pool: &str, protocol: Protocol) -> Commands {
        let new = || {
            let count = match protocol {
                Protocol::Redis => commands::all().len(),
                Protocol::Memcached => MEMCACHED.len(),
            };
            Commands(Rc::new(OfPool {
                pool: pool.to_owned(),
                protocol,
                everywhere: self.everywhere.clone(),
                cells: vec![Cell::new(None); if self.everywhere.is_some() { count } else { 0 }].into(),
            }))
        };
        self.pools.borrow_mut().entry((pool.to_owned(), word(protocol))).or_insert_with(new).clone()
    }
}

/// One thread's cells of a pool's commands.
#[derive(Clone, Debug)]
pub(crate) struct Commands(Rc<OfPool>);

#[derive(Debug)]
struct OfPool {
    pool: String,
    protocol: Protocol,
    everywhere: Option<Rc<(Ledger, Segment, usize)>>,
    /// By the commands' index; none: not seen on this thread.
    cells: Box<[Cell<Option<Cells<KvCommand>>>]>,
}

impl Commands {
    /// Where that command is counted.
    #[inline]
    pub(crate) fn of(&self, index: CommandIndex) -> Option<Cells<KvCommand>> {
        let place = self.0.cells.get(usize::from(index.0))?;
        place.get().or_else(|| self.first(index, place))
    }

    #[cold]
    fn first(&self, index: CommandIndex, place: &Cell<Option<Cells<KvCommand>>>) -> Option<Cells<KvCommand>> {
        let (ledger, segment, thread) = &**self.0.everywhere.as_ref()?;
        let instance = ledger.place(segment, &self.0.pool, self.0.protocol, index)?;
        place.set(segment.cells_of(instance, *thread));
        place.get()
    }

    /// A request got an error because no server answered it.
    #[cold]
    pub(crate) fn failed(&self, index: CommandIndex, fault: Fault) {
        if let Some(cells) = self.of(index) {
            cells.add(KvCommand::failed(fault), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stats::Snapshot;

    #[test]
    fn commands_have_places_when_they_are_seen_and_share_one_when_there_are_none_left() {
        let mut registry = Registry::new();
        let ledger = Ledger::declare(&mut registry, COMMANDS_MAX).unwrap();
        let segment = registry.layout(2).unwrap().create_on_heap(stats::Identity::default()).unwrap();
        let threads = [0, 1].map(|thread| Places::new(ledger.clone(), segment.clone(), thread));
        let calls = || {
            let read = Snapshot::read(segment.words()).unwrap();
            let told = read.metrics.into_iter().filter(|metric| metric.name == "beltway_kv_command_calls_total");
            told.map(|metric| (metric.labels[2].1.clone(), metric.value)).collect::<Vec<_>>()
        };
        assert_eq!(calls().len(), 2, "none but the others");
        for thread in &threads {
            let commands = thread.of_pool("pool", Protocol::Memcached);
            commands.of(CommandIndex::of_memcached(b"get")).unwrap().add(KvCommand::CALLS, 3);
            assert!(commands.of(CommandIndex::NONE).is_none());
        }
        assert_eq!(calls().pop(), Some(("get".to_owned(), stats::Value::Counter(6))));
        assert_eq!(ledger.of_pool("pool").len(), 1);
        for pool in 0..COMMANDS_MAX {
            let commands = threads[0].of_pool(&format!("other{pool}"), Protocol::Memcached);
            commands.of(CommandIndex::of_memcached(b"set")).unwrap().add(KvCommand::CALLS, 1);
        }
        assert_eq!(calls().len(), 2 + COMMANDS_MAX);
        let shared = calls().into_iter().filter(|(name, _)| name == OTHERS).map(|(_, value)| value);
        assert!(shared.collect::<Vec<_>>().contains(&stats::Value::Counter(1)));
        let last = format!("other{}", COMMANDS_MAX - 1);
        assert_eq!((ledger.of_pool(&last).len(), ledger.shared_of_pool(&last)), (0, vec!["set"]));
        assert!(ledger.shared_of_pool("pool").is_empty());
        threads[1].of_pool("pool", Protocol::Memcached).failed(CommandIndex::of_memcached(b"get"), Fault::TimedOut);
        let labels = [("pool", "pool"), ("protocol", "memcached"), ("command", "get"), ("kind", "timed_out")];
        let read = Snapshot::read(segment.words()).unwrap();
        let failed = read.metric("beltway_kv_command_forward_errors_total", &labels).unwrap();
        assert_eq!(failed.value, stats::Value::Counter(1));
    }
}

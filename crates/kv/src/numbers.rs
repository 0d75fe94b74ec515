//! What is counted of each pool, server and command.
//!
//! [`Ledger::declare`] gives pools and servers their places in the segment, [`Ledger::numbers`] a thread its cells. A server
//! that a reload brings has its place from then on, as long as there is room: at least `LATE_SERVERS_MIN` do, and as many
//! as there were at the start, up to `LATE_SERVERS_MAX`. What comes then counts together with all others of that kind
//! until the next restart. A pool is never brought by a reload. A command of a pool has its place from its first reply or failure on (see `command`).

mod command;
mod totals;

pub(crate) use command::{CommandIndex, Commands, KvCommand};
pub(crate) use totals::Totals;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use stats::{Cells, Counter, Instance, Registry, RegistryError, Segment};

use config::kv::{COUNTED_POOLS_MAX, COUNTED_SERVERS_MAX};

use crate::fault::Fault;
use crate::plan::{Plan, Protocol};

stats::metrics! {
    /// One thread's share of a pool's numbers.
    pub struct KvPool;

    /// Clients that connected to the pool.
    counter CLIENTS = "beltway_kv_pool_clients_total";
    /// Clients connected to the pool now.
    gauge CLIENTS_OPEN = "beltway_kv_pool_clients_open";
    /// Clients that left the pool, by how.
    counter CLIENT_EOF = "beltway_kv_pool_client_ends_total" { how = "closed" };
    /// Clients that left the pool, by how.
    counter CLIENT_ERR = "beltway_kv_pool_client_ends_total" { how = "failed" };
    /// Clients that left the pool, by how.
    counter CLIENT_MOVED = "beltway_kv_pool_client_ends_total" { how = "moved" };
    /// Requests of the pool's clients.
    counter REQUESTS = "beltway_kv_pool_requests_total";
    /// Bytes received from the pool's clients.
    counter RECEIVED = "beltway_kv_pool_received_bytes_total" in Bytes;
    /// Bytes sent to the pool's clients.
    counter SENT = "beltway_kv_pool_sent_bytes_total" in Bytes;
    /// Parts that requests for several of the pool's servers were split into.
    counter FRAGMENTS = "beltway_kv_pool_fragments_total";
    /// Times one of the pool's servers was ejected.
    counter EJECTS = "beltway_kv_pool_ejections_total";
    /// Requests that got an error because no server of the pool answered them, by why.
    counter REFUSED = "beltway_kv_pool_forward_errors_total" { kind = "refused" };
    /// Requests that got an error because no server of the pool answered them, by why.
    counter RESET = "beltway_kv_pool_forward_errors_total" { kind = "reset" };
    /// Requests that got an error because no server of the pool answered them, by why.
    counter CLOSED = "beltway_kv_pool_forward_errors_total" { kind = "closed" };
    /// Requests that got an error because no server of the pool answered them, by why.
    counter TIMED_OUT = "beltway_kv_pool_forward_errors_total" { kind = "timed_out" };
    /// Requests that got an error because no server of the pool answered them, by why.
    counter UNREACHABLE = "beltway_kv_pool_forward_errors_total" { kind = "unreachable" };
    /// Requests that got an error because no server of the pool answered them, by why.
    counter HANDSHAKE = "beltway_kv_pool_forward_errors_total" { kind = "handshake" };
    /// Requests that got an error because no server of the pool answered them, by why.
    counter NONSENSE = "beltway_kv_pool_forward_errors_total" { kind = "nonsense" };
    /// Requests that got an error because no server of the pool answered them, by why.
    counter TOO_LARGE = "beltway_kv_pool_forward_errors_total" { kind = "too_large" };
    /// Requests that got an error because no server of the pool answered them, by why.
    counter UNLIKE = "beltway_kv_pool_forward_errors_total" { kind = "unlike" };
    /// Requests that got an error because no server of the pool answered them, by why.
    counter INTERNAL = "beltway_kv_pool_forward_errors_total" { kind = "internal" };
    /// Reads of the pool's clients, by what they found.
    counter HITS = "beltway_kv_pool_reads_total" { found = "something" };
    /// Reads of the pool's clients, by what they found.
    counter MISSES = "beltway_kv_pool_reads_total" { found = "nothing" };
    /// Bytes that the pool keeps of requests and replies, of its `memory`.
    gauge MEMORY = "beltway_kv_pool_memory_bytes" in Bytes;
    /// From a client's first request that is not answered to the moment when none is left.
    histogram CLIENT_TIME = "beltway_kv_pool_client_seconds" in Nanoseconds;
}

impl KvPool {
    /// Requests that were answered with this.
    pub(crate) const fn failed(fault: Fault) -> Counter<Self> {
        match fault {
            Fault::Refused => Self::REFUSED,
            Fault::Reset => Self::RESET,
            Fault::Closed => Self::CLOSED,
            Fault::TimedOut => Self::TIMED_OUT,
            Fault::Unreachable => Self::UNREACHABLE,
            Fault::Handshake => Self::HANDSHAKE,
            Fault::Nonsense => Self::NONSENSE,
            Fault::TooLarge => Self::TOO_LARGE,
            Fault::Unlike => Self::UNLIKE,
            Fault::Internal => Self::INTERNAL,
        }
    }
}

stats::metrics! {
    /// One thread's share of a server's numbers.
    pub struct KvServer;

    /// Connections to the server that ended, by how.
    counter EOF = "beltway_kv_server_ends_total" { how = "closed" };
    /// Connections to the server that ended, by how.
    counter ERR = "beltway_kv_server_ends_total" { how = "failed" };
    /// Connections to the server that were begun.
    counter CONNECTS = "beltway_kv_server_connects_total";
    /// Requests to the server whose time was over before a reply came.
    counter TIMED_OUT = "beltway_kv_server_timeouts_total";
    /// Connections to the server now.
    gauge CONNECTIONS = "beltway_kv_server_connections";
    /// Event threads on which the server is out of its ring.
    gauge EJECTED = "beltway_kv_server_ejected_threads";
    /// Event threads on which requests for the server fail at once.
    gauge DOWN = "beltway_kv_server_down_threads";
    /// Requests sent to the server.
    counter REQUESTS = "beltway_kv_server_sent_requests_total";
    /// Bytes sent to the server.
    counter REQUEST_BYTES = "beltway_kv_server_sent_bytes_total" in Bytes;
    /// Replies of the server.
    counter RESPONSES = "beltway_kv_server_replies_total";
    /// Bytes received from the server.
    counter RESPONSE_BYTES = "beltway_kv_server_reply_bytes_total" in Bytes;
    /// Replies of the server that are errors, by their first word.
    counter PLAIN_ERROR = "beltway_kv_server_error_replies_total" { kind = "ERR" };
    /// Replies of the server that are errors, by their first word.
    counter WRONGTYPE = "beltway_kv_server_error_replies_total" { kind = "WRONGTYPE" };
    /// Replies of the server that are errors, by their first word.
    counter READONLY = "beltway_kv_server_error_replies_total" { kind = "READONLY" };
    /// Replies of the server that are errors, by their first word.
    counter OOM = "beltway_kv_server_error_replies_total" { kind = "OOM" };
    /// Replies of the server that are errors, by their first word.
    counter BUSY = "beltway_kv_server_error_replies_total" { kind = "BUSY" };
    /// Replies of the server that are errors, by their first word.
    counter LOADING = "beltway_kv_server_error_replies_total" { kind = "LOADING" };
    /// Replies of the server that are errors, by their first word.
    counter MOVED = "beltway_kv_server_error_replies_total" { kind = "MOVED" };
    /// Replies of the server that are errors, by their first word.
    counter CLIENT_ERROR = "beltway_kv_server_error_replies_total" { kind = "CLIENT_ERROR" };
    /// Replies of the server that are errors, by their first word.
    counter SERVER_ERROR = "beltway_kv_server_error_replies_total" { kind = "SERVER_ERROR" };
    /// Replies of the server that are errors, by their first word.
    counter OTHER_ERROR = "beltway_kv_server_error_replies_total" { kind = "other" };
    /// Reads of the server, by what they found.
    counter HITS = "beltway_kv_server_reads_total" { found = "something" };
    /// Reads of the server, by what they found.
    counter MISSES = "beltway_kv_server_reads_total" { found = "nothing" };
    /// Requests that wait to be sent to the server now.
    gauge IN_QUEUE = "beltway_kv_server_in_queue";
    /// Bytes of them.
    gauge IN_QUEUE_BYTES = "beltway_kv_server_in_queue_bytes" in Bytes;
    /// Requests that wait for the server's reply now.
    gauge OUT_QUEUE = "beltway_kv_server_out_queue";
    /// Bytes of them.
    gauge OUT_QUEUE_BYTES = "beltway_kv_server_out_queue_bytes" in Bytes;
    /// How long the first request of each batch waited before it was sent to the server.
    histogram QUEUE_TIME = "beltway_kv_server_queue_seconds" in Nanoseconds;
    /// From a request's arrival to the server's reply.
    histogram TIME = "beltway_kv_server_seconds" in Nanoseconds;
}

impl KvServer {
    /// Replies that are this error.
    pub(crate) fn error(reply: &[u8]) -> Counter<Self> {
        let word = reply.split(|byte| !byte.is_ascii_alphabetic() && *byte != b'_' && *byte != b'-').next();
        match word.unwrap_or_default() {
            b"-ERR" | b"ERROR" => Self::PLAIN_ERROR,
            b"-WRONGTYPE" => Self::WRONGTYPE,
            b"-READONLY" => Self::READONLY,
            b"-OOM" => Self::OOM,
            b"-BUSY" => Self::BUSY,
            b"-LOADING" => Self::LOADING,
            b"-MOVED" | b"-ASK" => Self::MOVED,
            b"CLIENT_ERROR" => Self::CLIENT_ERROR,
            b"SERVER_ERROR" => Self::SERVER_ERROR,
            _ => Self::OTHER_ERROR,
        }
    }
}

/// Servers that reloads bring and that are counted each by itself: what is kept room for takes some 5 KB for each event
/// thread.
const LATE_SERVERS_MIN: usize = 8;
/// The same, however many there were at the start.
const LATE_SERVERS_MAX: usize = 64;

/// What the others are called.
const OTHERS: &str = "(others)";

/// A server: its pool's name and its own.
type Key = (String, String);

/// Where everything is counted.
#[derive(Clone, Debug)]
pub struct Ledger {
    pools: Vec<(String, Instance)>,
    servers: Vec<(String, String, Instance)>,
    /// Those that reloads brought; none: it counts with the others.
    late: Arc<Mutex<BTreeMap<Key, Option<Instance>>>>,
    other_pool: Instance,
    other_server: Instance,
    commands: command::Ledger,
}

impl Ledger {
    /// Gives each pool, server and command of `plan` its place.
    ///
    /// # Errors
    /// What the registry says.
    pub fn declare(registry: &mut Registry, plan: &Plan) -> Result<Self, RegistryError> {
        let (mut pools, mut servers, mut late) = (Vec::new(), Vec::new(), BTreeMap::new());
        for pool in plan.pools.iter().take(COUNTED_POOLS_MAX) {
            let name = &pool.source.name;
            pools.push((name.clone(), registry.add_for::<KvPool>(&[("pool", name)])?));
            for server in &pool.servers {
                if servers.len() < COUNTED_SERVERS_MAX {
                    let labels = [("pool", name.as_str()), ("server", server.name.as_str())];
                    servers.push((name.clone(), server.name.clone(), registry.add_for::<KvServer>(&labels)?));
                } else {
                    late.insert((name.clone(), server.name.clone()), None);
                }
            }
        }
        // What commands keep room for comes first where there is not enough for all.
        let commands = command::Ledger::declare(registry, plan.pools.len())?;
        if !servers.is_empty() {
            registry.reserve::<KvServer>(servers.len().clamp(LATE_SERVERS_MIN, LATE_SERVERS_MAX));
        }
        Ok(Self {
            pools,
            servers,
            late: Arc::new(Mutex::new(late)),
            commands,
            other_pool: registry.add_for::<KvPool>(&[("pool", OTHERS)])?,
            other_server: registry.add_for::<KvServer>(&[("pool", OTHERS), ("server", OTHERS)])?,
        })
    }

    /// The cells of one event thread; none when the segment has none for it.
    #[must_use]
    pub fn numbers(&self, segment: &Segment, thread: usize) -> Option<Numbers> {
        let pools = self.pools.iter().map(|(name, place)| Some((name.clone(), segment.cells_of(*place, thread)?)));
        let servers = self
            .servers
            .iter()
            .map(|(pool, server, place)| Some((pool.clone(), server.clone(), segment.cells_of(*place, thread)?)));
        Some(Numbers {
            everywhere: Some(Box::new((self.clone(), segment.clone(), thread))),
            pools: pools.collect::<Option<_>>()?,
            servers: servers.collect::<Option<_>>()?,
            other_pool: segment.cells_of(self.other_pool, thread)?,
            other_server: segment.cells_of(self.other_server, thread)?,
            commands: command::Places::new(self.commands.clone(), segment.clone(), thread),
        })
    }

    /// The place of a server that was not there at the start, if there is one for it.
    fn late_place(&self, segment: &Segment, pool: &str, server: &str) -> Option<Instance> {
        self.pools.iter().find(|(name, _)| name == pool)?;
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let known = late.get(&(pool.to_owned(), server.to_owned())).copied();
        known.unwrap_or_else(|| {
            // Who has none will not get one later, either: nothing is remembered of it.
            let place = segment.add_late::<KvServer>(&[("pool", pool), ("server", server)])?;
            late.insert((pool.to_owned(), server.to_owned()), Some(place));
            Some(place)
        })
    }
}

/// One thread's cells.
#[derive(Debug)]
pub struct Numbers {
    pools: Vec<(String, Cells<KvPool>)>,
    servers: Vec<(String, String, Cells<KvServer>)>,
    other_pool: Cells<KvPool>,
    other_server: Cells<KvServer>,
    commands: command::Places,
    /// Where all threads' are, and which of them this one is.
    everywhere: Option<Box<(Ledger, Segment, usize)>>,
}

impl Numbers {
    /// Cells that nobody reads: for trying and measuring.
    #[must_use]
    pub fn detached() -> Self {
        Self {
            pools: Vec::new(),
            servers: Vec::new(),
            other_pool: Cells::detached(),
            other_server: Cells::detached(),
            commands: command::Places::default(),
            everywhere: None,
        }
    }

    /// What all threads have counted of a pool; none when it has no numbers of its own.
    pub(crate) fn totals(&self, pool: &str) -> Option<Totals> {
        let (ledger, segment, _) = self.everywhere.as_deref()?;
        ledger.totals(segment, pool)
    }

    pub(crate) fn pool(&self, name: &str) -> Cells<KvPool> {
        self.pools.iter().find(|(pool, _)| pool == name).map_or(self.other_pool, |(_, cells)| *cells)
    }

    pub(crate) fn server(&self, pool: &str, name: &str) -> Cells<KvServer> {
        let found = self.servers.iter().find(|(in_pool, server, _)| in_pool == pool && server == name);
        let late = || {
            let (ledger, segment, thread) = self.everywhere.as_deref()?;
            segment.cells_of(ledger.late_place(segment, pool, name)?, *thread)
        };
        found.map(|(_, _, cells)| *cells).or_else(late).unwrap_or(self.other_server)
    }

    pub(crate) fn commands(&self, pool: &str, protocol: Protocol) -> Commands {
        self.commands.of_pool(pool, protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stats::{Snapshot, Value};

    fn plan(servers: usize) -> Arc<Plan> {
        let servers: String = (0..servers).map(|at| format!("\"127.0.0.1:1:1 s{at}\",")).collect();
        let text = format!("kv: {{pools: {{a: {{listen: 127.0.0.1:2, redis: true, servers: [{servers}]}}}}}}");
        Plan::prepare(crate::configuration::pools(&config::parse("f", &text).unwrap().kv).unwrap()).unwrap()
    }

    /// The replies of that server, when they are counted by themselves.
    fn replies(segment: &Segment, server: &str) -> Option<Value> {
        let read = Snapshot::read(segment.words()).unwrap();
        let pool = if server == OTHERS { OTHERS } else { "a" };
        let metric = read.metric("beltway_kv_server_replies_total", &[("pool", pool), ("server", server)])?;
        Some(metric.value.clone())
    }

    fn begun(servers: usize) -> (Segment, [Numbers; 2]) {
        let mut registry = Registry::new();
        let ledger = Ledger::declare(&mut registry, &plan(servers)).unwrap();
        let segment = registry.layout(2).unwrap().create_on_heap(stats::Identity::default()).unwrap();
        let threads = [0, 1].map(|thread| ledger.numbers(&segment, thread).unwrap());
        (segment, threads)
    }

    #[test]
    fn servers_that_come_later_are_counted_each_by_itself_as_long_as_there_is_room() {
        let (segment, threads) = begun(1);
        assert_eq!(replies(&segment, "late0"), None);
        for round in 1..=2 {
            for late in 0..=LATE_SERVERS_MIN {
                for thread in &threads {
                    thread.server("a", &format!("late{late}")).add(KvServer::RESPONSES, 1);
                }
            }
            assert_eq!(replies(&segment, "late0"), Some(Value::Counter(2 * round)), "on both threads");
            let last = format!("late{}", LATE_SERVERS_MIN - 1);
            assert_eq!(replies(&segment, &last), Some(Value::Counter(2 * round)));
            assert_eq!(replies(&segment, &format!("late{LATE_SERVERS_MIN}")), None);
            assert_eq!(replies(&segment, OTHERS), Some(Value::Counter(2 * round)));
        }
        threads[0].server("b", "late0").add(KvServer::RESPONSES, 1);
        assert_eq!(replies(&segment, OTHERS), Some(Value::Counter(5)), "of a pool that is not counted none is");
    }

    #[test]
    fn servers_that_were_too_many_at_the_start_take_no_room_from_those_that_come_later() {
        let (segment, threads) = begun(COUNTED_SERVERS_MAX + 100);
        for server in 0..COUNTED_SERVERS_MAX + 100 {
            threads[0].server("a", &format!("s{server}")).add(KvServer::RESPONSES, 1);
        }
        assert_eq!(replies(&segment, &format!("s{COUNTED_SERVERS_MAX}")), None);
        assert_eq!(replies(&segment, OTHERS), Some(Value::Counter(100)));
        for late in 0..LATE_SERVERS_MAX {
            threads[0].server("a", &format!("late{late}")).add(KvServer::RESPONSES, 1);
        }
        assert_eq!(replies(&segment, OTHERS), Some(Value::Counter(100)));
    }
}

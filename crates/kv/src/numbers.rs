//! What is counted of each pool, server and command.
//!
//! [`Ledger::declare`] gives each its place in the segment, [`Ledger::numbers`] a thread its cells. A server that a reload
//! brings has no place of its own before the next restart: it counts together with all others of that kind. Commands
//! are counted pool by pool, as far as there are few pools; of those that were never called nobody is told.

mod totals;

use std::sync::Arc;

pub(crate) use totals::Totals;

use stats::{Cells, Counter, Instance, Registry, RegistryError, Segment};

use config::kv::{COUNTED_POOLS_MAX, COUNTED_SERVERS_MAX};

use crate::commands::{self, Command, Join, Treat};
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

stats::metrics! {
    /// One thread's share of a command's numbers in a pool.
    pub struct KvCommand;

    /// Requests of the command that servers answered; a part of a split one is one.
    counter CALLS = "beltway_kv_command_calls_total";
    /// Replies to the command that are errors.
    counter ERRORS = "beltway_kv_command_error_replies_total";
    /// From arrival to reply, all requests of the command together.
    counter TIME = "beltway_kv_command_seconds_total" in Nanoseconds;
}

/// Pools whose commands are counted pool by pool; those of all others are counted together.
const COMMAND_POOLS_MAX: usize = 8;
/// What the others are called.
const OTHERS: &str = "(others)";

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

/// The names of all that servers are sent, by their index; none in the place of what they are not.
fn sent(protocol: Protocol) -> Vec<Option<&'static str>> {
    match protocol {
        Protocol::Redis => {
            let goes = |command: &Command| {
                matches!(
                    command.treat,
                    Treat::Forward | Treat::OneDatabase | Treat::Split(_) | Treat::Any | Treat::Alone
                )
            };
            commands::all().iter().map(|command| goes(command).then_some(command.name)).collect()
        }
        Protocol::Memcached => MEMCACHED.iter().copied().map(Some).collect(),
    }
}

/// What each thread has of something for each command.
type EachCommand<T> = Arc<[Option<T>]>;

/// Where everything is counted.
#[derive(Clone, Debug)]
pub struct Ledger {
    pools: Vec<(String, Instance)>,
    servers: Vec<(String, String, Instance)>,
    other_pool: Instance,
    other_server: Instance,
    /// The commands of the first pools, and of all others by their protocol.
    commands: Vec<(String, EachCommand<Instance>)>,
    other_commands: Vec<(Protocol, EachCommand<Instance>)>,
}

impl Ledger {
    /// Gives each pool, server and command of `plan` its place.
    ///
    /// # Errors
    /// What the registry says.
    pub fn declare(registry: &mut Registry, plan: &Plan) -> Result<Self, RegistryError> {
        let (mut pools, mut servers) = (Vec::new(), Vec::new());
        for pool in plan.pools.iter().take(COUNTED_POOLS_MAX) {
            let name = &pool.source.name;
            pools.push((name.clone(), registry.add_for::<KvPool>(&[("pool", name)])?));
            for server in &pool.servers {
                if servers.len() < COUNTED_SERVERS_MAX {
                    let labels = [("pool", name.as_str()), ("server", server.name.as_str())];
                    servers.push((name.clone(), server.name.clone(), registry.add_for::<KvServer>(&labels)?));
                }
            }
        }
        let mut each = |pool: &str, protocol| {
            let word = if protocol == Protocol::Redis { "redis" } else { "memcached" };
            let place = |name: Option<&str>| {
                let labels = |name| [("pool", pool), ("protocol", word), ("command", name)];
                name.map(|name| registry.add_for::<KvCommand>(&labels(name))).transpose()
            };
            sent(protocol).into_iter().map(place).collect::<Result<EachCommand<Instance>, _>>()
        };
        let (mut commands, mut other_commands) = (Vec::new(), Vec::new());
        for pool in plan.pools.iter().take(COMMAND_POOLS_MAX) {
            commands.push((pool.source.name.clone(), each(&pool.source.name, pool.protocol)?));
        }
        // A reload may bring any kind.
        for protocol in [Protocol::Redis, Protocol::Memcached] {
            other_commands.push((protocol, each(OTHERS, protocol)?));
        }
        Ok(Self {
            pools,
            servers,
            commands,
            other_commands,
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
        let cells = |places: &EachCommand<Instance>| {
            let cell = |place: &Option<Instance>| match place {
                Some(place) => segment.cells_of::<KvCommand>(*place, thread).map(Some),
                None => Some(None),
            };
            places.iter().map(cell).collect::<Option<EachCommand<Cells<KvCommand>>>>()
        };
        Some(Numbers {
            everywhere: Some(Box::new((self.clone(), segment.clone()))),
            pools: pools.collect::<Option<_>>()?,
            servers: servers.collect::<Option<_>>()?,
            other_pool: segment.cells_of(self.other_pool, thread)?,
            other_server: segment.cells_of(self.other_server, thread)?,
            commands: self
                .commands
                .iter()
                .map(|(pool, places)| Some((pool.clone(), cells(places)?)))
                .collect::<Option<_>>()?,
            other_commands: self
                .other_commands
                .iter()
                .map(|(protocol, places)| Some((*protocol, cells(places)?)))
                .collect::<Option<_>>()?,
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
    commands: Vec<(String, EachCommand<Cells<KvCommand>>)>,
    other_commands: Vec<(Protocol, EachCommand<Cells<KvCommand>>)>,
    /// Where all threads' are.
    everywhere: Option<Box<(Ledger, Segment)>>,
}

/// One thread's cells of a pool's commands.
#[derive(Clone, Debug)]
pub(crate) struct Commands(EachCommand<Cells<KvCommand>>);

impl Commands {
    #[inline]
    pub(crate) fn of(&self, index: CommandIndex) -> Option<&Cells<KvCommand>> {
        self.0.get(usize::from(index.0))?.as_ref()
    }
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
            commands: Vec::new(),
            other_commands: Vec::new(),
            everywhere: None,
        }
    }

    /// What all threads have counted of a pool; none when it has no numbers of its own.
    pub(crate) fn totals(&self, pool: &str, protocol: Protocol) -> Option<Totals> {
        let (ledger, segment) = self.everywhere.as_deref()?;
        ledger.totals(segment, pool, protocol)
    }

    pub(crate) fn pool(&self, name: &str) -> Cells<KvPool> {
        self.pools.iter().find(|(pool, _)| pool == name).map_or(self.other_pool, |(_, cells)| *cells)
    }

    pub(crate) fn server(&self, pool: &str, name: &str) -> Cells<KvServer> {
        let found = self.servers.iter().find(|(in_pool, server, _)| in_pool == pool && server == name);
        found.map_or(self.other_server, |(_, _, cells)| *cells)
    }

    pub(crate) fn commands(&self, pool: &str, protocol: Protocol) -> Commands {
        let own = self.commands.iter().find(|(name, _)| name == pool).map(|(_, cells)| cells);
        let others = || self.other_commands.iter().find(|(speaks, _)| *speaks == protocol).map(|(_, cells)| cells);
        Commands(own.or_else(others).map_or_else(|| Arc::from([]), Arc::clone))
    }
}

//! What is told of the pools: to `ctl kv`, and as twemproxy's line of JSON.
//!
//! Numbers come from the segment by name, like everybody's; what pools and servers there are, from the configuration; and
//! how servers are, from the threads that use them: what is not counted is told of as truly as the rest.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use base::{Clock, SystemClock, WallTime};
use config::Config;
use config::kv::{COUNTED_POOLS_MAX, COUNTED_SERVERS_MAX, KvServer};
use kv::ServerState;
use kv::stats_json::{PoolNumbers, PoolReport, Report, ServerNumbers};
use stats::{Distribution, Segment, Snapshot, Value};
use supervise::kv::{KvCommandReport, KvPoolReport, KvReport, KvServerReport, KvSlowReport, Times};

/// The release of twemproxy whose line this is.
const TWEMPROXY: &str = "0.5.0";

/// Bytes of slow requests in one answer, which has room for the pools, too: the control socket's packets are bounded.
const SLOW_BYTES_MAX: usize = 40 << 10;
/// Bytes of a slow request in JSON, at most, beside its texts.
const SLOW_BYTES_BESIDE: usize = 256;

/// What the configuration says of a pool.
#[derive(Clone, Debug)]
pub(crate) struct PoolFacts {
    pub(crate) name: String,
    pub(crate) redis: bool,
    pub(crate) listen: String,
    pub(crate) keep_alive: bool,
    pub(crate) memory: u64,
    pub(crate) servers: Vec<String>,
    /// Whether a server process that starts with this configuration counts it by itself, and how many of its servers.
    counts: Option<usize>,
}

impl PoolFacts {
    /// Of every pool.
    pub(crate) fn of(config: &Config) -> Vec<Self> {
        let mut room = COUNTED_SERVERS_MAX;
        let pools = config.kv.pools.iter().enumerate().map(|(at, pool)| Self {
            counts: (at < COUNTED_POOLS_MAX).then(|| {
                let counts = pool.servers.len().min(room);
                room -= counts;
                counts
            }),
            name: pool.name.value.clone(),
            redis: pool.redis,
            listen: pool.listen.to_string(),
            keep_alive: pool.tcpkeepalive,
            memory: pool.memory.0,
            servers: pool.servers.iter().map(|server| KvServer::ring_name(server).into_owned()).collect(),
        });
        pools.collect()
    }
}

impl PoolFacts {
    /// Why this pool, which the running server does not count by itself, is not.
    fn why_uncounted(&self) -> String {
        match self.counts {
            Some(_) => "counted from the next restart on".to_owned(),
            None => format!("only the first {COUNTED_POOLS_MAX} pools are counted by themselves"),
        }
    }

    /// The same of one of its servers.
    fn why_server_is_uncounted(&self, at: usize) -> String {
        match self.counts {
            Some(counts) if at < counts => "counted from the next restart on".to_owned(),
            Some(_) => format!("only the first {COUNTED_SERVERS_MAX} servers are counted by themselves"),
            None => self.why_uncounted(),
        }
    }
}

/// What the event threads say of their servers, at about one moment.
#[derive(Debug, Default)]
pub(crate) struct States {
    threads: usize,
    /// What each thread said that did.
    said: Vec<HashMap<(String, String), ServerState>>,
}

impl States {
    /// Of so many threads, some of which have said how their servers are.
    pub(crate) fn new(threads: usize, said: Vec<Vec<ServerState>>) -> Self {
        let by_name = |states: Vec<ServerState>| {
            states.into_iter().map(|state| ((state.pool.clone(), state.server.clone()), state)).collect()
        };
        Self { threads, said: said.into_iter().map(by_name).collect() }
    }

    /// The state of a server in words, and on how many threads it is out of its ring.
    fn of(&self, pool: &str, server: &str) -> (String, usize) {
        let key = (pool.to_owned(), server.to_owned());
        let own: Vec<_> = self.said.iter().map(|states| states.get(&key)).collect();
        let ejected = own.iter().flatten().filter(|state| !state.is_live).count();
        // A thread that does not know it has a newer configuration still to take.
        let words: Vec<&str> = own.iter().map(|state| state.map_or("new", |state| state.state)).collect();
        let on = |word: &str| words.iter().filter(|other| **other == word).count();
        let word = match words.first() {
            None => return ("unknown".to_owned(), ejected),
            Some(first) if on(first) == words.len() => first,
            _ => "live",
        };
        let count = on(word);
        let text = if count == self.threads {
            word.to_owned()
        } else {
            format!("{word} on {count} of {} threads", self.threads)
        };
        (text, ejected)
    }
}

/// Tells of the pools, on whichever thread it is asked.
#[derive(Debug)]
pub(crate) struct Teller {
    segment: Segment,
    shared: Arc<kv::Shared>,
    pools: Mutex<Arc<Vec<PoolFacts>>>,
    source: String,
}

impl Teller {
    pub(crate) fn new(segment: Segment, shared: Arc<kv::Shared>, pools: Vec<PoolFacts>) -> Self {
        // Without /proc it has no name.
        let source = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim_end().to_owned();
        Self { segment, shared, pools: Mutex::new(Arc::new(pools)), source }
    }

    /// Another configuration is in force.
    pub(crate) fn follow(&self, pools: Vec<PoolFacts>) {
        *self.pools.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(pools);
    }

    pub(crate) fn pools(&self) -> Arc<Vec<PoolFacts>> {
        Arc::clone(&self.pools.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything, with what each of the event threads says of its servers.
    pub(crate) fn report(&self, states: &States) -> KvReport {
        let snapshot = Snapshot::read(self.segment.words()).unwrap_or_default();
        let numbers = Numbers::index(&snapshot);
        let threads = self.segment.threads() as u64;
        let pools = self.pools();
        KvReport {
            threads,
            pools: pools.iter().map(|pool| self.pool(pool, &numbers, states)).collect(),
            commands: commands(&snapshot),
            slow: fitting(self.shared.slow().into_iter().map(slow)),
        }
    }

    fn pool(&self, facts: &PoolFacts, numbers: &Numbers<'_>, states: &States) -> KvPoolReport {
        let of = |name: &str, more: &str| numbers.number(name, &format!("{}\0{more}", facts.name));
        let uncounted = !numbers.has("beltway_kv_pool_clients_open", &format!("{}\0", facts.name));
        let failed = numbers.by_last("beltway_kv_pool_forward_errors_total", &format!("{}\0", facts.name));
        KvPoolReport {
            name: facts.name.clone(),
            protocol: if facts.redis { "redis" } else { "memcached" }.to_owned(),
            listen: facts.listen.clone(),
            clients: of("beltway_kv_pool_clients_open", ""),
            clients_total: of("beltway_kv_pool_clients_total", ""),
            client_eof: of("beltway_kv_pool_client_ends_total", "closed\0"),
            client_err: of("beltway_kv_pool_client_ends_total", "failed\0"),
            requests: of("beltway_kv_pool_requests_total", ""),
            received_bytes: of("beltway_kv_pool_received_bytes_total", ""),
            sent_bytes: of("beltway_kv_pool_sent_bytes_total", ""),
            hits: of("beltway_kv_pool_reads_total", "something\0"),
            misses: of("beltway_kv_pool_reads_total", "nothing\0"),
            fragments: of("beltway_kv_pool_fragments_total", ""),
            ejections: of("beltway_kv_pool_ejections_total", ""),
            memory_bytes: of("beltway_kv_pool_memory_bytes", ""),
            memory_max_bytes: facts.memory,
            forward_errors: failed.values().sum(),
            forward_errors_by: failed,
            client_time: numbers.times("beltway_kv_pool_client_seconds", &format!("{}\0", facts.name)),
            uncounted,
            note: if uncounted { facts.why_uncounted() } else { String::new() },
            servers: (0..facts.servers.len()).map(|at| self.server(facts, at, numbers, states)).collect(),
        }
    }

    fn server(&self, facts: &PoolFacts, at: usize, numbers: &Numbers<'_>, states: &States) -> KvServerReport {
        let (pool, name) = (facts.name.as_str(), facts.servers[at].as_str());
        let labels = format!("{pool}\0{name}\0");
        let of = |name: &str| numbers.number(name, &labels);
        let errors = numbers.by_last("beltway_kv_server_error_replies_total", &labels);
        let uncounted = !numbers.has("beltway_kv_server_connections", &labels);
        let (state, ejected) = states.of(pool, name);
        KvServerReport {
            name: name.to_owned(),
            state,
            ejected_threads: ejected as u64,
            ejected_at_us: self.shared.ejected_at(pool, name).map_or(0, WallTime::as_micros),
            connections: of("beltway_kv_server_connections"),
            connects: of("beltway_kv_server_connects_total"),
            closed: numbers.number("beltway_kv_server_ends_total", &format!("{labels}closed\0")),
            failed: numbers.number("beltway_kv_server_ends_total", &format!("{labels}failed\0")),
            timed_out: of("beltway_kv_server_timeouts_total"),
            requests: of("beltway_kv_server_sent_requests_total"),
            request_bytes: of("beltway_kv_server_sent_bytes_total"),
            responses: of("beltway_kv_server_replies_total"),
            response_bytes: of("beltway_kv_server_reply_bytes_total"),
            error_replies: errors.values().sum(),
            error_replies_by: errors,
            in_queue: of("beltway_kv_server_in_queue"),
            in_queue_bytes: of("beltway_kv_server_in_queue_bytes"),
            out_queue: of("beltway_kv_server_out_queue"),
            out_queue_bytes: of("beltway_kv_server_out_queue_bytes"),
            queue_time: numbers.times("beltway_kv_server_queue_seconds", &labels),
            time: numbers.times("beltway_kv_server_seconds", &labels),
            uncounted,
            note: if uncounted { facts.why_server_is_uncounted(at) } else { String::new() },
        }
    }

    /// twemproxy's line.
    pub(crate) fn line(&self) -> String {
        let report = self.report(&States::default());
        let now = SystemClock.wall();
        let snapshot = Snapshot::read(self.segment.words()).unwrap_or_default();
        let since = WallTime::from_micros(snapshot.started_micros);
        let seconds = |time: WallTime| u64::try_from(time.as_secs()).unwrap_or(0);
        // twemproxy counts its listeners with the connections.
        let listeners = report.pools.len() as u64;
        let connects: u64 = report.pools.iter().flat_map(|pool| &pool.servers).map(|server| server.connects).sum();
        let open =
            snapshot.gauge("beltway_kv_client_connections_open") + snapshot.gauge("beltway_kv_server_connections_open");
        Report {
            source: self.source.clone(),
            version: TWEMPROXY.to_owned(),
            uptime: seconds(now).saturating_sub(seconds(since)),
            timestamp: seconds(now),
            total_connections: listeners + connects + snapshot.counter("beltway_kv_client_connections_total"),
            curr_connections: listeners + u64::try_from(open).unwrap_or(0),
            pools: report.pools.iter().map(as_twemproxy).collect(),
        }
        .line()
    }
}

fn as_twemproxy(pool: &KvPoolReport) -> PoolReport {
    let server = |server: &KvServerReport| {
        let numbers = ServerNumbers {
            server_eof: server.closed,
            server_err: server.failed,
            server_timedout: server.timed_out,
            server_connections: server.connections,
            server_ejected_at: u64::try_from(server.ejected_at_us).unwrap_or(0),
            requests: server.requests,
            request_bytes: server.request_bytes,
            responses: server.responses,
            response_bytes: server.response_bytes,
            in_queue: server.in_queue,
            in_queue_bytes: server.in_queue_bytes,
            out_queue: server.out_queue,
            out_queue_bytes: server.out_queue_bytes,
        };
        (server.name.clone(), numbers)
    };
    PoolReport {
        name: pool.name.clone(),
        numbers: PoolNumbers {
            client_eof: pool.client_eof,
            client_err: pool.client_err,
            client_connections: pool.clients,
            server_ejects: pool.ejections,
            forward_error: pool.forward_errors,
            fragments: pool.fragments,
        },
        servers: pool.servers.iter().map(server).collect(),
    }
}

/// Numbers by name and the values of their labels, each with a zero behind it.
struct Numbers<'s>(HashMap<(&'s str, String), &'s Value>);

impl<'s> Numbers<'s> {
    fn index(snapshot: &'s Snapshot) -> Self {
        let ours = snapshot.metrics.iter().filter(|metric| metric.name.starts_with("beltway_kv_"));
        let labels =
            |labels: &[(String, String)]| labels.iter().flat_map(|(_, value)| [value.as_str(), "\0"]).collect();
        Self(ours.map(|metric| ((metric.name.as_str(), labels(&metric.labels)), &metric.value)).collect())
    }

    fn find(&self, name: &str, labels: &str) -> Option<&'s Value> {
        self.0.get(&(name, labels.to_owned())).copied()
    }

    /// Of the counters of that name which share these labels, those that counted, by their last label.
    fn by_last(&self, name: &str, labels: &str) -> BTreeMap<String, u64> {
        let ours = self.0.iter().filter(|((own, _), _)| *own == name);
        let last = |all: &str| Some(all.strip_prefix(labels)?.strip_suffix('\0')?.to_owned());
        let counted = ours.filter_map(|((_, all), value)| match value {
            Value::Counter(count) if *count > 0 => Some((last(all)?, *count)),
            _ => None,
        });
        counted.collect()
    }

    fn has(&self, name: &str, labels: &str) -> bool {
        self.find(name, labels).is_some()
    }

    fn number(&self, name: &str, labels: &str) -> u64 {
        match self.find(name, labels) {
            Some(Value::Counter(count)) => *count,
            // Threads that are read at different moments may make it negative for once.
            Some(Value::Gauge(value)) => u64::try_from(*value).unwrap_or(0),
            Some(Value::Histogram(_)) | None => 0,
        }
    }

    fn times(&self, name: &str, labels: &str) -> Times {
        match self.find(name, labels) {
            Some(Value::Histogram(distribution)) => times(distribution),
            _ => Times::default(),
        }
    }
}

fn slow(from: kv::Slow) -> KvSlowReport {
    KvSlowReport {
        at_us: from.at.as_micros(),
        pool: from.pool,
        server: from.server,
        command: from.command.to_owned(),
        argument: String::from_utf8_lossy(&from.argument).into_owned(),
        argument_more: from.argument_more,
        bytes: from.bytes,
        took_us: u64::try_from(from.took.as_micros()).unwrap_or(u64::MAX),
        outcome: from.outcome.to_owned(),
        client: from.client.address,
        client_name: String::from_utf8_lossy(&from.client.name).into_owned(),
    }
}

/// The first that fit into an answer.
fn fitting(slow: impl Iterator<Item = KvSlowReport>) -> Vec<KvSlowReport> {
    let mut room = SLOW_BYTES_MAX;
    let fits = |slow: &KvSlowReport| {
        let texts = [&slow.pool, &slow.server, &slow.command, &slow.argument, &slow.client, &slow.client_name];
        let len = SLOW_BYTES_BESIDE + texts.iter().map(|text| len_in_json(text)).sum::<usize>();
        room.checked_sub(len).is_some_and(|rest| {
            room = rest;
            true
        })
    };
    slow.take_while(fits).collect()
}

fn len_in_json(text: &str) -> usize {
    let len = |c: char| match c {
        '"' | '\\' => 2,
        c if c.is_control() => 6,
        c => c.len_utf8(),
    };
    text.chars().map(len).sum()
}

fn times(of: &Distribution) -> Times {
    let micros = |nanos: Option<u64>| nanos.unwrap_or(0) / 1_000;
    Times {
        count: of.count(),
        mean_us: micros(of.mean()),
        p50_us: micros(of.quantile(500)),
        p99_us: micros(of.quantile(990)),
        p999_us: micros(of.quantile(999)),
    }
}

/// Those that were called, the one that took the most time first.
fn commands(snapshot: &Snapshot) -> Vec<KvCommandReport> {
    let mut found: HashMap<[&str; 3], KvCommandReport> = HashMap::new();
    for metric in snapshot.metrics.iter().filter(|metric| metric.name.starts_with("beltway_kv_command_")) {
        let label = |wanted: &str| metric.labels.iter().find(|(key, _)| key == wanted).map_or("", |(_, text)| text);
        let Value::Counter(value) = metric.value else { continue };
        let (pool, protocol, name) = (label("pool"), label("protocol"), label("command"));
        if value == 0 {
            continue;
        }
        let report = found.entry([pool, protocol, name]).or_insert_with(|| KvCommandReport {
            pool: pool.to_owned(),
            protocol: protocol.to_owned(),
            name: name.to_owned(),
            ..KvCommandReport::default()
        });
        match metric.name.as_str() {
            "beltway_kv_command_calls_total" => report.calls = value,
            "beltway_kv_command_error_replies_total" => report.error_replies = value,
            _ => report.total_us = value / 1_000,
        }
    }
    let mut called: Vec<_> = found.into_values().filter(|report| report.calls > 0).collect();
    called.sort_by(|a, b| b.total_us.cmp(&a.total_us).then_with(|| a.name.cmp(&b.name)));
    called
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_server_is_comes_from_the_threads_that_use_it_and_from_nothing_else() {
        let state = |state, is_live| vec![ServerState { pool: "a".to_owned(), server: "s".to_owned(), state, is_live }];
        let told = |threads, said: Vec<Vec<ServerState>>| States::new(threads, said).of("a", "s");
        let (live, out, down) = (state("live", true), state("ejected", false), state("down", true));
        assert_eq!(told(2, vec![out.clone(), out.clone()]), ("ejected".to_owned(), 2));
        assert_eq!(told(2, vec![live.clone(), out.clone()]), ("live on 1 of 2 threads".to_owned(), 1));
        assert_eq!(told(2, vec![down.clone(), down]), ("down".to_owned(), 0));
        assert_eq!(told(2, vec![out.clone()]), ("ejected on 1 of 2 threads".to_owned(), 1), "the other one is busy");
        assert_eq!(told(2, vec![Vec::new(), Vec::new()]), ("new".to_owned(), 0));
        assert_eq!(told(2, vec![Vec::new(), live]), ("live on 1 of 2 threads".to_owned(), 0));
        assert_eq!(told(2, Vec::new()), ("unknown".to_owned(), 0));
    }

    #[test]
    fn what_is_not_counted_says_why_and_truly() {
        let servers = |count: usize| (0..count).map(|at| format!("      - 127.0.0.1:1:1 s{at}\n")).collect::<String>();
        let pool = |name: &str, port: u16, count| {
            format!("    {name}:\n      listen: 127.0.0.1:{port}\n      servers:\n{}", servers(count))
        };
        let text = format!("kv:\n  pools:\n{}{}", pool("a", 1, 100), pool("b", 2, 33));
        let config = config::parse("f", &text).unwrap();
        let warnings: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
        assert!(warnings.len() == 1 && warnings[0].contains("133 servers: from `s28` on"), "{warnings:?}");
        let facts = PoolFacts::of(&config);
        assert!(facts[1].why_server_is_uncounted(27).contains("next restart"));
        assert!(facts[1].why_server_is_uncounted(28).contains("the first 128 servers"));
        assert!(facts[0].why_server_is_uncounted(99).contains("next restart"));
        let pools: String = (0..66).map(|at| pool(&format!("p{at}"), at + 1, 1)).collect();
        let config = config::parse("f", &format!("kv:\n  pools:\n{pools}")).unwrap();
        assert_eq!(config.warnings().len(), 1);
        let facts = PoolFacts::of(&config);
        assert!(facts[63].why_uncounted().contains("next restart"));
        assert!(facts[64].why_uncounted().contains("the first 64 pools"));
        assert!(facts[64].why_server_is_uncounted(0).contains("the first 64 pools"));
    }

    #[test]
    fn whatever_keys_were_slow_the_answer_keeps_room_for_the_pools() {
        let told = |argument: &str| {
            let slow = KvSlowReport { argument: argument.repeat(64), ..KvSlowReport::default() };
            fitting(std::iter::repeat_n(slow, kv::SLOW_MAX)).len()
        };
        assert_eq!(told("k"), 128, "of usual keys all are told");
        assert_eq!(told("\0"), 64);
    }
}

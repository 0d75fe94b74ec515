//! What is told of the pools: to `ctl kv`, and as twemproxy's line of JSON.
//!
//! Numbers come from the segment by name, like everybody's; what pools and servers there are, from the configuration; and
//! how servers are, from the threads that use them: what is not counted is told of as truly as the rest.

mod facts;
mod numbers;
mod parts;

use std::sync::{Arc, Mutex, PoisonError};

use base::{Clock, SystemClock, WallTime};
use kv::stats_json::{PoolNumbers, PoolReport, Report, ServerNumbers};
use stats::{Segment, Snapshot};
use supervise::directory::RuntimeDir;
use supervise::kv::{KvPoolReport, KvReport, KvServerReport, KvSlowReport};
use supervise::numbers::Others;

pub(crate) use self::facts::{PoolFacts, States};
use self::numbers::{Numbers, commands};
use self::parts::Parts;

/// The release of twemproxy whose line this is.
const TWEMPROXY: &str = "0.5.0";

/// How the names of the numbers begin that are told of here.
const COUNTED_HERE: &str = "beltway_kv_";
/// Bytes of slow requests in one answer.
const SLOW_BYTES_MAX: usize = 40 << 10;
/// Bytes of a slow request in JSON, at most, beside its texts.
const SLOW_BYTES_BESIDE: usize = 256;

/// Tells of the pools, on whichever thread it is asked.
#[derive(Debug)]
pub(crate) struct Teller {
    segment: Segment,
    shared: Arc<kv::Shared>,
    pools: Mutex<Arc<Vec<PoolFacts>>>,
    /// What other generations have counted. None: that is not known yet.
    others: Mutex<Option<Arc<Others>>>,
    parts: Mutex<Parts>,
    source: String,
}

impl Teller {
    pub(crate) fn new(segment: Segment, shared: Arc<kv::Shared>, pools: Vec<PoolFacts>) -> Self {
        // Without /proc it has no name.
        let source = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim_end().to_owned();
        let pools = Mutex::new(Arc::new(pools));
        Self { segment, shared, pools, others: Mutex::default(), parts: Mutex::default(), source }
    }

    /// Another configuration is in force.
    pub(crate) fn follow(&self, pools: Vec<PoolFacts>) {
        *self.pools.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(pools);
    }

    pub(crate) fn pools(&self) -> Arc<Vec<PoolFacts>> {
        Arc::clone(&self.pools.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes up what all other generations have counted, if that may have changed. Reads files: not for event threads.
    /// Without a directory there were none. Tells what cannot be read, each file once.
    pub(crate) fn recall(&self, home: Option<(&RuntimeDir, u64)>) -> Vec<String> {
        let before = self.others();
        let read = match home {
            Some((home, own)) => Others::read(home, own, COUNTED_HERE, before.as_deref()),
            None => Ok(before.is_none().then(Others::default)),
        };
        let (others, complaints) = match read {
            Ok(None) => return Vec::new(),
            Ok(Some(others)) => {
                let known = |text: &String| before.as_ref().is_some_and(|before| before.unreadable.contains(text));
                let complaints = others.unreadable.iter().filter(|text| !known(text)).cloned().collect();
                (others, complaints)
            }
            // What was known stays known.
            Err(error) if before.is_some() => return vec![error.to_string()],
            Err(error) => (Others::default(), vec![error.to_string()]),
        };
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(others));
        complaints
    }

    fn others(&self) -> Option<Arc<Others>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All that has been counted, and when this process began.
    fn counted(&self, others: &Others) -> (Snapshot, WallTime) {
        let mut snapshot = Snapshot::read(self.segment.words()).unwrap_or_default();
        let since = WallTime::from_micros(snapshot.started_micros);
        snapshot.add_dead(&others.sum);
        (snapshot, since)
    }

    /// Everything.
    pub(crate) fn all(&self, states: &States) -> KvReport {
        let (snapshot, _) = self.counted(&self.others().unwrap_or_default());
        self.report(&snapshot, states)
    }

    /// The first part of it, for so many readers, and the number of the next.
    pub(crate) fn begin(&self, all: KvReport, readers: usize) -> KvReport {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).begin(all, readers)
    }

    /// The part of a report with that number; none when it is gone.
    pub(crate) fn more(&self, number: u64) -> Option<KvReport> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).more(number)
    }

    /// Everything, with what each of the event threads says of its servers.
    fn report(&self, snapshot: &Snapshot, states: &States) -> KvReport {
        let numbers = Numbers::index(snapshot);
        let threads = self.segment.threads() as u64;
        let pools = self.pools();
        KvReport {
            threads,
            pools: pools.iter().map(|pool| self.pool(pool, &numbers, states)).collect(),
            more: None,
            commands: commands(snapshot),
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
            silent_threads: states.silent() as u64,
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
            hits: numbers.number("beltway_kv_server_reads_total", &format!("{labels}something\0")),
            misses: numbers.number("beltway_kv_server_reads_total", &format!("{labels}nothing\0")),
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

    /// twemproxy's line; none while it is not known what was counted before.
    pub(crate) fn line(&self) -> Option<String> {
        let others = self.others()?;
        let (snapshot, since) = self.counted(&others);
        let report = self.report(&snapshot, &States::default());
        let now = SystemClock.wall();
        let seconds = |time: WallTime| u64::try_from(time.as_secs()).unwrap_or(0);
        // twemproxy counts its listeners with the connections.
        let listeners = report.pools.len() as u64;
        let connects: u64 = report.pools.iter().flat_map(|pool| &pool.servers).map(|server| server.connects).sum();
        let open =
            snapshot.gauge("beltway_kv_client_connections_open") + snapshot.gauge("beltway_kv_server_connections_open");
        let line = Report {
            source: self.source.clone(),
            version: TWEMPROXY.to_owned(),
            uptime: seconds(now).saturating_sub(seconds(since)),
            timestamp: seconds(now),
            total_connections: listeners + connects + snapshot.counter("beltway_kv_client_connections_total"),
            curr_connections: listeners + u64::try_from(open).unwrap_or(0),
            pools: report.pools.iter().map(as_twemproxy).collect(),
        };
        Some(line.line())
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

#[cfg(test)]
mod tests {
    use super::*;

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

//! What the proxy tells clients of itself and their pool: Redis's `INFO`, memcached's `stats proxy`.
//!
//! Numbers are those of all threads since the server process began, by the names that Redis and memcached give them where
//! they mean the same; others begin with `beltway_`. A pool without numbers of its own tells none.

use std::cell::OnceCell;
use std::fmt::Write as _;

use super::Client;
use super::local::SPOKEN;
use super::requests::{Asked, Outcome};
use crate::metrics::Kv;
use crate::numbers::{KvPool, Totals};

/// A section of `INFO`: its title, whether it is told where none is named, and who writes it, from numbers that are
/// gathered when the first asks for them.
type Section = (&'static str, bool, fn(&Client, &Gathered<'_>, &mut String));

const SECTIONS: [Section; 6] = [
    ("Server", true, Client::tell_server),
    ("Clients", true, Client::tell_clients),
    ("Memory", true, Client::tell_memory),
    ("Stats", true, Client::tell_stats),
    ("Servers", true, Client::tell_servers),
    ("Commandstats", false, Client::tell_commands),
];

/// Errors of writing into a string: there are none.
const WRITES: &str = "writing into a string does not fail";

/// The pool's numbers, once somebody wants them.
struct Gathered<'c> {
    client: &'c Client,
    totals: OnceCell<Option<Totals>>,
}

impl Gathered<'_> {
    fn get(&self) -> Option<&Totals> {
        self.totals.get_or_init(|| self.client.totals()).as_ref()
    }
}

impl Client {
    fn totals(&self) -> Option<Totals> {
        self.worker.numbers().totals(&self.pool.plan().source.name)
    }

    /// The answer to `INFO`.
    pub(super) fn info(&self, asked: &Asked<'_>) -> String {
        let is_named = |title: &str, by_default: bool| {
            let names = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            let any = |name: &str| (1..asked.count()).any(|at| names(asked.argument(at), name));
            any(title) || any("all") || any("everything") || by_default && (asked.count() == 1 || any("default"))
        };
        let totals = Gathered { client: self, totals: OnceCell::new() };
        let mut text = String::new();
        for (title, by_default, tell) in SECTIONS {
            if is_named(title, by_default) {
                let gap = if text.is_empty() { "" } else { "\r\n" };
                write!(text, "{gap}# {title}\r\n").expect(WRITES);
                tell(self, &totals, &mut text);
            }
        }
        text
    }

    fn tell_server(&self, totals: &Gathered<'_>, text: &mut String) {
        let now = self.worker.thread().wall();
        put(text, "redis_version", SPOKEN);
        put(text, "redis_mode", "proxy");
        put(text, "process_id", std::process::id());
        put(text, "server_time_usec", now.as_micros());
        if let Some(totals) = totals.get() {
            let up = (now.as_secs() - totals.since.as_secs()).max(0);
            put(text, "uptime_in_seconds", up);
            put(text, "uptime_in_days", up / 86_400);
            put(text, "beltway_threads", totals.threads());
        }
        put(text, "beltway_version", base::VERSION);
        put(text, "beltway_pool", &self.pool.plan().source.name);
        put(text, "beltway_thread", self.worker.thread().index());
    }

    fn tell_clients(&self, _: &Gathered<'_>, text: &mut String) {
        put(text, "connected_clients", self.pool.clients());
        if let Some(max) = self.pool.plan().source.client_connections {
            put(text, "maxclients", max);
        }
    }

    fn tell_memory(&self, totals: &Gathered<'_>, text: &mut String) {
        if let Some(totals) = totals.get() {
            put(text, "beltway_memory", totals.gauge(KvPool::MEMORY));
        }
        put(text, "beltway_memory_max", self.pool.plan().source.memory);
    }

    fn tell_stats(&self, totals: &Gathered<'_>, text: &mut String) {
        let Some(totals) = totals.get() else { return };
        let named = [
            ("total_connections_received", KvPool::CLIENTS),
            ("total_commands_processed", KvPool::REQUESTS),
            ("total_net_input_bytes", KvPool::RECEIVED),
            ("total_net_output_bytes", KvPool::SENT),
            ("keyspace_hits", KvPool::HITS),
            ("keyspace_misses", KvPool::MISSES),
            ("beltway_fragments", KvPool::FRAGMENTS),
            ("beltway_ejections", KvPool::EJECTS),
        ];
        named.into_iter().for_each(|(name, counter)| put(text, name, totals.count(counter)));
        put(text, "beltway_forward_errors", totals.forward_errors());
        put(
            text,
            "beltway_slow_requests",
            self.worker.shared().slow_log().count_of_pool(&self.pool.plan().source.name),
        );
    }

    fn tell_servers(&self, _: &Gathered<'_>, text: &mut String) {
        for (number, (name, state)) in self.pool.states().into_iter().enumerate() {
            put(text, &format!("server{number}"), format_args!("name={name},state={state}"));
        }
    }

    fn tell_commands(&self, totals: &Gathered<'_>, text: &mut String) {
        for command in totals.get().into_iter().flat_map(Totals::commands) {
            let (calls, micros, failed) = (command.calls, command.micros, command.errors);
            // In hundredths.
            let each = micros.saturating_mul(100).checked_div(calls).unwrap_or(0);
            let line = format_args!(
                "calls={calls},usec={micros},usec_per_call={}.{:02},failed_calls={failed}",
                each / 100,
                each % 100
            );
            put(text, &format!("cmdstat_{}", command.name), line);
        }
        let shared = totals.get().map(Totals::shared).unwrap_or_default();
        if !shared.is_empty() {
            put(text, "beltway_commands_not_counted", shared.join(","));
        }
    }

    /// Answers memcached's `stats proxy`.
    pub(super) fn stats_of_proxy(&mut self) -> Outcome {
        self.worker.cells().add(Kv::LOCAL, 1);
        let mut text = String::new();
        let mut stat = |name: &str, value: &dyn std::fmt::Display| {
            write!(text, "STAT {name} {value}\r\n").expect(WRITES);
        };
        let plan = self.pool.plan();
        let now = self.worker.thread().wall();
        stat("pid", &std::process::id());
        stat("time", &now.as_secs());
        stat("version", &base::VERSION);
        stat("pointer_size", &usize::BITS);
        if let Some(max) = plan.source.client_connections {
            stat("max_connections", &max);
        }
        stat("curr_connections", &self.pool.clients());
        if let Some(totals) = self.totals() {
            stat("uptime", &(now.as_secs() - totals.since.as_secs()).max(0));
            stat("threads", &totals.threads());
            let named = [
                ("total_connections", KvPool::CLIENTS),
                ("get_hits", KvPool::HITS),
                ("get_misses", KvPool::MISSES),
                ("bytes_read", KvPool::RECEIVED),
                ("bytes_written", KvPool::SENT),
                ("beltway_requests", KvPool::REQUESTS),
                ("beltway_fragments", KvPool::FRAGMENTS),
                ("beltway_ejections", KvPool::EJECTS),
            ];
            named.into_iter().for_each(|(name, counter)| stat(name, &totals.count(counter)));
            for (name, commands) in COUNTED {
                // What is not known is no zero.
                if let Some(calls) = totals.calls(commands) {
                    stat(name, &calls);
                }
            }
            stat("beltway_forward_errors", &totals.forward_errors());
            stat("beltway_memory", &totals.gauge(KvPool::MEMORY));
        }
        stat("beltway_memory_max", &plan.source.memory);
        stat("beltway_pool", &plan.source.name);
        for (number, (name, state)) in self.pool.states().into_iter().enumerate() {
            stat(&format!("beltway_server{number}"), &format_args!("{state} {name}"));
        }
        text.push_str("END\r\n");
        self.answer(text.into_bytes());
        Outcome::Done
    }
}

/// What memcached counts together.
const COUNTED: [(&str, &[&str]); 4] = [
    ("cmd_get", &["get", "gets", "gat", "gats"]),
    ("cmd_set", &["set", "add", "replace", "append", "prepend", "cas"]),
    ("cmd_touch", &["touch", "gat", "gats"]),
    ("cmd_flush", &["flush_all"]),
];

fn put(text: &mut String, name: &str, value: impl std::fmt::Display) {
    write!(text, "{name}:{value}\r\n").expect(WRITES);
}

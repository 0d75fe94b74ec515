//! Pools, servers and commands as a terminal shows them.

use std::fmt::{Display, Write as _};

use base::WallTime;
use serde_json::{Map, Value};
use supervise::kv::{KvReport, Times};

fn times(times: &Times) -> String {
    if times.count == 0 { "-".to_owned() } else { format!("{}/{}", times.p50_us, times.p99_us) }
}

/// What is there whether or not anything is counted.
const NOT_COUNTED: [&str; 11] = [
    "name",
    "protocol",
    "listen",
    "memory_max_bytes",
    "servers",
    "state",
    "ejected_threads",
    "silent_threads",
    "ejected_at_us",
    "uncounted",
    "note",
];

/// `value`, or what stands for a number that there is not.
fn counted(is: bool, value: impl ToString) -> String {
    if is { value.to_string() } else { "-".to_owned() }
}

fn note(note: &str) -> String {
    if note.is_empty() { String::new() } else { format!("  ({note})") }
}

/// The pools as JSON. Numbers that there are not are `null`.
///
/// # Errors
/// None that these types allow.
pub fn pools_json(report: &KvReport) -> serde_json::Result<Value> {
    let mut pools = serde_json::to_value(&report.pools)?;
    for pool in pools.as_array_mut().into_iter().flatten() {
        forget(pool);
        pool.get_mut("servers").and_then(Value::as_array_mut).into_iter().flatten().for_each(forget);
    }
    Ok(pools)
}

/// The servers of each pool as JSON, by the pools' names. Numbers that there are not are `null`.
///
/// # Errors
/// None that these types allow.
pub fn servers_json(report: &KvReport) -> serde_json::Result<Value> {
    let mut all = Map::new();
    for pool in &report.pools {
        let mut servers = serde_json::to_value(&pool.servers)?;
        servers.as_array_mut().into_iter().flatten().for_each(forget);
        all.insert(pool.name.clone(), servers);
    }
    Ok(Value::Object(all))
}

/// Takes the numbers out of what has none.
fn forget(of: &mut Value) {
    let Some(fields) = of.as_object_mut().filter(|fields| fields.get("uncounted") == Some(&Value::Bool(true))) else {
        return;
    };
    fields
        .iter_mut()
        .filter(|(name, _)| !NOT_COUNTED.contains(&name.as_str()))
        .for_each(|(_, value)| *value = Value::Null);
}

/// A column of a table: its name, how wide it is at least, and on which side its cells stand.
#[derive(Clone, Copy)]
struct Column(&'static str, usize, Side);

use Side::{Left, Right};

#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

/// Lines of cells under the names of their columns.
struct Drawn<const N: usize> {
    columns: [Column; N],
    text: String,
}

impl<const N: usize> Drawn<N> {
    fn new(columns: [Column; N], after: &str) -> Self {
        let mut drawn = Self { columns, text: String::new() };
        drawn.line(columns.each_ref().map(|column| &column.0 as &dyn Display), after);
        drawn
    }

    /// One line, with what stands behind its last cell.
    fn line(&mut self, cells: [&dyn Display; N], after: &str) {
        for (at, (Column(_, width, side), cell)) in self.columns.iter().zip(cells).enumerate() {
            if at > 0 {
                self.text.push(' ');
            }
            // Writing to a string cannot fail.
            let _ = match side {
                Left => write!(self.text, "{cell:<width$}"),
                Right => write!(self.text, "{cell:>width$}"),
            };
        }
        self.text.push_str(after);
        self.text.push('\n');
    }
}

/// A line for each pool.
#[must_use]
pub fn pools_table(report: &KvReport) -> String {
    let columns = [
        Column("pool", 16, Left),
        Column("protocol", 9, Left),
        Column("listens on", 22, Left),
        Column("servers", 7, Right),
        Column("clients", 8, Right),
        Column("requests", 12, Right),
        Column("hits", 10, Right),
        Column("misses", 10, Right),
        Column("errors", 7, Right),
        Column("ejects", 6, Right),
        Column("memory KiB", 11, Right),
        Column("p50/p99 us", 14, Right),
    ];
    let mut drawn = Drawn::new(columns, "");
    for pool in &report.pools {
        let live = if !pool.servers.is_empty() && pool.servers.iter().all(|server| server.state == "unknown") {
            "?".to_owned()
        } else {
            pool.servers.iter().filter(|server| server.state == "live").count().to_string()
        };
        let is = !pool.uncounted;
        let cells: [&dyn Display; _] = [
            &pool.name,
            &pool.protocol,
            &pool.listen,
            &format!("{live}/{}", pool.servers.len()),
            &counted(is, pool.clients),
            &counted(is, pool.requests),
            &counted(is, pool.hits),
            &counted(is, pool.misses),
            &counted(is, pool.forward_errors),
            &counted(is, pool.ejections),
            &counted(is, pool.memory_bytes.div_ceil(1024)),
            &counted(is, times(&pool.client_time)),
        ];
        drawn.line(cells, &note(&pool.note));
    }
    drawn.text
}

/// A line for each server.
#[must_use]
pub fn servers_table(report: &KvReport) -> String {
    let columns = [
        Column("pool", 16, Left),
        Column("server", 24, Left),
        Column("state", 12, Left),
        Column("conns", 5, Right),
        Column("requests", 12, Right),
        Column("replies", 12, Right),
        Column("hits", 10, Right),
        Column("misses", 10, Right),
        Column("errors", 8, Right),
        Column("timeouts", 9, Right),
        Column("waiting", 8, Right),
        Column("on way", 9, Right),
        Column("queue us", 14, Right),
        Column("p50/p99 us", 14, Right),
    ];
    let mut drawn = Drawn::new(columns, "");
    for pool in &report.pools {
        for server in &pool.servers {
            let is = !server.uncounted;
            let silent = match server.silent_threads {
                0 => String::new(),
                silent => format!("{silent} of {} threads did not say how it is", report.threads),
            };
            let cells: [&dyn Display; _] = [
                &pool.name,
                &server.name,
                &server.state,
                &counted(is, server.connections),
                &counted(is, server.requests),
                &counted(is, server.responses),
                &counted(is, server.hits),
                &counted(is, server.misses),
                &counted(is, server.error_replies),
                &counted(is, server.timed_out),
                &counted(is, server.in_queue),
                &counted(is, server.out_queue),
                &counted(is, times(&server.queue_time)),
                &counted(is, times(&server.time)),
            ];
            drawn.line(cells, &(note(&silent) + &note(&server.note)));
        }
    }
    drawn.text
}

/// A line for each command that was called, the one that took the most time first.
#[must_use]
pub fn commands_table(report: &KvReport) -> String {
    let columns = [
        Column("pool", 16, Left),
        Column("protocol", 10, Left),
        Column("command", 20, Left),
        Column("calls", 12, Right),
        Column("errors", 10, Right),
        Column("failed", 8, Right),
        Column("hits", 10, Right),
        Column("misses", 10, Right),
        Column("KiB asked", 12, Right),
        Column("KiB replied", 12, Right),
        Column("total ms", 14, Right),
        Column("mean us", 10, Right),
        Column("p50/p99 us", 14, Right),
    ];
    let mut drawn = Drawn::new(columns, "");
    for command in &report.commands {
        let cells: [&dyn Display; _] = [
            &command.pool,
            &command.protocol,
            &command.name,
            &command.calls,
            &command.error_replies,
            &command.forward_errors,
            &command.hits,
            &command.misses,
            &command.request_bytes.div_ceil(1024),
            &command.response_bytes.div_ceil(1024),
            &(command.total_us / 1_000),
            &command.total_us.checked_div(command.calls).unwrap_or(0),
            &times(&command.time),
        ];
        drawn.line(cells, "");
    }
    drawn.text
}

fn ago(now: WallTime, at_us: i64) -> String {
    let seconds = (now.as_micros() - at_us).max(0) / 1_000_000;
    format!("{seconds} s")
}

/// A line for each slow request, the newest first, with how long ago it was.
#[must_use]
pub fn slow_table(report: &KvReport, now: WallTime) -> String {
    let columns = [
        Column("ago", 12, Right),
        Column("took us", 12, Right),
        Column("outcome", 18, Left),
        Column("pool", 16, Left),
        Column("server", 24, Left),
        Column("command", 16, Left),
        Column("bytes", 10, Right),
        Column("client", 22, Left),
    ];
    let mut drawn = Drawn::new(columns, "  first argument");
    for slow in &report.slow {
        let cells: [&dyn Display; _] = [
            &ago(now, slow.at_us),
            &slow.took_us,
            &slow.outcome,
            &slow.pool,
            &slow.server,
            &slow.command,
            &slow.bytes,
            &slow.client,
        ];
        let more = if slow.argument_more > 0 { "..." } else { "" };
        drawn.line(cells, &format!("  {}{more}", slow.argument.escape_debug()));
    }
    drawn.text
}

#[cfg(test)]
mod tests {
    use super::*;
    use supervise::kv::{KvCommandReport, KvPoolReport, KvServerReport, KvSlowReport};

    #[test]
    fn pools_servers_and_commands_have_a_line_each() {
        let server = |name: &str, state: &str| KvServerReport {
            name: name.to_owned(),
            state: state.to_owned(),
            time: Times { count: 1, p50_us: 7, p99_us: 9, ..Times::default() },
            ..KvServerReport::default()
        };
        let pool = KvPoolReport {
            name: "alpha".to_owned(),
            requests: 42,
            servers: vec![server("one", "live"), server("two", "ejected")],
            ..KvPoolReport::default()
        };
        let command = KvCommandReport { name: "get".to_owned(), calls: 2, total_us: 30, ..KvCommandReport::default() };
        let report = KvReport { threads: 1, pools: vec![pool], commands: vec![command], ..KvReport::default() };
        let pools = pools_table(&report);
        assert!(pools.lines().count() == 2 && pools.contains("1/2") && pools.contains("42"), "{pools}");
        let servers = servers_table(&report);
        assert!(servers.lines().count() == 3 && servers.contains("ejected") && servers.contains("7/9"), "{servers}");
        let mut silent = report.clone();
        for server in &mut silent.pools[0].servers {
            *server = KvServerReport { state: "unknown".to_owned(), silent_threads: 1, ..server.clone() };
        }
        assert!(pools_table(&silent).contains(" ?/2 "), "{}", pools_table(&silent));
        let line = servers_table(&silent).lines().nth(1).unwrap().to_owned();
        assert!(line.ends_with("(1 of 1 threads did not say how it is)"), "{line}");
        let mut unknown = report.clone();
        unknown.pools[0].servers[1] =
            KvServerReport { uncounted: true, note: "since then".to_owned(), ..unknown.pools[0].servers[1].clone() };
        let line = servers_table(&unknown).lines().nth(2).unwrap().to_owned();
        assert!(line.contains("ejected          -") && line.ends_with("(since then)"), "{line}");
        let json = servers_json(&unknown).unwrap();
        assert_eq!((&json["alpha"][0]["requests"], &json["alpha"][1]["requests"]), (&0.into(), &Value::Null));
        assert_eq!((&json["alpha"][1]["state"], &json["alpha"][1]["time"]), (&"ejected".into(), &Value::Null));
        assert_eq!(pools_json(&unknown).unwrap()[0]["servers"], json["alpha"]);
        let slow =
            KvSlowReport { at_us: 1_000_000, took_us: 123, argument: "a\r".to_owned(), ..KvSlowReport::default() };
        let slow = slow_table(&KvReport { slow: vec![slow], ..KvReport::default() }, WallTime::from_micros(6_500_000));
        assert!(slow.lines().count() == 2 && slow.contains("5 s") && slow.ends_with("a\\r\n"), "{slow}");
        let top = commands_table(&report);
        assert!(top.contains("        15 ") && top.ends_with(" -\n"), "{top}");
    }
}

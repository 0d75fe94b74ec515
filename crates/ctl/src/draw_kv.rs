//! Pools, servers and commands as a terminal shows them.

use std::fmt::Write as _;

use base::WallTime;
use supervise::kv::{KvReport, Times};

fn times(times: &Times) -> String {
    if times.count == 0 { "-".to_owned() } else { format!("{}/{}", times.p50_us, times.p99_us) }
}

/// A line for each pool.
#[must_use]
pub fn pools_table(report: &KvReport) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{:<16} {:<9} {:<22} {:>7} {:>8} {:>12} {:>10} {:>10} {:>7} {:>6} {:>11} {:>14}",
        "pool",
        "protocol",
        "listens on",
        "servers",
        "clients",
        "requests",
        "hits",
        "misses",
        "errors",
        "ejects",
        "memory KiB",
        "p50/p99 us"
    );
    for pool in &report.pools {
        let live = pool.servers.iter().filter(|server| server.state == "live").count();
        let _ = writeln!(
            text,
            "{:<16} {:<9} {:<22} {:>7} {:>8} {:>12} {:>10} {:>10} {:>7} {:>6} {:>11} {:>14}",
            pool.name,
            pool.protocol,
            pool.listen,
            format!("{live}/{}", pool.servers.len()),
            pool.clients,
            pool.requests,
            pool.hits,
            pool.misses,
            pool.forward_errors,
            pool.ejections,
            pool.memory_bytes.div_ceil(1024),
            times(&pool.client_time)
        );
    }
    text
}

/// A line for each server.
#[must_use]
pub fn servers_table(report: &KvReport) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<16} {:<24} {:<12} {:>5} {:>12} {:>12} {:>8} {:>9} {:>8} {:>9} {:>14} {:>14}",
        "pool",
        "server",
        "state",
        "conns",
        "requests",
        "replies",
        "errors",
        "timeouts",
        "waiting",
        "on way",
        "queue us",
        "p50/p99 us"
    );
    for pool in &report.pools {
        for server in &pool.servers {
            let note = if server.uncounted { "  (counted from the next restart on)" } else { "" };
            let _ = writeln!(
                text,
                "{:<16} {:<24} {:<12} {:>5} {:>12} {:>12} {:>8} {:>9} {:>8} {:>9} {:>14} {:>14}{note}",
                pool.name,
                server.name,
                server.state,
                server.connections,
                server.requests,
                server.responses,
                server.error_replies,
                server.timed_out,
                server.in_queue,
                server.out_queue,
                times(&server.queue_time),
                times(&server.time)
            );
        }
    }
    text
}

/// A line for each command that was called, the one that took the most time first.
#[must_use]
pub fn commands_table(report: &KvReport) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<16} {:<10} {:<20} {:>12} {:>10} {:>14} {:>10}",
        "pool", "protocol", "command", "calls", "errors", "total ms", "mean us"
    );
    for command in &report.commands {
        let _ = writeln!(
            text,
            "{:<16} {:<10} {:<20} {:>12} {:>10} {:>14} {:>10}",
            command.pool,
            command.protocol,
            command.name,
            command.calls,
            command.error_replies,
            command.total_us / 1_000,
            command.total_us.checked_div(command.calls).unwrap_or(0)
        );
    }
    text
}

fn ago(now: WallTime, at_us: i64) -> String {
    let seconds = (now.as_micros() - at_us).max(0) / 1_000_000;
    format!("{seconds} s")
}

/// A line for each slow request, the newest first, with how long ago it was.
#[must_use]
pub fn slow_table(report: &KvReport, now: WallTime) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:>12} {:>12} {:<16} {:<24} {:<16} {:>10} {:<22}  first argument",
        "ago", "took us", "pool", "server", "command", "bytes", "client"
    );
    for slow in &report.slow {
        let _ = writeln!(
            text,
            "{:>12} {:>12} {:<16} {:<24} {:<16} {:>10} {:<22}  {}{}",
            ago(now, slow.at_us),
            slow.took_us,
            slow.pool,
            slow.server,
            slow.command,
            slow.bytes,
            slow.client,
            slow.argument.escape_debug(),
            if slow.argument_more > 0 { "..." } else { "" }
        );
    }
    text
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
        let report = KvReport { threads: 1, pools: vec![pool], commands: vec![command], slow: Vec::new() };
        let pools = pools_table(&report);
        assert!(pools.lines().count() == 2 && pools.contains("1/2") && pools.contains("42"), "{pools}");
        let servers = servers_table(&report);
        assert!(servers.lines().count() == 3 && servers.contains("ejected") && servers.contains("7/9"), "{servers}");
        let slow =
            KvSlowReport { at_us: 1_000_000, took_us: 123, argument: "a\r".to_owned(), ..KvSlowReport::default() };
        let slow = slow_table(&KvReport { slow: vec![slow], ..KvReport::default() }, WallTime::from_micros(6_500_000));
        assert!(slow.lines().count() == 2 && slow.contains("5 s") && slow.ends_with("a\\r\n"), "{slow}");
        assert!(commands_table(&report).ends_with("        15\n"), "{}", commands_table(&report));
    }
}

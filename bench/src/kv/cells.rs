//! What is asked of each target in turn, and what one turn measures.

use std::fs;
use std::time::Duration;

use kv::Protocol;
use kv::wire::resp::request::encode;

use super::proxies::{Kind, Proxy, Setup};
use crate::account::CpuTime;
use crate::error::{Doing as _, Outcome, Trouble};
use crate::floors::mux::Shape;
use crate::lab::{self, Lab};
use crate::leash::LeashedCommand;
use crate::load::pipelined::{self, Batch, Clients, Plan};

/// Keys that are asked for: all are there.
const KEYS: usize = 10_000;
/// Nutcracker takes three times as long or more for the same, so it is asked for less: what counts is the cost of one.
const ITS_PART: usize = 3;
/// Bytes of requests that surely come in one piece: less than a client's first send buffer.
const FLOOR_BATCH_MAX: usize = 64 << 10;
/// How long redis-benchmark may run: it never ends when its server goes away.
const PATIENCE: Duration = Duration::from_secs(40);

/// What the commands of a cell are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    Get,
    Set,
    /// Many keys in one.
    Many(usize),
    /// What libmemcached's own load generator asks for: nine gets to a set.
    Memaslap,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    pub(super) name: &'static str,
    pub(super) ask: Ask,
    pub(super) size: usize,
    pub(super) pipeline: usize,
    pub(super) connections: usize,
    pub(super) setup: Setup,
    /// Commands of one turn of redis-benchmark.
    pub(super) commands: usize,
    pub(super) target: Target,
}

impl Cell {
    /// How long each request and answer is, if that is all there is to know of them.
    pub(super) fn lengths(&self) -> Option<Shape> {
        let (key, value) = (key(0), "x".repeat(self.size));
        if self.setup.servers != 1 {
            return None;
        }
        let (request, answer) = match (self.setup.protocol, self.ask) {
            (_, Ask::Many(_) | Ask::Memaslap) => return None,
            (Protocol::Redis, Ask::Get) => {
                (encode(&["GET", &key]).len(), format!("${}\r\n{value}\r\n", self.size).len())
            }
            (Protocol::Redis, Ask::Set) => (encode(&["SET", &key, &value]).len(), "+OK\r\n".len()),
            (Protocol::Memcached, Ask::Get) => {
                let answer = format!("VALUE {key} 0 {}\r\n{value}\r\nEND\r\n", self.size);
                (format!("get {key}\r\n").len(), answer.len())
            }
            (Protocol::Memcached, Ask::Set) => {
                (format!("set {key} 0 0 {}\r\n{value}\r\n", self.size).len(), "STORED\r\n".len())
            }
        };
        // The floor takes whole requests only, and of a longer batch the kernel may give it a part.
        (request * self.pipeline <= FLOOR_BATCH_MAX).then_some(Shape { request, answer })
    }
}

/// What a cell is to come to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// CPU per command, at most so many times nutcracker's: reach and aim.
    Cpu(f64, f64),
    /// Commands per second, at least this share of the server's own: reach.
    Share(f64),
    /// CPU per command, at most so many times what it is with one event thread: reach and aim.
    OverSingle(f64, f64),
    /// For information.
    None,
}

const REDIS: Setup =
    Setup { protocol: Protocol::Redis, servers: 1, ejects: false, threads: 1, pinned: true, tied: false };
const MEMCACHED: Setup = Setup { protocol: Protocol::Memcached, ..REDIS };
const FREE: Setup = Setup { pinned: false, ..REDIS };

const fn cell(name: &'static str, ask: Ask, size: usize, pipeline: usize, commands: usize, target: Target) -> Cell {
    Cell { name, ask, size, pipeline, connections: 50, setup: REDIS, commands, target }
}

/// All rows.
pub(super) fn all() -> Vec<Cell> {
    use Ask::{Get, Many, Memaslap, Set};
    use Target::{Cpu, OverSingle, Share};
    let over = |servers, cell: Cell| Cell { setup: Setup { servers, ..REDIS }, ..cell };
    let memcached = |servers, cell: Cell| Cell { setup: Setup { servers, ..MEMCACHED }, ..cell };
    let crowd = |connections, cell: Cell| Cell { connections, ..cell };
    let free = |threads, cell: Cell| Cell { setup: Setup { threads, ..FREE }, ..cell };
    let tied = |cell: Cell| Cell { setup: Setup { tied: true, ..cell.setup }, ..cell };
    vec![
        cell("GET 64 B, pipeline 1", Get, 64, 1, 50_000, Cpu(0.80, 0.70)),
        cell("GET 64 B, pipeline 16", Get, 64, 16, 300_000, Cpu(0.27, 0.20)),
        cell("GET 64 B, pipeline 100", Get, 64, 100, 400_000, Cpu(0.10, 0.07)),
        cell("SET 64 B, pipeline 1", Set, 64, 1, 50_000, Target::None),
        cell("SET 64 B, pipeline 16", Set, 64, 16, 300_000, Cpu(0.45, 0.35)),
        cell("SET 64 B, pipeline 100", Set, 64, 100, 300_000, Target::None),
        cell("GET 1 KiB, pipeline 1", Get, 1024, 1, 50_000, Target::None),
        cell("GET 1 KiB, pipeline 16", Get, 1024, 16, 200_000, Target::None),
        cell("GET 1 KiB, pipeline 100", Get, 1024, 100, 200_000, Target::None),
        cell("SET 1 KiB, pipeline 1", Set, 1024, 1, 50_000, Target::None),
        cell("SET 1 KiB, pipeline 16", Set, 1024, 16, 200_000, Cpu(0.40, 0.30)),
        cell("SET 1 KiB, pipeline 100", Set, 1024, 100, 150_000, Target::None),
        crowd(1_000, cell("GET 64 B, 1,000 connections, pipeline 16", Get, 64, 16, 400_000, Cpu(0.18, 0.13))),
        crowd(10_000, cell("GET 64 B, 10,000 connections, pipeline 1", Get, 64, 1, 100_000, Target::None)),
        over(2, cell("GET 64 B, 2 servers, pipeline 16", Get, 64, 16, 300_000, Target::None)),
        over(2, cell("MGET of 10 keys, 2 servers", Many(10), 64, 1, 30_000, Cpu(0.70, 0.50))),
        over(2, cell("MGET of 100 keys, 2 servers", Many(100), 64, 1, 10_000, Cpu(0.70, 0.50))),
        over(4, cell("MGET of 10 keys, 4 servers", Many(10), 64, 1, 30_000, Target::None)),
        over(4, cell("MGET of 100 keys, 4 servers", Many(100), 64, 1, 10_000, Target::None)),
        memcached(1, cell("memcached get 64 B, pipeline 1", Get, 64, 1, 0, Cpu(0.75, 0.65))),
        memcached(1, cell("memcached 64 B, pipeline 1, asked by memaslap", Memaslap, 64, 1, 200_000, Cpu(0.75, 0.65))),
        memcached(1, cell("memcached get 64 B, pipeline 16", Get, 64, 16, 0, Target::None)),
        memcached(1, cell("memcached set 64 B, pipeline 16", Set, 64, 16, 0, Cpu(0.30, 0.22))),
        memcached(2, cell("memcached get of 10 keys, 2 servers", Many(10), 64, 1, 0, Target::None)),
        memcached(2, cell("memcached get of 100 keys, 2 servers", Many(100), 64, 1, 0, Target::None)),
        free(1, cell("unpinned: GET 64 B, pipeline 16", Get, 64, 16, 400_000, Share(0.66))),
        free(1, cell("unpinned: GET 64 B, pipeline 100", Get, 64, 100, 500_000, Share(0.70))),
        free(2, cell("unpinned: GET 64 B, pipeline 16, two threads", Get, 64, 16, 400_000, Target::None)),
        // Long turns: what connecting costs is the same for both, and hides behind nothing shorter.
        crowd(200, free(2, cell("200 connections, two threads", Get, 64, 16, 1_500_000, OverSingle(1.10, 1.03)))),
        tied(crowd(
            200,
            free(2, cell("the same, threads tied to cores", Get, 64, 16, 1_500_000, OverSingle(1.10, 1.03))),
        )),
    ]
}

/// One turn of one target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) kind: Kind,
    pub(super) per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) cpu_us: f64,
    pub(super) user_share: f64,
}

fn key(number: usize) -> String {
    format!("key:{number:012}")
}

/// Puts every key there, by way of `port`, so that each lies where the proxies look for it.
pub(super) fn fill(port: u16, protocol: Protocol, size: usize) -> Outcome<()> {
    let value = "x".repeat(size);
    for first in (0..KEYS).step_by(500) {
        let keys = (first..first + 500).map(key);
        let bytes: Vec<u8> = match protocol {
            Protocol::Redis => keys.flat_map(|key| encode(&["SET", &key, &value])).collect(),
            Protocol::Memcached => {
                keys.flat_map(|key| format!("set {key} 0 0 {size}\r\n{value}\r\n").into_bytes()).collect()
            }
        };
        pipelined::once(port, protocol, &bytes, 500)?;
    }
    Ok(())
}

/// One turn, of about `length`.
pub(super) fn take(cell: &Cell, kind: Kind, proxy: &Proxy, lab: &Lab, length: Duration) -> Outcome<Turn> {
    let pids = proxy.processes();
    let before = CpuTime::of(&pids);
    let (commands, per_second, p50_ms, p99_ms) = match cell.setup.protocol {
        Protocol::Redis => {
            redis_benchmark(cell, cell.commands / if kind == Kind::Nutcracker { ITS_PART } else { 1 }, proxy.port, lab)?
        }
        Protocol::Memcached if cell.ask == Ask::Memaslap => {
            let rate = memaslap(cell, proxy.port, lab)?;
            // It tells of no times: this is the mean, as many being under way as there are connections.
            (cell.commands as f64, rate, cell.connections as f64 / rate * 1e3, f64::NAN)
        }
        Protocol::Memcached => {
            let mut clients = Clients::connect(plan(cell, proxy.port, length))?;
            let seen = clients.run(|_| Ok(()))?;
            if seen.faults() > 0 {
                return Err(Trouble::Wrong(format!("{} errors: {:?}", seen.faults(), seen.examples)));
            }
            let rate = seen.replies as f64 / seen.seconds;
            (seen.replies as f64, rate, seen.percentile_ms(0, 0.5), seen.percentile_ms(0, 0.99))
        }
    };
    let used = CpuTime::of(&pids).since(before);
    let cpu_us = used.nanos() as f64 / commands / 1e3;
    Ok(Turn { kind, per_second, p50_ms, p99_ms, cpu_us, user_share: used.user_share() })
}

fn redis_benchmark(cell: &Cell, commands: usize, port: u16, lab: &Lab) -> Outcome<(f64, f64, f64, f64)> {
    let program = lab::find_program("redis-benchmark")?;
    let core = lab.cores(cell.setup.pinned.then_some(lab.load_core));
    let mut command = LeashedCommand::new("taskset", lab.load_core).args(["-c", &core]).args([
        program.display().to_string(),
        "-p".to_owned(),
        port.to_string(),
        "--csv".to_owned(),
        "-c".to_owned(),
        cell.connections.to_string(),
        "-n".to_owned(),
        commands.to_string(),
        "-P".to_owned(),
        cell.pipeline.to_string(),
        "-r".to_owned(),
        KEYS.to_string(),
        "-d".to_owned(),
        cell.size.to_string(),
    ]);
    command = match cell.ask {
        Ask::Get => command.args(["-t", "get"]),
        Ask::Set => command.args(["-t", "set"]),
        Ask::Many(count) => command.arg("MGET").args(vec!["key:__rand_int__"; count]),
        Ask::Memaslap => return Err(Trouble::Wrong("memaslap speaks no RESP".to_owned())),
    };
    let text = lab.tool(&command, PATIENCE)?;
    let line = text.lines().rfind(|line| line.starts_with('"')).unwrap_or_default();
    let mut fields = line.rsplit("\",\"").map(|field| field.trim_matches('"').parse::<f64>());
    // From the right: max, p99, p95, p50, min, average, rate.
    let field = |fields: &mut dyn Iterator<Item = Result<f64, _>>, skip| {
        let found: Option<Result<f64, std::num::ParseFloatError>> = fields.nth(skip);
        found.and_then(Result::ok).ok_or_else(|| Trouble::Wrong(format!("redis-benchmark said: {text}")))
    };
    let p99 = field(&mut fields, 1)?;
    let p50 = field(&mut fields, 1)?;
    let rate = field(&mut fields, 2)?;
    Ok((commands as f64, rate, p50, p99))
}

/// Commands a second.
fn memaslap(cell: &Cell, port: u16, lab: &Lab) -> Outcome<f64> {
    // Debian's name for it is another than its own.
    let program = lab::find_program("memcaslap").or_else(|_| lab::find_program("memaslap"))?;
    let room = lab.room("memaslap")?;
    let file = room.join("commands");
    let length = key(0).len();
    let text = format!("key\n{length} {length} 1\nvalue\n{0} {0} 1\ncmd\n0 0.1\n1 0.9\n", cell.size);
    fs::write(&file, text).doing(file.display())?;
    let command = LeashedCommand::new("taskset", lab.load_core).args(["-c", &lab.load_core.to_string()]).args([
        program.display().to_string(),
        "-s".to_owned(),
        format!("127.0.0.1:{port}"),
        "-c".to_owned(),
        cell.connections.to_string(),
        "-T".to_owned(),
        "1".to_owned(),
        "-x".to_owned(),
        cell.commands.to_string(),
        "-F".to_owned(),
        file.display().to_string(),
    ]);
    let text = lab.tool(&command, PATIENCE)?;
    let rate = text.lines().rev().find_map(|line| {
        let (_, rest) = line.split_once("TPS:")?;
        rest.split_whitespace().next()?.parse::<f64>().ok()
    });
    rate.ok_or_else(|| Trouble::Wrong(format!("memaslap said: {text}")))
}

fn plan(cell: &Cell, port: u16, length: Duration) -> Plan {
    let value = "x".repeat(cell.size);
    // A prime step goes through the keys in no order that matters.
    let mut next = 0;
    let mut another = || {
        next = (next + 7_919) % KEYS;
        key(next)
    };
    let batches = (0..200).map(|_| {
        let mut bytes = Vec::new();
        for _ in 0..cell.pipeline {
            let line = match cell.ask {
                Ask::Get | Ask::Memaslap => format!("get {}\r\n", another()),
                Ask::Set => format!("set {} 0 0 {}\r\n{value}\r\n", another(), cell.size),
                Ask::Many(count) => {
                    let keys: Vec<String> = (0..count).map(|_| another()).collect();
                    format!("get {}\r\n", keys.join(" "))
                }
            };
            bytes.extend_from_slice(line.as_bytes());
        }
        Batch { bytes, replies: u32::try_from(cell.pipeline).unwrap_or(u32::MAX), class: 0 }
    });
    Plan {
        port,
        protocol: cell.setup.protocol,
        connections: cell.connections,
        batches: batches.collect(),
        pace: Duration::ZERO,
        length,
        batches_max: u64::MAX,
    }
}

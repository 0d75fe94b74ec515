//! A server that dies, and one that stops, under clients at a steady pace.

use std::time::Duration;

use kv::Protocol;
use kv::wire::resp::request::encode;
use rustix::process::Signal;

use super::Field;
use super::proxies::{Kind, Setup};
use super::report::Row;
use super::stores::Store;
use crate::error::{Outcome, Trouble};
use crate::lab::Lab;
use crate::load::pipelined::{self, Batch, Clients, Plan, Seen};

/// A measurement and the words by which it is chosen.
type Measure = fn(&mut Field) -> Outcome<Vec<Row>>;

/// All of them.
pub(super) const ROWS: &[(&str, Measure)] = &[("one server killed", killed), ("one server stopped", stopped)];

const SETUP: Setup =
    Setup { protocol: Protocol::Redis, servers: 2, ejects: true, threads: 1, pinned: true, tied: false };
const CLIENTS: usize = 8;
const PACE: Duration = Duration::from_millis(4);
const BEGINS: Duration = Duration::from_secs(1);
const ENDS: Duration = Duration::from_secs(5);
const LENGTH: Duration = Duration::from_secs(8);
/// Batches by whose key it is, and whether it reads.
const READ_SICK: usize = 0;
const WRITE_SICK: usize = 1;
const READ_WELL: usize = 2;

fn killed(field: &mut Field) -> Outcome<Vec<Row>> {
    let its = trial(field, Kind::Nutcracker, Blow::Kill)?;
    let ours = trial(field, Kind::Beltway, Blow::Kill)?;
    // Those in flight: each client has at most one.
    let good = ours.errors[READ_SICK] == 0 && ours.closed == 0 && ours.errors[WRITE_SICK] <= CLIENTS as u64;
    Ok(vec![Row {
        what: "redis killed for 4 s, auto eject: errors of reads, writes (closed), of replies".into(),
        nutcracker: told(&its),
        beltway: told(&ours),
        wanted: Some(("those in flight; reads 0", good, good)),
    }])
}

fn stopped(field: &mut Field) -> Outcome<Vec<Row>> {
    let its = trial(field, Kind::Nutcracker, Blow::Stop)?;
    let ours = trial(field, Kind::Beltway, Blow::Stop)?;
    let (quiet_its, quiet) = (trial(field, Kind::Nutcracker, Blow::None)?, trial(field, Kind::Beltway, Blow::None)?);
    // Those in flight: each client has at most one.
    let good = ours.faults() <= CLIENTS as u64;
    let [p99, p99_quiet] = [&ours, &quiet].map(|seen| seen.percentile_ms(READ_WELL, 0.99));
    Ok(vec![
        Row {
            what: "redis stopped for 4 s: errors of reads, writes (closed), of replies".into(),
            nutcracker: told(&its),
            beltway: told(&ours),
            wanted: Some(("those in flight", good, good)),
        },
        Row {
            what: "meanwhile the other server's p50 · p99 · p99.9, ms (and with nothing stopped)".into(),
            nutcracker: format!("{} ({})", well(&its), well(&quiet_its)),
            beltway: format!("{} ({})", well(&ours), well(&quiet)),
            wanted: Some((
                "p99 ± 20 %, or 0.1 ms",
                p99 <= (p99_quiet * 1.2).max(p99_quiet + 0.1),
                p99 <= p99_quiet * 1.2,
            )),
        },
    ])
}

fn told(seen: &Seen) -> String {
    let [read, write] = [READ_SICK, WRITE_SICK].map(|class| seen.errors[class]);
    let rest = if seen.errors[READ_WELL] > 0 {
        format!(" and {} of the other's", seen.errors[READ_WELL])
    } else {
        String::new()
    };
    format!("{read}, {write} ({}){rest}, {}; last at {:.1} s", seen.closed, seen.replies, seen.last_error)
}

fn well(seen: &Seen) -> String {
    let at = |p| seen.percentile_ms(READ_WELL, p);
    format!("{:.2} · {:.2} · {:.2}", at(0.5), at(0.99), at(0.999))
}

/// Keys that live on the second server, and on the first, as the proxy places them.
fn keys(field: &Field, port: u16) -> Outcome<(Vec<String>, Vec<String>)> {
    let (mut sick, mut healthy) = (Vec::new(), Vec::new());
    for number in 0..10_000 {
        let key = format!("{number}:{}", number * 7_919);
        pipelined::once(port, Protocol::Redis, &encode(&["SET", &key, "value"]), 1)?;
        let there = pipelined::once(field.redis[1].port, Protocol::Redis, &encode(&["EXISTS", &key]), 1)?;
        let list = if there == b":1\r\n" { &mut sick } else { &mut healthy };
        if list.len() < 8 {
            list.push(key);
        }
        if sick.len() == 8 && healthy.len() == 8 {
            return Ok((sick, healthy));
        }
    }
    Err(Trouble::Wrong("all keys live on one server".into()))
}

/// What is done to a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Blow {
    None,
    Kill,
    Stop,
}

fn trial(field: &mut Field, kind: Kind, blow: Blow) -> Outcome<Seen> {
    let proxy = field.start(kind, &SETUP)?;
    let (sick, healthy) = keys(field, proxy.port)?;
    let mut batches = Vec::new();
    for (at, (sick, healthy)) in sick.iter().zip(&healthy).enumerate() {
        let batch = |words: &[&str], class| Batch { bytes: encode(words), replies: 1, class };
        // One write for every three reads of the server in question.
        let question =
            if at % 4 == 3 { batch(&["SET", sick, "value"], WRITE_SICK) } else { batch(&["GET", sick], READ_SICK) };
        batches.push(question);
        batches.push(batch(&["GET", healthy], READ_WELL));
    }
    let mut clients = Clients::connect(Plan {
        port: proxy.port,
        protocol: Protocol::Redis,
        connections: CLIENTS,
        batches,
        pace: PACE,
        length: LENGTH,
        batches_max: u64::MAX,
    })?;
    let (mut begun, mut ended) = (false, false);
    let (lab, server) = (&field.lab, &mut field.redis[1]);
    let seen = clients.run(|since| {
        if since >= BEGINS && !begun {
            begun = true;
            match blow {
                Blow::None => {}
                Blow::Kill => server.kill(),
                Blow::Stop => server.signal(Signal::STOP)?,
            }
        }
        if since >= ENDS && !ended {
            ended = true;
            recover(server, lab, blow)?;
        }
        Ok(())
    });
    if begun && !ended {
        recover(server, lab, blow)?;
    }
    seen
}

fn recover(server: &mut Store, lab: &Lab, blow: Blow) -> Outcome<()> {
    match blow {
        Blow::None => Ok(()),
        Blow::Kill => server.run(lab),
        Blow::Stop => server.signal(Signal::CONT),
    }
}

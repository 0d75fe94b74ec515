//! What the proxies hold: for connections, for replies that nobody reads, for large values.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use base::{Clock, SystemClock};
use kv::Protocol;
use kv::wire::resp::request::encode;

use super::Field;
use super::proxies::{Kind, Proxy, Setup};
use super::report::Row;
use crate::account::{self, Memory};
use crate::error::{Doing, Outcome, Trouble};
use crate::load::pipelined::{self, Batch, Clients, Plan};

/// A measurement and the words by which it is chosen.
type Measure = fn(&Field) -> Outcome<Vec<Row>>;

/// All of them.
pub(super) const ROWS: &[(&str, Measure)] =
    &[("memory of connections", connections), ("memory of unread replies", unread), ("a value of 64 MiB", large)];

const SETUP: Setup =
    Setup { protocol: Protocol::Redis, servers: 1, ejects: false, threads: 1, pinned: true, tied: false };
/// Between the last event and a look at the memory.
const SETTLE: Duration = Duration::from_millis(2_000);
/// Connections held open, what each asks at once, and how often it does.
const CONNECTIONS: usize = 10_000;
const ASKED: (u32, u64) = (4, 3);
/// Replies asked for and not read, and the size of each.
const UNREAD: (usize, usize) = (256, 1 << 20);
const PATIENCE: Duration = Duration::from_secs(60);
const MIB: f64 = 1024.0;

fn rss_kib(proxy: &Proxy) -> f64 {
    Memory::of(&proxy.processes()).rss_kib as f64
}

fn both<T>(field: &Field, mut measure: impl FnMut(Kind, &Proxy) -> Outcome<T>) -> Outcome<(T, T)> {
    let its = measure(Kind::Nutcracker, &field.start(Kind::Nutcracker, &SETUP)?)?;
    let ours = measure(Kind::Beltway, &field.start(Kind::Beltway, &SETUP)?)?;
    Ok((its, ours))
}

/// Bytes for each of many connections: as they are opened, and after each was used.
fn connections(field: &Field) -> Outcome<Vec<Row>> {
    let ((idle_its, used_its, left_its), (idle, used, left)) = both(field, |_, proxy| {
        pipelined::once(proxy.port, Protocol::Redis, &encode(&["SET", "key", &"x".repeat(64)]), 1)?;
        sleep(SETTLE);
        let before = rss_kib(proxy);
        let (depth, times) = ASKED;
        let batch = Batch { bytes: encode(&["GET", "key"]).repeat(depth as usize), replies: depth, class: 0 };
        let mut clients = Clients::connect(Plan {
            port: proxy.port,
            protocol: Protocol::Redis,
            connections: CONNECTIONS,
            batches: vec![batch],
            pace: Duration::ZERO,
            length: Duration::from_secs(10),
            batches_max: times,
        })?;
        sleep(SETTLE);
        let idle = rss_kib(proxy);
        let seen = clients.run(|_| Ok(()))?;
        if seen.replies != CONNECTIONS as u64 * u64::from(depth) * times || seen.faults() > 0 {
            return Err(Trouble::Wrong(format!("{} replies, {} errors", seen.replies, seen.faults())));
        }
        sleep(SETTLE);
        let used = rss_kib(proxy);
        drop(clients);
        sleep(SETTLE);
        let each = |kib: f64| (kib - before) * 1024.0 / CONNECTIONS as f64;
        Ok((each(idle), each(used), each(rss_kib(proxy))))
    })?;
    let row = |what: &str, its: f64, ours: f64, wanted| Row {
        what: format!("{what}, bytes each of {CONNECTIONS} connections"),
        nutcracker: format!("{its:.0}"),
        beltway: format!("{ours:.0}"),
        wanted,
    };
    Ok(vec![
        row("opened and not used", idle_its, idle, None),
        row("used and idle again", used_its, used, Some(("≤ 1,024 · aim 512", used <= 1024.0, used <= 512.0))),
        row("closed", left_its, left, None),
    ])
}

fn connect(port: u16) -> Outcome<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into(), PATIENCE);
    let stream = stream.doing("connecting")?;
    stream.set_read_timeout(Some(PATIENCE)).doing("a timeout")?;
    stream.set_write_timeout(Some(PATIENCE)).doing("a timeout")?;
    stream.set_nodelay(true).doing("TCP_NODELAY")?;
    Ok(stream)
}

/// One client asks for much and does not read.
fn unread(field: &Field) -> Outcome<Vec<Row>> {
    let (count, size) = UNREAD;
    let ((held_its, after_its, wait_its), (held, after, wait)) = both(field, |_, proxy| {
        let set = encode(&["SET", "big", &"x".repeat(size)]);
        pipelined::once(proxy.port, Protocol::Redis, &set, 1)?;
        pipelined::once(proxy.port, Protocol::Redis, &encode(&["SET", "small", "x"]), 1)?;
        sleep(SETTLE);
        let before = rss_kib(proxy);
        account::forget_peak_rss(&proxy.processes());
        let mut stream = connect(proxy.port)?;
        let asked: Vec<u8> = (0..count).flat_map(|_| encode(&["GET", "big"])).collect();
        stream.write_all(&asked).doing("asking")?;
        sleep(Duration::from_millis(500));
        let began = SystemClock.now();
        pipelined::once(proxy.port, Protocol::Redis, &encode(&["GET", "small"]), 1)?;
        let wait = (SystemClock.now() - began).as_secs_f64() * 1e3;
        sleep(Duration::from_millis(1_500));
        let held = account::peak_rss_kib(&proxy.processes()) as f64 - before;
        let mut left = count * (size + 12);
        let mut buffer = vec![0; 1 << 20];
        while left > 0 {
            let got = stream.read(&mut buffer).doing("reading at last")?;
            if got == 0 {
                return Err(Trouble::Wrong(format!("closed with {left} bytes to come")));
            }
            left -= got;
        }
        drop(stream);
        sleep(SETTLE);
        Ok((held / MIB, (rss_kib(proxy) - before) / MIB, wait))
    })?;
    Ok(vec![
        Row {
            what: "256 GETs of 1 MiB, not read: MB held / after".into(),
            nutcracker: format!("{held_its:.1} / {after_its:.1}"),
            beltway: format!("{held:.1} / {after:.1}"),
            wanted: Some(("≤ 16 / 4 · aim 4 / 1", held <= 16.0 && after <= 4.0, held <= 4.0 && after <= 1.0)),
        },
        Row {
            what: "meanwhile another client's GET, ms".into(),
            nutcracker: format!("{wait_its:.1}"),
            beltway: format!("{wait:.1}"),
            wanted: Some(("≤ 100 · aim 50", wait <= 100.0, wait <= 50.0)),
        },
    ])
}

/// A large value there and back, with another client asking meanwhile.
fn large(field: &Field) -> Outcome<Vec<Row>> {
    const SIZE: usize = 64 << 20;
    let value: String = (0..SIZE).map(|at| char::from(b'a' + u8::try_from(at / 7 % 26).unwrap_or(0))).collect();
    let (its, ours) = both(field, |_, proxy| {
        account::forget_peak_rss(&proxy.processes());
        let before = rss_kib(proxy);
        let began = SystemClock.now();
        let set = encode(&["SET", "large", &value]);
        for _ in 0..2 {
            pipelined::once(proxy.port, Protocol::Redis, &set, 1)?;
        }
        let put = SystemClock.now();
        for _ in 0..2 {
            let reply = pipelined::once(proxy.port, Protocol::Redis, &encode(&["GET", "large"]), 1)?;
            if reply.len() != SIZE + 13 || &reply[11..11 + SIZE] != value.as_bytes() {
                return Err(Trouble::Wrong(format!("{} bytes that are not the value", reply.len())));
            }
        }
        let got = SystemClock.now();
        let peak = (account::peak_rss_kib(&proxy.processes()) as f64 - before) / MIB;
        sleep(SETTLE);
        let after = (rss_kib(proxy) - before) / MIB;
        let rate = |nanos: Duration| 128.0 / nanos.as_secs_f64();
        Ok((format!("{:.0} · {:.0}", rate(put - began), rate(got - put)), peak, after))
    })?;
    let (rates_its, _, _) = &its;
    let (rates, peak, after) = &ours;
    let memory = |(_, peak, after): &(String, f64, f64)| format!("{peak:.1} / {after:.1}");
    Ok(vec![
        Row {
            what: "64 MiB: SET · GET, MiB/s".into(),
            nutcracker: rates_its.clone(),
            beltway: rates.clone(),
            wanted: None,
        },
        Row {
            what: "64 MiB: MB held / after".into(),
            nutcracker: memory(&its),
            beltway: memory(&ours),
            wanted: Some(("≤ 16 / 4 · aim 4 / 1", *peak <= 16.0 && *after <= 4.0, *peak <= 4.0 && *after <= 1.0)),
        },
    ])
}

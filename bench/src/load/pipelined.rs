//! Key-value clients that send batches of commands and count the replies: one thread, one epoll set.
//!
//! Each connection has one batch under way; when its last reply has come the next batch goes out, at once or at its
//! pace. Replies are delimited by the engine's own scanner; what they say is looked at only as far as "is it an error".

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use base::{Clock, Instant, SystemClock};
use kv::Protocol;
use kv::wire::{Reply, Scanned};
use rustix::event::{Timespec, epoll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::{Doing, Outcome, Trouble};

/// Bytes received by one call.
const RECEIVE: usize = 256 << 10;
/// A batch without its last reply for so long has failed, and so has the run.
const LATE: Duration = Duration::from_secs(20);
/// The longest sleep before the run's end and its moments are looked at.
const NAP_MAX: Duration = Duration::from_millis(5);
/// Latencies kept for each class.
const LATENCIES_MAX: usize = 2_000_000;
/// Failures described.
const FAILURES_MAX: usize = 8;

/// Commands that are sent at once.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// As they go over the wire.
    pub(crate) bytes: Vec<u8>,
    /// How many replies they have.
    pub(crate) replies: u32,
    /// What kind it is, for those who tell kinds apart.
    pub(crate) class: usize,
}

/// What to send, by how many, for how long.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Port on 127.0.0.1.
    pub(crate) port: u16,
    /// What is spoken.
    pub(crate) protocol: Protocol,
    /// Connections at once.
    pub(crate) connections: usize,
    /// Each connection goes through them in turn, beginning at a place of its own.
    pub(crate) batches: Vec<Batch>,
    /// Time from one batch of a connection to its next, at least.
    pub(crate) pace: Duration,
    /// How long.
    pub(crate) length: Duration,
    /// Batches of each connection, at most.
    pub(crate) batches_max: u64,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Replies.
    pub(crate) replies: u64,
    /// Of them, errors, by class of their batch.
    pub(crate) errors: Vec<u64>,
    /// The first of them.
    pub(crate) examples: Vec<String>,
    /// Connections that were closed under their batch.
    pub(crate) closed: u64,
    /// From the first batch to the last reply.
    pub(crate) seconds: f64,
    /// When, since the beginning, the last error came.
    pub(crate) last_error: f64,
    /// Seconds of each batch, by class.
    pub(crate) latencies: Vec<Vec<f32>>,
}

impl Seen {
    /// The time, in milliseconds, that a share `p` of the batches of a class did not exceed.
    pub(crate) fn percentile_ms(&self, class: usize, p: f64) -> f64 {
        let Some(all) = self.latencies.get(class).filter(|all| !all.is_empty()) else { return f64::NAN };
        let mut sorted = all.clone();
        sorted.sort_by(f32::total_cmp);
        let at = ((sorted.len() - 1) as f64 * p).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index within the list")]
        let at = at as usize;
        f64::from(sorted[at]) * 1e3
    }

    /// All errors, and connections that were closed.
    pub(crate) fn faults(&self) -> u64 {
        self.errors.iter().sum::<u64>() + self.closed
    }
}

struct Connection {
    fd: OwnedFd,
    batch: usize,
    sent: usize,
    waits: u32,
    began: Instant,
    next: Instant,
    batches: u64,
    reply: Reply,
    carry: Vec<u8>,
    fresh: bool,
    error: bool,
}

/// Many connections under load.
pub(crate) struct Clients {
    plan: Plan,
    epoll: OwnedFd,
    connections: Vec<Option<Connection>>,
    seen: Seen,
}

fn connect(port: u16) -> Outcome<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).doing("a socket")?;
    rustix::net::connect(&fd, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).doing("connecting")?;
    rustix::net::sockopt::set_tcp_nodelay(&fd, true).doing("TCP_NODELAY")?;
    rustix::io::ioctl_fionbio(&fd, true).doing("O_NONBLOCK")?;
    Ok(fd)
}

impl Clients {
    /// Connects all, one after the other.
    pub(crate) fn connect(plan: Plan) -> Outcome<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).doing("an epoll set")?;
        let now = SystemClock.now();
        let mut connections = Vec::with_capacity(plan.connections);
        for number in 0..plan.connections {
            let fd = connect(plan.port)?;
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&epoll, &fd, data, epoll::EventFlags::IN).doing("watching a connection")?;
            connections.push(Some(Connection {
                fd,
                batch: number,
                sent: 0,
                waits: 0,
                began: now,
                next: now,
                batches: 0,
                reply: Reply::new(plan.protocol),
                carry: Vec::new(),
                fresh: true,
                error: false,
            }));
        }
        let classes = plan.batches.iter().map(|batch| batch.class + 1).max().unwrap_or(1);
        let seen = Seen { errors: vec![0; classes], latencies: vec![Vec::new(); classes], ..Seen::default() };
        Ok(Self { plan, epoll, connections, seen })
    }

    /// Sends and counts until the time or the batches are over and the last replies have come. `at` is told how long
    /// it has run, every few milliseconds.
    pub(crate) fn run(&mut self, mut at: impl FnMut(Duration) -> Outcome<()>) -> Outcome<Seen> {
        let clock = SystemClock;
        let began = clock.now();
        let end = began + self.plan.length;
        let mut buffer = vec![0_u8; RECEIVE];
        let mut events = Vec::with_capacity(1_024);
        let paced = self.plan.pace > Duration::ZERO;
        let mut now = began;
        for number in 0..self.connections.len() {
            self.start(number, began, now);
        }
        let mut looked = now;
        loop {
            events.clear();
            let nap = Timespec { tv_sec: 0, tv_nsec: NAP_MAX.subsec_nanos().into() };
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&nap)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Trouble::Io("epoll".into(), error.into())),
            }
            now = clock.now();
            let over = now >= end;
            for event in &events {
                let number = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
                let flags = event.flags;
                if flags.contains(epoll::EventFlags::OUT) {
                    self.send(number);
                }
                self.receive(number, &mut buffer, began, now, over || paced);
            }
            if now - looked >= NAP_MAX || events.is_empty() {
                looked = now;
                at(now - began)?;
                if paced && !over {
                    for number in 0..self.connections.len() {
                        let due = self.connections[number].as_ref().is_some_and(|it| it.waits == 0 && it.next <= now);
                        if due {
                            self.start(number, began, now);
                        }
                    }
                }
                let waits = |it: &&Connection| it.waits > 0;
                let busy = self.connections.iter().flatten().filter(waits).count();
                let left = self.connections.iter().flatten().any(|it| it.batches < self.plan.batches_max);
                if busy == 0 && (over || !left) {
                    break;
                }
                if now > end + LATE {
                    return Err(Trouble::Late(format!("the last replies of {busy} connections"), LATE.as_secs()));
                }
            }
        }
        let mut seen = self.seen.clone();
        seen.seconds = (now - began).as_secs_f64();
        self.seen.errors.iter_mut().for_each(|count| *count = 0);
        self.seen.latencies.iter_mut().for_each(Vec::clear);
        (self.seen.replies, self.seen.closed) = (0, 0);
        Ok(seen)
    }

    fn start(&mut self, number: usize, began: Instant, now: Instant) {
        let Some(it) = &mut self.connections[number] else { return };
        if it.batches >= self.plan.batches_max {
            return;
        }
        it.batch = (it.batch + 1) % self.plan.batches.len();
        it.batches += 1;
        it.waits = self.plan.batches[it.batch].replies;
        it.sent = 0;
        it.began = now;
        // Clients at a pace do not all beat at once.
        let first = it.batches == 1 && now == began;
        let stagger = self.plan.pace.mul_f64(number as f64 / self.plan.connections.max(1) as f64);
        it.next = now + self.plan.pace + if first { stagger } else { Duration::ZERO };
        self.send(number);
    }

    fn send(&mut self, number: usize) {
        let Some(it) = self.connections.get_mut(number).and_then(Option::as_mut) else { return };
        let bytes = &self.plan.batches[it.batch].bytes;
        let all = bytes.len();
        while it.sent < all {
            match rustix::net::send(&it.fd, &bytes[it.sent..], SendFlags::NOSIGNAL) {
                Ok(sent) => it.sent += sent,
                Err(rustix::io::Errno::AGAIN) => {
                    let data = epoll::EventData::new_u64(number as u64);
                    let _ = epoll::modify(&self.epoll, &it.fd, data, epoll::EventFlags::IN | epoll::EventFlags::OUT);
                    return;
                }
                // The receive says it again.
                Err(_) => return,
            }
        }
        if all > RECEIVE {
            let data = epoll::EventData::new_u64(number as u64);
            let _ = epoll::modify(&self.epoll, &it.fd, data, epoll::EventFlags::IN);
        }
    }

    fn receive(&mut self, number: usize, buffer: &mut [u8], began: Instant, now: Instant, stop: bool) {
        let Some(it) = self.connections.get_mut(number).and_then(Option::as_mut) else { return };
        let carried = it.carry.len();
        buffer[..carried].copy_from_slice(&it.carry);
        it.carry.clear();
        let got = match rustix::net::recv(&it.fd, &mut buffer[carried..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return self.lose(number, began, now),
            Ok((got, _)) => got,
            Err(rustix::io::Errno::AGAIN) => {
                it.carry.extend_from_slice(&buffer[..carried]);
                return;
            }
            Err(_) => return self.lose(number, began, now),
        };
        let bytes = &buffer[..carried + got];
        let class = self.plan.batches[it.batch].class;
        let mut at = 0;
        loop {
            if it.fresh && at < bytes.len() {
                it.fresh = false;
                it.error = bytes[at] == b'-' || (matches!(it.reply, Reply::Memcached(_)) && is_error(&bytes[at..]));
                if it.error && self.seen.examples.len() < FAILURES_MAX {
                    let text = String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 60)]).into_owned();
                    self.seen.examples.push(text);
                }
            }
            match it.reply.scan(&bytes[at..]) {
                Scanned::Whole(len) => {
                    at += len;
                    it.fresh = true;
                    self.seen.replies += 1;
                    if it.error {
                        self.seen.errors[class] += 1;
                        self.seen.last_error = (now - began).as_secs_f64();
                    }
                    it.waits = it.waits.saturating_sub(1);
                }
                Scanned::Part(len) => {
                    it.carry.extend_from_slice(&bytes[at + len..]);
                    break;
                }
                Scanned::Malformed => return self.lose(number, began, now),
            }
            if at == bytes.len() {
                break;
            }
        }
        if it.waits == 0 {
            let list = &mut self.seen.latencies[class];
            if list.len() < LATENCIES_MAX {
                #[expect(clippy::cast_possible_truncation, reason = "seconds, to seven digits")]
                list.push((now - it.began).as_secs_f64() as f32);
            }
            if !stop {
                self.start(number, began, now);
            }
        }
    }

    /// The connection is gone: a failure, and a new one in its place.
    fn lose(&mut self, number: usize, began: Instant, now: Instant) {
        let Some(old) = self.connections[number].take() else { return };
        self.seen.closed += 1;
        self.seen.last_error = (now - began).as_secs_f64();
        let Ok(fd) = connect(self.plan.port) else { return };
        let data = epoll::EventData::new_u64(number as u64);
        if epoll::add(&self.epoll, &fd, data, epoll::EventFlags::IN).is_ok() {
            let reply = Reply::new(self.plan.protocol);
            let next = now + self.plan.pace;
            self.connections[number] =
                Some(Connection { fd, waits: 0, reply, fresh: true, error: false, next, carry: Vec::new(), ..old });
        }
    }
}

fn is_error(bytes: &[u8]) -> bool {
    [&b"ERROR"[..], b"SERVER_ERROR", b"CLIENT_ERROR"].iter().any(|word| bytes.starts_with(word))
}

/// Sends one batch on a connection of its own and returns what the last reply was, within a bound.
pub(crate) fn once(port: u16, protocol: Protocol, bytes: &[u8], replies: usize) -> Outcome<Vec<u8>> {
    use std::io::{Read, Write};
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let mut stream = std::net::TcpStream::connect_timeout(&address.into(), LATE).doing("connecting")?;
    stream.set_read_timeout(Some(LATE)).doing("a timeout")?;
    stream.set_write_timeout(Some(LATE)).doing("a timeout")?;
    stream.set_nodelay(true).doing("TCP_NODELAY")?;
    stream.write_all(bytes).doing("sending")?;
    let mut have = Vec::new();
    let mut reply = Reply::new(protocol);
    let (mut looked, mut begins, mut left) = (0, 0, replies);
    let mut buffer = vec![0_u8; RECEIVE];
    loop {
        while left > 0
            && let Scanned::Whole(len) = {
                let scanned = reply.scan(&have[looked..]);
                if let Scanned::Part(len) = scanned {
                    looked += len;
                }
                scanned
            }
        {
            left -= 1;
            looked += len;
            if left > 0 {
                begins = looked;
            }
        }
        if left == 0 {
            return Ok(have.split_off(begins));
        }
        match stream.read(&mut buffer).doing("a reply")? {
            0 => return Err(Trouble::Io("a reply".into(), io::ErrorKind::UnexpectedEof.into())),
            got => have.extend_from_slice(&buffer[..got]),
        }
    }
}

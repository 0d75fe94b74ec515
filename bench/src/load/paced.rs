//! Clients at a bounded rate that write down every failure with its moment: some keep their connection, some make a new
//! one for each request.
//!
//! One thread, one epoll set, non-blocking sockets. Each client has at most one request under way. What a failure means
//! (in flight when the process died, or not to be excused) is judged by whoever knows when the process died: the log
//! only says when the request was sent, and when its connection was made.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use base::{Clock, Instant, SystemClock};
use rustix::event::{Timespec, epoll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use serde::Serialize;

use crate::error::{Doing, Outcome};
use crate::probe;

/// A request without its whole answer for so long has failed.
const LATE: Duration = Duration::from_secs(10);
/// How far a client that fell behind its pace may catch up.
const CATCH_UP_MAX: Duration = Duration::from_millis(5);
/// The longest the thread sleeps before it looks whether it is to stop.
const NAP_MAX: Duration = Duration::from_millis(20);
/// A turn that begins so much later than it should is a stall: epoll rounds its wait up to a millisecond.
const STALL_MIN: Duration = Duration::from_millis(2);
/// Failures kept; a target that fails all the time must not fill the memory.
const FAILURES_MAX: usize = 100_000;
/// Answers longer than this are not expected.
const ANSWER_MAX: usize = 64 * 1024;

/// What to ask, how often, by how many.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Port on 127.0.0.1.
    pub(crate) port: u16,
    /// The path of every request.
    pub(crate) path: String,
    /// Clients that keep their connection.
    pub(crate) kept: u32,
    /// Clients that make a connection for each request.
    pub(crate) reconnecting: u32,
    /// Requests per second of all together, at most.
    pub(crate) rate: u32,
}

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum How {
    /// No connection could be made.
    Refused,
    /// The connection ended before the first byte of the answer.
    Unanswered,
    /// The connection ended within the answer.
    Cut,
    /// The answer's status was not 200.
    WrongStatus,
    /// No whole answer in time.
    Late,
}

/// One failed request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    /// When it was known.
    pub(crate) at: Instant,
    /// When the attempt to connect was begun.
    pub(crate) connected: Instant,
    /// When the request was sent; `None` when there was no connection.
    pub(crate) sent: Option<Instant>,
    /// What was seen.
    pub(crate) how: How,
}

/// What the clients saw since the log was last begun anew.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    since: Instant,
    last_answer: Instant,
    /// Whole answers with status 200.
    pub(crate) answers: u64,
    /// The first answer on a connection made after the beginning.
    pub(crate) first_new_answer: Option<Instant>,
    /// The longest time without any answer.
    pub(crate) longest_gap: Duration,
    /// The longest time the clients themselves were not run by the machine: no gap shorter than it means anything.
    pub(crate) longest_stall: Duration,
    /// All failures, in order.
    pub(crate) failures: Vec<Failure>,
}

impl Log {
    fn answered(&mut self, at: Instant, connected: Instant) {
        self.answers += 1;
        self.longest_gap = self.longest_gap.max(at - self.last_answer.max(self.since));
        self.last_answer = at;
        if self.first_new_answer.is_none() && connected >= self.since {
            self.first_new_answer = Some(at);
        }
    }

    fn failed(&mut self, failure: Failure) {
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(failure);
        }
    }
}

/// The running clients. Dropping it stops them.
pub(crate) struct Paced {
    log: Arc<Mutex<Log>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Paced {
    /// Starts the clients in a thread of their own.
    pub(crate) fn start(plan: &Plan) -> Outcome<Self> {
        let log = Arc::new(Mutex::new(Log { since: SystemClock.now(), ..Log::default() }));
        let stop = Arc::new(AtomicBool::new(false));
        let mut crowd = Crowd::new(plan, Arc::clone(&log)).doing("making an epoll set")?;
        let stopping = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("paced clients".to_owned())
            .spawn(move || crowd.run(&stopping))
            .doing("starting the clients' thread")?;
        Ok(Self { log, stop, thread: Some(thread) })
    }

    /// Forgets what was seen so far; from `now` on, connections count as new.
    pub(crate) fn begin_anew(&self, now: Instant) {
        *lock(&self.log) = Log { since: now, last_answer: now, ..Log::default() };
    }

    /// From `now` on connections count as new; everything seen is kept.
    pub(crate) fn count_as_new_from(&self, now: Instant) {
        let mut log = lock(&self.log);
        log.since = now;
        log.first_new_answer = None;
    }

    /// What was seen.
    pub(crate) fn seen(&self) -> Log {
        lock(&self.log).clone()
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && let Ok(Err(error)) = thread.join()
        {
            eprintln!("bench: the clients stopped: {error}");
        }
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a client does now.
enum State {
    Unconnected,
    Connecting { fd: OwnedFd, begun: Instant },
    Idle { fd: OwnedFd, connected: Instant },
    Waiting { fd: OwnedFd, connected: Instant, sent: Instant },
}

struct Client {
    keeps: bool,
    due: Instant,
    /// Told apart from events of its earlier connections.
    generation: u32,
    state: State,
    answer: Vec<u8>,
}

struct Crowd {
    epoll: OwnedFd,
    port: u16,
    requests: [Vec<u8>; 2],
    interval: Duration,
    clients: Vec<Client>,
    log: Arc<Mutex<Log>>,
}

impl Crowd {
    fn new(plan: &Plan, log: Arc<Mutex<Log>>) -> io::Result<Self> {
        let request = |connection: &str| {
            let Plan { port, path, .. } = plan;
            format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: {connection}\r\n\r\n").into_bytes()
        };
        let count = (plan.kept + plan.reconnecting).max(1);
        let interval = Duration::from_secs(1) * count / plan.rate.max(1);
        let now = SystemClock.now();
        let client = |number: u32| Client {
            keeps: number < plan.kept,
            due: now + interval * number / count,
            generation: 0,
            state: State::Unconnected,
            answer: Vec::new(),
        };
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            port: plan.port,
            requests: [request("close"), request("keep-alive")],
            interval,
            clients: (0..count).map(client).collect(),
            log,
        })
    }

    fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let empty = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = vec![empty; self.clients.len()];
        let mut expected = SystemClock.now();
        while !stop.load(Ordering::Relaxed) {
            let now = SystemClock.now();
            if now - expected > STALL_MIN {
                let mut log = lock(&self.log);
                log.longest_stall = log.longest_stall.max(now - expected);
            }
            let mut next = now + NAP_MAX;
            for index in 0..self.clients.len() {
                self.tick(index, now)?;
                next = next.min(self.clients[index].next(now));
            }
            let nap = next - SystemClock.now();
            let bound = Timespec { tv_sec: 0, tv_nsec: i64::from(nap.subsec_nanos()) };
            expected = next;
            let count = match epoll::wait(&self.epoll, &mut events[..], Some(&bound)) {
                Ok(count) => count,
                Err(rustix::io::Errno::INTR) => 0,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..count] {
                let mark = event.data.u64();
                let index = usize::try_from(mark >> 32).unwrap_or(usize::MAX);
                let of_now = |client: &Client| u64::from(client.generation) == mark & u64::from(u32::MAX);
                if self.clients.get(index).is_some_and(of_now) {
                    self.event(index)?;
                }
            }
        }
        Ok(())
    }

    /// What is due by time alone.
    fn tick(&mut self, index: usize, now: Instant) -> io::Result<()> {
        let client = &mut self.clients[index];
        match &client.state {
            State::Unconnected if client.due <= now => self.connect(index, now),
            State::Idle { .. } if client.due <= now => self.ask(index, now),
            State::Connecting { begun, .. } if now - *begun > LATE => {
                self.fail(index, How::Late);
                Ok(())
            }
            State::Waiting { sent, .. } if now - *sent > LATE => {
                self.fail(index, How::Late);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn connect(&mut self, index: usize, now: Instant) -> io::Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        rustix::net::sockopt::set_tcp_nodelay(&fd, true)?;
        let result = rustix::net::connect(&fd, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port));
        let client = &mut self.clients[index];
        client.generation = client.generation.wrapping_add(1);
        let mark = epoll::EventData::new_u64(((index as u64) << 32) | u64::from(client.generation));
        match result {
            Ok(()) => {
                epoll::add(&self.epoll, &fd, mark, epoll::EventFlags::IN)?;
                client.state = State::Idle { fd, connected: now };
                self.ask(index, now)
            }
            Err(rustix::io::Errno::INPROGRESS) => {
                epoll::add(&self.epoll, &fd, mark, epoll::EventFlags::OUT)?;
                client.state = State::Connecting { fd, begun: now };
                Ok(())
            }
            Err(_) => {
                client.state = State::Connecting { fd, begun: now };
                self.fail(index, How::Refused);
                Ok(())
            }
        }
    }

    fn ask(&mut self, index: usize, now: Instant) -> io::Result<()> {
        let client = &mut self.clients[index];
        let request = &self.requests[usize::from(client.keeps)];
        let State::Idle { fd, connected } = std::mem::replace(&mut client.state, State::Unconnected) else {
            return Ok(());
        };
        // A request is some hundred bytes: a socket that has just been idle takes it whole, or is broken.
        let sent = rustix::net::send(&fd, request, SendFlags::NOSIGNAL);
        client.answer.clear();
        client.state = State::Waiting { fd, connected, sent: now };
        if sent != Ok(request.len()) {
            self.fail(index, How::Unanswered);
        }
        Ok(())
    }

    fn event(&mut self, index: usize) -> io::Result<()> {
        let now = SystemClock.now();
        let client = &mut self.clients[index];
        match std::mem::replace(&mut client.state, State::Unconnected) {
            State::Unconnected => Ok(()),
            State::Connecting { fd, begun } => {
                if rustix::net::sockopt::socket_error(&fd)?.is_err() {
                    client.state = State::Connecting { fd, begun };
                    self.fail(index, How::Refused);
                    return Ok(());
                }
                let mark = epoll::EventData::new_u64(((index as u64) << 32) | u64::from(client.generation));
                epoll::modify(&self.epoll, &fd, mark, epoll::EventFlags::IN)?;
                // The kernel makes a connection, and a server may take it, long before this thread is run again.
                client.state = State::Idle { fd, connected: begun };
                self.ask(index, now)
            }
            // Whatever comes between answers is the end of the connection: no request is lost with it.
            State::Idle { .. } => Ok(()),
            State::Waiting { fd, connected, sent } => {
                let mut piece = [0_u8; 16 * 1024];
                let received = rustix::net::recv(&fd, &mut piece, RecvFlags::empty());
                client.state = State::Waiting { fd, connected, sent };
                match received {
                    Ok((count, _)) if count > 0 && client.answer.len() < ANSWER_MAX => {
                        client.answer.extend_from_slice(&piece[..count]);
                        if let Some(status) = complete(&client.answer) {
                            self.answered(index, now, status);
                        }
                    }
                    Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                    _ => {
                        let how = if client.answer.is_empty() { How::Unanswered } else { How::Cut };
                        self.fail(index, how);
                    }
                }
                Ok(())
            }
        }
    }

    fn answered(&mut self, index: usize, now: Instant, status: u16) {
        if status != 200 {
            self.fail(index, How::WrongStatus);
            return;
        }
        let client = &mut self.clients[index];
        client.pace(self.interval, now);
        if let State::Waiting { fd, connected, .. } = std::mem::replace(&mut client.state, State::Unconnected) {
            lock(&self.log).answered(now, connected);
            if client.keeps {
                client.state = State::Idle { fd, connected };
            }
        }
    }

    /// Notes the failure and gives up the connection.
    fn fail(&mut self, index: usize, how: How) {
        let now = SystemClock.now();
        let client = &mut self.clients[index];
        client.pace(self.interval, now);
        let (connected, sent) = match std::mem::replace(&mut client.state, State::Unconnected) {
            State::Connecting { begun, .. } => (begun, None),
            State::Waiting { connected, sent, .. } => (connected, Some(sent)),
            State::Idle { connected, .. } => (connected, None),
            State::Unconnected => (now, None),
        };
        lock(&self.log).failed(Failure { at: now, connected, sent, how });
    }
}

impl Client {
    /// When it next wants something without being told by the kernel.
    fn next(&self, now: Instant) -> Instant {
        match self.state {
            State::Unconnected | State::Idle { .. } => self.due,
            State::Connecting { .. } | State::Waiting { .. } => now + NAP_MAX,
        }
    }

    fn pace(&mut self, interval: Duration, now: Instant) {
        let next = self.due + interval;
        self.due = if now - next > CATCH_UP_MAX { now } else { next };
    }
}

/// The status of a whole answer with a content length; `None` while something is missing.
fn complete(bytes: &[u8]) -> Option<u16> {
    let head_length = probe::head_length(bytes)?;
    let head = std::str::from_utf8(&bytes[..head_length]).unwrap_or_default();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    (bytes.len() >= head_length + length.unwrap_or(0)).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn an_answer_is_complete_with_its_last_byte() {
        assert_eq!(complete(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"), None);
        assert_eq!(complete(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"), Some(200));
    }

    #[test]
    fn a_connection_that_ends_under_a_request_is_a_failure_and_a_refused_one_is_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let plan = Plan { port, path: "/".to_owned(), kept: 1, reconnecting: 0, rate: 200 };
        let clients = Paced::start(&plan).unwrap();
        let (mut first, _) = listener.accept().unwrap();
        let mut piece = [0; 1024];
        assert!(first.read(&mut piece).unwrap() > 0);
        first.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").unwrap();
        assert!(first.read(&mut piece).unwrap() > 0);
        drop((first, listener));
        let enough = |log: &Log| {
            log.answers == 1
                && log.failures.iter().any(|failure| failure.how == How::Unanswered && failure.sent.is_some())
                && log.failures.iter().any(|failure| failure.how == How::Refused && failure.sent.is_none())
        };
        crate::lab::wait_until("both failures", Duration::from_secs(10), || enough(&clients.seen())).unwrap();
    }
}

//! A client's connection, from accept to close: one request after the other, as the client sends them.
//!
//! ```text
//! accept ─> idle record (no buffer, no future) ─first byte─> future: head → transaction → head → … ─nothing left─> idle
//! ```

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use base::Instant;
use buf::SizeClass;
use event::{Cont, Continuation, Event, Tcp, Thread};

use crate::answer;
use crate::inbox::Inbox;
use crate::local::{self, Service};
use crate::metrics::Http;
use crate::plan::Plan;
use crate::sending::room;
use crate::transaction;
use crate::wire::h1::Status;
use crate::worker::{Scratch, Worker};

/// How long, and how many bytes, a client whose request was refused may go on sending before it is cut: so that it
/// reads our answer before its own sending fails (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: u64 = 1 << 20;

/// How long a client that came just before or while we leave may take to begin its request.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// What a transaction leaves behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// The next request may come.
    KeepAlive,
    /// The connection closes after what is queued.
    Close,
    /// The same, but the client may still be sending: read that away for a while.
    Linger,
    /// The connection closes now, visibly before its time.
    Cut,
}

/// A client's connection between its owners: the idle record, and the future that serves a request.
pub(crate) struct Session {
    pub(crate) tcp: Tcp,
    pub(crate) worker: Worker,
    /// Answers in the origins' place.
    service: Option<Arc<dyn Service>>,
    /// Until when its first request is awaited; the far future when one has come.
    first_by: Cell<Instant>,
}

impl Session {
    /// The client's address.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.tcp.peer().unwrap_or(NOWHERE)
    }

    /// Whether another process is to serve it from the next request on.
    fn moves(&self) -> bool {
        self.service.is_none() && self.worker.successor().is_some()
    }

    /// Gives the idle connection to whoever takes over. `false`: nobody does, or it cannot be had.
    fn hand_over(&self) -> bool {
        let Some(hand_over) = self.worker.successor().filter(|_| self.service.is_none()) else { return false };
        let Some(fd) = self.tcp.release() else { return false };
        let first_by = Some(self.first_by.get()).filter(|&first_by| first_by != Instant::FAR_FUTURE);
        hand_over(fd, self.tcp.peer(), first_by.map(|first_by| first_by.since(self.worker.thread().now())));
        true
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.service.is_none() {
            self.worker.cells().sub(Http::CLIENT_OPEN, 1);
        }
    }
}

/// The record of an idle connection: waits for a byte, the end, or its time.
struct Idle {
    session: Option<Session>,
    until: Instant,
    /// What the kernel had taken of the last response when it was last looked at.
    sent: u64,
    me: Weak<RefCell<Self>>,
}

impl Idle {
    /// A limit was reached: whether the connection stays all the same. A client that still takes something of the last
    /// response is neither idle nor late.
    fn stays(&mut self, session: &Session, now: Instant) -> bool {
        let tcp = &session.tcp;
        if tcp.queued() == 0 {
            // A deadline that was for sending, and all has been sent: not ours.
            return now < self.until;
        }
        let sent = tcp.sent();
        if sent == self.sent || (now >= self.until && session.worker.is_leaving()) {
            return false;
        }
        self.sent = sent;
        let limit = now + session.worker.plan().timeouts.client_send;
        tcp.set_write_deadline(limit);
        if now >= self.until {
            self.until = limit;
            tcp.set_read_deadline(limit);
        }
        true
    }
}

impl Continuation for Idle {
    fn handle_event(&mut self, event: Event, thread: &Thread) {
        let Some(session) = self.session.take() else { return };
        match event {
            Event::Io(_) => {
                // The connection let go of this record for the time of the request: the future holds it.
                let _ = session.tcp.take_handler();
                if let Some(me) = self.me.upgrade() {
                    thread.spawn("http session", serve(session, me));
                }
            }
            Event::Interval if self.stays(&session, thread.now()) => self.session = Some(session),
            Event::Drain => {
                let _ = session.tcp.take_handler();
                if let Some(me) = self.me.upgrade() {
                    if session.moves() {
                        thread.spawn("http hand-over", settle(session, me));
                    } else {
                        // What it asked lies in the kernel perhaps: the next turn knows.
                        thread.spawn("http session", async {
                            yield_once().await;
                            serve(session, me).await;
                        });
                    }
                }
            }
            Event::Interval | Event::Immediate | Event::Message | Event::Cancelled => drop(session),
        }
    }

    fn name(&self) -> &'static str {
        "http idle"
    }
}

/// Where a peer without an address is said to be: a socket that is neither IPv4 nor IPv6.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// With a connection that was just accepted.
pub(crate) fn start(worker: &Worker, tcp: Tcp, service: Option<Arc<dyn Service>>) {
    // The first request's head is awaited like any other: without a buffer until its first byte.
    let limit = worker.plan().timeouts.request_head;
    begin(worker, tcp, service, Some(limit));
}

/// With one that was idle in another server: it may go on being so, but what had asked for nothing yet has only what is
/// left to it.
pub(crate) fn resume(worker: &Worker, tcp: Tcp, first_within: Option<Duration>) {
    begin(worker, tcp, None, first_within);
}

fn begin(worker: &Worker, tcp: Tcp, service: Option<Arc<dyn Service>>, first_within: Option<Duration>) {
    if service.is_none() {
        worker.cells().add(Http::CLIENT_CONNECTIONS, 1);
        worker.cells().add(Http::CLIENT_OPEN, 1);
    }
    let first_by = first_within.map_or(Instant::FAR_FUTURE, |limit| worker.thread().now() + limit);
    let session = Session { tcp, worker: worker.clone(), service, first_by: Cell::new(first_by) };
    let idle =
        Rc::new_cyclic(|me| RefCell::new(Idle { session: None, until: Instant::ORIGIN, sent: 0, me: me.clone() }));
    rest(session, &idle, first_within.unwrap_or_else(|| worker.plan().timeouts.keep_alive));
}

/// Makes the connection idle when all has been sent: it goes elsewhere then.
async fn settle(session: Session, idle: Rc<RefCell<Idle>>) {
    let plan = session.worker.plan();
    session.tcp.set_read_deadline(Instant::FAR_FUTURE);
    if room(&session.tcp, 0, plan.timeouts.client_send).await.is_ok() {
        rest(session, &idle, plan.timeouts.keep_alive);
    }
}

/// Makes the connection idle.
fn rest(session: Session, idle: &Rc<RefCell<Idle>>, limit: Duration) {
    if session.hand_over() {
        return;
    }
    let now = session.worker.thread().now();
    let limit = if session.worker.is_leaving() { limit.min(LAST_REQUEST) } else { limit };
    let until = (now + limit).min(session.first_by.get());
    let sending = session.worker.plan().timeouts.client_send;
    let unsent = session.tcp.queued() > 0;
    session.tcp.set_write_deadline(if unsent { now + sending } else { Instant::FAR_FUTURE });
    session.tcp.set_read_deadline(until);
    let handler: Cont = Rc::clone(idle) as Cont;
    session.tcp.set_handler(handler);
    let mut record = idle.borrow_mut();
    record.until = until;
    record.sent = session.tcp.sent();
    record.session = Some(session);
}

/// What the wait for a request's head came to.
enum Arrival {
    Head,
    /// Nothing has come: the connection is idle.
    Nothing,
    /// The client ended between two requests, or failed.
    Ended,
    /// The request was refused, and the answer is queued.
    Refused,
}

async fn serve(session: Session, idle: Rc<RefCell<Idle>>) {
    let worker = session.worker.clone();
    let mut scratch = worker.take_scratch();
    let ending = requests(&session, &mut scratch).await;
    worker.give_scratch(scratch);
    match ending {
        Ending::KeepAlive if session.moves() => settle(session, idle).await,
        Ending::KeepAlive if !worker.is_leaving() => {
            let limit = worker.plan().timeouts.keep_alive;
            rest(session, &idle, limit);
        }
        // Its first request may be under way: closing now would lose it.
        Ending::KeepAlive if session.tcp.sent() == 0 && session.tcp.queued() == 0 => rest(session, &idle, LAST_REQUEST),
        Ending::Linger => linger(session).await,
        Ending::KeepAlive | Ending::Close | Ending::Cut => {}
    }
}

/// Serves requests until none is there.
async fn requests(session: &Session, scratch: &mut Scratch) -> Ending {
    let worker = &session.worker;
    let mut inbox = Inbox::default();
    let mut served = 0_usize;
    loop {
        let plan = worker.plan();
        let started = worker.thread().now();
        match await_head(session, &mut inbox, scratch, &plan).await {
            Arrival::Head => session.first_by.set(Instant::FAR_FUTURE),
            Arrival::Nothing => return Ending::KeepAlive,
            Arrival::Ended => return Ending::Close,
            Arrival::Refused => return Ending::Linger,
        }
        let ending = match &session.service {
            Some(service) => local::run(session, service, &mut inbox, scratch, &plan).await,
            None => transaction::run(session, &mut inbox, scratch, &plan, started).await,
        };
        match ending {
            Ending::KeepAlive => {}
            // A close with bytes unread becomes a reset, which may overtake the response (RFC 9112 §9.6).
            Ending::Close if !inbox.is_empty() || session.tcp.is_readable() => return Ending::Linger,
            Ending::Close | Ending::Linger | Ending::Cut => return ending,
        }
        served += 1;
        if served.is_multiple_of(plan.pipeline.max(1)) {
            yield_once().await;
        }
        // A client that pipelines and does not read its responses is not read from either.
        if room(&session.tcp, plan.body_window, plan.timeouts.client_send).await.is_err() {
            return Ending::Close;
        }
    }
}

/// Lets everybody else on this thread have a turn.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn await_head(session: &Session, inbox: &mut Inbox, scratch: &mut Scratch, plan: &Arc<Plan>) -> Arrival {
    let tcp = &session.tcp;
    scratch.request.clear();
    // The limit of an earlier wait is not this one's: it may have passed while the origin worked.
    tcp.set_read_deadline(Instant::FAR_FUTURE);
    if inbox.is_empty() {
        let first = poll_fn(|context| match inbox.poll_fill(context, tcp, SizeClass::Small) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => Poll::Ready(None),
        });
        match first.await {
            None => return Arrival::Nothing,
            Some(Ok(0) | Err(_)) => return Arrival::Ended,
            Some(Ok(_)) => {}
        }
    }
    let until = session.worker.thread().now() + plan.timeouts.request_head;
    loop {
        match scratch.request.parse(inbox.bytes(), &plan.limits) {
            Ok(Status::Complete) => return Arrival::Head,
            Ok(Status::Partial) => {}
            Err(error) => {
                answer::refuse_head(session, inbox.bytes(), error.status, &error);
                return Arrival::Refused;
            }
        }
        tcp.set_read_deadline(until);
        match inbox.fill(tcp, SizeClass::Medium).await {
            // The client ended within a head: there is nobody to answer for sure, and nothing was asked.
            Ok(0) => return Arrival::Ended,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                session.worker.cells().add(Http::CLIENT_LATE, 1);
                answer::refuse_head(session, inbox.bytes(), 408, &"the request was not complete in time");
                return Arrival::Refused;
            }
            Err(_) => return Arrival::Ended,
        }
    }
}

/// Ends our direction and reads the client's away, bounded in time and bytes.
async fn linger(session: Session) {
    let tcp = &session.tcp;
    let now = session.worker.thread().now();
    tcp.end();
    tcp.set_read_deadline(now + LINGER);
    let before = tcp.received();
    let mut inbox = Inbox::default();
    while tcp.received() - before < LINGER_BYTES_MAX {
        match inbox.fill(tcp, SizeClass::Medium).await {
            Ok(0) | Err(_) => return,
            Ok(n) => inbox.consume(n),
        }
    }
}

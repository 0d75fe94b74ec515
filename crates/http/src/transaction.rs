//! The driver of one transaction: does what [`crate::transact`] decides, and nothing else.
//!
//! ```text
//! judge ─┬─ refuse, answer ──────────────────────────────────────────────┐
//!        └─ forward: reach ─ send head ─┬─ upload ──────────────┐        ├─> log, numbers ─> next request, or close
//!              ▲                        └─ await head ─ download ┴───────┘
//!              └── failure: fresh connection, next origin
//! ```

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use base::Instant;
use buf::{Chunk, SizeClass};
use config::HostHeader;
use net::Connection;

use crate::access_log::{Record, Url};
use crate::answer::{self, Failure};
use crate::block_sink::BlockSink;
use crate::download::{self, Download, DownloadError};
use crate::inbox::Inbox;
use crate::metrics::Http;
use crate::origin::{Choice, Order, reach};
use crate::plan::Plan;
use crate::record;
use crate::rules::forward::{ClientContext, ConnectionField, ExpectRule, HostRule, OriginContext};
use crate::rules::forwarded::ClientAddress;
use crate::rules::framing::Framing;
use crate::rules::{write_client_response, write_origin_request};
use crate::session::{Ending, Session};
use crate::transact::failure::{Attempt, Fault, Next, after};
use crate::transact::request::{Verdict, judge};
use crate::transact::response::{self, Facts};
use crate::upload::{Framer, Upload, UploadError};
use crate::wire::h1::{RequestHead, ResponseHead, Status};
use crate::wire::{Body, Known};
use crate::worker::Scratch;

/// Interim responses an origin may send before the final one.
const INTERIM_MAX: u32 = 16;
/// What we add to a head, beside what the head itself repeats: names, the client's address twice, the origin's path.
const HEAD_ROOM: usize = 512;

/// The port that a URL without one means.
const HTTP_PORT: u16 = 80;

/// What a transaction came to, for numbers and log.
struct Account {
    status: u16,
    sent: u64,
    received: u64,
    origin: Option<SocketAddr>,
    origin_reused: bool,
    error: Option<&'static str>,
    /// Kept for the log's content type, when there is a log.
    response_head: Option<Chunk>,
}

/// One transaction's surroundings, for the functions below.
struct Exchange<'a> {
    session: &'a Session,
    plan: &'a Plan,
    head: &'a RequestHead,
    /// The bytes `head` was parsed from.
    text: &'a Chunk,
    /// The client was told to go on with its body.
    continued: &'a Cell<bool>,
    account: Account,
}

/// Serves the request whose head lies at the front of `inbox`.
pub(crate) async fn run(
    session: &Session,
    inbox: &mut Inbox,
    scratch: &mut Scratch,
    plan: &Arc<Plan>,
    started: Instant,
) -> Ending {
    let worker = &session.worker;
    let text = inbox.chunk(0..scratch.request.head_len());
    inbox.consume(text.len());
    let Scratch { request: head, response } = scratch;
    let _active = Active::new(session);
    let account = Account {
        status: 0,
        sent: 0,
        received: text.len() as u64,
        origin: None,
        origin_reused: false,
        error: None,
        response_head: None,
    };
    let continued = Cell::new(false);
    let mut exchange = Exchange { session, plan, head, text: &text, continued: &continued, account };
    // Of the content, what has come already counts, and what comes behind it does not.
    let (received_before, ahead_before) = (session.tcp.received(), inbox.bytes().len() as u64);
    let ending = match judge(head, &text, &plan.remap, &plan.via, HTTP_PORT) {
        Verdict::Forward { rule } => exchange.forward(rule, inbox, response).await,
        Verdict::LastHop => exchange.last_hop(),
        Verdict::Refuse(refusal) => exchange.fail(refusal.status(), refusal.detail(), refusal.name()),
    };
    let arrived = ahead_before + session.tcp.received() - received_before;
    exchange.account.received += arrived.saturating_sub(inbox.bytes().len() as u64);
    exchange.close_account(response, started);
    match ending {
        // A client that meant to go on may be sending its next request now; answered by a reset, it would lose this
        // response too (RFC 9112 §9.6).
        Ending::Close if head.keep_alive() => Ending::Linger,
        Ending::KeepAlive if worker.is_draining() => Ending::Linger,
        ending => ending,
    }
}

/// Counts a transaction as under way.
struct Active<'a>(&'a Session);

impl<'a> Active<'a> {
    fn new(session: &'a Session) -> Self {
        let cells = session.worker.cells();
        cells.add(Http::REQUESTS, 1);
        cells.add(Http::ACTIVE, 1);
        Self(session)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.worker.cells().sub(Http::ACTIVE, 1);
    }
}

/// What the origin's side of an exchange came to.
enum Outcome {
    /// The response went to the client as a whole.
    Whole { keep: bool },
    /// The response had begun and broke off.
    Broken,
    /// No response: tell the client, or try again.
    Failed(Fault),
    /// The client went away, or was too slow.
    ClientLost,
    /// The client's body is not lawful, and no response has begun.
    BadBody(crate::wire::body::BodyError),
    /// The client sent nothing for too long, and no response has begun.
    BodyLate,
}

impl Exchange<'_> {
    /// Whether the connection may go on when the request had no body to read away.
    fn keeps(&self) -> bool {
        self.head.keep_alive() && self.head.body().is_empty() && !self.session.worker.is_draining()
    }

    fn ending(&self, keep: bool) -> Ending {
        match (keep, self.head.body().is_empty()) {
            (true, _) => Ending::KeepAlive,
            (false, true) => Ending::Close,
            (false, false) => Ending::Linger,
        }
    }

    fn fail(&mut self, status: u16, detail: &str, name: &'static str) -> Ending {
        let keep = self.keeps();
        self.account.status = status;
        self.account.error = Some(name);
        let connection = ConnectionField::of(self.head.version(), keep);
        let head_only = answer::is_head(self.head.method());
        self.account.sent += answer::send_failure(self.session, &Failure { status, detail, connection, head_only });
        self.ending(keep)
    }

    fn last_hop(&mut self) -> Ending {
        let keep = self.keeps();
        let connection = ConnectionField::of(self.head.version(), keep);
        self.account.status = 200;
        self.account.sent += answer::send_last_hop(self.session, self.head, self.text, connection);
        self.ending(keep)
    }

    async fn forward(&mut self, rule: usize, inbox: &mut Inbox, response: &mut ResponseHead) -> Ending {
        let (session, plan, head) = (self.session, self.plan, self.head);
        let worker = &session.worker;
        let order = Order::new(worker, plan, rule, head.path_and_query(self.text));
        let mut upload = Upload::new(head.body(), plan);
        // The origins that failed; empty, and without memory of its own, nearly always.
        let (mut tried, mut fresh) = (Vec::new(), false);
        loop {
            let choice = order.choice(worker, plan, &tried);
            let mut reused = false;
            let mut sent = false;
            let outcome = match reach(worker, plan, choice, fresh).await {
                Err(fault) => Outcome::Failed(fault),
                Ok(origin) => {
                    reused = origin.reuses() > 0;
                    self.account.origin = Some(origin.address());
                    self.account.origin_reused = reused;
                    let sent_before = origin.tcp().sent();
                    let mut arrived = Inbox::default();
                    let outcome = self.exchange(&origin, choice, inbox, &mut arrived, &mut upload, response).await;
                    sent = origin.tcp().sent() != sent_before;
                    if let Outcome::Whole { .. } = outcome {
                        let goes_on = response::origin_goes_on(
                            response.keep_alive(),
                            upload.is_done(),
                            response.body() != Body::UntilClose,
                            !arrived.is_empty(),
                        );
                        if goes_on && origin.tcp().queued() == 0 {
                            worker.pool().give(origin);
                        }
                    }
                    outcome
                }
            };
            match outcome {
                Outcome::Whole { keep } => {
                    let keep = keep && upload.is_done();
                    return match (keep, upload.is_done()) {
                        (true, _) => Ending::KeepAlive,
                        (false, true) => Ending::Close,
                        (false, false) => Ending::Linger,
                    };
                }
                Outcome::Failed(fault) => {
                    let next = after(Attempt {
                        fault,
                        reused,
                        idempotent: response::may_repeat(head.method()),
                        sent,
                        replayable: upload.is_replayable(),
                        retried: fresh,
                        left: plan.attempts.saturating_sub(tried.len() + 1),
                    });
                    match next {
                        Next::FreshConnection => {
                            worker.cells().add(Http::RETRIES, 1);
                            fresh = true;
                        }
                        Next::NextOrigin => {
                            worker.cells().add(Http::FAILOVERS, 1);
                            tried.push(choice.origin);
                        }
                        Next::Answer => {
                            if matches!(fault, Fault::ResponseTimedOut | Fault::ConnectTimedOut) {
                                worker.cells().add(Http::ORIGIN_LATE, 1);
                            }
                            let ending = self.fail(fault.status(), fault.detail(), fault.name());
                            return if upload.is_done() { ending } else { Ending::Linger };
                        }
                    }
                }
                Outcome::Broken => return self.broken(response),
                Outcome::ClientLost => {
                    worker.cells().add(Http::CLIENT_GONE, 1);
                    self.account.error = Some("client-gone");
                    session.tcp.abort();
                    return Ending::Cut;
                }
                Outcome::BadBody(error) => {
                    self.fail(400, &error.to_string(), "bad-body");
                    return Ending::Linger;
                }
                Outcome::BodyLate => {
                    worker.cells().add(Http::CLIENT_LATE, 1);
                    self.fail(408, "the request's content was not complete in time", "client-timeout");
                    return Ending::Linger;
                }
            }
        }
    }

    /// A response that broke off: the client must be able to see it.
    fn broken(&mut self, response: &ResponseHead) -> Ending {
        self.session.worker.cells().add(Http::ORIGIN_GONE, 1);
        self.account.error = Some("origin-broke-off");
        // Towards HTTP/1.0 a close would look like the end: only a reset tells.
        let (framing, _) = response::to_client(self.facts(response, true));
        if framing == Framing::UntilClose {
            self.session.tcp.abort();
        }
        Ending::Cut
    }

    fn facts(&self, response: &ResponseHead, request_read: bool) -> Facts {
        Facts {
            client: self.head.version(),
            client_keeps: self.head.keep_alive(),
            draining: self.session.worker.is_draining(),
            request_read,
            body: response.body(),
        }
    }

    /// One attempt on one connection.
    async fn exchange(
        &mut self,
        origin: &Connection,
        choice: Choice,
        inbox: &mut Inbox,
        arrived: &mut Inbox,
        upload: &mut Upload,
        response: &mut ResponseHead,
    ) -> Outcome {
        let (session, plan, head) = (self.session, self.plan, self.head);
        let now = session.worker.thread().now();
        let Some(written) = self.origin_head(choice) else { return Outcome::Failed(Fault::BadResponse) };
        origin.tcp().send(written);
        upload.replay(origin.tcp());
        let response_limit = plan.timeouts.origin_response;
        origin.tcp().set_read_deadline(now + response_limit);
        origin.tcp().set_write_deadline(now + plan.timeouts.origin_send);
        if upload.is_done() {
            return self.receive(origin, arrived, response, true, &Cell::new(true), &Cell::new(false)).await;
        }
        // Both directions at once: an origin may answer before it has read everything.
        let continued = self.continued;
        let waits = head.expects_continue();
        let (uploaded, answered) = (Cell::new(false), Cell::new(false));
        let mut broken = None;
        let outcome = {
            let mut sending = std::pin::pin!(upload.run(session, inbox, origin.tcp(), plan, waits, continued));
            let mut receiving = std::pin::pin!(self.receive(origin, arrived, response, false, &uploaded, &answered));
            let mut over = false;
            poll_fn(|context| {
                if !over {
                    match sending.as_mut().poll(context) {
                        Poll::Ready(Ok(())) => {
                            over = true;
                            uploaded.set(true);
                            // The origin's time to answer begins when it has everything.
                            let now = session.worker.thread().now();
                            if !answered.get() {
                                origin.tcp().set_read_deadline(now + response_limit);
                            }
                        }
                        Poll::Ready(Err(error)) => {
                            over = true;
                            // The origin takes no more, but may have said why: wait for that.
                            if !matches!(error, UploadError::OriginGone) {
                                broken = Some(error);
                                return Poll::Ready(None);
                            }
                        }
                        Poll::Pending => {
                            // While the client sends, the origin owes nothing yet.
                            if !answered.get() {
                                let now = session.worker.thread().now();
                                origin.tcp().set_read_deadline(now + response_limit);
                            }
                        }
                    }
                }
                receiving.as_mut().poll(context).map(Some)
            })
            .await
        };
        match (outcome, broken) {
            (Some(outcome), _) => outcome,
            (None, Some(UploadError::BadBody(error))) if !answered.get() => Outcome::BadBody(error),
            (None, Some(UploadError::ClientLate)) if !answered.get() => Outcome::BodyLate,
            (None, Some(UploadError::OriginLate)) if !answered.get() => Outcome::Failed(Fault::ResponseTimedOut),
            (None, Some(UploadError::OriginLate)) => Outcome::Broken,
            (None, _) => Outcome::ClientLost,
        }
    }

    /// The head as the origin gets it; `None` when it is too large for any block.
    fn origin_head(&self, choice: Choice) -> Option<Chunk> {
        let (plan, head, text) = (self.plan, self.head, self.text);
        let rule = plan.rules.get(choice.rule)?;
        let origin = rule.origins.get(choice.origin)?;
        let path = head.path_and_query(text);
        let (path_strip, path_prefix) = plan.remap.rule(choice.rule)?.rewrite(choice.origin, path);
        let mut sink = BlockSink::new(head.head_len() + path_prefix.len() + origin.authority.len() + HEAD_ROOM);
        write_origin_request(
            &mut sink,
            head,
            text,
            &OriginContext {
                via: &plan.via,
                client: &ClientAddress::new(self.session.peer()),
                scheme: "http",
                forwarded: plan.forwarded,
                path_strip,
                path_prefix,
                host: match rule.host_header {
                    HostHeader::Preserve => HostRule::Preserve { fallback: &origin.authority },
                    HostHeader::Origin => HostRule::Override(&origin.authority),
                },
                body: head.body(),
                expect: ExpectRule::Forward,
                trailers: head.body() == Body::Chunked,
                close: false,
            },
        );
        sink.finish().map(|(head, _)| head)
    }

    /// Awaits the response and passes it on. `watch_client`: nobody else looks whether the client is still there.
    async fn receive(
        &mut self,
        origin: &Connection,
        arrived: &mut Inbox,
        response: &mut ResponseHead,
        watch_client: bool,
        uploaded: &Cell<bool>,
        answered: &Cell<bool>,
    ) -> Outcome {
        let (session, plan, head) = (self.session, self.plan, self.head);
        let (worker, client, tcp) = (&session.worker, &session.tcp, origin.tcp());
        let started = worker.thread().now();
        let received_before = tcp.received();
        let mut interim = 0;
        loop {
            match self.response_head(origin, arrived, response, watch_client).await {
                Ok(()) => {}
                Err(outcome) => return outcome,
            }
            if !response.is_interim() {
                break;
            }
            interim += 1;
            if interim > INTERIM_MAX {
                return Outcome::Failed(Fault::BadResponse);
            }
            if response::forwards_interim(head.version(), response.status(), head.expects_continue()) {
                self.send_interim(arrived, response);
                self.continued.set(self.continued.get() || response.status() == 100);
            }
            arrived.consume(response.head_len());
            response.clear();
        }
        answered.set(true);
        // From here on a 100 of ours would land within the answer.
        self.continued.set(true);
        let cells = worker.cells();
        let waited = (worker.thread().now() - started).as_nanos();
        cells.observe(Http::ORIGIN_WAIT, u64::try_from(waited).unwrap_or(u64::MAX));
        let (framing, keep) = response::to_client(self.facts(response, uploaded.get()));
        self.account.status = response.status();
        let mut sink = BlockSink::new(response.head_len() + HEAD_ROOM);
        write_client_response(
            &mut sink,
            response,
            arrived.bytes(),
            &ClientContext {
                via: &plan.via,
                framing,
                connection: ConnectionField::of(head.version(), keep),
                date: &worker.date(),
                trailers: framing == Framing::Chunked && response.body() == Body::Chunked,
            },
        );
        let Some((written, block)) = sink.finish() else { return Outcome::Failed(Fault::BadResponse) };
        if worker.log().is_some() {
            self.account.response_head = Some(arrived.chunk(0..response.head_len()));
        }
        arrived.consume(response.head_len());
        self.account.sent += written.len() as u64;
        client.send(written);
        client.set_write_deadline(worker.thread().now() + plan.timeouts.client_send);
        let body = response.body();
        let result = if body.is_empty() {
            Ok(())
        } else {
            let framer = Framer::within(block);
            let sent = &mut self.account.sent;
            download::run(Download { session, origin: tcp, inbox: arrived, body, framing, framer, plan, sent }).await
        };
        cells.add(Http::ORIGIN_RECEIVED, tcp.received() - received_before);
        match result {
            Ok(()) => Outcome::Whole { keep },
            Err(DownloadError::OriginBroke) => Outcome::Broken,
            Err(DownloadError::OriginLate) => {
                cells.add(Http::ORIGIN_LATE, 1);
                Outcome::Broken
            }
            Err(DownloadError::ClientLate) => {
                cells.add(Http::CLIENT_LATE, 1);
                Outcome::ClientLost
            }
            Err(DownloadError::ClientGone) => Outcome::ClientLost,
        }
    }

    /// Receives until `response` is a whole head at the front of `arrived`.
    async fn response_head(
        &self,
        origin: &Connection,
        arrived: &mut Inbox,
        response: &mut ResponseHead,
        watch_client: bool,
    ) -> Result<(), Outcome> {
        let (client, tcp) = (&self.session.tcp, origin.tcp());
        response.clear();
        loop {
            if !arrived.is_empty() {
                match response.parse(arrived.bytes(), &self.plan.limits, self.head.method()) {
                    Ok(Status::Complete) => return Ok(()),
                    Ok(Status::Partial) => {}
                    Err(_) => return Err(Outcome::Failed(Fault::BadResponse)),
                }
            }
            let filled = poll_fn(|context| match arrived.poll_fill(context, tcp, SizeClass::Medium) {
                Poll::Pending if watch_client && client.poll_gone(context).is_ready() => Poll::Ready(None),
                other => other.map(Some),
            })
            .await;
            match filled {
                None => return Err(Outcome::ClientLost),
                Some(Ok(0)) if arrived.is_empty() => return Err(Outcome::Failed(Fault::Closed)),
                Some(Ok(0)) => return Err(Outcome::Failed(Fault::BadResponse)),
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    return Err(Outcome::Failed(match error.kind() {
                        io::ErrorKind::TimedOut => Fault::ResponseTimedOut,
                        io::ErrorKind::OutOfMemory => Fault::BadResponse,
                        _ if arrived.is_empty() => Fault::Closed,
                        _ => Fault::BadResponse,
                    }));
                }
            }
        }
    }

    fn send_interim(&mut self, arrived: &Inbox, response: &ResponseHead) {
        let worker = &self.session.worker;
        let mut sink = BlockSink::new(response.head_len() + HEAD_ROOM);
        let context = ClientContext {
            via: &self.plan.via,
            framing: Framing::None,
            connection: ConnectionField::Absent,
            date: &worker.date(),
            trailers: false,
        };
        write_client_response(&mut sink, response, arrived.bytes(), &context);
        if let Some((written, _)) = sink.finish() {
            worker.cells().add(Http::RESPONSES_1XX, 1);
            self.account.sent += written.len() as u64;
            self.session.tcp.send(written);
        }
    }

    /// Numbers and log of a transaction that is over.
    fn close_account(&self, response: &ResponseHead, started: Instant) {
        let (account, head, text, worker) = (&self.account, self.head, self.text, &self.session.worker);
        let elapsed = worker.thread().now() - started;
        let cells = worker.cells();
        if account.status != 0 {
            cells.add(Http::responses(account.status), 1);
        }
        cells.add(Http::CLIENT_SENT, account.sent);
        cells.add(Http::CLIENT_RECEIVED, account.received);
        cells.observe(Http::DURATION, u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
        if worker.log().is_none() {
            return;
        }
        let first = |known| head.find(known, text).next().unwrap_or_default();
        let content_type = match (&account.response_head, account.error) {
            (Some(lines), _) => response.find(Known::ContentType, lines).next().unwrap_or_default(),
            (None, Some(_)) => b"text/plain; charset=utf-8",
            (None, None) => b"",
        };
        record::write(
            worker,
            &Record {
                time: worker.wall(),
                elapsed,
                client: self.session.peer(),
                method: head.method_bytes(text),
                url: Url { scheme: "http", authority: head.authority(text), target: head.target(text) },
                version: head.version().name(),
                status: account.status,
                bytes_sent: account.sent,
                bytes_received: account.received,
                result: if account.origin.is_some() { "TCP_MISS" } else { "NONE" },
                hierarchy: if account.origin.is_some() { "HIER_DIRECT" } else { "HIER_NONE" },
                origin: account.origin,
                origin_reused: account.origin_reused,
                content_type,
                referer: first(Known::Referer),
                user_agent: first(Known::UserAgent),
                error: account.error,
            },
        );
    }
}

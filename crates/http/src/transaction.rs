//! The driver of one transaction: does what [`crate::transact`] decides, and nothing else.
//!
//! ```text
//! judge ─┬─ refuse, answer, purge ───────────────────────────────────────────────────┐
//!        └─ look up ─┬─ stored: send it ─────────────────────────────────────────────┤
//!           (serve)  ├─ being fetched: follow (follow) ──────────────────────────────┤
//!                    └─ forward: reach ─ send head ─┬─ upload ──────────────┐        ├─> log, numbers ─> next, or close
//!                       ▲       (forward, storing)  └─ await head ─ download ┴───────┘
//!                       └── failure: fresh connection, next origin, stale
//! ```

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use base::Instant;
use buf::Chunk;
use event::Tcp;

use crate::access_log::{Record, Url};
use crate::answer::{self, Failure};
use crate::inbox::Inbox;
use crate::metrics::Http;
use crate::plan::Plan;
use crate::record;
use crate::rules::caching::{ResultCode, StoredMeta};
use crate::rules::forward::ConnectionField;
use crate::session::{Ending, Session};
use crate::storing::Storing;
use crate::transact::request::{Refusal, Verdict, judge};
use crate::wire::Known;
use crate::wire::h1::{RequestHead, ResponseHead};
use crate::worker::{Desk, Scratch, Worker};

/// The port that a URL without one means.
const HTTP_PORT: u16 = 80;

/// What a transaction came to, for numbers and log.
pub(crate) struct Account {
    pub(crate) status: u16,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) origin: Option<SocketAddr>,
    pub(crate) origin_reused: bool,
    pub(crate) error: Option<&'static str>,
    pub(crate) result: ResultCode,
    /// Kept for the log's content type, when there is a log: of a response that was passed on,
    pub(crate) response_head: Option<Chunk>,
    /// and of one that was stored.
    pub(crate) stored: Option<Arc<[u8]>>,
}

impl Account {
    pub(crate) const fn new(received: u64) -> Self {
        Self {
            status: 0,
            sent: 0,
            received,
            origin: None,
            origin_reused: false,
            error: None,
            result: ResultCode::None,
            response_head: None,
            stored: None,
        }
    }
}

/// Who is to have the response: a session's client, or nobody, when something stored is only refreshed.
pub(crate) struct Client<'a> {
    pub(crate) session: Option<&'a Session>,
    /// It left, and what it asked for goes on for others.
    pub(crate) lost: Cell<bool>,
    pub(crate) peer: SocketAddr,
}

impl<'a> Client<'a> {
    /// Its connection, while it is of use.
    pub(crate) fn tcp(&self) -> Option<&'a Tcp> {
        self.session.filter(|_| !self.lost.get()).map(|session| &session.tcp)
    }

    pub(crate) fn send(&self, chunk: Chunk) {
        if let Some(tcp) = self.tcp() {
            tcp.send(chunk);
        }
    }

    /// Ready when it has left.
    pub(crate) fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        self.tcp().map_or(Poll::Pending, |tcp| tcp.poll_gone(context))
    }
}

/// One transaction's surroundings, for the functions of this module and those it names.
pub(crate) struct Exchange<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) client: Client<'a>,
    pub(crate) plan: &'a Arc<Plan>,
    pub(crate) head: &'a RequestHead,
    /// The bytes `head` was parsed from.
    pub(crate) text: &'a Chunk,
    /// The client was told to go on with its body.
    pub(crate) continued: &'a Cell<bool>,
    pub(crate) account: Account,
    pub(crate) storing: Storing,
    pub(crate) desk: &'a mut Desk,
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
    let Scratch { request: head, response, desk } = scratch;
    let _active = Active::new(session);
    let continued = Cell::new(false);
    let mut exchange = Exchange {
        worker,
        client: Client { session: Some(session), lost: Cell::new(false), peer: session.peer() },
        plan,
        head,
        text: &text,
        continued: &continued,
        account: Account::new(text.len() as u64),
        storing: Storing::NOTHING,
        desk,
    };
    // Of the content, what has come already counts, and what comes behind it does not.
    let (received_before, ahead_before) = (session.tcp.received(), inbox.bytes().len() as u64);
    let ending = match judge(head, &text, &plan.remap, &plan.via, HTTP_PORT) {
        Verdict::Forward { rule } => exchange.serve(rule, inbox, response).await,
        Verdict::LastHop => exchange.last_hop(),
        Verdict::Purge => exchange.purge(),
        Verdict::Refuse(refusal) => exchange.refuse_request(refusal),
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

impl Exchange<'_> {
    /// Whether the connection may go on when the request had no body to read away.
    pub(crate) fn keeps(&self) -> bool {
        self.head.keep_alive() && self.head.body().is_empty() && !self.worker.is_draining()
    }

    pub(crate) fn ending(&self, keep: bool) -> Ending {
        match (keep, self.head.body().is_empty()) {
            (true, _) => Ending::KeepAlive,
            (false, true) => Ending::Close,
            (false, false) => Ending::Linger,
        }
    }

    pub(crate) fn fail(&mut self, status: u16, detail: &str, name: &'static str) -> Ending {
        let keep = self.keeps();
        self.account.status = status;
        self.account.error = Some(name);
        let connection = ConnectionField::of(self.head.version(), keep);
        let head_only = answer::is_head(self.head.method());
        if let Some(session) = self.client.session {
            self.account.sent += answer::send_failure(session, &Failure { status, detail, connection, head_only });
        }
        self.ending(keep)
    }

    fn refuse_request(&mut self, refusal: Refusal) -> Ending {
        if refusal == Refusal::MayNotPurge {
            self.account.result = ResultCode::Denied;
        }
        self.fail(refusal.status(), refusal.detail(), refusal.name())
    }

    fn last_hop(&mut self) -> Ending {
        let keep = self.keeps();
        let connection = ConnectionField::of(self.head.version(), keep);
        self.account.status = 200;
        if let Some(session) = self.client.session {
            self.account.sent += answer::send_last_hop(session, self.head, self.text, connection);
        }
        self.ending(keep)
    }

    /// Removes what is stored for the URL, if the client may do that.
    fn purge(&mut self) -> Ending {
        let peer = self.client.peer.ip().to_canonical();
        if !self.plan.allow.iter().any(|network| network.contains(&peer)) {
            return self.refuse_request(Refusal::MayNotPurge);
        }
        if !self.remove_stored() {
            return self.fail(404, "nothing is stored for this URL", "purge-nothing");
        }
        self.worker.cells().add(Http::PURGES, 1);
        let keep = self.keeps();
        let connection = ConnectionField::of(self.head.version(), keep);
        self.account.status = 200;
        if let Some(session) = self.client.session {
            self.account.sent += answer::send_purged(session, connection);
        }
        self.ending(keep)
    }

    /// Numbers and log of a transaction that is over.
    fn close_account(&self, response: &ResponseHead, started: Instant) {
        let (account, head, text, worker) = (&self.account, self.head, self.text, self.worker);
        let elapsed = worker.thread().now() - started;
        let cells = worker.cells();
        if account.status != 0 {
            cells.add(Http::responses(account.status), 1);
        }
        cells.add(Http::result(account.result), 1);
        cells.add(Http::CLIENT_SENT, account.sent);
        cells.add(Http::CLIENT_RECEIVED, account.received);
        cells.observe(Http::DURATION, u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
        if worker.log().is_none() {
            return;
        }
        let first = |known| head.find(known, text).next().unwrap_or_default();
        let stored = account.stored.as_deref().and_then(StoredMeta::decode);
        let content_type = match (&account.response_head, stored, account.error) {
            (Some(lines), _, _) => response.find(Known::ContentType, lines).next().unwrap_or_default(),
            (None, Some(record), _) => record.content_type().unwrap_or_default(),
            (None, None, Some(_)) => b"text/plain; charset=utf-8",
            (None, None, None) => b"",
        };
        record::write(
            worker,
            &Record {
                time: worker.wall(),
                elapsed,
                client: self.client.peer,
                method: head.method_bytes(text),
                url: Url { scheme: "http", authority: head.authority(text), target: head.target(text) },
                version: head.version().name(),
                status: account.status,
                bytes_sent: account.sent,
                bytes_received: account.received,
                result: account.result.name(),
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

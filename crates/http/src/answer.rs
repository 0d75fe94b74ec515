//! Answers of our own making: refusals, failures, and the few requests that end here.

use std::fmt::Display;

use buf::{Chunk, SizeClass};

use crate::access_log::{Record, Url};
use crate::block_sink::BlockSink;
use crate::metrics::Http;
use crate::record;
use crate::rules::caching::CacheStatus;
use crate::rules::caching::range::put_content_range;
use crate::rules::error_page::{ErrorPage, write_error_page};
use crate::rules::forward::ConnectionField;
use crate::rules::last_hop::write_last_hop_answer;
use crate::rules::sink::{Decimal, HeadSink};
use crate::rules::status::Fault;
use crate::session::Session;
use crate::wire::Method;
use crate::wire::h1::RequestHead;

/// What a page takes beside its detail.
const PAGE_ROOM: usize = 1_024;

/// An answer that says what went wrong.
pub(crate) struct Failure<'a> {
    pub(crate) status: u16,
    pub(crate) detail: &'a str,
    pub(crate) connection: ConnectionField,
    pub(crate) head_only: bool,
}

/// Queues an error page and says how many bytes it has.
pub(crate) fn send_failure(session: &Session, failure: &Failure<'_>) -> u64 {
    let worker = &session.worker;
    let mut sink = BlockSink::new(PAGE_ROOM + failure.detail.len());
    write_error_page(
        &mut sink,
        &ErrorPage {
            status: failure.status,
            detail: failure.detail,
            signature: &worker.plan().via,
            date: &worker.date(),
            connection: failure.connection,
            head_only: failure.head_only,
            retry_after_s: None,
        },
    );
    worker.cells().add(
        match Fault::of(failure.status) {
            Fault::Request => Http::OWN_CLIENT_FAULT,
            Fault::Origin | Fault::OriginLate => Http::OWN_ORIGIN_FAULT,
            Fault::Proxy => Http::OWN_PROXY_FAULT,
        },
        1,
    );
    send(session, sink)
}

fn send(session: &Session, sink: BlockSink) -> u64 {
    let Some((page, _)) = sink.finish() else { return 0 };
    let bytes = page.len() as u64;
    session.tcp.send(page);
    bytes
}

/// Refuses a request whose head could not be read, and logs it. `bytes` is what there was of it.
pub(crate) fn refuse_head(session: &Session, bytes: &[u8], status: u16, why: &dyn Display) {
    let worker = &session.worker;
    let detail = why.to_string();
    worker.cells().add(Http::REQUESTS, 1);
    worker.cells().add(Http::responses(status), 1);
    let failure = Failure { status, detail: &detail, connection: ConnectionField::Close, head_only: false };
    let sent = send_failure(session, &failure);
    worker.cells().add(Http::CLIENT_SENT, sent);
    worker.cells().add(Http::CLIENT_RECEIVED, bytes.len() as u64);
    record::write(
        worker,
        &Record {
            time: worker.wall(),
            elapsed: std::time::Duration::ZERO,
            client: session.peer(),
            method: b"",
            url: Url { scheme: "http", authority: b"", target: b"" },
            version: "HTTP/1.1",
            status,
            bytes_sent: sent,
            bytes_received: bytes.len() as u64,
            result: "NONE",
            hierarchy: "HIER_NONE",
            origin: None,
            origin_reused: false,
            content_type: b"text/plain; charset=utf-8",
            referer: b"",
            user_agent: b"",
            error: Some("bad-request"),
        },
    );
}

/// Queues the answer to a request that may go no further.
pub(crate) fn send_last_hop(session: &Session, head: &RequestHead, buf: &[u8], connection: ConnectionField) -> u64 {
    let mut sink = BlockSink::new(head.head_len() + PAGE_ROOM);
    write_last_hop_answer(&mut sink, head, buf, &session.worker.date(), connection);
    send(session, sink)
}

/// Queues the answer to a PURGE that removed something.
pub(crate) fn send_purged(session: &Session, connection: ConnectionField) -> u64 {
    const CONTENT: &[u8] = b"removed\n";
    let mut sink = BlockSink::new(PAGE_ROOM);
    for part in [
        b"HTTP/1.1 200 OK\r\nDate: ".as_slice(),
        &session.worker.date(),
        b"\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\nContent-Length: ",
        Decimal::new(CONTENT.len() as u64).as_bytes(),
        b"\r\n",
        connection.line(),
        b"\r\n",
        CONTENT,
    ] {
        sink.put(part);
    }
    send(session, sink)
}

/// Queues the answer to a request for a part that lies behind the end of the `length` bytes there are in the cache.
pub(crate) fn send_unsatisfiable(
    session: &Session,
    length: u64,
    status: &CacheStatus<'_>,
    connection: ConnectionField,
) -> u64 {
    let worker = &session.worker;
    let plan = worker.plan();
    // Its name stands in two fields.
    let mut sink = BlockSink::new(PAGE_ROOM + 2 * plan.via.len());
    for part in [
        b"HTTP/1.1 416 Range Not Satisfiable\r\nDate: ".as_slice(),
        &worker.date(),
        b"\r\nVia: 1.1 ",
        plan.via.as_bytes(),
        b"\r\nCache-Status: ",
    ] {
        sink.put(part);
    }
    status.put(&mut sink);
    sink.put(b"\r\n");
    put_content_range(&mut sink, None, length);
    for part in [b"Content-Length: 0\r\n".as_slice(), connection.line(), b"\r\n"] {
        sink.put(part);
    }
    send(session, sink)
}

/// `100 Continue`, for a client that waits for it and an origin that does not say it.
pub(crate) fn send_continue(session: &Session) -> u64 {
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    session.worker.cells().add(Http::RESPONSES_1XX, 1);
    session.tcp.send(Chunk::from_static(CONTINUE));
    CONTINUE.len() as u64
}

/// Whether a method's answers have no content.
pub(crate) fn is_head(method: Method) -> bool {
    method == Method::Head
}

const _: () = assert!(PAGE_ROOM < SizeClass::Small.capacity());

//! Requests that end here: the server's own page, and the embedded demonstration origin. Same sessions, same parser,
//! no origin.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base::WallTime;
use buf::{Block, Chunk, SizeClass};

use crate::inbox::Inbox;
use crate::metrics::Http;
use crate::plan::Plan;
use crate::sending::room;
use crate::session::{Ending, Session};
use crate::upload::{Framer, class_for};
use crate::wire::body::Decoder;
use crate::wire::chunk;
use crate::wire::h1::Version;
use crate::worker::Scratch;

/// What a service is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a [u8],
    /// The target as sent.
    pub target: &'a [u8],
    /// The whole head as sent.
    pub head: &'a [u8],
    /// The client knows chunks.
    pub http_11: bool,
    /// The client wants to keep the connection, and we would.
    pub keep_alive: bool,
    /// Civil time.
    pub now: WallTime,
}

/// A part of a response's content.
#[derive(Clone, Debug)]
pub struct Piece {
    /// To wait before it is sent.
    pub delay: Duration,
    /// The bytes; may be empty.
    pub bytes: Cow<'static, [u8]>,
}

/// The content of a response, piece by piece. The first piece's delay comes before the head.
pub trait Pieces {
    /// The next piece; `None` at the end.
    fn next_piece(&mut self) -> Option<Piece>;
}

/// Content in one piece, at once.
#[derive(Debug)]
pub struct Whole(pub Option<Cow<'static, [u8]>>);

impl Pieces for Whole {
    fn next_piece(&mut self) -> Option<Piece> {
        self.0.take().map(|bytes| Piece { delay: Duration::ZERO, bytes })
    }
}

/// What a service answers.
pub struct Response {
    /// The whole head, to its empty line.
    pub head: Vec<u8>,
    /// The connection may go on behind this response.
    pub keep: bool,
    /// The head says that the content is chunked: pieces are framed here.
    pub chunked: bool,
    /// The content.
    pub body: Box<dyn Pieces>,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Response({} bytes of head)", self.head.len())
    }
}

/// Answers requests by itself. Must not block.
pub trait Service: Send + Sync {
    /// The answer to one request whose head parsed. Its content, if any, is read and dropped.
    fn respond(&self, request: &Request<'_>) -> Response;
}

/// Queues bytes of any owner.
fn send(session: &Session, bytes: Cow<'static, [u8]>) {
    match bytes {
        Cow::Borrowed(bytes) => session.tcp.send(Chunk::from_static(bytes)),
        Cow::Owned(bytes) => {
            for piece in bytes.chunks(SizeClass::Large.capacity()) {
                let mut block = Block::new(SizeClass::for_bytes(piece.len()).unwrap_or(SizeClass::Large));
                block.append(piece);
                session.tcp.send(block.into_chunk());
            }
        }
    }
}

pub(crate) async fn run(
    session: &Session,
    service: &Arc<dyn Service>,
    inbox: &mut Inbox,
    scratch: &mut Scratch,
    plan: &Plan,
) -> Ending {
    let (worker, tcp) = (&session.worker, &session.tcp);
    let thread = worker.thread();
    let request = &scratch.request;
    let text = inbox.chunk(0..request.head_len());
    inbox.consume(text.len());
    worker.cells().add(Http::LOCAL_REQUESTS, 1);
    if !drop_body(session, inbox, Decoder::new(request.body(), &plan.limits), plan).await {
        return Ending::Close;
    }
    let mut response = service.respond(&Request {
        method: request.method_bytes(&text),
        target: request.target(&text),
        head: &text,
        http_11: request.version() == Version::Http11,
        keep_alive: request.keep_alive() && !worker.is_leaving(),
        now: worker.wall(),
    });
    drop(text);
    let mut framer = Framer::default();
    let mut head = Some(std::mem::take(&mut response.head));
    loop {
        let piece = response.body.next_piece();
        let delay = piece.as_ref().map_or(Duration::ZERO, |piece| piece.delay);
        if !delay.is_zero() {
            thread.sleep(delay).await;
        }
        if let Some(head) = head.take() {
            send(session, Cow::Owned(head));
        }
        let Some(Piece { bytes, .. }) = piece else { break };
        if response.chunked && !bytes.is_empty() {
            tcp.send(framer.text(chunk::ChunkHeader::new(bytes.len() as u64).as_bytes()));
            send(session, bytes);
            tcp.send(Chunk::from_static(chunk::END));
        } else {
            send(session, bytes);
        }
        if room(tcp, plan.body_window, plan.timeouts.client_send).await.is_err() {
            return Ending::Close;
        }
    }
    if response.chunked {
        tcp.send(Chunk::from_static(chunk::LAST));
    }
    match (response.keep, request.keep_alive()) {
        (true, _) => Ending::KeepAlive,
        // As for proxied requests: the client may be sending its next one.
        (false, true) => Ending::Linger,
        (false, false) => Ending::Close,
    }
}

/// Reads a request's content away. False when it does not come to its end.
async fn drop_body(session: &Session, inbox: &mut Inbox, mut decoder: Decoder, plan: &Plan) -> bool {
    while !decoder.is_done() {
        if !inbox.is_empty() {
            let Ok(step) = decoder.step(inbox.bytes()) else { return false };
            inbox.consume(step.consumed);
            if step.consumed > 0 || step.done {
                continue;
            }
        }
        session.tcp.set_read_deadline(session.worker.thread().now() + plan.timeouts.client_idle);
        if !matches!(inbox.fill(&session.tcp, class_for(decoder.expected())).await, Ok(n) if n > 0) {
            return false;
        }
    }
    true
}

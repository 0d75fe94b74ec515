//! The request's body, from the client to the origin, with what is kept of it for a retry.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::task::Poll;

use buf::{Block, Chunk, SizeClass};
use event::Tcp;

use crate::answer;
use crate::inbox::Inbox;
use crate::plan::Plan;
use crate::sending::room;
use crate::session::Session;
use crate::wire::Body;
use crate::wire::body::{BodyError, Decoder};
use crate::wire::chunk;

/// A body that came in more pieces than this is not kept for another try: each takes memory of its own.
const KEPT_MAX: usize = 512;
/// A longer rest of a body is received in the largest blocks.
const LARGE_FROM: u64 = 32 << 10;

/// The block size to ask for while so many bytes are expected.
pub(crate) fn class_for(expected: u64) -> SizeClass {
    if expected > LARGE_FROM { SizeClass::Large } else { SizeClass::Medium }
}

/// Why a body did not reach the origin.
#[derive(Debug)]
pub(crate) enum UploadError {
    /// The client's connection ended or failed.
    ClientGone,
    /// The client sent nothing for too long.
    ClientLate,
    /// The client's framing is broken.
    BadBody(BodyError),
    /// The origin takes no more: its response, if any, says why.
    OriginGone,
    /// The origin took nothing for too long.
    OriginLate,
}

/// Bytes of framing around pieces of content: chunk headers, ends of lines. They live in a small block of their own.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    block: Option<Block>,
}

impl Framer {
    /// With the room that a written head left in its block.
    pub(crate) fn within(block: Block) -> Self {
        Self { block: Some(block) }
    }

    /// A copy of a few bytes, as a chunk.
    pub(crate) fn text(&mut self, text: &[u8]) -> Chunk {
        let block = match self.block.take() {
            Some(block) if block.room() >= text.len() => self.block.insert(block),
            _ => self.block.insert(Block::new(SizeClass::Small)),
        };
        let start = block.len();
        let taken = block.append(text);
        block.chunk(start..start + taken)
    }

    /// Sends `data` as one chunk; says how many bytes that made.
    pub(crate) fn send_chunk(&mut self, data: Chunk, send: &mut impl FnMut(Chunk)) {
        let header = chunk::ChunkHeader::new(data.len() as u64);
        send(self.text(header.as_bytes()));
        send(data);
        send(Chunk::from_static(chunk::END));
    }

    /// Sends the end of a chunked body, with the trailers that `decoder` has seen.
    pub(crate) fn send_last(&mut self, decoder: &Decoder, send: &mut impl FnMut(Chunk)) {
        let mut trailers = decoder.trailers().peekable();
        if trailers.peek().is_none() {
            send(Chunk::from_static(chunk::LAST));
            return;
        }
        send(Chunk::from_static(chunk::LAST_BEFORE_TRAILERS));
        for field in trailers {
            for part in [field.name, b": ", field.value, chunk::END] {
                // A value may be longer than a small block: in pieces.
                for piece in part.chunks(SizeClass::Small.capacity()) {
                    send(self.text(piece));
                }
            }
        }
        send(Chunk::from_static(chunk::END));
    }
}

/// One request's body on its way.
#[derive(Debug)]
pub(crate) struct Upload {
    decoder: Decoder,
    chunked: bool,
    framer: Framer,
    /// What was sent so far, while it may have to be sent again.
    kept: Vec<Chunk>,
    kept_bytes: usize,
    replayable: bool,
    ended: bool,
}

impl Upload {
    pub(crate) fn new(body: Body, plan: &Plan) -> Self {
        Self {
            decoder: Decoder::new(body, &plan.limits),
            chunked: body == Body::Chunked,
            framer: Framer::default(),
            kept: Vec::new(),
            kept_bytes: 0,
            replayable: true,
            ended: body.is_empty(),
        }
    }

    /// All of it has been read from the client and queued for the origin.
    pub(crate) fn is_done(&self) -> bool {
        self.ended
    }

    /// All of it that was read is still here.
    pub(crate) fn is_replayable(&self) -> bool {
        self.replayable
    }

    /// Sends again, to another connection, what was sent before.
    pub(crate) fn replay(&self, origin: &Tcp) {
        for chunk in &self.kept {
            origin.send(chunk.clone());
        }
    }

    /// Nothing will be sent again: gives back what was kept for it.
    pub(crate) fn forget(&mut self) {
        self.kept = Vec::new();
        self.kept_bytes = 0;
        self.replayable = false;
    }

    fn send(&mut self, chunk: Chunk, origin: &Tcp, plan: &Plan) {
        if self.replayable {
            if self.kept_bytes + chunk.len() > plan.replay || self.kept.len() == KEPT_MAX {
                self.forget();
            } else {
                self.kept_bytes += chunk.len();
                self.kept.push(chunk.clone());
            }
        }
        origin.send(chunk);
    }

    /// Passes on what the inbox holds. True when the body is complete.
    fn pass(&mut self, inbox: &mut Inbox, origin: &Tcp, plan: &Plan) -> Result<bool, UploadError> {
        while !self.ended && !inbox.is_empty() {
            let step = self.decoder.step(inbox.bytes()).map_err(UploadError::BadBody)?;
            if !step.data.is_empty() {
                let data = inbox.chunk(step.data.clone());
                if self.chunked {
                    let mut framer = std::mem::take(&mut self.framer);
                    framer.send_chunk(data, &mut |chunk| self.send(chunk, origin, plan));
                    self.framer = framer;
                } else {
                    self.send(data, origin, plan);
                }
            }
            inbox.consume(step.consumed);
            self.ended = step.done;
            if step.consumed == 0 && !step.done {
                break;
            }
        }
        if self.ended && self.chunked {
            // Once: `ended` is set in here alone, and the loop is not entered again.
            let (mut framer, decoder) = (
                std::mem::take(&mut self.framer),
                std::mem::replace(&mut self.decoder, Decoder::new(Body::None, &plan.limits)),
            );
            framer.send_last(&decoder, &mut |chunk| self.send(chunk, origin, plan));
            self.chunked = false;
        }
        Ok(self.ended)
    }

    /// Runs until the body is with the origin, or cannot get there. `waits_for_continue`: the client sends nothing
    /// before it is told to; when the origin does not tell it in time, we do. `continued` says that it was told.
    pub(crate) async fn run(
        &mut self,
        session: &Session,
        inbox: &mut Inbox,
        origin: &Tcp,
        plan: &Plan,
        waits_for_continue: bool,
        continued: &Cell<bool>,
    ) -> Result<(), UploadError> {
        let thread = session.worker.thread();
        if waits_for_continue && inbox.is_empty() && !continued.get() {
            await_continue(session, plan, continued).await;
        }
        loop {
            if self.pass(inbox, origin, plan)? {
                return Ok(());
            }
            if origin.queued() > plan.body_window {
                room(origin, plan.body_window, plan.timeouts.origin_send).await.map_err(|error| {
                    match error.kind() {
                        io::ErrorKind::TimedOut => UploadError::OriginLate,
                        _ => UploadError::OriginGone,
                    }
                })?;
            }
            if origin.failure().is_some() {
                return Err(UploadError::OriginGone);
            }
            session.tcp.set_read_deadline(thread.now() + plan.timeouts.client_idle);
            match inbox.fill(&session.tcp, class_for(self.decoder.expected())).await {
                Ok(0) => return Err(UploadError::ClientGone),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(UploadError::ClientLate),
                Err(_) => return Err(UploadError::ClientGone),
            }
        }
    }
}

/// Waits until the client sends all the same, the origin's own 100 has gone to it, or the time is up: then we say it.
async fn await_continue(session: &Session, plan: &Plan, continued: &Cell<bool>) {
    let thread = session.worker.thread();
    let mut limit = std::pin::pin!(thread.sleep(plan.timeouts.expect_continue));
    session.tcp.set_read_deadline(thread.now() + plan.timeouts.client_idle);
    let late = poll_fn(|context| {
        if continued.get() || session.tcp.poll_readable(context).is_ready() {
            return Poll::Ready(false);
        }
        limit.as_mut().poll(context).map(|()| true)
    })
    .await;
    if late && !continued.replace(true) {
        answer::send_continue(session);
    }
}

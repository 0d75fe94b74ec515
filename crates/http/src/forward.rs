//! The origin's side of an exchange: attempts, the request's head and body to the origin, its response to the client
//! and, where it is stored, to the cache.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use buf::{Block, Chunk, SizeClass};
use config::HostHeader;
use net::Connection;

use crate::block_sink::BlockSink;
use crate::download::{self, Delivery, Download, DownloadError};
use crate::inbox::Inbox;
use crate::metrics::Http;
use crate::origin::{Choice, Order, reach};
use crate::rules::caching::serve::{self, OnFailure, Reading};
use crate::rules::caching::stored::{Answer, HitContext, write_hit_head};
use crate::rules::caching::{ResultCode, StoredMeta};
use crate::rules::forward::{ClientContext, ConnectionField, ExpectRule, HostRule, OriginContext};
use crate::rules::forwarded::ClientAddress;
use crate::rules::framing::Framing;
use crate::rules::{write_client_response, write_origin_request};
use crate::session::Ending;
use crate::storing::Course;
use crate::transact;
use crate::transact::failure::{Attempt, Fault, Next, after};
use crate::transact::fill::Word;
use crate::transact::response::{self, Facts};
use crate::transaction::Exchange;
use crate::upload::{Framer, Upload, UploadError};
use crate::wire::Body;
use crate::wire::h1::{ResponseHead, Status};

/// Interim responses an origin may send before the final one.
const INTERIM_MAX: u32 = 16;
/// How long a fetch waits for its turn after a cold start, at most: then it goes all the same. That is late, but a
/// request that could have been served is not lost, whatever the others wait for.
const RAMP_WAIT_MAX: Duration = Duration::from_secs(1);
/// What we add to a head, beside what the head itself repeats: names, the client's address twice, the origin's path.
pub(crate) const HEAD_ROOM: usize = 512;

/// What the origin's side of an exchange came to.
enum Outcome {
    /// The response went to the client as a whole.
    Whole { keep: bool },
    /// What is stored is good, and this is its record now.
    Confirmed(Arc<[u8]>),
    /// The origin spoke of something that is not stored: the same question without conditions.
    AskAgain,
    /// What is stored stands in for a failure of the origin.
    Stale(Reading, u16),
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
    /// Asks the rule's origins, and passes the answer on.
    pub(crate) async fn forward(&mut self, rule: usize, inbox: &mut Inbox, response: &mut ResponseHead) -> Ending {
        let (worker, plan, head) = (self.worker, self.plan, self.head);
        let order = Order::new(worker, plan, rule, head.path_and_query(self.text));
        let mut upload = Upload::new(head.body(), plan);
        self.storing.permit = match worker.gate().filter(|_| self.storing.ramps) {
            Some(gate) => gate.pass(worker.thread(), worker.thread().now() + RAMP_WAIT_MAX).await.ok(),
            None => None,
        };
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
                    if let Outcome::Whole { .. } | Outcome::Confirmed(_) | Outcome::AskAgain = outcome {
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
                Outcome::Confirmed(record) => return self.send_confirmed(&record),
                // Once: the question has no conditions from here on.
                Outcome::AskAgain => {}
                Outcome::Stale(reading, status) => return self.send_stale(reading, Some(status)),
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
                            let stands_in = self.stands_in(serve::Failure::Unreachable);
                            self.give_up(Word::Failed(fault));
                            self.settle(fault.status());
                            if let OnFailure::ServeStale(reading) = stands_in {
                                return self.send_stale(reading, None);
                            }
                            self.account.result = self.forwarded_result(None);
                            let ending = self.fail(fault.status(), fault.detail(), fault.name());
                            return if upload.is_done() { ending } else { Ending::Linger };
                        }
                    }
                }
                Outcome::Broken => return self.broken(response),
                Outcome::ClientLost => {
                    worker.cells().add(Http::CLIENT_GONE, 1);
                    self.account.error = Some("client-gone");
                    if let Some(session) = self.client.session {
                        session.tcp.abort();
                    }
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
        self.break_off_storing();
        self.worker.cells().add(Http::ORIGIN_GONE, 1);
        self.account.error = Some("origin-broke-off");
        // Towards HTTP/1.0 a close would look like the end: only a reset tells.
        let (framing, _) = response::to_client(self.facts(response, true));
        if framing == Framing::UntilClose
            && let Some(session) = self.client.session
        {
            session.tcp.abort();
        }
        Ending::Cut
    }

    fn facts(&self, response: &ResponseHead, request_read: bool) -> Facts {
        Facts {
            client: self.head.version(),
            client_keeps: self.head.keep_alive(),
            draining: self.worker.is_draining(),
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
        let (worker, plan, head) = (self.worker, self.plan, self.head);
        let now = worker.thread().now();
        self.storing.sent_at = worker.wall();
        let Some(written) = self.origin_head(choice) else { return Outcome::Failed(Fault::BadResponse) };
        origin.tcp().send(written);
        upload.replay(origin.tcp());
        let response_limit = plan.timeouts.origin_response;
        origin.tcp().set_read_deadline(now + response_limit);
        origin.tcp().set_write_deadline(now + plan.timeouts.origin_send);
        if upload.is_done() {
            return self.receive(origin, arrived, response, true, &Cell::new(true), &Cell::new(false)).await;
        }
        let Some(session) = self.client.session else { return Outcome::ClientLost };
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
                            let now = worker.thread().now();
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
                                let now = worker.thread().now();
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
    fn origin_head(&mut self, choice: Choice) -> Option<Chunk> {
        let drop = self.conditions();
        let (plan, head, text) = (self.plan, self.head, self.text);
        let rule = plan.rules.get(choice.rule)?;
        let origin = rule.origins.get(choice.origin)?;
        let path = head.path_and_query(text);
        let (path_strip, path_prefix) = plan.remap.rule(choice.rule)?.rewrite(choice.origin, path);
        let mut sink = BlockSink::new(
            head.head_len() + path_prefix.len() + origin.authority.len() + self.desk.record.len() + HEAD_ROOM,
        );
        write_origin_request(
            &mut sink,
            head,
            text,
            &OriginContext {
                via: &plan.via,
                client: &ClientAddress::new(self.client.peer),
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
                drop,
                extra: &self.desk.record,
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
        let (worker, plan, head, tcp) = (self.worker, self.plan, self.head, origin.tcp());
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
        self.settle(response.status());
        self.invalidate(response, arrived.bytes());
        let course = self.judge_response(response, arrived.bytes());
        let unchanged = match course {
            Course::Confirmed(record) => {
                arrived.consume(response.head_len());
                return Outcome::Confirmed(record);
            }
            Course::AskAgain => {
                arrived.consume(response.head_len());
                return Outcome::AskAgain;
            }
            Course::Stale(reading) => return Outcome::Stale(reading, response.status()),
            Course::Pass => false,
            Course::NotModified => true,
        };
        let (framing, keep) = response::to_client(self.facts(response, uploaded.get()));
        let (framing, block) = match self.send_head(response, arrived, framing, keep, unchanged) {
            Some(block) => (framing, block),
            None => return Outcome::Failed(Fault::BadResponse),
        };
        self.account.result = self.forwarded_result(Some(response.status()));
        arrived.consume(response.head_len());
        let body = response.body();
        let mut unkept = None;
        let result = if body.is_empty() {
            Ok(Delivery::Made)
        } else {
            download::run(Download {
                thread: worker.thread(),
                client: self.client.tcp().filter(|_| !unchanged),
                origin: tcp,
                inbox: arrived,
                body,
                framing,
                framer: Framer::within(block),
                plan,
                sent: &mut self.account.sent,
                writer: &mut self.storing.writer,
                unkept: &mut unkept,
            })
            .await
        };
        cells.add(Http::ORIGIN_RECEIVED, tcp.received() - received_before);
        if let Some(reason) = unkept {
            self.note(transact::fill::unkept(reason));
        }
        match result {
            Ok(delivery) => {
                self.finish_storing();
                if delivery == Delivery::ClientGone || self.client.lost.get() {
                    cells.add(Http::FILLS_WITHOUT_CLIENT, 1);
                    return Outcome::ClientLost;
                }
                Outcome::Whole { keep }
            }
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

    /// Writes the head for the client, and answers with the block that it left room in. None: it is too large for any.
    fn send_head(
        &mut self,
        response: &ResponseHead,
        arrived: &Inbox,
        framing: Framing,
        keep: bool,
        unchanged: bool,
    ) -> Option<Block> {
        let (worker, plan) = (self.worker, self.plan);
        let connection = ConnectionField::of(self.head.version(), keep);
        let mut sink = BlockSink::new(response.head_len() + HEAD_ROOM);
        let status = self.storing.status(&plan.cache_name);
        match StoredMeta::decode(&self.desk.record).filter(|_| unchanged) {
            Some(record) => {
                self.account.status = 304;
                let age_s = record.terms().at(worker.wall()).age_s();
                write_hit_head(
                    &mut sink,
                    &record,
                    &HitContext {
                        answer: Answer::NotModified,
                        age_s,
                        framing: Framing::None,
                        via: &plan.via,
                        connection,
                        status,
                        extra: b"",
                    },
                );
            }
            None => {
                self.account.status = response.status();
                write_client_response(
                    &mut sink,
                    response,
                    arrived.bytes(),
                    &ClientContext {
                        via: &plan.via,
                        framing,
                        connection,
                        date: &worker.date(),
                        trailers: framing == Framing::Chunked && response.body() == Body::Chunked,
                        status,
                    },
                );
            }
        }
        let (written, block) = sink.finish()?;
        if worker.log().is_some() {
            self.account.response_head = Some(arrived.chunk(0..response.head_len()));
        }
        if let Some(client) = self.client.tcp() {
            self.account.sent += written.len() as u64;
            client.send(written);
            client.set_write_deadline(worker.thread().now() + plan.timeouts.client_send);
        }
        Some(block)
    }

    /// Receives until `response` is a whole head at the front of `arrived`.
    async fn response_head(
        &self,
        origin: &Connection,
        arrived: &mut Inbox,
        response: &mut ResponseHead,
        watch_client: bool,
    ) -> Result<(), Outcome> {
        let tcp = origin.tcp();
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
                Poll::Pending if watch_client && self.client.poll_gone(context).is_ready() => Poll::Ready(None),
                other => other.map(Some),
            })
            .await;
            match filled {
                // Others wait for the same: it comes for them. For nobody an origin need not go on thinking.
                None if self.storing.writer.as_ref().is_some_and(|writer| writer.followers() > 0) => {
                    self.client.lost.set(true);
                }
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
        let worker = self.worker;
        let mut sink = BlockSink::new(response.head_len() + HEAD_ROOM);
        let context = ClientContext {
            via: &self.plan.via,
            framing: Framing::None,
            connection: ConnectionField::Absent,
            date: &worker.date(),
            trailers: false,
            status: None,
        };
        write_client_response(&mut sink, response, arrived.bytes(), &context);
        if let Some((written, _)) = sink.finish() {
            worker.cells().add(Http::RESPONSES_1XX, 1);
            self.account.sent += written.len() as u64;
            self.client.send(written);
        }
    }

    /// What the log says of a request that went to an origin.
    fn forwarded_result(&self, status: Option<u16>) -> ResultCode {
        self.storing.why.map_or(ResultCode::Miss, |why| ResultCode::of_forwarded(why, status, false))
    }
}

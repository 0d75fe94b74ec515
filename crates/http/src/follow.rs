//! A client that reads along what another's request brings.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use cache::{Awaited, Follower, Lane, Next, Writer};

use crate::block_sink::BlockSink;
use crate::forward::HEAD_ROOM;
use crate::metrics::Http;
use crate::rules::caching::cache_status::Handling;
use crate::rules::caching::conditional::{Precondition, evaluate};
use crate::rules::caching::stored::{Answer, HitContext, write_hit_head};
use crate::rules::caching::{CacheStatus, Forwarded, ResultCode, StoredMeta, Use, serve, vary};
use crate::rules::forward::ConnectionField;
use crate::rules::framing::Framing;
use crate::sending::room;
use crate::session::Ending;
use crate::transact::fill::Word;
use crate::transact::response::{self, Facts};
use crate::transaction::{Client, Exchange};
use crate::upload::Framer;
use crate::wire::Body;
use crate::wire::chunk;

/// So much longer than the writer may wait for its origin do those who read along.
const GRACE: Duration = Duration::from_secs(2);

/// What came of following.
pub(crate) enum Followed {
    /// The client has its answer, or the beginning of one.
    Answered(Ending),
    /// The writer left: it is for us to fetch.
    Write(Writer),
    /// What is stored was found good.
    LookAgain,
    /// The response is for other requests of this URL; there may be one for those like ours.
    Lane(Lane),
    /// It would be of no use, or takes too long: each for itself.
    Alone,
    /// There is nothing, and this is why.
    Told(Word),
}

/// Awaits `what` while the client is there.
async fn while_there<T>(client: &Client<'_>, what: impl Future<Output = T>) -> Option<T> {
    let mut what = std::pin::pin!(what);
    poll_fn(|context| match what.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => client.poll_gone(context).map(|()| None),
    })
    .await
}

impl Exchange<'_> {
    fn client_left(&mut self) -> Ending {
        self.worker.cells().add(Http::CLIENT_GONE, 1);
        self.account.error = Some("client-gone");
        Ending::Cut
    }

    /// Reads along.
    pub(crate) async fn follow(&mut self, follower: Follower) -> Followed {
        let thread = self.worker.thread();
        let timeouts = &self.plan.timeouts;
        // As long as the writer itself may wait.
        let until = thread.now() + timeouts.origin_connect + timeouts.origin_response;
        match while_there(&self.client, follower.head_by(thread, until)).await {
            None => Followed::Answered(self.client_left()),
            Some(Awaited::Response { follower, metadata, expected }) => {
                self.read_along(follower, &metadata, expected).await
            }
            Some(Awaited::Write(writer)) => Followed::Write(writer),
            Some(Awaited::LookAgain) => Followed::LookAgain,
            Some(Awaited::Bypass(cache::Reason::Engine(code))) => {
                Word::of(code).map_or(Followed::Alone, Followed::Told)
            }
            Some(Awaited::Bypass(_) | Awaited::Gone | Awaited::Late) => Followed::Alone,
        }
    }

    /// Passes on a response that another fetches, if it is one for this request.
    async fn read_along(&mut self, follower: Follower, metadata: &Arc<[u8]>, expected: Option<u64>) -> Followed {
        let (worker, plan) = (self.worker, self.plan);
        let Some(record) = StoredMeta::decode(metadata).filter(|record| record.key() == self.desk.key.as_slice())
        else {
            return Followed::Alone;
        };
        if !vary::matches(record.vary(), self.head, self.text) {
            let selecting = vary::secondary_key(record.vary(), self.head, self.text);
            return Followed::Lane(Lane::of(&selecting.to_le_bytes()));
        }
        // What may not be used again without asking may not be used by two.
        let decision = serve::decide(&record.terms(), &self.storing.control, worker.wall(), false);
        if !matches!(decision.verdict, Use::Fresh | Use::StaleAccepted | Use::StaleWhileRevalidate) {
            return Followed::Alone;
        }
        let unchanged = evaluate(&record, self.head, self.text, worker.wall()) == Precondition::NotModified;
        let body = match expected {
            _ if unchanged || record.status() == 204 => Body::None,
            Some(length) => Body::Length(length),
            None => Body::UntilClose,
        };
        let (framing, keep) = response::to_client(Facts {
            client: self.head.version(),
            client_keeps: self.head.keep_alive(),
            draining: worker.is_draining(),
            request_read: true,
            body,
        });
        let why = self.storing.why.unwrap_or(Forwarded::UriMiss);
        let mut sink = BlockSink::new(metadata.len() + HEAD_ROOM);
        write_hit_head(
            &mut sink,
            &record,
            &HitContext {
                answer: if unchanged { Answer::NotModified } else { Answer::Whole },
                age_s: decision.reading.age_s(),
                framing,
                via: &plan.via,
                connection: ConnectionField::of(self.head.version(), keep),
                status: Some(CacheStatus {
                    name: &plan.cache_name,
                    handling: Handling::Forwarded { why, fwd_status: None, stored: false, collapsed: true },
                    ttl_s: None,
                    detail: None,
                }),
                extra: b"",
            },
        );
        let Some((head, block)) = sink.finish() else { return Followed::Alone };
        self.account.result = ResultCode::CollapsedHit;
        self.account.status = if unchanged { 304 } else { record.status() };
        if worker.log().is_some() {
            self.account.stored = Some(Arc::clone(metadata));
        }
        self.account.sent += head.len() as u64;
        self.client.send(head);
        if body == Body::None {
            return Followed::Answered(self.ending(keep));
        }
        Followed::Answered(self.read_body(follower, framing, Framer::within(block), keep).await)
    }

    async fn read_body(&mut self, mut follower: Follower, framing: Framing, mut framer: Framer, keep: bool) -> Ending {
        let (worker, plan) = (self.worker, self.plan);
        let thread = worker.thread();
        let Some(client) = self.client.tcp() else { return Ending::Cut };
        loop {
            if let Err(error) = room(client, plan.body_window, plan.timeouts.client_send).await {
                if error.kind() == std::io::ErrorKind::TimedOut {
                    worker.cells().add(Http::CLIENT_LATE, 1);
                }
                return self.client_left();
            }
            // The writer waits no longer than this for its origin.
            let limit = plan.timeouts.origin_idle + GRACE;
            let sent = &mut self.account.sent;
            let mut send = |chunk: buf::Chunk| {
                *sent += chunk.len() as u64;
                client.send(chunk);
            };
            match while_there(&self.client, follower.next_within(thread, limit)).await {
                Some(Next::Fragment(fragment)) if framing == Framing::Chunked => {
                    framer.send_chunk(fragment.into_chunk(), &mut send);
                }
                Some(Next::Fragment(fragment)) => send(fragment.into_chunk()),
                Some(Next::End) => {
                    if framing == Framing::Chunked {
                        send(buf::Chunk::from_static(chunk::LAST));
                    }
                    return self.ending(keep);
                }
                None => return self.client_left(),
                // The client must be able to see that it was not all.
                Some(Next::Cut(_)) => {
                    self.account.error = Some("origin-broke-off");
                    if framing == Framing::UntilClose {
                        client.abort();
                    }
                    return Ending::Cut;
                }
            }
        }
    }
}

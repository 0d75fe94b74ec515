//! A request at the cache: what is stored answers it, or somebody fetches.

use std::cell::Cell;
use std::sync::Arc;

use cache::{Alternates, Body, Entrance, Found, Hit, Key, Lane, Purge, Role, Seen, Store};

use crate::answer;
use crate::block_sink::BlockSink;
use crate::follow::Followed;
use crate::forward::HEAD_ROOM;
use crate::inbox::Inbox;
use crate::refresh;
use crate::rules::caching::cache_status::Handling;
use crate::rules::caching::conditional::{Precondition, evaluate, range_applies};
use crate::rules::caching::range::{self, Part};
use crate::rules::caching::serve::{OnFailure, Reading};
use crate::rules::caching::store::may_answer;
use crate::rules::caching::stored::{Answer, HitContext, write_hit_head};
use crate::rules::caching::vary::{self, Choice};
use crate::rules::caching::{CacheStatus, Decision, Forwarded, RequestControl, ResultCode, StoredMeta, Use, key};
use crate::rules::forward::ConnectionField;
use crate::rules::framing::Framing;
use crate::session::Ending;
use crate::transact::fill::Word;
use crate::transact::lookup::{self, Company, Step, Wish};
use crate::transaction::Exchange;
use crate::wire::h1::{RequestHead, ResponseHead, Scheme};
use crate::wire::{Known, Method};

/// Look-ups of one request: each beyond the first because something was stored meanwhile.
const LOOKS_MAX: u32 = 3;

/// A stored response as it is sent.
pub(crate) struct Stored<'a> {
    pub(crate) record: &'a Arc<[u8]>,
    pub(crate) body: &'a Body,
    pub(crate) reading: Reading,
    pub(crate) handling: Handling,
    pub(crate) result: ResultCode,
}

impl Exchange<'_> {
    /// Answers from the cache, or from an origin.
    pub(crate) async fn serve(&mut self, rule: usize, inbox: &mut Inbox, response: &mut ResponseHead) -> Ending {
        let worker = self.worker;
        let is_cached = self.plan.rules.get(rule).is_some_and(|rule| rule.cache);
        let Some(store) = worker.cache().filter(|_| is_cached) else {
            return self.forward(rule, inbox, response).await;
        };
        if let Err(why) = may_answer(self.head) {
            self.storing.why = Some(why);
            return self.forward(rule, inbox, response).await;
        }
        let path = self.head.path_and_query(self.text);
        if let Err(reason) = key::write_key(&mut self.desk.key, Scheme::Http, self.head.authority(self.text), path) {
            self.storing.why = Some(Forwarded::Bypass);
            self.note(reason);
            return self.forward(rule, inbox, response).await;
        }
        let wish = Wish {
            control: RequestControl::of(self.head, self.text),
            method: self.head.method(),
            is_range: self.head.present().has(Known::Range),
        };
        self.storing.control = wish.control;
        let key = Key::of(&self.desk.key);
        let mut lane = Lane::PRIMARY;
        for _ in 0..LOOKS_MAX {
            let (found, missed) = self.look_up(store, key).await;
            let (step, seen) = match &found {
                Found::Miss(seen) => (lookup::missed(missed, &wish), *seen),
                Found::Hit(hit) => match StoredMeta::decode(hit.metadata()) {
                    Some(record) => (lookup::found(&record.terms(), hit.is_stale(), &wish, worker.wall()), hit.seen()),
                    None => (lookup::missed(missed, &wish), hit.seen()),
                },
            };
            let (why, company) = match (step, &found) {
                (Step::Serve(decision), Found::Hit(hit)) => return self.send_hit(hit, decision),
                (Step::ServeAndRefresh(decision), Found::Hit(hit)) => {
                    refresh::begin(self, store, hit, rule);
                    return self.send_hit(hit, decision);
                }
                // Only what was found is served.
                (Step::Serve(_) | Step::ServeAndRefresh(_), Found::Miss(_)) | (Step::GatewayTimeout, _) => {
                    return self.only_if_cached();
                }
                (Step::Fetch { why, company }, _) => (why, company),
            };
            self.storing.why = Some(why);
            let stale = if let Found::Hit(hit) = found { Some(hit) } else { None };
            match self.enter(store, key, lane, (seen, stale), company).await {
                Entered::Fetch => return self.forward(rule, inbox, response).await,
                Entered::Answered(ending) => return ending,
                Entered::LookAgain => {}
                Entered::Lane(other) => lane = other,
            }
        }
        self.storing.asks = false;
        self.forward(rule, inbox, response).await
    }

    /// Looks for what is stored; when that is nothing, whether there is something that does not fit.
    async fn look_up(&self, store: &Arc<dyn Store>, key: Key) -> (Found, Forwarded) {
        let missed = Cell::new(Forwarded::UriMiss);
        let (text, request, request_text) = (self.desk.key.as_slice(), self.head, self.text);
        let choose = |alternates: Alternates<'_>| choose(alternates, text, request, request_text, &missed);
        let found = match store.look_up(key, &choose).now() {
            Ok(found) => found,
            Err(later) => later.await,
        };
        (found, missed.get())
    }

    /// Settles who fetches.
    async fn enter(
        &mut self,
        store: &Arc<dyn Store>,
        key: Key,
        lane: Lane,
        (seen, stale): (Seen, Option<Hit>),
        company: Company,
    ) -> Entered {
        let has_validator =
            stale.as_ref().and_then(|hit| StoredMeta::decode(hit.metadata())).is_some_and(|r| r.has_validator());
        self.storing.stale = stale;
        if company == Company::Alone {
            return Entered::Fetch;
        }
        // Whoever does not become the writer asks the same question for itself.
        self.storing.asks = has_validator;
        match store.enter(Entrance { key, lane, seen, now: self.worker.thread().now() }) {
            Role::Writer(writer) => {
                self.storing.writer = Some(writer);
                self.storing.ramps = true;
                Entered::Fetch
            }
            Role::Bypass(_, writer) => {
                self.storing.writer = Some(writer);
                Entered::Fetch
            }
            Role::Follow(follower) if company == Company::Any => {
                // Boxed: few wait, and those who do not would carry the room for it.
                match Box::pin(self.follow(follower)).await {
                    Followed::Answered(ending) => Entered::Answered(ending),
                    Followed::Write(writer) => {
                        self.storing.writer = Some(writer);
                        self.storing.ramps = true;
                        Entered::Fetch
                    }
                    Followed::LookAgain => Entered::LookAgain,
                    Followed::Lane(lane) => Entered::Lane(lane),
                    Followed::Alone => Entered::Fetch,
                    Followed::Told(word) => self.told(word),
                }
            }
            Role::Follow(_) | Role::Full => Entered::Fetch,
            Role::LookAgain => Entered::LookAgain,
        }
    }

    /// What a writer said that had nothing for those who waited.
    fn told(&mut self, word: Word) -> Entered {
        use crate::rules::caching::serve::Failure;
        let failure = match word {
            Word::Unstorable(_) => return Entered::Fetch,
            Word::Failed(_) => Failure::Unreachable,
            Word::Answered(status) => Failure::Status(status),
        };
        if let OnFailure::ServeStale(reading) = self.stands_in(failure) {
            let status = if let Word::Answered(status) = word { Some(status) } else { None };
            return Entered::Answered(self.send_stale(reading, status));
        }
        match word {
            // One has tried everything there is to try, a moment ago.
            Word::Failed(fault) => {
                self.account.result =
                    self.storing.why.map_or(ResultCode::Miss, |why| ResultCode::of_forwarded(why, None, false));
                Entered::Answered(self.fail(fault.status(), fault.detail(), fault.name()))
            }
            Word::Answered(_) | Word::Unstorable(_) => Entered::Fetch,
        }
    }

    /// The client wants nothing but what is stored, and nothing is that may be served.
    fn only_if_cached(&mut self) -> Ending {
        self.account.result = ResultCode::OnlyIfCachedMiss;
        let detail = "nothing is stored that may answer, and the request says only-if-cached";
        self.fail(504, detail, "only-if-cached")
    }

    /// What is stored under the request's URL goes. False: nothing was there.
    pub(crate) fn remove_stored(&mut self) -> bool {
        let path = self.head.path_and_query(self.text);
        let written = key::write_key(&mut self.desk.key, Scheme::Http, self.head.authority(self.text), path);
        match (written, self.worker.cache()) {
            (Ok(()), Some(store)) => store.purge(Key::of(&self.desk.key), Purge::Remove),
            _ => false,
        }
    }

    fn send_hit(&mut self, hit: &Hit, decision: Decision) -> Ending {
        let result = if decision.verdict == Use::Fresh { ResultCode::MemHit } else { ResultCode::StaleHit };
        self.send_stored(&Stored {
            record: hit.metadata(),
            body: hit.body(),
            reading: decision.reading,
            handling: Handling::Hit,
            result,
        })
    }

    /// The origin confirmed what is stored, whose record is `record` now.
    pub(crate) fn send_confirmed(&mut self, record: &Arc<[u8]>) -> Ending {
        let Some(hit) = self.storing.stale.take() else { return self.lost_record() };
        let Some(meta) = StoredMeta::decode(record) else { return self.lost_record() };
        let why = self.storing.why.unwrap_or(Forwarded::Stale);
        let stored = self.storing.stored;
        self.send_stored(&Stored {
            record,
            body: hit.body(),
            reading: meta.terms().at(self.worker.wall()),
            handling: Handling::Forwarded { why, fwd_status: Some(304), stored, collapsed: false },
            result: ResultCode::of_forwarded(why, Some(304), false),
        })
    }

    /// What is stored stands in for an origin that failed: with `status`, or without an answer.
    pub(crate) fn send_stale(&mut self, reading: Reading, status: Option<u16>) -> Ending {
        let Some(hit) = self.storing.stale.take() else { return self.lost_record() };
        let why = self.storing.why.unwrap_or(Forwarded::Stale);
        self.send_stored(&Stored {
            record: hit.metadata(),
            body: hit.body(),
            reading,
            handling: Handling::Forwarded { why, fwd_status: status, stored: false, collapsed: false },
            result: ResultCode::of_forwarded(why, status, true),
        })
    }

    /// Cannot be: who gets here holds what is stored. Said all the same, to the one whom it would concern.
    fn lost_record(&mut self) -> Ending {
        self.fail(500, "the stored response went while it was being validated", "record-lost")
    }

    /// What of a stored response the client wants: a part, if it asks for one that what is stored may give.
    fn wanted_of(&self, record: &StoredMeta<'_>, length: u64) -> Part {
        let asks = self.head.present().has(Known::Range) && self.head.method() == Method::Get;
        if asks && record.status() == 200 && range_applies(record, self.head, self.text) {
            range::wanted(self.head, self.text, length)
        } else {
            Part::Whole
        }
    }

    /// Sends a stored response, whole or the part that is wanted, or its head alone where the client wants or needs no
    /// more.
    pub(crate) fn send_stored(&mut self, stored: &Stored<'_>) -> Ending {
        let Some(record) = StoredMeta::decode(stored.record) else { return self.lost_record() };
        self.account.result = stored.result;
        let Some(client) = self.client.tcp() else { return Ending::Cut };
        let (worker, plan) = (self.worker, self.plan);
        let unchanged = evaluate(&record, self.head, self.text, worker.wall()) == Precondition::NotModified;
        let keep = self.keeps();
        let length = stored.body.held().end;
        self.desk.record.clear();
        let (answer, status, sent) = match self.wanted_of(&record, length) {
            _ if unchanged => (Answer::NotModified, 304, 0..0),
            Part::Whole => (Answer::Whole, record.status(), 0..length),
            Part::Bytes(part) => {
                range::put_content_range(&mut self.desk.record, Some(&part), length);
                (Answer::Partial, 206, part)
            }
            Part::Unsatisfiable => return self.send_unsatisfiable(stored, length, keep),
        };
        if unchanged && stored.result == ResultCode::MemHit {
            self.account.result = ResultCode::ImsHit;
        }
        self.account.status = status;
        // RFC 9110 §8.6: no length with 204.
        let framing = if unchanged || status == 204 { Framing::None } else { Framing::Length(sent.end - sent.start) };
        let mut sink = BlockSink::new(stored.record.len() + HEAD_ROOM);
        write_hit_head(
            &mut sink,
            &record,
            &HitContext {
                answer,
                age_s: stored.reading.age_s(),
                framing,
                via: &plan.via,
                connection: ConnectionField::of(self.head.version(), keep),
                status: Some(self.status_of(stored)),
                extra: &self.desk.record,
            },
        );
        // As large as it was when it was stored, and it fitted then.
        let Some((head, _)) = sink.finish() else { return self.lost_record() };
        self.account.sent += head.len() as u64;
        client.send(head);
        if !unchanged && !answer::is_head(self.head.method()) {
            self.account.sent += sent.end - sent.start;
            for fragment in stored.body.fragments(sent) {
                client.send(fragment.into_chunk());
            }
        }
        if worker.log().is_some() {
            self.account.stored = Some(Arc::clone(stored.record));
        }
        self.ending(keep)
    }
}

impl Exchange<'_> {
    /// What `Cache-Status` says of a stored response that is sent.
    fn status_of(&self, stored: &Stored<'_>) -> CacheStatus<'_> {
        CacheStatus {
            name: &self.plan.cache_name,
            handling: stored.handling,
            ttl_s: Some(stored.reading.ttl_s()),
            detail: self.storing.refused.map(|reason| reason.name()),
        }
    }

    /// The part that the client wants lies behind the end.
    fn send_unsatisfiable(&mut self, stored: &Stored<'_>, length: u64, keep: bool) -> Ending {
        self.account.status = 416;
        let connection = ConnectionField::of(self.head.version(), keep);
        if let Some(session) = self.client.session {
            self.account.sent += answer::send_unsatisfiable(session, length, &self.status_of(stored), connection);
        }
        if self.worker.log().is_some() {
            self.account.stored = Some(Arc::clone(stored.record));
        }
        self.ending(keep)
    }
}

/// What came of settling who fetches.
enum Entered {
    /// We do.
    Fetch,
    /// The client has its answer.
    Answered(Ending),
    /// Something was stored.
    LookAgain,
    /// What others fetch varies: among those of this lane there may be one that fits.
    Lane(Lane),
}

/// The alternate for a request. `missed` is told when there are some, and none fits.
fn choose(
    alternates: Alternates<'_>,
    key: &[u8],
    request: &RequestHead,
    text: &[u8],
    missed: &Cell<Forwarded>,
) -> Option<usize> {
    // Keys are hashes: what bears another text is none of ours. It keeps its place.
    let records = alternates.map(|alternate| {
        let is_ours = alternate.body().is_complete()
            && StoredMeta::decode(alternate.metadata()).is_some_and(|record| record.key() == key);
        if is_ours { alternate.metadata() } else { &[] }
    });
    match vary::choose(records, request, text) {
        Choice::Found(at, _) => Some(at),
        Choice::VaryMiss => {
            missed.set(Forwarded::VaryMiss);
            None
        }
        Choice::UriMiss => None,
    }
}

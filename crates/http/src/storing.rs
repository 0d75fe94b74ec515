//! What the cache has to do with one exchange while it is under way: who fetches for whom, and what is kept of it.
//!
//! The driver of what [`crate::transact::revalidate`] and [`crate::transact::fill`] decide.

use std::sync::Arc;

use base::WallTime;
use cache::{Head, Hit, Kept, Key, Permit, Purge, Tags, Writer};

use crate::metrics::Http;
use crate::rules::caching::cache_status::Handling;
use crate::rules::caching::conditional::{self, Precondition, confirms, evaluate};
use crate::rules::caching::serve::{Failure, OnFailure, on_failure};
use crate::rules::caching::store::may_store;
use crate::rules::caching::{
    self, CacheStatus, Forwarded, Reason, RequestControl, StoredMeta, Uncacheable, invalidate, key, stored, vary,
};
use crate::transact::fill::{DECLINED_FOR, Word, unkept};
use crate::transact::revalidate::{Answer, Validity, judge};
use crate::transaction::Exchange;
use crate::wire::field::FieldSet;
use crate::wire::h1::{ResponseHead, Scheme};

/// See the module.
#[derive(Debug)]
pub(crate) struct Storing {
    /// The right to store what comes.
    pub(crate) writer: Option<Writer>,
    /// Nothing is known against storing it: after a cold start it waits for its turn.
    pub(crate) ramps: bool,
    /// The turn to fetch, after a cold start.
    pub(crate) permit: Option<Permit>,
    /// What is stored and may not be served as it is: the origin is asked about it, and it may stand in when that fails.
    pub(crate) stale: Option<Hit>,
    /// The next request to an origin asks about it.
    pub(crate) asks: bool,
    /// Why the origin is asked, for `Cache-Status`. None: there is no cache for this rule.
    pub(crate) why: Option<Forwarded>,
    /// The response is being stored.
    pub(crate) stored: bool,
    /// Why it is not.
    pub(crate) refused: Option<Reason>,
    /// What the request wants of caches.
    pub(crate) control: RequestControl,
    /// When the last request was sent to an origin.
    pub(crate) sent_at: WallTime,
}

impl Storing {
    pub(crate) const NOTHING: Self = Self {
        writer: None,
        ramps: false,
        permit: None,
        stale: None,
        asks: false,
        why: None,
        stored: false,
        refused: None,
        control: RequestControl {
            no_cache: false,
            no_store: false,
            only_if_cached: false,
            max_age: None,
            min_fresh: None,
            max_stale: None,
            stale_if_error: None,
        },
        sent_at: WallTime::from_secs(0),
    };

    /// The client's conditions and range are judged by us, against what is stored then.
    pub(crate) fn replaces_conditions(&self) -> bool {
        self.writer.is_some() || self.asks
    }

    /// What `Cache-Status` says of a response that is passed on.
    pub(crate) fn status<'a>(&self, name: &'a caching::CacheName) -> Option<CacheStatus<'a>> {
        let why = self.why?;
        Some(CacheStatus {
            name,
            handling: Handling::Forwarded { why, fwd_status: None, stored: self.stored, collapsed: false },
            ttl_s: None,
            detail: self.refused.map(Reason::name),
        })
    }
}

/// How an exchange goes on when the head of the final response is there.
#[derive(Debug)]
pub(crate) enum Course {
    /// The response goes to the client.
    Pass,
    /// The response is stored, and the client has it already: 304.
    NotModified,
    /// What is stored is good, and this is its new record.
    Confirmed(Arc<[u8]>),
    /// The same question again, without conditions.
    AskAgain,
    /// What is stored stands in for this response.
    Stale(caching::serve::Reading),
}

impl Exchange<'_> {
    /// Whether anything stored may stand in for an origin that failed so.
    pub(crate) fn stands_in(&self, failure: Failure) -> OnFailure {
        let record = self.storing.stale.as_ref().and_then(|hit| StoredMeta::decode(hit.metadata()));
        let limit = self.plan.stale_if_unreachable_s;
        record.map_or(OnFailure::Fail, |record| {
            on_failure(&record.terms(), &self.storing.control, failure, self.worker.wall(), limit)
        })
    }

    /// The lines that ask the origin about what is stored, and the fields of the client's that they replace.
    pub(crate) fn conditions(&mut self) -> FieldSet {
        self.desk.record.clear();
        if let (true, Some(hit)) = (self.storing.asks, &self.storing.stale)
            && let Some(record) = StoredMeta::decode(hit.metadata())
        {
            conditional::put_revalidation(&mut self.desk.record, &record);
        }
        if self.storing.replaces_conditions() { conditional::REPLACED } else { FieldSet::EMPTY }
    }

    /// Judges the final response's head, tells the cache, and says how the exchange goes on.
    pub(crate) fn judge_response(&mut self, response: &ResponseHead, text: &[u8]) -> Course {
        if let Some(hit) = self.storing.stale.take() {
            let record = StoredMeta::decode(hit.metadata());
            let verdict = judge(Answer {
                status: response.status(),
                asked: self.storing.asks,
                confirms: record.is_some_and(|record| confirms(response, text, &record)),
                on_failure: {
                    let failure = Failure::Status(response.status());
                    self.storing.stale = Some(hit.clone());
                    self.stands_in(failure)
                },
            });
            match verdict {
                Validity::Confirmed => return self.confirm(&hit, response, text),
                Validity::AskAgain => {
                    self.storing.asks = false;
                    return Course::AskAgain;
                }
                Validity::Stale(reading) => {
                    self.give_up(Word::Answered(response.status()));
                    return Course::Stale(reading);
                }
                Validity::Replaced => self.storing.stale = None,
            }
        }
        self.begin_storing(response, text)
    }

    fn exchanged<'a>(&'a self, response: &'a ResponseHead, text: &'a [u8]) -> caching::Exchange<'a> {
        caching::Exchange {
            request: self.head,
            request_text: self.text,
            response,
            response_text: text,
            request_time: self.storing.sent_at,
            response_time: self.worker.wall(),
        }
    }

    /// The origin says that `hit` is good: makes its new record, and stores it.
    fn confirm(&mut self, hit: &Hit, response: &ResponseHead, text: &[u8]) -> Course {
        let exchange = caching::Exchange {
            request: self.head,
            request_text: self.text,
            response,
            response_text: text,
            request_time: self.storing.sent_at,
            response_time: self.worker.wall(),
        };
        let Some(record) = StoredMeta::decode(hit.metadata()) else { return Course::AskAgain };
        self.desk.record.clear();
        match self.desk.freshener.freshen(&mut self.desk.record, &record, &exchange) {
            Ok(_) => {
                let fresh: Arc<[u8]> = Arc::from(self.desk.record.as_slice());
                match self.storing.writer.take() {
                    Some(writer) => {
                        if let Err(writer) = writer.refreshed(hit, Arc::clone(&fresh)) {
                            // Purged meanwhile: what the origin confirmed is not what it has now, perhaps.
                            self.storing.writer = Some(writer);
                            self.storing.asks = false;
                            return Course::AskAgain;
                        }
                        self.storing.stored = true;
                    }
                    // Alone: whoever comes next has the use of it all the same.
                    None => {
                        if let Some(store) = self.worker.cache() {
                            self.storing.stored = store.refresh(hit, Arc::clone(&fresh));
                        }
                    }
                }
                Course::Confirmed(fresh)
            }
            // Good for this client, who asked; what is stored stays as stale as it was.
            Err(reason) => {
                self.refuse(reason);
                Course::Confirmed(Arc::clone(hit.metadata()))
            }
        }
    }

    /// Judges whether the response is stored, and if so begins.
    fn begin_storing(&mut self, response: &ResponseHead, text: &[u8]) -> Course {
        if self.storing.writer.is_none() {
            if self.storing.why.is_some() && self.storing.refused.is_none() {
                // For numbers and `Cache-Status`: would it have been stored?
                if let Err(Uncacheable(reason)) = may_store(&self.exchanged(response, text)) {
                    self.note(reason);
                }
            }
            return Course::Pass;
        }
        let mut record = std::mem::take(&mut self.desk.record);
        record.clear();
        let exchange = self.exchanged(response, text);
        let judged = match may_store(&exchange) {
            Ok(storable) => stored::encode(&mut record, &exchange, &storable, &self.desk.key),
            Err(Uncacheable(reason)) => Err(reason),
        };
        self.desk.record = record;
        if let Err(reason) = judged {
            self.refuse(reason);
            return Course::Pass;
        }
        let head = Head {
            metadata: Arc::from(self.desk.record.as_slice()),
            tags: Tags::NONE,
            expected: match response.body() {
                crate::wire::Body::None => Some(0),
                crate::wire::Body::Length(length) => Some(length),
                crate::wire::Body::Chunked | crate::wire::Body::UntilClose => None,
            },
        };
        let now = self.worker.thread().now();
        match self.storing.writer.as_mut().map_or(Kept::Yes, |writer| writer.start(head, now)) {
            Kept::Yes => self.storing.stored = true,
            Kept::No(reason) => {
                self.note(unkept(reason));
                self.storing.writer = None;
                return Course::Pass;
            }
        }
        let unchanged = StoredMeta::decode(&self.desk.record).is_some_and(|record| {
            evaluate(&record, self.head, self.text, self.worker.wall()) == Precondition::NotModified
        });
        if unchanged { Course::NotModified } else { Course::Pass }
    }

    /// Counts why a response is not stored, and remembers it for `Cache-Status`.
    pub(crate) fn note(&mut self, reason: Reason) {
        self.storing.refused = Some(reason);
        self.worker.cells().add(Http::not_stored(reason), 1);
    }

    /// The response may not be stored: those who wait learn it, and so do others for a while, if it will be so again.
    fn refuse(&mut self, reason: Reason) {
        self.note(reason);
        let Some(writer) = self.storing.writer.take() else { return };
        let told = cache::Reason::Engine(Word::Unstorable(reason).code());
        if reason.is_lasting() {
            writer.not_storable(told, self.worker.thread().now() + DECLINED_FOR);
        } else {
            writer.give_up(told);
        }
    }

    /// How the origin answered says how much more it can bear, after a cold start.
    pub(crate) fn settle(&mut self, status: u16) {
        match self.storing.permit.take() {
            Some(permit) if matches!(status, 502..=504) => permit.overloaded(self.worker.thread().now()),
            Some(permit) => permit.answered(),
            None => {}
        }
    }

    /// There will be no response to store.
    pub(crate) fn give_up(&mut self, word: Word) {
        if let Some(writer) = self.storing.writer.take() {
            writer.give_up(cache::Reason::Engine(word.code()));
        }
    }

    /// The body is whole: from now on it is served.
    pub(crate) fn finish_storing(&mut self) {
        let Some(writer) = self.storing.writer.take() else { return };
        let (key, head, text) = (&self.desk.key, self.head, self.text);
        let replaces = |old: &[u8]| {
            StoredMeta::decode(old)
                .is_some_and(|old| old.key() == key.as_slice() && vary::matches(old.vary(), head, text))
        };
        if let Err(reason) = writer.finish(None, &replaces, self.worker.thread().now()) {
            self.note(unkept(reason));
        }
    }

    /// The body broke off: what came of it is not kept.
    pub(crate) fn break_off_storing(&mut self) {
        if self.storing.writer.take().is_some() {
            self.note(Reason::Incomplete);
        }
    }

    /// What an unsafe request has made obsolete goes (RFC 9111 §4.4).
    pub(crate) fn invalidate(&mut self, response: &ResponseHead, text: &[u8]) {
        if !invalidate::invalidates(self.head.method(), response.status()) {
            return;
        }
        let Some(store) = self.worker.cache() else { return };
        let path = self.head.path_and_query(self.text);
        if key::write_key(&mut self.desk.key, Scheme::Http, self.head.authority(self.text), path).is_err() {
            // Longer than any key: nothing is stored for it.
            return;
        }
        invalidate::targets(&self.desk.key, response, text, &mut self.desk.record, |target| {
            store.purge(Key::of(target), Purge::Remove);
        });
    }
}

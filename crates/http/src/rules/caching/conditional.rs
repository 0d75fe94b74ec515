//! Validation: asking the origin whether a stored response is still good, and telling clients that theirs is
//! (RFC 9111 §4.3, RFC 9110 §13).
//!
//! Towards the origin: [`put_revalidation`] writes the question, with the client's own conditions ([`REPLACED`]) left
//! out; [`confirms`] reads a 304, and [`Freshener`] makes the new record of it (§4.3.4).
//! Towards the client: [`evaluate`] and [`range_applies`] judge its conditions against what is stored.

use base::WallTime;

use super::Exchange;
use super::etag::{self, Etag};
use super::store::{Reason, Storable, may_keep};
use super::stored::{self, StoredMeta};
use crate::rules::sink::HeadSink;
use crate::rules::{date, hop};
use crate::wire::field::{FieldSet, Known};
use crate::wire::h1::{HEAD_FIELDS_MAX, HEAD_SIZE_MAX, Limits, RequestHead, ResponseHead, Status, Version};
use crate::wire::method::Method;

/// What is left out of a request that is to bring or to validate a stored response: the client's conditions and range
/// are judged by us, against what is stored then. (Requests that bypass the cache keep theirs.)
pub const REPLACED: FieldSet =
    FieldSet::of(&[Known::IfNoneMatch, Known::IfModifiedSince, Known::IfRange, Known::Range]);

/// `Last-Modified` is a strong validator only when `Date` is so much later (RFC 9110 §8.8.2.2): then no second change
/// can have happened in the same second, nor two clocks explain it.
const STRONG_AFTER_S: i64 = 60;

/// Writes the conditions that ask whether `meta` is still good: both validators, where there are both (§4.3.1).
pub fn put_revalidation(sink: &mut impl HeadSink, meta: &StoredMeta<'_>) {
    for (name, value) in
        [(b"If-None-Match: ".as_slice(), meta.etag_text()), (b"If-Modified-Since: ", meta.modified_text())]
    {
        if let Some(value) = value {
            sink.put(name);
            sink.put(value);
            sink.put(b"\r\n");
        }
    }
}

/// Does this 304 speak of `meta` (RFC 9111 §4.3.4)? If not, the origin must be asked again, without conditions.
///
/// Its entity tag must be the stored one (a weak one, or against a weak one, weakly), or else its `Last-Modified`. A 304
/// that names neither speaks of what was asked for.
#[must_use]
pub fn confirms(response: &ResponseHead, text: &[u8], meta: &StoredMeta<'_>) -> bool {
    let said = |known| response.find(known, text).next().filter(|value| !value.is_empty());
    match (said(Known::Etag), meta.etag()) {
        (Some(theirs), Some(ours)) => Etag::new(theirs).matches_weakly(ours),
        _ => match (said(Known::LastModified), meta.modified_text()) {
            (Some(theirs), Some(ours)) => theirs == ours,
            _ => true,
        },
    }
}

/// Does this 200 to HEAD describe what is stored (RFC 9111 §4.3.5)? Then it freshens it as a 304 does; if not, what is
/// stored is stale. `content_len` is the length of the stored content.
#[must_use]
pub fn head_agrees(response: &ResponseHead, text: &[u8], meta: &StoredMeta<'_>, content_len: u64) -> bool {
    let same = |known, ours: Option<&[u8]>| response.find(known, text).next().is_none_or(|theirs| Some(theirs) == ours);
    response.status() == meta.status()
        && same(Known::Etag, meta.etag_text())
        && same(Known::LastModified, meta.modified_text())
        && response.content_length().is_none_or(|len| len == content_len)
}

/// Not taken over from a 304 (RFC 9111 §3.2): what belongs to the stored content, what is of the hop, and cookies,
/// which were meant for one client.
const NOT_UPDATED: FieldSet = hop::HOP_BY_HOP.union(FieldSet::of(&[
    Known::ContentLength,
    Known::ContentEncoding,
    Known::ContentRange,
    Known::Trailer,
    Known::SetCookie,
]));
/// Never kept: they speak of the exchange that brought the old head.
const OUTDATED: FieldSet = FieldSet::of(&[Known::Date, Known::Age, Known::CacheStatus]);
const WHOLE: Limits = Limits { head_size: HEAD_SIZE_MAX, head_fields: HEAD_FIELDS_MAX };

/// Makes new records of old ones and 304 responses. Kept and used again, it allocates nothing once warm.
#[derive(Debug, Default)]
pub struct Freshener {
    text: Vec<u8>,
    head: ResponseHead,
}

impl Freshener {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends to `out` the record of `meta` freshened by the 304 of `exchange`, which [`confirms`] it. The content that
    /// belongs to it stays the same.
    ///
    /// # Errors
    /// Why the freshened response may not be stored. It may still be served to this one client, for the origin has
    /// confirmed it; the old record stays as it is, or should go, if the reason [`Reason::is_lasting`].
    pub fn freshen(
        &mut self,
        out: &mut Vec<u8>,
        meta: &StoredMeta<'_>,
        exchange: &Exchange<'_>,
    ) -> Result<Storable, Reason> {
        self.merge(meta, exchange.response, exchange.response_text);
        self.head.clear();
        let parsed = self.head.parse(&self.text, &WHOLE, Method::Get);
        if !matches!(parsed, Ok(Status::Complete)) {
            return Err(Reason::HeadTooLarge);
        }
        let merged = Exchange { response: &self.head, response_text: &self.text, ..*exchange };
        let storable = may_keep(&merged)?;
        stored::encode(out, &merged, &storable, meta.key())?;
        Ok(storable)
    }

    /// The head that a full response would have had: each field of the 304, and of the stored head those the 304 has
    /// not.
    fn merge(&mut self, meta: &StoredMeta<'_>, response: &ResponseHead, text: &[u8]) {
        let lines = response.lines();
        let is_update = |known: Known, name: &[u8]| {
            let is_nominated = lines.nominates() && hop::is_nominated(lines, text, known, name);
            !is_nominated && !NOT_UPDATED.has(known)
        };
        let is_replaced = |known: Known, name: &[u8]| {
            OUTDATED.has(known)
                || (response.present().has(known)
                    && is_update(known, name)
                    && (known != Known::Other || response.fields(text).any(|f| f.name.eq_ignore_ascii_case(name))))
        };
        self.text.clear();
        let version = if response.version() == Version::Http10 { b"HTTP/1.0" } else { b"HTTP/1.1" };
        self.put(&[version, meta.status_line().get(version.len()..).unwrap_or_default(), b"\r\n"]);
        for (name, value) in meta.fields() {
            if !is_replaced(Known::of(name), name) {
                self.put(&[name, b": ", value, b"\r\n"]);
            }
        }
        for field in response.fields(text).filter(|field| is_update(field.known, field.name)) {
            self.put(&[field.name, b": ", field.value, b"\r\n"]);
        }
        self.put(&[b"\r\n"]);
    }

    fn put(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.text.extend_from_slice(part);
        }
    }
}

/// What a client's conditions come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precondition {
    /// There is none, or it holds: answer as if it were not there.
    Proceed,
    /// The client has this already: 304.
    NotModified,
}

/// Judges `If-None-Match` and, where there is none, `If-Modified-Since`, of GET or HEAD (RFC 9110 §13.2.2, RFC 9111
/// §4.3.2). `If-Match` and `If-Unmodified-Since` never get here: see [`super::store::may_answer`].
///
/// `meta` is fresh, may be served stale, or was just confirmed. Conditions count only where the answer would be 2xx.
#[inline]
#[must_use]
pub fn evaluate(meta: &StoredMeta<'_>, request: &RequestHead, text: &[u8], now: WallTime) -> Precondition {
    const JUDGED: FieldSet = FieldSet::of(&[Known::IfNoneMatch, Known::IfModifiedSince]);
    if request.present().meets(JUDGED) { judge(meta, request, text, now) } else { Precondition::Proceed }
}

fn judge(meta: &StoredMeta<'_>, request: &RequestHead, text: &[u8], now: WallTime) -> Precondition {
    let is_unchanged = if !(200..300).contains(&meta.status()) {
        false
    } else if request.present().has(Known::IfNoneMatch) {
        let mut lines = request.find(Known::IfNoneMatch, text);
        lines.any(|line| {
            // Most clients send back the one tag they were sent.
            meta.etag_text() == Some(line)
                || etag::is_any(line)
                || meta.etag().is_some_and(|ours| etag::list(line).any(|tag| tag.matches_weakly(ours)))
        })
    } else {
        is_unmodified_since(meta, request, text, now)
    };
    if is_unchanged { Precondition::NotModified } else { Precondition::Proceed }
}

/// RFC 9111 §4.3.2: `Last-Modified`, else `Date` (which is the time of reception when there was none).
fn is_unmodified_since(meta: &StoredMeta<'_>, request: &RequestHead, text: &[u8], now: WallTime) -> bool {
    let mut lines = request.find(Known::IfModifiedSince, text);
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    // Most clients send back what they were sent.
    if meta.modified_text() == Some(line) && meta.modified_s().is_some() {
        return true;
    }
    let since = date::parse(line, now.as_secs());
    since.is_some_and(|since| meta.modified_s().unwrap_or_else(|| meta.date_s()) <= since)
}

/// Is the request's `Range` to be honoured? Without `If-Range` it is; with it, only if the validator there is strong
/// and that of `meta` (RFC 9110 §13.1.5). Then the whole is sent.
#[must_use]
pub fn range_applies(meta: &StoredMeta<'_>, request: &RequestHead, text: &[u8]) -> bool {
    if !request.present().has(Known::IfRange) {
        return true;
    }
    let mut lines = request.find(Known::IfRange, text);
    let (Some(validator), None) = (lines.next(), lines.next()) else { return false };
    if validator.starts_with(b"\"") || validator.starts_with(b"W/") {
        return meta.etag().is_some_and(|ours| Etag::new(validator).matches_strongly(ours));
    }
    let is_strong = meta.modified_s().is_some_and(|modified| meta.date_s().saturating_sub(modified) >= STRONG_AFTER_S);
    is_strong && meta.modified_text() == Some(validator)
}

#[cfg(test)]
#[path = "conditional/tests.rs"]
mod tests;

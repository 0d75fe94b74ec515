//! The record of a stored response: all that a hit needs, found once when the response was stored.
//!
//! It is one run of bytes, opaque to the cache that keeps it. Reading it copies nothing and allocates nothing; the head
//! in it is ready to be sent. What changes from hit to hit (age, framing, our name in `Via`, `Cache-Status`,
//! `Connection`) is written behind it. Fields are grouped so that the head of a 304 is a part of the whole.
//!
//! ```text
//! fixed part | key | status line | fields that a 304 has too | other fields | "Via: … 1.1 " | nominated by Vary
//!                    └──────────── head, one copy when it is served ───────────────────────┘
//! 304        =       "304 line"  | fields that a 304 has too |              | "Via: … 1.1 "
//! 206        =       "206 line"  | fields that a 304 has too | other fields | "Via: … 1.1 "
//! ```
//!
//! Whoever reads bytes that are not such a record gets `None`, never a panic. That they are the bytes that were written
//! is for the cache to know, by checksum. Numbers are little-endian.
//!
//! Write with [`encode`], read with [`StoredMeta::decode`], send with [`write_hit_head`].

use base::WallTime;

use super::cache_control::withholds;
use super::cache_status::CacheStatus;
use super::etag::Etag;
use super::freshness::Lifetime;
use super::serve::Terms;
use super::store::{Reason, Storable};
use super::vary::{self, Nominated};
use super::{Exchange, key};
use crate::rules::forward::ConnectionField;
use crate::rules::framing::Framing;
use crate::rules::sink::{Decimal, HeadSink};
use crate::rules::{date, hop};
use crate::wire::field::{FieldSet, Known};
use crate::wire::h1::{Fields, Version};

/// Bytes the stored head may have. It must fit into one block of 64 KiB together with what is written behind it.
pub const HEAD_LEN_MAX: usize = 60 * 1024;

/// Changes whenever the layout does, so that what another version wrote is a miss.
const MAGIC: [u8; 4] = *b"BwM\x01";
const NEVER: i64 = i64::MIN;
const UNNAMED: u32 = u32::MAX;

/// Not stored: of the hop (RFC 9111 §3.1), or written anew for each hit.
const NOT_STORED: FieldSet =
    hop::HOP_BY_HOP.union(FieldSet::of(&[Known::ContentLength, Known::Age, Known::Via, Known::Trailer]));
/// What a 304 has if the 200 had it (RFC 9110 §15.4.5). `Last-Modified` too when there is no `ETag`.
const CONTROL: FieldSet = FieldSet::of(&[
    Known::Date,
    Known::Etag,
    Known::CacheControl,
    Known::CdnCacheControl,
    Known::ContentLocation,
    Known::Expires,
    Known::Vary,
]);

mod flag {
    pub(super) const NO_CACHE: u16 = 1;
    pub(super) const MUST_REVALIDATE: u16 = 2;
    pub(super) const S_MAXAGE: u16 = 4;
    pub(super) const GUESSED: u16 = 8;
}

/// The record, as it lies.
#[derive(Clone, Copy, Debug)]
pub struct StoredMeta<'a> {
    fixed: &'a [u8; FIXED_LEN],
    key: &'a [u8],
    /// Status line to `Via`.
    head: &'a [u8],
    vary: &'a [u8],
}

impl<'a> StoredMeta<'a> {
    /// Reads a record. A few comparisons; `None` if it is not one, or is not whole.
    #[inline]
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (fixed, rest) = bytes.split_first_chunk::<FIXED_LEN>()?;
        if fixed[..4] != MAGIC {
            return None;
        }
        let len = |at| u32_at(fixed, at) as usize;
        let (key, rest) = rest.split_at_checked(len(at::KEY_LEN))?;
        let (head, vary) = rest.split_at_checked(len(at::HEAD_LEN))?;
        let groups = len(at::LINE_LEN).checked_add(len(at::CONTROL_LEN))?.checked_add(len(at::VIA_LEN))?;
        (vary.len() == len(at::VARY_LEN) && groups <= head.len()).then_some(Self { fixed, key, head, vary })
    }

    /// Is the record sound to its last byte? For who reads what may be damaged, and for tests; a hit does not need it.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let is_within = |span: Option<&[u8]>| span.is_some();
        self.vary().is_whole()
            && is_within(self.span(at::ETAG))
            && is_within(self.span(at::MODIFIED))
            && is_within(self.span(at::TYPE))
    }

    /// The key it was stored under.
    #[inline]
    #[must_use]
    pub const fn key(&self) -> &'a [u8] {
        self.key
    }

    /// The status code.
    #[inline]
    #[must_use]
    pub fn status(&self) -> u16 {
        u16::from_le_bytes([self.fixed[at::STATUS], self.fixed[at::STATUS + 1]])
    }

    /// The terms under which it may be used.
    #[inline]
    #[must_use]
    pub fn terms(&self) -> Terms {
        let flags = self.flags();
        Terms {
            born: WallTime::from_micros(self.i64_at(at::BORN)),
            lifetime_s: u32_at(self.fixed, at::LIFETIME),
            stale_while_revalidate_s: u32_at(self.fixed, at::STALE_WHILE_REVALIDATE),
            stale_if_error_s: match u32_at(self.fixed, at::STALE_IF_ERROR) {
                UNNAMED => None,
                secs => Some(secs),
            },
            no_cache: flags & flag::NO_CACHE != 0,
            must_revalidate: flags & flag::MUST_REVALIDATE != 0,
            s_maxage: flags & flag::S_MAXAGE != 0,
        }
    }

    /// The lifetime was not said by the origin but guessed from `Last-Modified`, or there is none.
    #[must_use]
    pub fn is_lifetime_guessed(&self) -> bool {
        self.flags() & flag::GUESSED != 0
    }

    /// When the request for it was sent.
    #[must_use]
    pub fn request_time(&self) -> WallTime {
        WallTime::from_micros(self.i64_at(at::REQUEST_TIME))
    }

    /// When its head was received.
    #[inline]
    #[must_use]
    pub fn response_time(&self) -> WallTime {
        WallTime::from_micros(self.i64_at(at::RESPONSE_TIME))
    }

    /// `Date`, in seconds since 1970; the time of reception when it had none.
    #[inline]
    #[must_use]
    pub fn date_s(&self) -> i64 {
        self.i64_at(at::DATE)
    }

    /// `Last-Modified`, in seconds since 1970, when there is one that can be read.
    #[inline]
    #[must_use]
    pub fn modified_s(&self) -> Option<i64> {
        Some(self.i64_at(at::MODIFIED_S)).filter(|&secs| secs != NEVER)
    }

    /// `ETag`.
    #[inline]
    #[must_use]
    pub fn etag(&self) -> Option<Etag<'a>> {
        self.value(at::ETAG).map(Etag::new)
    }

    /// `ETag` as it was sent.
    #[must_use]
    pub fn etag_text(&self) -> Option<&'a [u8]> {
        self.value(at::ETAG)
    }

    /// `Last-Modified` as it was sent.
    #[must_use]
    pub fn modified_text(&self) -> Option<&'a [u8]> {
        self.value(at::MODIFIED)
    }

    /// `Content-Type`, for the log.
    #[inline]
    #[must_use]
    pub fn content_type(&self) -> Option<&'a [u8]> {
        self.value(at::TYPE)
    }

    /// Could the origin be asked whether it is still good?
    #[must_use]
    pub fn has_validator(&self) -> bool {
        self.etag_text().is_some() || self.modified_text().is_some()
    }

    /// The fields it varies with, and their values.
    #[inline]
    #[must_use]
    pub const fn vary(&self) -> Nominated<'a> {
        Nominated::new(self.vary)
    }

    /// The status line, without its line end.
    #[must_use]
    pub fn status_line(&self) -> &'a [u8] {
        let line = self.head.get(..self.len_at(at::LINE_LEN)).unwrap_or_default();
        line.strip_suffix(b"\r\n").unwrap_or(line)
    }

    /// The stored fields, but for `Via`: names and values.
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let end = self.head.len().saturating_sub(self.len_at(at::VIA_LEN));
        let lines = self.head.get(self.len_at(at::LINE_LEN)..end).unwrap_or_default();
        lines.split(|&b| b == b'\n').filter_map(|line| {
            let line = line.strip_suffix(b"\r")?;
            let colon = memchr::memchr(b':', line)?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
    }

    #[inline]
    fn flags(&self) -> u16 {
        u16::from_le_bytes([self.fixed[at::FLAGS], self.fixed[at::FLAGS + 1]])
    }

    #[inline]
    fn i64_at(&self, at: usize) -> i64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.fixed[at..at + 8]);
        i64::from_le_bytes(bytes)
    }

    #[inline]
    fn len_at(&self, at: usize) -> usize {
        u32_at(self.fixed, at) as usize
    }

    /// A value in the head, empty when there is none; `None` when the record is damaged.
    #[inline]
    fn span(&self, at: usize) -> Option<&'a [u8]> {
        let start = self.len_at(at);
        self.head.get(start..start.checked_add(self.len_at(at + 4))?)
    }

    #[inline]
    fn value(&self, at: usize) -> Option<&'a [u8]> {
        self.span(at).filter(|value| !value.is_empty())
    }
}

/// Appends the record of a response that may be stored.
///
/// # Errors
/// [`Reason::KeyTooLong`], [`Reason::HeadTooLarge`], or what [`vary::judge`] says; `out` is then as it was.
pub fn encode(out: &mut Vec<u8>, exchange: &Exchange<'_>, storable: &Storable, key: &[u8]) -> Result<(), Reason> {
    let start = out.len();
    let result = append(out, exchange, storable, key);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn append(out: &mut Vec<u8>, exchange: &Exchange<'_>, storable: &Storable, key: &[u8]) -> Result<(), Reason> {
    if key.len() > key::KEY_LEN_MAX {
        return Err(Reason::KeyTooLong);
    }
    let start = out.len();
    out.extend_from_slice(&[0; FIXED_LEN]);
    out.extend_from_slice(key);
    let mut head = HeadWriter::new(out, exchange, storable);
    let places = head.write()?;
    let head_len = out.len() - start - FIXED_LEN - key.len();
    if head_len > HEAD_LEN_MAX {
        return Err(Reason::HeadTooLarge);
    }
    let vary_at = out.len();
    vary::append(out, exchange.response, exchange.response_text, exchange.request, exchange.request_text)?;
    let vary_len = out.len() - vary_at;

    let Storable { control, lifetime, dating } = storable;
    let terms = storable.terms();
    let flags = if terms.no_cache { flag::NO_CACHE } else { 0 }
        | if terms.must_revalidate { flag::MUST_REVALIDATE } else { 0 }
        | if terms.s_maxage { flag::S_MAXAGE } else { 0 }
        | if is_guessed(lifetime) { flag::GUESSED } else { 0 };
    let modified_s = places.modified_value(out).and_then(|value| date::parse(value, dating.date_s)).unwrap_or(NEVER);
    let fixed = &mut out[start..start + FIXED_LEN];
    let mut put = |at: usize, bytes: &[u8]| fixed[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &MAGIC);
    put(at::STATUS, &exchange.response.status().to_le_bytes());
    put(at::FLAGS, &flags.to_le_bytes());
    put(at::BORN, &dating.born.as_micros().to_le_bytes());
    put(at::REQUEST_TIME, &exchange.request_time.as_micros().to_le_bytes());
    put(at::RESPONSE_TIME, &exchange.response_time.as_micros().to_le_bytes());
    put(at::DATE, &dating.date_s.to_le_bytes());
    put(at::MODIFIED_S, &modified_s.to_le_bytes());
    put(at::LIFETIME, &lifetime.secs.to_le_bytes());
    put(at::STALE_WHILE_REVALIDATE, &terms.stale_while_revalidate_s.to_le_bytes());
    put(at::STALE_IF_ERROR, &control.stale_if_error.unwrap_or(UNNAMED).to_le_bytes());
    for (at, len) in [
        (at::KEY_LEN, key.len()),
        (at::HEAD_LEN, head_len),
        (at::VARY_LEN, vary_len),
        (at::LINE_LEN, places.line_len),
        (at::CONTROL_LEN, places.control_len),
        (at::VIA_LEN, places.via_len),
        (at::ETAG, places.etag.0),
        (at::ETAG + 4, places.etag.1),
        (at::MODIFIED, places.modified.0),
        (at::MODIFIED + 4, places.modified.1),
        (at::TYPE, places.content_type.0),
        (at::TYPE + 4, places.content_type.1),
    ] {
        put(at, &u32::try_from(len).map_err(|_| Reason::HeadTooLarge)?.to_le_bytes());
    }
    Ok(())
}

const fn is_guessed(lifetime: &Lifetime) -> bool {
    !lifetime.basis.is_explicit()
}

/// Where things lie in the head.
#[derive(Default)]
struct Places {
    /// Of the head, in `out`.
    start: usize,
    line_len: usize,
    control_len: usize,
    via_len: usize,
    etag: (usize, usize),
    modified: (usize, usize),
    content_type: (usize, usize),
}

impl Places {
    fn modified_value<'a>(&self, out: &'a [u8]) -> Option<&'a [u8]> {
        let from = self.start + self.modified.0;
        out.get(from..from + self.modified.1).filter(|value| !value.is_empty())
    }
}

struct HeadWriter<'a> {
    out: &'a mut Vec<u8>,
    exchange: &'a Exchange<'a>,
    storable: &'a Storable,
    places: Places,
}

impl<'a> HeadWriter<'a> {
    fn new(out: &'a mut Vec<u8>, exchange: &'a Exchange<'a>, storable: &'a Storable) -> Self {
        let places = Places { start: out.len(), ..Places::default() };
        Self { out, exchange, storable, places }
    }

    fn write(&mut self) -> Result<Places, Reason> {
        let Exchange { response, response_text, .. } = *self.exchange;
        self.put(&[b"HTTP/1.1 ", Decimal::new(u64::from(response.status())).as_bytes(), b" "]);
        self.put(&[response.reason(response_text), b"\r\n"]);
        self.places.line_len = self.len();
        let mut in_304 = CONTROL;
        if !response.present().has(Known::Etag) {
            in_304 = in_304.with(Known::LastModified);
        }
        if !self.storable.dating.has_date {
            self.put(&[b"Date: ", &date::format(self.storable.dating.date_s), b"\r\n"]);
        }
        self.put_fields(|known| in_304.has(known));
        self.places.control_len = self.len() - self.places.line_len;
        self.put_fields(|known| !in_304.has(known));
        let via_at = self.len();
        self.put(&[b"Via: "]);
        for value in response.find(Known::Via, response_text).filter(|value| !value.is_empty()) {
            self.put(&[value, b", "]);
        }
        self.put(&[if response.version() == Version::Http10 { b"1.0 " } else { b"1.1 " }]);
        self.places.via_len = self.len() - via_at;
        if self.len() > HEAD_LEN_MAX { Err(Reason::HeadTooLarge) } else { Ok(std::mem::take(&mut self.places)) }
    }

    fn put_fields(&mut self, is_in: impl Fn(Known) -> bool) {
        let Exchange { response, response_text, .. } = *self.exchange;
        let fields = response.lines();
        let withholding = self.storable.control.withholds_fields;
        for (at, field) in fields.lines(response_text) {
            let is_out = NOT_STORED.has(field.known)
                || (field.known == Known::Date && !self.storable.dating.has_date)
                || (fields.nominates() && hop::is_nominated(fields, response_text, field.known, field.name))
                || (withholding && withholds(response, response_text, field.name));
            if is_out || !is_in(field.known) {
                continue;
            }
            let place = (self.len() + field.name.len() + 2, field.value.len());
            match Fields::usual_line(at, &field, response_text) {
                Some(line) => self.put(&[line]),
                None => self.put(&[field.name, b": ", field.value, b"\r\n"]),
            }
            let slot = match field.known {
                Known::Etag => &mut self.places.etag,
                Known::LastModified => &mut self.places.modified,
                Known::ContentType => &mut self.places.content_type,
                _ => continue,
            };
            if *slot == (0, 0) {
                *slot = place;
            }
        }
    }

    fn put(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.out.extend_from_slice(part);
        }
    }

    fn len(&self) -> usize {
        self.out.len() - self.places.start
    }
}

/// Which answer a stored response gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// All of it, also to HEAD.
    Whole,
    /// 304: the client has it already.
    NotModified,
    /// 206: a part; `Content-Range` is among the extra lines.
    Partial,
}

/// What writing the head of a hit needs to know beside the record.
#[derive(Clone, Copy, Debug)]
pub struct HitContext<'a> {
    /// Whole, 304 or 206.
    pub answer: Answer,
    /// The current age in seconds ([`super::serve::Reading::age_s`]).
    pub age_s: u32,
    /// How the content goes. To HEAD the length that GET would have; [`Framing::None`] with 304 and 204.
    pub framing: Framing,
    /// Our pseudonym in `Via`.
    pub via: &'a str,
    /// What to say of the connection.
    pub connection: ConnectionField,
    /// Our member of `Cache-Status`; `None` writes none.
    pub status: Option<CacheStatus<'a>>,
    /// Whole field lines, each with its line end.
    pub extra: &'a [u8],
}

/// Writes the head of an answer from the cache.
#[inline]
pub fn write_hit_head(sink: &mut impl HeadSink, meta: &StoredMeta<'_>, context: &HitContext<'_>) {
    sink.reserve(meta.head.len() + context.extra.len() + ROOM);
    let line_len = meta.len_at(at::LINE_LEN);
    match context.answer {
        Answer::Whole => sink.put(meta.head),
        Answer::Partial => {
            sink.put(b"HTTP/1.1 206 Partial Content\r\n");
            sink.put(meta.head.get(line_len..).unwrap_or_default());
        }
        Answer::NotModified => {
            sink.put(b"HTTP/1.1 304 Not Modified\r\n");
            let control_end = line_len + meta.len_at(at::CONTROL_LEN);
            sink.put(meta.head.get(line_len..control_end).unwrap_or_default());
            sink.put(meta.head.get(meta.head.len() - meta.len_at(at::VIA_LEN)..).unwrap_or_default());
        }
    }
    sink.put(context.via.as_bytes());
    match context.framing {
        Framing::Length(len) => {
            sink.put(b"\r\nContent-Length: ");
            sink.put(Decimal::new(len).as_bytes());
            sink.put(b"\r\nAge: ");
        }
        Framing::Chunked => sink.put(b"\r\nTransfer-Encoding: chunked\r\nAge: "),
        Framing::None | Framing::UntilClose => sink.put(b"\r\nAge: "),
    }
    sink.put(Decimal::new(u64::from(context.age_s)).as_bytes());
    if let Some(status) = &context.status {
        sink.put(b"\r\nCache-Status: ");
        status.put(sink);
    }
    sink.put(b"\r\n");
    if !context.extra.is_empty() {
        sink.put(context.extra);
    }
    sink.put(context.connection.line());
    sink.put(b"\r\n");
}

/// What is written behind a stored head is below this, extra lines apart.
const ROOM: usize = 512;

/// Where the numbers of the fixed part lie.
mod at {
    pub(super) const STATUS: usize = 4;
    pub(super) const FLAGS: usize = 6;
    pub(super) const BORN: usize = 8;
    pub(super) const REQUEST_TIME: usize = 16;
    pub(super) const RESPONSE_TIME: usize = 24;
    pub(super) const DATE: usize = 32;
    pub(super) const MODIFIED_S: usize = 40;
    pub(super) const LIFETIME: usize = 48;
    pub(super) const STALE_WHILE_REVALIDATE: usize = 52;
    pub(super) const STALE_IF_ERROR: usize = 56;
    pub(super) const KEY_LEN: usize = 60;
    pub(super) const HEAD_LEN: usize = 64;
    pub(super) const VARY_LEN: usize = 68;
    pub(super) const LINE_LEN: usize = 72;
    pub(super) const CONTROL_LEN: usize = 76;
    pub(super) const VIA_LEN: usize = 80;
    /// Place and length, as all that follow.
    pub(super) const ETAG: usize = 84;
    pub(super) const MODIFIED: usize = 92;
    pub(super) const TYPE: usize = 100;
}

const FIXED_LEN: usize = 108;

#[inline]
fn u32_at(fixed: &[u8; FIXED_LEN], at: usize) -> u32 {
    u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
}

#[cfg(test)]
#[path = "stored/tests.rs"]
mod tests;

//! May a shared cache store this response? (RFC 9111 §3, §3.5, §5.2)
//!
//! [`may_answer`] judges a request before anything is looked up, [`may_store`] a response before anything is stored.
//! Every refusal has a [`Reason`] with a stable name, for the counters, the log, and `detail` of `Cache-Status`.

use std::fmt;

use super::Exchange;
use super::cache_control::{RequestControl, ResponseControl, withholds};
use super::cache_status::Forwarded;
use super::freshness::{Dating, Lifetime, is_heuristically_cacheable, lifetime};
use super::serve::Terms;
use super::vary;
use crate::wire::field::{FieldSet, Known};
use crate::wire::h1::{RequestHead, TargetForm};
use crate::wire::method::Method;

macro_rules! reasons {
    ($($variant:ident = $name:literal, $sentence:literal;)*) => {
        /// Why a response is not stored.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = concat!($sentence, ".")] $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of [`Reason::index`].
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable name: a token of small letters and hyphens, the same in counters, logs and `Cache-Status`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence for people, without a full stop.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }
        }
    };
}

reasons! {
    Disabled = "disabled", "No cache is configured for it";
    Method = "method", "Only responses to GET are stored";
    RequestContent = "request-content", "The request had content, which is no part of the key";
    KeyTooLong = "key-too-long", "The URL is longer than any key";
    RequestNoStore = "request-no-store", "The request says no-store";
    Interim = "interim", "The response is not final";
    Partial = "partial", "The response is a part of something";
    ContentRange = "content-range", "The response says Content-Range, but not that it is a part";
    NotModified = "not-modified", "The response says only that nothing changed";
    StatusForbids = "status-forbids", "Responses of this status concern one request or one connection";
    StatusUnknown = "status-unknown", "The response must be understood, and its status is not";
    NoStore = "no-store", "The response says no-store";
    Private = "private", "The response is private to one user";
    Authorization = "authorization", "The request had credentials, and the response does not say that others may have it";
    SetCookie = "set-cookie", "The response sets a cookie, and does not say that others may have it";
    VaryStar = "vary-star", "The response varies with something that is not in the request";
    VaryTooMany = "vary-too-many", "The response varies with more fields than are compared";
    NoLifetime = "no-lifetime", "The response has no explicit lifetime, and its status allows no heuristic";
    NotReusable = "not-reusable", "The response is stale at once and cannot be validated";
    HeadTooLarge = "head-too-large", "The head is larger than may be stored";
    TooLarge = "too-large", "The content is larger than may be stored";
    Incomplete = "incomplete", "The content did not come whole";
    NoRoom = "no-room", "The cache had no room for it";
}

impl Reason {
    /// A dense number, for tables of counters.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Would the next response to the same request most likely be refused too? Then others need not wait for one another
    /// (the memory of what turned out not storable).
    #[must_use]
    pub const fn is_lasting(self) -> bool {
        !matches!(self, Self::RequestNoStore | Self::RequestContent | Self::Incomplete | Self::NoRoom | Self::Interim)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A response is not stored, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not stored: {0}")]
pub struct Uncacheable(pub Reason);

/// A response that may be stored, and what was found out on the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Storable {
    /// What it says of caching.
    pub control: ResponseControl,
    /// How long it is fresh.
    pub lifetime: Lifetime,
    /// When it was made.
    pub dating: Dating,
}

impl Storable {
    /// The terms under which it may be used.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms::new(&self.control, self.lifetime, &self.dating)
    }
}

/// May a stored response answer this request at all? If not, the request passes the cache by, for this reason.
///
/// Content in GET has no meaning to caches but may have to origins; and `If-Match` and `If-Unmodified-Since` are for
/// the origin alone to judge (RFC 9111 §4.3.2).
///
/// # Errors
/// What `Cache-Status` says of it: `fwd=method` or `fwd=bypass`.
#[inline]
pub fn may_answer(request: &RequestHead) -> Result<(), Forwarded> {
    const FOR_THE_ORIGIN: FieldSet = FieldSet::of(&[Known::IfMatch, Known::IfUnmodifiedSince]);
    if !matches!(request.method(), Method::Get | Method::Head) {
        return Err(Forwarded::Method);
    }
    let is_plain = request.body().is_empty() && !request.present().meets(FOR_THE_ORIGIN);
    if is_plain && matches!(request.target_form(), TargetForm::Origin | TargetForm::Absolute) {
        Ok(())
    } else {
        Err(Forwarded::Bypass)
    }
}

/// Judges a response, as a shared cache.
///
/// Stricter than RFC 9111 §3 in four points, each with a reason of its own: a `Set-Cookie` needs an explicit `public` or
/// `s-maxage` (operators expect it, and a session handed to strangers is worse than a miss), content in GET, statuses
/// that speak of one request only, and what could never be used again.
///
/// # Errors
/// The first reason against it, in the order of [`Reason::ALL`].
pub fn may_store(exchange: &Exchange<'_>) -> Result<Storable, Uncacheable> {
    if exchange.request.method() != Method::Get {
        return Err(Uncacheable(Reason::Method));
    }
    may_keep(exchange).map_err(Uncacheable)
}

/// The same for a stored response that was confirmed, which HEAD can do too.
pub(super) fn may_keep(exchange: &Exchange<'_>) -> Result<Storable, Reason> {
    let Exchange { request, request_text, response, response_text, .. } = *exchange;
    let status = response.status();
    if !request.body().is_empty() {
        return Err(Reason::RequestContent);
    }
    if RequestControl::of(request, request_text).no_store {
        return Err(Reason::RequestNoStore);
    }
    judge_status(status)?;
    if response.present().has(Known::ContentRange) {
        return Err(Reason::ContentRange);
    }
    let control = ResponseControl::of(response, response_text);
    if control.must_understand && !is_understood(status) {
        return Err(Reason::StatusUnknown);
    }
    // §5.2.2.3: to who understands the status, must-understand lifts no-store.
    if control.no_store && !control.must_understand {
        return Err(Reason::NoStore);
    }
    if control.private {
        return Err(Reason::Private);
    }
    // §3.5
    let is_shared = control.public || control.s_maxage.is_some();
    if request.present().has(Known::Authorization) && !is_shared && !control.must_revalidate {
        return Err(Reason::Authorization);
    }
    let keeps_cookie = response.present().has(Known::SetCookie)
        && !(control.withholds_fields && withholds(response, response_text, b"set-cookie"));
    if keeps_cookie && !is_shared {
        return Err(Reason::SetCookie);
    }
    vary::judge(response, response_text)?;
    let dating = Dating::of(exchange);
    let lifetime = lifetime(&control, response, response_text, &dating);
    if !lifetime.basis.is_explicit() && !control.public && !is_heuristically_cacheable(status) {
        return Err(Reason::NoLifetime);
    }
    let storable = Storable { control, lifetime, dating };
    if is_reusable(exchange, &storable) { Ok(storable) } else { Err(Reason::NotReusable) }
}

fn judge_status(status: u16) -> Result<(), Reason> {
    match status {
        100..=199 => Err(Reason::Interim),
        206 => Err(Reason::Partial),
        304 => Err(Reason::NotModified),
        // RFC 6585 forbids 428, 429, 431 and 511 outright. The others answer a precondition, a range, an expectation,
        // credentials or a connection that the next request does not have.
        407 | 408 | 412 | 416 | 417 | 421 | 425 | 426 | 428 | 429 | 431 | 511 => Err(Reason::StatusForbids),
        _ => Ok(()),
    }
}

/// The final statuses of RFC 9110 whose caching is known here, for `must-understand` (RFC 9111 §5.2.2.3).
#[must_use]
pub const fn is_understood(status: u16) -> bool {
    matches!(status, 200..=205 | 300..=303 | 305 | 307 | 308 | 400..=406 | 409..=411 | 413..=415 | 422 | 451 | 500..=505)
}

/// Fresh now, or of use when stale, or can be validated.
fn is_reusable(exchange: &Exchange<'_>, storable: &Storable) -> bool {
    const VALIDATORS: FieldSet = FieldSet::of(&[Known::Etag, Known::LastModified]);
    let terms = storable.terms();
    let is_fresh = terms.at(exchange.response_time).is_fresh();
    let stale_s = terms.stale_while_revalidate_s.max(terms.stale_if_error_s.unwrap_or(0));
    let serves = is_fresh || (stale_s > 0 && !terms.forbids_stale());
    (serves && !terms.no_cache) || exchange.response.present().meets(VALIDATORS)
}

#[cfg(test)]
#[path = "store/tests.rs"]
mod tests;

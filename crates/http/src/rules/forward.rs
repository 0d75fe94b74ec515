//! Heads as they are passed on (RFC 9110 §7.6).
//!
//! A head that was parsed holds only lines that mean what they say, so lines that stay are copied as they came, in runs:
//! no field is taken apart that nobody changes. What goes is decided by one bit test a line. What is ours is written
//! anew, once: start line, `Host`, framing, `Connection`, `Via`, the client's address, `Date`.
//!
//! [`write_origin_request`] and [`write_client_response`] are all there is; both want a head that parsed.

use super::caching::CacheStatus;
use super::forwarded::{self, ClientAddress, ForwardedFields};
use super::framing::Framing;
use super::hop;
use super::sink::{Decimal, HeadSink};
use crate::wire::Body;
use crate::wire::field::{FieldSet, Known};
use crate::wire::h1::{Fields, RequestHead, ResponseHead, TargetForm, Version};
use crate::wire::list;
use crate::wire::method::Method;

/// Which `Host` the origin sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostRule<'a> {
    /// The one the client asked for; where it named none, this one.
    Preserve {
        /// The origin's own authority.
        fallback: &'a str,
    },
    /// This one, whatever the client asked for.
    Override(&'a str),
}

/// What becomes of `Expect: 100-continue`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExpectRule {
    /// The origin is asked, and its 100 is passed on.
    Forward,
    /// We have answered it, or the content is here already.
    Drop,
}

/// What writing a request needs to know beside the request.
#[derive(Clone, Copy, Debug)]
pub struct OriginContext<'a> {
    /// Our pseudonym in `Via`.
    pub via: &'a str,
    /// Who asked.
    pub client: &'a ClientAddress,
    /// `http` or `https`: how the client asked.
    pub scheme: &'a str,
    /// How the origin is told of the client.
    pub forwarded: ForwardedFields,
    /// So many bytes of the path are replaced...
    pub path_strip: usize,
    /// ...by these. Starts with `/` unless it is empty.
    pub path_prefix: &'a str,
    /// Which `Host` to send.
    pub host: HostRule<'a>,
    /// How the content goes on; [`Body::UntilClose`] is not possible and counts as chunked.
    pub body: Body,
    /// What to do with an expectation.
    pub expect: ExpectRule,
    /// Trailers will be forwarded, so a `Trailer` field is too.
    pub trailers: bool,
    /// Ask the origin to close.
    pub close: bool,
    /// Fields that are left out besides.
    pub drop: FieldSet,
    /// Whole lines of ours, each with its line end.
    pub extra: &'a [u8],
}

/// Writes the head for the origin, always as HTTP/1.1 in origin form (or `*`). The caller has answered CONNECT, and
/// TRACE or OPTIONS with [`MaxForwards::AnswerHere`].
pub fn write_origin_request(sink: &mut impl HeadSink, head: &RequestHead, buf: &[u8], context: &OriginContext<'_>) {
    sink.reserve(head.head_len() + ROOM);
    put_request_line(sink, head, buf, context);
    let host = match context.host {
        HostRule::Preserve { fallback } if head.authority(buf).is_empty() => fallback.as_bytes(),
        HostRule::Preserve { .. } => head.authority(buf),
        HostRule::Override(host) => host.as_bytes(),
    };
    sink.put(host);
    sink.put(b"\r\n");

    let fields = head.lines();
    let mut drop = REQUEST_DROPS.union(context.drop);
    let counted = match max_forwards(head, buf) {
        MaxForwards::Forward(n) => {
            drop = drop.with(Known::MaxForwards);
            Some(n)
        }
        MaxForwards::Unlimited | MaxForwards::AnswerHere => None,
    };
    if context.expect == ExpectRule::Drop || head.version() == Version::Http10 {
        drop = drop.with(Known::Expect);
    }
    if !(context.trailers && context.body == Body::Chunked) {
        drop = drop.with(Known::Trailer);
    }
    if context.forwarded.x_forwarded_for() {
        drop = drop.with(Known::XForwardedFor);
    }
    if context.forwarded.forwarded() {
        drop = drop.with(Known::Forwarded);
    }
    put_lines(sink, fields, buf, drop);

    put_framing(sink, context.body);
    if let Some(n) = counted {
        sink.put(b"Max-Forwards: ");
        sink.put(Decimal::new(n).as_bytes());
        sink.put(b"\r\n");
    }
    put_via(sink, fields, buf, head.version(), context.via);
    if context.forwarded.x_forwarded_for() {
        sink.put(b"X-Forwarded-For: ");
        put_list(sink, fields, buf, Known::XForwardedFor);
        sink.put(context.client.as_bytes());
        sink.put(b"\r\n");
    }
    if context.forwarded.forwarded() {
        sink.put(b"Forwarded: ");
        put_list(sink, fields, buf, Known::Forwarded);
        forwarded::put_forwarded(sink, context.client, head.authority(buf), context.scheme);
        sink.put(b"\r\n");
    }
    sink.put(context.extra);
    sink.put(if context.close { b"Connection: close\r\n\r\n" } else { b"\r\n" });
}

/// What `Connection` says to the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionField {
    /// Nothing: an HTTP/1.1 connection that goes on, or an interim response.
    Absent,
    /// `close`: this was the last response.
    Close,
    /// `keep-alive`: an HTTP/1.0 client that asked for it.
    KeepAlive,
}

impl ConnectionField {
    /// What to say to a client of this version when the connection is kept, or is not.
    #[inline]
    #[must_use]
    pub const fn of(client: Version, keep_alive: bool) -> Self {
        match (client, keep_alive) {
            (_, false) => Self::Close,
            (Version::Http10, true) => Self::KeepAlive,
            (Version::Http11, true) => Self::Absent,
        }
    }

    /// The whole line, or nothing.
    #[inline]
    #[must_use]
    pub const fn line(self) -> &'static [u8] {
        match self {
            Self::Absent => b"",
            Self::Close => b"Connection: close\r\n",
            Self::KeepAlive => b"Connection: keep-alive\r\n",
        }
    }
}

/// What writing a response needs to know beside the response.
#[derive(Clone, Copy, Debug)]
pub struct ClientContext<'a> {
    /// Our pseudonym in `Via`.
    pub via: &'a str,
    /// How the content goes on: see [`super::framing::frame_response`].
    pub framing: Framing,
    /// What to say of the connection.
    pub connection: ConnectionField,
    /// The time now as an IMF-fixdate, for a response that has none (RFC 9110 §6.6.1).
    pub date: &'a [u8],
    /// Trailers will be forwarded, so a `Trailer` field is too.
    pub trailers: bool,
    /// Our member of `Cache-Status`; `None` writes none.
    pub status: Option<CacheStatus<'a>>,
}

/// Writes the head for the client, always as HTTP/1.1 (RFC 9110 §6.2: the version is ours). Interim responses go through
/// here too, with [`Framing::None`] and [`ConnectionField::Absent`]; to HTTP/1.0 clients they are not sent at all.
pub fn write_client_response(sink: &mut impl HeadSink, head: &ResponseHead, buf: &[u8], context: &ClientContext<'_>) {
    sink.reserve(head.head_len() + ROOM);
    sink.put(b"HTTP/1.1 ");
    sink.put(buf.get(9..12).unwrap_or_default());
    sink.put(b" ");
    sink.put(head.reason(buf));
    sink.put(b"\r\n");

    let fields = head.lines();
    let mut drop = RESPONSE_DROPS;
    if !(context.trailers && context.framing == Framing::Chunked) {
        drop = drop.with(Known::Trailer);
    }
    put_lines(sink, fields, buf, drop);

    match context.framing {
        Framing::Length(len) => put_framing(sink, Body::Length(len)),
        Framing::Chunked => put_framing(sink, Body::Chunked),
        Framing::UntilClose => {}
        // RFC 9110 §8.6: a length is lawful in answers to HEAD and in 304, not in 1xx and 204.
        Framing::None if head.is_interim() || head.status() == 204 => {}
        Framing::None => {
            if let Some(len) = head.content_length() {
                put_framing(sink, Body::Length(len));
            }
        }
    }
    if !fields.present().has(Known::Date) && !head.is_interim() {
        sink.put(b"Date: ");
        sink.put(context.date);
        sink.put(b"\r\n");
    }
    put_via(sink, fields, buf, head.version(), context.via);
    if let Some(status) = &context.status {
        status.put_line(sink);
    }
    sink.put(context.connection.line());
    sink.put(b"\r\n");
}

/// What `Max-Forwards` wants (RFC 9110 §7.6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MaxForwards {
    /// Not there, no number, or a method for which it has no meaning: forwarded as it is.
    Unlimited,
    /// Zero: we are the last recipient, and answer ourselves.
    AnswerHere,
    /// The number to send on, one less than was received.
    Forward(u64),
}

/// Looks at `Max-Forwards` of TRACE and OPTIONS. Several such fields count as none.
#[must_use]
pub fn max_forwards(head: &RequestHead, buf: &[u8]) -> MaxForwards {
    if !matches!(head.method(), Method::Trace | Method::Options) {
        return MaxForwards::Unlimited;
    }
    let mut values = head.find(Known::MaxForwards, buf);
    match (values.next().and_then(list::decimal), values.next()) {
        (Some(0), None) => MaxForwards::AnswerHere,
        (Some(n), None) => MaxForwards::Forward(n - 1),
        _ => MaxForwards::Unlimited,
    }
}

/// What we add to a head is below this, but for long lists of earlier proxies.
const ROOM: usize = 320;

/// Written anew, or not at all.
const REQUEST_DROPS: FieldSet = hop::HOP_BY_HOP.union(FieldSet::of(&[Known::Host, Known::ContentLength, Known::Via]));
const RESPONSE_DROPS: FieldSet = hop::HOP_BY_HOP.union(FieldSet::of(&[Known::ContentLength, Known::Via]));

fn put_request_line(sink: &mut impl HeadSink, head: &RequestHead, buf: &[u8], context: &OriginContext<'_>) {
    sink.put(head.method_bytes(buf));
    sink.put(b" ");
    let path = head.path_and_query(buf);
    if head.target_form() == TargetForm::Asterisk || path == b"*" {
        sink.put(b"*");
    } else {
        sink.put(context.path_prefix.as_bytes());
        let rest = path.get(context.path_strip..).unwrap_or_default();
        if context.path_prefix.is_empty() && rest.first() != Some(&b'/') {
            sink.put(b"/");
        }
        sink.put(rest);
    }
    sink.put(b" HTTP/1.1\r\nHost: ");
}

/// Copies all lines but those whose names are in `drop` or in `Connection`.
fn put_lines(sink: &mut impl HeadSink, fields: &Fields, buf: &[u8], drop: FieldSet) {
    let (start, end) = fields.extent();
    let nominates = fields.nominates();
    if !nominates && !fields.present().meets(drop) {
        sink.put(buf.get(start..end).unwrap_or_default());
        return;
    }
    // `kept` is where the run of lines that stay began; `None` while lines go.
    let mut kept = None;
    for (at, field) in fields.lines(buf) {
        let goes = drop.has(field.known) || (nominates && hop::is_nominated(fields, buf, field.known, field.name));
        match (kept, goes) {
            (None, false) => kept = Some(at),
            (Some(from), true) => {
                sink.put(buf.get(from..at).unwrap_or_default());
                kept = None;
            }
            (None, true) | (Some(_), false) => {}
        }
    }
    if let Some(from) = kept {
        sink.put(buf.get(from..end).unwrap_or_default());
    }
}

fn put_framing(sink: &mut impl HeadSink, body: Body) {
    match body {
        Body::None => {}
        Body::Length(len) => {
            sink.put(b"Content-Length: ");
            sink.put(Decimal::new(len).as_bytes());
            sink.put(b"\r\n");
        }
        Body::Chunked | Body::UntilClose => sink.put(b"Transfer-Encoding: chunked\r\n"),
    }
}

/// `Via` with all earlier entries in one line, and us at its end.
fn put_via(sink: &mut impl HeadSink, fields: &Fields, buf: &[u8], received: Version, pseudonym: &str) {
    sink.put(b"Via: ");
    put_list(sink, fields, buf, Known::Via);
    sink.put(match received {
        Version::Http10 => b"1.0 ",
        Version::Http11 => b"1.1 ",
    });
    sink.put(pseudonym.as_bytes());
    sink.put(b"\r\n");
}

/// The values of all lines of a list field, each with a comma behind it (RFC 9110 §5.3 joins them so).
#[inline]
fn put_list(sink: &mut impl HeadSink, fields: &Fields, buf: &[u8], known: Known) {
    for value in fields.find(known, buf).filter(|value| !value.is_empty()) {
        sink.put(value);
        sink.put(b", ");
    }
}

#[cfg(test)]
mod tests;

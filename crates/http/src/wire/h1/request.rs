//! The head of a request.

use std::mem::MaybeUninit;

use super::super::body::Body;
use super::super::field::{Field, FieldSet, Known};
use super::super::method::Method;
use super::arrival::{self, Arrival};
use super::target::Target;
use super::{
    Fields, HEAD_FIELDS_MAX, HeadError, Limits, METHOD_LEN_MAX, Reason, Scheme, Span, Status, TargetForm, Version,
    authority, diagnose,
};

/// A request head, as offsets into the buffer it was parsed in. Made once and used for one head after the other.
///
/// Call [`parse`](Self::parse) with all bytes received so far, from the same start, until it says
/// [`Status::Complete`]; then ask. Accessors that take `buf` want those same bytes (more may follow behind them).
/// Before the next request, [`clear`](Self::clear) and drop [`head_len`](Self::head_len) bytes, then the content's.
#[derive(Debug)]
pub struct RequestHead {
    fields: Fields,
    target: Target,
    method: Method,
    method_span: Span,
    version: Version,
    body: Body,
    head_len: usize,
    arrival: Arrival,
}

impl Default for RequestHead {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestHead {
    /// An empty head; allocates nothing until the first parse.
    #[must_use]
    pub fn new() -> Self {
        Self {
            fields: Fields::default(),
            target: Target::NONE,
            method: Method::Other,
            method_span: Span::default(),
            version: Version::Http11,
            body: Body::None,
            head_len: 0,
            arrival: Arrival::default(),
        }
    }

    /// Forgets what was seen of an incomplete head, so that the next call of `parse` starts anew. Keeps its memory.
    pub fn clear(&mut self) {
        self.arrival = Arrival::default();
        self.head_len = 0;
    }

    /// Reads the head at the start of `buf`.
    ///
    /// # Errors
    /// What is wrong, and the status that says so. Nothing of the request may be forwarded then, and the connection
    /// is closed behind the answer.
    pub fn parse(&mut self, buf: &[u8], limits: &Limits) -> Result<Status, HeadError> {
        match self.read(buf, limits) {
            Ok(Status::Complete) => {
                self.arrival = Arrival::default();
                Ok(Status::Complete)
            }
            Ok(Status::Partial) => Ok(Status::Partial),
            Err(reason) => {
                self.clear();
                Err(reason.into())
            }
        }
    }

    #[inline]
    fn read(&mut self, buf: &[u8], limits: &Limits) -> Result<Status, Reason> {
        let Some(start) = arrival::empty_lines(buf)? else { return Ok(Status::Partial) };
        let size_max = arrival::size_max(limits.head_size);
        let window = &buf[..buf.len().min(start + size_max)];
        let head = &window[start..];
        if !self.arrival.is_worth_it(head) {
            return if head.len() < size_max { Ok(Status::Partial) } else { Err(arrival::too_large(head, size_max)) };
        }
        let mut table = [const { MaybeUninit::uninit() }; HEAD_FIELDS_MAX];
        let mut request = httparse::Request::new(&mut []);
        let tokens = request.parse_with_uninit_headers(head, &mut table[..limits.head_fields.min(HEAD_FIELDS_MAX)]);
        let len = match tokens {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => {
                self.arrival.partial(head, size_max)?;
                return Ok(Status::Partial);
            }
            Err(httparse::Error::TooManyHeaders) => return Err(Reason::TooManyFields),
            Err(_) => {
                self.arrival.refused(head, size_max, diagnose::request(head))?;
                return Ok(Status::Partial);
            }
        };
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
            return Err(Reason::Malformed);
        };
        self.head_len = start + len;
        self.fields.load(window, self.head_len, request.headers).map_err(|reason| match reason {
            Reason::BareLf => diagnose::request(head).unwrap_or(Reason::BareLf),
            other => other,
        })?;
        if method.len() > METHOD_LEN_MAX {
            return Err(Reason::MethodTooLong);
        }
        self.method_span = Span::within(window, method.as_bytes());
        self.method = Method::of(method.as_bytes());
        self.version = if minor == 0 { Version::Http10 } else { Version::Http11 };
        self.target = Target::judge(target.as_bytes(), Span::within(window, target.as_bytes()), self.method)?;
        self.judge_host(window)?;
        self.judge_content()?;
        Ok(Status::Complete)
    }

    /// RFC 9112 §3.2: one `Host` and a lawful one, in HTTP/1.0 at most one. It may be empty where it is not used: when
    /// the target names the authority itself, and with `*`.
    #[inline]
    fn judge_host(&self, buf: &[u8]) -> Result<(), Reason> {
        let facts = &self.fields.facts;
        match facts.hosts {
            0 if self.version == Version::Http10 => Ok(()),
            0 => Err(Reason::NoHost),
            1 if facts.host.len == 0 && self.target.form != TargetForm::Origin => Ok(()),
            1 if authority::is_authority(facts.host.of(buf)) => Ok(()),
            1 => Err(Reason::BadHost),
            _ => Err(Reason::RepeatedHost),
        }
    }

    #[inline]
    fn judge_content(&mut self) -> Result<(), Reason> {
        let facts = &self.fields.facts;
        self.body =
            if facts.is_chunked(self.version)? { Body::Chunked } else { facts.length.map_or(Body::None, Body::Length) };
        if matches!(self.method, Method::Trace | Method::Connect) && !self.body.is_empty() {
            return Err(Reason::ContentNotAllowed);
        }
        // RFC 9110 §10.1.1: an expectation in HTTP/1.0 is ignored.
        if facts.expects_other && self.version == Version::Http11 {
            return Err(Reason::UnknownExpectation);
        }
        Ok(())
    }

    /// The method, by name.
    #[inline]
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// The method's bytes.
    #[inline]
    #[must_use]
    pub fn method_bytes<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        self.method_span.of(buf)
    }

    /// The version of the request line.
    #[inline]
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The form of the target.
    #[inline]
    #[must_use]
    pub fn target_form(&self) -> TargetForm {
        self.target.form
    }

    /// The target as it was sent, for the log.
    #[inline]
    #[must_use]
    pub fn target<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        self.target.whole.of(buf)
    }

    /// Path and query. `/` where an absolute target has none, but see there: with OPTIONS that means `*`, and is so
    /// returned (RFC 9112 §3.2.4). Starts with `?` when an absolute target has a query and no path. Empty with CONNECT.
    #[inline]
    #[must_use]
    pub fn path_and_query<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        match self.target.path_and_query.of(buf) {
            [] if self.target.form != TargetForm::Absolute => &[],
            [] if self.method == Method::Options => b"*",
            [] => b"/",
            path => path,
        }
    }

    /// Who is asked: the authority of the target, else that of `Host` (RFC 9112 §3.2.2). Empty when nobody is named,
    /// which only HTTP/1.0 and `OPTIONS *` may.
    #[inline]
    #[must_use]
    pub fn authority<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        match self.target.form {
            TargetForm::Absolute | TargetForm::Authority => self.target.authority.of(buf),
            TargetForm::Origin | TargetForm::Asterisk => self.fields.facts.host.of(buf),
        }
    }

    /// The scheme of an absolute target.
    #[inline]
    #[must_use]
    pub fn scheme(&self) -> Option<Scheme> {
        self.target.scheme
    }

    /// Bytes of the head in the buffer, with the empty lines in front of it and the one that ends it.
    #[inline]
    #[must_use]
    pub fn head_len(&self) -> usize {
        self.head_len
    }

    /// How the content is framed. Never [`Body::UntilClose`].
    #[inline]
    #[must_use]
    pub fn body(&self) -> Body {
        self.body
    }

    /// May the connection serve another request, as far as the client is concerned? In HTTP/1.0 only when it asked
    /// for that; a forward proxy must close even then (RFC 9112 §9.3), a gateway need not.
    #[inline]
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.fields.facts.persists(self.version)
    }

    /// Does the client wait for 100 before it sends content? Never true without content or in HTTP/1.0.
    #[inline]
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.fields.facts.expects_continue && self.version == Version::Http11 && !self.body.is_empty()
    }

    /// The names that occur.
    #[inline]
    #[must_use]
    pub fn present(&self) -> FieldSet {
        self.fields.present()
    }

    /// How many field lines there are.
    #[must_use]
    pub fn field_count(&self) -> usize {
        self.fields.count()
    }

    /// All fields, in order.
    #[inline]
    pub fn fields<'a>(&'a self, buf: &'a [u8]) -> impl Iterator<Item = Field<'a>> {
        self.fields.iter(buf)
    }

    /// The values of all lines of one name, in order.
    #[inline]
    pub fn find<'a>(&'a self, known: Known, buf: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.fields.find(known, buf)
    }

    #[inline]
    pub(crate) fn lines(&self) -> &Fields {
        &self.fields
    }
}

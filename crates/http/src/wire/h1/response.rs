//! The head of an origin's response. The origin is not trusted more than the client.

use std::mem::MaybeUninit;

use super::super::body::Body;
use super::super::field::{Field, FieldSet, Known};
use super::super::method::Method;
use super::arrival::{self, Arrival};
use super::{Fields, HEAD_FIELDS_MAX, Limits, Reason, ResponseError, Span, Status, Version, diagnose, narrow};

/// A response head, as offsets into the buffer it was parsed in. Used like [`super::RequestHead`].
#[derive(Debug)]
pub struct ResponseHead {
    fields: Fields,
    status: u16,
    version: Version,
    reason: Span,
    body: Body,
    head_len: usize,
    arrival: Arrival,
}

impl Default for ResponseHead {
    fn default() -> Self {
        Self::new()
    }
}

impl ResponseHead {
    /// An empty head; allocates nothing until the first parse.
    #[must_use]
    pub fn new() -> Self {
        Self {
            fields: Fields::default(),
            status: 0,
            version: Version::Http11,
            reason: Span::default(),
            body: Body::None,
            head_len: 0,
            arrival: Arrival::default(),
        }
    }

    /// Forgets what was seen of an incomplete head. Keeps its memory.
    pub fn clear(&mut self) {
        self.arrival = Arrival::default();
        self.head_len = 0;
    }

    /// Reads the head at the start of `buf`: the answer to a request of this method.
    ///
    /// Interim responses (1xx) come out like others; parse again behind them for the final one.
    ///
    /// # Errors
    /// What is wrong. The client gets 502, and the connection to the origin is closed.
    pub fn parse(&mut self, buf: &[u8], limits: &Limits, method: Method) -> Result<Status, ResponseError> {
        match self.read(buf, limits, method) {
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
    fn read(&mut self, buf: &[u8], limits: &Limits, method: Method) -> Result<Status, Reason> {
        match buf.first() {
            Some(b'H') => {}
            Some(_) => return Err(Reason::BadStatusLine),
            None => return Ok(Status::Partial),
        }
        let size_max = arrival::size_max(limits.head_size);
        let head = &buf[..buf.len().min(size_max)];
        if !self.arrival.is_worth_it(head) {
            return if head.len() < size_max { Ok(Status::Partial) } else { Err(too_large(head)) };
        }
        let mut table = [const { MaybeUninit::uninit() }; HEAD_FIELDS_MAX];
        let mut response = httparse::Response::new(&mut []);
        let tokens = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            head,
            &mut table[..limits.head_fields.min(HEAD_FIELDS_MAX)],
        );
        let len = match tokens {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => {
                self.arrival.partial(head, size_max).map_err(|_| too_large(head))?;
                return Ok(Status::Partial);
            }
            Err(httparse::Error::TooManyHeaders) => return Err(Reason::TooManyFields),
            Err(_) => {
                let fault = diagnose::response(head);
                self.arrival.refused(head, size_max, fault).map_err(|reason| fault.unwrap_or(reason))?;
                return Ok(Status::Partial);
            }
        };
        let (Some(status), Some(minor)) = (response.code, response.version) else { return Err(Reason::Malformed) };
        self.fields.load(head, len, response.headers).map_err(|reason| match reason {
            Reason::BareLf => diagnose::response(head).unwrap_or(Reason::BareLf),
            other => other,
        })?;
        // `HTTP/1.x NNN` are twelve bytes, then one space and the reason, up to the line end.
        let line_end = if response.headers.is_empty() { len - 4 } else { self.fields.extent().0 - 2 };
        self.reason = Span { start: 13, len: narrow(line_end.saturating_sub(13)) };
        if status < 100 {
            return Err(Reason::BadStatusLine);
        }
        if status == 101 {
            // We take `Upgrade` out of every request, so nobody asked.
            return Err(Reason::UnexpectedUpgrade);
        }
        self.status = status;
        self.version = if minor == 0 { Version::Http10 } else { Version::Http11 };
        self.head_len = len;
        self.body = self.judge_content(method)?;
        Ok(Status::Complete)
    }

    /// RFC 9112 §6.3. Framing fields are judged even where there is no content: a head with two lengths would make the
    /// next recipient guess.
    fn judge_content(&self, method: Method) -> Result<Body, Reason> {
        let facts = &self.fields.facts;
        let chunked = facts.is_chunked(self.version)?;
        Ok(match self.status {
            100..=199 | 204 | 304 => Body::None,
            _ if method == Method::Head => Body::None,
            200..=299 if method == Method::Connect => Body::None,
            _ if chunked => Body::Chunked,
            _ => facts.length.map_or(Body::UntilClose, Body::Length),
        })
    }

    /// The status code: 100 to 999, but not 101. Codes from 600 up have no meaning and are forwarded.
    #[inline]
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase. May be empty, may hold bytes above 0x7f.
    #[inline]
    #[must_use]
    pub fn reason<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        self.reason.of(buf)
    }

    /// The version of the status line.
    #[inline]
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Is the final response still to come (1xx)?
    #[inline]
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status < 200
    }

    /// Bytes of the head, with the empty line that ends it.
    #[inline]
    #[must_use]
    pub fn head_len(&self) -> usize {
        self.head_len
    }

    /// How the content is framed.
    #[inline]
    #[must_use]
    pub fn body(&self) -> Body {
        self.body
    }

    /// What `Content-Length` said, also where there is no content: the size that GET would have had.
    #[inline]
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.fields.facts.length
    }

    /// May the origin connection be used again behind this response and its content?
    #[inline]
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.body != Body::UntilClose && self.fields.facts.persists(self.version)
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

/// A status line has no method and no target: two kinds are left.
#[cold]
fn too_large(head: &[u8]) -> Reason {
    if memchr::memchr(b'\n', head).is_some() { Reason::HeadTooLarge } else { Reason::LineTooLarge }
}

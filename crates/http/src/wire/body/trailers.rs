//! Trailers: field lines behind the last chunk (RFC 9112 §7.1.2), kept because they are the only part of a body that
//! must be understood as a whole.

use super::super::field::{Field, FieldSet, Known};
use super::super::h1::{self, Limits, Reason};
use super::BodyError;

/// Whatever the head may have, trailers are no more than this.
const TRAILERS_SIZE_MAX: usize = 8 * 1024;
const TRAILERS_COUNT_MAX: usize = 64;

/// Fields that change where a message ends or goes. As trailers they are an attack.
const FORBIDDEN: FieldSet = FieldSet::of(&[
    Known::ContentLength,
    Known::TransferEncoding,
    Known::Host,
    Known::Connection,
    Known::Trailer,
    Known::Te,
    Known::Upgrade,
    Known::Expect,
    Known::MaxForwards,
]);
/// Fields that may not be trailers (RFC 9110 §6.5.1) but do no harm when they are dropped.
const DROPPED: FieldSet = FieldSet::of(&[
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::ProxyAuthenticate,
    Known::ProxyAuthorization,
    Known::Authorization,
    Known::Cookie,
    Known::SetCookie,
    Known::CacheControl,
    Known::ContentEncoding,
    Known::ContentType,
    Known::ContentRange,
    Known::Range,
    Known::Via,
    Known::Forwarded,
    Known::XForwardedFor,
]);

/// The raw lines, then what they mean. Allocates only when there is a trailer.
#[derive(Default, Debug)]
pub(super) struct Trailers {
    raw: Vec<u8>,
    size_max: u16,
    count_max: u8,
}

impl Trailers {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            raw: Vec::new(),
            size_max: u16::try_from(limits.head_size.min(TRAILERS_SIZE_MAX)).unwrap_or(u16::MAX),
            count_max: u8::try_from(limits.head_fields.min(TRAILERS_COUNT_MAX)).unwrap_or(u8::MAX),
        }
    }

    /// Takes bytes of the trailer section, up to the empty line that ends it: how many, and whether it has ended.
    pub(super) fn take(&mut self, input: &[u8]) -> Result<(usize, bool), BodyError> {
        // Most bodies have no trailers.
        if self.raw.is_empty() && input.starts_with(b"\r\n") {
            return Ok((2, true));
        }
        for (at, &b) in input.iter().enumerate() {
            if self.raw.len() >= usize::from(self.size_max) {
                return Err(BodyError::TrailersTooLarge);
            }
            let before = self.raw.last().copied();
            if b == b'\n' && before != Some(b'\r') {
                return Err(BodyError::BadTrailers(Reason::BareLf));
            }
            if before == Some(b'\r') && b != b'\n' {
                return Err(BodyError::BadTrailers(Reason::BareCr));
            }
            self.raw.push(b);
            if b == b'\n' && (self.raw.len() == 2 || self.raw.ends_with(b"\r\n\r\n")) {
                self.judge()?;
                return Ok((at + 1, true));
            }
        }
        Ok((input.len(), false))
    }

    fn judge(&self) -> Result<(), BodyError> {
        let mut table = [httparse::EMPTY_HEADER; TRAILERS_COUNT_MAX];
        match httparse::parse_headers(&self.raw, &mut table[..usize::from(self.count_max)]) {
            Ok(httparse::Status::Complete((_, fields))) => {
                let forbidden = |field: &httparse::Header<'_>| FORBIDDEN.has(Known::of(field.name.as_bytes()));
                if fields.iter().any(forbidden) { Err(BodyError::ForbiddenTrailer) } else { Ok(()) }
            }
            Ok(httparse::Status::Partial) => Err(BodyError::BadTrailers(Reason::Malformed)),
            Err(httparse::Error::TooManyHeaders) => Err(BodyError::BadTrailers(Reason::TooManyFields)),
            Err(_) => Err(BodyError::BadTrailers(h1::fault_of_fields(&self.raw).unwrap_or(Reason::Malformed))),
        }
    }

    /// Those that may be forwarded. Every line was judged, so each has its colon.
    pub(super) fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.raw.split(|&b| b == b'\n').filter_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            let name = &line[..colon];
            let known = Known::of(name);
            let value = line[colon + 1..].trim_ascii();
            (!DROPPED.has(known)).then_some(Field { known, name, value })
        })
    }
}

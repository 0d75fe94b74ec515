//! The request target: its form, and the parts of it (RFC 9112 §3.2).

use super::super::method::Method;
use super::{Reason, Span, authority, narrow};

/// The four forms of a request target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetForm {
    /// `/path?query`
    Origin,
    /// `http://authority/path?query`
    Absolute,
    /// `authority`, with CONNECT only.
    Authority,
    /// `*`, with OPTIONS only.
    Asterisk,
}

/// The scheme of an absolute target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// `http` or `https`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port when none is named.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A target taken apart. Spans are relative to the buffer, like all of the head's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) form: TargetForm,
    pub(super) whole: Span,
    /// Empty unless the form is absolute or authority.
    pub(super) authority: Span,
    /// From the first `/` (or `?`) to the end.
    pub(super) path_and_query: Span,
    pub(super) scheme: Option<Scheme>,
}

impl Target {
    pub(super) const NONE: Self = Self {
        form: TargetForm::Origin,
        whole: Span { start: 0, len: 0 },
        authority: Span { start: 0, len: 0 },
        path_and_query: Span { start: 0, len: 0 },
        scheme: None,
    };

    /// Judges `target`, which lies at `whole`. The tokenizer let through all bytes from `!` up, but for DEL.
    #[inline]
    pub(super) fn judge(target: &[u8], whole: Span, method: Method) -> Result<Self, Reason> {
        // A fragment never belongs into a target, and proxies disagree about where the path ends when there is one.
        if target.iter().fold(false, |bad, &b| bad | (b >= 0x80) | (b == b'#')) {
            return Err(Reason::BadTarget);
        }
        let none = Span { start: whole.start, len: 0 };
        match target {
            [b'/', ..] if method != Method::Connect => {
                Ok(Self { form: TargetForm::Origin, whole, authority: none, path_and_query: whole, scheme: None })
            }
            b"*" if method == Method::Options => {
                Ok(Self { form: TargetForm::Asterisk, whole, authority: none, path_and_query: whole, scheme: None })
            }
            [] => Err(Reason::BadRequestLine),
            [b'/' | b'*', ..] => Err(Reason::WrongTargetForm),
            _ if method == Method::Connect => {
                // The port may not be left out here, and not be empty (RFC 9110 §9.3.6).
                let (_, port) = authority::split_port(target);
                if port.is_none_or(<[u8]>::is_empty) || !authority::is_authority(target) {
                    return Err(Reason::WrongTargetForm);
                }
                Ok(Self { form: TargetForm::Authority, whole, authority: whole, path_and_query: none, scheme: None })
            }
            _ => Self::absolute(target, whole),
        }
    }

    #[cold]
    fn absolute(target: &[u8], whole: Span) -> Result<Self, Reason> {
        let Some(colon) = memchr::memmem::find(target, b"://") else { return Err(Reason::WrongTargetForm) };
        let scheme = match &target[..colon] {
            name if name.eq_ignore_ascii_case(b"http") => Scheme::Http,
            name if name.eq_ignore_ascii_case(b"https") => Scheme::Https,
            _ => return Err(Reason::UnknownScheme),
        };
        let start = colon + 3;
        let len = memchr::memchr2(b'/', b'?', &target[start..]).unwrap_or(target.len() - start);
        if !authority::is_authority(&target[start..start + len]) {
            return Err(Reason::BadHost);
        }
        let span = |start: usize, len: usize| Span { start: whole.start + narrow(start), len: narrow(len) };
        Ok(Self {
            form: TargetForm::Absolute,
            whole,
            authority: span(start, len),
            path_and_query: span(start + len, target.len() - start - len),
            scheme: Some(scheme),
        })
    }
}

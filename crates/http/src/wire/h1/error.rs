//! Why a head was refused: one reason for both directions, and the status that says it to a client.

use std::fmt;

/// What is wrong with a head. One value for each mistake, so that it can be counted, logged and tested.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// A line ended in LF alone.
    BareLf,
    /// A CR without LF behind it.
    BareCr,
    /// A field line that starts with whitespace: a continuation as RFC 9112 §5.2 forbids it.
    ObsFold,
    /// Whitespace between field name and colon.
    SpaceBeforeColon,
    /// A field line without a colon.
    NoColon,
    /// A byte in a field name that is no `tchar`, or no name at all.
    BadFieldName,
    /// A control byte in a field value.
    BadFieldValue,
    /// More empty lines in front of a request than are tolerated.
    TooManyEmptyLines,
    /// The method is not a token.
    BadMethod,
    /// The method is longer than any there is.
    MethodTooLong,
    /// A control byte, a byte above 0x7e or a fragment in the target.
    BadTarget,
    /// Whitespace within the target.
    SpaceInTarget,
    /// The form of the target does not fit the method (RFC 9112 §3.2).
    WrongTargetForm,
    /// An absolute target of a scheme that is neither `http` nor `https`.
    UnknownScheme,
    /// No single space between the parts of the first line, or something is missing.
    BadRequestLine,
    /// A request line without a version: HTTP/0.9.
    NoVersion,
    /// The third word is no version.
    BadVersion,
    /// A version that is not spoken here.
    UnknownVersion,
    /// A status line that is not `HTTP/1.x NNN reason`.
    BadStatusLine,
    /// The first line alone is larger than a head may be.
    LineTooLarge,
    /// The head is larger than allowed.
    HeadTooLarge,
    /// More field lines than allowed.
    TooManyFields,
    /// HTTP/1.1 without `Host`.
    NoHost,
    /// More than one `Host`.
    RepeatedHost,
    /// A `Host`, or the authority of an absolute target, that is no authority.
    BadHost,
    /// A `Content-Length` that is not one decimal number below 2^63.
    BadContentLength,
    /// More than one `Content-Length`, equal or not.
    RepeatedContentLength,
    /// `Content-Length` beside `Transfer-Encoding`.
    LengthAndTransferEncoding,
    /// `Transfer-Encoding` in a message of HTTP/1.0.
    TransferEncodingInHttp10,
    /// `Transfer-Encoding` that is no list of codings, or has parameters.
    BadTransferEncoding,
    /// A transfer coding other than `chunked`.
    UnknownTransferCoding,
    /// `chunked` is not the last coding, or not the only `chunked`.
    ChunkedNotFinal,
    /// Content with a method that has none (TRACE, CONNECT).
    ContentNotAllowed,
    /// More connection options than are looked at.
    TooManyConnectionOptions,
    /// An `Expect` other than `100-continue`.
    UnknownExpectation,
    /// A 101 nobody asked for.
    UnexpectedUpgrade,
    /// Refused by the tokenizer, for a reason that has no name yet.
    Malformed,
}

impl Reason {
    /// The status for a client whose request has this fault.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::LineTooLarge => 414,
            Self::UnknownExpectation => 417,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::MethodTooLong | Self::UnknownTransferCoding => 501,
            Self::UnknownVersion => 505,
            _ => 400,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BareLf => "a line ends in LF without CR",
            Self::BareCr => "a CR is not followed by LF",
            Self::ObsFold => "a field line starts with whitespace",
            Self::SpaceBeforeColon => "whitespace between a field name and its colon",
            Self::NoColon => "a field line has no colon",
            Self::BadFieldName => "a field name holds a byte that names may not hold",
            Self::BadFieldValue => "a field value holds a control byte",
            Self::TooManyEmptyLines => "too many empty lines before the request",
            Self::BadMethod => "the method is not a token",
            Self::MethodTooLong => "the method is too long",
            Self::BadTarget => "the request target holds a byte that targets may not hold",
            Self::SpaceInTarget => "whitespace in the request target",
            Self::WrongTargetForm => "the form of the request target does not fit the method",
            Self::UnknownScheme => "the scheme of the request target is neither http nor https",
            Self::BadRequestLine => "the request line is not three words with one space between them",
            Self::NoVersion => "the request line has no version",
            Self::BadVersion => "the version is malformed",
            Self::UnknownVersion => "the version is neither HTTP/1.0 nor HTTP/1.1",
            Self::BadStatusLine => "the status line is malformed",
            Self::LineTooLarge => "the first line is too large",
            Self::HeadTooLarge => "the head is too large",
            Self::TooManyFields => "too many field lines",
            Self::NoHost => "no Host field",
            Self::RepeatedHost => "more than one Host field",
            Self::BadHost => "the host is malformed",
            Self::BadContentLength => "the Content-Length is not a number, or too large",
            Self::RepeatedContentLength => "more than one Content-Length",
            Self::LengthAndTransferEncoding => "both Content-Length and Transfer-Encoding",
            Self::TransferEncodingInHttp10 => "Transfer-Encoding in HTTP/1.0",
            Self::BadTransferEncoding => "the Transfer-Encoding is malformed",
            Self::UnknownTransferCoding => "a transfer coding other than chunked",
            Self::ChunkedNotFinal => "chunked is not the one and last transfer coding",
            Self::ContentNotAllowed => "content with a method that has none",
            Self::TooManyConnectionOptions => "too many connection options",
            Self::UnknownExpectation => "an expectation other than 100-continue",
            Self::UnexpectedUpgrade => "a change of protocol that was not asked for",
            Self::Malformed => "the head is malformed",
        })
    }
}

/// A request head that is answered with an error and never forwarded. The connection is closed behind it: where
/// the next request would start is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct HeadError {
    /// 400, 414, 417, 431, 501 or 505.
    pub status: u16,
    /// What is wrong.
    pub reason: Reason,
}

impl From<Reason> for HeadError {
    fn from(reason: Reason) -> Self {
        Self { status: reason.status(), reason }
    }
}

/// A response head that no client may see: the answer is 502, and the origin connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the origin's answer was refused: {0}")]
pub struct ResponseError(pub Reason);

impl From<Reason> for ResponseError {
    fn from(reason: Reason) -> Self {
        Self(reason)
    }
}

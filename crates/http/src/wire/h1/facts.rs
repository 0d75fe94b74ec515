//! What the fields of a head say about the message and its connection, gathered while the fields are read.

use super::super::list;
use super::{CONNECTION_OPTIONS_MAX, Reason, Version};

/// A length that fits offsets of files and sums of counters. RFC 9110 §8.6 sets no limit, and asks to beware.
const LENGTH_MAX: u64 = i64::MAX as u64;

/// Framing and connection, still without the knowledge of method or status.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Facts {
    pub(super) length: Option<u64>,
    pub(super) coding: Coding,
    /// `Connection: close` was there.
    pub(super) close: bool,
    /// `Connection: keep-alive` was there.
    pub(super) keep_alive: bool,
    /// `Connection` names a field that is not removed anyway.
    pub(super) nominates: bool,
    options: u8,
    pub(super) hosts: u8,
    pub(super) host: super::Span,
    pub(super) expects_continue: bool,
    pub(super) expects_other: bool,
}

/// What `Transfer-Encoding` said, over all its lines.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Coding {
    #[default]
    None,
    /// `chunked` and nothing else.
    Chunked,
    /// `chunked` behind codings that are not understood.
    UnknownThenChunked,
    /// Codings without `chunked` so far.
    Unknown,
}

impl Facts {
    /// One `Content-Length` line. Lists are refused even when their members agree: RFC 9112 §6.3 allows to, and who
    /// sends one has been sent one.
    pub(super) fn content_length(&mut self, value: &[u8]) -> Result<(), Reason> {
        if self.length.is_some() {
            return Err(Reason::RepeatedContentLength);
        }
        if memchr::memchr(b',', value).is_some() {
            return Err(Reason::RepeatedContentLength);
        }
        self.length = Some(list::decimal(value).filter(|&n| n <= LENGTH_MAX).ok_or(Reason::BadContentLength)?);
        Ok(())
    }

    /// One `Transfer-Encoding` line.
    pub(super) fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Reason> {
        for coding in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
            self.coding = match self.coding {
                _ if !list::is_token(coding) => return Err(Reason::BadTransferEncoding),
                Coding::Chunked | Coding::UnknownThenChunked => return Err(Reason::ChunkedNotFinal),
                Coding::None if coding.eq_ignore_ascii_case(b"chunked") => Coding::Chunked,
                Coding::Unknown if coding.eq_ignore_ascii_case(b"chunked") => Coding::UnknownThenChunked,
                Coding::None | Coding::Unknown => Coding::Unknown,
            };
        }
        Ok(())
    }

    /// One `Connection` line.
    pub(super) fn connection(&mut self, value: &[u8]) -> Result<(), Reason> {
        for option in list::elements(value) {
            self.options += 1;
            if usize::from(self.options) > CONNECTION_OPTIONS_MAX {
                return Err(Reason::TooManyConnectionOptions);
            }
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else {
                self.nominates = true;
            }
        }
        Ok(())
    }

    /// One `Expect` line.
    pub(super) fn expect(&mut self, value: &[u8]) {
        if value.eq_ignore_ascii_case(b"100-continue") {
            self.expects_continue = true;
        } else {
            self.expects_other = true;
        }
    }

    /// Is the framing lawful, method and status aside? Then: is the message chunked?
    pub(super) fn is_chunked(&self, version: Version) -> Result<bool, Reason> {
        match self.coding {
            Coding::None => Ok(false),
            _ if version == Version::Http10 => Err(Reason::TransferEncodingInHttp10),
            _ if self.length.is_some() => Err(Reason::LengthAndTransferEncoding),
            Coding::Chunked => Ok(true),
            Coding::UnknownThenChunked => Err(Reason::UnknownTransferCoding),
            // RFC 9112 §6.3: this is 400, not 501, for the end of the message cannot be known.
            Coding::Unknown => Err(Reason::ChunkedNotFinal),
        }
    }

    /// RFC 9112 §9.3, for a recipient that is willing.
    pub(super) fn persists(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }
}

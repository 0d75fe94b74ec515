//! The chunked coding (RFC 9112 §7.1), one byte at a time where it is framing, one slice at a time where it is content.

use super::super::list;
use super::trailers::Trailers;
use super::{BodyError, Step};

/// Digits of a chunk size; leading zeros count, so that they cannot go on for ever.
const SIZE_DIGITS_MAX: u8 = 16;
/// Credit for extensions: so many bytes of chunk lines may be ahead of what the content allows...
const OVERHEAD_MAX: u32 = 16 * 1024;
/// ...which is this for each chunk, and two bytes for each byte in it. A stream of small chunks stays within.
const OVERHEAD_PER_CHUNK: u32 = 16;

#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    /// Bytes of chunk lines beyond the credit.
    overhead: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Size { size: u64, digits: u8 },
    Extension { size: u64, at: Extension },
    SizeLf { size: u64 },
    Data { rest: u64 },
    DataCr,
    DataLf,
    Trailers,
}

/// Where in `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`.
#[derive(Clone, Copy, Debug)]
enum Extension {
    /// Whitespace in front of a semicolon.
    BeforeSemicolon,
    /// Whitespace in front of a name.
    BeforeName,
    Name,
    /// Whitespace behind a name.
    AfterName,
    /// Whitespace in front of a value.
    BeforeValue,
    Value,
    Quoted,
    QuotedPair,
    AfterQuoted,
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self { state: State::Size { size: 0, digits: 0 }, overhead: 0 }
    }

    /// See [`super::Decoder::expected`].
    pub(super) fn expected(&self) -> u64 {
        match self.state {
            State::Data { rest } => rest,
            _ => 0,
        }
    }

    pub(super) fn step(&mut self, input: &[u8], trailers: &mut Trailers) -> Result<Step, BodyError> {
        let mut at = 0;
        while at < input.len() {
            let b = input[at];
            self.state = match self.state {
                State::Data { rest } => {
                    let len = usize::try_from(rest).unwrap_or(usize::MAX).min(input.len() - at);
                    let rest = rest - len as u64;
                    self.state = if rest == 0 { State::DataCr } else { State::Data { rest } };
                    // The line end goes along when it is there: it saves the caller a step.
                    let mut consumed = at + len;
                    if rest == 0 && input[consumed..].starts_with(b"\r\n") {
                        self.state = State::Size { size: 0, digits: 0 };
                        consumed += 2;
                    }
                    return Ok(Step { data: at..at + len, consumed, done: false });
                }
                State::Trailers => {
                    let (consumed, done) = trailers.take(&input[at..])?;
                    return Ok(Step { data: 0..0, consumed: at + consumed, done });
                }
                State::Size { size, digits } => Self::size(b, size, digits)?,
                State::Extension { size, at } => {
                    self.overhead = self.overhead.saturating_add(1);
                    if self.overhead > OVERHEAD_MAX {
                        return Err(BodyError::ExtensionsTooLarge);
                    }
                    if b == b'\r' && at.may_end() {
                        State::SizeLf { size }
                    } else {
                        State::Extension { size, at: at.next(b)? }
                    }
                }
                State::SizeLf { size } if b == b'\n' => {
                    let credit = u32::try_from(size.saturating_mul(2)).unwrap_or(u32::MAX);
                    self.overhead = self.overhead.saturating_sub(credit.saturating_add(OVERHEAD_PER_CHUNK));
                    if size == 0 { State::Trailers } else { State::Data { rest: size } }
                }
                State::SizeLf { .. } => return Err(BodyError::BadLineEnd),
                State::DataCr if b == b'\r' => State::DataLf,
                State::DataLf if b == b'\n' => State::Size { size: 0, digits: 0 },
                State::DataCr | State::DataLf => return Err(BodyError::NoChunkEnd),
            };
            at += 1;
        }
        Ok(Step { data: 0..0, consumed: at, done: false })
    }

    fn size(b: u8, size: u64, digits: u8) -> Result<State, BodyError> {
        let digit = match b {
            b'0'..=b'9' => b - b'0',
            b'a'..=b'f' => b - b'a' + 10,
            b'A'..=b'F' => b - b'A' + 10,
            _ if digits == 0 => return Err(BodyError::BadChunkSize),
            b'\r' => return Ok(State::SizeLf { size }),
            b'\n' => return Err(BodyError::BadLineEnd),
            b';' => return Ok(State::Extension { size, at: Extension::BeforeName }),
            b' ' | b'\t' => return Ok(State::Extension { size, at: Extension::BeforeSemicolon }),
            _ => return Err(BodyError::BadChunkSize),
        };
        if digits == SIZE_DIGITS_MAX || size >> 59 != 0 {
            return Err(BodyError::ChunkTooLarge);
        }
        Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
    }
}

impl Extension {
    fn next(self, b: u8) -> Result<Self, BodyError> {
        let blank = matches!(b, b' ' | b'\t');
        Ok(match (self, b) {
            (Self::BeforeSemicolon | Self::BeforeName | Self::AfterName | Self::BeforeValue | Self::AfterQuoted, _)
                if blank =>
            {
                self
            }
            (Self::BeforeSemicolon | Self::Name | Self::AfterName | Self::Value | Self::AfterQuoted, b';') => {
                Self::BeforeName
            }
            (Self::BeforeName | Self::Name, _) if list::is_token_byte(b) => Self::Name,
            (Self::Name, _) if blank => Self::AfterName,
            (Self::Name | Self::AfterName, b'=') => Self::BeforeValue,
            (Self::BeforeValue, b'"') => Self::Quoted,
            (Self::BeforeValue | Self::Value, _) if list::is_token_byte(b) => Self::Value,
            (Self::Value, _) if blank => Self::BeforeSemicolon,
            (Self::Quoted, b'"') => Self::AfterQuoted,
            (Self::Quoted, b'\\') => Self::QuotedPair,
            (Self::Quoted | Self::QuotedPair, _) if b == b'\t' || (b >= b' ' && b != 0x7f) => Self::Quoted,
            (_, b'\n') => return Err(BodyError::BadLineEnd),
            _ => return Err(BodyError::BadExtension),
        })
    }

    /// Whitespace in front of the line end would belong to an extension that never came.
    const fn may_end(self) -> bool {
        matches!(self, Self::Name | Self::Value | Self::AfterQuoted)
    }
}

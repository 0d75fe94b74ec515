//! Bodies that are made while they are sent.

use std::borrow::Cow;
use std::time::Duration;

/// A body, piece by piece. Holds no more memory than what it cannot take from static bytes.
#[derive(Debug)]
pub struct Body {
    source: Source,
    delay: Duration,
}

#[derive(Debug)]
enum Source {
    Fixed(&'static [u8]),
    Owned(Vec<u8>),
    /// So many bytes of [`PATTERN`], over and over.
    Bulk {
        left: u64,
        sent: u64,
    },
    /// The next line of `/chunked`.
    Trickle {
        line: u8,
    },
}

/// The next part of a body.
#[derive(Debug)]
pub struct Piece {
    /// How long to wait before it is sent. At most [`DELAY_MAX`](super::DELAY_MAX).
    pub delay: Duration,
    /// The bytes; never none.
    pub bytes: Cow<'static, [u8]>,
}

const TRICKLE_LINES: u8 = 8;
const TRICKLE_PAUSE: Duration = Duration::from_millis(150);

impl Body {
    pub(super) const EMPTY: Self = Self::fixed(b"");

    pub(super) const fn fixed(bytes: &'static [u8]) -> Self {
        Self { source: Source::Fixed(bytes), delay: Duration::ZERO }
    }

    pub(super) fn owned(bytes: Vec<u8>) -> Self {
        Self { source: Source::Owned(bytes), delay: Duration::ZERO }
    }

    pub(super) fn text(text: Cow<'static, str>) -> Self {
        match text {
            Cow::Borrowed(text) => Self::fixed(text.as_bytes()),
            Cow::Owned(text) => Self::owned(text.into_bytes()),
        }
    }

    pub(super) fn bulk(length: u64) -> Self {
        Self { source: Source::Bulk { left: length, sent: 0 }, delay: Duration::ZERO }
    }

    pub(super) fn trickle() -> Self {
        Self { source: Source::Trickle { line: 0 }, delay: Duration::ZERO }
    }

    /// The first piece waits so long.
    pub(super) fn delay_first(&mut self, delay: Duration) {
        self.delay = delay;
    }

    /// The bytes still to come; none when nobody knows beforehand.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match &self.source {
            Source::Fixed(bytes) => Some(bytes.len() as u64),
            Source::Owned(bytes) => Some(bytes.len() as u64),
            Source::Bulk { left, .. } => Some(*left),
            Source::Trickle { .. } => None,
        }
    }

    /// How long to wait before the next piece, and so before the head when none was taken yet: a slow origin is slow
    /// to begin.
    #[must_use]
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// The next piece; none at the end, and then for ever.
    pub fn next_piece(&mut self) -> Option<Piece> {
        let bytes = match &mut self.source {
            Source::Fixed(bytes) => Cow::Borrowed(std::mem::take(bytes)),
            Source::Owned(bytes) => Cow::Owned(std::mem::take(bytes)),
            Source::Bulk { left, sent } => {
                // The pattern's length divides 2^64, so the place in it is right even after the count has wrapped.
                let begin = usize::try_from(*sent % PATTERN.len() as u64).unwrap_or(0);
                let end = usize::try_from(*left).map_or(PATTERN.len(), |left| PATTERN.len().min(begin + left));
                let taken = (end - begin) as u64;
                (*left, *sent) = (*left - taken, *sent + taken);
                Cow::Borrowed(&PATTERN[begin..end])
            }
            Source::Trickle { line } if *line < TRICKLE_LINES => {
                *line += 1;
                Cow::Owned(format!("piece {line} of {TRICKLE_LINES}\n").into_bytes())
            }
            Source::Trickle { .. } => Cow::Borrowed(&b""[..]),
        };
        if bytes.is_empty() {
            return None;
        }
        let delay = std::mem::take(&mut self.delay);
        if let Source::Trickle { .. } = self.source {
            self.delay = TRICKLE_PAUSE;
        }
        Some(Piece { delay, bytes })
    }
}

/// What `/bytes` sends over and over: numbered lines of 64 bytes, for eyes and for checks.
pub(super) static PATTERN: [u8; 16 << 10] = {
    let text = b" Beltway, a demonstration: these bytes are made up within it";
    let mut pattern = [b'.'; 16 << 10];
    let mut line = 0;
    while line * 64 < pattern.len() {
        let digits = [line / 100, line / 10 % 10, line % 10];
        let mut at = 0;
        while at < 63 {
            if at < 3 {
                pattern[line * 64 + at] = b"0123456789"[digits[at]];
            } else if at - 3 < text.len() {
                pattern[line * 64 + at] = text[at - 3];
            }
            at += 1;
        }
        pattern[line * 64 + 63] = b'\n';
        line += 1;
    }
    pattern
};

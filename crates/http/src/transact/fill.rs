//! What a fetch that others may wait for tells them when there is nothing for them.
//!
//! Whether it goes on without the client that began it is [`cache::Progress`]'s to say.

use std::time::Duration;

use super::failure::Fault;
use crate::rules::caching::Reason;

/// So long it is remembered that responses of a key are not stored, and nobody waits for them.
pub const DECLINED_FOR: Duration = Duration::from_secs(60);

/// What those who waited for a head learn when there is none for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// The response is for one client only.
    Unstorable(Reason),
    /// The origin failed so.
    Failed(Fault),
    /// The origin answered with this status, and what is stored stands in for it where that is allowed.
    Answered(u16),
}

const FAILED: u16 = 0x8000;
const ANSWERED: u16 = 0x4000;

impl Word {
    /// The number that the cache passes on.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Unstorable(reason) => reason as u16,
            Self::Failed(fault) => FAILED | fault as u16,
            Self::Answered(status) => ANSWERED | (status & 0x3ff),
        }
    }

    /// What a number means. None: it was not made here.
    #[must_use]
    pub fn of(code: u16) -> Option<Self> {
        let rest = code & 0x3fff;
        match code & (FAILED | ANSWERED) {
            FAILED => Fault::ALL.get(usize::from(rest)).copied().map(Self::Failed),
            ANSWERED => Some(Self::Answered(rest)),
            0 => Reason::ALL.get(usize::from(rest)).copied().map(Self::Unstorable),
            _ => None,
        }
    }
}

/// The counted reason for what the cache itself did not keep.
#[must_use]
pub fn unkept(reason: cache::Reason) -> Reason {
    match reason {
        cache::Reason::TooLarge => Reason::TooLarge,
        cache::Reason::Incomplete | cache::Reason::HandedOver => Reason::Incomplete,
        cache::Reason::NoRoom | cache::Reason::Contended | cache::Reason::Purged => Reason::NoRoom,
        cache::Reason::Engine(code) => match Word::of(code) {
            Some(Word::Unstorable(reason)) => reason,
            Some(Word::Failed(_) | Word::Answered(_)) | None => Reason::Incomplete,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_is_heard() {
        let words = Reason::ALL
            .iter()
            .map(|&reason| Word::Unstorable(reason))
            .chain(Fault::ALL.iter().map(|&fault| Word::Failed(fault)))
            .chain([500, 502, 503, 504, 999].map(Word::Answered));
        for word in words {
            assert_eq!(Word::of(word.code()), Some(word));
        }
        assert_eq!(Word::of(0xffff), None);
        assert_eq!(Word::of(0x3fff), None);
    }
}

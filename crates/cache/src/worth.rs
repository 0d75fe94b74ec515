//! Whether a fetch goes on after the client that asked for it has left.
//!
//! To end it wastes what the origin sent, and whoever asks next begins anew; to go on spends the origin's bandwidth on
//! what nobody may want. A pure rule over what is known; the engine asks it when its client leaves, and again with each
//! piece that comes. How long a fetch may take at all is bounded by the engine's timeouts, as with a client.

/// Bytes that a fetch may bring without a client or a follower, when nothing says that it is nearly done.
pub const ALONE_BYTES_MAX: u64 = 1 << 20;

/// How far a fetch has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Who reads along.
    pub followers: usize,
    /// Whether the head has come.
    pub started: bool,
    /// Whether it will be stored, so far.
    pub kept: bool,
    /// Bytes of body that came.
    pub came: u64,
    /// Bytes of body in all, when that is known.
    pub expected: Option<u64>,
}

impl Progress {
    /// Whether to go on without the client: somebody follows; or the head is not there yet, and what comes may well be
    /// worth storing; or it will be stored, and what is still to come is short or less than what came already.
    #[must_use]
    pub fn is_worthwhile(&self) -> bool {
        if self.followers > 0 || !self.started {
            return true;
        }
        let near = match self.expected {
            Some(expected) => {
                let left = expected.saturating_sub(self.came);
                left <= ALONE_BYTES_MAX || left < self.came
            }
            None => self.came <= ALONE_BYTES_MAX,
        };
        self.kept && near
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_without_its_client_goes_on_for_followers_or_for_little_more() {
        const MIB: u64 = 1 << 20;
        let table = [
            // followers, started, kept, came, expected: goes on
            (0, false, true, 0, None, true),
            (1, true, false, 100 * MIB, None, true),
            (0, true, false, 0, Some(1), false),
            (0, true, true, 0, Some(MIB), true),
            (0, true, true, 0, Some(MIB + 1), false),
            (0, true, true, 4 * MIB, Some(8 * MIB), false),
            (0, true, true, 4 * MIB + 1, Some(8 * MIB), true),
            (0, true, true, MIB, None, true),
            (0, true, true, MIB + 1, None, false),
            // More than was announced: the length is wrong, and it will be refused at the end.
            (0, true, true, 9 * MIB, Some(8 * MIB), true),
        ];
        for (followers, started, kept, came, expected, goes_on) in table {
            let progress = Progress { followers, started, kept, came, expected };
            assert_eq!(progress.is_worthwhile(), goes_on, "{progress:?}");
        }
    }
}

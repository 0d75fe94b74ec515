//! From what is seen of a silent process to whether it hangs. Pure, but for [`Sign::of`], which looks.
//!
//! *Silent* is without an answer for the hang timeout after having answered before, or after having been said to be ready:
//! who never answered otherwise is starting, and its watcher has another timeout for that. *Proven* is silent although it burned a processor, or sleeping, or stopped; a
//! process that is ready to run and is given no processor time is *slow*, one held by a debugger is *traced*: both are
//! reported and never killed.

use std::time::Duration;

use base::Instant;

use crate::heartbeat::Link;

/// Questions that must be unanswered, however short the hang timeout is.
pub const MISSED_MIN: u32 = 2;

/// Who burned this much of a processor and did not answer could have answered; who got less may still be waiting for more.
pub const BURNED_MIN: Duration = Duration::from_millis(500);

/// What was observed of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign {
    /// Since its last answer, or since one was expected; `None`: it never answered and may be starting, or is not there.
    pub silent_for: Option<Duration>,
    /// Questions unanswered since then.
    pub missed_in_a_row: u32,
    /// The letter of its state; `None`: unknown.
    pub state: Option<char>,
    /// Its main thread, which would have answered, burned half a second of a processor or more since its last answer.
    pub had_processor: bool,
}

/// Why a silent process is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excuse {
    /// Ready to run and not run.
    Slow,
    /// Held by a debugger.
    Traced,
    /// Nothing is known of it.
    Unknown,
}

/// Why a silent process is known to hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It had the processor and did not answer.
    Busy,
    /// It sleeps, or waits for the kernel.
    Blocked,
    /// It was stopped by a signal.
    Stopped,
    /// Its event threads turn, and nobody takes what comes in through a listener.
    Deaf,
}

impl Proof {
    /// As an obituary says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "it had the processor and did not answer",
            Self::Blocked => "it slept or waited for the kernel and did not answer",
            Self::Stopped => "it was stopped by a signal",
            Self::Deaf => "its threads turned, and its page was not answered",
        }
    }
}

impl Sign {
    /// Nobody is there.
    pub const NOT_THERE: Self = Self { silent_for: None, missed_in_a_row: 0, state: None, had_processor: false };

    /// Looks at process `pid`, which is asked through `link` and whose main thread had [`ran`] so long at its last answer.
    #[must_use]
    pub fn of(pid: u32, link: &Link, ran_at_last_answer: Duration, now: Instant) -> Self {
        let missed_in_a_row = link.missed_in_a_row();
        // /proc is read only when there is something to explain.
        let task = (missed_in_a_row > 0).then(|| sys::task::read(pid, pid.into())).flatten();
        Self {
            silent_for: link.silent_for(now),
            missed_in_a_row,
            state: task.map(|task| task.state),
            had_processor: task.is_some_and(|task| task.ran.saturating_sub(ran_at_last_answer) >= BURNED_MIN),
        }
    }

    /// Whether it answers.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.silent_for.is_some() && self.missed_in_a_row == 0
    }

    /// Whether it has been silent for so long that it means something.
    #[must_use]
    pub fn is_silent(&self, hang_timeout: Duration) -> bool {
        self.missed_in_a_row >= MISSED_MIN && self.silent_for.is_some_and(|silence| silence >= hang_timeout)
    }

    /// What the silence of a process means.
    ///
    /// # Errors
    /// Why it is left alone.
    pub const fn examine(&self) -> Result<Proof, Excuse> {
        match self.state {
            Some('t') => Err(Excuse::Traced),
            Some('T') => Ok(Proof::Stopped),
            Some('R') if self.had_processor => Ok(Proof::Busy),
            Some('R') => Err(Excuse::Slow),
            Some('S' | 'D' | 'I') => Ok(Proof::Blocked),
            _ => Err(Excuse::Unknown),
        }
    }
}

/// Processor time that the main thread of a process was given; zero when that cannot be known.
#[must_use]
pub fn ran(pid: u32) -> Duration {
    sys::task::read(pid, pid.into()).map_or(Duration::ZERO, |task| task.ran)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_of_a_silent_process_has_its_meaning() {
        let table = [
            (Some('R'), true, Ok(Proof::Busy)),
            (Some('R'), false, Err(Excuse::Slow)),
            (Some('S'), true, Ok(Proof::Blocked)),
            (Some('S'), false, Ok(Proof::Blocked)),
            (Some('D'), false, Ok(Proof::Blocked)),
            (Some('T'), false, Ok(Proof::Stopped)),
            (Some('T'), true, Ok(Proof::Stopped)),
            (Some('t'), false, Err(Excuse::Traced)),
            (Some('t'), true, Err(Excuse::Traced)),
            (Some('Z'), false, Err(Excuse::Unknown)),
            (None, true, Err(Excuse::Unknown)),
        ];
        for (state, had_processor, expected) in table {
            let sign = Sign { silent_for: Some(Duration::ZERO), missed_in_a_row: 2, state, had_processor };
            assert_eq!(sign.examine(), expected, "{sign:?}");
        }
    }

    #[test]
    fn silence_counts_only_from_the_timeout_and_with_two_questions_unanswered() {
        const HANG: Duration = Duration::from_secs(2);
        let hung = Sign { silent_for: Some(HANG), missed_in_a_row: 4, state: Some('S'), had_processor: false };
        assert!(hung.is_silent(HANG));
        assert!(!Sign { silent_for: Some(HANG - Duration::from_nanos(1)), ..hung }.is_silent(HANG));
        assert!(!Sign { missed_in_a_row: MISSED_MIN - 1, ..hung }.is_silent(HANG));
        assert!(!Sign { silent_for: None, ..hung }.is_silent(HANG), "it is starting");
        assert!(!Sign::NOT_THERE.is_silent(HANG) && !Sign::NOT_THERE.is_good());
    }
}

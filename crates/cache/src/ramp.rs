//! How many fetches may run at once after a cold start.
//!
//! A cache that has just lost all it held sends its origins every request that it answered by itself a moment ago. So
//! it begins with few fetches at a time and allows one more with each that succeeds: twice as many per round trip, as a
//! TCP sender does. An origin that can bear it is at full speed within ten round trips; one that cannot is asked for less
//! by a failure. Once as many were allowed as the end of the ramp says, it is over for the life of the process.
//!
//! Pure: who waits, and for how long, is [`Gate`](crate::Gate)'s business.

use std::time::Duration;

use base::Instant;

/// The ramp's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RampOptions {
    /// Fetches allowed at once at first, and at the least.
    pub first: u32,
    /// Once so many are allowed, the ramp is over.
    pub last: u32,
    /// Failures within this time count as one: they are of one round trip.
    pub failures_apart: Duration,
    /// Who may wait at one time.
    pub waiting_max: usize,
}

impl Default for RampOptions {
    fn default() -> Self {
        Self { first: 32, last: 1_024, failures_apart: Duration::from_secs(1), waiting_max: 16_384 }
    }
}

/// How a fetch ended, as far as it says something about the origin's strength.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// It answered.
    Answered,
    /// It refused, was too late, or said that it is overloaded.
    Overloaded,
    /// Nothing is known: the fetch was given up.
    Unknown,
}

/// The state of the ramp.
#[derive(Clone, Debug)]
pub struct Ramp {
    options: RampOptions,
    allowed: u32,
    running: u32,
    failed: Option<Instant>,
    over: bool,
}

impl Ramp {
    /// A cold start.
    #[must_use]
    pub fn new(options: RampOptions) -> Self {
        let first = options.first.max(1);
        Self { options, allowed: first, running: 0, failed: None, over: first >= options.last }
    }

    /// Whether every fetch may run at once from now on.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Fetches that may run at once.
    #[must_use]
    pub fn allowed(&self) -> u32 {
        self.allowed
    }

    /// Fetches that run and asked before.
    #[must_use]
    pub fn running(&self) -> u32 {
        self.running
    }

    /// One more fetch begins, if it may.
    pub fn begin(&mut self) -> bool {
        let may = self.over || self.running < self.allowed;
        self.running += u32::from(may);
        may
    }

    /// A fetch ended with an answer: one more is allowed from now on.
    pub fn answered(&mut self) {
        self.running = self.running.saturating_sub(1);
        self.allowed = self.allowed.saturating_add(1);
        self.over |= self.allowed >= self.options.last;
    }

    /// A fetch ended by refusal, lateness or overload: half as many are allowed, once for all failures that come
    /// together. What is over stays over.
    pub fn overloaded(&mut self, now: Instant) {
        self.running = self.running.saturating_sub(1);
        let another = self.failed.is_none_or(|failed| now.since(failed) >= self.options.failures_apart);
        if another && !self.over {
            self.failed = Some(now);
            self.allowed = (self.allowed / 2).max(self.options.first.max(1));
        }
    }

    /// A fetch ended and says nothing about the origin.
    pub fn given_up(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    pub(crate) fn end(&mut self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Answered => self.answered(),
            Outcome::Overloaded => self.overloaded(now),
            Outcome::Unknown => self.given_up(),
        }
    }

    pub(crate) fn waiting_max(&self) -> usize {
        self.options.waiting_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn ramp(first: u32, last: u32) -> Ramp {
        Ramp::new(RampOptions { first, last, ..RampOptions::default() })
    }

    #[test]
    fn each_event_changes_what_is_allowed_as_the_table_says() {
        enum Event {
            Begin(bool),
            Answered,
            Overloaded(u64),
            GivenUp,
        }
        use Event::{Answered, Begin, GivenUp, Overloaded};
        // What happens, and then: allowed, running, over.
        let table = [
            (Begin(true), (2, 1, false)),
            (Begin(true), (2, 2, false)),
            (Begin(false), (2, 2, false)),
            (Answered, (3, 1, false)),
            (Begin(true), (3, 2, false)),
            (Begin(true), (3, 3, false)),
            (Begin(false), (3, 3, false)),
            (GivenUp, (3, 2, false)),
            (Answered, (4, 1, false)),
            (Answered, (5, 0, false)),
            (Begin(true), (5, 1, false)),
            (Overloaded(1_000), (2, 0, false)),
            (Begin(true), (2, 1, false)),
            (Answered, (3, 0, false)),
            (Begin(true), (3, 1, false)),
            // Within a second of the last one.
            (Overloaded(1_999), (3, 0, false)),
            (Begin(true), (3, 1, false)),
            // Not below the first.
            (Overloaded(2_000), (2, 0, false)),
            (Answered, (3, 0, false)),
            (Answered, (4, 0, false)),
            (Answered, (5, 0, false)),
            (Answered, (6, 0, true)),
            (Overloaded(9_000), (6, 0, true)),
        ];
        let mut ramp = ramp(2, 6);
        for (row, (event, (allowed, running, over))) in table.into_iter().enumerate() {
            match event {
                Begin(may) => assert_eq!(ramp.begin(), may, "row {row}"),
                Answered => ramp.answered(),
                Overloaded(millis) => ramp.overloaded(at(millis)),
                GivenUp => ramp.given_up(),
            }
            assert_eq!((ramp.allowed(), ramp.running(), ramp.is_over()), (allowed, running, over), "row {row}");
        }
        assert!((0..1_000).all(|_| ramp.begin()), "nothing is counted against what is over");
    }

    #[test]
    fn a_strong_origin_is_at_full_speed_after_as_many_round_trips_as_there_are_doublings() {
        let mut ramp = ramp(32, 1_024);
        let mut trips = 0;
        while !ramp.is_over() {
            let begun = std::iter::repeat_with(|| ramp.begin()).take(5_000).filter(|may| *may).count();
            assert_eq!(begun, 32 << trips);
            (0..begun).for_each(|_| ramp.answered());
            trips += 1;
        }
        assert_eq!(trips, 5);
    }

    #[test]
    fn a_ramp_that_ends_where_it_begins_is_none() {
        assert!(ramp(10, 10).is_over() && !ramp(0, 2).is_over());
        assert_eq!(ramp(0, 2).allowed(), 1);
    }
}

//! How long to wait before a process that keeps dying is started again.

use std::time::Duration;

/// The first wait after a second death; it doubles from there.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Counts deaths before *ready*. Nothing at first, then 100 ms, 200 ms, … up to a maximum. A process that got ready is
/// replaced at once, whatever it dies of later.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    failures: u32,
    wait_max: Duration,
}

impl Backoff {
    /// No failures yet; never a wait above `wait_max`.
    #[must_use]
    pub const fn new(wait_max: Duration) -> Self {
        Self { failures: 0, wait_max }
    }

    /// It became ready.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// It died before it was ready. How long to wait before the next try.
    pub fn failed(&mut self) -> Duration {
        let wait = match self.failures {
            0 => Duration::ZERO,
            n => FIRST_WAIT.saturating_mul(1_u32.checked_shl(n - 1).unwrap_or(u32::MAX)).min(self.wait_max),
        };
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Deaths before *ready* in a row.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_death_costs_nothing_and_the_rest_ever_more_up_to_the_maximum() {
        let mut backoff = Backoff::new(Duration::from_secs(2));
        let waits: Vec<_> = (0..8).map(|_| backoff.failed().as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(backoff.failures(), 8);
        for _ in 0..100 {
            assert!(backoff.failed() <= Duration::from_secs(2), "no overflow however often");
        }
        backoff.succeeded();
        assert_eq!(backoff.failed(), Duration::ZERO);
    }
}

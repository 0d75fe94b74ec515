//! Which failed requests a death excuses.
//!
//! Pure: failures and the moment of the blow in, counts out. A server that dies takes along what it was working on:
//! requests sent before the blow, on connections made before it. Nothing else is excused, and the death of manager or cop
//! excuses nothing.

use base::Instant;
use serde::Serialize;

use crate::load::paced::{Failure, How};

/// What one blow cost the clients, in requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Toll {
    /// Connections that were refused.
    pub(super) refused: u64,
    /// Lost with the server: sent before the blow. Excused.
    pub(super) in_flight: u64,
    /// Sent after the blow, but on a connection of the dead server whose end the client had not seen yet. Excused: a
    /// client that keeps connections has to expect it, as RFC 9112 §9.5 says.
    pub(super) stranded: u64,
    /// Everything else.
    pub(super) failed: u64,
    /// What the failures beyond excuse looked like, each kind once.
    pub(super) kinds: Vec<How>,
}

impl Toll {
    /// True when nothing happened that the death does not excuse.
    pub(super) fn is_clean(&self) -> bool {
        self.refused == 0 && self.failed == 0
    }
}

/// Classifies the failures seen since shortly before the blow, which lasted from `begun` to `done`.
pub(super) fn judge(failures: &[Failure], begun: Instant, done: Instant, server_died: bool) -> Toll {
    let mut toll = Toll::default();
    for failure in failures {
        let of_the_dead = server_died
            && failure.at >= begun
            && failure.connected <= done
            && matches!(failure.how, How::Unanswered | How::Cut);
        match (failure.how, failure.sent) {
            (How::Refused, _) => toll.refused += 1,
            (_, Some(sent)) if of_the_dead && sent <= done => toll.in_flight += 1,
            (_, Some(_)) if of_the_dead => toll.stranded += 1,
            _ => {
                toll.failed += 1;
                if !toll.kinds.contains(&failure.how) {
                    toll.kinds.push(failure.how);
                }
            }
        }
    }
    toll
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(connected: u64, sent: u64, at: u64, how: How) -> Failure {
        let moment = Instant::from_nanos;
        Failure { at: moment(at), connected: moment(connected), sent: Some(moment(sent)), how }
    }

    #[test]
    fn only_what_the_dead_server_had_accepted_is_excused() {
        let failures = [
            failure(10, 90, 101, How::Unanswered),
            failure(10, 105, 106, How::Unanswered),
            failure(110, 111, 120, How::Unanswered),
            failure(10, 90, 101, How::WrongStatus),
        ];
        let (begun, done) = (Instant::from_nanos(100), Instant::from_nanos(102));
        let toll = judge(&failures, begun, done, true);
        assert_eq!((toll.refused, toll.in_flight, toll.stranded, toll.failed), (0, 1, 1, 2));
        assert_eq!(toll.kinds, [How::Unanswered, How::WrongStatus]);
    }

    #[test]
    fn the_death_of_manager_or_cop_excuses_nothing() {
        let failures = [failure(10, 90, 101, How::Unanswered), failure(10, 90, 101, How::Refused)];
        let (begun, done) = (Instant::from_nanos(100), Instant::from_nanos(102));
        let toll = judge(&failures, begun, done, false);
        assert_eq!((toll.refused, toll.in_flight, toll.failed), (1, 0, 1));
        assert!(!toll.is_clean());
    }
}

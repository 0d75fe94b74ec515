//! What an origin's answer says of the stored response that it was asked about (RFC 9111 §4.3.3).

use crate::rules::caching::serve::{OnFailure, Reading};

/// What is known when the origin has answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The question had conditions.
    pub asked: bool,
    /// It speaks of what is stored. Of interest with 304.
    pub confirms: bool,
    /// Whether the stored response may stand in for this answer.
    pub on_failure: OnFailure,
}

/// What comes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Validity {
    /// What is stored is still good.
    Confirmed,
    /// The origin spoke of something else: ask again, without conditions.
    AskAgain,
    /// The origin failed, and what is stored may be served all the same.
    Stale(Reading),
    /// The answer takes the place of what is stored.
    Replaced,
}

/// Judges.
#[must_use]
pub const fn judge(answer: Answer) -> Validity {
    match (answer.status, answer.asked, answer.on_failure) {
        (304, true, _) if answer.confirms => Validity::Confirmed,
        (304, true, _) => Validity::AskAgain,
        (_, _, OnFailure::ServeStale(reading)) => Validity::Stale(reading),
        _ => Validity::Replaced,
    }
}

#[cfg(test)]
mod tests {
    use base::WallTime;

    use super::*;
    use crate::rules::caching::Terms;

    #[test]
    fn every_answer_has_one_meaning() {
        let terms = Terms {
            born: WallTime::from_secs(0),
            lifetime_s: 1,
            stale_while_revalidate_s: 0,
            stale_if_error_s: Some(60),
            no_cache: false,
            must_revalidate: false,
            s_maxage: false,
        };
        let reading = terms.at(WallTime::from_secs(10));
        let stale = OnFailure::ServeStale(reading);
        for (status, asked, confirms, on_failure, expected) in [
            (304, true, true, OnFailure::Fail, Validity::Confirmed),
            (304, true, false, OnFailure::Fail, Validity::AskAgain),
            // A 304 that nobody asked for is passed on as it is.
            (304, false, true, OnFailure::Fail, Validity::Replaced),
            (200, true, true, OnFailure::Fail, Validity::Replaced),
            (404, true, true, OnFailure::Fail, Validity::Replaced),
            (503, true, true, stale, Validity::Stale(reading)),
            (503, false, false, stale, Validity::Stale(reading)),
            (503, true, true, OnFailure::Fail, Validity::Replaced),
        ] {
            assert_eq!(judge(Answer { status, asked, confirms, on_failure }), expected, "{status} {asked} {confirms}");
        }
    }
}

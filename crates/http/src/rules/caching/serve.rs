//! May this stored response answer this request, now? (RFC 9111 §4, §4.2.4, §5.2; RFC 5861)
//!
//! Read [`decide`], for a response that was found, [`absent`], for one that was not, and [`on_failure`], for when the
//! origin could not validate it. All three are a handful of comparisons: everything that needs reading was read before.

use base::WallTime;

use super::cache_control::{RequestControl, ResponseControl};
use super::freshness::{Dating, Lifetime};
use super::micros;

/// So long may a response be stale when the origin cannot be reached at all and said nothing about errors: a day.
///
/// RFC 9111 §4.2.4 allows it to a cache that is disconnected, unless the response forbids it. The ancestor gave seven
/// days, and to failing origins too, which the RFC does not allow.
pub const DISCONNECTED_STALE_MAX: u32 = 86_400;

/// The terms under which a stored response may be used, found once when it was stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// The moment its age was zero.
    pub born: WallTime,
    /// Seconds it is fresh from then on.
    pub lifetime_s: u32,
    /// `stale-while-revalidate`; zero when it was not named.
    pub stale_while_revalidate_s: u32,
    /// `stale-if-error`; `None` when it was not named.
    pub stale_if_error_s: Option<u32>,
    /// `no-cache`: never without validation.
    pub no_cache: bool,
    /// `must-revalidate` or `proxy-revalidate`: never stale.
    pub must_revalidate: bool,
    /// `s-maxage`: means `proxy-revalidate` too (RFC 9111 §5.2.2.10), but see [`Terms::forbids_stale`].
    pub s_maxage: bool,
}

impl Terms {
    /// The terms of a response that has just come.
    #[must_use]
    pub fn new(control: &ResponseControl, lifetime: Lifetime, dating: &Dating) -> Self {
        Self {
            born: dating.born,
            lifetime_s: lifetime.secs,
            stale_while_revalidate_s: control.stale_while_revalidate.unwrap_or(0),
            stale_if_error_s: control.stale_if_error,
            no_cache: control.no_cache,
            must_revalidate: control.must_revalidate || control.proxy_revalidate,
            s_maxage: control.s_maxage.is_some(),
        }
    }

    /// May it not be used stale, whoever asks?
    ///
    /// `s-maxage` alone is not in here. It forbids staleness that others wish for (the client's `max-stale`, a
    /// disconnected cache), but an origin that writes `s-maxage=1, stale-while-revalidate=30` in one line says exactly
    /// when stale is right: the particular permission goes before the implied prohibition.
    #[inline]
    #[must_use]
    pub const fn forbids_stale(&self) -> bool {
        self.no_cache || self.must_revalidate
    }

    /// Age and time left at `now`.
    #[inline]
    #[must_use]
    pub const fn at(&self, now: WallTime) -> Reading {
        let age = now.as_micros().saturating_sub(self.born.as_micros());
        let age = if age < 0 { 0 } else { age };
        Reading { age, left: micros(self.lifetime_s).saturating_sub(age) }
    }
}

/// A stored response's age, read off at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    age: i64,
    left: i64,
}

impl Reading {
    /// `current_age` of RFC 9111 §4.2.3 in whole seconds, for the `Age` field.
    #[inline]
    #[must_use]
    pub fn age_s(self) -> u32 {
        u32::try_from(self.age / 1_000_000).unwrap_or(u32::MAX)
    }

    /// Whole seconds it will be fresh; negative when it is stale (`ttl` of RFC 9211 §2.6).
    #[inline]
    #[must_use]
    pub const fn ttl_s(self) -> i64 {
        self.left.div_euclid(1_000_000)
    }

    /// `response_is_fresh` of RFC 9111 §4.2.
    #[inline]
    #[must_use]
    pub const fn is_fresh(self) -> bool {
        self.left > 0
    }

    /// Is it stale for so long at most?
    #[inline]
    fn is_within(self, window_s: u32) -> bool {
        self.left.saturating_add(micros(window_s)) >= 0
    }
}

/// What to do with a stored response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// It is fresh: serve it.
    Fresh,
    /// It is stale, and the client says that it does not mind (`max-stale`): serve it.
    StaleAccepted,
    /// It is stale: serve it, and let one request revalidate it meanwhile (RFC 5861 §3).
    StaleWhileRevalidate,
    /// Ask the origin first, and serve it when the origin says that it is still good.
    Revalidate(Cause),
    /// It may not be used without asking, and the client said `only-if-cached`: 504 (RFC 9111 §5.2.1.7).
    GatewayTimeout,
}

/// Why the origin must be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The response is stale, or was marked so.
    Stale,
    /// The response says `no-cache`.
    NoCache,
    /// The request's directives do not take what is there.
    Request,
}

/// A judgement, and what it rests on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// What to do.
    pub verdict: Use,
    /// Age and time left.
    pub reading: Reading,
}

/// Judges a stored response that was selected for a request.
///
/// `marked_stale`: somebody has marked it so since (a soft purge, an unsafe request); it counts as having just become
/// stale.
#[inline]
#[must_use]
pub fn decide(terms: &Terms, request: &RequestControl, now: WallTime, marked_stale: bool) -> Decision {
    let mut reading = terms.at(now);
    if marked_stale {
        reading.left = reading.left.min(0);
    }
    let verdict = match judge(terms, request, reading) {
        Use::Revalidate(_) if request.only_if_cached => Use::GatewayTimeout,
        verdict => verdict,
    };
    Decision { verdict, reading }
}

#[inline]
fn judge(terms: &Terms, request: &RequestControl, reading: Reading) -> Use {
    if request.no_cache {
        return Use::Revalidate(Cause::Request);
    }
    if terms.no_cache {
        return Use::Revalidate(Cause::NoCache);
    }
    // Compared in microseconds: `max-age=0`, a browser's reload, is not satisfied by an age of half a second.
    if request.max_age.is_some_and(|max| reading.age > micros(max)) {
        return Use::Revalidate(Cause::Request);
    }
    if reading.is_fresh() {
        return match request.min_fresh {
            Some(min) if reading.left < micros(min) => Use::Revalidate(Cause::Request),
            _ => Use::Fresh,
        };
    }
    // RFC 9111 §5.2.1.1: who names a maximal age and no max-stale wants nothing stale; nor does who wants more time left.
    let wants_fresh = request.min_fresh.is_some() || (request.max_age.is_some() && request.max_stale.is_none());
    if terms.forbids_stale() || wants_fresh {
        return Use::Revalidate(Cause::Stale);
    }
    if terms.stale_while_revalidate_s > 0 && reading.is_within(terms.stale_while_revalidate_s) {
        return Use::StaleWhileRevalidate;
    }
    match request.max_stale {
        Some(max) if !terms.s_maxage && reading.is_within(max) => Use::StaleAccepted,
        _ => Use::Revalidate(Cause::Stale),
    }
}

/// What to do when nothing was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Absent {
    /// Ask the origin.
    Forward,
    /// The client does not want that: 504.
    GatewayTimeout,
}

/// Judges a request for which nothing is stored.
#[inline]
#[must_use]
pub const fn absent(request: &RequestControl) -> Absent {
    if request.only_if_cached { Absent::GatewayTimeout } else { Absent::Forward }
}

/// How the origin failed while a stored response was to be revalidated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It could not be reached, or gave no whole answer in time.
    Unreachable,
    /// It answered with this status.
    Status(u16),
}

/// What the client gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnFailure {
    /// The stored response, stale as it is.
    ServeStale(Reading),
    /// The failure: the origin's answer, or our own error.
    Fail,
}

/// Judges whether a stored response may stand in for an origin that failed (RFC 5861 §4, RFC 9111 §4.2.4 and §4.3.3).
///
/// Errors are 500, 502, 503, 504 and an unreachable origin. The window is the larger of the response's and the
/// request's `stale-if-error`. For an unreachable origin, and when neither named one, it is `disconnected_max_s`
/// (usually [`DISCONNECTED_STALE_MAX`]; zero turns that off), which `s-maxage` forbids.
#[must_use]
pub fn on_failure(
    terms: &Terms,
    request: &RequestControl,
    failure: Failure,
    now: WallTime,
    disconnected_max_s: u32,
) -> OnFailure {
    let reading = terms.at(now);
    let is_error = matches!(failure, Failure::Unreachable | Failure::Status(500 | 502 | 503 | 504));
    if terms.forbids_stale() || !is_error {
        return OnFailure::Fail;
    }
    let window = match terms.stale_if_error_s.max(request.stale_if_error) {
        Some(window) => window,
        None if failure == Failure::Unreachable && !terms.s_maxage => disconnected_max_s,
        None => return OnFailure::Fail,
    };
    if window > 0 && reading.is_within(window) { OnFailure::ServeStale(reading) } else { OnFailure::Fail }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rules::caching::cache_control::DELTA_MAX;

    const NONE: RequestControl = RequestControl {
        no_cache: false,
        no_store: false,
        only_if_cached: false,
        max_age: None,
        min_fresh: None,
        max_stale: None,
        stale_if_error: None,
    };
    /// Fresh for 100 seconds, and nothing else.
    const PLAIN: Terms = Terms {
        born: WallTime::from_secs(1_000),
        lifetime_s: 100,
        stale_while_revalidate_s: 0,
        stale_if_error_s: None,
        no_cache: false,
        must_revalidate: false,
        s_maxage: false,
    };
    const STALE: Use = Use::Revalidate(Cause::Stale);
    const REQUEST: Use = Use::Revalidate(Cause::Request);

    fn after(secs: i64) -> WallTime {
        WallTime::from_secs(1_000 + secs)
    }

    fn used(terms: Terms, request: RequestControl, age_s: i64) -> Use {
        decide(&terms, &request, after(age_s), false).verdict
    }

    #[test]
    fn a_response_is_fresh_until_its_age_is_its_lifetime() {
        for (age, expected) in [(0, Use::Fresh), (99, Use::Fresh), (100, STALE), (101, STALE), (-50, Use::Fresh)] {
            assert_eq!(used(PLAIN, NONE, age), expected, "{age}");
        }
        let just_before = WallTime::from_micros(after(100).as_micros() - 1);
        assert_eq!(decide(&PLAIN, &NONE, just_before, false).verdict, Use::Fresh);
        let reading = PLAIN.at(just_before);
        assert_eq!((reading.age_s(), reading.ttl_s()), (99, 0));
        assert_eq!((PLAIN.at(after(130)).age_s(), PLAIN.at(after(130)).ttl_s()), (130, -30));
        assert_eq!(PLAIN.at(WallTime::from_micros(i64::MIN)).age_s(), 0);
        assert_eq!(PLAIN.at(WallTime::from_micros(i64::MAX)).age_s(), u32::MAX);
        assert_eq!(used(Terms { lifetime_s: 0, ..PLAIN }, NONE, 0), STALE);
    }

    #[test]
    fn the_request_decides_what_it_takes() {
        // RFC 9111 §5.2.1
        for (request, age, expected) in [
            (RequestControl { no_cache: true, ..NONE }, 0, REQUEST),
            (RequestControl { no_store: true, ..NONE }, 0, Use::Fresh),
            (RequestControl { max_age: Some(50), ..NONE }, 50, Use::Fresh),
            (RequestControl { max_age: Some(50), ..NONE }, 51, REQUEST),
            (RequestControl { max_age: Some(0), ..NONE }, 1, REQUEST),
            (RequestControl { max_age: Some(500), ..NONE }, 101, STALE),
            (RequestControl { min_fresh: Some(50), ..NONE }, 50, Use::Fresh),
            (RequestControl { min_fresh: Some(50), ..NONE }, 51, REQUEST),
            (RequestControl { max_stale: Some(10), ..NONE }, 50, Use::Fresh),
            (RequestControl { max_stale: Some(10), ..NONE }, 110, Use::StaleAccepted),
            (RequestControl { max_stale: Some(10), ..NONE }, 111, STALE),
            (RequestControl { max_stale: Some(0), ..NONE }, 101, STALE),
            (RequestControl { max_stale: Some(DELTA_MAX), ..NONE }, 1_000_000_000, Use::StaleAccepted),
            (RequestControl { max_stale: Some(99), max_age: Some(120), ..NONE }, 110, Use::StaleAccepted),
            (RequestControl { max_stale: Some(99), max_age: Some(120), ..NONE }, 121, REQUEST),
            (RequestControl { max_stale: Some(99), min_fresh: Some(1), ..NONE }, 110, STALE),
            (RequestControl { only_if_cached: true, ..NONE }, 99, Use::Fresh),
            (RequestControl { only_if_cached: true, ..NONE }, 100, Use::GatewayTimeout),
            (RequestControl { only_if_cached: true, max_stale: Some(5), ..NONE }, 100, Use::StaleAccepted),
            (RequestControl { only_if_cached: true, no_cache: true, ..NONE }, 0, Use::GatewayTimeout),
        ] {
            assert_eq!(used(PLAIN, request, age), expected, "{request:?} at {age}");
        }
        assert_eq!(absent(&NONE), Absent::Forward);
        assert_eq!(absent(&RequestControl { only_if_cached: true, ..NONE }), Absent::GatewayTimeout);
    }

    #[test]
    fn half_a_second_is_more_than_no_age_at_all() {
        let reload = RequestControl { max_age: Some(0), ..NONE };
        let half = WallTime::from_micros(1_000_500_000);
        assert_eq!(decide(&PLAIN, &reload, half, false).verdict, REQUEST);
    }

    #[test]
    fn the_response_decides_whether_it_may_be_stale() {
        // RFC 9111 §5.2.2, RFC 5861 §3
        let max_stale = RequestControl { max_stale: Some(DELTA_MAX), ..NONE };
        let swr = Terms { stale_while_revalidate_s: 30, ..PLAIN };
        for (terms, request, age, expected) in [
            (Terms { no_cache: true, ..PLAIN }, NONE, 0, Use::Revalidate(Cause::NoCache)),
            (Terms { no_cache: true, ..swr }, max_stale, 110, Use::Revalidate(Cause::NoCache)),
            (Terms { must_revalidate: true, ..PLAIN }, NONE, 99, Use::Fresh),
            (Terms { must_revalidate: true, ..PLAIN }, max_stale, 100, STALE),
            (Terms { must_revalidate: true, ..swr }, NONE, 110, STALE),
            (Terms { s_maxage: true, ..PLAIN }, max_stale, 100, STALE),
            (Terms { s_maxage: true, ..swr }, NONE, 110, Use::StaleWhileRevalidate),
            (swr, NONE, 99, Use::Fresh),
            (swr, NONE, 100, Use::StaleWhileRevalidate),
            (swr, NONE, 130, Use::StaleWhileRevalidate),
            (swr, NONE, 131, STALE),
            (swr, max_stale, 131, Use::StaleAccepted),
            (swr, RequestControl { max_age: Some(500), ..NONE }, 110, STALE),
            (swr, RequestControl { only_if_cached: true, ..NONE }, 110, Use::StaleWhileRevalidate),
        ] {
            assert_eq!(used(terms, request, age), expected, "{terms:?} {request:?} at {age}");
        }
    }

    #[test]
    fn what_was_marked_stale_has_just_become_so() {
        let marked = |terms: Terms, age| decide(&terms, &NONE, after(age), true).verdict;
        assert_eq!(marked(PLAIN, 1), STALE);
        let swr = Terms { stale_while_revalidate_s: 30, ..PLAIN };
        assert_eq!(marked(swr, 1), Use::StaleWhileRevalidate);
        assert_eq!(marked(swr, 131), STALE);
    }

    #[test]
    fn a_stale_response_stands_in_for_a_failed_origin_only_as_long_as_was_said() {
        // RFC 5861 §4, RFC 9111 §4.2.4
        let sie = Terms { stale_if_error_s: Some(50), ..PLAIN };
        let asked = RequestControl { stale_if_error: Some(80), ..NONE };
        let (gone, error) = (Failure::Unreachable, Failure::Status(503));
        for (terms, request, failure, age, expected) in [
            (sie, NONE, gone, 120, true),
            (sie, NONE, error, 150, true),
            (sie, NONE, error, 151, false),
            (sie, NONE, Failure::Status(500), 120, true),
            (sie, NONE, Failure::Status(502), 120, true),
            (sie, NONE, Failure::Status(504), 120, true),
            (sie, NONE, Failure::Status(501), 120, false),
            (sie, NONE, Failure::Status(404), 120, false),
            (sie, NONE, Failure::Status(200), 120, false),
            (sie, asked, error, 180, true),
            (sie, asked, error, 181, false),
            (PLAIN, asked, error, 180, true),
            (PLAIN, NONE, error, 101, false),
            (PLAIN, NONE, gone, 150, true),
            (PLAIN, NONE, gone, 1_101, false),
            // Its own word counts, even when it is shorter than ours.
            (sie, NONE, gone, 151, false),
            (Terms { stale_if_error_s: Some(0), ..PLAIN }, NONE, gone, 101, false),
            (Terms { must_revalidate: true, ..sie }, asked, gone, 101, false),
            (Terms { no_cache: true, ..sie }, asked, gone, 50, false),
            (Terms { s_maxage: true, ..PLAIN }, NONE, gone, 101, false),
            (Terms { s_maxage: true, ..sie }, NONE, gone, 101, true),
            // Still fresh, revalidated because the client wished it (RFC 9111 §5.2.1.4 says "prefers").
            (PLAIN, RequestControl { no_cache: true, ..NONE }, gone, 50, true),
        ] {
            let outcome = on_failure(&terms, &request, failure, after(age), 1_000);
            let expected = if expected { OnFailure::ServeStale(terms.at(after(age))) } else { OnFailure::Fail };
            assert_eq!(outcome, expected, "{terms:?} {request:?} {failure:?} at {age}");
        }
        assert_eq!(on_failure(&PLAIN, &NONE, gone, after(101), 0), OnFailure::Fail);
    }

    /// Every combination of what may be said, at every age that matters, against the sentences of the standard.
    #[test]
    fn nothing_is_used_against_a_prohibition() {
        let some = |values: &[u32]| {
            let mut all = vec![None];
            all.extend(values.iter().copied().map(Some));
            all
        };
        let flags = |n: u32, bit: u32| n >> bit & 1 == 1;
        let (mut judged, mut served) = (0, 0);
        for bits in 0..32 {
            for swr in [0, 30] {
                let terms = Terms {
                    no_cache: flags(bits, 0),
                    must_revalidate: flags(bits, 1),
                    s_maxage: flags(bits, 2),
                    stale_while_revalidate_s: swr,
                    ..PLAIN
                };
                for max_age in some(&[0, 50, 150]) {
                    for min_fresh in some(&[0, 20]) {
                        for max_stale in some(&[0, 40]) {
                            for age in [0, 49, 50, 51, 81, 99, 100, 101, 129, 131, 139, 141, 200] {
                                let request = RequestControl {
                                    no_cache: flags(bits, 3),
                                    only_if_cached: flags(bits, 4),
                                    max_age,
                                    min_fresh,
                                    max_stale,
                                    ..NONE
                                };
                                let verdict = used(terms, request, age);
                                judged += 1;
                                let is_served =
                                    matches!(verdict, Use::Fresh | Use::StaleAccepted | Use::StaleWhileRevalidate);
                                served += u32::from(is_served);
                                assert_eq!(verdict == Use::GatewayTimeout, !is_served && request.only_if_cached);
                                if !is_served {
                                    continue;
                                }
                                let left = 100 - age;
                                assert!(!terms.no_cache && !request.no_cache);
                                assert!(max_age.is_none_or(|max| age <= i64::from(max)));
                                assert!(min_fresh.is_none_or(|min| left >= i64::from(min)));
                                assert_eq!(verdict == Use::Fresh, left > 0);
                                if left <= 0 {
                                    assert!(!terms.must_revalidate);
                                    let by_client =
                                        !terms.s_maxage && max_stale.is_some_and(|max| -left <= i64::from(max));
                                    assert!(by_client || (swr > 0 && -left <= i64::from(swr)));
                                    assert!(max_age.is_none() || max_stale.is_some());
                                }
                            }
                        }
                    }
                }
            }
        }
        assert!(judged > 20_000 && served > 1_000, "{judged} {served}");
    }

    proptest! {
        #[test]
        fn no_times_overflow(born: i64, lifetime_s: u32, swr: u32, sie: u32, now: i64, max_stale: u32, max_age: u32) {
            let terms = Terms {
                born: WallTime::from_micros(born),
                lifetime_s,
                stale_while_revalidate_s: swr,
                stale_if_error_s: Some(sie),
                ..PLAIN
            };
            let request = RequestControl { max_stale: Some(max_stale), max_age: Some(max_age), ..NONE };
            let now = WallTime::from_micros(now);
            let decision = decide(&terms, &request, now, false);
            let _ = (decision.reading.age_s(), decision.reading.ttl_s());
            let _ = on_failure(&terms, &request, Failure::Unreachable, now, swr);
        }
    }
}

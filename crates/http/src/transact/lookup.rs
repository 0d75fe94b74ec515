//! What to do with what a look-up found, or did not find (RFC 9111 §4).

use base::WallTime;

use crate::rules::caching::serve::{Absent, Cause, absent, decide};
use crate::rules::caching::{Decision, Forwarded, RequestControl, Terms, Use};
use crate::wire::Method;

/// What a request asks of the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    /// What it says in `Cache-Control`.
    pub control: RequestControl,
    /// GET or HEAD.
    pub method: Method,
    /// It wants a part.
    pub is_range: bool,
}

/// With whom an origin is asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Company {
    /// Alone, with the client's own conditions, and nothing is stored.
    Alone,
    /// Others may wait for what comes; we wait for nobody, for what others asked for earlier is not what is wanted.
    Lead,
    /// One for all who want the same.
    Any,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// What is stored is the answer.
    Serve(Decision),
    /// What is stored is the answer, and is to be validated meanwhile.
    ServeAndRefresh(Decision),
    /// The origin is asked.
    Fetch {
        /// What `Cache-Status` says.
        why: Forwarded,
        /// Whether together with others.
        company: Company,
    },
    /// The origin would have to be asked, and the client does not want that.
    GatewayTimeout,
}

/// Judges a stored response that the request selected. `marked_stale`: somebody said so since.
#[inline]
#[must_use]
pub fn found(terms: &Terms, marked_stale: bool, wish: &Wish, now: WallTime) -> Step {
    let decision = decide(terms, &wish.control, now, marked_stale);
    let cause = match decision.verdict {
        Use::Fresh | Use::StaleAccepted => return Step::Serve(decision),
        // A HEAD would bring no content if something changed.
        Use::StaleWhileRevalidate if wish.method == Method::Head => return Step::Serve(decision),
        Use::StaleWhileRevalidate => return Step::ServeAndRefresh(decision),
        Use::GatewayTimeout => return Step::GatewayTimeout,
        Use::Revalidate(cause) => cause,
    };
    // What another's question brought is old again the moment it comes, if it has no lifetime.
    let is_shareable = cause == Cause::Stale && terms.lifetime_s > 0;
    let company = if wish.method == Method::Head || wish.control.no_store {
        Company::Alone
    } else if is_shareable {
        Company::Any
    } else {
        Company::Lead
    };
    Step::Fetch { why: if cause == Cause::Request { Forwarded::Request } else { Forwarded::Stale }, company }
}

/// Judges a request for which nothing was selected. `why` says whether nothing is stored, or nothing that fits.
#[must_use]
pub fn missed(why: Forwarded, wish: &Wish) -> Step {
    match absent(&wish.control) {
        Absent::GatewayTimeout => Step::GatewayTimeout,
        Absent::Forward => {
            // Of a part nothing could be stored, and for the whole nobody asked.
            let is_alone = wish.method == Method::Head || wish.is_range || wish.control.no_store;
            Step::Fetch { why, company: if is_alone { Company::Alone } else { Company::Any } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms {
        born: WallTime::from_secs(1_000),
        lifetime_s: 100,
        stale_while_revalidate_s: 0,
        stale_if_error_s: None,
        no_cache: false,
        must_revalidate: false,
        s_maxage: false,
    };

    fn every_wish() -> Vec<Wish> {
        let mut all = Vec::new();
        for bits in 0..32_u32 {
            let bit = |n: u32| bits & (1 << n) != 0;
            all.push(Wish {
                control: RequestControl {
                    no_store: bit(0),
                    only_if_cached: bit(1),
                    no_cache: bit(2),
                    ..RequestControl::default()
                },
                method: if bit(3) { Method::Head } else { Method::Get },
                is_range: bit(4),
            });
        }
        all
    }

    #[test]
    fn only_whole_gets_that_may_be_stored_are_asked_for_together() {
        for wish in every_wish() {
            let step = missed(Forwarded::UriMiss, &wish);
            let alone = wish.method == Method::Head || wish.is_range || wish.control.no_store;
            let expected = match (wish.control.only_if_cached, alone) {
                (true, _) => Step::GatewayTimeout,
                (false, true) => Step::Fetch { why: Forwarded::UriMiss, company: Company::Alone },
                (false, false) => Step::Fetch { why: Forwarded::UriMiss, company: Company::Any },
            };
            assert_eq!(step, expected, "{wish:?}");
        }
    }

    #[test]
    fn nobody_who_asked_for_validation_is_served_without_it_or_by_anothers() {
        for wish in every_wish() {
            for (terms, age) in [(TERMS, 10), (TERMS, 150), (Terms { no_cache: true, ..TERMS }, 10)] {
                let now = WallTime::from_secs(1_000 + age);
                let step = found(&terms, false, &wish, now);
                let must_ask = wish.control.no_cache || terms.no_cache;
                match step {
                    Step::Serve(_) | Step::ServeAndRefresh(_) => assert!(!must_ask && age < 100, "{wish:?}"),
                    Step::GatewayTimeout => assert!(wish.control.only_if_cached, "{wish:?}"),
                    Step::Fetch { company, why } => {
                        assert!(!wish.control.only_if_cached, "{wish:?}");
                        assert!(company != Company::Any || !must_ask, "{wish:?}");
                        assert_eq!(why == Forwarded::Request, wish.control.no_cache, "{wish:?}");
                        let alone = wish.method == Method::Head || wish.control.no_store;
                        assert_eq!(company == Company::Alone, alone, "{wish:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_stale_at_once_is_not_waited_for() {
        let wish = Wish { control: RequestControl::default(), method: Method::Get, is_range: false };
        let now = WallTime::from_secs(1_200);
        let company = |terms: &Terms| match found(terms, false, &wish, now) {
            Step::Fetch { company, .. } => company,
            step => panic!("{step:?}"),
        };
        assert_eq!(company(&TERMS), Company::Any);
        assert_eq!(company(&Terms { lifetime_s: 0, ..TERMS }), Company::Lead);
        assert_eq!(company(&Terms { no_cache: true, ..TERMS }), Company::Lead);
    }

    #[test]
    fn one_get_validates_what_is_served_stale_meanwhile_and_a_head_none() {
        let terms = Terms { stale_while_revalidate_s: 60, ..TERMS };
        let now = WallTime::from_secs(1_120);
        for (method, refreshes) in [(Method::Get, true), (Method::Head, false)] {
            let wish = Wish { control: RequestControl::default(), method, is_range: false };
            match found(&terms, false, &wish, now) {
                Step::ServeAndRefresh(decision) => assert!(refreshes && decision.verdict == Use::StaleWhileRevalidate),
                Step::Serve(decision) => assert!(!refreshes && decision.verdict == Use::StaleWhileRevalidate),
                step => panic!("{step:?}"),
            }
        }
    }
}

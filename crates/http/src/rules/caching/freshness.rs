//! How long a response is fresh, and how old it is (RFC 9111 §4.2).
//!
//! Both are found once, when the response arrives. Age is kept as the moment the response was *born*: reception minus
//! the age it had then. The current age at any time later is one subtraction.

use base::WallTime;

use super::cache_control::{DELTA_MAX, ResponseControl, delta_seconds};
use super::{Exchange, micros};
use crate::rules::date;
use crate::wire::field::Known;
use crate::wire::h1::ResponseHead;

/// The most that the heuristic gives: a day. A file unchanged for ten years is not fresh for one.
pub const HEURISTIC_MAX: u32 = 86_400;
/// The heuristic gives one part in so many of the time since the last change, as RFC 9111 §4.2.2 suggests.
pub const HEURISTIC_FRACTION: i64 = 10;

/// What a lifetime rests on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Basis {
    /// `s-maxage`
    SharedMaxAge,
    /// `max-age`
    MaxAge,
    /// `Expires`
    Expires,
    /// `Last-Modified`
    Heuristic,
    /// Nothing: the response is stale at once.
    None,
}

impl Basis {
    /// Did the origin say it?
    #[must_use]
    pub const fn is_explicit(self) -> bool {
        matches!(self, Self::SharedMaxAge | Self::MaxAge | Self::Expires)
    }
}

/// How long a response stays fresh, counted from its birth, in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetime {
    /// At most [`DELTA_MAX`].
    pub secs: u32,
    /// Where it comes from.
    pub basis: Basis,
}

/// When a response was made and when it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dating {
    /// `Date` in seconds since 1970; the time of reception when there is none that can be read (RFC 9110 §6.6.1).
    pub date_s: i64,
    /// `Date` is there and can be read.
    pub has_date: bool,
    /// The moment at which its age was zero (RFC 9111 §4.2.3).
    pub born: WallTime,
}

impl Dating {
    /// `corrected_initial_age` of §4.2.3, from `Date`, `Age` and the time the exchange took.
    #[must_use]
    pub fn of(exchange: &Exchange<'_>) -> Self {
        let (head, text) = (exchange.response, exchange.response_text);
        let (sent, received) = (exchange.request_time.as_micros(), exchange.response_time.as_micros());
        let received_s = exchange.response_time.as_secs();
        let date = head.find(Known::Date, text).next().and_then(|value| date::parse(value, received_s));
        let date_s = date.unwrap_or(received_s);
        let apparent_age = micros(seconds(received_s.saturating_sub(date_s)));
        let response_delay = received.saturating_sub(sent).max(0);
        let corrected_age = micros(age_field(head, text)).saturating_add(response_delay);
        let born = WallTime::from_micros(received.saturating_sub(apparent_age.max(corrected_age)));
        Self { date_s, has_date: date.is_some(), born }
    }
}

/// `Age` (RFC 9111 §5.1): the first member of the first line; zero when it is absent or cannot be read.
#[must_use]
pub fn age_field(head: &ResponseHead, text: &[u8]) -> u32 {
    let first = head.find(Known::Age, text).next().and_then(|value| value.split(|&b| b == b',').next());
    first.and_then(|value| delta_seconds(value.trim_ascii())).unwrap_or(0)
}

/// The freshness lifetime (§4.2.1), in the order of a shared cache: `s-maxage`, `max-age`, `Expires` − `Date`, then the
/// heuristic of §4.2.2, at most [`HEURISTIC_MAX`].
///
/// The heuristic wants a `Last-Modified` before `Date`, and a status that is [`is_heuristically_cacheable`] or an
/// explicit `public`. Without it there is no lifetime: none is ever made up. An `Expires` that cannot be read is in the
/// past (§5.3).
#[must_use]
pub fn lifetime(control: &ResponseControl, head: &ResponseHead, text: &[u8], dating: &Dating) -> Lifetime {
    if let Some(secs) = control.s_maxage {
        return Lifetime { secs, basis: Basis::SharedMaxAge };
    }
    if let Some(secs) = control.max_age {
        return Lifetime { secs, basis: Basis::MaxAge };
    }
    if let Some(value) = head.find(Known::Expires, text).next() {
        let expires = date::parse(value, dating.date_s).unwrap_or(i64::MIN);
        return Lifetime { secs: seconds(expires.saturating_sub(dating.date_s)), basis: Basis::Expires };
    }
    let may_guess = control.public || is_heuristically_cacheable(head.status());
    let changed = head.find(Known::LastModified, text).next().and_then(|value| date::parse(value, dating.date_s));
    match changed {
        Some(changed) if may_guess && changed < dating.date_s => {
            let secs = seconds((dating.date_s - changed) / HEURISTIC_FRACTION).min(HEURISTIC_MAX);
            Lifetime { secs, basis: Basis::Heuristic }
        }
        _ => Lifetime { secs: 0, basis: Basis::None },
    }
}

/// The status codes that RFC 9110 §15.1 lists.
#[must_use]
pub const fn is_heuristically_cacheable(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Not below zero, not above [`DELTA_MAX`].
fn seconds(difference: i64) -> u32 {
    u32::try_from(difference.clamp(0, i64::from(DELTA_MAX))).unwrap_or(DELTA_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::caching::tests::{NOW, NOW_S, date_line, exchanged, response};

    fn life(status: u16, lines: &str) -> (u32, Basis) {
        exchanged("", status, lines, |exchange| {
            let control = ResponseControl::of(exchange.response, exchange.response_text);
            let found = lifetime(&control, exchange.response, exchange.response_text, &Dating::of(exchange));
            (found.secs, found.basis)
        })
    }

    #[test]
    fn the_lifetime_is_that_of_the_first_rule_that_applies() {
        let date = date_line("Date", 0);
        let expires = date_line("Expires", 100);
        let changed = date_line("Last-Modified", -1000);
        let both = format!("{date}{expires}{changed}");
        for (lines, expected) in [
            (String::new(), (0, Basis::None)),
            (date.clone(), (0, Basis::None)),
            (format!("{both}Cache-Control: max-age=5, s-maxage=7\r\n"), (7, Basis::SharedMaxAge)),
            (format!("{both}Cache-Control: s-maxage=0, max-age=5\r\n"), (0, Basis::SharedMaxAge)),
            (format!("{both}Cache-Control: max-age=5\r\n"), (5, Basis::MaxAge)),
            (format!("{both}Cache-Control: max-age=x\r\n"), (0, Basis::MaxAge)),
            (format!("{both}Cache-Control: public\r\n"), (100, Basis::Expires)),
            (both.clone(), (100, Basis::Expires)),
            (format!("{date}Expires: 0\r\n{changed}"), (0, Basis::Expires)),
            (format!("{date}Expires: -1\r\n"), (0, Basis::Expires)),
            (format!("{date}Expires:\r\n"), (0, Basis::Expires)),
            (format!("{date}Expires: tomorrow\r\n"), (0, Basis::Expires)),
            (format!("{date}{}", date_line("Expires", -5)), (0, Basis::Expires)),
            // Expires is compared with Date, not with our clock...
            (format!("{}{}", date_line("Date", -500), date_line("Expires", -400)), (100, Basis::Expires)),
            // ...but with our clock when there is no Date, or none that can be read.
            (expires.clone(), (100, Basis::Expires)),
            (format!("Date: x\r\n{expires}"), (100, Basis::Expires)),
            // the first of two
            (format!("{date}{}{expires}", date_line("Expires", 50)), (50, Basis::Expires)),
            (format!("{date}{changed}"), (100, Basis::Heuristic)),
            (changed.clone(), (100, Basis::Heuristic)),
            (format!("{date}{}", date_line("Last-Modified", -9)), (0, Basis::Heuristic)),
            (format!("{date}{}", date_line("Last-Modified", 0)), (0, Basis::None)),
            (format!("{date}{}", date_line("Last-Modified", 5)), (0, Basis::None)),
            (format!("{date}{}", date_line("Last-Modified", -864_000)), (86_400, Basis::Heuristic)),
            (format!("{date}{}", date_line("Last-Modified", -864_010)), (86_400, Basis::Heuristic)),
            (format!("{date}Last-Modified: x\r\n"), (0, Basis::None)),
        ] {
            assert_eq!(life(200, &lines), expected, "{lines}");
        }
    }

    #[test]
    fn only_some_codes_have_a_heuristic_unless_the_origin_says_public() {
        let lines = format!("{}{}", date_line("Date", 0), date_line("Last-Modified", -1000));
        for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
            assert_eq!(life(status, &lines), (100, Basis::Heuristic), "{status}");
        }
        for status in [201, 202, 302, 303, 307, 400, 401, 403, 451, 500, 502, 503, 504, 599, 299] {
            assert_eq!(life(status, &lines), (0, Basis::None), "{status}");
            assert_eq!(life(status, &format!("{lines}Cache-Control: public\r\n")), (100, Basis::Heuristic), "{status}");
            assert_eq!(life(status, "Cache-Control: max-age=3\r\n"), (3, Basis::MaxAge), "{status}");
        }
    }

    #[test]
    fn age_is_the_larger_of_what_dates_and_what_the_field_say() {
        // RFC 9111 §4.2.3. The exchange takes half a second.
        let born = |lines: &str| {
            exchanged("", 200, lines, |e| {
                let dating = Dating::of(e);
                assert_eq!(dating.date_s, if dating.has_date { dating.date_s } else { NOW_S });
                (NOW.as_micros() - dating.born.as_micros(), dating.has_date)
            })
        };
        for (lines, expected) in [
            (String::new(), (500_000, false)),
            (date_line("Date", 0), (500_000, true)),
            (date_line("Date", -7), (7_000_000, true)),
            (date_line("Date", 7), (500_000, true)),
            ("Date: x\r\n".to_owned(), (500_000, false)),
            (format!("{}Age: 9\r\n", date_line("Date", -7)), (9_500_000, true)),
            (format!("{}Age: 6\r\n", date_line("Date", -7)), (7_000_000, true)),
            ("Age: 9, 20\r\n".to_owned(), (9_500_000, false)),
            ("Age: 9\r\nAge: 20\r\n".to_owned(), (9_500_000, false)),
            ("Age: x\r\n".to_owned(), (500_000, false)),
            ("Age: -9\r\n".to_owned(), (500_000, false)),
            ("Age: 9.5\r\n".to_owned(), (500_000, false)),
            ("Age: 99999999999\r\n".to_owned(), (2_147_483_648_500_000, false)),
        ] {
            assert_eq!(born(&lines), expected, "{lines}");
        }
    }

    #[test]
    fn a_clock_that_went_back_during_the_exchange_makes_nothing_younger() {
        let (head, text) = response(200, "Age: 3\r\n");
        exchanged("", 200, "", |exchange| {
            let odd = Exchange {
                response: &head,
                response_text: &text,
                request_time: WallTime::from_micros(i64::MAX),
                response_time: WallTime::from_secs(10),
                ..*exchange
            };
            assert_eq!(Dating::of(&odd).born, WallTime::from_secs(7));
            let odd = Exchange { request_time: WallTime::from_micros(i64::MIN), ..odd };
            assert!(Dating::of(&odd).born < WallTime::from_secs(7));
        });
    }
}

//! Dates of HTTP (RFC 9110 §5.6.7): written in one form, read in three.

/// `Sun, 06 Nov 1994 08:49:37 GMT`
pub const IMF_FIXDATE_LEN: usize = 29;

const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const LONG_DAYS: [&[u8]; 7] = [b"Thursday", b"Friday", b"Saturday", b"Sunday", b"Monday", b"Tuesday", b"Wednesday"];
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
const SECS_PER_DAY: i64 = 86_400;
/// 9999-12-31T23:59:59Z, the last second that four digits can say.
const SECS_MAX: i64 = 253_402_300_799;

/// The IMF-fixdate of a moment in seconds since 1970. Moments before 1970 and after 9999 are cut to the nearest that is
/// not.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "every number is below 10,000 and positive"
)]
pub fn format(secs: i64) -> [u8; IMF_FIXDATE_LEN] {
    let secs = secs.clamp(0, SECS_MAX);
    let (days, second) = (secs / SECS_PER_DAY, secs % SECS_PER_DAY);
    let (year, month, day) = civil(days);
    let mut out = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    out[..3].copy_from_slice(DAYS[(days % 7) as usize]);
    put2(&mut out[5..7], day as u8);
    out[8..11].copy_from_slice(MONTHS[(month - 1) as usize]);
    put2(&mut out[12..14], (year / 100) as u8);
    put2(&mut out[14..16], (year % 100) as u8);
    put2(&mut out[17..19], (second / 3600) as u8);
    put2(&mut out[20..22], (second / 60 % 60) as u8);
    put2(&mut out[23..25], (second % 60) as u8);
    out
}

/// Seconds since 1970 of a date in any of the three forms: IMF-fixdate, RFC 850, asctime. `now_secs` decides the century
/// of the second form: a date more than 50 years ahead is one of the past.
///
/// `None` for everything else, also for 30 February, hour 24 or a wrong name of the day in the long form. The short name
/// of the day is not compared with the date. A leap second counts as the second before it.
#[must_use]
pub fn parse(text: &[u8], now_secs: i64) -> Option<i64> {
    match text {
        [_, _, _, b',', b' ', rest @ ..] => {
            DAYS.contains(&text.first_chunk()?).then_some(())?;
            imf_fixdate(rest)
        }
        [_, _, _, b' ', rest @ ..] => {
            DAYS.contains(&text.first_chunk()?).then_some(())?;
            asctime(rest)
        }
        _ => {
            let comma = memchr::memchr(b',', text)?;
            LONG_DAYS.contains(&&text[..comma]).then_some(())?;
            rfc850(text[comma + 1..].strip_prefix(b" ")?, now_secs)
        }
    }
}

/// `06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(text: &[u8]) -> Option<i64> {
    let text: &[u8; 24] = text.try_into().ok()?;
    (text[2] == b' ' && text[6] == b' ' && text[11] == b' ' && &text[20..] == b" GMT").then_some(())?;
    let year = digits(&text[7..11])?;
    moment(year, month(&text[3..6])?, digits(&text[..2])?, &text[12..20])
}

/// `06-Nov-94 08:49:37 GMT`
fn rfc850(text: &[u8], now_secs: i64) -> Option<i64> {
    let text: &[u8; 22] = text.try_into().ok()?;
    (text[2] == b'-' && text[6] == b'-' && text[9] == b' ' && &text[18..] == b" GMT").then_some(())?;
    let (this_year, _, _) = civil(now_secs.clamp(0, SECS_MAX) / SECS_PER_DAY);
    let mut year = this_year - this_year % 100 + digits(&text[7..9])?;
    if year > this_year + 50 {
        year -= 100;
    }
    moment(year, month(&text[3..6])?, digits(&text[..2])?, &text[10..18])
}

/// `Nov  6 08:49:37 1994`
fn asctime(text: &[u8]) -> Option<i64> {
    let text: &[u8; 20] = text.try_into().ok()?;
    (text[3] == b' ' && text[6] == b' ' && text[15] == b' ').then_some(())?;
    let day = if text[4] == b' ' { digits(&text[5..6])? } else { digits(&text[4..6])? };
    moment(digits(&text[16..])?, month(&text[..3])?, day, &text[7..15])
}

fn moment(year: i64, month: i64, day: i64, time: &[u8]) -> Option<i64> {
    (time.len() == 8 && time[2] == b':' && time[5] == b':').then_some(())?;
    let (hour, minute, second) = (digits(&time[..2])?, digits(&time[3..5])?, digits(&time[6..])?);
    let is_day = (1..=days_in(year, month)).contains(&day);
    (hour < 24 && minute < 60 && second <= 60 && is_day).then_some(())?;
    Some(days_from_civil(year, month, day) * SECS_PER_DAY + hour * 3600 + minute * 60 + second.min(59))
}

/// How many days a month of the Gregorian calendar has.
const fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

fn month(name: &[u8]) -> Option<i64> {
    MONTHS.iter().position(|month| month.as_slice() == name).and_then(|at| i64::try_from(at + 1).ok())
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
}

fn put2(out: &mut [u8], n: u8) {
    out[0] = b'0' + n / 10 % 10;
    out[1] = b'0' + n % 10;
}

/// Year, month and day of a day since 1970 (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-21
    const NOW: i64 = 1_795_219_200;

    #[test]
    fn the_three_forms_of_the_standard_say_the_same() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse(text.as_bytes(), NOW), Some(784_111_777), "{text}");
        }
        assert_eq!(&format(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&format(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(&format(i64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(&format(-5), &format(0));
    }

    #[test]
    fn a_two_digit_year_is_at_most_fifty_years_ahead() {
        let year = |text: &str| parse(text.as_bytes(), NOW).map(|secs| civil(secs / SECS_PER_DAY).0);
        assert_eq!(year("Sunday, 06-Nov-76 08:49:37 GMT"), Some(2076));
        assert_eq!(year("Sunday, 06-Nov-77 08:49:37 GMT"), Some(1977));
        assert_eq!(year("Sunday, 06-Nov-26 08:49:37 GMT"), Some(2026));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "0",
            "-1",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 30 Feb 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Xxx, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sunnyday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            "Sun, \u{e9} Nov 1994 08:49:37 GMT",
            "Sun, 31 Apr 2023 00:00:00 GMT",
        ] {
            assert_eq!(parse(text.as_bytes(), NOW), None, "{text}");
        }
        assert!(parse(b"Thu, 29 Feb 2024 23:59:60 GMT", NOW).is_some());
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(secs in 0..=SECS_MAX) {
            prop_assert_eq!(parse(&format(secs), NOW), Some(secs));
        }

        #[test]
        fn no_text_panics(text in prop::collection::vec(any::<u8>(), 0..40), now: i64) {
            let _ = parse(&text, now);
        }
    }

    #[test]
    fn every_month_has_the_days_of_the_calendar() {
        for year in 0..10_000 {
            for month in 1..=12 {
                let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                let days = days_from_civil(next_year, next_month, 1) - days_from_civil(year, month, 1);
                assert_eq!(days_in(year, month), days, "{year}-{month}");
            }
        }
    }
}

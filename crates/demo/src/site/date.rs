//! Dates as HTTP writes them (RFC 9110 §5.6.7).

use base::WallTime;
use std::fmt;

/// Prints as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(super) struct Imf(pub(super) WallTime);

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl fmt::Display for Imf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, of_month) = civil(day);
        let name = |names: &'static [&str], at: i64| usize::try_from(at).ok().and_then(|at| names.get(at).copied());
        let weekday = name(&DAYS, day.rem_euclid(7)).unwrap_or("Thu");
        let month = name(&MONTHS, month - 1).unwrap_or("Jan");
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{weekday}, {of_month:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
    }
}

/// Year, month from 1, day from 1 of the day so many days after 1970-01-01.
///
/// Counts from the first of March of the year 0, so that the leap day is a year's last, in eras of 400 years.
fn civil(day: i64) -> (i64, i64, i64) {
    const TO_1970: i64 = 719_468;
    const ERA: i64 = 146_097;
    let day = day + TO_1970;
    let (era, of_era) = (day.div_euclid(ERA), day.rem_euclid(ERA));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, of_month)
}

#[test]
fn dates_are_written_as_http_wants_them() {
    let of = |seconds| Imf(WallTime::from_secs(seconds)).to_string();
    assert_eq!(of(0), "Thu, 01 Jan 1970 00:00:00 GMT");
    assert_eq!(of(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(of(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
    assert_eq!(of(4_107_542_399), "Sun, 28 Feb 2100 23:59:59 GMT");
    assert_eq!(of(4_107_542_400), "Mon, 01 Mar 2100 00:00:00 GMT");
    assert_eq!(of(-1), "Wed, 31 Dec 1969 23:59:59 GMT");
}

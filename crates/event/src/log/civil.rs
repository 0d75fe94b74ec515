//! Civil time in UTC, and digits, as log lines need them: without allocation and without a time zone database.

use base::WallTime;

/// A moment of civil time in UTC, broken down (proleptic Gregorian calendar).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Civil {
    /// The year; four digits from 1000 to 9999.
    pub year: i64,
    /// 1 to 12.
    pub month: i64,
    /// 1 to 31.
    pub day: i64,
    /// 0 to 23.
    pub hour: i64,
    /// 0 to 59.
    pub minute: i64,
    /// 0 to 59: civil time as computers count it has no leap seconds.
    pub second: i64,
    /// 0 is Sunday.
    pub weekday: i64,
}

impl Civil {
    /// From seconds since 1970.
    ///
    /// Days are counted from 1 March of year 0, so that the leap day comes last; 400 years have 146,097 days
    /// (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    #[must_use]
    pub const fn of(secs: i64) -> Self {
        let (days, second_of_day) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
        let from_march = days + 719_468;
        let (era, day_of_era) = (from_march.div_euclid(146_097), from_march.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Self {
            year: year_of_era + era * 400 + if month <= 2 { 1 } else { 0 },
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: second_of_day / 3_600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
            weekday: (days + 4).rem_euclid(7),
        }
    }

    /// Appends the moment as RFC 3339 with milliseconds: `2026-11-22T00:11:22.123Z`.
    pub fn append_rfc3339(time: WallTime, out: &mut Vec<u8>) {
        let civil = Self::of(time.as_secs());
        append_padded(out, civil.year.unsigned_abs(), 4);
        for (mark, part) in
            [(b'-', civil.month), (b'-', civil.day), (b'T', civil.hour), (b':', civil.minute), (b':', civil.second)]
        {
            out.push(mark);
            append_padded(out, part.unsigned_abs(), 2);
        }
        out.push(b'.');
        append_padded(out, time.subsec_millis().unsigned_abs(), 3);
        out.push(b'Z');
    }
}

/// Appends a number in decimal.
#[inline]
pub fn append_number(out: &mut Vec<u8>, n: u64) {
    append_padded(out, n, 1);
}

/// Appends a number in decimal, with zeros before it when it has fewer digits than `width` (at most 20).
#[inline]
pub fn append_padded(out: &mut Vec<u8>, mut n: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while n > 0 {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
    }
    out.extend_from_slice(&digits[at.min(digits.len() - width.min(digits.len()))..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_are_told_right() {
        let told = |micros| {
            let mut out = Vec::new();
            Civil::append_rfc3339(WallTime::from_micros(micros), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(told(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(told(951_782_399_999_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(told(951_782_400_000_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(told(1_798_761_599_000_000), "2026-12-31T23:59:59.000Z");
        assert_eq!(told(4_107_542_400_000_000), "2100-03-01T00:00:00.000Z");
        assert_eq!(told(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(Civil::of(784_111_777).weekday, 0, "the date of RFC 9110 is a Sunday");
    }

    #[test]
    fn days_follow_one_another_through_four_hundred_years() {
        let mut before = Civil::of(-86_400);
        for day in 0..146_097 {
            let now = Civil::of(day * 86_400);
            let next = now.day == before.day + 1 && now.month == before.month;
            let turn = now.day == 1 && (now.month == before.month + 1 || (now.month == 1 && before.month == 12));
            assert!(next || turn, "{before:?} then {now:?}");
            assert_eq!(now.weekday, (before.weekday + 1) % 7);
            before = now;
        }
    }

    #[test]
    fn numbers_have_all_their_digits_and_the_zeros_asked_for() {
        for (n, width, text) in [(0, 1, "0"), (7, 2, "07"), (1234, 2, "1234"), (u64::MAX, 1, "18446744073709551615")] {
            let mut out = Vec::new();
            append_padded(&mut out, n, width);
            assert_eq!(out, text.as_bytes());
        }
    }
}

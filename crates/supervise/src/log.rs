//! The log lines of stub, cop, manager and the server's main thread, on standard error, never waiting for a reader.
//!
//! `2026-11-21T10:03:04.123Z traffic_manager[4711] info: text`. A line that could not be written is counted, and the
//! next one that can be says how many were lost. Event threads do not log here.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use base::{Clock, SystemClock, WallTime};
use serde::{Deserialize, Serialize};
use sys::daemon::ErrorStream;

/// How grave a line is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Level {
    /// For who looks for a fault.
    Debug = 0,
    /// What happened.
    Info = 1,
    /// What an operator should look at.
    Warning = 2,
    /// What did not work.
    Error = 3,
}

impl Level {
    /// As it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl std::str::FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(word: &str) -> Result<Self, UnknownLevel> {
        Ok(match word {
            "debug" => Self::Debug,
            "info" => Self::Info,
            "warn" | "warning" => Self::Warning,
            "error" => Self::Error,
            _ => return Err(UnknownLevel),
        })
    }
}

/// A word that is no level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a level is one of error, warn, info, debug")]
pub struct UnknownLevel;

impl From<config::Level> for Level {
    fn from(level: config::Level) -> Self {
        match level {
            config::Level::Error => Self::Error,
            config::Level::Warn => Self::Warning,
            config::Level::Info => Self::Info,
            config::Level::Debug => Self::Debug,
        }
    }
}

/// The longest line; a longer one is cut. A pipe takes up to 4096 bytes whole.
const LINE_MAX: usize = 4096;

static NAME: OnceLock<&'static str> = OnceLock::new();
static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static LOST: AtomicU64 = AtomicU64::new(0);
static STREAM: Mutex<Option<ErrorStream>> = Mutex::new(None);

/// Says who writes. The first call counts.
pub fn begin(name: &'static str) {
    let _ = NAME.set(name); // a second name would be a mistake of ours, and the first is as good
    reopen();
}

/// Who writes, as [`begin`] was told.
#[must_use]
pub fn name() -> &'static str {
    NAME.get().copied().unwrap_or("beltway")
}

/// Lines below `level` are not written.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// The level that is written from.
#[must_use]
pub fn level() -> Level {
    match LEVEL.load(Ordering::Relaxed) {
        0 => Level::Debug,
        1 => Level::Info,
        2 => Level::Warning,
        _ => Level::Error,
    }
}

/// Standard error was redirected: look at it again.
pub fn reopen() {
    *STREAM.lock().unwrap_or_else(PoisonError::into_inner) = Some(ErrorStream::open());
}

/// Lines lost so far because nobody read them in time.
#[must_use]
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Writes a line; [`info!`](crate::info), [`warn!`](crate::warn) and [`error!`](crate::error) call it.
pub fn write(level: Level, text: fmt::Arguments<'_>) {
    if (level as u8) < LEVEL.load(Ordering::Relaxed) {
        return;
    }
    let name = name();
    let mut stream = STREAM.lock().unwrap_or_else(PoisonError::into_inner);
    let stream = stream.get_or_insert_with(ErrorStream::open);
    let now = SystemClock.wall();
    let lost = LOST.swap(0, Ordering::Relaxed);
    if lost > 0 {
        let line = line(now, name, Level::Warning, format_args!("{lost} lines were lost: nobody read them in time"));
        if !stream.write_line(line.as_bytes()) {
            LOST.fetch_add(lost, Ordering::Relaxed);
        }
    }
    if !stream.write_line(line(now, name, level, text).as_bytes()) {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

fn line(now: WallTime, name: &str, level: Level, text: fmt::Arguments<'_>) -> String {
    let mut line = format!("{} {name}[{}] {}: {text}", timestamp(now), std::process::id(), level.as_str());
    if line.len() >= LINE_MAX {
        let mut end = LINE_MAX - 1;
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
    }
    line.push('\n');
    line
}

/// RFC 3339 in UTC with milliseconds.
#[must_use]
pub fn timestamp(at: WallTime) -> String {
    let seconds = at.as_secs();
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", at.subsec_millis())
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar (years that begin in March make
/// the leap day the last one).
const fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + (month <= 2) as i64, month, day)
}

/// Writes a line for who looks for a fault.
#[macro_export]
macro_rules! debug {
    ($($text:tt)*) => { $crate::log::write($crate::log::Level::Debug, format_args!($($text)*)) };
}

/// Writes a line that says what happened.
#[macro_export]
macro_rules! info {
    ($($text:tt)*) => { $crate::log::write($crate::log::Level::Info, format_args!($($text)*)) };
}

/// Writes a line that an operator should look at.
#[macro_export]
macro_rules! warn {
    ($($text:tt)*) => { $crate::log::write($crate::log::Level::Warning, format_args!($($text)*)) };
}

/// Writes a line that says what did not work.
#[macro_export]
macro_rules! error {
    ($($text:tt)*) => { $crate::log::write($crate::log::Level::Error, format_args!($($text)*)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(timestamp(WallTime::from_secs(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(WallTime::from_micros(951_782_400_123_456)), "2000-02-29T00:00:00.123Z");
        assert_eq!(timestamp(WallTime::from_secs(4_107_542_399)), "2100-02-28T23:59:59.000Z");
        assert_eq!(timestamp(WallTime::from_secs(4_107_542_400)), "2100-03-01T00:00:00.000Z");
        assert_eq!(timestamp(WallTime::from_micros(-1)), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_long_line_is_cut_at_a_character_and_still_ends() {
        let text = "é".repeat(LINE_MAX);
        let line = line(WallTime::from_secs(0), "x", Level::Info, format_args!("{text}"));
        assert!(line.len() <= LINE_MAX && line.ends_with("é\n"), "{}", line.len());
    }
}

//! Monotonic and wall-clock time as plain values, and the two clocks that make them.

use std::cell::Cell;
use std::fmt;
use std::ops::{Add, Sub};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment on the monotonic clock, in nanoseconds since an arbitrary origin that all clocks of a process share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The origin: earlier than or equal to every other moment.
    pub const ORIGIN: Self = Self(0);
    /// Later than anything a clock will say (584 years after the origin).
    pub const FAR_FUTURE: Self = Self(u64::MAX);

    /// The moment `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero when `earlier` is in fact later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at [`Instant::FAR_FUTURE`].
    fn add(self, rhs: Duration) -> Self {
        let nanos = rhs.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(rhs.subsec_nanos()));
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// As [`Instant::since`]: never negative.
    fn sub(self, rhs: Self) -> Duration {
        self.since(rhs)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// Civil time: microseconds since 1970-01-01T00:00:00Z. May jump; never used to measure a wait.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct WallTime(i64);

impl WallTime {
    /// From microseconds since the epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From whole seconds since the epoch.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The millisecond within the second, 0 to 999.
    #[must_use]
    pub const fn subsec_millis(self) -> i64 {
        self.0.rem_euclid(1_000_000) / 1_000
    }
}

/// Where time comes from. Drivers hold one; rules and state machines take the values it yields.
pub trait Clock {
    /// The monotonic moment now. Never goes back.
    fn now(&self) -> Instant;
    /// The civil time now. May jump in both directions.
    fn wall(&self) -> WallTime;
}

/// The machine's own clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[inline]
    #[expect(clippy::disallowed_methods, reason = "this is the clock that others are told to take")]
    fn now(&self) -> Instant {
        use std::sync::OnceLock;
        static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
        let now = std::time::Instant::now();
        let origin = ORIGIN.get_or_init(|| now);
        // One past the origin, so that a moment read from a clock never equals `Instant::ORIGIN`.
        let nanos = now.saturating_duration_since(*origin).as_nanos();
        Instant(u64::try_from(nanos).unwrap_or(u64::MAX - 1).saturating_add(1))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock that others are told to take")]
    fn wall(&self) -> WallTime {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |m| -m),
        };
        WallTime(micros)
    }
}

/// A clock that stands still until it is told to move: for tests and simulation. Clones share their time.
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    now: Rc<Cell<u64>>,
    wall: Rc<Cell<i64>>,
}

impl ManualClock {
    /// A clock at the monotonic origin plus one second and the given civil time.
    #[must_use]
    pub fn new(wall: WallTime) -> Self {
        Self { now: Rc::new(Cell::new(1_000_000_000)), wall: Rc::new(Cell::new(wall.0)) }
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        self.now.set((Instant(self.now.get()) + by).0);
        self.wall.set(self.wall.get().saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)));
    }

    /// Moves the monotonic clock to `to`, and civil time with it; does nothing when `to` is past.
    pub fn advance_to(&self, to: Instant) {
        self.advance(to.since(self.now()));
    }

    /// Makes civil time jump, as an administrator or a time server does.
    pub fn set_wall(&self, wall: WallTime) {
        self.wall.set(wall.0);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        Instant(self.now.get())
    }

    fn wall(&self) -> WallTime {
        WallTime(self.wall.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_between_two_moments_is_never_negative() {
        let early = Instant::from_nanos(10);
        let late = early + Duration::from_nanos(5);
        assert_eq!(late - early, Duration::from_nanos(5));
        assert_eq!(early - late, Duration::ZERO);
        assert_eq!(Instant::FAR_FUTURE + Duration::from_secs(1), Instant::FAR_FUTURE);
    }

    #[test]
    fn a_manual_clock_moves_only_when_told_and_its_clones_move_with_it() {
        let clock = ManualClock::new(WallTime::from_secs(1_000));
        let other = clock.clone();
        let before = other.now();
        clock.advance(Duration::from_millis(1_500));
        assert_eq!(other.now() - before, Duration::from_millis(1_500));
        assert_eq!(other.wall().as_secs(), 1_001);
        assert_eq!(other.wall().subsec_millis(), 500);
    }

    #[test]
    fn civil_time_before_1970_rounds_down() {
        assert_eq!(WallTime::from_micros(-1).as_secs(), -1);
        assert_eq!(WallTime::from_micros(-1).subsec_millis(), 999);
    }
}

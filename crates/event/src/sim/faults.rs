//! What goes wrong in a simulated world, and how often.

use std::time::Duration;

use base::Rng;

/// Chances are in 1,000; ranges are from the least to the most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// How long bytes take to the other end, drawn for each connection and direction.
    pub latency: [Duration; 2],
    /// The least that [`Faults::segment_max`] is drawn as for a direction: for worlds in which nothing comes at a trickle.
    pub segment_min: usize,
    /// The most bytes that arrive together, drawn for each direction up to this.
    pub segment_max: usize,
    /// What a kernel keeps of what was sent and not delivered, and of what was delivered and not received.
    pub buffer: [usize; 2],
    /// A send takes less than there is room for.
    pub short_send: u64,
    /// A connect is refused although somebody listens.
    pub refused: u64,
    /// A connect takes up to [`Faults::slow_connect_max`].
    pub slow_connect: u64,
    /// How long a slow connect takes at most.
    pub slow_connect_max: Duration,
    /// A connect is never answered.
    pub lost_connect: u64,
    /// A connection is reset at some time, at one end sooner than at the other.
    pub reset: u64,
    /// A connection falls silent for ever at some time: without a word to either end, or to one of them.
    pub cut: u64,
    /// A direction pauses before a delivery, for up to [`Faults::stall_max`].
    pub stall: u64,
    /// How long such a pause is at most.
    pub stall_max: Duration,
    /// Descriptors have run out when somebody accepts or connects.
    pub exhausted: u64,
    /// A thread does not run for up to [`Faults::sleep_max`] after a turn.
    pub sleepy: u64,
    /// How long such a sleep is at most.
    pub sleep_max: Duration,
    /// How long a turn takes at most.
    pub turn_max: Duration,
    /// A look-up of a name fails.
    pub lookup_failed: u64,
    /// A look-up is never answered.
    pub lookup_lost: u64,
    /// How long a look-up takes at most.
    pub lookup_max: Duration,
}

impl Faults {
    /// A network on its best day: quick, in order, and whole. Bytes still come in more than one piece.
    #[must_use]
    pub fn none() -> Self {
        Self {
            latency: [Duration::from_micros(20), Duration::from_micros(500)],
            segment_min: 1,
            segment_max: 1 << 16,
            buffer: [16 << 10, 128 << 10],
            short_send: 0,
            refused: 0,
            slow_connect: 0,
            slow_connect_max: Duration::ZERO,
            lost_connect: 0,
            reset: 0,
            cut: 0,
            stall: 0,
            stall_max: Duration::ZERO,
            exhausted: 0,
            sleepy: 0,
            sleep_max: Duration::ZERO,
            turn_max: Duration::from_micros(20),
            lookup_failed: 0,
            lookup_lost: 0,
            lookup_max: Duration::from_millis(5),
        }
    }

    /// A mixture of its own for each seed: each kind of fault is absent in most worlds and frequent in some, so that
    /// they are met alone and together.
    #[must_use]
    pub fn drawn(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x6661_756c_7473);
        let mut sometimes = |most: u64| if rng.one_in(3) { 1 + rng.below(most) } else { 0 };
        let this = Self {
            short_send: sometimes(300),
            refused: sometimes(200),
            slow_connect: sometimes(200),
            slow_connect_max: Duration::from_secs(8),
            lost_connect: sometimes(80),
            reset: sometimes(250),
            cut: sometimes(80),
            stall: sometimes(60),
            stall_max: Duration::from_secs(3),
            exhausted: sometimes(60),
            sleepy: sometimes(50),
            sleep_max: Duration::from_millis(300),
            lookup_failed: sometimes(300),
            lookup_lost: sometimes(100),
            lookup_max: Duration::from_secs(2),
            ..Self::none()
        };
        Self {
            latency: [Duration::from_micros(10), Duration::from_micros(50 << rng.below(12))],
            segment_max: 1 << rng.below(17),
            buffer: [1 << rng.below(12), 1 << (12 + rng.below(6))],
            ..this
        }
    }
}

/// True `chance` times in 1,000.
pub(crate) fn hits(rng: &mut Rng, chance: u64) -> bool {
    chance != 0 && rng.below(1_000) < chance
}

/// A duration within a range, both ends included, small ones as likely as large ones by order of magnitude.
pub(crate) fn duration_within(rng: &mut Rng, [least, most]: [Duration; 2]) -> Duration {
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(within(rng, nanos(least), nanos(most)))
}

/// A size within a range, likewise.
pub(crate) fn size_within(rng: &mut Rng, [least, most]: [usize; 2]) -> usize {
    usize::try_from(within(rng, least as u64, most as u64)).unwrap_or(most)
}

fn within(rng: &mut Rng, least: u64, most: u64) -> u64 {
    if most <= least {
        return least;
    }
    let span = most - least;
    let bits = u64::from(u64::BITS - span.leading_zeros());
    let below = (1_u64 << rng.below(bits + 1)).min(span.saturating_add(1));
    (least + rng.below(below.max(1))).min(most)
}

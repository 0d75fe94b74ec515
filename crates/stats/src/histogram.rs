//! Histograms with fixed buckets, alike for every value, unit and process, so that any two can be added.
//!
//! Buckets are log-linear (as in HdrHistogram, G. Tene, 2012): eight of equal width for each power of two, which makes a bucket at most
//! 12.5 % as wide as its lower bound. A bucket holds the values *above* its lower and *up to* its upper bound, as
//! Prometheus' `le` means it; powers of two are upper bounds, so that cumulated counts at them are exact.
//!
//! Values are whole numbers: nanoseconds, bytes, things. Above [`VALUE_MAX`] (18 minutes in nanoseconds) all share the
//! last bucket, which has no upper bound.

/// Equal buckets per power of two, as a power of two.
pub(crate) const SUB_BITS: u32 = 3;
const SUB_COUNT: usize = 1 << SUB_BITS;
/// The largest value, as a power of two, that has a bucket with bounds.
pub(crate) const VALUE_BITS: u32 = 40;
/// The largest value that has a bucket with bounds.
const VALUE_MAX: u64 = 1 << VALUE_BITS;

/// Buckets with bounds, and the one behind them without.
pub const BUCKET_COUNT: usize = (VALUE_BITS - SUB_BITS + 1) as usize * SUB_COUNT + 1;
/// Cells of one histogram: its buckets and the sum of all values.
pub(crate) const HISTOGRAM_WORDS: usize = BUCKET_COUNT + 1;
/// Which cell holds the sum.
pub(crate) const SUM_CELL: usize = BUCKET_COUNT;

/// The bucket of `value`; always below [`BUCKET_COUNT`].
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "what is cast is below 8, 64 and BUCKET_COUNT")]
pub(crate) const fn bucket_of(value: u64) -> usize {
    let below = value.saturating_sub(1);
    if below < SUB_COUNT as u64 {
        return below as usize;
    }
    if below >= VALUE_MAX {
        return BUCKET_COUNT - 1;
    }
    let exponent = below.ilog2();
    let sub = (below >> (exponent - SUB_BITS)) as usize & (SUB_COUNT - 1);
    (exponent - SUB_BITS + 1) as usize * SUB_COUNT + sub
}

/// The largest value of a bucket; none for the last, which has no bound.
pub(crate) const fn upper_bound(bucket: usize) -> Option<u64> {
    if bucket < SUB_COUNT {
        return Some(bucket as u64 + 1);
    }
    if bucket >= BUCKET_COUNT - 1 {
        return None;
    }
    let shift = bucket / SUB_COUNT - 1;
    Some(((SUB_COUNT + bucket % SUB_COUNT + 1) as u64) << shift)
}

/// How values were distributed: what is read from a histogram, or gathered by hand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Distribution {
    buckets: Vec<u64>,
    sum: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKET_COUNT], sum: 0 }
    }
}

impl Distribution {
    /// From the cells of a histogram; `None` when their number is not that of one.
    pub(crate) fn from_cells(cells: &[u64]) -> Option<Self> {
        let (sum, buckets) = cells.split_last()?;
        (buckets.len() == BUCKET_COUNT).then(|| Self { buckets: buckets.to_vec(), sum: *sum })
    }

    pub(crate) fn cells(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().copied().chain([self.sum])
    }

    /// Takes one value in.
    pub fn record(&mut self, value: u64) {
        self.buckets[bucket_of(value)] += 1;
        self.sum = self.sum.wrapping_add(value);
    }

    /// Takes all values of another in.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine = mine.wrapping_add(*theirs);
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// What was recorded since `earlier`, an older reading of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let buckets = self.buckets.iter().zip(&earlier.buckets).map(|(now, then)| now.saturating_sub(*then)).collect();
        Self { buckets, sum: self.sum.wrapping_sub(earlier.sum) }
    }

    /// How many values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, n| sum.wrapping_add(*n))
    }

    /// The sum of all values, exactly.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// The mean of all values; `None` when there are none.
    #[must_use]
    pub fn mean(&self) -> Option<u64> {
        self.sum.checked_div(self.count())
    }

    /// The value that `per_mille` of 1000 values do not exceed (500 is the median, 999 the last but one in a
    /// thousand): the upper bound of its bucket, so up to 12.5 % too high and never too low; the largest bound there is
    /// when it lies above that. `None` when there are no values.
    #[must_use]
    pub fn quantile(&self, per_mille: u64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let wanted = u128::from(count) * u128::from(per_mille.min(1000));
        let rank = u64::try_from(wanted.div_ceil(1000)).unwrap_or(count).max(1);
        let mut seen = 0_u64;
        for (bucket, n) in self.buckets.iter().enumerate() {
            seen = seen.saturating_add(*n);
            if seen >= rank {
                return Some(upper_bound(bucket).unwrap_or(VALUE_MAX));
            }
        }
        Some(VALUE_MAX)
    }

    /// How many values are at most 2 to the power of `bits`: exact.
    #[must_use]
    pub fn count_to_power(&self, bits: u32) -> u64 {
        let last = 1_u64.checked_shl(bits).map_or(BUCKET_COUNT - 1, bucket_of);
        self.buckets.iter().take(last + 1).fold(0, |sum, n| sum.wrapping_add(*n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_above_the_bound_below_it_and_at_most_at_its_own() {
        let edges = (0..VALUE_BITS).flat_map(|bits| (0..5).map(move |d| (1_u64 << bits) - 1 + d));
        for value in (1..5_000).chain(edges).chain([VALUE_MAX - 1, VALUE_MAX]).filter(|v| *v >= 1) {
            let bucket = bucket_of(value);
            let upper = upper_bound(bucket).unwrap();
            assert!(value <= upper, "{value} in bucket {bucket} up to {upper}");
            if let Some(lower) = bucket.checked_sub(1).map(|b| upper_bound(b).unwrap()) {
                assert!(value > lower, "{value} in bucket {bucket} above {lower}");
            }
        }
    }

    #[test]
    fn values_beyond_the_largest_bound_share_the_last_bucket() {
        assert_eq!(bucket_of(VALUE_MAX), BUCKET_COUNT - 2);
        assert_eq!(bucket_of(VALUE_MAX + 1), BUCKET_COUNT - 1);
        assert_eq!(bucket_of(u64::MAX), BUCKET_COUNT - 1);
        assert_eq!(upper_bound(BUCKET_COUNT - 1), None);
        assert_eq!(bucket_of(0), 0);
    }

    #[test]
    fn quantiles_are_never_too_low_and_at_most_an_eighth_too_high() {
        let mut seen = Distribution::default();
        let mut values: Vec<u64> = (0..10_000_u64).map(|i| i * i * 7 + 3).collect();
        values.iter().for_each(|v| seen.record(*v));
        values.sort_unstable();
        for per_mille in [1, 10, 500, 900, 990, 999, 1000] {
            let rank = usize::try_from((per_mille * 10_000_u64).div_ceil(1000)).unwrap() - 1;
            let (exact, told) = (values[rank], seen.quantile(per_mille).unwrap());
            assert!(told >= exact && told <= exact + exact / 8 + 1, "p{per_mille}: {exact} told as {told}");
        }
        assert_eq!(seen.sum(), values.iter().sum::<u64>());
        assert_eq!(seen.count(), 10_000);
    }

    #[test]
    fn an_empty_histogram_has_no_quantile_and_no_mean() {
        assert_eq!(Distribution::default().quantile(500), None);
        assert_eq!(Distribution::default().mean(), None);
    }

    #[test]
    fn counts_at_powers_of_two_are_exact() {
        let mut seen = Distribution::default();
        for value in [0, 1, 2, 1023, 1024, 1025, 1 << 41] {
            seen.record(value);
        }
        assert_eq!(seen.count_to_power(0), 2);
        assert_eq!(seen.count_to_power(10), 5);
        assert_eq!(seen.count_to_power(11), 6);
        assert_eq!(seen.count_to_power(40), 6);
        assert_eq!(seen.count_to_power(64), 7);
    }

    #[test]
    fn two_halves_merged_are_the_whole_and_the_difference_is_the_half() {
        let (mut a, mut b, mut all) = (Distribution::default(), Distribution::default(), Distribution::default());
        for value in 0..1_000 {
            if value % 3 == 0 {
                a.record(value)
            } else {
                b.record(value)
            }
            all.record(value);
        }
        let mut merged = a.clone();
        merged.merge(&b);
        assert_eq!(merged, all);
        assert_eq!(merged.since(&a), b);
    }
}

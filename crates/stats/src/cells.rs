//! What a thread writes: its own cells, by handle.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::histogram::{Distribution, HISTOGRAM_WORDS, SUM_CELL, bucket_of};
use crate::table::{Additive, Gauge, Histogram, Table};

/// Words on the heap: the memory of a segment that no other process reads (tests, simulation).
#[derive(Debug)]
pub struct HeapWords(Box<[AtomicU64]>);

impl HeapWords {
    /// So many words, all zero.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self((0..count).map(|_| AtomicU64::new(0)).collect())
    }
}

impl AsRef<[AtomicU64]> for HeapWords {
    fn as_ref(&self) -> &[AtomicU64] {
        &self.0
    }
}

/// One thread's cells of table `T`. Two words, copied at will.
///
/// Only one thread may write through copies of one `Cells`: it loads, adds and stores, so a second writer would lose
/// counts (nothing worse). It may be made on one thread and sent to another; it cannot be shared. Readers are anywhere.
pub struct Cells<T> {
    words: &'static [AtomicU64],
    table: PhantomData<fn() -> T>,
    // Not Sync: a reference in two threads would be two writers.
    one_writer: PhantomData<Cell<()>>,
}

impl<T: Table> Cells<T> {
    pub(crate) fn new(words: &'static [AtomicU64]) -> Self {
        debug_assert_eq!(words.len(), T::WORDS);
        Self { words, table: PhantomData, one_writer: PhantomData }
    }

    /// Cells of no segment, for tests of what counts. Their memory is never given back.
    #[must_use]
    pub fn detached() -> Self {
        let words: &'static HeapWords = Box::leak(Box::new(HeapWords::new(T::WORDS)));
        Self::new(words.as_ref())
    }

    /// Adds to a counter or a gauge.
    #[inline]
    pub fn add(&self, metric: impl Additive<T>, n: u64) {
        add(&self.words[metric.cell()], n);
    }

    /// Takes from a gauge. It may have been raised by another thread: only the sum over all threads has a meaning.
    #[inline]
    pub fn sub(&self, gauge: Gauge<T>, n: u64) {
        add(&self.words[gauge.offset()], n.wrapping_neg());
    }

    /// Sets this thread's share of a gauge.
    #[inline]
    pub fn set(&self, gauge: Gauge<T>, value: u64) {
        self.words[gauge.offset()].store(value, Ordering::Relaxed);
    }

    /// Takes a value into a histogram, in the histogram's unit.
    #[inline]
    pub fn observe(&self, histogram: Histogram<T>, value: u64) {
        let cells = &self.words[histogram.offset()..histogram.offset() + HISTOGRAM_WORDS];
        add(&cells[bucket_of(value)], 1);
        add(&cells[SUM_CELL], value);
    }

    /// Takes the same value into a histogram so many times.
    #[inline]
    pub fn observe_times(&self, histogram: Histogram<T>, value: u64, times: u64) {
        let cells = &self.words[histogram.offset()..histogram.offset() + HISTOGRAM_WORDS];
        add(&cells[bucket_of(value)], times);
        add(&cells[SUM_CELL], value.wrapping_mul(times));
    }

    /// This thread's share of a counter or gauge.
    #[must_use]
    pub fn value(&self, metric: impl Additive<T>) -> u64 {
        self.words[metric.cell()].load(Ordering::Relaxed)
    }

    /// This thread's share of a histogram.
    #[must_use]
    pub fn distribution(&self, histogram: Histogram<T>) -> Distribution {
        let cells = &self.words[histogram.offset()..histogram.offset() + HISTOGRAM_WORDS];
        let read: Vec<u64> = cells.iter().map(|cell| cell.load(Ordering::Relaxed)).collect();
        Distribution::from_cells(&read).unwrap_or_default()
    }
}

/// Cells of table `T` that every thread may write: for threads that run no events, and for numbers of the process.
///
/// Costs a locked instruction; event threads write their own [`Cells`].
pub struct SharedCells<T> {
    words: &'static [AtomicU64],
    table: PhantomData<fn() -> T>,
}

impl<T: Table> SharedCells<T> {
    pub(crate) fn new(words: &'static [AtomicU64]) -> Self {
        debug_assert_eq!(words.len(), T::WORDS);
        Self { words, table: PhantomData }
    }

    /// Adds to a counter or a gauge.
    pub fn add(&self, metric: impl Additive<T>, n: u64) {
        self.words[metric.cell()].fetch_add(n, Ordering::Relaxed);
    }

    /// Takes from a gauge.
    pub fn sub(&self, gauge: Gauge<T>, n: u64) {
        self.words[gauge.offset()].fetch_sub(n, Ordering::Relaxed);
    }

    /// Sets a gauge. The threads' own shares of the same gauge are added to it.
    pub fn set(&self, gauge: Gauge<T>, value: u64) {
        self.words[gauge.offset()].store(value, Ordering::Relaxed);
    }

    /// Takes a value into a histogram, in the histogram's unit.
    pub fn observe(&self, histogram: Histogram<T>, value: u64) {
        let cells = &self.words[histogram.offset()..histogram.offset() + HISTOGRAM_WORDS];
        cells[bucket_of(value)].fetch_add(1, Ordering::Relaxed);
        cells[SUM_CELL].fetch_add(value, Ordering::Relaxed);
    }
}

impl<T> Clone for Cells<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Cells<T> {}

impl<T> fmt::Debug for Cells<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cells({} words)", self.words.len())
    }
}

impl<T> Clone for SharedCells<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedCells<T> {}

impl<T> fmt::Debug for SharedCells<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedCells({} words)", self.words.len())
    }
}

/// A load, an addition and a store: enough for a cell with one writer.
#[inline]
fn add(cell: &AtomicU64, n: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::metrics! {
        /// A table of every kind.
        struct Door;
        /// In.
        counter IN = "door_in_total";
        /// Inside.
        gauge INSIDE = "door_inside";
        /// Wait.
        histogram WAIT = "door_wait_seconds" in Nanoseconds;
    }

    #[test]
    fn each_handle_writes_its_own_cells_and_no_other() {
        let cells = Cells::<Door>::detached();
        cells.add(Door::IN, 2);
        cells.add(Door::INSIDE, 5);
        cells.sub(Door::INSIDE, 1);
        cells.observe(Door::WAIT, 100);
        cells.observe(Door::WAIT, u64::MAX - 99);
        assert_eq!((cells.value(Door::IN), cells.value(Door::INSIDE)), (2, 4));
        assert_eq!(cells.distribution(Door::WAIT).count(), 2);
        cells.observe_times(Door::WAIT, 0, 3);
        assert_eq!(cells.distribution(Door::WAIT).count(), 5);
        assert_eq!(cells.distribution(Door::WAIT).sum(), 0, "a sum beyond 2^64 wraps and does not panic");
        cells.set(Door::INSIDE, 9);
        assert_eq!(cells.value(Door::INSIDE), 9);
    }

    /// Prints what one addition costs; run by hand with `--release -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    #[expect(clippy::disallowed_methods, reason = "measures itself")]
    fn cost_of_an_addition() {
        const ROUNDS: u32 = 100_000_000;
        let cells = std::hint::black_box(Cells::<Door>::detached());
        for _ in 0..3 {
            let start = std::time::Instant::now();
            for _ in 0..ROUNDS {
                std::hint::black_box(&cells).add(Door::IN, 1);
            }
            let added = start.elapsed() / (ROUNDS / 1000);
            let start = std::time::Instant::now();
            for i in 0..ROUNDS {
                std::hint::black_box(&cells).observe(Door::WAIT, u64::from(i));
            }
            let observed = start.elapsed() / (ROUNDS / 1000);
            println!("add {:.2} ns, observe {:.2} ns", added.as_nanos() as f64 / 1e3, observed.as_nanos() as f64 / 1e3);
        }
    }
}

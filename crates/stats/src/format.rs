//! The bytes of a segment: where things lie, as numbers of 8-byte words in the machine's own byte order.
//!
//! ```text
//! header (16 words) │ directory: 8 words a metric │ strings │ beats: one line a thread │ areas: threads + 1 │ late
//! ```
//!
//! Header, directory and strings are written once, before the magic; a reader that finds the magic finds them whole,
//! and a checksum tells when they are not. Each event thread has one area and one beat, each on lines of its own; the
//! last area is the process's. A metric lies at the same offset in every area.
//!
//! `late` describes metrics that came while the segment was in use, where room was kept for them: a line with their
//! number, which is written last, a directory like the other, and the texts of their labels, which go on counting where the
//! other strings end.

/// Says that this is a segment, in this machine's byte order. Written last.
pub(crate) const MAGIC: u64 = u64::from_ne_bytes(*b"BELTWAY\x01");
/// Changes when the meaning of a word changes.
pub(crate) const VERSION: u64 = 1;

/// Words of a cache line pair: what the processor's prefetcher fetches together, so writers do not disturb each other.
pub(crate) const LINE_WORDS: usize = 16;
/// Words of a thread's beat.
pub(crate) const BEAT_WORDS: usize = LINE_WORDS;
/// Words of a directory entry.
pub(crate) const ENTRY_WORDS: usize = 8;
/// Words of the header.
pub(crate) const HEADER_WORDS: usize = 16;

/// Most event threads of a segment.
pub(crate) const THREADS_MAX: usize = 1024;
/// Most metrics of a segment.
pub(crate) const METRICS_MAX: usize = 16_384;
/// Largest segment: 128 MiB.
pub(crate) const WORDS_MAX: usize = 1 << 24;

/// Words of the header, by position.
pub(crate) mod header {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = 1;
    pub(crate) const WORDS: usize = 2;
    pub(crate) const THREADS: usize = 3;
    pub(crate) const PID: usize = 4;
    pub(crate) const GENERATION: usize = 5;
    pub(crate) const STARTED_MICROS: usize = 6;
    pub(crate) const METRICS: usize = 7;
    pub(crate) const STRINGS: usize = 8;
    pub(crate) const STRINGS_BYTES: usize = 9;
    pub(crate) const BEATS: usize = 10;
    pub(crate) const AREAS: usize = 11;
    pub(crate) const AREA_WORDS: usize = 12;
    /// Where what came late is described; 0: there is no room for any.
    pub(crate) const LATE: usize = 13;
    /// How many metrics that has room for.
    pub(crate) const LATE_MAX: usize = 14;
    pub(crate) const CHECKSUM: usize = 15;
}

/// Words of a directory entry, by position. Texts are `offset << 32 | bytes` within the strings.
pub(crate) mod entry {
    pub(crate) const NAME: usize = 0;
    pub(crate) const HELP: usize = 1;
    /// Each label as key, zero byte, value, zero byte.
    pub(crate) const LABELS: usize = 2;
    pub(crate) const KIND: usize = 3;
    pub(crate) const UNIT: usize = 4;
    /// In bytes, from the beginning of an area.
    pub(crate) const OFFSET_BYTES: usize = 5;
    pub(crate) const WORDS: usize = 6;
    /// Of a histogram: the power of two of its buckets per power of two, and of its largest bound.
    pub(crate) const SHAPE: usize = 7;
}

/// Words of a beat, by position.
pub(crate) mod beat {
    pub(crate) const TURNS: usize = 0;
    pub(crate) const AT_NANOS: usize = 1;
    pub(crate) const STATE: usize = 2;
    pub(crate) const THREAD_ID: usize = 3;
    pub(crate) const RUNNING: usize = 4;
    pub(crate) const THREAD_NAME: usize = 8;
}

/// FNV-1a over words: finds damage, not malice.
pub(crate) fn checksum(words: impl Iterator<Item = u64>) -> u64 {
    words.fold(0xcbf2_9ce4_8422_2325, |hash, word| (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17))
}

/// The next multiple of [`LINE_WORDS`].
pub(crate) const fn to_line(words: usize) -> usize {
    words.div_ceil(LINE_WORDS) * LINE_WORDS
}

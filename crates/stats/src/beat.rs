//! The beat of an event thread: that it turns, how often, and what it runs just now.
//!
//! Written by the thread with plain stores, a few per turn; read by heartbeats and obituaries, from outside and after
//! death. A reader may meet a name half written: it is text for people, no decision hangs on it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::format::{BEAT_WORDS, HEADER_WORDS, MAGIC, THREADS_MAX, VERSION, WORDS_MAX, beat, header};

/// Bytes of a name that fit.
const NAME_BYTES: usize = 32;
const NAME_WORDS: usize = NAME_BYTES / 8;

/// A name as a beat holds it: at most 32 bytes, longer ones are cut. Made once, at best as a constant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BeatName([u64; NAME_WORDS]);

impl BeatName {
    /// No name.
    pub const EMPTY: Self = Self([0; NAME_WORDS]);

    /// The first 32 bytes of `name`.
    #[must_use]
    pub const fn new(name: &str) -> Self {
        let bytes = name.as_bytes();
        let mut words = [0; NAME_WORDS];
        let mut i = 0;
        while i < bytes.len() && i < NAME_BYTES {
            words[i / 8] |= (bytes[i] as u64) << (i % 8 * 8);
            i += 1;
        }
        Self(words)
    }

    fn text(words: &[u64]) -> String {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control() && *c != '\u{fffd}').collect()
    }
}

/// What an event thread is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BeatState {
    /// It has not begun.
    NotStarted,
    /// It runs continuations.
    Running,
    /// It waits for events: an old beat is no cause for worry.
    Polling,
    /// It has ended in order.
    Ended,
}

/// The writing side of one thread's beat. Only that thread may write.
#[derive(Clone, Copy, Debug)]
pub struct Beat {
    words: &'static [AtomicU64],
}

impl Beat {
    pub(crate) fn new(words: &'static [AtomicU64]) -> Self {
        debug_assert_eq!(words.len(), BEAT_WORDS);
        Self { words }
    }

    /// A beat of no segment, for tests and loops that nobody watches. Its memory is never given back.
    #[must_use]
    pub fn detached() -> Self {
        let words: &'static crate::HeapWords = Box::leak(Box::new(crate::HeapWords::new(BEAT_WORDS)));
        Self::new(words.as_ref())
    }

    /// The thread begins: its name and the kernel's number for it.
    pub fn begin(&self, name: &BeatName, thread_id: u64) {
        self.put(beat::THREAD_ID, thread_id);
        self.put_name(beat::THREAD_NAME, name);
        self.put(beat::STATE, BeatState::Running as u64);
    }

    /// A turn of the loop begins.
    #[inline]
    pub fn turn(&self, now_nanos: u64) {
        let turns = &self.words[beat::TURNS];
        turns.store(turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.put(beat::AT_NANOS, now_nanos);
        self.put(beat::STATE, BeatState::Running as u64);
    }

    /// The loop goes to wait for events.
    #[inline]
    pub fn poll(&self, now_nanos: u64) {
        self.put(beat::AT_NANOS, now_nanos);
        self.put(beat::STATE, BeatState::Polling as u64);
    }

    /// A continuation begins to run.
    #[inline]
    pub fn enter(&self, name: &BeatName) {
        self.put_name(beat::RUNNING, name);
    }

    /// The continuation has returned.
    #[inline]
    pub fn leave(&self) {
        self.put(beat::RUNNING, 0);
    }

    /// The thread ends in order.
    pub fn end(&self) {
        self.leave();
        self.put(beat::STATE, BeatState::Ended as u64);
    }

    #[inline]
    fn put(&self, at: usize, value: u64) {
        self.words[at].store(value, Ordering::Relaxed);
    }

    #[inline]
    fn put_name(&self, at: usize, name: &BeatName) {
        // The first word last, so that a reader between `leave` and the end of this sees no name rather than a mix.
        for (cell, word) in self.words[at..at + NAME_WORDS].iter().zip(name.0).rev() {
            cell.store(word, Ordering::Relaxed);
        }
    }
}

/// One thread's beat as a reader found it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BeatReading {
    /// The thread's name.
    pub thread: String,
    /// The kernel's number of the thread; 0 before it began.
    pub thread_id: u64,
    /// What it is doing.
    pub state: BeatState,
    /// Turns of the loop since it began. A thread whose turns stand still while it is `Running` is stuck or slow.
    pub turns: u64,
    /// When it last said something, on the writer's own clock: compare readings with each other, not with another clock.
    pub at_nanos: u64,
    /// The name of the continuation that runs, if any.
    pub running: Option<String>,
}

impl BeatReading {
    /// From the words of a beat; `None` when they are too few.
    pub(crate) fn read(words: &[u64]) -> Option<Self> {
        if words.len() < BEAT_WORDS {
            return None;
        }
        let name = |at: usize| BeatName::text(&words[at..at + NAME_WORDS]);
        let running = name(beat::RUNNING);
        Some(Self {
            thread: name(beat::THREAD_NAME),
            thread_id: words[beat::THREAD_ID],
            state: match words[beat::STATE] {
                1 => BeatState::Running,
                2 => BeatState::Polling,
                3 => BeatState::Ended,
                _ => BeatState::NotStarted,
            },
            turns: words[beat::TURNS],
            at_nanos: words[beat::AT_NANOS],
            running: (!running.is_empty()).then_some(running),
        })
    }
}

/// Where the beats lie in a segment: for who looks at them often, and at nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BeatPlace {
    /// The first word of the first beat.
    pub first: usize,
    /// Event threads.
    pub threads: usize,
}

impl BeatPlace {
    /// The first words of a segment, which tell.
    pub const HEADER_WORDS: usize = HEADER_WORDS;

    /// From the first words of a segment; `None` when this is none, or of another version.
    #[must_use]
    pub fn find(header: &[u64]) -> Option<Self> {
        let whole =
            header.len() >= HEADER_WORDS && header[header::MAGIC] == MAGIC && header[header::VERSION] == VERSION;
        let word = |at: usize| whole.then(|| usize::try_from(header[at]).ok()).flatten();
        let (first, threads) = (word(header::BEATS)?, word(header::THREADS)?);
        (first <= WORDS_MAX && threads <= THREADS_MAX).then_some(Self { first, threads })
    }

    /// How many words all beats are.
    #[must_use]
    pub const fn words(&self) -> usize {
        self.threads * BEAT_WORDS
    }

    /// The beats, from their words.
    #[must_use]
    pub fn read(&self, words: &[u64]) -> Vec<BeatReading> {
        words.chunks(BEAT_WORDS).take(self.threads).filter_map(BeatReading::read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(beat: Beat) -> BeatReading {
        let words: Vec<u64> = beat.words.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        BeatReading::read(&words).unwrap()
    }

    #[test]
    fn a_beat_tells_what_the_thread_runs_and_that_it_turns() {
        const SESSION: BeatName = BeatName::new("http client session");
        let beat = Beat::detached();
        assert_eq!(read(beat).state, BeatState::NotStarted);
        beat.begin(&BeatName::new("[ET_NET 0]"), 4711);
        beat.turn(17);
        beat.enter(&SESSION);
        let told = read(beat);
        assert_eq!((told.thread.as_str(), told.thread_id), ("[ET_NET 0]", 4711));
        assert_eq!((told.state, told.turns, told.at_nanos), (BeatState::Running, 1, 17));
        assert_eq!(told.running.as_deref(), Some("http client session"));
        beat.leave();
        beat.poll(18);
        assert_eq!(read(beat).running, None);
        assert_eq!(read(beat).state, BeatState::Polling);
    }

    #[test]
    fn the_beats_of_a_segment_are_found_by_its_first_words() {
        let segment = crate::Registry::new().layout(2).unwrap().create_on_heap(crate::Identity::default()).unwrap();
        segment.beat(1).unwrap().begin(&BeatName::new("second"), 12);
        let words: Vec<u64> = segment.words().iter().map(|word| word.load(Ordering::Relaxed)).collect();
        let place = BeatPlace::find(&words[..BeatPlace::HEADER_WORDS]).unwrap();
        let beats = place.read(&words[place.first..place.first + place.words()]);
        assert_eq!(beats.iter().map(|beat| beat.thread_id).collect::<Vec<_>>(), [0, 12]);
        assert_eq!(BeatPlace::find(&words[..3]), None, "too short");
        assert_eq!(BeatPlace::find(&[0; 16]), None, "no segment");
    }

    #[test]
    fn a_name_too_long_is_cut_even_within_a_letter() {
        let name = "a".repeat(31) + "ß and more";
        let beat = Beat::detached();
        beat.enter(&BeatName::new(&name));
        assert_eq!(read(beat).running.unwrap(), "a".repeat(31));
    }
}

//! Reading a segment: from the memory of a live process, or from the file a dead one left.
//!
//! The reader knows nothing of the writer's tables: it finds metrics by the names in the segment. It trusts nothing
//! either: a damaged, cut or foreign memory gives a [`SegmentError`].

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::beat::BeatReading;
use crate::format::{
    BEAT_WORDS, ENTRY_WORDS, HEADER_WORDS, LINE_WORDS, MAGIC, METRICS_MAX, THREADS_MAX, VERSION, WORDS_MAX, checksum,
    entry, header,
};
use crate::histogram::{Distribution, HISTOGRAM_WORDS};
use crate::segment::shape;
use crate::table::{Kind, Unit};

/// Why a memory is not a segment that can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentError {
    /// Another magic: not a segment, of a machine of other byte order, or not yet written.
    NotASegment,
    /// Written by a version with another layout.
    OtherVersion(u64),
    /// Fewer words than the segment says it has: those there, those said.
    Truncated(usize, u64),
    /// The description contradicts itself or its checksum; where.
    Damaged(&'static str),
}

impl fmt::Display for SegmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASegment => f.write_str("not a segment of numbers"),
            Self::OtherVersion(version) => write!(f, "a segment of version {version}, this program reads {VERSION}"),
            Self::Truncated(there, said) => write!(f, "a segment of {said} words of which {there} are there"),
            Self::Damaged(what) => write!(f, "a damaged segment: {what}"),
        }
    }
}

impl std::error::Error for SegmentError {}

/// All numbers of a process at about one moment, threads summed up.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Who wrote it.
    pub pid: u32,
    /// Which generation that was; of a sum, the latest that was added.
    pub generation: u64,
    /// When it started: microseconds since 1970; of a sum, the earliest.
    pub started_micros: i64,
    /// The event threads' beats.
    pub beats: Vec<BeatReading>,
    /// The numbers, in the writer's order.
    pub metrics: Vec<Metric>,
}

/// One number with its description.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metric {
    /// The name.
    pub name: String,
    /// What the operator is told about it.
    pub help: String,
    /// What tells it from others of the name.
    pub labels: Vec<(String, String)>,
    /// What one step means.
    pub unit: Unit,
    /// The number.
    pub value: Value,
}

impl Metric {
    /// Where to look for one of this name and these labels; others may be there, too.
    fn place(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.name, &self.labels).hash(&mut hasher);
        hasher.finish()
    }
}

/// What was read of a metric.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A counter's sum over all threads.
    Counter(u64),
    /// A gauge's sum over all threads. Threads read at slightly different moments may make it negative for once.
    Gauge(i64),
    /// A histogram over all threads.
    Histogram(Distribution),
}

impl Snapshot {
    /// Reads a segment in memory.
    ///
    /// # Errors
    /// [`SegmentError`] for whatever is not a whole segment of this version.
    pub fn read(memory: &[AtomicU64]) -> Result<Self, SegmentError> {
        let magic = memory.first().ok_or(SegmentError::NotASegment)?;
        // Acquire: the description was written before the magic.
        if magic.load(Ordering::Acquire) != MAGIC {
            return Err(SegmentError::NotASegment);
        }
        Reader { words: &copy(&memory[..memory.len().min(WORDS_MAX)]) }.snapshot()
    }

    /// Reads a segment that was copied, as from its file. Copying a file cannot be interrupted by a signal, as reading
    /// mapped memory can when somebody cuts the file.
    ///
    /// # Errors
    /// [`SegmentError`] for whatever is not a whole segment of this version.
    pub fn from_words(words: &[u64]) -> Result<Self, SegmentError> {
        Reader { words }.snapshot()
    }

    /// The metric of that name and those labels, in any order.
    #[must_use]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<&Metric> {
        self.metrics.iter().find(|metric| {
            metric.name == name
                && metric.labels.len() == labels.len()
                && labels.iter().all(|(key, value)| metric.labels.iter().any(|(k, v)| k == key && v == value))
        })
    }

    /// A counter's value, summed over all rows of the name; 0 when there is none.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        self.values(name).fold(0, |sum, value| if let Value::Counter(n) = value { sum.wrapping_add(*n) } else { sum })
    }

    /// A gauge's value, summed over all rows of the name; 0 when there is none.
    #[must_use]
    pub fn gauge(&self, name: &str) -> i64 {
        self.values(name).fold(0, |sum, value| if let Value::Gauge(n) = value { sum.wrapping_add(*n) } else { sum })
    }

    /// A histogram, merged over all rows of the name; empty when there is none.
    #[must_use]
    pub fn distribution(&self, name: &str) -> Distribution {
        let mut all = Distribution::default();
        for value in self.values(name) {
            if let Value::Histogram(distribution) = value {
                all.merge(distribution);
            }
        }
        all
    }

    /// Adds a generation that runs beside this one: all its numbers.
    pub fn add_live(&mut self, other: &Self) {
        self.add(other, true);
        self.beats.extend(other.beats.iter().cloned());
    }

    /// Adds a generation that is dead: its counters and histograms. Its gauges died with it.
    pub fn add_dead(&mut self, other: &Self) {
        self.add(other, false);
    }

    fn add(&mut self, other: &Self, with_gauges: bool) {
        self.generation = self.generation.max(other.generation);
        if self.started_micros == 0 || (other.started_micros != 0 && other.started_micros < self.started_micros) {
            self.started_micros = other.started_micros;
        }
        let mut places: HashMap<u64, Vec<usize>> = HashMap::new();
        for (at, metric) in self.metrics.iter().enumerate() {
            places.entry(metric.place()).or_default().push(at);
        }
        for theirs in &other.metrics {
            let known = places.get(&theirs.place()).map(Vec::as_slice).unwrap_or_default().iter();
            let same = |at: &&usize| {
                self.metrics.get(**at).is_some_and(|mine| mine.name == theirs.name && mine.labels == theirs.labels)
            };
            let place = known.clone().find(same).copied();
            let mine = place.and_then(|at| self.metrics.get_mut(at));
            match (mine, &theirs.value) {
                (Some(mine), value) => match (&mut mine.value, value) {
                    (Value::Counter(a), Value::Counter(b)) => *a = a.wrapping_add(*b),
                    (Value::Gauge(a), Value::Gauge(b)) if with_gauges => *a = a.wrapping_add(*b),
                    (Value::Histogram(a), Value::Histogram(b)) => a.merge(b),
                    // A gauge of the dead; or another version's row of the name that means something else.
                    _ => {}
                },
                (None, Value::Gauge(_)) if !with_gauges => {}
                (None, _) => self.metrics.push(theirs.clone()),
            }
        }
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.metrics.iter().filter(move |metric| metric.name == name).map(|metric| &metric.value)
    }
}

/// A copy of the words that mean anything: of each area only what is described, since the rest may never have been touched.
fn copy(memory: &[AtomicU64]) -> Vec<u64> {
    let at = |place: usize| memory.get(place).map_or(0, |word| word.load(Ordering::Acquire));
    let number = |place: usize| usize::try_from(at(place)).unwrap_or(usize::MAX).min(memory.len());
    let (areas, area_words) = (number(header::AREAS), number(header::AREA_WORDS));
    let (late, late_max) = (number(header::LATE), number(header::LATE_MAX).min(METRICS_MAX));
    // First: what is added from here on is not in the copy.
    let lates = if late == 0 { 0 } else { number(late).min(late_max) };
    let entries = |from: usize, count: usize| (0..count).map(move |number| from + number * ENTRY_WORDS);
    let ends = entries(HEADER_WORDS, number(header::METRICS).min(METRICS_MAX)).chain(entries(late + LINE_WORDS, lates));
    let end = |place: usize| (at(place + entry::OFFSET_BYTES) / 8).saturating_add(at(place + entry::WORDS));
    let used = ends.map(end).max().unwrap_or(0);
    let used = usize::try_from(used).unwrap_or(usize::MAX).min(area_words);
    let mut words = vec![0; memory.len()];
    let mut take = |from: usize, count: usize| {
        let to = from.saturating_add(count).min(memory.len());
        if let (Some(to), Some(from)) = (words.get_mut(from..to), memory.get(from..to)) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from.load(Ordering::Relaxed));
        }
    };
    take(0, areas);
    for area in 0..number(header::THREADS).min(THREADS_MAX) + 1 {
        take(areas.saturating_add(area.saturating_mul(area_words)), used);
    }
    if late != 0 {
        take(late, memory.len());
        if let Some(count) = words.get_mut(late) {
            *count = lates as u64;
        }
    }
    words
}

struct Reader<'a> {
    words: &'a [u64],
}

impl Reader<'_> {
    fn snapshot(&self) -> Result<Snapshot, SegmentError> {
        if self.words.first() != Some(&MAGIC) {
            return Err(SegmentError::NotASegment);
        }
        if self.words.len() < HEADER_WORDS {
            return Err(SegmentError::Truncated(self.words.len(), HEADER_WORDS as u64));
        }
        let version = self.words[header::VERSION];
        if version != VERSION {
            return Err(SegmentError::OtherVersion(version));
        }
        let said = self.words[header::WORDS];
        if said > self.words.len() as u64 {
            return Err(SegmentError::Truncated(self.words.len(), said));
        }
        let threads = self.number(header::THREADS, THREADS_MAX, "threads")?;
        let metrics = self.number(header::METRICS, METRICS_MAX, "metrics")?;
        let strings_at = self.number(header::STRINGS, self.words.len(), "strings")?;
        let strings_bytes = self.number(header::STRINGS_BYTES, self.words.len() * 8, "strings")?;
        let beats = self.number(header::BEATS, self.words.len(), "beats")?;
        let areas = self.number(header::AREAS, self.words.len(), "areas")?;
        let area_words = self.number(header::AREA_WORDS, self.words.len(), "areas")?;
        let described = self.slice(0, beats, "beats")?;
        let mut sum = described.to_vec();
        let Some(stored) = sum.get_mut(header::CHECKSUM) else { return Err(SegmentError::Damaged("beats")) };
        let stored = std::mem::take(stored);
        if checksum(sum[1..].iter().copied()) != stored {
            return Err(SegmentError::Damaged("checksum"));
        }
        let mut strings: Vec<u8> = self
            .slice(strings_at, strings_bytes.div_ceil(8), "strings")?
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .take(strings_bytes)
            .collect();
        let areas: Vec<&[u64]> =
            self.slice(areas, area_words.saturating_mul(threads + 1), "areas")?.chunks(area_words.max(1)).collect();
        let entries = self.slice(HEADER_WORDS, metrics * ENTRY_WORDS, "directory")?;
        let late = self.number(header::LATE, self.words.len(), "late")?;
        let late_max = self.number(header::LATE_MAX, METRICS_MAX, "late")?;
        let mut lates: &[u64] = &[];
        if late != 0 {
            let directory = late + LINE_WORDS;
            lates = self.slice(directory, self.number(late, late_max, "late")? * ENTRY_WORDS, "late")?;
            let texts = self.words.get(directory + late_max * ENTRY_WORDS..).ok_or(SegmentError::Damaged("late"))?;
            strings.extend(texts.iter().flat_map(|word| word.to_ne_bytes()));
        }
        let (beats, _) = self.slice(beats, threads * BEAT_WORDS, "beats")?.as_chunks::<BEAT_WORDS>();
        Ok(Snapshot {
            pid: u32::try_from(self.words[header::PID]).map_err(|_| SegmentError::Damaged("pid"))?,
            generation: self.words[header::GENERATION],
            started_micros: self.words[header::STARTED_MICROS].cast_signed(),
            beats: beats.iter().filter_map(|words| BeatReading::read(words)).collect(),
            metrics: entries
                .chunks(ENTRY_WORDS)
                .chain(lates.chunks(ENTRY_WORDS))
                .map(|entry| Self::metric(entry, &strings, &areas))
                .collect::<Result<_, _>>()?,
        })
    }

    fn metric(words: &[u64], strings: &[u8], areas: &[&[u64]]) -> Result<Metric, SegmentError> {
        let text = |at: usize| -> Result<&[u8], SegmentError> {
            let (offset, bytes) = (index(words[at] >> 32)?, index(words[at] & 0xffff_ffff)?);
            strings.get(offset..offset + bytes).ok_or(SegmentError::Damaged("text"))
        };
        let owned = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        let kind = match words[entry::KIND] {
            n if n == Kind::Counter as u64 => Kind::Counter,
            n if n == Kind::Gauge as u64 => Kind::Gauge,
            n if n == Kind::Histogram as u64 => Kind::Histogram,
            _ => return Err(SegmentError::Damaged("kind")),
        };
        let unit = match words[entry::UNIT] {
            n if n == Unit::One as u64 => Unit::One,
            n if n == Unit::Bytes as u64 => Unit::Bytes,
            n if n == Unit::Nanoseconds as u64 => Unit::Nanoseconds,
            _ => return Err(SegmentError::Damaged("unit")),
        };
        let (offset, count) = (index(words[entry::OFFSET_BYTES] / 8)?, index(words[entry::WORDS])?);
        let expected = if kind == Kind::Histogram { HISTOGRAM_WORDS } else { 1 };
        if count != expected || (kind == Kind::Histogram && words[entry::SHAPE] != shape()) {
            return Err(SegmentError::Damaged("shape"));
        }
        let mut cells = vec![0_u64; count];
        for area in areas {
            let there = area.get(offset..offset.saturating_add(count)).ok_or(SegmentError::Damaged("offset"))?;
            for (sum, n) in cells.iter_mut().zip(there) {
                *sum = sum.wrapping_add(*n);
            }
        }
        let mut labels = Vec::new();
        let mut texts = text(entry::LABELS)?.split(|byte| *byte == 0);
        while let (Some(key), Some(value)) = (texts.next(), texts.next()) {
            labels.push((owned(key), owned(value)));
        }
        Ok(Metric {
            name: owned(text(entry::NAME)?),
            help: owned(text(entry::HELP)?),
            labels,
            unit,
            value: match kind {
                Kind::Counter => Value::Counter(cells[0]),
                Kind::Gauge => Value::Gauge(cells[0].cast_signed()),
                Kind::Histogram => {
                    Value::Histogram(Distribution::from_cells(&cells).ok_or(SegmentError::Damaged("shape"))?)
                }
            },
        })
    }

    fn number(&self, at: usize, max: usize, what: &'static str) -> Result<usize, SegmentError> {
        let n = usize::try_from(self.words[at]).map_err(|_| SegmentError::Damaged(what))?;
        if n <= max { Ok(n) } else { Err(SegmentError::Damaged(what)) }
    }

    fn slice(&self, at: usize, count: usize, what: &'static str) -> Result<&[u64], SegmentError> {
        self.words.get(at..at.saturating_add(count)).ok_or(SegmentError::Damaged(what))
    }
}

/// A place in a segment; what is larger than any segment is damage.
fn index(n: u64) -> Result<usize, SegmentError> {
    usize::try_from(n).ok().filter(|n| *n <= WORDS_MAX * 8).ok_or(SegmentError::Damaged("text"))
}

#[cfg(test)]
mod tests;

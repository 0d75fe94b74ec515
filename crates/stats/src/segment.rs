//! Building a segment: tables are registered, laid out for a number of threads, and written into a memory once.

use std::any::TypeId;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::beat::Beat;
use crate::cells::{Cells, HeapWords, SharedCells};
use crate::format::{
    BEAT_WORDS, ENTRY_WORDS, HEADER_WORDS, LINE_WORDS, MAGIC, METRICS_MAX, THREADS_MAX, VERSION, WORDS_MAX, checksum,
    entry, header, to_line,
};
use crate::histogram::{SUB_BITS, VALUE_BITS};
use crate::snapshot::{Metric, Snapshot, Value};
use crate::table::{Kind, MetricDef, Table, Unit};

mod late;

/// Why tables do not make a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RegistryError {
    /// The same table, or a row of the same name and labels, twice; or rows of one name that differ in kind or unit.
    Twice(String),
    /// More metrics, threads or words than a segment may have.
    TooMany(&'static str, usize),
    /// The memory has fewer words than the layout needs: those given, those needed.
    TooSmall(usize, usize),
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twice(name) => write!(f, "metric {name} is declared twice, or differently"),
            Self::TooMany(what, count) => write!(f, "{count} {what} are more than a segment holds"),
            Self::TooSmall(given, needed) => write!(f, "a memory of {given} words for a segment of {needed}"),
        }
    }
}

impl std::error::Error for RegistryError {}

/// The tables of a process. Every part adds its own before the segment is made.
#[derive(Clone, Default, Debug)]
pub struct Registry {
    tables: Vec<Registered>,
    spares: Vec<Spare>,
}

/// Room for rows that come later.
#[derive(Clone, Copy, Debug)]
struct Spare {
    id: TypeId,
    rows: &'static [MetricDef],
    words: usize,
    count: usize,
}

#[derive(Clone, Debug)]
struct Registered {
    id: TypeId,
    rows: &'static [MetricDef],
    words: usize,
    /// What tells its rows from those of the same table for something else.
    labels: Vec<(&'static str, String)>,
}

/// One of several places of a table: see [`Registry::add_for`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instance(usize);

impl Registry {
    /// No tables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the rows of `T`.
    ///
    /// # Errors
    /// [`RegistryError::Twice`] when a row cannot be told from one that is there.
    pub fn add<T: Table>(&mut self) -> Result<(), RegistryError> {
        for (at, row) in T::ROWS.iter().enumerate() {
            let earlier = self.tables.iter().flat_map(|table| table.rows).chain(&T::ROWS[..at]);
            for other in earlier.filter(|other| other.name == row.name) {
                if other.labels == row.labels || (other.kind, other.unit) != (row.kind, row.unit) {
                    return Err(RegistryError::Twice(row.name.to_owned()));
                }
            }
        }
        let labels = Vec::new();
        self.tables.push(Registered { id: TypeId::of::<T>(), rows: T::ROWS, words: T::WORDS, labels });
        Ok(())
    }

    /// Adds the rows of `T` once more, for the thing that these labels name: they stand before the rows' own.
    ///
    /// # Errors
    /// [`RegistryError::Twice`] when the table is there for the same thing already.
    pub fn add_for<T: Table>(&mut self, labels: &[(&'static str, &str)]) -> Result<Instance, RegistryError> {
        let id = TypeId::of::<T>();
        let labels: Vec<_> = labels.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        if self.tables.iter().any(|table| table.id == id && table.labels == labels) {
            return Err(RegistryError::Twice(T::ROWS.first().map_or_else(String::new, |row| row.name.to_owned())));
        }
        self.tables.push(Registered { id, rows: T::ROWS, words: T::WORDS, labels });
        Ok(Instance(self.tables.len() - 1))
    }

    /// Keeps room to add the rows of `T` while the segment is in use, for so many things at most: [`Segment::add_late`].
    /// All such room takes up to half of what a segment may have left; beyond that there is less of it.
    pub fn reserve<T: Table>(&mut self, count: usize) {
        self.spares.push(Spare { id: TypeId::of::<T>(), rows: T::ROWS, words: T::WORDS, count });
    }

    /// The same without room for what comes later: where there is none for it.
    #[must_use]
    pub fn without_late(&self) -> Self {
        Self { tables: self.tables.clone(), spares: Vec::new() }
    }

    /// The layout of a segment for so many event threads.
    ///
    /// # Errors
    /// [`RegistryError::TooMany`].
    pub fn layout(&self, threads: usize) -> Result<Layout, RegistryError> {
        let mut offset = 0;
        let mut described = Vec::new();
        let mut tables = Vec::with_capacity(self.tables.len());
        for table in &self.tables {
            tables.push(Placed { id: table.id, offset, words: table.words });
            for row in table.rows {
                described.push(Described {
                    name: row.name,
                    help: row.help,
                    labels: table
                        .labels
                        .iter()
                        .map(|(key, value)| (*key, value.as_str()))
                        .chain(row.labels.iter().copied())
                        .collect(),
                    kind: row.kind,
                    unit: row.unit,
                    words: row.words(),
                });
                offset += row.words();
            }
        }
        Layout::of(&described, tables, &self.spares, threads)
    }
}

/// Where a table's cells begin within an area.
#[derive(Clone, Copy, Debug)]
struct Placed {
    id: TypeId,
    offset: usize,
    words: usize,
}

/// What the directory says of a metric.
struct Described<'a> {
    name: &'a str,
    help: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    kind: Kind,
    unit: Unit,
    words: usize,
}

/// Where everything lies: computed before there is memory, so that the memory can be made of the right size.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The words before the beats, but for the identity, the checksum and the magic.
    description: Vec<u64>,
    tables: Vec<Placed>,
    threads: usize,
    beats: usize,
    areas: usize,
    area_words: usize,
    words: usize,
    late: late::Room,
}

impl Layout {
    fn of(
        metrics: &[Described<'_>],
        mut tables: Vec<Placed>,
        spares: &[Spare],
        threads: usize,
    ) -> Result<Self, RegistryError> {
        if metrics.len() > METRICS_MAX {
            return Err(RegistryError::TooMany("metrics", metrics.len()));
        }
        if threads > THREADS_MAX {
            return Err(RegistryError::TooMany("threads", threads));
        }
        let mut strings = Strings::default();
        let mut description = vec![0; HEADER_WORDS];
        let mut offset = 0_usize;
        for metric in metrics {
            let mut words = [0; ENTRY_WORDS];
            words[entry::NAME] = strings.put(metric.name);
            words[entry::HELP] = strings.put(metric.help);
            words[entry::LABELS] = strings.put_labels(&metric.labels);
            words[entry::KIND] = metric.kind as u64;
            words[entry::UNIT] = metric.unit as u64;
            words[entry::OFFSET_BYTES] = offset as u64 * 8;
            words[entry::WORDS] = metric.words as u64;
            if metric.kind == Kind::Histogram {
                words[entry::SHAPE] = shape();
            }
            description.extend(words);
            offset += metric.words;
        }
        let texts = late::texts(spares, &mut strings);
        let strings_at = description.len();
        let strings_bytes = strings.0.len();
        description.extend(strings.0.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        }));
        let beats = to_line(description.len());
        description.resize(beats, 0);
        let areas = beats + threads * BEAT_WORDS;
        let free = WORDS_MAX.saturating_sub(areas + (threads + 1) * to_line(offset.max(1)));
        let mut late = late::Room::of(spares, texts, free / 2 / (threads + 1), strings_bytes);
        late.take_places(&mut tables, &mut offset);
        let area_words = to_line(offset.max(1));
        late.at = areas + (threads + 1) * area_words;
        let words = late.at + late.words();
        if words > WORDS_MAX {
            return Err(RegistryError::TooMany("words", words));
        }
        for (at, value) in [
            (header::VERSION, VERSION),
            (header::WORDS, words as u64),
            (header::THREADS, threads as u64),
            (header::METRICS, metrics.len() as u64),
            (header::STRINGS, strings_at as u64),
            (header::STRINGS_BYTES, strings_bytes as u64),
            (header::BEATS, beats as u64),
            (header::AREAS, areas as u64),
            (header::AREA_WORDS, area_words as u64),
            (header::LATE, if late.metrics_max == 0 { 0 } else { late.at as u64 }),
            (header::LATE_MAX, late.metrics_max as u64),
        ] {
            description[at] = value;
        }
        Ok(Self { description, tables, threads, beats, areas, area_words, words, late })
    }

    /// How many words of memory the segment needs.
    #[must_use]
    pub const fn words(&self) -> usize {
        self.words
    }

    /// Writes the segment into a memory of zeros and keeps the memory for ever: threads' cells point into it, and a
    /// process has one segment for life. A simulation that runs many times makes one and [resets](Segment::reset) it.
    ///
    /// # Errors
    /// [`RegistryError::TooSmall`].
    pub fn create<W>(self, memory: W, identity: Identity) -> Result<Segment, RegistryError>
    where
        W: AsRef<[AtomicU64]> + Send + Sync + 'static,
    {
        let given = memory.as_ref().len();
        if given < self.words {
            return Err(RegistryError::TooSmall(given, self.words));
        }
        let memory: &'static W = Box::leak(Box::new(memory));
        let words = &memory.as_ref()[..self.words];
        for (word, value) in words.iter().zip(self.described_by(identity)) {
            word.store(value, Ordering::Relaxed);
        }
        // Release: who reads the magic, reads what it promises.
        words[header::MAGIC].store(MAGIC, Ordering::Release);
        let used = Mutex::new(late::Used::of(&self.late));
        Ok(Segment(Arc::new(Inside { words, layout: self, used })))
    }

    /// A segment on the heap that no other process reads: for tests, simulation and processes without a runtime
    /// directory.
    ///
    /// # Errors
    /// None that a layout does not already rule out; the type is that of [`Layout::create`].
    pub fn create_on_heap(self, identity: Identity) -> Result<Segment, RegistryError> {
        let memory = HeapWords::new(self.words);
        self.create(memory, identity)
    }

    /// The words before the beats, whole but for the magic.
    fn described_by(&self, identity: Identity) -> Vec<u64> {
        let mut words = self.description.clone();
        words[header::PID] = u64::from(identity.pid);
        words[header::GENERATION] = identity.generation;
        words[header::STARTED_MICROS] = identity.started_micros.cast_unsigned();
        words[header::CHECKSUM] = 0;
        words[header::CHECKSUM] = checksum(words[1..].iter().copied());
        words
    }
}

/// Who writes a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    /// The process.
    pub pid: u32,
    /// Its generation, as manager counts servers.
    pub generation: u64,
    /// When it started: microseconds since 1970.
    pub started_micros: i64,
}

/// The segment a process writes. Clones are the same segment; any thread may hold one.
#[derive(Clone, Debug)]
pub struct Segment(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    words: &'static [AtomicU64],
    layout: Layout,
    used: Mutex<late::Used>,
}

impl Segment {
    /// The cells of table `T` for event thread number `thread`; `None` when there is no such table or thread. Two calls
    /// give the same cells: only one thread may write them.
    #[must_use]
    pub fn cells<T: Table>(&self, thread: usize) -> Option<Cells<T>> {
        (thread < self.threads()).then(|| self.table::<T>(thread).map(Cells::new))?
    }

    /// The cells of one of the places of table `T` for event thread number `thread`; `None` when there is no such place
    /// or thread. Only one thread may write them.
    #[must_use]
    pub fn cells_of<T: Table>(&self, instance: Instance, thread: usize) -> Option<Cells<T>> {
        let layout = &self.0.layout;
        let table = layout.tables.get(instance.0).filter(|table| table.id == TypeId::of::<T>())?;
        let at = layout.areas + thread * layout.area_words + table.offset;
        (thread < self.threads()).then(|| Cells::new(&self.0.words[at..at + table.words]))
    }

    /// Adds the rows of `T` for the thing that these labels name, where [`Registry::reserve`] has kept room; `None` when all
    /// of it is taken. Readers see it from now on. Costs a lock: for what is seen for the first time.
    #[must_use]
    pub fn add_late<T: Table>(&self, labels: &[(&str, &str)]) -> Option<Instance> {
        let Inside { words, layout, used } = &*self.0;
        let mut used = used.lock().unwrap_or_else(PoisonError::into_inner);
        used.add(words, &layout.late, &layout.tables, TypeId::of::<T>(), labels).map(Instance)
    }

    /// The process's cells of table `T`, which any thread may write; `None` when there is no such table.
    #[must_use]
    pub fn process<T: Table>(&self) -> Option<SharedCells<T>> {
        self.table::<T>(self.threads()).map(SharedCells::new)
    }

    /// The beat of event thread number `thread`.
    #[must_use]
    pub fn beat(&self, thread: usize) -> Option<Beat> {
        let at = self.0.layout.beats + thread * BEAT_WORDS;
        (thread < self.threads()).then(|| Beat::new(&self.0.words[at..at + BEAT_WORDS]))
    }

    /// Event threads it was laid out for.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.0.layout.threads
    }

    /// When its process started: microseconds since 1970.
    #[must_use]
    pub fn started_micros(&self) -> i64 {
        self.0.words[header::STARTED_MICROS].load(Ordering::Relaxed).cast_signed()
    }

    /// The memory, as [`Snapshot::read`] takes it.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        self.0.words
    }

    /// Sets every number and beat to zero. Not while threads write.
    pub fn reset(&self) {
        // What came late stays declared.
        for word in &self.0.words[self.0.layout.beats..self.0.layout.late.at] {
            word.store(0, Ordering::Relaxed);
        }
    }

    fn table<T: Table>(&self, area: usize) -> Option<&'static [AtomicU64]> {
        let layout = &self.0.layout;
        let table = layout.tables.iter().find(|table| table.id == TypeId::of::<T>())?;
        let at = layout.areas + area * layout.area_words + table.offset;
        Some(&self.0.words[at..at + table.words])
    }
}

impl Snapshot {
    /// The words of a segment that says the same: no threads, all numbers in the process's area. So a sum over dead
    /// generations is kept in a file like any other.
    ///
    /// # Errors
    /// [`RegistryError::TooMany`].
    pub fn to_words(&self) -> Result<Vec<u64>, RegistryError> {
        let described: Vec<Described<'_>> = self.metrics.iter().map(Described::of).collect();
        let layout = Layout::of(&described, Vec::new(), &[], 0)?;
        let mut words = layout.described_by(Identity {
            pid: self.pid,
            generation: self.generation,
            started_micros: self.started_micros,
        });
        words.resize(layout.areas, 0);
        for metric in &self.metrics {
            match &metric.value {
                Value::Counter(n) => words.push(*n),
                Value::Gauge(n) => words.push(n.cast_unsigned()),
                Value::Histogram(distribution) => words.extend(distribution.cells()),
            }
        }
        words.resize(layout.words, 0);
        words[header::MAGIC] = MAGIC;
        Ok(words)
    }
}

impl<'a> Described<'a> {
    fn of(metric: &'a Metric) -> Self {
        let (kind, words) = match &metric.value {
            Value::Counter(_) => (Kind::Counter, 1),
            Value::Gauge(_) => (Kind::Gauge, 1),
            Value::Histogram(distribution) => (Kind::Histogram, distribution.cells().count()),
        };
        let labels = metric.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        Self { name: &metric.name, help: &metric.help, labels, kind, unit: metric.unit, words }
    }
}

/// The shape of histograms as this version writes them.
pub(crate) const fn shape() -> u64 {
    (SUB_BITS as u64) << 32 | VALUE_BITS as u64
}

/// The texts of a segment, one after the other.
#[derive(Default)]
struct Strings(Vec<u8>);

impl Strings {
    fn put(&mut self, text: &str) -> u64 {
        let at = self.0.len();
        self.0.extend_from_slice(text.as_bytes());
        (at as u64) << 32 | text.len() as u64
    }

    fn put_labels(&mut self, labels: &[(&str, &str)]) -> u64 {
        let at = self.0.len();
        for (key, value) in labels {
            for text in [key, value] {
                self.0.extend(text.bytes().filter(|byte| *byte != 0));
                self.0.push(0);
            }
        }
        (at as u64) << 32 | (self.0.len() - at) as u64
    }
}

const _: () = assert!(HEADER_WORDS == LINE_WORDS && BEAT_WORDS == LINE_WORDS, "cells never share a line with others");

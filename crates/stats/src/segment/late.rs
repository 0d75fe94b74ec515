//! Metrics that are added while a segment is in use: room for their cells is kept in every area, and room to describe them
//! behind all areas.

use std::any::TypeId;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Placed, Spare, Strings, shape};
use crate::format::{ENTRY_WORDS, LINE_WORDS, entry};
use crate::table::{Kind, MetricDef};

/// Bytes for the labels of one metric, on average; who needs more leaves less for others.
const LABELS_BYTES: usize = 96;

/// The texts of each row: name and help.
pub(super) type Texts = Vec<Vec<(u64, u64)>>;

/// The names and helps of all spare rows, put among the segment's strings.
pub(super) fn texts(spares: &[Spare], strings: &mut Strings) -> Texts {
    let row = |strings: &mut Strings, row: &MetricDef| (strings.put(row.name), strings.put(row.help));
    spares.iter().map(|spare| spare.rows.iter().map(|def| row(strings, def)).collect()).collect()
}

/// The room that there is.
#[derive(Clone, Debug)]
pub(super) struct Room {
    spares: Vec<(Spare, Vec<(u64, u64)>)>,
    /// Among the tables, the first place of each spare.
    first: Vec<usize>,
    /// Where late metrics are described.
    pub(super) at: usize,
    pub(super) metrics_max: usize,
    /// Where the texts of labels begin to count.
    strings_base: usize,
}

impl Room {
    /// For spares whose places take so many words of an area, at most.
    pub(super) fn of(spares: &[Spare], texts: Texts, words_max: usize, strings_base: usize) -> Self {
        let mut left = words_max;
        let fit = |spare: &Spare| {
            let each = spare.words + spare.rows.len() * (ENTRY_WORDS + LABELS_BYTES / 8);
            let count = spare.count.min(left / each.max(1));
            left -= count * each;
            Spare { count, ..*spare }
        };
        let spares: Vec<_> = spares.iter().map(fit).zip(texts).collect();
        let metrics_max = spares.iter().map(|(spare, _)| spare.count * spare.rows.len()).sum();
        Self { spares, first: Vec::new(), at: 0, metrics_max, strings_base }
    }

    /// Puts the places among the tables, behind all others.
    pub(super) fn take_places(&mut self, tables: &mut Vec<Placed>, offset: &mut usize) {
        for (spare, _) in &self.spares {
            self.first.push(tables.len());
            for _ in 0..spare.count {
                tables.push(Placed { id: spare.id, offset: *offset, words: spare.words });
                *offset += spare.words;
            }
        }
    }

    /// Words behind all areas.
    pub(super) const fn words(&self) -> usize {
        if self.metrics_max == 0 { 0 } else { LINE_WORDS + self.metrics_max * (ENTRY_WORDS + LABELS_BYTES / 8) }
    }
}

/// How much of it is taken.
#[derive(Debug)]
pub(super) struct Used {
    places: Vec<usize>,
    metrics: usize,
    /// Words of the labels' texts.
    strings: usize,
}

impl Used {
    pub(super) fn of(room: &Room) -> Self {
        Self { places: vec![0; room.spares.len()], metrics: 0, strings: 0 }
    }

    /// Describes the next place of that table, and says which it is among all.
    pub(super) fn add(
        &mut self,
        words: &[AtomicU64],
        room: &Room,
        tables: &[Placed],
        id: TypeId,
        labels: &[(&str, &str)],
    ) -> Option<usize> {
        let at = room.spares.iter().position(|(spare, _)| spare.id == id)?;
        let ((spare, texts), used) = (room.spares.get(at)?, self.places.get_mut(at)?);
        if *used >= spare.count {
            return None;
        }
        let place = room.first.get(at)? + *used;
        let mut offset = tables.get(place)?.offset;
        let directory = room.at + LINE_WORDS;
        let strings_at = directory + room.metrics_max * ENTRY_WORDS;
        let strings_max = room.metrics_max * LABELS_BYTES / 8;
        let (mut metrics, mut strings) = (self.metrics, self.strings);
        for (row, (name, help)) in spare.rows.iter().zip(texts) {
            let mut text = Strings::default();
            let all: Vec<_> = labels.iter().copied().chain(row.labels.iter().copied()).collect();
            text.put_labels(&all);
            let bytes = text.0;
            if strings + bytes.len().div_ceil(8) > strings_max {
                return None;
            }
            let from = room.strings_base + strings * 8;
            for chunk in bytes.chunks(8) {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                words.get(strings_at + strings)?.store(u64::from_ne_bytes(word), Ordering::Relaxed);
                strings += 1;
            }
            let mut described = [0; ENTRY_WORDS];
            described[entry::NAME] = *name;
            described[entry::HELP] = *help;
            described[entry::LABELS] = (from as u64) << 32 | bytes.len() as u64;
            described[entry::KIND] = row.kind as u64;
            described[entry::UNIT] = row.unit as u64;
            described[entry::OFFSET_BYTES] = offset as u64 * 8;
            described[entry::WORDS] = row.words() as u64;
            if row.kind == Kind::Histogram {
                described[entry::SHAPE] = shape();
            }
            offset += row.words();
            let entry = words.get(directory + metrics * ENTRY_WORDS..)?;
            entry.iter().zip(described).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
            metrics += 1;
        }
        *used += 1;
        (self.metrics, self.strings) = (metrics, strings);
        // Release: who reads their number, reads what it promises.
        words.get(room.at)?.store(metrics as u64, Ordering::Release);
        Some(place)
    }
}

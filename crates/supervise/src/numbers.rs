//! What other generations of the server have counted, so that a new one goes on from there.
//!
//! Manager adds everybody's numbers for whoever asks it ([`RuntimeDir::folded_numbers`] is its sum of those long dead);
//! a server that is asked itself takes those of the others from the same files.

use std::io;
use std::path::Path;

use stats::{Snapshot, Value};
use sys::shm::SharedWordsReader;

use crate::directory::RuntimeDir;
use crate::lease::{self, Holder};

/// Files read for one answer; manager folds the dead before there are so many.
const FILES_MAX: usize = 64;

/// What was read.
#[derive(Debug, Default)]
pub struct Others {
    /// Counters and histograms that have counted anything.
    pub sum: Snapshot,
    /// The generations whose numbers may grow, or were there; when the same is found again, so is the same sum.
    seen: Vec<(u64, bool)>,
    /// Files that could not be read, with the reason.
    pub unreadable: Vec<String>,
}

impl Others {
    /// Reads what all generations but `own` have counted under names that begin with `prefix`; or tells that nothing has
    /// changed since `before`.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn read(directory: &RuntimeDir, own: u64, prefix: &str, before: Option<&Self>) -> io::Result<Option<Self>> {
        let mut generations = directory.numbers_generations()?;
        generations.retain(|generation| *generation != own);
        let lives =
            |generation: u64| matches!(lease::holder(&directory.server_lease(generation)), Ok(Holder::Somebody(_)));
        let seen: Vec<_> = generations.iter().map(|&generation| (generation, lives(generation))).collect();
        // Whoever lives still counts.
        if before.is_some_and(|before| before.seen == seen && seen.iter().all(|(_, lives)| !lives)) {
            return Ok(None);
        }
        let mut others = Self { seen, ..Self::default() };
        let newest = generations.iter().rev().take(FILES_MAX);
        let files: Vec<_> = newest.map(|&generation| directory.server_numbers(generation)).collect();
        let read: Vec<Snapshot> = files.iter().filter_map(|file| others.snapshot(file)).collect();
        // Last: whatever was folded and removed while we read is in it.
        let folded = others.snapshot(&directory.folded_numbers());
        let included = folded.as_ref().map(|sum| sum.generation);
        let read = read.into_iter().filter(|one| included.is_none_or(|included| one.generation > included));
        for mut snapshot in read.chain(folded) {
            snapshot.metrics.retain(|metric| {
                metric.name.starts_with(prefix)
                    && match &metric.value {
                        Value::Counter(count) => *count > 0,
                        Value::Histogram(distribution) => distribution.count() > 0,
                        Value::Gauge(_) => false,
                    }
            });
            others.sum.add_dead(&snapshot);
        }
        Ok(Some(others))
    }

    /// One that is not there is no error: its generation has been folded, or has not begun.
    fn snapshot(&mut self, file: &Path) -> Option<Snapshot> {
        let read = SharedWordsReader::open(file).and_then(|reader| reader.read()).and_then(|words| {
            Snapshot::from_words(&words).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        });
        match read {
            Ok(snapshot) => Some(snapshot),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.unreadable.push(format!("{}: {error}", file.display()));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stats::{Identity, Registry};
    use std::fs;

    stats::metrics! {
        /// What is counted here.
        struct Shop;
        /// Sold.
        counter SOLD = "shop_sold_total";
        /// Inside.
        gauge INSIDE = "shop_inside";
        /// Lost.
        counter LOST = "lost_total";
    }

    fn write(file: &Path, pid: u32, generation: u64, sold: u64) {
        let mut registry = Registry::new();
        registry.add::<Shop>().unwrap();
        let identity = Identity { pid, generation, started_micros: 1 };
        let segment = registry.layout(1).unwrap().create_on_heap(identity).unwrap();
        let cells = segment.cells::<Shop>(0).unwrap();
        cells.add(Shop::SOLD, sold);
        cells.add(Shop::INSIDE, 1);
        cells.add(Shop::LOST, 1);
        let words = segment.words().iter().map(|word| word.load(std::sync::atomic::Ordering::Relaxed));
        fs::write(file, words.flat_map(u64::to_ne_bytes).collect::<Vec<u8>>()).unwrap();
    }

    #[test]
    fn what_others_counted_is_added_once_and_read_again_only_when_it_may_differ() {
        let home = std::env::temp_dir().join(format!("beltway-numbers-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        let directory = RuntimeDir::new(&home);
        directory.create().unwrap();
        // Folded up to the third, whose file its folder had no time to remove.
        write(&directory.folded_numbers(), 0, 3, 100);
        write(&directory.server_numbers(3), 7, 3, 10);
        write(&directory.server_numbers(4), 8, 4, 1);
        write(&directory.server_numbers(5), 9, 5, 1_000);
        fs::write(directory.server_numbers(2), "no numbers").unwrap();
        let others = Others::read(&directory, 5, "shop_", None).unwrap().unwrap();
        assert_eq!(others.sum.counter("shop_sold_total"), 101);
        assert_eq!((others.sum.metrics.len(), others.unreadable.len()), (1, 1));
        assert!(Others::read(&directory, 5, "shop_", Some(&others)).unwrap().is_none());
        fs::remove_file(directory.server_numbers(4)).unwrap();
        let later = Others::read(&directory, 5, "shop_", Some(&others)).unwrap().unwrap();
        assert_eq!(later.sum.counter("shop_sold_total"), 100);
        fs::remove_dir_all(home).unwrap();
    }
}

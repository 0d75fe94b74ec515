//! The store itself and its rivals, over one trace with the same bytes.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use base::{ByteCount, Instant};
use cache::{Alternates, Entrance, Found, Head, Key, Lane, RamOptions, RamStore, Role, Seen, Store, Tags};

use crate::traces::{Trace, length_of};

/// What each object takes beside its body: as our store has it, so that the rivals have no more room.
const OVERHEAD: u64 = 512;
const METADATA: usize = 200;

/// How much was hit, from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ratio {
    /// Of requests.
    pub(crate) objects: f64,
    /// Of bytes.
    pub(crate) bytes: f64,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Our store.
    pub(crate) ours: Ratio,
    /// Least recently used goes first.
    pub(crate) lru: Ratio,
    /// Oldest goes first.
    pub(crate) fifo: Ratio,
    /// What is used again latest goes first.
    pub(crate) optimum: Ratio,
}

/// Runs all of them.
pub(crate) fn run_all(trace: &Trace, budget: u64) -> Row {
    Row {
        ours: ours(trace, budget),
        lru: lru(trace, budget),
        fifo: fifo(trace, budget),
        optimum: optimum(trace, budget),
    }
}

#[derive(Default)]
struct Tally {
    hits: u64,
    hit_bytes: u64,
    requests: u64,
    bytes: u64,
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:5.2} ({:5.2})", self.objects * 100.0, self.bytes * 100.0)
    }
}

impl Tally {
    fn count(&mut self, object: u32, hit: bool) {
        let length = length_of(object) as u64;
        self.requests += 1;
        self.bytes += length;
        self.hits += u64::from(hit);
        self.hit_bytes += if hit { length } else { 0 };
    }

    #[expect(clippy::cast_precision_loss, reason = "a ratio need not be exact")]
    fn ratio(&self) -> Ratio {
        Ratio {
            objects: self.hits as f64 / self.requests.max(1) as f64,
            bytes: self.hit_bytes as f64 / self.bytes.max(1) as f64,
        }
    }
}

fn weight(object: u32) -> u64 {
    length_of(object) as u64 + OVERHEAD
}

fn ours(trace: &Trace, budget: u64) -> Ratio {
    let options = RamOptions::new(ByteCount(budget), 4);
    let store = RamStore::new(RamOptions { object_max: Some(ByteCount(budget)), ..options });
    let metadata: Arc<[u8]> = Arc::from([0; METADATA]);
    let body = vec![0; 1 << 18];
    let any = |alternates: Alternates<'_>| (alternates.len() > 0).then_some(0);
    let mut tally = Tally::default();
    for (n, object) in trace.requests.iter().enumerate() {
        let key = Key::of(&object.to_le_bytes());
        let hit = matches!(store.look_up(key, &any).now(), Ok(Found::Hit(_)));
        tally.count(*object, hit);
        if !hit {
            let now = Instant::from_nanos(n as u64);
            let entrance = Entrance { key, lane: Lane::PRIMARY, seen: Seen::NOTHING, now };
            let Role::Writer(mut writer) = store.enter(entrance) else { continue };
            let head = Head { metadata: Arc::clone(&metadata), tags: Tags::NONE, expected: None };
            writer.start(head, now);
            writer.append(&body[..length_of(*object)], now);
            // What does not fit is not stored: that is what is measured.
            let _ = writer.finish(None, &|_| true, now);
        }
    }
    tally.ratio()
}

fn lru(trace: &Trace, budget: u64) -> Ratio {
    let (mut used, mut tally) = (0, Tally::default());
    let mut last: HashMap<u32, usize> = HashMap::new();
    let mut order: BTreeSet<(usize, u32)> = BTreeSet::new();
    for (n, object) in trace.requests.iter().enumerate() {
        let before = last.insert(*object, n);
        tally.count(*object, before.is_some());
        match before {
            Some(before) => {
                order.remove(&(before, *object));
            }
            None => used += weight(*object),
        }
        order.insert((n, *object));
        while used > budget {
            let Some((_, gone)) = order.pop_first() else { break };
            last.remove(&gone);
            used -= weight(gone);
        }
    }
    tally.ratio()
}

fn fifo(trace: &Trace, budget: u64) -> Ratio {
    let (mut used, mut tally) = (0, Tally::default());
    let mut there: HashMap<u32, ()> = HashMap::new();
    let mut order = VecDeque::new();
    for object in &trace.requests {
        let hit = there.contains_key(object);
        tally.count(*object, hit);
        if !hit {
            there.insert(*object, ());
            order.push_back(*object);
            used += weight(*object);
        }
        while used > budget {
            let Some(gone) = order.pop_front() else { break };
            there.remove(&gone);
            used -= weight(gone);
        }
    }
    tally.ratio()
}

/// Belady's rule: what is used again latest goes first, and what never is used again does not come in. The optimum when
/// all objects have one length, and near it else.
fn optimum(trace: &Trace, budget: u64) -> Ratio {
    let mut next_use = vec![usize::MAX; trace.requests.len()];
    let mut seen: HashMap<u32, usize> = HashMap::new();
    for (n, object) in trace.requests.iter().enumerate().rev() {
        if let Some(next) = seen.insert(*object, n) {
            next_use[n] = next;
        }
    }
    let (mut used, mut tally) = (0, Tally::default());
    let mut there: HashMap<u32, usize> = HashMap::new();
    let mut order: BTreeSet<(usize, u32)> = BTreeSet::new();
    for (n, object) in trace.requests.iter().enumerate() {
        let before = there.remove(object);
        tally.count(*object, before.is_some());
        if let Some(before) = before {
            order.remove(&(before, *object));
            used -= weight(*object);
        }
        let next = next_use[n];
        if next == usize::MAX {
            continue;
        }
        there.insert(*object, next);
        order.insert((next, *object));
        used += weight(*object);
        while used > budget {
            let Some((_, gone)) = order.pop_last() else { break };
            there.remove(&gone);
            used -= weight(gone);
        }
    }
    tally.ratio()
}

//! What is kept and what goes: S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023).
//!
//! ```text
//! insert ──> small (10 % of the bytes at first) ── used ──> main ── unused ──> out, its key to the ghosts
//!    │               └── else ──> out, its key to the ghosts  ↺ used: once more round
//!    └── key among the ghosts of small ────────────────────> main
//! ```
//!
//! One shard's part of it, pure: no lock, no clock, no memory accounting. Queues are doubly linked through the slots.
//! Each slot bears the stamp of a counter that all shards share, so that whoever evicts can take from the shard whose
//! tail is oldest, and many shards behave as one queue. The paper asks for two uses in the small queue; one keeps more on
//! each of the traces of `examples/hit_ratio`. Who evicts also learns from [`Known`] which queue is too small. When not to use it: where all that is popular changes within a few fills
//! of the cache; there LRU forgets the old sooner (the same example shows by how much).

use crate::Key;
use crate::ram::ghost::{Evicted, Ghost};
use crate::ram::index::{Index, SlotNumber};

/// Uses are counted up to this.
pub(crate) const USES_MAX: u8 = 3;
/// Uses within the small queue by which an object gets into the main queue. Those of one burst count as well.
const USES_FOR_MAIN: u8 = 1;
/// Slots are made in steps of doubling from here.
const SLOTS_FIRST: usize = 16;
const NONE: SlotNumber = SlotNumber::MAX;

/// The two queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Queue {
    Small,
    Main,
}

impl Queue {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Main => "main",
        }
    }
}

#[derive(Debug)]
struct Slot<T> {
    key: Key,
    /// None while the slot is free.
    value: Option<T>,
    bytes: u64,
    stamp: u64,
    newer: SlotNumber,
    older: SlotNumber,
    queue: Queue,
    uses: u8,
    /// Since it was put in.
    hits: u32,
}

/// Where an object stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Standing {
    pub(crate) queue: Queue,
    /// Uses that count for keeping it.
    pub(crate) uses: u8,
    /// Uses in all since it was put in.
    pub(crate) hits: u32,
}

#[derive(Debug)]
struct List {
    newest: SlotNumber,
    oldest: SlotNumber,
    bytes: u64,
}

impl Default for List {
    fn default() -> Self {
        Self { newest: NONE, oldest: NONE, bytes: 0 }
    }
}

/// One shard's table and queues.
#[derive(Debug)]
pub(crate) struct Queues<T> {
    index: Index,
    slots: Vec<Slot<T>>,
    /// Free slots, linked by `older`.
    free: SlotNumber,
    capacity: usize,
    len: usize,
    small: List,
    main: List,
    ghost: Ghost,
}

/// What the ghosts knew of a key that is put in: it was evicted from that queue, and so many bytes left the queue since.
pub(crate) type Known = Option<(Queue, u64)>;

/// One step of eviction.
#[derive(Debug)]
pub(crate) enum Step<T> {
    /// The queue is empty.
    Empty,
    /// The oldest stays, by its uses, and is no longer the oldest. `promoted`: it left the small queue for the main one.
    Spared { promoted: bool },
    /// The oldest goes.
    Evicted { value: T, bytes: u64 },
}

impl<T> Default for Queues<T> {
    fn default() -> Self {
        Self {
            index: Index::default(),
            slots: Vec::new(),
            free: NONE,
            capacity: 0,
            len: 0,
            small: List::default(),
            main: List::default(),
            ghost: Ghost::default(),
        }
    }
}

impl<T> Queues<T> {
    /// Objects in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes in a queue.
    pub(crate) fn bytes(&self, queue: Queue) -> u64 {
        self.list(queue).bytes
    }

    /// The stamp of a queue's oldest; the largest number when it is empty.
    pub(crate) fn oldest(&self, queue: Queue) -> u64 {
        self.slots.get(self.list(queue).oldest as usize).map_or(u64::MAX, |slot| slot.stamp)
    }

    /// Has what is known of a key that is not there brought closer: it will be put in soon.
    #[inline]
    pub(crate) fn announce(&self, key: Key) {
        self.ghost.announce(key.fingerprint());
    }

    /// The oldest of a queue. All that its eviction will touch here is brought closer.
    pub(crate) fn announce_oldest(&self, queue: Queue) -> Option<&T> {
        let slot = self.slots.get(self.list(queue).oldest as usize)?;
        self.index.announce(slot.key.fingerprint());
        self.ghost.announce(slot.key.fingerprint());
        if let Some(next) = self.slots.get(slot.newer as usize) {
            buf::prefetch_value(next);
        }
        slot.value.as_ref()
    }

    const fn memory(capacity: usize) -> usize {
        capacity * size_of::<Slot<T>>() + Index::bytes(capacity) + Ghost::bytes(capacity)
    }

    /// How much more memory the next insertion needs for the table itself.
    pub(crate) fn growth(&self) -> u64 {
        if self.len < self.capacity {
            return 0;
        }
        (Self::memory(self.next_capacity()) - Self::memory(self.capacity)) as u64
    }

    fn next_capacity(&self) -> usize {
        (self.capacity * 2).max(SLOTS_FIRST)
    }

    fn grow(&mut self) {
        self.capacity = self.next_capacity();
        self.slots.reserve_exact(self.capacity - self.slots.len());
        self.index.grow(self.capacity);
        self.ghost.grow(self.capacity);
    }

    fn list(&self, queue: Queue) -> &List {
        match queue {
            Queue::Small => &self.small,
            Queue::Main => &self.main,
        }
    }

    fn list_mut(&mut self, queue: Queue) -> &mut List {
        match queue {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
        }
    }

    #[inline]
    fn find(&self, key: Key) -> Option<SlotNumber> {
        self.index.find(key.fingerprint(), |slot| self.slots[slot as usize].key == key)
    }

    /// What is under `key`, and counts it as used.
    #[inline]
    pub(crate) fn touch(&mut self, key: Key) -> Option<&T> {
        let slot = self.find(key)?;
        let slot = &mut self.slots[slot as usize];
        if slot.uses < USES_MAX {
            slot.uses += 1;
        }
        slot.hits = slot.hits.saturating_add(1);
        slot.value.as_ref()
    }

    /// What is under `key`.
    pub(crate) fn peek(&self, key: Key) -> Option<&T> {
        self.find(key).and_then(|slot| self.slots[slot as usize].value.as_ref())
    }

    /// Its place in the order of things.
    pub(crate) fn standing(&self, key: Key) -> Option<Standing> {
        let slot = &self.slots[self.find(key)? as usize];
        Some(Standing { queue: slot.queue, uses: slot.uses, hits: slot.hits })
    }

    /// What is under `key`, to be changed; then say by [`Queues::resize`] what it weighs.
    pub(crate) fn value_mut(&mut self, key: Key) -> Option<&mut T> {
        self.find(key).and_then(|slot| self.slots[slot as usize].value.as_mut())
    }

    /// What is under `key` weighs `bytes` from now on.
    pub(crate) fn resize(&mut self, key: Key, bytes: u64) {
        let Some(slot) = self.find(key) else { return };
        let slot = &mut self.slots[slot as usize];
        let before = std::mem::replace(&mut slot.bytes, bytes);
        let queue = slot.queue;
        let list = self.list_mut(queue);
        list.bytes = list.bytes - before + bytes;
    }

    /// Puts in what is not there yet. `evicted` counts the bytes that left the queues of all shards so far, `reach` is
    /// how many of them back a ghost of the small queue counts.
    pub(crate) fn insert(&mut self, key: Key, value: T, bytes: u64, stamp: u64, evicted: Evicted, reach: u64) -> Known {
        debug_assert!(self.find(key).is_none(), "a key was inserted twice");
        if self.len >= self.capacity {
            self.grow();
        }
        let known = self.ghost.recall(key.fingerprint(), evicted);
        let queue = match known {
            Some((Queue::Small, age)) if age <= reach => Queue::Main,
            _ => Queue::Small,
        };
        let slot = Slot { key, value: Some(value), bytes, stamp, newer: NONE, older: NONE, queue, uses: 0, hits: 0 };
        let number = if self.free == NONE {
            self.slots.push(slot);
            SlotNumber::try_from(self.slots.len() - 1).unwrap_or(NONE)
        } else {
            let number = self.free;
            self.free = self.slots[number as usize].older;
            self.slots[number as usize] = slot;
            number
        };
        self.len += 1;
        self.index.insert(key.fingerprint(), number);
        self.link(number, queue);
        known
    }

    fn link(&mut self, number: SlotNumber, queue: Queue) {
        let newest = self.list(queue).newest;
        let slot = &mut self.slots[number as usize];
        slot.queue = queue;
        slot.older = newest;
        slot.newer = NONE;
        let bytes = slot.bytes;
        match self.slots.get_mut(newest as usize) {
            Some(second) => second.newer = number,
            None => self.list_mut(queue).oldest = number,
        }
        let list = self.list_mut(queue);
        list.newest = number;
        list.bytes += bytes;
    }

    fn unlink(&mut self, number: SlotNumber) {
        let Slot { newer, older, queue, bytes, .. } = self.slots[number as usize];
        match self.slots.get_mut(newer as usize) {
            Some(slot) => slot.older = older,
            None => self.list_mut(queue).newest = older,
        }
        match self.slots.get_mut(older as usize) {
            Some(slot) => slot.newer = newer,
            None => self.list_mut(queue).oldest = newer,
        }
        self.list_mut(queue).bytes -= bytes;
    }

    fn take(&mut self, number: SlotNumber) -> Option<(T, u64)> {
        self.unlink(number);
        let free = self.free;
        let slot = &mut self.slots[number as usize];
        let (fingerprint, bytes) = (slot.key.fingerprint(), slot.bytes);
        slot.older = free;
        let value = slot.value.take();
        self.free = number;
        self.len -= 1;
        self.index.remove(fingerprint, number);
        value.map(|value| (value, bytes))
    }

    /// Takes out what is under `key`.
    pub(crate) fn remove(&mut self, key: Key) -> Option<(T, u64)> {
        self.find(key).and_then(|slot| self.take(slot))
    }

    /// Looks at the oldest of a queue and evicts it, or not. `is_busy` says that evicting would free nothing now; then
    /// it is spared, too. `stamp` is for what is spared, `evicted` as in [`Queues::insert`].
    pub(crate) fn step(
        &mut self,
        queue: Queue,
        stamp: u64,
        evicted: Evicted,
        mut is_busy: impl FnMut(&T) -> bool,
    ) -> Step<T> {
        let number = self.list(queue).oldest;
        let Some(slot) = self.slots.get_mut(number as usize) else { return Step::Empty };
        let used = match queue {
            Queue::Small => slot.uses >= USES_FOR_MAIN,
            Queue::Main => slot.uses > 0,
        };
        if used || slot.value.as_ref().is_some_and(&mut is_busy) {
            slot.uses = if queue == Queue::Small { 0 } else { slot.uses.saturating_sub(1) };
            self.unlink(number);
            self.slots[number as usize].stamp = stamp;
            self.link(number, Queue::Main);
            return Step::Spared { promoted: queue == Queue::Small };
        }
        let fingerprint = slot.key.fingerprint();
        self.ghost.remember(fingerprint, queue, evicted);
        match self.take(number) {
            Some((value, bytes)) => Step::Evicted { value, bytes },
            None => Step::Empty,
        }
    }
}

#[cfg(test)]
#[path = "queues_tests.rs"]
mod tests;

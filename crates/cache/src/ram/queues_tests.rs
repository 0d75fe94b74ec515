use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn key(n: u64) -> Key {
    Key::from_u128(u128::from(n) << 64 | u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

struct Shard {
    queues: Queues<u64>,
    stamp: u64,
    evicted: Evicted,
}

impl Shard {
    fn new() -> Self {
        Self { queues: Queues::default(), stamp: 0, evicted: Evicted::default() }
    }

    fn insert(&mut self, n: u64, bytes: u64) -> Known {
        self.stamp += 1;
        let reach = self.queues.bytes(Queue::Main).max(1 << 20);
        self.queues.insert(key(n), n, bytes, self.stamp, self.evicted, reach)
    }

    fn step(&mut self, queue: Queue) -> Step<u64> {
        self.stamp += 1;
        let step = self.queues.step(queue, self.stamp, self.evicted, |_| false);
        match (queue, &step) {
            (Queue::Small, Step::Evicted { bytes, .. }) => self.evicted.small += bytes,
            (Queue::Main, Step::Evicted { bytes, .. }) => self.evicted.main += bytes,
            _ => {}
        }
        step
    }
}

#[test]
fn who_is_used_in_the_small_queue_gets_into_the_main_one_and_who_is_not_goes() {
    let mut shard = Shard::new();
    shard.insert(1, 10);
    shard.insert(2, 10);
    assert!(shard.queues.touch(key(1)).is_some());
    assert!(matches!(shard.step(Queue::Small), Step::Spared { .. }));
    assert_eq!(shard.queues.standing(key(1)).map(|standing| (standing.queue, standing.uses)), Some((Queue::Main, 0)));
    assert!(matches!(shard.step(Queue::Small), Step::Evicted { value: 2, bytes: 10 }));
    assert!(matches!(shard.step(Queue::Small), Step::Empty));
}

#[test]
fn who_comes_back_soon_after_eviction_gets_into_the_main_queue() {
    let mut shard = Shard::new();
    shard.insert(1, 10);
    assert!(matches!(shard.step(Queue::Small), Step::Evicted { .. }));
    assert!(matches!(shard.insert(1, 10), Some((Queue::Small, _))));
    assert_eq!(shard.queues.standing(key(1)).map(|standing| (standing.queue, standing.uses)), Some((Queue::Main, 0)));
}

#[test]
fn each_use_in_the_main_queue_is_one_more_round_and_three_at_most() {
    let mut shard = Shard::new();
    shard.insert(1, 10);
    shard.queues.touch(key(1));
    assert!(matches!(shard.step(Queue::Small), Step::Spared { .. }));
    for _ in 0..100 {
        shard.queues.touch(key(1));
    }
    for _ in 0..USES_MAX {
        assert!(matches!(shard.step(Queue::Main), Step::Spared { .. }));
    }
    assert!(matches!(shard.step(Queue::Main), Step::Evicted { value: 1, .. }));
}

#[test]
fn what_somebody_reads_is_spared() {
    let mut shard = Shard::new();
    shard.insert(1, 10);
    assert!(matches!(shard.queues.step(Queue::Small, 5, Evicted::default(), |_| true), Step::Spared { .. }));
    assert!(matches!(shard.queues.step(Queue::Main, 6, Evicted::default(), |_| true), Step::Spared { .. }));
    assert!(matches!(shard.queues.step(Queue::Main, 7, Evicted::default(), |_| false), Step::Evicted { .. }));
}

#[test]
fn the_table_says_beforehand_by_how_much_it_will_grow() {
    let mut shard = Shard::new();
    let mut grown = 0;
    for n in 0..100 {
        let growth = shard.queues.growth();
        let capacity = shard.queues.capacity;
        shard.insert(n, 1);
        assert_eq!(growth > 0, shard.queues.capacity > capacity, "object {n}");
        grown += growth;
    }
    let taken = shard.queues.slots.capacity() * size_of::<Slot<u64>>();
    assert_eq!(grown, (taken + Index::bytes(128) + Ghost::bytes(128)) as u64);
}

#[derive(Clone, Debug)]
enum Call {
    Insert(u64, u64),
    Touch(u64),
    Remove(u64),
    Resize(u64, u64),
    Step(bool),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let one = prop_oneof![
        (0_u64..30, 1_u64..1_000).prop_map(|(n, bytes)| Call::Insert(n, bytes)),
        (0_u64..30).prop_map(Call::Touch),
        (0_u64..30).prop_map(Call::Remove),
        (0_u64..30, 1_u64..1_000).prop_map(|(n, bytes)| Call::Resize(n, bytes)),
        any::<bool>().prop_map(Call::Step),
    ];
    prop::collection::vec(one, 0..400)
}

proptest! {
    #[test]
    fn whatever_happens_queues_and_table_agree(calls in calls()) {
        let mut shard = Shard::new();
        let mut model: HashMap<u64, u64> = HashMap::new();
        for call in calls {
            match call {
                Call::Insert(n, bytes) => {
                    if model.insert(n, bytes).is_some() {
                        shard.queues.remove(key(n));
                    }
                    shard.insert(n, bytes);
                }
                Call::Touch(n) => prop_assert_eq!(shard.queues.touch(key(n)).copied(), model.get(&n).map(|_| n)),
                Call::Remove(n) => {
                    let removed = shard.queues.remove(key(n));
                    prop_assert_eq!(removed, model.remove(&n).map(|bytes| (n, bytes)));
                }
                Call::Resize(n, bytes) => {
                    shard.queues.resize(key(n), bytes);
                    model.entry(n).and_modify(|before| *before = bytes);
                }
                Call::Step(small) => {
                    let queue = if small { Queue::Small } else { Queue::Main };
                    if let Step::Evicted { value, bytes } = shard.step(queue) {
                        prop_assert_eq!(model.remove(&value), Some(bytes));
                    }
                }
            }
            let queues = &shard.queues;
            prop_assert_eq!(queues.len(), model.len());
            prop_assert_eq!(queues.bytes(Queue::Small) + queues.bytes(Queue::Main), model.values().sum::<u64>());
            for n in 0..30 {
                prop_assert_eq!(queues.peek(key(n)).is_some(), model.contains_key(&n));
            }
            for queue in [Queue::Small, Queue::Main] {
                // From the oldest to the newest: in the order of their stamps, and nobody is missing.
                let (mut at, mut last, mut bytes) = (queues.list(queue).oldest, 0, 0);
                while at != NONE {
                    let slot = &queues.slots[at as usize];
                    prop_assert!(slot.stamp > last && slot.queue == queue);
                    last = slot.stamp;
                    bytes += slot.bytes;
                    at = slot.newer;
                }
                prop_assert_eq!(bytes, queues.bytes(queue));
            }
        }
        // All of it can be evicted in a bounded number of steps.
        for _ in 0..30 * 6 {
            let (_, _) = (shard.step(Queue::Small), shard.step(Queue::Main));
        }
        prop_assert_eq!(shard.queues.len(), 0);
    }
}

use super::*;
use crate::table::Table;
use crate::{BeatName, Identity, Registry, RegistryError};

crate::metrics! {
    /// What a shop counts.
    struct Shop;
    /// Sold.
    counter SOLD = "shop_sold_total" { what = "bread" };
    /// Sold.
    counter SOLD_MILK = "shop_sold_total" { what = "milk" };
    /// Inside.
    gauge INSIDE = "shop_inside";
    /// Wait.
    histogram WAIT = "shop_wait_seconds" in Nanoseconds;
}

crate::metrics! {
    /// What a yard counts.
    struct Yard;
    /// Carts.
    counter CARTS = "yard_carts_total";
}

const WHO: Identity = Identity { pid: 4711, generation: 3, started_micros: 1_700_000_000_000_000 };

fn segment() -> crate::Segment {
    let mut registry = Registry::new();
    registry.add::<Shop>().unwrap();
    registry.add::<Yard>().unwrap();
    registry.layout(2).unwrap().create_on_heap(WHO).unwrap()
}

fn copied(segment: &crate::Segment) -> Vec<u64> {
    segment.words().iter().map(|word| word.load(Ordering::Relaxed)).collect()
}

#[test]
fn a_reader_finds_the_sum_of_all_threads_by_name() {
    let segment = segment();
    for thread in 0..2 {
        let shop = segment.cells::<Shop>(thread).unwrap();
        shop.add(Shop::SOLD, 5);
        shop.add(Shop::SOLD_MILK, 1);
        shop.observe(Shop::WAIT, 1_000);
    }
    // Raised by one thread, lowered by another.
    segment.cells::<Shop>(0).unwrap().add(Shop::INSIDE, 3);
    segment.cells::<Shop>(1).unwrap().sub(Shop::INSIDE, 1);
    segment.process::<Yard>().unwrap().add(Yard::CARTS, 9);
    segment.beat(1).unwrap().begin(&BeatName::new("[ET_NET 1]"), 7);

    for read in [Snapshot::read(segment.words()).unwrap(), Snapshot::from_words(&copied(&segment)).unwrap()] {
        assert_eq!((read.pid, read.generation, read.started_micros), (4711, 3, WHO.started_micros));
        assert_eq!(read.counter("shop_sold_total"), 12);
        assert_eq!(read.metric("shop_sold_total", &[("what", "milk")]).unwrap().value, Value::Counter(2));
        assert_eq!(read.gauge("shop_inside"), 2);
        assert_eq!(read.counter("yard_carts_total"), 9);
        assert_eq!(read.distribution("shop_wait_seconds").count(), 2);
        assert_eq!(read.distribution("shop_wait_seconds").quantile(500), Some(1_024));
        assert_eq!(read.beats[1].thread, "[ET_NET 1]");
        assert_eq!(read.metric("shop_inside", &[]).unwrap().help, "Inside.");
    }
}

#[test]
fn what_is_not_registered_has_no_cells() {
    let mut registry = Registry::new();
    registry.add::<Shop>().unwrap();
    let segment = registry.layout(1).unwrap().create_on_heap(WHO).unwrap();
    assert!(segment.cells::<Yard>(0).is_none());
    assert!(segment.cells::<Shop>(1).is_none());
    assert!(segment.beat(1).is_none());
    assert_eq!(registry.add::<Shop>(), Err(RegistryError::Twice("shop_sold_total".to_owned())));
    assert!(registry.layout(THREADS_MAX + 1).is_err());
    assert!(registry.layout(1).unwrap().create(crate::HeapWords::new(8), WHO).is_err());
}

#[test]
fn a_memory_that_is_cut_foreign_or_of_another_version_is_an_error() {
    let whole = copied(&segment());
    assert_eq!(Snapshot::from_words(&[]), Err(SegmentError::NotASegment));
    assert_eq!(Snapshot::from_words(&[0; 512]), Err(SegmentError::NotASegment));
    for cut in 0..whole.len() {
        assert!(Snapshot::from_words(&whole[..cut]).is_err(), "cut at {cut}");
    }
    let mut other = whole;
    other[header::VERSION] = 2;
    assert_eq!(Snapshot::from_words(&other), Err(SegmentError::OtherVersion(2)));
}

#[test]
fn no_damage_to_the_description_goes_unnoticed_or_panics() {
    let whole = copied(&segment());
    let described = usize::try_from(whole[header::BEATS]).unwrap();
    for at in 0..described {
        for bit in 0..64 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            assert!(Snapshot::from_words(&damaged).is_err(), "word {at}, bit {bit}");
        }
    }
}

#[test]
fn a_description_of_lies_with_a_right_checksum_does_not_panic() {
    let words = copied(&segment());
    let described = usize::try_from(words[header::BEATS]).unwrap();
    for at in (1..described).filter(|at| *at != header::CHECKSUM) {
        for lie in [0, 1, 7, 1 << 20, 1 << 32, (1 << 32) | 1, u64::MAX / 8, u64::MAX] {
            let mut lying = words.clone();
            lying[at] = lie;
            lying[header::CHECKSUM] = 0;
            let end = usize::try_from(lying[header::BEATS]).unwrap_or(0).clamp(HEADER_WORDS, lying.len());
            lying[header::CHECKSUM] = checksum(lying[1..end].iter().copied());
            let _read_or_error = Snapshot::from_words(&lying);
        }
    }
}

#[test]
fn the_dead_leave_their_counters_and_take_their_gauges_along() {
    let dead = segment();
    let shop = dead.cells::<Shop>(0).unwrap();
    shop.add(Shop::SOLD, 100);
    shop.add(Shop::INSIDE, 40);
    shop.observe(Shop::WAIT, 5);
    let mut all = Snapshot::read(segment().words()).unwrap();
    let dead = Snapshot::read(dead.words()).unwrap();
    all.add_dead(&dead);
    all.add_dead(&dead);
    assert_eq!(all.counter("shop_sold_total"), 200);
    assert_eq!(all.gauge("shop_inside"), 0);
    assert_eq!(all.distribution("shop_wait_seconds").count(), 2);
    all.add_live(&dead);
    assert_eq!(all.gauge("shop_inside"), 40);
    assert_eq!(all.beats.len(), 4);

    let mut from_nothing = Snapshot::default();
    from_nothing.add_dead(&dead);
    assert_eq!(from_nothing.counter("shop_sold_total"), 100, "a metric this version does not know is kept");
    assert!(from_nothing.metric("shop_inside", &[]).is_none());
}

#[test]
fn a_sum_written_as_a_segment_reads_back_the_same() {
    let segment = segment();
    segment.cells::<Shop>(0).unwrap().add(Shop::SOLD, 3);
    segment.cells::<Shop>(0).unwrap().sub(Shop::INSIDE, 3);
    segment.cells::<Shop>(1).unwrap().observe(Shop::WAIT, 3);
    let mut read = Snapshot::read(segment.words()).unwrap();
    let written = read.to_words().unwrap();
    read.beats.clear();
    assert_eq!(Snapshot::from_words(&written).unwrap(), read);
}

#[test]
fn a_segment_that_is_reset_counts_from_zero() {
    let segment = segment();
    segment.cells::<Shop>(0).unwrap().add(Shop::SOLD, 3);
    segment.reset();
    assert_eq!(Snapshot::read(segment.words()).unwrap().counter("shop_sold_total"), 0);
}

#[test]
fn what_is_added_while_the_segment_is_in_use_is_read_like_the_rest_until_there_is_no_room() {
    let mut registry = Registry::new();
    registry.add::<Yard>().unwrap();
    registry.reserve::<Shop>(2);
    let segment = registry.layout(2).unwrap().create_on_heap(WHO).unwrap();
    assert_eq!(Snapshot::read(segment.words()).unwrap().metrics.len(), Yard::ROWS.len());
    assert!(segment.add_late::<Yard>(&[("of", "none")]).is_none(), "no room was kept for it");
    for (number, street) in ["long", "short"].into_iter().enumerate() {
        let place = segment.add_late::<Shop>(&[("street", street)]).unwrap();
        let (one, two) = (segment.cells_of::<Shop>(place, 0).unwrap(), segment.cells_of::<Shop>(place, 1).unwrap());
        one.add(Shop::SOLD, number as u64 + 1);
        two.add(Shop::SOLD, 10);
        two.observe(Shop::WAIT, 1_000);
    }
    assert!(segment.add_late::<Shop>(&[("street", "third")]).is_none());
    segment.process::<Yard>().unwrap().add(Yard::CARTS, 3);
    for read in [Snapshot::read(segment.words()).unwrap(), Snapshot::from_words(&copied(&segment)).unwrap()] {
        let sold = |street| read.metric("shop_sold_total", &[("street", street), ("what", "bread")]).unwrap();
        assert_eq!((&sold("long").value, &sold("short").value), (&Value::Counter(11), &Value::Counter(12)));
        assert_eq!(sold("long").help, "Sold.");
        assert_eq!((read.distribution("shop_wait_seconds").count(), read.counter("yard_carts_total")), (2, 3));
        let mut sum = Snapshot::default();
        sum.add_dead(&read);
        assert_eq!(Snapshot::from_words(&sum.to_words().unwrap()).unwrap().metrics, sum.metrics);
    }
    // What is damaged there is told, and does not panic.
    let whole = copied(&segment);
    let late = usize::try_from(whole[header::LATE]).unwrap();
    for word in late..late + 40 {
        for damage in [u64::MAX, 1 << 40, 7] {
            let mut damaged = whole.clone();
            damaged[word] = damage;
            let _ = Snapshot::from_words(&damaged);
        }
    }
    segment.reset();
    assert_eq!(Snapshot::read(segment.words()).unwrap().counter("shop_sold_total"), 0);
}

#[test]
fn room_that_a_segment_has_not_is_not_kept() {
    let mut registry = Registry::new();
    registry.add::<Yard>().unwrap();
    registry.reserve::<Shop>(1_000_000);
    let layout = registry.layout(8).unwrap();
    assert!(layout.words() < crate::format::WORDS_MAX, "{}", layout.words());
}

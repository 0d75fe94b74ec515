//! What the budget says is used is what the process uses, with the allocator that Beltway runs with.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{ByteCount, Instant, Rng};
use cache::{Alternates, Entrance, Found, Head, Kept, Key, Lane, RamOptions, RamStore, Role, Seen, Store, Tags};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW: Instant = Instant::from_nanos(1);
const MIB: u64 = 1 << 20;

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("it is so");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is so");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("it is so") << 10
}

fn put(store: &RamStore, object: u64, head: &[u8], body: &[u8], part: usize) {
    let key = Key::of(&object.to_le_bytes());
    let Role::Writer(mut writer) = store.enter(Entrance { key, lane: Lane::PRIMARY, seen: Seen::NOTHING, now: NOW })
    else {
        panic!("a writer")
    };
    let metadata: Arc<[u8]> = Arc::from(head);
    let tags = Tags::new([&(object % 100).to_le_bytes()[..], b"all"]).expect("it is so");
    writer.start(Head { metadata, tags, expected: Some(body.len() as u64) }, NOW);
    for part in body.chunks(part) {
        // What is in the way may just be read by the other thread: then it is not kept, and that is right, too.
        if writer.append(part, NOW) != Kept::Yes {
            return;
        }
    }
    let _ = writer.finish(None, &|_| true, NOW);
}

/// How lengths of bodies, and of heads, are drawn.
struct Mix {
    name: &'static str,
    body: fn(&mut Rng) -> u64,
    head: fn(&mut Rng) -> u64,
    part: usize,
    /// How often the budget's bytes are put in.
    times: u64,
}

fn any_magnitude(rng: &mut Rng) -> u64 {
    let magnitude = 6 + rng.below(15);
    (1 << magnitude) + rng.below(1 << magnitude)
}

/// How far the process may grow beyond the budget, in parts of a hundred: turnover leaves gaps that the allocator cannot
/// use. Seen: 5 to 18, most for bodies of tens of KiB.
const BEYOND: u64 = 30;
const BUDGET: u64 = 64 * MIB;

/// The last one: what a server sees over time, each length turning up where another went.
const MIXES: [Mix; 6] = [
    Mix { name: "tiny", body: |rng| rng.below(200), head: |_| 300, part: 16_384, times: 2 },
    Mix { name: "small", body: |rng| 500 + rng.below(4_000), head: |_| 300, part: 16_384, times: 2 },
    Mix { name: "medium", body: |rng| 10_000 + rng.below(50_000), head: |_| 300, part: 16_384, times: 2 },
    Mix { name: "large", body: |rng| 100_000 + rng.below(3_000_000), head: |_| 300, part: 65_536, times: 2 },
    Mix { name: "heads", body: |rng| rng.below(64), head: |rng| 200 + rng.below(7_000), part: 16_384, times: 3 },
    Mix { name: "mixed", body: any_magnitude, head: |rng| 200 + rng.below(2_000), part: 16_384, times: 12 },
];

/// Bytes of heads and bodies in the store: what it is there for.
fn held(store: &RamStore) -> u64 {
    let any = |alternates: Alternates<'_>| (alternates.len() > 0).then_some(0);
    let objects = (0..2_u64).flat_map(|seed| (0..1 << 20).map(move |n| (seed << 32) + n));
    let found = objects.filter_map(|object| match store.look_up(Key::of(&object.to_le_bytes()), &any).now() {
        Ok(Found::Hit(hit)) => Some(hit.metadata().len() as u64 + hit.body().held().end),
        _ => None,
    });
    found.sum()
}

/// Fills a store several times over and compares what it says with what the process grew by, at the end and at its
/// greatest.
fn compare(mix: &Mix) {
    let name = mix.name;
    let bytes: Vec<u8> = (0..4 * MIB).map(|n| u8::try_from(n % 251).expect("it is so")).collect();
    let before = resident();
    let store = RamStore::new(RamOptions::new(ByteCount(BUDGET), 2));
    let greatest = AtomicU64::new(0);
    std::thread::scope(|scope| {
        // Two threads: what one stored the other evicts, as in a server.
        for seed in 0..2_u64 {
            let (store, bytes, greatest) = (&store, &bytes, &greatest);
            scope.spawn(move || {
                let mut rng = Rng::new(7 + seed);
                let (mut put_in, mut object) = (0, seed << 32);
                while put_in < mix.times * BUDGET / 2 {
                    let (length, head) = ((mix.body)(&mut rng), (mix.head)(&mut rng));
                    put(
                        store,
                        object,
                        &bytes[..usize::try_from(head).expect("it is so")],
                        &bytes[..usize::try_from(length).expect("it is so")],
                        mix.part,
                    );
                    // Some are wanted again, so that both queues have their share.
                    let again = Key::of(&(object - rng.below(1 + (object & 0xff))).to_le_bytes());
                    let any = |alternates: Alternates<'_>| (alternates.len() > 0).then_some(0);
                    drop(store.look_up(again, &any).now());
                    put_in += length + head + 700;
                    object += 1;
                    if object.is_multiple_of(512) {
                        greatest.fetch_max(resident(), Ordering::Relaxed);
                        assert!(store.used().0 <= BUDGET);
                    }
                }
            });
        }
    });
    let (used, grown, held) = (store.used().0, resident() - before, held(&store));
    let greatest = greatest.into_inner().max(before + grown) - before;
    let ratio = grown as f64 / used as f64;
    println!(
        "{name}: says {used}, grew by {grown}: {ratio:.3}; at most by {greatest}: {:.3}; holds {held}: {:.3}",
        greatest as f64 / BUDGET as f64,
        held as f64 / BUDGET as f64
    );
    assert!(held * 3 > BUDGET, "{name}: holds {held}");
    assert!(used <= BUDGET && used > BUDGET / 100 * 93, "{name}: {used}");
    assert!(grown * 100 > used * 85, "{name}: says {used}, grew by {grown}");
    assert!(greatest * 100 <= BUDGET * (100 + BEYOND), "{name}: grew by {greatest} at most");
}

#[test]
fn the_budget_is_what_the_process_grows_by_however_lengths_are_mixed() {
    // One after the other, each with fresh memory: what the allocator keeps of one would hide the next.
    if let Ok(wanted) = std::env::var("BELTWAY_FOOTPRINT") {
        return compare(MIXES.iter().find(|mix| mix.name == wanted).expect("one of them"));
    }
    for mix in &MIXES {
        let program = std::env::current_exe().expect("it is so");
        let output = std::process::Command::new(program)
            .args(["the_budget_is_what_the_process_grows_by_however_lengths_are_mixed", "--exact", "--nocapture"])
            .env("BELTWAY_FOOTPRINT", mix.name)
            .output()
            .expect("it is so");
        let said = String::from_utf8_lossy(&output.stdout);
        println!("{}", said.lines().find(|line| line.contains("says")).unwrap_or_default());
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    }
}

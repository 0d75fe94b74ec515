//! What the budget says is used is what the process uses, with the allocator that Beltway runs with.

use std::fs;
use std::sync::Arc;

use base::{ByteCount, Instant, Rng};
use cache::{Entrance, Head, Kept, Key, Lane, RamOptions, RamStore, Role, Seen, Store, Tags};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW: Instant = Instant::from_nanos(1);
const MIB: u64 = 1 << 20;

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("it is so");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is so");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("it is so") << 10
}

fn put(store: &RamStore, object: u64, body: &[u8], part: usize) {
    let key = Key::of(&object.to_le_bytes());
    let Role::Writer(mut writer) = store.enter(Entrance { key, lane: Lane::PRIMARY, seen: Seen::NOTHING, now: NOW })
    else {
        panic!("a writer")
    };
    let metadata: Arc<[u8]> = Arc::from(&body[..300.min(body.len())]);
    let tags = Tags::new([&(object % 100).to_le_bytes()[..], b"all"]).expect("it is so");
    writer.start(Head { metadata, tags, expected: Some(body.len() as u64) }, NOW);
    for part in body.chunks(part) {
        assert_eq!(writer.append(part, NOW), Kept::Yes);
    }
    writer.finish(None, &|_| true, NOW).expect("it is so");
}

/// Fills a store of 64 MiB twice over and compares what it says with what the process grew by.
fn compare(name: &str, mut length: impl FnMut(&mut Rng) -> u64, part: usize) {
    let mut rng = Rng::new(7);
    let bytes: Vec<u8> = (0..4 * MIB).map(|n| u8::try_from(n % 251).expect("it is so")).collect();
    let before = resident();
    let store = RamStore::new(RamOptions::new(ByteCount(64 * MIB), 2));
    let (mut put_in, mut object) = (0, 0);
    while put_in < 128 * MIB {
        let length = length(&mut rng);
        put(&store, object, &bytes[..usize::try_from(length).expect("it is so")], part);
        put_in += length + 1_000;
        object += 1;
    }
    let (used, grown) = (store.used().0, resident() - before);
    println!("{name}: says {used}, grew by {grown}: {:.3}", grown as f64 / used as f64);
    assert!(used <= 64 * MIB && used > 60 * MIB, "{name}: {used}");
    // Turnover leaves gaps that the allocator cannot use: that much it may be off.
    assert!((0.85..1.15).contains(&(grown as f64 / used as f64)), "{name}: says {used}, grew by {grown}");
}

#[test]
fn the_budget_is_what_the_process_grows_by() {
    // One after the other, each with fresh memory: what the allocator keeps of one would hide the next.
    match std::env::var("BELTWAY_FOOTPRINT").as_deref() {
        Ok("tiny") => compare("tiny", |rng| rng.below(200), 16_384),
        Ok("small") => compare("small", |rng| 500 + rng.below(4_000), 16_384),
        Ok("medium") => compare("medium", |rng| 10_000 + rng.below(50_000), 16_384),
        Ok("large") => compare("large", |rng| 100_000 + rng.below(3_000_000), 65_536),
        _ => {
            for name in ["tiny", "small", "medium", "large"] {
                let program = std::env::current_exe().expect("it is so");
                let output = std::process::Command::new(program)
                    .args(["the_budget_is_what_the_process_grows_by", "--exact", "--nocapture"])
                    .env("BELTWAY_FOOTPRINT", name)
                    .output()
                    .expect("it is so");
                let said = String::from_utf8_lossy(&output.stdout);
                println!("{}", said.lines().find(|line| line.contains("says")).unwrap_or_default());
                assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
            }
        }
    }
}

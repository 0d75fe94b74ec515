//! Many worlds, one after the other; and how to see the one again that failed.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The seed to run instead of all others.
const ONE: &str = "BELTWAY_SEED";
/// How many seeds to run instead of as many as the test asks for: for a long search.
const COUNT: &str = "BELTWAY_SEEDS";

/// A test that is run once for each seed.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    package: &'static str,
    test: &'static str,
}

impl Seeds {
    /// The package, as cargo calls it, and the test's own name.
    #[must_use]
    pub const fn new(package: &'static str, test: &'static str) -> Self {
        Self { package, test }
    }

    /// Runs `world` with each seed, or with the one that `BELTWAY_SEED` names. When one panics, says by which command
    /// it is run alone.
    ///
    /// # Panics
    /// When `world` does.
    pub fn run(self, seeds: Range<u64>, world: impl Fn(u64)) {
        let asked = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        if let Some(seed) = asked(ONE) {
            world(seed);
            return;
        }
        let end = asked(COUNT).map_or(seeds.end, |count| seeds.start.saturating_add(count));
        for seed in seeds.start..end {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world(seed))) {
                let Self { package, test } = self;
                eprintln!(
                    "seed {seed} failed; again: {ONE}={seed} cargo nextest run -p {package} -E 'test(={test})' --no-capture"
                );
                resume_unwind(panic);
            }
        }
    }

    /// Whether one seed was asked for: then a test may tell what happens.
    #[must_use]
    pub fn is_replay() -> bool {
        std::env::var_os(ONE).is_some()
    }
}

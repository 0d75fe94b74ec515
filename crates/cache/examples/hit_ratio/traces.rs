//! Synthetic traces: what is asked for, and how long it is.

use base::Rng;

/// One trace.
pub(crate) struct Trace {
    /// What it is called.
    pub(crate) name: &'static str,
    /// Objects, in the order in which they are asked for.
    pub(crate) requests: Vec<u32>,
}

/// The length of an object: most are short, a few are long. From its number alone.
pub(crate) fn length_of(object: u32) -> usize {
    let mut rng = Rng::new(u64::from(object) ^ 0x6265_6c74);
    let magnitude = 9 + rng.below(8);
    usize::try_from((1 << magnitude) + rng.below(1 << magnitude)).unwrap_or(1)
}

impl Trace {
    /// Bytes of all objects that occur.
    pub(crate) fn distinct_bytes(&self) -> u64 {
        let mut objects = self.requests.clone();
        objects.sort_unstable();
        objects.dedup();
        objects.into_iter().map(|object| length_of(object) as u64).sum()
    }
}

/// Ranks by Zipf's law with exponent 0.9: rank `n` is asked for in proportion to `n^-0.9`.
struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    fn new(count: u32) -> Self {
        let mut sum = 0.0;
        let weights = (1..=count).map(|rank| f64::from(rank).powf(-0.9));
        let sums = weights.map(|weight| {
            sum += weight;
            sum
        });
        Self { sums: sums.collect() }
    }

    fn draw(&self, rng: &mut Rng) -> u32 {
        let total = self.sums.last().copied().unwrap_or(1.0);
        #[expect(clippy::cast_precision_loss, reason = "a fraction need not be exact")]
        let at = rng.below(1 << 52) as f64 / (1_u64 << 52) as f64 * total;
        u32::try_from(self.sums.partition_point(|sum| *sum <= at)).unwrap_or(0)
    }
}

/// The three traces, each of that many requests.
pub(crate) fn all(requests: usize) -> [Trace; 3] {
    let objects = u32::try_from(requests / 10).unwrap_or(u32::MAX).max(100);
    let zipf = Zipf::new(objects);
    [plain(&zipf, requests), with_scans(&zipf, objects, requests), shifting(&zipf, objects, requests)]
}

fn plain(zipf: &Zipf, requests: usize) -> Trace {
    let mut rng = Rng::new(1);
    Trace { name: "Zipf 0.9", requests: (0..requests).map(|_| zipf.draw(&mut rng)).collect() }
}

/// Now and then somebody reads a long run of objects that nobody else wants.
fn with_scans(zipf: &Zipf, objects: u32, requests: usize) -> Trace {
    let mut rng = Rng::new(2);
    let mut next = objects;
    let mut trace = Vec::with_capacity(requests);
    while trace.len() < requests {
        let length = requests / 40;
        trace.extend((0..length).map(|_| zipf.draw(&mut rng)));
        let run = u32::try_from(length / 2).unwrap_or(0);
        trace.extend(next..next + run);
        next += run;
    }
    trace.truncate(requests);
    Trace { name: "Zipf 0.9 with scans", requests: trace }
}

/// What is popular changes: every so often all ranks move on by a part of the whole.
fn shifting(zipf: &Zipf, objects: u32, requests: usize) -> Trace {
    let mut rng = Rng::new(3);
    let phase = (requests / 20).max(1);
    let step = objects / 10;
    let draw = |n: usize| {
        let shift = u32::try_from(n / phase).unwrap_or(0) * step;
        (zipf.draw(&mut rng) + shift) % (objects * 2)
    };
    Trace { name: "shifting popularity", requests: (0..requests).map(draw).collect() }
}

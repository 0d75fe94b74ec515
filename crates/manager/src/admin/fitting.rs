//! Making the sum of the dead fit into one segment, whatever a long run has seen.
//!
//! Pools and servers come with each configuration, and commands with clients: together they may become more than a segment
//! describes. What was not seen for longest is then counted together as `(others)`, as a server does with what it has no
//! place for. What was seen last comes first in a sum ([`super::fold_dead`]), so that the oldest is at its end.

use std::collections::{HashMap, HashSet};

use stats::{Metric, RegistryError, Snapshot, Value};

/// What servers call those that have no numbers of their own.
const OTHERS: &str = "(others)";
/// Labels that name what is counted.
const NAMED: [&str; 3] = ["pool", "server", "command"];
/// One of how many goes to the others at a time: there is room for a while then.
const PART: usize = 4;

type Labels = Vec<(String, String)>;

/// Whether it has counted anything; what has not is told by nobody who misses it.
pub(super) fn has_counted(metric: &Metric) -> bool {
    match &metric.value {
        Value::Counter(count) => *count > 0,
        Value::Histogram(distribution) => distribution.count() > 0,
        Value::Gauge(_) => false,
    }
}

/// The words of the sum, made to fit, and how many pools, servers and commands went to the others for that.
///
/// # Errors
/// It does not fit although all of them have gone.
pub(super) fn to_words(sum: &mut Snapshot) -> Result<(Vec<u64>, usize), RegistryError> {
    let mut gone = 0;
    loop {
        match sum.to_words() {
            Ok(words) => return Ok((words, gone)),
            Err(error @ RegistryError::TooMany(..)) => match merge_oldest(sum) {
                0 => return Err(error),
                merged => gone += merged,
            },
            Err(error) => return Err(error),
        }
    }
}

/// Counts the oldest together with the others, and says how many they are.
fn merge_oldest(sum: &mut Snapshot) -> usize {
    let mut known = HashSet::new();
    let mut named: Vec<Labels> = sum.metrics.iter().filter_map(named).filter(|one| known.insert(one.clone())).collect();
    let merged = named.len().div_ceil(PART);
    let oldest: HashSet<Labels> = named.split_off(named.len() - merged).into_iter().collect();
    let mut places: HashMap<(String, Labels), usize> = HashMap::new();
    let mut kept: Vec<Metric> = Vec::with_capacity(sum.metrics.len());
    for mut metric in std::mem::take(&mut sum.metrics) {
        if self::named(&metric).is_some_and(|one| oldest.contains(&one)) {
            let labels = metric.labels.iter_mut().filter(|(key, _)| NAMED.contains(&key.as_str()));
            labels.for_each(|(_, name)| OTHERS.clone_into(name));
        }
        let place = *places.entry((metric.name.clone(), metric.labels.clone())).or_insert(kept.len());
        match (kept.get_mut(place).map(|kept| &mut kept.value), &metric.value) {
            (None, _) => kept.push(metric),
            (Some(Value::Counter(sum)), Value::Counter(more)) => *sum = sum.wrapping_add(*more),
            (Some(Value::Histogram(sum)), Value::Histogram(more)) => sum.merge(more),
            // Another version's row of the name that means something else.
            (Some(_), _) => {}
        }
    }
    sum.metrics = kept;
    merged
}

/// The labels that name what a metric is of; none: it is of nothing that may go to the others, or of the others.
fn named(metric: &Metric) -> Option<Labels> {
    let names = metric.labels.iter().filter(|(key, _)| NAMED.contains(&key.as_str()));
    let is_own = names.clone().any(|(_, name)| name != OTHERS);
    is_own.then(|| {
        // One command of two protocols is two.
        let with_protocol = metric.labels.iter().filter(|(key, _)| key == "protocol");
        names.chain(with_protocol).cloned().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use stats::{Distribution, Unit};

    fn metric(name: &str, labels: &[(&str, &str)], value: Value) -> Metric {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Metric { name: name.to_owned(), help: String::new(), labels, unit: Unit::One, value }
    }

    #[test]
    fn more_than_a_segment_describes_is_counted_with_the_others_and_nothing_is_lost() {
        const COMMANDS: usize = 9_000;
        let mut sum = Snapshot::default();
        sum.metrics.push(metric("requests_total", &[], Value::Counter(7)));
        for command in 0..COMMANDS {
            let name = format!("c{command}");
            let labels = [("pool", "alpha"), ("protocol", "redis"), ("command", name.as_str())];
            sum.metrics.push(metric("calls_total", &labels, Value::Counter(2)));
            let mut time = Distribution::default();
            time.record(5);
            sum.metrics.push(metric("seconds", &labels, Value::Histogram(time)));
        }
        let (words, gone) = to_words(&mut sum).unwrap();
        assert_eq!(gone, COMMANDS.div_ceil(PART));
        let read = Snapshot::from_words(&words).unwrap();
        assert_eq!((read.counter("calls_total"), read.counter("requests_total")), (2 * COMMANDS as u64, 7));
        assert_eq!(read.distribution("seconds").count(), COMMANDS as u64);
        let of = |pool, command| {
            let found = read.metric("calls_total", &[("pool", pool), ("protocol", "redis"), ("command", command)]);
            found.map(|metric| metric.value.clone())
        };
        assert_eq!(of("alpha", "c0"), Some(Value::Counter(2)), "what was seen last keeps its own");
        assert_eq!(of("alpha", "c8999"), None);
        assert_eq!(of(OTHERS, OTHERS), Some(Value::Counter(2 * gone as u64)));
        let again = to_words(&mut sum).unwrap();
        assert_eq!(again.1, 0, "there is room for a while");
    }

    #[test]
    fn what_cannot_go_to_the_others_is_refused_and_not_tried_for_ever() {
        let metrics = (0..20_000).map(|at| metric(&format!("m{at}"), &[], Value::Counter(1))).collect();
        assert!(to_words(&mut Snapshot { metrics, ..Snapshot::default() }).is_err());
    }
}

//! Numbers of a snapshot, found by their names.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use stats::{Distribution, Snapshot, Value};
use supervise::kv::{KvCommandReport, Times};

/// By the values of their labels, each with a zero behind it.
type ByLabels<'s> = BTreeMap<String, &'s Value>;

/// Numbers by name. A thousand pools have ten thousand servers, each of which is looked for.
pub(super) struct Numbers<'s>(HashMap<&'s str, ByLabels<'s>>);

impl<'s> Numbers<'s> {
    pub(super) fn index(snapshot: &'s Snapshot) -> Self {
        let labels =
            |labels: &[(String, String)]| labels.iter().flat_map(|(_, value)| [value.as_str(), "\0"]).collect();
        let mut found: HashMap<&str, ByLabels<'_>> = HashMap::new();
        for metric in snapshot.metrics.iter().filter(|metric| metric.name.starts_with("beltway_kv_")) {
            found.entry(&metric.name).or_default().insert(labels(&metric.labels), &metric.value);
        }
        Self(found)
    }

    fn find(&self, name: &str, labels: &str) -> Option<&'s Value> {
        self.0.get(name)?.get(labels).copied()
    }

    /// Of the counters of that name which share these labels, those that counted, by their last label.
    pub(super) fn by_last(&self, name: &str, labels: &str) -> BTreeMap<String, u64> {
        let Some(ours) = self.0.get(name) else { return BTreeMap::new() };
        let from = (Bound::Included(labels), Bound::Unbounded);
        let ours = ours.range::<str, _>(from).take_while(|(all, _)| all.starts_with(labels));
        let last = |all: &str| Some(all.strip_prefix(labels)?.strip_suffix('\0')?.to_owned());
        let counted = ours.filter_map(|(all, value)| match value {
            Value::Counter(count) if *count > 0 => Some((last(all)?, *count)),
            _ => None,
        });
        counted.collect()
    }

    pub(super) fn has(&self, name: &str, labels: &str) -> bool {
        self.find(name, labels).is_some()
    }

    pub(super) fn number(&self, name: &str, labels: &str) -> u64 {
        match self.find(name, labels) {
            Some(Value::Counter(count)) => *count,
            // Threads that are read at different moments may make it negative for once.
            Some(Value::Gauge(value)) => u64::try_from(*value).unwrap_or(0),
            Some(Value::Histogram(_)) | None => 0,
        }
    }

    pub(super) fn times(&self, name: &str, labels: &str) -> Times {
        match self.find(name, labels) {
            Some(Value::Histogram(distribution)) => times(distribution),
            _ => Times::default(),
        }
    }
}

fn times(of: &Distribution) -> Times {
    let micros = |nanos: Option<u64>| nanos.unwrap_or(0) / 1_000;
    Times {
        count: of.count(),
        mean_us: micros(of.mean()),
        p50_us: micros(of.quantile(500)),
        p99_us: micros(of.quantile(990)),
        p999_us: micros(of.quantile(999)),
    }
}

/// Those that were called, the one that took the most time first.
pub(super) fn commands(snapshot: &Snapshot) -> Vec<KvCommandReport> {
    let mut found: HashMap<[&str; 3], KvCommandReport> = HashMap::new();
    for metric in snapshot.metrics.iter().filter(|metric| metric.name.starts_with("beltway_kv_command_")) {
        let label = |wanted: &str| metric.labels.iter().find(|(key, _)| key == wanted).map_or("", |(_, text)| text);
        let (pool, protocol, name) = (label("pool"), label("protocol"), label("command"));
        let report = found.entry([pool, protocol, name]).or_insert_with(|| KvCommandReport {
            pool: pool.to_owned(),
            protocol: protocol.to_owned(),
            name: name.to_owned(),
            ..KvCommandReport::default()
        });
        let value = match &metric.value {
            Value::Counter(value) => *value,
            Value::Histogram(distribution) => {
                (report.time, report.total_us) = (times(distribution), distribution.sum() / 1_000);
                continue;
            }
            Value::Gauge(_) => continue,
        };
        match (metric.name.as_str(), label("found")) {
            ("beltway_kv_command_calls_total", _) => report.calls = value,
            ("beltway_kv_command_error_replies_total", _) => report.error_replies = value,
            ("beltway_kv_command_request_bytes_total", _) => report.request_bytes = value,
            ("beltway_kv_command_reply_bytes_total", _) => report.response_bytes = value,
            ("beltway_kv_command_reads_total", "something") => report.hits = value,
            ("beltway_kv_command_reads_total", _) => report.misses = value,
            ("beltway_kv_command_forward_errors_total", _) if value > 0 => {
                report.forward_errors += value;
                report.forward_errors_by.insert(label("kind").to_owned(), value);
            }
            _ => {}
        }
    }
    let mut called: Vec<_> = found.into_values().filter(|report| report.calls + report.forward_errors > 0).collect();
    called.sort_by(|a, b| b.total_us.cmp(&a.total_us).then_with(|| a.name.cmp(&b.name)));
    called
}

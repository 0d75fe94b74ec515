//! Prometheus' text exposition format 0.0.4, from a snapshot.
//!
//! Times are written in seconds. A histogram's bounds are powers of two of its own unit (1.024 µs, 2.048 µs, … in
//! time), the same ones at every scrape; cumulated counts at them are exact.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::RangeInclusive;

use crate::snapshot::{Metric, Snapshot, Value};
use crate::table::Unit;

/// The media type of what [`render`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bounds of times, as powers of two of nanoseconds: 1 µs to 137 s.
const TIME_BOUNDS: RangeInclusive<u32> = 10..=37;
/// Bounds of bytes and things, as powers of two: 1 to 2^36.
const OTHER_BOUNDS: RangeInclusive<u32> = 0..=36;

/// The whole snapshot as text.
#[must_use]
pub fn render(snapshot: &Snapshot) -> String {
    let mut text = String::with_capacity(snapshot.metrics.len() * 128);
    let mut by_name: HashMap<&str, Vec<&Metric>> = HashMap::new();
    for metric in snapshot.metrics.iter().filter(|metric| !is_one_of_hundreds(metric)) {
        by_name.entry(&metric.name).or_default().push(metric);
    }
    for metric in &snapshot.metrics {
        // The first of each name brings all of it.
        let Some(rows) = by_name.remove(metric.name.as_str()) else { continue };
        let kind = match metric.value {
            Value::Counter(_) => "counter",
            Value::Gauge(_) => "gauge",
            Value::Histogram(_) => "histogram",
        };
        family(&mut text, &metric.name, kind, &metric.help);
        // All samples of a name stand together, whatever order the tables were added in.
        for row in rows {
            samples(&mut text, row);
        }
    }
    text
}

/// Whether it counts a command that nobody ever gave: there are hundreds of those for each pool.
fn is_one_of_hundreds(metric: &Metric) -> bool {
    matches!(metric.value, Value::Counter(0)) && metric.labels.iter().any(|(key, _)| key == "command")
}

/// The two lines that precede a name's samples.
pub fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    text.push_str("# HELP ");
    text.push_str(name);
    text.push(' ');
    escape(text, help, false);
    text.push_str("\n# TYPE ");
    text.push_str(name);
    text.push(' ');
    text.push_str(kind);
    text.push('\n');
}

/// One sample: name, labels, value.
pub fn sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: &str) {
    text.push_str(name);
    for (at, (key, value)) in labels.iter().enumerate() {
        text.push(if at == 0 { '{' } else { ',' });
        text.push_str(key);
        text.push_str("=\"");
        escape(text, value, true);
        text.push('"');
    }
    if !labels.is_empty() {
        text.push('}');
    }
    text.push(' ');
    text.push_str(value);
    text.push('\n');
}

fn samples(text: &mut String, metric: &Metric) {
    let labels: Vec<(&str, &str)> = metric.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    match &metric.value {
        Value::Counter(n) => sample(text, &metric.name, &labels, &number(*n, metric.unit)),
        Value::Gauge(n) => {
            let sign = if *n < 0 { "-" } else { "" };
            sample(text, &metric.name, &labels, &format!("{sign}{}", number(n.unsigned_abs(), metric.unit)));
        }
        Value::Histogram(seen) => {
            let bounds = if metric.unit == Unit::Nanoseconds { TIME_BOUNDS } else { OTHER_BOUNDS };
            let bucket = format!("{}_bucket", metric.name);
            let mut cumulated = |bound: &str, count: u64| {
                let with_bound: Vec<(&str, &str)> = labels.iter().copied().chain([("le", bound)]).collect();
                sample(text, &bucket, &with_bound, &count.to_string());
            };
            for bits in bounds {
                cumulated(&number(1 << bits, metric.unit), seen.count_to_power(bits));
            }
            cumulated("+Inf", seen.count());
            sample(text, &format!("{}_sum", metric.name), &labels, &number(seen.sum(), metric.unit));
            sample(text, &format!("{}_count", metric.name), &labels, &seen.count().to_string());
        }
    }
}

/// The number in the unit Prometheus wants: seconds for times, exactly.
fn number(n: u64, unit: Unit) -> String {
    match unit {
        Unit::One | Unit::Bytes => n.to_string(),
        Unit::Nanoseconds => {
            let mut text = String::new();
            // Writing to a String cannot fail.
            let _ = write!(text, "{}.{:09}", n / 1_000_000_000, n % 1_000_000_000);
            text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
            text
        }
    }
}

fn escape(text: &mut String, raw: &str, quotes: bool) {
    for c in raw.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            _ => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Identity, Registry};

    crate::metrics! {
        /// Rows that are hard to write down.
        struct Hard;
        /// A \ in help.
        counter PATH = "x_total" { path = "C:\\a \"b\"\nc", z = "1" };
        /// Wait.
        histogram WAIT = "x_wait_seconds" in Nanoseconds;
        /// Other.
        counter OTHER = "x_total" { path = "/" };
        /// A command that nobody gave.
        counter NEVER = "x_commands_total" { command = "never" };
        /// A command.
        counter ONCE = "x_commands_total" { command = "once" };
        /// Size.
        histogram SIZE = "x_size_bytes" in Bytes;
        /// Below.
        gauge BELOW = "x_below_seconds" in Nanoseconds;
    }

    /// Samples by name and labels, types by name: a reader of the format, strict where the format is.
    fn parse(text: &str) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
        let (mut samples, mut types) = (BTreeMap::new(), BTreeMap::new());
        let mut family = String::new();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} has two types");
                name.clone_into(&mut family);
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = series.split('{').next().unwrap();
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)).unwrap_or(name);
                assert!(base == family || name == family, "{name} stands outside its family {family}");
                assert!(samples.insert(unescaped(series), value.parse().unwrap()).is_none(), "{series} twice");
            }
        }
        (samples, types)
    }

    fn unescaped(text: &str) -> String {
        let mut out = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match (c, c == '\\') {
                (_, true) => out.push(match chars.next().unwrap() {
                    'n' => '\n',
                    other => other,
                }),
                (c, false) => out.push(c),
            }
        }
        out
    }

    #[test]
    fn what_is_rendered_parses_back_to_the_same_numbers() {
        let mut registry = Registry::new();
        registry.add::<Hard>().unwrap();
        let segment = registry.layout(1).unwrap().create_on_heap(Identity::default()).unwrap();
        let cells = segment.cells::<Hard>(0).unwrap();
        cells.add(Hard::PATH, 7);
        cells.add(Hard::OTHER, u64::from(u32::MAX));
        cells.add(Hard::ONCE, 1);
        cells.add(Hard::NEVER, 0);
        for nanos in [900, 1_024, 1_025, 3_000_000_000, u64::MAX / 4] {
            cells.observe(Hard::WAIT, nanos);
        }
        cells.observe(Hard::SIZE, 1_024);
        cells.sub(Hard::BELOW, 1_500_000_000);

        let text = render(&Snapshot::read(segment.words()).unwrap());
        let (samples, types) = parse(&text);
        assert_eq!(types["x_total"], "counter");
        assert_eq!(types["x_wait_seconds"], "histogram");
        assert!(text.contains("# HELP x_total A \\\\ in help.\n"), "{text}");
        assert_eq!(samples["x_total{path=\"C:\\a \"b\"\nc\",z=\"1\"}"], 7.0);
        assert_eq!(samples["x_total{path=\"/\"}"], f64::from(u32::MAX));
        assert_eq!(samples["x_wait_seconds_bucket{le=\"0.000001024\"}"], 2.0);
        assert_eq!(samples["x_wait_seconds_bucket{le=\"0.000002048\"}"], 3.0);
        assert_eq!(samples["x_wait_seconds_bucket{le=\"+Inf\"}"], 5.0);
        assert_eq!(samples["x_wait_seconds_count"], 5.0);
        assert_eq!(samples["x_size_bytes_bucket{le=\"512\"}"], 0.0);
        assert_eq!(samples["x_size_bytes_bucket{le=\"1024\"}"], 1.0);
        assert_eq!(samples["x_size_bytes_sum"], 1024.0);
        assert_eq!(samples["x_below_seconds"], -1.5);
        assert_eq!(samples["x_commands_total{command=\"once\"}"], 1.0);
        assert!(!text.contains("never"), "of a command that nobody gave nothing is told: {text}");
    }

    #[test]
    fn times_are_exact_seconds_without_idle_zeros() {
        for (nanos, text) in [(0, "0"), (1, "0.000000001"), (1_000_000_000, "1"), (1_500_000_000, "1.5")] {
            assert_eq!(number(nanos, Unit::Nanoseconds), text);
        }
        assert_eq!(number(100, Unit::One), "100");
    }
}

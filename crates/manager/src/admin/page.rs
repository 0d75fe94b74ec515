//! The status page: one table per subject, no script, reloaded by the browser.

use std::fmt::{self, Write as _};
use std::time::Duration;

use base::{Instant, WallTime};
use stats::{BeatState, Metric, Snapshot, Unit, Value};
use supervise::status::{ProcessStatus, Status};

use super::numbers::Numbers;

/// The browser asks again after so many seconds.
const RELOAD_SECS: u32 = 5;
/// Rates are measured over at least this.
const RATE_OVER_MIN: Duration = Duration::from_secs(1);

const STYLE: &str = "body{font:14px/1.45 system-ui,sans-serif;margin:2em;max-width:70em;color:#222}\
h1{font-size:1.4em}h2{font-size:1.05em;margin:1.6em 0 .4em}\
table{border-collapse:collapse}td,th{padding:.15em 1.2em .15em 0;text-align:left;vertical-align:top}\
th{font-weight:600;border-bottom:1px solid #bbb}.n{text-align:right;font-variant-numeric:tabular-nums}\
.bad{color:#b00020;font-weight:600}.dim{color:#777}";

/// The numbers at one moment, to compute rates between two.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) wall: WallTime,
    pub(super) numbers: Snapshot,
}

impl Sample {
    /// Whether it is late enough after `earlier` to take its place.
    pub(super) fn replaces(&self, earlier: &Self) -> bool {
        self.at.since(earlier.at) >= RATE_OVER_MIN
    }
}

/// What one page is made of.
pub(super) struct Page<'a> {
    pub(super) status: &'a Status,
    pub(super) numbers: &'a Numbers,
    pub(super) now: &'a Sample,
    pub(super) earlier: Option<&'a Sample>,
}

impl Page<'_> {
    /// The whole page.
    pub(super) fn render(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        // Writing to a String cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, to: &mut String) -> fmt::Result {
        let status = self.status;
        write!(
            to,
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta http-equiv=\"refresh\" content=\"{RELOAD_SECS}\"><title>Beltway</title><style>{STYLE}</style></head>\
             <body><h1>Beltway {}</h1><p>configuration <b>{}</b>, runtime directory {}",
            Text(&status.version),
            Text(&status.configuration.source),
            Text(&status.runtime_dir)
        )?;
        if status.stopping {
            to.push_str(", <span class=\"bad\">stopping</span>");
        }
        to.push_str("</p>");
        if let Some(respawn) = &status.respawn {
            write!(
                to,
                "<p class=\"bad\">No server: the last one ended by {}; the next is tried in {}.</p>",
                Text(&respawn.last_death),
                Millis(respawn.next_try_in_ms)
            )?;
        }
        if status.disk.is_full {
            to.push_str("<p class=\"bad\">The disk of the runtime directory is full: what runs goes on.</p>");
        }
        for trouble in &self.numbers.unreadable {
            write!(to, "<p class=\"bad\">Numbers are missing: {}</p>", Text(trouble))?;
        }
        self.processes(to)?;
        self.listeners(to)?;
        self.threads(to)?;
        self.counters(to)?;
        self.histograms(to)?;
        self.gauges(to)?;
        to.push_str(
            "<p class=\"dim\"><a href=\"/metrics\">/metrics</a> · <a href=\"/status.json\">/status.json</a> · \
             <a href=\"/healthz\">/healthz</a></p></body></html>\n",
        );
        Ok(())
    }

    fn processes(&self, to: &mut String) -> fmt::Result {
        let status = self.status;
        to.push_str(
            "<h2>Processes</h2><table><tr><th>process</th><th class=\"n\">pid</th><th>state</th>\
             <th class=\"n\">age</th><th class=\"n\">restarts</th><th class=\"n\">heartbeats missed</th></tr>",
        );
        if let Some(stub) = &status.stub {
            process(to, 0, stub, "")?;
        }
        match &status.cop {
            Some(cop) => process(to, 1, cop, "")?,
            None => to.push_str("<tr><td>\u{2003}traffic_cop</td><td></td><td class=\"bad\">gone</td></tr>"),
        }
        process(to, 2, &status.manager, "")?;
        for server in &status.servers {
            let mut state = format!("generation {}, {}", server.generation, server.state.as_str());
            if server.adopted {
                state.push_str(", adopted");
            }
            if server.other_configuration {
                state.push_str(", other configuration");
            }
            write!(state, ", {} connections", server.open_connections)?;
            process(to, 3, &server.process, &state)?;
        }
        write!(to, "</table><p>Deaths of servers since this manager started: {}.</p>", status.server_deaths)
    }

    fn listeners(&self, to: &mut String) -> fmt::Result {
        to.push_str(
            "<h2>Listeners</h2><table><tr><th>kind</th><th>address</th><th class=\"n\">waiting</th>\
             <th class=\"n\">at most</th><th class=\"n\">turned away</th></tr>",
        );
        for listener in &self.status.listeners {
            write!(to, "<tr><td>{}</td><td>{}</td>", Text(&listener.kind), Text(&listener.address))?;
            if listener.waiting_max == 0 {
                // The kernel does not tell of sockets in the file system.
                write!(to, "<td></td><td class=\"n\">{}</td><td></td></tr>", listener.backlog)?;
                continue;
            }
            let bad = if listener.waiting >= listener.waiting_max { " bad" } else { "" };
            write!(
                to,
                "<td class=\"n{bad}\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                listener.waiting, listener.waiting_max, listener.dropped
            )?;
        }
        to.push_str("</table>");
        Ok(())
    }

    fn threads(&self, to: &mut String) -> fmt::Result {
        if self.numbers.sum.beats.is_empty() {
            return Ok(());
        }
        to.push_str(
            "<h2>Event threads</h2><table><tr><th>thread</th><th>state</th><th class=\"n\">turns</th>\
             <th>runs now</th></tr>",
        );
        for beat in &self.numbers.sum.beats {
            let state = match beat.state {
                BeatState::NotStarted => "not started",
                BeatState::Running => "running",
                BeatState::Polling => "waiting for events",
                BeatState::Ended => "ended",
            };
            write!(
                to,
                "<tr><td>{}</td><td>{state}</td><td class=\"n\">{}</td><td>{}</td></tr>",
                Text(&beat.thread),
                Grouped(beat.turns),
                Text(beat.running.as_deref().unwrap_or(""))
            )?;
        }
        to.push_str("</table>");
        Ok(())
    }

    fn counters(&self, to: &mut String) -> fmt::Result {
        let (then, over) = self.rates_over();
        let over_ms = u64::try_from(over.as_millis()).unwrap_or(u64::MAX).max(1);
        write!(
            to,
            "<h2>Counters</h2><table><tr><th>counter</th><th class=\"n\">total</th>\
             <th class=\"n\">per second, over {}</th></tr>",
            Millis(over_ms)
        )?;
        for metric in &self.now.numbers.metrics {
            let Value::Counter(total) = metric.value else { continue };
            let before = then.and_then(|then| Some(&same(&then.numbers, metric)?.value));
            let before = if let Some(Value::Counter(before)) = before { *before } else { 0 };
            // In hundredths, so that a rare event is seen at all.
            let rate = u128::from(total.saturating_sub(before)) * 100_000 / u128::from(over_ms);
            name(to, metric, total > 0 && is_trouble(metric))?;
            write!(
                to,
                "<td class=\"n\">{}</td><td class=\"n\">{}.{:02}</td></tr>",
                Amount(total, metric.unit),
                rate / 100,
                rate % 100
            )?;
        }
        to.push_str("</table>");
        Ok(())
    }

    fn histograms(&self, to: &mut String) -> fmt::Result {
        to.push_str(
            "<h2>Distributions</h2><table><tr><th>of</th><th class=\"n\">count</th><th class=\"n\">mean</th>\
             <th class=\"n\">p50</th><th class=\"n\">p90</th><th class=\"n\">p99</th><th class=\"n\">p99.9</th></tr>",
        );
        for metric in &self.now.numbers.metrics {
            let Value::Histogram(seen) = &metric.value else { continue };
            name(to, metric, false)?;
            write!(to, "<td class=\"n\">{}</td>", Grouped(seen.count()))?;
            let quantiles = [500, 900, 990, 999].map(|per_mille| seen.quantile(per_mille));
            for value in [seen.mean()].into_iter().chain(quantiles) {
                match value {
                    Some(value) => write!(to, "<td class=\"n\">{}</td>", Amount(value, metric.unit))?,
                    None => to.push_str("<td class=\"n\">–</td>"),
                }
            }
            to.push_str("</tr>");
        }
        to.push_str("</table><p class=\"dim\">Since the start; percentiles are up to 12.5 % too high.</p>");
        Ok(())
    }

    fn gauges(&self, to: &mut String) -> fmt::Result {
        to.push_str("<h2>Now</h2><table><tr><th>gauge</th><th class=\"n\">value</th></tr>");
        for metric in &self.now.numbers.metrics {
            let Value::Gauge(value) = metric.value else { continue };
            name(to, metric, false)?;
            let sign = if value < 0 { "-" } else { "" };
            write!(to, "<td class=\"n\">{sign}{}</td></tr>", Amount(value.unsigned_abs(), metric.unit))?;
        }
        to.push_str("</table>");
        Ok(())
    }

    /// What rates are measured against: an earlier page, or the start of the oldest server.
    fn rates_over(&self) -> (Option<&Sample>, Duration) {
        if let Some(earlier) = self.earlier.filter(|earlier| self.now.replaces(earlier)) {
            return (Some(earlier), self.now.at.since(earlier.at));
        }
        let lived = self.now.wall.as_micros().saturating_sub(self.now.numbers.started_micros);
        (None, Duration::from_micros(lived.max(0).unsigned_abs()))
    }
}

fn process(to: &mut String, depth: usize, process: &ProcessStatus, state: &str) -> fmt::Result {
    write!(
        to,
        "<tr><td>{}{}</td><td class=\"n\">{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>",
        "\u{2003}".repeat(depth),
        Text(&process.name),
        process.pid,
        Text(state),
        Millis(process.age_ms),
        process.restarts
    )?;
    match &process.heartbeat {
        Some(beat) if beat.missed_in_a_row > 0 => {
            write!(to, "<td class=\"n bad\">{} ({} in a row)</td></tr>", beat.missed, beat.missed_in_a_row)
        }
        Some(beat) => write!(to, "<td class=\"n\">{} of {}</td></tr>", beat.missed, beat.sent),
        None => write!(to, "<td></td></tr>"),
    }
}

/// Begins a row with a metric's name and labels; what it means is the title.
fn name(to: &mut String, metric: &Metric, bad: bool) -> fmt::Result {
    let class = if bad { " class=\"bad\"" } else { "" };
    write!(to, "<tr><td{class} title=\"{}\">{}", Text(&metric.help), Text(&metric.name))?;
    for (key, value) in &metric.labels {
        write!(to, " <span class=\"dim\">{}={}</span>", Text(key), Text(value))?;
    }
    to.push_str("</td>");
    Ok(())
}

fn same<'a>(snapshot: &'a Snapshot, metric: &Metric) -> Option<&'a Metric> {
    snapshot.metrics.iter().find(|other| other.name == metric.name && other.labels == metric.labels)
}

/// Whether a counter above zero is worth a look.
fn is_trouble(metric: &Metric) -> bool {
    let words = ["error", "fail", "aborted", "dropped", "panic", "refused", "timeout", "5xx"];
    let says = |text: &str| words.iter().any(|word| text.contains(word));
    says(&metric.name) || metric.labels.iter().any(|(_, value)| says(value))
}

/// Text as HTML content or attribute value.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A whole number with its thousands set apart.
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_char('\u{202f}')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// A duration for people.
struct Millis(u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0 / 1_000;
        match secs {
            0..60 => write!(f, "{secs}.{} s", self.0 % 1_000 / 100),
            60..3_600 => write!(f, "{} min {} s", secs / 60, secs % 60),
            3_600..86_400 => write!(f, "{} h {} min", secs / 3_600, secs / 60 % 60),
            _ => write!(f, "{} d {} h", secs / 86_400, secs / 3_600 % 24),
        }
    }
}

/// A number in its unit, to three digits or so.
struct Amount(u64, Unit);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: &[(u64, &str)] = match self.1 {
            Unit::One => return Grouped(self.0).fmt(f),
            Unit::Bytes => &[(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")],
            Unit::Nanoseconds => &[(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs"), (1, "ns")],
        };
        let (step, unit) = steps.iter().find(|(step, _)| self.0 >= *step).unwrap_or(&(1, "0"));
        if self.0 == 0 {
            return f.write_str("0");
        }
        let (whole, rest) = (self.0 / step, self.0 % step);
        match whole {
            0..100 if *step > 1 => write!(f, "{whole}.{} {unit}", u128::from(rest) * 10 / u128::from(*step)),
            _ => write!(f, "{} {unit}", Grouped(whole)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_well() {
        for (n, unit, text) in [
            (0, Unit::Bytes, "0"),
            (999, Unit::One, "999"),
            (1_234_567, Unit::One, "1\u{202f}234\u{202f}567"),
            (1_536, Unit::Bytes, "1.5 KiB"),
            (1_048_576, Unit::Nanoseconds, "1.0 ms"),
            (150_000, Unit::Nanoseconds, "150 µs"),
        ] {
            assert_eq!(Amount(n, unit).to_string(), text);
        }
        assert_eq!(Millis(90_061_000).to_string(), "1 d 1 h");
        assert_eq!(Millis(61_000).to_string(), "1 min 1 s");
    }

    #[test]
    fn no_text_becomes_markup() {
        assert_eq!(Text("<a href='x'>\"&").to_string(), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;");
    }
}

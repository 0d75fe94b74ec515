//! The log thread's own loop.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, park_timeout};
use std::time::Duration;

use base::{Clock as _, Instant, SystemClock};

use super::writer::KEPT_MAX;
use super::{Batch, Civil, LOSSES_EVERY, Level, LogSender, REPORT_BYTES_MAX, Report, Shared, Sink};

/// Longest sleep: how late losses may be told.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// How long dropping waits for the thread; [`LogThread::stop`] says it otherwise.
const DROP_WAIT: Duration = Duration::from_secs(1);

/// The log thread. Stop it last, so that it writes what the others say at their end.
#[derive(Debug)]
pub struct LogThread {
    shared: Arc<Shared>,
    ended: Arc<Ended>,
}

/// Says when the thread has ended: a join with a bound.
#[derive(Debug, Default)]
struct Ended {
    /// Whether it has, and whether everything was written.
    outcome: Mutex<Option<bool>>,
    changed: Condvar,
}

impl LogThread {
    /// Starts the thread under that name (15 bytes show), and gives the way to it.
    ///
    /// # Errors
    /// Standard error is closed, or the system has no more threads.
    pub fn start(name: &str) -> io::Result<(Self, LogSender)> {
        let shared = Arc::new(Shared::new()?);
        let ended = Arc::new(Ended::default());
        let (running, ending) = (shared.clone(), ended.clone());
        let handle = Builder::new().name(name.to_owned()).spawn(move || {
            let last = Last(&ending, Cell::new(false));
            last.1.set(run(&running));
        })?;
        // Detached: `ended` is the bounded way to wait for it.
        let _ = shared.thread.set(handle.thread().clone());
        Ok((Self { shared: shared.clone(), ended }, LogSender(shared)))
    }

    /// Writes what has been handed over and ends the thread, waiting at most `within`. Says whether everything was
    /// written; if not, a sink is stuck, and the thread is left behind.
    pub fn stop(self, within: Duration) -> bool {
        self.end(within)
    }

    fn end(&self, within: Duration) -> bool {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake();
        let outcome = self.ended.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let (outcome, _) = self
            .ended
            .changed
            .wait_timeout_while(outcome, within, |outcome| outcome.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        *outcome == Some(true)
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        // Immediate after `stop`. Whether all was written, nobody asked.
        let _ = self.end(DROP_WAIT);
    }
}

/// Says that the thread has ended, also when it panicked.
struct Last<'a>(&'a Ended, Cell<bool>);

impl Drop for Last<'_> {
    fn drop(&mut self) {
        *self.0.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.1.get());
        self.0.changed.notify_all();
    }
}

/// Until it is told to stop and has written everything. Says whether that succeeded.
fn run(shared: &Shared) -> bool {
    let mut line = String::new();
    let mut losses_told = SystemClock.now();
    loop {
        // Read before the queues: what was handed over before the stop is written.
        let stopping = shared.stopping.load(Ordering::Acquire);
        if shared.reopen.swap(false, Ordering::AcqRel) {
            // What was written before the rotation belongs into the old file.
            drain(shared, &mut line);
            reopen(shared);
        }
        drain(shared, &mut line);
        let now = SystemClock.now();
        if stopping || now.since(losses_told) >= LOSSES_EVERY {
            tell_losses(shared, &mut losses_told, now);
            drain(shared, &mut line);
        }
        if stopping {
            end(shared);
            let sinks = shared.sinks.lock().unwrap_or_else(PoisonError::into_inner);
            return shared.standard_error.dropped() == 0 && sinks.iter().all(|sink| sink.dropped() == 0);
        }
        if shared.batches.is_empty() && shared.reports.is_empty() {
            park_timeout(SLEEP_MAX);
        }
    }
}

/// Writes what waits now; reports first, for there are few.
fn drain(shared: &Shared, line: &mut String) {
    let waiting = shared.batches.len();
    for done in 0..=waiting {
        while let Some(report) = shared.reports.pop() {
            let sink = shared.report_sink.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let report = shared.with_stack(report);
            compose(&report, shared.who.get().map_or("beltway", String::as_str), line);
            sink.write(line.as_bytes());
        }
        if done == waiting {
            break;
        }
        let Some(Batch { sink, mut text, .. }) = shared.batches.pop() else { break };
        sink.write(&text);
        text.clear();
        if text.capacity() <= KEPT_MAX {
            // No room means that enough are kept.
            let _ = shared.buffers.push(text);
        }
    }
}

/// Takes nothing any more; what came after the last drain is lost.
fn end(shared: &Shared) {
    shared.ended.store(true, Ordering::Release);
    while let Some(batch) = shared.batches.pop() {
        batch.sink.drop_lines(batch.lines);
    }
}

fn reopen(shared: &Shared) {
    let sinks: Vec<Sink> = shared.sinks.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for sink in sinks {
        if let (Err(error), Some(path)) = (sink.reopen(), sink.path()) {
            let message = format!("{} cannot be opened anew, the old file stays in use: {error}", path.display());
            shared.report(Level::Error, message);
        }
    }
}

/// Says what has been lost since it was last said, and lets sinks go that nobody writes to any more.
fn tell_losses(shared: &Shared, told: &mut Instant, now: Instant) {
    *told = now;
    let mut sinks = shared.sinks.lock().unwrap_or_else(PoisonError::into_inner);
    let losses: Vec<String> = sinks.iter().chain([&shared.standard_error]).filter_map(Sink::losses).collect();
    sinks.retain(|sink| !sink.is_unused());
    drop(sinks);
    for loss in losses {
        shared.report(Level::Warn, loss);
    }
}

/// `2026-11-22T00:11:22.123Z traffic_server[4711] warning: message`, one line whatever the message holds.
fn compose(report: &Report, who: &str, line: &mut String) {
    let mut stamp = Vec::with_capacity(24);
    Civil::append_rfc3339(report.at, &mut stamp);
    line.clear();
    line.push_str(&String::from_utf8_lossy(&stamp));
    // Writing to a String cannot fail.
    let _ = write!(line, " {who} {}: ", report.level.as_str());
    for c in report.message.chars() {
        if line.len() >= REPORT_BYTES_MAX {
            line.push('…');
            break;
        }
        if c.is_control() {
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
    }
    line.push('\n');
}

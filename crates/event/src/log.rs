//! The log thread: event threads hand it lines, it writes them, and whatever happens to the disk is its trouble alone.
//!
//! ```text
//! LogWriter (one per thread) ── 32 KiB batches ──┐
//!                                                ├─> bounded queues ─> [LOG] ─> write(2) ─> Sink
//! LogSender::report (any thread) ── messages ────┘         └── empty buffers go back
//! ```
//!
//! Nobody waits for the log thread. When it is behind — a full disk, a pipe nobody reads — lines are dropped, counted
//! in their [`Sink`], and told of once in [`LOSSES_EVERY`]. In steady state nothing is allocated.
//!
//! Read [`LogThread::start`] first, then [`LogWriter::append`]. How a sink deals with slow and broken outputs is in
//! `log::sink`. What a line says is its writer's business.

mod civil;
mod panics;
mod sink;
mod thread;
mod writer;

use std::backtrace::Backtrace;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use base::{Clock as _, SystemClock, WallTime};
use crossbeam_queue::ArrayQueue;

pub use self::civil::{Civil, append_number, append_padded};
pub use self::sink::Sink;
pub use self::thread::LogThread;
pub use self::writer::LogWriter;

/// Batches that may wait for the log thread, each of at most 144 KiB and usually 32.
const BATCHES_MAX: usize = 64;
/// Empty buffers kept for reuse.
const BUFFERS_MAX: usize = 64;
/// The server's own messages that may wait for the log thread.
const REPORTS_MAX: usize = 1024;
/// Files that may be open at once.
const SINKS_MAX: usize = 256;
/// A message is cut to so many bytes.
const REPORT_BYTES_MAX: usize = 8 * 1024;
/// Losses are told at most so often.
pub const LOSSES_EVERY: Duration = Duration::from_secs(10);

/// How much a message of the server itself matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// Something is broken and needs a person.
    Error,
    /// Something went wrong and was dealt with.
    Warn,
    /// What an operator wants to know of an ordinary day.
    Info,
    /// What a programmer wants to know.
    Debug,
}

impl Level {
    /// As it is written in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// The way to the log thread, for any thread. Clones lead to the same one.
#[derive(Clone, Debug)]
pub struct LogSender(Arc<Shared>);

impl LogSender {
    /// A writer for the calling thread.
    #[must_use]
    pub fn writer(&self) -> LogWriter {
        LogWriter::new(self)
    }

    /// Opens a file for appending; two calls for one path give the same sink. Not for event threads: opening may block.
    ///
    /// # Errors
    /// What `open(2)` says; `QuotaExceeded` when too many are open.
    pub fn open(&self, path: &Path) -> io::Result<Sink> {
        let mut sinks = self.0.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sink) = sinks.iter().find(|sink| sink.path() == Some(path)) {
            return Ok(sink.clone());
        }
        if sinks.len() >= SINKS_MAX {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many log files are open"));
        }
        let sink = Sink::file(path)?;
        sinks.push(sink.clone());
        Ok(sink)
    }

    /// Standard error as a sink.
    #[must_use]
    pub fn standard_error(&self) -> Sink {
        self.0.standard_error.clone()
    }

    /// Sends the server's own messages to `sink` from now on. It is standard error before.
    pub fn report_to(&self, sink: Sink) {
        *self.0.report_sink.lock().unwrap_or_else(PoisonError::into_inner) = sink;
    }

    /// Signs messages from now on as those of `who`, once: `traffic_server[4711]`.
    pub fn sign(&self, who: &str) {
        // Who signs twice stays what he was.
        let _ = self.0.who.set(who.to_owned());
    }

    /// Leaves out messages of less weight than `level` from now on. It is [`Level::Info`] before.
    pub fn set_level(&self, level: Level) {
        self.0.level.store(level as u8, Ordering::Relaxed);
    }

    /// Whether messages of that level are written: ask before composing a costly one.
    #[must_use]
    pub fn reports(&self, level: Level) -> bool {
        level as u8 <= self.0.level.load(Ordering::Relaxed)
    }

    /// Writes a message of the server itself, with time and level before it and control characters made visible.
    /// Never blocks: when too many wait, it is dropped and counted.
    pub fn report(&self, level: Level, message: impl fmt::Display) {
        if self.reports(level) {
            self.0.report(level, message.to_string());
        }
    }

    /// Messages of the server itself that were dropped.
    #[must_use]
    pub fn reports_dropped(&self) -> u64 {
        self.0.reports_dropped.load(Ordering::Relaxed)
    }

    /// Opens every file anew by its path, soon: for rotation.
    pub fn reopen(&self) {
        self.0.reopen.store(true, Ordering::Release);
        self.0.wake();
    }
}

/// What the log thread and its clients share.
#[derive(Debug)]
struct Shared {
    batches: ArrayQueue<Batch>,
    buffers: ArrayQueue<Vec<u8>>,
    reports: ArrayQueue<Report>,
    reports_dropped: AtomicU64,
    /// Never locked by an event thread in its loop, nor by the log thread while it writes.
    sinks: Mutex<Vec<Sink>>,
    standard_error: Sink,
    report_sink: Mutex<Sink>,
    who: OnceLock<String>,
    level: AtomicU8,
    reopen: AtomicBool,
    stopping: AtomicBool,
    /// The log thread takes nothing any more.
    ended: AtomicBool,
    /// Whom to wake; set by the log thread's starter.
    thread: OnceLock<Thread>,
    /// A stack waits, or is being made into names: another must not be taken meanwhile.
    stack_on_its_way: AtomicBool,
}

/// Lines of one sink from one thread.
#[derive(Debug)]
struct Batch {
    sink: Sink,
    text: Vec<u8>,
    lines: u64,
}

/// A message of the server itself.
#[derive(Debug)]
struct Report {
    at: WallTime,
    level: Level,
    message: String,
    /// Of a panic: addresses, made into names by the log thread.
    stack: Option<Box<Backtrace>>,
}

impl Shared {
    fn new() -> io::Result<Self> {
        let standard_error = Sink::standard_error()?;
        Ok(Self {
            batches: ArrayQueue::new(BATCHES_MAX),
            buffers: ArrayQueue::new(BUFFERS_MAX),
            reports: ArrayQueue::new(REPORTS_MAX),
            reports_dropped: AtomicU64::new(0),
            sinks: Mutex::default(),
            report_sink: Mutex::new(standard_error.clone()),
            standard_error,
            who: OnceLock::new(),
            level: AtomicU8::new(Level::Info as u8),
            reopen: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            thread: OnceLock::new(),
            stack_on_its_way: AtomicBool::new(false),
        })
    }

    fn report(&self, level: Level, message: String) {
        // Not taken: counted there.
        let _ = self.report_with(level, message, None);
    }

    /// Whether it was taken.
    fn report_with(&self, level: Level, message: String, stack: Option<Box<Backtrace>>) -> bool {
        let report = Report { at: SystemClock.wall(), level, message, stack };
        let taken = self.reports.push(report).is_ok();
        if taken {
            self.wake();
        } else {
            self.reports_dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Lets the log thread look. A system call only when it sleeps.
    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests;

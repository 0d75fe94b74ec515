//! A sink: one file or standard error, with what became of its lines. Only the log thread writes it.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::{Clock as _, SystemClock};
use sys::output::{WRITABLE_MIN, open_append, standard_error, writable_within};

/// Longest wait for a pipe whose reader is slow. What is not written by then is dropped and counted.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(1);
/// Longest single wait within that.
const WRITE_WAIT_STEP: Duration = Duration::from_millis(100);

/// Where lines go. Clones are the same sink; the file is closed with the last of them.
#[derive(Clone, Debug)]
pub struct Sink(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    /// None is standard error.
    path: Option<PathBuf>,
    /// Locked by the log thread only, and by `reopen`, which runs there too.
    output: Mutex<Output>,
    lines: AtomicU64,
    dropped: AtomicU64,
    failures: AtomicU64,
}

#[derive(Debug)]
struct Output {
    file: File,
    /// The last write ended within a line: the next begins with a line feed, so that no two lines run together.
    mid_line: bool,
    /// The last write was in vain for want of time: the next does not wait, so that other sinks get their turn.
    slow: bool,
    /// The last failure, until it has been told.
    untold: Option<io::Error>,
    /// Dropped lines that have been told.
    told: u64,
}

impl Sink {
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        Ok(Self::new(Some(path.to_owned()), open_append(path)?))
    }

    pub(super) fn standard_error() -> io::Result<Self> {
        Ok(Self::new(None, standard_error()?))
    }

    fn new(path: Option<PathBuf>, file: File) -> Self {
        Self(Arc::new(Inside {
            path,
            output: Mutex::new(Output { file, mid_line: false, slow: false, untold: None, told: 0 }),
            lines: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }))
    }

    /// The file's path; `None` for standard error.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// Lines written.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.0.lines.load(Ordering::Relaxed)
    }

    /// Lines lost: the queue was full, or the sink took them not at all or not in time.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Writes that failed: disk full, pipe closed, pipe too slow.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Nobody holds it but the one who asks.
    pub(super) fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    pub(super) fn drop_lines(&self, lines: u64) {
        self.0.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    /// Writes whole lines, as many as the sink takes in time; counts the others.
    pub(super) fn write(&self, text: &[u8]) {
        let mut output = self.0.output.lock().unwrap_or_else(PoisonError::into_inner);
        let may_block = self.0.path.is_none();
        let slow = output.slow;
        let mut rest = text;
        let failed = (|| {
            if output.mid_line {
                write_some(&output.file, b"\n", may_block, slow)?;
                output.mid_line = false;
            }
            while !rest.is_empty() {
                let n = write_some(&output.file, rest, may_block, slow)?;
                output.mid_line = rest.get(n.wrapping_sub(1)).is_some_and(|last| *last != b'\n');
                rest = &rest[n..];
            }
            Ok(())
        })();
        output.slow = failed.as_ref().is_err_and(|error: &io::Error| error.kind() == io::ErrorKind::TimedOut);
        let lost = lines_in(rest);
        self.0.lines.fetch_add(lines_in(text) - lost, Ordering::Relaxed);
        if let Err(error) = failed {
            self.0.failures.fetch_add(1, Ordering::Relaxed);
            self.drop_lines(lost);
            output.untold = Some(error);
        }
    }

    /// Opens the path anew, for log rotation. The old file stays in use when that fails.
    pub(super) fn reopen(&self) -> io::Result<()> {
        if let Some(path) = &self.0.path {
            let file = open_append(path)?;
            let mut output = self.0.output.lock().unwrap_or_else(PoisonError::into_inner);
            output.file = file;
            output.mid_line = false;
        }
        Ok(())
    }

    /// What has been lost since this was last asked, and why; `None` when nothing.
    pub(super) fn losses(&self) -> Option<String> {
        let mut output = self.0.output.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = self.dropped();
        let lost = dropped - output.told;
        if lost == 0 {
            return None;
        }
        output.told = dropped;
        let name = self.0.path.as_ref().map_or_else(|| "standard error".into(), |path| path.to_string_lossy());
        Some(match output.untold.take() {
            Some(error) => format!("{lost} lines of {name} are lost: {error}"),
            None => format!("{lost} lines of {name} are lost: written faster than the log takes them"),
        })
    }
}

/// One write of some bytes, waiting within the bounds.
fn write_some(mut file: &File, text: &[u8], may_block: bool, slow: bool) -> io::Result<usize> {
    let chunk = if may_block { &text[..text.len().min(WRITABLE_MIN)] } else { text };
    let mut began = None;
    loop {
        let ready = !may_block || writable_within(file, Duration::ZERO)?;
        if ready {
            match file.write(chunk) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        let now = SystemClock.now();
        if now.since(*began.get_or_insert(now)) >= WRITE_WAIT_MAX || slow {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "its reader is too slow"));
        }
        writable_within(file, WRITE_WAIT_STEP)?;
    }
}

fn lines_in(text: &[u8]) -> u64 {
    // A rest that begins within a line counts that line: it is not whole.
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}

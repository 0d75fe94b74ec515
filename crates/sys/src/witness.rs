//! Where a thread was: in the moment its process dies of a fault, or when somebody asks who hangs and why.
//!
//! A process that [`install`]s this has a page in a file, written by signal handlers with plain stores: no allocation, no
//! lock, no file operation. Survivors and supervisors read it by [`Testimony`], also after the process is dead.
//!
//! - A **fault** (SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE) leaves signal, address, thread and return addresses. Then
//!   the signal takes the course it would have taken without us, so that the exit status is true.
//! - A thread that is **asked** ([`Testimony::ask`]: SIGURG, which who knows nothing of it ignores) writes where it is
//!   and goes on. One that is stopped, or waits in the kernel without being interruptible, does not answer.
//!
//! Stacks are walked by frame pointers, which all our code has and the C library has not: from within it, the next frame
//! record is looked for on the stack. Memory is read by way of the kernel, so that a wrong pointer ends the walk and
//! nothing else. Addresses get names elsewhere: [`Module`] says what lies where.

mod frames;
mod handlers;
mod page;

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

pub use page::{FRAMES_MAX, MODULES_MAX};

use crate::process::Pidfd;
use crate::shm::{SharedWords, SharedWordsReader};
use page::at;

/// Between two looks at whether a thread has answered.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Executable code in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its first address.
    pub start: u64,
    /// Behind its last.
    pub end: u64,
    /// Where in the file `start` comes from.
    pub offset: u64,
    /// The file's name, cut to what the page holds.
    pub name: String,
}

/// Which file it is, whatever it is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileIdentity([u64; 4]);

impl FileIdentity {
    /// Of a file that is open.
    ///
    /// # Errors
    /// What `fstat(2)` says.
    pub fn of(file: &fs::File) -> io::Result<Self> {
        let data = file.metadata()?;
        Ok(Self([data.dev(), data.ino(), data.len(), data.mtime_nsec().unsigned_abs() ^ data.mtime().unsigned_abs()]))
    }
}

/// How a process died of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The signal.
    pub signal: i32,
    /// The kernel's word for its reason: above 0 it is a fault, else somebody sent it.
    pub code: i32,
    /// Of a fault the address, of a signal that was sent the sender's pid.
    pub address: u64,
    /// The kernel's number of the thread.
    pub thread: u64,
    /// Where it was, then its callers, innermost first.
    pub frames: Vec<u64>,
}

/// Makes the page at `path` and takes the signals. Once in a process; the page is kept for life. Threads need an
/// alternate signal stack for faults of their own stack; those of Rust's standard library have one.
///
/// # Errors
/// The page cannot be made, the handlers cannot be set, or it was done before.
pub fn install(path: &Path) -> io::Result<()> {
    if handlers::are_taken() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let words = SharedWords::create(path, page::WORDS)?;
    page::describe(words.words(), &modules(), executable().unwrap_or_default());
    handlers::take(words)
}

/// What is mapped of executable files here, our own first as far as the kernel lists it so.
fn modules() -> Vec<Module> {
    // Without /proc addresses stay without names.
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines().filter_map(module).take(MODULES_MAX).collect()
}

fn module(line: &str) -> Option<Module> {
    let mut fields = line.split_ascii_whitespace();
    let (range, rights, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let path = fields.nth(2).filter(|path| path.starts_with('/') && rights.contains('x'))?;
    let (start, end) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let name = path.rsplit('/').next().unwrap_or(path).to_owned();
    Some(Module { start: number(start)?, end: number(end)?, offset: number(offset)?, name })
}

fn executable() -> io::Result<FileIdentity> {
    FileIdentity::of(&fs::File::open("/proc/self/exe")?)
}

/// The page of a process, read from outside.
#[derive(Debug)]
pub struct Testimony {
    reader: SharedWordsReader,
}

impl Testimony {
    /// Opens a page.
    ///
    /// # Errors
    /// What the file system says; `InvalidData` when it is no such page.
    pub fn open(path: &Path) -> io::Result<Self> {
        let this = Self { reader: SharedWordsReader::open(path)? };
        if this.word(at::MAGIC) == Some(page::MAGIC) { Ok(this) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// What is mapped in that process.
    #[must_use]
    pub fn modules(&self) -> Vec<Module> {
        let mut words = vec![0; page::HEAD_WORDS];
        if self.reader.read_range(0, &mut words).ok() == Some(true) { page::modules(&words) } else { Vec::new() }
    }

    /// The program that process runs.
    #[must_use]
    pub fn executable(&self) -> FileIdentity {
        let mut identity = FileIdentity::default();
        // A page that was cut says nothing, and nothing is equal to that.
        let _ = self.reader.read_range(at::EXECUTABLE, &mut identity.0);
        identity
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> Option<u64> {
        self.word(at::PID)
    }

    /// How it died of a fault; `None` when it did not.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        let mut words = vec![0; page::RECORD_WORDS];
        self.reader.read_range(at::FAULT, &mut words).ok().filter(|whole| *whole)?;
        page::fault(&words)
    }

    /// Asks a thread where it is: its own address, then its callers', innermost first. Waits for the answer, at most
    /// `within`; `None` when there is none.
    #[must_use]
    pub fn ask(&self, process: &Pidfd, thread: u64, within: Duration) -> Option<Vec<u64>> {
        let before = self.record_of(thread).map_or(0, |words| words[page::record::ANSWERS]);
        handlers::ask(process, thread).ok()?;
        let looks = within.as_millis() / LOOK_INTERVAL.as_millis();
        for _ in 0..=looks {
            if let Some(words) = self.record_of(thread)
                && words[page::record::ANSWERS] != before
            {
                return Some(page::frames(&words));
            }
            // The process ends, or time passes.
            let mut fds = [rustix::event::PollFd::from_borrowed_fd(process.as_fd(), rustix::event::PollFlags::IN)];
            let time = rustix::event::Timespec { tv_sec: 0, tv_nsec: LOOK_INTERVAL.subsec_nanos().into() };
            if rustix::event::poll(&mut fds, Some(&time)).is_ok_and(|ended| ended > 0) {
                return None;
            }
        }
        None
    }

    fn record_of(&self, thread: u64) -> Option<Vec<u64>> {
        (0..page::RECORDS_MAX).map(|index| at::RECORDS + index * page::RECORD_WORDS).find_map(|place| {
            let mine = self.word(place)? == thread;
            let mut words = vec![0; page::RECORD_WORDS];
            (mine && self.reader.read_range(place, &mut words).ok()?).then_some(words)
        })
    }

    fn word(&self, at: usize) -> Option<u64> {
        let mut word = [0];
        self.reader.read_range(at, &mut word).ok().filter(|whole| *whole).map(|_| word[0])
    }
}

#[cfg(test)]
mod tests;

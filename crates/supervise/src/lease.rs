//! Leases: lock files held for life, the holder's pid inside.
//!
//! A lease says who lives, without a stale answer: the kernel drops the lock when the last descriptor of it is closed, so
//! with its holder. The pid in the file only says *who*; alone it means nothing. Who wants to know tests the lock and
//! never takes it, so that a look never makes a start fail.
//!
//! Order of calls to reach a holder: [`process`] opens its pidfd and reads the lease again *under* it; [`signal`] reads it
//! once more before each signal. A server's lease is [`Lease::reserve`]d by manager and inherited by the server: it
//! is held from before the process exists, and there is no moment at which a living server looks dead.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::process::{Pidfd, Signal};

/// Tries at a lease file that is removed or replaced under our hands.
const ATTEMPTS_MAX: u32 = 16;
/// Bytes read of a lease file; more is not ours.
const CONTENT_MAX: u64 = 32;
/// Whoever has just taken a lease tells its pid within this, however busy the machine is.
const PID_TOLD_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks for it.
const PID_LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// Why a lease could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// A living process holds it.
    #[error("{path} is held by {}", holder_text(*.pid))]
    Held {
        /// The lease file.
        path: PathBuf,
        /// The holder, when the file says.
        pid: Option<u32>,
    },
    /// The file cannot be made, locked or written.
    #[error("{path}")]
    Io {
        /// The lease file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It was removed or replaced each time it was taken.
    #[error("{path} is being replaced by somebody else again and again")]
    Contended {
        /// The lease file.
        path: PathBuf,
    },
}

fn holder_text(pid: Option<u32>) -> String {
    pid.map_or_else(|| "a process that has not told its pid yet".to_owned(), |pid| format!("process {pid}"))
}

/// A lease that we hold. It ends when this and every inherited copy of it are dropped.
#[derive(Debug)]
pub struct Lease {
    file: File,
    path: PathBuf,
}

impl Lease {
    /// Takes the lease for this process and writes its pid.
    ///
    /// # Errors
    /// [`LeaseError::Held`] when a living process has it.
    pub fn take(path: &Path) -> Result<Self, LeaseError> {
        let mut looks = 0..PID_TOLD_WITHIN.as_millis() / PID_LOOK_INTERVAL.as_millis();
        loop {
            match Self::reserve(path) {
                Ok(lease) => return lease.record(std::process::id()).map(|()| lease),
                // Two start at the same moment: the first has the lease, and tells its pid in a moment.
                Err(LeaseError::Held { path, pid: None }) => {
                    let pid = match named_holder(&path) {
                        Ok(Holder::Somebody(pid)) => pid,
                        Ok(Holder::Nobody) | Err(_) => None,
                    };
                    return Err(LeaseError::Held { path, pid });
                }
                // Killed while it started another, which has a copy of everything until it becomes its own program.
                Err(LeaseError::Held { pid: Some(pid), .. }) if !lives(pid) && looks.next().is_some() => {
                    let paused = crate::wait::readable(&[], PID_LOOK_INTERVAL);
                    paused.map_err(|source| LeaseError::Io { path: path.to_owned(), source })?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the lease for a process that is to come; whose, [`Lease::record`] says.
    ///
    /// # Errors
    /// As [`Lease::take`].
    pub fn reserve(path: &Path) -> Result<Self, LeaseError> {
        let failed = |source| LeaseError::Io { path: path.to_owned(), source };
        for _ in 0..ATTEMPTS_MAX {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false).mode(0o644);
            let file = options.custom_flags(O_NOFOLLOW_FLAG).open(path).map_err(failed)?;
            if !sys::lock::try_lock(&file).map_err(failed)? {
                return Err(LeaseError::Held { path: path.to_owned(), pid: read_pid(&file).map_err(failed)? });
            }
            let lease = Self { file, path: path.to_owned() };
            // Between our open and our lock the last holder may have removed the file: a lock on a nameless file
            // keeps nobody out.
            if lease.is_in_place() {
                lease.file.set_len(0).map_err(failed)?;
                return Ok(lease);
            }
        }
        Err(LeaseError::Contended { path: path.to_owned() })
    }

    /// Takes over a lease that the parent reserved, and writes our pid.
    ///
    /// # Errors
    /// [`LeaseError::Held`] when the descriptor is not the one that holds the lock.
    pub fn inherit(fd: OwnedFd, path: &Path) -> Result<Self, LeaseError> {
        let failed = |source| LeaseError::Io { path: path.to_owned(), source };
        let lease = Self { file: File::from(fd), path: path.to_owned() };
        if !sys::lock::try_lock(&lease.file).map_err(failed)? {
            return Err(LeaseError::Held { path: path.to_owned(), pid: read_pid(&lease.file).map_err(failed)? });
        }
        lease.record(std::process::id())?;
        Ok(lease)
    }

    /// Goes on with our own lease, which came under `number` from the program that we were.
    ///
    /// # Errors
    /// As [`Lease::inherit`]; [`LeaseError::Io`] when no such descriptor came.
    pub fn resume(number: RawFd, path: &Path) -> Result<Self, LeaseError> {
        let fd = sys::process::inherited(number).map_err(|source| LeaseError::Io { path: path.to_owned(), source })?;
        Self::inherit(fd, path)
    }

    /// Writes whose lease this is.
    ///
    /// # Errors
    /// What `write(2)` says: a full disk, a read-only one.
    pub fn record(&self, pid: u32) -> Result<(), LeaseError> {
        let failed = |source| LeaseError::Io { path: self.path.clone(), source };
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let text = format!("{pid}\n");
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.set_len(text.len() as u64).map_err(failed)
    }

    /// Whether the file we hold is still the one at its path.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        match (self.file.metadata(), fs::symlink_metadata(&self.path)) {
            (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }

    /// Puts the lease back when somebody removed its file. `true`: it had to be done.
    ///
    /// # Errors
    /// [`LeaseError::Held`]: in the meantime another process took the new file. Both of us run then.
    pub fn restore(&mut self) -> Result<bool, LeaseError> {
        if self.is_in_place() {
            return Ok(false);
        }
        *self = Self::take(&self.path)?;
        Ok(true)
    }

    /// Removes the file and lets go: the orderly end, when nobody is to find even an empty file.
    ///
    /// # Errors
    /// What `unlink(2)` says.
    pub fn remove(self) -> io::Result<()> {
        // Only what is ours: while we hold the lock, a file in place is the one nobody else can hold.
        if self.is_in_place() { fs::remove_file(&self.path) } else { Ok(()) }
    }
}

impl AsFd for Lease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Who holds a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holder {
    /// Nobody: no such file, or its holder is dead.
    Nobody,
    /// A living process; `None` when it has not told its pid yet, or the file was scribbled over.
    Somebody(Option<u32>),
}

/// Who holds the lease at `path`. Takes nothing.
///
/// # Errors
/// The file is there and cannot be read.
pub fn holder(path: &Path) -> io::Result<Holder> {
    let file = match File::options().read(true).custom_flags(O_NOFOLLOW_FLAG).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
        Err(error) => return Err(error),
    };
    if sys::lock::is_locked(&file)? { Ok(Holder::Somebody(read_pid(&file)?)) } else { Ok(Holder::Nobody) }
}

/// Who holds the lease at `path`; one that has just taken it is waited for until it has told its pid, for two seconds at
/// most.
///
/// # Errors
/// As [`holder`], and what the kernel says of the wait.
pub fn named_holder(path: &Path) -> io::Result<Holder> {
    for _ in 0..PID_TOLD_WITHIN.as_millis() / PID_LOOK_INTERVAL.as_millis() {
        match holder(path)? {
            Holder::Somebody(None) => crate::wait::readable(&[], PID_LOOK_INTERVAL)?,
            known => return Ok(known),
        }
    }
    holder(path)
}

/// The process that holds the lease at `path`; `None` when nobody does or it has not told its pid yet.
///
/// # Errors
/// The file cannot be read, or no descriptor is left.
pub fn process(path: &Path) -> io::Result<Option<Pidfd>> {
    let Holder::Somebody(Some(pid)) = holder(path)? else { return Ok(None) };
    let pidfd = match Pidfd::open(pid) {
        Ok(pidfd) => pidfd,
        Err(error) if matches!(error.raw_os_error(), Some(ESRCH_CODE | EINVAL_CODE)) => return Ok(None),
        Err(error) => return Err(error),
    };
    // The number may have been another's by the time it was opened. It is right when the lease still names it now and
    // what was opened still lives: from here on the descriptor cannot come to mean anybody else.
    let still = holder(path)? == Holder::Somebody(Some(pid)) && !pidfd.is_dead();
    Ok(still.then_some(pidfd))
}

/// Removes what a dead holder left at `path`; does nothing when a living one holds it.
///
/// # Errors
/// What the kernel says.
pub fn clear(path: &Path) -> io::Result<()> {
    if holder(path)? != Holder::Nobody || !path.exists() {
        return Ok(());
    }
    match Lease::reserve(path) {
        Ok(lease) => lease.remove(),
        Err(LeaseError::Held { .. }) => Ok(()),
        Err(LeaseError::Io { source, .. }) => Err(source),
        Err(error @ LeaseError::Contended { .. }) => Err(io::Error::other(error.to_string())),
    }
}

/// Sends a signal to the holder of a lease, after reading the lease again. `false`: it is no longer the holder, nothing
/// was sent.
///
/// # Errors
/// The file cannot be read, or the process is not ours to signal.
pub fn signal(path: &Path, process: &Pidfd, signal: Signal) -> io::Result<bool> {
    if process.is_dead() || holder(path)? != Holder::Somebody(Some(process.pid())) {
        return Ok(false);
    }
    match process.signal(signal) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(ESRCH_CODE) => Ok(false),
        Err(error) => Err(error),
    }
}

const O_NOFOLLOW_FLAG: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
const ESRCH_CODE: i32 = rustix::io::Errno::SRCH.raw_os_error();
const EINVAL_CODE: i32 = rustix::io::Errno::INVAL.raw_os_error();

/// Whether there is a process of that pid, and not only what is left of one.
fn lives(pid: u32) -> bool {
    match Pidfd::open(pid) {
        Ok(process) => !process.is_dead(),
        Err(error) => !matches!(error.raw_os_error(), Some(ESRCH_CODE | EINVAL_CODE)),
    }
}

fn read_pid(file: &File) -> io::Result<Option<u32>> {
    let mut file = file;
    file.seek(SeekFrom::Start(0))?;
    let mut content = Vec::new();
    file.take(CONTENT_MAX).read_to_end(&mut content)?;
    // Without its end of line a number may be half of one.
    let line = content.split(|&b| b == b'\n').next().filter(|line| line.len() < content.len());
    Ok(line.and_then(|line| str::from_utf8(line).ok()).and_then(|line| line.parse().ok()).filter(|&pid: &u32| pid > 0))
}

#[cfg(test)]
mod tests;

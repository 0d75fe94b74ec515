//! Files and pipes that are appended to, without waiting longer than allowed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;

/// Opens a log for appending, made with mode 0640 if it is not there. Never blocks: a named pipe without a reader is
/// an error, and a full one answers `WouldBlock`. Does not become a controlling terminal.
///
/// # Errors
/// What `open(2)` says.
pub fn open_append(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path)
}

/// Standard error as a descriptor of its own. It shares its flags with whoever else holds it, so it may block: write at
/// most [`WRITABLE_MIN`] bytes after [`writable_within`] said yes.
///
/// # Errors
/// What `fcntl(2)` says: standard error is closed, or there are too many descriptors.
pub fn standard_error() -> io::Result<File> {
    let owned: OwnedFd = io::stderr().as_fd().try_clone_to_owned()?;
    Ok(File::from(owned))
}

/// Bytes that a pipe takes at once when it is writable (POSIX `PIPE_BUF` on Linux).
pub const WRITABLE_MIN: usize = 4096;

/// Waits until `fd` can be written, at most so long. Files always can; a pipe without a reader can, and writing says so.
///
/// # Errors
/// What `poll(2)` says. An interrupted wait counts as one that was in vain.
pub fn writable_within(fd: impl AsFd, timeout: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    match rustix::event::poll(&mut fds, Some(&timeout)) {
        Ok(n) => Ok(n > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_full_pipe_is_not_writable_and_a_file_always_is() {
        let (reader, mut writer) = io::pipe().unwrap();
        assert!(writable_within(&writer, Duration::ZERO).unwrap());
        let mut written = 0;
        while writable_within(&writer, Duration::ZERO).unwrap() {
            written += writer.write(&[0; WRITABLE_MIN]).unwrap();
        }
        assert!(written >= WRITABLE_MIN);
        drop(reader);
        assert!(writable_within(&writer, Duration::ZERO).unwrap(), "an error is found by writing");
        assert!(writable_within(File::open("/dev/null").unwrap(), Duration::ZERO).unwrap());
    }
}

//! What a process does to its three standard descriptors, and writing to them without ever waiting.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode, OFlags};

/// Points standard input and output to the null device.
///
/// # Errors
/// What `open(2)` and `dup2(2)` say.
pub fn silence_input_and_output() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

/// Leaves the permissions of what the process makes from now on to whoever makes it: no umask takes any away.
pub fn clear_umask() {
    // The answer is the former mask.
    let _ = rustix::process::umask(Mode::empty());
}

/// Points standard error to the end of the file at `path`, made when it is not there. Again after the file was renamed: a
/// new one is begun. Never waits: a named pipe that nobody reads is an error.
///
/// # Errors
/// What `open(2)`, `fcntl(2)` and `dup2(2)` say.
pub fn redirect_errors(path: &Path) -> io::Result<()> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file =
        File::options().append(true).create(true).mode(0o644).custom_flags(flags.bits().cast_signed()).open(path)?;
    // Who shares it expects it to block, as it does everywhere.
    let opened = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, opened - OFlags::NONBLOCK)?;
    rustix::stdio::dup2_stderr(&file)?;
    Ok(())
}

/// Whether standard input is a terminal.
#[must_use]
pub fn input_is_terminal() -> bool {
    rustix::termios::isatty(rustix::stdio::stdin())
}

/// Standard error, written to without waiting: a pipe or terminal that nobody reads costs lines, never time.
#[derive(Debug)]
pub struct ErrorStream {
    /// Our own open file of the same pipe or terminal, non-blocking without making it so for those who share it.
    own: Option<OwnedFd>,
}

impl ErrorStream {
    /// Looks at what standard error is now.
    #[must_use]
    pub fn open() -> Self {
        let kind = rustix::fs::fstat(rustix::stdio::stderr()).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let own = match kind {
            // A regular file never makes a writer wait for a reader, and its offset is to be shared.
            Ok(FileType::Fifo | FileType::CharacterDevice) => {
                let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::APPEND | OFlags::NOCTTY | OFlags::CLOEXEC;
                rustix::fs::open("/proc/self/fd/2", flags, Mode::empty()).ok()
            }
            _ => None,
        };
        Self { own }
    }

    /// Writes one line whole or not at all. `false`: it would have had to wait, or nobody is there.
    #[must_use]
    pub fn write_line(&self, line: &[u8]) -> bool {
        if let Some(own) = &self.own {
            return matches!(rustix::io::write(own, line), Ok(written) if written == line.len());
        }
        let errors = rustix::stdio::stderr();
        is_writable(errors) && matches!(rustix::io::write(errors, line), Ok(written) if written == line.len())
    }
}

fn is_writable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(n) if n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_is_refused_and_not_waited_for() {
        let path = std::env::temp_dir().join(format!("beltway-unread-{}", std::process::id()));
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let error = redirect_errors(&path).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NXIO.raw_os_error()));
        std::fs::remove_file(path).unwrap();
    }
}

//! A process replacing itself by another program: its pid, its children and chosen descriptors stay.
//!
//! What is to be known afterwards goes through a [`note`]: an anonymous file whose descriptor is kept.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;

/// Opens a program, to be started or to be become later, whatever happens to its name meanwhile.
///
/// # Errors
/// What `open(2)` says.
pub fn open_program(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK, Mode::empty())?)
}

/// Becomes `program`, with the environment of now. Of the descriptors only the standard ones and `kept` stay open, under
/// their numbers. Other threads end without notice. Returns only when it cannot be done: then everything is as before.
#[must_use]
pub fn become_program(program: &OwnedFd, arguments: &[&OsStr], kept: &[BorrowedFd<'_>]) -> io::Error {
    let arguments = arguments.iter().map(|argument| CString::new(argument.as_bytes())).collect::<Result<Vec<_>, _>>();
    let arguments = match arguments {
        Ok(arguments) => arguments,
        Err(error) => return error.into(),
    };
    let mut argv: Vec<*const libc::c_char> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    argv.push(ptr::null());
    for (at, fd) in kept.iter().enumerate() {
        if let Err(error) = rustix::io::fcntl_setfd(fd, FdFlags::empty()) {
            close_on_exec(kept.get(..at).unwrap_or_default());
            return error.into();
        }
    }
    // SAFETY: `program` is open for the whole call; every `argv` entry is a NUL-terminated string that lives until the
    // end of this function, and a null pointer ends the list; `environ` is the process's own, and no thread changes it
    // (nothing in Beltway calls `set_var`).
    let _ = unsafe { libc::fexecve(program.as_raw_fd(), argv.as_ptr(), environ) };
    let error = io::Error::last_os_error();
    close_on_exec(kept);
    error
}

unsafe extern "C" {
    static environ: *const *const libc::c_char;
}

/// What was made inheritable for a program that could not be become.
fn close_on_exec(fds: &[BorrowedFd<'_>]) {
    for fd in fds {
        // A descriptor that is borrowed is open, and setting this flag cannot fail otherwise.
        let _ = rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC);
    }
}

/// An anonymous file that holds `content`.
///
/// # Errors
/// What `memfd_create(2)` and `write(2)` say.
pub fn note(content: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("beltway note", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(content)?;
    Ok(file.into())
}

/// What a [`note`] holds, of which more than `size_max` bytes are an error.
///
/// # Errors
/// What `read(2)` says; `InvalidData` for one that is too long.
pub fn read_note(note: OwnedFd, size_max: u64) -> io::Result<Vec<u8>> {
    let mut file = File::from(note);
    file.seek(SeekFrom::Start(0))?;
    let mut content = Vec::new();
    (&file).take(size_max).read_to_end(&mut content)?;
    if file.metadata()?.len() > size_max {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(content)
}

/// Whether two descriptors are of the same file.
#[must_use]
pub fn is_same_file(a: impl AsFd, b: impl AsFd) -> bool {
    match (rustix::fs::fstat(a), rustix::fs::fstat(b)) {
        (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_program_cannot_be_become_and_its_descriptors_are_ours_alone_again() {
        let path = std::env::temp_dir().join(format!("beltway-exec-{}", std::process::id()));
        std::fs::write(&path, "no program").unwrap();
        let program = open_program(&path).unwrap();
        let note = note(b"kept").unwrap();
        let error = become_program(&program, &[OsStr::new("x")], &[note.as_fd()]);
        assert!(error.raw_os_error().is_some(), "{error}");
        assert_eq!(rustix::io::fcntl_getfd(&note).unwrap(), FdFlags::CLOEXEC);
        assert_eq!(read_note(note, 4).unwrap(), b"kept");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_note_that_is_too_long_is_refused() {
        assert!(read_note(note(b"12345").unwrap(), 4).is_err());
    }
}

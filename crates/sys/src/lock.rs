//! Open-file-description locks over a whole file.
//!
//! Unlike the older POSIX locks they belong to the open file, not to the process: closing another descriptor of the same
//! file does not drop them, and a child that inherits the descriptor holds them on after its parent has died.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Tries to take the exclusive lock. `false`: another open file holds it. Never waits.
///
/// # Errors
/// What `fcntl(2)` says: `EBADF` when not opened for writing, `ENOLCK` on a file system without locks.
pub fn try_lock(file: impl AsFd) -> io::Result<bool> {
    match control(&file, libc::F_OFD_SETLK, libc::F_WRLCK) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether another open file holds the exclusive lock. Takes nothing; reading rights are enough.
///
/// # Errors
/// What `fcntl(2)` says.
pub fn is_locked(file: impl AsFd) -> io::Result<bool> {
    // A shared lock conflicts with exactly the exclusive one.
    Ok(i32::from(control(&file, libc::F_OFD_GETLK, libc::F_RDLCK)?.l_type) != libc::F_UNLCK)
}

fn control(file: &impl AsFd, command: libc::c_int, kind: libc::c_int) -> io::Result<libc::flock> {
    // SAFETY: `flock` is plain old data for which all zeroes is a value: from the start, to the end, pid 0 (which the
    // kernel demands for these commands).
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::c_short::try_from(kind).map_err(|_| io::ErrorKind::InvalidInput)?;
    lock.l_whence = libc::c_short::try_from(libc::SEEK_SET).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is borrowed, so open for the whole call; `lock` is writable for F_OFD_GETLK and readable
    // for F_OFD_SETLK, and the kernel keeps no pointer to it.
    let result = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), command, &raw mut lock) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(lock) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn the_lock_belongs_to_the_open_file_and_survives_the_closing_of_another_descriptor() {
        let path = std::env::temp_dir().join(format!("beltway-lock-{}", std::process::id()));
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let holder = open();
        assert!(try_lock(&holder).unwrap());
        let other = open();
        assert!(!try_lock(&other).unwrap());
        drop(other);
        let observer = File::open(&path).unwrap();
        assert!(is_locked(&observer).unwrap(), "closing `other` dropped nothing");
        let inherited = holder.try_clone().unwrap();
        drop(holder);
        assert!(is_locked(&observer).unwrap(), "a duplicate holds on");
        drop(inherited);
        assert!(!is_locked(&observer).unwrap());
        std::fs::remove_file(&path).unwrap();
    }
}

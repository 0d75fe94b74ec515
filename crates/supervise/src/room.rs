//! Room in the runtime directory: a file that only takes some, and is given up when somebody must start on a full disk.
//!
//! What runs writes nothing that it cannot do without, so a full disk stops nobody. Who starts needs a lease with a pid in
//! it, a page for its numbers and a new generation's number: a megabyte of [`keep`]'s lets several die and come back before
//! somebody has made room. Manager keeps it; whoever starts another process gives it up ([`give`]) when there is little.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use base::Instant;
use rustix::fs::{FallocateFlags, statvfs};
use rustix::io::Errno;

use crate::directory::{self, RuntimeDir};

/// What is kept: a dozen starts of a server with few pools. Of a small file system one in [`RESERVE_SHARE`] bytes.
const RESERVE_BYTES: u64 = 1 << 20;
const RESERVE_SHARE: u64 = 8;
/// With less than this a start may fail, and the disk counts as full. Of a small file system one in [`SCARCE_SHARE`] bytes,
/// but never less than a start takes.
const SCARCE_BYTES: u64 = 512 << 10;
const SCARCE_SHARE: u64 = 16;
const SCARCE_BYTES_MIN: u64 = 64 << 10;
/// A reserve is made only where so many more files can be: a start makes some.
const FILES_FOR_RESERVE: u64 = 16;
/// When no reserve was to be had, the next try comes after so long.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// What `st_blocks` counts.
const BLOCK: u64 = 512;

/// What there is in the runtime directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Bytes that may still be written there.
    pub free_bytes: u64,
    /// The reserve is there.
    pub is_reserved: bool,
    /// Bytes of the whole file system.
    size: u64,
    /// Files that may still be made.
    files: u64,
    refused: Option<Refused>,
}

/// No reserve was to be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Refused {
    at: Instant,
    /// For want of room that nobody can see: it went meanwhile, or this user may have no more.
    is_full: bool,
}

impl Room {
    /// Looks.
    ///
    /// # Errors
    /// What `statvfs(2)` says.
    pub fn look(directory: &RuntimeDir) -> io::Result<Self> {
        let disk = statvfs(directory.path())?;
        let bytes = |blocks: u64| {
            // A memory file system without a bound says that it has no blocks at all.
            if disk.f_blocks == 0 { u64::MAX } else { blocks.saturating_mul(disk.f_frsize) }
        };
        Ok(Self {
            free_bytes: bytes(disk.f_bavail),
            is_reserved: is_allocated(&directory.reserve()),
            size: bytes(disk.f_blocks),
            // Not every file system has a bound for these.
            files: if disk.f_files == 0 { u64::MAX } else { disk.f_favail },
            refused: None,
        })
    }

    /// Too little for somebody to start with.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        self.free_bytes < self.scarce() || self.files == 0
    }

    /// Nothing can be relied on to be written: there is too little, or the reserve was given up and does not fit in again.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let lacks_reserve = match self.refused {
            _ if self.is_reserved => false,
            Some(refused) => refused.is_full,
            None => !self.allows_reserve(),
        };
        self.is_scarce() || lacks_reserve
    }

    /// Whether the reserve can be made anew, and leave enough.
    fn allows_reserve(&self) -> bool {
        let enough = (2 * self.reserve()).saturating_add(self.scarce());
        !self.is_reserved && self.free_bytes >= enough && self.files >= FILES_FOR_RESERVE
    }

    fn reserve(&self) -> u64 {
        (self.size / RESERVE_SHARE).clamp(1, RESERVE_BYTES)
    }

    fn scarce(&self) -> u64 {
        (self.size / SCARCE_SHARE).clamp(SCARCE_BYTES_MIN, SCARCE_BYTES)
    }
}

/// Whether the file at `path` takes all the room that its length says: not so where nothing could be reserved.
fn is_allocated(path: &Path) -> bool {
    std::fs::symlink_metadata(path)
        .is_ok_and(|file| file.len() > 0 && file.blocks().saturating_mul(BLOCK) >= file.len())
}

/// Makes the reserve where there is room for it and none. What there is then. `before` is what there was the last time:
/// where no reserve was to be had, none is tried again at once.
///
/// # Errors
/// What `statvfs(2)` says: the room is not known.
pub fn keep(directory: &RuntimeDir, before: Option<Room>, now: Instant) -> io::Result<Room> {
    let room = Room::look(directory)?;
    if !room.allows_reserve() {
        return Ok(room);
    }
    let refused = before.and_then(|before| before.refused);
    if refused.is_some_and(|refused| now.since(refused.at) < RETRY_AFTER) {
        return Ok(Room { refused, ..room });
    }
    let path = directory.reserve();
    let made = make(&path, room.reserve());
    let Err(error) = made else { return Ok(Room { is_reserved: true, ..room }) };
    if refused.is_none() {
        crate::warn!("there can be no reserve for starts in {}: {error}", directory.path().display());
    }
    if let Err(error) = directory::remove(&path) {
        crate::warn!("{}: {error}", path.display());
    }
    let is_full = matches!(error, Errno::NOSPC | Errno::DQUOT);
    Ok(Room { refused: Some(Refused { at: now, is_full }), ..room })
}

/// Makes a reserve, instead of what bears its name and reserves nothing.
fn make(path: &Path, bytes: u64) -> Result<(), Errno> {
    let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    directory::remove(path).map_err(errno)?;
    let file = File::options().write(true).create_new(true).open(path).map_err(errno)?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
    // Some file systems say yes, and reserve nothing.
    if is_allocated(path) { Ok(()) } else { Err(Errno::OPNOTSUPP) }
}

/// Gives the reserve up when there is too little room for who is about to start.
pub fn give(directory: &RuntimeDir) {
    let Ok(room) = Room::look(directory) else { return };
    if !room.is_scarce() || !room.is_reserved {
        return;
    }
    match directory::remove(&directory.reserve()) {
        Ok(()) => crate::warn!(
            "{} has {} KiB left: the reserve is given up, for somebody to start with",
            directory.path().display(),
            room.free_bytes >> 10
        ),
        Err(error) => crate::warn!("{}: {error}", directory.reserve().display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(name: &str) -> RuntimeDir {
        let home = std::env::temp_dir().join(format!("beltway-room-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&home);
        let directory = RuntimeDir::new(&home);
        directory.create().unwrap();
        directory
    }

    #[test]
    fn the_reserve_is_made_where_it_leaves_enough_and_given_up_only_when_there_is_little() {
        let directory = fresh("kept");
        let room = keep(&directory, None, Instant::ORIGIN).unwrap();
        let could_be = Room { is_reserved: false, ..room }.allows_reserve() && room.refused.is_none();
        assert_eq!(room.is_reserved, could_be, "{room:?}");
        let again = keep(&directory, Some(room), Instant::ORIGIN).unwrap();
        assert_eq!(again.is_reserved, room.is_reserved, "made once");
        give(&directory);
        let after = Room::look(&directory).unwrap();
        assert_eq!(after.is_reserved, room.is_reserved && !after.is_scarce());
        std::fs::remove_dir_all(directory.path()).unwrap();
    }

    #[test]
    fn a_file_that_reserves_nothing_is_no_reserve_and_is_replaced() {
        let directory = fresh("empty");
        for length in [0, RESERVE_BYTES] {
            File::create(directory.reserve()).unwrap().set_len(length).unwrap();
            assert!(!Room::look(&directory).unwrap().is_reserved, "{length} bytes");
            let room = keep(&directory, None, Instant::ORIGIN).unwrap();
            assert!(room.is_reserved || room.refused.is_some() || !room.allows_reserve(), "{room:?}");
            assert_eq!(Room::look(&directory).unwrap().is_reserved, room.is_reserved);
        }
        std::fs::remove_dir_all(directory.path()).unwrap();
    }

    #[test]
    fn who_was_refused_a_reserve_tries_again_after_a_while_and_knows_the_room_meanwhile() {
        let directory = fresh("refused");
        // What nobody can replace by a file.
        std::fs::create_dir(directory.reserve()).unwrap();
        let refused = keep(&directory, None, Instant::ORIGIN).unwrap();
        std::fs::remove_dir(directory.reserve()).unwrap();
        if refused.refused.is_some() {
            assert!(!refused.is_reserved && !refused.is_full(), "{refused:?}");
            let soon = keep(&directory, Some(refused), Instant::ORIGIN + RETRY_AFTER / 2).unwrap();
            assert!(!soon.is_reserved && !soon.is_full() && soon.free_bytes > 0, "{soon:?}");
            assert!(!directory.reserve().exists());
            let later = keep(&directory, Some(soon), Instant::ORIGIN + RETRY_AFTER).unwrap();
            assert_ne!(later.refused, soon.refused, "tried anew");
        }
        std::fs::remove_dir_all(directory.path()).unwrap();
    }

    fn room(free_bytes: u64, is_reserved: bool) -> Room {
        Room { free_bytes, is_reserved, size: 1 << 40, files: u64::MAX, refused: None }
    }

    #[test]
    fn what_is_given_up_is_not_taken_back_before_there_is_room_for_both() {
        assert!(room(SCARCE_BYTES - 1, true).is_scarce() && !room(SCARCE_BYTES, true).is_scarce());
        assert!(!room(SCARCE_BYTES + RESERVE_BYTES, false).allows_reserve(), "just given up");
        assert!(room(SCARCE_BYTES + RESERVE_BYTES, false).is_full(), "as long as that is so");
        assert!(room(SCARCE_BYTES + 2 * RESERVE_BYTES, false).allows_reserve());
        assert!(!room(SCARCE_BYTES, true).is_full());
        assert!(!room(u64::MAX, true).allows_reserve(), "it is there");
    }

    #[test]
    fn a_disk_without_files_left_is_full_and_so_is_one_whose_last_bytes_are_not_for_us() {
        assert!(Room { files: 0, ..room(u64::MAX, true) }.is_full());
        assert!(!Room { files: 1, ..room(u64::MAX, true) }.is_full());
        assert!(!Room { files: 1, ..room(u64::MAX, false) }.allows_reserve(), "a start needs more");
        let refused =
            |is_full| Room { refused: Some(Refused { at: Instant::ORIGIN, is_full }), ..room(u64::MAX, false) };
        assert!(refused(true).is_full(), "over quota");
        assert!(!refused(false).is_full(), "a file system that reserves nothing is not full of that");
    }

    #[test]
    fn a_tiny_file_system_is_not_full_because_it_is_tiny() {
        let tiny = |free_bytes| Room { size: 2 << 20, ..room(free_bytes, false) };
        assert!(tiny(1 << 20).allows_reserve() && !tiny(1 << 20).is_full());
        assert!(!Room { is_reserved: true, ..tiny(256 << 10) }.is_full());
        assert!(Room { is_reserved: true, ..tiny(64 << 10) }.is_full());
    }
}

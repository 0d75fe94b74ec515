//! Room in the runtime directory: a file that only takes some, and is given up when somebody must start on a full disk.
//!
//! What runs writes nothing that it cannot do without, so a full disk stops nobody. Who starts needs a lease with a pid in
//! it, a page for its numbers and a new generation's number: a megabyte of [`keep`]'s lets several die and come back before
//! somebody has made room. Manager keeps it; whoever starts another process gives it up ([`give`]) when there is little.

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, statvfs};

use crate::directory::{self, RuntimeDir};

/// What is kept: a dozen starts of a server with few pools.
pub const RESERVE_BYTES: u64 = 1 << 20;
/// With less than this a start may fail, and the disk counts as full.
pub const SCARCE_BYTES: u64 = 512 << 10;

/// What there is in the runtime directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Room {
    /// Bytes that may still be written there.
    pub free_bytes: u64,
    /// The reserve is there.
    pub is_reserved: bool,
}

impl Room {
    /// Looks.
    ///
    /// # Errors
    /// What `statvfs(2)` says.
    pub fn look(directory: &RuntimeDir) -> io::Result<Self> {
        let disk = statvfs(directory.path())?;
        // A memory file system without a bound says that it has no blocks at all.
        let free_bytes = if disk.f_blocks == 0 { u64::MAX } else { disk.f_bavail.saturating_mul(disk.f_frsize) };
        Ok(Self { free_bytes, is_reserved: directory.reserve().exists() })
    }

    /// Too little for somebody to start with.
    #[must_use]
    pub const fn is_scarce(&self) -> bool {
        self.free_bytes < SCARCE_BYTES
    }

    /// Nothing can be relied on to be written: there is too little, or the reserve was given up and does not fit in again.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.is_scarce() || !(self.is_reserved || self.allows_reserve())
    }

    /// Whether the reserve can be made anew, and leave enough.
    const fn allows_reserve(&self) -> bool {
        !self.is_reserved && self.free_bytes >= 2 * RESERVE_BYTES + SCARCE_BYTES
    }
}

/// Makes the reserve where there is room for it and none. What there is then.
///
/// # Errors
/// What the file system says.
pub fn keep(directory: &RuntimeDir) -> io::Result<Room> {
    let room = Room::look(directory)?;
    if !room.allows_reserve() {
        return Ok(room);
    }
    let path = directory.reserve();
    let file = File::options().write(true).create_new(true).open(&path)?;
    let made = match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES) {
        // A file system that cannot reserve: nothing is reserved there.
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(room),
        made => made,
    };
    if made.is_err() {
        // Somebody was quicker; the error that matters is the one before.
        let _ = directory::remove(&path);
    }
    made?;
    Ok(Room { is_reserved: true, ..room })
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

    #[test]
    fn the_reserve_is_made_where_it_leaves_enough_and_given_up_only_when_there_is_little() {
        let home = std::env::temp_dir().join(format!("beltway-room-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&home);
        let directory = RuntimeDir::new(&home);
        directory.create().unwrap();
        let room = keep(&directory).unwrap();
        assert!(room.is_reserved || room.free_bytes < 2 * RESERVE_BYTES + SCARCE_BYTES, "{room:?}");
        assert_eq!(keep(&directory).unwrap().is_reserved, room.is_reserved, "made once");
        give(&directory);
        let after = Room::look(&directory).unwrap();
        assert_eq!(after.is_reserved, room.is_reserved && !after.is_scarce());
        std::fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn what_is_given_up_is_not_taken_back_before_there_is_room_for_both() {
        let room = |free_bytes, is_reserved| Room { free_bytes, is_reserved };
        assert!(room(SCARCE_BYTES - 1, true).is_scarce() && !room(SCARCE_BYTES, true).is_scarce());
        assert!(!room(SCARCE_BYTES + RESERVE_BYTES, false).allows_reserve(), "just given up");
        assert!(room(SCARCE_BYTES + RESERVE_BYTES, false).is_full(), "as long as that is so");
        assert!(room(SCARCE_BYTES + 2 * RESERVE_BYTES, false).allows_reserve());
        assert!(!room(SCARCE_BYTES, true).is_full());
        assert!(!room(u64::MAX, true).allows_reserve(), "it is there");
    }
}

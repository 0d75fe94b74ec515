//! Memory shared between processes through a file: one writes words, others read them, also after the writer died.
//!
//! The writer maps a file of its own making; readers copy from the file and map nothing, so that a file cut by somebody
//! gives a reader an error and not a SIGBUS. The writer's own risk is bounded thus: the file is new, of mode 0600, never
//! one that was there before, and its blocks are reserved before the first write, so a full disk is an error of
//! [`SharedWords::create`] and never a signal later. Who may write the directory can still cut the file: it must belong
//! to Beltway alone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::fs::FallocateFlags;
use rustix::mm::{MapFlags, ProtFlags};

/// Largest file that is mapped or read, in words: 128 MiB.
pub const WORDS_MAX: usize = 1 << 24;

/// Words in a file, mapped for writing by any thread.
#[derive(Debug)]
pub struct SharedWords {
    base: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread; it is unmapped by drop, which has `&mut`.
unsafe impl Send for SharedWords {}
// SAFETY: through `&self` the memory is reached as atomics only, which threads may share.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Makes a new file of `count` zero words at `path`, mode 0600, and maps it. A file that is there is replaced, not
    /// written to: who reads or maps it keeps what he has.
    ///
    /// # Errors
    /// `InvalidInput` when `count` is 0 or above [`WORDS_MAX`]; otherwise what the file system says.
    pub fn create(path: &Path, count: usize) -> io::Result<Self> {
        if count == 0 || count > WORDS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a shared memory has 1 to 2^24 words"));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let mapped = reserve(&file, count).and_then(|()| Self::map(&file, count));
        if mapped.is_err() {
            // The error that matters is the one before.
            let _ = std::fs::remove_file(path);
        }
        mapped
    }

    fn map(file: &File, count: usize) -> io::Result<Self> {
        // SAFETY: the address is the kernel's choice, so nothing that exists is replaced; `file` is open for reading and
        // writing and has `count` words; nobody refers to the new memory but through the value made here.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                count * 8,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { base, count })
    }

    /// The words.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `base` begins a readable and writable mapping of `count` words that lives as long as `self`; it is
        // page-aligned; every bit pattern is an AtomicU64; nothing refers to the memory otherwise than as atomics.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.count) }
    }
}

impl AsRef<[AtomicU64]> for SharedWords {
    fn as_ref(&self) -> &[AtomicU64] {
        self.words()
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: this is the very mapping `map` made, of that length; references into it cannot outlive `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.count * 8) };
        debug_assert!(unmapped.is_ok(), "unmapping what was mapped cannot fail");
    }
}

/// Gives the file its size and its blocks.
fn reserve(file: &File, count: usize) -> io::Result<()> {
    let bytes = count as u64 * 8;
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let zeros = [0; 4096];
            let mut at = 0;
            while at < bytes {
                let n = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(zeros.len());
                file.write_all_at(&zeros[..n], at)?;
                at += n as u64;
            }
            Ok(())
        }
        done => Ok(done?),
    }
}

/// The file of another process's words, open for reading. It stays readable when the writer dies and when the name is
/// removed or replaced.
#[derive(Debug)]
pub struct SharedWordsReader {
    file: File,
}

impl SharedWordsReader {
    /// Opens the file; does not follow a symbolic link.
    ///
    /// # Errors
    /// What the file system says; `InvalidData` when it is not a regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
        }
        Ok(Self { file })
    }

    /// Replaces `words` by all words of the file as they are now; each word is whole, the whole is not of one moment.
    /// A rest of less than a word is left out.
    ///
    /// # Errors
    /// `InvalidData` when the file is larger than [`WORDS_MAX`] words; otherwise what reading says.
    pub fn read_into(&self, words: &mut Vec<u64>) -> io::Result<()> {
        words.clear();
        let bytes = self.file.metadata()?.len();
        let count = usize::try_from(bytes / 8).ok().filter(|count| *count <= WORDS_MAX);
        let count = count.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "larger than shared words are"))?;
        words.reserve(count);
        let mut chunk = [0; 8192];
        while words.len() < count {
            let wanted = ((count - words.len()) * 8).min(chunk.len());
            match self.file.read_exact_at(&mut chunk[..wanted], words.len() as u64 * 8) {
                // Cut while we read: what is left is what there is.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                done => done?,
            }
            words.extend(chunk[..wanted].as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)));
        }
        Ok(())
    }

    /// Fills `words` with those of the file from word number `from` on, as they are now; `false` when the file has not
    /// so many.
    ///
    /// # Errors
    /// What reading says.
    pub fn read_range(&self, from: usize, words: &mut [u64]) -> io::Result<bool> {
        let mut chunk = [0; 4096];
        let mut at = from as u64 * 8;
        for part in words.chunks_mut(chunk.len() / 8) {
            let bytes = &mut chunk[..part.len() * 8];
            match self.file.read_exact_at(bytes, at) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                done => done?,
            }
            for (word, bytes) in part.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *word = u64::from_ne_bytes(*bytes);
            }
            at += part.len() as u64 * 8;
        }
        Ok(true)
    }

    /// All words of the file as they are now.
    ///
    /// # Errors
    /// As [`SharedWordsReader::read_into`].
    pub fn read(&self) -> io::Result<Vec<u64>> {
        let mut words = Vec::new();
        self.read_into(&mut words)?;
        Ok(words)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::sync::atomic::Ordering;

    use super::*;

    /// A directory of its own for one test, removed with it.
    struct Room(PathBuf);

    impl Room {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("beltway-shm-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_reader_sees_what_the_writer_wrote_also_after_the_writer_is_gone() {
        let room = Room::new("written");
        let path = room.0.join("numbers");
        let writer = SharedWords::create(&path, 1_500).unwrap();
        let reader = SharedWordsReader::open(&path).unwrap();
        writer.words()[0].store(1, Ordering::Relaxed);
        writer.words()[1_499].store(u64::MAX, Ordering::Relaxed);
        let seen = reader.read().unwrap();
        assert_eq!((seen.len(), seen[0], seen[1_499]), (1_500, 1, u64::MAX));
        let mut part = [7; 2];
        assert!(reader.read_range(1_498, &mut part).unwrap());
        assert_eq!(part, [0, u64::MAX]);
        assert!(!reader.read_range(1_499, &mut part).unwrap(), "one word too many");
        writer.words()[0].store(2, Ordering::Relaxed);
        drop(writer);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(reader.read().unwrap()[0], 2);
    }

    #[test]
    fn a_file_that_is_there_is_replaced_and_not_written_to() {
        let room = Room::new("replaced");
        let path = room.0.join("numbers");
        let old = SharedWords::create(&path, 8).unwrap();
        old.words()[0].store(7, Ordering::Relaxed);
        let new = SharedWords::create(&path, 4).unwrap();
        assert_eq!(new.words()[0].load(Ordering::Relaxed), 0);
        assert_eq!(old.words()[7].load(Ordering::Relaxed), 0, "the old mapping is still whole");
        assert_eq!(old.words()[0].load(Ordering::Relaxed), 7);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_cut_by_somebody_is_a_short_reading_and_not_a_signal() {
        let room = Room::new("cut");
        let path = room.0.join("numbers");
        let writer = SharedWords::create(&path, 4_096).unwrap();
        let reader = SharedWordsReader::open(&path).unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
        assert_eq!(reader.read().unwrap().len(), 12);
        drop(writer);
    }

    #[test]
    fn what_is_no_regular_file_or_of_no_size_is_refused() {
        let room = Room::new("refused");
        assert!(SharedWordsReader::open(&room.0).is_err());
        assert!(SharedWordsReader::open(&room.0.join("none")).is_err());
        std::os::unix::fs::symlink("/etc/hostname", room.0.join("link")).unwrap();
        assert!(SharedWordsReader::open(&room.0.join("link")).is_err());
        assert!(SharedWords::create(&room.0.join("none"), 0).is_err());
        assert!(SharedWords::create(&room.0.join("none"), WORDS_MAX + 1).is_err());
        assert!(SharedWords::create(&room.0.join("no/such/room"), 1).is_err());
    }
}

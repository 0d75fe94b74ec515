//! Memory for large immutable bytes, in huge pages: one reservation of addresses, given out in granules.
//!
//! ```text
//! Arena ── block 0..n (2 MiB, one huge page each) ── granule 0..32 (64 KiB) ── Piece: a run of granules
//! ```
//!
//! A [`Piece`] is filled from its beginning by its one [`Appender`] while others read what is filled; what is filled is
//! never written again until the last reference is gone. A block without pieces goes back to the kernel at once. Why
//! huge pages: far fewer page faults, misses of the address cache, and a process that dies quicker.
//!
//! How many blocks are in use is the caller's to bound: an allocation takes a new block only when told so, and a
//! callback tells when one is given back. A piece can be sent without copying it ([`Lender`]); its pages are then dropped
//! with it, never written anew. Start with [`Arena::reserve`].

mod huge;
mod lend;

use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::mm::{Advice, MapFlags, ProtFlags};

pub use lend::Lender;

/// Bytes of a block: a huge page.
pub const BLOCK: usize = 2 << 20;
/// Bytes of a granule: what pieces are rounded up to.
pub const GRANULE: usize = 64 << 10;
/// Longest piece.
pub const PIECE_MAX: usize = 1 << 20;
const GRANULES: u32 = 32;
const _: () = assert!(BLOCK / GRANULE == GRANULES as usize);

/// Told when a block went back to the kernel. Called on the thread that dropped its last piece.
pub type OnRelease = Box<dyn Fn() + Send + Sync>;

/// A reservation of addresses. Clones share it.
#[derive(Clone)]
pub struct Arena(Arc<Inside>);

struct Inside {
    base: NonNull<u8>,
    /// Bytes from `base`, with what alignment left over.
    mapped: NonNull<u8>,
    mapped_len: usize,
    blocks: Mutex<Blocks>,
    on_release: OnRelease,
}

// SAFETY: the mapping belongs to this value alone and is tied to no thread; bytes of it are written only by an appender,
// of which each piece has one, and read only below the mark that the appender set with release ordering.
unsafe impl Send for Inside {}
// SAFETY: as for Send; all else is behind a mutex.
unsafe impl Sync for Inside {}

#[derive(Default)]
struct Blocks {
    /// A bit for each granule in use.
    used: Vec<u32>,
    /// The longest run of free granules, so that looking for one is quick; 0 in a block that is not in use.
    free_run: Vec<u8>,
    /// Blocks that are not in use.
    closed: Vec<u32>,
    open: usize,
}

impl Blocks {
    fn take(&mut self, block: usize, count: u32) -> Option<u32> {
        let at = run_of(self.used[block], count)?;
        self.used[block] |= mask_of(at, count);
        self.free_run[block] = longest_run(self.used[block]);
        Some(at)
    }
}

fn mask_of(at: u32, count: u32) -> u32 {
    (u32::MAX >> (GRANULES - count)) << at
}

/// The first run of `count` zeros.
fn run_of(used: u32, count: u32) -> Option<u32> {
    (0..=GRANULES - count).find(|at| used & mask_of(*at, count) == 0)
}

fn longest_run(used: u32) -> u8 {
    let mut free = !used;
    let mut run = 0;
    while free != 0 {
        // Each step shortens every run of ones by one.
        free &= free << 1;
        run += 1;
    }
    run
}

impl Arena {
    /// Reserves addresses for `bytes`, rounded up to whole blocks. No memory is taken yet.
    ///
    /// # Errors
    /// What the kernel says, for instance when it counts reservations as use.
    pub fn reserve(bytes: u64, on_release: OnRelease) -> io::Result<Self> {
        let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "more addresses than there are");
        let count = usize::try_from(bytes.div_ceil(BLOCK as u64)).map_err(|_| too_large())?.max(1);
        // One more for alignment.
        let mapped_len = count.checked_add(1).and_then(|count| count.checked_mul(BLOCK)).ok_or_else(too_large)?;
        let closed = (0..u32::try_from(count).map_err(|_| too_large())?).rev().collect();
        // SAFETY: the address is the kernel's choice, so nothing that exists is replaced, and nobody refers to the new
        // memory but through the value made here.
        let mapped = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                mapped_len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let mapped = NonNull::new(mapped.cast::<u8>()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let skip = mapped.align_offset(BLOCK).min(BLOCK);
        // SAFETY: the mapping is one block longer than what is used of it, and `skip` is at most a block.
        let base = unsafe { mapped.add(skip) };
        // Without huge pages it works all the same.
        let _ = huge::allow_where_advised();
        // SAFETY: the range lies within the mapping made above, and this advice changes no contents.
        let _ = unsafe { rustix::mm::madvise(base.as_ptr().cast(), count * BLOCK, Advice::LinuxHugepage) };
        let blocks = Blocks { used: vec![0; count], free_run: vec![0; count], closed, open: 0 };
        Ok(Self(Arc::new(Inside { base, mapped, mapped_len, blocks: Mutex::new(blocks), on_release })))
    }

    /// Room for `bytes` in a block that is in use already; none when there is none, or `bytes` is 0 or above
    /// [`PIECE_MAX`].
    #[must_use]
    pub fn allocate(&self, bytes: usize) -> Option<Appender> {
        let count = granules(bytes)?;
        let mut blocks = self.0.lock();
        let block = blocks.free_run.iter().position(|run| u32::from(*run) >= count)?;
        let at = blocks.take(block, count)?;
        drop(blocks);
        Some(self.appender(block, at, count))
    }

    /// Room for `bytes` in a block that was not in use; none when all are, or as above.
    #[must_use]
    pub fn allocate_in_new_block(&self, bytes: usize) -> Option<Appender> {
        let count = granules(bytes)?;
        let mut blocks = self.0.lock();
        let block = blocks.closed.pop()? as usize;
        blocks.open += 1;
        let at = blocks.take(block, count)?;
        drop(blocks);
        Some(self.appender(block, at, count))
    }

    fn appender(&self, block: usize, at: u32, count: u32) -> Appender {
        let piece = Piece {
            arena: Arc::clone(&self.0),
            block,
            at,
            count: AtomicUsize::new(count as usize),
            filled: AtomicUsize::new(0),
            lent: AtomicBool::new(false),
        };
        Appender(Arc::new(piece))
    }

    /// Blocks in use.
    #[must_use]
    pub fn open_blocks(&self) -> usize {
        self.0.lock().open
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arena({} blocks in use)", self.open_blocks())
    }
}

fn granules(bytes: usize) -> Option<u32> {
    (1..=PIECE_MAX).contains(&bytes).then(|| u32::try_from(bytes.div_ceil(GRANULE)).ok())?
}

impl Inside {
    fn lock(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the memory at `offset` back to the kernel; the addresses stay, and read as zeros.
    ///
    /// Nobody may refer to it, and nobody may get it before this returns.
    fn drop_pages(&self, offset: usize, len: usize) {
        // SAFETY: the callers' offsets are those of blocks and granules, which lie within the mapping.
        let start = unsafe { self.base.add(offset) };
        // SAFETY: the range is within this mapping and page-aligned, as blocks and granules are; that nobody refers to
        // its contents is the caller's to see to. Pages that were lent to a socket live on there.
        let dropped = unsafe { rustix::mm::madvise(start.as_ptr().cast(), len, Advice::LinuxDontNeed) };
        debug_assert!(dropped.is_ok(), "giving back what was mapped cannot fail");
    }

    /// Granules are free again; the last of a block sends the block back.
    fn free(&self, block: usize, at: u32, count: u32) {
        let mut blocks = self.lock();
        blocks.used[block] &= !mask_of(at, count);
        let empty = blocks.used[block] == 0;
        // While it goes back nobody may take of it.
        blocks.free_run[block] = if empty { 0 } else { longest_run(blocks.used[block]) };
        drop(blocks);
        if !empty {
            return;
        }
        // No piece is in it, as its bits were all clear under the lock, and none can be made in it until it is among the
        // closed ones.
        self.drop_pages(block * BLOCK, BLOCK);
        let mut blocks = self.lock();
        blocks.closed.extend(u32::try_from(block));
        blocks.open -= 1;
        drop(blocks);
        (self.on_release)();
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // SAFETY: this is the very mapping that `reserve` made, of that length; every piece holds this value, so that no
        // reference into it is left.
        let unmapped = unsafe { rustix::mm::munmap(self.mapped.as_ptr().cast(), self.mapped_len) };
        debug_assert!(unmapped.is_ok(), "unmapping what was mapped cannot fail");
    }
}

/// Bytes in an arena, readable by anybody as far as they are filled.
pub struct Piece {
    arena: Arc<Inside>,
    block: usize,
    at: u32,
    /// Granules; shrinks once, when its appender is done.
    count: AtomicUsize,
    filled: AtomicUsize,
    /// Its pages went to a socket and may be read there for as long as that pleases.
    lent: AtomicBool,
}

impl Piece {
    fn mark_lent(&self) {
        self.lent.store(true, Ordering::Relaxed);
    }

    fn start(&self) -> NonNull<u8> {
        // SAFETY: the granules of a piece lie within the arena's mapping, which lives as long as `self.arena`.
        unsafe { self.arena.base.add(self.block * BLOCK + self.at as usize * GRANULE) }
    }

    /// What is filled so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let filled = self.filled.load(Ordering::Acquire);
        // SAFETY: the granules belong to this piece alone until it is dropped; the first `filled` bytes were written
        // before the mark was set with release ordering, and nobody writes below the mark again.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), filled) }
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn footprint(&self) -> usize {
        self.count.load(Ordering::Relaxed) * GRANULE
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let count = u32::try_from(self.count.load(Ordering::Relaxed)).unwrap_or(0);
        if count == 0 {
            return;
        }
        if self.lent.load(Ordering::Relaxed) {
            // Before anybody can get the granules: what a socket still sends must not change.
            self.arena.drop_pages(self.block * BLOCK + self.at as usize * GRANULE, count as usize * GRANULE);
        }
        self.arena.free(self.block, self.at, count);
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Piece({} of {})", self.bytes().len(), self.footprint())
    }
}

/// The one who fills a piece. When it is dropped, what granules were not needed are free again.
#[derive(Debug)]
pub struct Appender(Arc<Piece>);

impl Appender {
    /// The piece.
    #[must_use]
    pub fn piece(&self) -> &Arc<Piece> {
        &self.0
    }

    /// Bytes that may still be appended.
    #[must_use]
    pub fn room(&self) -> usize {
        self.0.footprint() - self.0.filled.load(Ordering::Relaxed)
    }

    /// Appends as much of `bytes` as there is room for and says how much that was.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.room());
        let filled = self.0.filled.load(Ordering::Relaxed);
        // SAFETY: `filled` is at most the length of the piece, so the result is within it or just behind it.
        let to = unsafe { self.0.start().add(filled) };
        // SAFETY: `n` bytes are readable at `bytes` and writable at `to`, being within the piece; there is no other
        // writer, as a piece has one appender and this has `&mut` of it; readers look below the mark only, so the two
        // ranges cannot overlap either: `bytes` can be of this piece only below the mark.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), n) };
        self.0.filled.store(filled + n, Ordering::Release);
        n
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        let piece = &self.0;
        let (had, needed) = (piece.footprint() / GRANULE, piece.filled.load(Ordering::Relaxed).div_ceil(GRANULE));
        if needed < had && needed > 0 {
            piece.count.store(needed, Ordering::Relaxed);
            let (needed, had) = (u32::try_from(needed).unwrap_or(0), u32::try_from(had).unwrap_or(0));
            piece.arena.free(piece.block, piece.at + needed, had - needed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena(blocks: u64) -> (Arena, Arc<AtomicUsize>) {
        let released = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&released);
        let on_release = Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        (Arena::reserve(blocks * BLOCK as u64, on_release).unwrap(), released)
    }

    #[test]
    fn a_piece_is_read_while_it_is_filled_and_never_changes() {
        let (arena, _) = arena(1);
        assert!(arena.allocate(GRANULE).is_none(), "no block is in use yet");
        let mut appender = arena.allocate_in_new_block(100_000).unwrap();
        let piece = Arc::clone(appender.piece());
        assert_eq!((piece.bytes(), piece.footprint()), (&b""[..], 2 * GRANULE));
        assert_eq!(appender.append(b"hello"), 5);
        let early = piece.bytes();
        assert_eq!(appender.append(&vec![7; 200_000]), 2 * GRANULE - 5);
        assert_eq!((early, piece.bytes().len(), appender.room()), (&b"hello"[..], 2 * GRANULE, 0));
    }

    #[test]
    fn granules_that_were_not_needed_are_free_when_the_appender_is_done() {
        let (arena, _) = arena(1);
        let mut appender = arena.allocate_in_new_block(PIECE_MAX).unwrap();
        appender.append(&[1; 10]);
        let piece = Arc::clone(appender.piece());
        let other = arena.allocate(PIECE_MAX).unwrap();
        assert!(arena.allocate(GRANULE).is_none());
        drop(appender);
        assert_eq!(piece.footprint(), GRANULE);
        assert!(arena.allocate(15 * GRANULE).is_some());
        assert_eq!((piece.bytes(), other.room()), (&[1; 10][..], PIECE_MAX));
    }

    #[test]
    fn an_empty_block_goes_back_and_is_zero_when_it_is_used_again() {
        let (arena, released) = arena(2);
        let mut first = arena.allocate_in_new_block(GRANULE).unwrap();
        first.append(&[9; GRANULE]);
        let second = arena.allocate(GRANULE).unwrap();
        drop(first);
        assert_eq!((arena.open_blocks(), released.load(Ordering::Relaxed)), (1, 0));
        drop(second);
        assert_eq!((arena.open_blocks(), released.load(Ordering::Relaxed)), (0, 1));
        let pieces: Vec<_> = (0..3).map(|_| arena.allocate_in_new_block(PIECE_MAX)).collect();
        assert_eq!(pieces.iter().filter(|piece| piece.is_some()).count(), 2, "two blocks are all there is");
    }

    #[test]
    fn what_is_too_long_or_nothing_is_refused() {
        let (arena, _) = arena(1);
        assert!(arena.allocate_in_new_block(0).is_none());
        assert!(arena.allocate_in_new_block(PIECE_MAX + 1).is_none());
        assert!(arena.allocate_in_new_block(PIECE_MAX).is_some());
        assert!(Arena::reserve(u64::MAX, Box::new(|| ())).is_err());
    }

    #[test]
    fn runs_are_found_by_their_length() {
        for (used, longest) in [(0, 32), (u32::MAX, 0), (0x0000_ffff, 16), (0xf0f0_f0f0, 4), (1, 31), (0x8000_0001, 30)]
        {
            assert_eq!(longest_run(used), longest, "{used:#x}");
            for count in 1..=32 {
                assert_eq!(run_of(used, count).is_some(), count <= u32::from(longest), "{used:#x}, {count}");
            }
        }
        assert_eq!((run_of(0xff, 3), mask_of(8, 3)), (Some(8), 0x700));
    }

    #[test]
    fn threads_that_read_and_free_see_only_their_own_bytes() {
        let (arena, released) = arena(4);
        std::thread::scope(|scope| {
            for seed in 1..=4_u8 {
                let arena = arena.clone();
                scope.spawn(move || {
                    for round in 0..200_usize {
                        let len = 1 + (round * 7_919 * usize::from(seed)) % PIECE_MAX;
                        let taken = arena.allocate(len).or_else(|| arena.allocate_in_new_block(len));
                        let Some(mut appender) = taken else { continue };
                        let byte = seed.wrapping_mul(31).wrapping_add(u8::try_from(round).unwrap_or(0));
                        let piece = Arc::clone(appender.piece());
                        std::thread::scope(|readers| {
                            readers.spawn(|| {
                                let mut seen = 0;
                                while seen < 10_000.min(len) {
                                    let bytes = piece.bytes();
                                    assert!(bytes[seen..].iter().all(|one| *one == byte));
                                    seen = bytes.len();
                                }
                            });
                            for _ in 0..len.div_ceil(10_000) {
                                appender.append(&vec![byte; 10_000]);
                            }
                        });
                    }
                });
            }
        });
        assert_eq!(arena.open_blocks(), 0);
        assert!(released.load(Ordering::Relaxed) > 0);
    }
}

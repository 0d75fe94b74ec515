//! The walk up a stack by frame records: the caller's record, then the return address. Runs in a signal handler.

use std::sync::atomic::{AtomicU64, Ordering};

use super::page::{self, FRAMES_MAX};

/// A stack is no larger, and a record further off than this is none.
const STACK_MAX: u64 = 64 << 20;
/// Words of a stack that are looked through for the first record, where the C library left no frame pointer.
const SEARCH_WORDS: usize = 512;
/// Callers that are followed to tell a record that is in use from one that was left behind.
const DEPTH_MAX: usize = 256;
/// Words read at once: the handler's own stack is small.
const SEARCH_CHUNK: usize = 32;

/// Where a thread was interrupted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registers {
    pub(super) program: u64,
    pub(super) stack: u64,
    pub(super) frame: u64,
}

impl Registers {
    /// Those of the context that a signal handler was given.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn of(context: &libc::ucontext_t) -> Self {
        let register = |index: i32| {
            let index = usize::try_from(index).unwrap_or(0);
            context.uc_mcontext.gregs.get(index).copied().unwrap_or(0).cast_unsigned()
        };
        Self { program: register(libc::REG_RIP), stack: register(libc::REG_RSP), frame: register(libc::REG_RBP) }
    }

    /// Those of the context that a signal handler was given.
    #[cfg(target_arch = "aarch64")]
    pub(super) fn of(context: &libc::ucontext_t) -> Self {
        let machine = &context.uc_mcontext;
        Self { program: machine.pc, stack: machine.sp, frame: machine.regs[29] }
    }
}

/// Writes the addresses of a stack into `frames`, the innermost first; says how many. `words` is the whole page.
pub(super) fn walk(registers: Registers, words: &[AtomicU64], frames: &[AtomicU64]) -> usize {
    let mut count = 0;
    let mut put = |address: u64| {
        let room = count < FRAMES_MAX.min(frames.len());
        if room {
            frames[count].store(address, Ordering::Relaxed);
            count += 1;
        }
        room
    };
    put(registers.program);
    let begin = if page::is_ours(words, registers.program) {
        plausible(words, registers.stack, registers.frame)
    } else {
        // Within the C library, or where there is no code at all.
        search(words, registers.stack)
    };
    let Some(mut record) = begin else { return count };
    loop {
        if !put(record.returns_to) {
            return count;
        }
        match plausible(words, record.at + 16, record.caller) {
            Some(next) => record = next,
            None => return count,
        }
    }
}

/// A frame record.
#[derive(Clone, Copy)]
struct Record {
    at: u64,
    caller: u64,
    returns_to: u64,
}

/// The record at `at`, if one can be there: above `floor`, on the same stack, with a return address in code.
fn plausible(words: &[AtomicU64], floor: u64, at: u64) -> Option<Record> {
    if at < floor || at - floor > STACK_MAX || !at.is_multiple_of(8) {
        return None;
    }
    let mut pair = [0; 2];
    read(at, &mut pair)?;
    let record = Record { at, caller: pair[0], returns_to: pair[1] };
    page::is_code(words, record.returns_to).then_some(record)
}

/// Looks up the stack from `stack` for the first record of ours whose callers lead to where threads begin, which is
/// beyond our code. What earlier calls left behind on the stack does not, or joins those who still run.
fn search(words: &[AtomicU64], stack: u64) -> Option<Record> {
    let mut at = stack.next_multiple_of(8);
    let mut chunk = [0; SEARCH_CHUNK + 1];
    for _ in 0..SEARCH_WORDS / SEARCH_CHUNK {
        // One more than is looked at: a record is two words.
        if read(at, &mut chunk).is_none() {
            // The last page of the stack: word by word.
            chunk = [0; SEARCH_CHUNK + 1];
            for (index, word) in chunk.iter_mut().enumerate() {
                let mut one = [0];
                read(at + index as u64 * 8, &mut one)?;
                *word = one[0];
            }
        }
        for (index, pair) in chunk.windows(2).enumerate() {
            let here = at + index as u64 * 8;
            let is_record = pair[0] > here && pair[0] - here < STACK_MAX && pair[0].is_multiple_of(8);
            if is_record && page::is_ours(words, pair[1]) {
                let record = Record { at: here, caller: pair[0], returns_to: pair[1] };
                if leads_out(words, record) {
                    return Some(record);
                }
            }
        }
        at += SEARCH_CHUNK as u64 * 8;
    }
    None
}

/// Whether the callers of a record end where our code was called from other code.
fn leads_out(words: &[AtomicU64], record: Record) -> bool {
    let mut record = record;
    for _ in 0..DEPTH_MAX {
        match plausible(words, record.at + 16, record.caller) {
            Some(next) if page::is_ours(words, next.returns_to) => record = next,
            outside => return outside.is_some(),
        }
    }
    true // so deep is nothing that was left behind
}

/// Copies words from an address of our own that may not be mapped; `None` when it is not.
fn read(from: u64, into: &mut [u64]) -> Option<()> {
    let length = size_of_val(into);
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: length };
    // The kernel alone dereferences it.
    let remote =
        libc::iovec { iov_base: std::ptr::without_provenance_mut(usize::try_from(from).ok()?), iov_len: length };
    // SAFETY: getpid(2) takes nothing and cannot fail.
    let own = unsafe { libc::getpid() };
    // SAFETY: `local` describes `into`, writable for the call and of exactly `length` bytes; `remote` is an address that
    // the kernel checks and only reads, whatever lies there; both arrays have one entry, as the counts say.
    let copied = unsafe { libc::process_vm_readv(own, &raw const local, 1, &raw const remote, 1, 0) };
    (usize::try_from(copied).ok()? == length).then_some(())
}

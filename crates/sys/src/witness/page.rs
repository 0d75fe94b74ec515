//! The page: which word is what.
//!
//! ```text
//! head (256 words): magic, program, modules │ fault: one record │ threads that were asked: 64 records of 64 words
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Fault, FileIdentity, Module};

pub(super) const MAGIC: u64 = u64::from_ne_bytes(*b"WITNESS\x01");
/// Words before the records.
pub(super) const HEAD_WORDS: usize = 256;
/// Words of a record.
pub(super) const RECORD_WORDS: usize = 64;
/// Threads that can be asked.
pub(super) const RECORDS_MAX: usize = 64;
/// All words.
pub(super) const WORDS: usize = HEAD_WORDS + (1 + RECORDS_MAX) * RECORD_WORDS;
/// Addresses of one stack that are kept.
pub const FRAMES_MAX: usize = RECORD_WORDS - record::FRAMES;
/// Executable files that are told of: the program, the C library, the loader, the kernel's page, and some.
pub const MODULES_MAX: usize = 16;

/// Words of the page, by position.
pub(super) mod at {
    pub(in super::super) const MAGIC: usize = 0;
    pub(in super::super) const MODULES_COUNT: usize = 1;
    pub(in super::super) const PID: usize = 2;
    /// Four words.
    pub(in super::super) const EXECUTABLE: usize = 4;
    pub(in super::super) const MODULES: usize = 16;
    pub(in super::super) const FAULT: usize = super::HEAD_WORDS;
    pub(in super::super) const RECORDS: usize = FAULT + super::RECORD_WORDS;
}

/// Words of a record, by position.
pub(super) mod record {
    /// Whose it is; claimed by whoever writes it first.
    pub(in super::super) const THREAD: usize = 0;
    /// How often it was written; of the fault's record 1.
    pub(in super::super) const ANSWERS: usize = 1;
    pub(in super::super) const COUNT: usize = 2;
    pub(in super::super) const SIGNAL: usize = 3;
    pub(in super::super) const CODE: usize = 4;
    pub(in super::super) const ADDRESS: usize = 5;
    pub(in super::super) const FRAMES: usize = 8;
}

/// Words of a module: start, end, offset, name.
const MODULE_WORDS: usize = 3 + NAME_WORDS;
const NAME_WORDS: usize = 8;

const _: () = assert!(at::MODULES + MODULES_MAX * MODULE_WORDS <= HEAD_WORDS, "the modules fit into the head");

/// Writes the head.
pub(super) fn describe(words: &[AtomicU64], modules: &[Module], executable: FileIdentity) {
    let put = |at: usize, value: u64| words[at].store(value, Ordering::Relaxed);
    for (index, word) in executable.0.iter().enumerate() {
        put(at::EXECUTABLE + index, *word);
    }
    for (index, module) in modules.iter().take(MODULES_MAX).enumerate() {
        let place = at::MODULES + index * MODULE_WORDS;
        for (offset, value) in [module.start, module.end, module.offset].into_iter().enumerate() {
            put(place + offset, value);
        }
        for (offset, chunk) in module.name.as_bytes().chunks(8).take(NAME_WORDS).enumerate() {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            put(place + 3 + offset, u64::from_ne_bytes(bytes));
        }
    }
    put(at::PID, u64::from(std::process::id()));
    put(at::MODULES_COUNT, modules.len().min(MODULES_MAX) as u64);
    words[at::MAGIC].store(MAGIC, Ordering::Release);
}

/// Whether `address` is executable code, as far as the head tells. For signal handlers: nothing is allocated.
pub(super) fn is_code(words: &[AtomicU64], address: u64) -> bool {
    module_at(words, address).is_some()
}

/// Whether `address` is code with frame pointers: the program's own.
pub(super) fn is_ours(words: &[AtomicU64], address: u64) -> bool {
    module_at(words, address) == Some(0)
}

fn module_at(words: &[AtomicU64], address: u64) -> Option<usize> {
    let count = usize::try_from(words[at::MODULES_COUNT].load(Ordering::Relaxed)).unwrap_or(0);
    (0..count.min(MODULES_MAX)).find(|index| {
        let word = |offset: usize| words[at::MODULES + index * MODULE_WORDS + offset].load(Ordering::Relaxed);
        (word(0)..word(1)).contains(&address)
    })
}

/// Reads the modules of a head.
pub(super) fn modules(words: &[u64]) -> Vec<Module> {
    let count = usize::try_from(words[at::MODULES_COUNT]).unwrap_or(0).min(MODULES_MAX);
    let modules = words[at::MODULES..].chunks(MODULE_WORDS).take(count);
    modules
        .map(|module| {
            let bytes: Vec<u8> =
                module[3..].iter().flat_map(|word| word.to_ne_bytes()).take_while(|b| *b != 0).collect();
            let name = String::from_utf8_lossy(&bytes).into_owned();
            Module { start: module[0], end: module[1], offset: module[2], name }
        })
        .collect()
}

/// Reads the frames of a record.
pub(super) fn frames(record: &[u64]) -> Vec<u64> {
    let count = usize::try_from(record[record::COUNT]).unwrap_or(0).min(FRAMES_MAX);
    record[record::FRAMES..record::FRAMES + count].to_vec()
}

/// Reads the record of a fault.
pub(super) fn fault(words: &[u64]) -> Option<Fault> {
    let small = |word: u64| i32::try_from(word.cast_signed()).unwrap_or(0);
    (words[record::ANSWERS] != 0).then(|| Fault {
        signal: small(words[record::SIGNAL]),
        code: small(words[record::CODE]),
        address: words[record::ADDRESS],
        thread: words[record::THREAD],
        frames: frames(words),
    })
}

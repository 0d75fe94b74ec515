//! The signal handlers. Within them: atomics and a few system calls, nothing else.

use std::io;
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::frames::{self, Registers};
use super::page::{RECORD_WORDS, RECORDS_MAX, at, record};
use crate::process::Pidfd;
use crate::shm::SharedWords;

/// By which a thread is asked where it is. Ignored by whoever has no handler for it.
const ASK: i32 = libc::SIGURG;
/// Of which a process dies where it stands.
const FAULTS: [i32; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT, libc::SIGILL, libc::SIGFPE];

/// The page, and what would have been done about faults without us.
struct Taken {
    page: SharedWords,
    before: [libc::sigaction; FAULTS.len()],
}

static TAKEN: OnceLock<Taken> = OnceLock::new();

/// Whether the handlers are set.
pub(super) fn are_taken() -> bool {
    TAKEN.get().is_some()
}

/// Sets the handlers, which write to `page` from now on.
pub(super) fn take(page: SharedWords) -> io::Result<()> {
    let mut before = [nothing(); FAULTS.len()];
    for (signal, before) in FAULTS.into_iter().zip(&mut before) {
        *before = current(signal)?;
    }
    if TAKEN.set(Taken { page, before }).is_err() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    for signal in FAULTS {
        handle(signal, on_fault)?;
    }
    handle(ASK, on_ask)
}

type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

const fn nothing() -> libc::sigaction {
    // SAFETY: `sigaction` is plain old data for which all zeroes is a value: the default action, no flags.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// What is done about a signal now.
fn current(signal: i32) -> io::Result<libc::sigaction> {
    let mut action = nothing();
    // SAFETY: the signal's number is a constant of the platform; no new action is given, and `action` is writable.
    check(unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) })?;
    Ok(action)
}

fn handle(signal: i32, handler: Handler) -> io::Result<()> {
    let mut action = nothing();
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the mask is part of `action`, writable, and of the right type; the call cannot fail.
    let _ = unsafe { libc::sigemptyset(&raw mut action.sa_mask) };
    // SAFETY: the handler has the signature that SA_SIGINFO promises and touches only atomics of a page that lives for
    // ever, its own stack, and system calls that are allowed in handlers.
    check(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) })
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks a thread where it is.
pub(super) fn ask(process: &Pidfd, thread: u64) -> io::Result<()> {
    if process.is_dead() {
        return Err(io::ErrorKind::NotFound.into());
    }
    // SAFETY: tgkill(2) takes three numbers and no memory. A pid that came to mean another process between the look above
    // and this gets a signal that is ignored by whoever knows nothing of it.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, process.pid(), thread, ASK) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn own_id() -> u64 {
    // SAFETY: gettid(2) takes nothing and cannot fail.
    let id = unsafe { libc::syscall(libc::SYS_gettid) };
    id.unsigned_abs()
}

extern "C" fn on_ask(_signal: i32, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(taken) = TAKEN.get() else { return };
    // What the interrupted code had in errno is not ours to change.
    // SAFETY: the address of the thread's own errno, valid for as long as the thread runs.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above, an initialised integer of this thread.
    let before = unsafe { errno.read() };
    let (words, id) = (taken.page.words(), own_id());
    let records = words[at::RECORDS..].chunks_exact(RECORD_WORDS).take(RECORDS_MAX);
    for mine in records {
        let owner = &mine[record::THREAD];
        let claimed = owner.compare_exchange(0, id, Ordering::AcqRel, Ordering::Acquire);
        if claimed.is_ok() || claimed == Err(id) {
            write(mine, words, context);
            break;
        }
    }
    // SAFETY: as at the reading.
    unsafe { errno.write(before) };
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel gives a pointer to a whole siginfo, valid during the handler.
    let code = unsafe { (*info).si_code };
    if let Some(taken) = TAKEN.get() {
        let words = taken.page.words();
        let fault = &words[at::FAULT..at::FAULT + RECORD_WORDS];
        // The first fault is what the process dies of; those of others on the way out are not.
        if fault[record::THREAD].compare_exchange(0, own_id(), Ordering::AcqRel, Ordering::Acquire).is_ok() {
            let address = if code > 0 {
                // SAFETY: of a fault the kernel fills in the address.
                unsafe { (*info).si_addr() }.addr() as u64
            } else {
                // SAFETY: of a signal that was sent the kernel fills in the sender.
                u64::from(unsafe { (*info).si_pid() }.unsigned_abs())
            };
            fault[record::SIGNAL].store(i64::from(signal).cast_unsigned(), Ordering::Relaxed);
            fault[record::CODE].store(i64::from(code).cast_unsigned(), Ordering::Relaxed);
            fault[record::ADDRESS].store(address, Ordering::Relaxed);
            write(fault, words, context);
        }
    }
    let index = FAULTS.iter().position(|fault| *fault == signal);
    let before = TAKEN.get().zip(index).map_or_else(nothing, |(taken, index)| taken.before[index]);
    if code > 0 && before.sa_sigaction != libc::SIG_IGN {
        // The faulting instruction runs again, and finds whoever was here before us: at the end the default action.
        // SAFETY: `before` is what the kernel told us of this very signal, or all zeroes; the old action is not wanted.
        let _ = unsafe { libc::sigaction(signal, &raw const before, std::ptr::null_mut()) };
        return;
    }
    let default = nothing();
    // SAFETY: all zeroes is the default action; the old action is not wanted.
    let _ = unsafe { libc::sigaction(signal, &raw const default, std::ptr::null_mut()) };
    // SAFETY: getpid(2) takes nothing and cannot fail.
    let own = unsafe { libc::getpid() };
    // SAFETY: tgkill(2) takes three numbers and no memory. The signal is blocked until this handler returns, and ends the
    // process then.
    let _ = unsafe { libc::syscall(libc::SYS_tgkill, own, own_id(), signal) };
}

fn write(into: &[AtomicU64], page: &[AtomicU64], context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel gives a pointer to a whole ucontext, valid and unchanged during the handler.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    let count = frames::walk(Registers::of(context), page, &into[record::FRAMES..]);
    into[record::COUNT].store(count as u64, Ordering::Relaxed);
    into[record::ANSWERS].fetch_add(1, Ordering::Release);
}

//! Signals as something to read: blocked for the whole process and taken from a descriptor by its poll loop.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// A signal that a process of Beltway takes from its poll loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// SIGTERM: stop.
    Terminate,
    /// SIGINT: stop, from a terminal.
    Interrupt,
    /// SIGHUP: reload, or the terminal is gone.
    HangUp,
    /// SIGUSR1: reopen the logs.
    User1,
    /// SIGUSR2: restart on the binary now on disk.
    User2,
    /// SIGCHLD: a child has ended.
    Child,
    /// SIGTTIN: log more. Taken by [`Signals::take_with_levels`] alone.
    LevelUp,
    /// SIGTTOU: log less. As [`Taken::LevelUp`].
    LevelDown,
}

/// All of them, with their numbers; the last [`LEVELS`] are taken when asked for.
const TAKEN: [(Taken, i32); 8] = [
    (Taken::Terminate, libc::SIGTERM),
    (Taken::Interrupt, libc::SIGINT),
    (Taken::HangUp, libc::SIGHUP),
    (Taken::User1, libc::SIGUSR1),
    (Taken::User2, libc::SIGUSR2),
    (Taken::Child, libc::SIGCHLD),
    (Taken::LevelUp, libc::SIGTTIN),
    (Taken::LevelDown, libc::SIGTTOU),
];

/// How many of them say how much is to be logged.
const LEVELS: usize = 2;

/// A signal that has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrived {
    /// Which one.
    pub signal: Taken,
    /// Who sent it; 0 for the kernel or a process outside our sight.
    pub sender: u32,
}

/// The signals of [`Taken`], readable in turn. They stay blocked when this is dropped.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks the signals and opens the descriptor. To be called on the main thread before any other thread is started,
    /// so that all of them inherit the mask.
    ///
    /// # Errors
    /// What `signalfd(2)` says: no descriptors left.
    pub fn take() -> io::Result<Self> {
        Self::take_these(&TAKEN[..TAKEN.len() - LEVELS])
    }

    /// As [`Signals::take`], with those by which twemproxy is told to log more or less.
    ///
    /// # Errors
    /// As there.
    pub fn take_with_levels() -> io::Result<Self> {
        Self::take_these(&TAKEN)
    }

    fn take_these(taken: &[(Taken, i32)]) -> io::Result<Self> {
        // A file that may not grow is an error of the write, and no reason to die; those we start inherit this.
        // SAFETY: SIG_IGN is no handler that could run, and the signal is a valid one.
        let _ = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        let mut set = MaybeUninit::uninit();
        // SAFETY: `set` is writable memory of the right type, which the call initialises; it cannot fail.
        let _ = unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        for (_, number) in taken {
            // SAFETY: the set was initialised above, and every number in TAKEN is a valid signal.
            let _ = unsafe { libc::sigaddset(set.as_mut_ptr(), *number) };
        }
        // SAFETY: the set is initialised and readable; no old mask is asked for.
        let error = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: the set is initialised and readable; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above returned it just now, so it is open and nobody else owns it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The next signal that has arrived; `None` when there is no more. Never waits.
    ///
    /// # Errors
    /// What `read(2)` says.
    pub fn next(&self) -> io::Result<Option<Arrived>> {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.fd, &mut info) {
            Ok(read) if read == info.len() => {
                // SAFETY: the kernel filled a whole `signalfd_siginfo`, plain old data; `info` need not be aligned.
                let info = unsafe { info.as_ptr().cast::<libc::signalfd_siginfo>().read_unaligned() };
                let taken = TAKEN.iter().find(|(_, number)| number.unsigned_abs() == info.ssi_signo);
                Ok(taken.map(|&(signal, _)| Arrived { signal, sender: info.ssi_pid }))
            }
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

//! The readiness queue of one event thread.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll;
use rustix::time::Timespec;

/// What became possible on a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ready(u32);

impl Ready {
    /// Bytes, a connection, or the end of the stream can be read.
    pub const READ: Self = Self(epoll::EventFlags::IN.bits());
    /// Bytes can be written, or a connect has ended.
    pub const WRITE: Self = Self(epoll::EventFlags::OUT.bits());
    /// The peer will send no more.
    pub const READ_CLOSED: Self = Self(epoll::EventFlags::RDHUP.bits());
    /// Both directions are over.
    pub const HANG_UP: Self = Self(epoll::EventFlags::HUP.bits());
    /// The socket has an error to report.
    pub const ERROR: Self = Self(epoll::EventFlags::ERR.bits());

    /// Whether any of `other` is among these.
    #[inline]
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// These and `other`.
    #[inline]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without `other`.
    #[inline]
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// What to be told of, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// A connection: reads, at each change (edge-triggered).
    Stream,
    /// A connection: reads and writes, at each change.
    StreamWrites,
    /// A listener shared by several threads: reads, as long as they last, waking one of the waiting threads.
    SharedListener,
    /// A wake-up descriptor: reads, at each change.
    Wake,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        use epoll::EventFlags as Flags;
        match self {
            Self::Stream => Flags::IN | Flags::RDHUP | Flags::ET,
            Self::StreamWrites => Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET,
            Self::SharedListener => Flags::IN | Flags::EXCLUSIVE,
            Self::Wake => Flags::IN | Flags::ET,
        }
    }
}

/// How many events one wait takes at most; the rest come with the next.
pub const EVENTS_MAX: usize = 256;

/// Room for the events of one wait, owned by the loop so that the queue itself needs no lock.
#[derive(Debug)]
pub struct Events(Box<[MaybeUninit<epoll::Event>]>);

impl Default for Events {
    fn default() -> Self {
        Self(vec![MaybeUninit::uninit(); EVENTS_MAX].into_boxed_slice())
    }
}

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// # Errors
    /// What `epoll_create1(2)` says: too many descriptors, or no memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Registers `fd`; its events carry `token`.
    ///
    /// # Errors
    /// What `epoll_ctl(2)` says.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, epoll::EventData::new_u64(token), interest.flags())?)
    }

    /// Changes what is reported of `fd`. What is ready now is reported once more.
    ///
    /// # Errors
    /// What `epoll_ctl(2)` says.
    pub fn change(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.0, fd, epoll::EventData::new_u64(token), interest.flags())?)
    }

    /// Forgets `fd`. Needed before it is closed whenever another process or duplicate keeps the socket open, for the
    /// registration belongs to the socket and not to the descriptor.
    ///
    /// # Errors
    /// What `epoll_ctl(2)` says.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.0, fd)?)
    }

    /// Waits for events, at most `timeout_ns` nanoseconds (`None`: for ever; rounded up to whole milliseconds), and
    /// hands each to `deliver`. Says how many there were. An interrupted wait counts as one without events.
    ///
    /// # Errors
    /// What `epoll_pwait(2)` says.
    #[inline]
    pub fn wait(
        &self,
        events: &mut Events,
        timeout_ns: Option<u64>,
        mut deliver: impl FnMut(u64, Ready),
    ) -> io::Result<usize> {
        let timeout = timeout_ns.map(|ns| Timespec {
            tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ns % 1_000_000_000).unwrap_or(0),
        });
        let filled = match epoll::wait(&self.0, &mut events.0[..], timeout.as_ref()) {
            Ok((filled, _)) => filled,
            Err(rustix::io::Errno::INTR) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        let n = filled.len();
        for event in filled {
            let (flags, data) = (event.flags, event.data);
            deliver(data.u64(), Ready(flags.bits()));
        }
        Ok(n)
    }
}

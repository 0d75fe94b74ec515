//! Accepting: one listener a port, shared by all threads of a group, and the rule by which a thread hands a
//! connection on.
//!
//! The kernel wakes one of the waiting threads for a connection; under load that is often the same one. So each thread
//! counts its open connections, and one that is above its share passes the new socket to the thread with the fewest,
//! by message. At the process's limit all threads stop accepting: connections wait in the kernel's queue, first in
//! first out, and are counted as delayed, not refused.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::driver::ListenSocket;
use crate::tcp::{Detached, Tcp};
use crate::thread::{Handle, Source, Thread, TimerTarget};

mod admit;

/// How soon a listener that paused, at the limit or for want of descriptors, looks again.
const PAUSE: Duration = Duration::from_millis(20);
/// Connections a thread may be above the mean before it hands the next one on.
const SLACK: usize = 2;
/// Connections one turn takes when there is only one thread, whom nobody competes with.
const ACCEPTS_ALONE: usize = 16;

/// Connections one thread takes at most when its listener closes.
const LAST_ACCEPTS_MAX: usize = 1024;

/// It asks for more at a time after it got as many as it asked for, so many times running: each call that finds no
/// connection is a system call for nothing.
const FULL_BEFORE_MORE: u8 = 4;

/// What a thread does with each connection it was given.
pub type OnAccept = Rc<dyn Fn(&Thread, Tcp)>;
type SharedOnAccept = Arc<dyn Fn(&Thread, Tcp) + Send + Sync>;

/// Open connections, by thread, of everything that one group accepts; and the limit.
#[derive(Debug)]
pub struct Shares {
    open: Vec<AtomicUsize>,
    limit: usize,
    accepted: AtomicU64,
    handed_on: AtomicU64,
    paused_at_limit: AtomicU64,
    out_of_descriptors: AtomicU64,
    draining: AtomicBool,
    /// What these are a part of.
    whole: Option<Arc<Shares>>,
}

impl Shares {
    /// For `threads` threads and at most `limit` connections together.
    #[must_use]
    pub fn new(threads: usize, limit: usize) -> Arc<Self> {
        Self::of(threads, limit, None)
    }

    /// As [`Shares::new`], for a part of `whole`: what is open here counts there too, and the limits of both hold.
    #[must_use]
    pub fn part_of(whole: &Arc<Self>, limit: usize) -> Arc<Self> {
        Self::of(whole.open.len(), limit, Some(Arc::clone(whole)))
    }

    fn of(threads: usize, limit: usize, whole: Option<Arc<Self>>) -> Arc<Self> {
        Arc::new(Self {
            open: (0..threads).map(|_| AtomicUsize::new(0)).collect(),
            limit,
            accepted: AtomicU64::new(0),
            handed_on: AtomicU64::new(0),
            paused_at_limit: AtomicU64::new(0),
            out_of_descriptors: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            whole,
        })
    }

    /// Connections open now, on all threads.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.iter().map(|open| open.load(Ordering::Relaxed)).sum()
    }

    /// Whether there is no place for another.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.open() >= self.limit || self.whole.as_ref().is_some_and(|whole| whole.is_full())
    }

    /// One more, or one less, on a thread.
    fn count(&self, thread: usize, count: impl Fn(&AtomicUsize) + Copy) {
        if let Some(open) = self.open.get(thread) {
            count(open);
        }
        if let Some(whole) = &self.whole {
            whole.count(thread, count);
        }
    }

    /// Connections open now, by thread.
    #[must_use]
    pub fn open_by_thread(&self) -> Vec<usize> {
        self.open.iter().map(|open| open.load(Ordering::Relaxed)).collect()
    }

    /// Accepted, handed on to another thread, pauses at the limit, pauses for want of descriptors: since the start.
    #[must_use]
    pub fn counts(&self) -> [u64; 4] {
        [&self.accepted, &self.handed_on, &self.paused_at_limit, &self.out_of_descriptors]
            .map(|count| count.load(Ordering::Relaxed))
    }

    /// Makes every listener of these shares stop for good: connections go to whoever else holds the socket.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether [`Shares::drain`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Who takes the next connection that thread `mine` accepted.
    fn owner(&self, mine: usize) -> usize {
        let own = self.open.get(mine).map_or(0, |open| open.load(Ordering::Relaxed));
        let (mut least, mut fewest, mut total) = (mine, own, 0);
        for (thread, open) in self.open.iter().enumerate() {
            let open = open.load(Ordering::Relaxed);
            total += open;
            if open < fewest {
                (least, fewest) = (thread, open);
            }
        }
        if own > total / self.open.len().max(1) + SLACK { least } else { mine }
    }
}

/// One connection's place in the count of its thread. Dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Share(Arc<Shares>, usize);

impl Share {
    fn take(shares: &Arc<Shares>, thread: usize) -> Self {
        shares.count(thread, |open| _ = open.fetch_add(1, Ordering::Relaxed));
        Self(Arc::clone(shares), thread)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.count(self.1, |open| _ = open.fetch_sub(1, Ordering::Relaxed));
    }
}

/// A listening socket for all threads of a group.
pub struct Listener {
    socket: ListenSocket,
    shares: Arc<Shares>,
    peers: Arc<OnceLock<Vec<Handle>>>,
    on_accept: SharedOnAccept,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Listener {
    /// A listener whose connections count in `shares`, may be handed on to `peers` (one handle for each thread of the
    /// group, by its index) and are given to `on_accept`.
    ///
    /// # Errors
    /// When the descriptor cannot be made non-blocking.
    pub fn new(
        fd: OwnedFd,
        shares: Arc<Shares>,
        peers: Arc<OnceLock<Vec<Handle>>>,
        on_accept: impl Fn(&Thread, Tcp) + Send + Sync + 'static,
    ) -> io::Result<Arc<Self>> {
        sys::socket::adopt_listener(&fd)?;
        Ok(Self::of(ListenSocket::Kernel(fd), shares, peers, on_accept))
    }

    pub(crate) fn of(
        socket: ListenSocket,
        shares: Arc<Shares>,
        peers: Arc<OnceLock<Vec<Handle>>>,
        on_accept: impl Fn(&Thread, Tcp) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { socket, shares, peers, on_accept: Arc::new(on_accept) })
    }

    /// Starts accepting on `thread` too.
    ///
    /// # Errors
    /// When it cannot be registered.
    pub fn accept_on(self: &Arc<Self>, thread: &Thread) -> io::Result<()> {
        let core = thread.core();
        let state = {
            let mut sources = core.sources.borrow_mut();
            let entry = sources.vacant_entry();
            let state = Rc::new(ListenerState {
                listener: Arc::clone(self),
                token: entry.key(),
                registered: Cell::new(false),
                expected: Cell::new(1),
                full: Cell::new(0),
            });
            entry.insert(Source::Listener(Rc::clone(&state)));
            state
        };
        state.resume(thread)
    }
}

/// One thread's part of a listener.
pub(crate) struct ListenerState {
    listener: Arc<Listener>,
    token: usize,
    registered: Cell<bool>,
    /// How many connections a turn asks for, and how often running it got them all.
    expected: Cell<usize>,
    full: Cell<u8>,
}

impl ListenerState {
    fn resume(&self, thread: &Thread) -> io::Result<()> {
        if !self.registered.replace(true) {
            thread.core().driver.register_listener(&self.listener.socket, self.token as u64)?;
        }
        Ok(())
    }

    fn pause(&self, thread: &Thread) {
        self.unregister(thread);
        let at = thread.now() + PAUSE;
        thread.core().wheel.borrow_mut().insert(at, TimerTarget::Listener(self.token));
    }

    fn unregister(&self, thread: &Thread) {
        if self.registered.replace(false) {
            // It was registered, so this fails only when the queue itself is gone.
            let _ = thread.core().driver.unregister_listener(&self.listener.socket);
        }
    }

    /// Stops for good when the shares drain.
    pub(crate) fn drain(&self, thread: &Thread) {
        if self.listener.shares.is_draining() {
            self.last_call(thread);
        }
    }

    /// Takes what waits, and closes. The kernel wakes one of all who hold the socket for a connection: when that was us,
    /// nobody else comes for it.
    fn last_call(&self, thread: &Thread) {
        self.unregister(thread);
        let shares = &self.listener.shares;
        for _ in 0..LAST_ACCEPTS_MAX {
            if shares.is_full() {
                break;
            }
            let Ok((socket, peer)) = thread.core().driver.accept(&self.listener.socket) else { break };
            self.accepted(thread, Detached { socket, peer });
        }
        self.close(thread);
    }

    /// Unregisters for good, since the manager's copy of the socket would keep the registration alive, and lets go of
    /// the socket: with the last thread's hold it closes.
    pub(crate) fn close(&self, thread: &Thread) {
        self.unregister(thread);
        let mut sources = thread.core().sources.borrow_mut();
        let mine = matches!(sources.get(self.token), Some(Source::Listener(it)) if std::ptr::eq(Rc::as_ptr(it), self));
        let source = if mine { sources.try_remove(self.token) } else { None };
        drop(sources);
        drop(source);
    }

    pub(crate) fn look_again(&self, thread: &Thread) {
        if !self.listener.shares.is_draining() && self.resume(thread).is_err() {
            self.registered.set(false);
            self.pause(thread);
        }
    }

    pub(crate) fn became_ready(&self, thread: &Thread) {
        let shares = &self.listener.shares;
        let most = if shares.open.len() == 1 { self.expected.get() } else { 1 };
        for taken in 0..most {
            if shares.is_draining() {
                self.last_call(thread);
                return;
            }
            if shares.is_full() {
                shares.paused_at_limit.fetch_add(1, Ordering::Relaxed);
                self.pause(thread);
                return;
            }
            match thread.core().driver.accept(&self.listener.socket) {
                Ok((socket, peer)) => self.accepted(thread, Detached { socket, peer }),
                Err(error) => {
                    // Asked once too often: expect as many as there were.
                    self.expected.set(taken.max(1));
                    self.full.set(0);
                    if !is_passing(&error) {
                        shares.out_of_descriptors.fetch_add(1, Ordering::Relaxed);
                        self.pause(thread);
                    }
                    return;
                }
            }
        }
        // As many as expected came. When that happens again and again there are more.
        self.full.set(self.full.get() + 1);
        if self.full.get() >= FULL_BEFORE_MORE {
            self.full.set(0);
            self.expected.set((self.expected.get() * 2).min(ACCEPTS_ALONE));
        }
    }

    fn accepted(&self, thread: &Thread, connection: Detached) {
        let shares = &self.listener.shares;
        shares.accepted.fetch_add(1, Ordering::Relaxed);
        let owner = shares.owner(thread.index());
        let share = Share::take(shares, owner);
        let on_accept = Arc::clone(&self.listener.on_accept);
        match self.listener.peers.get().and_then(|peers| peers.get(owner)) {
            Some(peer) if owner != thread.index() => {
                shares.handed_on.fetch_add(1, Ordering::Relaxed);
                // Refused: the connection closes, and its place in the count is given back.
                let _ = peer.run(move |thread| start(thread, connection, share, &on_accept));
            }
            _ => start(thread, connection, share, &on_accept),
        }
    }
}

fn start(thread: &Thread, connection: Detached, share: Share, on_accept: &SharedOnAccept) {
    // No memory or too many watches: the connection closes, which is all that can be said to its client.
    if let Ok(tcp) = Tcp::register(thread, connection.socket, connection.peer, Some(share), false) {
        on_accept(thread, tcp);
    }
}

/// Errors of one connection that never came to be, or of nobody: the listener is well.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::WouldBlock
            | Kind::Interrupted
            | Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::TimedOut
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_above_its_share_hands_on_to_the_one_with_the_fewest() {
        let shares = Shares::new(3, 100);
        let _held: Vec<_> = [0, 0, 0, 0, 1, 2, 2].map(|thread| Share::take(&shares, thread)).into();
        assert_eq!(shares.owner(0), 0, "4 of 7 is within the slack of 2 above the mean of 2");
        let _more = Share::take(&shares, 0);
        assert_eq!(shares.owner(0), 1);
        assert_eq!(shares.owner(2), 2);
        assert_eq!(shares.open_by_thread(), [5, 1, 2]);
    }

    #[test]
    fn parts_are_full_when_they_or_the_whole_are() {
        let whole = Shares::new(2, 3);
        let (one, other) = (Shares::part_of(&whole, 2), Shares::part_of(&whole, 2));
        let first: Vec<_> = [0, 1].map(|thread| Share::take(&one, thread)).into();
        assert!(one.is_full() && !other.is_full() && !whole.is_full());
        let second = Share::take(&other, 1);
        assert!(other.is_full() && whole.is_full(), "1 of 2, and 3 of 3 together");
        assert_eq!((one.open(), other.open(), whole.open_by_thread()), (2, 1, vec![1, 2]));
        drop(first);
        assert!(!one.is_full() && !other.is_full());
        drop(second);
        assert_eq!(whole.open(), 0);
    }

    #[test]
    fn a_dropped_share_gives_its_place_back() {
        let shares = Shares::new(1, 1);
        let share = Share::take(&shares, 0);
        assert_eq!(shares.open(), 1);
        drop(share);
        assert_eq!(shares.open(), 0);
    }
}

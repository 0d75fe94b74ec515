//! One stream connection on an event thread.
//!
//! Shaped by completion: bytes arrive in a [`Block`] only when they are there, so that an idle connection holds none;
//! what is sent is a chain of chunks, gathered into one system call at the end of the turn, however many responses
//! it holds (long bodies in pages of their own are lent instead of copied, see `outgo`). Readiness is remembered, so that no call is made that could only say "not yet".
//!
//! The order of use: [`Tcp::set_read_deadline`] or [`Tcp::set_write_deadline`] before a wait; [`Tcp::recv`] and [`Tcp::send`] as often as wanted, with
//! [`Tcp::room`] between sends; drop it to close (what is queued is still sent, within a bound). At most one task
//! waits for reading and one for writing at a time; instead of a task, a handler may wait ([`Tcp::set_handler`]).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroI32;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use base::Instant;
use buf::{Block, Chain, Chunk};
use sys::epoll::Ready;

use crate::continuation::{Cont, Event, deliver};
use crate::driver::Socket;
use crate::listener::Share;
use crate::thread::{FLUSH_AFTER_CLOSE_MAX, Source, Thread, TimerTarget};
use crate::timer::TimerKey;

mod outgo;
mod peer;
mod release;

pub use release::Detached;

use peer::Peer;

/// Gathered sends one connection may make at the end of one turn; the rest goes out in the next.
const SENDS_PER_TURN_MAX: usize = 4;

/// It failed by our own doing.
const OURS: NonZeroI32 = NonZeroI32::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    /// The end of our direction follows what is queued.
    Ending,
    Ended,
    /// Nobody holds it any more: it closes once what is queued is sent.
    Closing,
    Closed,
}

pub(crate) struct Stream {
    thread: Thread,
    socket: Socket,
    token: u32,
    ready: Cell<Ready>,
    phase: Cell<Phase>,
    dirty: Cell<bool>,
    /// Told of writability: from the first send that the kernel did not take whole.
    watches_writes: Cell<bool>,
    /// Why it failed, as the kernel numbers it, or [`OURS`].
    error: Cell<Option<NonZeroI32>>,
    reader: Cell<Option<Waker>>,
    writer: Cell<Option<Waker>>,
    /// The writer is woken when no more than this is queued.
    wanted_room: Cell<u32>,
    handler: Cell<Option<Cont>>,
    /// What is queued. An emptied chain is the thread's, so that an idle connection has none.
    out: RefCell<Option<Box<Chain>>>,
    read_deadline: Cell<Instant>,
    write_deadline: Cell<Instant>,
    /// The wheel's entry, at or before both deadlines: moving one back costs nothing until the entry fires.
    timer: Cell<TimerKey>,
    /// When that entry fires; [`Instant::FAR_FUTURE`] when there is none.
    armed: Cell<Instant>,
    peer: Peer,
    share: Option<Share>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

// There may be a hundred thousand of them, idle: with its counts it fits into the allocator's 192 bytes.
#[cfg(not(any(test, feature = "sim")))]
const _: () = assert!(size_of::<Stream>() <= 192 - 2 * size_of::<usize>());

const READABLE: Ready = Ready::READ.with(Ready::READ_CLOSED).with(Ready::HANG_UP).with(Ready::ERROR);
const WRITABLE: Ready = Ready::WRITE.with(Ready::HANG_UP).with(Ready::ERROR);

fn timed_out() -> io::Error {
    io::Error::from(io::ErrorKind::TimedOut)
}

impl Stream {
    pub(crate) fn became_ready(&self, ready: Ready, thread: &Thread) {
        self.ready.set(self.ready.get().with(ready));
        if ready.has(WRITABLE) {
            if self.queued() > 0 {
                self.mark_dirty();
            } else if let Some(waker) = self.writer.take() {
                waker.wake();
            }
        }
        if ready.has(READABLE) {
            if let Some(waker) = self.reader.take() {
                waker.wake();
            }
            if let Some(handler) = self.handler.take() {
                self.handler.set(Some(Rc::clone(&handler)));
                deliver(&handler, Event::Io(ready), thread);
            }
        }
    }

    /// Bytes that wait for the kernel.
    #[inline]
    fn queued(&self) -> usize {
        self.out.borrow().as_ref().map_or(0, |chain| chain.len())
    }

    /// Its place in the thread's table.
    fn slot(&self) -> usize {
        self.token as usize
    }

    fn mark_dirty(&self) {
        if self.dirty.replace(true) {
            return;
        }
        let core = self.thread.core();
        let me = match core.sources.borrow().get(self.slot()) {
            Some(Source::Stream(me)) if std::ptr::eq(Rc::as_ptr(me), self) => Rc::clone(me),
            _ => return,
        };
        core.dirty.borrow_mut().push(me);
    }

    /// Sends what is queued, as far as the kernel takes it.
    pub(crate) fn flush(self: &Rc<Self>, thread: &Thread) {
        self.dirty.set(false);
        if self.phase.get() == Phase::Closed {
            return;
        }
        let mut queue = self.out.borrow_mut();
        let mut left = 0;
        if let Some(out) = queue.as_deref_mut() {
            let mut sends = 0;
            while !out.is_empty() && self.ready.get().has(Ready::WRITE) && self.error.get().is_none() {
                if sends == SENDS_PER_TURN_MAX {
                    drop(queue);
                    self.mark_dirty();
                    return;
                }
                sends += 1;
                match outgo::send_some(&self.socket, out) {
                    Ok(n) => {
                        self.sent.set(self.sent.get() + n as u64);
                        out.consume(n);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.ready.set(self.ready.get().without(Ready::WRITE));
                        if !self.watches_writes.replace(true)
                            && let Err(error) = thread.core().driver.watch_writes(&self.socket, self.token.into())
                        {
                            self.fail(&error);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => self.fail(&error),
                }
            }
            if self.error.get().is_some() {
                out.clear();
            }
            left = out.len();
        }
        if left == 0
            && let Some(emptied) = queue.take()
        {
            thread.core().give_chain(emptied);
        }
        drop(queue);
        if left <= self.wanted_room.get() as usize
            && let Some(waker) = self.writer.take()
        {
            waker.wake();
        }
        if left == 0 {
            match self.phase.get() {
                Phase::Ending => {
                    self.phase.set(Phase::Ended);
                    // The only error is that the connection is gone, which the next read says too.
                    let _ = self.socket.shutdown_write();
                }
                Phase::Closing => self.close(),
                Phase::Open | Phase::Ended | Phase::Closed => {}
            }
        }
    }

    fn fail(&self, error: &io::Error) {
        self.error.set(Some(error.raw_os_error().and_then(NonZeroI32::new).unwrap_or(OURS)));
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    /// The kernel tells a reset once, to whichever call comes first; the next receive says that the stream ended. Where
    /// a send was told, that must not pass for an orderly end. A broken pipe is no such case: the end came before it.
    fn was_reset(&self) -> bool {
        self.failure().is_some_and(|error| error.kind() != io::ErrorKind::BrokenPipe)
    }

    fn failure(&self) -> Option<io::Error> {
        self.error.get().map(|errno| match errno {
            OURS => io::Error::from(io::ErrorKind::ConnectionAborted),
            errno => io::Error::from_raw_os_error(errno.get()),
        })
    }

    /// The wheel's entry fired: the deadline has passed, or it was moved back meanwhile and the entry follows it.
    pub(crate) fn deadline_fired(self: &Rc<Self>, thread: &Thread) {
        self.armed.set(Instant::FAR_FUTURE);
        let (now, read, write) = (thread.now(), self.read_deadline.get(), self.write_deadline.get());
        // What has not passed yet must be looked at again; what has is over and needs no entry.
        let next = [read, write].into_iter().filter(|&at| at > now).min().unwrap_or(Instant::FAR_FUTURE);
        if next != Instant::FAR_FUTURE {
            self.arm(next);
        }
        if now < read && now < write {
            return;
        }
        if self.phase.get() == Phase::Closing {
            self.error.set(Some(OURS));
            self.cut_short();
            self.close();
            return;
        }
        if now >= read
            && let Some(waker) = self.reader.take()
        {
            waker.wake();
        }
        if now >= write
            && let Some(waker) = self.writer.take()
        {
            waker.wake();
        }
        if let Some(handler) = self.handler.take() {
            self.handler.set(Some(Rc::clone(&handler)));
            deliver(&handler, Event::Interval, thread);
        }
    }

    fn arm(self: &Rc<Self>, at: Instant) {
        let key = self.thread.core().wheel.borrow_mut().insert(at, TimerTarget::Stream(Rc::clone(self)));
        self.timer.set(key);
        self.armed.set(at);
    }

    fn set_deadline(self: &Rc<Self>, which: &Cell<Instant>, at: Instant) {
        which.set(at);
        if self.armed.get() <= at {
            return;
        }
        self.disarm();
        self.arm(at);
    }

    fn disarm(&self) {
        if self.armed.replace(Instant::FAR_FUTURE) != Instant::FAR_FUTURE {
            drop(self.thread.core().cancel_timer(self.timer.get()));
        }
    }

    fn read_expired(&self) -> bool {
        self.thread.now() >= self.read_deadline.get()
    }

    fn write_expired(&self) -> bool {
        self.thread.now() >= self.write_deadline.get()
    }

    fn close(&self) {
        if self.phase.replace(Phase::Closed) == Phase::Closed {
            return;
        }
        let core = self.thread.core();
        self.disarm();
        self.handler.take();
        // The table's hold goes; the descriptor closes with the last one, at the latest when the turn's lists are done.
        let source = core.sources.borrow_mut().try_remove(self.slot());
        drop(source);
    }

    /// Tells the handler, if one waits, that the thread drains.
    pub(crate) fn drain(&self, thread: &Thread) {
        if let Some(handler) = self.handler.take() {
            self.handler.set(Some(Rc::clone(&handler)));
            deliver(&handler, Event::Drain, thread);
        }
    }

    /// What is still queued will not be sent: makes the close an abort, so that the peer does not take what it has for
    /// whole.
    fn cut_short(&self) {
        if self.queued() > 0 {
            // Fails only when the connection is gone, and then the peer has its error already.
            let _ = self.socket.abort_on_close();
        }
    }

    /// Breaks the circle connection → handler → connection.
    pub(crate) fn release_handler(&self) {
        self.cut_short();
        drop(self.handler.take());
        self.phase.set(Phase::Closed);
    }
}

/// A connection, owned. See the module for the order of calls.
pub struct Tcp(Rc<Stream>);

impl Tcp {
    pub(crate) fn register(
        thread: &Thread,
        socket: Socket,
        peer: Option<SocketAddr>,
        share: Option<Share>,
        connecting: bool,
    ) -> io::Result<Self> {
        let core = thread.core();
        let mut sources = core.sources.borrow_mut();
        let entry = sources.vacant_entry();
        let token = u32::try_from(entry.key()).map_err(io::Error::other)?;
        core.driver.register(&socket, token.into(), connecting)?;
        let stream = Rc::new(Stream {
            thread: thread.clone(),
            socket,
            token,
            ready: Cell::new(if connecting { Ready::default() } else { Ready::WRITE }),
            phase: Cell::new(Phase::Open),
            dirty: Cell::new(false),
            watches_writes: Cell::new(connecting),
            error: Cell::new(None),
            reader: Cell::new(None),
            writer: Cell::new(None),
            wanted_room: Cell::new(0),
            handler: Cell::new(None),
            out: RefCell::new(None),
            read_deadline: Cell::new(Instant::FAR_FUTURE),
            write_deadline: Cell::new(Instant::FAR_FUTURE),
            timer: Cell::new(TimerKey::NONE),
            armed: Cell::new(Instant::FAR_FUTURE),
            peer: peer.into(),
            share,
            received: Cell::new(0),
            sent: Cell::new(0),
        });
        entry.insert(Source::Stream(Rc::clone(&stream)));
        Ok(Self(stream))
    }

    /// Connects to `address`, until `deadline`.
    ///
    /// # Errors
    /// `TimedOut` when the deadline came first; else what `connect(2)` says.
    pub async fn connect(thread: &Thread, address: SocketAddr, deadline: Instant) -> io::Result<Self> {
        let socket = thread.core().driver.connect(address)?;
        let tcp = Self::register(thread, socket, Some(address), None, true)?;
        tcp.set_write_deadline(deadline);
        poll_fn(|context| {
            if tcp.0.ready.get().has(WRITABLE) {
                return Poll::Ready(Ok(()));
            }
            if tcp.0.write_expired() {
                return Poll::Ready(Err(timed_out()));
            }
            tcp.0.writer.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await?;
        tcp.0.socket.take_error()?;
        tcp.set_write_deadline(Instant::FAR_FUTURE);
        Ok(tcp)
    }

    /// Its thread.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        &self.0.thread
    }

    /// The other end; `None` when it has no IP address.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.peer.address()
    }

    /// This end. One system call.
    #[must_use]
    pub fn local(&self) -> Option<SocketAddr> {
        self.0.socket.local_address().ok().flatten()
    }

    /// From `at` on, waits for reading answer `TimedOut`. [`Instant::FAR_FUTURE`]: wait as long as it takes.
    #[inline]
    pub fn set_read_deadline(&self, at: Instant) {
        self.0.set_deadline(&self.0.read_deadline, at);
    }

    /// From `at` on, waits for room to write answer `TimedOut`. A handler is told of both deadlines.
    #[inline]
    pub fn set_write_deadline(&self, at: Instant) {
        self.0.set_deadline(&self.0.write_deadline, at);
    }

    /// Gives readability and the deadline's passing to `handler`, as events, instead of to a task.
    pub fn set_handler(&self, handler: Cont) {
        self.0.handler.set(Some(handler));
    }

    /// Takes the handler back. It must not be kept both in the connection and own the connection for ever.
    #[must_use]
    pub fn take_handler(&self) -> Option<Cont> {
        self.0.handler.take()
    }

    /// Whether a receive may find something: bytes, the end, or an error.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.0.ready.get().has(READABLE)
    }

    /// Receives once into the room that `block` has left (there must be some) and says how much; 0 is the end of the
    /// stream. Pending, without a system call, while nothing is there.
    ///
    /// # Errors
    /// `TimedOut` at the deadline, or how the connection died.
    #[inline]
    pub fn poll_recv(&self, context: &mut Context<'_>, block: &mut Block) -> Poll<io::Result<usize>> {
        let stream = &*self.0;
        let ready = stream.ready.get();
        if ready.has(READABLE) {
            let spare = block.spare();
            let room = spare.len();
            if room == 0 {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidInput, "no room to receive into")));
            }
            match stream.socket.receive(spare) {
                Ok(0) if stream.was_reset() => {}
                Ok(n) => {
                    // SAFETY: the socket says that it wrote the first `n` bytes of the spare part.
                    unsafe { block.advance(n) };
                    stream.received.set(stream.received.get() + n as u64);
                    // Less than there was room for: drained, unless the end or an error is to be read yet.
                    let over = Ready::READ_CLOSED.with(Ready::HANG_UP).with(Ready::ERROR);
                    if n < room && !ready.has(over) {
                        stream.ready.set(ready.without(Ready::READ));
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.ready.set(ready.without(READABLE)),
                Err(error) => {
                    stream.fail(&error);
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Err(match self.poll_failure(context) {
            Poll::Ready(error) => error,
            Poll::Pending => return Poll::Pending,
        }))
    }

    /// Pending until the connection failed or its deadline passed; the reader is woken for it.
    fn poll_failure(&self, context: &mut Context<'_>) -> Poll<io::Error> {
        let stream = &*self.0;
        if let Some(error) = stream.failure() {
            return Poll::Ready(error);
        }
        if stream.read_expired() {
            return Poll::Ready(timed_out());
        }
        stream.reader.set(Some(context.waker().clone()));
        Poll::Pending
    }

    /// As [`Tcp::poll_recv`], as a future.
    ///
    /// # Errors
    /// As there.
    pub async fn recv(&self, block: &mut Block) -> io::Result<usize> {
        poll_fn(|context| self.poll_recv(context, block)).await
    }

    /// Ready when the connection is dead in both directions: the peer reset it, or closed it and answered what we
    /// sent with a reset. A peer that only ended its own direction still listens.
    pub fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        let stream = &*self.0;
        if stream.error.get().is_some() || stream.ready.get().has(Ready::HANG_UP.with(Ready::ERROR)) {
            return Poll::Ready(());
        }
        stream.reader.set(Some(context.waker().clone()));
        Poll::Pending
    }

    /// Waits, holding no memory, until a receive may find something.
    ///
    /// # Errors
    /// As [`Tcp::poll_recv`].
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_readable() {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(ready!(self.poll_failure(context))))
    }

    /// Queues a chunk. It leaves at the end of the turn, together with all else that is queued here.
    #[inline]
    pub fn send(&self, chunk: Chunk) {
        let stream = &*self.0;
        if stream.error.get().is_some() || stream.phase.get() != Phase::Open {
            return;
        }
        stream.out.borrow_mut().get_or_insert_with(|| stream.thread.core().take_chain()).push(chunk);
        if stream.ready.get().has(Ready::WRITE) {
            stream.mark_dirty();
        }
    }

    /// Bytes queued and not yet taken by the kernel.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.0.queued()
    }

    /// Ready when at most `limit` bytes are queued.
    ///
    /// # Errors
    /// `TimedOut` at the deadline, or how the connection died.
    pub fn poll_room(&self, context: &mut Context<'_>, limit: usize) -> Poll<io::Result<()>> {
        let stream = &*self.0;
        if let Some(error) = stream.failure() {
            return Poll::Ready(Err(error));
        }
        if stream.queued() <= limit {
            return Poll::Ready(Ok(()));
        }
        if stream.write_expired() {
            return Poll::Ready(Err(timed_out()));
        }
        stream.wanted_room.set(u32::try_from(limit).unwrap_or(u32::MAX));
        stream.writer.set(Some(context.waker().clone()));
        Poll::Pending
    }

    /// As [`Tcp::poll_room`], as a future.
    ///
    /// # Errors
    /// As there.
    pub async fn room(&self, limit: usize) -> io::Result<()> {
        poll_fn(|context| self.poll_room(context, limit)).await
    }

    /// Ends our direction after what is queued: the peer reads the end of the stream.
    pub fn end(&self) {
        if self.0.phase.get() == Phase::Open {
            self.0.phase.set(Phase::Ending);
            self.0.mark_dirty();
        }
    }

    /// Drops what is queued and makes the close an abort, so that the peer cannot take what it has for whole.
    pub fn abort(&self) {
        *self.0.out.borrow_mut() = None;
        // Fails only when the connection is gone, and then the peer has its error already.
        let _ = self.0.socket.abort_on_close();
    }

    /// Why it failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<io::Error> {
        self.0.failure()
    }

    /// Whether it is still open and silent, as an idle connection should be: one system call, and none when the loop
    /// has been told otherwise.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.0.error.get().is_none()
            && !self.0.ready.get().has(Ready::READ_CLOSED.with(Ready::HANG_UP).with(Ready::ERROR))
            && (!self.is_readable() || self.0.socket.is_quiet())
    }

    /// Bytes received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.0.received.get()
    }

    /// Bytes that the kernel took so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.0.sent.get()
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        let stream = &self.0;
        stream.reader.take();
        stream.writer.take();
        let handler = stream.handler.take();
        let unsent = stream.queued() > 0 && stream.error.get().is_none();
        if unsent && stream.phase.get() != Phase::Closed {
            stream.phase.set(Phase::Closing);
            let latest = stream.thread.now() + FLUSH_AFTER_CLOSE_MAX;
            stream.read_deadline.set(Instant::FAR_FUTURE);
            let at = stream.write_deadline.get().min(latest).max(stream.thread.now());
            stream.set_deadline(&stream.write_deadline, at);
        } else {
            stream.close();
        }
        drop(handler);
    }
}

impl fmt::Debug for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tcp").field("peer", &self.peer()).field("queued", &self.queued()).finish_non_exhaustive()
    }
}

//! Events that one thread schedules on another, and the handle that takes them back.
//!
//! ```text
//! Handle::schedule_imm ─────> a slot of the thread's ring (the continuation itself, if it is small) ──> its thread
//!                   └───────> RemoteAction (the slot's number: may cancel, may not look inside)
//! Handle::schedule_at/in/every ──> Arrival (the continuation, in one piece of memory) ──> the ring, and its thread's timers
//!                           └────> RemoteAction (a hold on the same memory)
//! ```
//!
//! The continuation moves to its thread and is used and dropped there alone. Only these events pay for atomics: one that
//! is to come at once takes no memory, and one exchange at its delivery; one that waits for its time outlives its slot,
//! and takes an allocation. So does the first kind when the ring is full.

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ThreadId;
use std::time::Duration;

use base::Instant;

use crate::cancel::{CancelState, Cancelled};
use crate::continuation::{ActionKey, Cont, Continuation, Event, PERIOD_MIN};
use crate::external::{External, Message, Messages, Put, Refused};
use crate::parcel::Once;
use crate::thread::{Handle, Thread};

/// When an arriving event is to be delivered.
#[derive(Clone, Copy)]
pub(crate) enum When {
    Now,
    At(Instant),
    /// From its arrival on.
    In(Duration),
    Every(Duration),
}

/// [`When`] in fewer bytes, so that a small continuation and all that goes with it lie in one line of memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Now,
    At,
    In,
    Every,
}

struct Shared<C: ?Sized> {
    state: CancelState,
    kind: Kind,
    nanos: u64,
    /// The entry in its thread's table of events; used by that thread alone.
    key: AtomicU64,
    cont: UnsafeCell<ManuallyDrop<C>>,
}

// SAFETY: through a shared reference only `state`, `kind`, `nanos` and `key` are used, which are atomic or never change. `cont`
// is reached through the one `Arrival` alone, by exclusive reference or at its drop, and `C: Send` may move with it.
unsafe impl<C: Send + ?Sized> Sync for Shared<C> {}

/// A continuation on its way to its thread, or there: its one owner.
pub(crate) struct Arrival(Arc<Shared<dyn Continuation + Send>>);

impl Arrival {
    pub(crate) fn when(&self) -> When {
        match self.0.kind {
            Kind::Now => When::Now,
            Kind::At => When::At(Instant::from_nanos(self.0.nanos)),
            Kind::In => When::In(Duration::from_nanos(self.0.nanos)),
            Kind::Every => When::Every(Duration::from_nanos(self.0.nanos)),
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.state.is_cancelled()
    }

    /// Remembers where its thread has filed it.
    pub(crate) fn filed(&self, key: ActionKey) {
        self.0.key.store(key.pack(), Ordering::Relaxed);
    }

    /// Delivers, unless it was cancelled. What follows is told by [`Arrival::again`].
    pub(crate) fn deliver(&mut self, event: Event, thread: &Thread) {
        let begun = if self.0.kind == Kind::Every { self.0.state.begin() } else { self.0.state.begin_once() };
        if !begun {
            return;
        }
        // SAFETY: this is the one owner, borrowed exclusively, so nobody else reaches the content; it is initialised
        // until the owner's drop.
        let cont = unsafe { &mut *self.0.cont.get() };
        thread.core().enter(cont.name());
        cont.handle_event(event, thread);
    }

    /// After a delivery of a periodic event: whether another may follow.
    pub(crate) fn again(&self) -> bool {
        self.0.state.again()
    }

    /// Tells the continuation that its thread ends, unless it was cancelled.
    pub(crate) fn tell_end(&mut self, thread: &Thread) {
        self.deliver(Event::Cancelled, thread);
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        // SAFETY: the one owner goes, so this happens once and nobody reaches the content afterwards.
        unsafe { ManuallyDrop::drop(&mut *self.0.cont.get()) };
    }
}

/// Word to a thread that one of its events was cancelled, so that it need not keep it until its time.
pub(crate) struct Reap(Arc<Shared<dyn Continuation + Send>>);

impl Reap {
    pub(crate) fn key(&self) -> ActionKey {
        ActionKey::unpack(self.0.key.load(Ordering::Relaxed))
    }
}

/// The cancellable handle of an event that was scheduled on another thread. Send. As with
/// [`Action`](crate::Action), dropping it cancels; [`RemoteAction::detach`] lets the event come.
#[must_use = "dropping an action cancels it"]
pub struct RemoteAction(Scheduled);

enum Scheduled {
    /// In a slot, until it is delivered.
    InRing(&'static Messages, u64),
    /// In memory of its own.
    Apart {
        shared: Arc<Shared<dyn Continuation + Send>>,
        /// Of events that wait for a timer: whom to tell of a cancel.
        external: Option<Arc<External>>,
    },
    /// No longer this handle's.
    Let,
}

impl RemoteAction {
    /// Takes the event back, or says that it is too late. Either way no delivery begins after this returned.
    pub fn cancel(mut self) -> Cancelled {
        self.cancel_now()
    }

    /// Lets the event come whatever becomes of this handle. One from `schedule_every` then comes as long as its
    /// thread lives.
    #[inline]
    pub fn detach(mut self) {
        self.0 = Scheduled::Let;
    }

    fn cancel_now(&mut self) -> Cancelled {
        match std::mem::replace(&mut self.0, Scheduled::Let) {
            Scheduled::InRing(ring, position) => ring.cancel(position),
            Scheduled::Apart { shared, external } => {
                let outcome = shared.state.cancel();
                if outcome == Cancelled::Prevented
                    && let Some(external) = external
                {
                    external.push(Message::Reap(Reap(shared)));
                }
                outcome
            }
            Scheduled::Let => Cancelled::AlreadyBegun,
        }
    }
}

impl Drop for RemoteAction {
    #[inline]
    fn drop(&mut self) {
        if !matches!(self.0, Scheduled::Let) {
            self.cancel_now();
        }
    }
}

impl fmt::Debug for RemoteAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteAction").finish_non_exhaustive()
    }
}

impl Handle {
    /// In memory of its own, for it may have to wait.
    fn schedule<C>(&self, cont: C, when: When) -> Result<RemoteAction, Refused>
    where
        C: Continuation + Send + 'static,
    {
        let of = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let (kind, nanos) = match when {
            When::Now => (Kind::Now, 0),
            When::At(at) => (Kind::At, at.as_nanos()),
            When::In(after) => (Kind::In, of(after)),
            When::Every(period) => (Kind::Every, of(period)),
        };
        let shared: Arc<Shared<dyn Continuation + Send>> = Arc::new(Shared {
            state: CancelState::new(),
            kind,
            nanos,
            key: AtomicU64::new(ActionKey::NONE.pack()),
            cont: UnsafeCell::new(ManuallyDrop::new(cont)),
        });
        let arrival = Arrival(Arc::clone(&shared));
        self.external().offer(Message::Event(arrival))?;
        let external = (!matches!(when, When::Now)).then(|| Arc::clone(self.external()));
        Ok(RemoteAction(Scheduled::Apart { shared, external }))
    }

    /// Moves `cont` to that thread, which delivers [`Event::Immediate`] when it takes the message.
    ///
    /// # Errors
    /// When the thread's queue is full, or it has ended.
    #[inline]
    pub fn schedule_imm(&self, cont: impl Continuation + Send + 'static) -> Result<RemoteAction, Refused> {
        match self.external().put(Once(cont)) {
            Put::Done(ring, position) => Ok(RemoteAction(Scheduled::InRing(ring, position))),
            Put::NoRoom(Once(cont)) => self.schedule(cont, When::Now),
            Put::Ended => Err(Refused::Ended),
        }
    }

    /// Moves `cont` to that thread, which delivers [`Event::Interval`] at `at`.
    ///
    /// # Errors
    /// As [`Handle::schedule_imm`].
    pub fn schedule_at(&self, cont: impl Continuation + Send + 'static, at: Instant) -> Result<RemoteAction, Refused> {
        self.schedule(cont, When::At(at))
    }

    /// Moves `cont` to that thread, which delivers [`Event::Interval`] `after` it has taken the message.
    ///
    /// # Errors
    /// As [`Handle::schedule_imm`].
    pub fn schedule_in(
        &self,
        cont: impl Continuation + Send + 'static,
        after: Duration,
    ) -> Result<RemoteAction, Refused> {
        self.schedule(cont, When::In(after))
    }

    /// Moves `cont` to that thread, which delivers [`Event::Interval`] every `period` (at least 1 ms), the first time
    /// one period after it has taken the message. See [`Thread::schedule_every`].
    ///
    /// # Errors
    /// As [`Handle::schedule_imm`].
    pub fn schedule_every(
        &self,
        cont: impl Continuation + Send + 'static,
        period: Duration,
    ) -> Result<RemoteAction, Refused> {
        self.schedule(cont, When::Every(period.max(PERIOD_MIN)))
    }
}

/// A continuation that is made on the thread it is scheduled on, by its first event: for machines that cannot be sent
/// there. It is called `name` until it is made.
#[must_use]
pub fn made_there<F>(name: &'static str, make: F) -> MadeThere<F>
where
    F: FnOnce(&Thread) -> Cont + Send,
{
    MadeThere { name, make: Some(make), made: None }
}

/// See [`made_there`].
pub struct MadeThere<F> {
    name: &'static str,
    make: Option<F>,
    made: Option<OnThread>,
}

impl<F> fmt::Debug for MadeThere<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MadeThere").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A continuation and the thread that it may be touched on.
struct OnThread(ThreadId, ManuallyDrop<Cont>);

// SAFETY: it may move anywhere, but its content is used and dropped on the thread that made it alone: `get` and `drop`
// both look, and elsewhere the first says no and the second leaks it.
unsafe impl Send for OnThread {}

impl OnThread {
    fn get(&self) -> Option<&Cont> {
        (std::thread::current().id() == self.0).then_some(&*self.1)
    }
}

impl Drop for OnThread {
    fn drop(&mut self) {
        if std::thread::current().id() == self.0 {
            // SAFETY: this drop is its only one, and it is not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.1) };
        }
    }
}

impl<F: FnOnce(&Thread) -> Cont> Continuation for MadeThere<F> {
    fn handle_event(&mut self, event: Event, thread: &Thread) {
        if let Some(make) = self.make.take() {
            if event == Event::Cancelled {
                return;
            }
            let cont = make(thread);
            self.made = Some(OnThread(std::thread::current().id(), ManuallyDrop::new(cont)));
        }
        if let Some(cont) = self.made.as_ref().and_then(OnThread::get) {
            crate::continuation::deliver(cont, event, thread);
        }
    }

    fn name(&self) -> &'static str {
        self.name
    }
}

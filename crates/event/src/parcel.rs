//! What lies in a slot of a thread's ring: a small continuation, closure or message itself, or a box of a large one.
//!
//! The sender packs it, and its thread opens it: by then it has been moved there, and is used and dropped there alone.

use std::mem::MaybeUninit;

use crate::continuation::{Continuation, Event};
use crate::external::Message;
use crate::thread::Thread;

/// What lies in a slot itself: six words, so that with its stamp and its table a slot is one line of memory.
type Bytes = MaybeUninit<[u64; 6]>;

/// What the thread does with a parcel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It is its turn.
    Deliver,
    /// The thread ends.
    Ended,
    /// It was cancelled.
    Cancelled,
}

/// How to open what kind of parcel.
struct Table {
    /// Takes the content out: the memory holds nothing afterwards.
    open: unsafe fn(*mut Bytes, Fate, &Thread),
    /// Drops the content where there is no event thread.
    drop: unsafe fn(*mut Bytes),
}

/// One message to an event thread, or none. It does not drop what it holds: whoever takes a slot opens it.
pub(crate) struct Parcel {
    table: Option<&'static Table>,
    bytes: Bytes,
}

// SAFETY: it is made of what is Send alone: `Pack` asks for it.
unsafe impl Send for Parcel {}

/// What can be sent to a thread.
pub(crate) trait Pack: Send + Sized + 'static {
    /// What its thread does with it.
    fn open(self, fate: Fate, thread: &Thread);
}

/// A continuation that is to be told of an event once.
pub(crate) struct Once<C>(pub(crate) C);

impl<C: Continuation + Send + 'static> Pack for Once<C> {
    #[inline]
    fn open(mut self, fate: Fate, thread: &Thread) {
        let event = match fate {
            Fate::Deliver => Event::Immediate,
            Fate::Ended => Event::Cancelled,
            Fate::Cancelled => return,
        };
        thread.core().enter(self.0.name());
        self.0.handle_event(event, thread);
    }
}

/// A piece of code to run.
pub(crate) struct Code<F>(pub(crate) F);

impl<F: FnOnce(&Thread) + Send + 'static> Pack for Code<F> {
    #[inline]
    fn open(self, fate: Fate, thread: &Thread) {
        if fate == Fate::Deliver {
            thread.core().enter("message");
            (self.0)(thread);
        }
    }
}

impl Pack for Message {
    fn open(self, fate: Fate, thread: &Thread) {
        thread.open_message(self, fate);
    }
}

impl<P: Pack> Pack for Box<P> {
    fn open(self, fate: Fate, thread: &Thread) {
        P::open(*self, fate, thread);
    }
}

struct Of<P>(P);

impl<P: Pack> Of<P> {
    const TABLE: Table = Table {
        open: |bytes, fate, thread| {
            // SAFETY: `bytes` holds an initialised P (see `Parcel::put`), and the caller does not use it again.
            let content = unsafe { bytes.cast::<P>().read() };
            content.open(fate, thread);
        },
        drop: |bytes| {
            // SAFETY: as above.
            drop(unsafe { bytes.cast::<P>().read() });
        },
    };
}

impl Parcel {
    pub(crate) const EMPTY: Self = Self { table: None, bytes: MaybeUninit::uninit() };

    /// Packs `content`.
    #[inline]
    pub(crate) fn of<P: Pack>(content: P) -> Self {
        if const { size_of::<P>() <= size_of::<Bytes>() && align_of::<P>() <= align_of::<Bytes>() } {
            Self::put(content)
        } else {
            Self::put(Box::new(content))
        }
    }

    #[inline]
    fn put<P: Pack>(content: P) -> Self {
        assert!(size_of::<P>() <= size_of::<Bytes>() && align_of::<P>() <= align_of::<Bytes>(), "`of` looks");
        let mut bytes = Bytes::uninit();
        // SAFETY: `bytes` is writable, large enough and aligned for P, as was just asserted.
        unsafe { bytes.as_mut_ptr().cast::<P>().write(content) };
        Self { table: Some(&Of::<P>::TABLE), bytes }
    }

    /// Hands the content to its fate. A panic of its own goes through.
    #[inline]
    pub(crate) fn open(mut self, fate: Fate, thread: &Thread) {
        if let Some(table) = self.table.take() {
            // SAFETY: `put` made table and bytes for each other, and the table was taken out, so this happens once.
            unsafe { (table.open)(&raw mut self.bytes, fate, thread) };
        }
    }

    /// Drops the content.
    pub(crate) fn discard(mut self) {
        if let Some(table) = self.table.take() {
            // SAFETY: as in `open`.
            unsafe { (table.drop)(&raw mut self.bytes) };
        }
    }
}

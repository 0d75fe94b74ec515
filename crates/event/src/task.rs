//! Futures as continuations: where they live, how they are woken, and the handle by which they are cancelled.
//!
//! A waker is a number: thread, generation and slot packed into the pointer it would have. Cloning and dropping it
//! costs nothing; waking on the task's own thread is a push to the local queue without an atomic; from anywhere else
//! it becomes a message. A waker that outlives its task, or its thread, wakes nothing (at worst, once in 2^22 reuses
//! of a slot, a stranger, whom a needless poll does not hurt).

use std::alloc::Layout;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use crate::memory;
use crate::registry;
use crate::thread::Thread;

/// Threads a process may have at one time; their numbers are used again.
pub(crate) const THREADS_MAX: usize = 1 << 10;
const GENERATION_BITS: u32 = 22;
const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;

/// One task of one thread, for as long as it lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TaskId {
    pub(crate) thread: u16,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl TaskId {
    fn pack(self) -> u64 {
        u64::from(self.thread) << (32 + GENERATION_BITS) | u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    #[expect(clippy::cast_possible_truncation, reason = "each part is cut to its own bits on purpose")]
    fn unpack(packed: u64) -> Self {
        Self {
            thread: (packed >> (32 + GENERATION_BITS)) as u16,
            generation: (packed >> 32) as u32 & GENERATION_MASK,
            slot: packed as u32,
        }
    }
}

const _: () = assert!(usize::BITS == 64, "a waker's number needs 64 bits");

static VTABLE: RawWakerVTable = RawWakerVTable::new(
    |data| RawWaker::new(data, &VTABLE),
    |data| registry::wake(TaskId::unpack(data.addr() as u64)),
    |data| registry::wake(TaskId::unpack(data.addr() as u64)),
    |_| {},
);

fn waker_of(id: TaskId) -> Waker {
    #[expect(clippy::cast_possible_truncation, reason = "usize is 64 bits wide, asserted above")]
    let data = std::ptr::without_provenance::<()>(id.pack() as usize);
    // SAFETY: the vtable's functions take the data as a number and never follow it; they may be called on any thread,
    // at any time and any number of times, for what they reach is found through a registry of live threads.
    unsafe { Waker::new(data, &VTABLE) }
}

struct Vtable {
    layout: Layout,
    poll: unsafe fn(NonNull<u8>, &mut Context<'_>) -> Poll<()>,
    drop: unsafe fn(NonNull<u8>),
}

/// A future in pooled memory.
struct TaskBox {
    memory: NonNull<u8>,
    vtable: &'static Vtable,
}

impl TaskBox {
    #[inline(always)]
    fn new<F: Future<Output = ()> + 'static>(future: F) -> Self {
        struct Of<F>(F);
        impl<F: Future<Output = ()>> Of<F> {
            const VTABLE: Vtable = Vtable {
                layout: Layout::new::<F>(),
                poll: |memory, context| {
                    let future = memory.cast::<F>();
                    // SAFETY: `memory` holds an initialised F (see `TaskBox::new`), borrowed by nobody else during
                    // the call, at an address that does not change until it is dropped.
                    let future = unsafe { Pin::new_unchecked(&mut *future.as_ptr()) };
                    future.poll(context)
                },
                drop: |memory| {
                    // SAFETY: called once, by `TaskBox::drop`, on an initialised F.
                    unsafe { memory.cast::<F>().drop_in_place() };
                },
            };
        }
        let vtable = &Of::<F>::VTABLE;
        // Nobody is to drop it where it was made: then it is made where it goes, and futures are large.
        let future = ManuallyDrop::new(future);
        let memory = memory::take(vtable.layout);
        // SAFETY: the memory was just given for F's layout, which is that of the wrapper as well.
        unsafe { memory.cast::<ManuallyDrop<F>>().write(future) };
        Self { memory, vtable }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // SAFETY: `memory` holds the future that `vtable` was made for, until `drop`.
        unsafe { (self.vtable.poll)(self.memory, context) }
    }
}

impl Drop for TaskBox {
    fn drop(&mut self) {
        struct GiveBack(NonNull<u8>, Layout);
        impl Drop for GiveBack {
            fn drop(&mut self) {
                memory::give(self.0, self.1);
            }
        }
        // The memory goes back even when the future's own drop panics.
        let _give_back = GiveBack(self.memory, self.vtable.layout);
        // SAFETY: as in `poll`; after this the memory is not read again.
        unsafe { (self.vtable.drop)(self.memory) };
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum State {
    Free,
    /// Waits to be woken.
    Idle,
    /// In the local queue.
    Queued,
    /// Being polled.
    Running,
    /// Being polled, and woken meanwhile.
    RunningWoken,
    /// Being polled, and cancelled meanwhile: it ends when the poll returns.
    RunningCancelled,
}

/// A task's place. An idle future costs this much beyond its own (rounded) size.
struct Slot {
    /// Generation above, [`State`] in the lowest three bits.
    generation_and_state: u32,
    next_free: u32,
    name: &'static str,
    task: Option<TaskBox>,
}

const _: () = assert!(size_of::<Slot>() == 40, "a slot's size is counted for every idle future");

const STATE_BITS: u32 = 3;

impl Slot {
    const EMPTY: Self = Self { generation_and_state: 0, next_free: NONE, name: "", task: None };

    fn generation(&self) -> u32 {
        self.generation_and_state >> STATE_BITS
    }

    fn state(&self) -> State {
        match self.generation_and_state & 7 {
            1 => State::Idle,
            2 => State::Queued,
            3 => State::Running,
            4 => State::RunningWoken,
            5 => State::RunningCancelled,
            _ => State::Free,
        }
    }

    fn set_state(&mut self, state: State) {
        self.generation_and_state = self.generation_and_state & !7 | state as u32;
    }

    /// Free, and no id of before names it.
    fn retire(&mut self, next_free: u32) {
        let generation = (self.generation() + 1) & GENERATION_MASK;
        self.generation_and_state = generation << STATE_BITS | State::Free as u32;
        self.next_free = next_free;
    }
}

const NONE: u32 = u32::MAX;
/// Slots that are allocated together: so many, and not twice as many as before, so that memory follows their number.
/// A little under 10 KiB, which allocators have a size for; the numbers beyond, up to the next page, name nothing.
const PAGE: usize = 252;
const PAGE_BITS: u32 = 8;

/// All slots of one thread: pages that stay where they are.
#[derive(Default)]
struct Slots {
    pages: Vec<Box<[Slot; PAGE]>>,
    used_of_last: usize,
}

impl Slots {
    #[inline]
    fn get(&mut self, index: u32) -> Option<&mut Slot> {
        let page = self.pages.get_mut((index >> PAGE_BITS) as usize)?;
        page.get_mut((index & ((1 << PAGE_BITS) - 1)) as usize)
    }

    #[inline]
    fn of(&mut self, id: TaskId) -> Option<&mut Slot> {
        self.get(id.slot).filter(|slot| slot.generation() == id.generation)
    }

    /// A slot that was never used.
    fn add(&mut self) -> u32 {
        if self.used_of_last == PAGE || self.pages.is_empty() {
            self.pages.push(Box::new([Slot::EMPTY; PAGE]));
            self.used_of_last = 0;
        }
        self.used_of_last += 1;
        let index = (self.pages.len() - 1) << PAGE_BITS | (self.used_of_last - 1);
        u32::try_from(index).expect("fewer than 2^32 tasks fit into memory")
    }
}

/// All tasks of one thread.
#[derive(Default)]
pub(crate) struct Tasks {
    slots: RefCell<Slots>,
    free: Cell<Option<u32>>,
    live: Cell<usize>,
}

impl Tasks {
    pub(crate) fn live(&self) -> usize {
        self.live.get()
    }

    /// Files a future as queued: the caller puts it into the local queue.
    #[inline(always)]
    pub(crate) fn insert<F>(&self, thread: u16, name: &'static str, future: F) -> TaskId
    where
        F: Future<Output = ()> + 'static,
    {
        let task = TaskBox::new(future);
        let mut slots = self.slots.borrow_mut();
        let index = self.free.get().unwrap_or_else(|| slots.add());
        let slot = slots.get(index).expect("free and added slots exist");
        if self.free.get().is_some() {
            self.free.set(if slot.next_free == NONE { None } else { Some(slot.next_free) });
        }
        slot.set_state(State::Queued);
        slot.name = name;
        slot.task = Some(task);
        self.live.set(self.live.get() + 1);
        TaskId { thread, slot: index, generation: slot.generation() }
    }

    /// True when the task is to be put into the local queue.
    #[inline]
    pub(crate) fn wake(&self, id: TaskId) -> bool {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.of(id) else { return false };
        match slot.state() {
            State::Idle => {
                slot.set_state(State::Queued);
                true
            }
            State::Running => {
                slot.set_state(State::RunningWoken);
                false
            }
            State::Free | State::Queued | State::RunningWoken | State::RunningCancelled => false,
        }
    }

    /// Wakes every task that waits; `queue` gets each to put into the local queue.
    pub(crate) fn wake_all(&self, thread: u16, mut queue: impl FnMut(TaskId)) {
        let mut slots = self.slots.borrow_mut();
        let end = u32::try_from(slots.pages.len() << PAGE_BITS).unwrap_or(u32::MAX);
        for index in 0..end {
            let Some(slot) = slots.get(index).filter(|slot| slot.state() == State::Idle) else { continue };
            slot.set_state(State::Queued);
            queue(TaskId { thread, slot: index, generation: slot.generation() });
        }
    }

    /// Polls one task; `enter` is told its name before. True when it was woken meanwhile and is to be queued again.
    /// Panics go through, after the task is gone.
    pub(crate) fn poll(&self, id: TaskId, enter: impl FnOnce(&'static str)) -> bool {
        let mut task = {
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.of(id) else { return false };
            let Some(task) = slot.task.take() else { return false };
            slot.set_state(State::Running);
            enter(slot.name);
            task
        };
        /// Frees the slot when the poll ends the task, by returning or by a panic.
        struct Ending<'a>(&'a Tasks, TaskId);
        impl Drop for Ending<'_> {
            fn drop(&mut self) {
                self.0.release(self.1);
            }
        }
        let ending = Ending(self, id);
        let waker = waker_of(id);
        let poll = task.poll(&mut Context::from_waker(&waker));
        if poll.is_ready() {
            drop(task);
            return false;
        }
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.of(id) else { return false };
        let again = match slot.state() {
            State::RunningCancelled => {
                drop(slots);
                drop(task);
                return false;
            }
            State::RunningWoken => {
                slot.set_state(State::Queued);
                true
            }
            _ => {
                slot.set_state(State::Idle);
                false
            }
        };
        slot.task = Some(task);
        std::mem::forget(ending);
        again
    }

    fn release(&self, id: TaskId) {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.of(id) else { return };
        slot.retire(self.free.get().unwrap_or(NONE));
        self.free.set(Some(id.slot));
        self.live.set(self.live.get() - 1);
    }

    /// Ends a task now; one that is being polled ends when that poll returns.
    pub(crate) fn cancel(&self, id: TaskId) {
        let task = {
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.of(id) else { return };
            match slot.state() {
                State::Running | State::RunningWoken => {
                    slot.set_state(State::RunningCancelled);
                    return;
                }
                _ => slot.task.take(),
            }
        };
        if let Some(task) = task {
            self.release(id);
            drop(task);
        }
    }

    /// Takes the first task at or after `index` out, for its end; and where to go on. `None`: there is none left.
    pub(crate) fn take_from(&self, index: u32) -> Option<(EndedTask, u32)> {
        let mut slots = self.slots.borrow_mut();
        let end = u32::try_from(slots.pages.len() << PAGE_BITS).unwrap_or(u32::MAX);
        for index in index..end {
            let Some(slot) = slots.get(index) else { continue };
            if let Some(task) = slot.task.take() {
                let generation = slot.generation();
                drop(slots);
                self.release(TaskId { thread: 0, slot: index, generation });
                return Some((EndedTask(task), index + 1));
            }
        }
        None
    }
}

/// A future to be dropped.
pub(crate) struct EndedTask(#[expect(dead_code, reason = "held for its drop")] TaskBox);

/// Lets everything else that is queued on this thread run, and the sockets be looked at, before going on.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A spawned future's handle. Dropping it lets the future run on; [`Task::cancel`] ends it.
#[derive(Debug)]
pub struct Task {
    pub(crate) thread: Thread,
    pub(crate) id: TaskId,
}

impl Task {
    /// Drops the future now, with all it holds. When it is just being polled (it cancels itself), when that poll
    /// returns. Nothing happens when it has ended.
    pub fn cancel(self) {
        self.thread.core().tasks.cancel(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wakers_number_holds_thread_generation_and_slot() {
        for id in [
            TaskId { thread: 0, slot: 0, generation: 0 },
            TaskId { thread: 1023, slot: u32::MAX, generation: GENERATION_MASK },
            TaskId { thread: 5, slot: 77, generation: 1 },
        ] {
            assert_eq!(TaskId::unpack(id.pack()), id);
        }
    }

    #[test]
    fn a_stale_id_wakes_nothing() {
        let tasks = Tasks::default();
        let running = Cell::new("");
        let id = tasks.insert(0, "test", async {});
        assert!(!tasks.wake(id), "queued already");
        assert!(!tasks.poll(id, |name| running.set(name)));
        assert_eq!(running.get(), "test");
        assert_eq!(tasks.live(), 0);
        let next = tasks.insert(0, "next", std::future::pending());
        assert_eq!(next.slot, id.slot);
        assert!(!tasks.poll(next, |_| {}));
        assert!(!tasks.wake(id), "another lives in that slot now");
        assert!(tasks.wake(next));
    }

    #[test]
    fn a_panicking_task_frees_its_slot_and_its_memory() {
        let tasks = Tasks::default();
        let id = tasks.insert(0, "test", async { panic!("on purpose") });
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tasks.poll(id, |_| {})));
        assert!(caught.is_err());
        assert_eq!(tasks.live(), 0);
        assert_eq!(tasks.insert(0, "next", async {}).slot, id.slot);
    }
}

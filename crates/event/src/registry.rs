//! Which event threads there are in this process, and which one is running here.

use std::cell::RefCell;
use std::sync::{Arc, RwLock, Weak};

use crate::external::{External, Message};
use crate::task::{THREADS_MAX, TaskId};
use crate::thread::Thread;

static THREADS: RwLock<Vec<Weak<External>>> = RwLock::new(Vec::new());

thread_local! {
    static CURRENT: RefCell<Option<Thread>> = const { RefCell::new(None) };
}

/// Gives an event thread its number: the lowest that is free.
pub(crate) fn register(external: &Arc<External>) -> std::io::Result<u16> {
    let mut threads = THREADS.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    let free = threads.iter().position(|thread| thread.strong_count() == 0).unwrap_or(threads.len());
    if free >= THREADS_MAX {
        return Err(std::io::Error::other("more than 1024 event threads in one process"));
    }
    if free == threads.len() {
        threads.push(Weak::new());
    }
    threads[free] = Arc::downgrade(external);
    u16::try_from(free).map_err(std::io::Error::other)
}

/// Wakes a task from wherever the caller is.
pub(crate) fn wake(id: TaskId) {
    let done = CURRENT.try_with(|current| match &*current.borrow() {
        Some(thread) if thread.core().id == id.thread => {
            thread.core().wake_local(id);
            true
        }
        _ => false,
    });
    if done == Ok(true) {
        return;
    }
    let external = {
        let threads = THREADS.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        threads.get(usize::from(id.thread)).and_then(Weak::upgrade)
    };
    if let Some(external) = external {
        external.push(Message::Wake(id));
    }
}

/// Makes `thread` the one that runs here, until the guard is dropped; then the one before it is again.
pub(crate) fn enter(thread: &Thread) -> Entered {
    Entered(CURRENT.with(|current| current.replace(Some(thread.clone()))))
}

pub(crate) struct Entered(Option<Thread>);

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.0.take();
        let _ = CURRENT.try_with(|current| drop(current.replace(before)));
    }
}

/// The names of the event thread that runs here, and of the continuation that runs on it; for a panic's report, so it
/// never panics itself.
pub(crate) fn running() -> Option<(String, &'static str)> {
    let of = |current: &RefCell<Option<Thread>>| {
        let current = current.try_borrow().ok()?;
        current.as_ref().map(|thread| (thread.name().to_owned(), thread.running()))
    };
    CURRENT.try_with(of).ok().flatten()
}

/// The event thread that runs here.
#[must_use]
pub fn current() -> Option<Thread> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

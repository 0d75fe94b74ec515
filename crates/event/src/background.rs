//! ET_TASK: threads for long or blocking work, so that an event thread never waits for it.
//!
//! Work is a closure with a result; the poster gets a future of it. The queue is bounded: when it is full, posting
//! fails at once and the poster decides. A panic in the work is contained and answers [`BackgroundError::Panicked`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;

/// Pieces of work that may wait.
pub const QUEUE_MAX: usize = 1_024;

/// Why work in the background gave no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BackgroundError {
    /// [`QUEUE_MAX`] pieces wait already.
    QueueFull,
    /// The threads have been stopped.
    Stopped,
    /// The work panicked.
    Panicked,
}

impl std::fmt::Display for BackgroundError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "the queue for background work is full",
            Self::Stopped => "the background threads have been stopped",
            Self::Panicked => "the background work panicked",
        })
    }
}

impl std::error::Error for BackgroundError {}

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    stopped: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    running: AtomicUsize,
    done: AtomicU64,
    panics: AtomicU64,
    refused: AtomicU64,
}

/// The group of background threads. Clones share it.
#[derive(Clone)]
pub struct Background {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Background {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Background({} running)", self.shared.running.load(Ordering::Relaxed))
    }
}

enum Outcome<T> {
    Waiting(Option<Waker>),
    Done(Result<T, BackgroundError>),
    Taken,
}

/// Puts the outcome where the poster finds it, also when the job is dropped undone.
struct Answer<T>(Arc<Mutex<Outcome<T>>>, bool);

impl<T> Answer<T> {
    fn give(&mut self, result: Result<T, BackgroundError>) {
        self.1 = true;
        let before = {
            let mut outcome = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *outcome, Outcome::Done(result))
        };
        if let Outcome::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if !self.1 {
            self.give(Err(BackgroundError::Stopped));
        }
    }
}

impl Background {
    /// Starts `threads` threads named `[ET_TASK n]`.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(threads: usize) -> io::Result<(Self, BackgroundThreads)> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            arrived: Condvar::new(),
            running: AtomicUsize::new(0),
            done: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let this = Self { shared };
        let mut joins = BackgroundThreads { background: this.clone(), joins: Vec::new() };
        for index in 0..threads.max(1) {
            let name = format!("[ET_TASK {index}]");
            let shared = Arc::clone(&this.shared);
            joins.joins.push(std::thread::Builder::new().name(name).spawn(move || work(&shared))?);
        }
        Ok((this, joins))
    }

    /// Posts `work` and answers with a future of its result. The future may be dropped: the work is done all the same.
    pub fn run<T, F>(&self, work: F) -> impl Future<Output = Result<T, BackgroundError>> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let outcome = Arc::new(Mutex::new(Outcome::Waiting(None)));
        let mut answer = Answer(Arc::clone(&outcome), false);
        let shared = Arc::clone(&self.shared);
        let job: Job = Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
                shared.panics.fetch_add(1, Ordering::Relaxed);
                BackgroundError::Panicked
            });
            answer.give(result);
        });
        let refused = {
            let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.stopped {
                Some(BackgroundError::Stopped)
            } else if queue.jobs.len() >= QUEUE_MAX {
                Some(BackgroundError::QueueFull)
            } else {
                queue.jobs.push_back(job);
                None
            }
        };
        if refused.is_some() {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
        } else {
            self.shared.arrived.notify_one();
        }
        poll_fn(move |context| {
            if let Some(error) = refused {
                return Poll::Ready(Err(error));
            }
            let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
            match std::mem::replace(&mut *outcome, Outcome::Taken) {
                Outcome::Waiting(_) => {
                    *outcome = Outcome::Waiting(Some(context.waker().clone()));
                    Poll::Pending
                }
                Outcome::Done(result) => Poll::Ready(result),
                // Polled after it was ready: a future's contract forbids that; saying "stopped" harms nobody.
                Outcome::Taken => Poll::Ready(Err(BackgroundError::Stopped)),
            }
        })
    }

    /// Waiting, running now; done, panicked, refused since the start.
    #[must_use]
    pub fn counts(&self) -> [u64; 5] {
        let waiting = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).jobs.len();
        [
            waiting as u64,
            self.shared.running.load(Ordering::Relaxed) as u64,
            self.shared.done.load(Ordering::Relaxed),
            self.shared.panics.load(Ordering::Relaxed),
            self.shared.refused.load(Ordering::Relaxed),
        ]
    }
}

fn work(shared: &Shared) {
    loop {
        let job = {
            let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                if queue.stopped {
                    return;
                }
                match queue.jobs.pop_front() {
                    Some(job) => break job,
                    None => queue = shared.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner),
                }
            }
        };
        shared.running.fetch_add(1, Ordering::Relaxed);
        job();
        shared.running.fetch_sub(1, Ordering::Relaxed);
        shared.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// The threads themselves, for whoever ends them.
#[derive(Debug)]
pub struct BackgroundThreads {
    background: Background,
    joins: Vec<JoinHandle<()>>,
}

impl BackgroundThreads {
    /// Drops what waits, and ends each thread after the work it is at. Threads that are stuck in a system call are
    /// not waited for: they end with the process.
    pub fn stop(self) {
        let waiting = {
            let mut queue = self.background.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.stopped = true;
            std::mem::take(&mut queue.jobs)
        };
        drop(waiting);
        self.background.shared.arrived.notify_all();
        for join in self.joins {
            if join.is_finished() {
                // Panics of the work were contained, so this one cannot have panicked.
                let _ = join.join();
            }
        }
    }
}

thread_local! {
    static OF_THREAD: RefCell<Option<Background>> = const { RefCell::new(None) };
}

/// Makes `background` the one that [`background`] finds on the calling thread.
pub(crate) fn set_for_this_thread(background: &Background) {
    OF_THREAD.with(|of_thread| *of_thread.borrow_mut() = Some(background.clone()));
}

/// The background threads of the calling event thread's processor.
#[must_use]
pub fn background() -> Option<Background> {
    OF_THREAD.try_with(|of_thread| of_thread.borrow().clone()).ok().flatten()
}

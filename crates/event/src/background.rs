//! ET_TASK: threads for long or blocking work, so that an event thread never waits for it.
//!
//! Work is a closure with a result; the poster gets a future of it. The queue is bounded: when it is full, posting
//! fails at once and the poster decides. A panic in the work is contained and answers [`BackgroundError::Panicked`].
//! With a deadline ([`Background::run_within`]) the poster is told when it passes: work that still waits is then
//! never begun, and the result of work that is late is dropped.
//!
//! The threads are event threads, so that continuations can be scheduled on them too; each takes one piece of work a
//! turn. Work that blocks delays the continuations of its thread: nothing that must be quick belongs here.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use base::{Clock, Instant, SystemClock};
use stats::Cells;

use crate::metrics::Loop;
use crate::processor::{Started, start_threads};
use crate::select::{Either, select};
use crate::thread::{Handle, Thread};

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
    /// Its deadline passed first.
    Late,
}

impl std::fmt::Display for BackgroundError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "the queue for background work is full",
            Self::Stopped => "the background threads have been stopped",
            Self::Panicked => "the background work panicked",
            Self::Late => "the background work was not done in time",
        })
    }
}

impl std::error::Error for BackgroundError {}

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Threads that looked and found nothing: the next job wakes one of them.
    idle: Vec<usize>,
    stopped: bool,
}

/// What one thread of the group runs.
#[derive(Default)]
struct Worker {
    /// When it began its work, in nanoseconds; 0: it has none.
    since: AtomicU64,
}

struct Shared {
    queue: Mutex<Queue>,
    threads: OnceLock<Vec<Handle>>,
    workers: Vec<Worker>,
    done: AtomicU64,
    panics: AtomicU64,
    refused: AtomicU64,
    late: AtomicU64,
}

/// The group of background threads. Clones share it.
#[derive(Clone)]
pub struct Background {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Background {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Background({} running)", self.running())
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
        let count = threads.max(1);
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            threads: OnceLock::new(),
            workers: (0..count).map(|_| Worker::default()).collect(),
            done: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            late: AtomicU64::new(0),
        });
        let theirs = Arc::clone(&shared);
        let started = start_threads("ET_TASK", count, &[], 0, move |thread| {
            theirs.lock().idle.push(thread.index());
            Ok(())
        })?;
        // Set here alone, once.
        let _ = shared.threads.set(started.handles.clone());
        let this = Self { shared };
        Ok((this.clone(), BackgroundThreads { background: this, started }))
    }

    /// One handle for each thread.
    #[must_use]
    pub fn threads(&self) -> &[Handle] {
        self.shared.threads.get().map_or(&[], Vec::as_slice)
    }

    /// Posts `work` and answers with a future of its result. The future may be dropped: the work is done all the same.
    pub fn run<T, F>(&self, work: F) -> impl Future<Output = Result<T, BackgroundError>> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.post(work, None)
    }

    /// As [`Background::run`], with a deadline `limit` from now: when it passes, the future answers
    /// [`BackgroundError::Late`] on the poster's `thread`, and work that has not begun never does. Work that has
    /// begun cannot be taken back: it runs on, visible in [`Background::oldest_running`].
    pub fn run_within<T, F>(
        &self,
        thread: &Thread,
        limit: Duration,
        work: F,
    ) -> impl Future<Output = Result<T, BackgroundError>> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let given_up = Arc::new(AtomicBool::new(false));
        let (answer, deadline) = (self.post(work, Some(Arc::clone(&given_up))), thread.sleep(limit));
        let shared = Arc::clone(&self.shared);
        async move {
            match select(answer, deadline).await {
                Either::First(answer) => answer,
                Either::Second(()) => {
                    given_up.store(true, Ordering::Relaxed);
                    shared.late.fetch_add(1, Ordering::Relaxed);
                    Err(BackgroundError::Late)
                }
            }
        }
    }

    fn post<T, F>(
        &self,
        work: F,
        given_up: Option<Arc<AtomicBool>>,
    ) -> impl Future<Output = Result<T, BackgroundError>> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let outcome = Arc::new(Mutex::new(Outcome::Waiting(None)));
        let mut answer = Answer(Arc::clone(&outcome), false);
        let shared = Arc::clone(&self.shared);
        let job: Job = Box::new(move || {
            if given_up.is_some_and(|given_up| given_up.load(Ordering::Relaxed)) {
                answer.give(Err(BackgroundError::Late));
                return;
            }
            let result = catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
                shared.panics.fetch_add(1, Ordering::Relaxed);
                BackgroundError::Panicked
            });
            answer.give(result);
        });
        let posted = {
            let mut queue = self.shared.lock();
            if queue.stopped {
                Err((BackgroundError::Stopped, job))
            } else if queue.jobs.len() >= QUEUE_MAX {
                Err((BackgroundError::QueueFull, job))
            } else {
                queue.jobs.push_back(job);
                Ok(queue.idle.pop())
            }
        };
        let refused = match posted {
            Ok(idle) => {
                if let Some(handle) = idle.and_then(|index| self.threads().get(index)) {
                    let shared = Arc::clone(&self.shared);
                    handle.must_run(move |thread| look(&shared, thread));
                }
                None
            }
            Err((error, job)) => {
                self.shared.refused.fetch_add(1, Ordering::Relaxed);
                drop(job);
                Some(error)
            }
        };
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

    fn running(&self) -> usize {
        self.shared.workers.iter().filter(|worker| worker.since.load(Ordering::Relaxed) != 0).count()
    }

    /// How long the work that began first has been running by now; none when nothing runs. When it only grows, its
    /// thread is stuck.
    #[must_use]
    pub fn oldest_running(&self) -> Option<Duration> {
        let since = self.shared.workers.iter().map(|worker| worker.since.load(Ordering::Relaxed));
        since.filter(|&since| since != 0).min().map(|since| SystemClock.now() - Instant::from_nanos(since))
    }

    /// Waiting, running now; done, panicked, refused since the start.
    #[must_use]
    pub fn counts(&self) -> [u64; 5] {
        let waiting = self.shared.lock().jobs.len();
        [
            waiting as u64,
            self.running() as u64,
            self.shared.done.load(Ordering::Relaxed),
            self.shared.panics.load(Ordering::Relaxed),
            self.shared.refused.load(Ordering::Relaxed),
        ]
    }

    /// Writes the group's numbers into the cells of one thread, which does this now and then for all.
    pub fn tell(&self, cells: Cells<Loop>) {
        let [waiting, running, done, _, refused] = self.counts();
        cells.set(Loop::BACKGROUND_WAITING, waiting);
        cells.set(Loop::BACKGROUND_RUNNING, running);
        cells.set(Loop::BACKGROUND_DONE, done);
        cells.set(Loop::BACKGROUND_REFUSED, refused);
        cells.set(Loop::BACKGROUND_LATE, self.shared.late.load(Ordering::Relaxed));
        let oldest = self.oldest_running().unwrap_or_default();
        cells.set(Loop::BACKGROUND_OLDEST, u64::try_from(oldest.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes one piece of work, if there is one, and looks again in the next turn; else the thread is idle.
fn look(shared: &Arc<Shared>, thread: &Thread) {
    let job = {
        let mut queue = shared.lock();
        match queue.jobs.pop_front() {
            Some(job) => job,
            None => {
                queue.idle.push(thread.index());
                return;
            }
        }
    };
    let began = SystemClock.now().as_nanos().max(1);
    if let Some(worker) = shared.workers.get(thread.index()) {
        worker.since.store(began, Ordering::Relaxed);
        thread.core().enter("background work");
        job();
        worker.since.store(0, Ordering::Relaxed);
    }
    shared.done.fetch_add(1, Ordering::Relaxed);
    let again = Arc::clone(shared);
    thread.handle().must_run(move |thread| look(&again, thread));
}

/// The threads themselves, for whoever ends them.
pub struct BackgroundThreads {
    background: Background,
    started: Started,
}

impl std::fmt::Debug for BackgroundThreads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BackgroundThreads({:?})", self.background)
    }
}

/// How long [`BackgroundThreads::stop`] waits.
const STOP_MAX: Duration = Duration::from_millis(100);

impl BackgroundThreads {
    /// Drops what waits, and ends each thread after the work it is at. Threads that are stuck in a system call are
    /// not waited for: they end with the process.
    pub fn stop(self) {
        self.stop_within(STOP_MAX);
    }

    /// As [`BackgroundThreads::stop`], waiting at most `limit`; true when all ended.
    pub fn stop_within(self, limit: Duration) -> bool {
        let waiting = {
            let mut queue = self.background.shared.lock();
            queue.stopped = true;
            std::mem::take(&mut queue.jobs)
        };
        drop(waiting);
        self.started.stop(limit)
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

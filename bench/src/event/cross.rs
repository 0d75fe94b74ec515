//! From one thread to another that is busy: messages in batches, one thread sending, one taking.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use event::{Cancelled, Continuation, Event, Processor, ProcessorOptions, Refused, RemoteAction, Thread, channel};

use super::{PATIENCE, time};
use crate::error::{Doing, Outcome, Trouble};

/// Messages of one measurement.
const MESSAGES: u64 = 1_000_000;
/// Messages a batch.
const BATCH: u64 = 64;
/// Batches that may be on their way: the sender waits, spinning, when the taker is further behind.
const BATCHES_AHEAD: u64 = 16;
const CAPACITY: usize = 4_096;
/// Actions that are kept: by then the first one's event was delivered.
const KEPT: usize = 1_280;

/// Sends all batches by `send`, keeping within a distance of what `taken` says.
fn in_batches(taken: &AtomicU64, mut send: impl FnMut(u64) -> Outcome<()>) -> Outcome<()> {
    let mut sent = 0;
    while sent < MESSAGES {
        while sent - taken.load(Ordering::Relaxed) > BATCH * BATCHES_AHEAD {
            // The other core may be taken from the taker just now.
            std::thread::yield_now();
        }
        for n in 0..BATCH {
            send(sent + n)?;
        }
        sent += BATCH;
    }
    Ok(())
}

fn late() -> Trouble {
    Trouble::Late("messages between threads".to_owned(), PATIENCE.as_secs())
}

#[expect(clippy::cast_precision_loss, reason = "a million")]
fn each(took: f64) -> f64 {
    took / MESSAGES as f64
}

/// One event thread that never sleeps.
fn busy_thread() -> Outcome<Processor> {
    let options = ProcessorOptions { net: 1, task: 1, pin: true, seed: 1 };
    let set_up = |thread: &Thread| {
        drop(thread.spawn("busy", async {
            loop {
                event::yield_now().await;
            }
        }));
        Ok(())
    };
    Processor::start(&options, set_up).doing("an event thread")
}

/// Runs `send` on a thread of its own, on another core than the taker's.
fn sending(send: impl FnOnce() -> Outcome<()> + Send) -> Outcome<()> {
    let cores = super::wake::cores();
    std::thread::scope(|scope| {
        let pinned = || {
            if let Some(core) = cores.1 {
                // Unpinned it measures too.
                let _ = crate::leash::pin_to(core);
            }
            send()
        };
        let sender = std::thread::Builder::new().spawn_scoped(scope, pinned).doing("a thread")?;
        sender.join().map_err(|_| Trouble::Wrong("the sender panicked".to_owned()))?
    })
}

pub(super) fn channel() -> Outcome<f64> {
    let processor = busy_thread()?;
    let (sender, receiver) = channel::channel::<u64>(CAPACITY);
    let taken = Arc::new(AtomicU64::new(0));
    let (done, finished) = mpsc::channel();
    let count = Arc::clone(&taken);
    let receive = move |thread: &Thread| {
        drop(thread.spawn("receiver", async move {
            let mut sum = 0_u64;
            let mut n = 0;
            while let Some(message) = receiver.recv().await {
                sum = sum.wrapping_add(message);
                n += 1;
                if n % BATCH == 0 {
                    count.store(n, Ordering::Relaxed);
                }
            }
            // The bench gave up: nothing to do.
            let _ = done.send(sum);
        }));
    };
    processor.net()[0].run(receive).map_err(refused)?;
    let took = time(|| {
        sending(|| {
            let sent = in_batches(&taken, |message| {
                sender.try_send(message).map_err(|error| Trouble::Wrong(error.to_string()))
            });
            drop(sender);
            sent
        })?;
        finished.recv_timeout(PATIENCE).map_err(|_| late()).map(|_| ())
    })?;
    processor.stop(PATIENCE);
    Ok(each(took))
}

fn refused(refused: Refused) -> Trouble {
    Trouble::Wrong(refused.to_string())
}

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Counts on its thread, and tells every batch.
struct Counting(&'static AtomicU64);

impl Continuation for Counting {
    fn handle_event(&mut self, _event: Event, _thread: &Thread) {
        let count = COUNT.get() + 1;
        COUNT.set(count);
        if count.is_multiple_of(BATCH) {
            self.0.store(count, Ordering::Relaxed);
        }
    }
    fn name(&self) -> &'static str {
        "counting"
    }
}

/// Schedules all on a busy thread by `send`.
fn scheduled(mut send: impl FnMut(&Processor, Counting) -> Outcome<()> + Send) -> Outcome<f64> {
    let processor = busy_thread()?;
    // Once a measurement: its memory is not worth giving back.
    let taken: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
    let target = &processor.net()[0];
    let took = time(|| {
        sending(|| in_batches(taken, |_| send(&processor, Counting(taken))))?;
        let (done, finished) = mpsc::channel::<()>();
        target.run(move |_| drop(done)).map_err(refused)?;
        match finished.recv_timeout(PATIENCE) {
            Err(mpsc::RecvTimeoutError::Timeout) => Err(late()),
            _ => Ok(()),
        }
    })?;
    processor.stop(PATIENCE);
    if taken.load(Ordering::Relaxed) == MESSAGES { Ok(each(took)) } else { Err(late()) }
}

pub(super) fn schedule() -> Outcome<f64> {
    scheduled(|processor, cont| {
        processor.net()[0].schedule_imm(cont).map_err(refused)?.detach();
        Ok(())
    })
}

pub(super) fn schedule_on_group() -> Outcome<f64> {
    scheduled(|processor, cont| {
        processor.groups().schedule_imm(event::ET_NET, cont).map_err(refused)?.detach();
        Ok(())
    })
}

/// Each action is kept until its event was delivered, and then asked what became of it.
pub(super) fn schedule_and_keep() -> Outcome<f64> {
    let mut kept = VecDeque::with_capacity(KEPT);
    scheduled(move |processor, cont| {
        kept.push_back(processor.net()[0].schedule_imm(cont).map_err(refused)?);
        if kept.len() < KEPT {
            return Ok(());
        }
        match kept.pop_front().map(RemoteAction::cancel) {
            Some(Cancelled::AlreadyBegun) => Ok(()),
            other => Err(Trouble::Wrong(format!("an event that was delivered is {other:?}"))),
        }
    })
}

pub(super) fn tokio_mpsc() -> Outcome<f64> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<u64>(CAPACITY);
    let taken = Arc::new(AtomicU64::new(0));
    let (done, finished) = mpsc::channel();
    let count = Arc::clone(&taken);
    let cores = super::wake::cores();
    let runs = move || -> Outcome<()> {
        if let Some(core) = cores.0 {
            // Unpinned it measures too.
            let _ = crate::leash::pin_to(core);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().doing("tokio's runtime")?;
        let tasks = tokio::task::LocalSet::new();
        let sum = tasks.block_on(&runtime, async move {
            let busy = tokio::task::spawn_local(async {
                loop {
                    tokio::task::yield_now().await;
                }
            });
            let mut sum = 0_u64;
            let mut n = 0;
            while let Some(message) = receiver.recv().await {
                sum = sum.wrapping_add(message);
                n += 1;
                if n % BATCH == 0 {
                    count.store(n, Ordering::Relaxed);
                }
            }
            busy.abort();
            sum
        });
        // As above.
        let _ = done.send(sum);
        Ok(())
    };
    std::thread::scope(|scope| {
        let taker = std::thread::Builder::new().spawn_scoped(scope, runs).doing("a thread")?;
        let took = time(|| {
            sending(|| {
                let sent = in_batches(&taken, |message| {
                    sender.try_send(message).map_err(|error| Trouble::Wrong(error.to_string()))
                });
                drop(sender);
                sent
            })?;
            finished.recv_timeout(PATIENCE).map_err(|_| late()).map(|_| ())
        })?;
        taker.join().map_err(|_| Trouble::Wrong("the taker panicked".to_owned()))??;
        Ok(each(took))
    })
}

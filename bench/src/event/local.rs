//! One thread alone: events to a continuation, and futures that yield once.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use event::{Cont, Continuation, Event, Thread};
use stats::{Beat, Cells};

use super::{processor_time, thread};
use crate::error::{Doing, Outcome};

/// Events or futures a turn.
const BATCH: u32 = 256;
/// Turns.
const TURNS: u32 = 4_000;

struct Counter(u64, &'static str);

impl Continuation for Counter {
    fn handle_event(&mut self, _event: Event, _thread: &Thread) {
        self.0 += 1;
    }
    fn name(&self) -> &'static str {
        self.1
    }
}

pub(super) fn schedule() -> Outcome<f64> {
    deliver(&thread()?, &["counter"])
}

/// The same with what a server has: a beat that names what runs, here two in turns, and cells for the loop's numbers.
pub(super) fn schedule_watched() -> Outcome<f64> {
    let thread = thread()?;
    thread.set_beat(Beat::detached());
    thread.set_cells(Cells::detached());
    deliver(&thread, &["http client session", "kv server connection"])
}

fn deliver(thread: &Thread, names: &[&'static str]) -> Outcome<f64> {
    let conts: Vec<Cont> = names.iter().map(|&name| -> Cont { Rc::new(RefCell::new(Counter(0, name))) }).collect();
    let mut actions = Vec::with_capacity(BATCH as usize);
    let took = processor_time(|| {
        for _ in 0..TURNS {
            for cont in conts.iter().cycle().take(BATCH as usize) {
                actions.push(thread.schedule_imm(Rc::clone(cont)));
            }
            thread.turn(false).doing("a turn")?;
            actions.clear();
        }
        Ok(())
    })?;
    Ok(took / f64::from(BATCH * TURNS))
}

/// Ends at its second poll.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

pub(super) fn spawn() -> Outcome<f64> {
    let thread = thread()?;
    let done = Rc::new(Cell::new(0_u32));
    let took = processor_time(|| {
        for _ in 0..TURNS / 2 {
            for _ in 0..BATCH {
                let done = Rc::clone(&done);
                drop(thread.spawn("yielding", async move {
                    yield_once().await;
                    done.set(done.get() + 1);
                }));
            }
            while thread.tasks_live() > 0 {
                thread.turn(false).doing("a turn")?;
            }
        }
        Ok(())
    })?;
    Ok(took / f64::from(done.get()))
}

pub(super) fn tokio_spawn() -> Outcome<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().doing("tokio's runtime")?;
    let tasks = tokio::task::LocalSet::new();
    let done = Rc::new(Cell::new(0_u32));
    let took = processor_time(|| {
        tasks.block_on(&runtime, async {
            for turn in 1..=TURNS / 2 {
                for _ in 0..BATCH {
                    let done = Rc::clone(&done);
                    drop(tokio::task::spawn_local(async move {
                        tokio::task::yield_now().await;
                        done.set(done.get() + 1);
                    }));
                }
                while done.get() < turn * BATCH {
                    tokio::task::yield_now().await;
                }
            }
        });
        Ok(())
    })?;
    Ok(took / f64::from(done.get()))
}

//! Timers that are set and taken back, as most are, beside few and many that stay.

use std::cell::RefCell;
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use event::{Action, Cont, Continuation, Event, Thread};

use super::{processor_time, thread};
use crate::error::{Doing, Outcome};
use crate::table::median;

const ROUNDS: u32 = 200_000;
const TURNS: u32 = 2_000;

struct Nobody;

impl Continuation for Nobody {
    fn handle_event(&mut self, _event: Event, _thread: &Thread) {}
    fn name(&self) -> &'static str {
        "nobody"
    }
}

/// Moments from a second to half an hour ahead, spread over the wheel.
fn ahead(n: u32) -> Duration {
    Duration::from_millis(1_000 + u64::from(n.wrapping_mul(2_654_435_761) % 1_800_000))
}

fn pending(thread: &Thread, cont: &Cont, count: u32) -> Vec<Action> {
    (0..count).map(|n| thread.schedule_in(Rc::clone(cont), ahead(n))).collect()
}

pub(super) fn ours(count: u32) -> Outcome<f64> {
    let thread = thread()?;
    let cont: Cont = Rc::new(RefCell::new(Nobody));
    let _pending = pending(&thread, &cont, count);
    let took = processor_time(|| {
        for n in 0..ROUNDS {
            black_box(thread.schedule_in(Rc::clone(&cont), ahead(n))).cancel();
        }
        Ok(())
    })?;
    Ok(took / f64::from(ROUNDS))
}

pub(super) fn sleeps(count: u32) -> Outcome<f64> {
    let thread = thread()?;
    let cont: Cont = Rc::new(RefCell::new(Nobody));
    let _pending = pending(&thread, &cont, count);
    let mut context = Context::from_waker(Waker::noop());
    let took = processor_time(|| {
        for n in 0..ROUNDS {
            let mut sleep = thread.sleep(ahead(n));
            black_box(Pin::new(&mut sleep).poll(&mut context).is_pending());
        }
        Ok(())
    })?;
    Ok(took / f64::from(ROUNDS))
}

pub(super) fn tokio_sleeps(count: u32) -> Outcome<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().doing("tokio's runtime")?;
    let _entered = runtime.enter();
    let mut context = Context::from_waker(Waker::noop());
    let mut pending: Vec<_> = (0..count).map(|n| Box::pin(tokio::time::sleep(ahead(n)))).collect();
    for sleep in &mut pending {
        black_box(sleep.as_mut().poll(&mut context).is_pending());
    }
    let took = processor_time(|| {
        for n in 0..ROUNDS {
            let mut sleep = std::pin::pin!(tokio::time::sleep(ahead(n)));
            black_box(sleep.as_mut().poll(&mut context).is_pending());
        }
        Ok(())
    })?;
    Ok(took / f64::from(ROUNDS))
}

/// What an empty turn costs more when a million timers are pending.
pub(super) fn turn_beside_a_million() -> Outcome<f64> {
    let cont: Cont = Rc::new(RefCell::new(Nobody));
    let (full, empty) = (thread()?, thread()?);
    let _pending = pending(&full, &cont, 1_000_000);
    let of = |thread: &Thread| {
        processor_time(|| {
            for _ in 0..TURNS {
                thread.turn(false).doing("a turn")?;
            }
            Ok(())
        })
    };
    let mut more = Vec::new();
    for _ in 0..5 {
        more.push((of(&full)? - of(&empty)?) / f64::from(TURNS));
    }
    Ok(median(&more).max(0.0))
}

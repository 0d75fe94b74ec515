//! A timer with both faces: a hand-written continuation every 100 ms, and a future that sleeps.
//!
//! ```text
//! cargo run -p beltway-event --example timer
//! ```

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use event::{Action, Continuation, Event, Thread, ThreadOptions};

/// Counts to five, and then takes its own next event back.
struct Ticker {
    ticks: u32,
    action: Option<Action>,
}

impl Continuation for Ticker {
    fn handle_event(&mut self, event: Event, thread: &Thread) {
        if event != Event::Interval {
            // `Event::Cancelled`: the thread ends, and no tick will come.
            return;
        }
        self.ticks += 1;
        println!("tick {} at {:?}", self.ticks, thread.now());
        if self.ticks == 5 {
            // Dropping the action cancels: nothing is delivered afterwards.
            self.action = None;
            thread.stop();
        }
    }

    fn name(&self) -> &'static str {
        "ticker"
    }
}

fn main() -> std::io::Result<()> {
    let thread = Thread::new(ThreadOptions { name: "[EXAMPLE]".to_owned(), index: 0, seed: 1 })?;
    let ticker = Rc::new(RefCell::new(Ticker { ticks: 0, action: None }));
    let action = thread.schedule_every(ticker.clone(), Duration::from_millis(100));
    ticker.borrow_mut().action = Some(action);
    let me = thread.clone();
    thread.spawn("sleeper", async move {
        me.sleep(Duration::from_millis(250)).await;
        println!("slept until {:?}", me.now());
    });
    thread.run()
}

//! The event system: event threads, continuations and their two faces, events, cancellable actions, timers.
#![allow(unsafe_code, reason = "futures in pooled memory, and wakers that are numbers")]

mod background;
mod continuation;
mod driver;
mod external;
mod listener;
pub mod log;
mod lookup;
mod memory;
mod processor;
mod registry;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod sleep;
mod task;
mod tcp;
mod thread;
mod timer;
mod turn;

pub use background::{Background, BackgroundError, BackgroundThreads, QUEUE_MAX, background};
pub use continuation::{Action, Cont, Continuation, Event};
pub use listener::{Listener, OnAccept, Shares};
pub use lookup::{LookupError, look_up};
pub use processor::{Processor, ProcessorOptions};
pub use registry::current;
pub use sleep::{Elapsed, Sleep, timeout};
pub use sys::epoll::Ready;
pub use task::Task;
pub use tcp::{Detached, Tcp};
pub use thread::{Handle, Thread, ThreadOptions};
pub use turn::TurnStats;

#[cfg(test)]
mod tests;

//! The event system: event threads, continuations and their two faces, events, cancellable actions, timers.
#![allow(unsafe_code, reason = "futures in pooled memory, and wakers that are numbers")]

mod background;
mod cancel;
pub mod channel;
mod continuation;
mod driver;
mod external;
mod listener;
pub mod local;
pub mod log;
mod lookup;
mod memory;
pub mod metrics;
mod overflow;
mod parcel;
mod parking;
mod processor;
mod registry;
mod remote;
mod ring;
mod select;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod sleep;
mod sync;
mod task;
mod tcp;
mod thread;
mod timer;
mod turn;

pub use background::{Background, BackgroundError, BackgroundThreads, QUEUE_MAX, background};
pub use cancel::Cancelled;
pub use continuation::{Action, Cont, Continuation, Event};
pub use external::{MESSAGES_MAX, Refused};
pub use listener::{Listener, OnAccept, Shares};
pub use lookup::{LookupError, look_up};
pub use processor::{ET_CALL, ET_NET, ET_TASK, Group, Groups, Processor, ProcessorOptions, cores_usable};
pub use registry::current;
pub use remote::{MadeThere, RemoteAction, made_there};
pub use select::{Either, select};
pub use sleep::{Elapsed, Sleep, timeout};
pub use sys::epoll::Ready;
pub use task::{Task, yield_now};
pub use tcp::{Detached, Tcp};
pub use thread::{Handle, Thread, ThreadOptions};
pub use turn::{Longest, TurnStats};

#[cfg(test)]
mod tests;

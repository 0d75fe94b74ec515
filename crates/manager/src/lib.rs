//! The manager process: owns the listeners and the configuration, starts servers and replaces dead ones.
//!
//! ```text
//! supervisor   the poll loop of the main thread: signals, control socket, deaths, heartbeats, orderly stop
//! change       reload and restart: prepare, commit, replace
//! servers      one server process: start with inherited listeners, adoption of one that lives, its end
//! listeners    where the listeners come from: a server or cop that holds them, else bound
//! upgrade      another program in place of this one: manager and cop become it, then a server of it
//! standby      the server that stands by for the one that dies
//! staged       one key of the file, set by an operator and written when it is in force
//! held         servers of pools that an operator took out of their rings, remembered
//! readiness    readiness that fails by an operator's wish
//! vigil        the side of the server that serves: who hangs is ended
//! pulse        from the beats of event threads to who hangs
//! report       what is known of the tree, published whole for whoever asks
//! admin        the control plane for operators, on a thread of its own; supervision never waits for it
//! ```
//!
//! A healthy server is adopted, never killed, because its manager died. Start at [`run`].

pub mod admin;
mod change;
mod held;
mod listeners;
mod pulse;
mod readiness;
mod report;
mod servers;
mod staged;
mod standby;
mod supervisor;
mod upgrade;
mod vigil;

pub use supervisor::run;

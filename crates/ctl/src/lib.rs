//! The control client: what an operator's commands ask of the running processes, and how the answers look.
//!
//! [`status`] asks manager for the tree; when manager is just being respawned, the leases tell who lives. [`stop`] stops
//! the top process and makes sure of the rest. [`change`] has a configuration judged or put in force. [`tree`] and
//! [`verdict`] draw answers for a terminal.

mod ask;
mod draw;
mod draw_cache;
mod draw_kv;

pub use ask::{
    Census, CtlError, Known, cache, change, drain, hold, kv, memory, numbers, reopen_logs, serve, set_log_level,
    status, stop,
};
pub use draw::{census, memory_table, obituaries, settings, tree, verdict};
pub use draw_cache::{known_text, totals_text};
pub use draw_kv::{commands_table, pools_json, pools_table, servers_json, servers_table, slow_table};

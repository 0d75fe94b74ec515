//! Supervision: leases, control sockets, hand-over of listeners, heartbeats, respawn. No event system in it.
//!
//! Everything here serves plain poll loops of one thread: the stub, cop, manager and the server's main thread. Who
//! decides what (which process is started, adopted, killed) is the business of those four; this room holds what they
//! share.
//!
//! ```text
//! runtime_dir/  beltway.lock  cop.lock  manager.lock  server.N.lock     who lives       -> lease
//!               cop.sock      manager.sock            server.N.sock     how it is asked -> control, heartbeat
//!               generation    committed.yaml          server.N.numbers  what outlives it
//!               cop.witness   manager.witness         server.N.witness  where threads say what they do -> witness
//!               held                                                    servers taken out by hand -> held
//!               restored                                                and taken back: who is to hear of it
//!               reserve                                                 given up on a full disk -> room
//! ```
//!
//! Read [`directory`] for the files, [`lease`] for how a process is found and never mistaken for another,
//! [`control`] for what processes say to each other, [`role`] for how one starts the next.

pub mod backoff;
pub mod cache;
pub mod change;
pub mod configuration;
pub mod control;
pub mod directory;
pub mod failure;
pub mod heartbeat;
pub mod held;
pub mod kv;
pub mod lease;
mod lines;
pub mod listener;
pub mod log;
pub mod memory;
pub mod numbers;
pub mod obituary;
pub mod page;
pub mod privilege;
pub mod reaped;
pub mod role;
pub mod room;
pub mod sign;
pub mod status;
pub mod stop;
pub mod succession;
mod symbols;
pub mod wait;
pub mod watch;
pub mod witness;

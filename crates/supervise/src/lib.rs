//! Supervision: leases, control sockets, hand-over of listeners, heartbeats, respawn. No event system in it.
//!
//! Everything here serves plain poll loops of one thread: the stub, cop, manager and the server's main thread. Who
//! decides what (which process is started, adopted, killed) is the business of those four; this room holds what they
//! share.
pub mod status;

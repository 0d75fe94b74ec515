//! Everything that touches the kernel directly: a safe, thin face over each system call that Beltway makes.
//!
//! Nothing here decides, retries or remembers. Descriptors are owned, errors are the kernel's. Above this floor no
//! code names a system call.
#![allow(unsafe_code, reason = "system calls that no safe binding offers")]

pub mod ancillary;
pub mod arena;
pub mod daemon;
pub mod epoll;
pub mod exec;
pub mod lock;
pub mod memory;
pub mod notify;
pub mod output;
pub mod privilege;
pub mod process;
pub mod queue;
pub mod shm;
pub mod signal;
pub mod socket;
pub mod task;
pub mod thread;
pub mod wake;
pub mod witness;

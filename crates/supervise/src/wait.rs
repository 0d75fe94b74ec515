//! Waiting for descriptors, always with a bound.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use base::Instant;
use rustix::event::{PollFd, PollFlags, Timespec};

/// No wait is longer, whatever is asked: a loop that forgot a deadline still turns.
pub const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Waits until one of `descriptors` is readable or `timeout` has passed. Which one it was, the caller finds out by
/// asking each without waiting. A signal that interrupts ends the wait.
///
/// # Errors
/// What `poll(2)` says but `EINTR`.
pub fn readable(descriptors: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<()> {
    let mut fds: Vec<_> = descriptors.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = timeout.min(WAIT_MAX);
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    match rustix::event::poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// How long from `now` to the earliest of some moments; [`WAIT_MAX`] when there is none.
#[must_use]
pub fn until_earliest(now: Instant, moments: impl IntoIterator<Item = Option<Instant>>) -> Duration {
    moments.into_iter().flatten().min().map_or(WAIT_MAX, |moment| moment.since(now))
}

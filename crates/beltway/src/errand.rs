//! What the top process has manager do, because a signal said so: reload or upgrade, one at a time.
//!
//! The stub never waits: the errand is looked after in each turn of its loop. A manager that is just being brought back
//! is waited for, within a bound.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use base::Instant;
use supervise::change::{Outcome, Proposal, Step};
use supervise::control::{Connection, ControlError, Reply, Request};
use supervise::directory::RuntimeDir;

/// How long a manager that does not answer its socket is waited for.
const REACHED_WITHIN: Duration = Duration::from_secs(5);
/// Between two tries.
const TRY_INTERVAL: Duration = Duration::from_millis(25);
/// How long a verdict may take beyond the start of a server, which manager bounds itself.
const MARGIN: Duration = Duration::from_secs(30);

/// One errand.
#[derive(Debug)]
pub(crate) struct Errand {
    step: Step,
    since: Instant,
    bound: Duration,
    connection: Option<Connection>,
    next_at: Instant,
}

/// How it ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Manager's verdict, which it has written to the log.
    Decided(Outcome),
    /// Nobody knows.
    Unknown(String),
}

impl Errand {
    pub(crate) fn begin(step: Step, now: Instant, start_timeout: Duration) -> Self {
        Self { step, since: now, bound: start_timeout.saturating_mul(2) + MARGIN, connection: None, next_at: now }
    }

    pub(crate) const fn what(&self) -> &'static str {
        match self.step {
            Step::Judge => "judgement",
            Step::Reload => "reload",
            Step::Restart => "restart",
            Step::Upgrade => "upgrade",
        }
    }

    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.connection.as_ref().map(AsFd::as_fd)
    }

    pub(crate) const fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Goes on with it. Never waits.
    pub(crate) fn turn(&mut self, directory: &RuntimeDir, now: Instant) -> Option<Ended> {
        let Some(connection) = &self.connection else {
            if now < self.next_at {
                return None;
            }
            let asked = Connection::open(&directory.manager_socket()).and_then(|connection| {
                connection.send(1, Request::Change { proposal: Proposal::File, step: self.step }, &[])?;
                Ok(connection)
            });
            match asked {
                Ok(connection) => {
                    self.connection = Some(connection);
                    self.next_at = self.since + self.bound;
                }
                Err(ControlError::Absent(..)) if now < self.since + REACHED_WITHIN => self.next_at = now + TRY_INTERVAL,
                Err(error) => return Some(Ended::Unknown(error.to_string())),
            }
            return None;
        };
        match connection.receive::<Reply>() {
            Ok(None) if now >= self.since + self.bound => {
                Some(Ended::Unknown(format!("manager gives no verdict within {:?}", self.bound)))
            }
            Ok(None) => None,
            Ok(Some((packet, _))) => Some(match packet.body {
                Reply::Verdict(verdict) => Ended::Decided(verdict.outcome),
                other => Ended::Unknown(format!("manager answers {other:?}")),
            }),
            Err(error) => Some(Ended::Unknown(format!("manager died or broke off: {error}"))),
        }
    }
}

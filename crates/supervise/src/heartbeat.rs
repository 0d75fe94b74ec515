//! One process asking another for a sign of life, at fixed intervals, whatever is outstanding.
//!
//! A [`Link`] never waits and never decides: it counts. A question still unanswered when the next is due is *missed*, and
//! an answer that comes later ends the silence all the same: who is given little of a processor is slow, and does not hang.
//! A broken connection is made again at the next question. What many misses mean is for the verdict of who watches.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::Instant;

use crate::control::{Connection, ControlError, Pong, Reply, Request};
use crate::status::HeartbeatStatus;

/// Between two tries to reach a process that has just been started and does not listen yet.
const ABSENT_INTERVAL: Duration = Duration::from_millis(10);
/// Answers taken in one turn.
const ANSWERS_A_TURN: usize = 16;

/// The questions to one process.
#[derive(Debug)]
pub struct Link {
    path: PathBuf,
    interval: Duration,
    connection: Option<Connection>,
    sequence: u64,
    /// The newest question, when it has no answer yet.
    asked_at: Option<Instant>,
    next_at: Instant,
    last_answer: Option<Instant>,
    /// Silence counts from here: the last answer, when one was first expected, or when it was last forgiven.
    silent_since: Option<Instant>,
    counted: HeartbeatStatus,
    pong: Option<Pong>,
    refused: Option<String>,
}

impl Link {
    /// Questions to the endpoint at `path`, the first one at once.
    #[must_use]
    pub fn new(path: &Path, interval: Duration) -> Self {
        Self {
            path: path.to_owned(),
            interval,
            connection: None,
            sequence: 0,
            asked_at: None,
            next_at: Instant::ORIGIN,
            last_answer: None,
            silent_since: None,
            counted: HeartbeatStatus::default(),
            pong: None,
            refused: None,
        }
    }

    /// When [`Link::turn`] wants to be called at the latest.
    #[must_use]
    pub const fn next_at(&self) -> Instant {
        self.next_at
    }

    /// What to wait for.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.connection.as_ref().map(AsFd::as_fd)
    }

    /// Takes what was answered and asks again when it is time. `true`: an answer came.
    pub fn turn(&mut self, now: Instant) -> bool {
        let answered = self.take_answers(now);
        if now >= self.next_at {
            self.ask(now);
        }
        answered
    }

    /// Asks at the next turn, whatever the interval says: somebody just became ready.
    pub fn hurry(&mut self, now: Instant) {
        if self.asked_at.is_none() {
            self.next_at = now;
        }
    }

    /// It is known to be ready, though it has not answered us yet: silence counts from now.
    pub fn expect(&mut self, now: Instant) {
        self.silent_since.get_or_insert(now);
    }

    /// The newest answer.
    #[must_use]
    pub const fn pong(&self) -> Option<&Pong> {
        self.pong.as_ref()
    }

    /// Missed since the last answer.
    #[must_use]
    pub const fn missed_in_a_row(&self) -> u32 {
        self.counted.missed_in_a_row
    }

    /// How long it has given no answer; `None` when it never gave one and none was [expected](Link::expect).
    #[must_use]
    pub fn silent_for(&self, now: Instant) -> Option<Duration> {
        self.silent_since.map(|since| now.since(since))
    }

    /// Why the last answer was of no use: another protocol, a refusal.
    #[must_use]
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Our own clock stood still: what was missed meanwhile was nobody's fault.
    pub fn forgive(&mut self, now: Instant) {
        self.counted.missed_in_a_row = 0;
        self.silent_since = self.silent_since.map(|_| now);
        self.asked_at = None;
        self.next_at = now;
    }

    /// The counts as of `now`.
    #[must_use]
    pub fn status(&self, now: Instant) -> HeartbeatStatus {
        let age = self.last_answer.map(|at| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX));
        HeartbeatStatus { last_answer_age_ms: age, ..self.counted }
    }

    fn ask(&mut self, now: Instant) {
        if self.asked_at.take().is_some() {
            self.miss();
        }
        self.next_at = now + self.interval;
        self.sequence += 1;
        match self.send() {
            Ok(()) => {
                self.counted.sent += 1;
                self.asked_at = Some(now);
            }
            // It never answered: it is starting, and will be there in a moment.
            Err(ControlError::Absent(..)) if self.last_answer.is_none() => {
                self.next_at = now + self.interval.min(ABSENT_INTERVAL);
            }
            Err(_) => {
                // Nobody there, or he does not read: as good as no answer.
                self.counted.sent += 1;
                self.connection = None;
                self.miss();
            }
        }
    }

    fn send(&mut self) -> Result<(), ControlError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.path)?,
        };
        connection.send(self.sequence, Request::Ping, &[])?;
        self.connection = Some(connection);
        Ok(())
    }

    fn miss(&mut self) {
        self.counted.missed += 1;
        self.counted.missed_in_a_row = self.counted.missed_in_a_row.saturating_add(1);
    }

    fn take_answers(&mut self, now: Instant) -> bool {
        let mut any = false;
        for _ in 0..ANSWERS_A_TURN {
            let Some(connection) = &self.connection else { break };
            match connection.receive::<Reply>() {
                Ok(Some((packet, _))) => {
                    // An answer to a question that was counted as missed: it stays so, and its giver lives.
                    let asked_at = if packet.sequence == self.sequence { self.asked_at.take() } else { None };
                    match packet.body {
                        Reply::Pong(pong) => {
                            self.pong = Some(pong);
                            self.refused = None;
                            self.last_answer = Some(now);
                            self.silent_since = Some(now);
                            self.counted.answered += 1;
                            any = true;
                            if let Some(asked_at) = asked_at {
                                self.counted.missed_in_a_row = 0;
                                let round_trip = now.since(asked_at).as_micros();
                                self.counted.round_trip_us = u64::try_from(round_trip).unwrap_or(u64::MAX);
                            }
                        }
                        other => self.refused = Some(format!("an answer to another question: {other:?}")),
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    if !matches!(error, ControlError::Closed) {
                        self.refused = Some(error.to_string());
                    }
                    // What was asked stays unanswered, and is counted as missed when the next question is due.
                    self.connection = None;
                }
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Endpoint;

    const INTERVAL: Duration = Duration::from_millis(500);

    #[test]
    fn a_question_is_missed_when_the_next_is_due_and_an_answer_clears_the_row() {
        let path = std::env::temp_dir().join(format!("beltway-heartbeat-{}.sock", std::process::id()));
        let mut now = Instant::from_nanos(1);
        let mut link = Link::new(&path, INTERVAL);
        for _ in 0..3 {
            link.turn(now);
            now = link.next_at();
        }
        assert_eq!(link.status(now), HeartbeatStatus::default(), "it is starting: nothing is missed yet");
        assert!(now < Instant::from_nanos(1) + INTERVAL, "and looked for more often");

        let mut endpoint = Endpoint::bind(&path).unwrap();
        link.turn(now);
        let questions = endpoint.questions();
        assert!(!link.turn(now + Duration::from_millis(499)));
        now = now + INTERVAL;
        link.turn(now);
        assert_eq!(link.missed_in_a_row(), 1, "somebody is there and does not answer");
        endpoint.answer(&questions[0], Reply::Pong(Pong { pid: 1, ..Pong::default() }), &[]);
        assert!(link.turn(now), "a late answer is a sign of life");
        assert_eq!((link.missed_in_a_row(), link.silent_for(now)), (1, Some(Duration::ZERO)), "and was missed");
        let questions = endpoint.questions();
        endpoint.answer(&questions[0], Reply::Pong(Pong { pid: 2, ..Pong::default() }), &[]);
        assert!(link.turn(now + Duration::from_millis(1)));
        let status = link.status(now + Duration::from_millis(3));
        assert_eq!((status.sent, status.answered, status.missed, status.missed_in_a_row), (2, 2, 1, 0));
        assert_eq!((status.last_answer_age_ms, status.round_trip_us), (Some(2), 1000));
        assert_eq!(link.pong().unwrap().pid, 2);

        drop(endpoint);
        assert!(!link.turn(now + Duration::from_millis(4)));
        now = now + INTERVAL;
        link.turn(now);
        assert_eq!(link.status(now).missed_in_a_row, 1, "a broken connection is made again, and missed meanwhile");
        assert_eq!(link.silent_for(now), Some(INTERVAL - Duration::from_millis(1)));
        link.forgive(now);
        assert_eq!((link.missed_in_a_row(), link.silent_for(now)), (0, Some(Duration::ZERO)));
    }
}

//! What to do when an attempt at an origin failed: again on a fresh connection, the next origin, or an answer.
//!
//! RFC 9110 §9.2.2: a proxy must not repeat a request that is not idempotent, unless it knows that the origin never
//! got it. RFC 9112 §9.3.1: a connection may be closed under a request; then an idempotent one is repeated, once.

/// How an attempt ended without a response.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// The name of the origin has no address.
    Unresolved,
    /// No address of the origin took a connection.
    Unreachable,
    /// None did in time.
    ConnectTimedOut,
    /// The connection ended, or was reset, before the first byte of a response.
    Closed,
    /// No first byte in time, or the request was not taken in time.
    ResponseTimedOut,
    /// The head of the response breaks the rules.
    BadResponse,
}

impl Fault {
    /// Every fault, in the order of their numbers.
    pub const ALL: &[Self] = &[
        Self::Unresolved,
        Self::Unreachable,
        Self::ConnectTimedOut,
        Self::Closed,
        Self::ResponseTimedOut,
        Self::BadResponse,
    ];

    /// The status for the client when nothing more is tried.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::ConnectTimedOut | Self::ResponseTimedOut => 504,
            Self::Unresolved | Self::Unreachable | Self::Closed | Self::BadResponse => 502,
        }
    }

    /// One sentence for the error page.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Unresolved => "the name of the origin server does not resolve",
            Self::Unreachable => "the origin server accepts no connections",
            Self::ConnectTimedOut => "the origin server did not accept a connection in time",
            Self::Closed => "the origin server closed the connection without an answer",
            Self::ResponseTimedOut => "the origin server did not answer in time",
            Self::BadResponse => "the origin server's answer is not valid HTTP",
        }
    }

    /// Its name in logs and numbers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unresolved => "origin-unresolved",
            Self::Unreachable => "origin-unreachable",
            Self::ConnectTimedOut => "origin-connect-timeout",
            Self::Closed => "origin-closed",
            Self::ResponseTimedOut => "origin-timeout",
            Self::BadResponse => "origin-bad-response",
        }
    }

    const fn before_a_connection(self) -> bool {
        matches!(self, Self::Unresolved | Self::Unreachable | Self::ConnectTimedOut)
    }
}

/// What is known when an attempt has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// How it failed.
    pub fault: Fault,
    /// The connection had served before.
    pub reused: bool,
    /// The method may be repeated.
    pub idempotent: bool,
    /// A byte of this request was taken by the kernel.
    pub sent: bool,
    /// All of the body that was read so far is still here.
    pub replayable: bool,
    /// A fresh connection was forced already, after a kept one had been closed.
    pub retried: bool,
    /// Attempts left, this one not counted.
    pub left: usize,
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// The same origin, on a new connection.
    FreshConnection,
    /// The next origin, or the next address.
    NextOrigin,
    /// Tell the client.
    Answer,
}

/// Decides.
#[must_use]
pub const fn after(attempt: Attempt) -> Next {
    if attempt.fault.before_a_connection() {
        return if attempt.left > 0 && attempt.replayable { Next::NextOrigin } else { Next::Answer };
    }
    let safe = (attempt.idempotent || !attempt.sent) && attempt.replayable;
    let closed_under_it = matches!(attempt.fault, Fault::Closed) && attempt.reused;
    if closed_under_it && safe && !attempt.retried { Next::FreshConnection } else { Next::Answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_attempt() -> Vec<Attempt> {
        let mut all = Vec::new();
        for &fault in Fault::ALL {
            for bits in 0..32_u32 {
                let bit = |n: u32| bits & (1 << n) != 0;
                for left in [0, 2] {
                    all.push(Attempt {
                        fault,
                        reused: bit(0),
                        idempotent: bit(1),
                        sent: bit(2),
                        replayable: bit(3),
                        retried: bit(4),
                        left,
                    });
                }
            }
        }
        all
    }

    #[test]
    fn a_request_that_may_have_been_acted_on_is_never_sent_twice() {
        for attempt in every_attempt() {
            if attempt.sent && !attempt.idempotent && !attempt.fault.before_a_connection() {
                assert_eq!(after(attempt), Next::Answer, "{attempt:?}");
            }
        }
    }

    #[test]
    fn a_body_that_is_gone_is_not_sent_again() {
        for attempt in every_attempt().into_iter().filter(|attempt| !attempt.replayable) {
            assert_eq!(after(attempt), Next::Answer, "{attempt:?}");
        }
    }

    #[test]
    fn a_fresh_connection_is_tried_once_and_only_after_a_kept_one_was_closed() {
        for attempt in every_attempt() {
            if after(attempt) == Next::FreshConnection {
                assert!(attempt.reused && !attempt.retried && attempt.fault == Fault::Closed, "{attempt:?}");
            }
            let closed = Attempt { fault: Fault::Closed, reused: true, retried: false, replayable: true, ..attempt };
            if closed.idempotent || !closed.sent {
                assert_eq!(after(closed), Next::FreshConnection, "{closed:?}");
            }
        }
    }

    #[test]
    fn the_next_origin_is_tried_while_attempts_are_left_and_only_when_none_was_reached() {
        for attempt in every_attempt() {
            let expected = attempt.fault.before_a_connection() && attempt.left > 0 && attempt.replayable;
            assert_eq!(after(attempt) == Next::NextOrigin, expected, "{attempt:?}");
        }
    }
}

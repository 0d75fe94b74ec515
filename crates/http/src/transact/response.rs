//! How a response goes to the client, and what becomes of both connections.

use crate::rules::framing::{Framing, frame_response};
use crate::wire::h1::Version;
use crate::wire::{Body, Method};

/// What is known when the head of a final response is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// The client's version.
    pub client: Version,
    /// The client wants to keep its connection.
    pub client_keeps: bool,
    /// This server goes away: every response is the last.
    pub draining: bool,
    /// The request's body was read to its end.
    pub request_read: bool,
    /// The response's body, as the origin frames it.
    pub body: Body,
}

/// The framing towards the client, and whether its connection goes on.
#[must_use]
pub const fn to_client(facts: Facts) -> (Framing, bool) {
    // An unread body would be taken for the next request: the connection ends then.
    let keep = facts.client_keeps && !facts.draining && facts.request_read;
    frame_response(facts.client, keep, facts.body)
}

/// Whether the connection to the origin may serve again.
#[must_use]
pub const fn origin_goes_on(origin_keeps: bool, request_sent: bool, body_whole: bool, unasked_bytes: bool) -> bool {
    origin_keeps && request_sent && body_whole && !unasked_bytes
}

/// Whether an interim response goes to the client (RFC 9110 §15.2: not to HTTP/1.0; a 100 only to who waits for one).
#[must_use]
pub const fn forwards_interim(client: Version, status: u16, expects_continue: bool) -> bool {
    matches!(client, Version::Http11) && (status != 100 || expects_continue)
}

/// Whether a method's request may be repeated (RFC 9110 §9.2.2).
#[must_use]
pub const fn may_repeat(method: Method) -> bool {
    method.is_idempotent()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_goes_on_only_when_everybody_can_tell_where_the_message_ends() {
        let good = Facts {
            client: Version::Http11,
            client_keeps: true,
            draining: false,
            request_read: true,
            body: Body::Length(5),
        };
        assert_eq!(to_client(good), (Framing::Length(5), true));
        for facts in [
            Facts { client_keeps: false, ..good },
            Facts { draining: true, ..good },
            Facts { request_read: false, ..good },
            Facts { client: Version::Http10, body: Body::Chunked, ..good },
        ] {
            assert!(!to_client(facts).1, "{facts:?}");
        }
        assert_eq!(to_client(Facts { body: Body::UntilClose, ..good }), (Framing::Chunked, true));
    }

    #[test]
    fn an_origin_that_said_more_than_it_was_asked_is_not_asked_again() {
        assert!(origin_goes_on(true, true, true, false));
        for facts in [
            [false, true, true, false],
            [true, false, true, false],
            [true, true, false, false],
            [true, true, true, true],
        ] {
            assert!(!origin_goes_on(facts[0], facts[1], facts[2], facts[3]), "{facts:?}");
        }
    }

    #[test]
    fn interim_responses_go_to_those_who_know_them() {
        assert!(forwards_interim(Version::Http11, 103, false));
        assert!(forwards_interim(Version::Http11, 100, true));
        assert!(!forwards_interim(Version::Http11, 100, false));
        assert!(!forwards_interim(Version::Http10, 103, true));
    }
}

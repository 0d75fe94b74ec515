//! How the content of a response is framed towards the client (RFC 9112 §6), and whether the connection outlives it.

use crate::wire::Body;
use crate::wire::h1::Version;

/// How content goes to the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// There is none: interim responses, 204, 304, answers to HEAD. A length the origin named is repeated where it may
    /// be (not in 1xx and 204).
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Until we close.
    UntilClose,
}

/// Chooses the framing, and says whether the connection may be kept.
///
/// An HTTP/1.1 client gets chunks when the length is not known. An HTTP/1.0 client does not know chunks: it reads
/// until close, which is why it is the one case where `keep_alive` turns false.
#[must_use]
pub const fn frame_response(client: Version, keep_alive: bool, content: Body) -> (Framing, bool) {
    match (content, client) {
        (Body::None, _) => (Framing::None, keep_alive),
        (Body::Length(len), _) => (Framing::Length(len), keep_alive),
        (Body::Chunked | Body::UntilClose, Version::Http11) => (Framing::Chunked, keep_alive),
        (Body::Chunked | Body::UntilClose, Version::Http10) => (Framing::UntilClose, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_framings() {
        use Version::{Http10, Http11};
        for (client, content, framing, keep) in [
            (Http11, Body::None, Framing::None, true),
            (Http10, Body::None, Framing::None, true),
            (Http11, Body::Length(5), Framing::Length(5), true),
            (Http10, Body::Length(0), Framing::Length(0), true),
            (Http11, Body::Chunked, Framing::Chunked, true),
            (Http11, Body::UntilClose, Framing::Chunked, true),
            (Http10, Body::Chunked, Framing::UntilClose, false),
            (Http10, Body::UntilClose, Framing::UntilClose, false),
        ] {
            assert_eq!(frame_response(client, true, content), (framing, keep), "{client:?} {content:?}");
            assert_eq!(frame_response(client, false, content), (framing, false), "{client:?} {content:?}");
        }
    }
}

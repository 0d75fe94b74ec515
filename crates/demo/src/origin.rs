//! The demonstration origin as a service of the HTTP engine: the site's answers on an ordinary connection.

use base::WallTime;
use http::local::{Piece, Pieces, Request, Response, Service};

use crate::site::{self, Body, Connection, DemoRequest, Framing};

/// The embedded origin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin;

struct Content(Body);

impl Pieces for Content {
    fn next_piece(&mut self) -> Option<Piece> {
        self.0.next_piece().map(|piece| Piece { delay: piece.delay, bytes: piece.bytes })
    }
}

impl Service for Origin {
    fn respond(&self, request: &Request<'_>) -> Response {
        let now: WallTime = request.now;
        let answer =
            site::respond(&DemoRequest { method: request.method, target: request.target, head: request.head }, now);
        let mut head = Vec::with_capacity(512);
        let connection = Connection { http_11: request.http_11, keep_alive: request.keep_alive };
        let keep = answer.write_head(now, connection, &mut head);
        let chunked = answer.framing == Framing::Chunked && request.http_11 && request.method != b"HEAD";
        Response { head, keep, chunked, body: Box::new(Content(answer.body)) }
    }
}

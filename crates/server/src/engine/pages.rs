//! The server's own page: whether it is well, and its numbers when it runs alone.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use event::Shares;
use http::local::{Request, Response, Service};
use http::rules::date;
use stats::{Segment, Snapshot, prometheus};

use super::Identity;

/// See the module.
pub(super) struct Pages {
    identity: Identity,
    segment: Segment,
    clients: Arc<Shares>,
    /// Faults may be asked for.
    faults: bool,
    leaving: Arc<AtomicBool>,
}

impl Pages {
    /// `leaving`: readiness is to fail, whatever else is well.
    pub(super) fn new(identity: Identity, segment: Segment, clients: Arc<Shares>, leaving: Arc<AtomicBool>) -> Self {
        Self { identity, segment, clients, faults: super::faults::are_wanted(), leaving }
    }

    fn page(&self, path: &[u8]) -> (u16, &'static str, &'static str, String) {
        const TEXT: &str = "text/plain; charset=utf-8";
        match path {
            b"/healthz" => {
                let draining = self.clients.is_draining() || self.leaving.load(Ordering::Relaxed);
                let (status, phrase, state) =
                    if draining { (503, "Service Unavailable", "draining") } else { (200, "OK", "ok") };
                let Identity { pid, generation } = self.identity;
                (status, phrase, TEXT, format!("{state}\npid {pid}\ngeneration {generation}\n"))
            }
            b"/metrics" => match Snapshot::read(self.segment.words()) {
                Ok(snapshot) => (200, "OK", prometheus::CONTENT_TYPE, prometheus::render(&snapshot)),
                Err(error) => (500, "Internal Server Error", TEXT, format!("{error}\n")),
            },
            _ => (404, "Not Found", TEXT, "There are two pages here: /healthz and /metrics.\n".into()),
        }
    }
}

impl Service for Pages {
    fn respond(&self, request: &Request<'_>) -> Response {
        let path = request.target.split(|&byte| byte == b'?').next().unwrap_or_default();
        let (mut status, mut phrase, kind, mut text) = self.page(path);
        let mut more = "";
        if self.faults && request.method == b"POST" {
            super::faults::commit(path);
        }
        if !matches!(request.method, b"GET" | b"HEAD") {
            (status, phrase, more) = (405, "Method Not Allowed", "Allow: GET, HEAD\r\n");
            text = "Only GET and HEAD.\n".into();
        }
        let connection = match (request.keep_alive, request.http_11) {
            (false, _) => "Connection: close\r\n",
            (true, true) => "",
            (true, false) => "Connection: keep-alive\r\n",
        };
        let mut head = String::with_capacity(256);
        let date = date::format(request.now.as_secs());
        // Writing to a string cannot fail.
        let _ = write!(
            head,
            "HTTP/1.1 {status} {phrase}\r\nDate: {}\r\nContent-Type: {kind}\r\nCache-Control: no-store\r\n\
             Content-Length: {}\r\n{more}{connection}\r\n",
            String::from_utf8_lossy(&date),
            text.len()
        );
        let body = (request.method != b"HEAD").then(|| Cow::Owned(text.into_bytes()));
        Response {
            head: head.into_bytes(),
            keep: request.keep_alive,
            chunked: false,
            body: super::faults::held_back(body),
        }
    }
}

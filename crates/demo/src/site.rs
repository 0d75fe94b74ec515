//! The demonstration site: a few pages with validators and lifetimes, and paths to try a proxy with.
//!
//! Pure: [`respond`] takes a request head and the time, and answers with a [`DemoResponse`]. Whoever owns the
//! connection writes the head with [`DemoResponse::write_head`], then sends [`Body::next_piece`] after piece, waiting
//! before each as long as it says. Pages and bulk bytes are static and never copied.
//!
//! ```text
//! / /about /style.css /belt.svg   pages: ETag, Last-Modified, max-age; 304 on If-None-Match, If-Modified-Since
//! /time /echo                     never stored        /vary /stale   stored by the rules they carry
//! /slow?ms=N  /chunked  /bytes/N  /status/NNN         late, in pieces, large, failing
//! ```
//!
//! Request bodies are not looked at: the driver reads and drops them. Every length and delay has a limit here.

mod body;
mod date;
mod page;
mod request;

pub use body::{Body, Piece};
pub use request::DemoRequest;

use base::WallTime;
use page::Page;
use std::borrow::Cow;
use std::io::Write as _;
use std::time::Duration;

/// The longest `/slow` waits.
pub const DELAY_MAX: Duration = Duration::from_secs(10);

/// The most `/bytes` sends: 1 GiB.
pub const BYTES_MAX: u64 = 1 << 30;

/// The longest request head `/echo` returns; of a longer one the beginning.
pub const ECHO_MAX: usize = 64 << 10;

/// How long pages stay fresh. Short, so that expiry can be watched.
const PAGE_LIFETIME: &str = "public, max-age=60";
const NEVER_STORED: &str = "no-store";

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// What the site answers.
#[derive(Debug)]
pub struct DemoResponse {
    /// The status code, 200 to 599.
    pub status: u16,
    /// Field lines in the order they are sent, without those that frame the body or are about the connection.
    pub fields: Vec<(&'static str, Cow<'static, str>)>,
    /// What follows the head. Without pieces for HEAD, 204 and 304.
    pub body: Body,
    /// How the end of the body is told.
    pub framing: Framing,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// There is no body and no field about one: 204 and 304.
    None,
    /// `Content-Length`; also what a HEAD request is told of the body it does not get.
    Length(u64),
    /// `Transfer-Encoding: chunked` or, to a client of HTTP/1.0, the end of the connection.
    Chunked,
}

/// What the connection says of itself in a response head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Connection {
    /// The request was HTTP/1.1 or later.
    pub http_11: bool,
    /// The connection stays open afterwards, as the driver would have it.
    pub keep_alive: bool,
}

impl DemoResponse {
    /// Appends the response head to `out`: status line, `Date`, fields, framing. Answers whether the connection may
    /// stay open: not when its end has to tell the body's.
    pub fn write_head(&self, now: WallTime, connection: Connection, out: &mut Vec<u8>) -> bool {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "HTTP/1.1 {} {}\r\nDate: {}\r\n", self.status, reason(self.status), date::Imf(now));
        let _ = write!(out, "Server: beltway-demonstration/{}\r\n", base::VERSION);
        for (name, value) in &self.fields {
            let _ = write!(out, "{name}: {value}\r\n");
        }
        let mut keep_alive = connection.keep_alive;
        match self.framing {
            Framing::None => {}
            Framing::Length(length) => {
                let _ = write!(out, "Content-Length: {length}\r\n");
            }
            Framing::Chunked if connection.http_11 => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Framing::Chunked => keep_alive = false,
        }
        if !keep_alive {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if !connection.http_11 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
        keep_alive
    }

    fn new(status: u16, content_type: &'static str, lifetime: &'static str, body: Body) -> Self {
        let framing = body.length().map_or(Framing::Chunked, Framing::Length);
        let fields = vec![
            ("Content-Type", Cow::Borrowed(content_type)),
            ("Cache-Control", Cow::Borrowed(lifetime)),
            // A page that shows what was sent must not be taken for a program.
            ("X-Content-Type-Options", Cow::Borrowed("nosniff")),
        ];
        Self { status, fields, body, framing }
    }

    fn text(status: u16, lifetime: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(status, TEXT, lifetime, Body::text(text.into()))
    }

    fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.fields.push((name, value.into()));
        self
    }
}

/// What the site answers to `request` at the time `now`. Total: whatever the bytes, there is an answer.
#[must_use]
pub fn respond(request: &DemoRequest<'_>, now: WallTime) -> DemoResponse {
    let mut response = match request.method {
        b"GET" | b"HEAD" => find(request, now),
        b"OPTIONS" => DemoResponse::text(204, NEVER_STORED, "").with("Allow", allowed(request.path())),
        _ if request.path() == b"/echo" => echo(request),
        _ => DemoResponse::text(405, NEVER_STORED, "only /echo takes other methods than GET and HEAD\n")
            .with("Allow", allowed(request.path())),
    };
    if matches!(response.status, 204 | 304) {
        response.framing = Framing::None;
        response.body = Body::EMPTY;
    } else if request.method == b"HEAD" {
        response.body = Body::EMPTY;
    }
    response
}

fn allowed(path: &[u8]) -> &'static str {
    if path == b"/echo" { "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS" } else { "GET, HEAD, OPTIONS" }
}

fn find(request: &DemoRequest<'_>, now: WallTime) -> DemoResponse {
    let path = request.path();
    if let Some(page) = Page::at(path) {
        return show(page, request);
    }
    match path {
        b"/time" => DemoResponse::text(200, NEVER_STORED, format!("It is {}.\n", date::Imf(now))),
        b"/echo" => echo(request),
        b"/slow" => slow(request),
        b"/chunked" => DemoResponse::new(200, TEXT, "public, max-age=10", Body::trickle()),
        b"/vary" => vary(request),
        b"/stale" => {
            let text = format!("Made at {}. Fresh for 2 s, usable for 30 more while fetched anew.\n", date::Imf(now));
            DemoResponse::text(200, "public, max-age=2, stale-while-revalidate=30", text)
        }
        _ if path.starts_with(b"/bytes/") => bytes(&path[b"/bytes/".len()..]),
        _ if path.starts_with(b"/status/") => status(&path[b"/status/".len()..]),
        _ => DemoResponse::new(404, HTML, "public, max-age=5", Body::fixed(page::MISSING)),
    }
}

/// A page, or 304 when the client's copy is this one.
fn show(page: &'static Page, request: &DemoRequest<'_>) -> DemoResponse {
    let unchanged = match request.field(b"if-none-match") {
        Some(tags) => request::lists_tag(tags, page.etag.as_bytes()),
        // An exact match is enough: the only date a client can have from us is this one.
        None => request.field(b"if-modified-since").is_some_and(|date| date == page::LAST_MODIFIED.as_bytes()),
    };
    let status = if unchanged { 304 } else { 200 };
    DemoResponse::new(status, page.content_type, PAGE_LIFETIME, Body::fixed(page.content))
        .with("ETag", page.etag)
        .with("Last-Modified", page::LAST_MODIFIED)
}

fn echo(request: &DemoRequest<'_>) -> DemoResponse {
    let head = &request.head[..request.head.len().min(ECHO_MAX)];
    let mut text = b"The demonstration origin received:\n\n".to_vec();
    text.extend(head.iter().copied().filter(|byte| *byte != b'\r'));
    DemoResponse::new(200, TEXT, NEVER_STORED, Body::owned(text))
}

fn slow(request: &DemoRequest<'_>) -> DemoResponse {
    let wanted = match request.query_value(b"ms") {
        None => Some(1_000),
        Some(digits) => request::number(digits),
    };
    let Some(wanted) = wanted else {
        return DemoResponse::text(400, NEVER_STORED, "/slow?ms=N wants a number of milliseconds\n");
    };
    let delay = Duration::from_millis(wanted).min(DELAY_MAX);
    let text = format!("This took {} ms.\n", delay.as_millis());
    let mut response = DemoResponse::text(200, NEVER_STORED, text);
    response.body.delay_first(delay);
    response
}

fn bytes(digits: &[u8]) -> DemoResponse {
    match request::number(digits) {
        Some(length) if length <= BYTES_MAX => DemoResponse::new(200, TEXT, PAGE_LIFETIME, Body::bulk(length))
            .with("ETag", format!("\"bytes-{length}\""))
            .with("Last-Modified", page::LAST_MODIFIED),
        _ => DemoResponse::text(400, NEVER_STORED, format!("/bytes/N wants a number from 0 to {BYTES_MAX}\n")),
    }
}

fn status(digits: &[u8]) -> DemoResponse {
    let code = request::number(digits).and_then(|code| u16::try_from(code).ok());
    let Some(code) = code.filter(|code| (200..600).contains(code)) else {
        return DemoResponse::text(400, NEVER_STORED, "/status/NNN wants a number from 200 to 599\n");
    };
    let response = DemoResponse::text(code, "public, max-age=5", format!("{code} {}\n", reason(code)));
    match code {
        300..=303 | 305..=399 => response.with("Location", "/"),
        401 => response.with("WWW-Authenticate", "Basic realm=\"demonstration\""),
        405 => response.with("Allow", "GET, HEAD, OPTIONS"),
        407 => response.with("Proxy-Authenticate", "Basic realm=\"demonstration\""),
        416 => response.with("Content-Range", "bytes */0"),
        426 => response.with("Upgrade", "HTTP/1.1"),
        429 | 503 => response.with("Retry-After", "1"),
        _ => response,
    }
}

fn vary(request: &DemoRequest<'_>) -> DemoResponse {
    /// More is not repeated.
    const SHOWN_MAX: usize = 200;
    let asked = request.field(b"accept-encoding").unwrap_or(b"nothing");
    let asked = String::from_utf8_lossy(&asked[..asked.len().min(SHOWN_MAX)]);
    let text = format!("Accept-Encoding was: {asked}\nEach value of that field has its own copy in a cache.\n");
    DemoResponse::text(200, PAGE_LIFETIME, text).with("Vary", "Accept-Encoding")
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        418 => "I'm a Teapot",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Demonstration",
    }
}

#[cfg(test)]
mod tests;

//! Messages that the tests of this room are told with.

use base::WallTime;

use super::Exchange;
use crate::rules::date;
use crate::wire::Method;
use crate::wire::h1::{Limits, RequestHead, ResponseHead, Status};

/// 2026-11-21, when all responses are received.
pub(crate) const NOW_S: i64 = 1_795_219_200;
pub(crate) const NOW: WallTime = WallTime::from_secs(NOW_S);

pub(crate) fn request_of(text: &str) -> (RequestHead, Vec<u8>) {
    let mut head = RequestHead::new();
    assert_eq!(head.parse(text.as_bytes(), &Limits::default()), Ok(Status::Complete), "{text:?}");
    (head, text.as_bytes().to_vec())
}

/// A GET with these lines.
pub(crate) fn request(lines: &str) -> (RequestHead, Vec<u8>) {
    request_of(&format!("GET /x HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n"))
}

/// A response to GET with these lines.
pub(crate) fn response(status: u16, lines: &str) -> (ResponseHead, Vec<u8>) {
    let text = format!("HTTP/1.1 {status} Said\r\n{lines}\r\n");
    let mut head = ResponseHead::new();
    assert_eq!(head.parse(text.as_bytes(), &Limits::default(), Method::Get), Ok(Status::Complete), "{text:?}");
    (head, text.into_bytes())
}

/// An exchange that took half a second and ended [`NOW`].
pub(crate) fn exchanged<T>(
    request_lines: &str,
    status: u16,
    response_lines: &str,
    judge: impl FnOnce(&Exchange<'_>) -> T,
) -> T {
    let (request, request_text) = request(request_lines);
    let (response, response_text) = response(status, response_lines);
    judge(&Exchange {
        request: &request,
        request_text: &request_text,
        response: &response,
        response_text: &response_text,
        request_time: WallTime::from_micros(NOW.as_micros() - 500_000),
        response_time: NOW,
    })
}

/// A field whose value is the date so many seconds from [`NOW`].
pub(crate) fn date_line(name: &str, offset_s: i64) -> String {
    format!("{name}: {}\r\n", String::from_utf8_lossy(&date::format(NOW_S + offset_s)))
}

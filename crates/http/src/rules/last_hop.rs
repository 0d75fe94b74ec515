//! What we answer ourselves when [`super::forward::max_forwards`] says that the request ends here (RFC 9110 §7.6.2).

use super::forward::ConnectionField;
use super::sink::{Decimal, HeadSink};
use crate::wire::Method;
use crate::wire::field::{FieldSet, Known};
use crate::wire::h1::RequestHead;

/// Not reflected by TRACE (RFC 9110 §9.3.8): what a script in a browser must not get to read.
const SENSITIVE: FieldSet = FieldSet::of(&[
    Known::Cookie,
    Known::Authorization,
    Known::ProxyAuthorization,
    Known::Forwarded,
    Known::XForwardedFor,
    Known::XRealIp,
]);

/// Writes head and content of the answer: to TRACE the request as it came, to OPTIONS the methods that are passed on.
pub fn write_last_hop_answer(
    sink: &mut impl HeadSink,
    head: &RequestHead,
    buf: &[u8],
    date: &[u8],
    connection: ConnectionField,
) {
    let is_trace = head.method() == Method::Trace;
    let mut content = Length(0);
    if is_trace {
        put_trace(&mut content, head, buf);
    }
    sink.reserve(content.0 + 256);
    sink.put(b"HTTP/1.1 200 OK\r\nDate: ");
    sink.put(date);
    sink.put(if is_trace {
        b"\r\nContent-Type: message/http\r\nContent-Length: ".as_slice()
    } else {
        b"\r\nAllow: GET, HEAD, POST, PUT, DELETE, OPTIONS, TRACE, PATCH, PURGE\r\nContent-Length: "
    });
    sink.put(Decimal::new(content.0 as u64).as_bytes());
    sink.put(b"\r\n");
    sink.put(connection.line());
    sink.put(b"\r\n");
    if is_trace {
        put_trace(sink, head, buf);
    }
}

fn put_trace(sink: &mut impl HeadSink, head: &RequestHead, buf: &[u8]) {
    for part in [head.method_bytes(buf), b" ", head.target(buf), b" ", head.version().name().as_bytes(), b"\r\n"] {
        sink.put(part);
    }
    for field in head.fields(buf).filter(|field| !SENSITIVE.has(field.known)) {
        for part in [field.name, b": ", field.value, b"\r\n"] {
            sink.put(part);
        }
    }
    sink.put(b"\r\n");
}

/// Counts what would be written.
struct Length(usize);

impl HeadSink for Length {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Body;
    use crate::wire::h1::{Limits, ResponseHead, Status};

    fn answer(request: &str) -> (ResponseHead, String) {
        let mut head = RequestHead::new();
        assert_eq!(head.parse(request.as_bytes(), &Limits::default()), Ok(Status::Complete));
        let mut out = Vec::new();
        write_last_hop_answer(
            &mut out,
            &head,
            request.as_bytes(),
            b"Thu, 01 Jan 1970 00:00:00 GMT",
            ConnectionField::Absent,
        );
        let mut response = ResponseHead::new();
        assert_eq!(response.parse(&out, &Limits::default(), head.method()), Ok(Status::Complete));
        let content = String::from_utf8(out.split_off(response.head_len())).unwrap();
        (response, content)
    }

    #[test]
    fn trace_reflects_the_request_without_its_secrets() {
        let request = "TRACE /x HTTP/1.1\r\nHost: a\r\nCookie: s=1\r\nMax-Forwards:  0\r\nAuthorization: b\r\n\r\n";
        let (head, content) = answer(request);
        assert_eq!(content, "TRACE /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n");
        assert_eq!(head.body(), Body::Length(content.len() as u64));
    }

    #[test]
    fn options_says_what_is_passed_on() {
        let (head, content) = answer("OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n");
        assert_eq!((head.status(), head.body(), content.as_str()), (200, Body::Length(0), ""));
        assert!(head.present().has(Known::Allow));
    }
}

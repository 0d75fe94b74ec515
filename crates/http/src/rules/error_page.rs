//! The small, plain page that says what went wrong and whose fault it was.

use super::forward::ConnectionField;
use super::sink::{Decimal, HeadSink};
use super::status::{Fault, reason_phrase};

/// One error, as the client is told.
#[derive(Clone, Copy, Debug)]
pub struct ErrorPage<'a> {
    /// 400 to 599.
    pub status: u16,
    /// What exactly is wrong, one sentence without a full stop. Plain text: it is never read as HTML. Control bytes in
    /// it are for the caller to avoid.
    pub detail: &'a str,
    /// Our name, at the bottom of the page.
    pub signature: &'a str,
    /// The time now as an IMF-fixdate.
    pub date: &'a [u8],
    /// What to say of the connection.
    pub connection: ConnectionField,
    /// The request was HEAD: no content, but its length.
    pub head_only: bool,
    /// When to come back, for 503.
    pub retry_after_s: Option<u32>,
}

/// Writes head and content. It is never stored (`no-store`), and needs no escaping, being `text/plain`.
pub fn write_error_page(sink: &mut impl HeadSink, page: &ErrorPage<'_>) {
    let status = Decimal::new(u64::from(page.status));
    let reason = reason_phrase(page.status).as_bytes();
    let sentence = Fault::of(page.status).sentence().as_bytes();
    let (detail, signature) = (page.detail.as_bytes(), page.signature.as_bytes());
    let content: [&[u8]; 11] = [
        status.as_bytes(),
        b" ",
        reason,
        b"\n\n",
        sentence,
        if detail.is_empty() { b"" } else { b"\nReason: " },
        detail,
        if detail.is_empty() { b"" } else { b"." },
        b"\n\n-- ",
        signature,
        b"\n",
    ];
    let len: usize = content.iter().map(|part| part.len()).sum();

    sink.reserve(len + 256);
    for part in [b"HTTP/1.1 ".as_slice(), status.as_bytes(), b" ", reason, b"\r\nDate: ", page.date] {
        sink.put(part);
    }
    sink.put(b"\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\nContent-Length: ");
    sink.put(Decimal::new(len as u64).as_bytes());
    sink.put(b"\r\n");
    if let Some(seconds) = page.retry_after_s {
        sink.put(b"Retry-After: ");
        sink.put(Decimal::new(u64::from(seconds)).as_bytes());
        sink.put(b"\r\n");
    }
    sink.put(page.connection.line());
    sink.put(b"\r\n");
    if !page.head_only {
        for part in content {
            sink.put(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::h1::{Limits, ResponseHead, Status};
    use crate::wire::{Body, Method};

    const PAGE: ErrorPage<'_> = ErrorPage {
        status: 502,
        detail: "both Content-Length and Transfer-Encoding",
        signature: "beltway",
        date: b"Sun, 06 Nov 1994 08:49:37 GMT",
        connection: ConnectionField::Close,
        head_only: false,
        retry_after_s: None,
    };

    fn written(page: &ErrorPage<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        write_error_page(&mut out, page);
        out
    }

    #[test]
    fn the_page_is_a_lawful_response_whose_length_is_true() {
        let out = written(&PAGE);
        let mut head = ResponseHead::new();
        assert_eq!(head.parse(&out, &Limits::default(), Method::Get), Ok(Status::Complete));
        assert_eq!((head.status(), head.reason(&out), head.keep_alive()), (502, b"Bad Gateway".as_slice(), false));
        assert_eq!(head.body(), Body::Length((out.len() - head.head_len()) as u64));
        let text = String::from_utf8(out.clone()).unwrap();
        assert!(text.contains("origin server did not give a usable answer"), "{text}");
        assert!(text.contains("Reason: both Content-Length and Transfer-Encoding.\n"), "{text}");
    }

    #[test]
    fn an_answer_to_head_has_the_same_head_and_no_content() {
        let (full, head_only) = (written(&PAGE), written(&ErrorPage { head_only: true, ..PAGE }));
        assert!(full.starts_with(&head_only) && head_only.ends_with(b"\r\n\r\n"));
    }

    #[test]
    fn every_error_has_somebody_whose_fault_it_is() {
        for (status, words) in [(400, "request was not accepted"), (431, "request"), (503, "proxy"), (504, "in time")] {
            let page = ErrorPage { status, detail: "", retry_after_s: Some(1), ..PAGE };
            let text = String::from_utf8(written(&page)).unwrap();
            assert!(text.contains(words) && !text.contains("Reason") && text.contains("Retry-After: 1\r\n"), "{text}");
        }
    }
}

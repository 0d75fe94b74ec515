use super::super::body::{Body, Decoder};
use super::super::method::Method;
use super::*;
use crate::specimens::{self, Refusal};

mod properties;

const SMALL: Limits = specimens::LIMITS;

/// What parsing a request says: of the whole, and byte by byte.
fn parse(bytes: &[u8]) -> (Result<Status, HeadError>, RequestHead) {
    let mut head = RequestHead::new();
    (head.parse(bytes, &SMALL), head)
}

fn parse_in_pieces(bytes: &[u8]) -> (Result<Status, HeadError>, RequestHead) {
    let mut head = RequestHead::new();
    for end in 0..=bytes.len() {
        match head.parse(&bytes[..end], &SMALL) {
            Ok(Status::Partial) => {}
            decided => return (decided, head),
        }
    }
    (Ok(Status::Partial), head)
}

fn lawful(text: &str) -> RequestHead {
    let (result, head) = parse(text.as_bytes());
    assert_eq!(result, Ok(Status::Complete), "{text:?}");
    head
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn every_malformed_request_is_refused_for_its_own_fault() {
    let all = specimens::malformed_requests();
    assert!(all.len() >= 300, "{}", all.len());
    let mut wrong = Vec::new();
    for specimen in &all {
        let (result, _) = parse(&specimen.bytes);
        if result != Err(specimen.reason.into()) {
            wrong.push(format!(
                "{:?}: {result:?}, expected {:?}",
                String::from_utf8_lossy(&specimen.bytes),
                specimen.reason
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
}

#[test]
fn no_malformed_request_gets_through_in_pieces() {
    for specimen in specimens::malformed_requests() {
        let (result, _) = parse_in_pieces(&specimen.bytes);
        assert_eq!(result, Err(specimen.reason.into()), "{:?}", String::from_utf8_lossy(&specimen.bytes));
    }
}

#[test]
fn the_specimens_are_different() {
    let mut all: Vec<_> = specimens::malformed_requests().into_iter().map(|s| s.bytes).collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert!(all.len() >= 300 && count - all.len() < 5, "{count} and {} of them different", all.len());
}

#[test]
fn every_hostile_response_is_found_out() {
    let all = specimens::hostile_responses();
    assert!(all.len() >= 100, "{}", all.len());
    let mut wrong = Vec::new();
    for specimen in &all {
        for piece in [usize::MAX, 1, 7] {
            let found = receive(&specimen.bytes, piece);
            if found != Some(specimen.refusal) {
                let bytes = String::from_utf8_lossy(&specimen.bytes);
                wrong.push(format!("{bytes:?} in pieces of {piece}: {found:?}, expected {:?}", specimen.refusal));
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Receives a response as a driver does; why it was refused.
fn receive(bytes: &[u8], piece: usize) -> Option<Refusal> {
    let mut head = ResponseHead::new();
    let mut end = 0_usize;
    loop {
        end = end.saturating_add(piece).min(bytes.len());
        match head.parse(&bytes[..end], &SMALL, Method::Get) {
            Ok(Status::Complete) => break,
            Ok(Status::Partial) => assert!(end < bytes.len(), "{bytes:?}"),
            Err(ResponseError(reason)) => return Some(Refusal::Head(reason)),
        }
    }
    let mut decoder = Decoder::new(head.body(), &SMALL);
    let mut at = head.head_len();
    loop {
        while at < end && !decoder.is_done() {
            match decoder.step(&bytes[at..end]) {
                Ok(step) => at += step.consumed,
                Err(error) => return Some(Refusal::Body(error)),
            }
        }
        if end == bytes.len() {
            return decoder.feed_eof().err().map(Refusal::Body);
        }
        end = end.saturating_add(piece).min(bytes.len());
    }
}

#[test]
fn lawful_but_rare_requests_are_accepted() {
    for text in [
        "GET / HTTP/1.0\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
        "GET http://a HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET HTTP://a:80/?x HTTP/1.1\r\nHost:\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        "CONNECT [::1]:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "M-SEARCH /x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a?b=\"c\"|{d}^`<e>\\ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET //a//b/../c%2F%zz HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:    a   \t \r\nX:\r\nY: \t \r\nZ: \u{fc}\u{ff} \t x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n!#$%&'*+-.^_`|~: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0005\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:  Chunked \r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 9223372036854775807\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nExpect: anything\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:\r\nConnection: ,, close ,\r\nConnection:\r\n\r\n",
    ] {
        lawful(text);
        let (result, _) = parse_in_pieces(text.as_bytes());
        assert_eq!(result, Ok(Status::Complete), "{text:?}");
    }
}

#[test]
fn a_request_tells_all_its_parts() {
    let buf = "\r\nPOST http://Example.com:81/a/b?c HTTP/1.1\r\nHost: other\r\nContent-Length: 5\r\nX-A: 1\r\n\
               Cache-Control: a\r\ncache-control: b\r\nExpect: 100-continue\r\n\r\nhello";
    let head = lawful(buf);
    let buf = buf.as_bytes();
    assert_eq!((head.method(), text(head.method_bytes(buf))), (Method::Post, "POST"));
    assert_eq!((head.target_form(), head.scheme()), (TargetForm::Absolute, Some(Scheme::Http)));
    assert_eq!(text(head.target(buf)), "http://Example.com:81/a/b?c");
    assert_eq!((text(head.authority(buf)), text(head.path_and_query(buf))), ("Example.com:81", "/a/b?c"));
    assert_eq!((head.version(), head.body(), head.keep_alive()), (Version::Http11, Body::Length(5), true));
    assert!(head.expects_continue());
    assert_eq!(&buf[head.head_len()..], b"hello");
    let values: Vec<_> = head.find(Known::CacheControl, buf).collect();
    assert_eq!(values, [b"a", b"b"]);
    assert!(head.present().has(Known::CacheControl) && !head.present().has(Known::Via));
    let fields: Vec<_> = head.fields(buf).map(|f| (text(f.name), text(f.value))).collect();
    assert_eq!(fields.len(), head.field_count());
    assert_eq!(fields[2], ("X-A", "1"));
}

#[test]
fn absolute_targets_without_a_path_mean_the_root_or_with_options_the_server() {
    for (line, path) in [
        ("GET http://a", "/"),
        ("GET http://a?x", "?x"),
        ("OPTIONS http://a", "*"),
        ("OPTIONS http://a/", "/"),
        ("OPTIONS *", "*"),
        ("CONNECT a:80", ""),
    ] {
        let buf = format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(text(lawful(&buf).path_and_query(buf.as_bytes())), path, "{line}");
    }
}

#[test]
fn connections_persist_as_version_and_options_say() {
    for (version, connection, keep) in [
        ("1.1", "", true),
        ("1.1", "close", false),
        ("1.1", "Close, keep-alive", false),
        ("1.1", "foo, CLOSE", false),
        ("1.1", "closed", true),
        ("1.0", "", false),
        ("1.0", "keep-alive", true),
        ("1.0", "x, Keep-Alive", true),
        ("1.0", "keep-alive, close", false),
    ] {
        let request = format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
        assert_eq!(lawful(&request).keep_alive(), keep, "{request:?}");
        let response = format!("HTTP/{version} 200 OK\r\nContent-Length: 0\r\nConnection: {connection}\r\n\r\n");
        assert_eq!(answer(&response, Method::Get).keep_alive(), keep, "{response:?}");
    }
}

fn answer(response: &str, method: Method) -> ResponseHead {
    let mut head = ResponseHead::new();
    assert_eq!(head.parse(response.as_bytes(), &SMALL, method), Ok(Status::Complete), "{response:?}");
    head
}

#[test]
fn content_of_responses_depends_on_status_and_method() {
    for (start, fields, method, body) in [
        ("HTTP/1.1 200 OK", "Content-Length: 5\r\n", Method::Get, Body::Length(5)),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked\r\n", Method::Post, Body::Chunked),
        ("HTTP/1.1 200 OK", "", Method::Get, Body::UntilClose),
        ("HTTP/1.0 200", "", Method::Get, Body::UntilClose),
        ("HTTP/1.1 200 ", "Content-Length: 5\r\n", Method::Head, Body::None),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked\r\n", Method::Head, Body::None),
        ("HTTP/1.1 304 Not Modified", "Content-Length: 5\r\n", Method::Get, Body::None),
        ("HTTP/1.1 204 No Content", "", Method::Get, Body::None),
        ("HTTP/1.1 100 Continue", "", Method::Post, Body::None),
        ("HTTP/1.1 103 Early Hints", "Link: <a>\r\n", Method::Get, Body::None),
        ("HTTP/1.1 200 OK", "", Method::Connect, Body::None),
        ("HTTP/1.1 403 Forbidden", "Content-Length: 5\r\n", Method::Connect, Body::Length(5)),
        ("HTTP/1.1 999 \u{fc}", "Content-Length: 0\r\n", Method::Get, Body::Length(0)),
    ] {
        let response = format!("{start}\r\n{fields}\r\n");
        let head = answer(&response, method);
        assert_eq!(head.body(), body, "{response:?} to {method:?}");
        assert_eq!(head.keep_alive(), body != Body::UntilClose);
        assert_eq!(head.is_interim(), start.contains(" 10"));
        assert_eq!(text(head.reason(response.as_bytes())), start.get(13..).unwrap_or_default());
        assert_eq!(head.head_len(), response.len());
    }
    let hinted = answer("HTTP/1.1 304 x\r\nContent-Length: 77\r\n\r\n", Method::Get);
    assert_eq!(hinted.content_length(), Some(77));
}

#[test]
fn pipelined_requests_are_parsed_one_behind_the_other() {
    let buf = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: b\r\nX: y\r\n\r\nGET /3";
    let mut head = RequestHead::new();
    assert_eq!(head.parse(buf, &SMALL), Ok(Status::Complete));
    let rest = &buf[head.head_len()..];
    assert_eq!(head.parse(rest, &SMALL), Ok(Status::Complete));
    assert_eq!((text(head.path_and_query(rest)), head.field_count()), ("/2", 2));
    let rest = &rest[head.head_len()..];
    assert_eq!(head.parse(rest, &SMALL), Ok(Status::Partial));
}

#[test]
fn both_sides_of_every_limit() {
    let head_of = |size: usize| {
        let shell = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(size - shell))
    };
    lawful(&head_of(SMALL.head_size));
    let (too_large, _) = parse(head_of(SMALL.head_size + 1).as_bytes());
    assert_eq!(too_large, Err(Reason::HeadTooLarge.into()));
    let fields_of = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    assert_eq!(lawful(&fields_of(SMALL.head_fields)).field_count(), SMALL.head_fields);
    let options =
        |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n", vec!["x"; count].join(","));
    lawful(&options(CONNECTION_OPTIONS_MAX));
    lawful(&format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(METHOD_LEN_MAX)));
    // Whatever is configured, offsets must fit.
    let mut head = RequestHead::new();
    let huge = Limits { head_size: usize::MAX, head_fields: usize::MAX };
    let full = format!("\r\n\r\n\r\n\r\n{}", head_of(HEAD_SIZE_MAX - 2 * EMPTY_LINES_MAX));
    assert_eq!(head.parse(full.as_bytes(), &huge), Ok(Status::Complete));
    assert_eq!(head.head_len(), HEAD_SIZE_MAX);
    assert_eq!(head.parse(head_of(HEAD_SIZE_MAX).as_bytes(), &huge), Err(Reason::HeadTooLarge.into()));
    assert_eq!(head.parse(fields_of(HEAD_FIELDS_MAX + 1).as_bytes(), &huge), Err(Reason::TooManyFields.into()));
}

use super::super::field::Known;

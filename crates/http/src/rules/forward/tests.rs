use super::*;
use crate::rules::framing::frame_response;
use crate::wire::h1::{Limits, Status};

const DATE: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";

fn client() -> ClientAddress {
    ClientAddress::of(std::net::Ipv4Addr::new(192, 0, 2, 1).into())
}

fn context(client: &ClientAddress) -> OriginContext<'_> {
    OriginContext {
        via: "beltway",
        client,
        scheme: "http",
        forwarded: ForwardedFields::Off,
        path_strip: 0,
        path_prefix: "",
        host: HostRule::Preserve { fallback: "origin:8000" },
        body: Body::None,
        expect: ExpectRule::Forward,
        trailers: false,
        close: false,
        drop: FieldSet::EMPTY,
        extra: b"",
    }
}

/// What the origin gets for this request; `change` adapts the context.
fn forwarded(request: &str, change: impl FnOnce(&mut OriginContext<'_>)) -> String {
    let mut head = RequestHead::new();
    assert_eq!(head.parse(request.as_bytes(), &Limits::default()), Ok(Status::Complete), "{request:?}");
    let client = client();
    let mut context = OriginContext { body: head.body(), ..context(&client) };
    change(&mut context);
    let mut out = Vec::new();
    write_origin_request(&mut out, &head, request.as_bytes(), &context);
    String::from_utf8(out).unwrap()
}

fn get(lines: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n")
}

#[test]
fn a_plain_request_goes_on_with_via_and_nothing_else_new() {
    assert_eq!(
        forwarded(&get("Accept: */*\r\nX-Y:  z \r\n"), |_| {}),
        "GET /x HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\nX-Y:  z \r\nVia: 1.1 beltway\r\n\r\n"
    );
}

#[test]
fn the_origin_is_told_who_asked() {
    let both = |c: &mut OriginContext<'_>| c.forwarded = ForwardedFields::Both;
    assert_eq!(
        forwarded(&get(""), both),
        "GET /x HTTP/1.1\r\nHost: a.example\r\nVia: 1.1 beltway\r\nX-Forwarded-For: 192.0.2.1\r\n\
         Forwarded: for=192.0.2.1;host=a.example;proto=http\r\n\r\n"
    );
    let chain = "X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\nA: b\r\nx-forwarded-for: 10.0.0.2, 10.0.0.3\r\n\
                 Via: 1.0 fred\r\nX-Forwarded-For:\r\nVIA: 1.1 barney (c)\r\n";
    assert_eq!(
        forwarded(&get(chain), both),
        "GET /x HTTP/1.1\r\nHost: a.example\r\nA: b\r\nVia: 1.0 fred, 1.1 barney (c), 1.1 beltway\r\n\
         X-Forwarded-For: 10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.1\r\n\
         Forwarded: for=10.0.0.1, for=192.0.2.1;host=a.example;proto=http\r\n\r\n"
    );
    let off = forwarded(&get("X-Forwarded-For: 10.0.0.1\r\n"), |_| {});
    assert!(off.contains("X-Forwarded-For: 10.0.0.1\r\n") && !off.contains("192.0.2.1"), "{off}");
    let one = forwarded(&get("Forwarded: for=z\r\n"), |c| c.forwarded = ForwardedFields::XForwardedFor);
    assert!(one.contains("Forwarded: for=z\r\n") && one.contains("X-Forwarded-For: 192.0.2.1\r\n"), "{one}");
}

#[test]
fn fields_of_the_hop_go_and_so_does_what_connection_names() {
    let lines = "Connection: close, X-Secret , te, upgrade,HTTP2-Settings\r\nA: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n\
                 X-SECRET: 1\r\nB: 2\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nProxy-Authorization: x\r\nC: 3\r\n\
                 x-secret: 2\r\nTrailer: X\r\n";
    assert_eq!(
        forwarded(&get(lines), |_| {}),
        "GET /x HTTP/1.1\r\nHost: a.example\r\nA: 1\r\nB: 2\r\nC: 3\r\nVia: 1.1 beltway\r\n\r\n"
    );
}

#[test]
fn connection_cannot_take_away_what_framing_and_routing_rest_on() {
    let request = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX-Forwarded-For: 10.0.0.1\r\nCache-Control: no-store\r\n\
                   Connection: content-length, host, via, x-forwarded-for, cache-control, transfer-encoding\r\nVia: 1.1 up\r\n\r\n";
    assert_eq!(
        forwarded(request, |c| c.forwarded = ForwardedFields::XForwardedFor),
        "POST /x HTTP/1.1\r\nHost: a\r\nCache-Control: no-store\r\nContent-Length: 5\r\nVia: 1.1 up, 1.1 beltway\r\n\
         X-Forwarded-For: 10.0.0.1, 192.0.2.1\r\n\r\n"
    );
}

#[test]
fn the_content_is_framed_once_and_as_the_context_says() {
    let post = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\nTrailer: X\r\n\r\n";
    assert!(forwarded(post, |_| {}).ends_with("Host: a\r\nContent-Length: 7\r\nVia: 1.1 beltway\r\n\r\n"));
    assert!(forwarded(post, |c| c.body = Body::Chunked).contains("Host: a\r\nTransfer-Encoding: chunked\r\nVia"));
    let chunked = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n";
    assert!(!forwarded(chunked, |_| {}).contains("Trailer"));
    assert!(forwarded(chunked, |c| c.trailers = true).contains("Trailer: X\r\nTransfer-Encoding: chunked\r\n"));
    let empty = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    assert!(forwarded(empty, |_| {}).contains("Content-Length: 0\r\n"));
}

#[test]
fn host_is_first_and_one_and_the_target_wins_over_it() {
    let start = |request: &str, rule| {
        let out = forwarded(request, |c| c.host = rule);
        out.lines().take(2).collect::<Vec<_>>().join("|")
    };
    let preserve = HostRule::Preserve { fallback: "origin:8000" };
    assert_eq!(
        start("GET http://b:81/p?q HTTP/1.1\r\nX: y\r\nHost: a\r\n\r\n", preserve),
        "GET /p?q HTTP/1.1|Host: b:81"
    );
    assert_eq!(start("GET / HTTP/1.0\r\n\r\n", preserve), "GET / HTTP/1.1|Host: origin:8000");
    assert_eq!(start("GET / HTTP/1.1\r\nHost: a\r\n\r\n", HostRule::Override("o")), "GET / HTTP/1.1|Host: o");
    assert_eq!(start("GET http://b HTTP/1.1\r\nHost: a\r\n\r\n", preserve), "GET / HTTP/1.1|Host: b");
    assert_eq!(start("GET http://b?q HTTP/1.1\r\nHost: a\r\n\r\n", preserve), "GET /?q HTTP/1.1|Host: b");
    assert_eq!(start("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", preserve), "OPTIONS * HTTP/1.1|Host: a");
    assert_eq!(start("OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n", preserve), "OPTIONS * HTTP/1.1|Host: b");
    let moved = forwarded("GET /a/b?c HTTP/1.1\r\nHost: a\r\n\r\n", |c| (c.path_strip, c.path_prefix) = (2, "/deep"));
    assert!(moved.starts_with("GET /deep/b?c HTTP/1.1\r\n"), "{moved}");
}

#[test]
fn requests_of_http_1_0_go_on_as_1_1_and_without_expectations() {
    let old = "POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(
        forwarded(old, |_| {}),
        "POST / HTTP/1.1\r\nHost: origin:8000\r\nContent-Length: 1\r\nVia: 1.0 beltway\r\n\r\n"
    );
    let new = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n";
    assert!(forwarded(new, |_| {}).contains("Expect: 100-continue\r\n"));
    assert!(!forwarded(new, |c| c.expect = ExpectRule::Drop).contains("Expect"));
    assert!(forwarded(new, |c| c.close = true).ends_with("\r\nConnection: close\r\n\r\n"));
}

#[test]
fn max_forwards_counts_down_for_trace_and_options_only() {
    for (method, value, found) in [
        ("OPTIONS", "0", MaxForwards::AnswerHere),
        ("TRACE", "000", MaxForwards::AnswerHere),
        ("OPTIONS", "1", MaxForwards::Forward(0)),
        ("TRACE", "10", MaxForwards::Forward(9)),
        ("GET", "0", MaxForwards::Unlimited),
        ("OPTIONS", "-1", MaxForwards::Unlimited),
        ("OPTIONS", "+1", MaxForwards::Unlimited),
        ("OPTIONS", "", MaxForwards::Unlimited),
        ("OPTIONS", "1\r\nMax-Forwards: 2", MaxForwards::Unlimited),
    ] {
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: {value}\r\n\r\n");
        let mut head = RequestHead::new();
        head.parse(request.as_bytes(), &Limits::default()).unwrap();
        assert_eq!(max_forwards(&head, request.as_bytes()), found, "{request:?}");
        let out = forwarded(&request, |_| {});
        match found {
            MaxForwards::Forward(n) => assert!(out.contains(&format!("Max-Forwards: {n}\r\n")), "{out}"),
            _ => assert!(out.contains(&format!("Max-Forwards: {value}\r\n")), "{out}"),
        }
    }
}

/// What the client gets for this answer.
fn returned(response: &str, version: Version, method: Method) -> String {
    let mut head = ResponseHead::new();
    assert_eq!(head.parse(response.as_bytes(), &Limits::default(), method), Ok(Status::Complete), "{response:?}");
    let (framing, keep_alive) = frame_response(version, true, head.body());
    let connection = if head.is_interim() { ConnectionField::Absent } else { ConnectionField::of(version, keep_alive) };
    let mut out = Vec::new();
    let context = ClientContext { via: "beltway", framing, connection, date: DATE, trailers: false, status: None };
    write_client_response(&mut out, &head, response.as_bytes(), &context);
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn responses_reach_the_client_framed_for_it() {
    use Version::{Http10, Http11};
    let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    for (response, version, method, expected) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 05\r\nA: b\r\nConnection: close, A\r\nKeep-Alive: 5\r\nC: d\r\n\r\n"
                .to_owned(),
            Http11,
            Method::Get,
            format!("HTTP/1.1 200 OK\r\nC: d\r\nContent-Length: 5\r\n{date}Via: 1.1 beltway\r\n\r\n"),
        ),
        (
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n{date}\r\n"),
            Http11,
            Method::Get,
            format!("HTTP/1.1 200 OK\r\n{date}Transfer-Encoding: chunked\r\nVia: 1.1 beltway\r\n\r\n"),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVia: 1.1 up\r\n\r\n".to_owned(),
            Http10,
            Method::Get,
            format!("HTTP/1.1 200 OK\r\n{date}Via: 1.1 up, 1.1 beltway\r\nConnection: close\r\n\r\n"),
        ),
        (
            "HTTP/1.0 200\r\n\r\n".to_owned(),
            Http11,
            Method::Get,
            format!("HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n{date}Via: 1.0 beltway\r\n\r\n"),
        ),
        (
            "HTTP/1.1 404 Not here\r\nContent-Length: 0\r\nProxy-Authenticate: x\r\nUpgrade: h2c\r\n\r\n".to_owned(),
            Http10,
            Method::Get,
            format!(
                "HTTP/1.1 404 Not here\r\nContent-Length: 0\r\n{date}Via: 1.1 beltway\r\nConnection: keep-alive\r\n\r\n"
            ),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n".to_owned(),
            Http11,
            Method::Head,
            format!("HTTP/1.1 200 OK\r\nContent-Length: 77\r\n{date}Via: 1.1 beltway\r\n\r\n"),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            Http11,
            Method::Head,
            format!("HTTP/1.1 200 OK\r\n{date}Via: 1.1 beltway\r\n\r\n"),
        ),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n".to_owned(),
            Http11,
            Method::Get,
            format!("HTTP/1.1 204 No Content\r\n{date}Via: 1.1 beltway\r\n\r\n"),
        ),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\nContent-Length: 5\r\n\r\n".to_owned(),
            Http11,
            Method::Get,
            "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\nVia: 1.1 beltway\r\n\r\n".to_owned(),
        ),
    ] {
        assert_eq!(returned(&response, version, method), expected, "{response:?} to {version:?}");
    }
}

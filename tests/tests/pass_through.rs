//! A request goes to the origin and its response comes back: what stays, what goes, what is added.

use std::time::Duration;

use walks::{Chunked, End, Kind, Origin, Server, eventually};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn fields_of_one_hop_stay_on_it_and_all_others_pass_as_they_came() {
    let origin = Origin::answering(|_| {
        b"HTTP/1.1 200 Fine\r\nX-Kept: 1\r\nx-lower:  two  words \r\nConnection: X-Named, keep-alive\r\nX-Named: 1\r\n\
          Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
          Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 2\r\n\r\nok"
            .to_vec()
    });
    let server = Server::to(&[&origin]);
    let response = server.client().ask(
        "GET /x?y=%20z HTTP/1.1\r\nHost: a.example\r\nConnection: X-Hop , Keep-Alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
         Proxy-Connection: keep-alive\r\nTE: trailers\r\nUpgrade: h2c\r\nX-Kept:   a  b \r\nX-Kept: c\r\n\
         Cookie: a=1\r\nAccept: */*\r\n\r\n",
    );
    let request = origin.last();
    assert_eq!(request.start, "GET /x?y=%20z HTTP/1.1");
    for gone in ["Connection", "X-Hop", "Keep-Alive", "Proxy-Connection", "TE", "Upgrade"] {
        assert_eq!(request.field(gone), None, "{gone}");
    }
    assert_eq!(request.values("X-Kept"), ["a  b", "c"]);
    assert_eq!(request.field("Cookie"), Some("a=1"));
    assert_eq!(request.field("Accept"), Some("*/*"));
    assert_eq!(request.field("Host"), Some("a.example"));

    assert_eq!(response.start, "HTTP/1.1 200 Fine");
    for gone in ["Connection", "X-Named", "Keep-Alive", "Proxy-Connection"] {
        assert_eq!(response.field(gone), None, "{gone}");
    }
    assert_eq!(response.field("X-Kept"), Some("1"));
    assert_eq!(response.field("x-lower"), Some("two  words"));
    assert_eq!(response.values("Set-Cookie"), ["a=1", "b=2"]);
    assert_eq!(response.field("Date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    assert_eq!(response.text(), "ok");
}

#[test]
fn both_sides_are_told_who_is_on_the_way() {
    let origin = Origin::answering(|_| b"HTTP/1.1 200 OK\r\nVia: 1.0 inner\r\nContent-Length: 0\r\n\r\n".to_vec());
    let server = Server::to(&[&origin]);
    let response = server.client().ask(
        "GET / HTTP/1.1\r\nHost: a.example:81\r\nVia: 1.0 fred\r\nVia: 1.1 wilma\r\nX-Forwarded-For: 192.0.2.1\r\n\
         Forwarded: for=192.0.2.1\r\n\r\n",
    );
    let request = origin.last();
    assert_eq!(request.field("Via"), Some("1.0 fred, 1.1 wilma, 1.1 beltway"));
    assert_eq!(request.field("X-Forwarded-For"), Some("192.0.2.1, 127.0.0.1"));
    let forwarded = "for=192.0.2.1, for=127.0.0.1;host=\"a.example:81\";proto=http";
    assert_eq!(request.field("Forwarded"), Some(forwarded));
    assert_eq!(response.field("Via"), Some("1.0 inner, 1.1 beltway"));
    assert!(response.field("Date").is_some(), "a response without a date gets one");
}

#[test]
fn a_request_that_goes_in_circles_is_stopped() {
    let origin = Origin::saying("never");
    let server = Server::to(&[&origin]);
    let via = "Via: 1.1 beltway\r\n".repeat(5);
    let response = server.client().ask(format!("GET / HTTP/1.1\r\nHost: a.example\r\n{via}\r\n"));
    assert_eq!(response.status(), 508);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn pipelined_requests_are_answered_in_order_over_one_origin_connection() {
    let origin = Origin::answering(|request| {
        let target = request.target();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len()).into_bytes()
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    let all: String = (0..100).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a.example\r\n\r\n")).collect();
    client.send(all);
    for n in 0..100 {
        assert_eq!(client.response().text(), format!("/{n}"));
    }
    for n in 100..120 {
        assert_eq!(client.get(&format!("/{n}")).text(), format!("/{n}"));
    }
    assert_eq!(origin.connections(), 1);
    assert_eq!(origin.received().len(), 120);
}

#[test]
fn pipelined_requests_with_content_are_kept_apart() {
    let origin = Origin::answering(|request| {
        let len = request.body.len();
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n").as_bytes(), &request.body].concat()
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    let mut all = Vec::new();
    for n in 0..20_usize {
        let body = format!("{n}").repeat(n * 37);
        if n % 2 == 0 {
            all.extend(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()).bytes());
        } else {
            all.extend(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
            all.extend(Chunked::of(body.as_bytes().chunks(11)).end(""));
        }
    }
    client.send(all);
    for n in 0..20_usize {
        assert_eq!(client.response_to("POST").text(), format!("{n}").repeat(n * 37));
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn an_answer_to_head_has_its_length_and_no_content() {
    let origin = Origin::answering(|request| match request.target() {
        "/length" => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    for path in ["/length", "/chunked", "/length"] {
        let response = client.ask(format!("HEAD {path} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
        assert_eq!(response.status(), 200);
        let length = (path == "/length").then_some("5");
        assert_eq!(response.field("Content-Length"), length);
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn an_http_1_0_client_is_answered_in_its_way() {
    let origin = Origin::answering(|request| match request.target() {
        "/chunked" => {
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &Chunked::of([&b"some"[..]]).end("")[..]]
                .concat()
        }
        _ => OK.to_vec(),
    });
    let server = Server::to(&[&origin]);

    let mut client = server.client();
    let response = client.ask("GET / HTTP/1.0\r\n\r\n");
    assert_eq!((response.text().as_str(), response.closes()), ("ok", true));
    client.assert_closed();
    let request = origin.last();
    assert_eq!(request.start, "GET / HTTP/1.1", "the version is ours");
    assert_eq!(request.field("Host"), Some(origin.address().to_string().as_str()), "it named no host");
    assert_eq!(request.field("Via"), Some("1.0 beltway"));

    let mut client = server.client();
    for _ in 0..3 {
        let response = client.ask("GET / HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(response.field("Connection"), Some("keep-alive"));
        assert_eq!(response.text(), "ok");
    }
    // It does not know chunks: the end of the connection is the end of the content.
    let response = client.ask("GET /chunked HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(response.field("Transfer-Encoding"), None);
    assert_eq!((response.text().as_str(), response.closes()), ("some", true));
}

#[test]
fn a_client_that_says_close_is_closed() {
    let origin = Origin::saying("ok");
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    let response = client.ask("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    assert!(response.closes());
    client.assert_closed();
    // The connection to the origin was none of its business.
    let mut second = server.client();
    second.get("/");
    assert!(origin.received().iter().all(|received| received.message.field("Connection").is_none()));
}

#[test]
fn chunked_content_and_its_trailers_pass_both_ways() {
    let origin = Origin::scripted(|mut connection| {
        while let Some(request) = connection.request() {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n".to_vec();
            connection.send([head, Chunked::of(request.body.chunks(1000)).end("X-Sum: 1\r\nX-More: 2\r\n")].concat());
        }
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    let body: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    for _ in 0..2 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n");
        client.send(Chunked::of(body.chunks(7_777)).end("X-End: here\r\n"));
        let response = client.response_to("POST");
        assert!(response.body == body, "content");
        assert_eq!(response.field("Trailer"), Some("X-Sum"));
        assert_eq!(response.trailers, [("X-Sum".into(), "1".into()), ("X-More".into(), "2".into())]);
        let request = origin.last();
        assert!(request.body == body, "content");
        assert_eq!(request.field("Content-Length"), None);
        assert_eq!(request.trailers, [("X-End".into(), "here".into())]);
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn chunk_extensions_go_no_further() {
    let origin = Origin::answering(|_| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0;c\r\n\r\n".to_vec()
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.receive_head();
    let (bytes, _) = {
        client.finish();
        client.rest()
    };
    assert_eq!(String::from_utf8_lossy(&bytes), "2\r\nok\r\n0\r\n\r\n");
}

#[test]
fn content_that_ends_with_the_origins_connection_gets_an_end_the_client_can_see() {
    let origin = Origin::scripted(|mut connection| {
        if connection.request().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end");
        }
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!(response.field("Transfer-Encoding"), Some("chunked"));
        assert_eq!((response.text().as_str(), response.closes()), ("until the end", false));
    }
    let mut old = server.client();
    let response = old.ask("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(response.field("Transfer-Encoding"), None);
    assert_eq!((response.text().as_str(), response.closes()), ("until the end", true));
    assert_eq!(origin.connections(), 3);
}

#[test]
fn absolute_form_counts_more_than_the_host_field() {
    let origin = Origin::saying("ok");
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    client.ask("GET http://b.example:81/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let request = origin.last();
    assert_eq!((request.start.as_str(), request.field("Host")), ("GET /x?y HTTP/1.1", Some("b.example:81")));
    client.ask("GET http://b.example HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(origin.last().start, "GET / HTTP/1.1");
}

#[test]
fn options_and_trace_go_as_far_as_they_may() {
    let origin = Origin::saying("from the origin");
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    let options = client.ask("OPTIONS * HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 0\r\n\r\n");
    assert_eq!((options.status(), options.text().as_str()), (200, ""));
    assert!(options.field("Allow").is_some_and(|allow| allow.contains("GET")));
    let trace = client.ask(
        "TRACE /x HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 0\r\nX-Field: 1\r\nCookie: secret\r\n\
         Authorization: secret\r\n\r\n",
    );
    assert_eq!(trace.field("Content-Type"), Some("message/http"));
    assert!(trace.text().starts_with("TRACE /x HTTP/1.1\r\n"), "{}", trace.text());
    assert!(trace.text().contains("X-Field: 1") && !trace.text().contains("secret"), "{}", trace.text());
    assert_eq!(origin.connections(), 0);

    assert_eq!(client.ask("OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 2\r\n\r\n").text(), "from the origin");
    let request = origin.last();
    assert_eq!((request.start.as_str(), request.field("Max-Forwards")), ("OPTIONS * HTTP/1.1", Some("1")));
    assert_eq!(client.ask("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n").text(), "from the origin");
    let refused = client.ask("CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n");
    assert_eq!(refused.status(), 501);
}

#[test]
fn statuses_without_content_leave_the_connection_in_step() {
    let origin = Origin::answering(|request| match request.target() {
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: \"a\"\r\n\r\n".to_vec(),
        _ => OK.to_vec(),
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    for _ in 0..2 {
        let response = client.get("/204");
        assert_eq!((response.status(), response.field("Content-Length")), (204, None));
        assert_eq!(client.get("/").text(), "ok");
        let response = client.get("/304");
        assert_eq!((response.status(), response.field("Content-Length")), (304, Some("1000")));
        assert_eq!(response.field("ETag"), Some("\"a\""));
        assert_eq!(client.get("/").text(), "ok");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn messages_that_come_byte_by_byte_are_whole() {
    let origin = Origin::scripted(|mut connection| {
        while let Some(request) = connection.request() {
            let mut response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            response.extend(Chunked::of([&request.body[..], b"and more"]).end("X-T: 1\r\n"));
            connection.send_byte_by_byte(response);
        }
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    for chunked in [false, true] {
        let mut request = b"POST /slow HTTP/1.1\r\nHost: a.example\r\n".to_vec();
        if chunked {
            request.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            request.extend(Chunked::of([&b"one"[..], b" and two"]).end("X-U: 2\r\n"));
        } else {
            request.extend(b"Content-Length: 11\r\n\r\none and two");
        }
        client.send_byte_by_byte(request);
        let response = client.response_to("POST");
        assert_eq!(response.text(), "one and twoand more");
        assert_eq!(response.trailers.len(), 1);
        let request = origin.last();
        assert_eq!((request.text().as_str(), request.trailers.len()), ("one and two", usize::from(chunked)));
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn heads_up_to_the_limit_pass_and_larger_ones_are_refused_by_what_is_too_large() {
    let origin = Origin::saying("ok");
    let server = Server::to_and(&[&origin], "limits: {head_size: 8KiB, head_fields: 20}");
    // A head of just this size, made with a field or with a target.
    let with_field = |size: usize| {
        let (start, end) = ("GET / HTTP/1.1\r\nHost: a\r\nX-Big: ", "\r\n\r\n");
        format!("{start}{}{end}", "v".repeat(size - start.len() - end.len()))
    };
    let with_target = |size: usize| {
        let (start, end) = ("GET /", " HTTP/1.1\r\nHost: a\r\n\r\n");
        format!("{start}{}{end}", "p".repeat(size - start.len() - end.len()))
    };
    let limit = 8 << 10;
    for head in [with_field(limit), with_target(limit)] {
        assert_eq!(server.client().ask(&head).status(), 200);
        let mut client = server.client();
        client.send_byte_by_byte(&head[..100]);
        client.send(&head[100..]);
        assert_eq!(client.response().status(), 200);
    }
    let before = origin.received().len();
    for (head, status) in [
        (with_field(limit + 1), 431),
        (with_field(4 * limit), 431),
        (with_target(limit + 100), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(20)), 431),
        (format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(9_000)), 501),
    ] {
        let mut client = server.client();
        client.send(&head);
        let response = client.response();
        assert_eq!(response.status(), status, "{}", &head[..40]);
        assert!(response.closes());
        client.assert_closed();
    }
    assert_eq!(
        server.client().ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(19))).status(),
        200
    );
    assert_eq!(origin.received().len(), before + 1);
}

#[test]
fn a_response_head_above_the_limit_is_the_origins_fault() {
    let origin = Origin::answering(|request| {
        let size: usize = request.target()[1..].parse().unwrap();
        let (start, end) = ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Big: ", "\r\n\r\n");
        format!("{start}{}{end}", "v".repeat(size - start.len() - end.len())).into_bytes()
    });
    let server = Server::to_and(&[&origin], "limits: {head_size: 8KiB}");
    let mut client = server.client();
    assert_eq!(client.get("/8192").status(), 200);
    assert_eq!(client.get("/8193").status(), 502);
    assert_eq!(client.get("/100000").status(), 502);
    assert_eq!(client.get("/100").status(), 200);
}

#[test]
fn nothing_of_a_malformed_request_reaches_the_origin() {
    let origin = Origin::saying("ok");
    let server = Server::to(&[&origin]);
    let mut tried = 0;
    // Those that are too large are so for the table's own limits, which are smaller than a server's may be.
    let large = |bad: &http::specimens::BadRequest| {
        bad.bytes.len() >= http::specimens::LIMITS.head_size || bad.reason.status() == 431
    };
    for bad in http::specimens::malformed_requests().into_iter().filter(|bad| !large(bad)) {
        tried += 1;
        let mut client = server.client();
        client.send(&bad.bytes);
        let response = client.response_if_any();
        let what = format!("{:?} {:?}", bad.reason, String::from_utf8_lossy(&bad.bytes));
        assert_eq!((response.end, response.status()), (End::Whole, bad.reason.status()), "{what}");
        assert!(response.closes(), "{what}");
    }
    assert!(tried > 400, "{tried}");
    assert_eq!(origin.connections(), 0);
    assert_eq!(server.get("/").text(), "ok");
}

#[test]
fn smuggled_requests_are_refused_and_the_connection_is_closed() {
    let origin = Origin::saying("ok");
    let server = Server::to(&[&origin]);
    let inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for head in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: +4",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding:\x0bchunked",
    ] {
        let mut client = server.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n0\r\n\r\n{inner}"));
        let response = client.response_to("POST");
        assert!(matches!(response.status(), 400 | 501), "{head}: {}", response.status());
        client.finish();
        client.assert_closed();
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn the_client_is_told_to_go_on_by_the_origin_when_it_says_so() {
    let origin = Origin::scripted(|mut connection| {
        while let Some(head) = connection.request_head() {
            assert_eq!(head.field("Expect"), Some("100-continue"));
            connection.send("HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\n");
            let mut body = Vec::new();
            connection.stream_body(5, |piece| body.extend_from_slice(piece));
            connection.send([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", &body[..]].concat());
        }
    });
    let server = Server::to_and(&[&origin], "timeouts: {expect_continue: 10s}");
    let mut client = server.client();
    for _ in 0..2 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
        let interim = client.receive_head();
        assert_eq!((interim.status(), interim.field("X-Interim")), (100, Some("1")));
        client.send("hello");
        assert_eq!(client.response_to("POST").text(), "hello");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn the_client_is_told_to_go_on_by_us_when_the_origin_says_nothing() {
    let origin = Origin::answering(|_| OK.to_vec());
    let server = Server::to_and(&[&origin], "timeouts: {expect_continue: 100ms}");
    let mut client = server.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.receive_head().status(), 100);
    client.send("hello");
    assert_eq!(client.response_to("POST").status(), 200);
    assert_eq!(origin.last().text(), "hello");
    // One that does not wait is not told anything.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
    assert_eq!(client.response_to("POST").status(), 200);
}

#[test]
fn a_final_answer_instead_of_100_keeps_the_content_at_home() {
    for (status, reason) in [(417, "Expectation Failed"), (401, "Unauthorized")] {
        let origin = Origin::scripted(move |mut connection| {
            if connection.request_head().is_some() {
                connection.send(format!("HTTP/1.1 {status} {reason}\r\nContent-Length: 2\r\n\r\nno"));
                connection.rest();
            }
        });
        let server = Server::to_and(&[&origin], "timeouts: {expect_continue: 10s}");
        let mut client = server.client();
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n");
        let response = client.response_to("PUT");
        assert_eq!((response.status(), response.text().as_str()), (status, "no"));
        // The content was not read: the connection must not be taken for the next request.
        assert!(response.closes());
        client.finish();
        client.assert_closed();
        eventually("the origin's connection is closed", || (origin.open() == 0).then_some(()));
    }
}

#[test]
fn early_hints_pass_to_who_knows_them() {
    let origin = Origin::answering(|_| {
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X-H\r\nX-H: 1\r\n\r\n\
          HTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            .to_vec()
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        for link in ["</a.css>", "</b.css>"] {
            let hint = client.receive(Kind::ResponseTo("GET"));
            assert_eq!((hint.status(), hint.field("Link"), hint.field("X-H")), (103, Some(link), None));
        }
        assert_eq!(client.response().text(), "ok");
    }
    assert_eq!(server.client().ask("GET / HTTP/1.0\r\nHost: a\r\n\r\n").text(), "ok", "HTTP/1.0 knows no hints");
}

#[test]
fn endless_interim_responses_are_the_origins_fault() {
    let origin = Origin::scripted(|mut connection| {
        if connection.request().is_some() {
            for _ in 0..1000 {
                if connection.try_send("HTTP/1.1 103 Early Hints\r\n\r\n").is_err() {
                    return;
                }
            }
        }
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().status(), 502);
}

#[test]
fn an_answer_that_comes_before_the_content_has_been_sent_is_passed_on_at_once() {
    let origin = Origin::scripted(|mut connection| {
        if connection.request_head().is_some() {
            connection.send("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig");
            connection.rest();
        }
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nthe first bytes");
    let response = client.response_to("POST");
    assert_eq!((response.status(), response.text().as_str()), (413, "big"));
    assert!(response.closes(), "the rest of the content is not read as the next request");
    client.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    client.finish();
    client.assert_closed();
    assert!(origin.received().len() == 1);
}

#[test]
fn unasked_bytes_behind_a_response_reach_nobody() {
    let origin = Origin::scripted(|mut connection| {
        while let Some(request) = connection.request() {
            let target = request.target();
            let (length, extra) = (target.len(), "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
            if connection
                .try_send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{target}{extra}"))
                .is_err()
            {
                return;
            }
        }
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    for n in 0..5 {
        assert_eq!(client.get(&format!("/{n}")).text(), format!("/{n}"));
        client.assert_silent(Duration::from_millis(20));
    }
    assert_eq!(origin.connections(), 5, "a connection that says more than it was asked is not used again");
}

#[test]
fn a_client_that_ends_its_side_behind_a_whole_request_with_content_is_answered() {
    let origin = Origin::scripted(|mut connection| {
        while connection.request().is_some() {
            walks::pause(Duration::from_millis(50));
            if connection.try_send(OK).is_err() {
                return;
            }
        }
    });
    let server = Server::to(&[&origin]);
    for request in ["POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut client = server.client();
        client.send(request);
        client.finish();
        assert_eq!(client.response().text(), "ok", "{request}");
        client.assert_closed();
    }
}

#[test]
fn a_response_without_a_date_gets_the_one_it_was_received_at() {
    let origin = Origin::saying("ok");
    let server = Server::to(&[&origin]);
    let by_clock = walks::process::bounded({
        let mut date = std::process::Command::new("date");
        date.args(["-u", "+%a, %d %b %Y"]).env("LC_ALL", "C");
        date
    });
    let today = String::from_utf8(by_clock.stdout).unwrap();
    let (ours, refused) = (server.get("/"), server.client().ask("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"));
    for response in [ours, refused] {
        let date = response.field("Date").unwrap();
        assert!(date.starts_with(today.trim()) && date.ends_with(" GMT"), "{date}, and it is {today}");
    }
}

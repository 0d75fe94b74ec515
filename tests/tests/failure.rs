//! What goes wrong, whose fault it is, and that everybody can see it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use walks::{Chunked, End, Message, Origin, Server, eventually, free_address, now, pause};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// Waits short enough for a test, each a little different, so that it shows which one ended.
const SHORT: &str = "timeouts: {request_head: 800ms, client_idle: 1s, client_send: 1200ms, origin_connect: 600ms, \
                     origin_response: 800ms, origin_idle: 800ms, origin_send: 1s}";

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    free_address()
}

fn to(addresses: &[SocketAddr], more: &str) -> Server {
    let urls: Vec<_> = addresses.iter().map(|address| format!("\"http://{address}/\"")).collect();
    Server::with(&format!("remap: [{{from: \"/\", to: [{}]}}]\n{more}", urls.join(", ")))
}

fn assert_page(response: &Message, status: u16, detail: &str) {
    let text = response.text();
    assert_eq!(response.status(), status, "{text}");
    assert!(text.contains(detail), "{text}");
    assert_eq!(response.field("Cache-Control"), Some("no-store"));
    assert_eq!(response.field("Content-Type"), Some("text/plain; charset=utf-8"));
}

#[test]
fn where_one_origin_refuses_the_next_answers() {
    let origin = Origin::saying("ok");
    let server = to(&[nobody(), origin.address(), nobody()], "");
    for n in 0..12 {
        let mut client = server.client();
        assert_eq!(client.get("/").text(), "ok", "{n}");
        // With content too: none of it was sent anywhere.
        let posted = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(posted.text(), "ok");
        assert_eq!(origin.last().text(), "abc");
    }
    assert!(server.number("beltway_http_retries_total{why=\"unreachable\"}") >= 1.0);
}

#[test]
fn when_all_origins_refuse_the_page_says_so() {
    let server = to(&[nobody(), nobody()], "");
    let mut client = server.client();
    for _ in 0..2 {
        let response = client.get("/");
        assert_page(&response, 502, "the origin server accepts no connections");
        assert!(!response.closes());
    }
    let response = client.ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((response.status(), response.closes()), (502, false));
}

#[test]
fn an_origin_that_does_not_answer_is_late() {
    let origin = Origin::scripted(|mut connection| {
        connection.request();
        connection.rest();
    });
    let server = Server::to_and(&[&origin], SHORT);
    let mut client = server.client();
    let begin = now();
    assert_page(&client.get("/"), 504, "the origin server did not answer in time");
    let waited = begin.elapsed();
    assert!((Duration::from_millis(780)..Duration::from_secs(6)).contains(&waited), "{waited:?}");
    assert_page(&client.get("/"), 504, "did not answer in time");
    assert_eq!(origin.received().len(), 2, "nobody knows whether the origin acted: each request went once");
    eventually("its connections are closed", || (origin.open() == 0).then_some(()));
}

#[test]
fn a_connection_outlives_an_answer_that_took_longer_than_its_own_waits() {
    let origin = Origin::answering(|_| {
        pause(Duration::from_millis(1_200));
        OK.to_vec()
    });
    let server = Server::to_and(&[&origin], "timeouts: {request_head: 800ms, client_idle: 900ms, keep_alive: 1m}");
    let mut client = server.client();
    for _ in 0..2 {
        assert_eq!(client.get("/").text(), "ok");
        let posted = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(posted.text(), "ok");
    }
}

#[test]
fn an_origin_that_answers_by_and_by_is_not_late() {
    let origin = Origin::scripted(|mut connection| {
        connection.request();
        // Each wait is far shorter than it may be; from the head to the last byte it is longer.
        for piece in ["HTTP/1.1 200 OK\r\n", "Content-Length: 5\r\n\r\n", "a", "b", "c", "d", "e"] {
            pause(Duration::from_millis(500));
            connection.send(piece);
        }
    });
    let server = Server::to_and(&[&origin], "timeouts: {origin_response: 3s, origin_idle: 2s}");
    assert_eq!(server.get("/").text(), "abcde");
}

#[test]
fn a_get_on_a_kept_connection_that_was_closed_under_it_is_sent_once_more() {
    let origin = Origin::scripted(|mut connection| {
        let first = connection.number == 0;
        while let Some(request) = connection.request() {
            // Kept after the first request, closed instead of an answer to the second.
            if first && request.target() == "/second" {
                return;
            }
            connection.send(OK);
        }
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    assert_eq!(client.get("/first").text(), "ok");
    assert_eq!(client.get("/second").text(), "ok");
    let targets: Vec<_> = origin.received().iter().map(|r| (r.connection, r.message.target().to_owned())).collect();
    assert_eq!(targets, [(0, "/first".into()), (0, "/second".into()), (1, "/second".into())]);
    assert!((server.number("beltway_http_retries_total{why=\"stale-connection\"}") - 1.0).abs() < 0.1);
}

#[test]
fn a_get_is_not_sent_a_third_time() {
    let origin = Origin::scripted(|mut connection| {
        while let Some(request) = connection.request() {
            if request.target() != "/first" {
                return;
            }
            connection.send(OK);
        }
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    client.get("/first");
    assert_page(&client.get("/second"), 502, "closed the connection without an answer");
    assert_eq!(origin.received().len(), 3);
    // On a connection that was fresh there is no second try at all.
    assert_page(&client.get("/third"), 502, "closed the connection without an answer");
    assert_eq!(origin.received().len(), 4);
}

#[test]
fn a_post_that_was_sent_is_sent_exactly_once() {
    let acted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&acted);
    let origin = Origin::scripted(move |mut connection| {
        while let Some(request) = connection.request() {
            if request.method() == "POST" {
                // It has acted, and dies before it can say so.
                count.fetch_add(1, Ordering::SeqCst);
                return;
            }
            connection.send(OK);
        }
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    client.get("/first");
    let posted = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_page(&posted, 502, "closed the connection without an answer");
    assert_eq!(acted.load(Ordering::SeqCst), 1);
    assert_eq!(server.get("/next").text(), "ok");
}

#[test]
fn an_idempotent_request_with_content_is_repeated_with_all_of_it() {
    let origin = Origin::scripted(|mut connection| {
        let first = connection.number == 0;
        while let Some(request) = connection.request() {
            if first && request.method() == "PUT" {
                return;
            }
            connection.send(OK);
        }
    });
    for (size, works) in [(10_000, true), (200_000, false)] {
        let before = origin.received().len();
        let server = Server::to(&[&origin]);
        let mut client = server.client();
        client.get("/first");
        let body = vec![b'x'; size];
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"));
        client.send(&body);
        let response = client.response_to("PUT");
        let received = &origin.received()[before..];
        if works {
            assert_eq!(response.text(), "ok");
            assert_eq!(received.len(), 3);
            assert!(received[1..].iter().all(|put| put.message.body == body));
        } else {
            // What was not kept cannot be sent again. (The origin's first connection was of the first round.)
            assert!(matches!(response.status(), 200 | 502), "{}", response.status());
            assert!(received.iter().filter(|put| put.message.method() == "PUT").count() <= 1);
        }
    }
}

#[test]
fn a_kept_connection_that_the_origin_closed_meanwhile_costs_nothing() {
    let origin = Origin::scripted(|mut connection| {
        if connection.request().is_some() {
            connection.send(OK);
        }
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    for n in 1..=5 {
        // POST as well: it never goes to a connection that is known to be closed.
        let response = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(response.text(), "ok");
        eventually("the origin has closed", || (origin.open() == 0).then_some(()));
        pause(Duration::from_millis(10));
        assert_eq!(origin.received().len(), n);
    }
}

#[test]
fn a_response_that_breaks_off_looks_broken_to_the_client() {
    for reset in [false, true] {
        let origin = Origin::scripted(move |mut connection| {
            let Some(request) = connection.request() else { return };
            match request.target() {
                "/length" => connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
                "/chunks" => {
                    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                    connection.send(Chunked::of([&b"half"[..]]).open());
                }
                "/in-a-chunk" => connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf"),
                "/bad-chunk" => {
                    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nZ\r\n");
                }
                "/in-the-trailers" => {
                    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nA: b");
                }
                _ => connection.send("HTTP/1.1 200 OK\r\n\r\nhalf"),
            }
            if reset {
                // What was sent has arrived by then.
                pause(Duration::from_millis(50));
                connection.reset();
            }
        });
        let server = Server::to(&[&origin]);
        for path in ["/length", "/chunks", "/in-a-chunk", "/bad-chunk", "/in-the-trailers"] {
            let mut client = server.client();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let response = client.response_if_any();
            assert_eq!((response.status(), response.text().as_str()), (200, "half"), "{path}");
            assert!(matches!(response.end, End::Eof | End::Reset), "{path}: {response:?}");
        }
        // To HTTP/1.0 an end would look like the end.
        for path in ["/chunks", "/in-a-chunk", "/bad-chunk", "/in-the-trailers"] {
            let mut client = server.client();
            client.send(format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n"));
            let response = client.response_if_any();
            assert_eq!(response.end, End::Reset, "{path}: {response:?}");
        }
        if reset {
            let mut client = server.client();
            client.send("GET /until-close HTTP/1.1\r\nHost: a\r\n\r\n");
            let response = client.response_if_any();
            assert!(matches!(response.end, End::Eof | End::Reset), "{response:?}");
            let mut client = server.client();
            client.send("GET /until-close HTTP/1.0\r\nHost: a\r\n\r\n");
            assert_eq!(client.response_if_any().end, End::Reset);
        }
        assert!(server.number("beltway_http_aborted_total{by=\"origin\"}") >= 9.0);
    }
}

#[test]
fn an_origin_that_stalls_within_its_response_is_cut() {
    let origin = Origin::scripted(|mut connection| {
        connection.request();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        connection.rest();
    });
    let server = Server::to_and(&[&origin], SHORT);
    let mut client = server.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response_if_any();
    assert_eq!(response.text(), "half");
    assert!(matches!(response.end, End::Eof | End::Reset), "{response:?}");
    eventually("the origin's connection is closed", || (origin.open() == 0).then_some(()));
    server.await_number("beltway_http_timeouts_total{of=\"origin\"}", 1.0);
}

#[test]
fn an_answer_that_is_no_http_is_the_origins_fault() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.6\r\n",
        "\0\0\0\0",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad Field: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
    ] {
        let origin = Origin::scripted(move |mut connection| {
            connection.request();
            connection.send(garbage);
        });
        let server = Server::to(&[&origin]);
        let mut client = server.client();
        assert_page(&client.get("/"), 502, "the origin server's answer is not valid HTTP");
        assert_eq!(origin.received().len(), 1, "{garbage:?}");
    }
}

#[test]
fn every_hostile_answer_is_refused_or_cut() {
    let (next, table) = (Arc::new(AtomicUsize::new(0)), http::specimens::hostile_responses());
    let (at, answers) = (Arc::clone(&next), table.clone());
    let origin = Origin::scripted(move |mut connection| {
        if connection.request().is_some() {
            let _ = connection.try_send(&answers[at.load(Ordering::SeqCst)].bytes);
        }
    });
    let server = Server::to_and(&[&origin], "limits: {head_size: 4KiB, head_fields: 20}");
    for (n, bad) in table.iter().enumerate() {
        if bad.bytes.len() > http::specimens::LIMITS.head_size {
            continue; // too large only for the table's own limits
        }
        next.store(n, Ordering::SeqCst);
        let mut client = server.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.response_if_any();
        let what = format!("{:?} {:?}: {response:?}", bad.refusal, String::from_utf8_lossy(&bad.bytes));
        match bad.refusal {
            http::specimens::Refusal::Head(_) => {
                assert_eq!((response.end, response.status()), (End::Whole, 502), "{what}")
            }
            http::specimens::Refusal::Body(_) => assert!(matches!(response.end, End::Eof | End::Reset), "{what}"),
        }
    }
}

#[test]
fn a_head_that_does_not_come_to_its_end_is_late() {
    let origin = Origin::saying("ok");
    let server = Server::to_and(&[&origin], SHORT);
    let mut client = server.client();
    client.send("GET / HTTP/1.1\r\nHos");
    let response = client.response();
    assert_page(&response, 408, "not complete in time");
    assert!(response.closes());
    client.assert_closed();
    // A byte now and then does not help: the whole head has one limit.
    let mut client = server.client();
    let begin = now();
    while begin.elapsed() < Duration::from_secs(5) {
        if client.try_send("G").is_err() {
            break;
        }
        pause(Duration::from_millis(50));
    }
    assert!(begin.elapsed() < Duration::from_secs(4), "cut after {:?}", begin.elapsed());
    // Who has sent nothing is owed no answer.
    let mut client = server.client();
    client.assert_closed();
    assert_eq!(origin.connections(), 0);
}

#[test]
fn content_that_does_not_come_is_late() {
    let origin = Origin::scripted(|mut connection| {
        connection.request();
    });
    let server = Server::to_and(&[&origin], SHORT);
    let mut client = server.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    let response = client.response_to("POST");
    assert_page(&response, 408, "content was not complete in time");
    assert!(response.closes());
    eventually("the origin's connection is closed", || (origin.open() == 0).then_some(()));
    assert_ne!(origin.last().end, End::Whole, "the origin sees that the content is not whole");
}

#[test]
fn broken_content_of_a_client_never_looks_whole_to_the_origin() {
    let origin = Origin::scripted(|mut connection| {
        connection.request();
    });
    let server = Server::to(&[&origin]);
    for (n, content) in ["4\r\nhalf\r\nZ\r\n\r\n", "4\r\nhalfXX", "ffffffffffffffffff\r\n"].into_iter().enumerate() {
        let mut client = server.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{content}"));
        let response = client.response_to("POST");
        assert_eq!((response.status(), response.closes()), (400, true), "{content:?}");
        eventually("the origin's connection is closed", || (origin.received().len() == n + 1).then_some(()));
        assert_ne!(origin.last().end, End::Whole);
    }
    // And one who leaves in the middle.
    for n in 3..6 {
        let mut client = server.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
        eventually("the origin has a part of it", || (origin.connections() > n).then_some(()));
        if n == 4 {
            client.reset()
        } else {
            drop(client)
        }
        eventually("the origin's connection is closed", || (origin.received().len() == n + 1).then_some(()));
        assert_ne!(origin.last().end, End::Whole);
    }
}

#[test]
fn a_client_that_leaves_during_its_download_frees_the_origin() {
    let origin = Origin::scripted(|mut connection| {
        connection.request();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let piece = vec![b'x'; 64 << 10];
        while connection.try_send(&piece).is_ok() {}
    });
    let server = Server::to(&[&origin]);
    for n in 1..=3 {
        let mut client = server.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.receive_head().status(), 200);
        if n == 2 {
            client.reset()
        } else {
            drop(client)
        }
        eventually("the origin's connection is closed", || (origin.open() == 0).then_some(()));
        assert_eq!(origin.connections(), n);
    }
    server.await_number("beltway_http_aborted_total{by=\"client\"}", 3.0);
    server.await_no_clients();
}

#[test]
fn a_client_that_leaves_while_the_origin_thinks_frees_the_origin() {
    let origin = Origin::scripted(|mut connection| {
        connection.request();
        connection.rest();
    });
    let server = Server::to(&[&origin]);
    for n in 1..=2 {
        let mut client = server.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("the origin has the request", || (origin.received().len() == n).then_some(()));
        client.reset();
        eventually("the origin's connection is closed", || (origin.open() == 0).then_some(()));
    }
    server.await_no_clients();
}

#[test]
fn a_client_that_takes_nothing_is_cut_and_the_origin_freed() {
    let origin = Origin::scripted(|mut connection| {
        connection.request();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let piece = vec![b'x'; 64 << 10];
        while connection.try_send(&piece).is_ok() {}
    });
    let server = Server::to_and(&[&origin], SHORT);
    let mut client = walks::Peer::connect_narrow(server.address());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the origin's connection is closed", || (origin.connections() == 1 && origin.open() == 0).then_some(()));
    server.await_number("beltway_http_timeouts_total{of=\"client\"}", 1.0);
    server.await_no_clients();
}

#[test]
fn an_origin_that_takes_nothing_is_late() {
    let origin = Origin::scripted(|mut connection| {
        connection.request_head();
        pause(Duration::from_secs(2));
    });
    let server = Server::to_and(&[&origin], SHORT);
    let mut client = server.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    let piece = vec![b'x'; 64 << 10];
    client.stream().set_write_timeout(Some(Duration::from_secs(3))).unwrap();
    let begin = now();
    while begin.elapsed() < Duration::from_secs(4) && client.try_send(&piece).is_ok() {}
    let response = client.response_if_any();
    // Its answer may be lost when the client goes on sending into a closed connection.
    assert!(response.status() == 504 || response.end == End::Reset, "{response:?}");
    server.await_no_clients();
}

#[test]
fn an_early_answer_reaches_a_client_that_goes_on_sending() {
    let origin = Origin::scripted(|mut connection| {
        connection.request_head();
        connection.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
        // It neither reads the content nor closes.
        pause(Duration::from_secs(2));
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    client.send(vec![b'x'; 100_000]);
    let response = client.response_to("POST");
    assert_eq!((response.status(), response.text().as_str(), response.closes()), (403, "no", true));
    let _ = client.try_send(vec![b'x'; 100_000]);
    client.finish();
    client.assert_closed();
}

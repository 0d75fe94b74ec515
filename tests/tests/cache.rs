//! The walks *hit*, *miss* and *stale*: what is stored is served, what many want is fetched once, and what is old is
//! validated, or stands in for an origin that fails.

#![allow(clippy::unwrap_used, reason = "a walk that cannot set up its surroundings fails")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::Duration;

use walks::{Accepted, End, Kind, Message, Nginx, Origin, PATIENCE, Peer, Server, eventually, now, pause, thread};

/// A response with this body, and these lines.
fn says(lines: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// An origin whose every answer has another body, and these lines.
fn counting(lines: &'static str) -> Origin {
    let count = AtomicUsize::new(0);
    Origin::answering(move |_| says(lines, &format!("version {}", count.fetch_add(1, Ordering::Relaxed))))
}

fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n")
}

fn cache_status(response: &Message) -> &str {
    response.field("Cache-Status").unwrap_or_default()
}

const STALE: &str = "Cache-Control: max-age=60\r\nAge: 60\r\nETag: \"one\"\r\n";

#[test]
fn what_was_fetched_once_is_served_until_it_is_old() {
    let origin = counting("Cache-Control: max-age=60\r\nETag: \"one\"\r\nContent-Type: text/plain\r\n");
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    let miss = client.ask(get("/x", ""));
    assert_eq!((miss.text().as_str(), cache_status(&miss)), ("version 0", "beltway; fwd=uri-miss; stored"));
    assert_eq!(miss.field("Age"), None);
    for _ in 0..3 {
        let hit = client.ask(get("/x", ""));
        assert_eq!(hit.text(), "version 0");
        assert!(cache_status(&hit).starts_with("beltway; hit; ttl="), "{hit:?}");
        assert!(hit.field("Age").is_some_and(|age| age.parse::<u64>().is_ok()), "{hit:?}");
        assert_eq!(hit.field("Via"), Some("1.1 beltway"));
        assert_eq!(hit.field("ETag"), Some("\"one\""));
        assert_eq!(hit.field("Content-Type"), Some("text/plain"));
    }
    // The same for those who ask in other ways.
    client.send("HEAD /x HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let head = client.response_to("HEAD");
    assert_eq!((head.status(), head.field("Content-Length")), (200, Some("9")));
    let unchanged = client.ask(get("/x", "If-None-Match: \"zero\", W/\"one\"\r\n"));
    assert_eq!((unchanged.status(), unchanged.text().as_str()), (304, ""));
    assert_eq!(unchanged.field("ETag"), Some("\"one\""));
    let changed = client.ask(get("/x", "If-None-Match: \"zero\"\r\n"));
    assert_eq!((changed.status(), changed.text().as_str()), (200, "version 0"));
    let absolute = client.ask("GET http://A.example:80/x HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!(absolute.text(), "version 0");
    let mut old = server.client();
    old.send("GET /x HTTP/1.0\r\nHost: a.example\r\n\r\n");
    assert_eq!(old.response().text(), "version 0");
    assert_eq!(origin.received().len(), 1);
    // Another query is another thing.
    assert_eq!(client.ask(get("/x?y", "")).text(), "version 1");
    server.await_number("beltway_cache_objects", 2.0);
}

#[test]
fn each_client_gets_the_alternate_that_it_asked_for() {
    let origin = Origin::answering(|request| {
        let encoding = request.field("Accept-Encoding").unwrap_or("none").to_owned();
        says("Cache-Control: max-age=60\r\nVary: Accept-Encoding\r\n", &encoding)
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    for round in 0..3 {
        for encoding in ["gzip", "br", "gzip, br"] {
            let response = client.ask(get("/x", &format!("Accept-Encoding: {encoding}\r\n")));
            assert_eq!(response.text(), encoding);
            let expected = match (round, encoding) {
                (0, "gzip") => "beltway; fwd=uri-miss; stored",
                (0, _) => "beltway; fwd=vary-miss; stored",
                _ => "beltway; hit",
            };
            assert!(cache_status(&response).starts_with(expected), "{response:?}");
        }
    }
    assert_eq!(client.ask(get("/x", "Accept-Encoding: gzip ,  BR\r\n")).text(), "gzip, br");
    assert_eq!(origin.received().len(), 3);
}

#[test]
fn what_must_not_be_stored_is_not_and_the_client_learns_why() {
    for (request, lines, reason) in [
        ("", "Cache-Control: no-store\r\n", "no-store"),
        ("", "Cache-Control: private, max-age=60\r\n", "private"),
        ("", "Cache-Control: max-age=60\r\nVary: *\r\n", "vary-star"),
        ("", "Cache-Control: max-age=60\r\nSet-Cookie: a=b\r\n", "set-cookie"),
        ("Authorization: Basic YTpi\r\n", "Cache-Control: max-age=60\r\n", "authorization"),
        ("Cache-Control: no-store\r\n", "Cache-Control: max-age=60\r\n", "request-no-store"),
        ("", "X: y\r\n", "not-reusable"),
    ] {
        let origin = counting(lines);
        let server = Server::to(&[&origin]);
        let mut client = server.client();
        for round in 0..2 {
            let response = client.ask(get("/x", request));
            assert_eq!(response.text(), format!("version {round}"), "{lines}");
            assert_eq!(cache_status(&response), format!("beltway; fwd=uri-miss; detail={reason}"), "{lines}");
        }
        server.await_number(&format!("beltway_http_not_stored_total{{reason=\"{reason}\"}}"), 2.0);
    }
}

#[test]
fn a_hundred_who_want_the_same_cost_one_request_and_read_along() {
    for chunked in [false, true] {
        let (go, begin) = mpsc::channel::<()>();
        let begin = Mutex::new(begin);
        let origin = Origin::scripted(move |mut accepted: Accepted| {
            while accepted.request().is_some() {
                let framing = if chunked { "Transfer-Encoding: chunked" } else { "Content-Length: 10" };
                accepted.send(format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{framing}\r\n\r\n"));
                accepted.send(if chunked { "5\r\nfirst\r\n" } else { "first" });
                // The rest when everybody has the head.
                if begin.lock().unwrap().recv_timeout(PATIENCE).is_err() {
                    return;
                }
                accepted.send(if chunked { "5\r\n half\r\n0\r\n\r\n" } else { " half" });
            }
        });
        let server = Server::to(&[&origin]);
        let (address, ready) = (server.address(), Arc::new(Barrier::new(101)));
        let clients: Vec<_> = (0..100)
            .map(|_| {
                let ready = Arc::clone(&ready);
                thread("client", move || {
                    let mut client = Peer::connect(address);
                    client.send(get("/x", ""));
                    let head = client.receive_head();
                    ready.wait();
                    let response = client.receive_content(head, Kind::ResponseTo("GET"));
                    assert_eq!((response.end, response.text().as_str()), (End::Whole, "first half"));
                    cache_status(&response).to_owned()
                })
            })
            .collect();
        ready.wait();
        go.send(()).unwrap();
        let status: Vec<String> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        let collapsed = status.iter().filter(|status| status.ends_with("; collapsed")).count();
        assert_eq!((origin.received().len(), collapsed), (1, 99), "{status:?}");
        assert!(cache_status(&server.get("/x")).starts_with("beltway; hit"));
    }
}

/// As many clients as `count` ask at once; their responses, in no order.
fn together(server: &Server, count: usize, request: &str) -> Vec<Message> {
    let (address, ready) = (server.address(), Arc::new(Barrier::new(count)));
    let clients: Vec<_> = (0..count)
        .map(|_| {
            let (ready, request) = (Arc::clone(&ready), request.to_owned());
            thread("client", move || {
                let mut client = Peer::connect(address);
                ready.wait();
                client.send(request);
                client.response_if_any()
            })
        })
        .collect();
    clients.into_iter().map(|client| client.join().unwrap()).collect()
}

#[test]
fn those_who_waited_for_what_is_not_shared_then_ask_all_at_once() {
    let origin = Origin::answering(|_| {
        pause(Duration::from_millis(300));
        says("Cache-Control: no-store\r\n", "mine")
    });
    let server = Server::to(&[&origin]);
    let begin = now();
    for response in together(&server, 30, &get("/x", "")) {
        assert_eq!(response.text(), "mine");
    }
    // One after the other would take nine seconds.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(origin.received().len(), 30);
    // It is remembered: nobody waits for anybody.
    assert_eq!(together(&server, 10, &get("/x", "")).len(), 10);
    server.await_number("beltway_cache_followers_total", server.number("beltway_cache_followers_total"));
    assert!(server.number("beltway_cache_bypassed_total") > 9.5);
}

#[test]
fn what_is_old_is_served_when_the_origin_says_that_it_is_good() {
    let origin = Origin::answering(|request| match request.field("If-None-Match") {
        Some("\"one\"") => {
            b"HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\nETag: \"one\"\r\nX-New: 1\r\n\r\n".to_vec()
        }
        _ => says(STALE, "version 0"),
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    assert_eq!(client.ask(get("/x", "")).text(), "version 0");
    let confirmed = client.ask(get("/x", ""));
    assert_eq!(confirmed.text(), "version 0");
    assert!(cache_status(&confirmed).starts_with("beltway; fwd=stale; fwd-status=304; stored; ttl="), "{confirmed:?}");
    assert_eq!((confirmed.field("X-New"), confirmed.field("Age")), (Some("1"), Some("0")));
    assert!(cache_status(&client.ask(get("/x", ""))).starts_with("beltway; hit"));
    assert_eq!(origin.received().len(), 2);
    // Who wants to know from the origin itself, asks it.
    let asked = client.ask(get("/x", "Cache-Control: no-cache\r\n"));
    assert!(cache_status(&asked).starts_with("beltway; fwd=request; fwd-status=304; stored"), "{asked:?}");
    assert_eq!(origin.received().len(), 3);
}

#[test]
fn a_new_version_takes_the_place_of_the_old_one() {
    let origin = counting(STALE);
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    assert_eq!(client.ask(get("/x", "")).text(), "version 0");
    let changed = client.ask(get("/x", ""));
    assert_eq!((changed.text().as_str(), cache_status(&changed)), ("version 1", "beltway; fwd=stale; stored"));
    server.await_number("beltway_cache_objects", 1.0);
    assert_eq!(origin.last().field("If-None-Match"), Some("\"one\""));
}

#[test]
fn what_may_be_served_while_it_is_validated_is_and_one_validates() {
    let lines = "Cache-Control: max-age=60, stale-while-revalidate=600\r\nAge: 60\r\nETag: \"one\"\r\n";
    let all_answered = Arc::new(AtomicBool::new(false));
    let go = Arc::clone(&all_answered);
    let origin = Origin::answering(move |request| match request.field("If-None-Match") {
        Some(_) => {
            eventually("all are answered", || go.load(Ordering::SeqCst).then_some(()));
            says("Cache-Control: max-age=60\r\n", "version 1")
        }
        None => says(lines, "version 0"),
    });
    let server = Server::to(&[&origin]);
    assert_eq!(server.get("/x").text(), "version 0");
    for response in together(&server, 20, &get("/x", "")) {
        assert_eq!(response.text(), "version 0");
        assert!(cache_status(&response).starts_with("beltway; hit; ttl=-"), "{response:?}");
    }
    all_answered.store(true, Ordering::SeqCst);
    let renewed = eventually("the new version is served", || {
        let response = server.get("/x");
        (response.text() == "version 1").then_some(response)
    });
    assert!(cache_status(&renewed).starts_with("beltway; hit; ttl="), "{renewed:?}");
    assert_eq!(origin.received().len(), 2);
    server.await_number("beltway_http_refreshes_total", 1.0);
}

/// An origin that has the first version of everything until it is told to fail: with a status, or without a word.
fn failing(lines: &'static str) -> (Origin, Arc<AtomicUsize>) {
    let told = Arc::new(AtomicUsize::new(200));
    let status = Arc::clone(&told);
    let origin = Origin::scripted(move |mut accepted: Accepted| {
        while accepted.request().is_some() {
            match status.load(Ordering::SeqCst) {
                200 => accepted.send(says(lines, "version 0")),
                0 => return,
                status => accepted.send(format!("HTTP/1.1 {status} Busy\r\nContent-Length: 4\r\n\r\nbusy")),
            }
        }
    });
    (origin, told)
}

#[test]
fn what_is_stored_stands_in_for_an_origin_that_fails_or_is_gone() {
    let (origin, status) = failing("Cache-Control: max-age=60, stale-if-error=600\r\nAge: 60\r\nETag: \"one\"\r\n");
    let server = Server::to(&[&origin]);
    assert_eq!(server.get("/x").text(), "version 0");
    status.store(503, Ordering::SeqCst);
    for response in together(&server, 5, &get("/x", "")) {
        assert_eq!(response.text(), "version 0");
        assert!(cache_status(&response).starts_with("beltway; fwd=stale; fwd-status=503; ttl=-"), "{response:?}");
    }
    assert_eq!(server.get("/other").status(), 503);
    status.store(0, Ordering::SeqCst);
    for response in together(&server, 5, &get("/x", "")) {
        assert_eq!(response.text(), "version 0");
        assert!(cache_status(&response).starts_with("beltway; fwd=stale; ttl=-"), "{response:?}");
    }
    assert_eq!(server.get("/other").status(), 502, "nothing is stored for it");
}

#[test]
fn what_says_must_revalidate_is_never_served_stale() {
    let (origin, status) =
        failing("Cache-Control: max-age=60, must-revalidate, stale-if-error=600\r\nAge: 60\r\nETag: \"one\"\r\n");
    let server = Server::to(&[&origin]);
    assert_eq!(server.get("/x").text(), "version 0");
    for (answers, expected) in [(0, 502), (503, 503)] {
        status.store(answers, Ordering::SeqCst);
        assert_eq!(server.get("/x").status(), expected);
    }
}

#[test]
fn a_purge_removes_for_those_who_may() {
    let origin = counting("Cache-Control: max-age=60\r\n");
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    let purge = "PURGE /x HTTP/1.1\r\nHost: a.example\r\n\r\n";
    assert_eq!(client.ask(purge).status(), 404);
    assert_eq!(client.ask(get("/x", "")).text(), "version 0");
    assert_eq!(client.ask(purge).status(), 200);
    assert_eq!(client.ask(get("/x", "")).text(), "version 1");
    let server = Server::to_and(&[&origin], "allow: [192.0.2.0/24]");
    let refused = server.client().ask(purge);
    assert_eq!(refused.status(), 403);
    assert!(refused.text().contains("http.allow"), "{refused:?}");
    assert!(origin.received().iter().all(|received| received.message.method() == "GET"));
}

#[test]
fn what_an_unsafe_request_changed_is_fetched_anew() {
    let origin = counting("Cache-Control: max-age=60\r\nLocation: /y\r\n");
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    for path in ["/x", "/y", "/z"] {
        client.ask(get(path, ""));
    }
    let posted = client.ask("POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\n\r\n1");
    assert_eq!((posted.text().as_str(), cache_status(&posted)), ("version 3", "beltway; fwd=method; detail=method"));
    assert_eq!(client.ask(get("/x", "")).text(), "version 4");
    assert_eq!(client.ask(get("/y", "")).text(), "version 5", "Location names it");
    assert_eq!(client.ask(get("/z", "")).text(), "version 2");
}

#[test]
fn who_wants_only_what_is_stored_gets_nothing_else() {
    let origin = counting("Cache-Control: max-age=60\r\n");
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    let only = get("/x", "Cache-Control: only-if-cached\r\n");
    assert_eq!(client.ask(&only).status(), 504);
    assert_eq!(origin.connections(), 0);
    client.ask(get("/x", ""));
    assert_eq!(client.ask(&only).text(), "version 0");
}

#[test]
fn a_client_that_leaves_does_not_end_what_others_will_want() {
    let (go, begin) = mpsc::channel::<()>();
    let begin = Mutex::new(begin);
    let origin = Origin::scripted(move |mut accepted: Accepted| {
        while accepted.request().is_some() {
            accepted.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 100\r\n\r\n");
            if begin.lock().unwrap().recv_timeout(PATIENCE).is_err() {
                return;
            }
            // In pieces: that nobody takes the first is seen when the second comes.
            for _ in 0..50 {
                accepted.send("xy");
                pause(Duration::from_millis(2));
            }
        }
    });
    let server = Server::to(&[&origin]);
    let mut client = server.client();
    client.send(get("/x", ""));
    assert_eq!(client.receive_head().status(), 200);
    client.reset();
    go.send(()).unwrap();
    server.await_number("beltway_cache_objects", 1.0);
    let hit = server.get("/x");
    assert_eq!((hit.text(), origin.received().len()), ("xy".repeat(50), 1));
    server.await_number("beltway_http_fills_without_client_total", 1.0);
}

#[test]
fn what_breaks_off_is_seen_by_all_who_read_along_and_is_not_stored() {
    let (go, begin) = mpsc::channel::<()>();
    let begin = Mutex::new(begin);
    let origin = Origin::scripted(move |mut accepted: Accepted| {
        accepted.request();
        accepted
            .send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        // A connection that is told nothing ends at once.
        let _ = begin.lock().unwrap().recv_timeout(PATIENCE);
    });
    let server = Server::to(&[&origin]);
    let mut clients: Vec<Peer> = (0..5).map(|_| server.client()).collect();
    let heads: Vec<Message> = clients
        .iter_mut()
        .map(|client| {
            client.send(get("/x", ""));
            client.receive_head()
        })
        .collect();
    go.send(()).unwrap();
    for (client, head) in clients.iter_mut().zip(heads) {
        assert_eq!(head.status(), 200);
        let broken = client.receive_content(head, Kind::ResponseTo("GET"));
        assert_ne!(broken.end, End::Whole, "{broken:?}");
        assert_eq!(broken.text(), "first");
    }
    assert_eq!(origin.received().len(), 1);
    server.await_number("beltway_cache_objects", 0.0);
    server.await_number("beltway_http_not_stored_total{reason=\"incomplete\"}", 1.0);
}

#[test]
fn a_slow_reader_does_not_hold_up_those_who_read_along() {
    const LENGTH: usize = 4 << 20;
    let origin = Origin::answering(|_| says("Cache-Control: max-age=60\r\n", &"x".repeat(LENGTH)));
    let server = Server::to(&[&origin]);
    let mut slow = Peer::connect_narrow(server.address());
    slow.send(get("/x", ""));
    assert_eq!(slow.receive_head().status(), 200);
    let whole = server.get("/x");
    assert_eq!(whole.body.len(), LENGTH);
    assert_eq!(slow.stream_body(LENGTH as u64, |_| {}), LENGTH as u64);
    assert_eq!(origin.received().len(), 1);
}

#[test]
fn what_is_not_cached_by_the_rule_passes_as_if_there_were_no_cache() {
    let origin = counting("Cache-Control: max-age=60\r\n");
    let rule = format!("remap: [{{from: \"/\", to: \"{}\", cache: false}}]", origin.url());
    let server = Server::with(&rule);
    let mut client = server.client();
    for round in 0..2 {
        let response = client.ask(get("/x", ""));
        assert_eq!((response.text(), response.field("Cache-Status")), (format!("version {round}"), None));
    }
}

/// What curl says, with its arguments split at spaces.
fn curl(server: &Server, arguments: &str, path: &str) -> String {
    let mut command = std::process::Command::new("curl");
    command.args(["-s", "-i", "--max-time", "10"]).args(arguments.split_whitespace());
    command.arg(format!("http://{}{path}", server.address()));
    String::from_utf8(walks::process::bounded(command).stdout).unwrap()
}

/// As a new user would try it: a site of a hundred files on a server nobody of us wrote, and a client likewise.
#[test]
fn a_site_of_a_hundred_files_is_served_when_its_server_is_gone() {
    let nginx = Nginx::start(|files| {
        for n in 0..100_u32 {
            let path = files.join(format!("{n}.txt"));
            std::fs::write(&path, format!("file {n}\n").repeat(1 + n as usize)).unwrap();
            // Old enough for a lifetime that nobody named: a tenth of the time since.
            let changed = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(changed).unwrap();
        }
    });
    let server = Server::with(&format!("remap: [{{from: \"/\", to: \"{}\"}}]", nginx.url()));
    let mut tags = Vec::new();
    for round in 0..2 {
        for n in 0..100 {
            let said = curl(&server, "", &format!("/{n}.txt"));
            assert!(said.ends_with(&format!("file {n}\n")), "{said}");
            let expected = if round == 0 { "fwd=uri-miss; stored" } else { "hit; ttl=" };
            assert!(said.contains(&format!("Cache-Status: beltway; {expected}")), "{said}");
            let tag = said.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap().trim().to_owned();
            tags.push(tag);
        }
    }
    let unchanged = curl(&server, &format!("-H If-None-Match:{}", tags[7]), "/7.txt");
    assert!(unchanged.starts_with("HTTP/1.1 304 Not Modified\r\n"), "{unchanged}");
    let head = curl(&server, "-I", "/7.txt");
    assert!(head.contains("Content-Length: 56\r\n") && head.contains("hit; ttl="), "{head}");
    assert!(curl(&server, "-X PURGE", "/9.txt").starts_with("HTTP/1.1 200 OK\r\n"));

    drop(nginx);
    assert!(curl(&server, "", "/8.txt").ends_with("file 8\n"));
    let stale = curl(&server, "-H Cache-Control:max-age=0", "/8.txt");
    assert!(stale.ends_with("file 8\n") && stale.contains("; fwd=request; ttl="), "{stale}");
    assert!(curl(&server, "", "/9.txt").starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "what was purged is gone");
}

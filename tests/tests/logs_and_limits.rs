//! What is written down about requests, what is counted, and what has a limit.

#![allow(clippy::unwrap_used, reason = "a walk that cannot set up its surroundings fails")]

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use walks::{Origin, Server, eventually, pause};

fn lines(server: &Server, file: &str, count: usize) -> Vec<String> {
    eventually("the log's lines", || {
        let text = server.home().text(file);
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        (text.ends_with('\n') && lines.len() >= count).then_some(lines)
    })
}

fn typed(body: &'static str) -> Origin {
    Origin::answering(move |_| {
        let (length, kind) = (body.len(), "text/html; charset=utf-8");
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
    })
}

/// The seconds since 1970, by the machine's own word.
fn civil() -> f64 {
    let mut date = std::process::Command::new("date");
    date.arg("+%s.%N");
    String::from_utf8(walks::process::bounded(date).stdout).unwrap().trim().parse().unwrap()
}

#[test]
fn squids_log_has_a_line_of_squids_fields_for_each_request() {
    let origin = typed("hello");
    let server = Server::with(&format!(
        "remap: [{{from: \"/a/\", to: \"{}\"}}]\naccess_log: {{file: access.log, format: squid}}",
        origin.url()
    ));
    let mut client = server.client();
    client.get("/a/x?y=z");
    client.ask("HEAD /a/x HTTP/1.1\r\nHost: a.example:81\r\n\r\n");
    client.get("/none");
    client.ask("GET http://b.example/a/ HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let mut bad = server.client();
    bad.send("nonsense\r\n\r\n");
    assert_eq!(bad.response().status(), 400);

    let lines = lines(&server, "access.log", 5);
    let fields: Vec<Vec<_>> = lines.iter().map(|line| line.split_ascii_whitespace().collect()).collect();
    let told = fields.iter().map(|line| [line[2], line[3], line[5], line[6], line[8], line[9]].join(" "));
    // Each event thread writes its lines down in its own time: the other connection's may come before.
    let (other, told): (Vec<_>, Vec<_>) = told.partition(|line| line.contains("NONE/400"));
    assert_eq!(other, ["127.0.0.1 NONE/400 - - HIER_NONE/- text/plain"]);
    assert_eq!(
        told,
        [
            "127.0.0.1 TCP_MISS/200 GET http://a.example/a/x?y=z HIER_DIRECT/127.0.0.1 text/html",
            "127.0.0.1 TCP_MISS/200 HEAD http://a.example:81/a/x HIER_DIRECT/127.0.0.1 text/html",
            "127.0.0.1 NONE/404 GET http://a.example/none HIER_NONE/- text/plain",
            "127.0.0.1 TCP_MISS/200 GET http://b.example/a/ HIER_DIRECT/127.0.0.1 text/html",
        ]
    );
    for line in &fields {
        assert_eq!((line.len(), line[7]), (10, "-"), "{line:?}");
        let (time, elapsed): (f64, f64) = (line[0].parse().unwrap(), line[1].parse().unwrap());
        assert!((civil() - time).abs() < 60.0, "{time}");
        assert!(elapsed < 10_000.0);
        assert!(line[4].parse::<u64>().unwrap() > 50, "heads count too: {line:?}");
    }
}

#[test]
fn the_json_log_says_everything_that_is_known() {
    let origin = typed("hello");
    let server = Server::to_and(&[&origin], "access_log: {file: access.json, format: json}");
    let mut client = server.client();
    let request = "POST /x HTTP/1.1\r\nHost: a.example\r\nUser-Agent: \"it\" \\\r\nReferer: http://r.example/\r\n\
                   Content-Length: 3\r\n\r\nabc";
    client.ask(request);
    let second = client.get("/\u{e9}\"x");
    assert_eq!(second.status(), 400, "a target holds ASCII alone");
    let mut client = server.client();
    client.get("/y");
    let lines = lines(&server, "access.json", 3);
    let lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    // Each event thread writes its lines down in its own time: the other connection's may come before.
    let (other, lines): (Vec<_>, Vec<_>) = lines.partition(|line| line["url"] == "http://a.example/y");
    assert_eq!((other.len(), lines.len()), (1, 2));

    let first = &lines[0];
    assert_eq!(first["method"], "POST");
    assert_eq!(first["url"], "http://a.example/x");
    assert_eq!(first["version"], "HTTP/1.1");
    assert_eq!(first["status"], 200);
    assert_eq!(first["result"], "TCP_MISS");
    assert_eq!(first["origin"], origin.address().to_string());
    assert_eq!(first["origin_reused"], false);
    assert_eq!(first["content_type"], "text/html; charset=utf-8");
    assert_eq!(first["referer"], "http://r.example/");
    assert_eq!(first["user_agent"], "\"it\" \\");
    assert_eq!(first["bytes_received"], request.len());
    assert!(first["bytes_sent"].as_u64().unwrap() > 100);
    assert!(first["client"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(first["elapsed_us"].as_u64().is_some());
    assert!(first["time"].as_str().unwrap().ends_with('Z'));
    assert_eq!(first.get("error"), None);
    assert_eq!((&lines[1]["status"], &lines[1]["error"]), (&Value::from(400), &Value::from("bad-request")));
}

#[test]
fn the_log_names_what_went_wrong_and_a_renamed_log_is_begun_anew() {
    let origin = Origin::scripted(|mut connection| {
        let Some(request) = connection.request() else { return };
        match request.target() {
            "/garbage" => connection.send("garbage\r\n\r\n"),
            "/half" => connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
            "/late" => drop(connection.rest()),
            _ => {}
        }
    });
    let server = Server::to_and(
        &[&origin],
        "access_log: {file: access.json, format: json}\ntimeouts: {origin_response: 2s, client_idle: 300ms}",
    );
    for path in ["/closed", "/garbage", "/late", "/half"] {
        let mut client = server.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.response_if_any();
    }
    let mut client = server.client();
    client.send("POST /idle HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    client.response_if_any();
    let told: HashMap<_, _> = lines(&server, "access.json", 5)
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| (line["url"].as_str().unwrap().to_owned(), (line["status"].clone(), line["error"].clone())))
        .collect();
    for (path, status, error) in [
        ("/closed", 502, "origin-closed"),
        ("/garbage", 502, "origin-bad-response"),
        ("/late", 504, "origin-timeout"),
        ("/half", 200, "origin-broke-off"),
        ("/idle", 408, "client-timeout"),
    ] {
        assert_eq!(told[&format!("http://a{path}")], (status.into(), error.into()), "{path}");
    }

    let (log, old) = (server.home().file("access.json"), server.home().file("old"));
    std::fs::rename(&log, &old).unwrap();
    assert!(walks::process::send(server.pid(), rustix::process::Signal::USR1));
    eventually("the log is begun anew", || log.exists().then_some(()));
    let _ = server.get("/closed");
    assert!(lines(&server, "access.json", 1)[0].contains("/closed"));
    assert_eq!(server.home().text("old").lines().count(), 5);
}

#[test]
fn at_the_connection_limit_clients_wait_and_are_served_later() {
    let origin = Origin::saying("ok");
    let server = Server::to_and(&[&origin], "limits: {connections: 4}");
    let mut held: Vec<_> = (0..4).map(|_| server.client()).collect();
    for client in &mut held {
        assert_eq!(client.get("/").text(), "ok");
    }
    // The kernel takes them, the server does not.
    let mut waiting: Vec<_> = (0..3).map(|_| server.client()).collect();
    for client in &mut waiting {
        client.send("GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    waiting[0].assert_silent(Duration::from_millis(300));
    for client in &mut held {
        assert_eq!(client.get("/").text(), "ok", "who is in is served");
    }
    assert!(server.number("beltway_accept_paused_at_limit") >= 1.0);
    for client in &mut waiting {
        drop(held.pop());
        assert_eq!(client.response().text(), "ok");
    }
    assert_eq!(held[0].get("/").text(), "ok");
}

#[test]
fn an_idle_connection_lives_as_long_as_it_may() {
    let origin = Origin::saying("ok");
    let server = Server::to_and(
        &[&origin],
        "timeouts: {keep_alive: 3s, request_head: 10m, origin_keep_alive: 300ms}\nlimits: {origin_idle_shared: 0}",
    );
    let mut client = server.client();
    // Longer than it may be idle, as a whole.
    for _ in 0..10 {
        assert_eq!(client.get("/").text(), "ok");
        pause(Duration::from_millis(400));
    }
    client.assert_closed();
    // An idle connection to an origin has a limit, too.
    eventually("the origin's connection is closed", || (origin.open() == 0).then_some(()));
    assert_eq!(server.get("/").text(), "ok");
    server.await_no_clients();
}

#[test]
fn the_servers_page_tells_its_health_and_counts_what_it_does() {
    let origin = typed("hello");
    let mut server = Server::with(&format!("remap: [{{from: \"/a/\", to: \"{}\"}}]", origin.url()));
    let health = server.page("/healthz");
    assert_eq!(health.status(), 200);
    assert!(health.text().contains(&format!("pid {}", server.pid())), "{}", health.text());
    assert_eq!(server.page("/nothing").status(), 404);

    let mut client = server.client();
    for _ in 0..10 {
        client.get("/a/");
    }
    for _ in 0..3 {
        client.get("/none");
    }
    server.await_number("beltway_http_requests_total", 13.0);
    for (number, value) in [
        ("beltway_http_client_connections_total", 1.0),
        ("beltway_http_client_connections_open", 1.0),
        ("beltway_http_responses_total{class=\"2xx\"}", 10.0),
        ("beltway_http_responses_total{class=\"4xx\"}", 3.0),
        ("beltway_http_responses_total{class=\"5xx\"}", 0.0),
        ("beltway_http_own_answers_total{fault=\"client\"}", 3.0),
        ("beltway_http_origin_connects_total{result=\"opened\"}", 1.0),
        ("beltway_http_origin_reuses_total", 9.0),
        ("beltway_http_transaction_seconds_count", 13.0),
        ("beltway_http_origin_wait_seconds_count", 10.0),
    ] {
        // What a transaction adds up at its end may come after its answer.
        server.await_number(number, value);
    }
    assert!(server.number("beltway_http_client_received_bytes_total") > 13.0 * 20.0);
    assert!(server.number("beltway_http_client_sent_bytes_total") > 13.0 * 50.0);
    assert!(server.number("beltway_http_origin_received_bytes_total") > 10.0 * 50.0);
    // Prometheus reads it: every sample belongs to a family that was announced.
    let page = server.page("/metrics");
    assert!(page.field("Content-Type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
    for line in page.text().lines().filter(|line| !line.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    drop(client);
    server.await_number("beltway_http_client_connections_open", 0.0);
    assert_eq!(server.process().terminate(), Some(0));
}

#[test]
fn a_draining_server_finishes_what_it_began_and_takes_nothing_new() {
    let origin = Origin::scripted(|mut connection| {
        connection.request();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha");
        pause(Duration::from_millis(600));
        connection.send("lf");
    });
    let mut server = Server::to(&[&origin]);
    let mut busy = server.client();
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the origin has the request", || (origin.received().len() == 1).then_some(()));
    let mut idle = server.client();
    pause(Duration::from_millis(50));
    server.process().signal(rustix::process::Signal::TERM);
    idle.assert_closed();
    assert_eq!(busy.response().text(), "half");
    busy.assert_closed();
    eventually("it ends", || (!server.runs()).then_some(()));
    assert!(std::net::TcpStream::connect(server.address()).is_err());
}

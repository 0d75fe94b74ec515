//! Which origin answers: by host, by path, by turn, by hash, by name.

use std::collections::HashMap;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};

use walks::{Origin, Peer, Server, free_address};

/// Answers with its name and the target it was asked for.
fn named(name: &'static str) -> Origin {
    Origin::answering(move |request| {
        let text = format!("{name} {}", request.target());
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes()
    })
}

fn ask(client: &mut Peer, host: &str, path: &str) -> (u16, String) {
    let response = client.ask(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    (response.status(), response.text())
}

#[test]
fn the_first_rule_that_fits_host_and_path_decides() {
    let [a, b, api, rest] = ["a", "b", "api", "rest"].map(named);
    let server = Server::with(&format!(
        "remap:\n\
         - {{from: \"http://a.example/api\", to: \"{}v2\"}}\n\
         - {{from: \"http://a.example/\", to: \"{}\"}}\n\
         - {{from: \"http://*.b.example:81/\", to: \"{}\"}}\n\
         - {{from: \"/open/\", to: \"{}\"}}",
        api.url(),
        a.url(),
        b.url(),
        rest.url()
    ));
    let mut client = server.client();
    for (host, path, expected) in [
        ("a.example", "/", "a /"),
        ("A.Example", "/x?y=z", "a /x?y=z"),
        ("a.example:8080", "/open/x", "a /open/x"),
        ("a.example", "/api", "api /v2"),
        ("a.example", "/api/x?y", "api /v2/x?y"),
        ("a.example", "/api?y", "api /v2?y"),
        ("a.example", "/apis", "a /apis"),
        ("www.b.example:81", "/q", "b /q"),
        ("x.y.b.example:81", "/", "b /"),
        ("c.example", "/open/x", "rest /x"),
        ("www.b.example", "/open/", "rest /"),
    ] {
        assert_eq!(ask(&mut client, host, path), (200, expected.to_owned()), "{host} {path}");
    }
    for (host, path) in [
        ("www.b.example", "/"),
        ("b.example:81", "/"),
        ("badb.example:81", "/"),
        ("c.example", "/"),
        ("c.example", "/open"),
        ("c.example", "/opener/"),
    ] {
        let (status, text) = ask(&mut client, host, path);
        assert_eq!(status, 404, "{host} {path}");
        assert!(text.contains("no rule of this proxy"), "{text}");
    }
}

#[test]
fn a_path_in_disguise_reaches_no_other_rules_urls() {
    let [open, closed] = ["open", "closed"].map(named);
    let server = Server::with(&format!(
        "remap:\n- {{from: \"/open/\", to: \"{}data/\"}}\n- {{from: \"http://a.example/closed/\", to: \"{}\"}}",
        open.url(),
        closed.url()
    ));
    let mut client = server.client();
    for path in ["/open/../closed/x", "/open/%2e%2e/closed/x", "/open/%2E./x", "/open/..", "/%6fpen/x"] {
        let (status, _) = ask(&mut client, "a.example", path);
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
    // What only the origin can judge is passed on as it came.
    assert_eq!(ask(&mut client, "a.example", "/open/a%2fb;c//d").1, "open /data/a%2fb;c//d");
    assert_eq!(closed.connections(), 0);
}

#[test]
fn without_a_rule_the_answer_is_404_and_the_connection_goes_on() {
    let server = Server::with("remap: []");
    let mut client = server.client();
    for _ in 0..3 {
        assert_eq!(ask(&mut client, "a.example", "/").0, 404);
    }
    let response = client.ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((response.status(), response.closes()), (404, false));
    // Content that nobody reads may not be taken for a request.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    let response = client.response_to("POST");
    assert_eq!((response.status(), response.closes()), (404, true));
}

#[test]
fn several_origins_have_their_turns() {
    let origins = [named("one"), named("two"), named("three")];
    let server = Server::to(&[&origins[0], &origins[1], &origins[2]]);
    let mut clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    for _ in 0..30 {
        for client in &mut clients {
            assert_eq!(client.get("/").status(), 200);
        }
    }
    // Each thread counts for itself: the turns of a thread are even, and so is their sum but for the last of each.
    for origin in &origins {
        let share = origin.received().len();
        assert!((38..=42).contains(&share), "{share} of 120");
    }
}

#[test]
fn by_consistent_hash_a_path_has_one_origin_whoever_asks() {
    let origins = [named("one"), named("two"), named("three")];
    let urls: Vec<_> = origins.iter().map(|origin| format!("\"{}\"", origin.url())).collect();
    let server =
        Server::with(&format!("remap: [{{from: \"/\", to: [{}], balance: consistent_hash}}]", urls.join(", ")));
    let mut home: HashMap<String, String> = HashMap::new();
    for _ in 0..4 {
        let mut client = server.client();
        for n in 0..60 {
            let path = format!("/object/{n}?v={n}");
            let who = client.get(&path).text().split(' ').next().unwrap().to_owned();
            assert_eq!(home.entry(path.clone()).or_insert_with(|| who.clone()), &who, "{path}");
        }
    }
    for origin in &origins {
        let share = origin.received().len();
        assert!((20..=140).contains(&share), "{share} of 240");
    }
}

#[test]
fn the_origin_sees_the_clients_host_or_its_own_as_the_rule_says() {
    let origin = named("o");
    let url = origin.url();
    let server = Server::with(&format!(
        "remap:\n- {{from: \"/own/\", to: \"{url}\", host_header: origin}}\n\
         - {{from: \"/\", to: \"{url}\", host_header: preserve}}"
    ));
    let mut client = server.client();
    ask(&mut client, "a.example:99", "/own/x");
    assert_eq!(origin.last().field("Host"), Some(origin.address().to_string().as_str()));
    let forwarded = origin.last().field("Forwarded").unwrap().to_owned();
    assert!(forwarded.contains("host=\"a.example:99\""), "{forwarded}");
    ask(&mut client, "a.example:99", "/x");
    assert_eq!(origin.last().field("Host"), Some("a.example:99"));
}

#[test]
fn an_origin_is_found_by_name_whichever_of_its_addresses_answers() {
    let origin = named("o");
    let server = Server::with(&format!(
        "remap: [{{from: \"/\", to: \"http://localhost:{}/\", host_header: origin}}]",
        origin.address().port()
    ));
    let mut client = server.client();
    for n in 0..3 {
        assert_eq!(client.get(&format!("/{n}")).text(), format!("o /{n}"));
    }
    assert_eq!(origin.last().field("Host"), Some(format!("localhost:{}", origin.address().port()).as_str()));
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_name_without_an_address_is_said_to_be_so_in_time() {
    let address = free_address();
    let server = Server::at(
        address,
        "remap: [{from: \"/\", to: \"http://no-such-name.invalid/\"}]",
        "names: {timeout: 500ms, negative_ttl: 1s}",
    );
    let mut client = server.client();
    let begin = walks::now();
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!(response.status(), 502);
        assert!(response.text().contains("does not resolve"), "{}", response.text());
    }
    // Each attempt has its own wait.
    assert!(begin.elapsed() < std::time::Duration::from_secs(6), "{:?}", begin.elapsed());
}

#[test]
fn ipv6_serves_on_both_sides() {
    let Ok(listener) = TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, 0))) else {
        println!("this machine has no IPv6: nothing to see");
        return;
    };
    let origin = Origin::listening(listener, |mut connection| {
        while connection.request().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n6");
        }
    });
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, free_address().port()));
    let server = Server::at(address, &format!("remap: [{{from: \"http://[::1]/\", to: \"{}\"}}]", origin.url()), "");
    let mut client = server.client();
    assert_eq!(ask(&mut client, &address.to_string(), "/"), (200, "6".to_owned()));
    let request = origin.last();
    assert_eq!(request.field("X-Forwarded-For"), Some("::1"));
    assert_eq!(request.field("Forwarded"), Some(format!("for=\"[::1]\";host=\"{address}\";proto=http").as_str()));
}

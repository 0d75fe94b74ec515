use super::*;

const NOW: WallTime = WallTime::from_secs(784_111_777);

/// The answer to a request head without its empty line: the head as text, the body, and the pauses before its pieces.
struct Answer {
    head: String,
    body: Vec<u8>,
    pauses: Vec<Duration>,
    keep_alive: bool,
}

fn ask(head: &str) -> Answer {
    let line: Vec<&[u8]> = head.lines().next().unwrap().split(' ').map(str::as_bytes).collect();
    let whole = format!("{}\r\n\r\n", head.replace('\n', "\r\n"));
    let request = DemoRequest { method: line[0], target: line[1], head: whole.as_bytes() };
    let mut response = respond(&request, NOW);
    let mut out = Vec::new();
    let connection = Connection { http_11: line.get(2) != Some(&&b"HTTP/1.0"[..]), keep_alive: true };
    let keep_alive = response.write_head(NOW, connection, &mut out);
    let (mut body, mut pauses) = (Vec::new(), Vec::new());
    while let Some(piece) = response.body.next_piece() {
        assert!(!piece.bytes.is_empty());
        body.extend_from_slice(&piece.bytes);
        pauses.push(piece.delay);
    }
    assert!(response.body.next_piece().is_none());
    Answer { head: String::from_utf8(out).unwrap(), body, pauses, keep_alive }
}

impl Answer {
    fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

#[test]
fn every_page_says_what_it_is_how_long_it_lasts_and_what_identifies_it() {
    for (path, content_type) in
        [("/", "text/html"), ("/about", "text/html"), ("/style.css", "text/css"), ("/belt.svg", "image/svg+xml")]
    {
        let answer = ask(&format!("GET {path} HTTP/1.1"));
        assert_eq!(answer.status(), 200);
        assert!(answer.field("Content-Type").unwrap().starts_with(content_type));
        assert_eq!(answer.field("Content-Length").unwrap(), answer.body.len().to_string());
        assert_eq!(answer.field("Cache-Control"), Some("public, max-age=60"));
        assert_eq!(answer.field("Date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert!(answer.field("Last-Modified").is_some() && answer.field("ETag").unwrap().len() == 18);
        assert!(answer.head.ends_with("\r\n\r\n") && answer.keep_alive);
    }
}

#[test]
fn pages_with_different_content_have_different_tags() {
    let pages = Page::all();
    for (index, one) in pages.iter().enumerate() {
        for other in &pages[index + 1..] {
            assert_eq!(one.etag == other.etag, one.content == other.content);
        }
    }
}

#[test]
fn html_pages_say_that_this_is_a_demonstration_and_link_only_to_what_exists() {
    for path in ["/", "/about", "/nowhere"] {
        let answer = ask(&format!("GET {path} HTTP/1.1"));
        assert!(answer.text().contains("This is a demonstration."));
        for link in answer.text().split("href=\"").chain(answer.text().split("src=\"")).skip(1) {
            let Some(target) = link.split('"').next().filter(|target| target.starts_with('/')) else { continue };
            let expected = match target {
                "/nowhere" => 404,
                "/status/503" => 503,
                _ => 200,
            };
            assert_eq!(ask(&format!("GET {target} HTTP/1.1")).status(), expected, "{target} on {path}");
        }
    }
}

#[test]
fn a_copy_that_is_still_right_is_not_sent_again() {
    let page = ask("GET / HTTP/1.1");
    let etag = page.field("ETag").unwrap();
    let modified = page.field("Last-Modified").unwrap();
    for condition in [
        format!("If-None-Match: {etag}"),
        format!("if-none-match: \"other\", W/{etag}"),
        "If-None-Match: *".to_owned(),
        format!("If-Modified-Since: {modified}"),
    ] {
        let answer = ask(&format!("GET / HTTP/1.1\nHost: a\n{condition}"));
        assert_eq!((answer.status(), answer.body.len()), (304, 0), "{condition}");
        assert_eq!(answer.field("ETag"), Some(etag));
        assert_eq!(answer.field("Content-Length"), None);
    }
    for condition in [format!("If-None-Match: \"no\"\nIf-Modified-Since: {modified}"), format!("Other: {etag}")] {
        assert_eq!(ask(&format!("GET / HTTP/1.1\n{condition}")).status(), 200, "{condition}");
    }
}

#[test]
fn head_tells_of_the_body_and_sends_none() {
    for path in ["/", "/bytes/1000", "/slow?ms=5", "/chunked", "/status/404", "/nowhere"] {
        let (get, head) = (ask(&format!("GET {path} HTTP/1.1")), ask(&format!("HEAD {path} HTTP/1.1")));
        assert_eq!(get.head, head.head);
        assert!(head.body.is_empty());
    }
}

#[test]
fn echo_shows_the_request_as_it_was_received() {
    let answer = ask("POST /echo?a=b HTTP/1.1\nHost: example.com\nX-Forwarded-For: 127.0.0.1");
    assert_eq!(answer.status(), 200);
    assert!(answer.text().contains("POST /echo?a=b HTTP/1.1\nHost: example.com\nX-Forwarded-For: 127.0.0.1\n"));
    assert_eq!(answer.field("Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.field("X-Content-Type-Options"), Some("nosniff"));
    let long = ask(&format!("GET /echo HTTP/1.1\nX: {}", "x".repeat(ECHO_MAX)));
    assert!(long.body.len() < ECHO_MAX + 100);
}

#[test]
fn only_echo_takes_other_methods() {
    let refused = ask("DELETE / HTTP/1.1");
    assert_eq!((refused.status(), refused.field("Allow")), (405, Some("GET, HEAD, OPTIONS")));
    let options = ask("OPTIONS * HTTP/1.1");
    assert_eq!((options.status(), options.field("Content-Length")), (204, None));
}

#[test]
fn what_must_not_be_stored_says_so() {
    for path in ["/time", "/echo", "/slow?ms=0"] {
        assert_eq!(ask(&format!("GET {path} HTTP/1.1")).field("Cache-Control"), Some("no-store"), "{path}");
    }
    assert_eq!(ask("GET /time HTTP/1.1").text(), "It is Sun, 06 Nov 1994 08:49:37 GMT.\n");
}

#[test]
fn the_delay_comes_before_the_answer_and_is_bounded() {
    for (query, ms) in
        [("?ms=250", 250), ("", 1_000), ("?x=1&ms=0", 0), ("?ms=10001", 10_000), ("?ms=99999999999", 10_000)]
    {
        let answer = ask(&format!("GET /slow{query} HTTP/1.1"));
        assert_eq!(answer.pauses, [Duration::from_millis(ms)], "{query}");
        assert_eq!(answer.text(), format!("This took {ms} ms.\n"));
    }
    for query in ["?ms=", "?ms=-1", "?ms=1s", "?ms=99999999999999999999999"] {
        assert_eq!(ask(&format!("GET /slow{query} HTTP/1.1")).status(), 400, "{query}");
    }
}

#[test]
fn a_body_of_unknown_length_is_chunked_or_ends_with_the_connection() {
    let answer = ask("GET /chunked HTTP/1.1");
    assert_eq!((answer.field("Transfer-Encoding"), answer.field("Content-Length")), (Some("chunked"), None));
    assert_eq!(answer.text().lines().count(), 8);
    assert_eq!(answer.pauses[0], Duration::ZERO);
    assert!(answer.pauses[1..].iter().all(|pause| *pause > Duration::ZERO) && answer.keep_alive);
    let old = ask("GET /chunked HTTP/1.0");
    assert_eq!((old.field("Transfer-Encoding"), old.field("Connection")), (None, Some("close")));
    assert!(!old.keep_alive);
    assert_eq!(ask("GET / HTTP/1.0").field("Connection"), Some("keep-alive"));
}

#[test]
fn bytes_are_as_many_as_asked_and_the_same_each_time() {
    for length in [0, 1, 63, 64, 16_383, 16_384, 16_385, 100_000] {
        let answer = ask(&format!("GET /bytes/{length} HTTP/1.1"));
        assert_eq!(answer.body.len(), length);
        assert_eq!(answer.field("Content-Length").unwrap(), length.to_string());
        assert!(answer.body.iter().enumerate().all(|(at, byte)| *byte == body::PATTERN[at % body::PATTERN.len()]));
    }
    assert!(
        ask("GET /bytes/129 HTTP/1.1")
            .text()
            .ends_with("\n001 Beltway, a demonstration: these bytes are made up within it\n0")
    );
    for length in ["", "x", "-1", "1073741825", "99999999999999999999999"] {
        assert_eq!(ask(&format!("GET /bytes/{length} HTTP/1.1")).status(), 400, "{length}");
    }
    let request = DemoRequest { method: b"GET", target: b"/bytes/1073741824", head: b"" };
    assert_eq!(respond(&request, NOW).framing, Framing::Length(BYTES_MAX));
}

#[test]
fn any_final_status_can_be_had() {
    for code in 200..600 {
        let answer = ask(&format!("GET /status/{code} HTTP/1.1"));
        assert_eq!(answer.status(), code);
        assert_eq!(answer.body.is_empty(), matches!(code, 204 | 304), "{code}");
    }
    assert_eq!(ask("GET /status/302 HTTP/1.1").field("Location"), Some("/"));
    for code in ["", "99", "100", "199", "600", "65736", "2xx"] {
        assert_eq!(ask(&format!("GET /status/{code} HTTP/1.1")).status(), 400, "{code}");
    }
}

#[test]
fn what_varies_says_by_which_field() {
    let answer = ask("GET /vary HTTP/1.1\nAccept-Encoding: gzip, br");
    assert_eq!(answer.field("Vary"), Some("Accept-Encoding"));
    assert!(answer.text().starts_with("Accept-Encoding was: gzip, br\n"));
    assert!(ask("GET /vary HTTP/1.1").text().starts_with("Accept-Encoding was: nothing\n"));
}

#[test]
fn an_absolute_target_is_the_same_page() {
    for target in ["http://example.com/", "http://example.com", "http://example.com/?a=b://c"] {
        assert_eq!(
            ask(&format!("GET {target} HTTP/1.1")).field("ETag"),
            ask("GET / HTTP/1.1").field("ETag"),
            "{target}"
        );
    }
    assert_eq!(ask("GET /x?u=http://example.com/ HTTP/1.1").status(), 404);
}

#[test]
fn no_bytes_of_a_request_break_the_site() {
    let mut rng = base::Rng::new(11);
    let alphabet = b"GET/HEAD?&=:. \r\n0129ms\x00\xff\"*,Wif-none-match";
    for _ in 0..20_000 {
        let mut some = |max: u64| -> Vec<u8> {
            let length = rng.below(max);
            (0..length).map(|_| alphabet[usize::try_from(rng.below(alphabet.len() as u64)).unwrap()]).collect()
        };
        let (method, target, head) = (some(8), [&b"/"[..], &some(20)].concat(), some(80));
        for method in [&method[..], b"GET"] {
            let response = respond(&DemoRequest { method, target: &target, head: &head }, NOW);
            assert!((200..600).contains(&response.status));
        }
    }
}

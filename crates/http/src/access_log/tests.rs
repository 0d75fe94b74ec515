use base::{Clock as _, SystemClock};

use super::*;

fn record() -> Record<'static> {
    Record {
        time: WallTime::from_micros(1_795_305_082_123_456),
        elapsed: Duration::from_micros(17_400),
        client: "127.0.0.1:40000".parse().unwrap(),
        method: b"GET",
        url: Url { scheme: "http", authority: b"www.example.com", target: b"/a/b?c=d" },
        version: "HTTP/1.1",
        status: 200,
        bytes_sent: 1_234,
        bytes_received: 99,
        result: "TCP_MISS",
        hierarchy: "DIRECT",
        origin: Some("10.0.0.5:8000".parse().unwrap()),
        origin_reused: true,
        content_type: b"text/html; charset=utf-8",
        referer: b"http://elsewhere/",
        user_agent: b"curl/8.0",
        error: None,
    }
}

fn line(format: Format, record: &Record<'_>) -> Vec<u8> {
    let mut line = Vec::new();
    Formatter::new(format).append(record, &mut line);
    line
}

fn text(format: Format, record: &Record<'_>) -> String {
    String::from_utf8(line(format, record)).unwrap()
}

#[test]
fn each_format_looks_as_its_readers_expect() {
    assert_eq!(
        text(Format::Squid, &record()),
        "1795305082.123     17 127.0.0.1 TCP_MISS/200 1234 GET http://www.example.com/a/b?c=d - DIRECT/10.0.0.5 text/html"
    );
    assert_eq!(
        text(Format::Common, &record()),
        r#"127.0.0.1 - - [21/Nov/2026:23:51:22 +0000] "GET /a/b?c=d HTTP/1.1" 200 1234"#
    );
    assert_eq!(
        text(Format::Combined, &record()),
        r#"127.0.0.1 - - [21/Nov/2026:23:51:22 +0000] "GET /a/b?c=d HTTP/1.1" 200 1234 "http://elsewhere/" "curl/8.0""#
    );
    assert_eq!(
        text(Format::Json, &record()),
        concat!(
            r#"{"time":"2026-11-21T23:51:22.123Z","elapsed_us":17400,"client":"127.0.0.1:40000","method":"GET","#,
            r#""url":"http://www.example.com/a/b?c=d","version":"HTTP/1.1","status":200,"result":"TCP_MISS","#,
            r#""bytes_sent":1234,"bytes_received":99,"hierarchy":"DIRECT","origin":"10.0.0.5:8000","#,
            r#""origin_reused":true,"content_type":"text/html; charset=utf-8","referer":"http://elsewhere/","#,
            r#""user_agent":"curl/8.0"}"#
        )
    );
}

#[test]
fn a_request_that_could_not_be_read_still_has_every_column() {
    let empty = Record {
        method: b"",
        url: Url { scheme: "http", authority: b"", target: b"" },
        status: 0,
        origin: None,
        hierarchy: "NONE",
        result: "NONE",
        content_type: b"",
        referer: b"",
        user_agent: b"",
        error: Some("bad_request"),
        elapsed: Duration::from_secs(10_000),
        client: "[::ffff:192.0.2.1]:1".parse().unwrap(),
        ..record()
    };
    assert_eq!(text(Format::Squid, &empty), "1795305082.123 10000000 192.0.2.1 NONE/000 1234 - - - NONE/- -");
    assert!(text(Format::Combined, &empty).ends_with(r#""- - HTTP/1.1" 000 1234 "-" "-""#));
    let json: serde_json::Value = serde_json::from_slice(&line(Format::Json, &empty)).unwrap();
    assert_eq!(json["error"], "bad_request");
    assert_eq!(json["client"], "192.0.2.1:1");
    assert!(json.get("origin").is_none() && json.get("referer").is_none());
}

#[test]
fn targets_of_every_form_make_the_url_the_client_meant() {
    for (authority, target, url) in [
        ("h", "/", "http://h/"),
        ("h", "http://other/x", "http://other/x"),
        ("h", "*", "*"),
        ("", "example.com:443", "example.com:443"),
        ("", "/only", "/only"),
    ] {
        let url_of = Url { scheme: "http", authority: authority.as_bytes(), target: target.as_bytes() };
        let json: serde_json::Value =
            serde_json::from_slice(&line(Format::Json, &Record { url: url_of, ..record() })).unwrap();
        assert_eq!(json["url"], url);
    }
}

#[test]
fn an_ipv6_client_is_written_as_such() {
    let record = Record { client: "[2001:db8::1]:443".parse().unwrap(), ..record() };
    assert!(text(Format::Common, &record).starts_with("2001:db8::1 - - "));
    assert!(text(Format::Json, &record).contains(r#""client":"[2001:db8::1]:443""#));
}

#[test]
fn no_byte_a_client_sends_can_forge_a_line_a_column_or_a_terminal_escape() {
    for first in 0..=255_u8 {
        for second in [b'a', b'\n', b'"', b'\\', 0x80, 0x9b, 0xbf, 0xc2, 0xff] {
            let evil = [b'x', first, second, b'y'];
            let record = Record {
                method: &evil,
                url: Url { scheme: "http", authority: &evil, target: &evil },
                content_type: &evil,
                referer: &evil,
                user_agent: &evil,
                ..record()
            };
            for format in Format::ALL {
                let line = line(format, &record);
                let told = String::from_utf8(line.clone()).unwrap();
                assert!(!told.chars().any(char::is_control), "{format} {evil:?}: {told:?}");
                if format != Format::Json {
                    assert!(line.is_ascii(), "{format} {evil:?}: {told:?}");
                }
            }
            let squid = text(Format::Squid, &record);
            assert_eq!(squid.split_ascii_whitespace().count(), 10, "{squid}");
            let combined = text(Format::Combined, &record);
            assert_eq!(combined.replace("\\\\", "").replace("\\\"", "").matches('"').count(), 6, "{combined}");
            let json: serde_json::Value = serde_json::from_slice(&line(Format::Json, &record)).unwrap();
            assert_eq!(json["user_agent"], String::from_utf8_lossy(&evil).as_ref(), "{evil:?}");
        }
    }
}

#[test]
fn a_field_too_long_is_cut_visibly_and_json_stays_json() {
    for filling in [&b"a"[..], b"\x01", "\u{e4}".as_bytes(), "\u{1f600}".as_bytes(), b"\xff", b"\""] {
        let long = filling.repeat(20_000);
        let record = Record {
            method: &long,
            url: Url { scheme: "http", authority: &long, target: &[b"/", &long[..]].concat() },
            referer: &long,
            user_agent: &long,
            content_type: &long,
            ..record()
        };
        for format in Format::ALL {
            let line = line(format, &record);
            assert!(line.len() < 11 * 1024, "{format}: {}", line.len());
            assert!(line.windows(3).any(|w| w == b"..."));
            if format == Format::Json {
                let json: serde_json::Value = serde_json::from_slice(&line).unwrap();
                assert!(json["url"].as_str().unwrap().ends_with("..."));
            }
        }
    }
}

#[test]
fn the_text_of_a_second_is_not_used_for_another() {
    let mut formatter = Formatter::new(Format::Common);
    for (secs, stamp) in [(0, "01/Jan/1970:00:00:00"), (0, "01/Jan/1970:00:00:00"), (61, "01/Jan/1970:00:01:01")] {
        let mut line = Vec::new();
        formatter.append(&Record { time: WallTime::from_secs(secs), ..record() }, &mut line);
        assert!(String::from_utf8(line).unwrap().contains(stamp));
    }
}

#[test]
fn a_format_is_found_by_the_name_it_prints() {
    for format in Format::ALL {
        assert_eq!(Format::named(&format.to_string()), Some(format));
    }
    assert_eq!(Format::named("Squid"), None);
}

/// Prints what a line costs; run by hand with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_line() {
    const ROUNDS: u32 = 2_000_000;
    let record = std::hint::black_box(record());
    for format in Format::ALL {
        let mut formatter = Formatter::new(format);
        let mut line = Vec::with_capacity(4096);
        let began = SystemClock.now();
        for _ in 0..ROUNDS {
            line.clear();
            formatter.append(std::hint::black_box(&record), &mut line);
        }
        let spent = SystemClock.now().since(began);
        println!("{format}: {} ns, {} bytes", spent.as_nanos() / u128::from(ROUNDS), line.len());
    }
}

use proptest::prelude::*;

use super::*;
use crate::rules::caching::store::may_store;
use crate::rules::caching::stored::{Answer, HitContext, encode, write_hit_head};
use crate::rules::caching::tests::{NOW, NOW_S, date_line, exchanged, request, response};
use crate::rules::forward::ConnectionField;
use crate::rules::framing::Framing;

fn stored(status: u16, lines: &str) -> Vec<u8> {
    exchanged("", status, &format!("Cache-Control: max-age=60\r\n{lines}"), |exchange| {
        let mut out = Vec::new();
        encode(&mut out, exchange, &may_store(exchange).unwrap(), b"http://a.example/x").unwrap();
        out
    })
}

#[test]
fn the_origin_is_asked_with_every_validator_there_is() {
    let modified = date_line("Last-Modified", -9);
    let since = modified.replace("Last-Modified", "If-Modified-Since");
    for (lines, expected) in [
        (String::new(), String::new()),
        ("ETag: W/\"a\"\r\n".to_owned(), "If-None-Match: W/\"a\"\r\n".to_owned()),
        (modified.clone(), since.clone()),
        (format!("{modified}ETag: \"a\"\r\n"), format!("If-None-Match: \"a\"\r\n{since}")),
        ("ETag:\r\n".to_owned(), String::new()),
    ] {
        let record = stored(200, &lines);
        let meta = StoredMeta::decode(&record).unwrap();
        let mut out = Vec::new();
        put_revalidation(&mut out, &meta);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert_eq!(meta.has_validator(), !expected.is_empty());
    }
}

#[test]
fn a_304_confirms_what_it_names_or_what_was_asked_for() {
    let (day, other) = (date_line("Last-Modified", -9), date_line("Last-Modified", -8));
    for (lines, said, expected) in [
        ("ETag: \"a\"\r\n", "ETag: \"a\"\r\n", true),
        ("ETag: \"a\"\r\n", "ETag: W/\"a\"\r\n", true),
        ("ETag: W/\"a\"\r\n", "ETag: \"a\"\r\n", true),
        ("ETag: \"a\"\r\n", "ETag: \"b\"\r\n", false),
        ("ETag: \"a\"\r\n", "", true),
        (&day, "", true),
        (&day, &day, true),
        (&day, &other, false),
        (&day, "ETag: \"a\"\r\n", true),
        (&format!("ETag: \"a\"\r\n{day}"), &format!("ETag: \"a\"\r\n{other}"), true),
        (&format!("ETag: \"a\"\r\n{day}"), &other, false),
    ] {
        let record = stored(200, lines);
        let (head, text) = response(304, said);
        assert_eq!(confirms(&head, &text, &StoredMeta::decode(&record).unwrap()), expected, "{lines:?} {said:?}");
    }
}

#[test]
fn an_answer_to_head_agrees_when_validators_and_length_do() {
    // RFC 9111 §4.3.5
    let (day, other) = (date_line("Last-Modified", -9), date_line("Last-Modified", -8));
    let lines = format!("ETag: \"a\"\r\n{day}");
    for (status, said, expected) in [
        (200, "", true),
        (200, "Content-Length: 5\r\n", true),
        (200, "Content-Length: 6\r\n", false),
        (200, "ETag: \"a\"\r\n", true),
        (200, "ETag: \"b\"\r\n", false),
        (200, &day, true),
        (200, &other, false),
        (404, "", false),
    ] {
        let record = stored(200, &lines);
        let (head, text) = response(status, said);
        assert_eq!(head_agrees(&head, &text, &StoredMeta::decode(&record).unwrap(), 5), expected, "{status} {said:?}");
    }
    let (head, text) = response(200, &day);
    assert!(!head_agrees(&head, &text, &StoredMeta::decode(&stored(200, "")).unwrap(), 5));
}

fn freshened(lines: &str, request_lines: &str, said: &str) -> Result<(String, Vec<u8>), Reason> {
    let record = stored(200, lines);
    let meta = StoredMeta::decode(&record).unwrap();
    let mut out = Vec::new();
    exchanged(request_lines, 304, said, |exchange| Freshener::new().freshen(&mut out, &meta, exchange))?;
    let meta = StoredMeta::decode(&out).unwrap();
    assert!(meta.is_sound());
    assert_eq!((meta.key(), meta.status()), (b"http://a.example/x".as_slice(), 200));
    let text = |bytes| String::from_utf8_lossy(bytes);
    let mut fields: Vec<_> = meta.fields().map(|(name, value)| format!("{}={}", text(name), text(value))).collect();
    fields.retain(|field| !field.starts_with("Date="));
    fields.sort();
    Ok((fields.join(" "), out))
}

#[test]
fn a_304_replaces_the_fields_it_has_and_leaves_the_others() {
    // RFC 9111 §3.2 and §4.3.4
    for (lines, said, expected) in [
        ("ETag: \"a\"\r\nA: 1\r\n", "ETag: \"a\"\r\n", "A=1 Cache-Control=max-age=60 ETag=\"a\""),
        ("ETag: \"a\"\r\nA: 1\r\nA: 2\r\nB: 1\r\n", "a: 3\r\n", "B=1 Cache-Control=max-age=60 ETag=\"a\" a=3"),
        ("ETag: \"a\"\r\n", "Cache-Control: max-age=5, public\r\n", "Cache-Control=max-age=5, public ETag=\"a\""),
        ("ETag: \"a\"\r\n", "C: 1\r\nC: 2\r\n", "C=1 C=2 Cache-Control=max-age=60 ETag=\"a\""),
        // What belongs to the content, to the hop, or to one client
        (
            "ETag: \"a\"\r\nContent-Encoding: gzip\r\nContent-Type: a/b\r\n",
            "Content-Encoding: br\r\nContent-Length: 7\r\nContent-Range: x\r\nKeep-Alive: 5\r\nSet-Cookie: a=b\r\n",
            "Cache-Control=max-age=60 Content-Encoding=gzip Content-Type=a/b ETag=\"a\"",
        ),
        ("ETag: \"a\"\r\nA: 1\r\n", "Connection: a\r\nA: 2\r\n", "A=1 Cache-Control=max-age=60 ETag=\"a\""),
        // What speaks of the old exchange
        ("ETag: \"a\"\r\nAge: 9\r\nCache-Status: x; hit\r\n", "", "Cache-Control=max-age=60 ETag=\"a\""),
    ] {
        assert_eq!(freshened(lines, "", said).unwrap().0, expected, "{lines:?} {said:?}");
    }
}

#[test]
fn a_freshened_response_is_young_again() {
    let old = format!("ETag: \"a\"\r\nAge: 50\r\nVia: 1.1 old\r\n{}", date_line("Date", -40));
    let (_, record) = freshened(&old, "", &format!("Age: 2\r\nVia: 1.1 new\r\n{}", date_line("Date", -1))).unwrap();
    let meta = StoredMeta::decode(&record).unwrap();
    assert_eq!(meta.terms().born.as_micros(), NOW.as_micros() - 2_500_000);
    assert_eq!(meta.date_s(), NOW_S - 1);
    // Without a Date the moment of reception counts, not the old date.
    let (_, record) = freshened(&old, "", "").unwrap();
    let meta = StoredMeta::decode(&record).unwrap();
    assert_eq!((meta.date_s(), meta.terms().born.as_micros()), (NOW_S, NOW.as_micros() - 500_000));
    let mut out = Vec::new();
    let context = HitContext {
        answer: Answer::Whole,
        age_s: 0,
        framing: Framing::Length(5),
        via: "beltway",
        connection: ConnectionField::Absent,
        status: None,
        extra: b"",
    };
    write_hit_head(&mut out, &meta, &context);
    let head = String::from_utf8(out).unwrap();
    assert!(head.contains("Via: 1.1 beltway\r\n") && head.starts_with("HTTP/1.1 200 Said\r\n"), "{head}");
}

#[test]
fn a_304_can_take_back_the_permission_to_store() {
    for (request_lines, said, expected) in [
        ("", "Cache-Control: no-store\r\n", Reason::NoStore),
        ("", "Cache-Control: private\r\n", Reason::Private),
        ("", "Vary: *\r\n", Reason::VaryStar),
        ("Cache-Control: no-store\r\n", "", Reason::RequestNoStore),
        ("Authorization: x\r\n", "", Reason::Authorization),
    ] {
        assert_eq!(freshened("ETag: \"a\"\r\n", request_lines, said).unwrap_err(), expected, "{said}");
    }
}

fn evaluated(status: u16, lines: &str, request_lines: &str) -> bool {
    let record = stored(status, lines);
    let (head, text) = request(request_lines);
    evaluate(&StoredMeta::decode(&record).unwrap(), &head, &text, NOW) == Precondition::NotModified
}

#[test]
fn conditions_of_clients_are_judged_in_the_order_of_the_standard() {
    let day = |name: &str, offset| date_line(name, offset);
    let modified = day("Last-Modified", -100);
    let both = format!("ETag: \"a\"\r\n{modified}");
    for (lines, asked, expected) in [
        (both.as_str(), String::new(), false),
        // If-None-Match: weak comparison
        (&both, "If-None-Match: \"a\"\r\n".to_owned(), true),
        (&both, "If-None-Match: W/\"a\"\r\n".to_owned(), true),
        (&both, "If-None-Match: \"b\", \"a\"\r\n".to_owned(), true),
        (&both, "If-None-Match: \"b\"\r\nIf-None-Match: \"a\"\r\n".to_owned(), true),
        (&both, "If-None-Match: \"b\"\r\n".to_owned(), false),
        (&both, "If-None-Match: *\r\n".to_owned(), true),
        (&both, "If-None-Match: \"*\"\r\n".to_owned(), false),
        (&both, "If-None-Match:\r\n".to_owned(), false),
        ("", "If-None-Match: \"a\"\r\n".to_owned(), false),
        ("", "If-None-Match: *\r\n".to_owned(), true),
        // It goes before If-Modified-Since.
        (&both, format!("If-None-Match: \"b\"\r\n{}", day("If-Modified-Since", -100)), false),
        (&both, format!("If-None-Match: \"a\"\r\n{}", day("If-Modified-Since", -500)), true),
        (&modified, format!("If-None-Match: \"a\"\r\n{}", day("If-Modified-Since", -100)), false),
        // If-Modified-Since
        (&both, day("If-Modified-Since", -100), true),
        (&both, day("If-Modified-Since", -99), true),
        (&both, day("If-Modified-Since", 9_999), true),
        (&both, day("If-Modified-Since", -101), false),
        (&both, "If-Modified-Since: x\r\n".to_owned(), false),
        (&both, "If-Modified-Since:\r\n".to_owned(), false),
        (&both, format!("{0}{0}", day("If-Modified-Since", 0)), false),
        (&both, "If-Modified-Since: Saturday, 21-Nov-26 10:00:00 GMT\r\n".to_owned(), true),
        // RFC 9111 §4.3.2: without Last-Modified, Date; without both, the time of reception.
        (&day("Date", -50), day("If-Modified-Since", -50), true),
        (&day("Date", -50), day("If-Modified-Since", -51), false),
        ("", day("If-Modified-Since", 0), true),
        ("", day("If-Modified-Since", -1), false),
        ("Last-Modified: x\r\n", "If-Modified-Since: x\r\n".to_owned(), false),
    ] {
        assert_eq!(evaluated(200, lines, &asked), expected, "{lines:?} {asked:?}");
    }
    // RFC 9110 §13.2.1: only where the answer would be 2xx.
    for (status, expected) in [(200, true), (203, true), (299, true), (301, false), (404, false), (500, false)] {
        assert_eq!(evaluated(status, "ETag: \"a\"\r\n", "If-None-Match: \"a\"\r\n"), expected, "{status}");
    }
}

#[test]
fn a_range_needs_a_strong_validator() {
    // RFC 9110 §13.1.5
    let modified = |offset| date_line("Last-Modified", offset);
    let (fixed, since) = (modified(-60), date_line("If-Range", -60));
    for (lines, asked, expected) in [
        ("ETag: \"a\"\r\n", "", true),
        ("ETag: \"a\"\r\n", "If-Range: \"a\"\r\n", true),
        ("ETag: \"a\"\r\n", "If-Range: \"b\"\r\n", false),
        ("ETag: \"a\"\r\n", "If-Range: W/\"a\"\r\n", false),
        ("ETag: W/\"a\"\r\n", "If-Range: W/\"a\"\r\n", false),
        ("ETag: W/\"a\"\r\n", "If-Range: \"a\"\r\n", false),
        ("ETag: a\r\n", "If-Range: a\r\n", false),
        ("", "If-Range: \"a\"\r\n", false),
        (&fixed, &since, true),
        (&fixed, &date_line("If-Range", -59), false),
        (&fixed, &date_line("If-Range", 0), false),
        (&modified(-59), &date_line("If-Range", -59), false),
        (&fixed, &format!("{since}{since}"), false),
        (&fixed, "If-Range: x\r\n", false),
    ] {
        let record = stored(200, lines);
        let (head, text) = request(&format!("Range: bytes=0-1\r\n{asked}"));
        assert_eq!(range_applies(&StoredMeta::decode(&record).unwrap(), &head, &text), expected, "{lines:?} {asked:?}");
    }
}

proptest! {
    #[test]
    fn no_conditions_panic(value in "[W/\"a,* 0-9:GMT]{0,40}", lines in "(ETag: [W/\"a]{0,6}\r\n)?") {
        let record = stored(200, &lines);
        let meta = StoredMeta::decode(&record).unwrap();
        for name in ["If-None-Match", "If-Modified-Since", "If-Range"] {
            let (head, text) = request(&format!("{name}: {value}\r\n"));
            let _ = (evaluate(&meta, &head, &text, NOW), range_applies(&meta, &head, &text));
        }
    }
}

use proptest::prelude::*;

use super::*;
use crate::rules::caching::cache_status::CacheName;
use crate::rules::caching::store::may_store;
use crate::rules::caching::tests::{NOW, NOW_S, date_line, exchanged};
use crate::wire::Method;
use crate::wire::h1::{Limits, ResponseHead, Status};

const KEY: &[u8] = b"http://a.example/x";

fn stored(request_lines: &str, status: u16, lines: &str) -> Vec<u8> {
    exchanged(request_lines, status, lines, |exchange| {
        let storable = may_store(exchange).unwrap();
        let mut out = Vec::new();
        encode(&mut out, exchange, &storable, KEY).unwrap();
        let meta = StoredMeta::decode(&out).unwrap();
        assert!(meta.is_sound());
        assert_eq!(meta.terms(), storable.terms());
        out
    })
}

const PLAIN: HitContext<'_> = HitContext {
    answer: Answer::Whole,
    age_s: 12,
    framing: Framing::Length(1024),
    via: "beltway",
    connection: ConnectionField::Absent,
    status: None,
    extra: b"",
};

fn served(record: &[u8], context: &HitContext<'_>) -> String {
    let mut out = Vec::new();
    write_hit_head(&mut out, &StoredMeta::decode(record).unwrap(), context);
    let mut head = ResponseHead::new();
    assert_eq!(head.parse(&out, &Limits::default(), Method::Get), Ok(Status::Complete), "{}", out.escape_ascii());
    assert_eq!(head.head_len(), out.len());
    String::from_utf8(out).unwrap()
}

fn full() -> (String, Vec<u8>) {
    let date = date_line("Date", -3);
    let lines = format!(
        "Server: o\r\n{date}Content-Type: text/html\r\nContent-Length: 1024\r\nETag: W/\"a\"\r\nX-Old: 1\r\nAge: 4\r\n\
         Connection: x-old, close\r\nKeep-Alive: timeout=5\r\nVia: 1.0 fred\r\nvia: 1.1 p\r\nCache-Status: up; hit\r\n\
         {}Cache-Control: public, max-age=60, stale-while-revalidate=5, private=\"x-mine\"\r\nX-Mine: 1\r\n\
         Set-Cookie: a=b\r\nVary: Accept-Encoding\r\nTrailer: X\r\n",
        date_line("Last-Modified", -1000),
    );
    (date, stored("Accept-Encoding: gzip\r\n", 200, &lines))
}

#[test]
fn what_is_stored_comes_back() {
    let (_, record) = full();
    let meta = StoredMeta::decode(&record).unwrap();
    assert_eq!((meta.key(), meta.status(), meta.status_line()), (KEY, 200, b"HTTP/1.1 200 Said".as_slice()));
    assert_eq!((meta.response_time(), meta.date_s(), meta.modified_s()), (NOW, NOW_S - 3, Some(NOW_S - 1000)));
    assert_eq!(meta.request_time().as_micros(), NOW.as_micros() - 500_000);
    assert_eq!((meta.etag_text(), meta.content_type()), (Some(b"W/\"a\"".as_slice()), Some(b"text/html".as_slice())));
    assert_eq!(meta.modified_text(), Some(&date::format(NOW_S - 1000)[..]));
    assert!(meta.has_validator() && !meta.is_lifetime_guessed() && meta.etag().unwrap().is_weak());
    let terms = meta.terms();
    assert_eq!((terms.lifetime_s, terms.stale_while_revalidate_s, terms.stale_if_error_s), (60, 5, None));
    assert_eq!(terms.born.as_micros(), NOW.as_micros() - 4_500_000);
    assert_eq!(meta.vary().into_iter().count(), 1);
    let names: Vec<_> = meta.fields().map(|(name, _)| std::str::from_utf8(name).unwrap()).collect();
    assert_eq!(
        names,
        [
            "Date",
            "ETag",
            "Cache-Control",
            "Vary",
            "Server",
            "Content-Type",
            "Cache-Status",
            "Last-Modified",
            "Set-Cookie"
        ]
    );
}

#[test]
fn lines_are_stored_in_one_spelling_however_they_came() {
    let usual = stored("", 200, "Cache-Control: max-age=9\r\nETag: \"a\"\r\nX-B: b c\r\nX-None: \r\nX-Last: :  :\r\n");
    for lines in [
        "Cache-Control:max-age=9\r\nETag:\"a\"\r\nX-B:b c\r\nX-None:\r\nX-Last::  :\r\n",
        "Cache-Control:  max-age=9\r\nETag: \t\"a\"\r\nX-B:\tb c\r\nX-None:  \r\nX-Last:  :  :\r\n",
        "Cache-Control: max-age=9 \r\nETag: \"a\"\t\r\nX-B: b c  \r\nX-None: \t\r\nX-Last: :  : \r\n",
    ] {
        let record = stored("", 200, lines);
        assert_eq!(served(&record, &PLAIN), served(&usual, &PLAIN), "{lines:?}");
        let meta = StoredMeta::decode(&record).unwrap();
        assert_eq!(meta.etag_text(), Some(b"\"a\"".as_slice()), "{lines:?}");
    }
    assert!(served(&usual, &PLAIN).contains("\r\nX-B: b c\r\nX-None: \r\nX-Last: :  :\r\n"));
}

#[test]
fn a_hit_is_the_stored_head_and_what_is_new() {
    let (date, record) = full();
    let control = format!(
        "{date}ETag: W/\"a\"\r\nCache-Control: public, max-age=60, stale-while-revalidate=5, private=\"x-mine\"\r\n\
         Vary: Accept-Encoding\r\n"
    );
    let rest = format!(
        "Server: o\r\nContent-Type: text/html\r\nCache-Status: up; hit\r\n{}Set-Cookie: a=b\r\n",
        date_line("Last-Modified", -1000)
    );
    let via = "Via: 1.0 fred, 1.1 p, 1.1 beltway\r\n";
    assert_eq!(
        served(&record, &PLAIN),
        format!("HTTP/1.1 200 Said\r\n{control}{rest}{via}Content-Length: 1024\r\nAge: 12\r\n\r\n")
    );
    let name = CacheName::new("beltway");
    let context = HitContext {
        answer: Answer::NotModified,
        framing: Framing::None,
        status: Some(CacheStatus::hit(&name, 48)),
        connection: ConnectionField::Close,
        ..PLAIN
    };
    assert_eq!(
        served(&record, &context),
        format!(
            "HTTP/1.1 304 Not Modified\r\n{control}{via}Age: 12\r\nCache-Status: beltway; hit; ttl=48\r\n\
             Connection: close\r\n\r\n"
        )
    );
    let context = HitContext { answer: Answer::Partial, extra: b"Content-Range: bytes 0-1023/2048\r\n", ..PLAIN };
    assert_eq!(
        served(&record, &context),
        format!(
            "HTTP/1.1 206 Partial Content\r\n{control}{rest}{via}Content-Length: 1024\r\nAge: 12\r\n\
             Content-Range: bytes 0-1023/2048\r\n\r\n"
        )
    );
    let context = HitContext { framing: Framing::Chunked, ..PLAIN };
    assert!(served(&record, &context).contains("beltway\r\nTransfer-Encoding: chunked\r\nAge: 12\r\n\r\n"));
}

#[test]
fn a_304_has_last_modified_only_when_there_is_no_etag() {
    // RFC 9110 §15.4.5
    let context = HitContext { answer: Answer::NotModified, framing: Framing::None, ..PLAIN };
    let changed = date_line("Last-Modified", -1000);
    let lines = format!("{changed}Expires: 0\r\nContent-Location: /y\r\nContent-Language: en\r\n");
    let head = served(&stored("", 200, &lines), &context);
    assert!(head.contains(&changed) && head.contains("Expires: 0") && head.contains("Content-Location: /y"), "{head}");
    assert!(!head.contains("Content-Language"), "{head}");
    let head = served(&stored("", 200, &format!("ETag: \"a\"\r\n{lines}")), &context);
    assert!(!head.contains(&changed) && head.contains("ETag: \"a\""), "{head}");
}

#[test]
fn a_date_that_is_absent_or_no_date_becomes_that_of_reception() {
    // RFC 9110 §6.6.1
    for date in ["", "Date: yesterday\r\n"] {
        let record = stored("", 200, &format!("{date}Cache-Control: max-age=9\r\n"));
        assert!(served(&record, &PLAIN).starts_with(&format!("HTTP/1.1 200 Said\r\n{}Cache", date_line("Date", 0))));
    }
}

#[test]
fn the_terms_of_a_record_are_those_of_its_response() {
    for lines in [
        "Cache-Control: s-maxage=5, stale-if-error=0\r\n",
        "Cache-Control: no-cache\r\nETag: \"a\"\r\n",
        "Cache-Control: must-revalidate, max-age=2147483648, stale-if-error=2147483648\r\n",
        "ETag: \"a\"\r\nAge: 3\r\n",
    ] {
        // Compared within `stored`.
        let record = stored("", 200, lines);
        let guessed = StoredMeta::decode(&record).unwrap().is_lifetime_guessed();
        assert_eq!(guessed, !lines.contains("max"), "{lines}");
    }
}

#[test]
fn what_is_too_large_is_refused_and_leaves_nothing() {
    exchanged("", 200, "Cache-Control: max-age=9\r\n", |exchange| {
        let storable = may_store(exchange).unwrap();
        let mut out = b"before".to_vec();
        let key = vec![b'k'; key::KEY_LEN_MAX + 1];
        assert_eq!(encode(&mut out, exchange, &storable, &key), Err(Reason::KeyTooLong));
        assert_eq!(out, b"before");
        assert_eq!(encode(&mut out, exchange, &storable, &key[1..]), Ok(()));
        assert!(StoredMeta::decode(&out[6..]).unwrap().is_sound());
    });
    let large = Limits { head_size: 65_000, head_fields: 8 };
    let text = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=9\r\nX: {}\r\n\r\n", "x".repeat(HEAD_LEN_MAX));
    let mut head = ResponseHead::new();
    assert_eq!(head.parse(text.as_bytes(), &large, Method::Get), Ok(Status::Complete));
    exchanged("", 200, "", |exchange| {
        let exchange = Exchange { response: &head, response_text: text.as_bytes(), ..*exchange };
        let mut out = Vec::new();
        assert_eq!(encode(&mut out, &exchange, &may_store(&exchange).unwrap(), KEY), Err(Reason::HeadTooLarge));
        assert!(out.is_empty());
    });
}

#[test]
fn a_record_that_was_cut_or_is_of_another_layout_is_none() {
    let (_, record) = full();
    for end in 0..record.len() {
        assert!(StoredMeta::decode(&record[..end]).is_none(), "{end}");
    }
    let longer = [record.as_slice(), b"x"].concat();
    assert!(StoredMeta::decode(&longer).is_none());
    for at in 0..4 {
        let mut other = record.clone();
        other[at] ^= 1;
        assert!(StoredMeta::decode(&other).is_none());
    }
}

proptest! {
    #[test]
    fn a_changed_byte_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let (_, mut record) = full();
        for (at, byte) in changes {
            let at = at.index(record.len());
            record[at] = byte;
        }
        crate::fuzz::fuzz_stored(&record);
    }
}

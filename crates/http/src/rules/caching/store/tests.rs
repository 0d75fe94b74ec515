use super::*;
use crate::rules::caching::tests::{date_line, exchanged, request_of};

fn judged(request_lines: &str, status: u16, lines: &str) -> Result<Storable, Reason> {
    exchanged(request_lines, status, lines, |exchange| may_store(exchange).map_err(|Uncacheable(reason)| reason))
}

fn refused(request_lines: &str, status: u16, lines: &str) -> Option<Reason> {
    judged(request_lines, status, lines).err()
}

#[test]
fn each_rule_of_the_standard_has_its_refusal() {
    for (request, status, lines, expected) in [
        ("", 200, "Cache-Control: max-age=9\r\n", None),
        // §3: understood by a shared cache
        ("", 200, "Cache-Control: no-store\r\n", Some(Reason::NoStore)),
        ("", 200, "Cache-Control: no-store, max-age=9, public\r\n", Some(Reason::NoStore)),
        ("", 200, "Cache-Control: private, max-age=9\r\n", Some(Reason::Private)),
        ("", 200, "Cache-Control: private=\"x-a\", max-age=9\r\n", None),
        ("Cache-Control: no-store\r\n", 200, "Cache-Control: max-age=9\r\n", Some(Reason::RequestNoStore)),
        ("Cache-Control: no-cache\r\n", 200, "Cache-Control: max-age=9\r\n", None),
        ("Pragma: no-cache\r\n", 200, "Cache-Control: max-age=9\r\n", None),
        // §3.5
        ("Authorization: a\r\n", 200, "Cache-Control: max-age=9\r\n", Some(Reason::Authorization)),
        ("Authorization: a\r\n", 200, "Cache-Control: max-age=9, proxy-revalidate\r\n", Some(Reason::Authorization)),
        ("Authorization: a\r\n", 200, "Cache-Control: max-age=9, must-revalidate\r\n", None),
        ("Authorization: a\r\n", 200, "Cache-Control: max-age=9, public\r\n", None),
        ("Authorization: a\r\n", 200, "Cache-Control: s-maxage=9\r\n", None),
        // §5.2.2.3
        ("", 200, "Cache-Control: must-understand, no-store, max-age=9\r\n", None),
        ("", 299, "Cache-Control: must-understand, no-store, max-age=9\r\n", Some(Reason::StatusUnknown)),
        ("", 299, "Cache-Control: must-understand, max-age=9\r\n", Some(Reason::StatusUnknown)),
        ("", 299, "Cache-Control: max-age=9\r\n", None),
        // §4.1
        ("", 200, "Cache-Control: max-age=9\r\nVary: *\r\n", Some(Reason::VaryStar)),
        ("", 200, "Cache-Control: max-age=9\r\nVary: a, *\r\n", Some(Reason::VaryStar)),
        ("", 200, "Cache-Control: max-age=9\r\nVary: a\r\n", None),
        // §3.3, §3.4
        (
            "Range: bytes=0-1\r\n",
            206,
            "Cache-Control: max-age=9\r\nContent-Range: bytes 0-1/2\r\n",
            Some(Reason::Partial),
        ),
        ("Range: bytes=0-1\r\n", 200, "Cache-Control: max-age=9\r\n", None),
        ("", 200, "Cache-Control: max-age=9\r\nContent-Range: bytes 0-1/2\r\n", Some(Reason::ContentRange)),
        ("If-None-Match: \"a\"\r\n", 304, "Cache-Control: max-age=9\r\n", Some(Reason::NotModified)),
        ("", 103, "", Some(Reason::Interim)),
        // Cookies
        ("", 200, "Cache-Control: max-age=9\r\nSet-Cookie: a=b\r\n", Some(Reason::SetCookie)),
        ("", 200, "Cache-Control: max-age=9, public\r\nSet-Cookie: a=b\r\n", None),
        ("", 200, "Cache-Control: s-maxage=9\r\nSet-Cookie: a=b\r\n", None),
        ("", 200, "Cache-Control: max-age=9, no-cache=\"Set-Cookie\"\r\nSet-Cookie: a=b\r\n", None),
        ("", 200, "Cache-Control: max-age=9, private=\"x\"\r\nSet-Cookie: a=b\r\n", Some(Reason::SetCookie)),
        ("Cookie: a=b\r\n", 200, "Cache-Control: max-age=9\r\n", None),
        // Of use?
        ("", 200, "", Some(Reason::NotReusable)),
        ("", 200, "ETag: \"a\"\r\n", None),
        ("", 200, "Cache-Control: max-age=0\r\n", Some(Reason::NotReusable)),
        ("", 200, "Cache-Control: max-age=0\r\nETag: \"a\"\r\n", None),
        ("", 200, "Cache-Control: no-cache, max-age=9\r\n", Some(Reason::NotReusable)),
        ("", 200, "Cache-Control: no-cache\r\nETag: \"a\"\r\n", None),
        ("", 200, "Cache-Control: max-age=9\r\nAge: 9\r\n", Some(Reason::NotReusable)),
        ("", 200, "Cache-Control: max-age=0, stale-while-revalidate=9\r\n", None),
        ("", 200, "Cache-Control: max-age=0, stale-if-error=9\r\n", None),
        ("", 200, "Cache-Control: max-age=0, stale-if-error=9, must-revalidate\r\n", Some(Reason::NotReusable)),
    ] {
        assert_eq!(refused(request, status, lines), expected, "{request:?} {status} {lines:?}");
    }
}

#[test]
fn a_status_is_stored_by_its_own_rule() {
    let changed = format!("{}{}", date_line("Date", 0), date_line("Last-Modified", -1000));
    for status in 200..=599 {
        let forbidden = match status {
            206 => Some(Reason::Partial),
            304 => Some(Reason::NotModified),
            407 | 408 | 412 | 416 | 417 | 421 | 425 | 426 | 428 | 429 | 431 | 511 => Some(Reason::StatusForbids),
            _ => None,
        };
        for lines in ["Cache-Control: max-age=9\r\n", "Cache-Control: s-maxage=9\r\n"] {
            assert_eq!(refused("", status, lines), forbidden, "{status}");
        }
        let expires = format!("{changed}{}", date_line("Expires", 9));
        assert_eq!(refused("", status, &expires), forbidden, "{status}");
        assert_eq!(refused("", status, &format!("{changed}Cache-Control: public\r\n")), forbidden, "{status}");
        let guessed = if is_heuristically_cacheable(status) { None } else { Some(Reason::NoLifetime) };
        assert_eq!(refused("", status, &changed), forbidden.or(guessed), "{status}");
    }
}

#[test]
fn only_get_is_stored_and_only_without_content() {
    for (line, expected) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", Some(Reason::RequestContent)),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Some(Reason::RequestContent)),
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", Some(Reason::Method)),
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", Some(Reason::Method)),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n", Some(Reason::Method)),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Some(Reason::Method)),
        ("PURGE / HTTP/1.1\r\nHost: a\r\n\r\n", Some(Reason::Method)),
    ] {
        let (head, text) = request_of(line);
        let outcome = exchanged("", 200, "Cache-Control: max-age=9, public\r\n", |exchange| {
            may_store(&Exchange { request: &head, request_text: &text, ..*exchange }).err()
        });
        assert_eq!(outcome, expected.map(Uncacheable), "{line:?}");
    }
}

#[test]
fn requests_that_a_cache_cannot_answer_pass_it_by() {
    for (text, expected) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(())),
        ("HEAD http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Ok(())),
        ("GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-\r\nIf-None-Match: *\r\nCookie: a\r\n\r\n", Ok(())),
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", Err(Forwarded::Method)),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Err(Forwarded::Method)),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Err(Forwarded::Method)),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", Err(Forwarded::Bypass)),
        ("GET / HTTP/1.1\r\nHost: a\r\nIf-Match: \"a\"\r\n\r\n", Err(Forwarded::Bypass)),
        ("GET / HTTP/1.1\r\nHost: a\r\nIf-Unmodified-Since: x\r\n\r\n", Err(Forwarded::Bypass)),
    ] {
        assert_eq!(may_answer(&request_of(text).0), expected, "{text:?}");
    }
}

#[test]
fn every_reason_has_a_name_of_its_own_that_is_a_token() {
    for (at, reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(reason.index(), at);
        assert!(reason.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{reason}");
        assert!(reason.name().starts_with(|c: char| c.is_ascii_lowercase()) && !reason.sentence().ends_with('.'));
        assert!(Reason::ALL[..at].iter().all(|other| other.name() != reason.name()), "{reason}");
    }
    assert_eq!(Uncacheable(Reason::NoStore).to_string(), "not stored: no-store");
    assert!(Reason::NoStore.is_lasting() && !Reason::RequestNoStore.is_lasting());
}

#[test]
fn what_is_storable_brings_its_terms() {
    let lines = "Cache-Control: max-age=60, stale-while-revalidate=5, stale-if-error=7, must-revalidate\r\n";
    let terms = judged("", 200, lines).unwrap().terms();
    assert_eq!((terms.lifetime_s, terms.stale_while_revalidate_s, terms.stale_if_error_s), (60, 5, Some(7)));
    assert!(terms.must_revalidate && !terms.no_cache && !terms.s_maxage);
}

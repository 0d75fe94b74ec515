use proptest::prelude::*;

use super::*;
use crate::rules::caching::stored::encode;
use crate::rules::caching::tests::{date_line, exchanged, request, response};

/// What is stored when a response with this `Vary` answers a request with these lines.
fn section(vary: &str, request_lines: &str) -> Result<Vec<u8>, Reason> {
    let (request, request_text) = request(request_lines);
    let (response, response_text) = response(200, vary);
    let mut out = b"before".to_vec();
    append(&mut out, &response, &response_text, &request, &request_text)?;
    assert!(Nominated::new(&out[6..]).is_whole());
    Ok(out.split_off(6))
}

fn is_same(vary: &str, first: &str, second: &str) -> bool {
    let stored = section(vary, first).unwrap();
    let (head, text) = request(second);
    let same = matches(Nominated::new(&stored), &head, &text);
    let (first_head, first_text) = request(first);
    assert!(matches(Nominated::new(&stored), &first_head, &first_text), "a request matches itself: {first:?}");
    if same {
        let key = |head, text| secondary_key(Nominated::new(&stored), head, text);
        assert_eq!(key(&first_head, &first_text), key(&head, &text), "{first:?} {second:?}");
    }
    same
}

#[test]
fn two_requests_match_when_only_what_has_no_meaning_differs() {
    // RFC 9111 §4.1
    for (vary, first, second, expected) in [
        ("", "A: 1\r\n", "A: 2\r\n", true),
        ("Vary: A\r\n", "A: 1\r\n", "a: 1\r\n", true),
        ("Vary: A\r\n", "A: 1\r\n", "A:  1 \r\n", true),
        ("Vary: a\r\n", "A: 1\r\n", "A: 2\r\n", false),
        ("Vary: a\r\n", "A: 1\r\n", "", false),
        ("Vary: a\r\n", "", "A: 1\r\n", false),
        ("Vary: a\r\n", "", "B: 1\r\n", true),
        // Absent is not the same as empty.
        ("Vary: a\r\n", "", "A:\r\n", false),
        ("Vary: a\r\n", "A:\r\n", "", false),
        ("Vary: a\r\n", "A:\r\n", "A:\r\n", true),
        ("Vary: accept-encoding\r\n", "", "Accept-Encoding:\r\n", false),
        // Several lines are one list.
        ("Vary: a\r\n", "A: 1\r\nA: 2\r\n", "A: 1, 2\r\n", true),
        ("Vary: a\r\n", "A: 1\r\nA: 2\r\n", "A: 2, 1\r\n", false),
        ("Vary: a\r\n", "A: 1\r\nA: 2\r\n", "A: 1\r\n", false),
        ("Vary: a\r\n", "A: x\r\n", "A: X\r\n", false),
        ("Vary: a\r\n", "A: 1,2\r\n", "A: 1, 2\r\n", false),
        ("Vary: a\r\n", "A: ab\r\n", "A: abc\r\n", false),
        ("Vary: a\r\n", "A: abc\r\n", "A: ab\r\n", false),
        // Fields of negotiation: whitespace and case have no meaning, order may have.
        ("Vary: Accept-Encoding\r\n", "Accept-Encoding: gzip, br\r\n", "accept-encoding: GZIP ,br\r\n", true),
        (
            "Vary: Accept-Encoding\r\n",
            "Accept-Encoding: gzip\r\nAccept-Encoding: br\r\n",
            "Accept-Encoding: gzip,br\r\n",
            true,
        ),
        ("Vary: Accept-Encoding\r\n", "Accept-Encoding: gzip, br\r\n", "Accept-Encoding: br, gzip\r\n", false),
        ("Vary: Accept-Encoding\r\n", "Accept-Encoding: gzip\r\n", "Accept-Encoding: gz ip\r\n", false),
        ("Vary: Accept-Encoding\r\n", "Accept-Encoding: gzip;q=0.5\r\n", "Accept-Encoding: gzip ; q=0.5\r\n", true),
        ("Vary: Accept-Encoding\r\n", "Accept-Encoding: gzip;q=0.5\r\n", "Accept-Encoding: gzip;q=0.4\r\n", false),
        ("Vary: Accept-Encoding\r\n", "Accept-Encoding: gzip,,\r\n", "Accept-Encoding: gzip\r\n", true),
        (
            "Vary: Accept-Language\r\n",
            "Accept-Language: en-GB,en;q=0.9\r\n",
            "Accept-Language: en-gb, en; q=0.9\r\n",
            true,
        ),
        ("Vary: Accept\r\n", "Accept: a/b, c/d;x=\"1, 2\"\r\n", "Accept: a/b,c/d;x=\"1, 2\"\r\n", false),
        ("Vary: Accept\r\n", "Accept: a/b, c/d\r\n", "Accept: a/b,c/d\r\n", true),
        ("Vary: Accept\r\n", "Accept: a/b\r\n", "Accept: A/b\r\n", false),
        // Several names, in lines and lists, one of them twice.
        ("Vary: a, B\r\nVary: A,c\r\n", "A: 1\r\nB: 2\r\n", "A: 1\r\nB: 2\r\n", true),
        ("Vary: a, B\r\nVary: A,c\r\n", "A: 1\r\nB: 2\r\n", "A: 1\r\nB: 2\r\nC: 3\r\n", false),
        ("Vary: a, B\r\n", "A: 12\r\n", "A: 1\r\nB: 2\r\n", false),
        ("Vary: a, B\r\n", "A: 1\r\nB:\r\n", "A: 1\r\n", false),
        ("Vary: Cookie, User-Agent\r\n", "Cookie: a=b\r\n", "Cookie: a=b\r\nX: y\r\n", true),
        ("Vary: Host\r\n", "", "", true),
    ] {
        assert_eq!(is_same(vary, first, second), expected, "{vary:?} {first:?} {second:?}");
    }
}

#[test]
fn names_are_kept_once_and_in_small_letters() {
    let stored = section("Vary: Accept-Encoding, X-a\r\nVary: x-A\r\n", "Accept-Encoding: GZIP , BR\r\n").unwrap();
    let fields: Vec<_> = Nominated::new(&stored).into_iter().collect();
    assert_eq!(
        fields,
        [
            NominatedField { name: b"accept-encoding", value: Some(b"gzip, br") },
            NominatedField { name: b"x-a", value: None },
        ]
    );
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let long = "x".repeat(256);
    let many: Vec<_> = (0..=VARY_NAMES_MAX).map(|n| format!("x{n}")).collect();
    for (vary, expected) in [
        ("*".to_owned(), Reason::VaryStar),
        ("a, *".to_owned(), Reason::VaryStar),
        ("a b".to_owned(), Reason::VaryStar),
        (long, Reason::VaryTooMany),
        (many.join(","), Reason::VaryTooMany),
    ] {
        let line = format!("Vary: {vary}\r\n");
        assert_eq!(section(&line, ""), Err(expected), "{vary}");
        let (head, text) = response(200, &line);
        assert_eq!(judge(&head, &text), Err(expected));
    }
    assert!(section(&format!("Vary: {}\r\n", many[1..].join(",")), "").is_ok());
    assert!(section("Vary:\r\n", "").unwrap().is_empty());
    let large = format!("Cookie: {}\r\n", "x".repeat(VARY_SIZE_MAX));
    assert_eq!(section("Vary: Cookie\r\n", &large), Err(Reason::VaryTooMany));
}

fn stored(request_lines: &str, response_lines: &str) -> Vec<u8> {
    let lines = format!("Cache-Control: max-age=60\r\n{response_lines}");
    exchanged(request_lines, 200, &lines, |exchange| {
        let storable = crate::rules::caching::store::may_store(exchange).unwrap();
        let mut out = Vec::new();
        encode(&mut out, exchange, &storable, b"http://a/").unwrap();
        out
    })
}

#[test]
fn the_most_recent_of_those_that_match_is_chosen() {
    let gzip = "Vary: Accept-Encoding\r\nContent-Encoding: gzip\r\n";
    let alternates = [
        stored("Accept-Encoding: gzip\r\n", &format!("{gzip}{}", date_line("Date", -9))),
        stored("Accept-Encoding: br\r\n", &format!("Vary: Accept-Encoding\r\n{}", date_line("Date", -8))),
        b"damaged".to_vec(),
        stored("Accept-Encoding: gzip\r\n", &format!("{gzip}{}", date_line("Date", -7))),
        stored("Accept-Encoding: gzip\r\n", &format!("{gzip}{}", date_line("Date", -8))),
        stored("", &format!("Vary: Accept-Encoding\r\n{}", date_line("Date", -1))),
    ];
    let chosen = |lines: &str, count: usize| {
        let (head, text) = request(lines);
        match choose(alternates[..count].iter().map(Vec::as_slice), &head, &text) {
            Choice::Found(at, _) => Ok(at),
            Choice::VaryMiss => Err("vary"),
            Choice::UriMiss => Err("uri"),
        }
    };
    assert_eq!(chosen("Accept-Encoding: gzip\r\n", 6), Ok(3));
    assert_eq!(chosen("Accept-Encoding: gzip\r\n", 2), Ok(0));
    assert_eq!(chosen("Accept-Encoding: BR\r\n", 6), Ok(1));
    assert_eq!(chosen("", 6), Ok(5));
    assert_eq!(chosen("", 5), Err("vary"));
    assert_eq!(chosen("Accept-Encoding: zstd\r\n", 6), Err("vary"));
    assert_eq!(chosen("", 0), Err("uri"));
    let (head, text) = request("");
    assert!(matches!(choose([b"x".as_slice()], &head, &text), Choice::UriMiss));
}

proptest! {
    #[test]
    fn what_is_normalised_stays_the_same_when_it_is_again(
        lines in prop::collection::vec("[ aB,;=\"]{0,12}", 1..3), known in prop::sample::select(vec![
            Known::Accept, Known::AcceptEncoding, Known::UserAgent,
        ]),
    ) {
        let normal = |lines: &[Vec<u8>]| {
            let mut out = Vec::new();
            let trimmed = lines.iter().map(|line| line.trim_ascii());
            normalise(Shape::of(known), trimmed, &mut |piece| out.extend_from_slice(piece));
            out
        };
        let once = normal(&lines.into_iter().map(String::into_bytes).collect::<Vec<_>>());
        prop_assert_eq!(normal(std::slice::from_ref(&once)), once.trim_ascii());
    }

    #[test]
    fn no_bytes_panic_when_they_are_read_as_nominated_fields(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let (head, text) = request("Accept-Encoding: gzip\r\nA: b\r\n");
        let nominated = Nominated::new(&bytes);
        let _ = (nominated.is_whole(), matches(nominated, &head, &text), secondary_key(nominated, &head, &text));
    }

    #[test]
    fn every_request_matches_what_it_brought(
        value in "[ a-zA-Z,;=\"]{0,30}", other in "[ a-zA-Z,;=\"]{0,30}",
        name in prop::sample::select(vec!["Accept", "Accept-Encoding", "Accept-Language", "X-Other"]),
    ) {
        let vary = format!("Vary: {name}\r\n");
        let (one, two) = (format!("{name}: {value}\r\n"), format!("{name}: {other}\r\n"));
        let same = is_same(&vary, &one, &two);
        prop_assert_eq!(same, is_same(&vary, &two, &one));
        if value.trim() == other.trim() {
            prop_assert!(same);
        }
    }
}

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { head_size: 4096, head_fields: 16 };

/// Feeds `input` in pieces of these sizes (cycled); content, bytes consumed, and whether it ended.
fn decode(body: Body, input: &[u8], pieces: &[usize]) -> Result<(Vec<u8>, usize, bool), BodyError> {
    let mut decoder = Decoder::new(body, &LIMITS);
    let (mut content, mut at, mut end) = (Vec::new(), 0, 0);
    let mut sizes = pieces.iter().cycle();
    while end < input.len() && !decoder.is_done() {
        end = (end + (*sizes.next().unwrap()).max(1)).min(input.len());
        while at < end && !decoder.is_done() {
            let step = decoder.step(&input[at..end])?;
            assert!(step.data.end <= step.consumed && step.data.start <= step.data.end);
            assert!(step.consumed > 0, "every step over bytes makes progress");
            content.extend_from_slice(&input[at..end][step.data]);
            at += step.consumed;
            assert_eq!(step.done, decoder.is_done());
        }
    }
    Ok((content, at, decoder.is_done()))
}

#[test]
fn content_is_found_wherever_the_input_is_cut() {
    let cases: &[(Body, &str, &str, &str)] = &[
        (Body::None, "GET", "", "GET"),
        (Body::Length(0), "GET", "", "GET"),
        (Body::Length(3), "abcGET", "abc", "GET"),
        (Body::UntilClose, "abc", "abc", ""),
        (Body::Chunked, "0\r\n\r\nGET", "", "GET"),
        (Body::Chunked, "3\r\nabc\r\n0\r\n\r\nGET", "abc", "GET"),
        (Body::Chunked, "3\r\nabc\r\n00002\r\nde\r\n000\r\n\r\n\r\n", "abcde", "\r\n"),
        (Body::Chunked, "A\r\n0123456789\r\n0\r\nX: y\r\nZ:\r\n\r\nG", "0123456789", "G"),
        (Body::Chunked, "1;a\r\nx\r\n1;b=c\r\ny\r\n1 ; d = \"q\\\"\t;\" ;e\r\nz\r\n0;last\r\n\r\n", "xyz", ""),
    ];
    for &(body, input, content, rest) in cases {
        for size in 1..=input.len() {
            let (found, consumed, done) = decode(body, input.as_bytes(), &[size]).unwrap();
            assert_eq!(found, content.as_bytes(), "{input:?} in pieces of {size}");
            assert_eq!(&input[consumed..], rest, "{input:?} in pieces of {size}");
            assert_eq!(done, body != Body::UntilClose);
        }
    }
}

#[test]
fn broken_framing_is_named() {
    use BodyError::*;
    let cases: &[(&str, BodyError)] = &[
        ("\r\n", BadChunkSize),
        ("g\r\n", BadChunkSize),
        ("-1\r\n", BadChunkSize),
        ("+1\r\n", BadChunkSize),
        (" 1\r\n", BadChunkSize),
        ("0x1\r\n", BadChunkSize),
        (";a\r\n", BadChunkSize),
        ("1_0\r\n", BadChunkSize),
        ("1\0\r\n", BadChunkSize),
        ("1,\r\n", BadChunkSize),
        ("\n", BadChunkSize),
        ("1.\r\n", BadChunkSize),
        ("8000000000000000\r\n", ChunkTooLarge),
        ("ffffffffffffffff\r\n", ChunkTooLarge),
        ("10000000000000000\r\n", ChunkTooLarge),
        ("00000000000000001\r\n", ChunkTooLarge),
        ("1\nx", BadLineEnd),
        ("1\rx", BadLineEnd),
        ("1;a\nx", BadLineEnd),
        ("1;a\rx", BadLineEnd),
        ("1;\r\n", BadExtension),
        ("1 \r\n", BadExtension),
        ("1;a=\r\n", BadExtension),
        ("1;=b\r\n", BadExtension),
        ("1;a=\"b\r\n", BadExtension),
        ("1;a\0\r\n", BadExtension),
        ("1;a b\r\n", BadExtension),
        ("1;a=\"b\"c\r\n", BadExtension),
        ("1 a\r\n", BadExtension),
        ("1;a=\"\x7f\"\r\n", BadExtension),
        ("1;a=\"\n\"\r\n", BadLineEnd),
        ("1;a=b,c\r\n", BadExtension),
        ("1;a \r\n", BadExtension),
        ("1\r\nxx\r\n", NoChunkEnd),
        ("1\r\nx\n", NoChunkEnd),
        ("1\r\nx\rx", NoChunkEnd),
        ("1\r\nx0\r\n", NoChunkEnd),
        ("0\r\n\n", BadTrailers(Reason::BareLf)),
        ("0\r\nX: y\n\r\n", BadTrailers(Reason::BareLf)),
        ("0\r\nX: y\rz\r\n\r\n", BadTrailers(Reason::BareCr)),
        ("0\r\n\r\r\n", BadTrailers(Reason::BareCr)),
        ("0\r\nX y\r\n\r\n", BadTrailers(Reason::BadFieldName)),
        ("0\r\nX\r\n\r\n", BadTrailers(Reason::NoColon)),
        ("0\r\nX : y\r\n\r\n", BadTrailers(Reason::SpaceBeforeColon)),
        ("0\r\n X: y\r\n\r\n", BadTrailers(Reason::ObsFold)),
        ("0\r\nX: y\r\n z\r\n\r\n", BadTrailers(Reason::ObsFold)),
        ("0\r\nX: \0\r\n\r\n", BadTrailers(Reason::BadFieldValue)),
        ("0\r\n: y\r\n\r\n", BadTrailers(Reason::BadFieldName)),
        ("0\r\nContent-Length: 5\r\n\r\n", ForbiddenTrailer),
        ("0\r\ntransfer-encoding: chunked\r\n\r\n", ForbiddenTrailer),
        ("0\r\nX: y\r\nHost: a\r\n\r\n", ForbiddenTrailer),
        ("0\r\nConnection: close\r\n\r\n", ForbiddenTrailer),
    ];
    for &(input, error) in cases {
        for size in 1..=input.len() {
            assert_eq!(decode(Body::Chunked, input.as_bytes(), &[size]), Err(error), "{input:?} in pieces of {size}");
        }
    }
}

#[test]
fn behind_an_error_there_are_only_errors() {
    let mut decoder = Decoder::new(Body::Chunked, &LIMITS);
    assert_eq!(decoder.step(b"x"), Err(BodyError::BadChunkSize));
    assert_eq!(decoder.step(b"0\r\n\r\n"), Err(BodyError::BadChunkSize));
    assert_eq!(decoder.feed_eof(), Err(BodyError::BadChunkSize));
}

#[test]
fn trailers_are_bounded_and_exposed_without_those_that_may_not_be_forwarded() {
    let mut decoder = Decoder::new(Body::Chunked, &LIMITS);
    let input = b"0\r\nDigest:  sha=1 \r\nSet-Cookie: a=b\r\nX-Empty:\r\n\r\n";
    assert!(decoder.step(input).unwrap().done);
    let fields: Vec<_> = decoder.trailers().map(|f| (f.name, f.value)).collect();
    assert_eq!(fields, [(b"Digest".as_slice(), b"sha=1".as_slice()), (b"X-Empty", b"")]);

    let large = [b"0\r\nX: ".as_slice(), &[b'x'; 4096], b"\r\n\r\n"].concat();
    assert_eq!(decode(Body::Chunked, &large, &[100]), Err(BodyError::TrailersTooLarge));
    let many = format!("0\r\n{}\r\n", "X: y\r\n".repeat(17));
    assert_eq!(decode(Body::Chunked, many.as_bytes(), &[7]), Err(BodyError::BadTrailers(Reason::TooManyFields)));
    let enough = format!("0\r\n{}\r\n", "X: y\r\n".repeat(16));
    assert!(decode(Body::Chunked, enough.as_bytes(), &[7]).unwrap().2);
}

#[test]
fn extensions_must_stay_in_proportion_to_the_content() {
    let long = format!("1;{}\r\n", "a".repeat(17_000));
    assert_eq!(decode(Body::Chunked, long.as_bytes(), &[999]), Err(BodyError::ExtensionsTooLarge));
    let many = "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n".repeat(2_000);
    assert_eq!(decode(Body::Chunked, many.as_bytes(), &[999]), Err(BodyError::ExtensionsTooLarge));
    let signed = format!("400;chunk-signature={}\r\n{}\r\n", "f".repeat(64), "x".repeat(1024)).repeat(500);
    assert_eq!(decode(Body::Chunked, signed.as_bytes(), &[999]).unwrap().0.len(), 500 * 1024);
    let tiny = "1\r\nx\r\n".repeat(20_000);
    assert_eq!(decode(Body::Chunked, tiny.as_bytes(), &[999]).unwrap().0.len(), 20_000);
}

#[test]
fn the_end_of_the_connection_completes_only_what_lasts_until_close() {
    for (body, input, complete) in [
        (Body::None, "", true),
        (Body::UntilClose, "", true),
        (Body::UntilClose, "abc", true),
        (Body::Length(4), "abc", false),
        (Body::Length(3), "abc", true),
        (Body::Chunked, "", false),
        (Body::Chunked, "3\r\nabc\r\n", false),
        (Body::Chunked, "0\r\n", false),
        (Body::Chunked, "0\r\n\r\n", true),
    ] {
        let mut decoder = Decoder::new(body, &LIMITS);
        let mut at = 0;
        while at < input.len() {
            at += decoder.step(&input.as_bytes()[at..]).unwrap().consumed;
        }
        assert_eq!(decoder.feed_eof().is_ok(), complete, "{body:?} {input:?}");
        assert_eq!(decoder.is_done(), complete);
    }
}

/// The plainest decoder there can be: whole input, one pass, no extensions.
fn reference(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut content, mut at) = (Vec::new(), 0);
    loop {
        let line_len = input[at..].windows(2).position(|w| w == b"\r\n")?;
        let digits = std::str::from_utf8(&input[at..at + line_len]).ok()?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let size = usize::from_str_radix(digits, 16).ok()?;
        at += line_len + 2;
        if size == 0 {
            return (input.get(at..at + 2)? == b"\r\n").then_some((content, at + 2));
        }
        content.extend_from_slice(input.get(at..at + size)?);
        at += size;
        if input.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
}

proptest! {
    #[test]
    fn the_decoder_agrees_with_the_naive_one_at_any_cut(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
        pieces in prop::collection::vec(1_usize..20, 1..6),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut input = Vec::new();
        for chunk in &chunks {
            input.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            input.extend_from_slice(chunk);
            input.extend_from_slice(b"\r\n");
        }
        input.extend_from_slice(b"0\r\n\r\nnext");
        if let Some((at, byte)) = damage {
            let at = at.index(input.len());
            input[at] = byte;
        }
        let found = decode(Body::Chunked, &input, &pieces);
        match reference(&input) {
            Some((content, consumed)) => prop_assert_eq!(found, Ok((content, consumed, true))),
            // Damage may have made an extension or a trailer, which the naive decoder does not know.
            None => if damage.is_none() { prop_assert!(false, "undamaged input is lawful") },
        }
    }

    #[test]
    fn arbitrary_bytes_give_the_same_result_at_any_cut(
        input in prop::collection::vec(prop_oneof![
            Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'1'), Just(b';'), Just(b'a'), Just(b'='), Just(b'"'), Just(b':'),
            any::<u8>(),
        ], 0..80),
        pieces in prop::collection::vec(1_usize..9, 1..6),
    ) {
        prop_assert_eq!(decode(Body::Chunked, &input, &pieces), decode(Body::Chunked, &input, &[input.len().max(1)]));
    }
}

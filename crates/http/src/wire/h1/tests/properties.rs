use proptest::prelude::*;

use super::*;

/// Text in which heads are likely: pieces of lawful ones, and of unlawful ones, in any order.
fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&'static [u8]> = vec![
        b"GET",
        b" ",
        b"/",
        b"/a?b",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b"Host: a\r\n",
        b"Host:",
        b"X: y\r\n",
        b":",
        b"\t",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"\0",
        b"\xff",
        b"POST / HTTP/1.1\r\nHost: a\r\n",
        b"GET / HTTP/1.1\r\n",
        b"http://a",
        b"*",
        b"Expect: 100-continue\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 ",
        b"200",
        b"Via: 1.1 a\r\n",
    ];
    prop::collection::vec(
        prop_oneof![8 => prop::sample::select(pieces).prop_map(<[u8]>::to_vec), 1 => prop::collection::vec(any::<u8>(), 1..4)],
        0..14,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_head_in_pieces_is_the_same_head(bytes in fragments()) {
        let (whole, head) = parse(&bytes);
        let (pieces, other) = parse_in_pieces(&bytes);
        match (whole, pieces) {
            (Ok(Status::Complete), _) => {
                prop_assert_eq!(pieces, whole);
                prop_assert_eq!(head.head_len(), other.head_len());
                prop_assert_eq!((head.body(), head.keep_alive()), (other.body(), other.keep_alive()));
            }
            // A fault in a head whose end is not there yet may be seen later, but is never forgotten.
            (Err(_), Ok(status)) => prop_assert_eq!(status, Status::Partial),
            (Err(a), Err(b)) => prop_assert_eq!(a.status, b.status),
            (Ok(Status::Partial), pieces) => prop_assert_eq!(pieces, Ok(Status::Partial)),
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), mixed in fragments()) {
        for input in [&bytes, &mixed] {
            crate::fuzz::fuzz_request(input);
            crate::fuzz::fuzz_response(input);
        }
    }
}

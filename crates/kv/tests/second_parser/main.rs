//! The parsers beside another's, over the corpus, over what is likely, and over what real answers look like.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod against;

use std::path::Path;

use proptest::prelude::*;

/// Calls `target` with each file of the corpus, and with it cut at each place.
fn replay(name: &str, target: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut replayed = 0;
    for file in std::fs::read_dir(&folder).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        (0..=bytes.len()).for_each(|end| target(&bytes[..end]));
        replayed += 1;
    }
    assert!(replayed >= 10, "{replayed} in {}", folder.display());
}

#[test]
fn the_corpus_surprises_nobody() {
    replay("redis-request", |bytes| {
        kv::fuzz::redis_request(bytes);
        against::request(bytes);
    });
    replay("redis-reply", |bytes| {
        kv::fuzz::reply(bytes);
        against::reply(bytes);
    });
    replay("memcached-request", kv::fuzz::memcached_request);
}

/// Pieces of the protocol in any order.
fn likely() -> impl Strategy<Value = Vec<u8>> {
    let header = (prop::sample::select(&b"*$:"[..]), -2..12_i64)
        .prop_map(|(kind, number)| [&[kind][..], number.to_string().as_bytes(), b"\r\n"].concat());
    let bulk = prop::collection::vec(any::<u8>(), 0..12)
        .prop_map(|data| [format!("${}\r\n", data.len()).as_bytes(), &data, b"\r\n"].concat());
    let odd = prop::sample::select(vec![
        &b"+OK\r\n"[..],
        b"-ERR x\r\n",
        b"*-1\r\n",
        b"$-1\r\n",
        b"$003\r\nabc\r\n",
        b"*+1\r\n",
        b"$99999999999999999999\r\n",
        b"*",
        b"$",
        b"\r",
        b"\n",
        b"\r\n",
        b"x",
    ])
    .prop_map(<[u8]>::to_vec);
    prop::collection::vec(prop_oneof![3 => header, 3 => bulk, 2 => odd], 0..10).prop_map(|pieces| pieces.concat())
}

/// A whole request with its right header.
fn well_formed() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::collection::vec(any::<u8>(), 0..20);
    prop::collection::vec(word, 0..8).prop_map(|words| kv::wire::resp::request::encode(&words))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn another_parser_takes_what_we_take(bytes in prop_oneof![likely(), well_formed()], more in likely()) {
        let joined = [bytes.as_slice(), &more].concat();
        for bytes in [&bytes, &more, &joined] {
            against::request(bytes);
            against::reply(bytes);
        }
    }
}

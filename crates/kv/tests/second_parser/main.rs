//! The parsers beside another's, over the corpus, over what is likely, and over what real answers look like.
//!
//! `against`: RESP beside another's parser; `memcached`: its protocol beside a plain one of our own.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod against;
mod memcached;

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
    replay("memcached-request", |bytes| {
        kv::fuzz::memcached_request(bytes);
        memcached::request(bytes);
    });
    replay("memcached-reply", |bytes| {
        kv::fuzz::reply(bytes);
        memcached::reply(bytes);
    });
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

/// Words of memcached's lines, and what stands between and behind them, in any order.
fn likely_of_memcached() -> impl Strategy<Value = Vec<u8>> {
    let words = vec![
        "set",
        "cas",
        "append",
        "get",
        "gat",
        "incr",
        "a",
        "key",
        "0",
        "1",
        "5",
        "-1",
        "+2",
        "007",
        "\t3",
        "3\tx",
        "x",
        "2147483647",
        "2147483648",
        "4294967295",
        "4294967296",
        "4294967297",
        "18446744073709551615",
        "noreply",
        "",
        "VALUE",
        "STAT",
        "END",
        "\0",
        "\u{80}",
    ];
    let word = prop::sample::select(words).prop_map(|word| [word.as_bytes(), b" "].concat());
    let end = prop::sample::select(vec![&b"\r\n"[..], b"\n", b"\r", b"v\r\n", b"vwxyz\r\n", b"END\r\n", b"\x80"]);
    prop::collection::vec(prop_oneof![5 => word, 2 => end.prop_map(<[u8]>::to_vec)], 0..14)
        .prop_map(|pieces| pieces.concat())
}

/// A storage request, of which something may be odd.
fn storage() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec!["set", "add", "replace", "append", "prepend", "cas"]);
    let number = prop_oneof![
        3 => (0..5_u64).prop_map(|number| number.to_string()),
        1 => any::<u64>().prop_map(|number| number.to_string()),
        1 => any::<i32>().prop_map(|number| number.to_string()),
        1 => prop::sample::select(vec!["x", "+1", "-0", "00", "1\t", "4294967301", "99999999999999999999"])
            .prop_map(str::to_owned),
    ];
    let tail = prop::sample::select(vec!["", "", " noreply", " x", " x y"]);
    let data = prop::collection::vec(any::<u8>(), 0..8);
    (name, number.clone(), number.clone(), prop::option::weighted(0.3, number.clone()), number, tail, data).prop_map(
        |(name, flags, time, length, unique, tail, data)| {
            let length = length.unwrap_or_else(|| data.len().to_string());
            let unique = if name == "cas" { format!(" {unique}") } else { String::new() };
            let line = format!("{name} key {flags} {time} {length}{unique}{tail}\r\n");
            [line.as_bytes(), &data, b"\r\n"].concat()
        },
    )
}

/// Values, and the end of a reply.
fn values() -> impl Strategy<Value = Vec<u8>> {
    let value = (prop::collection::vec(any::<u8>(), 0..12), any::<u32>(), prop::option::of(any::<u64>())).prop_map(
        |(data, flags, unique)| {
            let unique = unique.map_or_else(String::new, |unique| format!(" {unique}"));
            let line = format!("VALUE key {flags} {}{unique}\r\n", data.len());
            [line.as_bytes(), &data, b"\r\n"].concat()
        },
    );
    let end = prop::sample::select(vec![&b"END\r\n"[..], b"SERVER_ERROR x\r\n", b"", b"STORED\r\n"]);
    (prop::collection::vec(value, 0..4), end).prop_map(|(values, end)| [&values.concat(), end].concat())
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

    #[test]
    fn a_plain_parser_takes_what_we_take_of_memcached(
        bytes in prop_oneof![likely_of_memcached(), storage(), values()],
        more in prop_oneof![likely_of_memcached(), storage()],
    ) {
        for bytes in [&bytes, &[bytes.as_slice(), &more].concat()] {
            kv::fuzz::memcached_request(bytes);
            memcached::request(bytes);
            memcached::reply(bytes);
        }
    }
}

//! What must hold for any bytes, as plain functions: for a fuzzer, and for the tests below.

use crate::wire::{Scanned, memcached, resp};

/// Looks at a request of Redis whole, and grown byte by byte: the outcome is the same.
///
/// # Panics
/// When it is not, which is a bug.
pub fn redis_request(bytes: &[u8]) {
    let whole = resp::Request::default().scan(bytes);
    let mut grown = resp::Request::default();
    for end in 0..=bytes.len() {
        let scan = grown.scan(&bytes[..end]);
        if !matches!(scan, resp::Scan::More(_)) {
            assert_eq!(scan, resp::Request::default().scan(&bytes[..end]), "grown to {end}");
            if let resp::Scan::Whole(len) = scan {
                assert_eq!(whole, resp::Scan::Whole(len));
                for at in grown.arguments() {
                    assert!(at.start <= at.end && at.end as usize <= len);
                }
            }
            break;
        }
    }
    let _ = resp::request::inline(bytes);
}

/// The same of replies, of both protocols.
///
/// # Panics
/// When the outcome depends on the split, which is a bug.
pub fn reply(bytes: &[u8]) {
    for protocol in [crate::Protocol::Redis, crate::Protocol::Memcached] {
        let whole = crate::wire::Reply::new(protocol).scan(bytes);
        for split in 0..bytes.len() {
            let mut scan = crate::wire::Reply::new(protocol);
            if let Scanned::Part(done) = scan.scan(&bytes[..split])
                && let Scanned::Whole(len) = scan.scan(&bytes[done..])
            {
                assert_eq!(whole, Scanned::Whole(done + len), "split at {split}");
            }
        }
    }
    let _ = (resp::reply::elements(bytes), resp::reply::integer(bytes), memcached::values(bytes));
}

/// Looks at a request of memcached whole, and grown byte by byte: the outcome is the same, what is taken is there, and
/// words lie within.
///
/// # Panics
/// When not, which is a bug.
pub fn memcached_request(bytes: &[u8]) {
    let mut words = Vec::new();
    let whole = memcached::scan(bytes, &mut words);
    match whole {
        memcached::Scan::Whole(len) | memcached::Scan::Odd(len) => {
            assert!(len > 0 && len <= bytes.len());
            assert!(words.iter().all(|word| word.start < word.end && word.end as usize <= len));
        }
        memcached::Scan::Refused(len, _) => {
            assert!(len > 0);
            assert!(words.iter().all(|word| word.start < word.end && word.end as usize <= len));
        }
        memcached::Scan::More(size) => assert!(size == 0 || size > bytes.len()),
        memcached::Scan::Hopeless(_) | memcached::Scan::Binary => {}
    }
    let (mut searched, mut grown, mut needed) = (0, Vec::new(), 0);
    for end in 0..=bytes.len() {
        let scan = memcached::scan_on(&bytes[..end], &mut searched, &mut grown);
        let memcached::Scan::More(size) = scan else {
            assert_eq!(scan, whole, "grown to {end}");
            assert!(end >= needed, "{needed} bytes were needed, and {end} are enough");
            // Of a line that has ended the words are known.
            assert!(grown == words || matches!(scan, memcached::Scan::Binary | memcached::Scan::Hopeless(_)));
            return;
        };
        assert!(needed == 0 || size == needed, "{needed} bytes were needed, and now {size}");
        needed = size;
    }
    assert!(matches!(whole, memcached::Scan::More(_)), "whole it is {whole:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes of the protocols' own alphabets, so that something comes of them.
    fn likely() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(&b"*2\r\n"[..]),
            Just(&b"$3\r\nget\r\n"[..]),
            Just(&b"$-1\r\n"[..]),
            Just(&b"$1\r\na\r\n"[..]),
            Just(&b":12\r\n"[..]),
            Just(&b"+OK\r\n"[..]),
            Just(&b"-ERR x\r\n"[..]),
            Just(&b"*"[..]),
            Just(&b"$"[..]),
            Just(&b"99999999999999999999"[..]),
            Just(&b"\r\n"[..]),
            Just(&b"\n"[..]),
            Just(&b" "[..]),
            Just(&b"VALUE a 0 2\r\n"[..]),
            Just(&b"END\r\n"[..]),
            Just(&b"set a 0 0 1\r\n"[..]),
            Just(&b"x"[..]),
            Just(&b"\"'\\x4"[..]),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_bytes_surprise_the_scanners(bytes in prop_oneof![likely(), prop::collection::vec(any::<u8>(), 0..64)]) {
            redis_request(&bytes);
            reply(&bytes);
            memcached_request(&bytes);
        }
    }
}

//! The authority of a target: what may follow `http://` or stand in `Host` (RFC 3986 §3.2, RFC 9110 §7.2).

use super::super::list;

/// `host [ ":" port ]` with a host that is not empty, without user information (RFC 9110 §4.2.4). A port may be empty,
/// and is below 65536.
#[must_use]
pub fn is_authority(authority: &[u8]) -> bool {
    let (host, port) = match authority {
        [b'[', rest @ ..] => {
            let Some(close) = memchr::memchr(b']', rest) else { return false };
            let port = match &rest[close + 1..] {
                [] => &[],
                [b':', port @ ..] => port,
                _ => return false,
            };
            if !is_ip_literal(&rest[..close]) {
                return false;
            }
            return is_port(port);
        }
        _ => split_port(authority),
    };
    !host.is_empty() && is_reg_name(host) && is_port(port.unwrap_or_default())
}

/// Host and port of an authority, as bytes. IPv6 hosts keep their brackets; an absent port is `None`.
#[inline]
#[must_use]
pub fn split_port(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    // Ports are short, so the colon is near the end; one that belongs to an IPv6 address has its `]` behind it.
    match authority.iter().rposition(|&b| b == b':' || b == b']') {
        Some(at) if authority[at] == b':' => (&authority[..at], Some(&authority[at + 1..])),
        _ => (authority, None),
    }
}

fn is_port(port: &[u8]) -> bool {
    port.is_empty() || list::decimal(port).is_some_and(|n| n <= 65_535)
}

/// `reg-name` of RFC 3986, which IPv4 addresses are too: unreserved, sub-delims and percent-encoded bytes.
fn is_reg_name(host: &[u8]) -> bool {
    host.iter().all(|&b| HOST_BYTES[usize::from(b)]) && (memchr::memchr(b'%', host).is_none() || is_encoded(host))
}

fn is_encoded(host: &[u8]) -> bool {
    memchr::memchr_iter(b'%', host)
        .all(|at| matches!(host[at + 1..], [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
}

/// `IPv6address / IPvFuture`. Zone identifiers have no place in a URI that leaves the machine.
fn is_ip_literal(inside: &[u8]) -> bool {
    std::str::from_utf8(inside).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
}

static HOST_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let allowed = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+;=%";
    let mut i = 0;
    while i < allowed.len() {
        table[allowed[i] as usize] = true;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lawful_authorities_pass() {
        for good in [
            "a",
            "example.com",
            "example.com:80",
            "example.com:",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:80",
            "under_score",
            "[2001:db8::192.0.2.1]:65535",
            "a%20b",
            "xn--bcher-kva.example",
            "host.",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
    }

    #[test]
    fn everything_else_does_not() {
        for bad in [
            "",
            ":80",
            "a:65536",
            "a:x",
            "a:-1",
            "a b",
            "a/b",
            "user@host",
            "u:p@h",
            "[::1",
            "::1",
            "[::1]80",
            "[]",
            "a:80:80",
            "a%2",
            "a%zz",
            "a,b",
            "a?b",
            "a#b",
            "a\\b",
            "[fe80::1%25eth0]",
            "\u{e4}",
            "a\"b",
            "[a]",
            "<a>",
            "a:99999999999999999999",
            "a: 80",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn the_port_is_split_off_but_not_the_tail_of_an_ipv6_address() {
        assert_eq!(split_port(b"a:80"), (b"a".as_slice(), Some(b"80".as_slice())));
        assert_eq!(split_port(b"[::1]"), (b"[::1]".as_slice(), None));
        assert_eq!(split_port(b"[::1]:8"), (b"[::1]".as_slice(), Some(b"8".as_slice())));
        assert_eq!(split_port(b"a:"), (b"a".as_slice(), Some(b"".as_slice())));
    }
}

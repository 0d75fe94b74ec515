//! Telling the origin who asked: `Forwarded` (RFC 7239) and `X-Forwarded-For`.

use std::net::{IpAddr, SocketAddr};

use super::sink::HeadSink;
use crate::wire::h1::is_authority;
use crate::wire::list;

/// Which of the two fields are written. Those not written are not removed: the client's own then pass.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum ForwardedFields {
    /// `X-Forwarded-For` and `Forwarded`.
    #[default]
    Both,
    /// `X-Forwarded-For` alone.
    XForwardedFor,
    /// `Forwarded` alone.
    Forwarded,
    /// Neither.
    Off,
}

impl ForwardedFields {
    /// Is `X-Forwarded-For` among them?
    #[must_use]
    pub const fn x_forwarded_for(self) -> bool {
        matches!(self, Self::Both | Self::XForwardedFor)
    }

    /// Is `Forwarded` among them?
    #[must_use]
    pub const fn forwarded(self) -> bool {
        matches!(self, Self::Both | Self::Forwarded)
    }
}

/// The longest IPv6 address in text.
const ADDRESS_LEN_MAX: usize = 45;

/// A client's address as text, made once for a connection. An IPv4 address that came through an IPv6 socket is IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientAddress {
    text: [u8; ADDRESS_LEN_MAX],
    len: u8,
    is_v6: bool,
}

impl ClientAddress {
    /// The address of this peer; ports are not told.
    #[must_use]
    pub fn new(peer: SocketAddr) -> Self {
        Self::of(peer.ip())
    }

    /// The text of this address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let mut text = [0; ADDRESS_LEN_MAX];
        if let IpAddr::V4(address) = address {
            return Self { len: put_dotted(&mut text, address.octets()), text, is_v6: false };
        }
        let mut rest = text.as_mut_slice();
        // Every address fits; what would not is cut.
        let _ = std::io::Write::write_fmt(&mut rest, format_args!("{address}"));
        let free = rest.len();
        Self { text, len: u8::try_from(ADDRESS_LEN_MAX - free).unwrap_or(0), is_v6: address.is_ipv6() }
    }

    /// Without brackets, as `X-Forwarded-For` wants it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }

    /// Does RFC 7239 §6 want it in brackets and quotes?
    #[must_use]
    pub const fn is_ipv6(&self) -> bool {
        self.is_v6
    }
}

/// One element of `Forwarded`: `for=…;host=…;proto=…`. The host is the one the client asked for; it is quoted unless it is
/// a token, and left out when it is empty or (in HTTP/1.0) no authority.
pub(super) fn put_forwarded(sink: &mut impl HeadSink, client: &ClientAddress, host: &[u8], scheme: &str) {
    if client.is_ipv6() {
        sink.put(b"for=\"[");
        sink.put(client.as_bytes());
        sink.put(b"]\"");
    } else {
        sink.put(b"for=");
        sink.put(client.as_bytes());
    }
    if !host.is_empty() {
        debug_assert!(is_authority(host), "heads with another host are refused");
        if list::is_token(host) {
            sink.put(b";host=");
            sink.put(host);
        } else {
            // An authority holds neither quote nor backslash.
            sink.put(b";host=\"");
            sink.put(host);
            sink.put(b"\"");
        }
    }
    sink.put(b";proto=");
    sink.put(scheme.as_bytes());
}

/// Writes an IPv4 address without the formatting machinery: it is needed once a request. Says its length.
fn put_dotted(text: &mut [u8; ADDRESS_LEN_MAX], octets: [u8; 4]) -> u8 {
    let mut len = 0_u8;
    let mut put = |byte| {
        text[usize::from(len)] = byte;
        len += 1;
    };
    for (n, octet) in octets.into_iter().enumerate() {
        if n > 0 {
            put(b'.');
        }
        if octet >= 100 {
            put(b'0' + octet / 100);
        }
        if octet >= 10 {
            put(b'0' + octet / 10 % 10);
        }
        put(b'0' + octet % 10);
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_the_standard_library_does() {
        for text in ["0.0.0.0", "127.0.0.1", "10.20.30.40", "255.255.255.255", "100.9.99.199", "::1", "2001:db8::1"] {
            let address = ClientAddress::of(text.parse().unwrap());
            assert_eq!(address.as_bytes(), text.as_bytes());
        }
    }

    fn element(address: &str, host: &str) -> String {
        let mut out = Vec::new();
        put_forwarded(&mut out, &ClientAddress::of(address.parse().unwrap()), host.as_bytes(), "http");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn addresses_and_hosts_are_quoted_as_rfc_7239_wants() {
        assert_eq!(element("192.0.2.1", "example.com"), "for=192.0.2.1;host=example.com;proto=http");
        assert_eq!(element("192.0.2.1", "a:80"), "for=192.0.2.1;host=\"a:80\";proto=http");
        assert_eq!(element("2001:db8::1", ""), "for=\"[2001:db8::1]\";proto=http");
        assert_eq!(element("::ffff:192.0.2.1", "[::1]"), "for=192.0.2.1;host=\"[::1]\";proto=http");
    }

    #[test]
    fn the_longest_address_fits() {
        let longest: IpAddr = "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap();
        assert_eq!(ClientAddress::of(longest).as_bytes(), longest.to_string().as_bytes());
        let mapped = ClientAddress::of("::ffff:255.255.255.255".parse().unwrap());
        assert_eq!((mapped.as_bytes(), mapped.is_ipv6()), (b"255.255.255.255".as_slice(), false));
    }
}

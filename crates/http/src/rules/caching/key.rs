//! The cache key: the URL of a request in one spelling (RFC 9111 §2, RFC 9110 §4.2.3).
//!
//! `http://host[:port]/path?query`, with the host in lower case, without a port that goes without saying, and with path
//! and query as they came: what looks equivalent to us may not be to the origin. The method is not in it: GET and HEAD
//! share what is stored. What a response varies with is compared afterwards, by [`super::vary`].

use super::store::Reason;
use crate::wire::h1::{Scheme, split_port};

/// Longer keys are not stored. Far above what browsers and servers take for a URL.
pub const KEY_LEN_MAX: usize = 16 * 1024;

/// Writes the key over what was in `key`; allocates only when its capacity does not suffice.
///
/// `authority` is a lawful one (of a request that parsed), or empty. `path_and_query` is empty or starts with `/` or
/// `?`.
///
/// # Errors
/// [`Reason::KeyTooLong`]; `key` is then empty.
#[inline]
pub fn write_key(key: &mut Vec<u8>, scheme: Scheme, authority: &[u8], path_and_query: &[u8]) -> Result<(), Reason> {
    key.clear();
    if authority.len() + path_and_query.len() > KEY_LEN_MAX - ROOM {
        return Err(Reason::KeyTooLong);
    }
    let (host, port) = split_port(authority);
    key.extend_from_slice(match scheme {
        Scheme::Http => b"http://",
        Scheme::Https => b"https://",
    });
    let host_at = key.len();
    key.extend_from_slice(host);
    key[host_at..].make_ascii_lowercase();
    if let Some(port) = port.map(without_zeros)
        && !port.is_empty()
        && port != default_port(scheme)
    {
        key.push(b':');
        key.extend_from_slice(port);
    }
    if path_and_query.first() != Some(&b'/') {
        key.push(b'/');
    }
    key.extend_from_slice(path_and_query);
    Ok(())
}

/// The parts of a key: everything before the path, and the path with the query.
#[must_use]
pub fn split(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let authority_at = memchr::memmem::find(key.get(..ROOM.min(key.len()))?, b"://")? + 3;
    let path_at = authority_at + memchr::memchr(b'/', &key[authority_at..])?;
    Some(key.split_at(path_at))
}

/// What a key has beside authority and path.
const ROOM: usize = "https://".len() + "/".len();

const fn default_port(scheme: Scheme) -> &'static [u8] {
    match scheme {
        Scheme::Http => b"80",
        Scheme::Https => b"443",
    }
}

fn without_zeros(port: &[u8]) -> &[u8] {
    let zeros = port.iter().take_while(|&&b| b == b'0').count();
    &port[zeros.min(port.len().saturating_sub(1))..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(scheme: Scheme, authority: &str, path: &str) -> String {
        let mut key = b"left over".to_vec();
        write_key(&mut key, scheme, authority.as_bytes(), path.as_bytes()).unwrap();
        String::from_utf8(key).unwrap()
    }

    #[test]
    fn one_url_has_one_key_however_it_is_spelled() {
        use Scheme::{Http, Https};
        for (scheme, authority, path, expected) in [
            (Http, "Example.COM", "/A?b=C", "http://example.com/A?b=C"),
            (Http, "example.com:80", "/", "http://example.com/"),
            (Http, "example.com:080", "/", "http://example.com/"),
            (Http, "example.com:", "/", "http://example.com/"),
            (Http, "example.com:443", "/", "http://example.com:443/"),
            (Http, "example.com:0", "/", "http://example.com:0/"),
            (Https, "example.com:443", "/", "https://example.com/"),
            (Https, "example.com:80", "/", "https://example.com:80/"),
            (Http, "[2001:DB8::1]:8080", "/x", "http://[2001:db8::1]:8080/x"),
            (Http, "[::1]", "/x", "http://[::1]/x"),
            (Http, "a", "", "http://a/"),
            (Http, "a", "?q", "http://a/?q"),
            (Http, "a", "/%7Ex/../y//z?", "http://a/%7Ex/../y//z?"),
            (Http, "", "/x", "http:///x"),
        ] {
            let found = key(scheme, authority, path);
            assert_eq!(found, expected);
            let (start, rest) = split(found.as_bytes()).unwrap();
            assert_eq!(start.len() + rest.len(), found.len());
            assert!(rest.starts_with(b"/"));
        }
        assert_eq!(split(b"http://a"), None);
        assert_eq!(split(b""), None);
    }

    #[test]
    fn a_key_has_a_limit() {
        let mut text = Vec::new();
        let path = vec![b'/'; KEY_LEN_MAX];
        assert_eq!(write_key(&mut text, Scheme::Http, b"a", &path), Err(Reason::KeyTooLong));
        assert!(text.is_empty());
        assert_eq!(write_key(&mut text, Scheme::Https, b"a", &path[..KEY_LEN_MAX - ROOM - 1]), Ok(()));
        assert!(text.len() <= KEY_LEN_MAX);
    }
}

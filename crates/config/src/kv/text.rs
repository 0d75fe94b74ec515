//! What a pool's file has as one text: where it listens, its servers, bare milliseconds.
//!
//! Both files write them alike. What twemproxy takes and could never work with is refused here for both.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::{KvAddress, KvListen, KvServer};
use crate::diagnostic::quoted;
use crate::value::Fault;

/// The longest path of a Unix socket: `sun_path` has 108 bytes, the last of them zero.
const SOCKET_PATH_MAX: usize = 107;

/// The largest permissions of a socket.
const MODE_MAX: u32 = 0o777;

/// The largest number in a pool's file: twemproxy keeps them in a C `int`.
pub(crate) const NUMBER_MAX: u64 = i32::MAX.unsigned_abs() as u64;

/// Reads `IP:PORT` or `/PATH [MODE]`. `tcp` reads what is no path.
pub(crate) fn listen(
    key: &str,
    text: &str,
    tcp: impl FnOnce(&str) -> Result<SocketAddr, Fault>,
) -> Result<KvListen, Fault> {
    if !text.starts_with('/') {
        return tcp(text).map(KvListen::Tcp);
    }
    let (path, mode) = match text.rsplit_once(' ') {
        Some((path, mode)) => (path, Some(permissions(key, mode)?)),
        None => (text, None),
    };
    Ok(KvListen::Unix { path: socket_path(key, path)?, mode })
}

fn permissions(key: &str, text: &str) -> Result<u32, Fault> {
    let digits = !text.is_empty() && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if digits && mode <= MODE_MAX => Ok(mode),
        _ => Err(Fault::new(
            format!("`{key}`: a socket cannot have the permissions {}", quoted(text)),
            "an octal number up to 0777, such as /run/pool.sock 0660",
        )),
    }
}

fn socket_path(key: &str, text: &str) -> Result<PathBuf, Fault> {
    if text.len() > SOCKET_PATH_MAX || text.len() < 2 || text.contains('\0') {
        let message = format!("`{key}`: {} cannot be the path of a Unix socket", quoted(text));
        return Err(Fault::new(message, format!("a path of 2 to {SOCKET_PATH_MAX} bytes")));
    }
    Ok(PathBuf::from(text))
}

/// Reads `host:port:weight [name]` or `/path:weight [name]`, from the end, as twemproxy does.
pub(crate) fn server(key: &str, text: &str) -> Result<KvServer, Fault> {
    let wrong = |what: &str| {
        let hint = "write HOST:PORT:WEIGHT or /PATH:WEIGHT and, if you like, a name after a space: 10.0.0.5:6379:1 one";
        Fault::new(format!("`{key}`: {} {what}", quoted(text)), hint)
    };
    let (address, name) = match text.rsplit_once(' ') {
        Some((_, "")) => return Err(wrong("ends with a space")),
        Some((address, name)) => (address, Some(name.to_owned())),
        None => (text, None),
    };
    let Some((address, weight)) = address.rsplit_once(':') else { return Err(wrong("has no weight")) };
    let weight = match number(weight) {
        Some(0) => return Err(wrong("has the weight 0; the least is 1")),
        Some(weight) => weight,
        None => return Err(wrong(&format!("has {} for a weight", quoted(weight)))),
    };
    if address.starts_with('/') && address.contains(':') {
        return Err(wrong("has a colon in its path, or two weights"));
    }
    if address.starts_with('/') {
        return Ok(KvServer { address: KvAddress::Unix(socket_path(key, address)?), weight, name });
    }
    let Some((host, digits)) = address.rsplit_once(':') else { return Err(wrong("has no port, or no weight")) };
    let port = match number(digits).map(u16::try_from) {
        Some(Ok(port)) if port > 0 => port,
        _ => return Err(wrong(&format!("has {} for a port", quoted(digits)))),
    };
    let is_ipv6 = host.parse::<Ipv6Addr>().is_ok();
    if host.is_empty() || host.bytes().any(|b| b.is_ascii_control() || b == b' ') || (host.contains(':') && !is_ipv6) {
        return Err(wrong(&format!("has {} for a host", quoted(host))));
    }
    // The name is made of the port as it is written, and a port may be written with zeros before it.
    let canonical = digits == port.to_string() || port == super::PORT_WITHOUT_SUFFIX;
    let name = if name.is_none() && !canonical { Some(address.to_owned()) } else { name };
    Ok(KvServer { address: KvAddress::Tcp { host: host.to_owned(), port }, weight, name })
}

/// A number of digits only, up to [`NUMBER_MAX`].
pub(crate) fn number(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| u64::from(*number) <= NUMBER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_read_from_its_end() {
        let plain = server("servers", "cache-1.internal:11211:3").unwrap();
        assert_eq!(plain.address.to_string(), "cache-1.internal:11211");
        assert_eq!((plain.weight, plain.name), (3, None));
        let named = server("servers", "::1:6379:1 one").unwrap();
        assert_eq!((named.address.to_string().as_str(), named.name.as_deref()), ("[::1]:6379", Some("one")));
        let unix = server("servers", "/run/r.sock:2 two").unwrap();
        assert_eq!(unix.address, KvAddress::Unix("/run/r.sock".into()));
        for wrong in [
            "",
            "a",
            "a:1",
            "a:1:",
            "a:1:0",
            "a:0:1",
            "a:65536:1",
            ":1:1",
            "a:b:1:1",
            "a:1:1 ",
            "a:1:1 b c",
            "/a",
            "/:1",
            "/a:b:1",
        ] {
            assert!(server("servers", wrong).is_err(), "{wrong}");
        }
        assert!(server("servers", "a:1:2147483647").is_ok() && server("servers", "a:1:2147483648").is_err());
    }

    #[test]
    fn a_socket_to_listen_on_may_have_permissions() {
        let listen = |text: &str| listen("listen", text, |_| Err(Fault::new("", "")));
        let unix = |mode| KvListen::Unix { path: "/run/p.sock".into(), mode };
        assert_eq!(listen("/run/p.sock").unwrap(), unix(None));
        assert_eq!(listen("/run/p.sock 0660").unwrap(), unix(Some(0o660)));
        assert_eq!(listen("/run/p.sock 777").unwrap().to_string(), "/run/p.sock 0777");
        for wrong in ["/run/p.sock 1777", "/run/p.sock 0888", "/run/p.sock x", "/run/p.sock ", "/"] {
            assert!(listen(wrong).is_err(), "{wrong}");
        }
        assert!(listen(&format!("/{}", "p".repeat(106))).is_ok() && listen(&format!("/{}", "p".repeat(107))).is_err());
    }
}

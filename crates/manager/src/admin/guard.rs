//! Who may ask, and how: reading methods only, and only under a name that is this machine's.
//!
//! A page on the Web whose name is made to resolve to 127.0.0.1 (DNS rebinding) makes a browser ask this port and read the answer. The
//! browser sends the page's name in `Host`; so names other than this machine's are refused. An address is no name:
//! on a wildcard listener any is accepted.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::header::{ALLOW, HOST};
use axum::http::{Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Refuses what may not pass, before any route is looked up.
pub(super) async fn guard(State(listen): State<SocketAddr>, request: Request, next: Next) -> Response {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET, HEAD")], "only GET and HEAD\n").into_response();
    }
    let host = request.headers().get_all(HOST);
    let named = match (request.uri().authority(), host.iter().count()) {
        (Some(authority), _) => Some(authority.as_str()),
        (None, 1) => host.iter().next().and_then(|value| value.to_str().ok()),
        // Before HTTP/1.1 there was no Host; and no browser that could be deceived.
        (None, 0) if request.version() == Version::HTTP_10 => return next.run(request).await,
        (None, _) => None,
    };
    match named {
        None => (StatusCode::BAD_REQUEST, "one Host field, please\n").into_response(),
        Some(host) if is_ours(host, listen.ip()) => next.run(request).await,
        Some(_) => {
            let why = "this port answers to localhost and to its own address only\n";
            (StatusCode::MISDIRECTED_REQUEST, why).into_response()
        }
    }
}

/// Whether `host`, with or without a port, is this machine as reached through `listen`.
fn is_ours(host: &str, listen: IpAddr) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(ip, _)| ip),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.parse::<IpAddr>() {
        Ok(ip) => {
            let ip = ip.to_canonical();
            ip.is_loopback() || ip == listen.to_canonical() || listen.is_unspecified()
        }
        Err(_) => {
            let name = name.to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_names_and_addresses_are_ours() {
        let loopback = "127.0.0.1".parse().unwrap();
        for host in
            ["localhost", "LOCALHOST:9001", "a.localhost.", "127.0.0.1:9001", "127.1.2.3", "[::1]:9001", "[::1]"]
        {
            assert!(is_ours(host, loopback), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example", "10.0.0.1", "127.0.0.1.evil.example", "[::2]:1", "["]
        {
            assert!(!is_ours(host, loopback), "{host}");
        }
        assert!(is_ours("10.0.0.1:9001", "10.0.0.1".parse().unwrap()));
        assert!(is_ours("10.0.0.1:9001", "0.0.0.0".parse().unwrap()));
        assert!(!is_ours("evil.example", "0.0.0.0".parse().unwrap()));
    }
}

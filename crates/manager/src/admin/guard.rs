//! Who may ask, and how: under a name that is this machine's, from no other site's page, and to change something only by a
//! method that says so, with the token.
//!
//! A page on the Web whose name is made to resolve to 127.0.0.1 (DNS rebinding) makes a browser ask this port and read the answer. The
//! browser sends the page's name in `Host`; so names other than this machine's are refused. An address is no name:
//! on a wildcard listener any is accepted. A page of another site that only sends is told by its `Origin`.
//!
//! Auto-configuration is the exception: it is made for other machines, which ask for it under the name `wpad`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use supervise::log::{Level, write};

use super::token::{self, Refusal};
use super::{StatusSource, api};

/// Paths for everybody, under whatever name.
pub(super) const FOR_ALL: [&str; 2] = ["/proxy.pac", "/wpad.dat"];

/// What the guard knows.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) listen: SocketAddr,
    pub(super) source: Arc<dyn StatusSource>,
}

/// Refuses what may not pass, before any route is looked up.
pub(super) async fn guard(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    if !reads && !api::is_below(path) {
        return (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET, HEAD")], "only GET and HEAD\n").into_response();
    }
    if !FOR_ALL.contains(&path)
        && let Some(refusal) = misnamed(&request, gate.listen.ip())
    {
        return refusal;
    }
    if !reads || api::is_confidential(path) {
        let config = gate.source.config();
        if let Err(refusal) = token::check(config.admin.token_file.as_deref(), request.headers()) {
            return refused(refusal);
        }
    }
    next.run(request).await
}

/// The refusal of what was asked under no name of ours, or by another site's page.
fn misnamed(request: &Request, listen: IpAddr) -> Option<Response> {
    let host = request.headers().get_all(HOST);
    let named = match (request.uri().authority(), host.iter().count()) {
        (Some(authority), _) => Some(authority.as_str()),
        (None, 1) => host.iter().next().and_then(|value| value.to_str().ok()),
        // Before HTTP/1.1 there was no Host; and no browser that could be deceived.
        (None, 0) if request.version() == Version::HTTP_10 => return None,
        (None, _) => None,
    };
    match named {
        None => return Some((StatusCode::BAD_REQUEST, "one Host field, please\n").into_response()),
        Some(host) if is_ours(host, listen) => {}
        Some(_) => {
            let why = "this port answers to localhost and to its own address only\n";
            return Some((StatusCode::MISDIRECTED_REQUEST, why).into_response());
        }
    }
    let why = "the page that asks is of another site\n";
    is_foreign(request.headers(), listen).then(|| (StatusCode::FORBIDDEN, why).into_response())
}

/// Whether a browser says that another site's page asks.
fn is_foreign(headers: &HeaderMap, listen: IpAddr) -> bool {
    let ours = |origin: &HeaderValue| {
        let origin = origin.to_str().ok()?;
        let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))?;
        Some(is_ours(host, listen))
    };
    headers.get_all(ORIGIN).iter().any(|origin| ours(origin) != Some(true))
}

fn refused(refusal: Refusal) -> Response {
    let (status, why) = match refusal {
        Refusal::ReadOnly => (StatusCode::FORBIDDEN, "no token is configured (admin.token_file): this port only reads"),
        Refusal::Unusable(why) => {
            write(Level::Warning, format_args!("a change over the admin port was refused: {why}"));
            (StatusCode::FORBIDDEN, "the configured token is of no use; manager's log says why")
        }
        Refusal::Missing => (StatusCode::UNAUTHORIZED, "show the token: `Authorization: Bearer TOKEN`"),
        Refusal::Wrong => {
            write(Level::Warning, format_args!("a change over the admin port was refused: wrong token"));
            (StatusCode::FORBIDDEN, "that is not the token")
        }
    };
    let mut response = (status, Json(serde_json::json!({"error": why}))).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
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

//! What is answered under which path.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::HOST;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use base::{Clock as _, SystemClock};
use stats::prometheus;
use supervise::status::ServerState;

use super::numbers::Numbers;
use super::page::{Page, Sample};
use super::{StatusSource, api, guard, pac};

/// Every path, with what it is for.
pub(super) const ROUTES: [(&str, &str); 7] = [
    ("/", "the status page"),
    ("/metrics", "all numbers, for Prometheus"),
    ("/status.json", "the tree of processes, for programs"),
    ("/healthz", "200 when a server accepts requests, else 503"),
    ("/api/v1", "the interface for programs: GET tells its paths"),
    ("/proxy.pac", "auto-configuration for clients of the forward proxy"),
    ("/wpad.dat", "the same, under the name that clients look for"),
];

#[derive(Clone)]
struct Shared {
    source: Arc<dyn StatusSource>,
    /// The numbers of an earlier page, to compute rates from.
    earlier: Arc<Mutex<Option<Sample>>>,
}

/// All routes behind the guard.
pub(super) fn router(listen: SocketAddr, source: Arc<dyn StatusSource>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/status.json", get(status))
        .route("/healthz", get(health))
        .route("/proxy.pac", get(auto_configuration))
        .route("/wpad.dat", get(auto_configuration))
        .with_state(Shared { source: Arc::clone(&source), earlier: Arc::default() })
        .merge(api::router(Arc::clone(&source)))
        .fallback(not_found)
        .layer(from_fn_with_state(guard::Gate { listen, source }, guard::guard))
        .layer(map_response(seal))
}

async fn page(State(shared): State<Shared>) -> Html<String> {
    let status = shared.source.status();
    let numbers = Numbers::read(&status, &shared.source.metrics_segments());
    let now = Sample { at: SystemClock.now(), wall: SystemClock.wall(), numbers: numbers.sum.clone() };
    let mut earlier = shared.earlier.lock().unwrap_or_else(PoisonError::into_inner);
    let text = Page { status: &status, numbers: &numbers, now: &now, earlier: earlier.as_ref() }.render();
    if earlier.as_ref().is_none_or(|earlier| now.replaces(earlier)) {
        *earlier = Some(now);
    }
    Html(text)
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let status = shared.source.status();
    let numbers = Numbers::read(&status, &shared.source.metrics_segments());
    ([(CONTENT_TYPE, prometheus::CONTENT_TYPE)], numbers.render(&status)).into_response()
}

async fn status(State(shared): State<Shared>) -> Response {
    axum::Json(shared.source.status()).into_response()
}

async fn health(State(shared): State<Shared>) -> Response {
    let status = shared.source.status();
    if status.stopping {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response()
    } else if status.leaving {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
    } else if status.servers.iter().any(|server| server.state == ServerState::Ready) {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no server is ready\n").into_response()
    }
}

async fn auto_configuration(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let config = shared.source.config();
    let forwards = config.setting("http.forward_proxy").is_some_and(|setting| setting.value == "true");
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    ([(CONTENT_TYPE, pac::CONTENT_TYPE)], pac::script(&config, forwards, host)).into_response()
}

/// The path is not repeated: it is the client's text.
async fn not_found() -> Response {
    let mut text = String::from("nothing here. There is:\n");
    for (path, what) in ROUTES {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {path:<14} {what}");
    }
    (StatusCode::NOT_FOUND, text).into_response()
}

/// No answer is stored, framed, guessed at or able to load anything.
async fn seal(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    );
    response
}

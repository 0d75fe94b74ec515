//! The interface for programs, version 1: what `beltway ctl` can do, over HTTP.
//!
//! GET reads and changes nothing, and needs no token (but for what is confidential). What changes something is POST, PUT or DELETE,
//! with the token: the `guard` has seen to that before anything here is called. Every answer is JSON; what is refused
//! says why under `error`. Changes are manager's: they go over its control socket like those of `ctl`, so there is one
//! way for both.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post, put};
use config::Setting;
use serde::Deserialize;
use serde_json::{Value, json};
use supervise::change::{Outcome, Proposal, Step, Verdict};
use supervise::configuration::history;
use supervise::control::{ControlError, Reply, Request};
use supervise::log::Level;
use supervise::memory;
use supervise::obituary;

use super::StatusSource;
use super::numbers::numbers_matching;

/// What everything of this version begins with.
const PREFIX: &str = "/api/v1";
/// Bytes of a request's body.
const BODY_MAX: usize = 128 * 1024;
/// How long manager may take for a plain answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// What a change may take beyond the start of a server.
const CHANGE_MARGIN: Duration = Duration::from_secs(15);

type Source = State<Arc<dyn StatusSource>>;

/// Every path below the prefix, with its methods and what they do.
pub(super) const PATHS: [(&str, &str, &str); 16] = [
    ("GET", "/status", "the tree of processes"),
    ("GET", "/memory", "where the memory is"),
    ("GET", "/metrics?match=TEXT", "the numbers whose names contain a text"),
    ("GET", "/config", "every key with its value; passwords are hidden"),
    (
        "GET, PUT, DELETE",
        "/config/keys/KEY",
        "one key; PUT sets it in the file, the body being its value; DELETE takes it out (?restart=true)",
    ),
    ("GET", "/config/history", "the configurations that were in force"),
    ("POST", "/config/judge", "what a reload would do (?number=N: what a return to N would do)"),
    ("POST", "/config/reload", "puts what the file says in force"),
    ("POST", "/config/rollback/NUMBER", "puts one of the history in force again (?restart=true)"),
    ("POST", "/server/restart", "replaces the server by a new one"),
    ("POST", "/server/stop", "lets it finish, and runs none"),
    ("POST", "/server/start", "runs one again"),
    ("POST, DELETE", "/server/drain", "makes readiness fail, or no longer"),
    ("GET", "/obituaries", "of what processes died (with the token)"),
    ("PUT", "/log/level", "how much all processes tell, until the next reload: error, warn, info or debug"),
    ("POST", "/log/reopen", "closes and opens the log files"),
];

/// Whether a path belongs to this interface: others are only read.
pub(super) fn is_below(path: &str) -> bool {
    path.strip_prefix(PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether also reading it needs the token: stacks and numbers of the dead are in files for their owner alone.
pub(super) fn is_confidential(path: &str) -> bool {
    path.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with("/obituaries"))
}

/// All routes of this version.
pub(super) fn router(source: Arc<dyn StatusSource>) -> axum::Router {
    let routes: [(&str, MethodRouter<Arc<dyn StatusSource>>); 17] = [
        ("", get(index)),
        ("/status", get(status)),
        ("/memory", get(memory_account)),
        ("/metrics", get(metrics)),
        ("/config", get(every_key)),
        ("/config/keys/{key}", get(one_key).put(set_key).delete(unset_key)),
        ("/config/history", get(past)),
        ("/config/judge", post(judge)),
        ("/config/reload", post(reload)),
        ("/config/rollback/{number}", post(rollback)),
        ("/server/restart", post(restart)),
        ("/server/stop", post(stop)),
        ("/server/start", post(start)),
        ("/server/drain", post(drain).delete(undrain)),
        ("/obituaries", get(obituaries)),
        ("/log/level", put(log_level)),
        ("/log/reopen", post(reopen)),
    ];
    let mut router = axum::Router::new();
    for (path, method) in routes {
        router = router.route(&format!("{PREFIX}{path}"), method.fallback(wrong_method));
    }
    router.layer(DefaultBodyLimit::max(BODY_MAX)).with_state(source)
}

async fn index() -> Response {
    let paths =
        PATHS.map(|(methods, path, what)| json!({"methods": methods, "path": format!("{PREFIX}{path}"), "what": what}));
    Json(json!({"version": 1, "paths": paths})).into_response()
}

/// The methods that the path has.
async fn wrong_method(uri: Uri) -> Response {
    let here = |pattern: &str| {
        let pattern = pattern.split('?').next().unwrap_or_default();
        let (mine, theirs) = (uri.path().trim_start_matches(PREFIX).split('/'), pattern.split('/'));
        mine.clone().count() == theirs.clone().count()
            && mine.zip(theirs).all(|(a, b)| a == b || matches!(b, "KEY" | "NUMBER"))
    };
    let methods = PATHS.iter().find(|(_, path, _)| here(path)).map_or("GET", |(methods, ..)| methods);
    let why = json!({"error": format!("here only: {methods}")});
    (StatusCode::METHOD_NOT_ALLOWED, [(axum::http::header::ALLOW, methods)], Json(why)).into_response()
}

async fn status(State(source): Source) -> Response {
    Json(source.status()).into_response()
}

async fn memory_account(State(source): Source) -> Response {
    let status = source.status();
    let segments = source.metrics_segments();
    let numbers: Vec<_> =
        memory::NUMBERS.iter().flat_map(|pattern| numbers_matching(&status, &segments, pattern)).collect();
    Json(memory::account(&status, &numbers, false)).into_response()
}

#[derive(Deserialize)]
struct Matching {
    #[serde(default)]
    r#match: String,
}

async fn metrics(State(source): Source, Query(matching): Query<Matching>) -> Response {
    let numbers = numbers_matching(&source.status(), &source.metrics_segments(), &matching.r#match);
    let numbers: Vec<Value> = numbers.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    Json(numbers).into_response()
}

async fn every_key(State(source): Source) -> Response {
    let config = source.config();
    Json(config.every_setting().iter().map(json_of).collect::<Value>()).into_response()
}

async fn one_key(State(source): Source, Path(key): Path<String>) -> Response {
    match source.config().setting(&key) {
        Some(setting) => Json(json_of(&setting)).into_response(),
        None => failure(StatusCode::NOT_FOUND, "there is no such key with a value of its own"),
    }
}

fn json_of(setting: &Setting) -> Value {
    let Setting { key, value, is_written, applied } = setting;
    json!({"key": key, "value": value, "written": is_written, "applied_by": applied.to_string()})
}

async fn past(State(source): Source) -> Response {
    match history::all(&source.directory()) {
        Ok(past) => Json(past).into_response(),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn obituaries(State(source): Source) -> Response {
    match obituary::all(&source.directory()) {
        Ok(deaths) => Json(deaths).into_response(),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

#[derive(Deserialize)]
struct How {
    #[serde(default)]
    restart: bool,
    number: Option<u64>,
}

impl How {
    fn step(&self) -> Step {
        if self.restart { Step::Restart } else { Step::Reload }
    }
}

async fn set_key(State(source): Source, Path(key): Path<String>, Query(how): Query<How>, body: Bytes) -> Response {
    let Ok(value) = String::from_utf8(body.to_vec()) else {
        return failure(StatusCode::BAD_REQUEST, "the body is the value, as it would be written in the file");
    };
    let step = how.step();
    change(source, Proposal::Set { key, value }, step).await
}

async fn unset_key(State(source): Source, Path(key): Path<String>, Query(how): Query<How>) -> Response {
    let step = how.step();
    change(source, Proposal::Unset { key }, step).await
}

async fn judge(State(source): Source, Query(how): Query<How>) -> Response {
    change(source, how.number.map_or(Proposal::File, Proposal::Past), Step::Judge).await
}

async fn reload(State(source): Source) -> Response {
    change(source, Proposal::File, Step::Reload).await
}

async fn rollback(State(source): Source, Path(number): Path<u64>, Query(how): Query<How>) -> Response {
    let step = how.step();
    change(source, Proposal::Past(number), step).await
}

async fn restart(State(source): Source) -> Response {
    change(source, Proposal::File, Step::Restart).await
}

async fn stop(State(source): Source) -> Response {
    plain(source, Request::Serve(false), StatusCode::ACCEPTED).await
}

async fn start(State(source): Source) -> Response {
    plain(source, Request::Serve(true), StatusCode::ACCEPTED).await
}

async fn drain(State(source): Source) -> Response {
    plain(source, Request::Drain(true), StatusCode::OK).await
}

async fn undrain(State(source): Source) -> Response {
    plain(source, Request::Drain(false), StatusCode::OK).await
}

async fn reopen(State(source): Source) -> Response {
    plain(source, Request::ReopenLogs, StatusCode::OK).await
}

async fn log_level(State(source): Source, body: Bytes) -> Response {
    match std::str::from_utf8(&body).map(|word| word.trim().parse::<Level>()) {
        Ok(Ok(level)) => plain(source, Request::LogLevel(level), StatusCode::OK).await,
        _ => failure(StatusCode::BAD_REQUEST, "the body is one of error, warn, info, debug"),
    }
}

async fn change(source: Arc<dyn StatusSource>, proposal: Proposal, step: Step) -> Response {
    let start = match step {
        Step::Judge | Step::Reload => Duration::ZERO,
        // The candidate may allow more than what is in force.
        _ => source.config().supervise.start_timeout * 2,
    };
    match ask(source, Request::Change { proposal, step }, start + CHANGE_MARGIN).await {
        Ok(Reply::Verdict(verdict)) => (status_of(&verdict), Json(verdict)).into_response(),
        other => unexpected(other),
    }
}

fn status_of(verdict: &Verdict) -> StatusCode {
    match verdict.outcome {
        Outcome::Applied | Outcome::Possible | Outcome::Unchanged => StatusCode::OK,
        Outcome::NeedsRestart => StatusCode::CONFLICT,
        Outcome::Wrong => StatusCode::UNPROCESSABLE_ENTITY,
        Outcome::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn plain(source: Arc<dyn StatusSource>, request: Request, done: StatusCode) -> Response {
    match ask(source, request, ANSWER_WITHIN).await {
        Ok(Reply::Done) => (done, Json(json!({"done": true}))).into_response(),
        other => unexpected(other),
    }
}

/// Waits on a thread for what may wait: this one serves everybody else meanwhile.
async fn ask(source: Arc<dyn StatusSource>, request: Request, bound: Duration) -> Result<Reply, ControlError> {
    let asked = tokio::task::spawn_blocking(move || source.ask(request, bound)).await;
    asked.unwrap_or_else(|error| Err(ControlError::Malformed(error.to_string())))
}

fn unexpected(answer: Result<Reply, ControlError>) -> Response {
    match answer {
        Ok(other) => failure(StatusCode::BAD_GATEWAY, &format!("manager answers {other:?}")),
        Err(ControlError::Refused(why)) => failure(StatusCode::CONFLICT, &why),
        Err(error @ ControlError::Late(_)) => failure(StatusCode::GATEWAY_TIMEOUT, &error.to_string()),
        Err(error) => failure(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

fn failure(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({"error": why}))).into_response()
}

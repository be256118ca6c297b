//! The endpoints: what a request means, and what each answer looks like.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use relais_core::Admin;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Peer;
use crate::handle::{Handle, Refusal, RefusalKind};
use crate::reload::Outcome;

const ENDPOINTS: &str = "GET /status, GET /certificates, GET /metrics, GET or PUT /log-level, POST /admin, \
    POST /reload, POST /stop, POST /upgrade, GET /explain, GET /history, GET, POST or DELETE /drill, \
    GET /certs, POST /certs/renew, POST /certs/test, POST /certs/revoke, POST /certs/rollover, POST /certs/import";

/// All endpoints.
pub(super) fn router(handle: Handle) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/certificates", get(certificates))
        .route("/metrics", get(metrics))
        .route("/log-level", get(log_level).put(set_log_level))
        .route("/admin", post(admin))
        .route("/reload", post(reload))
        .route("/stop", post(stop))
        .route("/upgrade", post(upgrade))
        .merge(super::contract::router())
        .merge(super::certs::router())
        .fallback(async || refuse(StatusCode::NOT_FOUND, "there is no such endpoint", ENDPOINTS))
        .method_not_allowed_fallback(async || {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "this endpoint does not take that method", ENDPOINTS)
        })
        .with_state(handle)
}

/// The body of `POST /admin`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdminOrder {
    target: String,
    word: Admin,
    #[serde(default)]
    reason: Option<String>,
}

/// The body of `/log-level`, both ways.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct LogLevel {
    level: String,
}

/// The query of `POST /reload`.
#[derive(Debug, Deserialize)]
struct ReloadQuery {
    #[serde(default)]
    force: bool,
}

/// A verdict that refuses, in the shape of every error.
#[derive(Serialize)]
struct RefusedReload<'a> {
    error: &'a str,
    help: &'a str,
    verdict: &'a crate::reload::Verdict,
}

async fn status(State(handle): State<Handle>) -> Response {
    answer(handle.status().await)
}

async fn certificates(State(handle): State<Handle>) -> Response {
    answer(handle.certificates().await)
}

async fn metrics(State(handle): State<Handle>) -> Response {
    match handle.metrics().await {
        Ok(text) => ([(header::CONTENT_TYPE, crate::metrics::TEXT_FORMAT)], text).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

async fn log_level(State(handle): State<Handle>) -> Response {
    answer(handle.log_level().await.map(|level| LogLevel { level }))
}

async fn set_log_level(State(handle): State<Handle>, peer: ConnectInfo<Peer>, body: Bytes) -> Response {
    match parse::<LogLevel>(&body, r#"{"level": "debug"}"#) {
        Ok(wish) => {
            heard(peer.0, "log-level", &wish.level);
            answer(handle.set_log_level(&wish.level).await.map(|level| LogLevel { level }))
        }
        Err(refusal) => refused(&refusal),
    }
}

async fn admin(State(handle): State<Handle>, peer: ConnectInfo<Peer>, body: Bytes) -> Response {
    let shape = r#"{"target": "dijon", "word": "enabled|draining|disabled", "reason": null}"#;
    match parse::<AdminOrder>(&body, shape) {
        Ok(AdminOrder { target, word, reason }) => {
            heard(peer.0, word.as_str(), &target);
            answer(handle.admin(&target, word, reason).await)
        }
        Err(refusal) => refused(&refusal),
    }
}

async fn reload(
    State(handle): State<Handle>,
    peer: ConnectInfo<Peer>,
    query: Result<Query<ReloadQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(ReloadQuery { force })) = query else {
        return refuse(StatusCode::BAD_REQUEST, "the query makes no sense", "POST /reload or POST /reload?force=true");
    };
    heard(peer.0, "reload", if force { "force" } else { "" });
    match handle.reload(force).await {
        Ok(verdict) if verdict.outcome == Outcome::Refused => {
            let help = verdict.help.as_deref().unwrap_or_default();
            let body = RefusedReload { error: &verdict.message, help, verdict: &verdict };
            json(StatusCode::UNPROCESSABLE_ENTITY, &body)
        }
        other => answer(other),
    }
}

async fn stop(State(handle): State<Handle>, peer: ConnectInfo<Peer>) -> Response {
    heard(peer.0, "stop", "");
    match handle.stop().await {
        Ok(()) => json(StatusCode::ACCEPTED, &serde_json::json!({ "stopping": true })),
        Err(refusal) => refused(&refusal),
    }
}

async fn upgrade(State(handle): State<Handle>, peer: ConnectInfo<Peer>) -> Response {
    heard(peer.0, "upgrade", "");
    answer(handle.upgrade().await.map(|pid| serde_json::json!({ "pid": pid })))
}

/// Orders leave a trace of who gave them.
pub(super) fn heard(peer: Peer, order: &str, about: &str) {
    tracing::info!(uid = peer.uid, pid = peer.pid, order, about, "order on the admin socket");
}

pub(super) fn parse<T: DeserializeOwned>(body: &[u8], shape: &str) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal {
        error: format!("the body makes no sense: {error}"),
        help: format!("send JSON such as {shape}"),
        kind: RefusalKind::Invalid,
    })
}

pub(super) fn answer<T: Serialize>(result: Result<T, Refusal>) -> Response {
    match result {
        Ok(value) => json(StatusCode::OK, &value),
        Err(refusal) => refused(&refusal),
    }
}

pub(super) fn refused(refusal: &Refusal) -> Response {
    let status = match refusal.kind {
        RefusalKind::NotFound => StatusCode::NOT_FOUND,
        RefusalKind::Invalid => StatusCode::BAD_REQUEST,
        RefusalKind::Conflict => StatusCode::CONFLICT,
        RefusalKind::Gone => StatusCode::SERVICE_UNAVAILABLE,
    };
    json(status, refusal)
}

pub(super) fn refuse(status: StatusCode, error: &str, help: &str) -> Response {
    json(status, &serde_json::json!({ "error": error, "help": help }))
}

/// JSON with a line end, so that `curl` leaves the prompt where it belongs.
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_string_pretty(value) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

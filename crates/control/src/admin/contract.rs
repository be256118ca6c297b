//! The endpoints about the contract: explain, history, drill.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use relais_core::{DrillOrder, Shape};
use serde::Deserialize;

use super::Peer;
use super::api::{answer, heard, json, parse, refuse, refused};
use crate::handle::Handle;

/// The endpoints.
pub(super) fn router() -> Router<Handle> {
    Router::new()
        .route("/explain", get(explain))
        .route("/history", get(history))
        .route("/drill", get(drill).post(begin_drill).delete(end_drill))
}

/// The query of `GET /explain`.
#[derive(Debug, Deserialize)]
struct Asked {
    service: String,
}

/// The body of `POST /drill`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrillBody {
    site: String,
    #[serde(default = "silent")]
    shape: Shape,
    #[serde(default = "twenty")]
    seconds: f64,
    #[serde(default)]
    force: bool,
}

fn silent() -> Shape {
    Shape::Silent
}

fn twenty() -> f64 {
    20.0
}

async fn explain(
    State(handle): State<Handle>,
    query: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Response {
    match query {
        Ok(Query(Asked { service })) => answer(handle.explain(&service).await),
        Err(_) => refuse(StatusCode::BAD_REQUEST, "the query names no service", "GET /explain?service=NAME"),
    }
}

async fn history(State(handle): State<Handle>) -> Response {
    answer(handle.history().await)
}

async fn drill(State(handle): State<Handle>) -> Response {
    answer(handle.ask_drill().await.map(|drill| serde_json::json!({ "drill": drill })))
}

async fn begin_drill(State(handle): State<Handle>, peer: ConnectInfo<Peer>, body: Bytes) -> Response {
    let shape = r#"{"site": "dijon", "shape": "silent|refused|slow", "seconds": 20, "force": false}"#;
    let DrillBody { site, shape, seconds, force } = match parse(&body, shape) {
        Ok(order) => order,
        Err(refusal) => return refused(&refusal),
    };
    let Ok(lasts) = Duration::try_from_secs_f64(seconds) else {
        return refuse(StatusCode::BAD_REQUEST, "`seconds` is no time", "write a number of seconds, as 20");
    };
    heard(peer.0, "drill", &site);
    match handle.begin_drill(DrillOrder { site, shape, lasts, force }).await {
        Ok(record) => json(StatusCode::ACCEPTED, &record),
        Err(refusal) => refused(&refusal),
    }
}

async fn end_drill(State(handle): State<Handle>, peer: ConnectInfo<Peer>) -> Response {
    heard(peer.0, "end of the drill", "");
    answer(handle.end_drill().await)
}

//! The endpoints about certificates from CAs.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::response::Response;
use axum::routing::{get, post};
use relais_tls::acme::Reason;
use serde::Deserialize;

use super::Peer;
use super::api::{answer, heard, parse, refused};
use crate::certs::Import;
use crate::handle::Handle;

/// Bytes of one import: some thousand certificates.
const LARGEST_IMPORT: usize = 32 * 1024 * 1024;

/// The endpoints.
pub(super) fn router() -> Router<Handle> {
    Router::new()
        .route("/certs", get(certs))
        .route("/certs/renew", post(renew))
        .route("/certs/test", post(test))
        .route("/certs/revoke", post(revoke))
        .route("/certs/rollover", post(rollover))
        .route("/certs/import", post(import).layer(DefaultBodyLimit::max(LARGEST_IMPORT)))
}

/// The body of `POST /certs/renew` and `/certs/test`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Name {
    name: String,
}

/// The body of `POST /certs/revoke`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    name: String,
    #[serde(default)]
    reason: Why,
}

/// Why a certificate is taken back, in the words of RFC 5280.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Why {
    #[default]
    Unspecified,
    KeyCompromise,
    Superseded,
    CessationOfOperation,
}

/// The body of `POST /certs/rollover`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rollover {
    #[serde(default)]
    authority: Option<String>,
}

async fn certs(State(handle): State<Handle>) -> Response {
    answer(handle.certs().await)
}

async fn renew(State(handle): State<Handle>, peer: ConnectInfo<Peer>, body: Bytes) -> Response {
    match parse::<Name>(&body, r#"{"name": "www.example.org"}"#) {
        Ok(Name { name }) => {
            heard(peer.0, "renew", &name);
            answer(handle.renew(&name).await.map(|next| serde_json::json!({ "name": name, "next": next })))
        }
        Err(refusal) => refused(&refusal),
    }
}

async fn test(State(handle): State<Handle>, peer: ConnectInfo<Peer>, body: Bytes) -> Response {
    match parse::<Name>(&body, r#"{"name": "www.example.org"}"#) {
        Ok(Name { name }) => {
            heard(peer.0, "test order", &name);
            answer(handle.try_order(&name).await)
        }
        Err(refusal) => refused(&refusal),
    }
}

async fn revoke(State(handle): State<Handle>, peer: ConnectInfo<Peer>, body: Bytes) -> Response {
    let shape =
        r#"{"name": "www.example.org", "reason": "unspecified|key-compromise|superseded|cessation-of-operation"}"#;
    match parse::<Revoke>(&body, shape) {
        Ok(Revoke { name, reason }) => {
            heard(peer.0, "revoke", &name);
            let reason = match reason {
                Why::Unspecified => Reason::Unspecified,
                Why::KeyCompromise => Reason::KeyCompromise,
                Why::Superseded => Reason::Superseded,
                Why::CessationOfOperation => Reason::CessationOfOperation,
            };
            answer(handle.revoke(&name, reason).await.map(|next| serde_json::json!({ "name": name, "next": next })))
        }
        Err(refusal) => refused(&refusal),
    }
}

async fn rollover(State(handle): State<Handle>, peer: ConnectInfo<Peer>, body: Bytes) -> Response {
    match parse::<Rollover>(&body, r#"{"authority": "letsencrypt"}"#) {
        Ok(Rollover { authority }) => {
            heard(peer.0, "rollover", authority.as_deref().unwrap_or("all"));
            answer(handle.rollover(authority).await.map(|names| serde_json::json!({ "authorities": names })))
        }
        Err(refusal) => refused(&refusal),
    }
}

async fn import(State(handle): State<Handle>, peer: ConnectInfo<Peer>, body: Bytes) -> Response {
    let shape = r#"{"certificates": [{"origin": "", "public": "PEM", "key": "PEM"}], "accounts": []}"#;
    match parse::<Import>(&body, shape) {
        Ok(import) => {
            heard(peer.0, "import of certificates", &import.certificates.len().to_string());
            answer(handle.import(import).await)
        }
        Err(refusal) => refused(&refusal),
    }
}

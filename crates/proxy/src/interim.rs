//! Interim (1xx) answers of a backend on their way to the client.

use std::sync::Arc;

use http::header::{self, HeaderMap};
use http::{StatusCode, Version};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::conn_state::ConnState;
use crate::exchange::Exchange;
use crate::streams::Reply;

/// The gate that holds a body back until the backend wants it.
pub(crate) type Gate = Arc<Mutex<Option<oneshot::Sender<()>>>>;

/// Whom interim answers are for.
enum Audience {
    /// The request of this number on an HTTP/1.1 connection.
    Http1(Arc<ConnState>, u64),
    Http2(Arc<Reply>),
}

impl Audience {
    /// `None`: HTTP/1.0 knows no interim answers.
    fn of(exchange: &Exchange) -> Option<Self> {
        match (&exchange.reply, exchange.version) {
            (Some(reply), _) => Some(Self::Http2(Arc::clone(reply))),
            (None, Version::HTTP_11) => {
                let state = &exchange.client.state;
                Some(Self::Http1(Arc::clone(state), state.latest_request()))
            }
            (None, _) => None,
        }
    }

    fn tell(&self, status: StatusCode, fields: &HeaderMap) {
        match self {
            Audience::Http1(client, request) => client.send_interim(*request, &bytes(status, fields)),
            Audience::Http2(reply) => {
                let mut fields = fields.clone();
                fields.remove(header::CONTENT_LENGTH);
                reply.tell(status, fields);
            }
        }
    }
}

/// What becomes of a backend's interim answers (RFC 9110 15.2): they are sent on to the client. 100 opens the gate of the
/// body instead: reading the body makes the server side ask the client for it.
pub(crate) struct Hear {
    audience: Option<Audience>,
    gate: Option<Gate>,
}

impl Hear {
    /// `None`: nobody wants them.
    pub(crate) fn of(exchange: &Exchange, gate: Option<&Gate>) -> Option<Self> {
        let audience = Audience::of(exchange);
        (audience.is_some() || gate.is_some()).then(|| Self { audience, gate: gate.cloned() })
    }

    pub(crate) fn hear(&self, status: StatusCode, fields: &HeaderMap) {
        if status == StatusCode::CONTINUE {
            if let Some(open) = self.gate.as_ref().and_then(|gate| gate.lock().take()) {
                let _ = open.send(());
            }
        } else if let Some(audience) = &self.audience
            // Over HTTP/2 it means nothing (RFC 9113 8.6), and an HTTP/1.1 client would believe it.
            && status != StatusCode::SWITCHING_PROTOCOLS
        {
            audience.tell(status, fields);
        }
    }
}

fn bytes(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or("Interim")).into_bytes();
    for (name, value) in headers {
        if [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH].contains(name) {
            continue;
        }
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

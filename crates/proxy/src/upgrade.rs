//! What a client wants its bytes tunnelled by: the upgrade of HTTP/1.1, or the extended CONNECT that HTTP/2 has for a
//! WebSocket (RFC 8441). Backends are asked by an upgrade in either case.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode, Version, response};
use hyper::upgrade::OnUpgrade;
use tokio::sync::oneshot;

use crate::answer::Failure;
use crate::headers::Hop;
use crate::request_body::RequestBody;
use crate::response_body::ResponseBody;

/// What RFC 6455 1.3 puts behind a key before it is hashed.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The client's end of a tunnel that is asked for.
pub(crate) enum Upgrade {
    /// HTTP/1.1: the whole connection. The key and the answer to it cross the edge, and the client checks them.
    Connection(OnUpgrade),
    Stream(Box<Extended>),
}

/// A stream of an HTTP/2 connection.
pub(crate) struct Extended {
    receive: RecvStream,
    /// `Sec-WebSocket-Accept` that belongs to the key which the backend got.
    accept: String,
}

/// The same, once a backend has agreed.
pub(crate) enum Agreed {
    Connection(OnUpgrade),
    Stream(Box<Opening>),
}

/// Both directions of a stream whose answer is on its way.
pub(crate) struct Opening {
    pub(crate) receive: RecvStream,
    pub(crate) send: oneshot::Receiver<SendStream<Bytes>>,
}

/// Whether a CONNECT is one that is served: RFC 8441 4 with the one protocol that backends can be asked for by an upgrade.
pub(crate) fn admit<B>(connect: &Request<B>) -> Result<(), Failure> {
    match connect.extensions().get::<Protocol>() {
        None => Err(Failure::MethodNotServed),
        Some(protocol) if protocol.as_ref().eq_ignore_ascii_case(b"websocket") => Ok(()),
        Some(_) => Err(Failure::ProtocolNotServed),
    }
}

impl Upgrade {
    /// What a request asks for. An extended CONNECT becomes the request that HTTP/1.1 has for it (RFC 8441 5.1), with the
    /// key that such a request needs.
    pub(crate) fn of(
        request: &mut Request<RequestBody>,
        hop: &mut Hop,
        nonce: impl FnOnce() -> [u8; 16],
    ) -> Option<Self> {
        if request.method() == Method::CONNECT {
            return Self::extended(request, hop, nonce());
        }
        let asked = hop.upgrade.is_some() && request.version() == Version::HTTP_11;
        asked.then(|| Self::Connection(hyper::upgrade::on(request)))
    }

    fn extended(request: &mut Request<RequestBody>, hop: &mut Hop, nonce: [u8; 16]) -> Option<Self> {
        let receive = request.body_mut().take_stream()?;
        *request.method_mut() = Method::GET;
        let key = BASE64_STANDARD.encode(nonce);
        let fields = request.headers_mut();
        fields.remove(header::CONTENT_LENGTH);
        fields.remove(header::EXPECT);
        fields.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).ok()?);
        hop.upgrade = Some(HeaderValue::from_static("websocket"));
        Some(Self::Stream(Box::new(Extended { receive, accept: accept_of(&key) })))
    }

    /// Whether a backend's 101 has the one answer to the key, where nobody but the edge can tell.
    pub(crate) fn is_answered_by(&self, fields: &HeaderMap) -> bool {
        match self {
            Upgrade::Connection(_) => true,
            Upgrade::Stream(asked) => fields
                .get(header::SEC_WEBSOCKET_ACCEPT)
                .is_some_and(|accept| accept.as_bytes() == asked.accept.as_bytes()),
        }
    }

    /// A backend has switched to `protocol`: the head as the client gets it, and what its bytes come by.
    pub(crate) fn agreed(self, head: &mut response::Parts, protocol: HeaderValue) -> (Agreed, ResponseBody) {
        match self {
            Upgrade::Connection(client) => {
                head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                head.headers.insert(header::UPGRADE, protocol);
                (Agreed::Connection(client), ResponseBody::empty())
            }
            Upgrade::Stream(asked) => {
                head.status = StatusCode::OK;
                for name in [header::SEC_WEBSOCKET_ACCEPT, header::CONTENT_LENGTH] {
                    head.headers.remove(name);
                }
                let (open, send) = oneshot::channel();
                (Agreed::Stream(Box::new(Opening { receive: asked.receive, send })), ResponseBody::opens(open))
            }
        }
    }
}

/// RFC 6455 4.2.2.
fn accept_of(key: &str) -> String {
    BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_the_key_of_rfc_6455_is_its_own() {
        assert_eq!(accept_of("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}

//! The one room that turns a failure into an answer: status, `Retry-After` and `Proxy-Status` (RFC 9209).

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use relais_core::Fault;
use relais_core::config::StaticAnswer;

use crate::body::BodyFault;
use crate::response_body::ResponseBody;

/// Why the edge answers by itself. Sorted by whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The client's: the request makes no sense (400).
    BadRequest(&'static str),
    /// The client's: it sent its body too slowly (408).
    BodyStalled,
    /// The client's: body larger than the service allows (413).
    BodyTooLarge,
    /// The client's: request target longer than allowed (414).
    TargetTooLong,
    /// The client's: too many header fields or bytes (431).
    HeadTooLarge,
    /// The client's: this connection's certificate is not for that host (421).
    Misdirected,
    /// The client's: this service wants a client certificate, and it came in plain text (403).
    CertificateWanted,
    /// The client's: no service has this host or path (404).
    NoRoute,
    /// The client's: a method a reverse proxy does not serve (405).
    MethodNotServed,
    /// The client's: a protocol that a stream cannot be asked for (501).
    ProtocolNotServed,
    /// What answered does not speak the protocol that a stream was asked for (502).
    NotSwitched,
    /// Ours: the host's first certificate is not there yet, and the config will not have it served without (503).
    NoCertificate,
    /// Nobody is left to ask (503).
    NoBackend(&'static str),
    /// The last backend tried failed (502, or 504 for silence).
    Backend {
        /// How.
        fault: Fault,
        /// It may have received the request, which must not be repeated.
        possibly_received: bool,
    },
    /// The whole request took longer than the service allows (504).
    RequestTimeout,
}

impl Failure {
    /// Status, RFC 9209 error token and a word for people.
    fn parts(self) -> (StatusCode, &'static str, String) {
        use Failure::{
            Backend, BadRequest, BodyStalled, BodyTooLarge, CertificateWanted, HeadTooLarge, MethodNotServed,
            Misdirected, NoBackend, NoCertificate, NoRoute, NotSwitched, ProtocolNotServed, RequestTimeout,
            TargetTooLong,
        };
        match self {
            BadRequest(why) => (StatusCode::BAD_REQUEST, "http_request_error", why.to_owned()),
            BodyStalled => (StatusCode::REQUEST_TIMEOUT, "http_request_error", "request body stalled".to_owned()),
            BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "http_request_denied", "request body too large".to_owned()),
            TargetTooLong => (StatusCode::URI_TOO_LONG, "http_request_denied", "request target too long".to_owned()),
            HeadTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "http_request_denied",
                "request head too large".to_owned(),
            ),
            Misdirected => (
                StatusCode::MISDIRECTED_REQUEST,
                "http_request_denied",
                "this connection is not for this host".to_owned(),
            ),
            CertificateWanted => {
                (StatusCode::FORBIDDEN, "http_request_denied", "this host wants a client certificate".to_owned())
            }
            NoRoute => (StatusCode::NOT_FOUND, "destination_not_found", "no service for this host and path".to_owned()),
            MethodNotServed => (StatusCode::METHOD_NOT_ALLOWED, "http_request_denied", "method not served".to_owned()),
            ProtocolNotServed => {
                let why = "of the protocols for CONNECT only websocket is served";
                (StatusCode::NOT_IMPLEMENTED, "http_request_denied", why.to_owned())
            }
            NotSwitched => (StatusCode::BAD_GATEWAY, "http_upgrade_failed", "there is no websocket there".to_owned()),
            NoCertificate => {
                let why = "the certificate for this host is being ordered; come again in a moment";
                (StatusCode::SERVICE_UNAVAILABLE, "proxy_configuration_error", why.to_owned())
            }
            NoBackend(why) => (StatusCode::SERVICE_UNAVAILABLE, "destination_unavailable", why.to_owned()),
            Backend { fault, possibly_received } => {
                let (status, token) = backend_token(fault);
                let tail = if possibly_received {
                    "; the backend may have received the request, so it was not repeated"
                } else {
                    ""
                };
                (status, token, format!("{fault}{tail}"))
            }
            RequestTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, "http_response_timeout", "request took too long".to_owned())
            }
        }
    }
}

/// Silence is a timeout at the gateway; everything else is a bad one.
fn backend_token(fault: Fault) -> (StatusCode, &'static str) {
    match fault {
        Fault::Refused => (StatusCode::BAD_GATEWAY, "connection_refused"),
        Fault::Unreachable => (StatusCode::BAD_GATEWAY, "destination_ip_unroutable"),
        Fault::ConnectTimeout => (StatusCode::GATEWAY_TIMEOUT, "connection_timeout"),
        Fault::Unacknowledged => (StatusCode::GATEWAY_TIMEOUT, "connection_write_timeout"),
        Fault::Reset => (StatusCode::BAD_GATEWAY, "connection_terminated"),
        Fault::Unresolved => (StatusCode::BAD_GATEWAY, "dns_error"),
        Fault::Tls => (StatusCode::BAD_GATEWAY, "tls_protocol_error"),
        Fault::ResponseTimeout => (StatusCode::GATEWAY_TIMEOUT, "http_response_timeout"),
        Fault::Status(_) | Fault::Malformed | Fault::BodyMismatch | Fault::Unwell => {
            (StatusCode::BAD_GATEWAY, "http_protocol_error")
        }
        Fault::Unwatched => (StatusCode::GATEWAY_TIMEOUT, "proxy_internal_error"),
    }
}

impl From<BodyFault> for Failure {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::TooLarge => Failure::BodyTooLarge,
            BodyFault::Stalled => Failure::BodyStalled,
            BodyFault::Broken => Failure::BadRequest("request body broken"),
            BodyFault::Lost => Failure::Backend { fault: Fault::Reset, possibly_received: true },
        }
    }
}

/// Seconds after which a client may come back when nobody is left.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// The answer to a failed request.
pub(crate) fn failure(failure: Failure, edge: &str) -> Response<ResponseBody> {
    let (status, token, details) = failure.parts();
    let body =
        Bytes::from(format!("{} {}\n{details}\n", status.as_u16(), status.canonical_reason().unwrap_or_default()));
    let mut response = Response::new(ResponseBody::full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::from_str(&format!("{edge}; error={token}; details=\"{details}\"")) {
        headers.insert("proxy-status", value);
    }
    // Who gets this may ask again as it is: the service is out, and what was asked for may be repeated.
    let nobody_answered = matches!(failure, Failure::Backend { possibly_received: false, .. });
    if status == StatusCode::SERVICE_UNAVAILABLE || nobody_answered {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    if matches!(failure, Failure::MethodNotServed) {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    response
}

/// The answer a service makes itself (`respond`, `maintenance`).
pub(crate) fn static_answer(answer: &StaticAnswer) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(Bytes::copy_from_slice(&answer.body)));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&answer.content_type) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    for (name, value) in &answer.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<header::HeaderName>(), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    if answer.status == 503 && !headers.contains_key(header::RETRY_AFTER) {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

/// The answer to a challenge of a CA.
pub(crate) fn challenge(text: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(Bytes::copy_from_slice(text.as_bytes())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}

/// A redirect.
pub(crate) fn redirect(status: u16, location: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::PERMANENT_REDIRECT);
    if let Ok(value) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

//! What both ends of a WebSocket say before it is one (RFC 6455, RFC 8441).

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use h2::ext::Protocol;

use super::h2::{Call, Client};
use super::wire::Head;

/// Close frame 1012: the client comes back, and to another backend.
pub(crate) const TOLD: [u8; 4] = [0x88, 0x02, 0x03, 0xf4];

/// The answer to a key.
pub(crate) fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// A server's agreement to an upgrade.
pub(crate) fn yes(asked: &Head) -> String {
    let accept = accept(asked.get("sec-websocket-key").unwrap_or_default());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// An extended CONNECT for `protocol`.
pub(crate) fn connect(client: &Client, path: &str, protocol: &'static str) -> http::request::Builder {
    http::Request::connect(client.url(path)).extension(Protocol::from_static(protocol))
}

/// Asks for a WebSocket on a stream.
#[track_caller]
pub(crate) fn start(client: &Client, path: &str) -> Call {
    client.start(connect(client, path, "websocket").header("sec-websocket-version", "13"), false)
}

//! Bytes in, bytes out: every forwarding rule against the real executable and real sockets. A test writes what a
//! client sends, reads what the backend gets, writes what the backend answers and reads what the client gets.
//!
//! Health checks and passive detection are off unless a test turns them on, so that only what a test does happens.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod balancing;
mod bodies;
mod client_tls;
mod deadlines;
mod elsewhere;
mod errors;
mod forgotten;
mod framing;
mod hanging;
mod headers;
mod http2;
mod http2_backends;
mod interim;
mod limits;
mod phases;
mod resume;
mod reuse;
mod smuggling;
mod spares;
mod streaming;
mod unheard;
mod upgrade;
mod websocket_h2;
mod whole;

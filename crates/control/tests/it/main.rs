//! The control room against real sockets, real files and the real fleet: what goes in over the wire or the disk, what
//! is then believed, published, answered and counted.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod admin;
mod agents;
mod checks;
mod exec;
mod grpc;
mod metrics;
mod naming;
mod probing;
mod probing_tls;
mod reloading;
mod support;
mod telling;
mod watching;

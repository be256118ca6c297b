//! Floor 3: one request at a time: listener -> service -> connector -> forward.
//!
//! The page to read first is `service`: one request from its head to the last byte of its answer, top to bottom.
//! This crate touches client and backend sockets only. It reads one `Snapshot` per request, counts into core's
//! atomics and reports evidence as `core::Event`; it decides nothing that outlives a request and knows neither
//! files nor the store nor the control loop.

mod access;
mod ahead;
mod alive;
mod answer;
mod attempt;
mod backend_body;
mod body;
mod client_io;
mod conn_state;
mod connection;
mod connector;
mod cut;
mod cut_off;
mod date;
mod exchange;
mod fields;
mod forward;
mod forwarded;
mod from_backend;
mod h2_client;
mod h2_server;
mod handshake;
pub mod headers;
mod hedge;
mod hush;
mod identity;
mod interim;
mod kept;
mod line;
mod linger;
mod listener;
mod obtain;
mod outgoing;
mod pool;
mod race;
mod ready;
mod request_body;
mod response_body;
mod resume;
mod seldom;
mod sender;
mod service;
mod socket;
mod sticky;
mod stream_body;
mod stream_io;
mod streams;
mod timer;
mod tunnel;
mod upgrade;
mod waiting;
mod websocket;
mod worker;

pub use kept::Spools;
pub use worker::{Shared, WorkerOrder, run_worker};

//! How backends are checked: what a probe asks, how often, and the agent beside a backend.
//!
//! Plain values, as in the room above: nothing here parses.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// `health`: the rule of active checks. Unset timers are derived from the contract by core's solver.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheck {
    /// What is asked.
    pub kind: CheckKind,
    /// Other port than the backend's.
    pub port: Option<u16>,
    /// TLS for the check; `None`: as the backend.
    pub tls: Option<bool>,
    /// Time between two probes of one backend.
    pub interval: Option<Duration>,
    /// Deadline of one probe.
    pub timeout: Option<Duration>,
    /// Consecutive successes until `Up`.
    pub rise: Option<u32>,
    /// Consecutive failures until `Down`.
    pub fall: Option<u32>,
    /// Random part of the interval, 0.0 to 0.5. Default 0.1.
    pub jitter: f64,
}

/// What a probe asks. Each kind but `Off` begins with a connect.
#[derive(Debug, Clone, PartialEq)]
pub enum CheckKind {
    /// No active check: backends are `Up` until passive evidence says otherwise.
    Off,
    /// A connect.
    Tcp,
    /// Some bytes there, some bytes back.
    Exchange(Exchange),
    /// A TLS handshake.
    Tls,
    /// A request.
    Http(HttpCheck),
    /// `grpc.health.v1.Health/Check`.
    Grpc(GrpcCheck),
    /// The greeting of a MySQL server; nobody logs in.
    MySql,
    /// `PING` to a Redis server.
    Redis,
    /// A program of the operator's.
    Exec(ExecCheck),
}

/// `health = "/path"` or `{ path, method, host, status, body, headers }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// Path and query.
    pub path: String,
    /// Default `GET`.
    pub method: String,
    /// `Host`; `None`: the service's first exact host, else the backend's address.
    pub host: Option<String>,
    /// Good statuses, as inclusive ranges. Default 200 to 399.
    pub status: Vec<(u16, u16)>,
    /// Text the body (its first 64 KiB) must hold.
    pub body: Option<String>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
}

/// `health = { type = "tcp", send, expect }`. At most 4 KiB each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Sent first; empty: nothing, the backend speaks first.
    pub send: Vec<u8>,
    /// Must be in the first 64 KiB of the answer; empty: no answer is awaited.
    pub expect: Vec<u8>,
}

/// `health = { type = "grpc", service, host }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcCheck {
    /// The gRPC service asked about; empty: the server as a whole.
    pub service: String,
    /// `:authority`; `None`: the service's first exact host, else the backend's address.
    pub host: Option<String>,
}

/// `health = { type = "exec", command }`: exit code 0 is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecCheck {
    /// The program's file.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// `agent = { port, interval, send }`: a program at the backend's host that answers a connect with words such as `up 75%`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its port.
    pub port: u16,
    /// Between two questions. Default 2 s. Its words are forgotten when it is silent for three.
    pub interval: Duration,
    /// Sent after the connect; empty: nothing. At most 4 KiB.
    pub send: Vec<u8>,
}

impl fmt::Display for CheckKind {
    /// The question in short words, for `check`, `status` and logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckKind::Off => f.write_str("off"),
            CheckKind::Tcp => f.write_str("TCP connect"),
            CheckKind::Exchange(Exchange { send, expect }) => match (send.is_empty(), expect.is_empty()) {
                (true, _) => write!(f, "TCP greeting `{}`", expect.escape_ascii()),
                (false, true) => write!(f, "TCP send `{}`", send.escape_ascii()),
                (false, false) => write!(f, "TCP `{}`, then `{}`", send.escape_ascii(), expect.escape_ascii()),
            },
            CheckKind::Tls => f.write_str("TLS handshake"),
            CheckKind::Http(check) => write!(f, "{} {}", check.method, check.path),
            CheckKind::Grpc(check) if check.service.is_empty() => f.write_str("gRPC health"),
            CheckKind::Grpc(check) => write!(f, "gRPC health of {}", check.service),
            CheckKind::MySql => f.write_str("MySQL greeting"),
            CheckKind::Redis => f.write_str("Redis PING"),
            CheckKind::Exec(check) => write!(f, "exec {}", check.program.display()),
        }
    }
}

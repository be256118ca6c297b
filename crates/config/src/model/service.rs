//! A service as usable: its hosts, its backends, and how requests are treated.
//!
//! Plain values, as in the room above: nothing here parses.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Agent, HealthCheck, TlsSource, TlsVersion};

/// `[service.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// The name in the file.
    pub name: Arc<str>,
    /// Hosts: exact (`api.a.fr`), wildcard (`*.a.fr`, one label) or `*` (any host no other service claims). Lower case.
    pub hosts: Vec<String>,
    /// Path prefixes; longest wins. Default `["/"]`. `/a` matches `/a` and `/a/b`, not `/ab`.
    pub paths: Vec<String>,
    /// Other hosts of this service are redirected (308) to this one.
    pub canonical: Option<String>,
    /// Where the certificate of the hosts comes from.
    pub tls: TlsSource,
    /// What is asked of clients at the handshake. Services that share a host agree in it.
    pub client_tls: ClientTls,
    /// `Strict-Transport-Security` on answers over TLS.
    pub hsts: Option<Hsts>,
    /// What is done with a request.
    pub action: Action,
    /// Header edits towards the backend.
    pub request_headers: HeaderEdits,
    /// Header edits towards the client.
    pub response_headers: HeaderEdits,
    /// Largest request body in bytes; more is answered 413. `None`: unlimited.
    pub max_body: Option<u64>,
}

/// What is asked of a client at the TLS handshake.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientTls {
    /// Lowest version accepted.
    pub lowest: TlsVersion,
    /// Whether clients show a certificate of their own; `None`: they are not asked.
    pub certificate: Option<ClientCertificate>,
}

/// `client_certificate = { ca, required }`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// PEM file of the CAs that sign the clients' certificates.
    pub ca: PathBuf,
    /// A client without a certificate is refused at the handshake. Default true. One with a wrong certificate always is.
    pub required: bool,
}

/// `hsts = "365d"` or `hsts = { max_age, subdomains, preload }` (RFC 6797).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hsts {
    /// How long browsers remember to come by HTTPS only.
    pub max_age: Duration,
    /// For subdomains as well. Default false.
    pub subdomains: bool,
    /// May be put on the list that browsers ship with. Default false.
    pub preload: bool,
}

/// What a service does with a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Forward to a backend.
    Forward(Box<Forward>),
    /// Redirect.
    Redirect(Redirect),
    /// Answer by itself.
    Respond(StaticAnswer),
}

/// `redirect = { to, status, keep_path }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Absolute URL or path.
    pub to: String,
    /// 301, 302, 303, 307 or 308. Default 308.
    pub status: u16,
    /// Append path and query of the request. Default true.
    pub keep_path: bool,
}

/// `respond = { status, body, content_type, headers }`: a static answer, also the maintenance page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticAnswer {
    /// 200 to 599. Default 200; 503 for a maintenance page.
    pub status: u16,
    /// The body, already read when it came from `body_file`.
    pub body: Arc<[u8]>,
    /// Default `text/plain; charset=utf-8`, or by the ending of `body_file`.
    pub content_type: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
}

/// A service that forwards.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// Where to, in file order. Never empty.
    pub backends: Vec<BackendDecl>,
    /// The contract. 300 ms to 60 s.
    pub failover_within: Duration,
    /// How to choose.
    pub balance: Balance,
    /// Sticky cookie.
    pub sticky: Option<Sticky>,
    /// Active check; without `health` a TCP connect. `health = "off"` gives the kind `Off`.
    pub health: HealthCheck,
    /// A program beside each backend that says how much it can take; `None`: nobody is asked.
    pub agent: Option<Agent>,
    /// Passive detection: consecutive failed requests until `Down`. `None`: derived. `Some(0)`: off.
    pub passive_fall: Option<u32>,
    /// Passive detection against the rest of the pool.
    pub outlier: Outlier,
    /// Deadlines towards backends.
    pub timeout: ServiceTimeouts,
    /// Retries.
    pub retry: Retry,
    /// Requests in flight at one backend; more go elsewhere or wait. `None`: unlimited.
    pub max_inflight: Option<u32>,
    /// Requests that may wait for a free or recovering backend; more are answered 503 at once. Default 1000.
    pub max_queue: u32,
    /// How long a request waits for a free or recovering backend before 503. `None`: derived from the contract.
    pub queue_timeout: Option<Duration>,
    /// When every backend is down, try them anyway.
    pub fail_open: bool,
    /// Answer used when no backend is left (the last, static tier).
    pub maintenance: Option<StaticAnswer>,
    /// `Host` sent to the backend.
    pub host: HostHeader,
    /// Idle connections kept per worker and backend. Default 512.
    pub keep_idle: usize,
    /// How long an idle connection to a backend is kept. Default 60 s.
    pub keep_idle_for: Duration,
}

/// One backend as declared.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendDecl {
    /// Name of its site.
    pub site: Arc<str>,
    /// Where it is.
    pub address: Address,
    /// Share among its tier, 1 to 1000. Default 1. 0 is not allowed: that is `relais drain`.
    pub weight: u32,
    /// Priority group: its own `tier` or its site's.
    pub tier: u32,
    /// How to speak to it.
    pub upstream: Arc<Upstream>,
}

/// Where a backend is. Its `Display` form is the one of the file and the identity of the backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// IP address and port.
    Socket(SocketAddr),
    /// Host name and port, resolved while running.
    Name(String, u16),
    /// Unix socket (`unix:/path`).
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Socket(socket) => write!(f, "{socket}"),
            Address::Name(host, port) => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How to speak to a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// HTTP version.
    pub protocol: UpstreamProtocol,
    /// TLS towards the backend; `None`: plain.
    pub tls: Option<UpstreamTls>,
}

/// HTTP version towards a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    H1,
    /// HTTP/2: by ALPN over TLS (`h2`), with prior knowledge in plain text (`h2c`).
    H2,
    /// Over TLS whatever ALPN gives; HTTP/1.1 in plain text.
    Auto,
}

/// TLS towards a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// Name sent and verified; `None`: the host of the address, or the request's host when the address is an IP.
    pub sni: Option<String>,
    /// PEM file with the CA to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// `false`: accept any certificate (shown as a warning by `check`).
    pub verify: bool,
}

/// How a pool chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// Fewest in flight of two random choices (default).
    LeastInflight,
    /// Smooth weighted round robin.
    RoundRobin,
    /// Peak EWMA of latency, with a floor of exploration.
    LeastLatency,
    /// By weight, at random.
    Random,
    /// Bounded-load rendezvous hash of a part of the request.
    Hash(HashKey),
}

/// What is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    ClientAddress,
    /// Path and query.
    Uri,
    /// A request header, lower case.
    Header(String),
    /// A cookie.
    Cookie(String),
}

/// Sticky sessions by signed cookie.
#[derive(Clone, PartialEq, Eq)]
pub struct Sticky {
    /// Cookie name.
    pub cookie: String,
    /// `Max-Age`; `None`: a session cookie.
    pub ttl: Option<Duration>,
    /// Key of the signature; `None`: one made at first start and kept in the state directory.
    pub key: Option<Arc<[u8]>>,
}

impl std::fmt::Debug for Sticky {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sticky").field("cookie", &self.cookie).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// `timeout`: deadlines towards backends. `None`: derived from the contract where it says so, else unlimited.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceTimeouts {
    /// Connect, TLS handshake included. `None`: derived.
    pub connect: Option<Duration>,
    /// From the request sent to the response head. Default 60 s.
    pub response: Duration,
    /// Longest silence in a body or tunnel. Default 60 s for bodies; tunnels (WebSocket) and event streams use `tunnel`.
    pub idle: Duration,
    /// Longest silence in an upgraded connection or event stream. Default 1 h, or `idle` when that was set longer.
    pub tunnel: Duration,
    /// Whole request, from its head to the last byte of the answer. Default `None`.
    pub request: Option<Duration>,
}

/// `retry`.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Attempts in all, 1 to 16. Default 4.
    pub attempts: u32,
    /// Retries allowed as a share of requests, percent. Default 20.
    pub budget_percent: u32,
    /// Retries per second allowed whatever the share. Default 10.
    pub budget_floor: u32,
    /// Bytes of request body kept in memory for replay. Default 64 KiB.
    pub replay_bytes: u64,
    /// Bytes of request body kept on disk beyond that. Default 16 MiB.
    pub spool_bytes: u64,
    /// Send a second attempt when the first is slower than 95 % of requests. Default false.
    pub hedge: bool,
    /// Statuses of a backend's answer that are tried elsewhere when the request is replayable. Default 502, 503, 504.
    pub statuses: Vec<u16>,
}

/// `outlier`: backends that answer, but much worse than the rest of their pool, are left for a while (ejected).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlier {
    /// Ejected from this share of wrong answers on, percent, when the pool's median is far below it. 0: never.
    /// Default 20.
    pub errors_percent: u32,
    /// Ejected when most answers take longer than so many times the pool's median. 0: never, else 2 to 1000. Default 10.
    pub slow_factor: u32,
    /// Fewest answers of a backend that are judged, 3 to 10,000. Default 10.
    pub volume: u32,
    /// How long the first ejection lasts; every further one twice as long as the one before. Default 10 s.
    pub hold: Duration,
    /// The longest ejection, at least `hold`. Default 5 min. So long without one, and one is forgotten.
    pub max_hold: Duration,
    /// Nobody is ejected when more than this share of the enabled backends would be out, for whatever reason, percent; those
    /// that were left for one that does well are not counted, nor kept by it. The last one never is. Default 50.
    pub max_ejected_percent: u32,
}

impl Outlier {
    /// Whether anybody can be ejected at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        (self.errors_percent > 0 || self.slow_factor > 0) && self.max_ejected_percent > 0
    }
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            errors_percent: 20,
            slow_factor: 10,
            volume: 10,
            hold: Duration::from_secs(10),
            max_hold: Duration::from_secs(300),
            max_ejected_percent: 50,
        }
    }
}

/// `Host` sent to the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostHeader {
    /// As the client sent it (default).
    Keep,
    /// The backend's address.
    Backend,
    /// A fixed name.
    Set(String),
}

/// Header edits, applied in the order remove, set, add. Names are lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Removed.
    pub remove: Vec<String>,
    /// Replaced.
    pub set: Vec<(String, String)>,
    /// Added beside what is there.
    pub add: Vec<(String, String)>,
}

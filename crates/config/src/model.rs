//! The config as usable: what the operator declared, checked and with every default filled in.
//!
//! These types are what the other floors read. They are plain values: nothing here parses, and nothing here
//! touches files, sockets or the clock. `typed` (private) is the file as typed; `parse` turns one into the other.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

/// Everything one `proxy.toml` declares. Lists keep the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[edge]`: what holds for the whole process.
    pub edge: Edge,
    /// `[listener.NAME]`: the addresses relais accepts on. Never empty.
    pub listeners: Vec<Arc<Listener>>,
    /// `[sites]`: what fails together. Holds the implicit site `default` when a service lists backends without sites.
    pub sites: Vec<Arc<Site>>,
    /// `[service.NAME]`: the stable endpoints offered to clients.
    pub services: Vec<Arc<Service>>,
    /// `[certificate.NAME]`: certificates from files, chosen by SNI.
    pub certificates: Vec<CertificateFiles>,
    /// `[admin]`.
    pub admin: AdminSocket,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `[log]`.
    pub log: Log,
}

/// `[edge]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Edge {
    /// Contact of the certificate account.
    pub email: Option<String>,
    /// Where state is kept; `None`: chosen by the program (`$STATE_DIRECTORY`, `/var/lib/relais`, or the user's state folder).
    pub state_dir: Option<PathBuf>,
    /// Peers whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The contract where a service states none. 300 ms to 60 s; default 1 s.
    pub failover_within: Duration,
    /// How long a stop, a removed listener or a removed backend waits for what is in flight. Default 30 s.
    pub drain: Duration,
    /// The name relais gives itself in `Via`, `Forwarded` and `Proxy-Status`. Default `relais`.
    pub name: String,
    /// The header that carries the request id. Default `X-Request-Id`.
    pub request_id_header: String,
    /// Worker threads; `None`: one per core.
    pub workers: Option<usize>,
    /// Where certificates come from for hosts that no `[certificate]` and no service names.
    pub tls: TlsSource,
    /// Lowest TLS version accepted.
    pub min_tls: TlsVersion,
    /// Deadlines towards clients.
    pub client: ClientTimeouts,
    /// Limits on what clients may send.
    pub limit: ClientLimits,
}

/// Where the certificate of a host comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsSource {
    /// The built-in local CA, for development names.
    Internal,
    /// Only `[certificate.NAME]` files; a host without one is refused at the handshake.
    Files,
}

/// Lowest TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// `[edge] timeout`: deadlines towards clients.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientTimeouts {
    /// From accept to the end of the TLS handshake. Default 10 s.
    pub handshake: Duration,
    /// From the first byte of a request (or from the end of the handshake) to the end of its head. Default 10 s.
    pub headers: Duration,
    /// Between two requests of a kept-alive connection. Default 75 s.
    pub keep_alive: Duration,
    /// Longest silence while a client sends its body or takes the answer. Default 60 s.
    pub body: Duration,
}

/// `[edge] limit`: limits on what clients may send.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientLimits {
    /// Bytes of a request head. Default 64 KiB. More is answered 431.
    pub header_bytes: usize,
    /// Header fields in a request. Default 100. More is answered 431.
    pub header_count: usize,
    /// Bytes of a request target. Default 16 KiB. More is answered 414.
    pub uri_bytes: usize,
    /// Open client connections, all listeners together; more wait in the kernel's queue. `None`: three quarters of the file descriptor limit.
    pub connections: Option<usize>,
    /// Concurrent HTTP/2 streams on a connection. Default 100.
    pub h2_streams: u32,
}

/// `[listener.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The name in the file.
    pub name: String,
    /// Addresses to bind. `":443"` in the file means `0.0.0.0:443` and `[::]:443` (IPv6 only).
    pub addresses: Vec<SocketAddr>,
    /// TLS or plain.
    pub protocol: ListenerProtocol,
    /// Plain listener: the port in the `https://` address that requests are redirected to; `None`: requests are served in plain HTTP.
    pub redirect_to: Option<u16>,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// Plain HTTP/1.1 (and HTTP/2 with prior knowledge).
    Http,
    /// TLS; HTTP/1.1 or HTTP/2 by ALPN.
    Https,
}

/// One entry of `[sites]`: a place behind the hub; what fails together.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// The name in the file.
    pub name: Arc<str>,
    /// Priority group: lower first. Default 1.
    pub tier: u32,
    /// Address range of the site; a backend with an address in another site's range is an error.
    pub network: Option<IpNet>,
    /// Free words of the operator, shown in `status` and metrics.
    pub labels: Vec<(String, String)>,
}

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
    /// What is done with a request.
    pub action: Action,
    /// Header edits towards the backend.
    pub request_headers: HeaderEdits,
    /// Header edits towards the client.
    pub response_headers: HeaderEdits,
    /// Largest request body in bytes; more is answered 413. `None`: unlimited.
    pub max_body: Option<u64>,
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
    /// Active check; `None`: a TCP connect check derived from the contract is used (`health = "off"` gives `Some` with kind `Off`).
    pub health: HealthCheck,
    /// Passive detection: consecutive failed requests until `Down`. `None`: derived. `Some(0)`: off.
    pub passive_fall: Option<u32>,
    /// Deadlines towards backends.
    pub timeout: ServiceTimeouts,
    /// Retries.
    pub retry: Retry,
    /// Requests in flight at one backend; more go elsewhere or wait. `None`: unlimited.
    pub max_inflight: Option<u32>,
    /// How long a request waits for a free or recovering backend before 503. `None`: derived from the contract.
    pub queue_timeout: Option<Duration>,
    /// When every backend is down, try them anyway.
    pub fail_open: bool,
    /// Answer used when no backend is left (the last, static tier).
    pub maintenance: Option<StaticAnswer>,
    /// `Host` sent to the backend.
    pub host: HostHeader,
    /// Idle connections kept per worker and backend. Default 64.
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

/// What a probe asks.
#[derive(Debug, Clone, PartialEq)]
pub enum CheckKind {
    /// No active check: backends are `Up` until passive evidence says otherwise.
    Off,
    /// A connect.
    Tcp,
    /// A request.
    Http(HttpCheck),
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
    /// Statuses of a backend's answer that are tried elsewhere when the request is replayable. Default 502, 503, 504.
    pub statuses: Vec<u16>,
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

/// `[certificate.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The name in the file.
    pub name: String,
    /// PEM chain, leaf first.
    pub cert: PathBuf,
    /// PEM key.
    pub key: PathBuf,
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSocket {
    /// Path of the unix socket; `None`: chosen by the program (`/run/relais/admin.sock` or `admin.sock` in the state directory).
    pub socket: Option<PathBuf>,
}

/// `[metrics]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// Where `/metrics` is served; `None`: only on the admin socket. Default 127.0.0.1:9180.
    pub address: Option<SocketAddr>,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,relais_proxy=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
    /// One line per request. Default true.
    pub access: bool,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Human-readable on a terminal, JSON otherwise (default).
    Auto,
    /// Human-readable.
    Human,
    /// JSON, a line each.
    Json,
}

//! The config as usable: what the operator declared, checked and with every default filled in.
//!
//! These types are what the other floors read. They are plain values: nothing here parses, and nothing here
//! touches files, sockets or the clock. `section` fills them from the file.

mod acme;
mod health;
mod service;

pub use acme::*;
pub use health::*;
pub use service::*;

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
    /// `[acme]` and `[authority.NAME]`: certificates from CAs.
    pub acme: Acme,
    /// `[admin]`.
    pub admin: AdminSocket,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `[log]`.
    pub log: Log,
}

impl Config {
    /// Whether all but the services is declared alike. Those are many: whoever takes a config over compares them one by one.
    #[must_use]
    pub fn is_alike_beside_services(&self, other: &Config) -> bool {
        let Config { edge, listeners, sites, services: _, certificates, acme, admin, metrics, log } = self;
        *edge == other.edge
            && *listeners == other.listeners
            && *sites == other.sites
            && *certificates == other.certificates
            && *acme == other.acme
            && *admin == other.admin
            && *metrics == other.metrics
            && *log == other.log
    }
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
    /// Lowest TLS version accepted where a service names none.
    pub min_tls: TlsVersion,
    /// Clients that send no name, or one that no service has, are refused at the handshake. Default false.
    pub strict_sni: bool,
    /// Name servers asked for the names of backends; empty: those of the system.
    pub nameservers: Vec<SocketAddr>,
    /// Deadlines towards clients.
    pub client: ClientTimeouts,
    /// Limits on what clients may send.
    pub limit: ClientLimits,
}

impl Edge {
    /// What is asked of clients that ask for no host of a service.
    #[must_use]
    pub fn client_tls(&self) -> ClientTls {
        ClientTls { lowest: self.min_tls, certificate: None }
    }
}

/// Where the certificate of a host comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsSource {
    /// From a CA where one may certify the name, else from the local CA (default). See `Config::certificate_source`.
    Auto,
    /// From a CA, by ACME.
    Acme,
    /// The built-in local CA, for development names.
    Internal,
    /// Only `[certificate.NAME]` files; a host without one is refused at the handshake.
    Files,
}

/// Lowest TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Open client connections, all listeners together; more wait in the kernel's queue. `None`: half of the file descriptor limit, less what the process needs for itself.
    pub connections: Option<usize>,
    /// Concurrent HTTP/2 streams on a connection. Default 100.
    pub h2_streams: u32,
    /// Bytes of request bodies kept on disk for another attempt, all requests together. Default 256 MiB.
    pub spool_bytes: u64,
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
    /// 0: the port that the first HTTPS listener was given by the system.
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

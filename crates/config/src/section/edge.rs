//! `[edge]`, `[admin]`, `[metrics]` and `[log]`: what holds for the whole process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::context::Span;
use crate::fault::{Fault, suggest};
use crate::node::Node;
use crate::reader::Reader;
use crate::section::contract;
use crate::shape;
use crate::value::{address, http};
use crate::{AdminSocket, ClientLimits, ClientTimeouts, Edge, Log, LogFormat, Metrics, TlsSource, TlsVersion};

/// The words for where certificates come from.
pub(crate) const TLS_SOURCES: &[(&str, TlsSource)] = &[
    ("auto", TlsSource::Auto),
    ("acme", TlsSource::Acme),
    ("internal", TlsSource::Internal),
    ("files", TlsSource::Files),
];

/// `[edge]` and what its listeners need.
pub(crate) struct EdgeRead {
    pub(crate) edge: Edge,
    /// Whether plain listeners redirect, unless they say otherwise.
    pub(crate) redirect: bool,
    /// Where `tls` is set.
    pub(crate) tls_span: Option<Span>,
}

/// Reads `[edge]`.
pub(crate) fn read(root: &Reader<'_>) -> EdgeRead {
    let table = root.section("edge", &shape::EDGE);
    let edge = Edge {
        email: table.parsed("email", email),
        state_dir: table.path("state_dir"),
        trusted_proxies: trusted_proxies(&table),
        nameservers: nameservers(&table),
        failover_within: table
            .get("failover_within")
            .and_then(|node| contract(&node))
            .unwrap_or(Duration::from_secs(1)),
        drain: table.duration("drain").unwrap_or(Duration::from_secs(30)),
        name: table.parsed("name", http::token).unwrap_or_else(|| "relais".to_owned()),
        request_id_header: request_id_header(&table),
        workers: table.integer("workers", 1..=1024),
        tls: table.choice("tls", TLS_SOURCES).unwrap_or(TlsSource::Auto),
        min_tls: min_tls(&table).unwrap_or(TlsVersion::Tls12),
        strict_sni: table.boolean("strict_sni").unwrap_or(false),
        client: timeouts(&table.section("timeout", &shape::EDGE_TIMEOUT)),
        limit: limits(&table.section("limit", &shape::EDGE_LIMIT)),
    };
    let redirect = table.boolean("redirect").unwrap_or(true);
    EdgeRead { edge, redirect, tls_span: table.get("tls").map(|node| node.span()) }
}

/// Reads `state_dir` of `[edge]` alone.
pub(crate) fn state_dir(root: &Reader<'_>) -> Option<PathBuf> {
    root.section("edge", &shape::EDGE).path("state_dir")
}

fn email(text: &str) -> Result<String, Fault> {
    let good = text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    if good && !text.contains(char::is_whitespace) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(format!("`{text}` is not an e-mail address")).label("expected `user@host`"))
}

fn trusted_proxies(table: &Reader<'_>) -> Vec<ipnet::IpNet> {
    let entries = table.get("trusted_proxies").and_then(|node| node.list()).unwrap_or_default();
    entries.iter().filter_map(|entry| entry.parsed(address::network)).collect()
}

fn nameservers(table: &Reader<'_>) -> Vec<SocketAddr> {
    let entries = table.get("nameservers").map(|node| node.one_or_many()).unwrap_or_default();
    entries.iter().filter_map(|entry| entry.parsed(address::nameserver)).collect()
}

fn request_id_header(table: &Reader<'_>) -> String {
    let keep_case = |text: &str| http::editable_header(text).map(|_| text.to_owned());
    table.parsed("request_id_header", keep_case).unwrap_or_else(|| "X-Request-Id".to_owned())
}

/// `min_tls` of the edge or of a service.
pub(crate) fn min_tls(table: &Reader<'_>) -> Option<TlsVersion> {
    let words = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
    table.choice("min_tls", &words)
}

fn timeouts(table: &Reader<'_>) -> ClientTimeouts {
    let seconds = |key, default| table.some_time(key).unwrap_or(Duration::from_secs(default));
    ClientTimeouts {
        handshake: seconds("handshake", 10),
        headers: seconds("headers", 10),
        keep_alive: seconds("keep_alive", 75),
        body: seconds("body", 60),
    }
}

fn limits(table: &Reader<'_>) -> ClientLimits {
    // Below these a plain browser's request would not fit.
    let bytes = |key, default: usize| match table.get(key).and_then(|node| Some((node.size()?, node))) {
        Some((size, node)) if !(1024..=16 << 20).contains(&size) => {
            node.error(Fault::new(format!("`{key}` must be 1KiB to 16MiB")).label("1KiB to 16MiB"));
            default
        }
        Some((size, _)) => usize::try_from(size).unwrap_or(default),
        None => default,
    };
    ClientLimits {
        header_bytes: bytes("header_bytes", 64 << 10),
        header_count: table.integer("header_count", 8..=10_000).unwrap_or(100),
        uri_bytes: bytes("uri_bytes", 16 << 10),
        connections: table.integer("connections", 1..=10_000_000),
        h2_streams: table.integer("h2_streams", 1..=10_000).unwrap_or(100),
        spool_bytes: table.size("spool_bytes").unwrap_or(256 << 20),
    }
}

/// Reads `[admin]`.
pub(crate) fn admin(root: &Reader<'_>) -> AdminSocket {
    AdminSocket { socket: root.section("admin", &shape::ADMIN).path("socket") }
}

/// `[metrics]`.
pub(crate) struct MetricsRead {
    pub(crate) metrics: Metrics,
    /// Where its address is set.
    pub(crate) span: Option<Span>,
}

/// Reads `[metrics]`.
pub(crate) fn metrics(root: &Reader<'_>) -> MetricsRead {
    let node = root.section("metrics", &shape::METRICS).get("address");
    let span = node.as_ref().map(Node::span);
    let address = match node {
        None => Some(SocketAddr::from(([127, 0, 0, 1], 9180))),
        Some(node) if node.as_boolean() == Some(false) => None,
        Some(node) if !node.is_string() => {
            node.wrong_type("an address or `false`", Some("\"127.0.0.1:9180\"".to_owned()));
            None
        }
        Some(node) => node.parsed(address::socket),
    };
    MetricsRead { metrics: Metrics { address }, span }
}

/// Reads `[log]`.
pub(crate) fn log(root: &Reader<'_>) -> Log {
    let table = root.section("log", &shape::LOG);
    let formats = [("auto", LogFormat::Auto), ("human", LogFormat::Human), ("json", LogFormat::Json)];
    Log {
        level: table.parsed("level", level).unwrap_or_else(|| "info".to_owned()),
        format: table.choice("format", &formats).unwrap_or(LogFormat::Auto),
        access: table.boolean("access").unwrap_or(true),
    }
}

/// Reads a level, or levels by part of the program: `info,relais_proxy=debug`.
fn level(text: &str) -> Result<String, Fault> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    for directive in text.split(',') {
        let directive = directive.trim();
        let (target, level) = directive.rsplit_once('=').unwrap_or(("relais", directive));
        let known = LEVELS.contains(&level.to_ascii_lowercase().as_str());
        let named =
            !target.is_empty() && target.chars().all(|letter| letter.is_ascii_alphanumeric() || "_:".contains(letter));
        if !known || !named {
            let fault = Fault::new(format!("`{directive}` is not a log level")).label("expected a level");
            let words = suggest(level, &LEVELS, "levels");
            return Err(fault.help(format!("{words}; for one part of the program: `info,relais_proxy=debug`")));
        }
    }
    Ok(text.to_owned())
}

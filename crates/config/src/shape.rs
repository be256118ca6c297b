//! The words of the language: which tables there are and which keys each may hold.
//!
//! The one list of keys. `Reader` refuses what is not in it, tests check that every key here is read and that
//! `proxy.toml` shows each. Tables whose names the operator chooses (sites, labels, headers) are not listed.

/// A kind of table.
#[derive(Debug)]
pub(crate) struct Shape {
    /// Where it stands, with `NAME` for what the operator chooses.
    pub(crate) place: &'static str,
    /// The keys it may hold.
    pub(crate) keys: &'static [&'static str],
}

const fn shape(place: &'static str, keys: &'static [&'static str]) -> Shape {
    Shape { place, keys }
}

pub(crate) static ROOT: Shape =
    shape("", &["edge", "listener", "sites", "certificate", "acme", "authority", "service", "admin", "metrics", "log"]);

pub(crate) static EDGE: Shape = shape(
    "edge",
    &[
        "email",
        "state_dir",
        "trusted_proxies",
        "nameservers",
        "failover_within",
        "drain",
        "name",
        "request_id_header",
        "workers",
        "tls",
        "min_tls",
        "strict_sni",
        "redirect",
        "timeout",
        "limit",
    ],
);
pub(crate) static EDGE_TIMEOUT: Shape = shape("edge.timeout", &["handshake", "headers", "keep_alive", "body"]);
pub(crate) static EDGE_LIMIT: Shape =
    shape("edge.limit", &["header_bytes", "header_count", "uri_bytes", "connections", "h2_streams", "spool_bytes"]);

pub(crate) static LISTENER: Shape = shape("listener.NAME", &["address", "protocol", "redirect"]);
pub(crate) static SITE: Shape = shape("sites.NAME", &["tier", "network", "labels"]);
pub(crate) static CERTIFICATE: Shape = shape("certificate.NAME", &["cert", "key"]);

pub(crate) static ACME: Shape =
    shape("acme", &["challenges", "key", "reuse_key", "profile", "waiting", "orders", "dns", "on_demand"]);
pub(crate) static ACME_DNS: Shape = shape(
    "acme.dns.NAME",
    &[
        "provider",
        "zones",
        "delegation",
        "propagation_timeout",
        "resolvers",
        "command",
        "url",
        "headers",
        "server",
        "zone",
        "key_name",
        "algorithm",
        "secret",
        "secret_file",
        "endpoint",
        "application_key",
        "application_secret",
        "application_secret_file",
        "consumer_key",
        "consumer_key_file",
        "token",
        "token_file",
    ],
);
pub(crate) static ON_DEMAND: Shape = shape("acme.on_demand", &["ask", "root", "per_hour", "burst"]);
pub(crate) static AUTHORITY: Shape = shape(
    "authority.NAME",
    &["directory", "staging", "root", "eab_key_id", "eab_hmac", "eab_hmac_file", "eab_from", "profile", "limits"],
);
pub(crate) static AUTHORITY_LIMITS: Shape =
    shape("authority.NAME.limits", &["orders", "per_domain", "per_set", "failures"]);

pub(crate) static SERVICE: Shape = shape(
    "service.NAME",
    &[
        "hosts",
        "paths",
        "canonical",
        "tls",
        "min_tls",
        "client_certificate",
        "hsts",
        "backends",
        "redirect",
        "respond",
        "health",
        "agent",
        "passive_fall",
        "outlier",
        "failover_within",
        "balance",
        "sticky",
        "timeout",
        "retry",
        "max_inflight",
        "max_queue",
        "queue_timeout",
        "fail_open",
        "maintenance",
        "max_body",
        "request_headers",
        "response_headers",
        "upstream",
    ],
);
pub(crate) static CLIENT_CERTIFICATE: Shape = shape("service.NAME.client_certificate", &["ca", "required"]);
pub(crate) static HSTS: Shape = shape("service.NAME.hsts", &["max_age", "subdomains", "preload"]);
pub(crate) static BACKEND: Shape = shape("service.NAME.backends.SITE", &["addr", "weight", "tier", "tls", "protocol"]);
pub(crate) static UPSTREAM: Shape =
    shape("service.NAME.upstream", &["protocol", "tls", "host", "keep_idle", "keep_idle_for"]);
pub(crate) static UPSTREAM_TLS: Shape = shape("service.NAME.upstream.tls", &["sni", "ca", "verify"]);
pub(crate) static HEALTH: Shape = shape(
    "service.NAME.health",
    &[
        "type", "path", "method", "host", "status", "body", "headers", "service", "send", "expect", "command", "port",
        "tls", "interval", "timeout", "rise", "fall", "jitter",
    ],
);
pub(crate) static AGENT: Shape = shape("service.NAME.agent", &["port", "interval", "send"]);
pub(crate) static BALANCE: Shape = shape("service.NAME.balance", &["hash"]);
pub(crate) static STICKY: Shape = shape("service.NAME.sticky", &["cookie", "ttl", "key", "key_file"]);
pub(crate) static TIMEOUT: Shape = shape("service.NAME.timeout", &["connect", "response", "idle", "tunnel", "request"]);
pub(crate) static RETRY: Shape = shape(
    "service.NAME.retry",
    &["attempts", "budget_percent", "budget_floor", "replay_bytes", "spool_bytes", "hedge", "statuses"],
);
pub(crate) static OUTLIER: Shape = shape(
    "service.NAME.outlier",
    &["errors_percent", "slow_factor", "volume", "hold", "max_hold", "max_ejected_percent"],
);
pub(crate) static REQUEST_HEADERS: Shape = shape("service.NAME.request_headers", &["set", "set_file", "add", "remove"]);
pub(crate) static RESPONSE_HEADERS: Shape =
    shape("service.NAME.response_headers", &["set", "set_file", "add", "remove"]);
pub(crate) static REDIRECT: Shape = shape("service.NAME.redirect", &["to", "status", "keep_path"]);
pub(crate) static RESPOND: Shape =
    shape("service.NAME.respond", &["status", "body", "body_file", "content_type", "headers"]);
pub(crate) static MAINTENANCE: Shape =
    shape("service.NAME.maintenance", &["status", "body", "body_file", "content_type", "headers"]);

pub(crate) static ADMIN: Shape = shape("admin", &["socket"]);
pub(crate) static METRICS: Shape = shape("metrics", &["address"]);
pub(crate) static LOG: Shape = shape("log", &["level", "format", "access"]);

/// Every kind of table.
pub(crate) static ALL: &[&Shape] = &[
    &ROOT,
    &EDGE,
    &EDGE_TIMEOUT,
    &EDGE_LIMIT,
    &LISTENER,
    &SITE,
    &CERTIFICATE,
    &ACME,
    &ACME_DNS,
    &ON_DEMAND,
    &AUTHORITY,
    &AUTHORITY_LIMITS,
    &SERVICE,
    &CLIENT_CERTIFICATE,
    &HSTS,
    &BACKEND,
    &UPSTREAM,
    &UPSTREAM_TLS,
    &HEALTH,
    &AGENT,
    &BALANCE,
    &STICKY,
    &TIMEOUT,
    &RETRY,
    &OUTLIER,
    &REQUEST_HEADERS,
    &RESPONSE_HEADERS,
    &REDIRECT,
    &RESPOND,
    &MAINTENANCE,
    &ADMIN,
    &METRICS,
    &LOG,
];

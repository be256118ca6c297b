//! `health` and `agent` of a service: what kind of check, how often, and what an agent is asked.

use std::time::Duration;

use crate::fault::{Fault, nearest};
use crate::node::Node;
use crate::reader::Reader;
use crate::section::{question, timers};
use crate::shape;
use crate::value::{bytes, http};
use crate::{Address, Agent, BackendDecl, CheckKind, HealthCheck};

/// The random part of the interval when none is set.
const JITTER: f64 = 0.1;

/// Between two questions to an agent when none is set.
const AGENT_INTERVAL: Duration = Duration::from_secs(2);

/// Keys that only a check over HTTP has.
const HTTP_KEYS: [&str; 6] = ["path", "method", "host", "status", "body", "headers"];

/// Keys of the other questions.
const OTHER_KEYS: [&str; 4] = ["service", "send", "expect", "command"];

/// Keys that a switched off check does not have.
const TIMER_KEYS: [&str; 7] = ["port", "tls", "interval", "timeout", "rise", "fall", "jitter"];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Http,
    Tcp,
    Tls,
    Grpc,
    MySql,
    Redis,
    Exec,
    Off,
}

/// The words for `type`.
const KINDS: [(&str, Kind); 8] = [
    ("http", Kind::Http),
    ("tcp", Kind::Tcp),
    ("tls", Kind::Tls),
    ("grpc", Kind::Grpc),
    ("mysql", Kind::MySql),
    ("redis", Kind::Redis),
    ("exec", Kind::Exec),
    ("off", Kind::Off),
];

impl Kind {
    fn word(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }

    /// Whether a key does something in a check of this kind.
    fn uses(self, key: &str) -> bool {
        let own: &[&str] = match self {
            Kind::Http => &HTTP_KEYS,
            Kind::Tcp => &["send", "expect"],
            Kind::Grpc => &["service", "host"],
            Kind::Exec => &["command"],
            Kind::Tls | Kind::MySql | Kind::Redis | Kind::Off => &[],
        };
        // TLS with MySQL begins after its greeting; a program does its own.
        let plain = matches!(self, Kind::MySql | Kind::Exec) && key == "tls";
        own.contains(&key) || (self != Kind::Off && TIMER_KEYS.contains(&key) && !plain)
    }
}

/// Reads `health`; without it backends are checked by a TCP connect.
pub(crate) fn read(service: &Reader<'_>, contract: Duration) -> HealthCheck {
    match service.get("health") {
        None => plain(CheckKind::Tcp),
        Some(node) if node.is_string() => plain(short(&node).unwrap_or(CheckKind::Tcp)),
        Some(node) if node.is_table() => {
            node.table(&shape::HEALTH, "").map_or_else(|| plain(CheckKind::Tcp), |table| full(&table, contract))
        }
        Some(node) => {
            node.wrong_type("a path, a kind of check or a table", Some("\"/health\"".to_owned()));
            plain(CheckKind::Tcp)
        }
    }
}

fn plain(kind: CheckKind) -> HealthCheck {
    HealthCheck { kind, port: None, tls: None, interval: None, timeout: None, rise: None, fall: None, jitter: JITTER }
}

/// A kind that needs no more words, or a path.
fn short(node: &Node<'_>) -> Option<CheckKind> {
    const WORDS: [&str; 6] = ["tcp", "tls", "grpc", "mysql", "redis", "off"];
    node.parsed(|text| match text {
        "tcp" => Ok(CheckKind::Tcp),
        "tls" => Ok(CheckKind::Tls),
        "grpc" => Ok(CheckKind::Grpc(crate::GrpcCheck { service: String::new(), host: None })),
        "mysql" => Ok(CheckKind::MySql),
        "redis" => Ok(CheckKind::Redis),
        "off" => Ok(CheckKind::Off),
        path if path.starts_with('/') => Ok(CheckKind::Http(question::request(http::path_and_query(path)?))),
        "exec" => {
            let fault = Fault::new("`health = \"exec\"` does not say what to run").label("needs a command");
            Err(fault.help("write `health = { type = \"exec\", command = [\"/usr/local/bin/check\"] }`"))
        }
        other => {
            let fault = Fault::new(format!("`health` cannot be `{other}`")).label("not a path");
            Err(match nearest(other, &WORDS) {
                Some(near) => fault.help(format!("did you mean `{near}`? For a path, write `\"/{other}\"`")),
                None => fault.help(format!("write `\"/{other}\"` for a path; other words: {}", WORDS.join(", "))),
            })
        }
    })
}

fn full(table: &Reader<'_>, contract: Duration) -> HealthCheck {
    let kind = kind(table);
    let check = HealthCheck {
        kind: match kind {
            Kind::Http => CheckKind::Http(question::http(table)),
            Kind::Tcp => question::exchange(table),
            Kind::Tls => CheckKind::Tls,
            Kind::Grpc => CheckKind::Grpc(question::grpc(table)),
            Kind::MySql => CheckKind::MySql,
            Kind::Redis => CheckKind::Redis,
            Kind::Exec => question::exec(table).map_or(CheckKind::Tcp, CheckKind::Exec),
            Kind::Off => CheckKind::Off,
        },
        port: table.integer("port", 1..=u16::MAX),
        tls: table.boolean("tls"),
        interval: table.some_time("interval"),
        timeout: table.some_time("timeout"),
        rise: table.integer("rise", 1..=100),
        fall: table.integer("fall", 1..=100),
        jitter: table.get("jitter").and_then(|node| node.number(0.0..=0.5)).unwrap_or(JITTER),
    };
    if let (Kind::Tls, Some(false), Some(node)) = (kind, check.tls, table.get("tls")) {
        let fault = Fault::new("a check of type `tls` is a TLS handshake").label("contradicts `type`");
        node.error(fault.help("take `tls` out, or write `type = \"tcp\"`"));
    }
    refuse_idle_keys(table, kind);
    timers::judge(table, &check, contract);
    check
}

/// The type as set, else by the keys that are there.
fn kind(table: &Reader<'_>) -> Kind {
    let has = |keys: &[&'static str]| keys.iter().any(|key| table.has(key));
    let by_keys = if has(&["command"]) {
        Kind::Exec
    } else if has(&["service"]) {
        Kind::Grpc
    } else if has(&["send", "expect"]) || !has(&HTTP_KEYS) {
        Kind::Tcp
    } else {
        Kind::Http
    };
    table.choice("type", &KINDS).unwrap_or(by_keys)
}

/// Keys that the chosen type does not use are mistakes: the operator thinks they do something.
fn refuse_idle_keys(table: &Reader<'_>, kind: Kind) {
    let word = kind.word();
    let keys = HTTP_KEYS.into_iter().chain(OTHER_KEYS).chain(TIMER_KEYS);
    for node in keys.filter(|key| !kind.uses(key)).filter_map(|key| table.get(key)) {
        let fault =
            Fault::new(format!("`{}` does nothing: this check is of type `{word}`", node.key)).label("not used");
        node.cx.error(node.key_span.clone(), fault.help(format!("take it out, or change `type = \"{word}\"`")));
    }
}

/// Reads `agent`: a port, or a table.
pub(crate) fn agent(service: &Reader<'_>, backends: &[BackendDecl]) -> Option<Agent> {
    let node = service.get("agent")?;
    if let Some(socket) = backends.iter().find(|backend| matches!(backend.address, Address::Unix(_))) {
        let fault = Fault::new(format!("`{}` has no port for an agent", socket.address)).label("needs an address");
        node.error(fault.help("take `agent` out, or list the backend as `ip:port`"));
    }
    if node.is_integer() {
        let port = node.integer(1..=u16::MAX)?;
        return Some(Agent { port, interval: AGENT_INTERVAL, send: Vec::new() });
    }
    if !node.is_table() {
        node.wrong_type("a port or a table", Some("9999".to_owned()));
        return None;
    }
    let table = node.table(&shape::AGENT, "")?;
    if !table.has("port") {
        table.missing("port", "9999");
    }
    Some(Agent {
        interval: table.some_time("interval").unwrap_or(AGENT_INTERVAL),
        send: table.parsed("send", bytes::escaped).unwrap_or_default(),
        port: table.integer("port", 1..=u16::MAX)?,
    })
}

//! `health` of a service: what is asked of backends, how often, and what counts as good.

use std::time::Duration;

use crate::context::Span;
use crate::fault::{Fault, nearest};
use crate::node::Node;
use crate::reader::Reader;
use crate::section::headers;
use crate::shape;
use crate::value::{address, http, measure};
use crate::{CheckKind, HealthCheck, HttpCheck};

/// The random part of the interval when none is set.
const JITTER: f64 = 0.1;

/// Keys that only a check over HTTP has.
const HTTP_KEYS: [&str; 6] = ["path", "method", "host", "status", "body", "headers"];

/// Keys that a switched off check does not have.
const TIMER_KEYS: [&str; 7] = ["port", "tls", "interval", "timeout", "rise", "fall", "jitter"];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Http,
    Tcp,
    Off,
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
            node.wrong_type("a path, `\"tcp\"`, `\"off\"` or a table", Some("\"/health\"".to_owned()));
            plain(CheckKind::Tcp)
        }
    }
}

fn plain(kind: CheckKind) -> HealthCheck {
    HealthCheck { kind, port: None, tls: None, interval: None, timeout: None, rise: None, fall: None, jitter: JITTER }
}

fn short(node: &Node<'_>) -> Option<CheckKind> {
    node.parsed(|text| match text {
        "tcp" => Ok(CheckKind::Tcp),
        "off" => Ok(CheckKind::Off),
        path if path.starts_with('/') => Ok(CheckKind::Http(request(http::path_and_query(path)?))),
        other => {
            let fault = Fault::new(format!("`health` cannot be `{other}`")).label("not a path");
            Err(match nearest(other, &["tcp", "off"]) {
                Some(near) => fault.help(format!("did you mean `{near}`? For a path, write `\"/{other}\"`")),
                None => fault.help(format!("write `\"/{other}\"` for a path; other words: tcp, off")),
            })
        }
    })
}

fn request(path: String) -> HttpCheck {
    HttpCheck { path, method: "GET".to_owned(), host: None, status: vec![(200, 399)], body: None, headers: Vec::new() }
}

fn full(table: &Reader<'_>, contract: Duration) -> HealthCheck {
    let kind = kind(table);
    let check = HealthCheck {
        kind: match kind {
            Kind::Http => CheckKind::Http(http_check(table)),
            Kind::Tcp => CheckKind::Tcp,
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
    refuse_idle_keys(table, kind);
    warn_timers(table, &check, contract);
    check
}

/// The type as set, else by the keys that are there.
fn kind(table: &Reader<'_>) -> Kind {
    let words = [("http", Kind::Http), ("tcp", Kind::Tcp), ("off", Kind::Off)];
    let by_keys = if HTTP_KEYS.into_iter().any(|key| table.has(key)) { Kind::Http } else { Kind::Tcp };
    table.choice("type", &words).unwrap_or(by_keys)
}

/// Keys that the chosen type does not use are mistakes: the operator thinks they do something.
fn refuse_idle_keys(table: &Reader<'_>, kind: Kind) {
    let idle: &[&[&'static str]] = match kind {
        Kind::Http => &[],
        Kind::Tcp => &[&HTTP_KEYS],
        Kind::Off => &[&HTTP_KEYS, &TIMER_KEYS],
    };
    let word = if kind == Kind::Off { "off" } else { "tcp" };
    for node in idle.iter().copied().flatten().filter_map(|key| table.get(key)) {
        let fault =
            Fault::new(format!("`{}` does nothing: this check is of type `{word}`", node.key)).label("not used");
        node.cx.error(node.key_span.clone(), fault.help(format!("take it out, or change `type = \"{word}\"`")));
    }
}

fn http_check(table: &Reader<'_>) -> HttpCheck {
    let mut check = request(table.parsed("path", http::path_and_query).unwrap_or_else(|| "/".to_owned()));
    if let Some(method) = table.parsed("method", http::token) {
        check.method = method;
    }
    check.host = table.parsed("host", address::host_header);
    if let Some(node) = table.get("status") {
        check.status = statuses(&node);
    }
    check.body = table.string("body");
    if let (Some(node), "HEAD") = (table.get("body"), check.method.as_str()) {
        let fault = Fault::new("an answer to HEAD has no body").label("cannot be found");
        node.error(fault.help("take `body` out, or write `method = \"GET\"`"));
    }
    check.headers = headers(table.get("headers"), check_header);
    check
}

fn check_header(text: &str) -> Result<String, Fault> {
    let name = http::editable_header(text)?;
    if name == "host" {
        let fault = Fault::new("`Host` of a check is set by `host`").label("not as a header");
        return Err(fault.help("write `host = \"api.example.org\"` beside `path`"));
    }
    Ok(name)
}

fn statuses(node: &Node<'_>) -> Vec<(u16, u16)> {
    let one = |node: Node<'_>| {
        if node.is_integer() {
            return node.integer(100..=599).map(|status| (status, status));
        }
        if node.is_string() {
            return node.parsed(http::status_range);
        }
        node.wrong_type("a status or a range of statuses", Some("\"200-399\"".to_owned()));
        None
    };
    let entries = node.one_or_many();
    if entries.is_empty() && node.is_list() {
        node.error(Fault::new("no status would be good").label("empty").help("write `status = [200, \"300-399\"]`"));
    }
    entries.into_iter().filter_map(one).collect()
}

/// Timers set by hand that do not fit together, or do not keep the contract.
fn warn_timers(table: &Reader<'_>, check: &HealthCheck, contract: Duration) {
    let span = |key: &'static str| -> Span { table.get(key).map_or_else(|| table.span.clone(), |node| node.span()) };
    if let (Some(timeout), Some(interval)) = (check.timeout, check.interval)
        && timeout > interval
    {
        let fault = Fault::new("`timeout` is longer than `interval`: a slow probe outlives the next")
            .label(format!("longer than `interval = \"{}\"`", measure::shown(interval)));
        table.cx.warning(
            span("timeout"),
            fault.help(format!("write `timeout = \"{}\"` or less", measure::shown(interval))),
        );
    }
    if let Some(interval) = check.interval
        && interval > contract
    {
        let fall = check.fall.unwrap_or(1);
        let notices = interval.saturating_mul(fall).saturating_add(check.timeout.unwrap_or_default());
        let fault = Fault::new(format!(
            "with this `interval` a dead backend can go unnoticed for {}, but `failover_within` is {}",
            measure::shown(notices),
            measure::shown(contract)
        ));
        let fault = fault.label(format!("longer than {}", measure::shown(contract)));
        let help = "take `interval` out, so that it is derived from `failover_within`; or set `failover_within` to what you accept";
        table.cx.warning(span("interval"), fault.help(help));
    }
}

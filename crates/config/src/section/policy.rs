//! How a service treats requests: `balance`, `sticky`, `timeout`, `retry`.

use std::sync::Arc;
use std::time::Duration;

use crate::fault::{Fault, suggest};
use crate::node::Node;
use crate::reader::Reader;
use crate::shape;
use crate::value::http;
use crate::{Balance, HashKey, Retry, Secret, ServiceTimeouts, Sticky};

/// The shortest key of a signature, in bytes.
const SHORTEST_KEY: usize = 16;

/// Reads `balance`.
pub(crate) fn balance(service: &Reader<'_>) -> Balance {
    let Some(node) = service.get("balance") else { return Balance::LeastInflight };
    let read = if node.is_string() {
        node.parsed(policy)
    } else if node.is_table() {
        node.table(&shape::BALANCE, "").and_then(|table| hash(&table))
    } else {
        node.wrong_type("a policy or `{ hash = ... }`", Some("\"least-inflight\"".to_owned()));
        None
    };
    read.unwrap_or(Balance::LeastInflight)
}

fn policy(text: &str) -> Result<Balance, Fault> {
    match text {
        "least-inflight" => Ok(Balance::LeastInflight),
        "round-robin" => Ok(Balance::RoundRobin),
        "least-latency" => Ok(Balance::LeastLatency),
        "random" => Ok(Balance::Random),
        other => {
            let fault = Fault::new(format!("`balance` cannot be `{other}`")).label("not a policy");
            let hash = "or `{ hash = \"client-address\" }`";
            if matches!(other.replace('_', "-").as_str(), "hash" | "ip-hash" | "client-address") {
                return Err(fault.help("write `balance = { hash = \"client-address\" }`"));
            }
            let words = ["least-inflight", "round-robin", "least-latency", "random"];
            Err(fault.help(format!("{}, {hash}", suggest(other, &words, "policies"))))
        }
    }
}

fn hash(table: &Reader<'_>) -> Option<Balance> {
    let Some(node) = table.get("hash") else {
        table.missing("hash", "\"client-address\"");
        return None;
    };
    node.parsed(|text| match text.split_once(':') {
        Some(("header", name)) => Ok(HashKey::Header(http::header_name(name)?)),
        Some(("cookie", name)) => Ok(HashKey::Cookie(http::token(name)?)),
        None if text == "client-address" => Ok(HashKey::ClientAddress),
        None if text == "uri" => Ok(HashKey::Uri),
        _ => {
            let fault = Fault::new(format!("`hash` cannot be `{text}`")).label("not a part of a request");
            let words = ["client-address", "uri", "header:NAME", "cookie:NAME"];
            Err(fault.help(suggest(text, &words, "parts")))
        }
    })
    .map(Balance::Hash)
}

/// Reads `sticky`.
pub(crate) fn sticky(service: &Reader<'_>) -> Option<Sticky> {
    let node = service.get("sticky")?;
    if node.is_string() {
        return Some(Sticky { cookie: node.parsed(http::token)?, ttl: None, key: None });
    }
    if !node.is_table() {
        node.wrong_type("the name of a cookie or a table", Some("\"relais_site\"".to_owned()));
        return None;
    }
    let table = node.table(&shape::STICKY, "")?;
    if !table.has("cookie") {
        table.missing("cookie", "\"relais_site\"");
    }
    let (cookie, ttl, key) = (table.parsed("cookie", http::token), table.some_time("ttl"), key(&table));
    Some(Sticky { cookie: cookie?, ttl, key })
}

fn key(table: &Reader<'_>) -> Option<Arc<[u8]>> {
    let (here, file) = (table.get("key"), table.get("key_file"));
    if let (Some(_), Some(file)) = (&here, &file) {
        let fault = Fault::new("`key` and `key_file` are both set").label("the second one");
        table.cx.error(file.key_span.clone(), fault.help("keep `key_file`, so that the secret is not in this file"));
        return None;
    }
    let (node, bytes) = match (here, file) {
        (Some(node), _) => (node.clone(), node.string()?.into_bytes()),
        (None, Some(node)) => (node.clone(), secret(&node)?),
        (None, None) => return None,
    };
    if bytes.len() < SHORTEST_KEY {
        let fault = Fault::new(format!("the key has {} bytes: too few to be a secret", bytes.len()));
        let fault = fault.label(format!("at least {SHORTEST_KEY} bytes"));
        node.error(fault.help("make one with `openssl rand -hex 32`, or take it out and relais keeps one of its own"));
        return None;
    }
    Some(bytes.into())
}

/// The bytes of a file that holds a secret, without the newline that editors leave at its end.
pub(crate) fn secret(node: &Node<'_>) -> Option<Vec<u8>> {
    let mut bytes = node.cx.file(&node.string()?, &node.span())?;
    if bytes.pop_if(|last| *last == b'\n').is_some() {
        bytes.pop_if(|last| *last == b'\r');
    }
    Some(bytes)
}

/// A text that stands at `key`, or in the file named at `file`.
pub(crate) fn secret_text(table: &Reader<'_>, key: &'static str, file: &'static str) -> Option<Secret> {
    let (here, elsewhere) = (table.get(key), table.get(file));
    if let (Some(_), Some(elsewhere)) = (&here, &elsewhere) {
        let fault = Fault::new(format!("`{key}` and `{file}` are both set")).label("the second one");
        let help = format!("keep `{file}`, so that the secret is not in this file");
        table.cx.error(elsewhere.key_span.clone(), fault.help(help));
        return None;
    }
    let node = here.clone().or(elsewhere)?;
    let text = match here {
        Some(node) => node.string()?,
        None => String::from_utf8(secret(&node)?).unwrap_or_default(),
    };
    // What is pasted into files has newlines and blanks around it that no key or token has.
    let text = text.trim();
    if text.is_empty() || !text.chars().all(|letter| letter.is_ascii_graphic()) {
        let fault = Fault::new(format!("the secret of `{key}` is empty or no text")).label("expected visible ASCII");
        node.error(fault.help("write what the provider shows, on one line"));
        return None;
    }
    Some(Secret::new(text))
}

/// Reads `timeout`.
pub(crate) fn timeouts(service: &Reader<'_>) -> ServiceTimeouts {
    const HOUR: Duration = Duration::from_secs(3600);
    let table = service.section("timeout", &shape::TIMEOUT);
    let minute = Duration::from_secs(60);
    let idle = table.some_time("idle").unwrap_or(minute);
    ServiceTimeouts {
        connect: table.some_time("connect"),
        response: table.some_time("response").unwrap_or(minute),
        idle,
        // An operator who lets bodies rest longer than an hour means tunnels too.
        tunnel: table.some_time("tunnel").unwrap_or(idle.max(HOUR)),
        request: table.some_time("request"),
    }
}

/// Reads `retry`.
pub(crate) fn retry(service: &Reader<'_>) -> Retry {
    let table = service.section("retry", &shape::RETRY);
    Retry {
        attempts: table.integer("attempts", 1..=16).unwrap_or(4),
        budget_percent: table.integer("budget_percent", 0..=100).unwrap_or(20),
        budget_floor: table.integer("budget_floor", 0..=100_000).unwrap_or(10),
        replay_bytes: table.size("replay_bytes").unwrap_or(64 << 10),
        spool_bytes: table.size("spool_bytes").unwrap_or(16 << 20),
        hedge: table.boolean("hedge").unwrap_or(false),
        statuses: match table.get("statuses").and_then(|node| node.list()) {
            Some(entries) => entries.iter().filter_map(|entry| entry.integer(400..=599)).collect(),
            None => vec![502, 503, 504],
        },
    }
}

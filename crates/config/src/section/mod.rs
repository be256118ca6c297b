//! The sections of the file, each read from its table to its part of the model.
//!
//! Every key's default stands where the key is read. What concerns several sections is in `check`.

pub(crate) mod acme;
pub(crate) mod answer;
pub(crate) mod authority;
pub(crate) mod backend;
pub(crate) mod client_tls;
pub(crate) mod dns;
pub(crate) mod edge;
pub(crate) mod health;
pub(crate) mod listener;
pub(crate) mod outlier;
pub(crate) mod policy;
pub(crate) mod question;
pub(crate) mod service;
pub(crate) mod site;
pub(crate) mod timers;

use std::collections::HashMap;
use std::time::Duration;

use crate::context::{Context, Span};
use crate::fault::Fault;
use crate::node::Node;
use crate::value::http;

/// The shortest and the longest contract (`failover_within`).
const CONTRACT: std::ops::RangeInclusive<Duration> = Duration::from_millis(300)..=Duration::from_secs(60);

/// Reads a contract.
fn contract(node: &Node<'_>) -> Option<Duration> {
    let within = node.duration()?;
    if CONTRACT.contains(&within) {
        return Some(within);
    }
    let fault = Fault::new(format!("`{}` must be 300ms to 60s", node.key));
    node.error(if within < *CONTRACT.start() {
        fault.label("too short to tell a dead backend from a slow one").help("write `300ms` or more")
    } else {
        fault.label("too long: clients give up before").help("write `60s` or less")
    });
    None
}

/// Notes a name that orders (`relais drain NAME`), metrics and paths could not hold.
fn check_name(node: &Node<'_>, what: &str) {
    let name = &node.key;
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if name.is_empty() || !name.chars().all(allowed) {
        let fault = Fault::new(format!("`{}` is not a name for a {what}", name.escape_debug()));
        let fault = fault.label("letters, digits, `-`, `_` and `.` only");
        node.cx.error(node.key_span.clone(), fault.help("names are typed in orders such as `relais drain NAME`"));
    }
}

/// Reads a table of headers; `name` says which names are good.
fn headers(node: Option<Node<'_>>, name: fn(&str) -> Result<String, Fault>) -> Vec<(String, String)> {
    let nodes = node.and_then(|node| node.named(&format!("write `{} = {{ X-Name = \"value\" }}`", node.key)));
    nodes.iter().flatten().filter_map(|node| header(node, name)).collect()
}

/// Reads one header; both its name and its value, so that both mistakes are told.
fn header(node: &Node<'_>, name: fn(&str) -> Result<String, Fault>) -> Option<(String, String)> {
    let (name, value) = (header_key(node, name), node.parsed(http::header_value));
    Some((name?, value?))
}

/// Reads a key that is a header name.
fn header_key(node: &Node<'_>, name: fn(&str) -> Result<String, Fault>) -> Option<String> {
    name(&node.key).map_err(|fault| node.cx.error(node.key_span.clone(), fault)).ok()
}

/// Notes every value that was there before in the same list. `what` is like "host".
fn refuse_twins<T: Eq + std::hash::Hash + std::fmt::Display>(cx: &Context<'_>, what: &str, values: &[(T, Span)]) {
    let mut firsts: HashMap<&T, &Span> = HashMap::with_capacity(values.len());
    for (value, span) in values {
        let first = *firsts.entry(value).or_insert(span);
        if first != span {
            let fault = Fault::new(format!("{what} `{value}` is there twice")).label("the second one");
            cx.error(span.clone(), fault.help(format!("the first is on line {}: keep one", cx.line(first))));
        }
    }
}

//! `[service.NAME]`: a stable endpoint offered to clients. The page that joins the rooms around it.

use std::sync::Arc;

use crate::context::Span;
use crate::fault::Fault;
use crate::node::Node;
use crate::reader::Reader;
use crate::section::edge::TLS_SOURCES;
use crate::section::site::Sites;
use crate::section::{
    answer, backend, check_name, client_tls, contract, health, outlier, policy, refuse_twins, timers,
};
use crate::shape;
use crate::value::{address, http};
use crate::{Action, Edge, Forward, Service, StaticAnswer};

/// Keys that only a service with backends has.
const FORWARD_KEYS: [&str; 16] = [
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
    "request_headers",
    "upstream",
];

/// In the place of an action with a mistake: what else is wrong with the service is told all the same.
fn unknown() -> Action {
    Action::Respond(StaticAnswer { status: 0, body: Arc::new([]), content_type: String::new(), headers: Vec::new() })
}

/// A service and where its parts stand.
pub(crate) struct ServiceRead {
    pub(crate) service: Service,
    pub(crate) hosts: Vec<(String, Span)>,
    pub(crate) paths: Vec<(String, Span)>,
    /// Where the service stands.
    pub(crate) span: Span,
    /// Where its own `tls` is set.
    pub(crate) tls_span: Option<Span>,
}

/// Reads all services.
pub(crate) fn read(root: &Reader<'_>, edge: &Edge, sites: &mut Sites) -> Vec<ServiceRead> {
    let help = "name the service: `[service.api]`, and under it `hosts` and `backends`";
    let Some(node) = root.get("service") else { return Vec::new() };
    let nodes = node.named(help).unwrap_or_default();
    nodes.iter().filter_map(|node| service(node, edge, sites, help)).collect()
}

fn service(node: &Node<'_>, edge: &Edge, sites: &mut Sites, help: &str) -> Option<ServiceRead> {
    check_name(node, "service");
    let table = node.table(&shape::SERVICE, help)?;
    let hosts = hosts(&table);
    let paths = paths(&table);
    let action = action(&table, edge, sites);
    if let (Some(node), Some(Action::Redirect(redirect))) = (table.get("redirect"), &action) {
        refuse_loop(&node, &redirect.to, redirect.keep_path, &hosts, &paths);
    }
    let service = Service {
        name: node.key.as_str().into(),
        canonical: canonical(&table, &hosts),
        hosts: hosts.iter().map(|(host, _)| host.clone()).collect(),
        paths: paths.iter().map(|(path, _)| path.clone()).collect(),
        tls: table.choice("tls", TLS_SOURCES).unwrap_or(edge.tls),
        client_tls: client_tls::read(&table, edge),
        hsts: client_tls::hsts(&table),
        request_headers: answer::request_edits(&table),
        response_headers: answer::response_edits(&table),
        max_body: table.size("max_body"),
        action: action.unwrap_or_else(unknown),
    };
    Some(ServiceRead {
        service,
        hosts,
        paths,
        span: table.span.clone(),
        tls_span: table.get("tls").map(|node| node.span()),
    })
}

fn hosts(table: &Reader<'_>) -> Vec<(String, Span)> {
    let Some(node) = table.get("hosts") else {
        table.missing("hosts", "[\"api.example.org\"]");
        return Vec::new();
    };
    let entries = node.one_or_many();
    if entries.is_empty() && node.is_list() {
        let fault = Fault::new("a service without hosts is never reached").label("empty");
        node.error(
            fault.help(
                "write `hosts = [\"api.example.org\"]`, or `hosts = [\"*\"]` for any host no other service claims",
            ),
        );
    }
    let hosts = entries.iter().filter_map(|entry| Some((entry.parsed(address::host_pattern)?, entry.span())));
    let hosts: Vec<_> = hosts.collect();
    refuse_twins(table.cx, "host", &hosts);
    hosts
}

fn paths(table: &Reader<'_>) -> Vec<(String, Span)> {
    let Some(node) = table.get("paths") else { return vec![("/".to_owned(), table.span.clone())] };
    let entries = node.one_or_many();
    if entries.is_empty() && node.is_list() {
        node.error(
            Fault::new("a service without paths is never reached")
                .label("empty")
                .help("take `paths` out for all paths"),
        );
    }
    let paths = entries.iter().filter_map(|entry| Some((entry.parsed(http::path_prefix)?, entry.span())));
    let paths: Vec<_> = paths.collect();
    refuse_twins(table.cx, "path", &paths);
    paths
}

fn canonical(table: &Reader<'_>, hosts: &[(String, Span)]) -> Option<String> {
    let node = table.get("canonical")?;
    let canonical = node.parsed(address::exact_host)?;
    if !hosts.is_empty() && !hosts.iter().any(|(host, _)| *host == canonical) {
        let list: Vec<&str> = hosts.iter().map(|(host, _)| host.as_str()).collect();
        let fault = Fault::new(format!("`{canonical}` is not among the `hosts` of `{}`", table.path));
        let help = crate::fault::suggest(&canonical, &list, "hosts");
        node.error(fault.label("redirects would lead nowhere").help(format!("{help}; or add it to `hosts`")));
    }
    Some(canonical)
}

/// The one thing a service does. `None` when a mistake was noted.
fn action(table: &Reader<'_>, edge: &Edge, sites: &mut Sites) -> Option<Action> {
    let set: Vec<Node<'_>> = ["backends", "redirect", "respond"].into_iter().filter_map(|key| table.get(key)).collect();
    if set.is_empty() {
        let fault = Fault::new(format!("`{}` does nothing: it has no backends", table.path));
        let help =
            "add `backends = [\"10.0.0.1:8080\"]`; or `redirect = \"https://...\"`; or `respond = { body = \"...\" }`";
        table.cx.missing(table.span.clone(), fault.label("`backends` is missing").help(help));
    }
    let mut by_place: Vec<&Node<'_>> = set.iter().collect();
    by_place.sort_by_key(|node| node.key_span.start);
    for node in by_place.iter().skip(1) {
        let fault = Fault::new(format!("`{}` has both `{}` and `{}`", table.path, by_place[0].key, node.key));
        let help = "keep one; for a page when every backend is down, use `maintenance`";
        table.cx.error(node.key_span.clone(), fault.label("the second one").help(help));
    }
    // Read even without backends: mistakes in them are told at once.
    let forward = forward(table, edge, sites);
    if let (Some(first), false) = (set.first(), table.has("backends")) {
        for node in FORWARD_KEYS.into_iter().filter_map(|key| table.get(key)) {
            let fault = Fault::new(format!("`{}` does nothing without `backends`", node.key)).label("not used");
            table.cx.error(node.key_span.clone(), fault.help(format!("take it out: this service has `{}`", first.key)));
        }
    }
    match set.first()?.key.as_str() {
        "backends" => Some(Action::Forward(Box::new(forward))),
        "redirect" => table.get("redirect").and_then(|node| answer::redirect(&node)).map(Action::Redirect),
        _ => table.get("respond").and_then(|node| answer::fixed(&node, &shape::RESPOND, 200)).map(Action::Respond),
    }
}

fn forward(table: &Reader<'_>, edge: &Edge, sites: &mut Sites) -> Forward {
    let failover_within = table.get("failover_within").and_then(|node| contract(&node)).unwrap_or(edge.failover_within);
    let upstream = backend::upstream(table);
    let backends = table.get("backends").map(|node| backend::read(&node, sites, &upstream.speech)).unwrap_or_default();
    let (balance, sticky) = (policy::balance(table), policy::sticky(table));
    let forward = Forward {
        agent: health::agent(table, &backends),
        backends,
        failover_within,
        outlier: outlier::read(table, &balance, sticky.as_ref()),
        balance,
        sticky,
        health: health::read(table, failover_within),
        passive_fall: table.integer("passive_fall", 0..=1000),
        timeout: policy::timeouts(table),
        retry: policy::retry(table),
        max_inflight: table.integer("max_inflight", 1..=1_000_000),
        max_queue: table.integer("max_queue", 0..=1_000_000).unwrap_or(1000),
        queue_timeout: table.duration("queue_timeout"),
        fail_open: table.boolean("fail_open").unwrap_or(false),
        maintenance: table.get("maintenance").and_then(|node| answer::fixed(&node, &shape::MAINTENANCE, 503)),
        host: upstream.host,
        keep_idle: upstream.keep_idle,
        keep_idle_for: upstream.keep_idle_for,
    };
    warn_one_site(table, &forward);
    timers::warn_service(table, &forward);
    forward
}

fn warn_one_site(table: &Reader<'_>, forward: &Forward) {
    let (Some(node), Some(first)) = (table.get("backends"), forward.backends.first()) else { return };
    if forward.backends.iter().any(|backend| backend.site != first.site) {
        return;
    }
    let fault = Fault::new(format!(
        "`{}` does not survive the loss of site `{}`: all its backends are there",
        table.path, first.site
    ));
    let help =
        format!("list backends of another site too: `[{}.backends]` with `thory = [\"10.0.1.1:8080\"]`", table.path);
    table.cx.warning(node.key_span, fault.label("one site only").help(help));
}

/// A redirect to a host and path of the same service would never end.
fn refuse_loop(node: &Node<'_>, to: &str, keep_path: bool, hosts: &[(String, Span)], paths: &[(String, Span)]) {
    let rest = to.split_once("://").map(|(_, rest)| rest);
    let (host, path) = match rest {
        Some(rest) => {
            let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            (Some(rest[..at].to_ascii_lowercase()), &rest[at..])
        }
        None => (None, to),
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let below = |prefix: &str| {
        prefix == "/" || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    // With a fixed target the second request is the target itself; with a kept path it is the target and more.
    let same_host = host.is_none_or(|host| hosts.iter().any(|(own, _)| *own == host));
    let same_path = paths.iter().any(|(prefix, _)| below(prefix));
    if same_host && same_path {
        let fault = Fault::new("this redirect leads back to its own service, again and again")
            .label("matches its own host and path");
        let help = if keep_path {
            "lead to another host, or set `paths` so that the target is outside them"
        } else {
            "set `paths` so that the target is outside them"
        };
        node.error(fault.help(help));
    }
}

//! `backends` and `upstream` of a service: where requests go and how they are spoken to.

use std::sync::Arc;
use std::time::Duration;

use crate::context::Span;
use crate::fault::{Fault, nearest};
use crate::node::Node;
use crate::reader::Reader;
use crate::section::refuse_twins;
use crate::section::site::{DEFAULT, Sites, tier};
use crate::shape;
use crate::value::address;
use crate::{Address, BackendDecl, HostHeader, Site, Upstream, UpstreamProtocol, UpstreamTls};

/// What the file says about speaking to backends: for the service, or for one of them.
#[derive(Clone, Default)]
pub(crate) struct Speech {
    protocol: Option<(Protocol, Span)>,
    tls: Option<Option<UpstreamTls>>,
}

/// The words of the file. `H2` and `H2c` are one protocol with and without TLS.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Protocol {
    H1,
    H2,
    H2c,
    Auto,
}

/// `upstream` of a service.
pub(crate) struct UpstreamRead {
    pub(crate) speech: Speech,
    pub(crate) host: HostHeader,
    pub(crate) keep_idle: usize,
    pub(crate) keep_idle_for: Duration,
}

/// Reads `upstream`.
pub(crate) fn upstream(service: &Reader<'_>) -> UpstreamRead {
    let table = service.section("upstream", &shape::UPSTREAM);
    UpstreamRead {
        speech: speech(&table),
        host: table.parsed("host", host).unwrap_or(HostHeader::Keep),
        keep_idle: table.integer("keep_idle", 0..=100_000).unwrap_or(512),
        keep_idle_for: table.some_time("keep_idle_for").unwrap_or(Duration::from_secs(60)),
    }
}

fn host(text: &str) -> Result<HostHeader, Fault> {
    match text {
        "keep" => Ok(HostHeader::Keep),
        "backend" => Ok(HostHeader::Backend),
        name => address::host_header(name).map(HostHeader::Set),
    }
}

fn speech(table: &Reader<'_>) -> Speech {
    let words = [("h1", Protocol::H1), ("h2", Protocol::H2), ("h2c", Protocol::H2c), ("auto", Protocol::Auto)];
    let protocol = table.get("protocol").and_then(|node| Some((node.choice(&words)?, node.span())));
    Speech { protocol, tls: table.get("tls").and_then(|node| tls(&node)) }
}

fn tls(node: &Node<'_>) -> Option<Option<UpstreamTls>> {
    if let Some(wanted) = node.as_boolean() {
        return Some(wanted.then_some(UpstreamTls { sni: None, ca: None, verify: true }));
    }
    if !node.is_table() {
        node.wrong_type("`true`, `false` or a table", Some("true".to_owned()));
        return None;
    }
    let table = node.table(&shape::UPSTREAM_TLS, "")?;
    let verify = table.boolean("verify").unwrap_or(true);
    if let (Some(node), false) = (table.get("verify"), verify) {
        let fault = Fault::new("any certificate is accepted: whoever is on the way can read and change requests");
        node.warning(fault.label("not verified").help("write `ca = \"ca.pem\"` with the CA of the backend instead"));
    }
    let ca = table.get("ca").and_then(|node| Some((node.file_path()?, node.span())));
    if let Some((path, span)) = ca.clone().filter(|_| verify)
        && let Some(fault) = (table.cx.lookup().backend_ca)(&path)
    {
        table.cx.file_fault(span, "the CA of a backend", fault);
    }
    Some(Some(UpstreamTls { sni: table.parsed("sni", address::exact_host), ca: ca.map(|(path, _)| path), verify }))
}

impl Speech {
    /// What one backend says, and the service's words for what it does not say.
    fn or(&self, service: &Speech) -> Speech {
        let protocol = self.protocol.clone().or_else(|| service.protocol.clone());
        Speech { protocol, tls: self.tls.clone().or_else(|| service.tls.clone()) }
    }

    fn upstream(self, node: &Node<'_>) -> Upstream {
        let tls = self.tls.flatten();
        let (protocol, span) = self.protocol.unwrap_or((Protocol::Auto, 0..0));
        match (protocol, &tls) {
            (Protocol::H2c, Some(_)) => {
                let fault = Fault::new("`h2c` is HTTP/2 in plain text, but `tls` is set").label("contradicts `tls`");
                node.cx.error(span, fault.help("write `protocol = \"h2\"`, or `tls = false`"));
            }
            (Protocol::H2, None) => {
                let fault = Fault::new("`h2` is HTTP/2 over TLS, but `tls` is not set").label("needs `tls`");
                node.cx.error(span, fault.help("add `tls = true`, or write `protocol = \"h2c\"` for plain text"));
            }
            _ => {}
        }
        let protocol = match protocol {
            Protocol::H1 => UpstreamProtocol::H1,
            Protocol::H2 | Protocol::H2c => UpstreamProtocol::H2,
            Protocol::Auto => UpstreamProtocol::Auto,
        };
        Upstream { protocol, tls }
    }
}

/// Reads `backends`: a list, or lists by site.
pub(crate) fn read(node: &Node<'_>, sites: &mut Sites, service: &Speech) -> Vec<BackendDecl> {
    let mut found: Vec<(BackendDecl, Span)> = Vec::new();
    if !node.is_table() && !node.is_list() && !node.is_string() {
        node.wrong_type("a list of addresses, or lists by site", Some("[\"10.0.0.1:8080\"]".to_owned()));
        return Vec::new();
    }
    let by_site = node.is_table();
    let groups = if by_site { node.named("").unwrap_or_default() } else { vec![node.clone()] };
    for group in &groups {
        let site = if by_site { declared(group, sites) } else { Some(undivided(group, sites)) };
        let Some(site) = site else { continue };
        for entry in group.one_or_many() {
            if let Some(decl) = backend(&entry, &site, service) {
                if sites.has(&site.name) {
                    check_network(&entry, &decl, &site, sites);
                }
                found.push((decl, entry.span()));
            }
        }
    }
    let empty = groups.iter().all(|group| group.is_list() && group.list().is_some_and(|list| list.is_empty()));
    if empty {
        let fault = Fault::new("a service without any backend cannot answer").label("no backend in here");
        node.cx.missing(
            node.key_span.clone(),
            fault.help("write `backends = [\"10.0.0.1:8080\"]`, or by site `dijon = [\"10.0.0.1:8080\"]`"),
        );
    }
    let addresses: Vec<_> = found.iter().map(|(decl, span)| (decl.address.clone(), span.clone())).collect();
    refuse_twins(node.cx, "backend", &addresses);
    found.into_iter().map(|(decl, _)| decl).collect()
}

/// The site a group of backends is listed under. `None` when it is no group, but a key that slipped in.
fn declared(group: &Node<'_>, sites: &mut Sites) -> Option<Site> {
    if let Some(site) = sites.take(&group.key) {
        return Some(site);
    }
    let name = &group.key;
    let names = sites.names();
    let fault = Fault::new(format!("undeclared site `{name}` in `{}`", group.path)).label("not in [sites]");
    let near = nearest(name, &names);
    if near.is_none() && shape::SERVICE.keys.contains(&name.as_str()) {
        let help = format!("`{name}` is a key of the service: move the line above the header of the backends");
        group.cx.error(group.key_span.clone(), fault.help(help));
        return None;
    }
    let listed = names.join(", ");
    let help = match near {
        Some(near) => format!("did you mean `{near}`? declared sites: {listed}"),
        None if listed.is_empty() => format!("declare it: write `[sites]` and under it `{name} = 1` with its tier"),
        None => format!("declare it under `[sites]`, as `{name} = 1` with its tier; declared sites: {listed}"),
    };
    if !group.cx.may_hide("sites") {
        group.cx.error(group.key_span.clone(), fault.help(help));
    }
    // Told once is enough: it then counts as a site, so that its backends are read too.
    Some(Site { name: name.as_str().into(), tier: 1, network: None, labels: Vec::new() })
}

/// The site of backends listed without one.
fn undivided(group: &Node<'_>, sites: &mut Sites) -> Site {
    if sites.declared && !sites.has(DEFAULT) {
        let fault = Fault::new(format!(
            "the backends of `{}` name no site: they count as a site of their own, `{DEFAULT}`",
            group.path
        ));
        let help =
            "list them by site, as `backends = { dijon = [\"10.0.0.1:8080\"] }`, or declare `default` under `[sites]`";
        group.cx.warning(group.key_span.clone(), fault.label("without sites").help(help));
    }
    sites.take_default()
}

fn backend(entry: &Node<'_>, site: &Site, service: &Speech) -> Option<BackendDecl> {
    let own;
    let (address, weight, tier, speech) = if entry.is_table() {
        let table = entry.table(&shape::BACKEND, "")?;
        if !table.has("addr") {
            table.missing("addr", "\"10.0.0.1:8080\"");
        }
        own = speech(&table);
        let tier = table.get("tier").and_then(|node| tier(&node)).unwrap_or(site.tier);
        (table.parsed("addr", address::backend), weight(&table), tier, &own)
    } else if entry.is_string() {
        own = Speech::default();
        (entry.parsed(address::backend), 1, site.tier, &own)
    } else {
        entry.wrong_type("an address or a table", Some("\"10.0.0.1:8080\"".to_owned()));
        return None;
    };
    let upstream = speech.or(service).upstream(entry);
    let address = address?;
    warn_plain_443(entry, &address, &upstream);
    Some(BackendDecl { site: site.name.clone(), address, weight, tier, upstream: Arc::new(upstream) })
}

fn weight(table: &Reader<'_>) -> u32 {
    match table.get("weight") {
        Some(node) if node.is_zero() => {
            let fault = Fault::new("`weight` cannot be 0").label("1 to 1000");
            node.error(
                fault.help(
                    "to send nothing to a backend, use `relais drain SERVICE/BACKEND` or take it out of the file",
                ),
            );
            1
        }
        Some(node) => node.integer(1..=1000).unwrap_or(1),
        None => 1,
    }
}

fn warn_plain_443(entry: &Node<'_>, address: &Address, upstream: &Upstream) {
    let port = match address {
        Address::Socket(socket) => socket.port(),
        Address::Name(_, port) => *port,
        Address::Unix(_) => return,
    };
    if port == 443 && upstream.tls.is_none() {
        let fault = Fault::new(format!("`{address}` is spoken to in plain HTTP on the port of HTTPS")).label("no TLS");
        entry.warning(fault.help(format!("write `{{ addr = \"{address}\", tls = true }}`")));
    }
}

/// A backend in another site's network fails with that site, whatever the file says.
fn check_network(entry: &Node<'_>, decl: &BackendDecl, site: &Site, sites: &Sites) {
    let Address::Socket(socket) = decl.address else { return };
    match (sites.holding(socket.ip()), site.network) {
        (Some(other), _) if other.name != site.name => {
            let (name, here) = (&other.name, &site.name);
            let fault =
                Fault::new(format!("`{}` is in the network of site `{name}`, but listed at `{here}`", decl.address));
            let help =
                format!("move it to `{name} = [\"{}\"]`, or correct `network` of one of the sites", decl.address);
            entry.error(fault.label(format!("an address of `{name}`")).help(help));
        }
        (None, Some(network)) => {
            let fault = Fault::new(format!("`{}` is outside the network of its site `{}`", decl.address, site.name));
            entry.warning(
                fault.label(format!("not in {network}")).help("correct the address, or `network` of the site"),
            );
        }
        _ => {}
    }
}

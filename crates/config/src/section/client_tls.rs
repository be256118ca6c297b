//! What a service asks of clients and tells browsers about TLS: `min_tls`, `client_certificate`, `hsts`.

use std::time::Duration;

use crate::context::Context;
use crate::fault::Fault;
use crate::reader::Reader;
use crate::section::edge::min_tls;
use crate::section::service::ServiceRead;
use crate::shape;
use crate::{ClientCertificate, ClientTls, Edge, Hsts};

/// A year: what the list that browsers ship with wants at least.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Reads `min_tls` and `client_certificate`.
pub(crate) fn read(table: &Reader<'_>, edge: &Edge) -> ClientTls {
    ClientTls { lowest: min_tls(table).unwrap_or(edge.min_tls), certificate: client_certificate(table) }
}

fn client_certificate(table: &Reader<'_>) -> Option<ClientCertificate> {
    let node = table.get("client_certificate")?;
    let rule = node.table(&shape::CLIENT_CERTIFICATE, "write `client_certificate = { ca = \"clients.pem\" }`")?;
    if !rule.has("ca") {
        rule.missing("ca", "\"clients.pem\"");
    }
    let required = rule.boolean("required").unwrap_or(true);
    let named = rule.get("ca")?;
    let ca = named.file_path()?;
    if let Some(fault) = (rule.cx.lookup().client_ca)(&ca) {
        rule.cx.file_fault(named.span(), "the CA of clients", fault);
    }
    Some(ClientCertificate { ca, required })
}

/// Reads `hsts`: a duration, or a table.
pub(crate) fn hsts(table: &Reader<'_>) -> Option<Hsts> {
    let node = table.get("hsts")?;
    if node.is_string() {
        return Some(Hsts { max_age: node.duration()?, subdomains: false, preload: false });
    }
    let rule =
        node.table(&shape::HSTS, "write `hsts = \"365d\"` or `hsts = { max_age = \"365d\", subdomains = true }`")?;
    let hsts = Hsts {
        max_age: rule.duration("max_age").unwrap_or(YEAR),
        subdomains: rule.boolean("subdomains").unwrap_or(false),
        preload: rule.boolean("preload").unwrap_or(false),
    };
    if hsts.preload && (!hsts.subdomains || hsts.max_age < YEAR) {
        let fault = Fault::new("`preload` needs `subdomains = true` and a `max_age` of 365d or more");
        let help = "write `hsts = { max_age = \"365d\", subdomains = true, preload = true }`, or take `preload` out";
        node.error(fault.label("browsers would not take it").help(help));
    }
    Some(hsts)
}

/// Whether requests for a host may end at a service with this other host: it stands for it, or is the same.
fn takes(pattern: &str, host: &str) -> bool {
    let one_label_below =
        |parent: &str| host.split_once('.').is_some_and(|(label, rest)| label != "*" && rest == parent);
    pattern == host || pattern == "*" || pattern.strip_prefix("*.").is_some_and(one_label_below)
}

/// Notes hosts of which a part falls on to a service that asks other things: the handshake knows only the host.
fn falls_on(cx: &Context<'_>, services: &[ServiceRead]) {
    let whole = |host: &str| {
        services
            .iter()
            .any(|read| read.hosts.iter().any(|(own, _)| own == host) && read.paths.iter().any(|(path, _)| path == "/"))
    };
    for one in services {
        for (host, span) in one.hosts.iter().filter(|(host, _)| !whole(host)) {
            let differs = |two: &&ServiceRead| {
                two.service.client_tls != one.service.client_tls
                    && two.hosts.iter().any(|(other, _)| other != host && takes(other, host))
            };
            if let Some(two) = services.iter().find(differs) {
                let (one, two) = (&one.service.name, &two.service.name);
                let said = format!(
                    "what `{one}` does not take of host `{host}` falls on to `{two}`, which asks different things of its clients"
                );
                let help = "give both the same `min_tls` and `client_certificate`; or give one of them the other paths of this host";
                cx.error(span.clone(), Fault::new(said).label("only some of its paths").help(help));
            }
        }
    }
}

/// Notes services that share a host and disagree: the handshake is over before the path is known.
pub(crate) fn agree(cx: &Context<'_>, services: &[ServiceRead]) {
    falls_on(cx, services);
    for (index, later) in services.iter().enumerate() {
        for (host, span) in &later.hosts {
            let differs = |earlier: &&ServiceRead| {
                earlier.service.client_tls != later.service.client_tls
                    && earlier.hosts.iter().any(|(other, _)| other == host)
            };
            if let Some(earlier) = services[..index].iter().find(differs) {
                let (one, two) = (&earlier.service.name, &later.service.name);
                let said = format!(
                    "services `{one}` and `{two}` share host `{host}`, but ask different things of its clients"
                );
                let fault = Fault::new(said);
                let help = "give both the same `min_tls` and `client_certificate`: the TLS handshake is over before the path is known";
                cx.error(span.clone(), fault.label(format!("`{one}` has it too")).help(help));
            }
        }
    }
}

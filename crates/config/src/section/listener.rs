//! `[listener.NAME]` and `[certificate.NAME]`: where clients connect, and the certificates shown to them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::context::{Context, Span};
use crate::fault::Fault;
use crate::node::Node;
use crate::reader::Reader;
use crate::section::edge::MetricsRead;
use crate::section::{check_name, refuse_twins};
use crate::shape;
use crate::value::address;
use crate::{CertificateFiles, Listener, ListenerProtocol};

/// What a listener says about redirects.
enum Redirect {
    /// Nothing: as `[edge]`.
    Unsaid,
    /// `false`.
    No,
    /// `true`: to the first HTTPS listener.
    Yes(Span),
    /// To this port.
    Port(u16),
}

/// A listener as typed.
struct Typed {
    name: String,
    addresses: Vec<(SocketAddr, Span)>,
    protocol: ListenerProtocol,
    redirect: Redirect,
}

/// Reads all listeners. Without any: HTTP on port 80 that redirects to HTTPS on port 443.
pub(crate) fn read(root: &Reader<'_>, redirect: bool, metrics: &MetricsRead) -> Vec<Arc<Listener>> {
    let help = "write `[listener.https]` and under it `address = \":443\"`";
    let typed = match root.get("listener") {
        None => standard(),
        Some(node) => {
            let nodes = node.named(help).unwrap_or_default();
            if nodes.is_empty() && node.is_table() {
                let fault = Fault::new("no listener: nothing would be served").label("no listener in here");
                root.cx
                    .missing(node.key_span.clone(), fault.help(format!("{help}, or take it out for ports 80 and 443")));
            }
            nodes.iter().filter_map(listener).collect()
        }
    };
    refuse_shared(root.cx, &typed, metrics);
    let https = typed
        .iter()
        .filter(|listener| listener.protocol == ListenerProtocol::Https)
        .find_map(|listener| listener.addresses.first().map(|(address, _)| address.port()));
    typed.into_iter().map(|listener| Arc::new(finish(root.cx, listener, https, redirect))).collect()
}

/// One address can be listened on once.
fn refuse_shared(cx: &Context<'_>, typed: &[Typed], metrics: &MetricsRead) {
    let mut all: Vec<(SocketAddr, Span)> = typed.iter().flat_map(|listener| listener.addresses.clone()).collect();
    match (metrics.metrics.address, &metrics.span) {
        (Some(address), Some(span)) => all.push((address, span.clone())),
        (Some(address), None) => {
            if let Some((_, span)) = all.iter().find(|(other, _)| *other == address) {
                let fault =
                    Fault::new(format!("`{address}` is where the metrics are served")).label("taken by [metrics]");
                cx.error(
                    span.clone(),
                    fault.help("take another port here, or set `address` of [metrics]; `false` turns it off"),
                );
            }
        }
        (None, _) => {}
    }
    // Port 0 is a new port each time.
    all.retain(|(address, _)| address.port() != 0);
    all.sort_by_key(|(_, span)| span.start);
    refuse_twins(cx, "address", &all);
}

/// The listeners of a file without any.
fn standard() -> Vec<Typed> {
    let typed = |name: &str, port, protocol| Typed {
        name: name.to_owned(),
        addresses: [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)]
            .map(|ip| (SocketAddr::new(ip, port), 0..0))
            .to_vec(),
        protocol,
        redirect: Redirect::Unsaid,
    };
    vec![typed("http", 80, ListenerProtocol::Http), typed("https", 443, ListenerProtocol::Https)]
}

fn listener(node: &Node<'_>) -> Option<Typed> {
    check_name(node, "listener");
    let table =
        node.table(&shape::LISTENER, &format!("write `[listener.{}]` and under it `address = \":443\"`", node.key))?;
    let mut addresses = Vec::new();
    match table.get("address") {
        None => table.missing("address", "\":443\""),
        Some(node) => {
            let entries = node.one_or_many();
            if entries.is_empty() && node.is_list() {
                node.error(Fault::new("`address` names no address").label("empty").help("write `address = \":443\"`"));
            }
            for entry in entries {
                let sockets =
                    entry.text_parsed("an address", Some("\":443\"".to_owned()), address::listener).unwrap_or_default();
                addresses.extend(sockets.into_iter().map(|socket| (socket, entry.span())));
            }
        }
    }
    let protocol = protocol(&table, &addresses);
    let redirect = redirect(&table, protocol);
    Some(Typed { name: node.key.clone(), addresses, protocol, redirect })
}

/// The protocol as set, or by the usual meaning of the ports.
fn protocol(table: &Reader<'_>, addresses: &[(SocketAddr, Span)]) -> ListenerProtocol {
    let words = [("https", ListenerProtocol::Https), ("http", ListenerProtocol::Http)];
    if table.has("protocol") {
        return table.choice("protocol", &words).unwrap_or(ListenerProtocol::Http);
    }
    let usual = |port: u16| match port {
        443 | 8443 => Some(ListenerProtocol::Https),
        80 | 8080 => Some(ListenerProtocol::Http),
        _ => None,
    };
    let mut meant = addresses.iter().map(|(address, _)| usual(address.port()));
    let Some(first) = meant.next() else { return ListenerProtocol::Http };
    match first {
        Some(protocol) if meant.all(|other| other == first) => protocol,
        _ => {
            let fault = Fault::new(format!("`{}` has no `protocol`", table.path)).label("`protocol` is missing");
            let help = "add `protocol = \"https\"` or `protocol = \"http\"`; only ports 80, 8080, 443 and 8443 say it by themselves";
            table.cx.missing(table.span.clone(), fault.help(help));
            ListenerProtocol::Http
        }
    }
}

fn redirect(table: &Reader<'_>, protocol: ListenerProtocol) -> Redirect {
    let Some(node) = table.get("redirect") else { return Redirect::Unsaid };
    let redirect = match node.as_boolean() {
        Some(true) => Redirect::Yes(node.span()),
        Some(false) => Redirect::No,
        None if node.is_integer() => node.integer(1..=u16::MAX).map_or(Redirect::Unsaid, Redirect::Port),
        None => {
            node.wrong_type("`true`, `false` or a port", Some("true".to_owned()));
            Redirect::Unsaid
        }
    };
    if protocol == ListenerProtocol::Https && !matches!(redirect, Redirect::No | Redirect::Unsaid) {
        let fault = Fault::new("an HTTPS listener cannot redirect to HTTPS").label("does nothing here");
        node.error(fault.help("take `redirect` out, or set it on the plain listener"));
        return Redirect::Unsaid;
    }
    redirect
}

fn finish(cx: &Context<'_>, typed: Typed, https: Option<u16>, edge: bool) -> Listener {
    let plain = typed.protocol == ListenerProtocol::Http;
    let redirect_to = match typed.redirect {
        Redirect::Port(port) => Some(port),
        Redirect::Unsaid if plain && edge => https,
        Redirect::Yes(span) => {
            if https.is_none() {
                let fault = Fault::new("nothing to redirect to: no listener speaks HTTPS").label("no HTTPS listener");
                cx.missing(
                    span,
                    fault.help("add `[listener.https]` with `address = \":443\"`, or give the port: `redirect = 443`"),
                );
            }
            https
        }
        Redirect::Unsaid | Redirect::No => None,
    };
    let addresses = typed.addresses.into_iter().map(|(address, _)| address).collect();
    Listener { name: typed.name, addresses, protocol: typed.protocol, redirect_to }
}

/// Reads all certificates.
pub(crate) fn certificates(root: &Reader<'_>) -> Vec<CertificateFiles> {
    let help = "write `[certificate.NAME]` and under it `cert = \"site.pem\"` and `key = \"site.key\"`";
    let nodes = root.get("certificate").and_then(|node| node.named(help)).unwrap_or_default();
    nodes.iter().filter_map(|node| certificate(node, help)).collect()
}

fn certificate(node: &Node<'_>, help: &str) -> Option<CertificateFiles> {
    check_name(node, "certificate");
    let table = node.table(&shape::CERTIFICATE, help)?;
    for (key, example) in [("cert", "\"site.pem\""), ("key", "\"site.key\"")] {
        if !table.has(key) {
            table.missing(key, example);
        }
    }
    let (cert, key) = (table.path("cert"), table.path("key"));
    let whole = cert.is_some() && key.is_some();
    let files =
        CertificateFiles { name: node.key.clone(), cert: cert.unwrap_or_default(), key: key.unwrap_or_default() };
    if whole {
        for fault in (table.cx.lookup().certificate)(&files) {
            let named = table.get(if fault.file == files.key { "key" } else { "cert" });
            let span = named.map_or_else(|| table.span.clone(), |node| node.span());
            table.cx.file_fault(span, &format!("certificate `{}`", files.name), fault);
        }
    }
    Some(files)
}

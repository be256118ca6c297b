//! The files we show: the reference `proxy.toml` at the root, and a real one.

use relais_config::{Action, ListenerProtocol, Severity, keys, render_problems};
use toml::Table;
use toml::Value;

use crate::{config, parse};

/// The reference as shipped.
const REFERENCE: &str = include_str!("../../../../proxy.toml");

/// A file as its user writes it.
pub(crate) const ACECINEMA: &str = include_str!("acecinema.toml");

/// The reference with every key in use.
pub(crate) fn everything() -> String {
    REFERENCE
        .lines()
        .map(|line| line.strip_prefix("#= ").unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n")
}

#[test]
fn the_reference_is_usable_and_without_warnings() {
    let parsed = parse(REFERENCE).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(render_problems("proxy.toml", REFERENCE, &parsed.warnings, Severity::Warning, false), "");
    assert_eq!(parsed.files, [] as [std::path::PathBuf; 0]);
    let config = parsed.config;
    assert_eq!(config.edge.state_dir, None);
    for listener in &config.listeners {
        for address in &listener.addresses {
            assert!(address.ip().is_loopback() && address.port() >= 1024, "an ordinary user can listen on {address}");
        }
    }
    let http = config.listeners.iter().find(|listener| listener.protocol == ListenerProtocol::Http).unwrap();
    assert_eq!(http.redirect_to, Some(8443));
}

#[test]
fn the_reference_with_every_key_is_usable() {
    let text = everything();
    let parsed = parse(&text).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(parsed.files.len(), 9, "{:?}", parsed.files);
    assert_eq!(parsed.config.services.len(), 9);
    assert_eq!(render_problems("proxy.toml", &text, &parsed.warnings, Severity::Warning, false), "");
}

/// "#= key = value" at the default must not change what the file says.
#[test]
fn defaults_in_the_reference_are_the_defaults() {
    let (plain, full) = (config(REFERENCE), config(&everything()));
    assert_eq!(plain.edge.client, full.edge.client);
    assert_eq!(plain.edge.failover_within, full.edge.failover_within);
    assert_eq!(plain.edge.drain, full.edge.drain);
    assert_eq!(plain.edge.name, full.edge.name);
    assert_eq!(plain.edge.request_id_header, full.edge.request_id_header);
    assert_eq!(plain.edge.tls, full.edge.tls);
    let (plain_acme, full_acme) = (&plain.acme, &full.acme);
    assert_eq!(plain_acme.key, full_acme.key);
    assert_eq!((plain_acme.reuse_key, plain_acme.waiting), (full_acme.reuse_key, full_acme.waiting));
    assert_eq!(plain_acme.orders, full_acme.orders);
    let plain_challenges = [&plain_acme.challenges[..], &[relais_config::Challenge::Dns01]].concat();
    assert_eq!(plain_challenges, full_acme.challenges);
    assert_eq!(plain_acme.authorities[0], full_acme.authorities[0], "letsencrypt as known");
    assert_eq!(full_acme.authorities[1].limits, full_acme.authorities[0].limits);
    assert_eq!(full_acme.authorities[3].external_account, zerossl(&full_acme.authorities[3]));
    let dns = |name: &str| full_acme.dns.iter().find(|dns| &*dns.name == name).unwrap();
    let usual = dns("cloudflare");
    assert_eq!(
        (usual.delegation, usual.propagation_timeout),
        (dns("hook").delegation, dns("hook").propagation_timeout)
    );
    assert_eq!(plain.edge.min_tls, full.edge.min_tls);
    assert_eq!(plain.edge.trusted_proxies, full.edge.trusted_proxies);
    let limit = full.edge.limit.clone();
    assert_eq!(relais_config::ClientLimits { connections: limit.connections, ..plain.edge.limit }, limit);
    assert_eq!(plain.listeners, full.listeners);
    assert_eq!(plain.metrics, full.metrics);
    assert_eq!(plain.log, full.log);
    let forwards = |config: &relais_config::Config, name: &str| {
        let service = config.services.iter().find(|service| &*service.name == name).unwrap();
        assert_eq!(service.paths, ["/"]);
        match &service.action {
            Action::Forward(forward) => forward.clone(),
            other => panic!("{other:?}"),
        }
    };
    let (plain_api, full_api) = (forwards(&plain, "api"), forwards(&full, "api"));
    assert_eq!(plain_api.retry, full_api.retry);
    assert_eq!(plain_api.outlier, full_api.outlier);
    assert_eq!(plain_api.balance, full_api.balance);
    assert_eq!(plain_api.fail_open, full_api.fail_open);
    assert_eq!(plain_api.host, full_api.host);
    assert_eq!((plain_api.keep_idle, plain_api.keep_idle_for), (full_api.keep_idle, full_api.keep_idle_for));
    assert_eq!(plain_api.backends, full_api.backends);
    let (plain_times, full_times) = (plain_api.timeout, full_api.timeout);
    assert_eq!(
        (plain_times.response, plain_times.idle, plain_times.tunnel),
        (full_times.response, full_times.idle, full_times.tunnel)
    );
    assert_eq!(forwards(&plain, "www").health.jitter, forwards(&full, "www").health.jitter);
}

/// The external account of ZeroSSL when the file says nothing.
fn zerossl(shown: &relais_config::Authority) -> Option<relais_config::ExternalAccount> {
    let text = "[edge]\nemail = \"a@a.fr\"\n".to_owned() + &crate::with("");
    let known = config(&text).acme.authorities[1].clone();
    assert_eq!((&known.name, &known.directory), (&shown.name, &shown.directory));
    known.external_account.clone()
}

/// Whether a table holds `key` at `place`; NAME and SITE stand for any name.
fn holds(value: &Value, place: &[&str], key: &str) -> bool {
    if let Value::Array(list) = value {
        return list.iter().any(|value| holds(value, place, key));
    }
    let Value::Table(table) = value else { return false };
    match place.split_first() {
        None => table.contains_key(key),
        Some((&("NAME" | "SITE"), rest)) => table.values().any(|value| holds(value, rest, key)),
        Some((&name, rest)) => table.get(name).is_some_and(|value| holds(value, rest, key)),
    }
}

#[test]
fn every_key_is_in_the_reference() {
    let table: Table = everything().parse().unwrap();
    let root = Value::Table(table);
    for (place, key) in keys() {
        let place: Vec<&str> = place.split('.').filter(|part| !part.is_empty()).collect();
        assert!(holds(&root, &place, key), "proxy.toml does not show `{key}` of `{}`", place.join("."));
    }
}

#[test]
fn a_real_file_is_usable() {
    let config = config(ACECINEMA);
    let names: Vec<&str> = config.services.iter().map(|service| &*service.name).collect();
    assert_eq!(names, ["api", "stream", "www"], "in the order of the file");
    let sites: Vec<(&str, u32)> = config.sites.iter().map(|site| (&*site.name, site.tier)).collect();
    assert_eq!(sites, [("dijon", 1), ("thory", 2), ("ovh", 3)]);
    let addresses: Vec<String> =
        config.listeners.iter().flat_map(|listener| &listener.addresses).map(ToString::to_string).collect();
    assert_eq!(addresses, ["0.0.0.0:80", "[::]:80", "0.0.0.0:443", "[::]:443"]);
    let Action::Forward(stream) = &config.services[1].action else { panic!("stream forwards") };
    let stream_backends: Vec<(String, &str, u32, u32)> = stream
        .backends
        .iter()
        .map(|backend| (backend.address.to_string(), &*backend.site, backend.tier, backend.weight))
        .collect();
    assert_eq!(
        stream_backends,
        [
            ("10.200.0.23:9000".to_owned(), "dijon", 1, 2),
            ("10.200.0.24:9000".to_owned(), "dijon", 1, 1),
            ("10.200.1.23:9000".to_owned(), "thory", 2, 1)
        ]
    );
    assert_eq!(config.services[2].canonical.as_deref(), Some("acecinema.fr"));
}

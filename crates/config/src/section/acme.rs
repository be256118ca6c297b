//! `[acme]`: what is asked of CAs, and how names are proven to be ours.

use std::sync::Arc;

use crate::fault::Fault;
use crate::reader::Reader;
use crate::section::authority::Authorities;
use crate::section::{dns, refuse_twins};
use crate::shape;
use crate::value::http;
use crate::{Acme, Challenge, KeyKind, OnDemand, Waiting};

const CHALLENGES: [(&str, Challenge); 3] =
    [("http-01", Challenge::Http01), ("tls-alpn-01", Challenge::TlsAlpn01), ("dns-01", Challenge::Dns01)];

const KEYS: [(&str, KeyKind); 5] = [
    ("p256", KeyKind::P256),
    ("p384", KeyKind::P384),
    ("rsa2048", KeyKind::Rsa2048),
    ("rsa4096", KeyKind::Rsa4096),
    ("ed25519", KeyKind::Ed25519),
];

/// Reads `[acme]`.
pub(crate) fn read(root: &Reader<'_>, authorities: &Authorities) -> Acme {
    let table = root.section("acme", &shape::ACME);
    let dns = dns::read(&table);
    Acme {
        authorities: authorities.list.clone(),
        challenges: challenges(&table, !dns.is_empty()),
        key: table.choice("key", &KEYS).unwrap_or(KeyKind::P256),
        reuse_key: table.boolean("reuse_key").unwrap_or(false),
        profile: table.parsed("profile", http::token),
        dns,
        on_demand: on_demand(&table),
        waiting: table
            .choice("waiting", &[("serve", Waiting::Serve), ("unavailable", Waiting::Unavailable)])
            .unwrap_or(Waiting::Serve),
        orders: table.integer("orders", 1..=100).unwrap_or(4),
    }
}

fn challenges(table: &Reader<'_>, has_dns: bool) -> Vec<Challenge> {
    let Some(node) = table.get("challenges") else {
        let usual = [Challenge::Http01, Challenge::TlsAlpn01, Challenge::Dns01];
        return usual.into_iter().filter(|kind| *kind != Challenge::Dns01 || has_dns).collect();
    };
    let entries = node.one_or_many();
    if entries.is_empty() && node.is_list() {
        let fault = Fault::new("no challenge: no name could be proven to be ours").label("empty");
        node.error(fault.help("write `challenges = [\"http-01\", \"tls-alpn-01\"]`"));
    }
    let read: Vec<(Challenge, _)> =
        entries.iter().filter_map(|entry| Some((entry.choice(&CHALLENGES)?, entry.span()))).collect();
    let words: Vec<_> = read.iter().map(|(kind, span)| (kind.as_str(), span.clone())).collect();
    refuse_twins(table.cx, "challenge", &words);
    if let (Some((_, span)), false) = (read.iter().find(|(kind, _)| *kind == Challenge::Dns01), has_dns) {
        let fault = Fault::new("`dns-01` needs someone who changes the DNS").label("no [acme.dns.NAME] in the file");
        table.cx.missing(span.clone(), fault.help("add `[acme.dns.ovh]` with the keys of your provider"));
    }
    read.into_iter().map(|(kind, _)| kind).collect()
}

fn on_demand(acme: &Reader<'_>) -> Option<Arc<OnDemand>> {
    let node = acme.get("on_demand")?;
    let table = node.table(&shape::ON_DEMAND, "write `on_demand = { ask = \"http://127.0.0.1:9000/ask\" }`")?;
    if !table.has("ask") {
        table.missing("ask", "\"http://127.0.0.1:9000/ask\"");
    }
    let (ask, root, per_hour, burst) = (
        table.parsed("ask", http::web_address),
        table.path("root"),
        table.integer("per_hour", 1..=100_000),
        table.integer("burst", 1..=100_000),
    );
    Some(Arc::new(OnDemand { ask: ask?, root, per_hour: per_hour.unwrap_or(20), burst: burst.unwrap_or(20) }))
}

//! `[acme.dns.NAME]`: who changes the DNS for `dns-01`.
//!
//! All keys of all providers are read, so that a mistake in any is told, whichever provider is meant.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::fault::Fault;
use crate::node::Node;
use crate::reader::Reader;
use crate::section::policy::secret_text;
use crate::section::{check_name, header, question, refuse_twins};
use crate::shape;
use crate::value::{address, http};
use crate::{DnsChallenge, DnsProvider, Secret, TsigAlgorithm};

/// Keys that every provider has.
const COMMON: [&str; 5] = ["provider", "zones", "delegation", "propagation_timeout", "resolvers"];

const OVH: &str = "https://eu.api.ovh.com/1.0";
const CLOUDFLARE: &str = "https://api.cloudflare.com/client/v4";

/// A provider's name.
#[derive(Clone, Copy)]
enum Kind {
    Exec,
    Webhook,
    Rfc2136,
    Ovh,
    Cloudflare,
}

const KINDS: [(&str, Kind); 5] = [
    ("exec", Kind::Exec),
    ("webhook", Kind::Webhook),
    ("rfc2136", Kind::Rfc2136),
    ("ovh", Kind::Ovh),
    ("cloudflare", Kind::Cloudflare),
];

impl Kind {
    fn word(self) -> &'static str {
        KINDS[self as usize].0
    }

    /// The keys it has, and whether they are needed, with an example.
    const fn keys(self) -> &'static [(&'static str, Option<&'static str>)] {
        match self {
            Kind::Exec => &[("command", Some("[\"/etc/relais/dns-hook\"]"))],
            Kind::Webhook => &[("url", Some("\"https://hooks.example.org/dns\"")), ("headers", None), ("token", None)],
            Kind::Rfc2136 => &[
                ("server", Some("\"192.0.2.53\"")),
                ("key_name", Some("\"relais\"")),
                ("secret", Some("\"secrets/tsig\"")),
                ("zone", None),
                ("algorithm", None),
            ],
            Kind::Ovh => &[
                ("application_key", Some("\"0123456789abcdef\"")),
                ("application_secret", Some("\"secrets/ovh-application\"")),
                ("consumer_key", Some("\"secrets/ovh-consumer\"")),
                ("endpoint", None),
            ],
            Kind::Cloudflare => &[("token", Some("\"secrets/cloudflare\"")), ("endpoint", None)],
        }
    }
}

/// All keys of all providers.
struct Typed {
    command: Option<(PathBuf, Vec<String>)>,
    url: Option<String>,
    headers: Vec<(String, Secret)>,
    server: Option<SocketAddr>,
    zone: Option<String>,
    key_name: Option<String>,
    algorithm: TsigAlgorithm,
    secret: Option<Secret>,
    endpoint: Option<String>,
    application_key: Option<String>,
    application_secret: Option<Secret>,
    consumer_key: Option<Secret>,
    token: Option<Secret>,
}

/// Reads all of them.
pub(crate) fn read(acme: &Reader<'_>) -> Vec<std::sync::Arc<DnsChallenge>> {
    let help = "write `[acme.dns.ovh]` and under it the keys of the provider";
    let nodes = acme.get("dns").and_then(|node| node.named(help)).unwrap_or_default();
    let mut zones = Vec::new();
    let found: Vec<_> =
        nodes.iter().filter_map(|node| challenge(node, help, &mut zones)).map(std::sync::Arc::new).collect();
    refuse_twins(acme.cx, "zone", &zones);
    let everywhere = |node: &&Node<'_>| found.iter().any(|dns| *dns.name == node.key && dns.zones.is_empty());
    if let Some(second) = nodes.iter().filter(everywhere).nth(1) {
        let fault = Fault::new("two DNS providers have no `zones`: which names are whose is not said");
        acme.cx.error(
            second.span(),
            fault.label("the second one").help("add `zones = [\"example.org\"]` to all, or to all but one"),
        );
    }
    found
}

fn challenge(node: &Node<'_>, help: &str, zones: &mut Vec<(String, crate::context::Span)>) -> Option<DnsChallenge> {
    check_name(node, "DNS provider");
    let table = node.table(&shape::ACME_DNS, help)?;
    let own: Vec<_> = table.get("zones").map(|node| node.one_or_many()).unwrap_or_default();
    let own: Vec<_> = own.iter().filter_map(|entry| Some((entry.parsed(address::host_name)?, entry.span()))).collect();
    zones.extend(own.iter().cloned());
    let resolvers = table.get("resolvers").map(|node| node.one_or_many()).unwrap_or_default();
    let common = DnsChallenge {
        name: node.key.as_str().into(),
        zones: own.into_iter().map(|(zone, _)| zone).collect(),
        provider: DnsProvider::Exec { program: PathBuf::new(), arguments: Vec::new() },
        delegation: table.boolean("delegation").unwrap_or(true),
        propagation_timeout: table.duration("propagation_timeout").unwrap_or(Duration::from_secs(120)),
        resolvers: resolvers.iter().filter_map(|entry| entry.parsed(address::nameserver)).collect(),
    };
    let typed = typed(&table);
    let kind = kind(&table, node)?;
    complete(&table, kind);
    Some(DnsChallenge { provider: provider(kind, typed)?, ..common })
}

/// `provider`, or what the table's own name says.
fn kind(table: &Reader<'_>, node: &Node<'_>) -> Option<Kind> {
    if table.has("provider") {
        return table.choice("provider", &KINDS);
    }
    let named = KINDS.iter().find(|(word, _)| *word == node.key);
    if named.is_none() {
        table.missing("provider", "\"ovh\"");
    }
    named.map(|(_, kind)| *kind)
}

/// Notes keys that the provider needs, and those it does not have.
fn complete(table: &Reader<'_>, kind: Kind) {
    let has = |key: &'static str, file: &'static str| table.has(key) || table.has(file);
    for (key, needed) in kind.keys() {
        let Some(example) = needed else { continue };
        match *key {
            "secret" if has("secret", "secret_file") => {}
            "secret" => table.missing("secret_file", example),
            "token" if has("token", "token_file") => {}
            "token" => table.missing("token_file", example),
            "application_secret" if has("application_secret", "application_secret_file") => {}
            "application_secret" => table.missing("application_secret_file", example),
            "consumer_key" if has("consumer_key", "consumer_key_file") => {}
            "consumer_key" => table.missing("consumer_key_file", example),
            key if table.has(key) => {}
            key => table.missing(key, example),
        }
    }
    let own = |key: &str| {
        let key = key.strip_suffix("_file").unwrap_or(key);
        COMMON.contains(&key) || kind.keys().iter().any(|(known, _)| *known == key)
    };
    for node in shape::ACME_DNS.keys.iter().filter(|key| !own(key)).filter_map(|key| table.get(key)) {
        let fault = Fault::new(format!("`{}` does nothing: this provider is `{}`", node.key, kind.word()));
        let keys: Vec<&str> = kind.keys().iter().map(|(key, _)| *key).collect();
        table
            .cx
            .error(node.key_span.clone(), fault.label("not used").help(format!("its keys are: {}", keys.join(", "))));
    }
}

fn typed(table: &Reader<'_>) -> Typed {
    let algorithms = [
        ("hmac-sha256", TsigAlgorithm::HmacSha256),
        ("hmac-sha384", TsigAlgorithm::HmacSha384),
        ("hmac-sha512", TsigAlgorithm::HmacSha512),
    ];
    let command = table.get("command").and_then(|node| question::command(&node));
    Typed {
        command: command.map(|command| (command.program, command.arguments)),
        url: table.parsed("url", http::web_address),
        headers: headers(table.get("headers")),
        server: table.parsed("server", address::nameserver),
        zone: table.parsed("zone", address::host_name),
        key_name: table.parsed("key_name", address::host_name),
        algorithm: table.choice("algorithm", &algorithms).unwrap_or(TsigAlgorithm::HmacSha256),
        secret: secret_text(table, "secret", "secret_file"),
        endpoint: table.parsed("endpoint", http::web_address),
        application_key: table.string("application_key"),
        application_secret: secret_text(table, "application_secret", "application_secret_file"),
        consumer_key: secret_text(table, "consumer_key", "consumer_key_file"),
        token: secret_text(table, "token", "token_file"),
    }
}

fn headers(node: Option<Node<'_>>) -> Vec<(String, Secret)> {
    let nodes = node.and_then(|node| node.named("write `headers = { X-Name = \"value\" }`"));
    let read = nodes.iter().flatten().filter_map(|node| header(node, http::editable_header));
    read.map(|(name, value)| (name, Secret::new(&value))).collect()
}

/// `None`: a needed key is not there, which was noted.
fn provider(kind: Kind, typed: Typed) -> Option<DnsProvider> {
    Some(match kind {
        Kind::Exec => {
            let (program, arguments) = typed.command?;
            DnsProvider::Exec { program, arguments }
        }
        Kind::Webhook => {
            let mut headers = typed.headers;
            let bearer = |token: Secret| Secret::new(&format!("Bearer {}", token.expose()));
            headers.extend(typed.token.map(|token| ("authorization".to_owned(), bearer(token))));
            DnsProvider::Webhook { url: typed.url?, headers }
        }
        Kind::Rfc2136 => DnsProvider::Rfc2136 {
            server: typed.server?,
            zone: typed.zone,
            key_name: typed.key_name?,
            algorithm: typed.algorithm,
            secret: typed.secret?,
        },
        Kind::Ovh => DnsProvider::Ovh {
            endpoint: typed.endpoint.unwrap_or_else(|| OVH.to_owned()),
            application_key: typed.application_key?,
            application_secret: typed.application_secret?,
            consumer_key: typed.consumer_key?,
        },
        Kind::Cloudflare => DnsProvider::Cloudflare {
            endpoint: typed.endpoint.unwrap_or_else(|| CLOUDFLARE.to_owned()),
            token: typed.token?,
        },
    })
}

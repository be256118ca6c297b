//! `[authority.NAME]`: the CAs, in order of trial.

use std::sync::Arc;

use crate::context::Span;
use crate::fault::{Fault, suggest};
use crate::node::Node;
use crate::reader::Reader;
use crate::section::policy::secret_text;
use crate::section::{check_name, refuse_twins};
use crate::shape;
use crate::value::http;
use crate::{Authority, AuthorityLimits, ExternalAccount};

/// A CA that relais knows by its name.
struct Known {
    name: &'static str,
    directory: &'static str,
    staging: Option<&'static str>,
    eab_from: Option<&'static str>,
    limits: AuthorityLimits,
}

const NO_LIMITS: AuthorityLimits = AuthorityLimits { orders: None, per_domain: None, per_set: None, failures: None };

const KNOWN: [Known; 3] = [
    Known {
        name: "letsencrypt",
        directory: "https://acme-v02.api.letsencrypt.org/directory",
        staging: Some("https://acme-staging-v02.api.letsencrypt.org/directory"),
        eab_from: None,
        // https://letsencrypt.org/docs/rate-limits/
        limits: AuthorityLimits { orders: Some(300), per_domain: Some(50), per_set: Some(5), failures: Some(5) },
    },
    Known {
        name: "zerossl",
        directory: "https://acme.zerossl.com/v2/DV90",
        staging: None,
        eab_from: Some("https://api.zerossl.com/acme/eab-credentials-email"),
        limits: NO_LIMITS,
    },
    Known {
        name: "google",
        directory: "https://dv.acme-v02.api.pki.goog/directory",
        staging: Some("https://dv.acme-v02.test-api.pki.goog/directory"),
        eab_from: None,
        limits: NO_LIMITS,
    },
];

/// Whether it is the directory of a public CA.
pub(crate) fn is_known(directory: &str) -> bool {
    KNOWN.iter().any(|known| known.directory == directory)
}

/// The CAs of a file, and whether it names them itself.
pub(crate) struct Authorities {
    pub(crate) list: Vec<Arc<Authority>>,
    pub(crate) declared: bool,
}

/// Reads all of them. Without any: Let's Encrypt, then ZeroSSL when there is an e-mail address to introduce us with.
pub(crate) fn read(root: &Reader<'_>, email: Option<&str>) -> Authorities {
    let help = "write `[authority.house]` and under it `directory = \"https://ca.example.org/acme/directory\"`";
    let Some(node) = root.get("authority") else {
        let usable = |known: &&Known| known.name == "letsencrypt" || (known.name == "zerossl" && email.is_some());
        let list = KNOWN.iter().filter(usable).map(|known| Arc::new(of_known(known))).collect();
        return Authorities { list, declared: false };
    };
    let nodes = node.named(help).unwrap_or_default();
    if nodes.is_empty() && node.is_table() {
        let fault = Fault::new("no authority: nobody would be asked for certificates").label("no authority in here");
        root.cx.missing(node.key_span.clone(), fault.help("take it out for Let's Encrypt, or add one"));
    }
    let read: Vec<(Authority, Span)> = nodes.iter().filter_map(|node| authority(node, email, help)).collect();
    let directories: Vec<(String, Span)> =
        read.iter().map(|(authority, span)| (authority.directory.clone(), span.clone())).collect();
    refuse_twins(root.cx, "directory", &directories);
    Authorities { list: read.into_iter().map(|(authority, _)| Arc::new(authority)).collect(), declared: true }
}

fn of_known(known: &Known) -> Authority {
    Authority {
        name: known.name.into(),
        directory: known.directory.to_owned(),
        staging: known.staging.map(str::to_owned),
        root: None,
        external_account: known.eab_from.map(|url| ExternalAccount::ByEmail { url: url.to_owned() }),
        profile: None,
        limits: known.limits,
    }
}

fn authority(node: &Node<'_>, email: Option<&str>, help: &str) -> Option<(Authority, Span)> {
    check_name(node, "authority");
    let table = node.table(&shape::AUTHORITY, help)?;
    let directory = table.parsed("directory", http::secure_address);
    let known = match (&directory, table.get("directory")) {
        (Some(directory), _) => KNOWN.iter().find(|known| known.directory == directory),
        (None, Some(_)) => None,
        (None, None) => {
            let known = KNOWN.iter().find(|known| known.name == node.key);
            if known.is_none() {
                no_directory(&table, &node.key);
            }
            known
        }
    };
    let span = table.get("directory").map_or_else(|| node.span(), |node| node.span());
    let rest = read_rest(&table, known, email);
    let directory = directory.or_else(|| known.map(|known| known.directory.to_owned()))?;
    Some((Authority { name: node.key.as_str().into(), directory, ..rest }, span))
}

fn no_directory(table: &Reader<'_>, name: &str) {
    let names = KNOWN.map(|known| known.name);
    let fault = Fault::new(format!("`{}` has no `directory`, and relais knows no CA of that name", table.path));
    let help = format!("add `directory = \"https://...\"`; {}", suggest(name, &names, "names that need none"));
    table.cx.missing(table.span.clone(), fault.label("`directory` is missing").help(help));
}

/// All but its name and its directory.
fn read_rest(table: &Reader<'_>, known: Option<&Known>, email: Option<&str>) -> Authority {
    Authority {
        name: "".into(),
        directory: String::new(),
        staging: table
            .parsed("staging", http::secure_address)
            .or_else(|| known.and_then(|known| known.staging.map(str::to_owned))),
        root: table.path("root"),
        external_account: external_account(table, known, email),
        profile: table.parsed("profile", http::token),
        limits: limits(&table.section("limits", &shape::AUTHORITY_LIMITS), known),
    }
}

fn external_account(table: &Reader<'_>, known: Option<&Known>, email: Option<&str>) -> Option<ExternalAccount> {
    let key_id = table.string("eab_key_id");
    let hmac = secret_text(table, "eab_hmac", "eab_hmac_file");
    let url = table.parsed("eab_from", http::web_address);
    let given = table.has("eab_hmac") || table.has("eab_hmac_file");
    match (table.has("eab_key_id"), given) {
        (true, false) => table.missing("eab_hmac_file", "\"secrets/eab\""),
        (false, true) => table.missing("eab_key_id", "\"the id the CA gave you\""),
        _ => {}
    }
    if let (Some(node), true) = (table.get("eab_from"), given) {
        let fault = Fault::new("the account's key is given, and is to be asked for by e-mail too").label("not used");
        table.cx.error(node.key_span, fault.help("keep `eab_key_id` and `eab_hmac_file`, or `eab_from`"));
    }
    if let (Some(key_id), Some(hmac)) = (key_id, hmac) {
        return Some(ExternalAccount::Given { key_id, hmac });
    }
    let url = url.or_else(|| known.and_then(|known| known.eab_from.map(str::to_owned)))?;
    if email.is_none() && !table.has("eab_key_id") && !given {
        let fault = Fault::new(format!("`{}` ties its account to an e-mail address, but there is none", table.path));
        let help = "add `email = \"you@example.org\"` to [edge], or `eab_key_id` and `eab_hmac_file` here";
        table.cx.missing(table.span.clone(), fault.label("needs an e-mail address").help(help));
    }
    Some(ExternalAccount::ByEmail { url })
}

fn limits(table: &Reader<'_>, known: Option<&Known>) -> AuthorityLimits {
    let usual = known.map_or(NO_LIMITS, |known| known.limits);
    let limit = |key, usual| match table.integer(key, 0..=1_000_000_u32) {
        Some(0) => None,
        Some(limit) => Some(limit),
        None => usual,
    };
    AuthorityLimits {
        orders: limit("orders", usual.orders),
        per_domain: limit("per_domain", usual.per_domain),
        per_set: limit("per_set", usual.per_set),
        failures: limit("failures", usual.failures),
    }
}

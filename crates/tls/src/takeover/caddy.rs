//! The data folder of Caddy: `certificates/CA/NAME/NAME.{crt,key,json}` and `acme/CA/users/WHO/WHO.{json,key}`. Reads it.

use std::path::Path;

use relais_core::config::Secret;
use serde::Deserialize;

use super::{Found, FoundAccount, FoundCertificate, inside, name, text};

/// The folder of Caddy's own CA. Nobody trusts what it signed, and relais has one of its own.
const LOCAL: &str = "local";

/// What Caddy keeps of an account, as far as it matters.
#[derive(Deserialize)]
struct Registration {
    location: String,
}

/// Reads all of it. What one host lacks does not hide the others.
pub(super) fn read(data: &Path) -> Found {
    let mut found = Found::default();
    for ca in inside(&data.join("certificates")).into_iter().filter(|ca| name(ca) != LOCAL) {
        for host in inside(&ca).into_iter().filter(|host| host.is_dir()) {
            match certificate(&host, name(&ca)) {
                Ok(certificate) => found.certificates.push(certificate),
                Err(why) => found.left.push((host, why)),
            }
        }
    }
    for ca in inside(&data.join("acme")) {
        for user in inside(&ca.join("users")).into_iter().filter(|user| user.is_dir()) {
            match account(&user, name(&ca)) {
                Ok(account) => found.accounts.push(account),
                Err(why) => found.left.push((user, why)),
            }
        }
    }
    found
}

fn certificate(host: &Path, ca: &str) -> Result<FoundCertificate, String> {
    let file = host.join(format!("{}.crt", name(host)));
    let key_pem = Secret::new(&text(&host.join(format!("{}.key", name(host))))?);
    Ok(FoundCertificate { chain_pem: text(&file)?, key_pem, origin: ca.to_owned(), file })
}

/// The files are called after the part of the address before the `@`.
fn account(user: &Path, ca: &str) -> Result<FoundAccount, String> {
    let has_key = |path: &&std::path::PathBuf| path.extension().is_some_and(|extension| extension == "key");
    let Some(file) = inside(user).iter().find(has_key).cloned() else { return Err("there is no key".to_owned()) };
    let registration = text(&file.with_extension("json"))?;
    // A Caddy that registers twice at once can write the shorter answer over the longer one: the rest of that stays behind it.
    let Registration { location } = serde_json::Deserializer::from_str(&registration)
        .into_iter()
        .next()
        .unwrap_or_else(|| serde_json::from_str(&registration))
        .map_err(|fault| format!("{}: {fault}", name(&file.with_extension("json"))))?;
    if location.is_empty() {
        return Err("it was never registered at the CA".to_owned());
    }
    Ok(FoundAccount { key_pem: Secret::new(&text(&file)?), origin: ca.to_owned(), url: location, file })
}

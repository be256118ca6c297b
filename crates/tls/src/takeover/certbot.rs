//! The folder of certbot: `live/NAME/{fullchain,privkey}.pem`, `renewal/NAME.conf` for who signed it. Reads it.
//!
//! Its accounts have RSA keys, kept as JWK: relais makes an account of its own, which costs no certificate.

use std::path::Path;

use relais_core::config::Secret;

use super::{Found, FoundCertificate, inside, name, text};

/// Reads all of it. What one certificate lacks does not hide the others.
pub(super) fn read(root: &Path) -> Found {
    let mut found = Found::default();
    for lineage in inside(&root.join("live")).into_iter().filter(|lineage| lineage.is_dir()) {
        let renewal = text(&root.join("renewal").join(format!("{}.conf", name(&lineage)))).unwrap_or_default();
        match certificate(&lineage, &renewal) {
            Ok(certificate) => found.certificates.push(certificate),
            Err(why) => found.left.push((lineage, why)),
        }
    }
    for account in accounts(&root.join("accounts"), 0) {
        let why = "an account of certbot: relais makes one of its own, which costs no certificate";
        found.left.push((account, why.to_owned()));
    }
    found
}

fn certificate(lineage: &Path, renewal: &str) -> Result<FoundCertificate, String> {
    let file = lineage.join("fullchain.pem");
    let key_pem = Secret::new(&text(&lineage.join("privkey.pem"))?);
    Ok(FoundCertificate { chain_pem: text(&file)?, key_pem, origin: server(renewal).to_owned(), file })
}

/// `server = URL` of a renewal file. Empty where there is none.
fn server(renewal: &str) -> &str {
    let pairs = renewal.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == "server").map_or("", |(_, url)| url)
}

/// `accounts/HOST/PATH.../HASH/private_key.json`.
fn accounts(folder: &Path, depth: usize) -> Vec<std::path::PathBuf> {
    if depth > 6 {
        return Vec::new();
    }
    let below = inside(folder).into_iter().filter(|path| path.is_dir() && !path.is_symlink());
    below
        .flat_map(|path| if path.join("private_key.json").exists() { vec![path] } else { accounts(&path, depth + 1) })
        .collect()
}

//! Certificates and accounts as values: what the store is given and gives back. Touches nothing.
//!
//! Keys are in here. Nothing of this shows them.

use relais_core::config::Secret;
use relais_core::hash;
use serde::{Deserialize, Serialize};

/// A secret on its way to the disk and back: nowhere else is its text written.
mod hidden {
    use relais_core::config::Secret;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(secret.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
        String::deserialize(from).map(|text| Secret::new(&text))
    }
}

/// A certificate with its key, as it must survive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptCertificate {
    /// Which one: the first of its hosts. There is one of each name.
    pub name: String,
    /// Who signed it: the name of an authority, a folder of the mirror.
    pub authority: String,
    /// What the caller wants to know about it at the next start: a JSON value.
    pub about: serde_json::Value,
    /// The certificate and those that lead to the root, in PEM.
    pub chain_pem: String,
    /// Its private key, in PEM.
    #[serde(with = "hidden")]
    pub key_pem: Secret,
}

/// An account at an authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAccount {
    /// At which authority. There is one of each.
    pub authority: String,
    /// Whatever its owner needs to use it: a JSON text.
    #[serde(with = "hidden")]
    pub account: Secret,
}

/// Something kept, and how often it changed: of two copies, the one of the larger revision is the newer one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revised<T> {
    pub(crate) revision: u64,
    pub(crate) what: T,
}

impl Revised<KeptCertificate> {
    /// Over all of it: files that do not belong together do not have it.
    pub(crate) fn checksum(&self) -> String {
        let KeptCertificate { name, authority, about, chain_pem, key_pem } = &self.what;
        sum(&[name, authority, &self.revision.to_string(), &about.to_string(), chain_pem, key_pem.expose()])
    }
}

impl Revised<KeptAccount> {
    /// Over all of it.
    pub(crate) fn checksum(&self) -> String {
        let KeptAccount { authority, account } = &self.what;
        sum(&[authority, &self.revision.to_string(), account.expose()])
    }
}

fn sum(parts: &[&str]) -> String {
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    format!("{:016x}", hash::stable(&parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_shows_nowhere() {
        let key = Secret::new("-----BEGIN PRIVATE KEY----- xyzzy");
        let kept = Revised {
            revision: 1,
            what: KeptCertificate {
                name: "a.fr".into(),
                authority: "ca".into(),
                about: serde_json::json!({}),
                chain_pem: String::new(),
                key_pem: key.clone(),
            },
        };
        let account = KeptAccount { authority: "ca".into(), account: Secret::new("xyzzy") };
        let shown = format!("{key:?} {kept:?} {account:?}");
        assert!(!shown.contains("xyzzy") && shown.contains("Secret(..)"), "{shown}");
    }

    #[test]
    fn the_checksum_covers_everything() {
        let base = Revised {
            revision: 1,
            what: KeptCertificate {
                name: "a.fr".into(),
                authority: "ca".into(),
                about: serde_json::json!({ "hosts": ["a.fr"] }),
                chain_pem: "chain".into(),
                key_pem: Secret::new("key"),
            },
        };
        let changes: [fn(&mut Revised<KeptCertificate>); 6] = [
            |kept| kept.revision = 2,
            |kept| kept.what.name = "b.fr".into(),
            |kept| kept.what.authority = "cb".into(),
            |kept| kept.what.about = serde_json::json!({ "hosts": [] }),
            |kept| kept.what.chain_pem = "chaim".into(),
            |kept| kept.what.key_pem = Secret::new("kez"),
        ];
        for (place, change) in changes.iter().enumerate() {
            let mut other = base.clone();
            change(&mut other);
            assert_ne!(base.checksum(), other.checksum(), "change {place}");
        }
    }
}

//! What the files of `[certificate.NAME]` held when they were good, for a start that finds one damaged. As a text that the
//! caller keeps: keys are in it. Touches nothing.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use relais_core::config::Secret;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use crate::secret;

/// By name of the certificate.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Copies(BTreeMap<String, Copy>);

/// Base64 of DER.
#[derive(Debug, Serialize, Deserialize)]
struct Copy {
    chain: Vec<String>,
    #[serde(with = "secret")]
    key: Secret,
}

impl Copies {
    /// From the text; what cannot be read is none.
    pub(crate) fn read(text: &Secret) -> Copies {
        serde_json::from_str(text.expose()).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> Secret {
        Secret::new(&serde_json::to_string(self).unwrap_or_default())
    }

    pub(crate) fn put(&mut self, name: &str, chain: &[CertificateDer<'_>], key: &PrivateKeyDer<'_>) {
        let chain = chain.iter().map(|one| STANDARD.encode(one)).collect();
        let key = Secret::new(&STANDARD.encode(key.secret_der()));
        self.0.insert(name.to_owned(), Copy { chain, key });
    }

    /// The pair of this name, and keeps it for the next time.
    pub(crate) fn take_over(
        &mut self,
        name: &str,
        before: &Copies,
    ) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let Copy { chain, key } = before.0.get(name)?;
        let chain =
            chain.iter().map(|one| STANDARD.decode(one).map(CertificateDer::from)).collect::<Result<Vec<_>, _>>();
        let (chain, key) = (chain.ok()?, PrivateKeyDer::try_from(STANDARD.decode(key.expose()).ok()?).ok()?);
        self.put(name, &chain, &key);
        Some((chain, key))
    }
}

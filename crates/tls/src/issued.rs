//! Certificates that were ordered: from PEM text to what is served. Touches nothing: who ordered them keeps them.

use arc_swap::ArcSwapOption;
use std::sync::Arc;

use relais_core::config::Secret;

use crate::certificate::{CertSource, Certificate};
use crate::pair;
use crate::problem::CertProblem;
use crate::x509;

/// A certificate from a public CA, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The name it is kept under: the next one under this name takes its place.
    pub name: String,
    /// The certificate and those that lead to the root, PEM.
    pub chain_pem: String,
    /// Its key, PEM.
    pub key_pem: Secret,
}

impl Issued {
    pub(crate) fn certificate(&self) -> Result<Arc<Certificate>, CertProblem> {
        let key = pair::read(&self.chain_pem, &self.key_pem).map_err(|why| self.unusable(&why))?;
        let leaf = key.cert.first().map_or(&[][..], |leaf| leaf.as_ref());
        let facts = x509::facts(leaf).map_err(|why| self.unusable(&why))?;
        Ok(Arc::new(Certificate {
            name: self.name.clone(),
            source: CertSource::Acme,
            hosts: facts.hosts,
            issuer: facts.issuer,
            file: None,
            not_before: facts.not_before,
            not_after: facts.not_after,
            key: Arc::new(key),
            shown: false.into(),
            must_staple: facts.must_staple,
            stapled: ArcSwapOption::empty(),
        }))
    }

    fn unusable(&self, why: &str) -> CertProblem {
        CertProblem {
            certificate: self.name.clone(),
            file: None,
            message: format!("the certificate that was ordered cannot be served: {why}"),
            help: "it is ordered again; what was served before serves on".to_string(),
        }
    }
}

//! What an order ends in: a certificate and its key, read and found to be what was ordered. Touches nothing.

use instant_acme::CertificateIdentifier;
use relais_core::Instant;
use relais_core::config::Secret;
use rustls::pki_types::CertificateDer;

use super::fault::{FaultKind, OrderFault};
use crate::pair;
use crate::x509;

/// A certificate with its key, ready to be kept and served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// The certificate and those that lead to the root, PEM.
    pub chain_pem: String,
    /// PKCS#8, PEM.
    pub key_pem: Secret,
    /// The names and addresses it covers, lower case.
    pub hosts: Vec<String>,
    /// Who signed it.
    pub issuer: String,
    /// Begin of its validity.
    pub not_before: Instant,
    /// End of its validity.
    pub not_after: Instant,
    /// Its id for renewal information (RFC 9773, section 4.1).
    pub ari_id: Option<String>,
    /// SHA-256 of the certificate as browsers show it: `AB:CD:...`.
    pub fingerprint: String,
}

/// Reads what a CA delivered for `hosts`.
pub(super) fn read(chain_pem: String, key_pem: Secret, hosts: &[String]) -> Result<Product, OrderFault> {
    let product = inspect(chain_pem, key_pem).map_err(|why| {
        OrderFault::new(FaultKind::Refused, format!("the certificate from the CA is unusable: {why}"))
    })?;
    match hosts.iter().find(|host| !product.hosts.contains(&host.to_ascii_lowercase())) {
        None => Ok(product),
        Some(host) => Err(OrderFault::new(
            FaultKind::Refused,
            format!("the CA delivered a certificate that does not cover {host}"),
        )),
    }
}

/// Reads a certificate and its key from PEM, wherever they come from: of another program, from the disk.
///
/// # Errors
/// Why they cannot be served: no PEM, or a key that belongs to another certificate.
pub fn inspect(chain_pem: String, key_pem: Secret) -> Result<Product, String> {
    let key = pair::read(&chain_pem, &key_pem)?;
    let leaf = key.cert.first().ok_or("it is empty")?;
    let facts = x509::facts(leaf)?;
    Ok(Product {
        hosts: facts.hosts,
        issuer: facts.issuer,
        not_before: facts.not_before,
        not_after: facts.not_after,
        ari_id: ari_id(leaf),
        fingerprint: x509::fingerprint(leaf),
        chain_pem,
        key_pem,
    })
}

fn ari_id(leaf: &CertificateDer<'_>) -> Option<String> {
    CertificateIdentifier::try_from(leaf).ok().map(|id| id.to_string())
}

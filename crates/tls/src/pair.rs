//! A certificate chain and its key from PEM text, proven to belong together. Touches nothing.

use relais_core::config::Secret;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use crate::provider::provider;

/// Reads them. `Err`: why they cannot be served.
pub(crate) fn read(chain_pem: &str, key_pem: &Secret) -> Result<CertifiedKey, String> {
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|fault| format!("the certificate is damaged: {fault}"))?;
    if chain.is_empty() {
        return Err("there is no certificate in it".to_string());
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem.expose().as_bytes())
        .map_err(|fault| format!("the key is damaged: {fault}"))?;
    let key = provider().key_provider.load_private_key(key).map_err(|_| "TLS cannot use this kind of key")?;
    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(pair),
        Err(Error::InconsistentKeys(_)) => Err("the key does not belong to the certificate".to_string()),
        Err(fault) => Err(format!("the certificate cannot be used: {fault}")),
    }
}

//! Keys of certificates, and the request for one (CSR). Touches nothing but the random source.

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    PKCS_RSA_SHA256, RsaKeySize,
};
use relais_core::config::{KeyKind, Secret};

/// A key and the request that asks a CA to certify it for some hosts.
pub(super) struct Request {
    /// PKCS#8, PEM.
    pub(super) key_pem: Secret,
    /// PKCS#10, DER.
    pub(super) csr: Vec<u8>,
}

/// Makes the request, with `kept` as its key when that is of the right kind, else with a new one. Takes seconds for RSA
/// 4096, so it runs beside the others. `Err`: why it cannot be made.
pub(super) async fn request(hosts: &[String], kind: KeyKind, kept: Option<&Secret>) -> Result<Request, String> {
    let (hosts, kept) = (hosts.to_vec(), kept.cloned());
    let made = tokio::task::spawn_blocking(move || {
        let key = match kept.and_then(|pem| KeyPair::from_pem(pem.expose()).ok()).filter(|key| is_kind(key, kind)) {
            Some(key) => key,
            None => generate(kind)?,
        };
        let mut params = CertificateParams::new(hosts).map_err(said)?;
        // CAs read the subjectAltName alone; a common name longer than 64 characters would be refused.
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key).map_err(said)?.der().to_vec();
        Ok(Request { key_pem: Secret::new(&key.serialize_pem()), csr })
    });
    made.await.map_err(|fault| format!("the key could not be made: {fault}"))?
}

fn generate(kind: KeyKind) -> Result<KeyPair, String> {
    match kind {
        KeyKind::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        KeyKind::P384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
        KeyKind::Ed25519 => KeyPair::generate_for(&PKCS_ED25519),
        KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        KeyKind::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
    }
    .map_err(said)
}

fn is_kind(key: &KeyPair, kind: KeyKind) -> bool {
    let algorithm = key.algorithm();
    // An RSA public key is its modulus and some 20 bytes around it.
    let bytes = key.public_key_raw().len();
    match kind {
        KeyKind::P256 => algorithm == &PKCS_ECDSA_P256_SHA256,
        KeyKind::P384 => algorithm == &PKCS_ECDSA_P384_SHA384,
        KeyKind::Ed25519 => algorithm == &PKCS_ED25519,
        KeyKind::Rsa2048 => algorithm == &PKCS_RSA_SHA256 && (256..384).contains(&bytes),
        KeyKind::Rsa4096 => algorithm == &PKCS_RSA_SHA256 && (512..640).contains(&bytes),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn said(fault: rcgen::Error) -> String {
    format!("the key or its request cannot be made: {fault}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kept_key_is_used_again_unless_another_kind_is_wanted() {
        let hosts = ["a.fr".to_string()];
        for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519, KeyKind::Rsa2048] {
            let first = request(&hosts, kind, None).await.unwrap();
            let again = request(&hosts, kind, Some(&first.key_pem)).await.unwrap();
            assert_eq!(first.key_pem, again.key_pem, "{kind:?}");
            let other = if kind == KeyKind::P384 { KeyKind::P256 } else { KeyKind::P384 };
            let new = request(&hosts, other, Some(&first.key_pem)).await.unwrap();
            assert_ne!(first.key_pem, new.key_pem, "{kind:?}");
        }
        let fresh = request(&hosts, KeyKind::P256, None).await.unwrap();
        assert_ne!(fresh.key_pem, request(&hosts, KeyKind::P256, None).await.unwrap().key_pem);
    }

    #[tokio::test]
    async fn a_damaged_kept_key_costs_nothing_but_itself() {
        let damaged = Secret::new("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
        request(&["a.fr".to_string()], KeyKind::P256, Some(&damaged)).await.unwrap();
    }
}

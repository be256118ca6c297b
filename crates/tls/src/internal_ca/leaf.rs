//! Certificates signed by the local CA. Made in memory, short-lived, never written.

use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use relais_core::Instant;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;

use super::Authority;
use crate::certificate::{CertSource, Certificate};
use crate::provider::provider;
use crate::x509;

/// How long one is valid.
pub(super) const LIFE: Duration = Duration::from_secs(30 * 86_400);
/// How long before its end another one is made.
pub(crate) const RENEW_BEFORE: Duration = Duration::from_secs(10 * 86_400);
/// Clocks of clients may be behind ours.
const SKEW: Duration = Duration::from_secs(86_400);

/// A P-256 certificate for `hosts` (names, wildcards, addresses). `Err`: why none can be made.
pub(crate) fn issue(authority: &Authority, name: &str, hosts: &[String], now: Instant) -> Result<Certificate, String> {
    let said = |fault: rcgen::Error| fault.to_string();
    let mut params = CertificateParams::new(hosts).map_err(said)?;
    params.distinguished_name = DistinguishedName::new();
    // A common name has at most 64 characters (RFC 5280, appendix A.1); clients read the subjectAltName.
    if name.len() <= 64 {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now - SKEW, now + LIFE);
    let key = KeyPair::generate().map_err(said)?;
    let der = params.signed_by(&key, &authority.issuer).map_err(said)?.der().clone();
    let facts = x509::facts(&der)?;
    let key = CertifiedKey::from_der(vec![der], PrivatePkcs8KeyDer::from(key.serialize_der()).into(), provider())
        .map_err(|fault| fault.to_string())?;
    Ok(Certificate {
        name: name.to_string(),
        source: CertSource::Internal,
        hosts: facts.hosts,
        issuer: facts.issuer,
        file: None,
        not_before: facts.not_before,
        not_after: facts.not_after,
        key: Arc::new(key),
        shown: false.into(),
        must_staple: facts.must_staple,
        stapled: ArcSwapOption::empty(),
    })
}

/// In whole seconds: a certificate holds no more.
pub(super) fn set_validity(params: &mut CertificateParams, from: Instant, until: Instant) {
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from.0 / 1_000_000);
    params.not_after = epoch + Duration::from_secs(until.0 / 1_000_000);
}

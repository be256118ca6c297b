//! What a certificate says of itself. Parses bytes, touches nothing.

use std::net::IpAddr;

use aws_lc_rs::digest;
use relais_core::Instant;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

use crate::clock;

/// The subject of a certificate in words, as `CN=anna, O=Example`; `None`: it cannot be read.
#[must_use]
pub fn subject(certificate: &[u8]) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.subject().to_string())
}

/// The extension by which a certificate asks for features of TLS.
const TLS_FEATURE: &str = "1.3.6.1.5.5.7.1.24";

/// The parts of a certificate relais reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Lower case names and addresses of its subjectAltName; the common name when it has none.
    pub(crate) hosts: Vec<String>,
    /// Whether `hosts` come from a subjectAltName. Clients have not looked at the common name for years (RFC 9525).
    pub(crate) has_alt_names: bool,
    /// Common name of the signer, or all of its name.
    pub(crate) issuer: String,
    pub(crate) not_before: Instant,
    pub(crate) not_after: Instant,
    /// Whether it may sign others.
    pub(crate) is_ca: bool,
    /// Whether clients are to refuse it without a stapled proof (RFC 7633).
    pub(crate) must_staple: bool,
    /// Its SubjectPublicKeyInfo, DER.
    pub(crate) public_key: Vec<u8>,
}

/// Reads one certificate. `Err`: why it is none.
pub(crate) fn facts(der: &[u8]) -> Result<Facts, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|fault| fault.to_string())?;
    let alt_names = certificate.subject_alternative_name().map_err(|fault| fault.to_string())?;
    let has_alt_names = alt_names.is_some();
    let hosts = match alt_names {
        Some(names) => names.value.general_names.iter().filter_map(host).collect(),
        None => common_name(certificate.subject()).map(|name| name.to_ascii_lowercase()).into_iter().collect(),
    };
    let validity = certificate.validity();
    Ok(Facts {
        hosts,
        has_alt_names,
        issuer: common_name(certificate.issuer()).unwrap_or_else(|| certificate.issuer().to_string()),
        not_before: clock::from_unix(validity.not_before.timestamp()),
        not_after: clock::from_unix(validity.not_after.timestamp()),
        is_ca: certificate.is_ca(),
        must_staple: certificate
            .extensions()
            .iter()
            .any(|one| one.oid.to_id_string() == TLS_FEATURE && asks_status(one.value)),
        public_key: certificate.public_key().raw.to_vec(),
    })
}

/// Whether `status_request` (5) is among the features, a sequence of small numbers (RFC 7633, section 4.1).
fn asks_status(features: &[u8]) -> bool {
    features.get(2..).is_some_and(|numbers| numbers.windows(3).any(|number| number == [0x02, 0x01, 0x05]))
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
            _ => None,
        },
        _ => None,
    }
}

fn common_name(name: &X509Name<'_>) -> Option<String> {
    name.iter_common_name().next().and_then(|part| part.as_str().ok()).map(str::to_string)
}

/// SHA-256 of a certificate as browsers show it: `AB:CD:...`.
pub(crate) fn fingerprint(der: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, der);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

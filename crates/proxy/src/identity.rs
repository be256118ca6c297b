//! Who a client's certificate says it is, for backends: `Client-Cert` (RFC 9440) and the subject in words. Clients cannot
//! say it themselves: what they send under these names is dropped. Touches nothing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderName, HeaderValue};

const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");
const SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");

/// The certificate a client has proven to hold, as fields.
#[derive(Debug)]
pub(crate) struct Identity {
    certificate: Option<HeaderValue>,
    subject: Option<HeaderValue>,
}

impl Identity {
    /// Of a certificate in DER.
    pub(crate) fn of(certificate: &[u8]) -> Self {
        // RFC 9440 2.2: a byte sequence of structured fields (RFC 8941 3.3.5).
        let field = format!(":{}:", STANDARD.encode(certificate));
        let subject = relais_tls::subject(certificate);
        Self {
            certificate: HeaderValue::from_str(&field).ok(),
            subject: subject.and_then(|subject| HeaderValue::from_bytes(subject.as_bytes()).ok()),
        }
    }
}

/// Drops what the client says about itself, and sets what it has proven.
pub(crate) fn set(headers: &mut HeaderMap, identity: Option<&Identity>) {
    for name in [CLIENT_CERT, CLIENT_CERT_CHAIN, SUBJECT] {
        headers.remove(name);
    }
    let Some(Identity { certificate, subject }) = identity else { return };
    for (name, value) in [(CLIENT_CERT, certificate), (SUBJECT, subject)] {
        if let Some(value) = value {
            headers.insert(name, value.clone());
        }
    }
}

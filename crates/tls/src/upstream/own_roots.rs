//! `ca = "FILE"`: believes the CAs of that file, and the very certificates listed there.
//!
//! The second half is why this room exists: a backend with a self-signed certificate is declared by naming it in `ca`, and
//! the library's verifier refuses a certificate that is its own CA. Name and dates are checked in both cases.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::clock;
use crate::pem::Trouble;
use crate::provider::provider;
use crate::x509;

/// The certificates of one `ca` file.
#[derive(Debug)]
pub(super) struct OwnRoots {
    chains: Arc<WebPkiServerVerifier>,
    listed: Vec<CertificateDer<'static>>,
}

impl OwnRoots {
    pub(super) fn new(listed: Vec<CertificateDer<'static>>) -> Result<Self, Trouble> {
        let mut roots = RootCertStore::empty();
        for certificate in &listed {
            roots.add(certificate.clone()).map_err(|fault| {
                Trouble::new(
                    format!("holds a certificate that cannot be used: {fault}"),
                    "name a PEM file of X.509 certificates",
                )
            })?;
        }
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider()))
            .build()
            .map_err(|fault| Trouble::new(format!("cannot be used: {fault}"), "name a PEM file of CA certificates"))?;
        Ok(Self { chains, listed })
    }
}

impl ServerCertVerifier for OwnRoots {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.listed.contains(end_entity) {
            return self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        }
        let facts = x509::facts(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let now = clock::from_unix(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        if now > facts.not_after {
            return Err(CertificateError::Expired.into());
        }
        if now < facts.not_before {
            return Err(CertificateError::NotValidYet.into());
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

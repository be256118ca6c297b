//! What a handshake with a client needs besides the certificate: versions, ALPN, tickets. Touches nothing.

use std::sync::Arc;

use relais_core::config::TlsVersion;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

use crate::acme::ACME_TLS;
use crate::provider::provider;

/// One ready setting per lowest version, sharing one ticket key, so that a change of `min_tls` or of a certificate does not
/// end the sessions clients may resume.
#[derive(Debug, Clone)]
pub(crate) struct Acceptor {
    from_tls12: ServerConfig,
    from_tls13: ServerConfig,
}

impl Acceptor {
    /// `Err`: the random source failed.
    pub(crate) fn new() -> Result<Self, rustls::Error> {
        let from_tls12 = template(&[&TLS13, &TLS12])?;
        let mut from_tls13 = template(&[&TLS13])?;
        from_tls13.ticketer = Arc::clone(&from_tls12.ticketer);
        Ok(Self { from_tls12, from_tls13 })
    }

    /// Settings that ask `resolver` for the certificate.
    pub(crate) fn server_config(&self, lowest: TlsVersion, resolver: Arc<dyn ResolvesServerCert>) -> Arc<ServerConfig> {
        let template = match lowest {
            TlsVersion::Tls12 => &self.from_tls12,
            TlsVersion::Tls13 => &self.from_tls13,
        };
        let mut config = template.clone();
        config.cert_resolver = resolver;
        Arc::new(config)
    }
}

fn template(versions: &[&'static SupportedProtocolVersion]) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Nobody));
    // The last one is for the CA alone: whoever offers more than that gets one of the others.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), ACME_TLS.to_vec()];
    // Tickets are stateless: resumption costs no memory here, and works on every worker. The keys change every 6 hours.
    config.ticketer = Ticketer::new()?;
    // Early data can be replayed by anyone who recorded it (RFC 8446, section 8): it stays off.
    config.max_early_data_size = 0;
    Ok(config)
}

/// The resolver of a template: replaced before a handshake sees it.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

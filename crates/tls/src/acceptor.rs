//! What a handshake with a client needs besides the certificate: versions, ALPN, tickets, the client's own certificate.
//! May read the CA files of clients' certificates.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use relais_core::config::{ClientCertificate, ClientTls, TlsVersion};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::acme::ACME_TLS;
use crate::pem::{self, Trouble};
use crate::provider::provider;
use crate::tickets::Tickets;

/// Settings by what is asked of clients, made at first use. All share one set of ticket keys, so that a change of `min_tls`
/// or of a certificate does not end the sessions clients may resume.
#[derive(Debug)]
pub(crate) struct Acceptor {
    tickets: Arc<Tickets>,
    ready: Mutex<HashMap<ClientTls, Arc<ServerConfig>>>,
}

impl Acceptor {
    pub(crate) fn new(tickets: Arc<Tickets>) -> Self {
        Self { tickets, ready: Mutex::default() }
    }

    /// Settings that ask `resolver` for the certificate. `Err`: the CA file cannot be used, in words.
    pub(crate) fn server_config(
        &self,
        asked: &ClientTls,
        resolver: impl FnOnce() -> Arc<dyn ResolvesServerCert>,
    ) -> Result<Arc<ServerConfig>, String> {
        let mut ready = self.ready.lock();
        if let Some(config) = ready.get(asked) {
            return Ok(Arc::clone(config));
        }
        let mut config = settings(asked, &self.tickets)?;
        config.cert_resolver = resolver();
        let config = Arc::new(config);
        ready.insert(asked.clone(), Arc::clone(&config));
        Ok(config)
    }

    /// Reads the CA files again at the next handshake.
    pub(crate) fn clear(&self) {
        self.ready.lock().clear();
    }
}

fn settings(asked: &ClientTls, tickets: &Arc<Tickets>) -> Result<ServerConfig, String> {
    let versions: &[&'static SupportedProtocolVersion] = match asked.lowest {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let verifier = match &asked.certificate {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(rule) => verifier(rule).map_err(|trouble| format!("{} {}", rule.ca.display(), trouble.message))?,
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(versions)
        .map_err(|fault| fault.to_string())?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Nobody));
    // The last one is for the CA alone: whoever offers more than that gets one of the others.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), ACME_TLS.to_vec()];
    if asked.certificate.is_some() {
        // A resumed session shows no certificate: what was believed of it then may not hold any more.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    } else {
        // Tickets are stateless: resumption costs no memory here, and works on every worker.
        config.ticketer = Arc::clone(tickets) as _;
        // One for each connection: whoever comes back with it gets the next.
        config.send_tls13_tickets = 1;
    }
    // Early data can be replayed by anyone who recorded it (RFC 8446, section 8): it stays off.
    config.max_early_data_size = 0;
    Ok(config)
}

/// Who may sign the certificates of clients.
pub(crate) fn verifier(rule: &ClientCertificate) -> Result<Arc<dyn ClientCertVerifier>, Trouble> {
    let roots = Arc::new(roots(&rule.ca)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider()));
    let builder = if rule.required { builder } else { builder.allow_unauthenticated() };
    builder
        .build()
        .map_err(|fault| Trouble::new(format!("cannot be used: {fault}"), "name a PEM file of CA certificates"))
}

fn roots(ca: &Path) -> Result<RootCertStore, Trouble> {
    let mut roots = RootCertStore::empty();
    for certificate in pem::certificates(ca)? {
        roots.add(certificate).map_err(|fault| {
            let message = format!("holds a certificate that cannot be used: {fault}");
            Trouble::new(message, "name a PEM file of X.509 certificates")
        })?;
    }
    Ok(roots)
}

/// The resolver before the real one is set: no handshake sees it.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

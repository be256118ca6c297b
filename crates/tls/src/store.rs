//! The certificates in use.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use relais_core::Instant;
use relais_core::config::{Config, UpstreamProtocol, UpstreamTls};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};

use crate::problem::CertProblem;

/// Everything read and made for one config.
#[derive(Debug, Clone)]
pub struct Loaded {
    server: Arc<ServerConfig>,
}

impl Loaded {
    /// Things that work but are probably not meant.
    #[must_use]
    pub fn warnings(&self) -> &[CertProblem] {
        &[]
    }
}

/// Where a certificate came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CertSource {
    /// `[certificate.NAME]` files.
    Files,
    /// The built-in local CA.
    Internal,
}

/// One certificate in use, for `status` and metrics.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct CertInfo {
    /// `[certificate.NAME]`, or the host it was made for.
    pub name: String,
    /// The names it covers.
    pub hosts: Vec<String>,
    /// Where it came from.
    pub source: CertSource,
    /// Who signed it.
    pub issuer: String,
    /// Its file.
    pub file: Option<PathBuf>,
    /// End of its validity.
    pub not_after: Instant,
    /// What is wrong with it now.
    pub problem: Option<String>,
}

/// The certificates in use: chooses one for each handshake.
#[derive(Debug)]
pub struct CertStore {
    loaded: arc_swap::ArcSwap<Loaded>,
}

impl CertStore {
    /// Reads the files and makes what the local CA must make.
    pub fn load(_config: &Config, _state_dir: &Path) -> Result<Loaded, Vec<CertProblem>> {
        Err(vec![])
    }
    /// A store that serves `loaded`.
    #[must_use]
    pub fn new(loaded: Loaded) -> Arc<CertStore> {
        Arc::new(Self { loaded: arc_swap::ArcSwap::from_pointee(loaded) })
    }
    /// Serves `loaded` from the next handshake on.
    pub fn install(&self, loaded: Loaded) {
        self.loaded.store(Arc::new(loaded));
    }
    /// Settings of an acceptor.
    #[must_use]
    pub fn server_config(self: &Arc<Self>, _config: &Config) -> Arc<ServerConfig> {
        Arc::clone(&self.loaded.load().server)
    }
    /// The certificates in use.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertInfo> {
        vec![]
    }
    /// When `load` should be called again although nothing changed.
    #[must_use]
    pub fn next_change(&self) -> Option<Instant> {
        None
    }
    /// TLS towards a backend, kept until the next `install`.
    pub fn client_config(&self, tls: &UpstreamTls, protocol: UpstreamProtocol) -> Result<Arc<ClientConfig>, String> {
        crate::upstream::client_config(tls, protocol)
    }
}

impl ResolvesServerCert for CertStore {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

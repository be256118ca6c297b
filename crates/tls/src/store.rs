//! The certificates in use: read and made for a config, replaced as a whole, chosen from at each handshake.
//!
//! May read the files of `[certificate.NAME]` and use the folder of the local CA. Reloading is the caller's decision:
//! when a file or the config changed, and at [`CertStore::next_change`].

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use relais_core::Instant;
use relais_core::config::{CertificateSource, Config, ListenerProtocol, UpstreamProtocol, UpstreamTls};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};

use crate::acceptor::Acceptor;
use crate::certificate::{CertInfo, CertSource, Certificate};
use crate::clock;
use crate::files;
use crate::internal_ca;
use crate::problem::CertProblem;
use crate::resolver::Names;
use crate::upstream;

/// Everything read and made for one config.
#[derive(Debug)]
pub struct Loaded {
    certificates: Vec<Arc<Certificate>>,
    names: Names,
    warnings: Vec<CertProblem>,
    acceptor: Acceptor,
}

impl Loaded {
    /// Things that work but are probably not meant: an expired certificate, a host that will be refused.
    #[must_use]
    pub fn warnings(&self) -> &[CertProblem] {
        &self.warnings
    }
}

/// What [`CertStore::check`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Reasons why `load` would fail.
    pub problems: Vec<CertProblem>,
    /// Things that work but are probably not meant.
    pub warnings: Vec<CertProblem>,
}

/// The certificates in use: chooses one for each handshake.
#[derive(Debug)]
pub struct CertStore {
    loaded: ArcSwap<Loaded>,
    /// The first one loaded, kept for the life of the process: its ticket keys must outlive a reload.
    acceptor: Acceptor,
    upstream: upstream::Configs,
}

impl CertStore {
    /// Reads the files of `config` and has the local CA sign what no file covers and the config wants from it.
    ///
    /// # Errors
    /// Every file that cannot be used, all at once. Expired certificates are usable.
    pub fn load(config: &Config, state_dir: &Path) -> Result<Loaded, Vec<CertProblem>> {
        Self::load_at(config, state_dir, clock::now())
    }

    fn load_at(config: &Config, state_dir: &Path, now: Instant) -> Result<Loaded, Vec<CertProblem>> {
        let files::FromFiles { mut certificates, mut problems, mut warnings } =
            files::read_all(&config.certificates, now);
        let from_files = Names::new(&certificates, None);
        let wanted = Wanted::of(config, &from_files);
        warnings.extend(wanted.refused);
        let mut fallback = None;
        if !wanted.internal.is_empty() || wanted.default.is_some() {
            match internal_ca::open(state_dir, now) {
                Ok((authority, doubt)) => {
                    warnings.extend(doubt);
                    let mut issue = |name: &str, hosts: &[String]| {
                        let issued = internal_ca::issue(&authority, name, hosts, now);
                        issued.map(Arc::new).map_err(|fault| problems.push(cannot_issue(name, &fault))).ok()
                    };
                    for host in &wanted.internal {
                        certificates.extend(issue(host, std::slice::from_ref(host)));
                    }
                    fallback = wanted.default.and_then(|hosts| issue("default", &hosts));
                }
                Err(problem) => problems.push(problem),
            }
        }
        let acceptor = Acceptor::new().map_err(|fault| problems.push(no_acceptor(&fault)));
        match acceptor {
            Ok(acceptor) if problems.is_empty() => {
                let names = Names::new(&certificates, fallback.clone());
                certificates.extend(fallback);
                Ok(Loaded { certificates, names, warnings, acceptor })
            }
            _ => Err(problems),
        }
    }

    /// Reads the files of `config` and says what `load` would say of them. Writes nothing, makes nothing.
    #[must_use]
    pub fn check(config: &Config) -> Checked {
        let files::FromFiles { certificates, problems, mut warnings } =
            files::read_all(&config.certificates, clock::now());
        // A name whose file has a problem would be reported twice.
        if problems.is_empty() {
            warnings.extend(Wanted::of(config, &Names::new(&certificates, None)).refused);
        }
        Checked { problems, warnings }
    }

    /// A store that serves `loaded`.
    #[must_use]
    pub fn new(loaded: Loaded) -> Arc<CertStore> {
        let acceptor = loaded.acceptor.clone();
        Arc::new(Self { loaded: ArcSwap::from_pointee(loaded), acceptor, upstream: upstream::Configs::default() })
    }

    /// Serves `loaded` from the next handshake on, and reads the CA files of backends again at their next connection.
    /// Connections in use and sessions that clients may resume are untouched.
    pub fn install(&self, loaded: Loaded) {
        self.loaded.store(Arc::new(loaded));
        self.upstream.clear();
    }

    /// Settings for acceptors: lowest version from `config`, HTTP/2 and HTTP/1.1 by ALPN, resumption by tickets, no early
    /// data. They stay right after [`CertStore::install`]; only a change of `min_tls` needs them anew.
    #[must_use]
    pub fn server_config(self: &Arc<Self>, config: &Config) -> Arc<ServerConfig> {
        self.acceptor.server_config(config.edge.min_tls, Arc::clone(self) as Arc<dyn ResolvesServerCert>)
    }

    /// The certificates in use: files in config order, then those of the local CA by host, `default` last.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertInfo> {
        let now = clock::now();
        self.loaded.load().certificates.iter().map(|certificate| certificate.info(now)).collect()
    }

    /// When [`CertStore::load`] and [`CertStore::install`] should be called although nothing changed: the certificates of
    /// the local CA are made anew 10 days before their end. `None`: there are none.
    #[must_use]
    pub fn next_change(&self) -> Option<Instant> {
        let loaded = self.loaded.load();
        let internal = loaded.certificates.iter().filter(|certificate| certificate.source == CertSource::Internal);
        internal.map(|certificate| certificate.not_after - internal_ca::RENEW_BEFORE).min()
    }

    /// As [`upstream::client_config`], kept until the next [`CertStore::install`]: one setting per kind of backend also
    /// means one memory of sessions to resume. Reads files at first use of a kind.
    ///
    /// # Errors
    /// As [`upstream::client_config`]. A failure is not kept.
    pub fn client_config(&self, tls: &UpstreamTls, protocol: UpstreamProtocol) -> Result<Arc<ClientConfig>, String> {
        self.upstream.get(tls, protocol)
    }
}

impl ResolvesServerCert for CertStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let loaded = self.loaded.load();
        let can_sign =
            |certificate: &Certificate| certificate.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let chosen = loaded.names.choose(hello.server_name(), clock::now(), can_sign)?;
        Some(Arc::clone(&chosen.key))
    }
}

/// What a config wants beyond its files.
struct Wanted {
    /// Hosts the local CA signs.
    internal: BTreeSet<String>,
    /// What the certificate for unknown names covers; `None`: unknown names are refused.
    default: Option<Vec<String>>,
    /// Hosts that will be refused.
    refused: Vec<CertProblem>,
}

impl Wanted {
    fn of(config: &Config, from_files: &Names) -> Self {
        let mut wanted = Self { internal: BTreeSet::new(), default: None, refused: Vec::new() };
        if !config.listeners.iter().any(|listener| listener.protocol == ListenerProtocol::Https) {
            return wanted;
        }
        let mut addresses = Vec::new();
        for service in &config.services {
            for host in &service.hosts {
                match config.certificate_source(service, host) {
                    _ if host == "*" => {}
                    // Clients send no address as a name (RFC 6066, section 3): the default certificate has it.
                    _ if host.parse::<std::net::IpAddr>().is_ok() => addresses.push(host.clone()),
                    _ if from_files.covers(host) => {}
                    CertificateSource::Internal | CertificateSource::Acme | CertificateSource::OnDemand => {
                        wanted.internal.insert(host.clone());
                    }
                    CertificateSource::Files => wanted.refused.push(refused(&service.name, host)),
                }
            }
        }
        if config.unknown_source() != CertificateSource::Files {
            wanted.default = Some(local_names(config, addresses));
        }
        wanted
    }
}

/// What a client without a name may have asked for: this machine.
fn local_names(config: &Config, addresses: Vec<String>) -> Vec<String> {
    let listening = config.listeners.iter().flat_map(|listener| &listener.addresses).map(std::net::SocketAddr::ip);
    let listening = listening.filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string());
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_string).into();
    for name in listening.chain(addresses) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn refused(service: &str, host: &str) -> CertProblem {
    CertProblem {
        certificate: host.to_string(),
        file: None,
        message: format!("no certificate file covers this host of service `{service}`, so TLS clients are refused"),
        help: "add `[certificate.NAME]` with `cert` and `key`, or set `tls = \"internal\"` on the service".to_string(),
    }
}

fn cannot_issue(name: &str, fault: &str) -> CertProblem {
    CertProblem {
        certificate: name.to_string(),
        file: None,
        message: format!("the local CA cannot sign for it: {fault}"),
        help: "correct the host, or name certificate files for it".to_string(),
    }
}

fn no_acceptor(fault: &rustls::Error) -> CertProblem {
    CertProblem {
        certificate: "all".to_string(),
        file: None,
        message: format!("TLS cannot start: {fault}"),
        help: "check that the system's random source works (/dev/urandom)".to_string(),
    }
}

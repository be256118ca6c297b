//! What a config wants beyond the certificates of its files. Touches nothing.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use relais_core::config::{CertificateSource, Config, ListenerProtocol};

use crate::problem::CertProblem;
use crate::resolver::Names;

/// What a config wants beyond its files.
#[derive(Default)]
pub(crate) struct Wanted {
    /// Hosts the local CA signs.
    pub(crate) internal: BTreeSet<String>,
    /// Hosts a public CA signs when it is asked to.
    pub(crate) ordered: BTreeSet<String>,
    /// Hosts that files cover.
    pub(crate) covered: Vec<String>,
    /// What the local CA's certificate for clients that send no name covers; `None`: they are refused.
    pub(crate) default: Option<Vec<String>>,
    /// Whether that one is shown for unknown names too.
    pub(crate) serves_unknown: bool,
    /// Hosts that will be refused.
    pub(crate) refused: Vec<CertProblem>,
}

impl Wanted {
    pub(crate) fn of(config: &Config, from_files: &Names) -> Self {
        let mut wanted = Self::default();
        if !config.listeners.iter().any(|listener| listener.protocol == ListenerProtocol::Https) {
            return wanted;
        }
        let mut addresses = Vec::new();
        for service in &config.services {
            for host in service.hosts.iter().filter(|host| *host != "*") {
                let plain = host.trim_start_matches('[').trim_end_matches(']');
                let source = config.certificate_source(service, host);
                if from_files.covers(plain) {
                    wanted.covered.push(host.clone());
                    continue;
                }
                match source {
                    CertificateSource::Acme => drop(wanted.ordered.insert(plain.to_owned())),
                    // Clients send no address as a name (RFC 6066, section 3): the default certificate has it.
                    _ if plain.parse::<IpAddr>().is_ok() => addresses.push(plain.to_owned()),
                    CertificateSource::Internal => drop(wanted.internal.insert(host.clone())),
                    CertificateSource::OnDemand => {}
                    CertificateSource::Files => wanted.refused.push(refused(&service.name, host)),
                }
            }
        }
        wanted.serves_unknown = config.unknown_source() == CertificateSource::Internal;
        if config.unknown_source() != CertificateSource::Files {
            wanted.default = Some(local_names(config, addresses));
        }
        wanted
    }
}

/// What a client without a name may have asked for: this machine.
fn local_names(config: &Config, addresses: Vec<String>) -> Vec<String> {
    let listening = config.listeners.iter().flat_map(|listener| &listener.addresses).map(SocketAddr::ip);
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

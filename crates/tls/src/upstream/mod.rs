//! TLS towards backends: whom to believe, which protocols to offer, which name to ask for.
//!
//! May read the CA file of a backend and the system's trust store. Opens no connection.

mod anyone;
mod own_roots;
mod words;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use relais_core::config::{Address, FileFault, UpstreamProtocol, UpstreamTls};
use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;

use crate::pem::{self, Trouble};
use crate::provider::provider;
use own_roots::OwnRoots;

pub use words::reason;

/// Settings for connections to backends of one kind: TLS 1.2 and 1.3, ALPN by protocol, the certificates of `ca` or those
/// of the system as roots. A certificate listed in `ca` that is no CA is believed as it is, when name and dates are right:
/// that is how a self-signed backend is declared.
///
/// Reads files: keep the result (or use [`crate::CertStore::client_config`]).
///
/// # Errors
/// One sentence with the way out: the CA file cannot be used, or the system has no roots.
pub fn client_config(tls: &UpstreamTls, protocol: UpstreamProtocol) -> Result<Arc<ClientConfig>, String> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|fault| format!("TLS cannot start: {fault}"))?
        // Not a hole: "dangerous" is the library's word for any verifier but its own default.
        .dangerous()
        .with_custom_certificate_verifier(verifier(tls)?)
        .with_no_client_auth();
    config.alpn_protocols = match protocol {
        UpstreamProtocol::H1 => vec![b"http/1.1".to_vec()],
        UpstreamProtocol::H2 => vec![b"h2".to_vec()],
        UpstreamProtocol::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    Ok(Arc::new(config))
}

/// What is wrong with a file of CAs that a backend is believed by. Reads it.
#[must_use]
pub fn fault_of_backend_ca(ca: &Path) -> Option<FileFault> {
    let Trouble { message, help } = own_roots(ca).err()?;
    Some(FileFault { file: ca.to_path_buf(), message, help })
}

fn own_roots(ca: &Path) -> Result<OwnRoots, Trouble> {
    OwnRoots::new(pem::certificates(ca)?)
}

fn verifier(tls: &UpstreamTls) -> Result<Arc<dyn ServerCertVerifier>, String> {
    if !tls.verify {
        return Ok(Arc::new(anyone::Anyone));
    }
    if let Some(path) = &tls.ca {
        let said = |trouble: Trouble| format!("the CA file {} {}; {}", path.display(), trouble.message, trouble.help);
        return Ok(Arc::new(own_roots(path).map_err(said)?));
    }
    match rustls_platform_verifier::Verifier::new(Arc::clone(provider())) {
        Ok(system) => Ok(Arc::new(system)),
        Err(fault) => Err(format!(
            "the system's trusted certificates cannot be used: {fault}; install the package `ca-certificates`, or name a file in `ca`"
        )),
    }
}

/// The name sent to the backend and looked for in its certificate: `sni` where set, else the host of the address, else
/// (the address being an IP or a socket file) the host of the request. `host` may carry a port. With an empty `host` an IP
/// address stands for itself.
///
/// # Errors
/// One sentence with the way out: there is no name, or it is none that TLS can carry.
pub fn server_name(tls: &UpstreamTls, address: &Address, host: &str) -> Result<ServerName<'static>, String> {
    let ip = |ip: IpAddr| Ok(ServerName::IpAddress(ip.into()));
    let name = match (&tls.sni, address) {
        (Some(sni), _) => sni,
        (None, Address::Name(name, _)) => name,
        (None, Address::Socket(socket)) if host.is_empty() => return ip(socket.ip()),
        (None, Address::Socket(_) | Address::Unix(_)) => without_port(host),
    };
    if let Ok(address) = name.parse::<IpAddr>() {
        return ip(address);
    }
    ServerName::try_from(name.trim_end_matches('.').to_string())
        .map_err(|_| format!("`{name}` is no name TLS can carry to {address}; set `sni` on the backend"))
}

/// `a.fr:8443` is `a.fr`, `[::1]:8443` is `::1`.
fn without_port(host: &str) -> &str {
    if let Some(inner) = host.strip_prefix('[') {
        return inner.split(']').next().unwrap_or(inner);
    }
    match host.rsplit_once(':') {
        // More than one colon and no brackets: an IPv6 address alone.
        Some((name, _)) if !name.contains(':') => name,
        _ => host,
    }
}

/// Settings made so far. Bounded by the kinds of backend a config declares: cleared at every reload.
#[derive(Debug, Default)]
pub(crate) struct Configs {
    made: Mutex<HashMap<(UpstreamTls, UpstreamProtocol), Arc<ClientConfig>>>,
}

impl Configs {
    pub(crate) fn get(&self, tls: &UpstreamTls, protocol: UpstreamProtocol) -> Result<Arc<ClientConfig>, String> {
        let key = (tls.clone(), protocol);
        if let Some(made) = self.made.lock().get(&key) {
            return Ok(Arc::clone(made));
        }
        // Not under the lock: files are read. Two workers may do it at once; the first result is used by both.
        let config = client_config(tls, protocol)?;
        Ok(Arc::clone(self.made.lock().entry(key).or_insert(config)))
    }

    pub(crate) fn clear(&self) {
        self.made.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(sni: Option<&str>) -> UpstreamTls {
        UpstreamTls { sni: sni.map(str::to_string), ca: None, verify: true }
    }

    fn asked(sni: Option<&str>, address: &Address, host: &str) -> String {
        match server_name(&tls(sni), address, host) {
            Ok(name) => name.to_str().into_owned(),
            Err(why) => format!("error: {why}"),
        }
    }

    #[test]
    fn the_name_is_sni_then_the_address_then_the_request() {
        let ip = Address::Socket("10.0.0.1:443".parse().unwrap());
        let named = Address::Name("b.internal".into(), 443);
        let unix = Address::Unix("/run/b.sock".into());
        assert_eq!(asked(Some("x.fr"), &named, "a.fr"), "x.fr");
        assert_eq!(asked(None, &named, "a.fr"), "b.internal");
        assert_eq!(asked(None, &ip, "a.fr:8443"), "a.fr");
        assert_eq!(asked(None, &ip, "[2001:db8::7]:8443"), "2001:db8::7");
        assert_eq!(asked(None, &ip, "2001:db8::7"), "2001:db8::7");
        assert_eq!(asked(None, &ip, "192.0.2.7:80"), "192.0.2.7");
        assert_eq!(asked(None, &unix, "a.fr."), "a.fr");
        assert_eq!(asked(None, &ip, ""), "10.0.0.1");
        assert!(asked(None, &unix, "").contains("set `sni`"), "{}", asked(None, &unix, ""));
        assert!(asked(None, &ip, "a b").starts_with("error: `a b` is no name"));
    }
}

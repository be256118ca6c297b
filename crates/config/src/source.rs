//! Where the certificate of a host comes from: the one place that resolves `tls = "auto"`.
//!
//! Knows names only. Which names the files of `[certificate.NAME]` cover is known where they are read; they always win.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::{Acme, Challenge, Config, DnsChallenge, ListenerProtocol, Service, TlsSource};

/// Where the certificate of a host comes from, when no file covers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateSource {
    /// From nowhere: it is refused at the handshake.
    Files,
    /// The local CA.
    Internal,
    /// A CA, ordered when a client asks for a name that the pattern covers.
    OnDemand,
    /// A CA, ordered because the host is in the file.
    Acme,
}

impl Config {
    /// Where the certificate of one of a service's `hosts` comes from, when no file covers it.
    #[must_use]
    pub fn certificate_source(&self, service: &Service, host: &str) -> CertificateSource {
        source(&self.acme, service.tls, host)
    }

    /// Where the certificate for names comes from that no service lists: that of the service that claims `*`.
    #[must_use]
    pub fn unknown_source(&self) -> CertificateSource {
        let any = self.services.iter().find(|service| service.hosts.iter().any(|host| host == "*"));
        source(&self.acme, any.map_or(self.edge.tls, |service| service.tls), "*")
    }

    /// Where the certificate of a name comes from that a client asks for, when no file covers it.
    #[must_use]
    pub fn source_of_name(&self, name: &str) -> CertificateSource {
        let wildcard = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let claims = |service: &&Arc<Service>, host: &str| service.hosts.iter().any(|own| own == host);
        for pattern in [Some(name.to_owned()), wildcard].into_iter().flatten() {
            let services = self.services.iter().filter(|service| claims(service, &pattern));
            if let Some(best) = services
                .map(|service| (self.certificate_source(service, &pattern), service))
                .max_by_key(|(source, _)| *source)
            {
                return asked_for(best.0, best.1.tls, name);
            }
        }
        let any = self.services.iter().find(|service| claims(service, "*"));
        asked_for(self.unknown_source(), any.map_or(self.edge.tls, |service| service.tls), name)
    }

    /// Where the certificate of each host of the file comes from, when no file covers it. Empty without an HTTPS listener.
    /// A host of several services has the best of their sources. `*` is in it when a service claims it.
    #[must_use]
    pub fn certificate_sources(&self) -> BTreeMap<&str, CertificateSource> {
        let mut sources = BTreeMap::new();
        if !self.listeners.iter().any(|listener| listener.protocol == ListenerProtocol::Https) {
            return sources;
        }
        for service in &self.services {
            for host in &service.hosts {
                let own = self.certificate_source(service, host);
                sources.entry(host.as_str()).and_modify(|best| *best = own.max(*best)).or_insert(own);
            }
        }
        sources
    }
}

impl Acme {
    /// Who changes the DNS for a name: whoever has the longest zone that holds it, else whoever has no zones.
    #[must_use]
    pub fn dns_for(&self, host: &str) -> Option<&Arc<DnsChallenge>> {
        let name = host.strip_prefix("*.").unwrap_or(host);
        let reach = |dns: &&Arc<DnsChallenge>| {
            if dns.zones.is_empty() {
                return Some(0);
            }
            dns.zones.iter().filter(|zone| under(name, zone)).map(|zone| zone.len()).max()
        };
        self.dns.iter().filter(|dns| reach(dns).is_some()).max_by_key(|dns| (reach(dns), std::cmp::Reverse(&dns.name)))
    }

    /// The ways in which a host can be proven to be ours, in order of trial. Empty: there is none.
    #[must_use]
    pub fn challenges_for(&self, host: &str) -> Vec<Challenge> {
        let has_dns = address_of(host).is_none() && self.dns_for(host).is_some();
        let possible = |kind: &&Challenge| match kind {
            Challenge::Dns01 => has_dns,
            Challenge::Http01 | Challenge::TlsAlpn01 => !host.starts_with("*."),
        };
        self.challenges.iter().filter(possible).copied().collect()
    }
}

/// The address a host is, when it is one (IPv6 in brackets).
#[must_use]
pub fn address_of(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// With `tls = "auto"` a CA is asked for no name that it cannot certify.
fn asked_for(source: CertificateSource, tls: TlsSource, name: &str) -> CertificateSource {
    let possible = tls == TlsSource::Acme || can_be_public(name);
    if source == CertificateSource::OnDemand && !possible { CertificateSource::Internal } else { source }
}

/// Whether `name` is `zone` or below it.
fn under(name: &str, zone: &str) -> bool {
    name.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn source(acme: &Acme, tls: TlsSource, host: &str) -> CertificateSource {
    let said = match tls {
        TlsSource::Files => return CertificateSource::Files,
        TlsSource::Internal => return CertificateSource::Internal,
        TlsSource::Auto => false,
        TlsSource::Acme => true,
    };
    let on_demand = if acme.on_demand.is_some() { CertificateSource::OnDemand } else { CertificateSource::Internal };
    if host == "*" {
        return on_demand;
    }
    if !said && (address_of(host).is_some() || !can_be_public(host)) {
        return CertificateSource::Internal;
    }
    if host.starts_with("*.") && acme.challenges_for(host).is_empty() {
        return on_demand;
    }
    CertificateSource::Acme
}

/// Whether a public CA may certify a name: not those of RFC 2606, 6761, 6762 and 8375, those that no registry will give
/// out, names without a dot and names with an underscore. Wildcards as the name they are of.
pub(crate) fn can_be_public(host: &str) -> bool {
    const NEVER: [&str; 18] = [
        "localhost",
        "test",
        "example",
        "invalid",
        "local",
        "internal",
        "lan",
        "home.arpa",
        "home",
        "corp",
        "mail",
        "intranet",
        "private",
        "localdomain",
        "onion",
        "example.com",
        "example.net",
        "example.org",
    ];
    let name = host.strip_prefix("*.").unwrap_or(host);
    host != "*"
        && address_of(host).is_none()
        && name.contains('.')
        && !name.contains('_')
        && !NEVER.into_iter().any(|ending| under(name, ending))
}

#[cfg(test)]
mod tests {
    use super::can_be_public;

    #[test]
    fn names_that_no_public_ca_certifies_are_known() {
        let never = "localhost api.localhost nas web.test a.b.local a.internal box.lan a.home.arpa x.invalid 10.0.0.1 \
                     192.0.2.1 [2001:db8::1] *.test *.localhost * my_host.a.fr api.example.org example.com";
        for host in never.split_whitespace() {
            assert!(!can_be_public(host), "{host}");
        }
        for host in
            ["a.fr", "*.a.fr", "localhost.a.fr", "mytest.fr", "thetest.com", "xn--bcher-kva.ch", "myexample.org"]
        {
            assert!(can_be_public(host), "{host}");
        }
    }
}

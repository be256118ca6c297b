//! Chooses the certificate for a name. Touches nothing.

use std::collections::HashMap;
use std::sync::Arc;

use relais_core::Instant;

use crate::certificate::Certificate;

/// Which certificate covers which name.
#[derive(Debug, Default)]
pub(crate) struct Names {
    exact: HashMap<String, Vec<Arc<Certificate>>>,
    /// Keyed by what follows `*.`: a wildcard stands for exactly one label (RFC 9525, section 6.3).
    wildcard: HashMap<String, Vec<Arc<Certificate>>>,
    /// For a name nobody covers. Empty: the handshake is refused.
    unknown: Vec<Arc<Certificate>>,
    /// For clients that send no name.
    nameless: Vec<Arc<Certificate>>,
}

impl Names {
    /// Earlier certificates win. `fallback` serves names that none of them covers.
    pub(crate) fn new(certificates: &[Arc<Certificate>], fallback: Option<Arc<Certificate>>) -> Self {
        let mut names = Self::default();
        for certificate in certificates {
            for host in &certificate.hosts {
                let (map, key) = match host.strip_prefix("*.") {
                    Some(parent) => (&mut names.wildcard, parent),
                    None => (&mut names.exact, host.as_str()),
                };
                map.entry(key.to_string()).or_default().push(Arc::clone(certificate));
            }
        }
        // Who sends no name has most likely asked for an address.
        let (addressed, named): (Vec<_>, Vec<_>) = certificates.iter().cloned().partition(|one| one.covers_address());
        names.nameless = addressed.into_iter().chain(named).chain(fallback.clone()).collect();
        names.unknown = fallback.into_iter().collect();
        names
    }

    /// Whether a certificate covers this host of the config (a name, or a wildcard as a whole), fallback aside.
    pub(crate) fn covers(&self, host: &str) -> bool {
        match host.strip_prefix("*.") {
            Some(parent) => self.wildcard.contains_key(parent),
            None => self.of_name(host).next().is_some(),
        }
    }

    /// The certificate for a name as the client sent it; `strict`: none for a client without a known name. Among several the first with good dates whose key the client
    /// understands wins, so that a renewed one beside an expired one, or RSA beside ECDSA, work as meant.
    pub(crate) fn choose(
        &self,
        name: Option<&str>,
        strict: bool,
        now: Instant,
        can_sign: impl Fn(&Certificate) -> bool,
    ) -> Option<&Arc<Certificate>> {
        let name = name.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        match name {
            None if strict => None,
            Some(name) if strict => best(self.of_name(&name), now, &can_sign),
            None => best(self.nameless.iter(), now, can_sign),
            Some(name) => {
                best(self.of_name(&name), now, &can_sign).or_else(|| best(self.unknown.iter(), now, &can_sign))
            }
        }
    }

    /// Whether one certificate that may be shown for `shown_for` covers `host` as well.
    pub(crate) fn cover_both(&self, shown_for: &str, host: &str) -> bool {
        let shown: Vec<_> = self.of_name(shown_for).collect();
        if shown.is_empty() {
            // Shown the certificate for unknown names: as good, or as bad, for any other unknown one.
            return self.of_name(host).next().is_none();
        }
        self.of_name(host).any(|certificate| shown.iter().any(|other| Arc::ptr_eq(other, certificate)))
    }

    /// Exact ones first.
    fn of_name(&self, name: &str) -> impl Iterator<Item = &Arc<Certificate>> + Clone {
        let parent = name.split_once('.').map_or("", |(_, parent)| parent);
        self.exact.get(name).into_iter().chain(self.wildcard.get(parent)).flatten()
    }
}

fn best<'a>(
    mut candidates: impl Iterator<Item = &'a Arc<Certificate>> + Clone,
    now: Instant,
    can_sign: impl Fn(&Certificate) -> bool,
) -> Option<&'a Arc<Certificate>> {
    let mut fitting = candidates.clone().filter(|certificate| can_sign(certificate));
    fitting
        .clone()
        .find(|certificate| certificate.is_current(now))
        .or_else(|| fitting.next())
        // Nobody fits: the handshake fails with the alert that says so.
        .or_else(|| candidates.next())
}

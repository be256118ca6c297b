//! What the store has of certificates, as the fleet and the workers want it. Reads and writes the store.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use relais_core::certs::{HeldCertificate, Inventory};
use relais_core::{Event, Instant};
use relais_store::{KeptCertificate, Store};
use relais_tls::acme::{self, Product};
use relais_tls::{CertStore, Issued};

use super::begun::Orders;
use crate::control::Control;

/// A certificate that ended so long ago helps nobody.
const OLD: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);

/// The time of day. Certificates are dated by it; it may jump.
pub(crate) fn wall_clock() -> Instant {
    Instant::default() + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What the fleet must know of a certificate.
pub(crate) fn held(name: &str, authority: &str, product: &Product) -> HeldCertificate {
    HeldCertificate {
        name: name.into(),
        hosts: product.hosts.clone(),
        authority: authority.into(),
        not_before: product.not_before,
        not_after: product.not_after,
        ari_id: product.ari_id.clone(),
        fingerprint: product.fingerprint.clone(),
    }
}

/// The form in which it survives.
pub(crate) fn to_keep(name: &str, authority: &str, product: &Product) -> KeptCertificate {
    // For people who look at the file: the certificate itself is what counts when it is read again.
    let about = serde_json::json!({
        "hosts": product.hosts,
        "issuer": product.issuer,
        "not_before": product.not_before,
        "not_after": product.not_after,
        "fingerprint": product.fingerprint,
    });
    KeptCertificate {
        name: name.to_owned(),
        authority: authority.to_owned(),
        about,
        chain_pem: product.chain_pem.clone(),
        key_pem: product.key_pem.clone(),
    }
}

/// The form in which it is served.
pub(crate) fn to_serve(kept: &KeptCertificate) -> Issued {
    Issued { name: kept.name.clone(), chain_pem: kept.chain_pem.clone(), key_pem: kept.key_pem.clone() }
}

/// Serves everything the store has, at once.
pub(crate) fn serve_all(store: &Store, certs: &CertStore) {
    let all: Vec<Issued> = store.certificates().iter().map(to_serve).collect();
    if all.is_empty() {
        return;
    }
    for problem in certs.install_issued(&all) {
        tracing::error!("{problem}");
    }
    tracing::info!(certificates = all.len(), "certificates from the store are served");
}

/// What there is. One that cannot be read is not there: it will be ordered.
pub(crate) fn inventory(store: &Arc<Store>, covered: Vec<String>) -> Inventory {
    let read = |kept: KeptCertificate| {
        let KeptCertificate { name, authority, chain_pem, key_pem, .. } = kept;
        acme::inspect(chain_pem, key_pem).map(|product| held(&name, &authority, &product)).ok()
    };
    let held = store.certificates().into_iter().filter_map(read).collect();
    Inventory { held, covered, begun: Orders::recall(store).names() }
}

impl Control {
    /// Tells which on-demand names clients use, and drops what ended long ago and nobody wants.
    pub(super) fn keep_house(&mut self, now: Instant, wall: Instant) {
        for host in self.certs.asked_for() {
            self.fleet.handle_event(Event::Wanted { host }, now);
        }
        let wanted: std::collections::BTreeSet<Arc<str>> =
            self.fleet.certificates(now).certificates.into_iter().map(|one| one.name).collect();
        let covered = Vec::new();
        let old: Vec<HeldCertificate> = inventory(&self.store, covered).held;
        for one in old.into_iter().filter(|one| !wanted.contains(&one.name) && one.not_after + OLD < wall) {
            self.certs.remove_issued(&one.name);
            let (store, name) = (Arc::clone(&self.store), one.name);
            tokio::task::spawn_blocking(move || {
                if let Err(why) = store.drop_certificate(&name) {
                    tracing::warn!(name = &*name, "an old certificate could not be removed: {why}");
                }
            });
        }
    }
}

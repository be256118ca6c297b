//! Which certificates there are to look after: those the config names, those clients asked for, and those that are gone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use relais_config::CertificateSource;

use super::Certs;
use super::desk::Desk;
use super::plan::{GRACE, WANTED};
use super::state::{Cert, CertificateOrigin};
use super::types::Inventory;
use crate::effect::{RecordKey, Transition};
use crate::time::Instant;

/// For each certificate held at start, questions about renewal are spread over so much more,
const ASK_SPREAD: Duration = Duration::from_millis(500);
/// but not over more than this.
const ASK_WITHIN: Duration = Duration::from_secs(600);

/// How many new names clients may ask for: so many an hour over time, so many at once.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// When the next name would be free of the past (GCRA's theoretical arrival time).
    free_at: Instant,
    /// Names that were too many.
    pub(super) refused: u64,
}

impl Certs {
    /// What there is already. From the first time on orders are placed.
    pub(crate) fn inventory(&mut self, inventory: Inventory, now: Instant) {
        self.covered = inventory.covered.into_iter().collect();
        let started = !self.told;
        self.told = true;
        // Questions about renewal are spread, so that a start with many asks no storm of them.
        let spread = ASK_SPREAD * u32::try_from(inventory.held.len()).unwrap_or(u32::MAX);
        for held in &inventory.held {
            self.clock.held(held, now);
        }
        self.shelf = inventory.held.into_iter().map(|held| (Arc::clone(&held.name), held)).collect();
        self.lay_out(now);
        for name in inventory.begun.iter().filter(|_| started) {
            if let Some(cert) = self.certs.get_mut(name) {
                cert.resume();
                self.changed.insert(Arc::clone(name));
            }
        }
        for (name, held) in self.shelf.clone() {
            // One that has ended is what nobody asked for any more: should somebody, it is ordered then.
            let good = self.clock.there(now) < held.not_after;
            if good && !self.certs.contains_key(&name) && on_demand(&self.config, &name) {
                let origin = CertificateOrigin::Demand(held.not_before.min(now));
                self.add(&name, origin);
            }
            let (share, ask_at) = (self.random.next(), now + self.random.below(spread.min(ASK_WITHIN)));
            let Some(cert) = self.certs.get_mut(&name) else { continue };
            cert.ask_at = cert.ask_at.max(ask_at);
            // It was got before: that it is met now is no reason to keep it longer than its dates say.
            let got = cert.record.got.unwrap_or_default();
            cert.hold(held, got, share);
            self.changed.insert(name);
        }
        if started && self.certs.values().any(|cert| cert.held.is_some()) {
            // The clock may be wrong, and everything only look ended: the first order goes alone and tells.
            self.desks.values_mut().for_each(|desk| desk.careful = true);
        }
        self.look_at_all(now);
    }

    /// The desks of the config's authorities.
    pub(super) fn lay_out_desks(&mut self) {
        let mut old = std::mem::take(&mut self.desks);
        for authority in &self.config.acme.authorities {
            let mut desk = old.remove(&authority.name).unwrap_or_else(|| Desk::new(Arc::clone(authority)));
            if desk.authority.directory != authority.directory {
                // Another CA under the same name: what the old one did says nothing about it.
                let in_flight = desk.in_flight;
                desk = Desk::new(Arc::clone(authority));
                desk.in_flight = in_flight;
            }
            desk.authority = Arc::clone(authority);
            self.desks.insert(Arc::clone(&authority.name), desk);
        }
        self.out.forget.extend(old.into_keys().map(RecordKey::Authority));
    }

    /// The certificates that the config names, beside those there are.
    pub(super) fn lay_out(&mut self, now: Instant) {
        if !self.told {
            return;
        }
        let config = Arc::clone(&self.config);
        let sources = config.certificate_sources();
        let wanted: BTreeSet<&str> = sources
            .into_iter()
            .filter(|(host, source)| *source == CertificateSource::Acme && !self.covered.contains(*host))
            .map(|(host, _)| host)
            .collect();
        for host in &wanted {
            if !self.certs.contains_key(*host) {
                self.add(&Arc::from(*host), CertificateOrigin::Config);
            }
        }
        for (name, cert) in &mut self.certs {
            let origin = match (wanted.contains(&**name), cert.record.origin) {
                (true, _) => CertificateOrigin::Config,
                (false, CertificateOrigin::Config) => CertificateOrigin::Gone(now),
                (false, CertificateOrigin::Demand(_)) if !on_demand(&config, name) => CertificateOrigin::Gone(now),
                (false, origin) => origin,
            };
            if origin != cert.record.origin {
                cert.record.origin = origin;
                self.changed.insert(Arc::clone(name));
            }
        }
    }

    /// A new one, with what is held of it.
    fn add(&mut self, name: &Arc<str>, origin: CertificateOrigin) {
        let mut cert = Cert::new(Arc::clone(name), origin, self.random.next());
        if let Some(held) = self.shelf.get(name) {
            let share = cert.record.share;
            cert.hold(held.clone(), Instant(0), share);
        }
        self.certs.insert(Arc::clone(name), cert);
    }

    /// A client asked for a name, and who must be asked allows it.
    pub(crate) fn wanted(&mut self, host: &str, now: Instant) {
        if !self.told || !on_demand(&self.config, host) || self.covered.contains(host) {
            return;
        }
        let name: Arc<str> = host.into();
        if let Some(cert) = self.certs.get_mut(&name) {
            let told = match cert.record.origin {
                CertificateOrigin::Config => return,
                // Its record need not be written for every client.
                CertificateOrigin::Demand(at) => now.since(at) > super::plan::DAY,
                CertificateOrigin::Gone(_) => true,
            };
            cert.record.origin = CertificateOrigin::Demand(now);
            if told {
                self.changed.insert(Arc::clone(&name));
            }
        } else if self.afford(now) {
            self.add(&name, CertificateOrigin::Demand(now));
            self.changed.insert(Arc::clone(&name));
        } else {
            self.budget.refused += 1;
            return;
        }
        self.look_at(&name, now);
        self.pump(now);
    }

    /// Takes one new name from the budget.
    fn afford(&mut self, now: Instant) -> bool {
        let Some(on_demand) = &self.config.acme.on_demand else { return false };
        let each = Duration::from_secs(3600) / on_demand.per_hour.max(1);
        let free_at = self.budget.free_at.max(now) + each;
        if free_at > now + each * on_demand.burst {
            return false;
        }
        self.budget.free_at = free_at;
        true
    }

    /// Whether a certificate is renewed at all. `None`: it is not even remembered any longer.
    pub(super) fn cared_for(&self, cert: &Cert, now: Instant) -> Option<bool> {
        match cert.record.origin {
            _ if self.covered.contains(&**cert.name()) => Some(false),
            CertificateOrigin::Config => Some(true),
            CertificateOrigin::Gone(since) if now.since(since) < GRACE => Some(cert.held.is_some()),
            // What was ordered for it counts against limits as long as they look back.
            CertificateOrigin::Gone(_) => (!cert.record.placed.is_empty()).then_some(false),
            CertificateOrigin::Demand(at) if now.since(at) < WANTED => Some(true),
            CertificateOrigin::Demand(_) => {
                let over = cert.dates().is_none_or(|dates| self.clock.there(now) >= dates.end);
                (!over || !cert.record.placed.is_empty()).then_some(false)
            }
        }
    }

    /// Forgets one.
    pub(super) fn drop_cert(&mut self, name: &Arc<str>) {
        self.unplan(name);
        self.not_ready(name);
        self.changed.remove(name);
        if self.certs.remove(name).is_some() {
            self.out.forget.push(RecordKey::Certificate(Arc::clone(name)));
            self.out.notes.push(Transition::Certificate {
                name: Arc::clone(name),
                step: crate::effect::CertificateStep::Forgotten,
            });
        }
    }
}

fn on_demand(config: &relais_config::Config, host: &str) -> bool {
    config.source_of_name(host) == CertificateSource::OnDemand
}

//! When which certificate is ordered, from whom, and how long nothing is asked after a failure. Pure.
//!
//! One certificate per host. A certificate is ordered when there is none or when it is due; never while a valid one is
//! not, never beyond the limits of the authority, never in a storm: orders are paced, an authority that fails is left
//! alone, and after trouble or a start the first order goes alone. Failures are alarms, never outages: what is held stays
//! in use. All of it survives a restart. The rooms: `types` what goes in and out, `plan` the arithmetic of dates, `state`
//! one certificate, `desk` one authority, `clock` whose time counts, `wanted` which certificates there are, `ordering`
//! placing orders, `answers` what comes back, `report` what is told.

mod answers;
mod clock;
mod desk;
mod ordering;
mod plan;
mod report;
mod state;
mod types;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use relais_config::Config;

use crate::effect::{Effect, Record, RecordKey, Saved, Transition};
use crate::random::Random;
use crate::time::Instant;

use clock::Clock;
use desk::Desk;
use state::Cert;
use wanted::Budget;

pub use desk::AuthorityRecord;
pub use report::{AuthorityReport, CertificateReport, CertificateState, CertificatesReport};
pub use state::{AuthorityFailures, CertificateOrigin, CertificateRecord, LastFault, OrderEnd, PlacedOrder};
pub use types::{
    CertOrder, FaultKind, HeldCertificate, Inventory, OrderFault, RenewalAnswer, RenewalQuestion, RenewalWindow,
};

/// What one call changed.
#[derive(Debug, Default)]
pub(crate) struct Out {
    pub(crate) save: Vec<Record>,
    pub(crate) forget: Vec<RecordKey>,
    pub(crate) notes: Vec<Transition>,
    pub(crate) effects: Vec<Effect>,
}

/// All certificates from authorities.
#[derive(Debug)]
pub(crate) struct Certs {
    config: Arc<Config>,
    certs: BTreeMap<Arc<str>, Cert>,
    desks: BTreeMap<Arc<str>, Desk>,
    /// All that is held, also what nobody wants now: a name that returns has its certificate.
    shelf: BTreeMap<Arc<str>, HeldCertificate>,
    /// Hosts that files cover.
    covered: BTreeSet<String>,
    /// The inventory was told: before, nothing is ordered.
    told: bool,
    clock: Clock,
    /// What is to be looked at when.
    agenda: BTreeSet<(Instant, Arc<str>)>,
    /// Where in `agenda` each is.
    planned: BTreeMap<Arc<str>, Instant>,
    /// What could be ordered now if fewer orders were under way: the most pressing first.
    ready: BTreeSet<(Instant, Arc<str>)>,
    /// New names that clients may ask for.
    budget: Budget,
    next_id: u64,
    random: Random,
    changed: BTreeSet<Arc<str>>,
    out: Out,
}

impl Certs {
    /// Takes what the store remembers. Nothing is ordered before [`Certs::inventory`].
    pub(crate) fn new(config: &Arc<Config>, saved: &Saved, seed: u64, now: Instant) -> Certs {
        let mut certs = Certs {
            config: Arc::clone(config),
            certs: BTreeMap::new(),
            desks: BTreeMap::new(),
            shelf: BTreeMap::new(),
            covered: BTreeSet::new(),
            told: false,
            clock: Clock::default(),
            agenda: BTreeSet::new(),
            planned: BTreeMap::new(),
            ready: BTreeSet::new(),
            budget: Budget::default(),
            next_id: 1,
            random: Random::new(seed),
            changed: BTreeSet::new(),
            out: Out::default(),
        };
        for record in &saved.records {
            if let Record::Certificate(record) = record {
                certs.certs.insert(Arc::clone(&record.name), Cert::recall((**record).clone(), now));
            }
        }
        certs.lay_out_desks();
        for record in &saved.records {
            if let Record::Authority(record) = record
                && let Some(desk) = certs.desks.get_mut(&record.name)
            {
                desk.recall(record.clone(), now);
            }
        }
        certs
    }

    /// A new config.
    pub(crate) fn reload(&mut self, config: &Arc<Config>, now: Instant) {
        self.config = Arc::clone(config);
        self.lay_out_desks();
        self.lay_out(now);
        self.look_at_all(now);
    }

    /// To be called at or after [`Certs::next`].
    pub(crate) fn due(&mut self, now: Instant) {
        while let Some((at, name)) = self.agenda.first().cloned() {
            if at > now {
                break;
            }
            self.agenda.pop_first();
            self.planned.remove(&name);
            self.look_at(&name, now);
        }
        self.pump(now);
    }

    /// When [`Certs::due`] wants to be called.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.agenda.first().map(|(at, _)| *at)
    }

    /// What the calls since the last one changed.
    pub(crate) fn take(&mut self) -> Out {
        for name in std::mem::take(&mut self.changed) {
            if let Some(cert) = self.certs.get(&name) {
                self.out.save.push(Record::Certificate(Box::new(cert.record.clone())));
            }
        }
        std::mem::take(&mut self.out)
    }

    /// Has one looked at.
    fn plan(&mut self, name: &Arc<str>, at: Instant) {
        if let Some(old) = self.planned.insert(Arc::clone(name), at) {
            self.agenda.remove(&(old, Arc::clone(name)));
        }
        self.agenda.insert((at, Arc::clone(name)));
    }

    fn unplan(&mut self, name: &Arc<str>) {
        if let Some(old) = self.planned.remove(name) {
            self.agenda.remove(&(old, Arc::clone(name)));
        }
    }

    fn look_at_all(&mut self, now: Instant) {
        for name in self.certs.keys().cloned().collect::<Vec<_>>() {
            self.look_at(&name, now);
        }
        self.pump(now);
    }
}

#[cfg(test)]
mod tests;

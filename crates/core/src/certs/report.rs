//! What is told about certificates: state, next step and why, last failure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::Certs;
use super::ordering::Choice;
use super::plan::Need;
use super::state::{Cert, CertificateOrigin, LastFault, Ordering};
use super::types::{FaultKind, RenewalWindow};
use crate::time::Instant;
use crate::words::short;

/// All certificates from authorities.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CertificatesReport {
    /// By name.
    pub certificates: Vec<CertificateReport>,
    /// In order of trial.
    pub authorities: Vec<AuthorityReport>,
    /// Names that clients asked for and that were too many in their time.
    pub on_demand_refused: u64,
}

/// How a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateState {
    /// There is none yet.
    Missing,
    /// An order is under way.
    Ordering,
    /// Good.
    Valid,
    /// It should be renewed.
    Due,
    /// It should be renewed, and little time is left: an alarm.
    Urgent,
    /// It has ended and is served on: an alarm.
    Expired,
    /// Good, but the config does not name it: it will not be renewed.
    Gone,
}

/// One certificate.
#[derive(Debug, Clone, Serialize)]
pub struct CertificateReport {
    /// Name.
    pub name: Arc<str>,
    /// State.
    pub state: CertificateState,
    /// Why it is looked after.
    pub origin: CertificateOrigin,
    /// Who signed the one in use.
    pub authority: Option<Arc<str>>,
    /// Valid from.
    pub not_before: Option<Instant>,
    /// Valid until.
    pub not_after: Option<Instant>,
    /// SHA-256 of the one in use, as hex: another one has another.
    pub fingerprint: Option<String>,
    /// When it will be renewed.
    pub renew_at: Option<Instant>,
    /// The CA's window, when it said one.
    pub window: Option<RenewalWindow>,
    /// The next step and why, in words.
    pub next: String,
    /// Failures in a row, all authorities together.
    pub failures: u32,
    /// The last failure since the last success.
    pub last_fault: Option<LastFault>,
}

/// One authority.
#[derive(Debug, Clone, Serialize)]
pub struct AuthorityReport {
    /// Name.
    pub name: Arc<str>,
    /// Left alone until then; `None`: it is asked.
    pub paused_until: Option<Instant>,
    /// Why it is left alone, in words.
    pub why: String,
    /// Orders under way.
    pub in_flight: usize,
    /// Certificates got since start.
    pub issued: u64,
    /// The last of them.
    pub last_issued: Option<Instant>,
    /// Orders failed since start, by whose fault.
    pub failed: BTreeMap<FaultKind, u64>,
}

impl Certs {
    /// What is believed and planned.
    pub(crate) fn report(&self, now: Instant) -> CertificatesReport {
        let desks = self.config.acme.authorities.iter().filter_map(|authority| self.desks.get(&authority.name));
        CertificatesReport {
            certificates: self.certs.values().map(|cert| self.certificate(cert, now)).collect(),
            authorities: desks
                .map(|desk| AuthorityReport {
                    name: Arc::clone(&desk.record.name),
                    paused_until: Some(desk.record.paused_until).filter(|until| *until > now),
                    why: desk.record.why.clone(),
                    in_flight: desk.in_flight,
                    issued: desk.issued,
                    last_issued: desk.last_issued,
                    failed: desk.failed.clone(),
                })
                .collect(),
            on_demand_refused: self.budget.refused,
        }
    }

    fn certificate(&self, cert: &Cert, now: Instant) -> CertificateReport {
        let need = cert.need(self.clock.there(now));
        let held = cert.held.as_ref();
        let state = match (&cert.order, need) {
            (Some(_), _) => CertificateState::Ordering,
            (None, Need::None) if held.is_some() => CertificateState::Expired,
            (None, Need::None) => CertificateState::Missing,
            (None, _) if matches!(cert.record.origin, CertificateOrigin::Gone(_)) => CertificateState::Gone,
            (None, Need::Urgent) => CertificateState::Urgent,
            (None, Need::Due | Need::Late) => CertificateState::Due,
            (None, Need::Rest) => CertificateState::Valid,
        };
        CertificateReport {
            name: Arc::clone(cert.name()),
            state,
            origin: cert.record.origin,
            authority: held.map(|held| Arc::clone(&held.authority)),
            not_before: held.map(|held| held.not_before),
            not_after: held.map(|held| held.not_after),
            fingerprint: held.map(|held| held.fingerprint.clone()),
            renew_at: cert.dates().map(|dates| dates.due),
            window: cert.record.window.clone(),
            next: self.next_step(cert, need, now),
            failures: cert.record.failures.values().map(|failures| failures.failures).sum(),
            last_fault: cert.record.last_fault.clone(),
        }
    }

    fn next_step(&self, cert: &Cert, need: Need, now: Instant) -> String {
        if let Some(Ordering { authority, .. }) = &cert.order {
            return format!("ordered from {authority}");
        }
        if self.cared_for(cert, now) != Some(true) {
            return "not renewed: nobody asks for it".to_owned();
        }
        if need == Need::Rest {
            return match (&cert.record.window, &cert.held) {
                (Some(_), Some(held)) => format!("renewed in the window of {}", held.authority),
                _ => "renewed at a third of its time left".to_owned(),
            };
        }
        if !self.told {
            return "ordered when it is known what there is".to_owned();
        }
        if cert.ready.is_some() {
            return "ordered as soon as fewer orders are under way".to_owned();
        }
        let rests = cert.rests_until();
        if rests > now.max(cert.rest_until) {
            return format!("waits {}: a new one rests, whatever the authority says", short(rests.since(now)));
        }
        let planned = self.planned.get(cert.name()).map_or(now, |until| *until);
        let (until, why) = match (&cert.waits, self.choose(cert, now)) {
            // It is looked at again before, for nothing.
            (_, Choice::At(at, why)) if at > planned => (at, why),
            (Some(why), _) => (planned, &**why),
            (None, _) => (planned, "after a failure"),
        };
        format!("waits {}: {why}", short(until.since(now)))
    }
}

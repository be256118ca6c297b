//! What is remembered of one certificate, and its record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use relais_config::{AuthorityLimits, Challenge};
use serde::{Deserialize, Serialize};

use super::plan::{self, DAY, Dates, Need};
use super::types::{FaultKind, HeldCertificate, OrderFault, RenewalWindow};
use crate::time::Instant;

/// The longest time a limit looks back.
pub(super) const WEEK: Duration = Duration::from_secs(7 * 86_400);
/// Orders kept per certificate, however many there were: more than any limit allows in its time.
const MOST_PLACED: usize = 256;
/// A CA counts from when it signed or refused, later than we placed the order.
const COUNTED_LATER: Duration = Duration::from_secs(900);

/// Why a certificate is looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateOrigin {
    /// The config names it.
    Config,
    /// A client asked for it, last at this time.
    Demand(Instant),
    /// The config names it no longer, since this time: renewals stop 24 h later.
    Gone(Instant),
}

/// An order under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ordering {
    pub(super) id: u64,
    pub(super) authority: Arc<str>,
    pub(super) began: Instant,
    /// After this it is taken for lost.
    pub(super) deadline: Instant,
}

/// An order that was placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedOrder {
    /// When.
    pub at: Instant,
    /// With whom.
    pub authority: Arc<str>,
    /// It said what it replaces: CAs do not count it.
    pub replaces: bool,
    /// There was a certificate for the same names from the same authority: a renewal.
    pub renewal: bool,
    /// What became of it.
    pub end: OrderEnd,
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderEnd {
    /// Nothing is known yet.
    Open,
    /// Nothing will be known: the process ended before. The CA may count it.
    Lost,
    /// A certificate.
    Issued,
    /// None.
    Failed(FaultKind),
}

/// Failures of one certificate at one authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityFailures {
    /// In a row.
    pub failures: u32,
    /// The last one.
    pub at: Instant,
    /// The CA's own word on when to come again.
    pub not_before: Option<Instant>,
    /// The random part of the wait, in parts of 2^64.
    pub share: u64,
}

/// The last failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFault {
    /// When.
    pub at: Instant,
    /// With whom.
    pub authority: Arc<str>,
    /// What.
    pub fault: OrderFault,
}

/// What survives of a certificate's schedule. The certificate itself is kept with its key, elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecord {
    /// The certificate's name.
    pub name: Arc<str>,
    /// Why it is looked after.
    pub origin: CertificateOrigin,
    /// When the certificate in use was got.
    pub got: Option<Instant>,
    /// The certificate that `window` is about.
    pub fingerprint: Option<String>,
    /// When the CA wants it renewed.
    pub window: Option<RenewalWindow>,
    /// The place drawn in the window, in parts of 2^64.
    pub share: u64,
    /// By authority.
    pub failures: BTreeMap<Arc<str>, AuthorityFailures>,
    /// The last failure since the last success.
    pub last_fault: Option<LastFault>,
    /// Orders of the last 7 days, latest last.
    pub placed: Vec<PlacedOrder>,
}

/// One certificate.
#[derive(Debug)]
pub(super) struct Cert {
    pub(super) record: CertificateRecord,
    pub(super) held: Option<HeldCertificate>,
    pub(super) order: Option<Ordering>,
    /// The question about renewal under way.
    pub(super) asked: Option<u64>,
    pub(super) ask_at: Instant,
    pub(super) ask_failures: u32,
    /// The operator wants it now.
    pub(super) forced: bool,
    /// An order that was cut short goes on there, before anybody else is asked.
    pub(super) resumes: Option<Arc<str>>,
    /// Challenges that failed, latest last: they are tried last.
    pub(super) failed: Vec<Challenge>,
    /// Not before this, whoever the authority is.
    pub(super) rest_until: Instant,
    /// Why it waits, for people.
    pub(super) waits: Option<Arc<str>>,
    /// It has been told that little time is left.
    pub(super) alarmed: bool,
    /// Its place among those that could be ordered now.
    pub(super) ready: Option<Instant>,
}

impl Cert {
    pub(super) fn new(name: Arc<str>, origin: CertificateOrigin, share: u64) -> Cert {
        Cert::of(CertificateRecord {
            name,
            origin,
            got: None,
            fingerprint: None,
            window: None,
            share,
            failures: BTreeMap::new(),
            last_fault: None,
            placed: Vec::new(),
        })
    }

    pub(super) fn of(record: CertificateRecord) -> Cert {
        Cert {
            record,
            held: None,
            order: None,
            asked: None,
            ask_at: Instant(0),
            ask_failures: 0,
            forced: false,
            resumes: None,
            failed: Vec::new(),
            rest_until: Instant(0),
            waits: None,
            alarmed: false,
            ready: None,
        }
    }

    /// What the store remembers, made right for a clock that may have been wrong then or now: nothing is in the future.
    pub(super) fn recall(mut record: CertificateRecord, now: Instant) -> Cert {
        for placed in &mut record.placed {
            placed.at = placed.at.min(now);
        }
        for failures in record.failures.values_mut().filter(|failures| failures.at > now) {
            failures.not_before = failures.not_before.map(|at| now + at.since(failures.at).min(WEEK));
            failures.at = now;
        }
        // An order that the end of the process cut short: it counts, and is not placed again at once.
        for placed in record.placed.iter_mut().filter(|placed| placed.end == OrderEnd::Open) {
            placed.end = OrderEnd::Lost;
            let cut = AuthorityFailures { failures: 0, at: placed.at, not_before: None, share: record.share };
            let failures = record.failures.entry(Arc::clone(&placed.authority)).or_insert(cut);
            failures.failures = failures.failures.saturating_add(1);
            failures.at = failures.at.max(placed.at);
        }
        match &mut record.origin {
            CertificateOrigin::Demand(at) | CertificateOrigin::Gone(at) => *at = (*at).min(now),
            CertificateOrigin::Config => {}
        }
        record.got = record.got.map(|at| at.min(now));
        Cert::of(record)
    }

    /// The order that the end of the process cut short goes on where it stood: it is no other one, and no failure.
    pub(super) fn resume(&mut self) {
        let Some(cut) = self.record.placed.pop_if(|placed| placed.end == OrderEnd::Lost) else { return };
        if let Some(failures) = self.record.failures.get_mut(&cut.authority) {
            failures.failures = failures.failures.saturating_sub(1);
            if failures.failures == 0 {
                self.record.failures.remove(&cut.authority);
            }
        }
        self.resumes = Some(cut.authority);
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.record.name
    }

    /// Takes the certificate that is in use now. What was known of another one is forgotten.
    pub(super) fn hold(&mut self, held: HeldCertificate, got: Instant, share: u64) {
        if self.record.fingerprint.as_ref() != Some(&held.fingerprint) {
            self.record.fingerprint = Some(held.fingerprint.clone());
            self.record.window = None;
            self.record.share = share;
            self.record.got = Some(got);
            self.record.failures.clear();
            self.record.last_fault = None;
            self.failed.clear();
            self.alarmed = false;
            for placed in self.record.placed.iter_mut().filter(|placed| placed.end == OrderEnd::Open) {
                placed.end = OrderEnd::Issued;
            }
        }
        self.held = Some(held);
    }

    pub(super) fn dates(&self) -> Option<Dates> {
        self.held.as_ref().map(|held| Dates::of(held, self.record.window.as_ref(), self.record.share))
    }

    /// How pressing it is at a time by the CA's clock.
    pub(super) fn need(&self, time: Instant) -> Need {
        match self.dates() {
            Some(dates) if self.forced => dates.need(time).max(Need::Late),
            Some(dates) if self.resumes.is_some() => dates.need(time).max(Need::Due),
            Some(dates) => dates.need(time),
            None => Need::None,
        }
    }

    fn life(&self) -> Option<Duration> {
        self.held.as_ref().map(|held| held.not_after.since(held.not_before))
    }

    /// A new certificate rests so long, whatever its dates and the CA's window say: a CA that is mistaken, or a clock, must
    /// not make one order after another.
    pub(super) fn rests_until(&self) -> Instant {
        match (self.record.got, self.life()) {
            (Some(got), Some(life)) if !self.forced && self.resumes.is_none() => got + DAY.min(life / 4),
            _ => Instant(0),
        }
    }

    /// Until when an authority is not asked for this certificate.
    pub(super) fn back_off(&self, authority: &str, need: Need) -> Instant {
        let Some(failures) = self.record.failures.get(authority) else { return Instant(0) };
        let wait = plan::back_off(failures.failures, need, self.life(), failures.share);
        (failures.at + wait).max(failures.not_before.unwrap_or_default())
    }

    /// Forgets orders that no limit looks back at.
    pub(super) fn prune(&mut self, now: Instant) {
        self.record.placed.retain(|placed| now.since(placed.at) <= WEEK + COUNTED_LATER);
        let surplus = self.record.placed.len().saturating_sub(MOST_PLACED);
        self.record.placed.drain(..surplus);
    }

    /// Until when the limits of an authority that concern this certificate alone forbid another order.
    pub(super) fn limited(&self, authority: &str, limits: &AuthorityLimits, replaces: bool, now: Instant) -> Instant {
        let own = self.record.placed.iter().filter(|placed| *placed.authority == *authority);
        let may_have = |placed: &&PlacedOrder| !matches!(placed.end, OrderEnd::Failed(_));
        let set = if replaces { None } else { limits.per_set };
        let sets = full(own.clone().filter(may_have).map(|placed| placed.at), set, WEEK, now);
        let failed = own.filter(|placed| placed.end == OrderEnd::Failed(FaultKind::Challenge));
        sets.max(full(failed.map(|placed| placed.at), limits.failures, Duration::from_secs(3600), now))
    }
}

/// Until when a limit of so many in a time is used up by what happened at these times, the oldest first.
pub(super) fn full(at: impl Iterator<Item = Instant>, limit: Option<u32>, within: Duration, now: Instant) -> Instant {
    let Some(limit) = limit else { return Instant(0) };
    let within = within + COUNTED_LATER;
    let mut lately: Vec<Instant> = at.filter(|at| now.since(*at) <= within).collect();
    lately.sort_unstable();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    match lately.len().checked_sub(limit) {
        Some(surplus) => lately[surplus] + within + Duration::from_secs(1),
        None => Instant(0),
    }
}

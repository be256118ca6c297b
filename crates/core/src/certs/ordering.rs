//! Placing orders: the most pressing first, few at once, at whom the config names first as long as there is time.

use std::sync::Arc;
use std::time::Duration;

use relais_config::{Authority, Challenge};

use super::Certs;
use super::plan::Need;
use super::state::{Cert, OrderEnd, Ordering, PlacedOrder, WEEK, full};
use super::types::{CertOrder, RenewalQuestion};
use crate::effect::{CertificateStep, Effect, Transition};
use crate::time::Instant;

/// Longest time an order may take, the wait for the DNS apart.
const ORDER: Duration = Duration::from_secs(300);
/// So much later an order is taken for lost.
const LOST: Duration = Duration::from_secs(60);
/// Time in which the limit of new orders looks back.
const ORDERS: Duration = Duration::from_secs(3 * 3600);
/// Questions about renewal, when the answer does not come.
const ASK_AGAIN: Duration = Duration::from_secs(3600);
/// Whoever has nothing to do is looked at again after this, should all else be wrong.
const SELDOM: Duration = Duration::from_secs(86_400);

/// Whom to ask.
pub(super) enum Choice {
    Ask(Arc<Authority>),
    /// Whoever is asked alone has an order under way: soon.
    Wait,
    /// Nobody before then, and why.
    At(Instant, &'static str),
}

impl Certs {
    /// Finds out what one certificate needs now, and when it must be looked at again.
    pub(super) fn look_at(&mut self, name: &Arc<str>, now: Instant) {
        if !self.told {
            return;
        }
        self.not_ready(name);
        if let Some(ordering) = self.certs.get(name).and_then(|cert| cert.order.clone()) {
            if now < ordering.deadline {
                self.plan(name, ordering.deadline);
                return;
            }
            self.lost(name, ordering.id, now);
        }
        let Some(cert) = self.certs.get_mut(name) else { return };
        cert.prune(now);
        cert.waits = None;
        let Some(cert) = self.certs.get(name) else { return };
        let Some(cared_for) = self.cared_for(cert, now) else { return self.drop_cert(name) };
        if !cared_for && !cert.forced {
            return self.plan(name, now + SELDOM);
        }
        let there = self.clock.there(now);
        let need = cert.need(there);
        let mut next = cert.dates().and_then(|dates| dates.next(there)).map_or(now + SELDOM, |at| self.clock.here(at));
        if need > Need::Rest {
            let rests = cert.rests_until().max(cert.rest_until);
            if rests > now {
                next = next.min(rests);
            } else {
                let end = cert.dates().map_or(Instant(0), |dates| dates.end);
                self.set_ready(name, end);
            }
        }
        self.alarm(name, need, now);
        next = next.min(self.ask(name, now)).min(now + SELDOM).max(now + Duration::from_millis(1));
        self.plan(name, next);
    }

    fn set_ready(&mut self, name: &Arc<str>, end: Instant) {
        if let Some(cert) = self.certs.get_mut(name) {
            cert.ready = Some(end);
            self.ready.insert((end, Arc::clone(name)));
        }
    }

    pub(super) fn not_ready(&mut self, name: &Arc<str>) {
        if let Some(end) = self.certs.get_mut(name).and_then(|cert| cert.ready.take()) {
            self.ready.remove(&(end, Arc::clone(name)));
        }
    }

    /// Tells once that little time is left.
    fn alarm(&mut self, name: &Arc<str>, need: Need, now: Instant) {
        let Some(cert) = self.certs.get_mut(name) else { return };
        let Some(held) = &cert.held else { return };
        if need < Need::Urgent || cert.alarmed {
            return;
        }
        cert.alarmed = true;
        let left = held.not_after.since(self.clock.there(now));
        let step = CertificateStep::Urgent { not_after: held.not_after, left };
        self.out.notes.push(Transition::Certificate { name: Arc::clone(name), step });
    }

    /// Asks the CA about renewal when that is due. Gives when to look again.
    fn ask(&mut self, name: &Arc<str>, now: Instant) -> Instant {
        let never = now + SELDOM;
        let Some(cert) = self.certs.get_mut(name) else { return never };
        let Some(held) = &cert.held else { return never };
        let (Some(ari_id), Some(desk)) = (&held.ari_id, self.desks.get(&held.authority)) else { return never };
        if cert.order.is_some() {
            return never;
        }
        if cert.ask_at > now {
            return cert.ask_at;
        }
        if desk.record.paused_until > now {
            return desk.record.paused_until;
        }
        let id = self.next_id;
        self.next_id += 1;
        cert.asked = Some(id);
        cert.ask_at = now + ASK_AGAIN;
        self.out.effects.push(Effect::AskRenewalInfo(RenewalQuestion {
            id,
            name: Arc::clone(name),
            ari_id: ari_id.clone(),
            authority: Arc::clone(&desk.authority),
        }));
        cert.ask_at
    }

    /// Places what orders can be placed.
    pub(super) fn pump(&mut self, now: Instant) {
        let mut under_way: usize = self.desks.values().map(|desk| desk.in_flight).sum();
        for (_, name) in self.ready.clone() {
            if under_way >= self.config.acme.orders {
                return;
            }
            let Some(cert) = self.certs.get(&name) else { continue };
            match self.choose(cert, now) {
                Choice::Ask(authority) => {
                    self.not_ready(&name);
                    self.place(&name, &authority, now);
                    under_way += 1;
                }
                Choice::Wait => {}
                Choice::At(at, why) => {
                    self.not_ready(&name);
                    if let Some(cert) = self.certs.get_mut(&name) {
                        cert.waits = Some(why.into());
                    }
                    let at = self.planned.get(&name).map_or(at, |planned| at.min(*planned));
                    self.plan(&name, at.max(now + Duration::from_millis(1)));
                }
            }
        }
    }

    /// Whom to ask for one certificate: the first in the config, and whoever can when there is little time.
    pub(super) fn choose(&self, cert: &Cert, now: Instant) -> Choice {
        let need = cert.need(self.clock.there(now));
        let authorities = &self.config.acme.authorities;
        let allowed = if need >= Need::Late { authorities.len() } else { 1 };
        let resumes = cert.resumes.as_ref().and_then(|name| authorities.iter().position(|one| one.name == *name));
        let (skipped, allowed) = resumes.map_or((0, allowed), |place| (place, 1));
        let mut soonest: Option<(Instant, &'static str)> = None;
        for authority in authorities.iter().skip(skipped).take(allowed) {
            let Some(desk) = self.desks.get(&authority.name) else { continue };
            let replaces = self.replaces(cert, &authority.name).is_some();
            let barriers = [
                (desk.record.paused_until, "the authority is left alone for now"),
                (
                    if cert.forced || resumes.is_some() { Instant(0) } else { cert.back_off(&authority.name, need) },
                    "after a failure",
                ),
                (
                    cert.limited(&authority.name, &authority.limits, replaces, now),
                    "the authority's limit for this name",
                ),
                (self.limited(cert, authority, replaces, now), "the authority's limit of new orders"),
            ];
            let highest = barriers.into_iter().max_by_key(|(until, _)| *until);
            match highest {
                Some((until, why)) if until > now => {
                    soonest = Some(soonest.map_or((until, why), |known| known.min((until, why))));
                }
                _ if desk.careful && desk.in_flight > 0 => return Choice::Wait,
                _ => return Choice::Ask(Arc::clone(authority)),
            }
        }
        let (at, why) = soonest.unwrap_or((now + SELDOM, "no authority is left"));
        Choice::At(at, why)
    }

    /// The limits of an authority that concern all certificates.
    fn limited(&self, cert: &Cert, authority: &Authority, replaces: bool, now: Instant) -> Instant {
        let limits = &authority.limits;
        let is_renewal = cert.held.as_ref().is_some_and(|held| held.authority == authority.name);
        let here = |placed: &&PlacedOrder| placed.authority == authority.name;
        let orders = if replaces || limits.orders.is_none() {
            Instant(0)
        } else {
            let all = self.certs.values().flat_map(|cert| &cert.record.placed).filter(here);
            full(all.filter(|placed| !placed.replaces).map(|placed| placed.at), limits.orders, ORDERS, now)
        };
        if is_renewal || limits.per_domain.is_none() {
            return orders;
        }
        let domain = registered_domain(cert.name());
        let beside = self.certs.values().filter(|other| registered_domain(other.name()) == domain);
        let counted = |placed: &&PlacedOrder| {
            placed.authority == authority.name && !placed.renewal && !matches!(placed.end, OrderEnd::Failed(_))
        };
        let placed = beside.flat_map(|other| &other.record.placed).filter(counted);
        orders.max(full(placed.map(|placed| placed.at), limits.per_domain, WEEK, now))
    }

    /// The certificate that an order at an authority would replace, by its id there.
    fn replaces(&self, cert: &Cert, authority: &str) -> Option<String> {
        let held = cert.held.as_ref().filter(|held| *held.authority == *authority)?;
        // An order that says so again after one that may have been accepted would be refused (RFC 9773, section 5).
        let again = cert.record.placed.iter().any(|placed| {
            placed.replaces && placed.end == OrderEnd::Lost && cert.record.got.is_none_or(|got| placed.at >= got)
        });
        held.ari_id.clone().filter(|_| !again)
    }

    fn place(&mut self, name: &Arc<str>, authority: &Arc<Authority>, now: Instant) {
        let acme = Arc::clone(&self.config);
        let acme = &acme.acme;
        let id = self.next_id;
        let Some(cert) = self.certs.get(name) else { return };
        let replaces = self.replaces(cert, &authority.name);
        let Some(cert) = self.certs.get_mut(name) else { return };
        self.next_id += 1;
        let mut challenges = acme.challenges_for(name);
        challenges
            .sort_by_key(|kind| cert.failed.iter().position(|failed| failed == kind).map_or(0, |place| place + 1));
        let dns = challenges.contains(&Challenge::Dns01).then(|| acme.dns_for(name).cloned()).flatten();
        let timeout = ORDER + dns.as_ref().map_or(Duration::ZERO, |dns| dns.propagation_timeout);
        let renewal = cert.held.as_ref().is_some_and(|held| held.authority == authority.name);
        cert.order =
            Some(Ordering { id, authority: Arc::clone(&authority.name), began: now, deadline: now + timeout + LOST });
        (cert.waits, cert.resumes) = (None, None);
        cert.record.placed.push(PlacedOrder {
            at: now,
            authority: Arc::clone(&authority.name),
            replaces: replaces.is_some(),
            renewal,
            end: OrderEnd::Open,
        });
        let address = relais_config::address_of(name);
        let short_lived = address.map(|_| "shortlived".to_owned());
        let profile = authority.profile.clone().or_else(|| acme.profile.clone()).or(short_lived);
        let order = CertOrder {
            id,
            name: Arc::clone(name),
            hosts: vec![address.map_or_else(|| name.to_string(), |address| address.to_string())],
            authority: Arc::clone(authority),
            email: self.config.edge.email.clone(),
            challenges,
            dns,
            key: acme.key,
            reuse_key: acme.reuse_key,
            profile,
            replaces,
            timeout,
        };
        self.changed.insert(Arc::clone(name));
        if let Some(desk) = self.desks.get_mut(&authority.name) {
            desk.in_flight += 1;
        }
        let step = CertificateStep::Ordered { authority: Arc::clone(&authority.name), renewal };
        self.out.notes.push(Transition::Certificate { name: Arc::clone(name), step });
        self.out.effects.push(Effect::Order(Box::new(order)));
        self.plan(name, now + timeout + LOST);
    }
}

/// What a registry gave out: `a.co.uk` of `x.a.co.uk`, by the Public Suffix List. The name itself where there is none.
fn registered_domain(name: &str) -> &str {
    let bare = name.strip_prefix("*.").unwrap_or(name);
    psl::domain_str(bare).unwrap_or(bare)
}

//! What comes back: certificates, failures, words about renewal, and the operator's wish.

use std::sync::Arc;
use std::time::Duration;

use super::Certs;
use super::plan::{self, ASK_EVERY, DAY};
use super::state::{AuthorityFailures, LastFault, OrderEnd, Ordering};
use super::types::{FaultKind, HeldCertificate, OrderFault, RenewalAnswer};
use crate::effect::{CertificateStep, Record, Transition};
use crate::time::Instant;

/// After a failure the next authority is asked, but not in the same moment.
const BREATH: Duration = Duration::from_secs(5);
/// A failure of our own is no other at the next authority.
const OWN_FAULT: Duration = Duration::from_secs(60);
/// Shortest time between two questions about renewal (RFC 9773, section 4.3.2).
const ASK_LEAST: Duration = Duration::from_secs(60);

impl Certs {
    /// An order brought a certificate, which is durable by now.
    pub(crate) fn issued(&mut self, id: u64, held: HeldCertificate, now: Instant) {
        let name = Arc::clone(&held.name);
        let wrong_clock = self.clock.signed(&held, now);
        self.shelf.insert(Arc::clone(&name), held.clone());
        let Some(ordering) = self.close(&name, id, OrderEnd::Issued) else {
            // Late, after it was taken for lost: what was got is used.
            return self.late(held, now);
        };
        let share = self.random.next();
        let Some(cert) = self.certs.get_mut(&name) else { return };
        (cert.forced, cert.asked, cert.ask_failures) = (false, None, 0);
        cert.ask_at = now + BREATH;
        let not_after = held.not_after;
        cert.hold(held, now, share);
        let renew_at = cert.dates().map_or(not_after, |dates| dates.due);
        self.changed.insert(Arc::clone(&name));
        if let Some(desk) = self.desks.get_mut(&ordering.authority)
            && desk.succeeded(now)
        {
            self.out.save.push(Record::Authority(desk.record.clone()));
        }
        let took = now.since(ordering.began);
        let step = CertificateStep::Issued { authority: ordering.authority, not_after, renew_at, took };
        self.out.notes.push(Transition::Certificate { name: Arc::clone(&name), step });
        if wrong_clock {
            self.look_at_all(now);
        } else {
            self.look_at(&name, now);
            self.pump(now);
        }
    }

    fn late(&mut self, held: HeldCertificate, now: Instant) {
        let (name, share) = (Arc::clone(&held.name), self.random.next());
        let Some(cert) = self.certs.get_mut(&name) else { return };
        cert.hold(held, now, share);
        self.changed.insert(Arc::clone(&name));
        self.look_at(&name, now);
        self.pump(now);
    }

    /// An order brought none.
    pub(crate) fn order_failed(&mut self, id: u64, name: &Arc<str>, fault: OrderFault, now: Instant) {
        let Some(ordering) = self.close(name, id, OrderEnd::Failed(fault.kind)) else { return };
        self.failed(name, ordering, fault, now);
        self.look_at(name, now);
        self.pump(now);
    }

    /// No word came about an order.
    pub(super) fn lost(&mut self, name: &Arc<str>, id: u64, now: Instant) {
        let Some(ordering) = self.close(name, id, OrderEnd::Lost) else { return };
        let fault = OrderFault {
            kind: FaultKind::Internal,
            said: "no word came about the order".to_owned(),
            likely: None,
            retry_after: None,
            challenge: None,
        };
        self.failed(name, ordering, fault, now);
    }

    /// Ends the order under way when it is this one.
    fn close(&mut self, name: &Arc<str>, id: u64, end: OrderEnd) -> Option<Ordering> {
        let cert = self.certs.get_mut(name)?;
        let ordering = cert.order.take_if(|ordering| ordering.id == id)?;
        if let Some(placed) = cert.record.placed.iter_mut().rfind(|placed| placed.end == OrderEnd::Open) {
            placed.end = end;
        }
        if let Some(desk) = self.desks.get_mut(&ordering.authority) {
            desk.in_flight = desk.in_flight.saturating_sub(1);
        }
        self.changed.insert(Arc::clone(name));
        Some(ordering)
    }

    fn failed(&mut self, name: &Arc<str>, ordering: Ordering, fault: OrderFault, now: Instant) {
        let authority = ordering.authority;
        if let Some(desk) = self.desks.get_mut(&authority)
            && desk.failed(name, &fault, &mut self.random, now)
        {
            self.out.save.push(Record::Authority(desk.record.clone()));
            let (until, why) = (desk.record.paused_until, fault.said.clone());
            self.out.notes.push(Transition::Authority { name: Arc::clone(&authority), until, why });
        }
        let share = self.random.next();
        let Some(cert) = self.certs.get_mut(name) else { return };
        cert.forced = false;
        cert.rest_until = now + BREATH;
        if fault.kind != FaultKind::Unreachable {
            let first = AuthorityFailures { failures: 0, at: now, not_before: None, share };
            let failures = cert.record.failures.entry(Arc::clone(&authority)).or_insert(first);
            let not_before = fault.retry_after.map(|after| now + after.min(DAY * 8));
            let number = failures.failures.saturating_add(1);
            *failures = AuthorityFailures { failures: number, at: now, not_before, share };
        }
        if matches!(fault.kind, FaultKind::Dns | FaultKind::Internal) {
            cert.rest_until = now + plan::spread(OWN_FAULT, share);
        }
        if let Some(kind) = fault.challenge {
            cert.failed.retain(|failed| *failed != kind);
            cert.failed.push(kind);
        }
        let step = CertificateStep::Failed { authority: Arc::clone(&authority), fault: Box::new(fault.clone()) };
        cert.record.last_fault = Some(LastFault { at: now, authority, fault });
        self.out.notes.push(Transition::Certificate { name: Arc::clone(name), step });
    }

    /// The CA's word on when to renew, or why there is none. Any but the answer to the latest question is ignored.
    pub(crate) fn renewal_info(
        &mut self,
        id: u64,
        name: &Arc<str>,
        answer: Result<RenewalAnswer, OrderFault>,
        now: Instant,
    ) {
        let (share, spread) = (self.random.next(), self.random.next());
        let Some(cert) = self.certs.get_mut(name).filter(|cert| cert.asked == Some(id)) else { return };
        cert.asked = None;
        let date = answer.as_ref().ok().and_then(|answer| answer.date);
        match answer {
            Ok(answer) => {
                cert.ask_failures = 0;
                let after = answer.retry_after.unwrap_or(ASK_EVERY).clamp(ASK_LEAST, DAY);
                cert.ask_at = now + plan::spread(after, spread).max(ASK_LEAST);
                if cert.record.window.as_ref() != Some(&answer.window) {
                    cert.record.window = Some(answer.window);
                    cert.record.share = share;
                    self.changed.insert(Arc::clone(name));
                }
            }
            Err(_) => {
                // The window that is known stays.
                cert.ask_failures = cert.ask_failures.saturating_add(1);
                let wait = ASK_LEAST.saturating_mul(1 << cert.ask_failures.min(10)).min(ASK_EVERY);
                cert.ask_at = now + plan::spread(wait, spread);
            }
        }
        if date.is_some_and(|date| self.clock.told(date, now)) {
            // Should it be the CA that is wrong, the first order goes alone and tells.
            self.desks.values_mut().for_each(|desk| desk.careful = true);
            return self.look_at_all(now);
        }
        self.look_at(name, now);
        self.pump(now);
    }

    /// The operator wants a certificate renewed now. A name that is not looked after is ignored.
    pub(crate) fn renew_now(&mut self, name: &str, now: Instant) {
        let Some((name, cert)) = self.certs.get_key_value(name) else { return };
        if cert.order.is_some() {
            return;
        }
        let name = Arc::clone(name);
        if let Some(cert) = self.certs.get_mut(&name) {
            cert.forced = true;
            cert.rest_until = now;
            cert.record.failures.values_mut().for_each(|failures| failures.not_before = None);
        }
        for desk in self.desks.values_mut() {
            desk.record.paused_until = desk.record.paused_until.min(now);
        }
        self.look_at(&name, now);
        self.pump(now);
    }

    /// The wall clock was read.
    pub(crate) fn wall_clock(&mut self, wall: Instant, now: Instant) {
        if self.clock.wall(wall, now) {
            for held in self.certs.values().filter_map(|cert| cert.held.as_ref()) {
                self.clock.held(held, now);
            }
            self.desks.values_mut().for_each(|desk| desk.careful = true);
            self.look_at_all(now);
        }
    }
}

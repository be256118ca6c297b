//! A CA as seen from outside: reachable or not, counting what it is asked for, with a word on renewal.

use std::collections::BTreeMap;
use std::time::Duration;

use relais_core::Instant;
use relais_core::certs::{CertOrder, FaultKind, HeldCertificate, OrderFault, RenewalAnswer, RenewalWindow};

use crate::setting::{DAY, Dice, HOUR, Kind, Setting};

pub(crate) struct Ca {
    pub(crate) name: &'static str,
    /// It never gives anything.
    broken: bool,
    /// Orders taken, with name, and whether they count as new.
    orders: Vec<(u64, String, bool)>,
    issued: Vec<(u64, String, bool)>,
    failed: Vec<(u64, String)>,
    /// Not before then, it said.
    told: BTreeMap<String, u64>,
    /// Windows that were moved: ARI id to window.
    pub(crate) moved: BTreeMap<String, (u64, u64)>,
    serial: u64,
}

impl Ca {
    pub(crate) fn new(name: &'static str, broken: bool) -> Ca {
        Ca {
            name,
            broken,
            orders: Vec::new(),
            issued: Vec::new(),
            failed: Vec::new(),
            told: BTreeMap::new(),
            moved: BTreeMap::new(),
            serial: 0,
        }
    }

    /// Takes an order. Gives the rule that it breaks.
    pub(crate) fn take(
        &mut self,
        order: &CertOrder,
        setting: &Setting,
        renewal: bool,
        at: u64,
    ) -> Result<(), &'static str> {
        let name = order.name.to_string();
        if self.told.get(&name).is_some_and(|until| at < *until) {
            return Err("the CA's word is kept");
        }
        let within = |from: u64, span: u64| at.saturating_sub(from) < span;
        let limits = &setting.limits;
        let over = |count: usize, limit: Option<u32>| limit.is_some_and(|limit| count >= limit as usize);
        let new = self.orders.iter().filter(|(from, _, replaces)| !replaces && within(*from, 3 * HOUR)).count();
        let set = self.issued.iter().filter(|(from, other, _)| *other == name && within(*from, 7 * DAY)).count();
        let domain = |name: &str| name.split_once('.').unwrap().1.to_owned();
        let beside = self
            .issued
            .iter()
            .filter(|(from, other, renewal)| !renewal && domain(other) == domain(&name) && within(*from, 7 * DAY));
        let failed = self.failed.iter().filter(|(from, other)| *other == name && within(*from, HOUR)).count();
        let replaces = order.replaces.is_some();
        if (!replaces && (over(new, limits.orders) || over(set, limits.per_set)))
            || (!renewal && over(beside.count(), limits.per_domain))
            || over(failed, limits.failures)
        {
            return Err("limits are kept");
        }
        self.orders.push((at, name, replaces));
        Ok(())
    }

    /// What becomes of an order.
    pub(crate) fn answer(
        &mut self,
        order: &CertOrder,
        setting: &Setting,
        renewal: bool,
        at: u64,
        dice: &mut Dice,
    ) -> Result<HeldCertificate, OrderFault> {
        let name = order.name.to_string();
        if self.broken || setting.outages.iter().any(|(from, to)| (*from..*to).contains(&at)) {
            return Err(fault(FaultKind::Unreachable, None));
        }
        if dice.chance(setting.failing) {
            if setting.kind == Kind::Limits && dice.chance(40) {
                let after = dice.below(20 * HOUR) + HOUR;
                self.told.insert(name, at + after);
                return Err(fault(FaultKind::RateLimited, Some(Duration::from_micros(after))));
            }
            self.failed.push((at, name));
            return Err(fault(FaultKind::Challenge, None));
        }
        self.serial += 1;
        self.issued.push((at, name, renewal));
        let from = at - HOUR;
        Ok(HeldCertificate {
            name: order.name.clone(),
            hosts: order.hosts.clone(),
            authority: self.name.into(),
            not_before: Instant(from),
            not_after: Instant(from + setting.life * DAY),
            ari_id: setting.ari.then(|| format!("{}-{}", self.name, self.serial)),
            fingerprint: format!("{}-{}", self.name, self.serial),
        })
    }

    /// Its word on renewal.
    pub(crate) fn renewal(
        &self,
        held: &HeldCertificate,
        setting: &Setting,
        at: u64,
    ) -> Result<RenewalAnswer, OrderFault> {
        if self.broken || setting.outages.iter().any(|(from, to)| (*from..*to).contains(&at)) {
            return Err(fault(FaultKind::Unreachable, None));
        }
        let life = setting.life * DAY;
        let usual = (held.not_before.0 + life * 2 / 3 - life / 90, held.not_before.0 + life * 2 / 3 + life / 90);
        let (start, end) = held.ari_id.as_ref().and_then(|id| self.moved.get(id)).copied().unwrap_or(usual);
        let window = RenewalWindow { start: Instant(start), end: Instant(end), explanation: None };
        Ok(RenewalAnswer { window, retry_after: Some(Duration::from_secs(6 * 3600)), date: Some(Instant(at)) })
    }
}

fn fault(kind: FaultKind, retry_after: Option<Duration>) -> OrderFault {
    OrderFault { kind, said: kind.as_str().to_owned(), likely: None, retry_after, challenge: None }
}

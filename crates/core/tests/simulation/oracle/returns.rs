//! How long who is well again may be waited for.

use std::time::Duration;

use relais_core::{BackendId, Instant};

use super::Oracle;

impl Oracle {
    /// Longest time to `Up` for who has been wholly good since then.
    pub(super) fn return_bound(&self, id: &BackendId, since: Instant) -> Duration {
        let until = self.known.get(id).and_then(|known| known.ejected_until);
        // Left for what it had answered before it was well: its wait begins only then.
        let down = self.known.get(id).and_then(|known| known.downs.last().copied());
        let left = down.filter(|down| *down > since && until.is_some_and(|until| until > *down)).unwrap_or(since);
        let own = self.known.get(id).map_or(0, |known| recent(&known.downs, left));
        let site = self.site_downs.get(&id.site).map_or(0, |downs| recent(downs, left));
        let ejected = until.map_or(Duration::ZERO, |until| until.since(since));
        let ejected = ejected.max(self.wait_before(id, since));
        let rounds = self.timers.rise + 1;
        self.timers.down_interval.mul_f64(1.0 + self.timers.jitter) * rounds
            + self.timers.probe_timeout * 2
            + (left.since(since) + self.hold(own.max(site))).max(ejected)
            + self.contract
    }

    /// What is left of a wait that began before it was wholly good, as where its checks passed all along: it is as long as
    /// the flaps were recent then.
    pub(super) fn wait_before(&self, id: &BackendId, since: Instant) -> Duration {
        let Some(known) = self.known.get(id) else { return Duration::ZERO };
        let began = known.good_since.map(|good| good.max(known.downs.last().copied().unwrap_or_default()));
        began.filter(|began| *began < since).map_or(Duration::ZERO, |began| {
            let site = self.site_downs.get(&id.site).map_or(0, |downs| recent(downs, began));
            (began + self.hold(recent(&known.downs, began).max(site))).since(since)
        })
    }

    pub(super) fn hold(&self, outages: usize) -> Duration {
        if outages < 2 {
            return Duration::ZERO;
        }
        let doublings = u32::try_from(outages - 1).unwrap().min(16);
        (self.contract * (1 << doublings)).min(Duration::from_secs(60).max(self.contract * 10))
    }
}

pub(super) fn recent(downs: &[Instant], now: Instant) -> usize {
    downs.iter().rev().take(16).filter(|at| now.since(**at) < Duration::from_secs(600)).count()
}

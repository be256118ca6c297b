//! What the clients of the demo saw.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How one request ended, as its client saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 200, whole, from this site.
    Answered(String),
    /// A POST whose fate is unknown: told so at once, never repeated.
    Withheld(String),
    /// Anything else.
    Failed(String),
}

/// Shared by all clients.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    inner: Arc<Mutex<Totals>>,
}

/// Counts of a span of time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    /// By service.
    pub(crate) services: HashMap<&'static str, Seen>,
    /// Answers by site.
    pub(crate) sites: HashMap<String, u64>,
    /// The first few failures, in words.
    pub(crate) failures: Vec<String>,
}

/// Counts at one service.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) ok: u64,
    pub(crate) withheld: u64,
    pub(crate) failed: u64,
    pub(crate) worst: Duration,
}

/// Failures kept in words.
const KEPT: usize = 5;

impl Tally {
    pub(crate) fn count(&self, service: &'static str, outcome: Outcome, took: Duration) {
        let mut totals = self.lock();
        let seen = totals.services.entry(service).or_default();
        seen.worst = seen.worst.max(took);
        match outcome {
            Outcome::Answered(site) => {
                seen.ok += 1;
                *totals.sites.entry(site).or_default() += 1;
            }
            Outcome::Withheld(_) => seen.withheld += 1,
            Outcome::Failed(why) => {
                seen.failed += 1;
                if totals.failures.len() < KEPT {
                    totals.failures.push(format!("{service}: {why}"));
                }
            }
        }
    }

    /// What was counted since the last call, and nothing is left.
    pub(crate) fn take(&self) -> Totals {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Totals> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Totals {
    /// Adds a later span.
    pub(crate) fn add(&mut self, later: &Totals) {
        for (service, seen) in &later.services {
            let sum = self.services.entry(service).or_default();
            sum.ok += seen.ok;
            sum.withheld += seen.withheld;
            sum.failed += seen.failed;
            sum.worst = sum.worst.max(seen.worst);
        }
        for (site, count) in &later.sites {
            *self.sites.entry(site.clone()).or_default() += count;
        }
        self.failures.extend(later.failures.iter().take(KEPT.saturating_sub(self.failures.len())).cloned());
    }

    /// All services together.
    pub(crate) fn all(&self) -> Seen {
        self.services.values().fold(Seen::default(), |sum, seen| Seen {
            ok: sum.ok + seen.ok,
            withheld: sum.withheld + seen.withheld,
            failed: sum.failed + seen.failed,
            worst: sum.worst.max(seen.worst),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_add_up_and_nothing_is_counted_twice() {
        let tally = Tally::default();
        tally.count("api", Outcome::Answered("dijon".into()), Duration::from_millis(3));
        tally.count("api", Outcome::Failed("503".into()), Duration::from_millis(9));
        let mut all = tally.take();
        tally.count("www", Outcome::Withheld("502".into()), Duration::from_millis(1));
        all.add(&tally.take());
        all.add(&tally.take());
        let Seen { ok, withheld, failed, worst } = all.all();
        assert_eq!((ok, withheld, failed, worst), (1, 1, 1, Duration::from_millis(9)));
        assert_eq!((all.sites["dijon"], all.failures.as_slice()), (1, ["api: 503".to_owned()].as_slice()));
    }
}

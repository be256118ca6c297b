//! What is remembered of one authority: whether it can be asked at all, and how it has done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use relais_config::Authority;
use serde::{Deserialize, Serialize};

use super::plan;
use super::types::{FaultKind, OrderFault};
use crate::random::Random;
use crate::time::Instant;

/// So many names refused one after the other, and none certified between: it is not the names.
const STRIKES: usize = 3;
/// Longest time a CA is left alone on its own word when it is overloaded.
const LONGEST_WORD: Duration = Duration::from_secs(1200);

/// What survives of an authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityRecord {
    /// Its name.
    pub name: Arc<str>,
    /// Failures in a row that were its own.
    pub failures: u32,
    /// The last of them.
    pub at: Instant,
    /// It is left alone until then.
    pub paused_until: Instant,
    /// Why, in words.
    pub why: String,
}

/// One authority.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) authority: Arc<Authority>,
    pub(super) record: AuthorityRecord,
    /// Orders under way there.
    pub(super) in_flight: usize,
    /// One order at a time until one succeeds: it failed lately, or the clock may be wrong.
    pub(super) careful: bool,
    /// Names refused since the last success.
    strikes: BTreeSet<Arc<str>>,
    /// Certificates got since start.
    pub(super) issued: u64,
    /// Orders failed since start, by whose fault.
    pub(super) failed: BTreeMap<FaultKind, u64>,
    /// The last success.
    pub(super) last_issued: Option<Instant>,
}

impl Desk {
    pub(super) fn new(authority: Arc<Authority>) -> Desk {
        let name = Arc::clone(&authority.name);
        let record =
            AuthorityRecord { name, failures: 0, at: Instant(0), paused_until: Instant(0), why: String::new() };
        Desk {
            authority,
            record,
            in_flight: 0,
            careful: false,
            strikes: BTreeSet::new(),
            issued: 0,
            failed: BTreeMap::new(),
            last_issued: None,
        }
    }

    /// What the store remembers. A pause from the future is one of a wrong clock.
    pub(super) fn recall(&mut self, record: AuthorityRecord, now: Instant) {
        self.careful |= record.failures > 0;
        self.record = record;
        if self.record.at > now {
            (self.record.at, self.record.paused_until) = (now, now);
        }
    }

    /// It gave a certificate.
    pub(super) fn succeeded(&mut self, now: Instant) -> bool {
        let changed = self.record.failures > 0;
        (self.record.failures, self.record.paused_until) = (0, Instant(0));
        self.record.why.clear();
        self.careful = false;
        self.strikes.clear();
        self.issued += 1;
        self.last_issued = Some(now);
        changed
    }

    /// An order failed. `true`: it is left alone from now on, whoever wants something of it.
    pub(super) fn failed(&mut self, name: &Arc<str>, fault: &OrderFault, random: &mut Random, now: Instant) -> bool {
        *self.failed.entry(fault.kind).or_default() += 1;
        match fault.kind {
            FaultKind::Unreachable => {}
            FaultKind::RateLimited | FaultKind::Refused => {
                self.strikes.insert(Arc::clone(name));
                if self.strikes.len() < STRIKES {
                    return false;
                }
            }
            FaultKind::Challenge | FaultKind::Dns | FaultKind::Internal => return false,
        }
        self.record.failures = self.record.failures.saturating_add(1);
        let own = plan::pause(self.record.failures, random);
        let word = fault.retry_after.unwrap_or_default().min(LONGEST_WORD);
        self.record.at = now;
        self.record.paused_until = now + own.max(word);
        self.record.why.clone_from(&fault.said);
        self.careful = true;
        self.strikes.clear();
        true
    }
}

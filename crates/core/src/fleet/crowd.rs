//! Probes of very many backends: how many may be under way, how late they come, and what lateness does to contracts.
//!
//! More checks than this machine can make must not look like dead sites. So they go out in small turns and with a limit, the
//! longest due first: where the wanted pace cannot be kept every interval grows by the same time, and that is said.

use std::time::Duration;

use super::Fleet;
use super::state::ServiceState;
use crate::effect::Transition;
use crate::report::ChecksReport;
use crate::time::Instant;
use crate::timers::Timers;
use crate::words::{count, short};

/// Probes that begin in one turn at most: what each begins is work of some 50 us, and others wait meanwhile.
const AT_ONCE: u32 = 64;
/// Between two turns.
const TURN: Duration = Duration::from_millis(1);
/// Probes under way at most, unless [`Fleet::allow_probes`] says otherwise.
const MOST: usize = 1024;
/// How late checks are is judged by the least late one in this time, and of so many: a stall that is over is no lack.
const WINDOW: Duration = Duration::from_secs(1);
const LEAST_SEEN: u32 = 16;
/// Less is how late timers are on any machine.
const LAG: Duration = Duration::from_millis(10);
/// After so long without a check what was measured is old.
const OLD: Duration = Duration::from_secs(120);

/// What is known of the probes as a whole.
#[derive(Debug)]
pub(super) struct Crowd {
    most: usize,
    /// The turn under way, and what was sent in it.
    turn: Instant,
    sent: u32,
    /// The window under way, what was sent in it and by how much the least late was late.
    window: Instant,
    seen: u32,
    least: Duration,
    /// What the last window came to.
    lag: Duration,
    /// Contracts cannot be kept by checks.
    behind: bool,
}

impl Default for Crowd {
    fn default() -> Self {
        Self {
            most: MOST,
            turn: Instant(0),
            sent: 0,
            window: Instant(0),
            seen: 0,
            least: Duration::MAX,
            lag: Duration::ZERO,
            behind: false,
        }
    }
}

impl Crowd {
    /// From when on a probe may be sent, with so many under way; `None`: not before one of them ends.
    fn room(&self, under_way: usize) -> Option<Instant> {
        if under_way >= self.most {
            return None;
        }
        Some(if self.sent >= AT_ONCE { self.turn + TURN } else { Instant(0) })
    }

    fn sent(&mut self, now: Instant) {
        if now >= self.turn + TURN {
            (self.turn, self.sent) = (now, 0);
        }
        self.sent += 1;
    }

    /// A probe was sent so long after it was due. `true`: a window has ended.
    fn late(&mut self, by: Duration, now: Instant) -> bool {
        let old = self.window != Instant(0) && now.since(self.window) > OLD;
        if self.window == Instant(0) || old {
            // So few in so long are not too many.
            self.lag = Duration::ZERO;
            (self.window, self.seen, self.least) = (now, 0, Duration::MAX);
        }
        self.seen = self.seen.saturating_add(1);
        self.least = self.least.min(by);
        let over = self.seen >= LEAST_SEEN && now.since(self.window) >= WINDOW;
        if over {
            self.lag = if self.least < LAG { Duration::ZERO } else { self.least };
            (self.window, self.seen, self.least) = (now, 0, Duration::MAX);
        }
        over || old
    }

    /// Even the least late probe comes late: in the last window, or in this one so far.
    pub(super) fn is_late(&self) -> bool {
        !self.lag.is_zero() || (self.seen >= LEAST_SEEN && self.least >= LAG)
    }
}

impl Fleet {
    /// Probes that may be under way at a time; each needs a file descriptor. At least 1.
    pub fn allow_probes(&mut self, most: usize) {
        self.crowd.most = most.max(1);
    }

    /// From when on probes may be sent; `None`: not before one under way ends.
    pub(super) fn room_for_probes(&self) -> Option<Instant> {
        self.crowd.room(self.agenda.under_way())
    }

    /// Whether as many probes again as are under way would find room.
    pub(super) fn room_for_twice(&self) -> bool {
        self.agenda.under_way() * 2 <= self.crowd.most
    }

    /// Whether a probe may be sent now.
    pub(super) fn may_probe(&self, now: Instant) -> bool {
        self.room_for_probes().is_some_and(|from| from <= now)
    }

    pub(super) fn probe_sent(&mut self, now: Instant) {
        self.crowd.sent(now);
    }

    /// A probe that was due at `due` has had its turn.
    pub(super) fn probe_was_due(&mut self, due: Instant, now: Instant) {
        if !self.crowd.late(now.since(due), now) {
            return;
        }
        let lag = self.crowd.lag;
        let least = self.services.iter().filter_map(slack).min().unwrap_or(Duration::MAX);
        let behind = if self.crowd.behind { lag * 2 > least } else { lag > least };
        if behind == self.crowd.behind {
            return;
        }
        self.crowd.behind = behind;
        let services = self.services.iter().filter(|service| slack(service).is_some_and(|slack| lag > slack)).count();
        self.changes.notes.push(Transition::Checks { lag: behind.then_some(lag), services });
    }

    /// Nothing is checked any more: what was measured is no longer so.
    pub(super) fn settle_crowd(&mut self) {
        if self.crowd.window == Instant(0) || self.agenda.probes() {
            return;
        }
        if self.crowd.behind {
            self.changes.notes.push(Transition::Checks { lag: None, services: 0 });
        }
        self.crowd = Crowd { most: self.crowd.most, ..Crowd::default() };
    }

    /// Why a service's contract cannot be kept by checks, when there are too many of them.
    pub(super) fn crowded(&self, service: &ServiceState) -> Option<String> {
        let (lag, timers) = (self.crowd.lag, &service.timers);
        if !self.crowd.behind || slack(service).is_none_or(|slack| lag <= slack) {
            return None;
        }
        let checked =
            self.services.iter().filter(|service| service.timers.checked).map(|service| service.members.len());
        Some(format!(
            "{} are checked, more than this machine can: checks come {} late, and a silent cut is seen within {} by checks \
             alone, not {}; what requests meet counts at once, as ever",
            count(u32::try_from(checked.sum::<usize>()).unwrap_or(u32::MAX), "backend"),
            short(lag),
            short(timers.detection() + lag * signs(timers)),
            short(timers.failover_within)
        ))
    }

    pub(super) fn checks_report(&self) -> ChecksReport {
        ChecksReport {
            under_way: self.agenda.under_way(),
            most: self.crowd.most,
            lag_micros: u64::try_from(self.crowd.lag.as_micros()).unwrap_or(u64::MAX),
            behind: self.crowd.behind,
        }
    }
}

/// By how much each check of a service may be late: its contract still holds then. `None`: it is not checked, or does not
/// hold anyway.
fn slack(service: &ServiceState) -> Option<Duration> {
    let timers = &service.timers;
    let spare = timers.failover_within.checked_sub(timers.detection())?;
    (timers.checked && !service.members.is_empty()).then(|| spare / signs(timers))
}

/// Checks until a silent cut is seen.
fn signs(timers: &Timers) -> u32 {
    timers.patience.max(1)
}

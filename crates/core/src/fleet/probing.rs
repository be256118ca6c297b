//! Asking: when each backend is probed next, with which deadline, and what becomes of a probe nobody answers for.

use std::sync::Arc;
use std::time::Duration;

use relais_config::{CheckKind, HealthCheck, Pace};

use super::Fleet;
use super::agenda::Alarm;
use super::judging::Source;
use super::state::{Entry, Outstanding, RECENT, ServiceState};
use crate::effect::Effect;
use crate::errand::ProbeOrder;
use crate::fault::Fault;
use crate::health::{Admin, Health};
use crate::report::ProbeReport;
use crate::time::Instant;
use crate::timers::Timers;
use crate::verdict::Evidence;

/// Backends that are new together are probed for the first time within this,
const FIRST_PROBE_WITHIN: Duration = Duration::from_millis(100);
/// or at this pace: connects all at once overflow queues, here and there, and look like silence.
const FIRST_PROBE_EVERY: Duration = Duration::from_micros(100);
/// A prober always answers; should one answer be lost, the backend is asked again so long after the deadline.
const GRACE: Duration = Duration::from_secs(2);
/// Backends of a service that is wholly down are probed faster, but not more than one per this time.
const CROWD: Duration = Duration::from_millis(5);
/// However long the contract: so soon after a failed check they are asked again, and so long a connect to each address is
/// waited for (unless the path is longer). The first one's return is to be seen in 300 ms, on a busy machine too.
const ALL_DOWN_EVERY: Duration = Duration::from_millis(80);
const ALL_DOWN_CONNECT: Duration = Duration::from_millis(100);

impl Fleet {
    /// Probes a backend now, unless a probe is under way.
    pub(super) fn send_probe(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get(&slot) else { return };
        let service = &self.services[entry.service];
        let Some(forward) = &service.forward else { return };
        if entry.probe.is_some() || entry.admin == Admin::Disabled || !service.timers.checked || entry.is_nowhere() {
            return;
        }
        let (connect, timeout, short) = self.deadlines(entry);
        let check = Arc::clone(forward);
        if entry.health() == Health::Down {
            self.seek(slot, connect, now);
        }
        let id = self.next_probe;
        self.next_probe += 1;
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        if !entry.counters.in_doubt() || entry.health() == Health::Down {
            // In doubt the mark stays where the last answer left it, so that no success falls between two probes.
            entry.probe_mark = entry.succeeded();
        }
        let (pressed, whole) = (std::mem::take(&mut entry.pressed), std::mem::take(&mut entry.whole_next));
        let probe = Outstanding { id, sent: now, lost: now + timeout + GRACE, short, pressed, whole };
        entry.probe = Some(probe);
        entry.last_sent = now;
        let (backend, host) = (Arc::clone(&entry.backend), Arc::clone(&entry.host));
        let (addresses, drill) = (Arc::clone(&entry.addresses), self.sites[entry.site].drill);
        let order = ProbeOrder { id, backend, addresses, check, host, drill, connect, timeout };
        self.changes.probes.push(Effect::Probe(order));
        self.unplan(slot);
        let look = self.entries.get(&slot).filter(|entry| entry.health() == Health::Up);
        let look = look.map_or(probe.lost, |entry| self.unusual(entry, probe));
        self.agenda.set(Alarm::Overdue(slot), look);
        self.probe_sent(now);
    }

    /// The result of a probe. Any but the latest is ignored, and the one that it took the place of.
    pub(super) fn probed(
        &mut self,
        slot: u32,
        id: u64,
        result: Result<(), Fault>,
        took: Duration,
        said: Option<Arc<str>>,
        now: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let replaced = entry.replaced.take_if(|replaced| replaced.id == id);
        if replaced.is_some() && result.is_err_and(|fault| !arrived(fault)) {
            // What did not come the shorter one says sooner: and what had begun before it says nothing of now.
            return;
        }
        let Some(probe) = replaced.or(entry.probe.filter(|probe| probe.id == id)) else { return };
        if replaced.is_none() {
            entry.probe = None;
            self.agenda.cancel(Alarm::Overdue(slot));
        }
        if entry.recent.len() == RECENT {
            entry.recent.pop_front();
        }
        let took_micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        entry.recent.push_back(ProbeReport { at: now, took_micros, fault: result.err(), said });
        if result == Err(Fault::Unwatched) {
            // That the edge did not look says nothing about the backend: it is asked again, and the same.
            self.ask_again(slot, probe, now);
            return;
        }
        if result.is_ok() {
            learn(entry, took);
        }
        let goes_on = replaced.is_none() && self.go_on_with_replaced(slot, result);
        if probe.short && result == Err(Fault::ResponseTimeout) {
            // It takes connections and may hang: that is for a whole probe to say, at once, however many workers press.
            if let Some(entry) = self.entries.get_mut(&slot) {
                entry.whole_next |= !goes_on;
            }
            self.ask_better(slot, now);
        }
        if result.err().is_none_or(Fault::is_answer) {
            self.note_answered(slot, probe);
        }
        self.weigh(slot, Evidence::Probe(result), Source::Probe(probe), now);
        self.plan(slot, now);
    }

    /// Nobody looked at what became of a probe: what it was to find out is still open.
    fn ask_again(&mut self, slot: u32, probe: Outstanding, now: Instant) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        entry.whole_next |= probe.whole;
        entry.pressed |= probe.pressed;
        let hurry = probe.pressed && entry.health() == Health::Up;
        self.plan(slot, now);
        if hurry {
            self.hurry(slot, now);
        }
    }

    /// No result came for a probe yet, which is unusual; or a shorter one takes its place. Or none came at all, though a prober
    /// always answers: it has lost its way, or this edge was stopped meanwhile.
    pub(super) fn overdue(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get(&slot) else { return };
        let Some(probe) = entry.probe else { return };
        if probe.pressed && self.replaceable(entry, probe, now) {
            self.replace(slot, now);
            return;
        }
        if now < probe.lost {
            self.agenda.set(Alarm::Overdue(slot), probe.lost);
            self.compare_late(slot, probe, now);
            return;
        }
        self.probed(slot, probe.id, Err(Fault::Unwatched), now.since(probe.sent), None, now);
    }

    /// Probes as soon as the pace in doubt allows.
    pub(super) fn hurry(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get(&slot) else { return };
        let timers = &self.services[entry.service].timers;
        if entry.probe.is_some() || entry.admin == Admin::Disabled || !timers.checked {
            return;
        }
        let at = entry.last_sent + timers.fast_interval;
        if at <= now && self.may_probe(now) {
            self.send_probe(slot, now);
        } else if self.agenda.at(Alarm::Doubt(slot)).is_none_or(|planned| planned > at) {
            // Beside its regular turn, which may come first or be far back in a queue.
            self.agenda.set(Alarm::Doubt(slot), at);
        }
    }

    /// When a backend is probed next, if there is room then.
    fn planned(&self, slot: u32) -> Option<Instant> {
        let (again, doubt) = (self.agenda.at(Alarm::Probe(slot)), self.agenda.at(Alarm::Doubt(slot)));
        again.into_iter().chain(doubt).min()
    }

    fn unplan(&mut self, slot: u32) {
        self.agenda.cancel(Alarm::Probe(slot));
        self.agenda.cancel(Alarm::Doubt(slot));
    }

    /// Sets when a backend without a probe under way is probed next.
    pub(super) fn plan(&mut self, slot: u32, now: Instant) {
        let roll = self.random.next();
        let Some(entry) = self.entries.get(&slot) else { return };
        let service = &self.services[entry.service];
        if entry.probe.is_some() || entry.admin == Admin::Disabled || !service.timers.checked {
            return;
        }
        let timers = &service.timers;
        let site_doubted = self.sites[entry.site].health == Health::Suspect;
        let again = Alarm::Probe(slot);
        let (at, alarm) = if entry.health() == Health::Down && !entry.falls_silent() {
            let regular = grid(entry.phase, timers.down_interval, timers.jitter, roll, now);
            let at = if service.available != Some(false) {
                regular
            } else {
                let crowd = CROWD * u32::try_from(service.members.len()).unwrap_or(u32::MAX);
                let pace = if urgent(service) { ALL_DOWN_EVERY } else { Duration::MAX };
                let gap = timers.fast_interval.min(pace).max(crowd);
                regular.min(now + gap)
            };
            (at, again)
        } else if entry.counters.in_doubt() || entry.whole_next || site_doubted {
            (now.max(entry.last_sent + timers.fast_interval), Alarm::Doubt(slot))
        } else {
            (grid(entry.phase, timers.interval, timers.jitter, roll, now), again)
        };
        self.unplan(slot);
        self.agenda.set(alarm, at);
    }

    /// Deadlines of the next probe of a backend: of the connect and of the whole, and whether they are the short ones
    /// that only confirm silence.
    fn deadlines(&self, entry: &Entry) -> (Duration, Duration, bool) {
        let service = &self.services[entry.service];
        let timers = &service.timers;
        let health = service.forward.as_ref().map(|forward| &forward.health);
        let by_hand = health.is_some_and(|health| health.timeout.is_some());
        // A connect takes one round trip, a question at least another: where connects are not measured, what good probes
        // take at best bounds the network's part.
        let connect_only = health.is_some_and(|health| health.kind == CheckKind::Tcp);
        let path = self.sites[entry.site].path.round_trip.smoothed();
        let path = path.map(|round_trip| Pace::least_wait(timers.failover_within, round_trip));
        let reach = path.unwrap_or(if connect_only { entry.fastest * 3 } else { entry.fastest });
        // Where the contract is shorter than an answer's way it cannot be kept: that is said, and no reason to hear nobody.
        let away = self.sites[entry.site].path.round_trip.settled();
        let first = service.forward.as_ref().map_or(timers.connect, |forward| timers.reach(forward, away).connect);
        let longest = timers.failover_within.max(path.unwrap_or_default() * 2);
        let known = !entry.fastest.is_zero();
        let whole = if by_hand {
            timers.probe_timeout
        } else if !known || unproven(entry) || self.nobody_better(entry) {
            // Nothing is gained by haste: a slow answer is worth more than none.
            longest
        } else {
            timers.probe_timeout.max(entry.slowest * 2).max(reach).min(longest)
        };
        let usual = if entry.health() == Health::Down && urgent(service) {
            all_down_connect(entry, timers)
        } else {
            timers.probe_timeout
        };
        // The addresses of a name share it. Only who is down is waited for at each of them: of others that takes too long.
        let others = if entry.health() == Health::Down && !by_hand { addresses(entry) - 1 } else { 0 };
        let others = path.unwrap_or_default().saturating_mul(others);
        let whole = whole + others;
        let connect = if known { usual.max(reach + others) } else { first }.min(whole);
        let site = &self.sites[entry.site];
        let accused = site.accusation.is_some();
        let doubted = entry.pressed || entry.counters.silent() > 0 || (accused && !entry.counters.in_doubt());
        let given_up = entry.health() == Health::Down && !entry.falls_silent();
        if !known || !doubted || entry.whole_next || given_up {
            return (connect, whole, false);
        }
        // In a doubt about the whole site, the strictest service there sets the pace for all.
        let confirm = if accused { site.confirm.min(timers.confirm_timeout) } else { timers.confirm_timeout };
        let confirm = confirm.max(reach).min(connect);
        (confirm, confirm, true)
    }

    /// A backend answers late, and no other of its service has been seen to do better since.
    fn nobody_better(&self, entry: &Entry) -> bool {
        let late = entry.counters.bad > 0 && entry.last_fault == Some(Fault::ResponseTimeout);
        late && entry.bad_since.is_some_and(|since| !self.sibling_passed(entry, since))
    }

    /// A service has nobody left: its backends are probed at the fast pace.
    pub(super) fn hurry_service(&mut self, service: usize, now: Instant) {
        for slot in self.services[service].members.clone() {
            if self.entries.get(&slot).is_none_or(|entry| entry.health() != Health::Down) {
                continue;
            }
            let before = self.planned(slot);
            self.plan(slot, now);
            if let Some(earlier) = before.filter(|at| self.planned(slot).is_some_and(|new| *at < new)) {
                self.unplan(slot);
                self.agenda.set(Alarm::Probe(slot), earlier);
            }
        }
    }
}

/// Whether a fault is something that came from there, and not that nothing did, or not all of it, in time.
fn arrived(fault: Fault) -> bool {
    !fault.is_silence() && !matches!(fault, Fault::ResponseTimeout | Fault::BodyMismatch | Fault::Unwatched)
}

/// A service has nobody, and its checks may be hurried.
fn urgent(service: &ServiceState) -> bool {
    service.available == Some(false) && left_to_us(service)
}

/// How the checks of a service go was left to us: a program to run, or a pace set by hand, is not hurried.
fn left_to_us(service: &ServiceState) -> bool {
    let ours = |health: &HealthCheck| {
        health.interval.is_none() && health.timeout.is_none() && !matches!(health.kind, CheckKind::Exec(_))
    };
    service.forward.as_ref().is_some_and(|forward| ours(&forward.health))
}

/// How long a connect to a backend is waited for while nobody is left. The addresses of a name share it.
fn all_down_connect(entry: &Entry, timers: &Timers) -> Duration {
    ALL_DOWN_CONNECT.saturating_mul(addresses(entry)).min(timers.probe_timeout)
}

/// How many addresses a backend has, one at least.
pub(super) fn addresses(entry: &Entry) -> u32 {
    u32::try_from(entry.addresses.len().max(1)).unwrap_or(u32::MAX)
}

/// How long the first probes of so many backends take.
pub(super) fn first_probes(backends: usize) -> Duration {
    (FIRST_PROBE_EVERY * u32::try_from(backends).unwrap_or(u32::MAX)).max(FIRST_PROBE_WITHIN)
}

/// No good check since it was last down, or since nobody knew it.
fn unproven(entry: &Entry) -> bool {
    entry.counters.good == 0 && matches!(entry.health(), Health::Down | Health::Probing)
}

/// Remembers how long good probes take: a slow-falling peak, and a slow-rising floor.
fn learn(entry: &mut Entry, took: Duration) {
    let took = took.max(Duration::from_micros(1));
    entry.slowest = took.max(entry.slowest * 7 / 8 + took / 8);
    entry.fastest = if entry.fastest.is_zero() { took } else { took.min(entry.fastest * 7 / 8 + took / 8) };
}

/// The next point of a backend's own rhythm: `interval` apart, at its own phase, moved by the jitter. Between two
/// points lies at most `interval * (1 + jitter)`; a probe out of turn does not change the rhythm, so that backends
/// probed together once do not stay together.
fn grid(phase: u64, interval: Duration, jitter: f64, roll: u64, now: Instant) -> Instant {
    let period = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX).max(1);
    let swing = interval.mul_f64(jitter * 0.45);
    let swing = u64::try_from(swing.as_micros()).unwrap_or(0);
    let offset = share(phase, period);
    let earliest = now.0 + swing + 1;
    let point = offset + earliest.saturating_sub(offset).div_ceil(period) * period;
    Instant((point + share(roll, 2 * swing + 1)).saturating_sub(swing).max(now.0 + 1))
}

/// `part` of 2^64, as a share of `whole`.
fn share(part: u64, whole: u64) -> u64 {
    u64::try_from((u128::from(part) * u128::from(whole)) >> 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rhythm_keeps_its_pace_its_bound_and_its_spread() {
        let interval = Duration::from_millis(300);
        let mut random = crate::random::Random::new(3);
        for jitter in [0.0, 0.1, 0.5] {
            for _ in 0..50 {
                let phase = random.next();
                let start = Instant(1_000_000_000);
                let mut now = start;
                for _ in 0..100 {
                    let next = grid(phase, interval, jitter, random.next(), now);
                    let gap = next.since(now);
                    assert!(gap > Duration::ZERO);
                    assert!(gap <= interval.mul_f64(1.0 + jitter) + Duration::from_micros(2), "{gap:?}");
                    now = next;
                }
                let mean = now.since(start) / 100;
                assert!(mean > interval * 97 / 100 && mean < interval * 101 / 100, "{mean:?}");
            }
        }
    }

    #[test]
    fn ten_thousand_backends_do_not_come_in_bursts() {
        let interval = Duration::from_secs(1);
        let mut random = crate::random::Random::new(4);
        let mut per_millisecond = vec![0_u32; 1200];
        for _ in 0..10_000 {
            let at = grid(random.next(), interval, 0.1, random.next(), Instant(0));
            per_millisecond[usize::try_from(at.0 / 1000).unwrap()] += 1;
        }
        assert!(per_millisecond.iter().all(|&n| n < 40), "{:?}", per_millisecond.iter().max());
    }
}

//! The one pure function that turns evidence into health, for probes and for real requests alike.
//!
//! Counters are strictly consecutive: one good answer ends a run of bad ones and the other way round. The function
//! knows one backend; what needs the view of a site or a service comes in through [`Given`].

use crate::fault::Fault;
use crate::health::Health;
use crate::timers::Timers;
use crate::words::count;

/// What is remembered of one backend between two pieces of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counters {
    /// The last verdict.
    pub(crate) health: Health,
    /// Good probes in a row.
    pub(crate) good: u32,
    /// Failed probes in a row.
    pub(crate) bad: u32,
    /// Failed requests in a row.
    pub(crate) failed: u32,
    /// Probes in a row that met silence.
    pub(crate) silent_probes: u32,
    /// Requests that met silence, with no sign of life since the first of them.
    pub(crate) silent_requests: u32,
}

impl Counters {
    /// Nothing counted yet.
    pub(crate) fn new(health: Health) -> Self {
        Self { health, good: 0, bad: 0, failed: 0, silent_probes: 0, silent_requests: 0 }
    }

    /// Signs of silence in a row. Requests count as one together: they fail together, and long after they were sent,
    /// when those that succeed have long gone elsewhere.
    pub(crate) fn silent(&self) -> u32 {
        self.silent_probes.saturating_add(self.silent_requests.min(1))
    }

    fn heard(&mut self) {
        self.silent_probes = 0;
        self.silent_requests = 0;
    }

    /// Whether the last evidence left a question open.
    pub(crate) fn in_doubt(&self) -> bool {
        self.bad > 0 || self.silent() > 0 || matches!(self.health, Health::Probing | Health::Suspect)
    }
}

/// One piece of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// The result of a probe.
    Probe(Result<(), Fault>),
    /// The result of a real request.
    Request(Result<(), Fault>),
}

/// What the fleet knows besides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'a> {
    /// The service's timers.
    pub(crate) timers: &'a Timers,
    /// Signs of silence in a row that are needed: `timers.patience`, or more on a link that loses packets.
    pub(crate) patience: u32,
    /// Real requests were answered well there meanwhile: since this probe was sent, or since the last failed request.
    pub(crate) lived: bool,
    /// A failed check proves nothing now: real requests succeed there, and no other backend of the service has passed
    /// the check since this one began to fail. Perhaps the check itself is broken.
    pub(crate) excused: bool,
    /// The service can lose this backend to wrong answers and still has enough others.
    pub(crate) spare: bool,
    /// The others of the pool fail in the same way meanwhile.
    pub(crate) shared: bool,
    /// Another one answers well meanwhile, which is no chance.
    pub(crate) outdone: bool,
    /// Nothing else of the service is usable.
    pub(crate) needed: bool,
    /// The probe had only the short, confirming deadline.
    pub(crate) short: bool,
    /// What the probe brought back in words.
    pub(crate) said: Option<&'a str>,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Health included. A return from `Down` is not in it: see `ready`.
    pub(crate) counters: Counters,
    /// `Down`, and good enough to come back; when is the governor's word.
    pub(crate) ready: bool,
    /// It goes `Down` for another that answers well, although the service cannot spare it, or others fail, too.
    pub(crate) outdone: bool,
    /// In words, when health changed or a bad sign was overruled.
    pub(crate) why: Option<String>,
}

/// The verdict after one more piece of evidence.
pub(crate) fn verdict(before: Counters, evidence: Evidence, given: &Given<'_>) -> Verdict {
    match evidence {
        Evidence::Probe(Ok(())) => good_probe(before, given),
        Evidence::Probe(Err(fault)) => bad_probe(before, fault, given),
        Evidence::Request(Ok(())) => good_request(before, given),
        Evidence::Request(Err(fault)) => bad_request(before, fault, given),
    }
}

fn good_probe(before: Counters, given: &Given<'_>) -> Verdict {
    let good = before.good.saturating_add(1);
    let mut after = Counters { good, bad: 0, ..before };
    after.heard();
    match before.health {
        Health::Down => {
            let ready = given.needed || good >= given.timers.rise;
            Verdict { counters: after, ready, outdone: false, why: ready.then(|| passed(good)) }
        }
        Health::Up => keep(after, None),
        Health::Probing | Health::Suspect => {
            after.health = Health::Up;
            keep(after, Some(passed(1)))
        }
    }
}

fn good_request(before: Counters, given: &Given<'_>) -> Verdict {
    // A late answer of a backend that is down may be from before it went down: it counts only when nothing is left.
    let ready = before.health == Health::Down && given.needed;
    let mut after = Counters { failed: 0, ..before };
    after.heard();
    if before.health == Health::Suspect {
        after.health = Health::Up;
    }
    let why = (ready || after.health != before.health).then(|| "a request was answered".to_owned());
    Verdict { counters: after, ready, outdone: false, why }
}

fn bad_probe(before: Counters, fault: Fault, given: &Given<'_>) -> Verdict {
    let mut after = Counters { good: 0, ..before };
    if given.short && fault == Fault::ResponseTimeout {
        // It connected, and that is all the short deadline asked: a whole probe follows.
        after.heard();
        return keep(after, None);
    }
    if unanswered(fault) && given.lived {
        // Silence towards the probe says nothing while requests get their answers: a lost packet, a slow check.
        after.bad = 0;
        return lives(after, before.health, "requests are answered");
    }
    after.bad = before.bad.saturating_add(1);
    note_silence(&mut after, fault, true);
    if before.health == Health::Down {
        return keep(after, None);
    }
    if fault.is_silence() {
        if after.silent() >= given.patience.max(given.timers.fall) {
            return down(after, format!("{fault}, {} in a row", count(after.silent(), "time")));
        }
        return doubt(after, fault, given);
    }
    let told = given.said.map_or_else(|| fault.to_string(), |said| format!("{fault}: {said}"));
    // Retransmission makes a lost packet look like a late answer: a lossy link needs more of those, too.
    let late = if fault == Fault::ResponseTimeout { given.patience.saturating_sub(1) } else { 0 };
    if after.bad < given.timers.fall.max(late) {
        return keep(after, None);
    }
    if given.excused {
        return keep(after, Some(format!("check fails ({told}) but requests succeed: kept")));
    }
    down(after, format!("{told}, {} in a row", count(after.bad, "check")))
}

fn bad_request(before: Counters, fault: Fault, given: &Given<'_>) -> Verdict {
    let mut after = before;
    if given.lived {
        after.failed = 0;
        after.heard();
    }
    after.failed = after.failed.saturating_add(1);
    note_silence(&mut after, fault, false);
    if before.health == Health::Down {
        return keep(after, None);
    }
    let enough = given.timers.passive_fall > 0 && after.failed >= given.timers.passive_fall;
    if fault.is_silence() {
        // Where there are probes, a request only raises the question that a probe is then sent to answer.
        if !given.timers.checked && enough && after.silent_requests >= given.patience {
            return down(after, format!("{fault}, {} in a row", count(after.silent_requests, "request")));
        }
        return doubt(after, fault, given);
    }
    if !enough || before.health == Health::Probing {
        return keep(after, None);
    }
    let why = format!("{fault}, {} in a row", count(after.failed, "request"));
    let kept = if given.shared {
        Some("so they do at the others")
    } else {
        (fault != Fault::Refused && !given.spare).then_some("the service cannot spare it")
    };
    match kept {
        None => down(after, why),
        Some(_) if given.outdone => {
            Verdict { outdone: true, ..down(after, format!("{why}, while another answers well")) }
        }
        Some(reason) => keep(after, Some(format!("requests fail ({fault}) but {reason}: kept"))),
    }
}

/// No answer of any kind came: a lost packet, a pause or a dead site look like this.
pub(crate) fn unanswered(fault: Fault) -> bool {
    fault.is_silence() || fault == Fault::ResponseTimeout
}

fn note_silence(after: &mut Counters, fault: Fault, probe: bool) {
    if fault.is_silence() {
        let counter = if probe { &mut after.silent_probes } else { &mut after.silent_requests };
        *counter = counter.saturating_add(1);
    } else if fault != Fault::Unresolved {
        // Something there answered, or at least took the connection.
        after.heard();
    }
}

/// Two signs of silence in a row make a backend suspect; one is a lost packet. On a lossy link it takes more.
fn doubt(mut after: Counters, fault: Fault, given: &Given<'_>) -> Verdict {
    if after.health == Health::Up && after.silent() >= given.patience.saturating_sub(2).max(2) {
        after.health = Health::Suspect;
        return keep(after, Some(format!("{fault}, {} in a row", count(after.silent(), "time"))));
    }
    keep(after, None)
}

fn lives(mut after: Counters, before: Health, why: &str) -> Verdict {
    after.heard();
    if before == Health::Suspect {
        after.health = Health::Up;
        return keep(after, Some(why.to_owned()));
    }
    keep(after, None)
}

fn down(mut after: Counters, why: String) -> Verdict {
    after.health = Health::Down;
    after.good = 0;
    Verdict { counters: after, ready: false, outdone: false, why: Some(why) }
}

fn keep(counters: Counters, why: Option<String>) -> Verdict {
    Verdict { counters, ready: false, outdone: false, why }
}

fn passed(good: u32) -> String {
    if good <= 1 { "check passed".to_owned() } else { format!("{} passed in a row", count(good, "check")) }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;

//! The report: what the fleet believes and why.

use std::sync::Arc;
use std::time::Duration;

use relais_config::{Action, Site};

use super::Fleet;
use super::site_state::SiteState;
use super::state::{Entry, ServiceState, Word};
use crate::agent::{AgentLine, AgentWords};
use crate::event::Target;
use crate::health::{Admin, Health};
use crate::report::{AgentReport, BackendReport, Report, ServiceReport, SiteReport, TunnelReport};
use crate::time::Instant;
use crate::verdict::unanswered;

/// After so long it is no news any more how a backend or a site came up.
const NEWS: Duration = Duration::from_secs(600);
/// Said of who is up and answers nothing, while there is nobody better.
const STILL: &str = "lets all requests wait, which is unusual";

pub(super) fn report(fleet: &Fleet, now: Instant) -> Report {
    Report {
        now,
        drill: fleet.drill_record().filter(|record| !record.done).cloned(),
        checks: fleet.checks_report(),
        sites: fleet
            .config
            .sites
            .iter()
            .zip(&fleet.sites)
            .map(|(site, state)| site_report(fleet, site, state, now))
            .collect(),
        services: fleet.services.iter().map(|service| service_report(fleet, service, now)).collect(),
    }
}

fn site_report(fleet: &Fleet, declared: &Site, state: &SiteState, now: Instant) -> SiteReport {
    let members: Vec<&Entry> = fleet.members_of(state).collect();
    let word = fleet.words.get(&Target::Site(Arc::clone(&state.name)));
    let admin = word.map_or(Admin::Enabled, |word| word.word);
    let health = fleet.site_health(state);
    // What nothing has followed yet is so now, as far as anybody knows.
    let since = state.shown.map_or(state.since, |(shown, since)| if shown == health { since } else { now });
    let why = || state.with_tunnel(site_why(state, &members, (health, since), now), now);
    SiteReport {
        name: Arc::clone(&state.name),
        tier: declared.tier,
        labels: declared.labels.clone(),
        health,
        admin,
        since: word.map_or(since, |word| since.max(word.since)),
        why: operator_words(word).unwrap_or_else(why),
        usable: members.iter().filter(|entry| entry.usable()).count(),
        total: members.len(),
        round_trip_micros: state
            .path
            .round_trip
            .smoothed()
            .map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        tunnel: state
            .tunnel
            .as_ref()
            .map(|tunnel| TunnelReport { interface: Arc::clone(&tunnel.interface), handshake: tunnel.handshake }),
        drill: state.drill,
    }
}

impl Fleet {
    /// Notes since when sites are as they are shown: those of these services, and those that changed otherwise.
    pub(super) fn follow_sites(&mut self, services: &[usize], now: Instant) {
        let mut sites = std::mem::take(&mut self.changes.sites);
        for &service in services {
            let members = self.services[service].members.iter();
            sites.extend(members.filter_map(|slot| Some(self.entries.get(slot)?.site)));
        }
        for index in sites {
            let Some(state) = self.sites.get(index) else { continue };
            let health = self.site_health(state);
            let since = match state.shown {
                Some((shown, _)) if shown == health => continue,
                Some(_) => now,
                // What is remembered of its backends is all that is known of it.
                None => self.remembered_since(state, health),
            };
            self.sites[index].shown = Some((health, since));
        }
    }

    fn members_of<'a>(&'a self, state: &'a SiteState) -> impl Iterator<Item = &'a Entry> {
        state.members.iter().filter_map(|slot| self.entries.get(slot))
    }

    /// The site's own verdict, or what all its backends have in common.
    fn site_health(&self, state: &SiteState) -> Health {
        let asked = || self.members_of(state).filter(|entry| entry.admin != Admin::Disabled);
        // Who is ejected and answers lives, and its site with it.
        let is = |entry: &Entry, health: Health| entry.health() == health && !(entry.is_ejected() && entry.answers());
        let all = |health: Health| asked().next().is_some() && asked().all(|entry| is(entry, health));
        [Health::Down, Health::Probing].into_iter().find(|health| all(*health)).unwrap_or(state.health)
    }

    /// Since when a site is in this health for certain, by what its backends remember: up since the first of them is, else
    /// since the last of them joined the others.
    fn remembered_since(&self, state: &SiteState, health: Health) -> Instant {
        let asked = self.members_of(state).filter(|entry| entry.admin != Admin::Disabled);
        let like = asked.filter(|entry| entry.health() == health).map(|entry| entry.since);
        let since = if health == Health::Up { like.min() } else { like.max() };
        since.unwrap_or(state.since)
    }
}

/// Why a site is in this health since then, where its own verdict says so or its backends have it in common.
fn site_why(state: &SiteState, members: &[&Entry], (health, since): (Health, Instant), now: Instant) -> String {
    let asked = members.iter().filter(|entry| entry.admin != Admin::Disabled);
    match health {
        _ if health != state.health => asked.max_by_key(|entry| entry.since).map_or(String::new(), |e| e.why.clone()),
        // What its backends were told apart for stands beside them.
        Health::Up if since != state.since => String::new(),
        Health::Up => while_new(&state.why, since, now),
        _ => state.why.clone(),
    }
}

fn service_report(fleet: &Fleet, state: &ServiceState, now: Instant) -> ServiceReport {
    let members = state.members.iter().filter_map(|slot| fleet.entries.get(slot));
    let tier = members.clone().filter(|entry| entry.usable()).map(|entry| entry.tier).min();
    let shares = state.pool.as_ref().map(|pool| pool.shares(now)).unwrap_or_default();
    ServiceReport {
        name: Arc::clone(&state.service.name),
        hosts: state.service.hosts.clone(),
        action: match state.service.action {
            Action::Forward(_) => "forward",
            Action::Redirect(_) => "redirect",
            Action::Respond(_) => "respond",
        },
        contract_micros: u64::try_from(state.timers.failover_within.as_micros()).unwrap_or(u64::MAX),
        trouble: state.trouble.iter().map(|trouble| trouble.why.clone()).collect(),
        crowded: fleet.crowded(state),
        last_failover: fleet.failovers().rfind(|record| record.service == state.service.name).cloned(),
        tier,
        shares: if shares.iter().all(|(of, _)| Some(*of) == tier) { Vec::new() } else { shares },
        fail_open: state.forward.as_ref().is_some_and(|forward| forward.fail_open),
        check: state.forward.as_ref().map(|forward| forward.health.kind.to_string()),
        backends: file_order(state, members.map(|entry| backend_report(fleet, entry, now)).collect()),
    }
}

/// Pools are sorted by tier; people read their file.
fn file_order(state: &ServiceState, mut backends: Vec<BackendReport>) -> Vec<BackendReport> {
    let declared = state.forward.as_ref().map(|forward| forward.backends.as_slice()).unwrap_or_default();
    let place: std::collections::BTreeMap<(String, &str), usize> =
        declared.iter().enumerate().map(|(place, decl)| ((decl.address.to_string(), &*decl.site), place)).collect();
    backends.sort_by_key(|backend| place.get(&(backend.address.to_string(), &*backend.site)).copied());
    backends
}

fn backend_report(fleet: &Fleet, entry: &Entry, now: Instant) -> BackendReport {
    let id = &entry.backend.id;
    let own = fleet.words.get(&Target::Backend(id.clone()));
    let site = fleet.words.get(&Target::Site(Arc::clone(&id.site)));
    let word = [own, site].into_iter().flatten().max_by_key(|word| word.word);
    let since = word.map_or(entry.since, |word| entry.since.max(word.since));
    let still = fleet.services[entry.service].still && entry.usable();
    let said = entry.agent.said.as_ref();
    let since = said.map_or(since, |said| since.max(said.since));
    let health = fleet.shown(entry);
    let by_site = health == Health::Suspect && entry.health() != health;
    let since = if by_site { since.max(fleet.sites[entry.site].since) } else { since };
    let (succeeded, failed) = entry.backend.stats.told();
    BackendReport {
        address: Arc::clone(&id.address),
        site: Arc::clone(&id.site),
        tier: entry.tier,
        weight: entry.weight,
        health,
        admin: entry.admin,
        since,
        why: if still { STILL.to_owned() } else { words_about(entry, word, now) },
        inflight: entry.backend.inflight(),
        succeeded,
        failed,
        probes: entry.recent.iter().cloned().collect(),
        agent: said.map(|said| AgentReport {
            line: said.line.clone(),
            since: said.since,
            percent: said.words.percent,
            cap: said.words.cap,
        }),
        agent_silent: entry.agent.silent().map(str::to_owned),
        addresses: if entry.is_named() { entry.addresses.to_vec() } else { Vec::new() },
        unresolved: entry.name.trouble.clone(),
        held_until: entry.held_until.max(entry.ejected),
        ejected: entry.is_ejected(),
        backend: Arc::clone(&entry.backend),
    }
}

/// Why a backend is as it is, in the words of whoever decides it: the operator, then its agent, then the evidence.
fn words_about(entry: &Entry, word: Option<&Word>, now: Instant) -> String {
    let operator = word.map_or(Admin::Enabled, |word| word.word);
    match &entry.agent.said {
        Some(said) if entry.agent.admin() > operator => {
            let earlier = if says(&said.line) < entry.agent.admin() { " until it says ready, now" } else { "" };
            format!("{} by its agent{earlier}: {}", entry.agent.admin(), said.line)
        }
        Some(said) if operator == Admin::Enabled && entry.agent.says_down() => {
            format!("its agent says {}", said.words.down.as_deref().unwrap_or_default())
        }
        _ => operator_words(word).unwrap_or_else(|| match entry.health() {
            Health::Up if !entry.overruled => entry
                .why_kept()
                .or_else(|| entry.why_small())
                .unwrap_or_else(|| while_new(&entry.why, entry.since, now)),
            Health::Down if entry.trial.is_some() => {
                format!("{}; nobody else is left: requests try it", why_down(entry))
            }
            Health::Down => why_down(entry),
            _ => entry.why.clone(),
        }),
    }
}

impl Entry {
    /// Why it is up though its checks are not answered: requests are.
    fn why_kept(&self) -> Option<String> {
        let mut last = self.recent.iter().rev().map(|probe| probe.fault.filter(|fault| unanswered(*fault)));
        // One alone may be lost.
        let fault = last.next()?.and(last.next()?)?;
        let lived = self.bad_since.is_some_and(|since| self.lived_at.is_some_and(|at| at >= since));
        (lived && self.counters.bad == 0).then(|| format!("check fails ({fault}) but requests are answered: kept"))
    }
}

/// Why it went down, and what is wrong by now if that is something else.
fn why_down(entry: &Entry) -> String {
    let last = entry.recent.back().and_then(|probe| Some((probe.fault?, probe.said.as_deref())));
    // Where nothing at all answers, that says it all.
    let Some((fault, said)) = last.filter(|(fault, _)| !(entry.dead && fault.is_silence())) else {
        return entry.why.clone();
    };
    let now = said.map_or_else(|| fault.to_string(), |said| format!("{fault}: {said}"));
    if tells(&entry.why, &now, said.is_some()) { entry.why.clone() } else { format!("{}; now: {now}", entry.why) }
}

/// Whether a reason says what is wrong now already: how often or for how long may stand behind it, and words where now there
/// are none.
fn tells(why: &str, now: &str, with_words: bool) -> bool {
    let rest = why.strip_prefix(now);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(", ") || (!with_words && rest.starts_with(": ")))
}

/// How something came to be well; nothing once that is long ago.
fn while_new(why: &str, since: Instant, now: Instant) -> String {
    if now.since(since) < NEWS { why.to_owned() } else { String::new() }
}

/// The word of one line of an agent alone: what it does not name stays as it was.
fn says(line: &str) -> Admin {
    AgentLine::read(line).map_or(Admin::Enabled, |line| AgentWords::default().after(line).admin())
}

/// The operator's reason, where a word other than `enabled` holds.
fn operator_words(word: Option<&Word>) -> Option<String> {
    let word = word.filter(|word| word.word != Admin::Enabled)?;
    Some(word.reason.clone().unwrap_or_else(|| format!("{} by the operator", word.word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_tells_what_is_the_same_and_not_what_only_looks_alike() {
        let why = "says it is not well: lag is 90 s, 2 checks in a row";
        assert!(tells(why, "says it is not well: lag is 90 s", true));
        assert!(tells(why, "says it is not well", false), "its words were heard once");
        assert!(tells("connection refused", "connection refused", false));
        assert!(!tells(why, "says it is not well: lag is 9", true));
        assert!(!tells(why, "lag is 90 s", true));
        assert!(!tells("connection refused, 2 checks in a row", "connection reset", false));
    }
}

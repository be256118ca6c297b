//! The report: what the fleet believes and why.

use std::sync::Arc;
use std::time::Duration;

use relais_config::{Action, Site};

use super::Fleet;
use super::state::{Entry, ServiceState, SiteState, Word};
use crate::agent::{AgentLine, AgentWords};
use crate::event::Target;
use crate::fault::Fault;
use crate::health::{Admin, Health};
use crate::report::{AgentReport, BackendReport, Report, ServiceReport, SiteReport, TunnelReport};
use crate::time::Instant;

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
    let members: Vec<&Entry> = state.members.iter().filter_map(|slot| fleet.entries.get(slot)).collect();
    let word = fleet.words.get(&Target::Site(Arc::clone(&state.name)));
    let admin = word.map_or(Admin::Enabled, |word| word.word);
    let (health, since, why) = site_health(state, &members, now);
    SiteReport {
        name: Arc::clone(&state.name),
        tier: declared.tier,
        labels: declared.labels.clone(),
        health,
        admin,
        since: word.map_or(since, |word| since.max(word.since)),
        why: operator_words(word).unwrap_or_else(|| state.with_tunnel(why, now)),
        usable: members.iter().filter(|entry| entry.usable()).count(),
        total: members.len(),
        round_trip_micros: state.round_trip.smoothed().map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        tunnel: state
            .tunnel
            .as_ref()
            .map(|tunnel| TunnelReport { interface: Arc::clone(&tunnel.interface), handshake: tunnel.handshake }),
        drill: state.drill,
    }
}

/// The site's own verdict, or what all its backends have in common.
fn site_health(state: &SiteState, members: &[&Entry], now: Instant) -> (Health, Instant, String) {
    let asked: Vec<&&Entry> = members.iter().filter(|entry| entry.admin != Admin::Disabled).collect();
    // Who is ejected and answers lives, and its site with it.
    let is = |entry: &Entry, health: Health| entry.health() == health && !(entry.is_ejected() && entry.answers());
    let all = |health: Health| !asked.is_empty() && asked.iter().all(|entry| is(entry, health));
    let common = [Health::Down, Health::Probing].into_iter().find(|health| all(*health));
    match common {
        Some(health) if health != state.health => {
            let latest = asked.iter().max_by_key(|entry| entry.since);
            let (since, why) = latest.map_or((state.since, String::new()), |e| (e.since, e.why.clone()));
            (health, since, why)
        }
        _ if state.health == Health::Up => (state.health, state.since, while_new(&state.why, state.since, now)),
        _ => (state.health, state.since, state.why.clone()),
    }
}

fn service_report(fleet: &Fleet, state: &ServiceState, now: Instant) -> ServiceReport {
    let members = state.members.iter().filter_map(|slot| fleet.entries.get(slot));
    ServiceReport {
        name: Arc::clone(&state.service.name),
        hosts: state.service.hosts.clone(),
        action: match state.service.action {
            Action::Forward(_) => "forward",
            Action::Redirect(_) => "redirect",
            Action::Respond(_) => "respond",
        },
        contract_micros: u64::try_from(state.timers.failover_within.as_micros()).unwrap_or(u64::MAX),
        trouble: state.trouble.iter().cloned().chain(fleet.crowded(state)).collect(),
        last_failover: fleet.failovers().rfind(|record| record.service == state.service.name).cloned(),
        tier: members.clone().filter(|entry| entry.usable()).map(|entry| entry.tier).min(),
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
    BackendReport {
        address: Arc::clone(&id.address),
        site: Arc::clone(&id.site),
        tier: entry.tier,
        weight: entry.weight,
        health: fleet.shown(entry),
        admin: entry.admin,
        since,
        why: if still { STILL.to_owned() } else { words_about(entry, word, now) },
        inflight: entry.backend.inflight(),
        succeeded: entry.succeeded(),
        failed: entry.backend.stats.failed.get(),
        probes: entry.recent.iter().cloned().collect(),
        agent: said.map(|said| AgentReport {
            line: said.line.clone(),
            since: said.since,
            percent: said.words.percent,
            cap: said.words.cap,
        }),
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
            Health::Up if !entry.overruled => while_new(&entry.why, entry.since, now),
            Health::Down if entry.trial.is_some() => {
                format!("{}; nobody else is left: requests try it", why_down(entry))
            }
            Health::Down => why_down(entry),
            _ => entry.why.clone(),
        }),
    }
}

/// Why it went down, and what is wrong by now if that is something else.
fn why_down(entry: &Entry) -> String {
    let last = entry.recent.back().and_then(|probe| probe.fault);
    // Where nothing at all answers, that says it all.
    let said = |fault: &Fault| (entry.dead && fault.is_silence()) || entry.why.contains(&fault.to_string());
    match last.filter(|fault| !said(fault)) {
        Some(fault) => format!("{}; now: {fault}", entry.why),
        None => entry.why.clone(),
    }
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

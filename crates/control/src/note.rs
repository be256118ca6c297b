//! Tells people: one log line per transition, with the evidence in fields that a log search can use.

use std::time::Duration;

use relais_config::words::short;
use relais_core::{
    Admin, BackendId, CertificateStep, DrillRecord, FailoverRecord, Health, Target, Transition, TunnelStep,
};
use relais_tls::date;

/// Writes the line of one transition. Loss is a warning, return is information.
pub(crate) fn write(transition: &Transition) {
    match transition {
        Transition::Health { id, from, to, why, after } => backend(id, (*from, *to), why, *after),
        Transition::Site { site: name, from, to, why } => site(name, *from, *to, why),
        Transition::Tunnel { site, interface, step, handshake_age } => tunnel(site, interface, *step, *handshake_age),
        Transition::Admin { target, from, to, reason } => operator(target, *from, *to, reason.as_deref()),
        Transition::Agent { id, said, takes } => agent(id, said.as_deref(), *takes),
        Transition::AgentSilent { id, why } => hearing(id, why.as_deref()),
        Transition::Addresses { id, from, to } => {
            let (service, site, backend) = (&*id.service, &*id.site, &*id.address);
            tracing::info!(service, site, backend, ?from, ?to, "the name of a backend has new addresses");
        }
        Transition::Unresolved { id, why } => {
            let (service, site, backend) = (&*id.service, &*id.site, &*id.address);
            tracing::warn!(service, site, backend, why, "a name does not resolve: its last addresses stay in use");
        }
        Transition::Reloaded { added, removed, kept } => {
            tracing::info!(added, removed, kept, "config applied");
        }
        Transition::Failover(record) => failover(record),
        Transition::Drill(record) => drill(record),
        Transition::Contract { service, trouble } => {
            let service = &**service;
            match trouble {
                Some(why) => tracing::warn!(service, why, "the contract cannot hold: {why}"),
                None => tracing::info!(service, "the contract can hold again"),
            }
        }
        Transition::Trial { service } => beside_checks(service, None),
        Transition::Believed { service, believed } => beside_checks(service, Some(*believed)),
        Transition::Still { service, still } => standing(service, *still),
        Transition::Service { service, available } => availability(service, *available),
        Transition::Checks { lag, services } => checks(*lag, *services),
        Transition::Certificate { name, step } => certificate(name, step),
        Transition::Authority { name, until, why } => {
            let (authority, until) = (&**name, date(*until));
            tracing::warn!(authority, until, why, "an authority fails and is left alone for a while");
        }
    }
}

fn backend(id: &BackendId, (from, to): (Health, Health), why: &str, after: Duration) {
    let (service, site, backend) = (&*id.service, &*id.site, &*id.address);
    let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    let (down, from, to) = (to == Health::Down, from.as_str(), to.as_str());
    if down {
        tracing::warn!(service, site, backend, from, to, why, after_ms, "backend {to}");
    } else {
        tracing::info!(service, site, backend, from, to, why, after_ms, "backend {to}");
    }
}

fn site(site: &str, from: Health, to: Health, why: &str) {
    let (down, from, to) = (to == Health::Down, from.as_str(), to.as_str());
    if down {
        tracing::warn!(site, from, to, why, "site {to}");
    } else {
        tracing::info!(site, from, to, why, "site {to}");
    }
}

fn operator(target: &Target, from: Admin, to: Admin, reason: Option<&str>) {
    let (enabled, from, to) = (to == Admin::Enabled, from.as_str(), to.as_str());
    let reason = reason.unwrap_or_default();
    if enabled {
        tracing::info!(about = %target, from, to, reason, "operator: {target} {to}");
    } else {
        tracing::warn!(about = %target, from, to, reason, "operator: {target} {to}");
    }
}

/// What the agent of a backend says. `takes`: it takes traffic.
fn agent(id: &BackendId, said: Option<&str>, takes: bool) {
    let (service, site, backend) = (&*id.service, &*id.site, &*id.address);
    match said {
        Some(line) if takes => tracing::info!(service, site, backend, line, "agent: {line}"),
        Some(line) => tracing::warn!(service, site, backend, line, "agent: {line}"),
        None => tracing::warn!(service, site, backend, "agent is silent: its words are forgotten"),
    }
}

/// Whether the agent of a backend is heard.
fn hearing(id: &BackendId, why: Option<&str>) {
    let (service, site, backend) = (&*id.service, &*id.site, &*id.address);
    match why {
        Some(why) => tracing::warn!(service, site, backend, why, "no agent is heard: {why}"),
        None => tracing::info!(service, site, backend, "the agent is heard again"),
    }
}

/// Whether anybody can be asked.
fn availability(service: &str, available: bool) {
    if available {
        tracing::info!(service, available, "service available again");
    } else {
        tracing::warn!(service, available, "service has no backend left");
    }
}

/// Requests try who fails its checks, or show whether those are to be believed.
fn beside_checks(service: &str, believed: Option<bool>) {
    match believed {
        None => tracing::warn!(service, "nobody is left, and some answer their checks, wrongly: requests try them"),
        Some(false) => {
            tracing::warn!(service, "its checks fail and its requests succeed: the checks are not believed");
        }
        Some(true) => tracing::info!(service, "its checks are believed again"),
    }
}

/// Whether all backends of a service let requests wait.
fn standing(service: &str, still: bool) {
    if still {
        tracing::warn!(
            service,
            "every backend has stopped to answer requests: those that may be repeated and come now are not kept waiting"
        );
    } else {
        tracing::info!(service, "no longer does every backend let all requests wait");
    }
}

/// Whether checks come in time.
fn checks(lag: Option<Duration>, services: usize) {
    let Some(lag) = lag else {
        tracing::info!("checks come in time again");
        return;
    };
    let late = short(lag);
    tracing::warn!(
        late,
        services,
        "more backends are checked than this machine can: checks come {late} late, too late for failover_within"
    );
}

fn tunnel(site: &str, interface: &str, step: TunnelStep, age: Option<Duration>) {
    let last = age.map_or_else(|| "no handshake yet".to_owned(), |age| format!("last handshake {} ago", short(age)));
    let age_s = age.map(|age| age.as_secs());
    match step {
        TunnelStep::Found => {
            tracing::info!(site, interface, age_s, "handshakes of WireGuard {interface} are read for {site}: {last}");
        }
        TunnelStep::Down => {
            tracing::warn!(site, interface, age_s, "the WireGuard tunnel to {site} is down: {last}");
        }
        TunnelStep::Up => {
            tracing::warn!(
                site,
                interface,
                age_s,
                "the WireGuard tunnel to {site} is up, nothing behind it answers: {last}"
            );
        }
    }
}

fn certificate(name: &str, step: &CertificateStep) {
    match step {
        CertificateStep::Ordered { authority, renewal } => {
            tracing::info!(name, authority = &**authority, renewal, "certificate ordered");
        }
        CertificateStep::Issued { authority, not_after, renew_at, took } => {
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            let (until, renewal, authority) = (date(*not_after), date(*renew_at), &**authority);
            tracing::info!(name, authority, until, renewal, took_ms, "certificate issued");
        }
        CertificateStep::Failed { authority, fault } => {
            let (authority, kind, said) = (&**authority, fault.kind.as_str(), &*fault.said);
            let likely = fault.likely.as_deref().unwrap_or_default();
            tracing::warn!(name, authority, kind, said, likely, "no certificate: {said}");
        }
        CertificateStep::Urgent { not_after, left } => {
            let (until, left_s) = (date(*not_after), left.as_secs());
            tracing::warn!(name, until, left_s, "a certificate ends soon and could not be renewed");
        }
        CertificateStep::Forgotten => tracing::info!(name, "a certificate is not needed any longer"),
    }
}

fn failover(record: &FailoverRecord) {
    let (service, sites) = (&*record.service, record.sites.join(", "));
    let took_ms = record.took_micros / 1000;
    let contract_ms = record.contract_micros / 1000;
    let FailoverRecord { moved, rescued, told, drill, why, .. } = record;
    let slowest_ms = record.slowest_micros / 1000;
    if record.overran() {
        let message = format!("failover away from {sites} took longer than the contract");
        tracing::warn!(service, took_ms, contract_ms, moved, rescued, told, slowest_ms, drill, why, "{message}");
    } else {
        let message = format!("failover away from {sites}");
        tracing::info!(service, took_ms, contract_ms, moved, rescued, told, slowest_ms, drill, why, "{message}");
    }
}

fn drill(record: &DrillRecord) {
    let (site, shape, number) = (&*record.site, record.shape.as_str(), record.number);
    let problems = record.problems.join("; ");
    match (record.done, record.end) {
        (true, _) if record.passed() => tracing::info!(site, shape, number, "drill passed"),
        (true, _) => tracing::warn!(site, shape, number, problems, "drill failed"),
        (false, Some(end)) => tracing::warn!(site, shape, number, why = end.as_str(), "drill: the cut of {site} ends"),
        (false, None) => {
            let seconds = record.until.since(record.began).as_secs_f64();
            tracing::warn!(site, shape, number, seconds, "drill: {site} is treated as cut");
        }
    }
}

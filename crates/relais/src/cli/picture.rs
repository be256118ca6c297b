//! The tables of `relais status`, drawn from one answer of the daemon.

use std::fmt::Write;

use comfy_table::{Cell, Color};

use super::table::{ago, millis, render, span, table, word};
use super::view::{Backend, Certificate, Probe, Service, Status};

/// Days a certificate must still have not to be coloured.
const SOON: u64 = 14;

/// The whole picture, a line of head first.
pub(crate) fn draw(status: &Status) -> String {
    let mut text = head(status);
    text.push_str(&drill(status));
    text.push('\n');
    text.push_str(&sites(status));
    text.push_str(&services(status));
    text.push_str(&backends(status));
    text.push_str(&certificates(status));
    text.push_str(&foot(status));
    text
}

fn head(status: &Status) -> String {
    let now = status.report.now;
    let process = &status.process;
    let mut text = format!("relais {}, pid {}, up {}\n", process.version, process.pid, ago(now, process.started));
    let file = process.config_path.as_deref().unwrap_or("embedded");
    let reload = &status.reload;
    let how = if reload.outcome == "unchanged" { "found unchanged" } else { &reload.outcome };
    let _ = writeln!(text, "config: {file}, {how} {} ago", ago(now, reload.at));
    let detail = status.store.detail.trim();
    let place = status.store.path.as_deref().map(|path| format!(" in {path}")).unwrap_or_default();
    let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
    let _ = writeln!(text, "store: {}{place}{detail}", status.store.mode);
    for listener in &status.listeners {
        let _ = writeln!(text, "listener {}: {} ({})", listener.name, listener.addresses.join(", "), listener.protocol);
    }
    text
}

fn sites(status: &Status) -> String {
    let mut table = table(&["SITE", "TIER", "HEALTH", "ADMIN", "USABLE", "SINCE", "WHY"]);
    for site in &status.report.sites {
        table.add_row(vec![
            Cell::new(&site.name),
            Cell::new(site.tier),
            word(&site.health),
            word(&site.admin),
            Cell::new(format!("{}/{}", site.usable, site.total)),
            Cell::new(ago(status.report.now, site.since)),
            Cell::new(&site.why),
        ]);
    }
    if table.is_empty() { String::new() } else { render(table) }
}

fn services(status: &Status) -> String {
    let mut table = table(&["SERVICE", "SERVED BY", "CHECK", "LAST FAILOVER", "HOSTS"]);
    for service in &status.report.services {
        table.add_row(vec![
            Cell::new(&service.name),
            served_by(service),
            Cell::new(service.check.as_deref().unwrap_or_default()),
            last_failover(service, status.report.now),
            Cell::new(service.hosts.join(", ")),
        ]);
    }
    render(table)
}

/// `0.61 s of 1 s, 5 min ago`; red when it took longer than the contract.
fn last_failover(service: &Service, now: u64) -> Cell {
    let Some(failover) = &service.last_failover else { return Cell::new("") };
    let (took, contract) = (millis(failover.took_micros), millis(failover.contract_micros));
    let cell = Cell::new(format!("{took} of {contract}, {} ago", ago(now, failover.ended)));
    if failover.overran() { cell.fg(Color::Red) } else { cell }
}

/// A cut made on purpose must not be taken for a real one.
fn drill(status: &Status) -> String {
    let Some(drill) = &status.report.drill else { return String::new() };
    let left = drill.until.saturating_sub(status.report.now) / 1_000_000;
    match drill.ended {
        Some(_) => format!("DRILL: {} is no longer cut, its return is awaited\n", drill.site),
        None => format!("DRILL: {} is treated as cut ({}) for another {}\n", drill.site, drill.shape, span(left)),
    }
}

fn served_by(service: &Service) -> Cell {
    if service.action != "forward" {
        return Cell::new(format!("itself ({})", service.action));
    }
    let Some(tier) = service.tier else {
        let word = if service.tries_all() { "nobody up, all are tried (fail_open)" } else { "nobody" };
        return Cell::new(word).fg(Color::Red);
    };
    let whole = |tier: u32| format!("{} (tier {tier})", sites_of(service, tier));
    let part = |(tier, percent): &(u32, u32)| format!("{} {percent} %", whole(*tier));
    Cell::new(match service.shares[..] {
        [] => whole(tier),
        [(only, _)] => whole(only),
        _ => service.shares.iter().map(part).collect::<Vec<_>>().join(", "),
    })
}

/// Where a tier's backends are that take requests.
fn sites_of(service: &Service, tier: u32) -> String {
    let mut sites: Vec<&str> = Vec::new();
    for backend in service.backends.iter().filter(|backend| backend.tier == tier && backend.is_usable()) {
        if !sites.contains(&backend.site.as_str()) {
            sites.push(&backend.site);
        }
    }
    sites.join(", ")
}

fn backends(status: &Status) -> String {
    let headings =
        ["BACKEND", "SITE", "TIER", "WEIGHT", "HEALTH", "ADMIN", "SINCE", "IN FLIGHT", "OK", "FAILED", "PROBES", "WHY"];
    let mut table = table(&headings);
    for service in &status.report.services {
        for backend in &service.backends {
            table.add_row(vec![
                Cell::new(format!("{}/{}", service.name, backend.address)),
                Cell::new(&backend.site),
                Cell::new(backend.tier),
                Cell::new(weight(backend)),
                word(&backend.health),
                word(&backend.admin),
                Cell::new(ago(status.report.now, backend.since)),
                Cell::new(backend.inflight),
                Cell::new(backend.succeeded),
                Cell::new(backend.failed),
                // Nobody asks a disabled one: what it last answered is no news.
                Cell::new(if backend.admin == "disabled" { "-".to_owned() } else { strip(&backend.probes) }),
                Cell::new(why(backend, status.report.now)),
            ]);
        }
    }
    if table.is_empty() { String::new() } else { render(table) }
}

/// The declared weight, and the part of it that the backend's agent leaves.
fn weight(backend: &Backend) -> String {
    match &backend.agent {
        Some(agent) if agent.percent != 100 => format!("{} x {} %", backend.weight, agent.percent),
        _ => backend.weight.to_string(),
    }
}

/// The last probes, latest last; `?`: the edge itself was too busy to look.
fn strip(probes: &[Probe]) -> String {
    let letter = |probe: &Probe| match &probe.fault {
        None => '✓',
        Some(fault) if fault == "unwatched" => '?',
        Some(_) => '✗',
    };
    probes.iter().map(letter).collect()
}

fn why(backend: &Backend, now: u64) -> String {
    let mut why: Vec<String> = [&backend.why].into_iter().filter(|why| !why.is_empty()).cloned().collect();
    if let Some(until) = backend.held_until.filter(|until| *until > now) {
        why.push(format!("held back another {}", ago(until, now)));
    }
    if let Some(silent) = &backend.agent_silent {
        why.push(format!("its agent is not heard ({silent})"));
    }
    if let Some(trouble) = backend.unresolved.as_ref().filter(|trouble| !backend.why.contains(trouble.as_str())) {
        why.push(format!("its name does not resolve now ({trouble}): last addresses in use"));
    }
    why.join("; ")
}

fn certificates(status: &Status) -> String {
    let mut table = table(&["CERTIFICATE", "HOSTS", "ISSUER", "ENDS", "TROUBLE"]);
    for certificate in &status.certificates {
        table.add_row(vec![
            Cell::new(&certificate.name),
            Cell::new(certificate.hosts.join(", ")),
            Cell::new(&certificate.issuer),
            ends(certificate, status.report.now),
            Cell::new(certificate.problem.as_deref().unwrap_or("")).fg(Color::Red),
        ]);
    }
    if table.is_empty() { String::new() } else { render(table) }
}

fn ends(certificate: &Certificate, now: u64) -> Cell {
    let left = certificate.not_after.saturating_sub(now) / 1_000_000;
    match left {
        0 => Cell::new(format!("{} ago", ago(now, certificate.not_after))).fg(Color::Red),
        _ if left < SOON * 86_400 => Cell::new(format!("in {}", span(left))).fg(Color::Yellow),
        _ => Cell::new(format!("in {}", span(left))),
    }
}

/// What is wrong with relais itself, and what the file's check warned about.
fn foot(status: &Status) -> String {
    let mut text = String::new();
    if status.reload.outcome == "refused" {
        let _ = writeln!(text, "last reload refused:\n{}", status.reload.message.trim_end());
    }
    for alarm in &status.alarms {
        let since = ago(status.report.now, alarm.since);
        let _ = writeln!(text, "ALARM {} (since {since}): {}; {}", alarm.about, alarm.message.trim_end(), alarm.help);
    }
    for warning in status.warnings.iter().chain(&status.reload.warnings) {
        let line = format!("warning: {warning}\n");
        if !text.contains(&line) {
            text.push_str(&line);
        }
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A daemon's answer in which all is well.
    pub(crate) fn example() -> Value {
        let backend = json!({
            "address": "10.0.0.1:80", "site": "dijon", "tier": 1, "weight": 1, "health": "up", "admin": "enabled",
            "since": 1_000_000, "why": "2 good probes", "inflight": 3, "succeeded": 40, "failed": 1,
            "probes": [{"at": 1, "took_micros": 5, "fault": "refused"}, {"at": 2, "took_micros": 5, "fault": null}],
            "held_until": null
        });
        json!({
            "process": {"version": "0.1.0", "pid": 7, "started": 1_000_000, "config_path": "proxy.toml"},
            "reload": {"at": 1_000_000, "trigger": "start", "outcome": "applied", "message": "", "help": null, "warnings": []},
            "alarms": [],
            "store": {"mode": "ok", "path": "/s", "detail": ""},
            "listeners": [{"name": "https", "protocol": "https", "addresses": ["0.0.0.0:443"]}],
            "certificates": [{"name": "a.fr", "hosts": ["a.fr"], "source": "internal", "issuer": "relais", "not_after": 9_000_000_000_000_u64, "problem": null}],
            "warnings": [],
            "report": {
                "now": 301_000_000,
                "sites": [{"name": "dijon", "tier": 1, "labels": [], "health": "up", "admin": "enabled", "since": 1_000_000, "why": "", "usable": 1, "total": 1}],
                "services": [{"name": "api", "hosts": ["a.fr"], "action": "forward", "tier": 1, "backends": [backend]}]
            }
        })
    }

    fn drawn(change: impl FnOnce(&mut Value)) -> String {
        let mut value = example();
        change(&mut value);
        draw(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_backend_is_shown_with_its_words_its_probes_and_the_reason() {
        let text = drawn(|_| {});
        let line = text.lines().find(|line| line.starts_with("api/10.0.0.1:80")).unwrap();
        for part in ["dijon", "up", "enabled", "5 min", "3", "40", "✗✓", "2 good probes"] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(text.contains("config: proxy.toml, applied 5 min ago"), "{text}");
    }

    #[test]
    fn the_check_the_agent_and_the_name_are_shown() {
        let text = drawn(|s| {
            let service = &mut s["report"]["services"][0];
            service["check"] = json!("Redis PING");
            service["backends"][0]["agent"] = json!({"line": "75%", "since": 1, "percent": 75, "cap": null});
            service["backends"][0]["unresolved"] = json!("timed out");
            service["backends"][0]["agent_silent"] = json!("connection refused");
        });
        let service = text.lines().find(|line| line.starts_with("api ")).unwrap();
        assert!(service.contains("Redis PING"), "{text}");
        let backend = text.lines().find(|line| line.starts_with("api/10.0.0.1:80")).unwrap();
        assert!(backend.contains("1 x 75 %"), "{backend}");
        let why = "2 good probes; its agent is not heard (connection refused); \
                   its name does not resolve now (timed out): last addresses in use";
        assert!(backend.contains(why), "{backend}");
    }

    #[test]
    fn nobody_left_and_alarms_cannot_be_overlooked() {
        let text = drawn(|s| {
            s["report"]["services"][0]["tier"] = Value::Null;
            s["alarms"] = json!([{"about": "store", "message": "disk full", "help": "free some", "since": 1_000_000}]);
            s["reload"]["outcome"] = json!("refused");
            s["reload"]["message"] = json!("proxy.toml: 1 error");
        });
        assert!(text.contains("nobody"), "{text}");
        assert!(text.contains("ALARM store (since 5 min): disk full; free some"), "{text}");
        assert!(text.contains("last reload refused:\nproxy.toml: 1 error"), "{text}");
    }

    #[test]
    fn the_tiers_that_share_the_load_are_shown_with_their_parts() {
        let text = drawn(|s| {
            let service = &mut s["report"]["services"][0];
            service["shares"] = json!([[1, 70], [2, 30]]);
            let mut other = service["backends"][0].clone();
            (other["site"], other["tier"]) = (json!("thory"), json!(2));
            service["backends"].as_array_mut().unwrap().push(other);
        });
        assert!(text.contains("dijon (tier 1) 70 %, thory (tier 2) 30 %"), "{text}");
    }

    #[test]
    fn a_tier_that_takes_everything_in_another_s_place_is_the_one_shown() {
        let text = drawn(|s| {
            let service = &mut s["report"]["services"][0];
            service["shares"] = json!([[2, 100]]);
            let mut other = service["backends"][0].clone();
            (other["site"], other["tier"]) = (json!("thory"), json!(2));
            service["backends"].as_array_mut().unwrap().push(other);
        });
        let service = text.lines().find(|line| line.starts_with("api ")).unwrap();
        assert!(service.contains("thory (tier 2)") && !service.contains('%'), "{text}");
        assert!(!service.contains("dijon"), "{text}");
    }

    #[test]
    fn fail_open_is_told_only_where_somebody_is_tried() {
        let served_by = |health: &str, admin: &str| {
            drawn(|s| {
                let service = &mut s["report"]["services"][0];
                (service["tier"], service["fail_open"]) = (Value::Null, json!(true));
                let backend = &mut service["backends"][0];
                (backend["health"], backend["admin"]) = (json!(health), json!(admin));
            })
        };
        assert!(served_by("down", "enabled").contains("nobody up, all are tried (fail_open)"));
        for (health, admin) in [("probing", "enabled"), ("down", "disabled"), ("up", "draining")] {
            let text = served_by(health, admin);
            assert!(text.contains("nobody") && !text.contains("tried"), "{text}");
        }
    }

    #[test]
    fn an_ended_certificate_says_since_when() {
        let text = drawn(|s| s["certificates"][0]["not_after"] = json!(1_000_000));
        assert!(text.contains("5 min ago"), "{text}");
    }
}

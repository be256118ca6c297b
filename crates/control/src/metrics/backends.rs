//! What is counted at and believed of backends and sites.

use prometheus::proto::MetricFamily;
use relais_core::stats::EJECTION_REASONS;
use relais_core::{Admin, Health};

use super::Scrape;
use super::family::{Family, float};

const HEALTH: [&str; 4] = ["probing", "up", "suspect", "down"];
const ADMIN: [&str; 3] = ["enabled", "draining", "disabled"];

pub(super) fn families(scrape: &Scrape) -> Vec<MetricFamily> {
    let mut all = beliefs(scrape);
    all.extend(traffic(scrape));
    all.extend(probes(scrape));
    all.push(sites(scrape));
    all
}

/// Every backend of the report with its three labels.
fn each<'a>(scrape: &'a Scrape, mut take: impl FnMut([(&'a str, &'a str); 3], &'a relais_core::BackendReport)) {
    for service in &scrape.report.services {
        for backend in &service.backends {
            let (name, site, address) = (&*service.name, &*backend.site, &*backend.address);
            take([("service", name), ("site", site), ("backend", address)], backend);
        }
    }
}

fn beliefs(scrape: &Scrape) -> Vec<MetricFamily> {
    let mut up = Family::gauge("relais_backend_up", "1: gets traffic, by the evidence and by the operator's word.");
    let mut health = Family::gauge("relais_backend_health", "What the evidence says: 1 for the word that holds.");
    let mut admin = Family::gauge("relais_backend_admin", "What the operator says: 1 for the word that holds.");
    let mut ejected =
        Family::gauge("relais_backend_ejected", "1: left for a while, its answers were much worse than its pool's.");
    let mut change =
        Family::gauge("relais_backend_last_change_timestamp_seconds", "Since when the present words hold.");
    each(scrape, |labels, backend| {
        let good = matches!(backend.health, Health::Up | Health::Suspect) && backend.admin == Admin::Enabled;
        up.set(&labels, f64::from(u8::from(good)));
        health.one_of(&labels, &HEALTH, backend.health.as_str());
        admin.one_of(&labels, &ADMIN, backend.admin.as_str());
        ejected.set(&labels, f64::from(u8::from(backend.ejected)));
        change.set(&labels, super::family::seconds(backend.since));
    });
    vec![up.done(), health.done(), admin.done(), ejected.done(), change.done()]
}

fn traffic(scrape: &Scrape) -> Vec<MetricFamily> {
    let mut inflight = Family::gauge("relais_backend_inflight", "Attempts in flight now.");
    let mut latency =
        Family::histogram("relais_backend_latency_seconds", "From the start of an attempt to its response head.");
    let mut connections =
        Family::counter("relais_upstream_connections_total", "Attempts by the kind of their connection.");
    let mut failed = Family::counter("relais_backend_attempts_failed_total", "Attempts that failed.");
    let mut errors = Family::counter(
        "relais_backend_errors_total",
        "Attempts answered 5xx, wrongly, too late, or broken off, whether they count as failed or not.",
    );
    let mut ejections = Family::counter(
        "relais_backend_ejections_total",
        "Times it was left because its answers were much worse than those of its pool, by reason.",
    );
    each(scrape, |labels, report| {
        let stats = &report.backend.stats;
        inflight.set(&labels, f64::from(report.inflight));
        latency.observe(&labels, &stats.latency);
        failed.count(&labels, stats.failed.get());
        errors.count(&labels, stats.errors.get());
        for (reason, count) in EJECTION_REASONS.iter().zip(&stats.ejections) {
            let [service, site, backend] = labels;
            ejections.count(&[service, site, backend, ("reason", reason)], count.get());
        }
        for (kind, count) in [("fresh", &stats.connected), ("reused", &stats.reused)] {
            let [service, site, backend] = labels;
            connections.count(&[service, site, backend, ("kind", kind)], count.get());
        }
    });
    vec![inflight.done(), latency.done(), connections.done(), failed.done(), errors.done(), ejections.done()]
}

fn probes(scrape: &Scrape) -> Vec<MetricFamily> {
    let mut results = Family::counter("relais_probes_total", "Health checks by what came back.");
    let mut duration = Family::histogram("relais_probe_duration_seconds", "Health checks, from connect to verdict.");
    each(scrape, |labels, report| {
        let Some(counts) = scrape.probes.get(&report.backend.slot) else { return };
        duration.observe(&labels, &counts.duration);
        let [service, site, backend] = labels;
        for (result, count) in &counts.results {
            results.count(&[service, site, backend, ("result", result)], *count);
        }
    });
    vec![results.done(), duration.done()]
}

fn sites(scrape: &Scrape) -> MetricFamily {
    let mut up = Family::gauge("relais_site_up", "1: at least one backend of the site gets traffic.");
    for site in &scrape.report.sites {
        up.set(&[("site", &site.name)], float(u64::from(site.usable > 0)));
    }
    up.done()
}

//! What is counted at services: durations, requests in flight, retries, answers relais made itself.

use prometheus::proto::MetricFamily;
use relais_core::stats::RETRY_REASONS;

use super::Scrape;
use super::family::{Family, float};

pub(super) fn families(scrape: &Scrape) -> Vec<MetricFamily> {
    let mut duration = Family::histogram(
        "relais_request_duration_seconds",
        "Whole requests, from the head to the last byte of the answer.",
    );
    let mut inflight = Family::gauge("relais_requests_inflight", "Requests in flight now.");
    let mut retries =
        Family::counter("relais_retries_total", "Second and later attempts, by the reason of the one before.");
    let mut exhausted = Family::counter(
        "relais_retry_budget_exhausted_total",
        "Requests that were not retried because the retry budget was spent.",
    );
    let mut not_replayable = Family::counter(
        "relais_requests_not_replayable_total",
        "Failed requests that could not be sent again: not idempotent, or the body was not kept.",
    );
    let mut resumed =
        Family::counter("relais_downloads_resumed_total", "Broken downloads that were continued from another backend.");
    let mut tunnels = Family::gauge("relais_tunnels_open", "WebSockets and other upgraded connections open now.");
    for pool in &scrape.snapshot.pools {
        let (name, stats) = (&*pool.service.name, &pool.stats);
        let service = [("service", name)];
        duration.observe(&service, &stats.duration);
        inflight.set(&service, float(stats.inflight.get()));
        tunnels.set(&service, float(stats.tunnels.get()));
        resumed.count(&service, stats.resumed.get());
        exhausted.count(&service, stats.budget_exhausted.get());
        not_replayable.count(&service, stats.not_replayable.get());
        for (reason, count) in RETRY_REASONS.iter().zip(&stats.retries) {
            retries.count(&[("service", name), ("reason", reason)], count.get());
        }
    }
    let done = [duration, inflight, retries, exhausted, not_replayable, resumed, tunnels];
    let mut all: Vec<MetricFamily> = done.into_iter().map(Family::done).collect();
    all.push(requests(scrape));
    all
}

/// Every answer. Without a backend: relais answered by itself. Without a service: none was asked for.
fn requests(scrape: &Scrape) -> MetricFamily {
    let help = "Answers to clients; without site and backend those that relais made itself.";
    let mut requests = Family::counter("relais_requests_total", help);
    let mut add = |service: &str, site: &str, backend: &str, codes: &relais_core::stats::Codes| {
        for (code, count) in codes.read() {
            requests.count(&[("service", service), ("site", site), ("backend", backend), ("code", &code)], count);
        }
    };
    add("", "", "", &scrape.snapshot.stats.unrouted);
    for pool in &scrape.snapshot.pools {
        add(&pool.service.name, "", "", &pool.stats.own_codes);
        for member in &pool.members {
            let id = &member.backend.id;
            add(&id.service, &id.site, &id.address, &member.backend.stats.codes);
        }
    }
    requests.done()
}

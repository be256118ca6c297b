//! The contract beside what failovers really took, and the distance of sites.

use prometheus::proto::MetricFamily;

use super::Scrape;
use super::family::{Family, float};

pub(super) fn families(scrape: &Scrape) -> Vec<MetricFamily> {
    let mut took = Family::histogram(
        "relais_failover_seconds",
        "Failovers, from the first lost packet the edge could know of to the last request affected.",
    );
    let mut contract = Family::gauge("relais_failover_contract_seconds", "The time a failover may take.");
    let mut overruns =
        Family::counter("relais_failover_overruns_total", "Failovers that took longer than the contract.");
    let mut holds = Family::gauge(
        "relais_failover_contract_holds",
        "0: over the measured path of a site, or with checks this late, the contract cannot hold; `relais status` says why.",
    );
    let mut lost = Family::counter(
        "relais_requests_lost_total",
        "Requests that could have been sent again and were answered with an error all the same.",
    );
    let reports = &scrape.report.services;
    for pool in scrape.snapshot.pools.iter().filter(|pool| !pool.members.is_empty()) {
        let service = [("service", &*pool.service.name)];
        took.observe(&service, &pool.stats.failover);
        overruns.count(&service, pool.stats.overruns.get());
        lost.count(&service, pool.stats.lost.get());
        contract.set(&service, pool.timers.failover_within.as_secs_f64());
        if let Some(report) = reports.iter().find(|report| report.name == pool.service.name) {
            holds.set(&service, float(u64::from(report.trouble.is_empty() && report.crowded.is_none())));
        }
    }
    let mut distance =
        Family::gauge("relais_site_round_trip_seconds", "How far away a site is, as its checks measure it.");
    let mut drill = Family::gauge("relais_site_drill", "1: the site is in a drill.");
    for site in &scrape.report.sites {
        let labels = [("site", &*site.name)];
        if let Some(micros) = site.round_trip_micros {
            distance.set(&labels, float(micros) / 1e6);
        }
        drill.set(&labels, float(u64::from(site.drill.is_some())));
    }
    let checks = &scrape.report.checks;
    let mut lag = Family::gauge(
        "relais_probe_lag_seconds",
        "How late checks come: each of the last second by so much at least, for want of time or of places.",
    );
    let count = |n: usize| float(u64::try_from(n).unwrap_or(u64::MAX));
    lag.set(&[], float(checks.lag_micros) / 1e6);
    let mut under_way = Family::gauge("relais_probes_under_way", "Checks under way now.");
    under_way.set(&[], count(checks.under_way));
    let mut most = Family::gauge("relais_probes_under_way_limit", "Checks that may be under way at a time.");
    most.set(&[], count(checks.most));
    [took, contract, overruns, holds, lost, distance, drill, lag, under_way, most]
        .into_iter()
        .map(Family::done)
        .collect()
}

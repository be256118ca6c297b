//! What holds for the process as a whole: connections, handshakes, reloads, certificates, store, the process itself.

use prometheus::proto::MetricFamily;
use relais_store::Mode;

use super::Scrape;
use super::family::{Family, seconds};
use crate::reload::Outcome;

/// Words of `relais_store_state`.
const STORE_STATES: [&str; 4] = ["ok", "healed", "fresh", "memory"];

pub(super) fn families(scrape: &Scrape) -> Vec<MetricFamily> {
    let mut all = connections(scrape);
    all.extend(config(scrape));
    all.extend(state(scrape));
    all.extend(process());
    all
}

fn connections(scrape: &Scrape) -> Vec<MetricFamily> {
    let stats = &scrape.snapshot.stats;
    let count = |name, help, value| {
        let mut family = Family::counter(name, help);
        family.count(&[], value);
        family.done()
    };
    let mut handshakes = Family::counter("relais_tls_handshakes_total", "TLS handshakes with clients.");
    let resumed = stats.handshakes_resumed.get();
    handshakes.count(&[("result", "full")], stats.handshakes.get().saturating_sub(resumed));
    handshakes.count(&[("result", "resumed")], resumed);
    handshakes.count(&[("result", "failed")], stats.handshakes_failed.get());
    let mut open = Family::gauge("relais_connections_open", "Client connections open now.");
    open.set(&[], super::family::float(stats.open.get()));
    vec![
        handshakes.done(),
        open.done(),
        count("relais_connections_accepted_total", "Client connections accepted.", stats.accepted.get()),
        count(
            "relais_accept_paused_total",
            "Times accepting paused because file descriptors or connections ran out.",
            stats.accept_paused.get(),
        ),
        count(
            "relais_events_dropped_total",
            "Reports of workers dropped because the control loop was behind.",
            stats.events_dropped.get(),
        ),
        count("relais_panics_total", "Requests whose handler panicked.", stats.panics.get()),
    ]
}

fn config(scrape: &Scrape) -> Vec<MetricFamily> {
    let mut reloads =
        Family::counter("relais_config_reloads_total", "Looks at the config file since start, by outcome.");
    reloads.count(&[("result", "applied")], scrape.reloads.applied);
    reloads.count(&[("result", "unchanged")], scrape.reloads.unchanged);
    reloads.count(&[("result", "refused")], scrape.reloads.refused);
    let mut success =
        Family::gauge("relais_config_last_reload_success", "1: the config file is in force. 0: it was refused.");
    success.set(&[], f64::from(u8::from(scrape.verdict.outcome != Outcome::Refused)));
    let mut at =
        Family::gauge("relais_config_last_reload_timestamp_seconds", "Time of the last look at the config file.");
    at.set(&[], seconds(scrape.verdict.at));
    let mut expiry = Family::gauge("relais_certificate_expiry_timestamp_seconds", "End of a certificate's validity.");
    for certificate in &scrape.certificates {
        expiry.set(&[("name", &certificate.name)], seconds(certificate.not_after));
    }
    vec![reloads.done(), success.done(), at.done(), expiry.done()]
}

fn state(scrape: &Scrape) -> Vec<MetricFamily> {
    let mut store = Family::gauge("relais_store_state", "How well the store works: 1 for the word that holds.");
    let word = match scrape.store {
        Mode::Ok => "ok",
        Mode::Healed => "healed",
        Mode::Fresh => "fresh",
        Mode::Memory => "memory",
    };
    store.one_of(&[], &STORE_STATES, word);
    let mut build = Family::gauge("relais_build_info", "1, with the version that runs.");
    build.set(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let mut dropped =
        Family::counter("relais_log_lines_dropped_total", "Log lines dropped because the writer was too slow.");
    if let Some(lines) = scrape.log_lines_dropped {
        dropped.count(&[], lines);
    }
    vec![store.done(), build.done(), dropped.done()]
}

/// `process_*`: memory, CPU, file descriptors.
#[cfg(target_os = "linux")]
fn process() -> Vec<MetricFamily> {
    use prometheus::core::Collector;
    prometheus::process_collector::ProcessCollector::for_self().collect()
}

/// The collector reads `/proc`.
#[cfg(not(target_os = "linux"))]
fn process() -> Vec<MetricFamily> {
    Vec::new()
}

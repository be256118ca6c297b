//! Metrics: read from the counters of the current snapshot and report when somebody asks, never written per request.
//! Cardinality is bounded by the config: no label comes from a client.

mod backends;
mod certs;
mod contract;
mod edge;
mod family;
mod serve;
mod services;

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::TextEncoder;
use prometheus::proto::MetricFamily;
use relais_core::certs::CertificatesReport;
use relais_core::{Report, Snapshot};
use relais_store::Mode;
use relais_tls::CertInfo;

use crate::apply::Reloads;
use crate::certs::StapleReport;
use crate::probe::ProbeCounts;
use crate::reload::Verdict;

pub(crate) use serve::serve;

/// `Content-Type` of the text format.
pub(crate) const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything a scrape reads, handed over by the loop.
pub(crate) struct Scrape {
    pub(crate) report: Report,
    pub(crate) snapshot: Arc<Snapshot>,
    /// By slot.
    pub(crate) probes: HashMap<u32, ProbeCounts>,
    pub(crate) reloads: Reloads,
    pub(crate) verdict: Verdict,
    pub(crate) certificates: Vec<CertInfo>,
    pub(crate) orders: CertificatesReport,
    pub(crate) staples: Vec<StapleReport>,
    pub(crate) store: Mode,
    pub(crate) log_lines_dropped: Option<u64>,
}

/// The text Prometheus reads. Families without a sample are left out.
pub(crate) fn render(scrape: &Scrape) -> String {
    let mut families: Vec<MetricFamily> = Vec::new();
    families.extend(edge::families(scrape));
    families.extend(certs::families(scrape));
    families.extend(services::families(scrape));
    families.extend(contract::families(scrape));
    families.extend(backends::families(scrape));
    families.retain(|family| !family.get_metric().is_empty());
    families.sort_by(|a, b| a.name().cmp(b.name()));
    match TextEncoder::new().encode_to_string(&families) {
        Ok(text) => text,
        Err(error) => {
            tracing::error!(%error, "metrics could not be written");
            String::new()
        }
    }
}

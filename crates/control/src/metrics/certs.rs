//! Metrics of certificates from CAs. Names come from the config, or from clients within `[acme.on_demand]`'s budget.

use prometheus::proto::MetricFamily;

use super::Scrape;
use super::family::{Family, seconds};

/// Orders by result, when each authority last gave a certificate, and when each certificate is renewed.
pub(super) fn families(scrape: &Scrape) -> Vec<MetricFamily> {
    let mut orders = Family::counter("relais_acme_orders_total", "Orders of certificates that ended, by result.");
    let mut last = Family::gauge(
        "relais_acme_last_issued_timestamp_seconds",
        "When an authority last gave a certificate; absent: not since the start.",
    );
    let mut paused =
        Family::gauge("relais_acme_authority_paused", "1 while an authority is left alone because it fails.");
    for authority in &scrape.orders.authorities {
        let name = &*authority.name;
        orders.count(&[("authority", name), ("result", "issued")], authority.issued);
        for (kind, count) in &authority.failed {
            orders.count(&[("authority", name), ("result", kind.as_str())], *count);
        }
        if let Some(at) = authority.last_issued {
            last.set(&[("authority", name)], seconds(at));
        }
        paused.set(&[("authority", name)], f64::from(u8::from(authority.paused_until.is_some())));
    }
    let mut renewal =
        Family::gauge("relais_certificate_renewal_timestamp_seconds", "When a certificate is to be renewed.");
    let mut start =
        Family::gauge("relais_certificate_ari_start_timestamp_seconds", "Begin of the CA\'s window for a renewal.");
    let mut end =
        Family::gauge("relais_certificate_ari_end_timestamp_seconds", "End of the CA\'s window for a renewal.");
    let mut failing = Family::gauge("relais_certificate_failures", "Failed orders in a row.");
    for one in &scrape.orders.certificates {
        let label = [("name", &*one.name)];
        if let Some(at) = one.renew_at {
            renewal.set(&label, seconds(at));
        }
        if let Some(window) = &one.window {
            start.set(&label, seconds(window.start));
            end.set(&label, seconds(window.end));
        }
        failing.set(&label, f64::from(one.failures));
    }
    let mut proof = Family::gauge(
        "relais_certificate_ocsp_expiry_timestamp_seconds",
        "End of the OCSP answer of a certificate that clients refuse without; 0: there is none.",
    );
    for one in &scrape.staples {
        proof.set(&[("name", &*one.name)], one.until.map_or(0.0, seconds));
    }
    let mut refused = Family::counter(
        "relais_acme_on_demand_refused_total",
        "Names that clients asked for and that were too many in their time.",
    );
    refused.count(&[], scrape.orders.on_demand_refused);
    [orders, last, paused, renewal, start, end, failing, proof, refused].map(Family::done).into()
}

//! What is wrong with certificates, as one alarm: the most pressing one in the CA's own words, and how many more. Reads the
//! fleet's report.

use relais_core::Instant;
use relais_core::certs::{CertificateReport, CertificateState, CertificatesReport};

use crate::alarm::AlarmReport;
use crate::control::Control;

/// The subject of the alarm.
const ABOUT: &str = "acme";

impl Control {
    /// Raises the alarm, or ends it.
    pub(super) fn look_for_alarms(&mut self, now: Instant) {
        let trouble = trouble(&self.fleet.certificates(now));
        self.alarms.take(AlarmReport { about: ABOUT, trouble }, now);
    }
}

/// Message and way out; `None`: all is well.
fn trouble(report: &CertificatesReport) -> Option<(String, String)> {
    let mut bad: Vec<&CertificateReport> = report.certificates.iter().filter(|one| is_bad(one)).collect();
    bad.sort_by_key(|one| (one.not_after.is_some(), one.not_after));
    let worst = bad.first()?;
    let more = match bad.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more: `relais certs`)"),
    };
    let fault = worst.last_fault.as_ref();
    let said = fault.map_or_else(String::new, |last| {
        let says = if last.fault.kind.is_said() { " says" } else { "" };
        format!(": {}{says}: {}", last.authority, last.fault.said)
    });
    let help = fault.and_then(|last| last.fault.likely.clone());
    let help = help.unwrap_or_else(|| "it is tried again by itself; `relais certs` shows when".to_owned());
    Some((format!("{} {}{said}{more}", worst.name, state(worst)), help))
}

/// What needs somebody: an order that failed, or too little time.
fn is_bad(one: &CertificateReport) -> bool {
    match one.state {
        CertificateState::Urgent | CertificateState::Expired => true,
        CertificateState::Gone => false,
        // It is forgotten with the next certificate.
        _ => one.last_fault.is_some(),
    }
}

fn state(one: &CertificateReport) -> &'static str {
    match (one.state, one.not_after) {
        (CertificateState::Expired, _) => "is served with a certificate that has ended",
        (_, None) => "has no certificate yet",
        _ => "keeps its certificate, which could not be renewed",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use relais_core::certs::{CertificateOrigin, FaultKind, LastFault, OrderFault};

    use super::*;

    fn one(name: &str, state: CertificateState, said: Option<&str>) -> CertificateReport {
        let fault = |said: &str| OrderFault {
            kind: FaultKind::Challenge,
            said: said.to_owned(),
            likely: Some("open port 80".to_owned()),
            retry_after: None,
            challenge: None,
        };
        CertificateReport {
            name: name.into(),
            state,
            origin: CertificateOrigin::Config,
            authority: None,
            not_before: None,
            not_after: (state != CertificateState::Missing).then_some(Instant(7)),
            fingerprint: None,
            renew_at: None,
            window: None,
            next: String::new(),
            failures: 1,
            last_fault: said.map(|said| LastFault { at: Instant(1), authority: Arc::from("le"), fault: fault(said) }),
        }
    }

    #[test]
    fn the_most_pressing_is_told_in_the_cas_words() {
        let report = |certificates| CertificatesReport { certificates, ..CertificatesReport::default() };
        assert_eq!(trouble(&report(vec![])), None);
        let well = vec![one("a.fr", CertificateState::Valid, None), one("b.fr", CertificateState::Missing, None)];
        assert_eq!(trouble(&report(well)), None, "a first order under way is no alarm");
        let bad = vec![
            one("a.fr", CertificateState::Due, Some("slow")),
            one("b.fr", CertificateState::Missing, Some("Connection refused")),
        ];
        let (message, help) = trouble(&report(bad)).unwrap();
        assert_eq!(message, "b.fr has no certificate yet: le says: Connection refused (and 1 more: `relais certs`)");
        assert_eq!(help, "open port 80");
        let (message, _) = trouble(&report(vec![one("c.fr", CertificateState::Expired, None)])).unwrap();
        assert!(message.contains("has ended"), "{message}");
    }
}

//! Certificates of CAs: what `certs` wants done, and when it wants to be asked again.

use super::Fleet;
use super::agenda::Alarm;
use crate::certs::CertificatesReport;
use crate::time::Instant;

impl Fleet {
    /// Takes over what `certs` wants done, and when it wants to be asked again.
    pub(super) fn collect_certificates(&mut self) {
        let out = self.certs.take();
        self.changes.records.extend(out.save);
        self.changes.forget.extend(out.forget);
        self.changes.notes.extend(out.notes);
        self.changes.probes.extend(out.effects);
        match self.certs.next() {
            Some(at) => self.agenda.set(Alarm::Certificates, at),
            None => self.agenda.cancel(Alarm::Certificates),
        }
    }

    /// Certificates of CAs: how they are, and what comes next.
    #[must_use]
    pub fn certificates(&self, now: Instant) -> CertificatesReport {
        self.certs.report(now)
    }
}

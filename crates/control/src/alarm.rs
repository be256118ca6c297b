//! What is wrong with relais itself right now, for `status` and the log. An alarm never stops traffic.

use std::collections::BTreeMap;

use relais_core::Instant;
use serde::Serialize;

/// One thing that is wrong and stays so until it is repaired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alarm {
    /// What it is about: `acme`, `admin`, `certificates`, `config`, `metrics`, `ocsp`, `store` or `watch`.
    pub about: &'static str,
    /// What is wrong, in a sentence.
    pub message: String,
    /// The way out.
    pub help: String,
    /// Since when.
    pub since: Instant,
}

/// A report of an edge: something went wrong, or is right again.
#[derive(Debug, Clone)]
pub(crate) struct AlarmReport {
    /// See [`Alarm::about`].
    pub(crate) about: &'static str,
    /// Message and way out; `None`: all is well.
    pub(crate) trouble: Option<(String, String)>,
}

/// All alarms that stand, one per subject.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    standing: BTreeMap<&'static str, Alarm>,
}

impl Alarms {
    /// Takes a report: one log line when it changes anything, none when it repeats what is known.
    pub(crate) fn take(&mut self, report: AlarmReport, now: Instant) {
        let about = report.about;
        let trouble = report.trouble.clone();
        if !self.set(report, now) {
            return;
        }
        match trouble {
            Some((message, help)) => tracing::error!(about, help, "alarm: {message}"),
            None => tracing::info!(about, "alarm over"),
        }
    }

    /// Takes a report about something whose edge writes its own log line. Says whether it changed anything.
    pub(crate) fn set(&mut self, report: AlarmReport, now: Instant) -> bool {
        let AlarmReport { about, trouble } = report;
        let Some((message, help)) = trouble else {
            return self.standing.remove(about).is_some();
        };
        let known = self.standing.get(about);
        if known.is_some_and(|alarm| alarm.message == message) {
            return false;
        }
        let since = known.map_or(now, |alarm| alarm.since);
        self.standing.insert(about, Alarm { about, message, help, since });
        true
    }

    /// Those that stand, by subject.
    pub(crate) fn list(&self) -> Vec<Alarm> {
        self.standing.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(trouble: Option<&str>) -> AlarmReport {
        AlarmReport { about: "metrics", trouble: trouble.map(|t| (t.to_string(), "free it".to_string())) }
    }

    #[test]
    fn an_alarm_keeps_its_beginning_and_ends() {
        let mut alarms = Alarms::default();
        alarms.take(report(Some("in use")), Instant(1));
        alarms.take(report(Some("no permission")), Instant(2));
        let standing = alarms.list();
        assert_eq!(standing.len(), 1);
        assert_eq!(standing[0].since, Instant(1));
        assert_eq!(standing[0].message, "no permission");
        alarms.take(report(None), Instant(3));
        assert!(alarms.list().is_empty());
    }
}

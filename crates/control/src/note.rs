//! Tells people: one log line per transition, with the evidence in fields that a log search can use.

use relais_core::{Admin, Health, Transition};

/// Writes the line of one transition. Loss is a warning, return is information.
pub(crate) fn write(transition: &Transition) {
    match transition {
        Transition::Health { id, from, to, why, after } => {
            let (service, site, backend) = (&*id.service, &*id.site, &*id.address);
            let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            let (from, word) = (from.as_str(), to.as_str());
            if *to == Health::Down {
                tracing::warn!(service, site, backend, from, to = word, why, after_ms, "backend {word}");
            } else {
                tracing::info!(service, site, backend, from, to = word, why, after_ms, "backend {word}");
            }
        }
        Transition::Site { site, from, to, why } => {
            let (site, from, word) = (&**site, from.as_str(), to.as_str());
            if *to == Health::Down {
                tracing::warn!(site, from, to = word, why, "site {word}");
            } else {
                tracing::info!(site, from, to = word, why, "site {word}");
            }
        }
        Transition::Admin { target, from, to, reason } => {
            let (target, from, word) = (target.to_string(), from.as_str(), to.as_str());
            let reason = reason.as_deref().unwrap_or_default();
            if *to == Admin::Enabled {
                tracing::info!(about = %target, from, to = word, reason, "operator: {target} {word}");
            } else {
                tracing::warn!(about = %target, from, to = word, reason, "operator: {target} {word}");
            }
        }
        Transition::Agent { id, said } => {
            let (service, site, backend) = (&*id.service, &*id.site, &*id.address);
            match said {
                Some(line) => tracing::warn!(service, site, backend, line, "agent: {line}"),
                None => tracing::warn!(service, site, backend, "agent is silent: its words are forgotten"),
            }
        }
        Transition::Addresses { id, from, to } => {
            let (service, site, backend) = (&*id.service, &*id.site, &*id.address);
            tracing::info!(service, site, backend, ?from, ?to, "the name of a backend has new addresses");
        }
        Transition::Unresolved { id, why } => {
            let (service, site, backend) = (&*id.service, &*id.site, &*id.address);
            tracing::warn!(service, site, backend, why, "a name does not resolve: its last addresses stay in use");
        }
        Transition::Reloaded { added, removed, kept } => {
            tracing::info!(added, removed, kept, "config applied");
        }
        Transition::Service { service, available } => {
            let service = &**service;
            if *available {
                tracing::info!(service, available, "service available again");
            } else {
                tracing::warn!(service, available, "service has no backend left");
            }
        }
    }
}

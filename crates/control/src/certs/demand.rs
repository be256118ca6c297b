//! Names that clients ask for and nobody listed: whether they may be ordered is asked at `[acme.on_demand] ask`; the
//! handshakes that wait are answered when it is known. Talks to that address.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use relais_core::config::{CertificateSource, OnDemand};
use relais_core::{Event, Instant};
use relais_tls::Demand;
use relais_tls::acme::client::Client;
use tokio::sync::oneshot;

use super::Done;
use crate::control::Control;

/// Longest wait for the answer of `ask`.
const ASK: Duration = Duration::from_secs(10);
/// So long a name is not asked for again after a no, or a failed order.
const NO: Duration = Duration::from_secs(60);
/// Names remembered as refused; a scanner must not fill the memory.
const MOST: usize = 10_000;
/// Questions under way at once.
const QUESTIONS: usize = 16;

/// Who waits for what.
#[derive(Default)]
pub(super) struct Demands {
    waiting: HashMap<String, Vec<oneshot::Sender<bool>>>,
    refused: HashMap<String, Instant>,
    asking: usize,
}

impl Demands {
    /// Answers those who wait for a name that is served now.
    pub(super) fn serve(&mut self, is_served: impl Fn(&str) -> bool) {
        let served: Vec<String> = self.waiting.keys().filter(|name| is_served(name)).cloned().collect();
        for name in served {
            self.answer(&name, true);
        }
    }

    /// No certificate for this name, for a while.
    pub(super) fn refuse(&mut self, name: &str, now: Instant) {
        if !self.waiting.contains_key(name) {
            return;
        }
        if self.refused.len() >= MOST {
            self.refused.retain(|_, until| *until > now);
        }
        if self.refused.len() < MOST {
            self.refused.insert(name.to_owned(), now + NO);
        }
        self.answer(name, false);
    }

    fn answer(&mut self, name: &str, served: bool) {
        for waiting in self.waiting.remove(name).into_iter().flatten() {
            // It may have given up.
            let _ = waiting.send(served);
        }
    }
}

impl Control {
    /// A client waits for a name.
    pub(super) fn demanded(&mut self, demand: Demand, now: Instant) {
        let Demand { name, served } = demand;
        let config = self.snapshot.load().config.clone();
        let Some(on_demand) = config.acme.on_demand.clone() else { return };
        let demands = &mut self.acme.demands;
        let is_refused = demands.refused.get(&name).is_some_and(|until| *until > now);
        // Not answered: dropping the sender is a no.
        if is_refused || config.source_of_name(&name) != CertificateSource::OnDemand || !is_name(&name) {
            return;
        }
        if let Some(waiting) = demands.waiting.get_mut(&name) {
            waiting.push(served);
            return;
        }
        if demands.asking >= QUESTIONS {
            return;
        }
        demands.asking += 1;
        demands.waiting.insert(name.clone(), vec![served]);
        self.acme.running.spawn(async move {
            let allowed = ask(&on_demand, &name).await;
            Done::Asked { name, allowed }
        });
    }

    /// The answer of `ask`.
    pub(super) fn demand_asked(&mut self, name: &str, allowed: Result<(), String>, now: Instant) {
        self.acme.demands.asking = self.acme.demands.asking.saturating_sub(1);
        if let Err(why) = allowed {
            tracing::info!(name, "no certificate on demand: {why}");
            self.acme.demands.refuse(name, now);
            return;
        }
        self.fleet.handle_event(Event::Wanted { host: name.to_owned() }, now);
        let is_known = self.fleet.certificates(now).certificates.iter().any(|one| *one.name == *name);
        if !is_known {
            tracing::warn!(name, "no certificate on demand: too many new names in this time");
            self.acme.demands.refuse(name, now);
        }
    }
}

/// What can stand in a certificate and in a URL as it is.
fn is_name(name: &str) -> bool {
    name.len() <= 253 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

async fn ask(on_demand: &OnDemand, name: &str) -> Result<(), String> {
    let separator = if on_demand.ask.contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}domain={name}", on_demand.ask);
    let request = http::Request::get(&url).body(Bytes::new()).map_err(|fault| fault.to_string())?;
    let answer = Client::new(on_demand.root.as_deref())?
        .send(request, ASK)
        .await
        .map_err(|fault| format!("`ask` failed: {fault}"))?;
    match answer.status().as_u16() {
        200 => Ok(()),
        status => Err(format!("`ask` answered {status}")),
    }
}

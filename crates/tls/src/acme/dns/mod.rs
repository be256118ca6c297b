//! TXT records for dns-01 (RFC 8555, section 8.4): writes them where they belong, waits until all name servers show them,
//! and takes them away again. May talk to DNS providers and name servers, and run the operator's program. Keeps nothing.
//!
//! An order takes four steps: [`Dns::plan`] says what will be written, so that the caller can note it durably; then
//! [`Dns::present`] writes it and returns when it is seen everywhere; [`Presented::clean`] removes it. What was noted and
//! never cleaned, because relais was killed in between, is given to [`Dns::clean`] at the next start.

mod ask;
mod cloudflare;
mod exec;
mod fault;
mod ovh;
mod propagation;
mod provider;
mod rfc2136;
mod webhook;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use relais_core::config::DnsChallenge;
use serde::{Deserialize, Serialize};

use self::ask::Resolvers;
pub use self::fault::DnsFault;
use self::provider::Provider;

/// How long one call of a provider's API may take.
const CALL: Duration = Duration::from_secs(30);
/// Seconds others may keep the record: what is shortest with most providers.
const TTL: u32 = 60;
/// A record that could not be removed is tried once more after this: most faults are gone by then.
const SECOND_TRY: Duration = Duration::from_secs(2);
/// Where name servers listen (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;

/// One TXT value at one name: what an order writes, and all that is needed to remove it. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Undo {
    /// Name of the `[acme.dns.NAME]` that writes it.
    pub provider: String,
    /// The host it proves, without `*.`.
    pub host: String,
    /// Where it is written: the end of the CNAMEs of `_acme-challenge.HOST`. Lower case, no dot at the end.
    pub fqdn: String,
    /// The value.
    pub value: String,
}

/// What a provider is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Present,
    Clean,
}

impl Action {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Clean => "cleanup",
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All `[acme.dns.NAME]` of a config. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dns {
    solvers: Arc<[Solver]>,
    port: u16,
}

#[derive(Debug)]
struct Solver {
    declared: Arc<DnsChallenge>,
    provider: Provider,
    resolvers: Resolvers,
}

impl Dns {
    /// Makes ready what the config declares. Where a challenge names no `resolvers`, `nameservers` are asked, and without
    /// any the system's. Reads the system's roots; opens no connection.
    ///
    /// # Errors
    /// One sentence with the way out: a provider cannot be used as it is declared.
    pub fn new(declared: &[Arc<DnsChallenge>], nameservers: &[SocketAddr]) -> Result<Self, String> {
        let solver = |declared: &Arc<DnsChallenge>| {
            let provider = Provider::new(declared).map_err(|why| format!("[acme.dns.{}]: {why}", declared.name))?;
            let own = &declared.resolvers;
            let resolvers = Resolvers::new(if own.is_empty() { nameservers } else { own });
            Ok(Solver { provider, resolvers, declared: Arc::clone(declared) })
        };
        let solvers = declared.iter().map(solver).collect::<Result<Vec<_>, String>>()?;
        Ok(Self { solvers: solvers.into(), port: DNS_PORT })
    }

    /// Asks the zones' own name servers at another port than 53, where they are behind something that maps ports.
    #[must_use]
    pub fn with_port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// What has to be written, and where, so that `values` (host, with or without `*.`, and its value) are proven. Follows
    /// CNAMEs, changes nothing. The order and number of the answer are those of `values`.
    ///
    /// # Errors
    /// No provider is for a host, or where its record belongs cannot be found out.
    pub async fn plan(&self, values: &[(String, String)]) -> Result<Vec<Undo>, DnsFault> {
        let mut plan = Vec::with_capacity(values.len());
        for (host, value) in values {
            let host = bare(host).to_ascii_lowercase();
            let home = self.best(&host).map(|(solver, _)| solver);
            let mut name = rfc2136::name(&format!("_acme-challenge.{host}"))?;
            // Who is declared only for the domain it leads to must still be found.
            let guide = home.or_else(|| self.solvers.first());
            if let Some(guide) = guide.filter(|guide| guide.declared.delegation) {
                name = guide.resolvers.follow(&name, self.port).await?;
            }
            let fqdn = name.to_ascii().trim_end_matches('.').to_owned();
            let solver = match self.best(&fqdn) {
                Some((named, Some(_))) => Some(named),
                _ => home,
            };
            let Some(solver) = solver else {
                return Err(DnsFault::new(
                    format!("no [acme.dns.NAME] is for {fqdn}"),
                    "add its domain to the `zones` of one, or declare one without `zones`",
                ));
            };
            plan.push(Undo { provider: solver.declared.name.to_string(), host, fqdn, value: value.clone() });
        }
        Ok(plan)
    }

    /// Writes what was planned, and returns when every name server of the zones shows it. Dropping the future removes
    /// what was written, as dropping [`Presented`] does.
    ///
    /// # Errors
    /// A provider refused, or the record was not seen in time. All that may have been written has been removed then,
    /// but for [`Failed::left`].
    pub async fn present(&self, plan: Vec<Undo>) -> Result<Presented, Failed> {
        let mut presented = Presented { dns: self.clone(), undos: Vec::with_capacity(plan.len()) };
        match self.write(plan, &mut presented).await {
            Ok(()) => Ok(presented),
            Err(fault) => Err(Failed { fault, left: presented.clean().await }),
        }
    }

    async fn write(&self, plan: Vec<Undo>, presented: &mut Presented) -> Result<(), DnsFault> {
        for undo in plan {
            let solver = self.solver(&undo)?;
            // Noted before it is written: an attempt that fails may have written all the same.
            presented.undos.push(undo.clone());
            solver.provider.run(Action::Present, &undo, &solver.resolvers).await?;
            tracing::debug!(fqdn = undo.fqdn, provider = undo.provider, "the record is written");
        }
        let mut names: Vec<&str> = presented.undos.iter().map(|undo| undo.fqdn.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        for fqdn in names {
            let here: Vec<&Undo> = presented.undos.iter().filter(|undo| undo.fqdn == fqdn).collect();
            let Some(first) = here.first() else { continue };
            let solver = self.solver(first)?;
            let within = solver.declared.propagation_timeout;
            if !within.is_zero() {
                let values: Vec<&str> = here.iter().map(|undo| undo.value.as_str()).collect();
                let name = rfc2136::name(fqdn)?;
                propagation::visible(&solver.resolvers, &name, &values, within, self.port).await?;
            }
        }
        Ok(())
    }

    /// Removes one value, whether or not it is there. Others at the same name stay.
    ///
    /// # Errors
    /// It may still be there: the provider refused twice, or is no longer declared.
    pub async fn clean(&self, undo: &Undo) -> Result<(), DnsFault> {
        let solver = self.solver(undo)?;
        let first = solver.provider.run(Action::Clean, undo, &solver.resolvers).await;
        if first.is_err() {
            tokio::time::sleep(SECOND_TRY).await;
            return solver.provider.run(Action::Clean, undo, &solver.resolvers).await;
        }
        first
    }

    async fn removed(&self, undo: &Undo) -> bool {
        let Err(fault) = self.clean(undo).await else { return true };
        let Undo { fqdn, provider, .. } = undo;
        tracing::warn!(fqdn, provider, %fault, "a DNS record could not be removed; it is tried again at the next start");
        false
    }

    fn solver(&self, undo: &Undo) -> Result<&Solver, DnsFault> {
        self.solvers.iter().find(|solver| *solver.declared.name == *undo.provider).ok_or_else(|| {
            DnsFault::new(
                format!("[acme.dns.{}], which wrote {}, is no longer declared", undo.provider, undo.fqdn),
                format!("remove the TXT record {} with the value {} by hand", undo.fqdn, undo.value),
            )
        })
    }

    /// Who writes for a name, and the zone it is chosen for: the longest that holds the name, else one for all.
    fn best(&self, name: &str) -> Option<(&Solver, Option<&str>)> {
        let named = self.solvers.iter().flat_map(|solver| {
            let zones = solver.declared.zones.iter().filter(|zone| within(name, zone));
            zones.map(move |zone| (solver, Some(zone.as_str())))
        });
        // Of two the first, as in the file.
        let longest = named.rev().max_by_key(|(_, zone)| zone.map_or(0, str::len));
        longest.or_else(|| {
            self.solvers.iter().find(|solver| solver.declared.zones.is_empty()).map(|solver| (solver, None))
        })
    }
}

/// Why nothing is presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// What went wrong.
    pub fault: DnsFault,
    /// What may still be there, because removing it failed as well: for the next start.
    pub left: Vec<Undo>,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.fault.fmt(f)
    }
}

impl std::error::Error for Failed {}

/// Records that are there. They are removed when this is dropped, too, in the background: an order may be cut off
/// anywhere.
#[derive(Debug)]
pub struct Presented {
    dns: Dns,
    undos: Vec<Undo>,
}

impl Presented {
    /// What is there.
    #[must_use]
    pub fn undos(&self) -> &[Undo] {
        &self.undos
    }

    /// Removes everything. What could not be removed is returned, for the next start, and a line in the log says why.
    pub async fn clean(mut self) -> Vec<Undo> {
        let mut left = Vec::new();
        // Taken out one by one: when this is cut off, the rest is removed in the background.
        while let Some(undo) = self.undos.last().cloned() {
            if !self.dns.removed(&undo).await {
                left.push(undo);
            }
            self.undos.pop();
        }
        left
    }
}

impl Drop for Presented {
    fn drop(&mut self) {
        let (dns, undos) = (self.dns.clone(), std::mem::take(&mut self.undos));
        if undos.is_empty() {
            return;
        }
        // Without a runtime the program ends: what the caller noted is removed at the next start.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                for undo in &undos {
                    dns.removed(undo).await;
                }
            });
        }
    }
}

/// `*.a.fr` is proven where `a.fr` is.
fn bare(host: &str) -> &str {
    host.strip_prefix("*.").unwrap_or(host).trim_end_matches('.')
}

/// Whether a name is a zone's own or below it.
fn within(name: &str, zone: &str) -> bool {
    let zone = zone.trim_end_matches('.');
    name.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The names that may be the zone of a name: itself and those above it, down to two labels.
fn candidates(fqdn: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(fqdn);
    std::iter::from_fn(move || {
        let here = rest?;
        rest = here.split_once('.').map(|(_, above)| above);
        here.contains('.').then_some(here)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_looked_for_from_the_name_upwards() {
        let all: Vec<&str> = candidates("_acme-challenge.www.a.co.uk").collect();
        assert_eq!(all, ["_acme-challenge.www.a.co.uk", "www.a.co.uk", "a.co.uk", "co.uk"]);
        assert!(within("www.a.fr", "a.fr") && within("a.fr", "a.fr.") && !within("ba.fr", "a.fr"));
        assert_eq!((bare("*.a.fr"), bare("a.fr.")), ("a.fr", "a.fr"));
    }
}

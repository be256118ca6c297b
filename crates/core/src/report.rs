//! What the fleet believes and why: the answer to `relais status`.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::backend::Backend;
use crate::fault::Fault;
use crate::health::{Admin, Health};
use crate::history::{DrillRecord, FailoverRecord, Shape};
use crate::time::Instant;

/// The whole fleet.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// When it was made.
    pub now: Instant,
    /// The drill under way.
    pub drill: Option<DrillRecord>,
    /// The checks of all backends together.
    pub checks: ChecksReport,
    /// In config order.
    pub sites: Vec<SiteReport>,
    /// In config order.
    pub services: Vec<ServiceReport>,
}

/// The checks of all backends together.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ChecksReport {
    /// Under way now.
    pub under_way: usize,
    /// Under way at most.
    pub most: usize,
    /// How late they come, microseconds: each of a second by so much at least.
    pub lag_micros: u64,
    /// They come so late that a contract cannot be kept by them alone: see `crowded` of its service.
    pub behind: bool,
}

/// One site.
#[derive(Debug, Clone, Serialize)]
pub struct SiteReport {
    /// Name.
    pub name: Arc<str>,
    /// Tier.
    pub tier: u32,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Worst word that holds for the site as a whole.
    pub health: Health,
    /// The operator's word about the site.
    pub admin: Admin,
    /// Since when both words hold.
    pub since: Instant,
    /// The evidence or the operator's reason.
    pub why: String,
    /// Backends there that can get traffic.
    pub usable: usize,
    /// Backends there.
    pub total: usize,
    /// How far away it is, smoothed, in microseconds; `None`: not measured yet.
    pub round_trip_micros: Option<u64>,
    /// The WireGuard tunnel to it; `None`: there is none, or it cannot be read.
    pub tunnel: Option<TunnelReport>,
    /// It is in a drill, and behaves like this.
    pub drill: Option<Shape>,
}

/// The WireGuard tunnel to a site.
#[derive(Debug, Clone, Serialize)]
pub struct TunnelReport {
    /// Name of the interface.
    pub interface: Arc<str>,
    /// The last handshake; `None`: there was none.
    pub handshake: Option<Instant>,
}

/// One service.
#[derive(Debug, Clone, Serialize)]
pub struct ServiceReport {
    /// Name.
    pub name: Arc<str>,
    /// Hosts.
    pub hosts: Vec<String>,
    /// `forward`, `redirect` or `respond`.
    pub action: &'static str,
    /// What its backends are asked; `None`: it has none.
    pub check: Option<String>,
    /// The contract, in microseconds.
    pub contract_micros: u64,
    /// Why the contract cannot hold, as far as paths were measured: empty when it can.
    pub trouble: Vec<String>,
    /// Why the contract cannot be kept by checks alone: there are too many of them. `None`: it can.
    pub crowded: Option<String>,
    /// The last failover.
    pub last_failover: Option<FailoverRecord>,
    /// The lowest tier that can take new requests now; `None`: nobody can.
    pub tier: Option<u32>,
    /// What part of new requests each tier takes now, in percent: tier and part, lower tier first. Empty where `tier` takes
    /// all of them. While everybody there is in doubt another one may.
    pub shares: Vec<(u32, u32)>,
    /// Its backends are tried even when all are down.
    pub fail_open: bool,
    /// In file order.
    pub backends: Vec<BackendReport>,
}

/// One backend.
#[derive(Debug, Clone, Serialize)]
pub struct BackendReport {
    /// Address as in the file.
    pub address: Arc<str>,
    /// Site.
    pub site: Arc<str>,
    /// Tier.
    pub tier: u32,
    /// Weight.
    pub weight: u32,
    /// What the evidence says.
    pub health: Health,
    /// What the operator says (stricter of its own and its site's), or the agent when that is stricter.
    pub admin: Admin,
    /// Since when.
    pub since: Instant,
    /// The evidence, in words.
    pub why: String,
    /// In flight now.
    pub inflight: u32,
    /// Attempts that went well since start.
    pub succeeded: u64,
    /// Attempts that did not: without an answer, answered wrongly, late, 5xx or not to the end.
    pub failed: u64,
    /// The last 10 probes, latest last.
    pub probes: Vec<ProbeReport>,
    /// What its agent says; `None`: it has none, or that is silent.
    pub agent: Option<AgentReport>,
    /// Why nothing its agent said counts: it has been silent for three intervals, or was never heard.
    pub agent_silent: Option<String>,
    /// Where its name leads; empty when its address is no name.
    pub addresses: Vec<SocketAddr>,
    /// Why its name does not resolve now. `addresses` are then those of the last good answer.
    pub unresolved: Option<String>,
    /// Held down until then: by flap history, or because its answers were much worse than those of its pool.
    pub held_until: Option<Instant>,
    /// It is down because of its answers, though it may pass its checks.
    pub ejected: bool,
    /// The shared counters, for metrics.
    #[serde(skip)]
    pub backend: Arc<Backend>,
}

/// What an agent says.
#[derive(Debug, Clone, Serialize)]
pub struct AgentReport {
    /// Its last line.
    pub line: String,
    /// Since when it says what it says.
    pub since: Instant,
    /// The part of the weight it leaves, percent.
    pub percent: u32,
    /// Most requests in flight it allows.
    pub cap: Option<u32>,
}

/// One probe.
#[derive(Debug, Clone, Serialize)]
pub struct ProbeReport {
    /// When its result came.
    pub at: Instant,
    /// How long it took, microseconds.
    pub took_micros: u64,
    /// `None`: good.
    pub fault: Option<Fault>,
    /// What the backend or its check said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<Arc<str>>,
}

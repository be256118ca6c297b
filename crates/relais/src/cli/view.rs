//! The admin socket's answers as the CLI reads them. Unknown fields are ignored and most may be missing, so that a
//! CLI and a daemon of neighbouring versions understand each other.

use serde::Deserialize;

/// `GET /status`.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) process: Process,
    pub(crate) reload: Verdict,
    #[serde(default)]
    pub(crate) alarms: Vec<Alarm>,
    pub(crate) store: Store,
    #[serde(default)]
    pub(crate) listeners: Vec<Listener>,
    #[serde(default)]
    pub(crate) certificates: Vec<Certificate>,
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
    pub(crate) report: Report,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Process {
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) started: u64,
    #[serde(default)]
    pub(crate) config_path: Option<String>,
}

/// What came of the last look at the file; also the answer to `POST /reload`.
#[derive(Debug, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) at: u64,
    pub(crate) outcome: String,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) help: Option<String>,
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Alarm {
    pub(crate) about: String,
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) help: String,
    pub(crate) since: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Store {
    pub(crate) mode: String,
    #[serde(default)]
    pub(crate) detail: String,
    #[serde(default)]
    pub(crate) path: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) protocol: String,
    pub(crate) addresses: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Certificate {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) hosts: Vec<String>,
    #[serde(default)]
    pub(crate) issuer: String,
    pub(crate) not_after: u64,
    #[serde(default)]
    pub(crate) problem: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) now: u64,
    #[serde(default)]
    pub(crate) drill: Option<Drill>,
    pub(crate) sites: Vec<Site>,
    pub(crate) services: Vec<Service>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) tier: u32,
    pub(crate) health: String,
    pub(crate) admin: String,
    pub(crate) since: u64,
    #[serde(default)]
    pub(crate) why: String,
    pub(crate) usable: usize,
    pub(crate) total: usize,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Service {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) hosts: Vec<String>,
    pub(crate) action: String,
    #[serde(default)]
    pub(crate) check: Option<String>,
    #[serde(default)]
    pub(crate) last_failover: Option<Failover>,
    #[serde(default)]
    pub(crate) tier: Option<u32>,
    #[serde(default)]
    pub(crate) shares: Vec<(u32, u32)>,
    #[serde(default)]
    pub(crate) fail_open: bool,
    #[serde(default)]
    pub(crate) backends: Vec<Backend>,
}

/// The drill under way.
#[derive(Debug, Deserialize)]
pub(crate) struct Drill {
    pub(crate) site: String,
    pub(crate) shape: String,
    pub(crate) until: u64,
    #[serde(default)]
    pub(crate) ended: Option<u64>,
}

/// One failover; also an entry of `GET /history`.
#[derive(Debug, Deserialize)]
pub(crate) struct Failover {
    pub(crate) number: u64,
    pub(crate) service: String,
    #[serde(default)]
    pub(crate) sites: Vec<String>,
    #[serde(default)]
    pub(crate) backends: Vec<String>,
    #[serde(default)]
    pub(crate) why: String,
    pub(crate) ended: u64,
    pub(crate) took_micros: u64,
    pub(crate) contract_micros: u64,
    pub(crate) moved: u64,
    pub(crate) rescued: u64,
    pub(crate) told: u64,
    pub(crate) slowest_micros: u64,
    #[serde(default)]
    pub(crate) drill: bool,
    #[serde(default)]
    pub(crate) slow: bool,
}

impl Failover {
    /// It took longer than the contract, where that binds: not in a drill of slow answers.
    pub(crate) fn overran(&self) -> bool {
        !self.slow && self.took_micros > self.contract_micros
    }

    /// The sites, and the backend where it was one alone.
    pub(crate) fn away_from(&self) -> String {
        match self.backends.as_slice() {
            [only] => format!("{} ({only})", self.sites.join(", ")),
            _ => self.sites.join(", "),
        }
    }

    /// The evidence, and whether it was a drill.
    pub(crate) fn remark(&self) -> String {
        if self.drill { format!("drill: {}", self.why) } else { self.why.clone() }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Backend {
    pub(crate) address: String,
    pub(crate) site: String,
    pub(crate) tier: u32,
    #[serde(default)]
    pub(crate) weight: u32,
    pub(crate) health: String,
    pub(crate) admin: String,
    pub(crate) since: u64,
    #[serde(default)]
    pub(crate) why: String,
    #[serde(default)]
    pub(crate) inflight: u64,
    #[serde(default)]
    pub(crate) succeeded: u64,
    #[serde(default)]
    pub(crate) failed: u64,
    #[serde(default)]
    pub(crate) probes: Vec<Probe>,
    #[serde(default)]
    pub(crate) agent: Option<Agent>,
    #[serde(default)]
    pub(crate) agent_silent: Option<String>,
    #[serde(default)]
    pub(crate) unresolved: Option<String>,
    #[serde(default)]
    pub(crate) held_until: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Agent {
    pub(crate) percent: u32,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Probe {
    #[serde(default)]
    pub(crate) fault: Option<serde_json::Value>,
}

/// The answer to `POST /admin`.
#[derive(Debug, Deserialize)]
pub(crate) struct AdminReply {
    pub(crate) target: String,
    pub(crate) word: String,
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
    #[serde(default)]
    pub(crate) backends: Vec<Affected>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Affected {
    pub(crate) service: String,
    pub(crate) site: String,
    pub(crate) address: String,
    pub(crate) health: String,
    pub(crate) admin: String,
    #[serde(default)]
    pub(crate) inflight: u64,
}

impl Status {
    /// Requests in flight at one backend; `None` when the config no longer names it.
    pub(crate) fn inflight(&self, of: &Affected) -> Option<u64> {
        let service = self.report.services.iter().find(|service| service.name == of.service)?;
        let same = |backend: &&Backend| backend.site == of.site && backend.address == of.address;
        service.backends.iter().find(same).map(|backend| backend.inflight)
    }
}

impl Backend {
    /// Traffic needs both words.
    pub(crate) fn is_usable(&self) -> bool {
        self.admin == "enabled" && matches!(self.health.as_str(), "up" | "suspect")
    }
}

impl Service {
    /// A service that forwards and has nobody to forward to.
    pub(crate) fn is_without_backend(&self) -> bool {
        self.action == "forward" && self.tier.is_none()
    }

    /// Whether those that are down get requests: not while somebody's first check is awaited.
    pub(crate) fn tries_all(&self) -> bool {
        let any = |health: &str| self.backends.iter().any(|of| of.admin == "enabled" && of.health == health);
        self.fail_open && any("down") && !any("probing")
    }
}

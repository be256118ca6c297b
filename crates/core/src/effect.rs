//! What must be done: the only way anything leaves the `Fleet`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agent::AgentSaid;
use crate::backend::BackendId;
use crate::certs::{AuthorityRecord, CertOrder, CertificateRecord, OrderFault, RenewalQuestion};
use crate::errand::{AgentOrder, MeasureOrder, ProbeOrder, ResolveOrder};
use crate::event::Target;
use crate::health::{Admin, Health};
use crate::history::{DrillRecord, FailoverRecord, KEPT};
use crate::snapshot::Snapshot;
use crate::time::Instant;

/// One thing to do. The fleet emits `Publish` before the `Save` and `Note` of the same change.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Workers shall read this from now on.
    Publish(Arc<Snapshot>),
    /// Probe this backend now and answer with `Event::Probed`. The rule is in `order.check`.
    Probe(ProbeOrder),
    /// Look up the addresses of a backend's name and answer with `Event::Resolved`.
    Resolve(ResolveOrder),
    /// Ask the agent beside a backend and answer with `Event::Agent`.
    Agent(AgentOrder),
    /// Connect to a backend, beside its probes and with more patience, and answer with `Event::Measured`.
    Measure(MeasureOrder),
    /// Order a certificate; answer with `Event::Issued` when it is durable, or with `Event::OrderFailed`.
    Order(Box<CertOrder>),
    /// Ask a CA when it wants a certificate renewed, and answer with `Event::RenewalInfo`.
    AskRenewalInfo(RenewalQuestion),
    /// Must survive a restart.
    Save(Record),
    /// Need not survive any longer (the config no longer names it).
    Forget(RecordKey),
    /// Tell people: one log line.
    Note(Transition),
}

/// Something that survives a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// Health of one backend.
    Backend(BackendRecord),
    /// The operator's word.
    Admin(AdminRecord),
    /// One failover.
    Failover(Box<FailoverRecord>),
    /// One drill.
    Drill(Box<DrillRecord>),
    /// The schedule of one certificate.
    Certificate(Box<CertificateRecord>),
    /// How an authority has done.
    Authority(AuthorityRecord),
}

/// Key of a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKey {
    /// Health of one backend.
    Backend(BackendId),
    /// The operator's word about a target.
    Admin(Target),
    /// A failover, by its place among those that are kept.
    Failover(u64),
    /// A drill, by its place among those that are kept.
    Drill(u64),
    /// The schedule of the certificate of this name.
    Certificate(Arc<str>),
    /// How the authority of this name has done.
    Authority(Arc<str>),
}

impl Record {
    /// The key it is stored under.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        match self {
            Record::Backend(r) => RecordKey::Backend(r.id.clone()),
            Record::Admin(r) => RecordKey::Admin(r.target.clone()),
            Record::Failover(r) => RecordKey::Failover(r.number % KEPT),
            Record::Drill(r) => RecordKey::Drill(r.number % KEPT),
            Record::Certificate(r) => RecordKey::Certificate(Arc::clone(&r.name)),
            Record::Authority(r) => RecordKey::Authority(Arc::clone(&r.name)),
        }
    }
}

/// Health of one backend as remembered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendRecord {
    /// Whom.
    pub id: BackendId,
    /// Last verdict.
    pub health: Health,
    /// Since when.
    pub since: Instant,
    /// When evidence was last seen: memory older than 60 s is re-verified before it is believed.
    pub verified: Instant,
    /// The evidence, in words.
    pub why: String,
    /// When it went down, latest last, at most 16: the flap history.
    pub downs: Vec<Instant>,
    /// The last good answer for its name; empty when it has none.
    #[serde(default)]
    pub addresses: Vec<SocketAddr>,
    /// When the last time ends, or ended, that it is left for being much worse than its pool.
    #[serde(default)]
    pub ejected_until: Option<Instant>,
    /// Such times that are not forgotten yet.
    #[serde(default)]
    pub ejections: u32,
    /// It is left for another that did well, however few are left.
    #[serde(default)]
    pub left_for_better: bool,
    /// When its share began to grow; `None`: it is whole, as it is one ramp after that.
    #[serde(default)]
    pub ramp_from: Option<Instant>,
    /// What its agent has said.
    #[serde(default)]
    pub agent: Option<AgentSaid>,
}

/// The operator's word as remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminRecord {
    /// About what.
    pub target: Target,
    /// The word.
    pub word: Admin,
    /// Since when.
    pub since: Instant,
    /// Why.
    pub reason: Option<String>,
}

/// What the store held at start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Saved {
    /// In any order.
    pub records: Vec<Record>,
}

/// What the handshakes of the WireGuard tunnel to a site say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelStep {
    /// The site is reached through it, and its handshakes can be read.
    Found,
    /// The site is down, and so is its tunnel.
    Down,
    /// The site is down, but its tunnel has made a handshake since.
    Up,
}

/// A change worth a line in the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Transition {
    /// A backend's health changed.
    Health {
        /// Whom.
        id: BackendId,
        /// Before.
        from: Health,
        /// After.
        to: Health,
        /// The evidence, in words.
        why: String,
        /// How long it had been in `from`.
        after: Duration,
    },
    /// A whole site was declared down, or is back.
    Site {
        /// Which.
        site: Arc<str>,
        /// Before.
        from: Health,
        /// After.
        to: Health,
        /// The evidence, in words.
        why: String,
    },
    /// What is known of the WireGuard tunnel to a site.
    Tunnel {
        /// Which.
        site: Arc<str>,
        /// Name of the interface.
        interface: Arc<str>,
        /// What.
        step: TunnelStep,
        /// Time since the last handshake; `None`: there was none.
        handshake_age: Option<Duration>,
    },
    /// The operator's word changed.
    Admin {
        /// About what.
        target: Target,
        /// Before.
        from: Admin,
        /// After.
        to: Admin,
        /// Why.
        reason: Option<String>,
    },
    /// What a backend's agent says changed. Weights alone are not told.
    Agent {
        /// Beside whom.
        id: BackendId,
        /// The line; `None`: it is silent, and its words are forgotten.
        said: Option<String>,
        /// By its words the backend takes new requests.
        takes: bool,
    },
    /// A backend's agent has not answered for so long that nothing it said counts, or answers again.
    AgentSilent {
        /// Beside whom.
        id: BackendId,
        /// What the last question met, in words; `None`: it answers again.
        why: Option<String>,
    },
    /// The name of a backend has other addresses.
    Addresses {
        /// Whose.
        id: BackendId,
        /// Before; empty: none were known.
        from: Arc<[SocketAddr]>,
        /// After.
        to: Arc<[SocketAddr]>,
    },
    /// The name of a backend does not resolve any more: the last good answer stays in use.
    Unresolved {
        /// Whose.
        id: BackendId,
        /// Why, in words.
        why: String,
    },
    /// A new config was applied.
    Reloaded {
        /// Backends that are new.
        added: usize,
        /// Backends that are gone.
        removed: usize,
        /// Backends untouched.
        kept: usize,
    },
    /// A failover is over.
    Failover(Box<FailoverRecord>),
    /// A drill began, its cut ended, or it is over.
    Drill(Box<DrillRecord>),
    /// A contract cannot hold over the measured path of a site, or can again.
    Contract {
        /// Which service.
        service: Arc<str>,
        /// Why, with the numbers; `None`: it can again.
        trouble: Option<String>,
    },
    /// A service has nobody left but such as answer their checks, wrongly: they get a request now and then all the same.
    Trial {
        /// Which service.
        service: Arc<str>,
    },
    /// Requests succeed where checks fail, and the checks of a service are not believed; or one passed again, or requests
    /// fail, too.
    Believed {
        /// Which service.
        service: Arc<str>,
        /// They are, again.
        believed: bool,
    },
    /// All backends of a service have stopped to answer requests, which is unusual by their own past; or one answers again,
    /// or all are down.
    Still {
        /// Which service.
        service: Arc<str>,
        /// They have.
        still: bool,
    },
    /// More backends are checked than this machine can, or no longer.
    Checks {
        /// How late each check comes; `None`: in time again.
        lag: Option<Duration>,
        /// Services whose contract cannot be kept by checks.
        services: usize,
    },
    /// The last backends of a service went down, or one is back.
    Service {
        /// Which.
        service: Arc<str>,
        /// Whether any backend can be picked.
        available: bool,
    },
    /// A step of a certificate.
    Certificate {
        /// Its name.
        name: Arc<str>,
        /// Which step.
        step: CertificateStep,
    },
    /// An authority failed as a whole and is left alone for a while.
    Authority {
        /// Its name.
        name: Arc<str>,
        /// Until when.
        until: Instant,
        /// Why, in its own words.
        why: String,
    },
}

/// A step of a certificate.
#[derive(Debug, Clone, PartialEq)]
pub enum CertificateStep {
    /// An order was placed.
    Ordered {
        /// With whom.
        authority: Arc<str>,
        /// There is one from the same authority already.
        renewal: bool,
    },
    /// There is a new certificate.
    Issued {
        /// From whom.
        authority: Arc<str>,
        /// Valid until.
        not_after: Instant,
        /// When it will be renewed.
        renew_at: Instant,
        /// How long the order took.
        took: Duration,
    },
    /// An order brought none. What is held is served on.
    Failed {
        /// From whom.
        authority: Arc<str>,
        /// Why.
        fault: Box<OrderFault>,
    },
    /// Little time is left: an alarm.
    Urgent {
        /// Valid until.
        not_after: Instant,
        /// How much is left.
        left: Duration,
    },
    /// Nobody wants it any longer.
    Forgotten,
}

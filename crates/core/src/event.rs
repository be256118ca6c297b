//! What happened: the only way anything enters the `Fleet`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use relais_config::Config;
use serde::{Deserialize, Serialize};

use crate::backend::BackendId;
use crate::certs::{HeldCertificate, Inventory, OrderFault, RenewalAnswer};
use crate::fault::Fault;
use crate::health::Admin;
use crate::history::Left;
use crate::time::Instant;

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A new config, already proven usable and bound.
    Reload(Arc<Config>),
    /// The result of the probe asked for by `Effect::Probe` with the same `id`.
    Probed {
        /// Which backend.
        slot: u32,
        /// Which probe; a result for any but the latest is ignored.
        id: u64,
        /// What came back.
        result: Result<(), Fault>,
        /// How long it took.
        took: Duration,
        /// What the backend or its check said about it, for people.
        said: Option<Arc<str>>,
    },
    /// A worker's attempt failed, or succeeded on a backend it saw as not `Up`. Ordinary successes are not sent: they
    /// are counted in `BackendStats::succeeded`, which the fleet reads.
    Served {
        /// Which backend.
        slot: u32,
        /// How it went.
        result: Result<(), Fault>,
    },
    /// An answer whose head was counted in `BackendStats::succeeded` broke off (`Reset`) or fell silent
    /// (`ResponseTimeout`) before its end. Answers that come to theirs are counted in `BackendStats::whole`.
    BrokeOff {
        /// Which backend.
        slot: u32,
        /// How.
        fault: Fault,
    },
    /// A worker waits at this backend longer than a tenth of the contract, for a connect, for the first byte of an answer, or
    /// for the next one where the answer could go on elsewhere. No evidence: slow applications are no fault. It only makes the fleet ask now rather than at the next turn.
    Overdue {
        /// Which backend.
        slot: u32,
    },
    /// The answer to `Effect::Resolve`.
    Resolved {
        /// Which backend.
        slot: u32,
        /// Which look-up; an answer to any but the latest is ignored.
        id: u64,
        /// The addresses, or why there are none, in words.
        result: Result<Resolved, String>,
    },
    /// The answer to `Effect::Agent`.
    Agent {
        /// Which backend.
        slot: u32,
        /// Which question; an answer to any but the latest is ignored.
        id: u64,
        /// The line the agent sent.
        line: Result<String, Fault>,
    },
    /// The operator's word.
    Admin(Command),
    /// A request left a backend that did not answer it: evidence of nothing, but the time of a failover ends with it.
    Moved {
        /// Which backend.
        slot: u32,
        /// When the attempt there began.
        began: Instant,
        /// What became of the request.
        how: Left,
    },
    /// The certificates there are. Nothing is ordered before it was told once. With a new config it comes before its
    /// `Reload`, so that nothing is ordered that a new file covers.
    Inventory(Inventory),
    /// An order brought a certificate, and it is durable.
    Issued {
        /// Which order.
        id: u64,
        /// What it brought.
        held: HeldCertificate,
    },
    /// An order brought none.
    OrderFailed {
        /// Which order.
        id: u64,
        /// Of which certificate.
        name: Arc<str>,
        /// Why.
        fault: OrderFault,
    },
    /// The answer to `Effect::AskRenewalInfo`.
    RenewalInfo {
        /// Which question; an answer to any but the latest is ignored.
        id: u64,
        /// About which certificate.
        name: Arc<str>,
        /// When the CA wants it renewed, or why that is not known.
        answer: Result<RenewalAnswer, OrderFault>,
    },
    /// The operator wants a certificate renewed now.
    RenewNow {
        /// Its name.
        name: Arc<str>,
    },
    /// A client asked for a name that only on-demand certificates cover, and `ask` allows it. To be told again, at most
    /// once an hour, while clients go on asking.
    Wanted {
        /// The name.
        host: String,
    },
    /// The wall clock, read just now: once a minute. Certificates are dated by it; it may jump, `now` does not.
    WallClock {
        /// What it says.
        wall: Instant,
    },
    /// The connect of a probe was answered: one round trip of the path to its site.
    Connected {
        /// Which backend.
        slot: u32,
        /// How long it took.
        took: Duration,
    },
    /// The answer to `Effect::Measure`.
    Measured {
        /// Which backend.
        slot: u32,
        /// How long its connect took; `None`: there was no answer in time.
        took: Option<Duration>,
    },
    /// The WireGuard tunnels of this machine, all of them, as just read. Believed for a minute.
    Tunnels(Vec<Tunnel>),
}

/// A WireGuard tunnel: one peer of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Name of the interface.
    pub interface: Arc<str>,
    /// What is reached through it: the peer's allowed IPs.
    pub networks: Vec<IpNet>,
    /// Time since the last handshake; `None`: there was none.
    pub handshake_age: Option<Duration>,
}

/// The addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// With the backend's port, in any order.
    pub addresses: Vec<SocketAddr>,
    /// How long the answer may be used. The fleet asks again after this, but not before 1 s and not later than 60 s.
    pub good_for: Duration,
}

/// The operator's word about a site, a service's backends at it, or one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// About what.
    pub target: Target,
    /// What.
    pub word: Admin,
    /// Why, in the operator's words.
    pub reason: Option<String>,
}

/// What an operator's word is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Every backend at a site.
    Site(Arc<str>),
    /// One backend.
    Backend(BackendId),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Site(site) => f.write_str(site),
            Target::Backend(id) => write!(f, "{id}"),
        }
    }
}

//! What workers read: one immutable picture of the whole fleet, taken once per request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use relais_config::{ClientTls, Config, Service};

use crate::backend::Backend;
use crate::budget::Budget;
use crate::fault::Fault;
use crate::health::{Admin, Health};
use crate::history::Shape;
use crate::router::Router;
use crate::stats::{EdgeStats, ServiceStats};
use crate::time::Instant;
use crate::timers::Timers;

/// One immutable picture.
#[derive(Debug)]
pub struct Snapshot {
    /// Grows by one with every publish.
    pub generation: u64,
    /// The config it was built from.
    pub config: Arc<Config>,
    /// One per service, in the order of the config. A service that redirects or answers itself has an empty pool.
    pub pools: Vec<Arc<Pool>>,
    /// Host and path to pool; rebuilt only by a reload.
    pub(crate) router: Arc<Router>,
    /// Counters of the edge as a whole; the same for the life of the process.
    pub stats: Arc<EdgeStats>,
}

impl Snapshot {
    /// The pool of the service that takes this host (lower case, no port) and path (no query).
    #[must_use]
    pub fn route(&self, host: &str, path: &str) -> Option<&Arc<Pool>> {
        self.router.route(host, path).and_then(|index| self.pools.get(index))
    }

    /// What is asked of clients that ask for this host (lower case, no port); `None`: no service has it. Services that
    /// share a host agree in it.
    #[must_use]
    pub fn client_tls(&self, host: &str) -> Option<&ClientTls> {
        let index = self.router.service_of(host)?;
        self.pools.get(index).map(|pool| &pool.service.client_tls)
    }

    /// Whether any service takes this host, whatever the path: decides between 404 and 421.
    #[must_use]
    pub fn knows_host(&self, host: &str) -> bool {
        self.router.knows_host(host)
    }
}

/// A service's backends as the data plane sees them. Unchanged pools are shared between snapshots.
#[derive(Debug)]
pub struct Pool {
    /// The service as declared.
    pub service: Arc<Service>,
    /// Its timers.
    pub timers: Timers,
    /// Its backends: by tier, then as in the file.
    pub members: Vec<Member>,
    /// Every usable one has stopped to answer requests, which is unusual by its own past: what is sent there from now on and
    /// waits longer than answers used to take waits in vain, unless something is answered meanwhile.
    pub still: bool,
    /// Counters; kept as long as the service's name stays.
    pub stats: Arc<ServiceStats>,
    /// State of the balancer and the retry budget that readers share; kept as long as the service's name stays.
    pub shared: Arc<Shared>,
    /// What `pick` needs, computed once per change.
    pub(crate) order: crate::balancer::Order,
}

/// Balancer state that all readers of a service share. Atomics only.
#[derive(Debug, Default)]
pub struct Shared {
    /// Round robin position.
    pub(crate) cursor: std::sync::atomic::AtomicU64,
    /// Retry budget.
    pub budget: Budget,
}

impl Shared {
    /// For a service that is new at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { budget: Budget::new(now), ..Self::default() }
    }
}

/// One backend in a pool, with what was believed of it when the snapshot was built.
#[derive(Debug, Clone)]
pub struct Member {
    /// The backend and its counters.
    pub backend: Arc<Backend>,
    /// Priority group: lower first.
    pub tier: u32,
    /// Where it is: several addresses when its name has several, none for a unix socket. Connect to the first that
    /// answers; connections to an address that is no longer here are not to be used for new requests.
    pub addresses: Arc<[SocketAddr]>,
    /// Share, 1 to 1000.
    pub weight: u32,
    /// The part of its weight that its agent leaves it, percent, 0 to 1000. Without an agent 100.
    pub percent: u32,
    /// Most requests in flight that its agent allows.
    pub cap: Option<u32>,
    /// What the evidence says.
    pub health: Health,
    /// What the operator says (the stricter of its own word and its site's), or the agent when that is stricter.
    pub admin: Admin,
    /// When it came back `Up` and its ramp began; `None`: no ramp.
    pub ramp_from: Option<Instant>,
    /// Its transport is believed dead (site down, or its own connects unanswered): attempts that wait there for an
    /// answer are moved, idle connections dropped. `Down` by application evidence leaves this false.
    pub dead: bool,
    /// `Down` because it does not answer, though its host may live: attempts that wait there for a head are moved. A
    /// backend that is `Down` because its check answers wrongly (as in an orderly stop) finishes what it has.
    pub mute: bool,
    /// `Down` because its checks connect and get no answer, while another backend is usable: a process that hangs. Its
    /// streams say nothing of it by themselves; those that stay silent are ended, so that their clients go elsewhere.
    pub hung: bool,
    /// `Down` because it answers its checks and no requests: attempts that wait there for a head and may be repeated
    /// are moved, the others go on waiting.
    pub stalled: bool,
    /// How far away it is, where that changes its timers: see [`Timers::reach`]. Else zero.
    pub away: Duration,
    /// Its site is in a drill: whoever talks to it must behave as if it were cut like this.
    pub drill: Option<Shape>,
    /// `Down` by its checks alone, while nobody else is left: gets a request to see whether they are right.
    pub trial: Option<Trial>,
}

/// On which terms a backend that is `Down` gets a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// Most requests and streams in flight there, what is left from before included.
    pub cap: u32,
    /// Answers with a status below this prove that it works.
    pub proof: u16,
}

impl Trial {
    /// What an answer with this status shows.
    ///
    /// # Errors
    /// The fault that it is evidence of.
    pub fn result(self, status: u16) -> Result<(), Fault> {
        if status < self.proof { Ok(()) } else { Err(Fault::Status(status)) }
    }
}

impl Member {
    /// Its share among its tier, in hundredths of a weight.
    #[must_use]
    pub(crate) fn share(&self) -> u32 {
        self.weight.max(1).saturating_mul(self.percent.max(1))
    }

    /// Traffic needs both words.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.admin == Admin::Enabled && matches!(self.health, Health::Up | Health::Suspect)
    }
}

/// What `Pool::pick` is told about one attempt.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Slots already tried in this request: not picked again while another is left.
    pub tried: &'a [u32],
    /// A random number.
    pub roll: u64,
    /// Now.
    pub now: Instant,
    /// Hash of the request's key, for `Balance::Hash`.
    pub key: Option<u64>,
    /// `Backend::hash` from a valid sticky cookie.
    pub sticky: Option<u64>,
    /// Prefer a backend at another site than this one (staggered connect, retry after silence).
    pub avoid_site: Option<&'a str>,
    /// It asks for a stream (a tunnel, an event stream): placed by the streams that are there, not by the requests.
    pub stream: bool,
}

/// What `Pool::pick` says.
#[derive(Debug)]
pub enum Choice<'a> {
    /// This one.
    Take(&'a Member),
    /// None now, but a verdict is due (`Probing`) or every good one is at its concurrency cap: ask again on the next
    /// snapshot or when one is free, at most `Timers::wait` long.
    Wait,
    /// None: every backend is down, drained or disabled, or already tried.
    Nobody,
}

//! What the fleet remembers: one entry per backend, one state per service, the operator's words. That of sites is in
//! `site_state`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use relais_config::{Action, Address, BackendDecl, Forward, Service};

use super::agents::AgentState;
use super::failover::{Episode, Leaving};
use super::outliers::Recently;
use super::pressing::Comparing;
use super::stalls::Stall;
use super::trials::{Trials, Wrong};
use crate::backend::{Backend, BackendId};
use crate::effect::{AdminRecord, BackendRecord};
use crate::event::Target;
use crate::fault::Fault;
use crate::health::{Admin, Health};
use crate::report::ProbeReport;
use crate::snapshot::{Pool, Shared, Trial};
use crate::stats::ServiceStats;
use crate::time::Instant;
use crate::timers::Timers;
use crate::verdict::Counters;

/// Probes kept for `status`.
pub(super) const RECENT: usize = 10;
/// Outages kept per backend.
pub(super) const DOWNS: usize = 16;
/// Outages older than this no longer lengthen a return.
pub(super) const FLAP_MEMORY: Duration = Duration::from_secs(600);

/// A probe whose result has not come yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outstanding {
    pub(super) id: u64,
    pub(super) sent: Instant,
    /// When it counts as lost.
    pub(super) lost: Instant,
    /// It has the short, confirming deadline.
    pub(super) short: bool,
    /// It was to be short, or whole, as `pressed` and `whole_next` said.
    pub(super) pressed: bool,
    pub(super) whole: bool,
}

/// What is going on with a backend's name.
#[derive(Debug, Default)]
pub(super) struct NameState {
    /// The look-up whose answer has not come yet.
    pub(super) asked: Option<u64>,
    /// Failed look-ups in a row.
    pub(super) failures: u32,
    /// Why the last look-up failed.
    pub(super) trouble: Option<String>,
}

/// One backend.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) backend: Arc<Backend>,
    /// Place of its service in the config.
    pub(super) service: usize,
    /// Place of its site in the config.
    pub(super) site: usize,
    pub(super) tier: u32,
    pub(super) weight: u32,
    /// Where it is: the last good answer for its name. Empty for a unix socket, and for a name without an answer yet.
    pub(super) addresses: Arc<[SocketAddr]>,
    pub(super) name: NameState,
    pub(super) agent: AgentState,
    /// `Host` for probes whose rule names none.
    pub(super) host: Arc<str>,
    /// The strictest of its own word, its site's and its agent's.
    pub(super) admin: Admin,
    pub(super) counters: Counters,
    pub(super) since: Instant,
    /// When it last ceased to be down.
    pub(super) returned: Instant,
    pub(super) verified: Instant,
    pub(super) saved: Instant,
    pub(super) why: String,
    /// When it went down, latest last.
    pub(super) downs: Vec<Instant>,
    pub(super) dead: bool,
    /// Went down because it did not answer, not because it answered wrongly.
    pub(super) mute: bool,
    /// Went down because its checks connected and got no answer.
    pub(super) hung: bool,
    /// Went down because it answers its checks and no requests.
    pub(super) stalled: bool,
    /// Was ejected for others that do well: it does not come back because too few are left.
    pub(super) left_for_better: bool,
    /// How many looks in a row found that.
    pub(super) stall: Stall,
    /// A worker waits there longer than usual: the next probe only asks whether anything answers at all.
    pub(super) pressed: bool,
    /// A short probe connected and got no answer: the next one is whole.
    pub(super) whole_next: bool,
    pub(super) ramp_from: Option<Instant>,
    /// Never been up while this process knows it, though others were: it ramps when it comes up.
    pub(super) cold: bool,
    /// When it was last drained.
    pub(super) drained: Option<Instant>,
    pub(super) held_until: Option<Instant>,
    pub(super) probe: Option<Outstanding>,
    /// The one that it took the place of, which had more time and may still be answered.
    pub(super) replaced: Option<Outstanding>,
    pub(super) last_sent: Instant,
    pub(super) last_good: Option<Instant>,
    /// When the present run of failed probes began.
    pub(super) bad_since: Option<Instant>,
    pub(super) last_fault: Option<Fault>,
    /// Requests that left it lately, before a verdict.
    pub(super) leaving: Leaving,
    /// What its answers lately were like.
    pub(super) recently: Recently,
    /// It was left for being much worse than its pool, and does not come back before then while others are left.
    pub(super) ejected: Option<Instant>,
    /// When the last ejection ends or ended.
    pub(super) ejected_until: Option<Instant>,
    /// Ejections that are not forgotten yet.
    pub(super) ejections: u32,
    pub(super) recent: VecDeque<ProbeReport>,
    /// Slow-falling peak of how long good probes take.
    pub(super) slowest: Duration,
    /// Slow-rising floor of the same; zero: none was good yet.
    pub(super) fastest: Duration,
    /// Place within the probe interval, as a fraction of 2^64.
    pub(super) phase: u64,
    /// `succeeded` when the question of the present probe was asked.
    pub(super) probe_mark: u64,
    /// `succeeded` when the present accusation against its site began.
    pub(super) site_mark: u64,
    /// `succeeded` at the last failed request.
    pub(super) request_mark: u64,
    /// `whole` at the last failed request.
    pub(super) whole_mark: u64,
    /// `succeeded` when it was last looked at.
    pub(super) seen_mark: u64,
    /// When it was last seen to have grown.
    pub(super) lived_at: Option<Instant>,
    /// The check fails and is not believed: see `why`.
    pub(super) overruled: bool,
    /// Its checks are answered, wrongly.
    pub(super) wrong: Option<Wrong>,
    /// It is down, and gets a request all the same.
    pub(super) trial: Option<Trial>,
}

impl Entry {
    /// A backend without a past.
    pub(super) fn new(backend: Arc<Backend>, phase: u64, now: Instant) -> Self {
        let addresses = match &backend.address {
            Address::Socket(socket) => vec![*socket],
            Address::Name(..) | Address::Unix(_) => Vec::new(),
        };
        Self {
            backend,
            addresses: addresses.into(),
            name: NameState::default(),
            agent: AgentState::default(),
            service: 0,
            site: 0,
            tier: 1,
            weight: 1,
            host: Arc::from(""),
            admin: Admin::Enabled,
            counters: Counters::new(Health::Probing),
            since: now,
            returned: Instant(0),
            verified: Instant(0),
            saved: Instant(0),
            why: "no verdict yet".to_owned(),
            downs: Vec::new(),
            dead: false,
            mute: false,
            hung: false,
            stalled: false,
            left_for_better: false,
            stall: Stall::default(),
            pressed: false,
            whole_next: false,
            ramp_from: None,
            cold: false,
            drained: None,
            held_until: None,
            probe: None,
            replaced: None,
            last_sent: Instant(0),
            last_good: None,
            bad_since: None,
            last_fault: None,
            leaving: Leaving::default(),
            recently: Recently::default(),
            ejected: None,
            ejected_until: None,
            ejections: 0,
            recent: VecDeque::with_capacity(RECENT),
            slowest: Duration::ZERO,
            fastest: Duration::ZERO,
            site_mark: 0,
            phase,
            probe_mark: 0,
            request_mark: 0,
            whole_mark: 0,
            seen_mark: 0,
            lived_at: None,
            overruled: false,
            wrong: None,
            trial: None,
        }
    }

    pub(super) fn slot(&self) -> u32 {
        self.backend.slot
    }

    pub(super) fn health(&self) -> Health {
        self.counters.health
    }

    /// Real attempts answered well since the process began.
    pub(super) fn succeeded(&self) -> u64 {
        self.backend.stats.succeeded.get()
    }

    /// Traffic needs both words, and no agent that says otherwise.
    pub(super) fn usable(&self) -> bool {
        self.admin == Admin::Enabled && matches!(self.health(), Health::Up | Health::Suspect) && !self.agent.says_down()
    }

    /// Its name has not led anywhere yet.
    pub(super) fn is_nowhere(&self) -> bool {
        self.addresses.is_empty() && self.is_named()
    }

    /// Its address is a name.
    pub(super) fn is_named(&self) -> bool {
        matches!(self.backend.address, Address::Name(..))
    }

    /// Has a say in the verdict about its site.
    pub(super) fn testifies(&self) -> bool {
        self.admin != Admin::Disabled && self.health() != Health::Down
    }

    /// It was down for what it answered, and now it says nothing: is its transport dead?
    pub(super) fn falls_silent(&self) -> bool {
        self.health() == Health::Down && !self.mute && !self.dead && self.counters.silent_probes > 0
    }

    pub(super) fn record(&self) -> BackendRecord {
        BackendRecord {
            id: self.backend.id.clone(),
            health: self.health(),
            since: self.since,
            verified: self.verified,
            why: self.why.clone(),
            downs: self.downs.clone(),
            addresses: if self.is_named() { self.addresses.to_vec() } else { Vec::new() },
            ejected_until: self.ejected_until,
            ejections: self.ejections,
            left_for_better: self.left_for_better,
            ramp_from: self.ramp_from,
            agent: self.agent.said.clone(),
        }
    }
}

/// One service.
#[derive(Debug)]
pub(super) struct ServiceState {
    pub(super) service: Arc<Service>,
    /// `None`: it answers by itself.
    pub(super) forward: Option<Arc<Forward>>,
    pub(super) timers: Timers,
    /// Why the contract cannot hold, as far as paths were measured.
    pub(super) trouble: Vec<super::paths::Trouble>,
    /// Nobody is left for a better one before then: there was one, and it could not carry what it took over.
    pub(super) breathes_until: Instant,
    /// When the present slice of what its backends are compared by began.
    pub(super) slice_from: Instant,
    /// The failover under way.
    pub(super) episode: Option<Episode>,
    /// Slots: by tier, then as in the file.
    pub(super) members: Vec<u32>,
    /// The place of each one's site, in the same order.
    pub(super) sites: Vec<usize>,
    pub(super) stats: Arc<ServiceStats>,
    pub(super) shared: Arc<Shared>,
    pub(super) pool: Option<Arc<Pool>>,
    /// Whether any backend can be picked; `None`: not known yet.
    pub(super) available: Option<bool>,
    pub(super) trials: Trials,
    pub(super) comparing: Comparing,
    /// All that can take requests have stopped to answer.
    pub(super) still: bool,
}

impl ServiceState {
    /// A service without backends and without a past; [`Self::declare`] gives it the rest.
    pub(super) fn new(service: &Arc<Service>, now: Instant) -> Self {
        Self {
            service: Arc::clone(service),
            forward: None,
            timers: Timers::derive(Duration::ZERO),
            trouble: Vec::new(),
            breathes_until: Instant::default(),
            slice_from: now,
            episode: None,
            members: Vec::new(),
            sites: Vec::new(),
            stats: Arc::new(ServiceStats::default()),
            shared: Arc::new(Shared::new(now)),
            pool: None,
            available: None,
            trials: Trials::default(),
            comparing: Comparing::default(),
            still: false,
        }
    }

    /// Takes over a declaration; gives what it was where it forwarded before, and the timers of that. `contract`: of a service
    /// that has no backends.
    pub(super) fn declare(&mut self, service: &Arc<Service>, contract: Duration) -> Option<(Arc<Forward>, Timers)> {
        // An equal declaration keeps its old allocation, so that an unchanged pool stays the same pool.
        if *self.service != **service {
            self.service = Arc::clone(service);
        }
        let forward = match &service.action {
            Action::Forward(forward) => Some(Arc::new((**forward).clone())),
            Action::Redirect(_) | Action::Respond(_) => None,
        };
        let timers = forward.as_deref().map_or_else(|| Timers::derive(contract), Timers::solve);
        let timers = std::mem::replace(&mut self.timers, timers);
        std::mem::replace(&mut self.forward, forward).map(|forward| (forward, timers))
    }
}

/// One word of the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) word: Admin,
    pub(super) since: Instant,
    pub(super) reason: Option<String>,
}

/// All words of the operator.
pub(super) type Words = BTreeMap<Target, Word>;

pub(super) fn admin_record(target: &Target, word: &Word) -> AdminRecord {
    AdminRecord { target: target.clone(), word: word.word, since: word.since, reason: word.reason.clone() }
}

/// Identity of a declared backend.
pub(super) fn id_of(service: &Arc<str>, decl: &BackendDecl) -> BackendId {
    BackendId { service: Arc::clone(service), site: Arc::clone(&decl.site), address: decl.address.to_string().into() }
}

//! Executes probes: one task and one fresh connection each, never one behind another. Decides nothing: what came back
//! is a `Fault` for the fleet to judge.

pub(crate) mod connect;
mod drill;
mod exchange;
mod exec;
mod fault;
mod grpc;
mod http;
mod mysql;
mod redis;
mod reserve;
mod run;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use relais_core::stats::Histogram;
use relais_core::{Event, Fault, ProbeOrder};
use relais_tls::CertStore;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use run::{Answer, Prober};

/// What came back from one probe.
#[derive(Debug)]
pub(crate) struct Probed {
    pub(crate) slot: u32,
    pub(crate) id: u64,
    pub(crate) result: Result<(), Fault>,
    pub(crate) took: Duration,
    /// What the backend or its check said, for people.
    pub(crate) said: Option<Arc<str>>,
    /// The connect was answered after so long: one round trip.
    pub(crate) round_trip: Option<Duration>,
}

impl Probed {
    /// What the fleet is told.
    pub(crate) fn events(self) -> impl Iterator<Item = Event> {
        let Probed { slot, id, result, took, said, round_trip } = self;
        let connected = round_trip.map(|took| Event::Connected { slot, took });
        connected.into_iter().chain([Event::Probed { slot, id, result, took, said }])
    }
}

/// Probes of one backend, counted since start.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProbeCounts {
    /// By result: `ok` or a fault's word.
    pub(crate) results: BTreeMap<&'static str, u64>,
    pub(crate) duration: Arc<Histogram>,
}

/// The probes under way. Dropping it stops them all.
pub(crate) struct Probes {
    prober: Arc<Prober>,
    running: JoinSet<Probed>,
    orders: HashMap<Id, (u32, u64)>,
    latest: HashMap<u32, AbortHandle>,
    counts: HashMap<u32, ProbeCounts>,
}

impl Probes {
    pub(crate) fn new(certs: Arc<CertStore>) -> Self {
        Self {
            prober: Arc::new(Prober::new(certs)),
            running: JoinSet::new(),
            orders: HashMap::new(),
            latest: HashMap::new(),
            counts: HashMap::new(),
        }
    }

    /// Starts a probe. An older one of the same backend is stopped: the fleet would ignore its result.
    pub(crate) fn start(&mut self, order: ProbeOrder) {
        let (slot, id) = (order.backend.slot, order.id);
        let prober = Arc::clone(&self.prober);
        let task = self.running.spawn(async move {
            let Answer { result, took, said, round_trip } = prober.probe(&order).await;
            Probed { slot, id, result, took, said, round_trip }
        });
        self.orders.insert(task.id(), (slot, id));
        if let Some(older) = self.latest.insert(slot, task) {
            older.abort();
        }
    }

    /// The next result; waits for ever when nothing is under way. Nothing is lost when the wait is given up.
    pub(crate) async fn next(&mut self) -> Probed {
        loop {
            let Some(joined) = self.running.join_next_with_id().await else {
                std::future::pending::<()>().await;
                continue;
            };
            if let Some(probed) = self.joined(joined) {
                return probed;
            }
        }
    }

    /// A result that is there already.
    pub(crate) fn try_next(&mut self) -> Option<Probed> {
        loop {
            let joined = self.running.try_join_next_with_id()?;
            if let Some(probed) = self.joined(joined) {
                return Some(probed);
            }
        }
    }

    /// What a task that ended has brought; nothing when it was stopped.
    fn joined(&mut self, joined: Result<(Id, Probed), JoinError>) -> Option<Probed> {
        let probed = match joined {
            Ok((task, probed)) => {
                self.ended(task);
                probed
            }
            Err(error) => {
                let (slot, id) = self.ended(error.id()).filter(|_| error.is_panic())?;
                tracing::error!(%error, "a probe failed inside relais; counted as a malformed answer");
                Probed { slot, id, result: Err(Fault::Malformed), took: Duration::ZERO, said: None, round_trip: None }
            }
        };
        self.count(&probed);
        Some(probed)
    }

    /// Which probe a task was. Its handle goes too: it would keep the memory of the task until the next probe.
    fn ended(&mut self, task: Id) -> Option<(u32, u64)> {
        let order = self.orders.remove(&task)?;
        if self.latest.get(&order.0).is_some_and(|latest| latest.id() == task) {
            self.latest.remove(&order.0);
        }
        Some(order)
    }

    fn count(&mut self, probed: &Probed) {
        let counts = self.counts.entry(probed.slot).or_default();
        let word = probed.result.map_or_else(Fault::as_str, |()| "ok");
        *counts.results.entry(word).or_default() += 1;
        counts.duration.observe(probed.took);
    }

    /// Counters by slot.
    pub(crate) fn counts(&self) -> &HashMap<u32, ProbeCounts> {
        &self.counts
    }

    /// Forgets the backends that are gone, and stops probing them.
    pub(crate) fn keep(&mut self, stays: impl Fn(u32) -> bool) {
        self.counts.retain(|slot, _| stays(*slot));
        self.latest.retain(|slot, task| {
            let kept = stays(*slot);
            if !kept {
                task.abort();
            }
            kept
        });
    }
}

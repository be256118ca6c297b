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

use relais_core::config::CheckKind;
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
    /// By slot: the latest one, and the one before it.
    latest: HashMap<u32, Vec<AbortHandle>>,
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

    /// Starts a probe. Of older ones of the same backend only the last goes on, beside which this may have been asked for; the
    /// fleet would ignore the result of any other. A program of the operator's is not run twice at a time.
    pub(crate) fn start(&mut self, order: ProbeOrder) {
        let (slot, id) = (order.backend.slot, order.id);
        let beside = usize::from(!matches!(order.check.health.kind, CheckKind::Exec(_)));
        let prober = Arc::clone(&self.prober);
        let task = self.running.spawn(async move {
            let Answer { result, took, said, round_trip } = prober.probe(&order).await;
            Probed { slot, id, result, took, said, round_trip }
        });
        self.orders.insert(task.id(), (slot, id));
        let tasks = self.latest.entry(slot).or_default();
        let stopped = tasks.len().saturating_sub(beside);
        tasks.drain(..stopped).for_each(|older| older.abort());
        tasks.push(task);
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
        if let Some(tasks) = self.latest.get_mut(&order.0) {
            tasks.retain(|other| other.id() != task);
            if tasks.is_empty() {
                self.latest.remove(&order.0);
            }
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
        self.latest.retain(|slot, tasks| {
            let kept = stays(*slot);
            if !kept {
                tasks.iter().for_each(AbortHandle::abort);
            }
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use relais_core::config::{Config, Lookup};
    use relais_core::{Effect, Fleet, Instant, Saved};

    use super::*;

    fn config(address: &str) -> Config {
        let text = format!(
            "[listener.http]\naddress = \"127.0.0.1:80\"\nprotocol = \"http\"\nredirect = false\n\
             [service.web]\nhosts = [\"*\"]\nhealth = \"/\"\nbackends = [\"{address}\"]\n"
        );
        Config::parse("proxy.toml", &text, &Lookup::blind()).unwrap_or_else(|error| panic!("{error}")).config
    }

    /// The first probe of a backend, as the fleet orders it.
    fn order(config: &Config) -> ProbeOrder {
        let mut fleet = Fleet::new(Arc::new(config.clone()), Saved::default(), Instant(0), 1);
        loop {
            while let Some(effect) = fleet.poll_effect() {
                if let Effect::Probe(order) = effect {
                    return order;
                }
            }
            fleet.handle_timeout(fleet.poll_timeout().unwrap());
        }
    }

    /// The fleet asks beside a probe that takes long, and wants both answers; of three it wants the last two.
    #[tokio::test]
    async fn the_last_two_of_one_backend_are_answered() {
        let silent = tokio::net::TcpListener::bind("127.0.7.9:0").await.unwrap();
        let config = config(&silent.local_addr().unwrap().to_string());
        let (order, certs) = (order(&config), CertStore::load(&config, "/nowhere".as_ref()).unwrap());
        let mut probes = Probes::new(CertStore::new(certs, relais_tls::Tickets::new(&[], Box::new(|_| ()))));
        for (id, millis) in [(1, 60_000), (2, 300), (3, 100)] {
            let timeout = Duration::from_millis(millis);
            probes.start(ProbeOrder { id, connect: timeout, timeout, ..order.clone() });
        }
        let two = async { [probes.next().await.id, probes.next().await.id] };
        let mut answered = tokio::time::timeout(Duration::from_secs(20), two).await.expect("two answers");
        answered.sort_unstable();
        assert_eq!(answered, [2, 3]);
        assert!(probes.latest.is_empty() && probes.orders.len() <= 1, "{:?}", probes.orders);
    }
}

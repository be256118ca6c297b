//! Certificates from CAs, between the fleet that decides and the rooms that do: `order` carries out one order, `begun`
//! notes those under way, `records` their DNS records, `kept` is what the store has, `demand` are names that clients wait for, `wish` what operators ask, `tell` alarm and log.
//!
//! May talk to CAs (through `tls`), to the `ask` address, and to the store. What is served is durable before.

mod begun;
mod demand;
mod kept;
mod order;
mod records;
mod staple;
mod tell;
mod wish;

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use relais_config::Config;
use relais_core::certs::{CertOrder, RenewalQuestion};
use relais_core::{Event, Instant};
use relais_store::Store;
use relais_tls::{CertStore, Demand};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::control::Control;
use crate::succession::Succession;

use begun::Orders;
use demand::Demands;
use order::Desk;
use records::Records;
use staple::Staples;

pub(crate) use kept::{inventory, serve_all};
pub use staple::StapleReport;
pub(crate) use wish::CertWish;
pub use wish::{FoundPair, Import, Imported, Tried, import_into};

/// How often the wall clock is told, and what stands is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// How often it is told which on-demand certificates clients use, and old ones are cleared away.
const HOUSEKEEPING: Duration = Duration::from_secs(3600);
/// How often an order that must wait looks whether it must.
const AGAIN: Duration = Duration::from_millis(200);

/// What is under way about certificates. Dropping it stops all of it.
pub(crate) struct Certs {
    pub(super) desk: Desk,
    succession: Succession,
    running: JoinSet<Done>,
    /// Held by each order and each wish under way.
    orders: Arc<()>,
    demands: Demands,
    staples: Staples,
    asked: Option<mpsc::Receiver<Demand>>,
    look_at: Instant,
    housekeeping_at: Instant,
}

/// Something is done.
pub(crate) enum Done {
    /// The fleet must know.
    Event(Event),
    /// An operator's wish: certificates may have changed.
    Wish(Option<Event>),
    /// Whether a name that clients wait for may be ordered; `Err`: why not.
    Asked { name: String, allowed: Result<(), String> },
    /// A client waits for a name.
    Demand(Demand),
    /// A responder's word on the certificate of this name and fingerprint, or why there is none.
    Stapled { name: String, fingerprint: String, answer: Result<Vec<u8>, String> },
}

impl Certs {
    pub(crate) fn new(store: &Arc<Store>, certs: &Arc<CertStore>, succession: Succession, now: Instant) -> Certs {
        Certs {
            desk: Desk {
                store: Arc::clone(store),
                certs: Arc::clone(certs),
                records: Records::recall(store),
                orders: Orders::recall(store),
                first: HashMap::new(),
            },
            succession,
            running: JoinSet::new(),
            orders: Arc::default(),
            demands: Demands::default(),
            staples: Staples::recall(store, certs),
            asked: certs.demands(),
            look_at: now,
            housekeeping_at: now + HOUSEKEEPING,
        }
    }

    /// To be called once, within a runtime.
    pub(crate) fn begin(&mut self, config: &Arc<Config>) {
        // Taken before the first order: what it writes anew must not be cleared away.
        let clearing = self.desk.records.alone();
        tokio::spawn(self.desk.records.clone().clear_away(Arc::clone(config), clearing));
    }

    pub(crate) fn order(&mut self, order: CertOrder, config: &Arc<Config>) {
        let succession = self.succession.clone();
        // Where a successor may be about to serve, the CA would look for the answers there.
        let wait = async move {
            while succession.is_under_way() {
                tokio::time::sleep(AGAIN).await;
            }
        };
        let work = self.desk.order(order, Arc::clone(config), wait);
        self.spawn(async move { Done::Event(work.await) });
    }

    /// Does what no other process can go on with: see [`Certs::is_busy`].
    fn spawn(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        let order = Arc::clone(&self.orders);
        self.running.spawn(async move {
            let done = work.await;
            drop(order);
            done
        });
    }

    /// Whether an order or a wish is under way, which only this process can end well: the CA looks for its answers here.
    pub(crate) fn is_busy(&self) -> bool {
        Arc::strong_count(&self.orders) > 1
    }

    pub(crate) fn ask_renewal(&mut self, question: RenewalQuestion) {
        self.running.spawn(async move { Done::Event(order::renewal_info(question).await) });
    }

    /// When [`Control::look_at_certificates`] wants to be called.
    pub(crate) fn due(&self) -> Instant {
        self.staples.next().map_or(self.look_at, |again| again.min(self.look_at))
    }

    /// The next thing; waits for ever when nothing is under way. Nothing is lost when the wait is given up.
    pub(crate) async fn next(&mut self) -> Done {
        loop {
            tokio::select! {
                Some(done) = self.running.join_next() => match done {
                    Ok(done) => return done,
                    // The fleet takes an order for lost after its time.
                    Err(error) => tracing::error!(%error, "an order failed inside relais"),
                },
                Some(demand) = next_demand(&mut self.asked) => return Done::Demand(demand),
                else => pending::<()>().await,
            }
        }
    }
}

async fn next_demand(asked: &mut Option<mpsc::Receiver<Demand>>) -> Option<Demand> {
    match asked {
        Some(asked) => asked.recv().await,
        None => None,
    }
}

impl Control {
    /// Takes what is done about certificates.
    pub(crate) fn certificate_done(&mut self, done: Done) {
        let now = self.now();
        match done {
            Done::Event(event) => {
                let failed = match &event {
                    Event::OrderFailed { name, .. } => Some(name.to_string()),
                    _ => None,
                };
                self.fleet.handle_event(event, now);
                if let Some(name) = failed {
                    self.acme.demands.refuse(&name, now);
                }
            }
            Done::Wish(event) => {
                if let Some(event) = event {
                    self.fleet.handle_event(event, now);
                }
            }
            Done::Demand(demand) => self.demanded(demand, now),
            Done::Asked { name, allowed } => self.demand_asked(&name, allowed, now),
            Done::Stapled { name, fingerprint, answer } => {
                return self.stapled(&name, &fingerprint, answer, now);
            }
        }
        self.look_for_staples(now);
        let certs = Arc::clone(&self.certs);
        self.acme.demands.serve(|name| certs.covers(name));
        self.look_for_alarms(now);
    }

    /// Once a minute: the wall clock, alarms, and now and then what nobody needs any more.
    pub(crate) fn look_at_certificates(&mut self) {
        let now = self.now();
        self.acme.look_at = now + LOOK;
        let wall = kept::wall_clock();
        self.fleet.handle_event(Event::WallClock { wall }, now);
        if self.certs_not_before <= now && self.certs.is_of_another_day() {
            self.certificates_again(now);
        }
        self.look_for_staples(now);
        if self.acme.housekeeping_at <= now {
            self.acme.housekeeping_at = now + HOUSEKEEPING;
            self.keep_house(now, wall);
        }
        self.look_for_alarms(now);
    }

    /// Tells the fleet what certificates there are: at start, with each config, and when some were imported.
    pub(crate) fn tell_inventory(&mut self, covered: Vec<String>) {
        let now = self.now();
        self.fleet.handle_event(Event::Inventory(inventory(&self.store, covered)), now);
    }
}

//! One run's setting: sites, services, contract, traffic; drawn from the seed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use relais_core::Instant;
use relais_core::config::{Action, Address, Agent, BackendDecl, CheckKind, Config, HttpCheck, Service};

use crate::beside::{Says, Whereabouts};
use crate::dice::Dice;
use crate::testing;
use crate::world::{Link, Machine, Page, Place, Process, World};

/// What kind of run it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Every kind of incident, one every few dozen contracts.
    Mixed,
    /// Silent cuts only, at a time.
    Cuts,
    /// Busy, with loss, pauses, slow applications and lying checks: nothing that may take a site down.
    Grey,
    /// Busy or quiet, with backends that answer badly though their checks pass.
    Sick,
    /// The same, where most of a pool answer most requests wrongly.
    Outdone,
    /// Names that lead elsewhere, agents that say so.
    Beside,
    /// A good world, and an edge that is stopped or starved again and again.
    Stalled,
    /// A long quiet life at a long contract.
    Long,
}

#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) kind: Kind,
    pub(crate) seed: u64,
    pub(crate) contract: Duration,
    /// How long the run is.
    pub(crate) length: Duration,
    /// Mean time between requests of one service.
    pub(crate) pause: Duration,
    /// Mean time between incidents.
    pub(crate) peace: Duration,
    pub(crate) services: Vec<ServicePlan>,
    pub(crate) rtt: Duration,
    /// Checks are connects rather than requests.
    pub(crate) connect_only: bool,
    /// How often agents are asked, if there are any.
    pub(crate) agents: Option<Duration>,
}

#[derive(Debug, Clone)]
pub(crate) struct ServicePlan {
    pub(crate) name: String,
    /// Site and address.
    pub(crate) backends: Vec<(String, String, u32)>,
    /// Only here to make an edited config differ.
    pub(crate) edition: u64,
}

pub(crate) const SITES: [&str; 3] = ["dijon", "thory", "ovh"];
pub(crate) const START: Instant = Instant(1_700_000_000_000_000);

impl Setting {
    pub(crate) fn draw(kind: Kind, seed: u64, contracts: u32) -> Self {
        let mut dice = Dice::new(seed);
        let contract = match kind {
            Kind::Long => Duration::from_secs(60),
            Kind::Sick | Kind::Outdone => Duration::from_secs(1),
            _ => *dice.one(&[Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(5)]),
        };
        let (services, per_site) = match kind {
            Kind::Long => (1, if dice.chance(0.25) { 2 } else { 1 }),
            _ => (1 + dice.below(3), 1 + dice.below(2)),
        };
        // A standby site nobody asks is judged by probes alone: loss may take it for dead. The grey runs have none.
        let tiered = !matches!(kind, Kind::Grey | Kind::Sick | Kind::Outdone) && dice.chance(0.5);
        let services = (0..services)
            .map(|index| {
                let name = ["api", "web", "img"][index].to_owned();
                let backends = SITES.iter().enumerate().flat_map(|(net, site)| {
                    let tier = if tiered && net > 0 { 2 } else { 1 };
                    (0..per_site).map(move |host| ((*site).to_owned(), address(kind, index + 1, net, host + 1), tier))
                });
                ServicePlan { name, backends: backends.collect(), edition: 0 }
            })
            .collect();
        let (pause, peace) = match kind {
            Kind::Mixed => (contract / *dice.one(&[2, 10, 40]), contract * 25),
            Kind::Cuts => (contract / *dice.one(&[1, 5, 50]), contract * 20),
            Kind::Grey => (contract / 150, contract * 10),
            Kind::Sick | Kind::Outdone => (contract / *dice.one(&[1, 10, 100]), contract * 60),
            Kind::Beside => (contract / *dice.one(&[2, 10, 40]), contract * 15),
            Kind::Stalled => (contract / *dice.one(&[2, 10, 40]), contract * 10),
            Kind::Long => (contract * 2, contract * 60),
        };
        let rtt = (contract / 60).min(Duration::from_millis(30));
        let connect_only = dice.chance(0.25);
        let agents = (kind == Kind::Beside).then(|| contract.max(Duration::from_millis(500)));
        let length = contract * contracts;
        Self { kind, seed, contract, length, pause, peace, services, rtt, connect_only, agents }
    }

    pub(crate) fn config(&self) -> Config {
        let services = self.services.iter().map(|plan| self.service(plan)).collect();
        let mut config = testing::config(services);
        config.edge.failover_within = self.contract;
        config
    }

    fn service(&self, plan: &ServicePlan) -> Service {
        let backends = plan.backends.iter().map(|(site, address, tier)| declare(site, address, *tier));
        let mut service = testing::service(&plan.name, backends.collect(), |forward| {
            forward.failover_within = self.contract;
            forward.health.kind = if self.connect_only { CheckKind::Tcp } else { page() };
            forward.agent = self.agents.map(|interval| Agent { port: 9999, interval, send: Vec::new() });
        });
        service.max_body = Some(plan.edition);
        service
    }

    /// The machines of every backend the run may ever name.
    pub(crate) fn world(&self, dice: &mut Dice) -> World {
        let places = SITES
            .iter()
            .map(|site| {
                let rtt = dice.between(self.rtt / 4, self.rtt);
                let place = Place {
                    rtt,
                    link: Link::Good,
                    cut_at: None,
                    dark_until: Instant(0),
                    lossy_until: Instant(0),
                    changed: START,
                    drop_next: 0,
                    handshake: START,
                    misread: Dice::new(self.seed ^ rtt.as_micros() as u64).chance(0.2),
                };
                (Arc::from(*site), place)
            })
            .collect();
        let backends = self.services.iter().flat_map(|plan| &plan.backends);
        let machines: BTreeMap<Arc<str>, Machine> =
            backends.map(|(site, address, _)| (Arc::from(address.as_str()), machine(site, address))).collect();
        World { places, machines, nameless: false, named_since: START }
    }
}

/// The check that asks for a page.
fn page() -> CheckKind {
    CheckKind::Http(HttpCheck {
        path: "/health".to_owned(),
        method: "GET".to_owned(),
        host: None,
        status: vec![(200, 399)],
        body: None,
        headers: Vec::new(),
    })
}

/// Of a backend: in a world with names every other has one.
fn address(kind: Kind, service: usize, net: usize, host: usize) -> String {
    if kind == Kind::Beside && net < 2 {
        format!("n{service}-{net}-{host}.example:80")
    } else {
        format!("10.{service}.{net}.{host}:80")
    }
}

/// A backend by address or by name.
fn declare(site: &str, address: &str, tier: u32) -> BackendDecl {
    if address.parse::<SocketAddr>().is_ok() {
        return testing::backend(site, address, tier);
    }
    let (host, port) = address.split_once(':').unwrap();
    let address = Address::Name(host.into(), port.parse().unwrap());
    BackendDecl { address, ..testing::backend(site, "10.0.0.1:80", tier) }
}

pub(crate) fn machine(site: &str, address: &str) -> Machine {
    let own = address.parse::<SocketAddr>();
    let at = own.clone().unwrap_or_else(|_| "10.9.9.9:80".parse().unwrap());
    Machine {
        site: site.into(),
        process: Process::Serving,
        page: Page::Honest,
        changed: START,
        lives: 0,
        gone_until: Instant(0),
        sick_until: Instant(0),
        says: Says::Ready,
        said: START,
        place: Whereabouts { at, named: own.is_err(), known: None, moved: START },
    }
}

/// Site and address of every backend a config names.
pub(crate) fn declared(config: &Config) -> Vec<(Arc<str>, Arc<str>, Arc<str>)> {
    let mut all = Vec::new();
    for service in &config.services {
        let Action::Forward(forward) = &service.action else { continue };
        for decl in &forward.backends {
            all.push((Arc::clone(&service.name), Arc::clone(&decl.site), decl.address.to_string().into()));
        }
    }
    all
}

//! The schedule, step by step. Years of it, with everything that goes wrong, are in the simulation.

mod names;
mod orders;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use relais_config::{Config, Listener, ListenerProtocol, TlsSource};

use super::*;
use crate::effect::CertificateStep;
use crate::testing;

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3600);
const START: Instant = Instant(1_800_000_000_000_000);

/// A config with these hosts, all from authorities.
fn config(hosts: &[&str], authorities: &[&str]) -> Config {
    let mut service = testing::service("web", Vec::new(), |_| {});
    service.hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
    service.tls = TlsSource::Acme;
    let mut config = testing::config(vec![service]);
    config.acme = testing::acme(authorities);
    config.listeners = vec![Arc::new(Listener {
        name: "https".to_owned(),
        addresses: vec!["127.0.0.1:8443".parse().unwrap()],
        protocol: ListenerProtocol::Https,
        redirect_to: None,
    })];
    config
}

/// The schedule and what it wanted.
struct Rig {
    certs: Certs,
    now: Instant,
    saved: BTreeMap<RecordKey, Record>,
    orders: Vec<CertOrder>,
    questions: Vec<RenewalQuestion>,
    steps: Vec<CertificateStep>,
    held: BTreeMap<Arc<str>, HeldCertificate>,
    /// Orders that can go on after a restart.
    begun: Vec<Arc<str>>,
    /// What the CA says about renewal; `None`: nothing.
    window: Option<RenewalWindow>,
    asked: usize,
}

impl Rig {
    fn next_step(&self) -> String {
        self.certs.report(self.now).certificates[0].next.clone()
    }

    fn new(config: Config) -> Rig {
        let mut rig = Rig {
            certs: Certs::new(&Arc::new(config), &Saved::default(), 7, START),
            now: START,
            saved: BTreeMap::new(),
            orders: Vec::new(),
            questions: Vec::new(),
            steps: Vec::new(),
            held: BTreeMap::new(),
            begun: Vec::new(),
            window: None,
            asked: 0,
        };
        rig.take_inventory(&[]);
        rig
    }

    fn take_inventory(&mut self, covered: &[&str]) {
        let held = self.held.values().cloned().collect();
        let covered = covered.iter().map(|host| (*host).to_owned()).collect();
        let begun = std::mem::take(&mut self.begun);
        self.certs.inventory(Inventory { held, covered, begun }, self.now);
        self.drain();
    }

    /// A new process at another time.
    fn restart(&mut self, config: Config, now: Instant) {
        self.now = now;
        let saved = Saved { records: self.saved.values().cloned().collect() };
        self.certs = Certs::new(&Arc::new(config), &saved, now.0, now);
        self.orders.clear();
        self.take_inventory(&[]);
    }

    fn drain(&mut self) {
        let out = self.certs.take();
        for record in out.save {
            self.saved.insert(record.key(), record);
        }
        for key in out.forget {
            self.saved.remove(&key);
        }
        for note in out.notes {
            if let Transition::Certificate { step, .. } = note {
                self.steps.push(step);
            }
        }
        for effect in out.effects {
            match effect {
                Effect::Order(order) => self.orders.push(*order),
                Effect::AskRenewalInfo(question) => self.questions.push(question),
                _ => {}
            }
        }
    }

    /// Lets time pass, doing what is due, up to the next order. Questions are answered with `window`.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.certs.next().filter(|at| *at <= end && self.orders.is_empty()) {
            self.now = at.max(self.now);
            self.certs.due(self.now);
            self.drain();
            while let (Some(window), Some(question)) = (self.window.clone(), self.questions.pop()) {
                self.asked += 1;
                let answer = RenewalAnswer { window, retry_after: Some(DAY * 30), date: None };
                self.certs.renewal_info(question.id, &question.name, Ok(answer), self.now);
                self.drain();
            }
        }
        if self.orders.is_empty() {
            self.now = end;
        }
    }

    /// The one order under way.
    fn order(&mut self) -> CertOrder {
        assert_eq!(self.orders.len(), 1, "{:?}", self.orders);
        self.orders.remove(0)
    }

    fn issue(&mut self, order: &CertOrder, life: Duration) {
        self.issue_at(order, life, self.now);
    }

    /// The CA signs at its own time.
    fn issue_at(&mut self, order: &CertOrder, life: Duration, there: Instant) {
        let held = HeldCertificate {
            name: Arc::clone(&order.name),
            hosts: order.hosts.clone(),
            authority: Arc::clone(&order.authority.name),
            not_before: there - HOUR,
            not_after: there - HOUR + life,
            ari_id: Some(format!("ari-{}", order.id)),
            fingerprint: order.id.to_string(),
        };
        self.held.insert(Arc::clone(&held.name), held.clone());
        self.certs.issued(order.id, held, self.now);
        self.drain();
    }

    fn fail(&mut self, order: &CertOrder, kind: FaultKind, retry_after: Option<Duration>) {
        let challenge = (kind == FaultKind::Challenge).then(|| order.challenges[0]);
        let fault = OrderFault { kind, said: "no".to_owned(), likely: None, retry_after, challenge };
        self.certs.order_failed(order.id, &order.name, fault, self.now);
        self.drain();
    }

    fn state(&self, name: &str) -> CertificateState {
        let report = self.certs.report(self.now);
        report.certificates.iter().find(|cert| *cert.name == *name).unwrap().state
    }
}

//! The schedule, step by step. Years of it, with everything that goes wrong, are in the simulation.

use std::sync::Arc;
use std::time::Duration;

use relais_config::{Challenge, Config, Listener, ListenerProtocol, OnDemand, TlsSource};

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

#[test]
fn nothing_is_ordered_before_it_is_known_what_there_is() {
    let mut certs = Certs::new(&Arc::new(config(&["a.fr"], &["first"])), &Saved::default(), 1, START);
    certs.due(START + DAY);
    certs.reload(&Arc::new(config(&["a.fr", "b.fr"], &["first"])), START + DAY);
    assert!(certs.take().effects.is_empty());
    assert_eq!(certs.next(), None);
    let held = HeldCertificate {
        name: "a.fr".into(),
        hosts: vec!["a.fr".to_owned()],
        authority: "first".into(),
        not_before: START,
        not_after: START + DAY * 90,
        ari_id: None,
        fingerprint: "x".to_owned(),
    };
    certs.inventory(Inventory { held: vec![held], covered: vec!["b.fr".to_owned()], begun: vec![] }, START + DAY);
    assert!(certs.take().effects.is_empty(), "one is held, a file covers the other");
}

#[test]
fn an_order_says_all_that_is_needed_and_the_renewal_what_it_replaces() {
    let mut rig = Rig::new(config(&["a.fr"], &["first", "second"]));
    let order = rig.order();
    assert_eq!((&*order.name, order.hosts.join(" "), &*order.authority.name), ("a.fr", "a.fr".to_owned(), "first"));
    assert_eq!((order.challenges.len(), order.replaces.as_deref(), order.profile.as_deref()), (2, None, None));
    rig.issue(&order, DAY * 90);
    assert_eq!(rig.state("a.fr"), CertificateState::Valid);
    rig.pass(DAY * 58);
    assert!(rig.orders.is_empty(), "not due");
    rig.pass(DAY * 4);
    let renewal = rig.order();
    assert_eq!(renewal.replaces, Some(format!("ari-{}", order.id)));
    rig.issue(&renewal, DAY * 90);
    assert_eq!(rig.state("a.fr"), CertificateState::Valid);
}

#[test]
fn an_address_is_ordered_as_an_address_and_short_lived() {
    let mut rig = Rig::new(config(&["[2001:db8::1]"], &["first"]));
    let order = rig.order();
    assert_eq!((&*order.name, order.hosts.join(" ")), ("[2001:db8::1]", "2001:db8::1".to_owned()));
    assert_eq!(order.profile.as_deref(), Some("shortlived"));
}

#[test]
fn the_window_of_the_ca_moves_the_renewal() {
    let mut rig = Rig::new(config(&["a.fr"], &["first"]));
    let order = rig.order();
    rig.issue(&order, DAY * 90);
    let window =
        |from: u32| RenewalWindow { start: START + DAY * from, end: START + DAY * (from + 1), explanation: None };
    rig.window = Some(window(40));
    rig.pass(DAY * 20);
    assert!((17..=27).contains(&rig.asked), "about a day between questions, whatever the CA says: {}", rig.asked);
    // Moved to the past: now, when it is asked next.
    rig.window = Some(window(10));
    rig.pass(DAY * 2);
    assert!(rig.order().replaces.is_some());
    assert!(rig.now < START + DAY * 22);
}

#[test]
fn failures_wait_longer_each_time_and_the_second_authority_is_for_need() {
    let mut rig = Rig::new(config(&["a.fr"], &["first", "second"]));
    let order = rig.order();
    assert_eq!(order.challenges[0], Challenge::Http01);
    rig.fail(&order, FaultKind::Challenge, None);
    assert_eq!(rig.next_step(), "waits 5 s: after a failure");
    rig.pass(Duration::from_secs(6));
    let second = rig.order();
    assert_eq!(&*second.authority.name, "second", "there is none yet: whoever can");
    assert_eq!(second.challenges[0], Challenge::TlsAlpn01, "another challenge first");
    rig.issue(&second, DAY * 90);
    rig.pass(DAY * 62);
    let renewal = rig.order();
    assert_eq!(&*renewal.authority.name, "first");
    rig.fail(&renewal, FaultKind::Challenge, None);
    let mut waits = Vec::new();
    for _ in 0..6 {
        let before = rig.now;
        rig.pass(DAY);
        waits.push(rig.now.since(before).as_secs());
        let order = rig.order();
        assert_eq!(&*order.authority.name, "first", "there is time");
        rig.fail(&order, FaultKind::Challenge, None);
    }
    assert!(waits.windows(2).all(|pair| pair[1] * 10 > pair[0] * 13), "{waits:?}");
    let mut names = std::collections::BTreeSet::new();
    while rig.now < START + DAY * 69 {
        rig.pass(DAY);
        for order in std::mem::take(&mut rig.orders) {
            names.insert(order.authority.name.to_string());
            rig.fail(&order, FaultKind::Challenge, None);
        }
    }
    assert_eq!(names.len(), 2, "time grows short: whoever can");
}

#[test]
fn the_word_of_the_ca_is_kept_and_three_refused_names_are_its_own_fault() {
    let mut rig = Rig::new(config(&["a.fr", "b.fr", "c.fr", "d.fr"], &["first"]));
    for order in std::mem::take(&mut rig.orders) {
        let word = (*order.name == *"a.fr").then_some(HOUR * 5);
        if *order.name == *"d.fr" {
            rig.issue(&order, DAY * 90);
        } else {
            rig.fail(&order, FaultKind::RateLimited, word);
        }
    }
    let end = rig.now + HOUR * 4;
    while rig.now < end {
        rig.pass(end.since(rig.now));
        for order in std::mem::take(&mut rig.orders) {
            assert_ne!(&*order.name, "a.fr", "five hours, it said");
            rig.issue(&order, DAY * 90);
        }
    }
    let paused = Rig::new(config(&["a.fr", "b.fr", "c.fr"], &["first"]));
    let mut rig = paused;
    for order in std::mem::take(&mut rig.orders) {
        rig.fail(&order, FaultKind::Refused, None);
    }
    assert!(rig.certs.report(rig.now).authorities[0].paused_until.is_some());
}

#[test]
fn orders_are_paced_and_after_trouble_the_first_goes_alone() {
    let hosts: Vec<String> = (0..20).map(|number| format!("n{number}.fr")).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let mut rig = Rig::new(config(&hosts, &["first"]));
    assert_eq!(rig.orders.len(), 4);
    let order = rig.orders.remove(0);
    rig.issue(&order, DAY * 90);
    assert_eq!(rig.orders.len(), 4, "one ended, one began");
    for order in std::mem::take(&mut rig.orders) {
        rig.fail(&order, FaultKind::Unreachable, None);
    }
    assert!(rig.orders.is_empty(), "the authority is left alone");
    rig.pass(HOUR);
    assert_eq!(rig.orders.len(), 1, "alone");
    let order = rig.orders.remove(0);
    rig.issue(&order, DAY * 90);
    assert_eq!(rig.orders.len(), 4);
}

#[test]
fn a_restart_forgets_neither_failures_nor_orders_cut_short() {
    let hosts = ["a.fr"];
    let mut rig = Rig::new(config(&hosts, &["first"]));
    for _ in 0..5 {
        let order = rig.order();
        rig.fail(&order, FaultKind::Refused, None);
        rig.pass(DAY);
    }
    // Killed in the middle of the sixth.
    rig.restart(config(&hosts, &["first"]), rig.now + Duration::from_secs(1));
    assert!(rig.orders.is_empty());
    rig.pass(Duration::from_secs(60 * 12));
    assert!(rig.orders.is_empty(), "the sixth wait is half an hour, give or take");
    rig.pass(HOUR);
    let order = rig.order();
    rig.issue(&order, DAY * 90);
    rig.restart(config(&hosts, &["first"]), rig.now + DAY);
    rig.pass(DAY * 50);
    assert!(rig.orders.is_empty(), "never while a valid one is not due");
}

#[test]
fn an_order_that_can_go_on_goes_on_at_once_and_counts_once() {
    let hosts = ["a.fr"];
    let both = ["first", "second"];
    let limited = || {
        let mut config = config(&hosts, &both);
        for authority in &mut config.acme.authorities {
            Arc::make_mut(authority).limits.per_set = Some(2);
        }
        config
    };
    let mut rig = Rig::new(limited());
    let order = rig.order();
    rig.fail(&order, FaultKind::Challenge, None);
    rig.pass(Duration::from_secs(6));
    assert_eq!(&*rig.order().authority.name, "second");
    // Killed five times on the way.
    for _ in 0..5 {
        rig.begun = vec!["a.fr".into(), "x.fr".into()];
        rig.restart(limited(), rig.now + Duration::from_secs(1));
        assert_eq!(&*rig.orders[0].authority.name, "second", "who has it, whoever is first in the file");
    }
    let order = rig.order();
    rig.issue(&order, DAY * 90);
    assert_eq!(rig.state("a.fr"), CertificateState::Valid);
    // And one that the operator wanted, of a certificate that is not due.
    rig.certs.renew_now("a.fr", rig.now);
    rig.drain();
    rig.begun = vec!["a.fr".into()];
    rig.restart(limited(), rig.now + Duration::from_secs(1));
    let order = rig.order();
    rig.issue(&order, DAY * 90);
    rig.restart(limited(), rig.now + DAY);
    assert!(rig.orders.is_empty());
}

#[test]
fn limits_are_kept_by_counting() {
    let mut config_of = config(&["a.fr", "x.a.fr", "y.a.fr"], &["first"]);
    let limit = |config: &mut Config, edit: fn(&mut relais_config::AuthorityLimits)| {
        let mut authority = (*config.acme.authorities[0]).clone();
        edit(&mut authority.limits);
        config.acme.authorities = vec![Arc::new(authority)];
    };
    limit(&mut config_of, |limits| limits.per_domain = Some(2));
    let mut rig = Rig::new(config_of);
    while let Some(order) = rig.orders.pop() {
        rig.issue(&order, DAY * 90);
    }
    rig.pass(DAY * 6);
    assert_eq!((rig.held.len(), rig.orders.len()), (2, 0), "two of three");
    rig.pass(DAY * 2);
    assert_eq!(rig.orders.len(), 1);

    let mut config_of = config(&["a.fr"], &["first"]);
    limit(&mut config_of, |limits| (limits.per_set, limits.failures) = (Some(2), Some(3)));
    let mut rig = Rig::new(config_of);
    let mut failures = 0;
    while rig.now < START + HOUR {
        for order in std::mem::take(&mut rig.orders) {
            failures += 1;
            rig.fail(&order, FaultKind::Challenge, None);
        }
        rig.pass(Duration::from_secs(10));
    }
    assert_eq!(failures, 3, "in the first hour");
}

#[test]
fn names_that_leave_are_renewed_for_a_day_and_cost_nothing_when_they_return() {
    let mut rig = Rig::new(config(&["a.fr"], &["first"]));
    let order = rig.order();
    rig.issue(&order, DAY * 6);
    let mut none = config(&["b.test"], &["first"]);
    none.services.clear();
    let without = Arc::new(none);
    let with = Arc::new(config(&["a.fr"], &["first"]));
    rig.certs.reload(&without, rig.now);
    rig.drain();
    rig.orders.clear();
    rig.pass(HOUR * 12);
    assert_eq!(rig.state("a.fr"), CertificateState::Gone);
    rig.certs.reload(&with, rig.now);
    rig.drain();
    assert!(rig.orders.is_empty(), "it is still good");
    rig.certs.reload(&without, rig.now);
    rig.drain();
    rig.pass(DAY * 5);
    assert!(rig.orders.iter().all(|order| *order.name != *"a.fr"), "after the grace it is not renewed");
    rig.pass(DAY * 10);
    assert!(rig.certs.report(rig.now).certificates.iter().all(|cert| *cert.name != *"a.fr"), "and forgotten");
    // What is held of it is not: a certificate of 90 days would still be good.
    let mut good = rig.held["a.fr"].clone();
    (good.not_after, good.fingerprint) = (rig.now + DAY * 70, "good".to_owned());
    rig.held.insert("a.fr".into(), good);
    rig.take_inventory(&[]);
    rig.certs.reload(&with, rig.now);
    rig.drain();
    assert!(rig.orders.is_empty() && rig.state("a.fr") == CertificateState::Valid);
}

#[test]
fn a_clock_that_is_years_wrong_costs_one_order() {
    let hosts = ["a.fr", "b.fr", "c.fr"];
    let mut rig = Rig::new(config(&hosts, &["first"]));
    for order in std::mem::take(&mut rig.orders) {
        rig.issue(&order, DAY * 90);
    }
    let there = rig.now + DAY;
    rig.restart(config(&hosts, &["first"]), rig.now + DAY * 3650);
    assert_eq!(rig.orders.len(), 1, "the first goes alone");
    let order = rig.order();
    rig.issue_at(&order, DAY * 90, there);
    rig.pass(DAY * 40);
    assert!(rig.orders.is_empty(), "now the time is known");
    // And years behind: renewed in time nonetheless.
    rig.restart(config(&hosts, &["first"]), START - DAY * 3650);
    assert!(rig.orders.is_empty());
    rig.pass(DAY * 65);
    assert!(!rig.orders.is_empty(), "{:?}", rig.certs.report(rig.now).certificates[0]);
}

#[test]
fn clients_names_are_ordered_within_their_budget() {
    let mut config = config(&["*"], &["first"]);
    config.acme.on_demand =
        Some(Arc::new(OnDemand { ask: "http://127.0.0.1/".to_owned(), root: None, per_hour: 2, burst: 3 }));
    let mut rig = Rig::new(config);
    for name in ["a.fr", "b.fr", "c.fr", "d.fr", "a.fr"] {
        rig.certs.wanted(name, rig.now);
        rig.drain();
    }
    let names: Vec<String> = rig.orders.iter().map(|order| order.name.to_string()).collect();
    assert_eq!(names, ["a.fr", "b.fr", "c.fr"]);
    assert_eq!(rig.certs.report(rig.now).on_demand_refused, 1);
    for order in std::mem::take(&mut rig.orders) {
        rig.issue(&order, DAY * 90);
    }
    rig.pass(HOUR);
    rig.certs.wanted("d.fr", rig.now);
    rig.drain();
    assert_eq!(rig.orders.len(), 1, "two an hour");
    let order = rig.order();
    rig.issue(&order, DAY * 90);
    rig.pass(DAY * 50);
    rig.certs.wanted("a.fr", rig.now);
    rig.drain();
    rig.pass(DAY * 20);
    let names: Vec<String> = rig.orders.iter().map(|order| order.name.to_string()).collect();
    assert_eq!(names, ["a.fr"], "only what clients still ask for is renewed");
}

#[test]
fn the_operator_can_have_one_now() {
    let mut rig = Rig::new(config(&["a.fr"], &["first"]));
    let order = rig.order();
    rig.issue(&order, DAY * 90);
    rig.certs.renew_now("x.fr", rig.now);
    rig.certs.renew_now("a.fr", rig.now);
    rig.drain();
    let forced = rig.order();
    rig.issue(&forced, DAY * 90);
    rig.pass(DAY);
    assert!(rig.orders.is_empty(), "once");
}

#[test]
fn an_order_without_any_word_is_taken_for_lost() {
    let mut rig = Rig::new(config(&["a.fr"], &["first"]));
    let order = rig.order();
    rig.pass(order.timeout + Duration::from_secs(59));
    assert!(rig.orders.is_empty());
    assert_eq!(rig.state("a.fr"), CertificateState::Ordering);
    rig.pass(HOUR);
    assert!(!rig.orders.is_empty());
    rig.issue(&order, DAY * 90);
    assert_eq!(rig.state("a.fr"), CertificateState::Ordering);
    assert!(rig.certs.report(rig.now).certificates[0].not_after.is_some(), "what comes late is used");
}

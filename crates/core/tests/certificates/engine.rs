//! One run: the fleet, its process and store, the CAs, and the rules. Time is the true one; the process may believe another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use relais_core::certs::{CertOrder, HeldCertificate, Inventory, RenewalQuestion};
use relais_core::config::{AuthorityLimits, Config, Listener, ListenerProtocol, TlsSource};
use relais_core::{Effect, Event, Fleet, Instant, Record, RecordKey, Saved};

use crate::ca::Ca;
use crate::clients::{self, Clients};
use crate::setting::{DAY, Dice, HOUR, Kind, MINUTE, START, Setting};
use crate::{Mistake, testing};

pub(crate) struct Outcome {
    pub(crate) breach: Option<String>,
    pub(crate) checked: BTreeMap<&'static str, u64>,
    pub(crate) trace: u64,
}

#[derive(Debug, Clone)]
pub(crate) enum Due {
    Answered(Box<CertOrder>, bool),
    Told(RenewalQuestion),
    Restart,
    Reload,
    Daily,
    /// The wall clock leaps.
    Leap,
    /// The wall clock is read, as once a minute in the program.
    Wall,
    /// A client asks for a name.
    Asked,
}

pub(crate) struct Run {
    pub(crate) setting: Setting,
    pub(crate) mistake: Option<Mistake>,
    pub(crate) dice: Dice,
    fleet: Fleet,
    /// True time.
    pub(crate) at: u64,
    /// What the process's clock is wrong by, from its start to its end.
    pub(crate) skew: i64,
    /// What the wall clock is wrong by.
    pub(crate) wall: i64,
    /// What the process may believe it is wrong by, at most.
    pub(crate) ahead: i64,
    cas: Vec<Ca>,
    agenda: BTreeMap<(u64, u64), Due>,
    serial: u64,
    /// Which process an order belongs to: those of a killed one are lost.
    life: u64,
    store: BTreeMap<RecordKey, Record>,
    pub(crate) held: BTreeMap<Arc<str>, HeldCertificate>,
    pub(crate) wanted: BTreeMap<String, u64>,
    /// When clients asked for a name, last and first.
    pub(crate) clients: Clients,
    under_way: usize,
    /// Orders that a kill cut short and that can go on.
    begun: BTreeSet<Arc<str>>,
    /// Needless orders that the last jump still excuses.
    pub(crate) excused: u64,
    /// Windows moved: name, ARI id, by when a new certificate must be there.
    moved: Vec<(Arc<str>, String, u64)>,
    recent: BTreeMap<Arc<str>, Vec<u64>>,
    checked: BTreeMap<&'static str, u64>,
    breach: Option<String>,
    trace: u64,
}

pub(crate) fn run(setting: Setting, mistake: Option<Mistake>) -> Outcome {
    let broken = setting.kind == Kind::FailingFirst;
    let on_demand = setting.kind == Kind::Demand;
    let wanted = setting.names.iter().filter(|_| !on_demand).map(|name| (name.clone(), START)).collect();
    let config = config(&setting, mistake, &wanted);
    let mut run = Run {
        fleet: Fleet::new(Arc::new(config), Saved::default(), Instant(START), setting.seed),
        dice: Dice(setting.seed),
        mistake,
        at: START,
        skew: 0,
        wall: 0,
        ahead: 0,
        cas: vec![Ca::new("first", broken), Ca::new("second", false)],
        agenda: BTreeMap::new(),
        serial: 0,
        life: 0,
        store: BTreeMap::new(),
        held: BTreeMap::new(),
        wanted,
        clients: Clients::default(),
        under_way: 0,
        begun: BTreeSet::new(),
        excused: 0,
        moved: Vec::new(),
        recent: BTreeMap::new(),
        checked: BTreeMap::new(),
        breach: None,
        trace: 0,
        setting,
    };
    for at in run.setting.restarts.clone() {
        run.plan(at, Due::Restart);
    }
    for at in run.setting.reloads.clone() {
        run.plan(at, Due::Reload);
    }
    for at in run.setting.leaps.clone() {
        run.plan(at, Due::Leap);
    }
    if run.setting.kind == Kind::Leaps {
        run.plan(START + MINUTE, Due::Wall);
    }
    if on_demand {
        run.plan(START + MINUTE, Due::Asked);
    }
    run.plan(START + DAY, Due::Daily);
    run.tell_inventory();
    run.go();
    Outcome { breach: run.breach, checked: run.checked, trace: run.trace }
}

fn config(setting: &Setting, mistake: Option<Mistake>, wanted: &BTreeMap<String, u64>) -> Config {
    let mut service = testing::service("web", Vec::new(), |_| {});
    service.hosts = wanted.keys().cloned().collect();
    service.tls = TlsSource::Acme;
    let mut config = testing::config(vec![service]);
    let second = setting.kind == Kind::FailingFirst && mistake != Some(Mistake::FirstOnly);
    config.acme = testing::acme(if second { &["first", "second"] } else { &["first"] });
    if mistake != Some(Mistake::LimitsAreUnknown) {
        for authority in &mut config.acme.authorities {
            Arc::make_mut(authority).limits = AuthorityLimits { ..setting.limits };
        }
    }
    if mistake == Some(Mistake::NobodyPaces) {
        config.acme.orders = 100;
    }
    if setting.kind == Kind::Demand {
        clients::allow(&mut config);
    }
    config.listeners = vec![Arc::new(Listener {
        name: "https".to_owned(),
        addresses: vec!["127.0.0.1:8443".parse().unwrap()],
        protocol: ListenerProtocol::Https,
        redirect_to: None,
    })];
    config
}

impl Run {
    pub(crate) fn plan(&mut self, at: u64, due: Due) {
        self.serial += 1;
        self.agenda.insert((at, self.serial), due);
    }

    /// What the process takes the time for.
    fn now(&self) -> Instant {
        Instant(self.at.saturating_add_signed(self.skew))
    }

    pub(crate) fn check(&mut self, rule: &'static str, holds: bool, about: impl FnOnce(&Run) -> String) {
        *self.checked.entry(rule).or_default() += 1;
        if !holds && self.breach.is_none() {
            let day = (self.at - START) as f64 / DAY as f64;
            let about = about(self);
            self.breach =
                Some(format!("{:?} seed {} day {day:.3}: {rule}: {about}", self.setting.kind, self.setting.seed));
        }
    }

    fn go(&mut self) {
        let end = START + self.setting.days * DAY;
        while self.breach.is_none() {
            let timer = self.fleet.poll_timeout().map(|at| at.0.saturating_add_signed(-self.skew).max(self.at));
            let late = self.mistake == Some(Mistake::TimersAreLate);
            let timer = timer.map(|at| if late { at.max((self.at / (3 * DAY) + 1) * 3 * DAY) } else { at });
            let next = self.agenda.first_key_value().map(|((at, _), _)| *at);
            let Some(at) = timer.into_iter().chain(next).min().filter(|at| *at < end) else { return };
            self.at = at;
            if next == Some(at) {
                let (_, due) = self.agenda.pop_first().unwrap();
                self.happen(due);
            } else {
                let now = self.now();
                self.fleet.handle_timeout(now);
            }
            self.carry_out();
        }
    }

    pub(crate) fn event(&mut self, event: Event) {
        let now = self.now();
        self.fleet.handle_event(event, now);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Answered(order, renewal) => self.answered(&order, renewal),
            Due::Told(question) => self.told(&question),
            Due::Restart => self.restart(),
            Due::Reload => self.reload(),
            Due::Daily => self.daily(),
            Due::Leap => self.leap(),
            Due::Wall => self.read_wall(),
            Due::Asked => self.asked(),
        }
    }

    fn answered(&mut self, order: &CertOrder, renewal: bool) {
        self.under_way -= 1;
        let ca = self.cas.iter_mut().find(|ca| *ca.name == *order.authority.name).unwrap();
        let answer = ca.answer(order, &self.setting, renewal, self.at, &mut self.dice);
        match answer {
            Ok(held) => {
                self.held.insert(Arc::clone(&held.name), held.clone());
                if self.mistake == Some(Mistake::IssuedIsNotTold) {
                    return;
                }
                // Killed after the certificate was durable, before the fleet heard of it.
                if self.setting.kind == Kind::Restarts && self.dice.chance(20) {
                    return self.restart();
                }
                self.event(Event::Issued { id: order.id, held });
            }
            Err(mut fault) => {
                // It told nothing about the time either.
                self.excused += u64::from(self.skew > 0 || self.ahead > 0);
                if self.mistake == Some(Mistake::RetryAfterIsLost) {
                    fault.retry_after = None;
                }
                self.event(Event::OrderFailed { id: order.id, name: Arc::clone(&order.name), fault });
            }
        }
    }

    fn told(&mut self, question: &RenewalQuestion) {
        let Some(held) = self.held.get(&question.name) else { return };
        if held.ari_id.as_ref() != Some(&question.ari_id) || self.mistake == Some(Mistake::WordsAreLost) {
            return;
        }
        let ca = self.cas.iter().find(|ca| *ca.name == *held.authority).unwrap();
        let answer = ca.renewal(held, &self.setting, self.at);
        self.event(Event::RenewalInfo { id: question.id, name: Arc::clone(&question.name), answer });
    }

    /// Kill and start again: what was under way is lost.
    fn restart(&mut self) {
        self.life += 1;
        self.under_way = 0;
        self.note_begun();
        self.agenda.retain(|_, due| !matches!(due, Due::Answered(..) | Due::Told(_)));
        if self.setting.kind == Kind::Jumps {
            let far = i64::try_from(self.dice.below(4000 * DAY)).unwrap();
            self.skew = [0, far, -far][usize::try_from(self.dice.below(3)).unwrap()];
            // What a wrong clock costs: one order that tells the time.
            self.excused = if self.skew > 0 { 1 } else { 0 };
            self.wall = self.skew;
        }
        self.start_by_the_wall();
        let forget = self.mistake == Some(Mistake::MemoryIsLost);
        let records = if forget { Vec::new() } else { self.store.values().cloned().collect() };
        let config = config(&self.setting, self.mistake, &self.wanted);
        self.fleet = Fleet::new(Arc::new(config), Saved { records }, self.now(), self.setting.seed ^ self.life);
        self.tell_inventory();
    }

    /// Half of the orders under way are noted well enough to go on.
    fn note_begun(&mut self) {
        let under_way = |due: &Due| match due {
            Due::Answered(order, _) => Some(Arc::clone(&order.name)),
            _ => None,
        };
        let names: Vec<Arc<str>> = self.agenda.values().filter_map(under_way).collect();
        self.begun = names.into_iter().filter(|_| self.dice.chance(50)).collect();
        *self.checked.entry("orders that can go on").or_default() += self.begun.len() as u64;
    }

    fn tell_inventory(&mut self) {
        let empty = self.mistake == Some(Mistake::InventoryIsEmpty);
        let held = if empty { Vec::new() } else { self.held.values().cloned().collect() };
        let begun = self.begun.iter().cloned().collect();
        self.event(Event::Inventory(Inventory { held, covered: Vec::new(), begun }));
        self.carry_out();
    }

    /// A name leaves or returns.
    fn reload(&mut self) {
        let place = usize::try_from(self.dice.below(self.setting.names.len() as u64)).unwrap();
        let name = self.setting.names[place].clone();
        if self.wanted.remove(&name).is_none() {
            self.wanted.insert(name, self.at);
        }
        let config = config(&self.setting, self.mistake, &self.wanted);
        self.event(Event::Reload(Arc::new(config)));
    }

    /// What must hold every day.
    fn daily(&mut self) {
        self.plan(self.at + DAY, Due::Daily);
        // A clock that is behind what certificates prove since the start, and no CA that tells the time.
        let unknowable = self.skew < 0 && !self.setting.ari;
        // With a wrong clock or few orders a week, the first may take its time; with CAs out for days, as long as those.
        let patience = match self.setting.kind {
            Kind::Limits => 60 * DAY,
            Kind::Outages | Kind::Jumps | Kind::Leaps => 10 * DAY,
            _ => 3 * DAY,
        };
        for (name, since) in self.wanted.clone() {
            let end = self.held.get(name.as_str()).map(|held| held.not_after.0);
            if self.at > since + patience {
                self.check("who is wanted has one", end.is_some(), |_| name.clone());
            }
            // Names that are new again may have an old one that ended while they were gone.
            if self.at > since + patience && self.setting.kind != Kind::Limits {
                let (at, good) = (self.at, end.is_none_or(|end| end > self.at));
                self.check("none in use ends", good || unknowable, |run| {
                    format!("{name} at {at}: {:#?}", run.fleet.certificates(run.now()))
                });
            }
        }
        self.check_clients();
        if self.setting.kind == Kind::Windows && self.dice.chance(8) {
            self.move_window();
        }
        for (name, id, by) in std::mem::take(&mut self.moved) {
            if self.held[&name].ari_id.as_ref() != Some(&id) {
                self.check("a window that moves is followed", true, |_| String::new());
            } else if self.at > by {
                self.check("a window that moves is followed", false, |_| name.to_string());
            } else {
                self.moved.push((name, id, by));
            }
        }
    }

    /// The CA wants one certificate renewed at once.
    fn move_window(&mut self) {
        let place = usize::try_from(self.dice.below(self.held.len() as u64)).unwrap();
        let Some(held) = self.held.values().nth(place).cloned() else { return };
        let (Some(id), ca) = (held.ari_id.clone(), &mut self.cas[0]) else { return };
        ca.moved.insert(id.clone(), (self.at - HOUR, self.at + 12 * HOUR));
        self.moved.push((held.name, id, self.at + 2 * DAY));
    }

    fn carry_out(&mut self) {
        let batch: Vec<Effect> = std::iter::from_fn(|| self.fleet.poll_effect()).collect();
        let mut saved: BTreeSet<Arc<str>> = BTreeSet::new();
        let batch: Vec<Effect> =
            if self.mistake == Some(Mistake::OrderBeforeSave) { batch.into_iter().rev().collect() } else { batch };
        for effect in batch {
            match effect {
                Effect::Save(record) => {
                    if let Record::Certificate(record) = &record {
                        saved.insert(Arc::clone(&record.name));
                    }
                    self.store.insert(record.key(), record);
                }
                Effect::Forget(key) => drop(self.store.remove(&key)),
                Effect::Order(order) => {
                    let known = saved.contains(&order.name);
                    self.check("what is ordered is remembered first", known, |_| order.name.to_string());
                    self.order(*order);
                }
                Effect::AskRenewalInfo(question) => self.plan(self.at + 1_000_000, Due::Told(question)),
                _ => {}
            }
        }
    }

    fn order(&mut self, order: CertOrder) {
        self.trace =
            relais_core::hash::stable(&[&self.trace.to_le_bytes(), &self.at.to_le_bytes(), order.name.as_bytes()]);
        self.under_way += 1;
        let under_way = self.under_way;
        self.check("orders are paced", under_way <= 4, |_| format!("{under_way} at once"));
        self.needed(&order);
        self.asked_for(&order);
        let (at, name) = (self.at, Arc::clone(&order.name));
        let recent = self.recent.entry(name).or_default();
        recent.retain(|then| at - *then < HOUR);
        recent.push(at);
        let count = recent.len();
        let calm = self.setting.restarts.is_empty();
        self.check("no storm", !calm || count <= 16, |_| format!("{count} orders of {} in an hour", order.name));
        let renewal = self.held.get(&order.name).is_some_and(|held| held.authority == order.authority.name);
        let ca = self.cas.iter_mut().find(|ca| *ca.name == *order.authority.name).unwrap();
        // One that goes on is no other one for the CA.
        let goes_on = self.begun.remove(&order.name);
        let taken = if goes_on { Ok(()) } else { ca.take(&order, &self.setting, renewal, self.at) };
        if !self.is_about_clocks() {
            self.check("limits are kept", taken != Err("limits are kept"), |_| order.name.to_string());
            self.check("the CA's word is kept", taken != Err("the CA's word is kept"), |_| order.name.to_string());
        }
        if self.mistake == Some(Mistake::OrdersAreLost) {
            self.under_way -= 1;
        } else {
            let takes = 5_000_000 + self.dice.below(MINUTE);
            if self.setting.kind == Kind::Restarts && self.dice.chance(25) {
                let within = self.dice.below(takes);
                self.plan(self.at + within, Due::Restart);
            }
            self.plan(self.at + takes, Due::Answered(Box::new(order), renewal));
        }
    }

    /// No order while a valid certificate is not due, by its dates or by the CA's word.
    fn needed(&mut self, order: &CertOrder) {
        let Some(held) = self.held.get(&order.name) else { return };
        let life = self.setting.life * DAY;
        let by_dates = held.not_after.0 - life / 3 - life / 60;
        let moved = held.ari_id.as_ref().and_then(|id| self.cas[0].moved.get(id)).map_or(u64::MAX, |window| window.0);
        // Less than what counts as a leap is a clock that is a little wrong.
        let wrong = if self.setting.kind == Kind::Leaps { HOUR } else { MINUTE };
        let needed = self.at + wrong >= by_dates.min(moved);
        if !needed && self.is_about_clocks() {
            let excused = self.excused > 0;
            self.excused = self.excused.saturating_sub(1);
            return self.check("a jump makes no storm", excused, |_| order.name.to_string());
        }
        if self.is_about_clocks() {
            self.check("a jump makes no storm", true, |_| String::new());
        }
        self.check("no order while a valid one is not due", needed, |_| order.name.to_string());
    }
}

//! What befalls the world and what the operator does, drawn from the seed while the run goes on.

use std::sync::Arc;
use std::time::Duration;

use relais_core::{Admin, BackendId, Command, Event, Health, Snapshot, Target};

use crate::beside::Says;
use crate::engine::{Due, Run};
use crate::setting::{Kind, SITES, machine};
use crate::world::{Link, Page, Process};

/// What ends an incident.
#[derive(Debug)]
pub(crate) enum Undo {
    Link(&'static str),
    Process(Arc<str>),
    Page(Arc<str>),
    /// The link changes again, so many more times.
    Flap(&'static str, u32),
    Word(Target),
    Names,
    Agent(Arc<str>),
    /// The edge gets a little time and then none, so many more times.
    Starve(u32),
}

const MIXED: [&str; 26] = [
    "cut",
    "cut",
    "cut",
    "refuse",
    "slow link",
    "lost packet",
    "kill",
    "pause",
    "gone",
    "slow",
    "fail",
    "lie good",
    "lie bad",
    "late page",
    "flap",
    "two sites",
    "all pages bad",
    "everything",
    "word",
    "word",
    "word",
    "reload",
    "reload",
    "reload",
    "restart",
    "restart",
];
const GREY: [&str; 8] = ["loss", "loss", "lost packet", "pause", "slow", "fail", "late page", "all pages bad"];
const SICK: [&str; 9] =
    ["fail one", "fail one", "slow one", "slow one", "fail all", "slow all", "slow site", "restart", "kill"];
const OUTDONE: [&str; 7] =
    ["fail most", "fail most", "fail most", "fail most", "fail all wholly", "restart at once", "kill"];
const BESIDE: [&str; 14] = [
    "cut", "kill", "gone", "word", "reload", "restart", "move", "move", "move", "names", "agent", "agent", "agent",
    "agent",
];
const STALLED: [&str; 3] = ["stall", "stall", "starve"];
const LONG: [&str; 12] = [
    "cut",
    "kill",
    "gone",
    "refuse",
    "flap",
    "two sites",
    "word",
    "reload",
    "restart",
    "everything",
    "pause",
    "lost packet",
];

impl Run {
    pub(crate) fn incident(&mut self) {
        let next = self.now + self.dice.wait(self.setting.peace) + self.setting.contract;
        self.at(next, Due::Incident);
        let kind = match self.setting.kind {
            Kind::Mixed => *self.dice.one(&MIXED),
            Kind::Cuts => "cut",
            Kind::Grey => *self.dice.one(&GREY),
            Kind::Sick => *self.dice.one(&SICK),
            Kind::Outdone => *self.dice.one(&OUTDONE),
            Kind::Beside => *self.dice.one(&BESIDE),
            Kind::Stalled => *self.dice.one(&STALLED),
            Kind::Long => *self.dice.one(&LONG),
        };
        self.count(kind);
        let site = SITES[self.dice.below(SITES.len())];
        let addresses: Vec<Arc<str>> = self.world.machines.keys().cloned().collect();
        let one = Arc::clone(self.dice.one(&addresses));
        let contract = self.setting.contract;
        let longest = if matches!(self.setting.kind, Kind::Sick | Kind::Outdone) { 200 } else { 30 };
        let whole = self.dice.between(contract / 4, contract * longest);
        match kind {
            "cut" => self.link(site, Link::Cut, whole),
            "refuse" => self.link(site, Link::Refusing, whole),
            "slow link" => {
                let extra = self.dice.between(contract / 100, contract / 25);
                self.link(site, Link::Slow(extra), whole);
            }
            "loss" => self.link(site, Link::Lossy(0.2), whole),
            "lost packet" => self.world.drop_packet(site),
            "flap" => self.undo(Undo::Flap(site, 20)),
            "two sites" => {
                self.link(site, Link::Cut, whole);
                let other = SITES[self.dice.below(SITES.len())];
                self.link(other, Link::Cut, whole);
            }
            "everything" => {
                for site in SITES {
                    self.link(site, Link::Cut, whole);
                }
            }
            "kill" => self.process(one, Process::Dead, whole),
            "gone" => self.process(one, Process::HostGone, whole),
            "pause" => {
                let pause = self.dice.between(contract / 10, contract * 9 / 10);
                self.process(one, Process::Paused, pause);
            }
            "slow" => {
                let time = self.dice.between(contract / 10, contract * 3);
                self.process(one, Process::Slow(time), whole);
            }
            "fail" => self.process(one, Process::Failing(0.3), whole),
            "lie good" => {
                self.process(Arc::clone(&one), Process::Failing(0.9), whole);
                self.page(one, Page::Good, whole);
            }
            "lie bad" => self.page(one, Page::Bad, whole),
            "late page" => self.page(one, Page::Late, whole),
            "all pages bad" => {
                for address in addresses {
                    self.page(address, Page::Bad, whole);
                }
            }
            "word" => self.word(site, &one, whole),
            "reload" => self.reload(),
            "restart" => self.restart(),
            "restart at once" => self.restart_after(Duration::from_millis(200)),
            other if other.contains(' ') => self.sickness(other, site, &one, whole),
            other => self.beside(other, one, whole),
        }
    }

    /// Machines that answer badly, though their pages say that they are well.
    fn sickness(&mut self, kind: &str, site: &str, one: &Arc<str>, whole: Duration) {
        let contract = self.setting.contract;
        match kind {
            "fail one" => self.sick(&[Arc::clone(one)], Process::Failing(0.3), whole),
            "slow one" => self.sick(&[Arc::clone(one)], Process::Slow(contract), whole),
            "fail all" => self.sick(&self.machines_of(one), Process::Failing(0.3), whole),
            "fail most" => {
                // All but those at one site.
                let share = *self.dice.one(&[1.0, 0.8]);
                let mut most = self.machines_of(one);
                most.retain(|address| *self.world.machines[address].site != *site);
                self.sick(&most, Process::Failing(share), whole);
            }
            "fail all wholly" => self.sick(&self.machines_of(one), Process::Failing(1.0), whole),
            "slow all" => self.sick(&self.machines_of(one), Process::Slow(contract), whole),
            "slow site" => self.sick(&self.machines_at(site), Process::Slow(contract), whole),
            other => unreachable!("{other}"),
        }
    }

    /// What befalls those beside backends, and the edge itself.
    fn beside(&mut self, kind: &str, one: Arc<str>, whole: Duration) {
        match kind {
            "stall" => self.stall(self.setting.contract / 20, self.setting.contract * 5),
            "starve" => self.undo(Undo::Starve(50)),
            "move" => self.world.move_machine(&one, self.now),
            "names" => self.names(whole),
            "agent" => self.agent(one, whole),
            other => unreachable!("{other}"),
        }
    }

    /// The edge stands still for a while.
    fn stall(&mut self, least: Duration, most: Duration) {
        let end = self.now + self.dice.between(least, most);
        self.stalled = self.stalled.max(end);
    }

    fn link(&mut self, site: &'static str, link: Link, time: Duration) {
        if !self.busy.insert(site.into()) {
            return;
        }
        let settled = self.settled(site);
        self.world.set_link(site, link, self.now);
        if link == Link::Cut && settled {
            let (cut_at, end) = (self.now, self.now + self.setting.contract);
            self.at(end, Due::Verify(site, cut_at));
        }
        let end = self.now + time;
        self.at(end, Due::Undo(Undo::Link(site)));
    }

    /// Whether nothing lately makes a cut of this site hard to tell from something else.
    fn settled(&self, site: &str) -> bool {
        let quiet = self.setting.contract * 40;
        let machines = self.world.machines.iter().filter(|(_, machine)| *machine.site == *site);
        let place = &self.world.places[site];
        let calm = |address: &Arc<str>| {
            self.world.clean_since(address).is_some_and(|since| since + self.setting.contract * 3 <= self.now)
        };
        place.lossy_until + quiet <= self.now && machines.map(|(address, _)| address).all(calm)
    }

    fn process(&mut self, address: Arc<str>, process: Process, time: Duration) {
        if !self.busy.insert(Arc::clone(&address)) {
            return;
        }
        self.world.set_process(&address, process, self.now);
        let end = self.now + time;
        self.at(end, Due::Undo(Undo::Process(address)));
    }

    /// All of these are sick, or none when one is busy.
    fn sick(&mut self, addresses: &[Arc<str>], process: Process, time: Duration) {
        let idle = |address: &Arc<str>| !self.busy.contains(address) && self.world.clean_since(address).is_some();
        if !addresses.iter().all(idle) {
            return;
        }
        for address in addresses {
            self.page(Arc::clone(address), Page::Good, time);
            self.process(Arc::clone(address), process, time);
        }
    }

    fn machines_at(&self, site: &str) -> Vec<Arc<str>> {
        let there = self.world.machines.iter().filter(|(_, machine)| *machine.site == *site);
        there.map(|(address, _)| Arc::clone(address)).collect()
    }

    /// The machines of the service that this one is of.
    fn machines_of(&self, address: &str) -> Vec<Arc<str>> {
        let declared = crate::setting::declared(&self.config);
        let Some((service, ..)) = declared.iter().find(|(_, _, one)| **one == *address) else { return Vec::new() };
        let same = declared.iter().filter(|(other, ..)| other == service);
        same.map(|(_, _, address)| Arc::clone(address)).collect()
    }

    fn page(&mut self, address: Arc<str>, page: Page, time: Duration) {
        if self.world.machines[&address].page != Page::Honest {
            return;
        }
        self.world.set_page(&address, page, self.now);
        let end = self.now + time;
        self.at(end, Due::Undo(Undo::Page(address)));
    }

    pub(crate) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Link(site) => {
                self.busy.remove(site);
                self.world.set_link(site, Link::Good, self.now);
                // A cut too short for a verdict looks like loss.
                self.world.places.get_mut(site).unwrap().lossy_until = self.now;
            }
            Undo::Process(address) => {
                self.busy.remove(&address);
                self.world.set_process(&address, Process::Serving, self.now);
            }
            Undo::Page(address) => self.world.set_page(&address, Page::Honest, self.now),
            Undo::Flap(site, left) => {
                let up = left % 2 == 1;
                if left == 20 && !self.busy.insert(site.into()) {
                    return;
                }
                self.world.set_link(site, if up { Link::Good } else { Link::Cut }, self.now);
                let next = self.now + self.setting.contract;
                self.at(next, Due::Undo(if left == 0 { Undo::Link(site) } else { Undo::Flap(site, left - 1) }));
            }
            Undo::Word(target) => self.order(target, Admin::Enabled),
            Undo::Names => (self.world.nameless, self.world.named_since) = (false, self.now),
            Undo::Agent(address) => self.say(&address, Says::Ready),
            Undo::Starve(left) => {
                let contract = self.setting.contract;
                self.stall(contract / 200, contract / 5);
                let next = self.stalled + self.dice.between(contract / 1000, contract / 50);
                if left > 0 {
                    self.at(next, Due::Undo(Undo::Starve(left - 1)));
                }
            }
        }
    }

    /// Name servers are silent.
    fn names(&mut self, time: Duration) {
        if !std::mem::replace(&mut self.world.nameless, true) {
            let end = self.now + time;
            self.at(end, Due::Undo(Undo::Names));
        }
    }

    /// An agent has something to say.
    fn agent(&mut self, address: Arc<str>, time: Duration) {
        if self.world.machines[&address].says == Says::Ready {
            let says = *self.dice.one(&Says::CHANGES);
            self.say(&address, says);
            let end = self.now + time;
            self.at(end, Due::Undo(Undo::Agent(address)));
        }
    }

    fn say(&mut self, address: &str, says: Says) {
        let machine = self.world.machines.get_mut(address).unwrap();
        (machine.says, machine.said) = (says, self.now);
    }

    fn word(&mut self, site: &'static str, address: &Arc<str>, time: Duration) {
        let word = *self.dice.one(&[Admin::Draining, Admin::Disabled]);
        let target = if self.dice.chance(0.3) {
            Target::Site(site.into())
        } else {
            let declared = crate::setting::declared(&self.config);
            let Some((service, site, address)) = declared.into_iter().find(|(_, _, one)| one == address) else {
                return;
            };
            Target::Backend(BackendId { service, site, address })
        };
        self.order(target.clone(), word);
        let end = self.now + time;
        self.at(end, Due::Undo(Undo::Word(target)));
    }

    fn order(&mut self, target: Target, word: Admin) {
        if self.fleet.is_none() {
            return;
        }
        self.oracle.ordered(&target, word, self.now);
        self.tell(Event::Admin(Command { target, word, reason: None }));
    }

    /// A new file: sometimes the same, sometimes one service edited, one backend more or less.
    fn reload(&mut self) {
        if self.fleet.is_none() {
            return;
        }
        let index = self.dice.below(self.setting.services.len());
        match self.dice.below(4) {
            0 => {}
            1 => self.setting.services[index].edition += 1,
            2 if self.setting.services[index].backends.len() < 7 => {
                let net = self.dice.below(SITES.len());
                let site = SITES[net];
                let host = self.setting.services[index].backends.len() + 1;
                let address = format!("10.{}.{}.{host}:80", index + 1, net + 10);
                self.setting.services[index].backends.push((site.to_owned(), address.clone(), 1));
                self.world.machines.entry(address.as_str().into()).or_insert_with(|| machine(site, &address));
            }
            _ => {
                if self.setting.services[index].backends.len() > 3 {
                    self.setting.services[index].backends.pop();
                }
            }
        }
        self.config = Arc::new(self.mistaken_config(self.setting.config()));
        let before = self.oracle.published.clone();
        self.oracle.configured(&self.config, self.now);
        self.mistaken_reload();
        self.tell(Event::Reload(Arc::clone(&self.config)));
        if let (Some(before), Some(after)) = (before, self.oracle.published.clone()) {
            self.compare(&before, &after);
        }
    }

    /// A reload is a difference: what is in both keeps its verdict, its counters and, when nothing differs, its pool.
    fn compare(&mut self, before: &Snapshot, after: &Snapshot) {
        for new in &after.pools {
            let Some(old) = before.pools.iter().find(|old| old.service.name == new.service.name) else { continue };
            let untouched = *old.service == *new.service;
            self.oracle.demand("an unchanged pool stays", !untouched || Arc::ptr_eq(old, new), || {
                new.service.name.to_string()
            });
            for member in &new.members {
                let Some(was) = old.members.iter().find(|was| was.backend.id == member.backend.id) else { continue };
                let kept = Arc::ptr_eq(&was.backend, &member.backend)
                    && (was.health == member.health || member.health == Health::Up);
                self.oracle.demand("a reload keeps health", kept, || {
                    format!("{}: {} then {}", member.backend.id, was.health, member.health)
                });
            }
        }
    }

    /// The process is killed and started again, at once or much later.
    fn restart(&mut self) {
        let away = if self.dice.chance(0.7) {
            self.dice.between(Duration::from_millis(50), Duration::from_secs(5))
        } else {
            self.dice.between(Duration::from_secs(30), Duration::from_secs(120))
        };
        self.restart_after(away);
    }

    fn restart_after(&mut self, away: Duration) {
        if self.fleet.is_none() {
            return;
        }
        self.fleet = None;
        self.reader = None;
        self.flights.clear();
        self.requests.clear();
        self.warm.clear();
        let back = self.now + away;
        self.at(back, Due::Boot);
    }
}

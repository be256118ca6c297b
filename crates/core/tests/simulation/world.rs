//! The world behind the edge: links and processes that can fail, and what is true about each machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use relais_core::{Instant, Tunnel};

use crate::beside::{Says, Whereabouts};
use crate::dice::Dice;

/// A site's link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Link {
    Good,
    /// Nothing passes, in either direction; nobody says so.
    Cut,
    /// The hub answers every connect with a reset.
    Refusing,
    /// A longer way.
    Slow(Duration),
    /// This share of packets is lost, in each direction.
    Lossy(f64),
}

/// A backend's process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Process {
    Serving,
    /// Not there: connects are refused, connections were reset.
    Dead,
    /// The host is gone: silence, from this backend alone.
    HostGone,
    /// Stopped or in a long pause: the kernel takes connections, nobody answers.
    Paused,
    /// Answers after this time.
    Slow(Duration),
    /// This share of requests ends in 503.
    Failing(f64),
}

/// What its health page says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Page {
    Honest,
    Good,
    Bad,
    /// Never in time, though the process serves.
    Late,
}

#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) rtt: Duration,
    pub(crate) link: Link,
    /// When the link last stopped passing packets.
    pub(crate) cut_at: Option<Instant>,
    /// When it last passed none.
    pub(crate) dark_until: Instant,
    /// When it last lost some.
    pub(crate) lossy_until: Instant,
    /// When anything about the link last changed.
    pub(crate) changed: Instant,
    /// The next packets are lost.
    pub(crate) drop_next: u32,
    /// When its tunnel last made a handshake.
    pub(crate) handshake: Instant,
    /// Its tunnel is read wrongly: it never made any.
    pub(crate) misread: bool,
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) site: Arc<str>,
    pub(crate) process: Process,
    pub(crate) page: Page,
    /// When anything about it last changed.
    pub(crate) changed: Instant,
    /// How often the process ended: what waited there was reset.
    pub(crate) lives: u32,
    /// When it last was silent by itself.
    pub(crate) gone_until: Instant,
    /// When it last answered badly.
    pub(crate) sick_until: Instant,
    /// What its agent says, and since when.
    pub(crate) says: Says,
    pub(crate) said: Instant,
    pub(crate) place: Whereabouts,
}

/// What happens to a packet and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trip {
    /// The answer of the other kernel comes after this time.
    There(Duration),
    Refused(Duration),
    Lost,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) places: BTreeMap<Arc<str>, Place>,
    pub(crate) machines: BTreeMap<Arc<str>, Machine>,
    /// Name servers do not answer; since when they do.
    pub(crate) nameless: bool,
    pub(crate) named_since: Instant,
}

impl World {
    /// One packet there and back, begun now.
    pub(crate) fn trip(&mut self, address: &str, to: Option<SocketAddr>, dice: &mut Dice, now: Instant) -> Trip {
        let machine = &self.machines[address];
        if to.is_some_and(|to| to != machine.place.at) {
            return Trip::Lost;
        }
        let place = self.places.get_mut(&machine.site).unwrap();
        let rtt = match place.link {
            Link::Cut => return Trip::Lost,
            Link::Refusing => return Trip::Refused(Duration::from_millis(1)),
            Link::Slow(extra) => place.rtt + extra,
            Link::Lossy(share) => {
                if dice.chance(share) || dice.chance(share) {
                    return Trip::Lost;
                }
                place.rtt
            }
            Link::Good => place.rtt,
        };
        if place.drop_next > 0 {
            place.drop_next -= 1;
            place.lossy_until = now;
            return Trip::Lost;
        }
        match machine.process {
            Process::HostGone => Trip::Lost,
            Process::Dead => Trip::Refused(rtt),
            _ => Trip::There(rtt),
        }
    }

    /// Whether what was sent at `since` may have come back by now: nothing was cut meanwhile.
    pub(crate) fn passed(&self, address: &str, since: Instant) -> bool {
        let machine = &self.machines[address];
        let place = &self.places[&machine.site];
        let dark = matches!(place.link, Link::Cut) || place.dark_until > since;
        let stayed = machine.place.moved <= since;
        !dark && stayed && machine.process != Process::HostGone && machine.gone_until <= since
    }

    /// Each site's tunnel as it is read now: in use it makes a handshake every 2 minutes, while anything passes.
    pub(crate) fn tunnels(&mut self, now: Instant) -> Vec<Tunnel> {
        let mut read = Vec::new();
        for (net, (site, place)) in self.places.iter_mut().enumerate() {
            if place.link != Link::Cut && now.since(place.handshake) >= Duration::from_secs(120) {
                place.handshake = now;
            }
            let machines = self.machines.iter().filter(|(_, machine)| machine.site == *site);
            let addresses = machines.map(|(_, machine)| machine.place.at);
            read.push(Tunnel {
                interface: format!("wg{net}").into(),
                networks: addresses.map(|address| address.ip().into()).collect(),
                handshake_age: (!place.misread).then(|| now.since(place.handshake)),
            });
        }
        read
    }

    pub(crate) fn set_link(&mut self, site: &str, link: Link, now: Instant) {
        let place = self.places.get_mut(site).unwrap();
        match place.link {
            Link::Cut => place.dark_until = now,
            Link::Lossy(_) => place.lossy_until = now,
            _ => {}
        }
        place.cut_at = (link == Link::Cut).then_some(now);
        place.link = link;
        place.changed = now;
    }

    pub(crate) fn drop_packet(&mut self, site: &str) {
        self.places.get_mut(site).unwrap().drop_next = 1;
    }

    pub(crate) fn set_process(&mut self, address: &str, process: Process, now: Instant) {
        let machine = self.machines.get_mut(address).unwrap();
        match machine.process {
            Process::HostGone => {
                machine.gone_until = now;
                // Silence that ends looks like loss.
                self.places.get_mut(&machine.site).unwrap().lossy_until = now;
            }
            Process::Failing(_) | Process::Slow(_) => machine.sick_until = now,
            _ if process == Process::Dead => machine.lives += 1,
            _ => {}
        }
        machine.process = process;
        machine.changed = now;
    }

    pub(crate) fn set_page(&mut self, address: &str, page: Page, now: Instant) {
        let machine = self.machines.get_mut(address).unwrap();
        machine.page = page;
        machine.changed = now;
    }

    /// Since when a machine and its link have been wholly good.
    pub(crate) fn clean_since(&self, address: &str) -> Option<Instant> {
        let machine = &self.machines[address];
        let place = &self.places[&machine.site];
        let good = place.link == Link::Good
            && place.drop_next == 0
            && machine.process == Process::Serving
            && machine.page == Page::Honest
            && !machine.is_lost();
        good.then(|| machine.changed.max(place.changed).max(place.lossy_until))
    }

    /// Whether a machine answers its checks, and may do so wrongly.
    pub(crate) fn answers_wrongly(&self, address: &str) -> bool {
        let machine = &self.machines[address];
        machine.page == Page::Bad || matches!(machine.process, Process::Failing(_))
    }

    /// Whether a machine answered badly at some moment since then.
    pub(crate) fn was_sick(&self, address: &str, since: Instant) -> bool {
        let machine = &self.machines[address];
        matches!(machine.process, Process::Failing(_) | Process::Slow(_)) || machine.sick_until >= since
    }

    /// Whether a machine answered requests rightly at some moment since then, whatever its page says.
    pub(crate) fn was_well(&self, address: &str, since: Instant) -> bool {
        let machine = &self.machines[address];
        let well = machine.process == Process::Serving && self.places[&machine.site].link == Link::Good;
        well || machine.changed >= since
    }

    /// Whether a machine answers most requests wrongly.
    pub(crate) fn fails_most(&self, address: &str) -> bool {
        matches!(self.machines[address].process, Process::Failing(share) if share > 0.5)
    }

    /// When a machine that answers well last answered badly.
    pub(crate) fn sick_until(&self, address: &str) -> Instant {
        self.machines[address].sick_until
    }

    /// Since when a machine is well and its page says that it is not.
    pub(crate) fn lies_since(&self, address: &str) -> Option<Instant> {
        let machine = &self.machines[address];
        let place = &self.places[&machine.site];
        let well = place.link == Link::Good && machine.process == Process::Serving && !machine.is_lost();
        let since = machine.changed.max(place.changed).max(place.lossy_until);
        (well && machine.page == Page::Bad).then_some(since)
    }

    /// Since when a machine answers badly, though its page says that it is well.
    pub(crate) fn sick_since(&self, address: &str) -> Option<Instant> {
        let machine = &self.machines[address];
        let sick = matches!(machine.process, Process::Failing(_) | Process::Slow(_)) && machine.page == Page::Good;
        sick.then_some(machine.changed)
    }

    /// Whether those machines at a site that count have all been silent at some moment since `since`.
    pub(crate) fn was_dark(&self, site: &str, since: Instant, counts: impl Fn(&str) -> bool) -> bool {
        let place = &self.places[site];
        if place.link == Link::Cut || place.dark_until >= since {
            return true;
        }
        let mut machines = self.machines.iter().filter(|(address, machine)| *machine.site == *site && counts(address));
        machines.all(|(_, machine)| {
            machine.process == Process::HostGone || machine.gone_until >= since || machine.is_lost()
        })
    }
}

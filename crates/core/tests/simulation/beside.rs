//! What stands beside backends: agents that say how much those can take, and names that lead to them. Both change, fall
//! silent and come back; what the fleet makes of them is held against what is true.

use std::net::SocketAddr;
use std::time::Duration;

use relais_core::{Admin, AgentOrder, Event, Fault, Instant, Member, ResolveOrder, Resolved};

use crate::engine::{Due, Run};
use crate::mistakes::Mistake;
use crate::oracle::Oracle;
use crate::world::{Link, Machine, Process, World};

/// Names are answered for so long, at least and at most.
const GOOD_FOR: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// The longest pause after look-ups that failed while an old answer is in use.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What an agent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says {
    Ready,
    Less,
    Drain,
    Maint,
    /// Its program is not there.
    Nothing,
}

impl Says {
    pub(crate) const CHANGES: [Says; 5] = [Says::Less, Says::Drain, Says::Drain, Says::Maint, Says::Nothing];

    fn line(self) -> Result<String, Fault> {
        match self {
            Says::Ready => Ok("up ready 100%\n".to_owned()),
            Says::Less => Ok("ready 30%\n".to_owned()),
            Says::Drain => Ok("drain\n".to_owned()),
            Says::Maint => Ok("maint # a backup runs\n".to_owned()),
            Says::Nothing => Err(Fault::Refused),
        }
    }

    fn word(self) -> Admin {
        match self {
            Says::Ready | Says::Less | Says::Nothing => Admin::Enabled,
            Says::Drain => Admin::Draining,
            Says::Maint => Admin::Disabled,
        }
    }
}

/// Where a machine is: its own address, or whatever its name leads to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whereabouts {
    pub(crate) at: SocketAddr,
    /// Its address is a name.
    pub(crate) named: bool,
    /// When the fleet was told of it; `None`: since it is there it was not.
    pub(crate) known: Option<Instant>,
    pub(crate) moved: Instant,
}

impl Machine {
    /// Whether those who use its name look for it in vain.
    pub(crate) fn is_lost(&self) -> bool {
        self.place.named && self.place.known.is_none()
    }
}

impl World {
    /// A named machine gets another address, and nobody says so.
    pub(crate) fn move_machine(&mut self, address: &str, now: Instant) {
        let machine = self.machines.get_mut(address).unwrap();
        if machine.place.named {
            let port = machine.place.at.port() % 60_000 + 1;
            machine.place =
                Whereabouts { at: (machine.place.at.ip(), port).into(), known: None, moved: now, ..machine.place };
        }
    }

    /// The fleet knows where a machine is.
    fn found(&mut self, address: &str, now: Instant) {
        let machine = self.machines.get_mut(address).unwrap();
        if machine.place.known.replace(now).is_none() {
            (machine.changed, machine.gone_until) = (now, now);
            // Silence that ends looks like loss.
            self.places.get_mut(&machine.site).unwrap().lossy_until = now;
        }
    }

    /// Nobody knows where anybody with a name is: a process has just begun.
    pub(crate) fn forget_names(&mut self) {
        for machine in self.machines.values_mut().filter(|machine| machine.place.named) {
            machine.place.known = None;
        }
    }
}

impl Run {
    /// A name is looked up: answered after a moment.
    pub(crate) fn look_up(&mut self, order: ResolveOrder) {
        let soon = self.now + self.dice.between(Duration::from_millis(1), Duration::from_millis(20));
        self.at(soon, Due::Named(order));
    }

    pub(crate) fn named(&mut self, order: &ResolveOrder) {
        if self.mistake == Some(Mistake::NamesAreNotAnswered) {
            return;
        }
        let key = format!("{}:{}", order.host, order.port);
        let Some(machine) = self.world.machines.get(key.as_str()) else { return };
        let good_for = self.dice.between(GOOD_FOR.0, GOOD_FOR.1);
        let mut at = machine.place.at;
        if self.mistake == Some(Mistake::OldAddressesAreAnswered) {
            at.set_port(80);
        }
        let result = if self.world.nameless {
            Err("timed out".to_owned())
        } else {
            self.world.found(&key, self.now);
            Ok(Resolved { addresses: vec![at], good_for })
        };
        let slot = if self.mistake == Some(Mistake::NamesOfTheNeighbour) { order.slot ^ 1 } else { order.slot };
        self.tell(Event::Resolved { slot, id: order.id, result });
    }

    /// An agent is asked: over the same link as its backend, on a port of its own.
    pub(crate) fn ask_agent(&mut self, order: AgentOrder) {
        let machine = &self.world.machines[&order.backend.id.address];
        let place = &self.world.places[&machine.site];
        let lost = matches!(place.link, Link::Cut) || machine.process == Process::HostGone || machine.is_lost();
        let takes = if lost { order.timeout } else { place.rtt * 2 };
        self.at(self.now + takes, Due::Said(order, lost));
    }

    pub(crate) fn agent_said(&mut self, order: &AgentOrder, lost: bool) {
        let says = self.world.machines[&order.backend.id.address].says;
        let mut line = if lost { Err(Fault::ConnectTimeout) } else { says.line() };
        let (mut slot, mut id) = (order.backend.slot, order.id);
        match self.mistake {
            Some(Mistake::AgentsAreNotHeard) => return,
            Some(Mistake::AgentOfTheNeighbour) => slot ^= 1,
            Some(Mistake::AgentAnswersAreStale) => id = id.saturating_sub(1),
            Some(Mistake::SilenceIsAWord) if line.is_err() => line = Ok("drain".to_owned()),
            _ => {}
        }
        self.tell(Event::Agent { slot, id, line });
    }
}

impl Oracle {
    /// Once per contract: what agents say holds, and no longer than they say it; names lead where they lead.
    pub(crate) fn beside(&mut self, member: &Member, now: Instant, world: &World) {
        let id = &member.backend.id;
        let machine = &world.machines[&id.address];
        let since = self.joined(id);
        if machine.place.named {
            let late = GOOD_FOR.1 + LONGEST_PAUSE + self.contract;
            let due = machine.place.moved.max(since).max(world.named_since) + late;
            let there = *member.addresses == [machine.place.at];
            self.demand("a name is followed", world.nameless || now < due || there, || {
                format!("{id} is at {}, not {:?}", machine.place.at, member.addresses)
            });
        }
        let Some(interval) = self.agents else { return };
        let word = self.word(id);
        // A word of the operator ends, and the agent's may follow.
        let reached = world.clean_since(&id.address).filter(|_| word != Admin::Disabled);
        let Some(reached) = reached else { return };
        let settled = reached.max(machine.said).max(since) + interval * 5 + self.contract <= now;
        let due = word.max(machine.says.word());
        self.demand("what an agent says holds, while it says so", !settled || member.admin == due, || {
            format!("{id} is {}, not {due}: {:?}", member.admin, machine.says)
        });
    }

    /// What is known of a name is kept while nothing better is known.
    pub(crate) fn kept(&mut self, before: &Member, after: &Member) {
        let lost = !before.addresses.is_empty() && after.addresses.is_empty();
        self.demand("the last good address is kept", !lost, || after.backend.id.to_string());
    }
}

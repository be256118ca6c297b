//! Pools from a line of text, for the tests of this crate.

use std::sync::Arc;

use relais_config::{Action, Address, BackendDecl, Balance, Forward, Service, Upstream, UpstreamProtocol};

use super::Order;
use crate::backend::{Backend, BackendId};
use crate::health::{Admin, Health};
use crate::snapshot::{Ask, Choice, Member, Pool, Shared};
use crate::testing;
use crate::time::Instant;
use crate::timers::Timers;

/// When the tests play.
pub(crate) const NOW: Instant = Instant(1_000_000_000_000);

/// A pool of service `api` from members separated by commas, each `TIER SITE ADDRESS` and then, in any order, `xWEIGHT`,
/// a word of health (default `up`) and a word of admin (default `enabled`). Slots count from 0.
///
/// `pool(Balance::Random, "1 dijon a x2, 1 dijon b down, 2 thory c draining")`
pub(crate) fn pool(balance: Balance, members: &str) -> Pool {
    let members: Vec<Member> = (0..).zip(members.split(',')).map(|(slot, words)| member(slot, words)).collect();
    let forward = forward(balance, &members);
    let timers = Timers::solve(&forward);
    let order = Order::new(&members, &forward.balance, None);
    Pool {
        service: service(forward),
        timers,
        members,
        still: false,
        stats: Arc::default(),
        shared: Arc::new(Shared::default()),
        order,
    }
}

/// A pool of `count` members `m0`, `m1` ... at one tier and site, all `Up`, the weight of each by its index.
pub(crate) fn large(balance: Balance, count: usize, weight: impl Fn(usize) -> u32) -> Pool {
    let words: Vec<String> = (0..count).map(|i| format!("1 dijon m{i} x{}", weight(i))).collect();
    pool(balance, &words.join(","))
}

impl Pool {
    /// The same pool after a change to its members.
    pub(crate) fn changed(mut self, change: impl FnOnce(&mut [Member])) -> Pool {
        let before = Pool {
            service: Arc::clone(&self.service),
            timers: self.timers.clone(),
            members: self.members.clone(),
            still: false,
            stats: Arc::clone(&self.stats),
            shared: Arc::clone(&self.shared),
            order: std::mem::take(&mut self.order),
        };
        change(&mut self.members);
        self.order = Order::new(&self.members, &self.forward().balance, Some(&before));
        self
    }

    /// The same pool after a change to its service.
    pub(crate) fn declared(mut self, change: impl FnOnce(&mut Forward)) -> Pool {
        let mut forward = self.forward().clone();
        change(&mut forward);
        self.order = Order::new(&self.members, &forward.balance, None);
        self.timers = Timers::solve(&forward);
        self.service = service(forward);
        self
    }

    pub(crate) fn forward(&self) -> &Forward {
        match &self.service.action {
            Action::Forward(forward) => forward,
            other => panic!("the fixture forwards, this is {other:?}"),
        }
    }

    /// The member at this address.
    pub(crate) fn named(&self, address: &str) -> &Member {
        self.members.iter().find(|member| *member.backend.id.address == *address).unwrap()
    }

    /// What `pick` says, in a word: the address, `wait` or `nobody`.
    pub(crate) fn says(&self, ask: &Ask<'_>) -> &str {
        match self.pick(ask) {
            Choice::Take(member) => &member.backend.id.address,
            Choice::Wait => "wait",
            Choice::Nobody => "nobody",
        }
    }
}

/// An ask with nothing special.
pub(crate) fn ask(roll: u64) -> Ask<'static> {
    Ask { tried: &[], roll, now: NOW, key: None, sticky: None, avoid_site: None, stream: false }
}

fn member(slot: u32, words: &str) -> Member {
    let words: Vec<&str> = words.split_whitespace().collect();
    let [tier, site, address, rest @ ..] = words.as_slice() else { panic!("TIER SITE ADDRESS in {words:?}") };
    let id = BackendId { service: "api".into(), site: (*site).into(), address: (*address).into() };
    let upstream = Arc::new(Upstream { protocol: UpstreamProtocol::H1, tls: None });
    let backend = Arc::new(Backend::new(id, slot, Address::Name((*address).into(), 80), upstream));
    let mut member = Member {
        backend,
        tier: tier.parse().unwrap(),
        addresses: Arc::default(),
        weight: 1,
        percent: 100,
        cap: None,
        health: Health::Up,
        admin: Admin::Enabled,
        ramp_from: None,
        dead: false,
        away: std::time::Duration::ZERO,
        drill: None,
        mute: false,
        hung: false,
        stalled: false,
        trial: None,
    };
    for word in rest {
        match *word {
            "probing" => member.health = Health::Probing,
            "up" => member.health = Health::Up,
            "suspect" => member.health = Health::Suspect,
            "down" => member.health = Health::Down,
            "enabled" => member.admin = Admin::Enabled,
            "draining" => member.admin = Admin::Draining,
            "disabled" => member.admin = Admin::Disabled,
            weight => member.weight = weight.strip_prefix('x').and_then(|w| w.parse().ok()).unwrap(),
        }
    }
    member
}

fn service(forward: Forward) -> Arc<Service> {
    Arc::new(testing::service("api", Vec::new(), |empty| *empty = forward))
}

fn forward(balance: Balance, members: &[Member]) -> Forward {
    let declared = |member: &Member| BackendDecl {
        site: Arc::clone(&member.backend.id.site),
        address: member.backend.address.clone(),
        weight: member.weight,
        tier: member.tier,
        upstream: Arc::clone(&member.backend.upstream),
    };
    Forward { backends: members.iter().map(declared).collect(), balance, ..testing::forward() }
}

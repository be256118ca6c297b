//! Choosing a backend: one pure function from a pool, an `Ask` and the counters workers keep, to a `Choice`.
//!
//! It decides nothing about health and remembers nothing but the round robin cursor; it takes no lock and, however
//! large the pool, allocates nothing.
//!
//! # Who may be picked
//! In this order, and within each first those at another site than `Ask::avoid_site`:
//! 1. the member of a valid sticky cookie, at whatever tier, if it is usable;
//! 2. members that are `Up`;
//! 3. members that are `Suspect`, lower tier first;
//! 4. nobody yet (`Wait`), if a usable member is only full, or one is still `Probing`;
//! 5. with `fail_open` and no usable member at all: members that are `Down`, by weight;
//! 6. members that are `Down` and on trial, one request at a time;
//! 7. nobody.
//!
//! A second attempt prefers, among those that are `Up`, who answered the last request rightly.
//!
//! Members that are `Draining` or `Disabled`, already tried, or at `max_inflight` are never picked. The cap is not a
//! lock: workers that pick in the same instant may exceed it by their number.
//!
//! # Tiers
//! A tier keeps all of its traffic while at least 71 % of its weight is good, and 1.4 times its good share below that;
//! the rest spills to the next tier, and so on. What no tier can keep is shared out in proportion. A member that
//! ramps counts with the part it has grown to, so a tier that comes back as a whole takes its traffic back slowly.
//!
//! # Policies, inside a tier
//! - **Least in-flight** (default): two members are drawn by weight; the first is taken unless it is busier for its
//!   weight and would stay so. Load evens out without looking at everybody, and an idle pool is shared by weight.
//! - **Round robin**: members take turns in a fixed order that interleaves them and holds each exactly as often as its
//!   weight. All workers share one cursor; a second attempt looks at the next turn without using it up.
//! - **Least latency**: of two members drawn by weight, the second is taken when its expected time (peak EWMA of latency
//!   times the queue) is an eighth better. One request in 32 goes by weight alone, so nobody is ever forgotten.
//! - **Random**: by weight. Nothing is compared, so nothing can be gamed by a backend that fails fast.
//! - **Hash**: rendezvous hashing by weight, so that only the keys of a member that leaves move. A member with more than
//!   1.25 times its fair share in flight passes the key to its next choice; a request without a key goes least in-flight.
//!   In a tier of more than 32 members a tree leads each key to its member instead, at the cost of the tree's depth.
//!
//! Streams (tunnels, event streams) stay for hours and do little at a time, so what is in flight is compared kind by kind:
//! a request goes by the requests that are there, a stream by the streams. Neither hides the other. A cap counts both.
//!
//! A ramp (slow start) lets a member's weight grow from a tenth to whole; every policy and the tiers go by that weight.

mod dice;
mod latency;
mod order;
mod policy;
mod rendezvous;
mod schedule;
mod tree;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

use relais_config::{Action, Balance, Forward};

use crate::health::{Admin, Health};
use crate::snapshot::{Ask, Choice, Member, Pool};
use crate::time::Instant;
use dice::Dice;
pub use latency::observe_latency;
pub use order::Order;
use order::{Group, grown};

impl Pool {
    /// Chooses a backend for one attempt. See [`crate::balancer`] for the rules.
    #[must_use]
    pub fn pick(&self, ask: &Ask<'_>) -> Choice<'_> {
        match &self.service.action {
            Action::Forward(forward) => Picker::new(self, forward, ask).pick(),
            Action::Redirect(_) | Action::Respond(_) => Choice::Nobody,
        }
    }

    /// What part of new requests each tier takes now, of those that take any: tier and percent, lower tier first. Empty when
    /// nobody is `Up`.
    pub(crate) fn shares(&self, now: Instant) -> Vec<(u32, u32)> {
        let weight = |member: &Member| f64::from(member.share()) * grown(member, now, self.timers.ramp);
        let kept = |group: &Group| {
            let members = group.members.iter().filter_map(|&index| self.members.get(index as usize));
            Some((members.clone().next()?.tier, group.keeps(members.map(weight).sum())))
        };
        let kept: Vec<(u32, f64)> = self.order.up.iter().filter_map(kept).collect();
        let whole = kept.iter().map(|(_, part)| part).sum::<f64>().min(1.0);
        let mut left = whole;
        let percents = kept.into_iter().map(|(tier, part)| {
            let part = part.min(left);
            left -= part;
            (tier, (part / whole * 100.0).round() as u32)
        });
        percents.filter(|(_, percent)| *percent > 0).collect()
    }
}

/// One pick in progress.
struct Picker<'a, 'k> {
    pool: &'a Pool,
    forward: &'a Forward,
    ask: &'k Ask<'k>,
    dice: Dice,
    /// Who failed the last request is not to be taken.
    careful: bool,
}

impl<'a, 'k> Picker<'a, 'k> {
    fn new(pool: &'a Pool, forward: &'a Forward, ask: &'k Ask<'k>) -> Self {
        Self { pool, forward, ask, dice: Dice::new(ask.roll), careful: false }
    }

    fn pick(mut self) -> Choice<'a> {
        let order = &self.pool.order;
        if let Some(member) = self.stuck() {
            return Choice::Take(member);
        }
        let start = self.tier(&order.up);
        let well = if self.ask.tried.is_empty() { None } else { self.well(&order.up, start) };
        match well.or_else(|| self.among(&order.up, start)).or_else(|| self.among(&order.suspect, 0)) {
            Some(member) => Choice::Take(member),
            None => self.without_usable(),
        }
    }

    /// The member the client's sticky cookie names.
    fn stuck(&self) -> Option<&'a Member> {
        let pool = self.pool;
        let mut named = pool.order.with_hash(self.ask.sticky?).filter_map(|index| pool.members.get(index as usize));
        named.find(|member| member.usable() && self.admits(member, None))
    }

    /// Index of the tier's group this request falls to.
    fn tier(&mut self, groups: &[Group]) -> usize {
        if groups.len() < 2 {
            return 0;
        }
        let sum: f64 = groups.iter().map(|group| self.keeps(group)).sum();
        let point = match self.key() {
            // A key stays with its tier, whatever the roll.
            Some(key) => rendezvous::point(key),
            None => self.dice.fraction(),
        };
        let mut left = point * sum.min(1.0);
        let falls_to = |group: &Group| {
            left -= self.keeps(group);
            left < 0.0
        };
        groups.iter().position(falls_to).unwrap_or(groups.len() - 1)
    }

    /// The share of new requests a tier keeps now.
    fn keeps(&self, group: &Group) -> f64 {
        if group.ramping {
            group.keeps(group.members.iter().filter_map(|&index| self.member(index)).map(|m| self.weight(m)).sum())
        } else {
            group.keeps(group.weight() as f64)
        }
    }

    /// One member of the groups: of `groups[start]` if any there is admitted, else of the others, lower tier first.
    /// Every one is asked for another site before any is asked for whatever it has.
    fn among(&mut self, groups: &'a [Group], start: usize) -> Option<&'a Member> {
        let others = groups.iter().enumerate().filter(move |(index, _)| *index != start).map(|(_, group)| group);
        let in_order = groups.get(start).into_iter().chain(others);
        let elsewhere = match self.ask.avoid_site {
            Some(site) => in_order.clone().find_map(|group| self.choose(group, Some(site))),
            None => None,
        };
        // Who has just failed is better than the site to avoid.
        let anywhere = self.ask.avoid_site.is_none() || !self.careful;
        elsewhere.or_else(|| in_order.clone().find_map(|group| self.choose(group, None)).filter(|_| anywhere))
    }

    /// The same, of those that answered their last request rightly: where one has just failed others may fail alike, and a
    /// request has few attempts.
    fn well(&mut self, groups: &'a [Group], start: usize) -> Option<&'a Member> {
        self.careful = true;
        let member = self.among(groups, start);
        self.careful = false;
        member
    }

    /// No usable member can be taken: says whether waiting may help.
    fn without_usable(&mut self) -> Choice<'a> {
        let members = &self.pool.members;
        let untried = |member: &Member| !self.ask.tried.contains(&member.backend.slot);
        let due = |member: &Member| member.admin == Admin::Enabled && member.health == Health::Probing;
        if members.iter().any(|member| untried(member) && (member.usable() || due(member))) {
            return Choice::Wait;
        }
        if members.iter().any(Member::usable) {
            return Choice::Nobody;
        }
        let order = &self.pool.order;
        let down = if self.forward.fail_open { &order.down } else { &order.trial };
        let elsewhere = self.ask.avoid_site.and_then(|site| self.by_weight(down, Some(site)));
        match elsewhere.or_else(|| self.by_weight(down, None)) {
            Some(member) => Choice::Take(member),
            None if down.members.iter().filter_map(|&index| self.member(index)).any(untried) => Choice::Wait,
            None => Choice::Nobody,
        }
    }

    /// Whether this attempt may go to the member, its health aside.
    fn admits(&self, member: &Member, avoid: Option<&str>) -> bool {
        let tried = self.ask.tried;
        (tried.is_empty() || !(tried.contains(&member.backend.slot) || self.careful && member.backend.fails()))
            && self.forward.max_inflight.is_none_or(|cap| member.backend.inflight() < cap)
            && member.cap.is_none_or(|cap| member.backend.inflight() < cap)
            && member.trial.is_none_or(|trial| member.backend.inflight() < trial.cap)
            && avoid.is_none_or(|site| *member.backend.id.site != *site)
    }

    fn member(&self, index: u32) -> Option<&'a Member> {
        self.pool.members.get(index as usize)
    }

    /// A member's weight now, its ramp considered.
    fn weight(&self, member: &Member) -> f64 {
        f64::from(member.share()) * self.grown(member)
    }

    /// What is in flight at a member, of the kind that is asked for.
    fn busy(&self, member: &Member) -> f64 {
        f64::from(member.backend.busy(self.ask.stream))
    }

    fn grown(&self, member: &Member) -> f64 {
        grown(member, self.ask.now, self.pool.timers.ramp)
    }

    /// The key to hash, when the pool hashes and the request has one.
    fn key(&self) -> Option<u64> {
        match self.forward.balance {
            Balance::Hash(_) => self.ask.key,
            _ => None,
        }
    }
}

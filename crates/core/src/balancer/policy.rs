//! The policies: each chooses one member of one group, or nobody when the group has none for this attempt.
//!
//! Every policy first draws a few times, which is enough when most members will do; when draws keep hitting members
//! that are tried, full or at the site to avoid, one walk over the group settles it.

use std::sync::atomic::Ordering::Relaxed;

use relais_config::Balance;

use super::order::Group;
use super::tree::{self, Tree};
use super::{Picker, latency, rendezvous};
use crate::snapshot::Member;

/// Draws before the walk.
const DRAWS: usize = 4;

/// Draws of a key before its group is looked at as a whole.
const LEADS: u64 = 32;

/// Turns looked at before the walk.
const TURNS: usize = 16;

/// One request in so many is placed by weight alone under least latency: each backend keeps 3 % of its fair share.
const EXPLORE: u64 = 32;

/// How much better the second of two must be expected to be: smaller differences are noise.
const BETTER: f64 = 7.0 / 8.0;

impl<'a> Picker<'a, '_> {
    /// One member of the group by the pool's policy.
    pub(super) fn choose(&mut self, group: &'a Group, avoid: Option<&str>) -> Option<&'a Member> {
        match self.forward.balance {
            Balance::RoundRobin => self.in_turn(group, avoid),
            Balance::Random => self.by_weight(group, avoid),
            Balance::LeastLatency => self.soonest(group, avoid),
            Balance::Hash(_) => match self.ask.key {
                Some(key) => self.by_key(group, avoid, key),
                None => self.least_busy(group, avoid),
            },
            Balance::LeastInflight => self.least_busy(group, avoid),
        }
    }

    /// One member at random, by weight.
    pub(super) fn by_weight(&mut self, group: &'a Group, avoid: Option<&str>) -> Option<&'a Member> {
        self.draw(group, avoid, None).map(|(_, member)| member)
    }

    fn in_turn(&mut self, group: &'a Group, avoid: Option<&str>) -> Option<&'a Member> {
        let cursor = &self.pool.shared.cursor;
        // A second attempt must not use up a turn: with two members, one of them dead, every first attempt would
        // land on the dead one.
        let now = if self.ask.tried.is_empty() { cursor.fetch_add(1, Relaxed) } else { cursor.load(Relaxed) };
        let turns = &group.turns;
        let start = usize::try_from(now % turns.len().max(1) as u64).unwrap_or(0);
        for &place in turns[start..].iter().chain(&turns[..start]).take(TURNS) {
            let member = self.at(group, place as usize)?;
            if self.admits(member, avoid) && self.ripe(member) {
                return Some(member);
            }
        }
        self.by_weight(group, avoid)
    }

    fn least_busy(&mut self, group: &'a Group, avoid: Option<&str>) -> Option<&'a Member> {
        let (place, first) = self.draw(group, avoid, None)?;
        let Some((_, second)) = self.draw(group, avoid, Some(place)) else { return Some(first) };
        let busy = |member: &Member| self.busy(member);
        let (first_weight, second_weight) = (self.weight(first), self.weight(second));
        let (first_load, second_load) = (busy(first), busy(second));
        let busier = first_load * second_weight > second_load * first_weight;
        // Without this a heavy member with one request would push the next to a light idle one.
        let stays_so = (first_load + 1.0) * second_weight > (second_load + 1.0) * first_weight;
        Some(if busier && stays_so { second } else { first })
    }

    fn soonest(&mut self, group: &'a Group, avoid: Option<&str>) -> Option<&'a Member> {
        let (place, first) = self.draw(group, avoid, None)?;
        if self.dice.below(EXPLORE) == 0 {
            return Some(first);
        }
        let Some((_, second)) = self.draw(group, avoid, Some(place)) else { return Some(first) };
        // A light or ramping member is compared less often: being quick may about double its share, not fill it up.
        let (first_weight, second_weight) = (self.weight(first), self.weight(second));
        if self.dice.fraction() * first_weight >= second_weight {
            return Some(first);
        }
        let heavier = first_weight.max(second_weight);
        let expected = |member: &Member| latency::expected(&member.backend, self.ask.now);
        // Unmeasured is no news: it counts as quick as the other.
        let (first_time, second_time) = expected(first).zip(expected(second)).unwrap_or((1.0, 1.0));
        let queue = |member: &Member, weight: f64| 1.0 + self.busy(member) * heavier / weight;
        let better = second_time * queue(second, second_weight) < BETTER * first_time * queue(first, first_weight);
        Some(if better { second } else { first })
    }

    fn by_key(&self, group: &'a Group, avoid: Option<&str>, key: u64) -> Option<&'a Member> {
        let led = group.tree.as_ref().and_then(|tree| self.along(tree, group, avoid, key));
        led.or_else(|| self.by_score(group, avoid, key))
    }

    /// The first of the key's draws that may be taken and is not overloaded.
    fn along(&self, tree: &Tree, group: &'a Group, avoid: Option<&str>, key: u64) -> Option<&'a Member> {
        for draw in 0..LEADS {
            let member = self.member(tree.member(key, draw))?;
            let ripe = member.ramp_from.is_none() || tree::toll(key, draw, member.backend.hash) < self.grown(member);
            if !group.holds(member) || !ripe || !self.admits(member, avoid) {
                continue;
            }
            // Whoever is idle is within every bound.
            if self.busy(member) == 0.0 || self.within_bound(group, member) {
                return Some(member);
            }
        }
        None
    }

    fn within_bound(&self, group: &Group, member: &Member) -> bool {
        let (inflight, weights) = self.load(group);
        self.busy(member) + 1.0 <= rendezvous::limit(inflight, self.weight(member), weights)
    }

    fn load(&self, group: &Group) -> (f64, f64) {
        group.load(&self.pool.members, self.ask.stream, self.ask.now, self.pool.timers.ramp)
    }

    fn by_score(&self, group: &'a Group, avoid: Option<&str>, key: u64) -> Option<&'a Member> {
        let all = || group.members.iter().filter_map(|&index| self.member(index));
        let (inflight, weights) = self.load(group);
        let alike = group.even && !group.ramping;
        let (mut first, mut bounded) = (None, None);
        for member in all().filter(|member| self.admits(member, avoid)) {
            let (weight, hash) = (self.weight(member), member.backend.hash);
            let score = if alike { rendezvous::drawn(key, hash) } else { rendezvous::score(key, hash, weight) };
            let better = |than: &Option<(f64, &Member)>| than.is_none_or(|(best, _)| score > best);
            if better(&first) {
                first = Some((score, member));
            }
            if better(&bounded) && self.busy(member) + 1.0 <= rendezvous::limit(inflight, weight, weights) {
                bounded = Some((score, member));
            }
        }
        bounded.or(first).map(|(_, member)| member)
    }

    /// One admitted member at random by weight, and its place; never the one at `except`.
    fn draw(&mut self, group: &'a Group, avoid: Option<&str>, except: Option<usize>) -> Option<(usize, &'a Member)> {
        // The weights of `except` are cut out of the line before the draw, so the rest keep their ratio.
        let (cut_from, cut_to) = except.map_or((u64::MAX, u64::MAX), |place| group.span(place));
        let weight = group.weight().checked_sub(cut_to - cut_from).filter(|weight| *weight > 0)?;
        for _ in 0..DRAWS {
            let at = self.dice.below(weight);
            let place = group.place_at(if at >= cut_from { at + (cut_to - cut_from) } else { at });
            let member = self.at(group, place)?;
            if self.admits(member, avoid) && self.ripe(member) {
                return Some((place, member));
            }
        }
        self.walk(group, avoid, except)
    }

    /// What `draw` would give after endless draws: the same shares, by looking at everybody.
    fn walk(&mut self, group: &'a Group, avoid: Option<&str>, except: Option<usize>) -> Option<(usize, &'a Member)> {
        let point = self.dice.fraction();
        let others = (0..group.members.len()).filter(|place| Some(*place) != except);
        let members = others.filter_map(|place| Some((place, self.at(group, place)?)));
        let admitted = members.filter(|(_, member)| self.admits(member, avoid));
        let sum: f64 = admitted.clone().map(|(_, member)| self.weight(member)).sum();
        let mut left = point * sum;
        let mut last = None;
        for (place, member) in admitted {
            left -= self.weight(member);
            last = Some((place, member));
            if left < 0.0 {
                break;
            }
        }
        last
    }

    fn at(&self, group: &Group, place: usize) -> Option<&'a Member> {
        group.members.get(place).and_then(|&index| self.member(index))
    }

    /// Lets a ramping member through as often as it has grown; the rest of its draws go to others.
    fn ripe(&mut self, member: &Member) -> bool {
        member.ramp_from.is_none() || self.dice.fraction() < self.grown(member)
    }
}

//! What `Pool::pick` needs, computed once per change of a pool: who belongs to which group, and how much of the traffic
//! each tier keeps. Knows health and admin; knows nothing of the single request.

use std::time::Duration;

use relais_config::Balance;

use super::schedule::smooth;
use crate::health::{Admin, Health};
use crate::snapshot::Member;
use crate::time::Instant;

/// A tier is planned with some air: it keeps all of its traffic until less than 1 / 1.4 (71 %) of its weight is good.
const OVERPROVISIONING: f64 = 1.4;

/// Share with which a ramp begins.
const RAMP_START: f64 = 0.1;

/// Groups of one pool's members, ready for picking.
#[derive(Debug, Default)]
pub struct Order {
    /// Enabled and `Up`, one group per tier, lower tier first.
    pub(super) up: Vec<Group>,
    /// Enabled and `Suspect`, one group per tier, lower tier first.
    pub(super) suspect: Vec<Group>,
    /// Enabled and `Down`, all tiers together: for `fail_open`.
    pub(super) down: Group,
    /// `Backend::hash` and index of every member, sorted: for sticky cookies.
    by_hash: Vec<(u64, u32)>,
}

impl Order {
    /// Computes what `pick` needs. `members` must be the very list that goes into the pool beside it.
    pub(crate) fn new(members: &[Member], balance: &Balance) -> Order {
        let scheduled = *balance == Balance::RoundRobin;
        let mut tiers: Vec<u32> = members.iter().map(|member| member.tier).collect();
        tiers.sort_unstable();
        tiers.dedup();
        let groups = |health: Health| {
            let group = |&tier: &u32| {
                Group::new(members, scheduled, |m| m.tier == tier && enabled(m) && m.health == health)
                    .planned_for(members, tier)
            };
            tiers.iter().map(group).filter(|group| !group.members.is_empty()).collect()
        };
        let mut by_hash: Vec<(u64, u32)> =
            (0_u32..).zip(members).map(|(index, member)| (member.backend.hash, index)).collect();
        by_hash.sort_unstable();
        Order {
            up: groups(Health::Up),
            suspect: groups(Health::Suspect),
            down: Group::new(members, false, |m| enabled(m) && m.health == Health::Down),
            by_hash,
        }
    }

    /// Indices of the members with this hash: one, unless two hashes collide.
    pub(super) fn with_hash(&self, hash: u64) -> impl Iterator<Item = u32> {
        let start = self.by_hash.partition_point(|(known, _)| *known < hash);
        self.by_hash[start..].iter().take_while(move |(known, _)| *known == hash).map(|(_, index)| *index)
    }
}

fn enabled(member: &Member) -> bool {
    member.admin == Admin::Enabled
}

/// Members that compete with one another. A place is an index into the group, not into the pool.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Index in the pool of each place.
    pub(super) members: Vec<u32>,
    /// Sum of the weights up to and with each place: draws by weight are a binary search.
    sums: Vec<u64>,
    /// Places in the order of their turns; empty unless the pool goes round robin.
    pub(super) turns: Vec<u32>,
    /// Whether any member has a ramp, so that shares depend on the time.
    pub(super) ramping: bool,
    /// Weight this tier was planned with: its enabled members that have a verdict. A member still `Probing` is not
    /// lost capacity, it has never been there.
    planned: u64,
}

impl Group {
    fn new(members: &[Member], scheduled: bool, belongs: impl Fn(&Member) -> bool) -> Self {
        let mut group = Group::default();
        let mut weights = Vec::new();
        let mut sum = 0;
        for (index, member) in (0_u32..).zip(members).filter(|(_, member)| belongs(member)) {
            let weight = member.share();
            sum += u64::from(weight);
            group.members.push(index);
            group.sums.push(sum);
            group.ramping |= member.ramp_from.is_some();
            weights.push(weight);
        }
        if scheduled {
            group.turns = smooth(&weights);
        }
        group
    }

    fn planned_for(mut self, members: &[Member], tier: u32) -> Self {
        let counts = |m: &&Member| m.tier == tier && enabled(m) && m.health != Health::Probing;
        self.planned = members.iter().filter(counts).map(|member| u64::from(member.share())).sum();
        self
    }

    /// The place that weight `at` falls on, counted from the first; `at` must be below [`Group::weight`].
    pub(super) fn place_at(&self, at: u64) -> usize {
        self.sums.partition_point(|sum| *sum <= at)
    }

    /// All weights together, ramps not considered.
    pub(super) fn weight(&self) -> u64 {
        self.sums.last().copied().unwrap_or(0)
    }

    /// Sum of the weights before a place, and with it.
    pub(super) fn span(&self, place: usize) -> (u64, u64) {
        let before = place.checked_sub(1).and_then(|before| self.sums.get(before));
        (before.copied().unwrap_or(0), self.sums.get(place).copied().unwrap_or(0))
    }

    /// The share of new requests the tier can keep, 0.0 to 1.0, when `good` of its planned weight is there.
    pub(super) fn keeps(&self, good: f64) -> f64 {
        (OVERPROVISIONING * good / self.planned.max(1) as f64).min(1.0)
    }
}

/// The part of its weight a member has grown to: 1.0 without a ramp, else from a tenth to whole over `ramp`.
pub(super) fn grown(member: &Member, now: Instant, ramp: Duration) -> f64 {
    match member.ramp_from {
        Some(from) if !ramp.is_zero() => {
            let part = now.since(from).as_secs_f64() / ramp.as_secs_f64();
            (RAMP_START + (1.0 - RAMP_START) * part).min(1.0)
        }
        _ => 1.0,
    }
}

//! What `Pool::pick` needs, computed once per change of a pool: who belongs to which group, and how much of the traffic
//! each tier keeps. Knows health and admin; knows nothing of the single request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use relais_config::Balance;

use super::schedule::smooth;
use super::tree::Tree;
use crate::health::{Admin, Health};
use crate::snapshot::{Member, Pool};
use crate::time::Instant;

/// A tier is planned with some air: it keeps all of its traffic until less than 1 / 1.4 (71 %) of its weight is good.
const OVERPROVISIONING: f64 = 1.4;

/// A large group is summed up at most once in this time for each [`SUM_UP_OF`] members.
const SUM_UP_EVERY: Duration = Duration::from_millis(1);
const SUM_UP_OF: usize = 256;

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
    /// Of those, who gets a request all the same.
    pub(super) trial: Group,
    /// `Backend::hash` and index of every member, sorted: for sticky cookies.
    by_hash: Arc<[(u64, u32)]>,
    /// Of large tiers, where the pool hashes.
    trees: Vec<Arc<Tree>>,
}

impl Order {
    /// Computes what `pick` needs. `members` must be the very list that goes into the pool beside it; `before`: the pool
    /// it replaces, of which what did not change is taken over.
    pub(crate) fn new(members: &[Member], balance: &Balance, before: Option<&Pool>) -> Order {
        let scheduled = *balance == Balance::RoundRobin;
        let mut tiers: Vec<u32> = members.iter().map(|member| member.tier).collect();
        tiers.sort_unstable();
        tiers.dedup();
        let same = before.filter(|before| same_places(&before.members, members)).map(|before| &before.order);
        let by_hash = same.map_or_else(|| by_hash(members), |before| Arc::clone(&before.by_hash));
        let trees = match (balance, same) {
            (Balance::Hash(_), Some(before)) if !before.trees.is_empty() => before.trees.clone(),
            (Balance::Hash(_), _) => {
                tiers.iter().filter_map(|&tier| Tree::of(tier, members, &by_hash)).map(Arc::new).collect()
            }
            _ => Vec::new(),
        };
        let groups = |health: Health| {
            let group = |&tier: &u32| {
                let tree = trees.iter().find(|tree| tree.tier == tier).map(Arc::clone);
                let group = Group::new(members, scheduled, |m| m.tier == tier && enabled(m) && m.health == health);
                Group { tree, health: Some(health), ..group.planned_for(members, tier) }
            };
            tiers.iter().map(group).filter(|group| !group.members.is_empty()).collect()
        };
        let down = Group::new(members, false, |m| enabled(m) && m.health == Health::Down);
        let trial = Group::new(members, false, |m| enabled(m) && m.trial.is_some());
        Order { trial, up: groups(Health::Up), suspect: groups(Health::Suspect), down, by_hash, trees }
    }

    /// Indices of the members with this hash: one, unless two hashes collide.
    pub(super) fn with_hash(&self, hash: u64) -> impl Iterator<Item = u32> {
        let start = self.by_hash.partition_point(|(known, _)| *known < hash);
        self.by_hash[start..].iter().take_while(move |(known, _)| *known == hash).map(|(_, index)| *index)
    }
}

fn by_hash(members: &[Member]) -> Arc<[(u64, u32)]> {
    let mut sorted: Vec<(u64, u32)> = (0..).zip(members).map(|(index, member)| (member.backend.hash, index)).collect();
    sorted.sort_unstable();
    sorted.into()
}

/// Whether the same backends stand at the same places with the same weights.
fn same_places(old: &[Member], new: &[Member]) -> bool {
    let same = |(old, new): (&Member, &Member)| {
        Arc::ptr_eq(&old.backend, &new.backend) && (old.tier, old.share()) == (new.tier, new.share())
    };
    old.len() == new.len() && old.iter().zip(new).all(same)
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
    /// Whether all have the same weight.
    pub(super) even: bool,
    /// Where keys lead to in a large tier: to its members of any health, of which those below may be taken here.
    pub(super) tree: Option<Arc<Tree>>,
    /// Of all its members.
    health: Option<Health>,
    /// What its members have in flight, of requests and of streams.
    loads: [Load; 2],
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
        group.even = weights.windows(2).all(|pair| pair[0] == pair[1]);
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

    /// Whether a member of the tier is one of this group.
    pub(super) fn holds(&self, member: &Member) -> bool {
        enabled(member) && Some(member.health) == self.health
    }

    /// What its members have in flight, of one kind, and the weight they have grown to. Large groups are not summed up
    /// for every request.
    pub(super) fn load(&self, members: &[Member], stream: bool, now: Instant, ramp: Duration) -> (f64, f64) {
        let sum = || {
            let all = || self.members.iter().filter_map(|&index| members.get(index as usize));
            let inflight: u64 = all().map(|member| u64::from(member.backend.busy(stream))).sum();
            let weight = |member: &Member| f64::from(member.share()) * grown(member, now, ramp);
            (inflight, if self.ramping { all().map(weight).sum() } else { self.weight() as f64 })
        };
        let (inflight, weights) = if self.tree.is_none() {
            sum()
        } else {
            let pause = SUM_UP_EVERY * u32::try_from(self.members.len() / SUM_UP_OF).unwrap_or(u32::MAX);
            self.loads[usize::from(stream)].read(now, pause, sum)
        };
        (inflight as f64, weights)
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

/// Sums that may be a moment old.
#[derive(Debug, Default)]
struct Load {
    inflight: AtomicU64,
    /// An f64's bits.
    weights: AtomicU64,
    /// When they were made, in microseconds of [`Instant`]; 0: never.
    at: AtomicU64,
}

impl Load {
    /// Two readers may sum up at once, and see the sums of one another.
    fn read(&self, now: Instant, pause: Duration, sum: impl FnOnce() -> (u64, f64)) -> (u64, f64) {
        let at = self.at.load(Relaxed);
        if at != 0 && now.since(Instant(at)) < pause {
            return (self.inflight.load(Relaxed), f64::from_bits(self.weights.load(Relaxed)));
        }
        let (inflight, weights) = sum();
        self.inflight.store(inflight, Relaxed);
        self.weights.store(weights.to_bits(), Relaxed);
        self.at.store(now.0, Relaxed);
        (inflight, weights)
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

//! The rules every run must keep, checked against what is true in the world. The first breach ends the run.

mod ejections;
mod returns;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use relais_core::config::Config;
use relais_core::{
    Admin, BackendId, BackendRecord, Effect, Fault, Health, Instant, Member, Pool, ProbeOrder, Record, RecordKey,
    Snapshot, Target, Timers, Transition,
};

use self::ejections::{STALE, too_few};
use self::returns::recent;
use crate::world::World;

/// What is known of one backend, from outside.
#[derive(Debug, Default)]
struct Known {
    /// Named by the config, or enabled, since.
    joined: Instant,
    downs: Vec<Instant>,
    /// First good probe since the last failed one.
    good_since: Option<Instant>,
    asked: Option<Instant>,
    /// Slot, id and deadline of each probe under way, and when it is given up.
    under_way: Vec<(u32, u64, Duration, Instant)>,
    /// Answers since it last came up or began to be sick.
    answers: u64,
    counted_from: Instant,
    up_since: Instant,
    /// When its last ejection began, and when it ends.
    ejected_at: Option<Instant>,
    ejected_until: Option<Instant>,
    ejections: u32,
    /// How long it is out for it, as far as that is not forgotten.
    held_until: Option<Instant>,
    /// It was left for another that did well.
    left_for_better: bool,
}

#[derive(Debug)]
pub(crate) struct Oracle {
    pub(crate) contract: Duration,
    /// So long nobody can be blamed for not knowing of a change: the less is asked the longer.
    lately: Duration,
    /// How often agents are asked.
    pub(crate) agents: Option<Duration>,
    timers: Timers,
    /// What the fleet has last published, whatever readers made of it.
    pub(crate) published: Option<Arc<Snapshot>>,
    known: BTreeMap<BackendId, Known>,
    site_downs: BTreeMap<Arc<str>, Vec<Instant>>,
    words: BTreeMap<Target, Admin>,
    /// What the store would hold if it lost nothing.
    records: BTreeMap<RecordKey, Record>,
    boot: Instant,
    breach: Option<String>,
    /// What was checked, so that a rule that never applies is seen.
    pub(crate) checked: BTreeMap<&'static str, u64>,
}

impl Oracle {
    pub(crate) fn new(contract: Duration, pause: Duration, agents: Option<Duration>) -> Self {
        Self {
            contract,
            lately: contract * 2 + pause * 30,
            agents,
            timers: Timers::derive(contract),
            published: None,
            known: BTreeMap::new(),
            site_downs: BTreeMap::new(),
            words: BTreeMap::new(),
            records: BTreeMap::new(),
            boot: Instant(0),
            breach: None,
            checked: BTreeMap::new(),
        }
    }

    pub(crate) fn breach(&self) -> Option<&str> {
        self.breach.as_deref()
    }

    /// Checks one rule.
    pub(crate) fn demand(&mut self, rule: &'static str, holds: bool, what: impl FnOnce() -> String) {
        *self.checked.entry(rule).or_default() += 1;
        if !holds && self.breach.is_none() {
            self.breach = Some(format!("{rule}: {}", what()));
        }
    }

    /// The edge starts (again).
    pub(crate) fn booted(&mut self, now: Instant) {
        self.boot = now;
        self.published = None;
        for known in self.known.values_mut() {
            (known.asked, known.good_since) = (None, None);
            known.under_way.clear();
        }
    }

    pub(crate) fn ordered(&mut self, target: &Target, word: Admin, now: Instant) {
        let before = self.words.insert(target.clone(), word);
        for (id, known) in &mut self.known {
            let meant = match target {
                Target::Site(site) => id.site == *site,
                Target::Backend(one) => id == one,
            };
            if meant && before != Some(word) {
                known.joined = now;
                known.under_way.clear();
            }
        }
    }

    /// A config is about to be applied.
    pub(crate) fn configured(&mut self, config: &Config, now: Instant) {
        let declared: Vec<BackendId> = crate::setting::declared(config)
            .into_iter()
            .map(|(service, site, address)| BackendId { service, site, address })
            .collect();
        self.known.retain(|id, _| declared.contains(id));
        let sites: Vec<&Arc<str>> = config.sites.iter().map(|site| &site.name).collect();
        self.words.retain(|target, _| match target {
            Target::Site(site) => sites.contains(&site),
            Target::Backend(id) => declared.contains(id),
        });
        for id in declared {
            self.known.entry(id).or_insert_with(|| Known { joined: now, ..Known::default() });
        }
    }

    pub(crate) fn joined(&self, id: &BackendId) -> Instant {
        self.known.get(id).map_or(self.boot, |known| known.joined.max(self.boot))
    }

    pub(crate) fn word(&self, id: &BackendId) -> Admin {
        let said = |target: &Target| self.words.get(target).copied().unwrap_or_default();
        said(&Target::Backend(id.clone())).max(said(&Target::Site(Arc::clone(&id.site))))
    }

    /// All effects of one call, as they arrived.
    pub(crate) fn effects(&mut self, batch: &[Effect], now: Instant, world: &World) {
        for (place, effect) in batch.iter().enumerate() {
            match effect {
                Effect::Publish(snapshot) => {
                    self.demand("publish comes first, once", place == 0, || format!("at place {place}"));
                    self.publish(snapshot, now, world);
                }
                Effect::Probe(order) => self.probe(order, now),
                Effect::Save(record) => {
                    if let Record::Backend(record) = record {
                        self.ejection(record, now, world);
                    }
                    self.records.insert(record.key(), record.clone());
                }
                Effect::Forget(key) => {
                    self.records.remove(key);
                }
                Effect::Note(note) => self.note(note, now, world),
                Effect::Resolve(_)
                | Effect::Agent(_)
                | Effect::Measure(_)
                | Effect::Order(_)
                | Effect::AskRenewalInfo(_) => {}
            }
        }
    }

    fn publish(&mut self, new: &Arc<Snapshot>, now: Instant, world: &World) {
        let old = self.published.replace(Arc::clone(new));
        let due = old.as_ref().map_or(1, |old| old.generation + 1);
        self.demand("generation grows by one", new.generation == due, || format!("{} for {due}", new.generation));
        for member in new.pools.iter().flat_map(|pool| &pool.members) {
            let expected = self.word(&member.backend.id);
            let obeyed = member.admin == expected || (self.agents.is_some() && member.admin > expected);
            self.demand("the operator is obeyed", obeyed, || {
                format!("{} is {}, not {expected}", member.backend.id, member.admin)
            });
        }
        let Some(old) = old else {
            self.remembered(new, now);
            return;
        };
        let same_pools = old.pools.len() == new.pools.len()
            && old.pools.iter().zip(&new.pools).all(|(old, new)| Arc::ptr_eq(old, new));
        let news = !same_pools || !Arc::ptr_eq(&old.config, &new.config);
        self.demand("a publish says something new", news, || format!("generation {}", new.generation));
        for (before, after) in both(&old, new) {
            self.kept(before, after);
            if let (true, Some(known)) = (before.admin != after.admin, self.known.get_mut(&after.backend.id)) {
                known.joined = now;
                known.under_way.clear();
            }
        }
        for (before, after) in transitions(&old, new) {
            self.transition(before, after, (&old, new), now, world);
        }
    }

    fn transition(
        &mut self,
        before: &Member,
        after: &Member,
        (old, new): (&Snapshot, &Snapshot),
        now: Instant,
        world: &World,
    ) {
        let id = &after.backend.id;
        if after.health == Health::Down {
            // Answers tell of the past: where few are given, for some time.
            let late = if world.was_sick(&id.address, now - STALE) { STALE } else { self.contract };
            let clean = world.clean_since(&id.address).is_some_and(|since| since + late <= now);
            let joined = self.joined(id) + self.contract <= now;
            self.demand("nobody good goes down", !(clean && joined), || format!("{id} at {}", now.0));
            if before.health != Health::Probing {
                self.known.entry(id.clone()).or_default().downs.push(now);
            }
        }
        if before.health == Health::Down && after.health == Health::Up {
            let usable = |snapshot: &Snapshot, slot| member(snapshot, slot).is_some_and(Member::usable);
            let pool = new.pools.iter().find(|pool| pool.service.name == id.service);
            let others = pool.into_iter().flat_map(|pool| &pool.members).map(|member| member.backend.slot);
            let alone =
                !others.filter(|slot| *slot != after.backend.slot).any(|slot| usable(old, slot) && usable(new, slot));
            let Some(known) = self.known.get_mut(id) else { return };
            (known.answers, known.counted_from, known.up_since) = (0, now, now);
            let over = known.held_until.is_none_or(|until| until <= now);
            if known.held_until.take().is_some() {
                known.ejected_until = known.ejected_until.map(|until| until.min(now));
            }
            let few = pool.is_some_and(|pool| too_few(&pool.members, Some(after.backend.slot)));
            self.demand("an ejection lasts", over || alone || few, || format!("{id} at {}", now.0));
            let Some(known) = self.known.get(id) else { return };
            let hold = self.hold(recent(&known.downs, now));
            let good = known.good_since.map_or(Duration::ZERO, |since| now.since(since));
            // Where too few are left the ejected come back, also those that were still held for their flaps.
            let ejected = known.ejected_at.is_some() && known.ejected_at == known.downs.last().copied();
            // Nor is a check believed that fails for nothing elsewhere.
            let lies = world.answers_wrongly(&id.address);
            self.demand("a flapping backend is held down", alone || (few && ejected) || lies || good >= hold, || {
                format!("{id} back after {good:?} of {hold:?}")
            });
        }
    }

    /// The first snapshot of a process, against what the store held.
    fn remembered(&mut self, new: &Snapshot, now: Instant) {
        for (pool, member) in new.pools.iter().flat_map(|pool| pool.members.iter().map(move |member| (pool, member))) {
            let Some(known) = self.known.get_mut(&member.backend.id) else { continue };
            let expected = match self.records.get(&RecordKey::Backend(member.backend.id.clone())) {
                Some(Record::Backend(BackendRecord { health, verified, .. }))
                    if *verified <= now && now.since(*verified) < Duration::from_secs(60) =>
                {
                    if *health == Health::Suspect { Health::Up } else { *health }
                }
                _ => Health::Probing,
            };
            // Who was ejected serves while nothing is known of too many others.
            let ejected = expected == Health::Down && known.held_until.is_some_and(|until| until > now);
            let well = known.left_for_better && pool.members.iter().any(Member::usable);
            let needed = ejected && !well && too_few(&pool.members, Some(member.backend.slot));
            if member.health != Health::Down {
                known.held_until = None;
            }
            let kept = member.health == expected || (needed && member.health == Health::Up);
            self.demand("memory is kept while young", kept, || {
                format!("{} is {}, not {expected}", member.backend.id, member.health)
            });
        }
    }

    fn probe(&mut self, order: &ProbeOrder, now: Instant) {
        let id = &order.backend.id;
        let disabled = self.word(id) == Admin::Disabled;
        self.demand("the disabled are not probed", !disabled, || id.to_string());
        let Some(known) = self.known.get_mut(id) else { return };
        known.under_way.retain(|(slot, _, _, until)| *slot == order.backend.slot && now < *until);
        let shorter = known.under_way.iter().all(|(_, _, timeout, _)| order.timeout < *timeout);
        // Or the last answer was a wrong one, or none.
        let few = known.under_way.len() < 2 && (shorter || known.good_since.is_none());
        let given_up = now + order.timeout + Duration::from_secs(2);
        known.under_way.push((order.backend.slot, order.id, order.timeout, given_up));
        let first = known.asked.replace(now).is_none();
        self.demand("one probe at a time, and beside it a shorter one or one in doubt", few, || id.to_string());
        // A name must be known first.
        if first && matches!(order.backend.address, relais_core::config::Address::Socket(_)) {
            let start = self.joined(id);
            let late = now.since(start);
            self.demand("probed within 100 ms", late <= Duration::from_millis(100), || format!("{id} after {late:?}"));
        }
    }

    /// What a probe really met.
    pub(crate) fn probed(&mut self, id: &BackendId, probe: u64, result: Result<(), Fault>, now: Instant) {
        let Some(known) = self.known.get_mut(id) else { return };
        let Some(place) = known.under_way.iter().position(|(_, id, ..)| *id == probe) else { return };
        known.under_way.remove(place);
        known.good_since = match result {
            Ok(()) => known.good_since.or(Some(now)),
            Err(_) => None,
        };
    }

    fn note(&mut self, note: &Transition, now: Instant, world: &World) {
        if let Transition::Site { site, to: Health::Down, .. } = note {
            let members = self.published.iter().flat_map(|snapshot| &snapshot.pools).flat_map(|pool| &pool.members);
            let muzzled: Vec<&BackendId> =
                members.filter(|member| member.admin == Admin::Disabled).map(|member| &member.backend.id).collect();
            let asked: Vec<&str> =
                self.known.keys().filter(|id| !muzzled.contains(id)).map(|id| &*id.address).collect();
            let dark = world.was_dark(site, now - self.contract, |address| asked.contains(&address));
            self.demand("only silence takes a site down", dark, || format!("{site} at {}", now.0));
            self.site_downs.entry(Arc::clone(site)).or_default().push(now);
        }
    }

    /// A worker chose a backend.
    pub(crate) fn picked(&mut self, slot: u32) {
        let Some(published) = &self.published else { return };
        let allowed = member(published, slot).is_some_and(|member| member.usable() || member.trial.is_some());
        self.demand("no request goes to who is down or drained", allowed, || format!("slot {slot}"));
    }

    /// A site has been cut silently for the whole contract.
    pub(crate) fn cut_for_a_contract(&mut self, site: &str, reader: &Snapshot, cut_at: Instant) {
        let members: Vec<(BackendId, Health, Admin)> = reader
            .pools
            .iter()
            .flat_map(|pool| &pool.members)
            .filter(|member| *member.backend.id.site == *site)
            .map(|member| (member.backend.id.clone(), member.health, member.admin))
            .collect();
        for (id, health, admin) in members {
            let settled = self.joined(&id) + self.contract * 3 <= cut_at;
            if settled && admin != Admin::Disabled {
                self.demand("a silent cut is seen within the contract", health == Health::Down, || {
                    format!("{id} is {health} one contract after {}", cut_at.0)
                });
            }
        }
    }

    /// Once per contract: everything that must be so after some time.
    pub(crate) fn tick(&mut self, now: Instant, world: &World) {
        let Some(published) = self.published.clone() else { return };
        for pool in &published.pools {
            self.left(pool, now, world);
            self.outdone(pool, now, world);
            let mut serving = false;
            self.in_spite_of_checks(pool, now, world);
            for member in &pool.members {
                let id = &member.backend.id;
                let clean = world.clean_since(&id.address).map(|since| since.max(self.joined(id)));
                if let (Some(since), Admin::Enabled) = (clean, member.admin) {
                    serving |= since + self.contract * 3 / 2 + Duration::from_millis(100) <= now;
                    let bound = self.return_bound(id, since);
                    let back = member.health == Health::Up || since + bound > now;
                    self.demand("everything good comes back", back, || {
                        format!("{id} is {} after {:?}, bound {bound:?}", member.health, now.since(since))
                    });
                }
                self.asked_lately(member, now);
                self.beside(member, now, world);
            }
            let usable = pool.members.iter().any(Member::usable);
            self.demand("a service with a good backend serves", usable || !serving, || pool.service.name.to_string());
        }
    }

    /// Checks alone, however wrong the answers to them, do not keep requests from who was up and works.
    fn in_spite_of_checks(&mut self, pool: &Pool, now: Instant, world: &World) {
        let well = |member: &Member| {
            let id = &member.backend.id;
            let since = world.lies_since(&id.address).map(|since| since.max(self.joined(id)));
            member.admin == Admin::Enabled && since.is_some_and(|since| since + self.contract * 12 <= now)
        };
        if self.contract >= Duration::from_secs(1) && !pool.members.is_empty() && pool.members.iter().all(well) {
            let asked = pool.members.iter().any(|member| member.usable() || member.trial.is_some());
            self.demand("wrong checks alone keep no request away", asked, || pool.service.name.to_string());
        }
    }

    fn asked_lately(&mut self, member: &Member, now: Instant) {
        let id = &member.backend.id;
        if member.admin == Admin::Disabled || member.addresses.is_empty() {
            return;
        }
        let bound = self.timers.interval.mul_f64(1.0 + self.timers.jitter) + self.contract * 11 / 10;
        let asked = self.known.get(id).and_then(|known| known.asked).unwrap_or(self.boot);
        let asked = asked.max(self.joined(id));
        self.demand("nobody is forgotten", asked + bound >= now, || format!("{id}: {:?} ago", now.since(asked)));
    }
}

pub(crate) fn member(snapshot: &Snapshot, slot: u32) -> Option<&Member> {
    snapshot.pools.iter().flat_map(|pool| &pool.members).find(|member| member.backend.slot == slot)
}

/// Backends in both snapshots whose health differs.
fn transitions<'a>(old: &'a Snapshot, new: &'a Snapshot) -> Vec<(&'a Member, &'a Member)> {
    let mut changed = both(old, new);
    changed.retain(|(before, after)| before.health != after.health);
    changed
}

/// Backends in both snapshots, where anything about their pool changed.
fn both<'a>(old: &'a Snapshot, new: &'a Snapshot) -> Vec<(&'a Member, &'a Member)> {
    let mut changed = Vec::new();
    for pool in &new.pools {
        let Some(before) = old.pools.iter().find(|old| old.service.name == pool.service.name) else { continue };
        if Arc::ptr_eq(before, pool) {
            continue;
        }
        for after in &pool.members {
            let before = before.members.iter().find(|before| before.backend.id == after.backend.id);
            if let Some(before) = before {
                changed.push((before, after));
            }
        }
    }
    changed
}

//! Rules about who is left for answering badly: when it must be, when it may not, and for how long.

use std::sync::Arc;
use std::time::Duration;

use relais_core::{Admin, BackendId, BackendRecord, Health, Instant, Member, Pool, Record, RecordKey};

use super::Oracle;
use crate::world::World;

/// The first ejection, and the longest.
const HOLD: Duration = Duration::from_secs(10);
const MAX_HOLD: Duration = Duration::from_secs(300);
/// Who answers badly is left after so many answers, and not before so long.
const ANSWERS: u64 = 150;
const SECONDS: Duration = Duration::from_secs(5);
/// Who answers most requests wrongly while another does well is left after so many.
const A_FEW: u64 = 40;
/// Where little is asked, what was so long ago still counts.
pub(super) const STALE: Duration = Duration::from_secs(180);

impl Oracle {
    /// What a record says of an ejection that has just begun.
    pub(super) fn ejection(&mut self, record: &BackendRecord, now: Instant, world: &World) {
        let begun = record.health == Health::Down && record.since == now;
        if let Some(known) = self.known.get_mut(&record.id) {
            known.left_for_better = record.left_for_better;
        }
        let Some(until) = record.ejected_until.filter(|until| begun && *until > now) else { return };
        let saved = self.records.get(&RecordKey::Backend(record.id.clone()));
        if matches!(saved, Some(Record::Backend(before)) if before.ejected_until == Some(until)) {
            // Down for something else, before the end of an ejection from which a restart or too few others brought it back.
            return;
        }
        let Some(known) = self.known.get_mut(&record.id) else { return };
        let well = known.ejected_until.map_or(Duration::ZERO, |until| now.since(until));
        let forgotten = u32::try_from(well.as_micros() / MAX_HOLD.as_micros()).unwrap();
        let before = known.ejections.saturating_sub(forgotten);
        let due = (HOLD * (1 << before.min(16))).min(MAX_HOLD);
        (known.ejected_until, known.held_until, known.ejections) = (Some(until), Some(until), before + 1);
        known.ejected_at = Some(now);
        self.demand("every ejection is longer, within bounds", until.since(now) == due, || {
            format!("{} for {:?}, not {due:?}", record.id, until.since(now))
        });
        let Some(published) = self.published.clone() else { return };
        let Some(pool) = published.pools.iter().find(|pool| pool.service.name == record.id.service) else { return };
        // Whoever does well, or did a moment ago, may be left alone with it; its page may be wrong all the same.
        let well = |member: &Member| member.usable() && world.was_well(&member.backend.id.address, now - self.lately);
        let kept = !too_few(&pool.members, None) || pool.members.iter().any(well);
        self.demand("no more are ejected than the pool can lose", kept, || record.id.to_string());
        let process = |member: &Member| world.machines[&member.backend.id.address].process;
        let all = pool.members.iter().all(|member| {
            let since = world.sick_since(&member.backend.id.address);
            let settled = since.is_some_and(|since| since + self.lately <= now);
            settled && process(member) == process(&pool.members[0])
        });
        self.demand("what all share ejects nobody", !all, || record.id.to_string());
    }

    /// A backend answered a request, rightly or wrongly.
    pub(crate) fn answered(&mut self, id: &BackendId) {
        if let Some(known) = self.known.get_mut(id) {
            known.answers += 1;
        }
    }

    /// Who alone of its pool answers badly does not get more than so many requests. What it answered while another did the
    /// same does not count: the two are each other's median.
    pub(super) fn left(&mut self, pool: &Pool, now: Instant, world: &World) {
        let sick = |member: &&Member| world.clean_since(&member.backend.id.address).is_none();
        let mut members = pool.members.iter().filter(sick);
        let (Some(member), None) = (members.next(), members.next()) else { return };
        let id = &member.backend.id;
        let Some(since) = world.sick_since(&id.address) else { return };
        let others = || pool.members.iter().filter(|other| other.backend.slot != member.backend.slot);
        let since = others().fold(since, |since, other| since.max(world.sick_until(&other.backend.id.address)));
        let Some(known) = self.known.get_mut(id) else { return };
        if known.counted_from < since {
            (known.answers, known.counted_from) = (0, now);
        }
        let answers = known.answers;
        let due = answers >= ANSWERS && known.counted_from + SECONDS <= now;
        let settled = |id: &BackendId| {
            let up = self.known.get(id).map_or(now, |known| known.counted_from);
            self.joined(id).max(up) + SECONDS <= now
        };
        if due && others().all(|other| other.usable() && settled(&other.backend.id)) {
            self.demand("who alone answers badly is left", member.health == Health::Down, || {
                format!("{id} is {} after {answers} answers, {:?}", member.health, world.machines[&id.address])
            });
        }
    }

    /// Who answers most requests wrongly does not get more than so many, while another does well, however many do the same.
    pub(super) fn outdone(&mut self, pool: &Pool, now: Instant, world: &World) {
        let address = |member: &Member| Arc::clone(&member.backend.id.address);
        let well = |member: &Member| {
            let id = &member.backend.id;
            let up = self.known.get(id).map_or(now, |known| known.up_since.max(self.joined(id)));
            let since = world.clean_since(&id.address).map(|since| since.max(up));
            since.filter(|since| member.usable() && *since + SECONDS <= now)
        };
        let Some(well) = pool.members.iter().filter_map(well).min() else { return };
        for member in pool.members.iter().filter(|member| world.fails_most(&address(member))) {
            let id = &member.backend.id;
            let Some(since) = world.sick_since(&id.address) else { continue };
            let since = since.max(well).max(self.joined(id));
            let Some(known) = self.known.get_mut(id) else { continue };
            if known.counted_from < since {
                (known.answers, known.counted_from) = (0, now);
            }
            let answers = known.answers;
            // Who is left in time never comes that far: what counts as a check begins with half as many.
            if answers >= A_FEW / 2 && known.counted_from + SECONDS <= now {
                let holds = answers < A_FEW || member.health == Health::Down;
                self.demand("who fails is left for one that does well", holds, || {
                    format!("{id} is {} after {answers} answers", member.health)
                });
            }
        }
    }
}

/// Whether more than half of the enabled backends are out, or all; `without` counts as out.
pub(super) fn too_few(members: &[Member], without: Option<u32>) -> bool {
    let enabled = members.iter().filter(|member| member.admin == Admin::Enabled);
    let usable = enabled.clone().filter(|m| m.usable() && Some(m.backend.slot) != without).count();
    usable == 0 || usable * 2 < enabled.count()
}

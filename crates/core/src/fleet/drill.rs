//! The drill: a site treated as cut at relais' own edge, watched, ended in time, judged. Only readers of the snapshot
//! act on it; probes and requests then show what they show of a real cut, and nothing here touches health.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Fleet;
use super::agenda::Alarm;
use super::state::Entry;
use crate::effect::{Record, Transition};
use crate::health::Health;
use crate::history::{DrillEnd, DrillRecord, DrillService, Left, Shape};
use crate::stats::ServiceStats;
use crate::time::Instant;
use crate::words::{count, short};

/// How often a running drill is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// A drill nobody has asked for in this time is ended.
const UNATTENDED: Duration = Duration::from_secs(5);
/// The shortest and the longest cut.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(600);
/// How long the site's return is waited for.
const RETURN: Duration = Duration::from_secs(120);

/// What the operator orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillOrder {
    /// Name of the site.
    pub site: String,
    /// How it shall behave.
    pub shape: Shape,
    /// For how long, 1 s to 10 min, and no less than two contracts.
    pub lasts: Duration,
    /// Also when a service has no other site: its visitors then get errors.
    pub force: bool,
}

/// Why a drill is not begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillRefused {
    /// What is wrong, in a sentence.
    pub error: String,
    /// The way out.
    pub help: String,
    /// The site does not exist.
    pub unknown: bool,
}

/// The drill under way.
#[derive(Debug)]
pub(super) struct Drill {
    record: DrillRecord,
    /// Place of the site in the config. A reload ends the drill first.
    site: usize,
    /// Backends there that had traffic when it began.
    slots: BTreeSet<u32>,
    parts: Vec<Part>,
    last_asked: Instant,
}

/// What is watched of one service.
#[derive(Debug)]
struct Part {
    service: usize,
    slots: Vec<u32>,
    stats: Arc<ServiceStats>,
    lost_before: u64,
}

impl Fleet {
    /// Treats a site as cut from the next snapshot on. Answers with the drill's number.
    ///
    /// # Errors
    /// When there is no such site, a drill is under way, the time makes no sense, the site has no traffic, or a service
    /// would have no other site and that was not forced.
    pub fn begin_drill(&mut self, order: &DrillOrder, now: Instant) -> Result<u64, DrillRefused> {
        let site = self.drill_site(order)?;
        let members = self.sites[site].members.iter().filter_map(|slot| self.entries.get(slot));
        let slots: BTreeSet<u32> = members.filter(|entry| entry.usable()).map(Entry::slot).collect();
        if slots.is_empty() {
            return Err(refused(
                format!("no backend at {} gets traffic: there is nothing to cut", order.site),
                "`relais status` says why; a drill needs a site that is up and enabled",
            ));
        }
        let parts = self.drill_parts(&slots);
        let services: Vec<DrillService> = parts.iter().map(|part| self.drill_service(part)).collect();
        let alone: Vec<&str> = services.iter().filter(|service| service.alone).map(|s| &*s.name).collect();
        if !alone.is_empty() && !order.force {
            return Err(refused(
                format!("{} would have no backend: no other site of it is up", alone.join(", ")),
                "bring another site up first; `--force` does it all the same, and visitors get errors",
            ));
        }
        let longest = services.iter().map(|service| service.contract_micros).max().unwrap_or_default();
        let least = Duration::from_micros(longest).saturating_mul(2).max(SHORTEST);
        if order.lasts < least || order.lasts > LONGEST {
            return Err(refused(
                format!("a drill of {} makes no sense", short(order.lasts)),
                &format!("write a time from {} (two contracts) to {}", short(least), short(LONGEST)),
            ));
        }
        let number = self.past.drills.back().map_or(1, |last| last.number + 1);
        let record = DrillRecord {
            number,
            site: Arc::clone(&self.sites[site].name),
            shape: order.shape,
            forced: order.force,
            began: now,
            until: now + order.lasts,
            ended: None,
            end: None,
            returned_micros: None,
            done: false,
            services,
            problems: Vec::new(),
        };
        self.changes.notes.push(Transition::Drill(Box::new(record.clone())));
        self.drill = Some(Box::new(Drill { record, site, slots, parts, last_asked: now }));
        self.sites[site].drill = Some(order.shape);
        self.touch_site(site);
        self.agenda.set(Alarm::Drill, now + LOOK);
        self.flush(now);
        Ok(number)
    }

    /// The drill under way, else the last one. To be asked at least every 5 s while it runs: one that nobody asks for
    /// is ended.
    pub fn ask_drill(&mut self, now: Instant) -> Option<&DrillRecord> {
        if let Some(drill) = &mut self.drill {
            drill.last_asked = now;
        }
        self.drill_record()
    }

    /// The drill under way, else the last one.
    #[must_use]
    pub fn drill_record(&self) -> Option<&DrillRecord> {
        self.drill.as_ref().map(|drill| &drill.record).or_else(|| self.past.drills.back())
    }

    /// Ends the cut, if there is one. The site's return is still waited for, unless the edge stops.
    pub fn end_drill(&mut self, end: DrillEnd, now: Instant) {
        self.stop_cutting(end, now);
        if end == DrillEnd::Stop {
            self.conclude(now);
        }
        self.flush(now);
    }

    /// Where the site is in the config, if a drill there can begin at all.
    fn drill_site(&self, order: &DrillOrder) -> Result<usize, DrillRefused> {
        if let Some(drill) = &self.drill {
            let site = &drill.record.site;
            return Err(refused(
                format!("a drill of {site} is under way: one at a time"),
                "wait for it, or end it with `DELETE /drill` on the admin socket",
            ));
        }
        self.sites.iter().position(|site| *site.name == *order.site).ok_or_else(|| {
            let names: Vec<&str> = self.sites.iter().map(|site| &*site.name).collect();
            let error = format!("there is no site `{}`", order.site);
            DrillRefused { unknown: true, ..refused(error, &format!("sites: {}", names.join(", "))) }
        })
    }

    fn drill_parts(&self, slots: &BTreeSet<u32>) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for slot in slots {
            let Some(entry) = self.entries.get(slot) else { continue };
            match parts.iter_mut().find(|part| part.service == entry.service) {
                Some(part) => part.slots.push(*slot),
                None => {
                    let stats = Arc::clone(&self.services[entry.service].stats);
                    let lost_before = stats.lost.get();
                    parts.push(Part { service: entry.service, slots: vec![*slot], stats, lost_before });
                }
            }
        }
        parts.sort_by_key(|part| part.service);
        parts
    }

    fn drill_service(&self, part: &Part) -> DrillService {
        let service = &self.services[part.service];
        let others = service.members.iter().filter(|slot| !part.slots.contains(slot));
        let anyone = others.filter_map(|slot| self.entries.get(slot)).any(Entry::usable);
        DrillService {
            name: Arc::clone(&service.service.name),
            contract_micros: micros(service.timers.failover_within),
            kept: true,
            alone: !anyone,
            checked: service.timers.checked,
            declared_micros: None,
            last_moved_micros: None,
            moved: 0,
            rescued: 0,
            slow: 0,
            lost: 0,
            told: 0,
        }
    }

    /// A request left a backend: counted where the drill is the reason.
    pub(super) fn drill_moved(&mut self, slot: u32, began: Instant, how: Left, now: Instant) {
        let Some(drill) = self.drill.as_deref_mut().filter(|drill| drill.record.ended.is_none()) else { return };
        let Some(place) = drill.parts.iter().position(|part| part.slots.contains(&slot)) else { return };
        let since = drill.record.began;
        let service = &mut drill.record.services[place];
        service.last_moved_micros = Some(micros(now.since(since)));
        if how == Left::Told {
            service.told += 1;
            return;
        }
        service.moved += 1;
        service.rescued += u64::from(how == Left::Rescued);
        // Answers that come late are no part of it.
        let held = micros(now.since(began.max(since)));
        service.slow += u64::from(how != Left::Late && held > service.contract_micros);
    }

    /// Looks at the drill under way: ends it when it must end, judges it when the site is back.
    pub(super) fn look_at_drill(&mut self, now: Instant) {
        let Some(mut drill) = self.drill.take() else { return };
        for (part, service) in drill.parts.iter().zip(&mut drill.record.services) {
            service.lost = part.stats.lost.get().saturating_sub(part.lost_before);
            service.kept &= self.anyone_usable(part.service, None);
            if service.declared_micros.is_none() && drill.record.ended.is_none() {
                service.declared_micros = self.all_down_since(&part.slots, drill.record.began);
            }
        }
        let record = &drill.record;
        let back = drill.slots.iter().filter_map(|slot| self.entries.get(slot)).all(returned);
        let ended = record.ended;
        let failed = record.services.iter().find(|service| !service.alone && (service.lost > 0 || !service.kept));
        let end = match failed {
            Some(service) if service.lost > 0 => Some(DrillEnd::Lost),
            Some(_) => Some(DrillEnd::NobodyLeft),
            None if now >= record.until => Some(DrillEnd::Time),
            None if now.since(drill.last_asked) > UNATTENDED => Some(DrillEnd::Unattended),
            None => None,
        };
        self.drill = Some(drill);
        match (ended, end) {
            (None, Some(end)) => self.stop_cutting(end, now),
            (None, None) => {}
            (Some(at), _) if back || now.since(at) > RETURN => {
                if let Some(drill) = self.drill.as_deref_mut().filter(|_| back) {
                    drill.record.returned_micros = Some(micros(now.since(at)));
                }
                self.conclude(now);
                return;
            }
            (Some(_), _) => {}
        }
        self.agenda.set(Alarm::Drill, now + LOOK);
    }

    /// When the last of these backends was declared down, from the cut; `None`: not all are.
    fn all_down_since(&self, slots: &[u32], cut: Instant) -> Option<u64> {
        let entries: Vec<&Entry> = slots.iter().filter_map(|slot| self.entries.get(slot)).collect();
        if entries.iter().any(|entry| entry.health() != Health::Down) {
            return None;
        }
        entries.iter().map(|entry| micros(entry.since.since(cut))).max()
    }

    /// Ends the cut: from the next snapshot on the site is as it really is.
    fn stop_cutting(&mut self, end: DrillEnd, now: Instant) {
        let Some(drill) = self.drill.as_deref_mut().filter(|drill| drill.record.ended.is_none()) else { return };
        drill.record.ended = Some(now);
        drill.record.end = Some(end);
        let site = drill.site;
        self.changes.notes.push(Transition::Drill(Box::new(drill.record.clone())));
        self.sites[site].drill = None;
        self.touch_site(site);
    }

    /// A reload or a stop: the drill ends here and now, without waiting for the site's return.
    pub(super) fn abandon_drill(&mut self, end: DrillEnd, now: Instant) {
        self.stop_cutting(end, now);
        self.conclude(now);
    }

    /// The last word about a drill.
    fn conclude(&mut self, now: Instant) {
        let Some(mut drill) = self.drill.take() else { return };
        self.agenda.cancel(Alarm::Drill);
        for (part, service) in drill.parts.iter().zip(&mut drill.record.services) {
            service.lost = part.stats.lost.get().saturating_sub(part.lost_before);
        }
        let mut record = drill.record;
        record.done = true;
        record.ended = record.ended.or(Some(now));
        record.problems = problems(&record);
        self.changes.records.push(Record::Drill(Box::new(record.clone())));
        self.changes.notes.push(Transition::Drill(Box::new(record.clone())));
        self.past.push_drill(record);
    }
}

/// As good as before, or taken out by the operator meanwhile.
fn returned(entry: &Entry) -> bool {
    entry.usable() || entry.admin != crate::health::Admin::Enabled
}

/// What went wrong, in sentences.
fn problems(record: &DrillRecord) -> Vec<String> {
    let mut said = Vec::new();
    match record.end {
        Some(DrillEnd::Time) => {}
        Some(end) => said.push(end.as_str().to_owned()),
        None => said.push("it did not end".to_owned()),
    }
    for service in &record.services {
        problems_of(service, record.shape, &mut said);
    }
    let waited = matches!(record.end, Some(end) if end != DrillEnd::Reload && end != DrillEnd::Stop);
    if waited && record.returned_micros.is_none() {
        said.push(format!("{} was not back {} after the end", record.site, short(RETURN)));
    }
    said
}

fn problems_of(service: &DrillService, shape: Shape, said: &mut Vec<String>) {
    let DrillService { name, .. } = service;
    let contract = Duration::from_micros(service.contract_micros);
    if service.lost > 0 {
        said.push(format!(
            "{name}: {} failed that could have been repeated",
            count(u32::try_from(service.lost).unwrap_or(u32::MAX), "request")
        ));
    }
    if !service.kept {
        said.push(format!("{name}: had no backend left"));
    }
    if shape == Shape::Slow {
        return;
    }
    match service.declared_micros.map(Duration::from_micros) {
        None if service.checked => said.push(format!("{name}: its backends there were not declared down")),
        Some(after) if after > contract => said.push(format!(
            "{name}: declared down after {}, later than failover_within = {}",
            short(after),
            short(contract)
        )),
        _ => {}
    }
    if let Some(after) = service.last_moved_micros.map(Duration::from_micros).filter(|after| *after > contract) {
        said.push(format!(
            "{name}: the last request was moved off after {}, later than failover_within = {}",
            short(after),
            short(contract)
        ));
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn refused(error: String, help: &str) -> DrillRefused {
    DrillRefused { error, help: help.to_owned(), unknown: false }
}

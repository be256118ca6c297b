//! Every real failover is timed: from the first probe or attempt that was never answered to the last request that had
//! been sent there and was moved off. Decides nothing about health; it only keeps the books.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Fleet;
use super::agenda::Alarm;
use super::layout::index_u32;
use super::state::{Entry, ServiceState};
use crate::effect::{Record, Transition};
use crate::health::Health;
use crate::history::{DrillRecord, FailoverRecord, KEPT, Left, Shape};
use crate::time::Instant;

/// A failover is over when nothing more was moved off for one contract, and no less than this.
const QUIET: Duration = Duration::from_secs(1);
/// However long stragglers keep coming: after so many contracts the book is closed.
const LONGEST: u32 = 10;
/// Moves older than so many contracts have nothing to do with what happens now.
const FORGOTTEN: u32 = 3;

/// Requests that left one backend lately, before any verdict.
#[derive(Debug, Clone, Default)]
pub(super) struct Leaving {
    /// When the first of them that was never answered was sent there.
    began: Option<Instant>,
    /// The same, whatever its checks said meanwhile.
    unanswered: Option<Instant>,
    last: Instant,
    /// Since its last sign of life: what left before has nothing to do with a cut.
    silent: Tally,
    /// Whatever it said, with when each tally was begun, one for each contract: oldest first, no older than is remembered.
    lately: VecDeque<(Instant, Tally)>,
}

/// How many left, and how long they were held up.
#[derive(Debug, Clone, Default)]
struct Tally {
    moved: u64,
    rescued: u64,
    told: u64,
    slowest: Duration,
    /// The same of those that left as they waited unusually long: of who is left for its answers, not for a cut, all of it counts.
    latest: Duration,
}

/// A failover of one service that is under way.
#[derive(Debug, Default)]
pub(super) struct Episode {
    /// What was lost together, in the order of the verdicts.
    losses: Vec<Loss>,
    sites: Vec<Arc<str>>,
    backends: Vec<Arc<str>>,
    why: String,
    left: Tally,
    /// The service had no backend at some moment: an outage, no failover.
    pub(super) nobody_left: bool,
    drill: bool,
    /// A drill of slow answers.
    slow: bool,
}

/// Backends at one site that were declared down at the same moment.
#[derive(Debug)]
struct Loss {
    slots: Vec<u32>,
    began: Instant,
    declared: Instant,
    ended: Instant,
}

/// What is remembered, oldest first.
#[derive(Debug, Default)]
pub(super) struct Past {
    pub(super) failovers: VecDeque<FailoverRecord>,
    pub(super) drills: VecDeque<DrillRecord>,
}

impl Past {
    /// From what the store held, in any order.
    pub(super) fn take(&mut self, record: Record) {
        match record {
            Record::Failover(record) => self.failovers.push_back(*record),
            Record::Drill(record) => self.drills.push_back(*record),
            Record::Backend(_) | Record::Admin(_) | Record::Certificate(_) | Record::Authority(_) => {}
        }
    }

    /// After the last [`Past::take`].
    pub(super) fn order(&mut self) {
        self.failovers.make_contiguous().sort_by_key(|record| record.number);
        self.drills.make_contiguous().sort_by_key(|record| record.number);
    }

    fn push_failover(&mut self, record: FailoverRecord) {
        if self.failovers.len() as u64 >= KEPT {
            self.failovers.pop_front();
        }
        self.failovers.push_back(record);
    }

    pub(super) fn push_drill(&mut self, record: DrillRecord) {
        if self.drills.len() as u64 >= KEPT {
            self.drills.pop_front();
        }
        self.drills.push_back(record);
    }
}

impl Entry {
    /// The last sign of life: an answered check or an answered request. Where the checks of who does not work pass, only the
    /// latter is one.
    fn alive_at(&self) -> Instant {
        let answered = Instant(self.backend.latency_at());
        if self.answers_nothing() { answered } else { answered.max(self.last_good.unwrap_or_default()) }
    }

    /// It is left because it answers none of its requests, whatever its checks say.
    fn answers_nothing(&self) -> bool {
        self.stalled && self.is_ejected()
    }

    /// It is left for its answers, or for as many failed requests in a row, and gave signs of life all the while.
    fn lives(&self, passive_fall: u32) -> bool {
        let failed = passive_fall > 0 && self.counters.failed >= passive_fall && self.counters.bad == 0;
        let row = Instant(self.backend.latency_at())..self.alive_at();
        self.is_ejected() || failed && self.leaving.unanswered.is_some_and(|began| row.contains(&began))
    }

    /// When the first probe or attempt was sent there that was never answered.
    fn silent_since(&self, now: Instant) -> Instant {
        let alive = self.alive_at();
        if self.answers_nothing() {
            return self.leaving.unanswered.filter(|began| *began >= alive).unwrap_or(now);
        }
        let probes = self.recent.iter().filter(|probe| probe.fault.is_some());
        let sent = probes.map(|probe| probe.at - Duration::from_micros(probe.took_micros));
        let requests = self.leaving.began.filter(|began| *began >= alive);
        sent.filter(|sent| *sent >= alive).chain(requests).min().unwrap_or(now)
    }
}

impl Fleet {
    /// A request left a backend that did not answer it; it had been sent there at `began`.
    pub(super) fn moved(&mut self, slot: u32, began: Instant, how: Left, now: Instant) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let service = entry.service;
        let contract = self.services[service].timers.failover_within;
        let alive = entry.alive_at();
        let fresh = began >= alive;
        let answered = Instant(entry.backend.latency_at());
        let held = now.since(began);
        self.drill_moved(slot, began, how, now);
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let gray = entry.is_ejected();
        // What was sent there since it is back has nothing to do with why it was left.
        let affected = entry.health() == Health::Down || began < entry.returned;
        let episode = self.services[service].episode.as_mut().filter(|_| affected);
        let Some((place, episode)) = episode.and_then(|episode| Some((episode.place(slot)?, episode))) else {
            let leaving = &mut entry.leaving;
            if now.since(leaving.last) > contract * FORGOTTEN {
                *leaving = Leaving::default();
            }
            leaving.forget(alive, now, contract);
            leaving.last = now;
            // Who lets wait now and then is not silent since.
            if fresh && (how != Left::Late || entry.counters.health == Health::Suspect) {
                leaving.began = Some(leaving.began.map_or(began, |first| first.min(began)));
            }
            if began >= answered {
                // What left before the last answer belongs to another trouble.
                let first = leaving.unanswered.filter(|first| *first >= answered);
                leaving.unanswered = Some(first.map_or(began, |first| first.min(began)));
            }
            leaving.silent.count(how, held);
            leaving.this_contract(now, contract).count(how, held);
            return;
        };
        let loss = &mut episode.losses[place];
        if fresh {
            loss.began = loss.began.min(began);
        }
        let answers = how == Left::Late && gray;
        if !answers {
            // What the second question took away, as answers come late, would have waited so long without a verdict too.
            loss.ended = now;
        }
        // What waited long before the cut was held up by it only since then.
        let held = if answers { held } else { held.min(now.since(loss.began)) };
        episode.left.slowest = episode.left.slowest.max(held);
        let close = (now + QUIET.max(contract)).min(loss.declared + contract * LONGEST);
        episode.left.add(how);
        self.agenda.set(Alarm::Settled(index_u32(service)), close);
    }

    /// Backends that had traffic were declared down in this call: opens the books, or adds to open ones.
    pub(super) fn open_failovers(&mut self, now: Instant) {
        let mut groups: BTreeMap<(usize, usize), Vec<u32>> = BTreeMap::new();
        for slot in std::mem::take(&mut self.changes.fallen) {
            let Some(entry) = self.entries.get(&slot) else { continue };
            groups.entry((entry.service, entry.site)).or_default().push(slot);
        }
        for ((service, site), slots) in groups {
            self.lose(service, site, slots, now);
        }
    }

    /// One service lost these backends at one site, at one moment.
    fn lose(&mut self, index: usize, site: usize, slots: Vec<u32>, now: Instant) {
        let anyone = self.anyone_usable(index, None);
        let service = &mut self.services[index];
        let contract = service.timers.failover_within;
        if service.episode.is_none() && !anyone {
            return;
        }
        let episode = service.episode.get_or_insert_with(Episode::default);
        let mut began = now;
        for slot in &slots {
            let Some(entry) = self.entries.get_mut(slot) else { continue };
            began = began.min(entry.silent_since(now));
            let (alive, lives) = (entry.alive_at(), entry.lives(service.timers.passive_fall));
            let mut leaving = std::mem::take(&mut entry.leaving);
            if now.since(leaving.last) <= contract * FORGOTTEN {
                leaving.forget(alive, now, contract);
                let held = now.since(began);
                if lives {
                    // It went on giving signs of life.
                    leaving.lately.iter().for_each(|(_, tally)| episode.left.join(tally, held, Duration::MAX));
                } else {
                    episode.left.join(&leaving.silent, held, held);
                }
            }
            if episode.why.is_empty() {
                episode.why.clone_from(&entry.why);
            }
            episode.backends.push(Arc::clone(&entry.backend.id.address));
        }
        episode.nobody_left |= !anyone;
        episode.drill |= self.sites[site].drill.is_some();
        episode.slow |= self.sites[site].drill == Some(Shape::Slow);
        let name = &self.sites[site].name;
        if !episode.sites.contains(name) {
            episode.sites.push(Arc::clone(name));
        }
        episode.losses.push(Loss { slots, began, declared: now, ended: now });
        self.agenda.set(Alarm::Settled(index_u32(index)), now + QUIET.max(contract));
    }

    /// Nothing more was moved off for a while: closes the book.
    pub(super) fn settled(&mut self, index: u32) {
        let Some(index) = usize::try_from(index).ok().filter(|index| *index < self.services.len()) else { return };
        let Some(episode) = self.services[index].episode.take() else { return };
        if episode.nobody_left {
            return;
        }
        let service = &mut self.services[index];
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let record = FailoverRecord {
            number: self.past.failovers.back().map_or(1, |last| last.number + 1),
            service: Arc::clone(&service.service.name),
            sites: episode.sites,
            backends: episode.backends,
            why: episode.why,
            began: episode.losses.iter().map(|loss| loss.began).min().unwrap_or_default(),
            declared: episode.losses.iter().map(|loss| loss.declared).max().unwrap_or_default(),
            ended: episode.losses.iter().map(|loss| loss.ended).max().unwrap_or_default(),
            took_micros: micros(
                episode.losses.iter().map(|loss| loss.ended.since(loss.began)).max().unwrap_or_default(),
            ),
            contract_micros: micros(service.timers.failover_within),
            moved: episode.left.moved,
            rescued: episode.left.rescued,
            told: episode.left.told,
            slowest_micros: micros(episode.left.slowest),
            drill: episode.drill,
            slow: episode.slow,
        };
        if !record.slow {
            service.stats.failover.observe(record.took());
        }
        if record.overran() {
            service.stats.overruns.inc();
        }
        self.changes.records.push(Record::Failover(Box::new(record.clone())));
        self.changes.notes.push(Transition::Failover(Box::new(record.clone())));
        self.past.push_failover(record);
    }

    /// Closes every open book: the places of services are about to change.
    pub(super) fn settle_all(&mut self) {
        let open = |(index, service): (usize, &ServiceState)| service.episode.as_ref().map(|_| index);
        for index in self.services.iter().enumerate().filter_map(open).collect::<Vec<usize>>() {
            self.agenda.cancel(Alarm::Settled(index_u32(index)));
            self.settled(index_u32(index));
        }
    }

    /// Failovers, oldest first, at most 100.
    pub fn failovers(&self) -> impl DoubleEndedIterator<Item = &FailoverRecord> {
        self.past.failovers.iter()
    }

    /// Drills, oldest first, at most 100.
    pub fn drills(&self) -> impl DoubleEndedIterator<Item = &DrillRecord> {
        self.past.drills.iter()
    }
}

impl Episode {
    /// Which of the losses a backend belongs to.
    fn place(&self, slot: u32) -> Option<usize> {
        self.losses.iter().position(|loss| loss.slots.contains(&slot))
    }
}

impl Leaving {
    /// What has nothing to do with what happens now.
    fn forget(&mut self, alive: Instant, now: Instant, contract: Duration) {
        if self.last < alive {
            (self.silent, self.began) = (Tally::default(), None);
        }
        self.lately.retain(|(begun, _)| now.since(*begun) <= contract * FORGOTTEN);
    }

    /// The tally of now.
    fn this_contract(&mut self, now: Instant, contract: Duration) -> &mut Tally {
        if self.lately.back().is_none_or(|(begun, _)| now.since(*begun) >= contract) {
            self.lately.push_back((now, Tally::default()));
        }
        let last = self.lately.len() - 1;
        &mut self.lately[last].1
    }
}

impl Tally {
    /// One more, held up for so long.
    fn count(&mut self, how: Left, held: Duration) {
        let longest = if how == Left::Late { &mut self.latest } else { &mut self.slowest };
        *longest = held.max(*longest);
        self.add(how);
    }

    fn add(&mut self, how: Left) {
        match how {
            Left::Told => self.told += 1,
            Left::Failed | Left::Overtaken | Left::Late => self.moved += 1,
            Left::Rescued => {
                self.moved += 1;
                self.rescued += 1;
            }
        }
    }

    /// What another one has, of which no more is told than `most`, and `latest` of those that left late.
    fn join(&mut self, other: &Tally, most: Duration, latest: Duration) {
        self.moved += other.moved;
        self.rescued += other.rescued;
        self.told += other.told;
        self.slowest = self.slowest.max(other.slowest.min(most)).max(other.latest.min(latest));
    }
}

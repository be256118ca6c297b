//! Deliberate mistakes around the fleet, one per rule. Each must be caught: a test of the tests.
//!
//! They live here, in the edges the simulation plays, never in the code under test.

use std::sync::Arc;
use std::time::Duration;

use relais_core::config::{Action, Config};
use relais_core::{Admin, BackendRecord, Command, Event, Health, Record, Snapshot, Target};

use crate::engine::{Due, Run};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// Workers pick anybody.
    ReaderIgnoresHealth,
    /// Workers pick whoever is up, drained or not.
    ReaderIgnoresAdmin,
    /// Every third snapshot never reaches the workers.
    PublishIsDropped,
    /// Snapshots reach the workers a contract late.
    PublishIsLate,
    /// Other effects are carried out before the snapshot.
    NoteBeforePublish,
    /// A reload forgets the operator's words.
    ReloadForgetsAdmin,
    /// A reload takes everything away and adds it again.
    ReloadForgetsHealth,
    /// A restart begins without the store.
    MemoryIsLost,
    /// A restart believes memory of any age.
    MemoryNeverAges,
    /// Outages are not written down.
    DownIsNotSaved,
    /// A restart forgets who flapped.
    FlapsAreForgotten,
    /// Probe results carry the id of the probe before.
    StaleProbeIds,
    /// The prober takes silence for success.
    SilenceIsFine,
    /// The prober takes wrong answers for late ones.
    WrongAnswersAreLate,
    /// The prober takes every failure for silence.
    EverythingIsSilence,
    /// Probe results are booked on the neighbour.
    WrongBackend,
    /// Every third probe is never sent.
    ProbesAreLost,
    /// Good probe results are dropped.
    SuccessIsDropped,
    /// Workers do not count their successes.
    SuccessIsNotCounted,
    /// The timer fires only once per contract.
    SleepyClock,
    /// Workers do not count wrong answers as such.
    ErrorsAreNotCounted,
    /// Wrong answers are booked on the neighbour.
    ErrorsOnTheNeighbour,
    /// Workers do not count how long answers take.
    LatencyIsNotCounted,
    /// A restart forgets who was ejected.
    EjectionsAreForgotten,
    /// The file lets everybody but the last be ejected.
    EverybodyMayGo,
    /// The file lets the ejected return at once.
    NobodyIsHeld,
    /// A restart forgets who was left for a better one.
    WhoWasLeftIsMissed,
    /// The file lets nobody be left for wrong answers.
    ErrorsSayNothing,
    /// What agents say is thrown away.
    AgentsAreNotHeard,
    /// What an agent says is booked on the neighbour.
    AgentOfTheNeighbour,
    /// Answers of agents carry the number of the question before.
    AgentAnswersAreStale,
    /// An agent that does not answer is taken to drain.
    SilenceIsAWord,
    /// Nobody answers for names.
    NamesAreNotAnswered,
    /// Names are answered with where they led at first.
    OldAddressesAreAnswered,
    /// A name's addresses are booked on the neighbour.
    NamesOfTheNeighbour,
    /// The prober counts time in which it did not run.
    StallsAreCounted,
}

/// Those that only a run with agents and names can show.
pub(crate) const BESIDE: [Mistake; 7] = [
    Mistake::AgentsAreNotHeard,
    Mistake::AgentOfTheNeighbour,
    Mistake::AgentAnswersAreStale,
    Mistake::SilenceIsAWord,
    Mistake::NamesAreNotAnswered,
    Mistake::OldAddressesAreAnswered,
    Mistake::NamesOfTheNeighbour,
];

/// Those that only an edge that stands still can show.
pub(crate) const STALLED: [Mistake; 1] = [Mistake::StallsAreCounted];

/// Those that only a run can show in which most of a pool fail.
pub(crate) const OUTDONE: [Mistake; 2] = [Mistake::WhoWasLeftIsMissed, Mistake::ErrorsSayNothing];

/// Those that only a run with sick backends can show.
pub(crate) const GRAY: [Mistake; 6] = [
    Mistake::ErrorsAreNotCounted,
    Mistake::ErrorsOnTheNeighbour,
    Mistake::LatencyIsNotCounted,
    Mistake::EjectionsAreForgotten,
    Mistake::EverybodyMayGo,
    Mistake::NobodyIsHeld,
];

pub(crate) const ALL: [Mistake; 20] = [
    Mistake::ReaderIgnoresHealth,
    Mistake::ReaderIgnoresAdmin,
    Mistake::PublishIsDropped,
    Mistake::PublishIsLate,
    Mistake::NoteBeforePublish,
    Mistake::ReloadForgetsAdmin,
    Mistake::ReloadForgetsHealth,
    Mistake::MemoryIsLost,
    Mistake::MemoryNeverAges,
    Mistake::DownIsNotSaved,
    Mistake::FlapsAreForgotten,
    Mistake::StaleProbeIds,
    Mistake::SilenceIsFine,
    Mistake::WrongAnswersAreLate,
    Mistake::EverythingIsSilence,
    Mistake::WrongBackend,
    Mistake::ProbesAreLost,
    Mistake::SuccessIsDropped,
    Mistake::SuccessIsNotCounted,
    Mistake::SleepyClock,
];

impl Run {
    pub(crate) fn published(&mut self, snapshot: Arc<Snapshot>) {
        match self.mistake {
            Some(Mistake::PublishIsDropped) if snapshot.generation.is_multiple_of(3) => {}
            Some(Mistake::PublishIsLate) => {
                let late = self.now + self.setting.contract;
                self.at(late, Due::Late(snapshot));
            }
            _ => self.read(snapshot),
        }
    }

    pub(crate) fn save(&mut self, record: Record) {
        let down = matches!(&record, Record::Backend(BackendRecord { health: Health::Down, .. }));
        if self.mistake != Some(Mistake::DownIsNotSaved) || !down {
            self.store.insert(record.key(), record);
        }
    }

    /// What a mistaken edge makes of the store before a start.
    pub(crate) fn mistaken_memory(&mut self, records: &mut Vec<Record>) {
        if self.mistake == Some(Mistake::MemoryIsLost) {
            records.clear();
        }
        for record in records {
            let Record::Backend(record) = record else { continue };
            match self.mistake {
                Some(Mistake::MemoryNeverAges) => record.verified = self.now,
                Some(Mistake::FlapsAreForgotten) => record.downs.clear(),
                Some(Mistake::WhoWasLeftIsMissed) => record.left_for_better = false,
                Some(Mistake::EjectionsAreForgotten) => record.ejected_until = None,
                _ => {}
            }
        }
    }

    /// What a mistaken edge does before a reload.
    pub(crate) fn mistaken_reload(&mut self) {
        match self.mistake {
            Some(Mistake::ReloadForgetsAdmin) => {
                let words: Vec<Target> = self.store.values().filter_map(word_of).collect();
                for target in words {
                    self.tell(Event::Admin(Command { target, word: Admin::Enabled, reason: None }));
                }
            }
            Some(Mistake::ReloadForgetsHealth) => {
                let mut empty = (*self.config).clone();
                empty.services.clear();
                self.tell(Event::Reload(Arc::new(empty)));
            }
            _ => {}
        }
    }

    /// What a mistaken operator wrote.
    pub(crate) fn mistaken_config(&self, mut config: Config) -> Config {
        for service in &mut config.services {
            let Action::Forward(forward) = &mut Arc::make_mut(service).action else { continue };
            match self.mistake {
                Some(Mistake::EverybodyMayGo) => forward.outlier.max_ejected_percent = 100,
                Some(Mistake::ErrorsSayNothing) => forward.outlier.errors_percent = 0,
                Some(Mistake::NobodyIsHeld) => forward.outlier.hold = Duration::from_millis(1),
                _ => {}
            }
        }
        config
    }

    /// A clock that ticks once per contract.
    pub(crate) fn sleepy(&self, at: relais_core::Instant) -> relais_core::Instant {
        let tick = u64::try_from(self.setting.contract.as_micros()).unwrap();
        relais_core::Instant(at.0.div_ceil(tick) * tick)
    }
}

fn word_of(record: &Record) -> Option<Target> {
    match record {
        Record::Admin(record) => Some(record.target.clone()),
        _ => None,
    }
}

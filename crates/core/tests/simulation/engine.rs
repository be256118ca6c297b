//! The run: one virtual clock, one queue of what is due, the fleet under test, and the edges played around it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use relais_core::config::Config;
use relais_core::{
    AgentOrder, Effect, Event, Fault, Fleet, Instant, ProbeOrder, Record, RecordKey, ResolveOrder, Saved, Snapshot,
};

use crate::dice::Dice;
use crate::flight::{Flight, Purpose, Step};
use crate::mistakes::Mistake;
use crate::oracle::Oracle;
use crate::script::Undo;
use crate::setting::{Kind, START, Setting};
use crate::traffic::Request;
use crate::world::World;

/// What is due at some moment.
#[derive(Debug)]
pub(crate) enum Due {
    Step(u64),
    Deadline(u64),
    /// A worker has waited there longer than usual.
    Overdue(u64),
    Arrive(usize),
    GiveUp(u64),
    Incident,
    Undo(Undo),
    Tick,
    Boot,
    /// The site has been cut since then.
    Verify(&'static str, Instant),
    /// A name server answers.
    Named(ResolveOrder),
    /// An agent answers, or its time is over.
    Said(AgentOrder, bool),
    /// A snapshot that a mistaken edge held back.
    Late(Arc<Snapshot>),
}

pub(crate) struct Run {
    pub(crate) setting: Setting,
    pub(crate) now: Instant,
    pub(crate) dice: Dice,
    pub(crate) world: World,
    pub(crate) config: Arc<Config>,
    /// `None`: the process is not running.
    pub(crate) fleet: Option<Fleet>,
    /// What workers read.
    pub(crate) reader: Option<Arc<Snapshot>>,
    pub(crate) store: BTreeMap<RecordKey, Record>,
    pub(crate) oracle: Oracle,
    pub(crate) mistake: Option<Mistake>,
    queue: BTreeMap<(Instant, u64), Due>,
    ticket: u64,
    pub(crate) flights: BTreeMap<u64, Flight>,
    pub(crate) requests: BTreeMap<u64, Request>,
    /// Machines a connection is kept to, with the life it was made in.
    pub(crate) warm: BTreeMap<u32, u32>,
    pub(crate) busy: BTreeSet<Arc<str>>,
    pub(crate) trace: u64,
    pub(crate) calls: u64,
    pub(crate) tally: BTreeMap<&'static str, u64>,
    /// The edge itself stands still until then; the world does not.
    pub(crate) stalled: Instant,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) breach: Option<String>,
    pub(crate) trace: u64,
    pub(crate) simulated: Duration,
    pub(crate) calls: u64,
    pub(crate) checked: BTreeMap<&'static str, u64>,
    pub(crate) tally: BTreeMap<&'static str, u64>,
}

pub(crate) fn run(setting: Setting, mistake: Option<Mistake>) -> Outcome {
    let mut run = Run::new(setting, mistake);
    let end = START + run.setting.length;
    while run.now < end && run.oracle.breach().is_none() {
        run.next();
    }
    Outcome {
        breach: run.oracle.breach().map(|breach| {
            let at = run.now.since(START).as_secs_f64() / run.setting.contract.as_secs_f64();
            format!("{:?} seed {} at {at:.1} contracts: {breach}", run.setting.kind, run.setting.seed)
        }),
        trace: run.trace,
        simulated: run.now.since(START),
        calls: run.calls,
        checked: run.oracle.checked,
        tally: run.tally,
    }
}

impl Run {
    fn new(setting: Setting, mistake: Option<Mistake>) -> Self {
        let mut dice = Dice::new(setting.seed.rotate_left(17));
        let world = setting.world(&mut dice);
        let config = Arc::new(setting.config());
        let mut run = Self {
            oracle: Oracle::new(setting.contract, setting.pause, setting.agents),
            now: START,
            dice,
            world,
            config,
            fleet: None,
            reader: None,
            store: BTreeMap::new(),
            mistake,
            queue: BTreeMap::new(),
            ticket: 0,
            flights: BTreeMap::new(),
            requests: BTreeMap::new(),
            warm: BTreeMap::new(),
            busy: BTreeSet::new(),
            trace: 0,
            calls: 0,
            tally: BTreeMap::new(),
            stalled: Instant(0),
            setting,
        };
        run.config = Arc::new(run.mistaken_config(run.setting.config()));
        run.boot();
        for service in 0..run.setting.services.len() {
            run.at(START, Due::Arrive(service));
        }
        let first = START + run.setting.contract * 5;
        run.at(first, Due::Incident);
        run.at(START, Due::Tick);
        run
    }

    pub(crate) fn at(&mut self, at: Instant, due: Due) -> (Instant, u64) {
        self.ticket += 1;
        self.queue.insert((at, self.ticket), due);
        (at, self.ticket)
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    fn next(&mut self) {
        let alarm = self.fleet.as_ref().and_then(Fleet::poll_timeout);
        let alarm = alarm.map(|at| if self.mistake == Some(Mistake::SleepyClock) { self.sleepy(at) } else { at });
        let alarm = alarm.map(|at| at.max(self.stalled));
        let due = self.queue.keys().next().copied();
        match (alarm, due) {
            (Some(at), due) if due.is_none_or(|(then, _)| at <= then) => {
                self.now = self.now.max(at);
                self.calls += 1;
                if let Some(fleet) = &mut self.fleet {
                    fleet.handle_timeout(self.now);
                }
                self.take_effects();
            }
            (_, Some(key)) => {
                self.now = key.0;
                let due = self.queue.remove(&key).unwrap();
                self.happen(due);
            }
            (_, None) => unreachable!("the tick never ends"),
        }
    }

    fn happen(&mut self, due: Due) {
        if self.now < self.stalled && !matches!(due, Due::Incident | Due::Undo(_) | Due::Verify(..)) {
            let at = self.stalled;
            self.at(at, due);
            return;
        }
        match due {
            Due::Step(flight) => self.step(flight),
            Due::Deadline(flight) => self.late(flight),
            Due::Overdue(flight) => {
                if let Some(slot) = self.flights.get(&flight).map(|flight| flight.backend.slot) {
                    self.tell(Event::Overdue { slot });
                }
            }
            Due::Arrive(service) => self.arrive(service),
            Due::GiveUp(request) => self.give_up(request),
            Due::Incident => self.incident(),
            Due::Undo(undo) => self.undo(undo),
            Due::Tick => {
                let next = self.now + self.setting.contract;
                self.at(next, Due::Tick);
                if self.fleet.is_some() && self.now.since(self.stalled) > self.setting.contract * 3 {
                    self.oracle.tick(self.now, &self.world);
                    let tunnels = self.world.tunnels(self.now);
                    self.tell(Event::Tunnels(tunnels));
                }
            }
            Due::Boot => self.boot(),
            Due::Verify(site, cut_at) => {
                if self.world.places[site].cut_at == Some(cut_at)
                    && let Some(reader) = self.reader.clone()
                {
                    self.oracle.cut_for_a_contract(site, &reader, cut_at);
                }
            }
            Due::Named(order) => self.named(&order),
            Due::Said(order, lost) => self.agent_said(&order, lost),
            Due::Late(snapshot) => self.read(snapshot),
        }
    }

    /// Tells the fleet something, and does what it says.
    pub(crate) fn tell(&mut self, event: Event) {
        let Some(fleet) = &mut self.fleet else { return };
        self.calls += 1;
        fleet.handle_event(event, self.now);
        self.take_effects();
    }

    fn take_effects(&mut self) {
        let Some(fleet) = &mut self.fleet else { return };
        let mut batch: Vec<Effect> = std::iter::from_fn(|| fleet.poll_effect()).collect();
        if batch.is_empty() {
            return;
        }
        self.trace_effects(&batch);
        if self.mistake == Some(Mistake::NoteBeforePublish) {
            batch.rotate_left(1);
        }
        self.oracle.effects(&batch, self.now, &self.world);
        for effect in batch {
            match effect {
                Effect::Publish(snapshot) => self.published(snapshot),
                Effect::Probe(order) => self.ask(&order),
                Effect::Save(record) => self.save(record),
                Effect::Forget(key) => {
                    self.store.remove(&key);
                }
                Effect::Note(_) => {}
                Effect::Resolve(order) => self.look_up(order),
                Effect::Agent(order) => self.ask_agent(order),
                // No certificates, and nothing is far.
                Effect::Measure(_) | Effect::Order(_) | Effect::AskRenewalInfo(_) => {}
            }
        }
    }

    fn trace_effects(&mut self, batch: &[Effect]) {
        let mut fold = |part: &[u8]| self.trace = relais_core::hash::stable(&[&self.trace.to_le_bytes(), part]);
        fold(&self.now.0.to_le_bytes());
        for effect in batch {
            match effect {
                Effect::Publish(snapshot) => fold(&snapshot.generation.to_le_bytes()),
                Effect::Probe(order) => fold(&order.id.to_le_bytes()),
                Effect::Save(Record::Backend(record)) => fold(record.why.as_bytes()),
                Effect::Save(Record::Admin(record)) => fold(record.target.to_string().as_bytes()),
                Effect::Save(Record::Failover(record)) => fold(&record.took_micros.to_le_bytes()),
                Effect::Save(Record::Drill(record)) => fold(&record.number.to_le_bytes()),
                Effect::Save(_) => fold(b"save"),
                Effect::Forget(_) => fold(b"forget"),
                Effect::Note(note) => fold(format!("{note:?}").as_bytes()),
                Effect::Resolve(_)
                | Effect::Agent(_)
                | Effect::Measure(_)
                | Effect::Order(_)
                | Effect::AskRenewalInfo(_) => {}
            }
        }
    }

    fn ask(&mut self, order: &ProbeOrder) {
        if self.mistake == Some(Mistake::ProbesAreLost) && order.id.is_multiple_of(3) {
            return;
        }
        let mut flight = Flight::probe(order, self.now, &self.world);
        if self.setting.kind == Kind::Stalled && self.mistake != Some(Mistake::StallsAreCounted) {
            flight = flight.patiently(order.connect);
        }
        self.launch(flight, order.connect);
    }

    /// Starts an exchange that must end within `deadline`.
    pub(crate) fn launch(&mut self, mut flight: Flight, deadline: Duration) -> u64 {
        let patience = self.setting.contract / 10;
        self.ticket += 1;
        let number = self.ticket;
        let step = flight.send(&mut self.world, &mut self.dice, self.now, patience);
        let deadline = self.now + deadline;
        let first = flight.waits(self.now);
        self.flights.insert(number, flight);
        self.at(first.unwrap_or(deadline), Due::Deadline(number));
        self.follow(number, step);
        number
    }

    fn follow(&mut self, number: u64, step: Step) {
        match step {
            Step::At(at) => {
                self.at(at, Due::Step(number));
            }
            Step::Done(result) => self.landed(number, result),
        }
    }

    fn step(&mut self, number: u64) {
        let patience = self.setting.contract / 10;
        let Some(flight) = self.flights.get_mut(&number) else { return };
        let step = flight.step(&mut self.world, &mut self.dice, self.now, patience);
        self.follow(number, step);
    }

    fn late(&mut self, number: u64) {
        let Some(flight) = self.flights.get_mut(&number) else { return };
        match flight.purpose {
            Purpose::Probe { .. } => match flight.woke(self.now) {
                Ok(next) => {
                    self.at(next, Due::Deadline(number));
                }
                Err(fault) => self.landed(number, Err(fault)),
            },
            Purpose::Attempt { .. } => self.attempt_late(number),
        }
    }

    /// An exchange is over.
    pub(crate) fn landed(&mut self, number: u64, result: Result<(), Fault>) {
        let Some(flight) = self.flights.remove(&number) else { return };
        match flight.purpose {
            Purpose::Probe { id } => self.probed(&flight, id, result),
            Purpose::Attempt { request } => self.attempted(&flight, request, result),
        }
    }

    fn probed(&mut self, flight: &Flight, mut id: u64, mut result: Result<(), Fault>) {
        let took = self.now.since(flight.began);
        self.oracle.probed(&flight.backend.id, id, result, self.now);
        let mut slot = flight.backend.slot;
        match self.mistake {
            Some(Mistake::StaleProbeIds) => id = id.saturating_sub(1),
            Some(Mistake::SilenceIsFine) if result.is_err_and(Fault::is_silence) => result = Ok(()),
            Some(Mistake::WrongAnswersAreLate) if result.is_err_and(Fault::is_answer) => {
                result = Err(Fault::ResponseTimeout);
            }
            Some(Mistake::EverythingIsSilence) if result.is_err() => result = Err(Fault::ConnectTimeout),
            Some(Mistake::WrongBackend) => slot ^= 1,
            Some(Mistake::SuccessIsDropped) if result.is_ok() => return,
            _ => {}
        }
        self.tell(Event::Probed { slot, id, result, took, said: None });
    }

    /// Starts the process: at first, and after it was killed.
    fn boot(&mut self) {
        let mut records: Vec<Record> = self.store.values().cloned().collect();
        self.mistaken_memory(&mut records);
        self.oracle.booted(self.now);
        self.world.forget_names();
        self.oracle.configured(&self.config, self.now);
        let seed = self.dice.next();
        self.fleet = Some(Fleet::new(Arc::clone(&self.config), Saved { records }, self.now, seed));
        self.take_effects();
    }
}

//! Real requests: they read what is published, pick by the pool's own rules, and move on by the phase rules.

use std::sync::Arc;

use relais_core::config::Action;
use relais_core::{Ask, Backend, Choice, Event, Fault, Health, Member, Snapshot};

use crate::engine::{Due, Run};
use crate::flight::{Flight, Purpose};
use crate::mistakes::Mistake;

/// Attempts per request.
const ATTEMPTS: usize = 4;

#[derive(Debug)]
pub(crate) struct Request {
    host: String,
    replayable: bool,
    tried: Vec<u32>,
    /// It waits for a backend rather than at one.
    parked: bool,
    /// Health of the backend as it was picked.
    seen: Health,
}

impl Run {
    pub(crate) fn arrive(&mut self, service: usize) {
        let next = self.now + self.dice.wait(self.setting.pause);
        self.at(next, Due::Arrive(service));
        let Some(plan) = self.setting.services.get(service) else { return };
        let host = format!("{}.example", plan.name);
        let replayable = self.dice.chance(0.8);
        let number = self.dice.next();
        let request = Request { host, replayable, tried: Vec::new(), parked: false, seen: Health::Up };
        self.requests.insert(number, request);
        self.count("requests");
        self.attempt(number);
    }

    /// One more attempt of a request, at whom the pool says.
    fn attempt(&mut self, number: u64) {
        let Some(reader) = self.reader.clone() else {
            self.requests.remove(&number);
            return;
        };
        let roll = self.dice.next();
        let Some(request) = self.requests.get(&number) else { return };
        let Some(pool) = reader.route(&request.host, "/") else {
            self.requests.remove(&number);
            return;
        };
        let ask = Ask {
            tried: &request.tried,
            roll,
            now: self.now,
            key: None,
            sticky: None,
            avoid_site: None,
            stream: false,
        };
        let choice = match self.mistake {
            Some(Mistake::ReaderIgnoresHealth) => any(&pool.members, roll, |_| true),
            Some(Mistake::ReaderIgnoresAdmin) => any(&pool.members, roll, |m| m.health == Health::Up),
            _ => pool.pick(&ask),
        };
        let wait = self.now + pool.timers.wait;
        match choice {
            Choice::Take(member) => {
                let (backend, seen) = (Arc::clone(&member.backend), member.health);
                let addresses = Arc::clone(&member.addresses);
                let Action::Forward(forward) = &pool.service.action else { panic!("it has backends") };
                let reach = pool.timers.reach(forward, member.away);
                self.oracle.picked(backend.slot);
                let request = self.requests.get_mut(&number).unwrap();
                request.tried.push(backend.slot);
                request.parked = false;
                request.seen = seen;
                let alive = self.world.machines[&backend.id.address].lives;
                let warm = self.warm.get(&backend.slot) == Some(&alive) && self.dice.chance(0.8);
                let flight = Flight::new(backend, Purpose::Attempt { request: number }, self.now, warm, &self.world);
                let flight = flight.to(&addresses);
                let flight = self.launch(flight, reach.connect);
                self.at(self.now + reach.overdue(), Due::Overdue(flight));
            }
            Choice::Wait => {
                let request = self.requests.get_mut(&number).unwrap();
                if !std::mem::replace(&mut request.parked, true) {
                    self.at(wait, Due::GiveUp(number));
                }
            }
            Choice::Nobody => self.refuse(number),
        }
    }

    pub(crate) fn give_up(&mut self, number: u64) {
        if self.requests.get(&number).is_some_and(|request| request.parked) {
            self.refuse(number);
        }
    }

    /// Nobody can take a request: it is answered by the edge itself. That may not be while somebody could.
    fn refuse(&mut self, number: u64) {
        let Some(request) = self.requests.remove(&number) else { return };
        self.count("refused");
        let Some(published) = self.oracle.published.clone() else { return };
        let Some(pool) = published.route(&request.host, "/") else { return };
        let left = pool.members.iter().find(|m| m.usable() && !request.tried.contains(&m.backend.slot));
        let holds = left.is_none() || request.tried.len() >= ATTEMPTS;
        let who = left.map(|member| member.backend.id.to_string());
        self.oracle.demand("nobody is refused while somebody is left", holds, || format!("{who:?}"));
    }

    /// The connect time of an attempt is over.
    pub(crate) fn attempt_late(&mut self, number: u64) {
        let Some(flight) = self.flights.get(&number) else { return };
        if !flight.asked() {
            self.landed(number, Err(Fault::ConnectTimeout));
        } else if !flight.taken {
            self.landed(number, Err(Fault::Unacknowledged));
        } else if self.now.since(flight.began) < self.setting.contract * 10 {
            // It waits for the answer.
            let end = flight.began + self.setting.contract * 10;
            self.at(end, Due::Deadline(number));
        } else {
            self.landed(number, Err(Fault::ResponseTimeout));
        }
    }

    pub(crate) fn attempted(&mut self, flight: &Flight, number: u64, result: Result<(), Fault>) {
        let Some(request) = self.requests.get(&number) else { return };
        let (seen, replayable, tried) = (request.seen, request.replayable, request.tried.len());
        let backend = &flight.backend;
        let slot = backend.slot;
        if matches!(result, Ok(()) | Err(Fault::Status(_))) {
            self.oracle.answered(&backend.id);
            if self.mistake != Some(Mistake::LatencyIsNotCounted) {
                backend.stats.latency.observe(self.now.since(flight.began));
            }
        }
        match result {
            Ok(()) => {
                if self.mistake != Some(Mistake::SuccessIsNotCounted) {
                    backend.stats.succeed(200);
                    backend.stats.serve(200);
                }
                let life = self.world.machines[&backend.id.address].lives;
                self.warm.insert(slot, life);
                self.requests.remove(&number);
                self.count("answered");
                if seen != Health::Up {
                    self.tell(Event::Served { slot, result });
                }
            }
            Err(fault) => {
                self.book(backend, fault);
                self.warm.remove(&slot);
                self.tell(Event::Served { slot, result });
                if (!flight.asked() || replayable)
                    && tried < ATTEMPTS
                    && !matches!(fault, Fault::Status(_) if !replayable)
                {
                    self.count("tried again");
                    self.attempt(number);
                } else {
                    self.requests.remove(&number);
                    self.count("failed");
                }
            }
        }
    }

    fn book(&self, backend: &Arc<Backend>, fault: Fault) {
        let next = self.reader.as_deref().and_then(|reader| crate::oracle::member(reader, backend.slot ^ 1));
        match (self.mistake, next) {
            (Some(Mistake::ErrorsAreNotCounted), _) => backend.stats.failed.inc(),
            (Some(Mistake::ErrorsOnTheNeighbour), Some(next)) => next.backend.stats.fail(fault),
            _ => backend.stats.fail(fault),
        }
    }

    /// Workers read a new snapshot: who waits at the dead is moved, who waits for somebody asks again.
    pub(crate) fn read(&mut self, snapshot: Arc<Snapshot>) {
        if self.fleet.is_none() {
            return;
        }
        let dead = |slot: u32| crate::oracle::member(&snapshot, slot).is_none_or(|member| member.dead);
        let moved: Vec<(u64, u64, bool)> = self
            .flights
            .iter()
            .filter_map(|(number, flight)| match flight.purpose {
                Purpose::Attempt { request } if dead(flight.backend.slot) => Some((*number, request, flight.asked())),
                _ => None,
            })
            .collect();
        self.reader = Some(snapshot);
        for (flight, number, asked) in moved {
            self.flights.remove(&flight);
            let Some(request) = self.requests.get(&number) else { continue };
            if (request.replayable || !asked) && request.tried.len() < ATTEMPTS {
                self.count("rescued");
                self.attempt(number);
            } else {
                self.requests.remove(&number);
                self.count("failed");
            }
        }
        let parked: Vec<u64> = self.requests.iter().filter(|(_, r)| r.parked).map(|(number, _)| *number).collect();
        for number in parked {
            self.attempt(number);
        }
    }
}

fn any<'a>(members: &'a [Member], roll: u64, allowed: impl Fn(&Member) -> bool) -> Choice<'a> {
    let left: Vec<&Member> = members.iter().filter(|member| allowed(member)).collect();
    if left.is_empty() {
        return Choice::Nobody;
    }
    Choice::Take(left[usize::try_from(roll % left.len() as u64).unwrap()])
}

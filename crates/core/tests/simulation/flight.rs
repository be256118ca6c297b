//! One exchange with a machine, packet by packet: a connect and a question, for a probe or for a real request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use relais_core::config::CheckKind;
use relais_core::{Backend, Fault, Instant, Patience, ProbeOrder, Waited};

use crate::dice::Dice;
use crate::world::{Page, Process, Trip, World};

/// First retransmission of a connect.
const CONNECT_AGAIN: Duration = Duration::from_secs(1);
/// First retransmission of data.
const DATA_AGAIN: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Probe { id: u64 },
    Attempt { request: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Asking,
}

#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) backend: Arc<Backend>,
    /// Where it goes.
    to: Option<SocketAddr>,
    pub(crate) purpose: Purpose,
    pub(crate) began: Instant,
    /// Deadline of the whole, from `began`.
    pub(crate) whole: Duration,
    /// The connect is the whole question.
    connect_only: bool,
    phase: Phase,
    /// When the last packet was sent, and whether its answer is on the way.
    sent: Instant,
    coming: Option<Result<(), Fault>>,
    tries: u32,
    /// The other kernel has taken what was sent.
    pub(crate) taken: bool,
    lives: u32,
    /// How long a probe waits: for the connect, then for the rest.
    patience: Option<Patience>,
    rest: Duration,
    looked: Instant,
}

/// What a step leads to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// Look again then.
    At(Instant),
    Done(Result<(), Fault>),
}

impl Flight {
    pub(crate) fn new(backend: Arc<Backend>, purpose: Purpose, now: Instant, warm: bool, world: &World) -> Self {
        let lives = world.machines[&backend.id.address].lives;
        let phase = if warm { Phase::Asking } else { Phase::Connecting };
        Self {
            backend,
            to: None,
            purpose,
            began: now,
            whole: Duration::MAX,
            connect_only: false,
            phase,
            sent: now,
            coming: None,
            tries: 0,
            taken: false,
            lives,
            patience: None,
            rest: Duration::ZERO,
            looked: now,
        }
    }

    pub(crate) fn probe(order: &ProbeOrder, now: Instant, world: &World) -> Self {
        let connect_only = order.check.health.kind == CheckKind::Tcp;
        let purpose = Purpose::Probe { id: order.id };
        let flight = Self::new(Arc::clone(&order.backend), purpose, now, false, world);
        Self { whole: order.timeout, connect_only, ..flight.to(&order.addresses) }
    }

    /// The same, by a prober that may stand still.
    pub(crate) fn patiently(self, connect: Duration) -> Self {
        Self { patience: Some(Patience::new(connect)), rest: self.whole.saturating_sub(connect), ..self }
    }

    /// The same, to the first of these addresses.
    pub(crate) fn to(self, addresses: &[SocketAddr]) -> Self {
        Self { to: addresses.first().copied(), ..self }
    }

    /// Whether the question has left.
    pub(crate) fn asked(&self) -> bool {
        self.phase == Phase::Asking
    }

    /// Sends, or sends again.
    pub(crate) fn send(&mut self, world: &mut World, dice: &mut Dice, now: Instant, patience: Duration) -> Step {
        self.sent = now;
        self.coming = None;
        self.tries += 1;
        match (world.trip(&self.backend.id.address, self.to, dice, now), self.phase) {
            (Trip::Lost, Phase::Connecting) => Step::At(now + CONNECT_AGAIN),
            (Trip::Lost, Phase::Asking) => Step::At(now + DATA_AGAIN * (1 << self.tries.min(6)) / 2),
            (Trip::Refused(after), Phase::Connecting) => {
                self.coming = Some(Err(Fault::Refused));
                Step::At(now + after)
            }
            (Trip::Refused(after), Phase::Asking) => {
                self.coming = Some(Err(Fault::Reset));
                Step::At(now + after)
            }
            (Trip::There(after), Phase::Connecting) => {
                self.coming = Some(Ok(()));
                Step::At(now + after)
            }
            (Trip::There(after), Phase::Asking) => self.answer(world, dice, now + after, patience),
        }
    }

    fn answer(&mut self, world: &World, dice: &mut Dice, at: Instant, patience: Duration) -> Step {
        self.taken = true;
        let machine = &world.machines[&self.backend.id.address];
        let probe = matches!(self.purpose, Purpose::Probe { .. });
        if machine.process == Process::Paused || (probe && machine.page == Page::Late) {
            // Nobody answers; look again later whether somebody does by then.
            return Step::At(at + patience);
        }
        let took = match machine.process {
            Process::Slow(time) if !probe || machine.page != Page::Good => time,
            _ => Duration::from_millis(1),
        };
        let failing = matches!(machine.process, Process::Failing(share) if dice.chance(share));
        self.coming = Some(match (probe, machine.page) {
            (true, Page::Good) => Ok(()),
            (true, Page::Bad) => Err(Fault::Status(500)),
            _ if failing => Err(Fault::Status(503)),
            _ => Ok(()),
        });
        Step::At(at + took)
    }

    /// The time of the last step has come.
    pub(crate) fn step(&mut self, world: &mut World, dice: &mut Dice, now: Instant, patience: Duration) -> Step {
        let address = &self.backend.id.address;
        if self.asked() && world.machines[address].lives != self.lives && world.passed(address, self.sent) {
            return Step::Done(Err(Fault::Reset));
        }
        match self.coming.take() {
            Some(result) if world.passed(address, self.sent) => match (self.phase, result) {
                (Phase::Connecting, Ok(())) if !self.connect_only => {
                    self.phase = Phase::Asking;
                    self.tries = 0;
                    self.lives = world.machines[address].lives;
                    self.send(world, dice, now, patience)
                }
                (_, result) => Step::Done(result),
            },
            // The answer was lost on its way: the other side sends it again.
            Some(result) if self.taken => {
                self.coming = Some(result);
                self.sent = now;
                Step::At(now + patience)
            }
            _ if self.taken && !world.passed(address, self.sent) => Step::At(now + patience),
            _ => self.send(world, dice, now, patience),
        }
    }

    /// When its prober looks again; `None`: at its deadline.
    pub(crate) fn waits(&self, now: Instant) -> Option<Instant> {
        let slice = self.patience.as_ref()?.slice().ok()?;
        Some(now + slice)
    }

    /// The prober looks again: when next, or what it has come to.
    pub(crate) fn woke(&mut self, now: Instant) -> Result<Instant, Fault> {
        let took = now.since(std::mem::replace(&mut self.looked, now));
        let (fault, end) = (self.late(), self.began + self.whole);
        let Some(patience) = &mut self.patience else {
            return if fault == Fault::ResponseTimeout && end > now { Ok(end) } else { Err(fault) };
        };
        patience.woke(took);
        if patience.slice() == Err(Waited::Whole) && fault == Fault::ResponseTimeout {
            *patience = Patience::new(std::mem::take(&mut self.rest));
        }
        match patience.slice() {
            Ok(slice) => Ok(now + slice),
            Err(Waited::Whole) => Err(fault),
            Err(Waited::Unwatched) => Err(Fault::Unwatched),
        }
    }

    /// The deadline has come.
    fn late(&self) -> Fault {
        match self.phase {
            Phase::Connecting => Fault::ConnectTimeout,
            Phase::Asking => Fault::ResponseTimeout,
        }
    }
}

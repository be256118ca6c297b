//! Staggered connect: when the first backend has not connected in the stagger time, the next one, at another site
//! first, is tried beside it; the first to connect wins. Nothing of the request is sent here.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use relais_core::config::Forward;
use relais_core::{Choice, Fault, InFlight, Left, Member};
use tokio::sync::oneshot;

use crate::access::Ticket;
use crate::connector::{self, Goal};
use crate::exchange::Exchange;
use crate::pool::{Slot, Verdicts};
use crate::sender::Sender;

/// Connects under way beside one another at most.
const MOST: usize = 3;

/// A backend and a connection to it.
pub(crate) struct Connected {
    pub(crate) member: Member,
    pub(crate) reused: bool,
    /// In a box, as it goes through many hands.
    pub(crate) link: Box<Link>,
}

/// A connection that takes one request.
pub(crate) struct Link {
    pub(crate) slot: Arc<Slot>,
    pub(crate) sender: Sender,
    /// Verdicts on the backend when it was chosen: whatever comes after is news for this attempt.
    pub(crate) before: Verdicts,
    /// The same request waits elsewhere too.
    pub(crate) beside: bool,
    /// Where it was connected for this request: in flight there since then. Else all that come at once would see the same
    /// free place.
    pub(crate) place: Option<InFlight>,
}

/// Which kept connections may be used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reuse {
    pub(crate) h1: bool,
    pub(crate) h2: bool,
}

/// Connects under way. Those that are left when it ends were abandoned.
struct Runners<'a> {
    list: Vec<Runner>,
    ticket: &'a mut Ticket,
}

impl Drop for Runners<'_> {
    fn drop(&mut self) {
        for runner in &self.list {
            self.ticket.attempted(&runner.member, "connect_abandoned", runner.since);
        }
    }
}

struct Runner {
    member: Member,
    slot: Arc<Slot>,
    before: Verdicts,
    since: Instant,
    result: oneshot::Receiver<Result<Sender, Fault>>,
    place: InFlight,
}

/// Connects to `first`, or to whoever is faster. A backend that failed is added to `exchange.unreached`; the fault of the
/// last one is returned when all failed.
pub(crate) async fn connect(
    exchange: &mut Exchange,
    forward: &Forward,
    first: Member,
    reuse: Reuse,
    ticket: &mut Ticket,
) -> Result<Connected, Fault> {
    let mut runners = Runners { list: Vec::new(), ticket };
    if let Some(connected) = start(exchange, forward, first, reuse, &mut runners.list) {
        return Ok(connected);
    }
    let mut asked = false;
    loop {
        // Of the one that was asked last: how far away another is, is no reason to wait for this one.
        let last = runners.list.iter().max_by_key(|runner| runner.since);
        let away = last.map_or(Duration::ZERO, |runner| runner.member.away);
        let reach = exchange.pool.timers.reach(forward, away);
        let overdue = reach.overdue();
        let patience = if asked { reach.stagger.saturating_sub(overdue) } else { overdue };
        let finished = tokio::time::timeout(patience, next(&mut runners.list)).await;
        exchange.now = Instant::now();
        match finished {
            Ok((runner, Ok(sender))) => {
                overtaken(exchange, &runners.list, runner.since);
                let Runner { member, slot, before, since, place, .. } = runner;
                runners.ticket.connected(&member, since);
                let link = Box::new(Link { slot, sender, before, beside: false, place: Some(place) });
                return Ok(Connected { member, reused: false, link });
            }
            Ok((runner, Err(fault))) => {
                runners.ticket.attempted(&runner.member, fault.as_str(), runner.since);
                exchange.pool.stats.retried(fault.as_str());
                exchange.client.worker.left(runner.member.backend.slot, runner.since, Left::Failed);
                if fault.is_silence() {
                    exchange.avoid_site = Some(Arc::clone(&runner.member.backend.id.site));
                }
                exchange.unreached.push(runner.member.backend.slot);
                if runners.list.is_empty() {
                    return Err(fault);
                }
            }
            Err(_) if !asked => {
                // Not yet time for another backend, but for the question whether this one lives.
                asked = true;
                for runner in &runners.list {
                    exchange.client.worker.press(&runner.slot, runner.member.backend.slot, overdue);
                }
            }
            Err(_) if runners.list.len() < MOST => {
                asked = false;
                if let Some(connected) = start_beside(exchange, forward, reuse, &mut runners.list) {
                    overtaken(exchange, &runners.list, Instant::now());
                    return Ok(connected);
                }
            }
            Err(_) => {}
        }
    }
}

/// Those that were asked before the one that won: the request left them.
fn overtaken(exchange: &Exchange, runners: &[Runner], before: Instant) {
    for runner in runners.iter().filter(|runner| runner.since < before) {
        exchange.client.worker.left(runner.member.backend.slot, runner.since, Left::Overtaken);
    }
}

/// Takes a kept connection; or says where there is none.
pub(crate) fn kept(
    exchange: &Exchange,
    forward: &Forward,
    member: &Member,
    reuse: Reuse,
) -> Result<Box<Link>, (Arc<Slot>, Verdicts)> {
    let slot = exchange.client.worker.connections.slot(&member.backend);
    let before = slot.verdicts();
    let kept = if reuse.h2 { slot.take_shared() } else { None };
    // An upgrade needs HTTP/1.1 and a connection of its own.
    let kept = kept.filter(|_| exchange.upgrade.is_none());
    let kept = kept.or_else(|| if reuse.h1 { slot.take_idle(forward.keep_idle_for, exchange.now) } else { None });
    match kept {
        Some(sender) => Ok(Box::new(Link { slot, sender, before, beside: false, place: None })),
        None => Err((slot, before)),
    }
}

/// Takes a kept connection, or starts a connect.
fn start(
    exchange: &Exchange,
    forward: &Forward,
    member: Member,
    reuse: Reuse,
    runners: &mut Vec<Runner>,
) -> Option<Connected> {
    let (slot, before) = match kept(exchange, forward, &member, reuse) {
        Ok(link) => return Some(Connected { member, reused: true, link }),
        Err(none) => none,
    };
    let goal = Goal::new(exchange, forward, &member, &slot);
    let result = connector::connect(&exchange.client.worker, goal);
    let place = member.backend.enter().as_stream(exchange.stream);
    // Mostly it stays the only one.
    runners.reserve_exact(1);
    runners.push(Runner { member, slot, before, since: Instant::now(), result, place });
    None
}

/// Starts another backend beside those that have not connected yet, at another site if there is one.
fn start_beside(
    exchange: &mut Exchange,
    forward: &Forward,
    reuse: Reuse,
    runners: &mut Vec<Runner>,
) -> Option<Connected> {
    let mut taken = exchange.tried.clone();
    taken.extend(&exchange.unreached);
    taken.extend(runners.iter().map(|runner| runner.member.backend.slot));
    let slow_site = runners.last().map(|runner| Arc::clone(&runner.member.backend.id.site));
    let Choice::Take(member) = exchange.pool.pick(&exchange.ask(&taken, slow_site.as_deref())) else {
        return None;
    };
    let member = member.clone();
    exchange.pool.stats.retried("stagger");
    start(exchange, forward, member, reuse, runners)
}

/// The next connect to finish, either way.
async fn next(runners: &mut Vec<Runner>) -> (Runner, Result<Sender, Fault>) {
    poll_fn(|cx| {
        for i in 0..runners.len() {
            if let Poll::Ready(result) = Pin::new(&mut runners[i].result).poll(cx) {
                // A connect task that vanished (its runtime is stopping) counts as a reset.
                return Poll::Ready((runners.swap_remove(i), result.unwrap_or(Err(Fault::Reset))));
            }
        }
        Poll::Pending
    })
    .await
}

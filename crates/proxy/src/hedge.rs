//! Hedging: a slow request is sent to a second backend as well, and the first answer wins. Only what has no body and fits into
//! the retry budget.
//!
//! For services that ask for it: what may be sent twice, when it is slower than 95 % of its kind. For all others: what changes
//! nothing, when it has waited for longer than the contract and than practically any answer of its kind ever took. Then it is
//! hardly slow: its answer does not arrive, as where a path loses all large packets. Or when it waits at a backend that has
//! become suspect: the verdict may take as long again.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use relais_core::config::Forward;
use relais_core::{Backend, Choice, Fault, Health, Left, Member, hedge};

use crate::access::Ticket;
use crate::connector::{self, Goal};
use crate::exchange::Exchange;
use crate::forward::{self, Answer, Outcome};
use crate::race::Link;

/// An answer that came while another one was waited for.
pub(crate) struct Better {
    pub(crate) member: Box<Member>,
    pub(crate) answer: Box<Answer>,
    pub(crate) started: Instant,
    /// The one asked first is dead, or may be.
    pub(crate) dead: bool,
}

/// What may become of asking elsewhere.
pub(crate) type Second<'a> = Pin<Box<dyn Future<Output = Option<Better>> + Send + 'a>>;

/// After how long a wait for the head of an answer another backend is asked beside. `None`: never.
pub(crate) fn unusual_after(exchange: &Exchange, forward: &Forward) -> Option<Duration> {
    if may_ask_beside(exchange, forward) { unusual(exchange) } else { None }
}

/// Longer than that practically no answer of its kind took. `None`: not known, or it may change something.
pub(crate) fn unusual(exchange: &Exchange) -> Option<Duration> {
    if !is_harmless(exchange) {
        return None;
    }
    hedge::unusual_after(&exchange.pool)
}

/// Whether a second attempt changes nothing but the load, the request has one left, and its service does not ask beside as it is.
pub(crate) fn may_ask_beside(exchange: &Exchange, forward: &Forward) -> bool {
    is_harmless(exchange) && exchange.has_attempts(forward) && !forward.retry.hedge
}

fn is_harmless(exchange: &Exchange) -> bool {
    exchange.head.method.is_safe() && exchange.body.is_none() && !exchange.stream
}

/// Asks another backend than this one, which is late, unless that one lets others wait as well: a pool that is slow as a whole
/// shall not have to do its work twice.
pub(crate) fn elsewhere_if_late<'a>(
    exchange: &'a Exchange,
    forward: &'a Forward,
    first: &Backend,
) -> Option<Second<'a>> {
    let struggles = |other: &Backend| other.stats.overdue.get() * 2 > first.stats.overdue.get();
    ask_elsewhere(exchange, forward, first, false, struggles)
}

/// Asks another backend than this one, which may be dead.
pub(crate) fn elsewhere<'a>(exchange: &'a Exchange, forward: &'a Forward, first: &Backend) -> Option<Second<'a>> {
    ask_elsewhere(exchange, forward, first, true, |_| false)
}

/// Another backend, at another site if there is one. `None`: there is nobody but suspects, or who is there is `unfit`, or there
/// is no budget for it.
fn ask_elsewhere<'a>(
    exchange: &'a Exchange,
    forward: &'a Forward,
    first: &Backend,
    dead: bool,
    unfit: impl Fn(&Backend) -> bool,
) -> Option<Second<'a>> {
    let mut tried = exchange.tried.clone();
    tried.push(first.slot);
    let pool = exchange.newest();
    let Choice::Take(member) = pool.pick(&exchange.ask(&tried, Some(&first.id.site))) else { return None };
    let fit = member.health == Health::Up && !unfit(&member.backend);
    if !fit || !exchange.afford(forward, Instant::now()) {
        return None;
    }
    exchange.pool.stats.retried("hedged");
    let member = member.clone();
    Some(Box::pin(async move {
        let Sent { other, outcome, started, .. } = beside(exchange, forward, member).await;
        // What is wrong there may be right here.
        match (other, outcome) {
            (Some(member), Outcome::Answer(answer)) if !answer.response.status().is_server_error() => {
                Some(Better { member, answer, started, dead })
            }
            _ => None,
        }
    }))
}

/// How an attempt, or the better of two, ended.
pub(crate) struct Sent {
    /// `None`: the one that was asked first.
    pub(crate) other: Option<Box<Member>>,
    pub(crate) reused: bool,
    pub(crate) outcome: Outcome,
    /// When this attempt began.
    pub(crate) started: Instant,
}

/// Sends on a connection; beside it, if it takes too long, on another.
pub(crate) async fn send(
    exchange: &Exchange,
    forward: &Forward,
    member: &Member,
    link: Box<Link>,
    reused: bool,
    ticket: &mut Ticket,
) -> Sent {
    let started = exchange.now;
    if forward.retry.hedge
        && exchange.idempotent
        && exchange.body.is_none()
        && exchange.upgrade.is_none()
        && let Some(after) = hedge::slow_after(&exchange.pool)
    {
        // In a box: few services ask for it, and all would carry the room for it.
        return Box::pin(hedged(exchange, forward, (member, link, reused), after, ticket)).await;
    }
    // In a box of its own, made there: with all that is around it, it would be of a size that the allocator is slow with.
    let room = Box::new_uninit();
    let outcome = Box::into_pin(Box::write(room, forward::send(exchange, forward, member, link, started))).await;
    Sent { other: None, reused, outcome, started }
}

/// Sends on a connection, and after that time on another one too.
async fn hedged(
    exchange: &Exchange,
    forward: &Forward,
    (member, link, reused): (&Member, Box<Link>, bool),
    after: Duration,
    ticket: &mut Ticket,
) -> Sent {
    let started = exchange.now;
    let mut first = pin!(forward::send(exchange, forward, member, link, started));
    tokio::select! {
        biased;
        outcome = &mut first => return Sent { other: None, reused, outcome, started },
        () = tokio::time::sleep(after) => {}
    }
    let Some(other) = choose(exchange, forward, member) else {
        let outcome = first.await;
        return Sent { other: None, reused, outcome, started };
    };
    let hedged = Instant::now();
    exchange.pool.stats.retried("hedged");
    let mut second = Box::pin(beside(exchange, forward, other.clone()));
    tokio::select! {
        outcome = &mut first => {
            if matches!(outcome, Outcome::Answer(_)) {
                ticket.attempted(&other, "hedge_slower", hedged);
                return Sent { other: None, reused, outcome, started };
            }
            let answer = second.await;
            if matches!(answer.outcome, Outcome::Answer(_)) {
                ticket.attempted(member, "hedge_failed", started);
                let left = match outcome {
                    Outcome::Rescued(_) => Some(Left::Rescued),
                    // A kept connection that was closed as it was taken says nothing.
                    Outcome::Failed(fault) if !reused || fault != Fault::Reset => Some(Left::Failed),
                    _ => None,
                };
                left.into_iter().for_each(|how| exchange.client.worker.left(member.backend.slot, started, how));
                return answer;
            }
            Sent { other: None, reused, outcome, started }
        }
        answer = &mut second => {
            if matches!(answer.outcome, Outcome::Answer(_)) {
                ticket.attempted(member, "hedge_slower", started);
                exchange.client.worker.left(member.backend.slot, started, Left::Late);
                return answer;
            }
            ticket.attempted(&other, "hedge_failed", hedged);
            let outcome = first.await;
            Sent { other: None, reused, outcome, started }
        }
    }
}

/// Another backend, if there is one and the budget allows it.
fn choose(exchange: &Exchange, forward: &Forward, first: &Member) -> Option<Member> {
    let mut tried = exchange.tried.clone();
    tried.push(first.backend.slot);
    let Choice::Take(member) = exchange.pool.pick(&exchange.ask(&tried, None)) else { return None };
    exchange.afford(forward, Instant::now()).then(|| member.clone())
}

/// The second attempt, on a kept or a fresh connection. It is charged from when it is sent, as the first one is.
async fn beside(exchange: &Exchange, forward: &Forward, member: Member) -> Sent {
    let worker = &exchange.client.worker;
    let slot = worker.connections.slot(&member.backend);
    let before = slot.verdicts();
    let began = Instant::now();
    let place = Some(member.backend.enter().as_stream(exchange.stream));
    let kept = slot.take_shared().or_else(|| slot.take_idle(forward.keep_idle_for, began));
    let (sender, started) = match kept {
        Some(sender) => (sender, began),
        None => {
            let goal = Goal::new(exchange, forward, &member, &slot);
            match connector::connect(worker, goal).await.unwrap_or(Err(Fault::Reset)) {
                Ok(sender) => (sender, Instant::now()),
                Err(fault) => {
                    let outcome = Outcome::Failed(fault);
                    return Sent { other: Some(Box::new(member)), reused: false, outcome, started: began };
                }
            }
        }
    };
    let link = Box::new(Link { slot, sender, before, beside: true, place });
    let outcome = forward::send(exchange, forward, &member, link, started).await;
    // Beside another attempt it is not worth a repetition: what it met is not told apart.
    Sent { other: Some(Box::new(member)), reused: false, outcome, started }
}

//! Hedging, for services that ask for it: a request slower than 95 % of its kind is sent to a second backend as well,
//! and the first answer wins. Only what may be sent twice, has no body and fits into the retry budget.

use std::pin::pin;
use std::time::{Duration, Instant};

use relais_core::config::Forward;
use relais_core::stats::BUCKETS;
use relais_core::{Choice, Fault, Member, Pool};

use crate::access::Ticket;
use crate::connector::{self, Goal};
use crate::exchange::Exchange;
use crate::forward::{self, Outcome};
use crate::race::Link;

/// Answers that must have been seen before their 95th percentile means anything.
const LEAST_SEEN: u64 = 100;

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
    link: Link,
    reused: bool,
    ticket: &mut Ticket,
) -> Sent {
    let started = exchange.now;
    if forward.retry.hedge
        && exchange.idempotent
        && exchange.body.is_none()
        && exchange.upgrade.is_none()
        && let Some(after) = slow_after(&exchange.pool)
    {
        // In a box: few services ask for it, and all would carry the room for it.
        return Box::pin(hedged(exchange, forward, (member, link, reused), after, ticket)).await;
    }
    let outcome = forward::send(exchange, forward, member, link, started).await;
    Sent { other: None, reused, outcome, started }
}

/// Sends on a connection, and after that time on another one too.
async fn hedged(
    exchange: &Exchange,
    forward: &Forward,
    (member, link, reused): (&Member, Link, bool),
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
                return answer;
            }
            Sent { other: None, reused, outcome, started }
        }
        answer = &mut second => {
            if matches!(answer.outcome, Outcome::Answer(_)) {
                ticket.attempted(member, "hedge_slower", started);
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
    let now = exchange.client.worker.now();
    exchange.pool.shared.budget.spend(forward.retry.budget_floor, now).then(|| member.clone())
}

/// The second attempt, on a kept or a fresh connection. It is charged from when it is sent, as the first one is.
async fn beside(exchange: &Exchange, forward: &Forward, member: Member) -> Sent {
    let worker = &exchange.client.worker;
    let slot = worker.connections.slot(&member.backend);
    let before = slot.verdicts();
    let began = Instant::now();
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
    let link = Link { slot, sender, before };
    let outcome = forward::send(exchange, forward, &member, link, started).await;
    // Beside another attempt it is not worth a repetition: what it met is not told apart.
    Sent { other: Some(Box::new(member)), reused: false, outcome, started }
}

/// The 95th percentile of what the pool's backends needed for a response head.
fn slow_after(pool: &Pool) -> Option<Duration> {
    let mut counts = [0_u64; BUCKETS.len() + 1];
    for member in &pool.members {
        let (buckets, _) = member.backend.stats.latency.read();
        for (sum, count) in counts.iter_mut().zip(buckets) {
            *sum += count;
        }
    }
    percentile(&counts, 95).map(Duration::from_micros)
}

/// A percentile of a histogram in microseconds: linear inside its bucket; `None` with too few answers, or above the last bound.
fn percentile(counts: &[u64; BUCKETS.len() + 1], percent: u64) -> Option<u64> {
    let total: u64 = counts.iter().sum();
    if total < LEAST_SEEN {
        return None;
    }
    let mut left = total * percent / 100;
    let mut lower = 0;
    for (count, upper) in counts.iter().zip(BUCKETS) {
        if *count >= left && *count > 0 {
            return Some(lower + (upper - lower) * left / count);
        }
        left = left.saturating_sub(*count);
        lower = upper;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_lies_in_the_right_bucket() {
        let mut counts = [0; BUCKETS.len() + 1];
        counts[0] = 90;
        counts[4] = 10;
        let found = percentile(&counts, 95).unwrap();
        assert!((10_000..=25_000).contains(&found), "{found}");
        counts[0] = 50;
        assert_eq!(percentile(&counts, 95), None, "too few answers");
        let slow = {
            let mut counts = [0; BUCKETS.len() + 1];
            counts[BUCKETS.len()] = 1000;
            counts
        };
        assert_eq!(percentile(&slow, 95), None);
    }
}

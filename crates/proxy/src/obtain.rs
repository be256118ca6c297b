//! Finding a backend and a connection to it. Nothing of the request is sent in here, so every failure moves on: to
//! another backend at once, to the same one after a pause when there is no other, until patience ends.

use std::time::{Duration, Instant};

use relais_core::config::Forward;
use relais_core::stats::ServiceStats;
use relais_core::{Admin, Choice, Fault, Member};

use crate::access::Ticket;
use crate::answer::Failure;
use crate::exchange::Exchange;
use crate::race::{self, Connected};

/// Pause before backends that could not be reached are tried again, when there is no other.
const PAUSE: Duration = Duration::from_millis(50);
/// Connects of one request at most, however patient its service is.
const MOST_CONNECTS: usize = 32;

/// Finds a connection, or says why there is none. `fresh`: kept ones are not wanted.
pub(crate) async fn obtain(
    exchange: &mut Exchange,
    forward: &Forward,
    fresh: bool,
    ticket: &mut Ticket,
) -> Result<Connected, Failure> {
    match at_once(exchange, forward, fresh) {
        Ok(connected) => Ok(connected),
        // In a box: it is large, and most requests find what they need at once.
        Err(picked) => Box::pin(wait(exchange, forward, fresh, picked, ticket)).await,
    }
}

/// A kept connection to whom the pool picks; or whom it picked.
fn at_once(exchange: &mut Exchange, forward: &Forward, fresh: bool) -> Result<Connected, Picked> {
    exchange.unreached.clear();
    let member = match pick(exchange) {
        Picked::Member(member) => member,
        none => return Err(none),
    };
    match race::kept(exchange, forward, &member, reuse(exchange, fresh)) {
        Ok(link) => Ok(Connected { member, reused: true, link }),
        Err(_) => Err(Picked::Member(member)),
    }
}

/// A request that must not be sent twice never goes out on a kept-alive connection that may be closing: over HTTP/1.1
/// nobody could tell whether it was received. HTTP/2 tells (GOAWAY, REFUSED_STREAM).
fn reuse(exchange: &Exchange, fresh: bool) -> race::Reuse {
    race::Reuse { h1: exchange.replayable() && !fresh, h2: !fresh }
}

/// Waits for a backend and a connection. `picked`: what the pool said already.
async fn wait(
    exchange: &mut Exchange,
    forward: &Forward,
    fresh: bool,
    picked: Picked,
    ticket: &mut Ticket,
) -> Result<Connected, Failure> {
    let give_up = exchange.now + exchange.pool.timers.wait;
    let reuse = reuse(exchange, fresh);
    let mut fault: Option<Fault> = None;
    let mut picked = Some(picked);
    for _ in 0..MOST_CONNECTS {
        let picked = picked.take().unwrap_or_else(|| pick(exchange));
        let member = choose(exchange, forward, picked, give_up, fault).await?;
        match race::connect(exchange, forward, member, reuse, ticket).await {
            Ok(connected) => return Ok(connected),
            Err(failed) => {
                fault = Some(failed);
                exchange.now = Instant::now();
                exchange.refresh();
            }
        }
    }
    Err(last_word(exchange, fault))
}

/// The next backend to try, `picked` if it is one; waits for one where waiting has a point.
async fn choose(
    exchange: &mut Exchange,
    forward: &Forward,
    mut picked: Picked,
    give_up: Instant,
    fault: Option<Fault>,
) -> Result<Member, Failure> {
    let (mut waiting, mut verdict): (Option<Waiting>, Option<Instant>) = (None, None);
    loop {
        let pause = match picked {
            Picked::Member(member) => return Ok(member),
            // Places at backends that are full come free without a snapshot.
            Picked::Wait if exchange.pool.members.iter().any(Member::usable) => PAUSE / 10,
            Picked::Wait => PAUSE,
            // Sent to every one of them: what the last one did is the answer, unless that one broke off.
            Picked::Nobody if exchange.was_everywhere(forward) => {
                // Who broke it off may have died, and be called down in a moment: then it waits like all who come now.
                let verdict = *verdict.get_or_insert_with(|| exchange.now + exchange.pool.timers.near().overdue());
                if !exchange.was_lost_with_the_last(forward) {
                    return Err(last_word(exchange, fault));
                } else if exchange.now < verdict {
                    verdict - exchange.now
                } else if exchange.takes_second_chance(forward) {
                    PAUSE / 10
                } else {
                    return Err(last_word(exchange, fault));
                }
            }
            Picked::Nobody if forward.maintenance.is_some() || !exchange.worth_waiting_for() => {
                return Err(last_word(exchange, fault));
            }
            // Those that could not be reached, or went down over this request, may be back in a moment.
            Picked::Nobody => {
                if !exchange.tried.is_empty() && exchange.outlives_all(forward) {
                    exchange.use_second_chance();
                }
                PAUSE
            }
        };
        if waiting.is_none() {
            waiting = Some(Waiting::join(exchange, forward)?);
        }
        if wait_for_change(exchange, pause, give_up).await {
            if matches!(picked, Picked::Nobody) {
                exchange.unreached.clear();
            }
            picked = pick(exchange);
        } else if let Picked::Member(member) = pick(exchange) {
            // It came up in the last moment.
            return Ok(member);
        } else {
            return Err(last_word(exchange, fault));
        }
    }
}

enum Picked {
    Member(Member),
    Wait,
    Nobody,
}

/// Asks the pool; backends that asked for a rest (`Retry-After`) only when there is no other.
fn pick(exchange: &Exchange) -> Picked {
    let worker = &exchange.client.worker;
    let mut avoid = exchange.tried.get(exchange.second_chance.bygone()..).unwrap_or_default().to_vec();
    avoid.extend(&exchange.unreached);
    let site = exchange.avoid_site.as_deref();
    let resting = worker.connections.resting(&exchange.pool, || exchange.clock());
    if !resting.is_empty() {
        let mut rested = avoid.clone();
        rested.extend(resting);
        if let Choice::Take(member) = exchange.pool.pick(&exchange.ask(&rested, site)) {
            return Picked::Member(member.clone());
        }
    }
    match exchange.pool.pick(&exchange.ask(&avoid, site)) {
        Choice::Take(member) => Picked::Member(member.clone()),
        Choice::Wait => Picked::Wait,
        Choice::Nobody => Picked::Nobody,
    }
}

/// A place in the service's queue; given back on drop.
struct Waiting(std::sync::Arc<ServiceStats>);

impl Waiting {
    fn join(exchange: &Exchange, forward: &Forward) -> Result<Self, Failure> {
        let stats = std::sync::Arc::clone(&exchange.pool.stats);
        if stats.waiting.get() >= u64::from(forward.max_queue) {
            return Err(Failure::NoBackend("too many requests wait for a backend"));
        }
        stats.waiting.inc();
        Ok(Self(stats))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.dec();
    }
}

/// With a usable backend left its last fault is the answer; with none it is a 503.
fn last_word(exchange: &Exchange, fault: Option<Fault>) -> Failure {
    match fault {
        Some(fault) if exchange.pool.members.iter().any(Member::usable) => {
            Failure::Backend { fault, possibly_received: false }
        }
        _ => Failure::NoBackend(nobody(exchange)),
    }
}

/// Why there is nobody to ask.
fn nobody(exchange: &Exchange) -> &'static str {
    let is = |word: Admin| exchange.pool.members.iter().all(|member| member.admin == word);
    if is(Admin::Draining) {
        "the operator drains every backend"
    } else if is(Admin::Disabled) {
        "the operator has disabled every backend"
    } else if exchange.pool.members.iter().any(Member::usable) {
        "every backend has as many requests as it may have"
    } else if exchange.pool.members.iter().any(|member| member.trial.is_some()) {
        "no backend is up; those that answer their checks wrongly are tried by one request at a time"
    } else if exchange.worth_waiting_for() {
        "no backend is up"
    } else {
        "the operator drains or has disabled every backend"
    }
}

/// Waits for the next snapshot, a free place at a backend, or a pause; `false`: patience is at its end.
async fn wait_for_change(exchange: &mut Exchange, pause: Duration, give_up: Instant) -> bool {
    let mut changed = exchange.client.worker.shared.changed.clone();
    changed.mark_unchanged();
    exchange.refresh();
    let now = Instant::now();
    if now >= give_up {
        return false;
    }
    let _ = tokio::time::timeout(pause.min(give_up - now), changed.changed()).await;
    exchange.now = Instant::now();
    exchange.refresh();
    true
}

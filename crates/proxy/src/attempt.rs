//! The attempt loop: one request, as many tries as its phase rules allow.
//!
//! The rules (law): nothing sent -> always another backend. Sent, no answer -> only idempotent methods (RFC 9110
//! 9.2.2) or an `Idempotency-Key`, and only while the body can be sent again; the same where a small answer breaks of
//! which the client has nothing yet. Answer begun towards the client -> never again. A backend tried in this request is
//! not tried again while another is left; with none left, once more if its connection broke: it may just have died.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use http::Response;
use relais_core::config::Forward;
use relais_core::{Choice, Event, Fault, Health, Left, Member};

use crate::access::Ticket;
use crate::answer::{self, Failure};
use crate::exchange::Exchange;
use crate::forward::{self, Outcome};
use crate::hedge;
use crate::obtain;
use crate::race::{Connected, Link};
use crate::response_body::ResponseBody;

/// How one attempt ended, for the loop.
enum Next {
    /// In a box, as it goes through many hands.
    Done(Box<Response<ResponseBody>>),
    /// Tried elsewhere, if there is an elsewhere.
    Again(Failure),
    /// The same: the backend was declared down.
    Rescued(Failure),
    /// Tried on a fresh connection, to the same backend if it is chosen again.
    Stale(Failure),
    GiveUp(Failure),
}

/// Runs the attempts of one request.
pub(crate) async fn run(
    mut exchange: Box<Exchange>,
    ticket: &mut Box<Ticket>,
) -> Result<Box<Response<ResponseBody>>, Failure> {
    let pool = Arc::clone(&exchange.pool);
    let relais_core::config::Action::Forward(forward) = &pool.service.action else {
        return Err(Failure::NoRoute);
    };
    pool.shared.budget.earn(forward.retry.budget_percent);
    let result = match exchange.deadline {
        None => attempts(&mut exchange, forward, ticket).await,
        Some(deadline) => {
            // In a box: few services set one, and all would carry the room for it.
            let attempts = Box::pin(attempts(&mut exchange, forward, ticket));
            match tokio::time::timeout_at(deadline.into(), attempts).await {
                Ok(result) => result,
                Err(_) => Err(Failure::RequestTimeout),
            }
        }
    };
    if let Err(failure) = &result {
        count_lost(&exchange, *failure, ticket);
        if let Failure::NoBackend(why) = failure {
            ticket.not_replayed.get_or_insert(why);
        }
    }
    ticket.bytes_in = exchange.body.as_ref().map_or(0, |body| body.read());
    match (result, &forward.maintenance) {
        (Err(Failure::NoBackend(_) | Failure::Backend { possibly_received: false, .. }), Some(page)) => {
            Ok(Box::new(answer::static_answer(page)))
        }
        (Ok(mut response), _) => {
            response.body_mut().arm(exchange);
            Ok(response)
        }
        (Err(failure), _) => Err(failure),
    }
}

/// A request that failed although it could have been sent again, or was never sent.
fn count_lost(exchange: &Exchange, failure: Failure, ticket: &Ticket) {
    let ours = match failure {
        Failure::NoBackend(_) | Failure::Backend { possibly_received: false, .. } => true,
        Failure::RequestTimeout => exchange.replayable(),
        _ => false,
    };
    if ours && !matches!(ticket.not_replayed, Some("body_not_kept" | "not_idempotent")) {
        exchange.pool.stats.lost.inc();
    }
}

async fn attempts(
    exchange: &mut Exchange,
    forward: &Forward,
    ticket: &mut Box<Ticket>,
) -> Result<Box<Response<ResponseBody>>, Failure> {
    let mut failure = Failure::NoBackend("no backend is up");
    let mut fresh = false;
    let mut left = forward.retry.attempts.max(1);
    while left > 0 {
        let Connected { member, reused, link } = match obtain::obtain(exchange, forward, fresh, ticket).await {
            Ok(connected) => connected,
            // What the last attempt met says more than "nobody left".
            Err(Failure::NoBackend(_)) if exchange.tried.len() > exchange.second_chance.bygone() => {
                return Err(failure);
            }
            Err(other) => return Err(other),
        };
        let slot = member.backend.slot;
        if exchange.second_chance.bygone() > 0 {
            // What it may break it has broken once: whoever has it now is the last one.
            left = 1;
        }
        let next = one(exchange, forward, &member, link, reused, ticket).await;
        let rescued = matches!(next, Next::Rescued(_));
        match next {
            Next::Done(response) => return Ok(response),
            Next::GiveUp(reason) => return Err(reason),
            Next::Stale(reason) => {
                failure = reason;
                fresh = true;
                // A kept connection that was closed under us says nothing about the backend: once more, afresh. A new
                // one does: the backend took nothing on it.
                if !reused {
                    left -= 1;
                    exchange.tried.push(slot);
                }
            }
            Next::Again(reason) | Next::Rescued(reason) => {
                failure = reason;
                fresh = false;
                left -= 1;
                exchange.tried.push(slot);
            }
        }
        exchange.broke = rescued || matches!(failure, Failure::Backend { fault, .. } if fault.is_transport());
        exchange.now = Instant::now();
        exchange.refresh();
    }
    Err(failure)
}

/// Sends the request on a connection and judges what came of it.
async fn one(
    exchange: &mut Exchange,
    forward: &Forward,
    member: &Member,
    link: Box<Link>,
    reused: bool,
    ticket: &mut Box<Ticket>,
) -> Next {
    let stats = &member.backend.stats;
    if reused {
        // It was there at once.
        stats.reused.inc()
    } else {
        exchange.now = Instant::now();
        stats.connected.inc()
    }
    let sent = hedge::send(exchange, forward, member, link, reused, ticket).await;
    let hedge::Sent { other, reused, outcome, started } = sent;
    let member = other.as_deref().unwrap_or(member);
    match outcome {
        Outcome::Answer(answer) => answered(exchange, forward, member, answer, started, ticket).await,
        Outcome::Client(fault) => {
            ticket.attempted(member, "client", started);
            Next::GiveUp(fault.into())
        }
        Outcome::NotSent => {
            ticket.attempted(member, "closed_before_sent", started);
            let failure = Failure::Backend { fault: Fault::Reset, possibly_received: false };
            // A refused HTTP/2 stream may have taken body bytes with it.
            if exchange.body.as_ref().is_none_or(|body| body.replayable()) {
                Next::Stale(failure)
            } else {
                Next::GiveUp(failure)
            }
        }
        Outcome::Failed(fault) if reused && fault == Fault::Reset && exchange.replayable() => {
            // The race every keep-alive connection has: the backend closed it as we wrote.
            ticket.attempted(member, "stale_connection", started);
            Next::Stale(Failure::Backend { fault, possibly_received: true })
        }
        Outcome::Failed(fault) => {
            evidence(exchange, member, Err(fault));
            if fault == Fault::Unacknowledged {
                let worker = &exchange.client.worker;
                worker.connections.slot(&member.backend).distrust(worker.now());
            }
            failed(exchange, forward, member, fault, fault.as_str(), started, ticket)
        }
        Outcome::InVain => {
            ticket.attempted(member, "in_vain", started);
            Next::GiveUp(Failure::NoBackend("no backend answers: each lets requests wait that it used to answer soon"))
        }
        Outcome::Rescued(fault) => failed(exchange, forward, member, fault, "rescued", started, ticket),
        Outcome::Overtaken(by) => {
            ticket.attempted(member, "hedge_slower", started);
            late(exchange, member, by.dead, started);
            // It has had it too, whatever it made of it.
            exchange.tried.push(by.member.backend.slot);
            answered(exchange, forward, &by.member, by.answer, by.started, ticket).await
        }
    }
}

/// Another one that was asked beside was faster.
fn late(exchange: &Exchange, member: &Member, dead: bool, started: Instant) {
    if !dead {
        // Too late, as its pool shows. No more than that: it may only have paused.
        member.backend.stats.fail(Fault::ResponseTimeout);
    }
    let how = if dead { Left::Overtaken } else { Left::Late };
    exchange.client.worker.left(member.backend.slot, started, how);
}

fn evidence(exchange: &Exchange, member: &Member, result: Result<(), Fault>) {
    if let Err(fault) = result {
        member.backend.stats.fail(fault);
    }
    exchange.client.worker.report(Event::Served { slot: member.backend.slot, result });
}

/// The request was sent and not answered: may it be tried elsewhere?
fn failed(
    exchange: &mut Exchange,
    forward: &Forward,
    member: &Member,
    fault: Fault,
    reason: &'static str,
    started: Instant,
    ticket: &mut Ticket,
) -> Next {
    ticket.attempted(member, reason, started);
    let failure = Failure::Backend { fault, possibly_received: !exchange.idempotent };
    if !exchange.replayable() {
        exchange.pool.stats.not_replayable.inc();
        ticket.not_replayed = Some(if exchange.idempotent { "body_not_kept" } else { "not_idempotent" });
        exchange.client.worker.left(member.backend.slot, started, Left::Told);
        return Next::GiveUp(failure);
    }
    if fault.is_silence() || reason == "rescued" {
        exchange.avoid_site = Some(Arc::clone(&member.backend.id.site));
    } else if exchange.has_attempts(forward) && !is_free(exchange, member, fault) && !spend(exchange, forward) {
        ticket.not_replayed = Some("retry_budget");
        return Next::GiveUp(failure);
    }
    exchange.pool.stats.retried(reason);
    let (how, next): (_, fn(Failure) -> Next) =
        if reason == "rescued" { (Left::Rescued, Next::Rescued) } else { (Left::Failed, Next::Again) };
    exchange.client.worker.left(member.backend.slot, started, how);
    next(failure)
}

fn is_free(exchange: &Exchange, member: &Member, fault: Fault) -> bool {
    let slot = member.backend.slot;
    let well = || exchange.has_fit(slot, |other| !other.backend.fails());
    relais_core::is_free(fault, exchange.tried.is_empty(), well, || exchange.has_elsewhere(slot))
}

/// Retries after application faults cost budget, so that an overloaded service is not fed its own failures.
fn spend(exchange: &Exchange, forward: &Forward) -> bool {
    exchange.afford(forward, exchange.now)
}

/// A response head is here: passed on, unless its status says "elsewhere" and there is an elsewhere.
async fn answered(
    exchange: &mut Exchange,
    forward: &Forward,
    member: &Member,
    answer: Box<forward::Answer>,
    started: Instant,
    ticket: &mut Box<Ticket>,
) -> Next {
    let status = answer.response.status().as_u16();
    exchange.now = Instant::now();
    let took = exchange.now - started;
    let backend = &member.backend;
    backend.stats.latency.observe(took);
    let refused = forward.retry.statuses.contains(&status);
    if refused {
        evidence(exchange, member, Err(Fault::Status(status)));
        answer.rest(exchange);
        let mut tried = exchange.tried.clone();
        tried.push(backend.slot);
        exchange.refresh();
        let elsewhere = matches!(exchange.pool.pick(&exchange.ask(&tried, None)), Choice::Take(_));
        // Where no attempt is left its own words are better than ours.
        if elsewhere && exchange.replayable() && exchange.has_attempts(forward) && spend(exchange, forward) {
            ticket.attempted(member, "status", started);
            exchange.pool.stats.retried("status");
            return Next::Again(Failure::Backend { fault: Fault::Status(status), possibly_received: false });
        }
    } else {
        backend.stats.succeed(status);
        relais_core::balancer::observe_latency(backend, took, exchange.clock());
        if member.health != Health::Up {
            let result = member.trial.map_or(Ok(()), |trial| trial.result(status));
            exchange.client.worker.report(Event::Served { slot: backend.slot, result });
        }
    }
    let mut response = forward::pass_on(exchange, forward, member, *answer, !refused && status < 500, ticket);
    if let Some(next) = whole(exchange, forward, member, response.body_mut(), started, ticket).await {
        ticket.serving = None;
        return next;
    }
    // Only now: what broke is asked for elsewhere, or counted as what it became.
    if refused {
        exchange.pool.stats.lost.add(exchange.idempotent.into());
    } else {
        match response.body_mut().small() {
            Some(body) => body.serve(status),
            None => backend.stats.serve(status),
        }
    }
    ticket.attempted_until(member, "answered", started, exchange.now);
    if let Some(body) = &exchange.body {
        body.release();
    }
    Next::Done(response)
}

/// Waits a moment for all of a small answer, if there is another backend: what breaks while its client has nothing of it
/// is asked for elsewhere, or refused, and not cut. Most are whole at the first look.
async fn whole(
    exchange: &mut Exchange,
    forward: &Forward,
    member: &Member,
    body: &mut ResponseBody,
    started: Instant,
    ticket: &mut Ticket,
) -> Option<Next> {
    if exchange.pool.members.len() < 2 || body.small().is_none() {
        return None;
    }
    let slot = member.backend.slot;
    let mut first = poll_fn(|cx| Poll::Ready(body.poll_whole(cx))).await;
    if first.is_pending() {
        if !exchange.has_elsewhere(slot) {
            return None;
        }
        body.small()?.hold(exchange.may_leave(slot, forward));
        first = Poll::Ready(poll_fn(|cx| body.poll_whole(cx)).await);
    }
    let Poll::Ready(Err(cut)) = first else { return None };
    let (fault, known) = cut.fault();
    if cut.is_late() {
        let small = body.small()?;
        let silent = small.let_go();
        // Nothing broke: what the backend did it may have done, and doing it again would be answered otherwise.
        let harmless = exchange.head.method.is_safe();
        if !silent || !harmless || !exchange.may_leave(slot, forward) || !spend(exchange, forward) {
            return None;
        }
        ticket.attempted(member, "late", started);
        // Until it fell silent it was served as ever. Said first: its silence may be what its backend is left for.
        exchange.client.worker.left(slot, small.timing.blocked().unwrap_or(started), Left::Failed);
        small.fell_silent();
        exchange.pool.stats.retried("late");
        exchange.avoid_site = Some(Arc::clone(&member.backend.id.site));
        return Some(Next::Again(Failure::Backend { fault, possibly_received: false }));
    }
    if exchange.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
        return Some(Next::GiveUp(Failure::RequestTimeout));
    }
    let reason = if known { "rescued" } else { fault.as_str() };
    Some(failed(exchange, forward, member, fault, reason, started, ticket))
}

//! The attempt loop: one request, as many tries as its phase rules allow.
//!
//! The rules (law): nothing sent -> always another backend. Sent, no answer -> only idempotent methods (RFC 9110
//! 9.2.2) or an `Idempotency-Key`, and only while the body can be sent again. Answer begun -> never again. A backend
//! tried in this request is not tried again while another is left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, Version, request};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use relais_core::config::{Balance, Forward, HashKey};
use relais_core::{Ask, Choice, Event, Fault, Health, Member, Pool, Snapshot};

use crate::access::Ticket;
use crate::answer::{self, Failure};
use crate::body::ClientBody;
use crate::connection::Client;
use crate::forward::{self, Outcome};
use crate::headers::{self, Hop};
use crate::hedge;
use crate::kept::Allowance;
use crate::race::{self, Connected};
use crate::response_body::ResponseBody;
use crate::{forwarded, sticky};

/// One request on its way to a backend.
pub(crate) struct Exchange {
    pub(crate) client: Arc<Client>,
    pub(crate) pool: Arc<Pool>,
    /// The head as it goes to a backend, but for what depends on the backend.
    pub(crate) head: request::Parts,
    pub(crate) hop: Hop,
    pub(crate) body: Option<Arc<ClientBody>>,
    /// The client waits for 100 (Continue) before it sends its body.
    pub(crate) expects_continue: bool,
    /// The client's version: interim answers are not for HTTP/1.0.
    pub(crate) version: Version,
    pub(crate) host: Arc<str>,
    /// The method or an `Idempotency-Key` allows sending twice.
    pub(crate) idempotent: bool,
    pub(crate) deadline: Option<Instant>,
    /// The client's end of an upgrade.
    pub(crate) upgrade: Option<OnUpgrade>,
    key: Option<u64>,
    sticky: Option<u64>,
    route: (String, String),
    pub(crate) tried: Vec<u32>,
    pub(crate) avoid_site: Option<Arc<str>>,
}

impl Exchange {
    /// Prepares the head and the body; nothing is sent yet.
    pub(crate) fn new(
        client: &Arc<Client>,
        snapshot: &Arc<Snapshot>,
        pool: &Arc<Pool>,
        forward: &Forward,
        mut request: Request<Incoming>,
        trusted: bool,
        host: &str,
    ) -> Result<Self, Failure> {
        let edge = &snapshot.config.edge;
        let version = request.version();
        let route_path = if request.uri().path().starts_with('/') { request.uri().path() } else { "/" }.to_owned();
        let route_host =
            host.rsplit_once(':').map_or(host, |(name, _)| name).trim_end_matches('.').to_ascii_lowercase();
        let key = hash_key(&forward.balance, &request, client);
        let sticky = forward.sticky.as_ref().and_then(|rule| {
            sticky::read(request.headers(), rule, &client.worker.shared.sticky_key, &pool.service.name)
        });
        let expects_continue = headers::has_token(request.headers(), &header::EXPECT, "100-continue");
        let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
        let hop = headers::strip_hop_by_hop(request.headers_mut());
        let upgrade = (hop.upgrade.is_some() && version == Version::HTTP_11).then(|| hyper::upgrade::on(&mut request));
        let (mut head, incoming) = request.into_parts();
        head.extensions.clear();
        let idempotent = is_idempotent(&head.method) || head.headers.contains_key("idempotency-key");
        let limit = pool.service.max_body.unwrap_or(u64::MAX);
        if incoming.size_hint().lower() > limit {
            return Err(Failure::BodyTooLarge);
        }
        if chunked {
            // RFC 9112 6.1: a length beside chunked coding must not travel on.
            head.headers.remove(header::CONTENT_LENGTH);
        }
        let spools = &client.worker.shared.spools;
        let keep = if idempotent {
            Allowance {
                memory: forward.retry.replay_bytes,
                disk: forward.retry.spool_bytes,
                disk_total: edge.limit.spool_bytes,
                spools: Arc::clone(spools),
            }
        } else {
            Allowance::nothing(spools)
        };
        let body = (!incoming.is_end_stream()).then(|| ClientBody::new(incoming, keep, limit, edge.client.body));
        headers::join_cookies(&mut head.headers);
        forwarded::set(&mut head.headers, client.peer.ip(), client.tls, host, trusted);
        headers::append_via(&mut head.headers, version, &edge.name);
        Ok(Self {
            client: Arc::clone(client),
            pool: Arc::clone(pool),
            expects_continue: expects_continue && body.is_some(),
            head,
            hop,
            body,
            version,
            host: Arc::from(host),
            idempotent,
            deadline: forward.timeout.request.map(|limit| Instant::now() + limit),
            upgrade,
            key,
            sticky,
            route: (route_host, route_path),
            tried: Vec::new(),
            avoid_site: None,
        })
    }

    /// The request may go out again although it may have been received, and its body is still whole.
    pub(crate) fn replayable(&self) -> bool {
        self.idempotent && self.body.as_ref().is_none_or(|body| body.replayable())
    }

    /// What `Pool::pick` is asked, with `also` as further slots not to take.
    pub(crate) fn ask<'a>(&'a self, tried: &'a [u32], avoid_site: Option<&'a str>) -> Ask<'a> {
        let worker = &self.client.worker;
        Ask { tried, roll: worker.roll(), now: worker.now(), key: self.key, sticky: self.sticky, avoid_site }
    }

    /// Takes the newest picture of the pool: a backend may have fallen or risen since the last attempt.
    pub(crate) fn refresh(&mut self) {
        let snapshot = self.client.worker.shared.snapshot.load();
        if let Some(pool) = snapshot.route(&self.route.0, &self.route.1)
            && pool.service.name == self.pool.service.name
        {
            self.pool = Arc::clone(pool);
        }
    }

    fn worth_waiting_for(&self) -> bool {
        self.pool.members.iter().any(|member| member.admin == relais_core::Admin::Enabled)
    }
}

/// RFC 9110 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE)
}

fn hash_key(balance: &Balance, request: &Request<Incoming>, client: &Client) -> Option<u64> {
    let Balance::Hash(key) = balance else { return None };
    let hash = |bytes: &[u8]| Some(relais_core::hash::stable(&[bytes]));
    match key {
        HashKey::ClientAddress => {
            let snapshot = client.worker.shared.snapshot.load();
            let trusted = &snapshot.config.edge.trusted_proxies;
            hash(forwarded::client_address(client.peer.ip(), request.headers(), trusted).to_string().as_bytes())
        }
        HashKey::Uri => hash(request.uri().path_and_query().map_or("/", |target| target.as_str()).as_bytes()),
        HashKey::Header(name) => request.headers().get(name).and_then(|value| hash(value.as_bytes())),
        HashKey::Cookie(name) => sticky::cookie(request.headers(), name).and_then(|value| hash(value.as_bytes())),
    }
}

/// How one attempt ended, for the loop.
enum Next {
    Done(Response<ResponseBody>),
    /// Tried elsewhere, if there is an elsewhere.
    Again(Failure),
    GiveUp(Failure),
}

/// Runs the attempts of one request.
pub(crate) async fn run(mut exchange: Exchange, ticket: &mut Box<Ticket>) -> Result<Response<ResponseBody>, Failure> {
    let pool = Arc::clone(&exchange.pool);
    let relais_core::config::Action::Forward(forward) = &pool.service.action else {
        return Err(Failure::NoRoute);
    };
    if let Ok(name) = exchange.request_id_name()
        && let Ok(value) = HeaderValue::from_str(&ticket.request_id)
    {
        exchange.head.headers.insert(name, value);
    }
    pool.shared.budget.earn(forward.retry.budget_percent);
    let result = match exchange.deadline {
        None => attempts(&mut exchange, forward, ticket).await,
        Some(deadline) => {
            match tokio::time::timeout_at(deadline.into(), attempts(&mut exchange, forward, ticket)).await {
                Ok(result) => result,
                Err(_) => Err(Failure::RequestTimeout),
            }
        }
    };
    ticket.bytes_in = exchange.body.as_ref().map_or(0, |body| body.read());
    match (result, &forward.maintenance) {
        (Err(Failure::NoBackend(_)), Some(page)) => Ok(answer::static_answer(page)),
        (Ok(mut response), _) => {
            response.body_mut().arm(exchange);
            Ok(response)
        }
        (Err(failure), _) => Err(failure),
    }
}

impl Exchange {
    fn request_id_name(&self) -> Result<header::HeaderName, header::InvalidHeaderName> {
        self.client.worker.shared.snapshot.load().config.edge.request_id_header.parse()
    }
}

async fn attempts(
    exchange: &mut Exchange,
    forward: &Forward,
    ticket: &mut Box<Ticket>,
) -> Result<Response<ResponseBody>, Failure> {
    let mut failure = Failure::NoBackend("no backend is up");
    let mut fresh = false;
    let mut left = forward.retry.attempts.max(1);
    while left > 0 {
        let connected = match obtain(exchange, forward, fresh, &mut left, ticket).await {
            Ok(connected) => connected,
            // What the last attempt met says more than "nobody left".
            Err(Failure::NoBackend(_)) if !exchange.tried.is_empty() => return Err(failure),
            Err(other) => return Err(other),
        };
        let (slot, reused) = (connected.member.backend.slot, connected.reused);
        match one(exchange, forward, connected, ticket).await {
            Next::Done(response) => return Ok(response),
            Next::GiveUp(reason) => return Err(reason),
            Next::Again(reason) => {
                failure = reason;
                // A kept-alive connection that was closed under us says nothing about the backend: once more, afresh.
                fresh = reused;
                if !reused {
                    left -= 1;
                    exchange.tried.push(slot);
                }
            }
        }
        exchange.refresh();
    }
    Err(failure)
}

/// Finds a backend and a connection to it. Nothing of the request is sent in here, so every failure moves on.
pub(crate) async fn obtain(
    exchange: &mut Exchange,
    forward: &Forward,
    fresh: bool,
    left: &mut u32,
    ticket: &mut Ticket,
) -> Result<Connected, Failure> {
    let mut last = Failure::NoBackend("no backend is up");
    let give_up = Instant::now() + exchange.pool.timers.wait;
    // A request that must not be sent twice never goes out on a kept-alive connection that may be closing: over
    // HTTP/1.1 nobody could tell whether it was received. HTTP/2 tells (GOAWAY, REFUSED_STREAM).
    let reuse = race::Reuse { h1: exchange.replayable() && !fresh, h2: !fresh };
    loop {
        let choice = exchange.pool.pick(&exchange.ask(&exchange.tried, exchange.avoid_site.as_deref()));
        let member = match choice {
            Choice::Take(member) => Some(member.clone()),
            Choice::Wait => None,
            Choice::Nobody if !exchange.tried.is_empty() => return Err(last_word(exchange, last)),
            Choice::Nobody if forward.maintenance.is_some() || !exchange.worth_waiting_for() => return Err(last),
            Choice::Nobody => None,
        };
        let Some(member) = member else {
            wait_for_change(exchange, give_up).await.map_err(|()| last)?;
            continue;
        };
        match race::connect(exchange, forward, member, reuse, ticket).await {
            Ok(connected) => return Ok(connected),
            Err(fault) => {
                last = Failure::Backend { fault, possibly_received: false };
                *left -= 1;
                if *left == 0 {
                    return Err(last);
                }
                exchange.refresh();
            }
        }
    }
}

/// All usable backends were tried: what the last one did is the answer; with nobody usable at all it is a 503.
fn last_word(exchange: &Exchange, last: Failure) -> Failure {
    if exchange.pool.members.iter().any(Member::usable) { last } else { Failure::NoBackend("every backend is down") }
}

/// Waits for the next snapshot, a free place at a backend, or the end of patience.
async fn wait_for_change(exchange: &mut Exchange, give_up: Instant) -> Result<(), ()> {
    let mut changed = exchange.client.worker.shared.changed.clone();
    changed.mark_unchanged();
    exchange.refresh();
    let now = Instant::now();
    if now >= give_up {
        return Err(());
    }
    let full = exchange.pool.members.iter().any(Member::usable);
    // Places at backends that are full come free without a snapshot.
    let tick = if full { Duration::from_millis(5) } else { Duration::from_millis(100) };
    let _ = tokio::time::timeout(tick.min(give_up - now), changed.changed()).await;
    exchange.refresh();
    Ok(())
}

/// Sends the request on a connection and judges what came of it.
async fn one(exchange: &mut Exchange, forward: &Forward, connected: Connected, ticket: &mut Box<Ticket>) -> Next {
    let started = Instant::now();
    let stats = &connected.member.backend.stats;
    if connected.reused {
        stats.reused.inc()
    } else {
        stats.connected.inc()
    }
    let hedge::Sent { member, reused, outcome } = hedge::send(exchange, forward, connected, ticket).await;
    match outcome {
        Outcome::Answer(answer) => answered(exchange, forward, &member, *answer, started, ticket),
        Outcome::Client(fault) => {
            ticket.attempted(&member, "client", started);
            Next::GiveUp(fault.into())
        }
        Outcome::NotSent => {
            ticket.attempted(&member, "closed_before_sent", started);
            let failure = Failure::Backend { fault: Fault::Reset, possibly_received: false };
            // A refused HTTP/2 stream may have taken body bytes with it.
            if exchange.body.as_ref().is_none_or(|body| body.replayable()) {
                Next::Again(failure)
            } else {
                Next::GiveUp(failure)
            }
        }
        Outcome::Failed(fault) if reused && fault == Fault::Reset && exchange.replayable() => {
            // The race every keep-alive connection has: the backend closed it as we wrote.
            ticket.attempted(&member, "stale_connection", started);
            Next::Again(Failure::Backend { fault, possibly_received: true })
        }
        Outcome::Failed(fault) => {
            evidence(exchange, &member, Err(fault));
            failed(exchange, forward, &member, fault, fault.as_str(), started, ticket)
        }
        Outcome::Rescued(fault) => failed(exchange, forward, &member, fault, "rescued", started, ticket),
    }
}

fn evidence(exchange: &Exchange, member: &Member, result: Result<(), Fault>) {
    if result.is_err() {
        member.backend.stats.failed.inc();
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
        return Next::GiveUp(failure);
    }
    if fault.is_silence() || reason == "rescued" {
        exchange.avoid_site = Some(Arc::clone(&member.backend.id.site));
    } else if !fault.is_transport() && !spend(exchange, forward) {
        ticket.not_replayed = Some("retry_budget");
        return Next::GiveUp(failure);
    }
    exchange.pool.stats.retried(reason);
    Next::Again(failure)
}

/// Retries after application faults cost budget, so that an overloaded service is not fed its own failures. A retry
/// off a dead transport is free: the load it moves is load that left a backend.
fn spend(exchange: &Exchange, forward: &Forward) -> bool {
    let granted = exchange.pool.shared.budget.spend(forward.retry.budget_floor, exchange.client.worker.now());
    if !granted {
        exchange.pool.stats.budget_exhausted.inc();
    }
    granted
}

/// A response head is here: passed on, unless its status says "elsewhere" and there is an elsewhere.
fn answered(
    exchange: &mut Exchange,
    forward: &Forward,
    member: &Member,
    answer: forward::Answer,
    started: Instant,
    ticket: &mut Box<Ticket>,
) -> Next {
    let status = answer.response.status().as_u16();
    let took = started.elapsed();
    let backend = &member.backend;
    backend.stats.latency.observe(took);
    if forward.retry.statuses.contains(&status) {
        evidence(exchange, member, Err(Fault::Status(status)));
        let mut tried = exchange.tried.clone();
        tried.push(backend.slot);
        exchange.refresh();
        let elsewhere = matches!(exchange.pool.pick(&exchange.ask(&tried, None)), Choice::Take(_));
        if elsewhere && exchange.replayable() && spend(exchange, forward) {
            ticket.attempted(member, "status", started);
            exchange.pool.stats.retried("status");
            exchange.tried = tried;
            return Next::Again(Failure::Backend { fault: Fault::Status(status), possibly_received: false });
        }
    } else {
        backend.stats.succeeded.inc();
        relais_core::balancer::observe_latency(backend, took, exchange.client.worker.now());
        if member.health != Health::Up {
            evidence(exchange, member, Ok(()));
        }
    }
    ticket.attempted(member, "answered", started);
    if let Some(body) = &exchange.body {
        body.release();
    }
    Next::Done(forward::pass_on(exchange, forward, member, answer, ticket))
}

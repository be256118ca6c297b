//! One attempt on one connection: the request as this backend wants it, the wait for its head, and the answer as the
//! client gets it.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use parking_lot::Mutex;
use relais_core::config::{Forward, HostHeader};
use relais_core::{Backend, Fault, InFlight, Member};
use tokio::sync::oneshot;

use crate::access::Ticket;
use crate::backend_body::BackendBody;
use crate::body::{BodyFault, SendBody};
use crate::exchange::Exchange;
use crate::from_backend::{FromBackend, Timing};
use crate::headers::{self, Present};
use crate::hedge::Better;
use crate::interim::{Gate, Hear};
use crate::pool::{Slot, Verdicts};
use crate::race::Link;
use crate::response_body::ResponseBody;
use crate::resume::Plan;
use crate::sender::{self, Held, SendFailure, Sender};
use crate::sticky;
use crate::tunnel::{Terms, Tunnel};
use crate::waiting::Wait;

/// How one attempt ended.
pub(crate) enum Outcome {
    Answer(Box<Answer>),
    /// The connection was closed before anything was written.
    NotSent,
    /// Sent, and no answer.
    Failed(Fault),
    /// The backend was declared down while the attempt waited there.
    Rescued(Fault),
    /// It waited for longer than is usual where nobody answers any more.
    InVain,
    /// The client's body failed.
    Client(BodyFault),
    /// Another backend, asked beside this one, was faster.
    Overtaken(Box<Better>),
}

/// A response head and what its body hangs on.
pub(crate) struct Answer {
    pub(crate) response: Response<BackendBody>,
    held: Held,
    slot: Arc<Slot>,
    /// Verdicts on the backend when the attempt began.
    before: Verdicts,
    gate: Option<oneshot::Sender<()>>,
    inflight: InFlight,
}

/// Longest rest a backend is granted.
const LONGEST_REST: u64 = 30;

impl Answer {
    /// Leaves a backend alone for as long as it asks for (`Retry-After` in seconds, RFC 9110 10.2.3), if there is another.
    pub(crate) fn rest(&self, exchange: &Exchange) {
        let seconds =
            self.response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(seconds) = seconds {
            let worker = &exchange.client.worker;
            let until = exchange.clock() + Duration::from_secs(LONGEST_REST.min(seconds));
            worker.connections.rest(&self.slot, until);
        }
    }
}

/// Sends the request at `now` and waits for the response head.
pub(crate) async fn send(
    exchange: &Exchange,
    forward: &Forward,
    member: &Member,
    link: Box<Link>,
    now: Instant,
) -> Outcome {
    let h2 = link.sender.is_h2();
    let Link { slot, sender, before, beside, place } = *link;
    let inflight = place.unwrap_or_else(|| member.backend.enter().as_stream(exchange.stream));
    let mut gate: Option<Gate> = None;
    let request = match made(exchange, forward, member, h2, &mut gate) {
        Ok(request) => request,
        Err(error) => {
            tracing::warn!(backend = %member.backend.id, %error, "this request cannot be put to this backend");
            return Outcome::Failed(Fault::Malformed);
        }
    };
    let mut wait = Wait::new(exchange, forward, member, &slot, before, gate.as_ref(), now);
    if beside {
        wait.as_second();
    }
    // What waits for an answer is made where it stays: else it would be copied from hand to hand, with the request in it.
    let result = {
        let mut given_up = pin!(wait.given_up());
        match sender {
            Sender::H1(mut send) => {
                let mut sending = pin!(send.try_send_request(request));
                tokio::select! {
                    biased;
                    sent = &mut sending => match sent {
                        Ok(response) => Ok((response.map(BackendBody::H1), Held::H1(send))),
                        Err(error) => Err(sender::judge(error)),
                    },
                    outcome = &mut given_up => return outcome,
                }
            }
            // In a box: every request would carry room for it, whatever its backend speaks.
            Sender::H2(shared) => {
                let mut sending = Box::pin(shared.send(request, Hear::of(exchange, gate.as_ref())));
                tokio::select! {
                    biased;
                    sent = &mut sending => sent.map(|(response, used)| (response, Held::H2(used))),
                    outcome = &mut given_up => return outcome,
                }
            }
        }
    };
    match result {
        Ok((response, _)) if response.status() == StatusCode::SWITCHING_PROTOCOLS && !agreed(exchange, &response) => {
            Outcome::Failed(Fault::Malformed)
        }
        Ok((response, held)) => {
            let room = Box::new_uninit();
            let before = wait.before;
            let gate = gate.as_ref().and_then(|gate| gate.lock().take());
            Outcome::Answer(Box::write(room, Answer { response, held, slot, before, gate, inflight }))
        }
        Err(SendFailure::NotSent) => Outcome::NotSent,
        Err(SendFailure::Client(fault)) => Outcome::Client(fault),
        Err(SendFailure::Sent(fault)) => match exchange.body.as_ref().and_then(|body| body.fault()) {
            Some(client) => Outcome::Client(client),
            None if slot.verdicts().deaths != wait.before.deaths => Outcome::Rescued(fault),
            None => Outcome::Failed(fault),
        },
    }
}

/// A backend may switch only to what the client offered (RFC 9110 7.8).
fn agreed(exchange: &Exchange, response: &Response<BackendBody>) -> bool {
    let (Some(upgrade), Some(offer)) = (&exchange.upgrade, &exchange.hop.upgrade) else { return false };
    headers::is_offered(offer, response.headers()) && upgrade.is_answered_by(response.headers())
}

/// The request, with its body behind a gate where the client waits for one. Apart from what waits for the answer, which would
/// carry room for it.
fn made(
    exchange: &Exchange,
    forward: &Forward,
    member: &Member,
    h2: bool,
    gate: &mut Option<Gate>,
) -> Result<Request<SendBody>, http::Error> {
    let mut body = exchange.body.as_ref().map_or_else(SendBody::empty, |body| body.begin());
    if exchange.expects_continue {
        let (open, wait) = oneshot::channel();
        *gate = Some(Arc::new(Mutex::new(Some(open))));
        body = body.gated(wait);
    }
    let mut request = Request::new(body);
    fill(&mut request, exchange, forward, member, h2)?;
    if !h2 {
        sender::listen(&mut request, Hear::of(exchange, gate.as_ref()));
    }
    Ok(request)
}

/// The request as this backend wants it: target form, `Host` or `:authority`, connection fields.
fn fill(
    request: &mut Request<SendBody>,
    exchange: &Exchange,
    forward: &Forward,
    member: &Member,
    h2: bool,
) -> Result<(), http::Error> {
    *request.method_mut() = exchange.head.method.clone();
    let mut fields = exchange.fields.take();
    exchange.introduce(&mut fields);
    let host: &str = match &forward.host {
        HostHeader::Keep => &exchange.host.original,
        HostHeader::Backend => &member.backend.id.address,
        HostHeader::Set(name) => name,
    };
    let target = exchange.head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    if h2 {
        fields.remove(header::HOST);
        let scheme = if member.backend.upstream.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let authority = host.parse::<Authority>().or_else(|_| "localhost".parse())?;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build()?;
    } else {
        // The one that is kept is in the head as it is.
        if forward.host != HostHeader::Keep || exchange.host.field.is_none() {
            fields.insert(header::HOST, HeaderValue::from_str(host)?);
        }
        let unknown = exchange.body.is_some() && request.body().size_hint().exact().is_none();
        if unknown && !fields.contains_key(header::CONTENT_LENGTH) {
            // Said outright: for a GET hyper would otherwise take a body of unknown length for none.
            fields.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        *request.uri_mut() = Uri::from(target);
        if let (Some(_), Some(protocol)) = (&exchange.upgrade, &exchange.hop.upgrade) {
            fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            fields.insert(header::UPGRADE, protocol.clone());
        }
    }
    if exchange.hop.trailers {
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
        if !h2 {
            fields.append(header::CONNECTION, HeaderValue::from_static("te"));
        }
    }
    exchange.prepared.request.apply(&mut fields);
    *request.headers_mut() = fields;
    Ok(())
}

/// The answer as the client gets it. `well`: its head counts as a success.
pub(crate) fn pass_on(
    exchange: &mut Exchange,
    forward: &Forward,
    member: &Member,
    answer: Answer,
    well: bool,
    ticket: &mut Ticket,
) -> Box<Response<ResponseBody>> {
    let room = Box::new_uninit();
    let Answer { mut response, held, slot, before, gate, inflight } = answer;
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let backend_version = response.version();
    let present = Present::in_(response.headers());
    if present.transfer_encoding {
        // RFC 9112 6.3: beside a transfer coding a length means nothing, and must not travel on.
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    let hop = headers::strip_hop_by_hop(response.headers_mut(), present);
    let events = present.events;
    ticket.serving = Some(inflight.as_stream(switching || events));
    let switched = switching.then(|| hyper::upgrade::on(&mut response));
    let (mut head, incoming) = response.into_parts();
    let plan = if present.validator { Plan::of(&exchange.head.method, head.status, &head.headers) } else { None };
    head.version = Version::HTTP_11;
    head.extensions.clear();
    dress(exchange, forward, member, &mut head.headers, backend_version);
    if let (Some(backend), Some(protocol), Some(upgrade)) = (switched, hop.upgrade, exchange.upgrade.take()) {
        let websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
        let (client, body) = upgrade.agreed(&mut head, protocol);
        let terms = Terms {
            slot,
            before,
            connection: Arc::clone(&exchange.client),
            idle: forward.timeout.tunnel,
            contract: exchange.pool.timers.failover_within,
            websocket,
        };
        ticket.tunnel = Some(Box::new(Tunnel { client, backend, terms }));
        return Box::write(room, Response::from_parts(head, body));
    }
    let patience = if events { forward.timeout.tunnel } else { forward.timeout.idle };
    let overdue = exchange.pool.timers.reach(forward, member.away).overdue();
    let backend = Arc::clone(&member.backend);
    let line = Line { held, slot, before, gate, backend, events, well, counted: !well, overdue };
    let body = line.body(exchange, forward, incoming, patience, plan);
    Box::write(room, Response::from_parts(head, ResponseBody::from_backend(body)))
}

/// The connection an answer's body comes on.
struct Line {
    held: Held,
    slot: Arc<Slot>,
    before: Verdicts,
    gate: Option<oneshot::Sender<()>>,
    backend: Arc<Backend>,
    /// An event stream: it has no end of its own.
    events: bool,
    well: bool,
    counted: bool,
    overdue: Duration,
}

impl Line {
    fn body(
        self,
        exchange: &Exchange,
        forward: &Forward,
        incoming: BackendBody,
        patience: Duration,
        plan: Option<Plan>,
    ) -> Box<FromBackend> {
        // The room first: else it would be put together on the stack and copied.
        let room = Box::new_uninit();
        let body = FromBackend {
            incoming,
            held: Some(self.held),
            slot: self.slot,
            before: self.before,
            keep_idle: forward.keep_idle,
            patience,
            deadline: exchange.deadline,
            worker: Arc::clone(&exchange.client.worker),
            backend: self.backend,
            contract: exchange.pool.timers.failover_within,
            overdue: self.overdue,
            gate: self.gate,
            plan,
            exchange: None,
            events: self.events,
            well: self.well,
            counted: self.counted,
            upload: exchange.body.clone(),
            timing: Timing::default(),
        };
        Box::write(room, body)
    }
}

/// The rest of a body, from another backend than its beginning.
pub(crate) fn continue_with(
    exchange: Box<Exchange>,
    forward: &Forward,
    member: &Member,
    answer: Answer,
    plan: Plan,
) -> (Box<FromBackend>, InFlight) {
    let Answer { response, held, slot, before, gate, inflight } = answer;
    let overdue = exchange.pool.timers.reach(forward, member.away).overdue();
    let backend = Arc::clone(&member.backend);
    // Its head counts as nothing: neither as a success nor among the errors.
    let line = Line { held, slot, before, gate, backend, events: false, well: false, counted: false, overdue };
    let mut body = line.body(&exchange, forward, response.into_body(), forward.timeout.idle, Some(plan));
    body.exchange = Some(exchange);
    (body, inflight)
}

/// `Via`, the service's edits and the sticky cookie.
fn dress(exchange: &Exchange, forward: &Forward, member: &Member, fields: &mut HeaderMap, backend_version: Version) {
    let worker = &exchange.client.worker;
    if let Some(via) = exchange.ready.via(backend_version) {
        fields.append(header::VIA, via.clone());
    }
    exchange.prepared.response.apply(fields);
    if let Some(rule) = &forward.sticky
        && exchange.sticky != Some(member.backend.hash)
        && let Some(cookie) = sticky::write(
            rule,
            &worker.shared.sticky_key,
            &exchange.service.name,
            member.backend.hash,
            exchange.client.tls.is_some(),
        )
    {
        fields.append(HeaderName::from_static("set-cookie"), cookie);
    }
}

//! One request on its way to a backend: its head as it will be sent, its body, and what is remembered between attempts.

use std::sync::Arc;
use std::time::Instant;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Uri, Version};
use http_body::Body;
use ipnet::IpNet;
use relais_core::config::{Balance, Edge, Forward, HashKey, Service};
use relais_core::{Ask, Member, Pool, Snapshot};

use crate::answer::Failure;
use crate::body::ClientBody;
use crate::connection::Client;
use crate::fields::Fields;
use crate::headers::{self, Hop, Present};
use crate::kept::Allowance;
use crate::ready::{Asked, Ready};
use crate::request_body::RequestBody;
use crate::streams::Reply;
use crate::upgrade::Upgrade;
use crate::worker::Prepared;
use crate::{forwarded, identity, sticky};

/// What is known of a request before its service is.
#[derive(Clone, Copy)]
pub(crate) struct Admitted<'a> {
    pub(crate) ready: &'a Arc<Ready>,
    pub(crate) host: &'a Arc<Asked>,
    /// Its peer is one of `trusted_proxies`.
    pub(crate) trusted: bool,
    /// What `X-Request-Id` says, where it is sent.
    pub(crate) id: &'a HeaderValue,
    pub(crate) now: Instant,
}

/// What is asked for.
pub(crate) struct Asks {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
}

/// Whether a request may go once more to those that had it. Only once: it may be what takes them down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecondChance {
    Left,
    /// It has it: of the slots it was sent to, so many were before.
    Taken(usize),
    /// Its answer has begun.
    Never,
}

impl SecondChance {
    /// How many of the slots that it was sent to it may have again.
    pub(crate) fn bygone(self) -> usize {
        if let Self::Taken(before) = self { before } else { 0 }
    }
}

/// One request on its way to a backend.
pub(crate) struct Exchange {
    pub(crate) client: Arc<Client>,
    /// The service as it was when the request came, whatever is reloaded meanwhile.
    pub(crate) service: Arc<Service>,
    /// Who serves it, in the newest picture: see `refresh`.
    pub(crate) pool: Arc<Pool>,
    pub(crate) head: Asks,
    /// The fields as they go to a backend, but for what `introduce` and the backend add.
    pub(crate) fields: Fields,
    /// What came among them.
    present: Present,
    trusted: bool,
    /// What `X-Request-Id` says, where it is sent.
    id: HeaderValue,
    pub(crate) hop: Hop,
    pub(crate) body: Option<Arc<ClientBody>>,
    /// The client waits for 100 (Continue) before it sends its body.
    pub(crate) expects_continue: bool,
    /// The client's version: interim answers are not for HTTP/1.0.
    pub(crate) version: Version,
    /// Where an HTTP/2 client gets them.
    pub(crate) reply: Option<Arc<Reply>>,
    pub(crate) host: Arc<Asked>,
    pub(crate) ready: Arc<Ready>,
    pub(crate) prepared: Arc<Prepared>,
    /// The clock as last read for this request: it is not read again where nothing can have waited.
    pub(crate) now: Instant,
    /// The method or an `Idempotency-Key` allows sending twice.
    pub(crate) idempotent: bool,
    pub(crate) deadline: Option<Instant>,
    /// The client's end of an upgrade.
    pub(crate) upgrade: Option<Upgrade>,
    /// It asks for a stream: an upgrade, or events.
    pub(crate) stream: bool,
    key: Option<u64>,
    /// The backend that its sticky cookie names.
    pub(crate) sticky: Option<u64>,
    /// Slots this request was sent to.
    pub(crate) tried: Vec<u32>,
    pub(crate) second_chance: SecondChance,
    /// Its last connection broke, or could not be used, or its backend was declared down: nothing shows that anybody lives
    /// there.
    pub(crate) broke: bool,
    /// Slots that could not be reached since the last pause: nothing was sent there.
    pub(crate) unreached: Vec<u32>,
    pub(crate) avoid_site: Option<Arc<str>>,
}

impl Exchange {
    /// Prepares the head and the body; nothing is sent yet. In a box, as it is large and goes through many hands.
    pub(crate) fn new(
        client: &Arc<Client>,
        snapshot: &Arc<Snapshot>,
        pool: &Arc<Pool>,
        forward: &Forward,
        mut request: Request<RequestBody>,
        Admitted { ready, host, trusted, id, now }: Admitted<'_>,
    ) -> Result<Box<Self>, Failure> {
        let edge = &snapshot.config.edge;
        let version = request.version();
        let key = hash_key(&forward.balance, &request, client, &edge.trusted_proxies);
        let sticky = forward.sticky.as_ref().and_then(|rule| {
            sticky::read(request.headers(), rule, &client.worker.shared.sticky_key, &pool.service.name)
        });
        let present = Present::in_(request.headers());
        let expects_continue = present.expect && headers::has_token(request.headers(), &header::EXPECT, "100-continue");
        let mut hop = headers::strip_hop_by_hop(request.headers_mut(), present);
        let reply = request.body().reply().cloned();
        let upgrade = Upgrade::of(&mut request, &mut hop, || client.worker.nonce());
        let (mut head, incoming) = request.into_parts();
        let stream = upgrade.is_some() || (present.accepts_events && head.method == Method::GET);
        let idempotent = is_idempotent(&head.method, &head.headers, present);
        let limit = pool.service.max_body.unwrap_or(u64::MAX);
        if incoming.size_hint().lower() > limit {
            return Err(Failure::BodyTooLarge);
        }
        if present.transfer_encoding {
            // RFC 9112 6.1: a length beside chunked coding must not travel on.
            head.headers.remove(header::CONTENT_LENGTH);
        }
        let keep = allowance(client, edge, forward, idempotent);
        let body = (!incoming.is_end_stream()).then(|| ClientBody::new(incoming, keep, limit, edge.client.body));
        if present.cookie {
            headers::join_cookies(&mut head.headers);
        }
        // The room first: else it would be put together on the stack and copied.
        let (prepared, room) = (client.worker.prepared(pool), Box::new_uninit());
        let exchange = Self {
            client: Arc::clone(client),
            service: Arc::clone(&pool.service),
            pool: Arc::clone(pool),
            expects_continue: expects_continue && body.is_some(),
            head: Asks { method: head.method, uri: head.uri },
            fields: Fields::new(head.headers),
            present,
            trusted,
            id: id.clone(),
            hop,
            body,
            version,
            reply,
            host: Arc::clone(host),
            ready: Arc::clone(ready),
            prepared,
            now,
            idempotent,
            deadline: forward.timeout.request.map(|limit| now + limit),
            stream,
            upgrade,
            key,
            sticky,
            tried: Vec::new(),
            second_chance: SecondChance::Left,
            broke: false,
            unreached: Vec::new(),
            avoid_site: None,
        };
        Ok(Box::write(room, exchange))
    }

    /// The request may go out again although it may have been received, and its body is still whole.
    pub(crate) fn replayable(&self) -> bool {
        self.idempotent && self.body.as_ref().is_none_or(|body| body.replayable())
    }

    /// Tells the backend who the client is and what was asked for. A service that asks for certificates believes its own handshake
    /// only; another one, what trusted peers say.
    pub(crate) fn introduce(&self, fields: &mut HeaderMap) {
        let (client, present, trusted) = (&*self.client, self.present, self.trusted);
        let identity = client.tls.as_ref().and_then(|tls| tls.identity.as_ref());
        let asks = self.service.client_tls.certificate.is_some();
        if asks || (present.identity && !trusted) {
            identity::set(fields, identity.filter(|_| asks));
        }
        if present.underscored && (asks || !trusted) {
            headers::remove_twins(fields);
        }
        forwarded::set(fields, &client.peer, &self.host, present.forwarded, trusted);
        if let Some(via) = self.ready.via(self.version) {
            fields.append(header::VIA, via.clone());
        }
        let has_host = self.version == Version::HTTP_11 && self.head.uri.authority().is_none();
        if !has_host && let Some(field) = &self.host.field {
            fields.insert(header::HOST, field.clone());
        }
        if let Some(name) = &self.ready.request_id {
            fields.insert(name.clone(), self.id.clone());
        }
    }

    /// What `Pool::pick` is asked, with `also` as further slots not to take.
    pub(crate) fn ask<'a>(&'a self, tried: &'a [u32], avoid_site: Option<&'a str>) -> Ask<'a> {
        let worker = &self.client.worker;
        Ask {
            tried,
            roll: worker.roll(),
            now: self.clock(),
            key: self.key,
            sticky: self.sticky,
            avoid_site,
            stream: self.stream,
        }
    }

    /// [`Exchange::now`] as core counts it.
    pub(crate) fn clock(&self) -> relais_core::Instant {
        self.client.worker.shared.anchor.at(self.now)
    }

    /// Takes the newest picture of the pool: a backend may have fallen or risen since the last attempt. The one place
    /// where a request looks at a second snapshot, and all it takes from there is who serves it, and how fast.
    pub(crate) fn refresh(&mut self) {
        let snapshot = self.client.worker.shared.snapshot.load();
        if let Some(pool) = snapshot.route(&self.host.name, routed_path(&self.head.uri))
            && pool.service.name == self.service.name
        {
            self.pool = Arc::clone(pool);
        }
    }

    /// Takes a retry out of the service's budget at `now`, if there is one.
    pub(crate) fn afford(&self, forward: &Forward, now: Instant) -> bool {
        let now = self.client.worker.shared.anchor.at(now);
        let granted = self.pool.shared.budget.spend(forward.retry.budget_floor, now);
        if !granted {
            self.pool.stats.budget_exhausted.inc();
        }
        granted
    }

    /// The newest picture of the pool.
    pub(crate) fn newest(&self) -> Arc<Pool> {
        let snapshot = self.client.worker.shared.snapshot.load();
        let pool = snapshot.route(&self.host.name, routed_path(&self.head.uri));
        Arc::clone(pool.filter(|pool| pool.service.name == self.service.name).unwrap_or(&self.pool))
    }

    /// Whether now, in the newest picture, another backend than this one is usable that the request was not sent to.
    pub(crate) fn has_elsewhere(&self, slot: u32) -> bool {
        self.has_fit(slot, |_| true)
    }

    /// The same, of those that are `fit`.
    pub(crate) fn has_fit(&self, slot: u32, fit: impl Fn(&Member) -> bool) -> bool {
        let pool = self.newest();
        let others = pool.members.iter().filter(|member| member.backend.slot != slot && member.usable());
        others.filter(|member| fit(member)).any(|member| !self.tried.contains(&member.backend.slot))
    }

    /// Whether it may be sent again, and to whom.
    pub(crate) fn may_leave(&self, slot: u32, forward: &Forward) -> bool {
        self.replayable() && self.has_attempts(forward) && self.has_elsewhere(slot)
    }

    /// Whether another attempt may follow the present one.
    pub(crate) fn has_attempts(&self, forward: &Forward) -> bool {
        self.tried.len() + 1 < forward.retry.attempts as usize
    }

    /// Whether it was sent to every backend there is now, and none of them is waited for.
    pub(crate) fn was_everywhere(&self, forward: &Forward) -> bool {
        let sent = self.tried.len() > self.second_chance.bygone() && self.unreached.is_empty();
        sent && !self.outlives_all(forward)
    }

    /// All backends went down after it was sent, and whoever returns may have it. With `fail_open` they are asked as they are.
    pub(crate) fn outlives_all(&self, forward: &Forward) -> bool {
        self.second_chance == SecondChance::Left && !forward.fail_open && !self.pool.members.iter().any(Member::usable)
    }

    /// It was lost with the last one it could be sent to, who may just have died and be called down in a moment: it may have
    /// that one again, as one that came a moment later would.
    pub(crate) fn was_lost_with_the_last(&self, forward: &Forward) -> bool {
        let lost = self.second_chance == SecondChance::Left && self.broke && forward.maintenance.is_none();
        lost && self.worth_waiting_for()
    }

    /// Nobody called that one down: for a retry of the budget, as it may live, and break whatever it is sent.
    pub(crate) fn takes_second_chance(&mut self, forward: &Forward) -> bool {
        let granted = self.afford(forward, self.now);
        if granted {
            self.use_second_chance();
        }
        granted
    }

    /// From now on it may go once more to one of those that had it.
    pub(crate) fn use_second_chance(&mut self) {
        self.second_chance = SecondChance::Taken(self.tried.len());
    }

    pub(crate) fn worth_waiting_for(&self) -> bool {
        self.pool.members.iter().any(|member| member.admin == relais_core::Admin::Enabled)
    }
}

/// How much of the body is kept for another attempt.
fn allowance(client: &Client, edge: &Edge, forward: &Forward, idempotent: bool) -> Allowance {
    let spools = &client.worker.shared.spools;
    if !idempotent {
        return Allowance::nothing(spools);
    }
    Allowance {
        memory: forward.retry.replay_bytes,
        disk: forward.retry.spool_bytes,
        disk_total: edge.limit.spool_bytes,
        spools: Arc::clone(spools),
    }
}

/// The path that routes are looked up by: `*` of an OPTIONS request counts as the root.
pub(crate) fn routed_path(uri: &Uri) -> &str {
    if uri.path().starts_with('/') { uri.path() } else { "/" }
}

/// RFC 9110 9.2.2, or an `Idempotency-Key`.
fn is_idempotent(method: &Method, fields: &HeaderMap, present: Present) -> bool {
    // `Connection` may have named it: then it is not sent on, and protects nothing.
    let keyed = present.idempotency_key && fields.contains_key("idempotency-key");
    let by_method =
        matches!(*method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE);
    by_method || keyed
}

fn hash_key(balance: &Balance, request: &Request<RequestBody>, client: &Client, trusted: &[IpNet]) -> Option<u64> {
    let Balance::Hash(key) = balance else { return None };
    let hash = |bytes: &[u8]| Some(relais_core::hash::stable(&[bytes]));
    match key {
        HashKey::ClientAddress => {
            hash(forwarded::client_address(client.peer.address, request.headers(), trusted).to_string().as_bytes())
        }
        HashKey::Uri => hash(request.uri().path_and_query().map_or("/", |target| target.as_str()).as_bytes()),
        HashKey::Header(name) => request.headers().get(name).and_then(|value| hash(value.as_bytes())),
        HashKey::Cookie(name) => sticky::cookie(request.headers(), name).and_then(|value| hash(value.as_bytes())),
    }
}

//! The ticket of one request: what is counted and logged about it, once, when its last byte is out or it was given up.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use http::uri::PathAndQuery;
use http::{Method, Version};
use relais_core::stats::EdgeStats;
use relais_core::{InFlight, Member, Pool};

use crate::conn_state::Active;
use crate::ready::Asked;
use crate::tunnel::Tunnel;

/// One attempt, for the log.
#[derive(Debug)]
pub(crate) struct Attempted {
    site: Arc<str>,
    address: Arc<str>,
    outcome: &'static str,
    took: Duration,
}

/// What is known of one request. Dropping it counts and logs the request.
pub(crate) struct Ticket {
    pub(crate) started: Instant,
    /// When the last attempt ended.
    attempted: Option<Instant>,
    stats: Arc<EdgeStats>,
    log: bool,
    /// Keeps the connection busy until the answer is complete.
    active: Active,
    pub(crate) request_id: HeaderValue,
    pub(crate) client: IpAddr,
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) host: Option<Arc<Asked>>,
    /// Only kept where it is logged.
    pub(crate) target: Option<PathAndQuery>,
    pub(crate) pool: Option<Arc<Pool>>,
    /// Only kept where they are logged.
    attempts: Vec<Attempted>,
    /// Slot of the backend that a connection was opened to for the attempt under way, and since when.
    connected: Option<(u32, Instant)>,
    /// The attempt whose answer is passed on.
    pub(crate) serving: Option<InFlight>,
    pub(crate) status: u16,
    /// When the head of the answer was there.
    head_at: Option<Instant>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// The answer was cut: by the backend, by a timeout or because the client went away.
    pub(crate) cut: Option<&'static str>,
    /// Why a failed request was not tried elsewhere.
    pub(crate) not_replayed: Option<&'static str>,
    /// The answer is an upgrade: what carries its bytes once the head is out.
    pub(crate) tunnel: Option<Box<Tunnel>>,
    complete: bool,
}

impl Ticket {
    pub(crate) fn new(
        stats: Arc<EdgeStats>,
        log: bool,
        active: Active,
        request_id: HeaderValue,
        client: IpAddr,
    ) -> Box<Self> {
        let started = Instant::now();
        // The room first: else it would be put together on the stack and copied.
        let room = Box::new_uninit();
        let ticket = Self {
            started,
            attempted: None,
            stats,
            log,
            active,
            request_id,
            client,
            method: Method::GET,
            version: Version::HTTP_11,
            host: None,
            target: None,
            pool: None,
            attempts: Vec::new(),
            connected: None,
            serving: None,
            status: 0,
            head_at: None,
            bytes_in: 0,
            bytes_out: 0,
            cut: None,
            not_replayed: None,
            tunnel: None,
            complete: false,
        };
        Box::write(room, ticket)
    }

    /// The service is known.
    pub(crate) fn routed(&mut self, pool: &Arc<Pool>) {
        pool.stats.inflight.inc();
        self.pool = Some(Arc::clone(pool));
    }

    /// A connection was opened for an attempt, since then: that is part of it.
    pub(crate) fn connected(&mut self, member: &Member, since: Instant) {
        self.connected = Some((member.backend.slot, since));
    }

    /// One attempt ended.
    pub(crate) fn attempted(&mut self, member: &Member, outcome: &'static str, since: Instant) {
        self.attempted_until(member, outcome, since, Instant::now());
    }

    /// One attempt ended at `until`.
    pub(crate) fn attempted_until(&mut self, member: &Member, outcome: &'static str, since: Instant, until: Instant) {
        self.attempted = Some(until);
        if !self.log {
            return;
        }
        let connected = self.connected.take_if(|(slot, _)| *slot == member.backend.slot);
        let since = connected.map_or(since, |(_, at)| at.min(since));
        self.attempts.push(Attempted {
            site: Arc::clone(&member.backend.id.site),
            address: Arc::clone(&member.backend.id.address),
            outcome,
            took: until - since,
        });
    }

    /// The head of the answer is on its way.
    pub(crate) fn answered(&mut self, status: u16) {
        self.status = status;
        // A backend's head came when its attempt ended; an answer of our own is made now.
        self.head_at = Some(self.attempted.filter(|_| self.serving.is_some()).unwrap_or_else(Instant::now));
    }

    /// The last byte of the answer was handed over.
    pub(crate) fn completed(&mut self) {
        self.complete = true;
    }

    fn count(&self, status: u16, took: Duration) {
        match (&self.pool, &self.serving) {
            (Some(pool), Some(serving)) => {
                serving.backend().stats.codes.count(status);
                pool.stats.duration.observe(took);
            }
            (Some(pool), None) => {
                pool.stats.own_codes.count(status);
                pool.stats.duration.observe(took);
            }
            (None, _) => self.stats.unrouted.count(status),
        }
        if let Some(pool) = &self.pool {
            pool.stats.inflight.dec();
        }
    }

    fn write_line(&self, status: u16, took: Duration) {
        let millis = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX) as f64 / 1000.0;
        let backend = self.serving.as_ref().map(|serving| &serving.backend().id);
        let attempts: Vec<String> = self
            .attempts
            .iter()
            .map(|one| format!("{}/{} {} {:.1}ms", one.site, one.address, one.outcome, millis(one.took)))
            .collect();
        tracing::info!(
            target: "access",
            request_id = self.request_id.to_str().unwrap_or("-"),
            client = %self.client,
            method = %self.method,
            host = self.host.as_ref().map_or("", |host| &*host.name),
            path = self.target.as_ref().map_or("", PathAndQuery::path),
            proto = ?self.version,
            status,
            service = self.pool.as_ref().map_or("-", |pool| &*pool.service.name),
            site = backend.map_or("-", |id| &*id.site),
            backend = backend.map_or("-", |id| &*id.address),
            attempts = %attempts.join(", "),
            bytes_in = self.bytes_in,
            bytes_out = self.bytes_out,
            head_ms = self.head_at.map_or(0.0, |at| millis(at - self.started)),
            duration_ms = millis(took),
            cut = self.cut.unwrap_or("-"),
            not_replayed = self.not_replayed.unwrap_or("-"),
        );
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stats.panics.inc();
        }
        if !self.complete && self.cut.is_none() {
            self.cut = Some(if self.active.stalled() { "client_stalled" } else { "client_gone" });
        }
        // 499: the client went away before there was an answer.
        let status = if self.status == 0 { 499 } else { self.status };
        let now = Instant::now();
        let took = now - self.started;
        self.active.ends(now);
        self.count(status, took);
        if self.log {
            self.write_line(status, took);
        }
    }
}

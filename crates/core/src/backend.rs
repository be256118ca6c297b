//! One backend as every thread sees it: its identity and the counters workers write and core reads.
//!
//! Health and admin are not here: they are values in a `Snapshot`, so that a reader never sees half a change.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use relais_config::{Address, Upstream};
use serde::{Deserialize, Serialize};

use crate::stats::BackendStats;
use crate::time::Instant;

/// How exactly [`Backend::heard`] is known.
const HEARD_WITHIN: Duration = Duration::from_millis(10);

/// Identity by content: the same service, site and address is the same backend, across reload and restart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BackendId {
    /// Service name.
    pub service: Arc<str>,
    /// Site name.
    pub site: Arc<str>,
    /// Address as in the file.
    pub address: Arc<str>,
}

impl std::fmt::Display for BackendId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.service, self.address)
    }
}

/// One address of one service at one site, shared by all snapshots for as long as its identity and transport stay.
///
/// What every request reads or counts lies together, see [`BackendStats`].
#[derive(Debug)]
#[repr(C)]
pub struct Backend {
    /// Unique for the life of the process, never reused: worker pools are keyed on it. A backend whose `upstream`
    /// changed in a reload gets a new slot, so that no connection made for the old transport is reused.
    pub slot: u32,
    inflight: AtomicI64,
    /// Those of `inflight` that are streams.
    streams: AtomicI64,
    /// Peak EWMA of latency in microseconds, as f64 bits.
    latency: AtomicU64,
    latency_at: AtomicU64,
    /// What workers count.
    pub stats: BackendStats,
    /// How to speak to it.
    pub upstream: Arc<Upstream>,
    /// Stable hash of `id`, for rendezvous hashing and sticky cookies.
    pub hash: u64,
    /// Who it is.
    pub id: BackendId,
    /// Where it is.
    pub address: Address,
    /// When a stream last brought a byte from it, in microseconds of [`crate::Instant`].
    heard: AtomicU64,
    /// When something of an answer's body last came that had been waited for, in microseconds of [`crate::Instant`].
    came: AtomicU64,
    /// When a request was last found to wait there for its answer longer than usual, likewise.
    overdue_at: AtomicU64,
}

impl Backend {
    /// A backend nobody has talked to yet.
    #[must_use]
    pub fn new(id: BackendId, slot: u32, address: Address, upstream: Arc<Upstream>) -> Self {
        let hash = crate::hash::stable(&[id.service.as_bytes(), id.site.as_bytes(), id.address.as_bytes()]);
        Self {
            id,
            slot,
            address,
            upstream,
            hash,
            stats: BackendStats::default(),
            inflight: AtomicI64::new(0),
            streams: AtomicI64::new(0),
            heard: AtomicU64::new(0),
            came: AtomicU64::new(0),
            overdue_at: AtomicU64::new(0),
            latency: AtomicU64::new(0),
            latency_at: AtomicU64::new(0),
        }
    }

    /// Requests and streams in flight now, all workers together.
    #[must_use]
    pub fn inflight(&self) -> u32 {
        u32::try_from(self.inflight.load(Relaxed)).unwrap_or(0)
    }

    /// Streams among them: tunnels and event streams, which stay for hours and do little at a time.
    #[must_use]
    pub fn streams(&self) -> u32 {
        u32::try_from(self.streams.load(Relaxed)).unwrap_or(0)
    }

    /// What a further one of its kind meets there: streams are compared with streams, requests with requests. The two
    /// are not read at one moment.
    #[must_use]
    pub fn busy(&self, stream: bool) -> u32 {
        if stream { self.streams() } else { self.inflight().saturating_sub(self.streams()) }
    }

    /// The last request it was asked went wrong.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.stats.streak.get() != 0
    }

    /// Counts an attempt in; it is counted out when the guard drops.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.inflight.fetch_add(1, Relaxed);
        InFlight { backend: Arc::clone(self), stream: false }
    }

    /// Counts a request that waits for an answer for too long; it is counted out when the guard drops.
    #[must_use]
    pub fn wait_long(self: &Arc<Self>) -> Overdue {
        self.stats.overdue.inc();
        Overdue(Arc::clone(self))
    }

    /// When a stream (a tunnel, an event stream) last brought a byte from it, to 10 ms.
    #[must_use]
    pub fn heard(&self) -> Instant {
        Instant(self.heard.load(Relaxed))
    }

    /// A stream brought a byte from it. Many workers say so many times a second: written only when it is news.
    pub fn hear(&self, now: Instant) {
        if now.since(self.heard()) >= HEARD_WITHIN {
            self.heard.store(now.0, Relaxed);
        }
    }

    /// Something of an answer's body came that had been waited for. Written only when it is news, as [`Backend::hear`].
    pub fn comes(&self, now: Instant) {
        if now.since(Instant(self.came.load(Relaxed))) >= HEARD_WITHIN {
            self.came.store(now.0, Relaxed);
        }
    }

    /// A request waits there for its answer longer than usual.
    pub fn found_overdue(&self, now: Instant) {
        self.overdue_at.store(now.0, Relaxed);
    }

    /// Whether nothing that was waited for has come from it for `long`, and a request was found to wait there longer than usual
    /// after `since`. Exact to 10 ms.
    #[must_use]
    pub fn stands_still(&self, since: Instant, long: Duration, now: Instant) -> bool {
        let came = [&self.came, &self.heard, &self.latency_at].into_iter().map(|at| at.load(Relaxed)).max();
        now.since(Instant(came.unwrap_or(0))) >= long.max(HEARD_WITHIN * 2) && self.overdue_at.load(Relaxed) > since.0
    }

    /// Peak EWMA in microseconds, decayed to `now`; 0 when nothing was measured.
    #[must_use]
    pub fn latency(&self) -> f64 {
        f64::from_bits(self.latency.load(Relaxed))
    }

    /// When latency was last measured, in microseconds of [`crate::Instant`].
    #[must_use]
    pub fn latency_at(&self) -> u64 {
        self.latency_at.load(Relaxed)
    }

    /// Stores what `balancer::peak_ewma` computed. Two workers may overwrite each other: an estimate may lose a sample.
    pub fn set_latency(&self, micros: f64, at: u64) {
        self.latency.store(micros.to_bits(), Relaxed);
        self.latency_at.store(at, Relaxed);
    }
}

/// A request that waits at a backend for too long.
#[derive(Debug)]
pub struct Overdue(Arc<Backend>);

impl Drop for Overdue {
    fn drop(&mut self) {
        self.0.stats.overdue.dec();
    }
}

/// One attempt in flight at a backend.
#[derive(Debug)]
pub struct InFlight {
    backend: Arc<Backend>,
    stream: bool,
}

impl InFlight {
    /// The backend it is counted at.
    #[must_use]
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// From now on it counts as a stream, or no longer.
    #[must_use]
    pub fn as_stream(mut self, stream: bool) -> Self {
        match (self.stream, stream) {
            (false, true) => drop(self.backend.streams.fetch_add(1, Relaxed)),
            (true, false) => drop(self.backend.streams.fetch_sub(1, Relaxed)),
            _ => {}
        }
        self.stream = stream;
        self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.stream {
            self.backend.streams.fetch_sub(1, Relaxed);
        }
        self.backend.inflight.fetch_sub(1, Relaxed);
    }
}

//! Counters that workers write and the metrics room reads. Plain atomics: no lock, no lookup by label per request.
//!
//! Cardinality is bounded by the config: codes outside the list fall into their class.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::fault::Fault;

/// A counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Relaxed);
    }
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }
    /// Takes one away (for gauges).
    pub fn dec(&self) {
        self.0.fetch_sub(1, Relaxed);
    }
    /// Begins at zero again.
    fn clear(&self) {
        self.0.store(0, Relaxed);
    }
    /// The value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Status codes counted one by one; any other is counted under its class.
pub const CODES: [u16; 34] = [
    101, 200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409, 410, 412, 413, 414,
    416, 421, 422, 429, 431, 499, 500, 502, 503, 504, 507,
];

/// Requests by status code.
#[derive(Debug)]
pub struct Codes {
    known: [Counter; CODES.len()],
    class: [Counter; 5],
}

impl Default for Codes {
    fn default() -> Self {
        Self { known: std::array::from_fn(|_| Counter::default()), class: std::array::from_fn(|_| Counter::default()) }
    }
}

impl Codes {
    /// Counts an answer with this status.
    pub fn count(&self, code: u16) {
        match CODES.binary_search(&code) {
            Ok(i) => self.known[i].inc(),
            Err(_) => self.class[usize::from((code / 100).clamp(1, 5)) - 1].inc(),
        }
    }

    /// Every label with a count above zero, e.g. `("200", 17)`, `("4xx", 2)`.
    #[must_use]
    pub fn read(&self) -> Vec<(String, u64)> {
        let known = CODES.iter().zip(&self.known).map(|(code, n)| (code.to_string(), n.get()));
        let class = self.class.iter().enumerate().map(|(i, n)| (format!("{}xx", i + 1), n.get()));
        known.chain(class).filter(|(_, n)| *n > 0).collect()
    }
}

/// Upper bounds of latency buckets, in microseconds.
pub const BUCKETS: [u64; 14] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 60_000_000,
];

/// A latency histogram. The sum lies beside the buckets of quick answers, which are most.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Histogram {
    sum: Counter,
    buckets: [Counter; BUCKETS.len() + 1],
}

impl Histogram {
    /// Counts one observation.
    pub fn observe(&self, time: std::time::Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BUCKETS.partition_point(|&bound| bound < micros)].inc();
        self.sum.add(micros);
    }

    /// Count per bucket (not cumulative; the last is "above all bounds") and the sum in microseconds.
    #[must_use]
    pub fn read(&self) -> ([u64; BUCKETS.len() + 1], u64) {
        (std::array::from_fn(|i| self.buckets[i].get()), self.sum.get())
    }
}

/// Counted at one backend. What every request counts lies together: with a thousand backends each line of memory more is one
/// that the processor has to fetch.
#[derive(Debug, Default)]
#[repr(C)]
pub struct BackendStats {
    /// Attempts on a kept-alive connection.
    pub reused: Counter,
    /// Attempts that got a response head that does not count as failed. The control loop reads this: it is how it
    /// sees that real requests succeed, without an event per request.
    pub succeeded: Counter,
    /// Those of them whose body came to its end. Tunnels have none.
    pub whole: Counter,
    /// Time from attempt start to response head.
    pub latency: Histogram,
    /// Answers passed on to clients, by code.
    pub codes: Codes,
    /// Attempts that failed.
    pub failed: Counter,
    /// Attempts answered 5xx, wrongly, too late, or broken off, whether they count as failed or not.
    pub errors: Counter,
    /// Requests that wait there now for the head of an answer, and have for longer than the contract. A gauge.
    pub overdue: Counter,
    /// Failed attempts, answers of 500 and more and such as broke off, since the last right one. Workers that count at once may lose one.
    pub streak: Counter,
    /// Times it was left for being much worse than its pool, by reason: see [`EJECTION_REASONS`].
    pub ejections: [Counter; EJECTION_REASONS.len()],
    /// Attempts on a fresh connection.
    pub connected: Counter,
    /// Of those that succeeded: answered 5xx, or not to the end.
    pub spoiled: Counter,
}

/// Why backends are ejected.
pub const EJECTION_REASONS: [&str; 2] = ["errors", "slow"];

impl BackendStats {
    /// Counts an attempt that failed.
    pub fn fail(&self, fault: Fault) {
        self.failed.inc();
        self.streak.inc();
        if fault.is_gray() {
            self.errors.inc();
        }
    }

    /// Counts a response head that does not count as failed.
    pub fn succeed(&self, status: u16) {
        self.succeeded.inc();
        if status >= 500 {
            self.errors.inc();
            self.streak.inc();
            self.spoiled.inc();
        }
    }

    /// Attempts that went well, and those that did not, as people understand it.
    #[must_use]
    pub fn told(&self) -> (u64, u64) {
        let spoiled = self.spoiled.get();
        (self.succeeded.get().saturating_sub(spoiled), self.failed.get().saturating_add(spoiled))
    }

    /// Its answer is whole, or on its way to a client who is to have it as it comes: what failed before is over, where it is right.
    pub fn serve(&self, status: u16) {
        if status < 500 && self.streak.get() != 0 {
            self.streak.clear();
        }
    }

    /// Counts an answer that broke off after a head that was none of an error: what is counted as one is so once.
    pub fn break_off(&self) {
        self.errors.inc();
        self.streak.inc();
    }
}

/// Counted at one service. What every request counts comes first.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ServiceStats {
    /// Requests in flight.
    pub inflight: Counter,
    /// Whole request: from its head to the last byte of the answer.
    pub duration: Histogram,
    /// Answers relais made itself (no backend), by code.
    pub own_codes: Codes,
    /// Second and later attempts, by the reason of the one before: see [`RETRY_REASONS`].
    pub retries: [Counter; RETRY_REASONS.len()],
    /// Requests that would have been retried but the budget was spent.
    pub budget_exhausted: Counter,
    /// Failed requests that were not replayable (sent, not idempotent or body not kept).
    pub not_replayable: Counter,
    /// Requests that wait for a backend.
    pub waiting: Counter,
    /// Requests that could have been repeated and were answered with an error all the same: ours, or the last
    /// backend's that is worth a retry.
    pub lost: Counter,
    /// How long failovers took: from the first lost packet the edge could know of to the last request affected.
    pub failover: Histogram,
    /// Failovers that took longer than the contract.
    pub overruns: Counter,
    /// Downloads continued from another backend.
    pub resumed: Counter,
    /// Open tunnels (WebSocket and other upgrades).
    pub tunnels: Counter,
}

/// Reasons a retry is counted under.
pub const RETRY_REASONS: [&str; 14] = [
    "refused",
    "unreachable",
    "connect_timeout",
    "reset",
    "unacknowledged",
    "unresolved",
    "tls",
    "status",
    "response_timeout",
    "malformed",
    "rescued",
    "stagger",
    "hedged",
    "late",
];

impl ServiceStats {
    /// Counts a retry after `reason` (one of [`RETRY_REASONS`]; unknown words are not counted).
    pub fn retried(&self, reason: &str) {
        if let Some(i) = RETRY_REASONS.iter().position(|r| *r == reason) {
            self.retries[i].inc();
        }
    }
}

/// Counted at the edge as a whole.
#[derive(Debug, Default)]
pub struct EdgeStats {
    /// Client connections accepted.
    pub accepted: Counter,
    /// Client connections open.
    pub open: Counter,
    /// TLS handshakes finished.
    pub handshakes: Counter,
    /// Of those, resumed.
    pub handshakes_resumed: Counter,
    /// TLS handshakes failed.
    pub handshakes_failed: Counter,
    /// Accept pauses because file descriptors or connections ran out.
    pub accept_paused: Counter,
    /// Answers to requests that matched no service or were refused before routing, by code.
    pub unrouted: Codes,
    /// Events from workers dropped because the channel was full.
    pub events_dropped: Counter,
    /// Requests whose handler panicked.
    pub panics: Counter,
}

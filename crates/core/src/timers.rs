//! The solver: one stated time, `failover_within`, gives every timer. Pure arithmetic.

use std::time::Duration;

use relais_config::Forward;

/// Every timer of one service.
#[derive(Debug, Clone, PartialEq)]
pub struct Timers {
    /// The contract.
    pub failover_within: Duration,
    /// Between two probes of a backend that is `Up`.
    pub interval: Duration,
    /// Between two probes while in doubt (`Suspect`, `Probing`).
    pub fast_interval: Duration,
    /// Between two probes of a backend that is `Down`.
    pub down_interval: Duration,
    /// Deadline of one probe.
    pub probe_timeout: Duration,
    /// Consecutive successes until `Up`.
    pub rise: u32,
    /// Consecutive failures until `Down`.
    pub fall: u32,
    /// Consecutive failed requests until `Down`; 0: off.
    pub passive_fall: u32,
    /// Random part of the interval, 0.0 to 0.5.
    pub jitter: f64,
    /// Deadline of one connect (TLS handshake included).
    pub connect: Duration,
    /// When a connect has not finished after this, the next backend is tried beside it.
    pub stagger: Duration,
    /// How long a request waits for a backend when none can be picked.
    pub wait: Duration,
    /// Longest a return from `Down` is held back by flap history.
    pub max_hold_down: Duration,
    /// How long a returning backend's share grows from a tenth to whole.
    pub ramp: Duration,
}

impl Timers {
    /// Derives what the file leaves open from the contract; what is set by hand is kept as it is.
    #[must_use]
    pub fn solve(forward: &Forward) -> Timers {
        let contract = forward.failover_within;
        let part = |percent: u32| contract * percent / 100;
        let health = &forward.health;
        let interval = health.interval.unwrap_or_else(|| part(30).max(Duration::from_millis(100)));
        let probe_timeout = health.timeout.unwrap_or_else(|| part(20).max(Duration::from_millis(80)));
        Timers {
            failover_within: contract,
            interval,
            fast_interval: interval.min(part(5).max(Duration::from_millis(20))),
            down_interval: interval,
            probe_timeout,
            rise: health.rise.unwrap_or(2),
            fall: health.fall.unwrap_or(2),
            passive_fall: forward.passive_fall.unwrap_or(3),
            jitter: health.jitter,
            connect: forward.timeout.connect.unwrap_or_else(|| part(50).max(Duration::from_millis(150))),
            stagger: part(20).clamp(Duration::from_millis(50), Duration::from_millis(300)),
            wait: forward.queue_timeout.unwrap_or(contract),
            max_hold_down: Duration::from_secs(60).max(contract * 10),
            ramp: contract * 5,
        }
    }

    /// Longest time from a silent cut to `Down` by probes alone: one interval (with its jitter) until the next probe,
    /// then `fall` timeouts, with a fast interval between them.
    #[must_use]
    pub fn detection(&self) -> Duration {
        let gaps = self.fall.saturating_sub(1);
        self.interval.mul_f64(1.0 + self.jitter) + self.probe_timeout * self.fall + self.fast_interval * gaps
    }
}

//! The solver: one stated time, `failover_within`, gives every timer. Pure arithmetic.

use std::time::Duration;

use relais_config::{CheckKind, Forward, Pace};

use crate::words::{count, short};

/// Every timer of one service.
#[derive(Debug, Clone, PartialEq)]
pub struct Timers {
    /// The contract.
    pub failover_within: Duration,
    /// Whether backends are probed at all (`health = "off"`: not).
    pub checked: bool,
    /// Between two probes of a backend that is `Up`.
    pub interval: Duration,
    /// Between two probes while in doubt (`Suspect`, `Probing`, after a failed probe).
    pub fast_interval: Duration,
    /// Between two probes of a backend that is `Down`.
    pub down_interval: Duration,
    /// Deadline of one probe. Where good answers are known to take longer it is stretched, up to the contract, unless
    /// it was set by hand.
    pub probe_timeout: Duration,
    /// Deadline of a probe that only asks whether anything answers at all, after a first one met silence. Stretched to
    /// the network's own time.
    pub confirm_timeout: Duration,
    /// Consecutive successes until `Up`.
    pub rise: u32,
    /// Consecutive failures until `Down`.
    pub fall: u32,
    /// Consecutive signs of silence until `Down`: lost packets look the same, so more than `fall` unless `fall` was set
    /// by hand.
    pub patience: u32,
    /// Consecutive failed requests until `Down`; 0: off.
    pub passive_fall: u32,
    /// Random part of the interval, 0.0 to 0.5.
    pub jitter: f64,
    /// Deadline of one connect (TLS handshake included), nearby: see [`crate::Reach`].
    pub connect: Duration,
    /// When a connect nearby has not finished after this, the next backend is tried beside it.
    pub stagger: Duration,
    /// How long a request waits for a backend when none can be picked.
    pub wait: Duration,
    /// Longest a return from `Down` is held back by flap history.
    pub max_hold_down: Duration,
    /// How long a returning backend's share grows from a tenth to whole.
    pub ramp: Duration,
}

impl Timers {
    /// What the contract alone gives: the timers of a service that sets none by hand.
    #[must_use]
    pub fn derive(contract: Duration) -> Timers {
        let part = |percent: u32| contract * percent / 100;
        let pace = Pace::derive(contract);
        Timers {
            failover_within: contract,
            checked: true,
            interval: pace.interval,
            fast_interval: pace.fast_interval,
            down_interval: pace.interval,
            probe_timeout: pace.timeout,
            confirm_timeout: pace.confirm,
            rise: 2,
            fall: pace.fall,
            patience: pace.patience,
            passive_fall: 3,
            jitter: pace.jitter,
            connect: part(50).max(Duration::from_millis(150)),
            stagger: part(20).clamp(Duration::from_millis(50), Duration::from_millis(300)),
            wait: contract,
            max_hold_down: Duration::from_secs(60).max(contract * 10),
            ramp: contract * 5,
        }
    }

    /// Derives what the file leaves open from the contract; what is set by hand is kept as it is.
    #[must_use]
    pub fn solve(forward: &Forward) -> Timers {
        let derived = Timers::derive(forward.failover_within);
        let health = &forward.health;
        let pace = Pace::of(forward.failover_within, health);
        Timers {
            checked: health.kind != CheckKind::Off,
            interval: pace.interval,
            fast_interval: pace.fast_interval,
            down_interval: pace.interval,
            probe_timeout: pace.timeout,
            confirm_timeout: pace.confirm,
            rise: health.rise.unwrap_or(derived.rise).max(1),
            fall: pace.fall,
            patience: pace.patience,
            passive_fall: forward.passive_fall.unwrap_or(derived.passive_fall),
            jitter: pace.jitter,
            connect: forward.timeout.connect.unwrap_or(derived.connect),
            wait: forward.queue_timeout.unwrap_or(derived.wait),
            ..derived
        }
    }

    /// The times of the checks, for sums.
    #[must_use]
    pub fn pace(&self) -> Pace {
        Pace {
            contract: self.failover_within,
            interval: self.interval,
            jitter: self.jitter,
            fast_interval: self.fast_interval,
            timeout: self.probe_timeout,
            confirm: self.confirm_timeout,
            fall: self.fall,
            patience: self.patience,
        }
    }

    /// Longest time from a silent cut to `Down` by probes alone: see [`Pace::silence`].
    #[must_use]
    pub fn detection(&self) -> Duration {
        self.pace().silence()
    }

    /// The timers in sentences, for `relais check` and `relais explain`.
    #[must_use]
    pub fn explain(&self) -> Vec<String> {
        let mut said = if self.checked { self.explain_checks() } else { self.explain_unchecked() };
        if self.passive_fall > 0 {
            said.push(format!(
                "it is down after {} in a row too, whatever its checks say: no answer in time, a broken connection, or a \
                 status in `retry.statuses`, which a 500 is only if named there",
                count(self.passive_fall, "failed request")
            ));
        }
        said.push(format!(
            "a connect that takes longer than {} is joined by one to another backend, and given up after {}",
            short(self.stagger),
            short(self.connect)
        ));
        said.push(format!(
            "a request that may be repeated leaves a connection on which nothing is acknowledged for {}",
            short(self.near().unacknowledged())
        ));
        said.push(format!("when no backend is left a request waits at most {}", short(self.wait)));
        said.push(format!(
            "a backend comes back after {}; each further outage within 10 minutes doubles the wait before that, from \
             {} to {}; its share then grows from a tenth to whole in {}",
            if self.checked { count(self.rise, "good check") } else { short(self.failover_within) },
            short(self.failover_within * 2),
            short(self.max_hold_down),
            short(self.ramp)
        ));
        said
    }

    fn explain_checks(&self) -> Vec<String> {
        let detection = self.detection();
        let mut said = vec![
            format!(
                "each backend is checked every {} (+- {} %), an answer is due within {}",
                short(self.interval),
                (self.jitter * 50.0).round(),
                short(self.probe_timeout)
            ),
            format!(
                "a silent cut of a site is seen within {} by checks alone: {} until the next check, {} without an \
                 answer, {} of {}",
                short(detection),
                short(self.interval.mul_f64(1.0 + self.jitter)),
                short(self.probe_timeout),
                count(self.patience.saturating_sub(1), "more check"),
                short(self.confirm_timeout.max(self.fast_interval))
            ),
            format!(
                "a backend is down after {} in a row, {} late ones, or {} without any answer",
                count(self.fall, "wrong answer"),
                self.fall.max(self.patience.saturating_sub(1)),
                count(self.patience.max(self.fall), "check")
            ),
        ];
        if detection > self.failover_within {
            said.push(format!(
                "that is longer than failover_within = {}: a cut nobody's request meets is seen late; leave interval, \
                 timeout and fall unset, or set failover_within to {} or more",
                short(self.failover_within),
                short(detection)
            ));
        }
        said
    }

    fn explain_unchecked(&self) -> Vec<String> {
        vec![
            "no checks: only failed requests show that a backend is gone, so the first ones after a cut are slow"
                .to_owned(),
            format!("a backend that is down gets a request again after {}", short(self.failover_within)),
        ]
    }
}

#[cfg(test)]
#[path = "timers_tests.rs"]
mod tests;

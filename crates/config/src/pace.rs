//! The arithmetic of the contract: how often and how patiently backends are checked so that `failover_within` holds,
//! and how long a cut can stay unseen. Pure; the check of the file and core's solver use these same numbers.

use std::time::Duration;

use crate::words::{count, short};
use crate::{CheckKind, HealthCheck};

/// Derived times never leave less than this share of the contract for the network and for scheduling, in percent.
const MARGIN: u32 = 5;
/// Three round trips and this, or 2 % of a short contract, is the least that a check waits.
const LEAST_SLACK: Duration = Duration::from_millis(20);

/// The times of one service's checks.
#[derive(Debug, Clone, PartialEq)]
pub struct Pace {
    /// `failover_within`.
    pub contract: Duration,
    /// Between two checks of a backend that is up.
    pub interval: Duration,
    /// Random part of the interval, 0.0 to 0.5.
    pub jitter: f64,
    /// Between two checks in doubt.
    pub fast_interval: Duration,
    /// Deadline of one check.
    pub timeout: Duration,
    /// Deadline of a check that only asks whether anything answers at all, after a first one met silence.
    pub confirm: Duration,
    /// Wrong or late answers in a row until a backend is down.
    pub fall: u32,
    /// Signs of silence in a row until it is down: lost packets look the same, so more than `fall` unless `fall` was
    /// set by hand.
    pub patience: u32,
}

impl Pace {
    /// What the contract alone gives.
    #[must_use]
    pub fn derive(contract: Duration) -> Pace {
        let part = |percent: u32| contract * percent / 100;
        Pace {
            contract,
            interval: part(25),
            jitter: 0.1,
            fast_interval: part(5),
            timeout: part(20),
            confirm: part(8),
            fall: 2,
            patience: 4,
        }
    }

    /// What is set by hand is kept; what is left open gives way to it as far as it can.
    #[must_use]
    pub fn of(contract: Duration, health: &HealthCheck) -> Pace {
        let derived = Pace::derive(contract);
        let wanted = |interval: Duration, timeout: Duration| Pace {
            interval,
            timeout,
            jitter: health.jitter,
            fast_interval: derived.fast_interval.min(interval),
            confirm: derived.confirm.min(timeout),
            fall: health.fall.unwrap_or(derived.fall).max(1),
            patience: health.fall.map_or(derived.patience, |fall| fall.max(1)),
            ..derived.clone()
        };
        let open = |by_hand: Option<Duration>, most: u32| match by_hand {
            Some(time) => vec![time],
            None => (5..=most).rev().map(|percent| contract * percent / 100).collect(),
        };
        let (intervals, timeouts) = (open(health.interval, 25), open(health.timeout, 20));
        let ways = || intervals.iter().flat_map(|interval| timeouts.iter().map(|timeout| wanted(*interval, *timeout)));
        let limit = contract * (100 - MARGIN) / 100;
        let answers = !matches!(health.kind, CheckKind::Tcp | CheckKind::Off);
        ways()
            .find(|pace| pace.silence() <= limit && (!answers || pace.hang() <= limit))
            .or_else(|| ways().find(|pace| pace.silence() <= limit))
            .unwrap_or_else(|| {
                wanted(health.interval.unwrap_or(derived.interval), health.timeout.unwrap_or(derived.timeout))
            })
    }

    /// The same on a path whose round trip was measured: no check waits for less than [`Pace::least_wait`].
    #[must_use]
    pub fn over(&self, round_trip: Duration) -> Pace {
        let least = Pace::least_wait(self.contract, round_trip);
        Pace { timeout: self.timeout.max(least), confirm: self.confirm.max(least), ..self.clone() }
    }

    /// The least time that tells a lost packet from a slow path: three round trips and 20 ms, or 2 % of a contract
    /// below 1 s.
    #[must_use]
    pub fn least_wait(contract: Duration, round_trip: Duration) -> Duration {
        round_trip * 3 + LEAST_SLACK.min(contract / 50)
    }

    /// Longest time between two checks of a backend that is up.
    #[must_use]
    pub fn longest_interval(&self) -> Duration {
        self.interval.mul_f64(1.0 + self.jitter)
    }

    /// Between two checks that confirm silence.
    #[must_use]
    pub fn round(&self) -> Duration {
        self.confirm.max(self.fast_interval)
    }

    /// Longest time from a silent cut to the verdict, by checks alone: until the next check, its timeout, then the
    /// short checks that confirm it. Network time and scheduling come on top.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.longest_interval() + self.timeout + self.round() * self.patience.saturating_sub(1)
    }

    /// Longest time until a process that takes connections and never answers is down, by checks that ask for an answer.
    #[must_use]
    pub fn hang(&self) -> Duration {
        self.longest_interval() + self.timeout * self.fall
    }

    /// Whether checks alone see a silent cut within the contract.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.silence() <= self.contract
    }

    /// The shortest plain contract, from `contract` to 60 s, that these checks can keep over this round trip.
    #[must_use]
    pub fn least_contract(contract: Duration, health: &HealthCheck, round_trip: Duration) -> Option<Duration> {
        const PLAIN: [u64; 16] = [
            400, 500, 800, 1_000, 1_500, 2_000, 3_000, 4_000, 5_000, 6_000, 8_000, 10_000, 15_000, 20_000, 30_000,
            60_000,
        ];
        let mut plain = PLAIN.into_iter().map(Duration::from_millis).filter(|plain| *plain >= contract);
        plain.find(|plain| Pace::of(*plain, health).over(round_trip).holds())
    }

    /// The sum behind [`Pace::silence`]: `interval 2 s + jitter 200 ms + timeout 1 s + 3 more checks of 80 ms = 3.44 s`.
    #[must_use]
    pub fn sum(&self) -> String {
        let mut parts = vec![format!("interval {}", short(self.interval))];
        let jitter = self.longest_interval().saturating_sub(self.interval);
        if !jitter.is_zero() {
            parts.push(format!("jitter {}", short(jitter)));
        }
        parts.push(format!("timeout {}", short(self.timeout)));
        if self.patience > 1 {
            parts.push(format!("{} of {}", count(self.patience - 1, "more check"), short(self.round())));
        }
        format!("{} = {}", parts.join(" + "), short(self.silence()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn health(edit: impl FnOnce(&mut HealthCheck)) -> HealthCheck {
        let mut health = HealthCheck {
            kind: CheckKind::Tcp,
            port: None,
            tls: None,
            interval: None,
            timeout: None,
            rise: None,
            fall: None,
            jitter: 0.1,
        };
        edit(&mut health);
        health
    }

    #[test]
    fn every_contract_holds_by_itself_with_room_to_spare() {
        for contract in [300, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000].map(ms) {
            let pace = Pace::of(contract, &health(|_| {}));
            assert_eq!(pace, Pace::derive(contract));
            assert!(pace.silence() < contract * 4 / 5, "{contract:?}: {:?}", pace.silence());
            assert!(pace.hang() < contract * 4 / 5, "{contract:?}: {:?}", pace.hang());
        }
    }

    #[test]
    fn what_is_left_open_gives_way_to_what_is_set_by_hand() {
        let contract = ms(1_000);
        let pace = Pace::of(contract, &health(|check| check.interval = Some(ms(500))));
        assert_eq!(pace.interval, ms(500));
        assert_eq!(pace.timeout, ms(160), "550 + 160 + 3 * 80 = 950");
        let pace = Pace::of(contract, &health(|check| check.timeout = Some(ms(500))));
        assert_eq!(pace.timeout, ms(500));
        assert_eq!(pace.interval, ms(190), "209 + 500 + 3 * 80 = 949");
        let pace = Pace::of(contract, &health(|check| check.fall = Some(7)));
        assert_eq!((pace.fall, pace.patience), (7, 7));
        assert!(pace.holds() && pace.interval == ms(250), "{pace:?}");
        assert_eq!(Pace::of(contract, &health(|check| check.jitter = 0.5)).interval, ms(250));
    }

    #[test]
    fn what_cannot_hold_keeps_the_derived_times_and_tells_the_sum() {
        let pace = Pace::of(
            ms(1_000),
            &health(|check| {
                check.interval = Some(ms(2_000));
                check.timeout = Some(ms(1_000));
            }),
        );
        assert!(!pace.holds());
        assert_eq!(pace.sum(), "interval 2 s + jitter 200 ms + timeout 1 s + 3 more checks of 80 ms = 3.44 s");
        let pace = Pace::of(
            ms(1_000),
            &health(|check| {
                check.interval = Some(ms(2_000));
                check.fall = Some(1);
                check.jitter = 0.0;
            }),
        );
        assert_eq!(pace.sum(), "interval 2 s + timeout 200 ms = 2.2 s");
    }

    /// A check that waits for an answer must also find a process that hangs in time.
    #[test]
    fn a_page_leaves_room_for_whole_timeouts() {
        let page = |fall| {
            let kind = CheckKind::Http(crate::HttpCheck {
                path: "/".to_owned(),
                method: "GET".to_owned(),
                host: None,
                status: vec![(200, 399)],
                body: None,
                headers: Vec::new(),
            });
            Pace::of(
                ms(1_000),
                &health(|check| {
                    check.kind = kind;
                    check.fall = Some(fall);
                }),
            )
        };
        assert_eq!(page(5).timeout, ms(130), "275 + 5 * 130 = 925");
        assert!(page(5).hang() <= ms(950));
        assert!(page(9).holds(), "where both cannot be had, silence comes first");
    }

    #[test]
    fn a_long_path_stretches_what_is_shorter_than_it() {
        let pace = Pace::derive(ms(1_000));
        assert_eq!(pace.over(ms(10)), pace, "50 ms are less than any deadline");
        let far = pace.over(ms(100));
        assert_eq!((far.timeout, far.confirm), (ms(320), ms(320)));
        assert!(!far.holds());
        assert_eq!(Pace::least_wait(ms(300), ms(12)), ms(42));
        assert!(Pace::derive(ms(300)).over(ms(12)).holds());
    }
}

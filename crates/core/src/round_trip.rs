//! How far away a site is, as its probes measure it, and what that does to the timers of a service.

use std::time::Duration;

use relais_config::{CheckKind, Forward, Pace};

use crate::timers::Timers;
use crate::words::short;

/// A packet that is lost once is acknowledged by then (Linux sends it again after 0.2 s and the round trip).
const LEAST_UNACKNOWLEDGED: Duration = Duration::from_millis(450);
/// Below this a round trip is as good as none.
const NEAR: Duration = Duration::from_millis(1);
/// What a new measurement counts for where few are made: one of so many.
const FEW: u32 = 8;

/// The round trip of one site's path, smoothed as RFC 6298 2 has it; where many measure at a time each counts for less, as in
/// RFC 7323, appendix G: eight of ten thousand are no more than a moment of this edge's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RoundTrip {
    smoothed: Option<Duration>,
    settled: Duration,
    /// Measurements so far, up to a round of all backends there.
    seen: u32,
}

impl RoundTrip {
    /// Takes one measured round trip of a site of so many backends. Says whether [`RoundTrip::settled`] changed.
    pub(crate) fn observe(&mut self, took: Duration, backends: usize) -> bool {
        let round = u32::try_from(backends).unwrap_or(u32::MAX);
        self.seen = self.seen.saturating_add(1).min(round);
        let share = self.seen.max(FEW);
        let smoothed = self.smoothed.map_or(took, |known| known - known / share + took / share);
        self.smoothed = Some(smoothed);
        let step = NEAR.max(self.settled / 8);
        if smoothed <= self.settled + step && smoothed + step >= self.settled {
            return false;
        }
        // Whole milliseconds, rounded up.
        self.settled = Duration::from_millis(u64::try_from(smoothed.as_micros().div_ceil(1000)).unwrap_or(u64::MAX));
        true
    }

    /// Takes the measure of a path on which all others fail: what was known of it holds no longer.
    pub(crate) fn begin_anew(&mut self, took: Duration) {
        *self = Self::default();
        self.observe(took, 1);
    }

    /// `None`: nothing was measured.
    pub(crate) fn smoothed(self) -> Option<Duration> {
        self.smoothed
    }

    /// The value that timers use: it follows the smoothed one in steps of an eighth, so that timers do not tremble.
    /// Zero on a path of less than a millisecond.
    pub(crate) fn settled(self) -> Duration {
        self.settled
    }
}

/// Which time is shorter than a path needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lacking {
    /// `timeout.connect`, set by hand.
    Connect,
    /// `timeout` of the checks, set by hand.
    Check,
    /// `failover_within`.
    Contract,
}

/// What its own distance makes of a backend's timers: that of others is no reason to wait here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    contract: Duration,
    /// Deadline of one connect.
    pub connect: Duration,
    /// When a connect has not finished after this, the next backend is tried beside it.
    pub stagger: Duration,
}

impl Reach {
    /// After so long without a connect, a first byte, or the next one of an answer that could go on elsewhere, a worker has the
    /// fleet ask whether the backend lives. Never more than half the stagger, or a long contract would put off the second connect.
    #[must_use]
    pub fn overdue(self) -> Duration {
        (self.contract / 10).min(self.stagger / 2)
    }

    /// What may be repeated leaves a connection on which nobody acknowledges what was sent for so long: early enough to be
    /// answered elsewhere within the contract, late enough for a lost packet to be sent again (Linux: after 0.2 and 0.6 s).
    /// On a path that is longer than that no acknowledgement comes sooner.
    #[must_use]
    pub fn unacknowledged(self) -> Duration {
        (self.contract * 7 / 10).max(LEAST_UNACKNOWLEDGED).min(self.contract).max(self.stagger)
    }
}

impl Timers {
    /// For a backend nearby.
    #[must_use]
    pub fn near(&self) -> Reach {
        Reach { contract: self.failover_within, connect: self.connect, stagger: self.stagger }
    }

    /// For one that is `round_trip` away: connects and their stagger, where they are derived, get the time the path needs
    /// (a connect with TLS takes up to three round trips).
    #[must_use]
    pub fn reach(&self, forward: &Forward, round_trip: Duration) -> Reach {
        if round_trip.is_zero() {
            return self.near();
        }
        let least = Pace::least_wait(self.failover_within, round_trip);
        let connect = if forward.timeout.connect.is_none() { self.connect.max(least * 2) } else { self.connect };
        Reach { connect, stagger: self.stagger.max(round_trip * 2), ..self.near() }
    }

    /// What is too short for a contract to hold at a site that far away; `None`: it can.
    pub(crate) fn lacking(&self, forward: &Forward, site: &str, round_trip: Duration) -> Option<Lacking> {
        if forward.timeout.connect.is_some_and(|connect| connect < round_trip * round_trips(forward, site)) {
            return Some(Lacking::Connect);
        }
        if !self.checked || round_trip.is_zero() {
            return None;
        }
        let least = Pace::least_wait(self.failover_within, round_trip);
        if forward.health.timeout.is_some_and(|timeout| timeout < least) {
            return Some(Lacking::Check);
        }
        (!self.pace().over(round_trip).holds()).then_some(Lacking::Contract)
    }

    /// Why the contract cannot hold at a site that far away, with the numbers; `None`: it can.
    #[must_use]
    pub fn trouble(&self, forward: &Forward, site: &str, round_trip: Duration) -> Option<String> {
        let why = match self.lacking(forward, site, round_trip)? {
            Lacking::Connect => format!(
                "timeout.connect = {} is less than the {} that a connect there takes, living backends look dead; take \
                 timeout.connect out or make it longer",
                short(forward.timeout.connect.unwrap_or_default()),
                short(round_trip * round_trips(forward, site))
            ),
            Lacking::Check => format!(
                "timeout = {} is less than the {} that a check there needs, living backends can be taken for dead; take \
                 timeout out or make it longer",
                short(forward.health.timeout.unwrap_or_default()),
                short(Pace::least_wait(self.failover_within, round_trip))
            ),
            Lacking::Contract => {
                let way_out = match Pace::least_contract(self.failover_within, &forward.health, round_trip) {
                    Some(longer) => format!("write failover_within = \"{}\"", in_file(longer)),
                    None => "no contract is long enough with these timers: take them out".to_owned(),
                };
                let sum = self.pace().over(round_trip).sum();
                format!("{sum} is more than failover_within = {}; {way_out}", short(self.failover_within))
            }
        };
        Some(format!("site {site} is {} away (measured): {why}", short(round_trip)))
    }

    /// What a measured round trip means, in a sentence, for `relais explain`.
    #[must_use]
    pub fn explain_path(&self, forward: &Forward, site: &str, round_trip: Duration) -> String {
        let mut said = self.trouble(forward, site, round_trip).unwrap_or_else(|| {
            let away = format!("site {site} is {} away (measured)", short(round_trip));
            if !self.checked || forward.health.kind == CheckKind::Off {
                return away;
            }
            let least = Pace::least_wait(self.failover_within, round_trip);
            let seen = self.pace().over(round_trip).silence();
            format!(
                "{away}: no check there waits less than {}, a silent cut of it is seen within {}",
                short(least),
                short(seen)
            )
        });
        let reach = self.reach(forward, round_trip);
        if reach != self.near() {
            let (stagger, connect) = (short(reach.stagger), short(reach.connect));
            said.push_str(&format!(
                "; a connect there is joined by another after {stagger}, and given up after {connect}"
            ));
        }
        said
    }
}

/// Round trips of a connect to a site at least: one more with TLS.
fn round_trips(forward: &Forward, site: &str) -> u32 {
    let mut there = forward.backends.iter().filter(|backend| *backend.site == *site);
    if there.any(|backend| backend.upstream.tls.is_some()) { 2 } else { 1 }
}

/// A whole duration as the file has it.
fn in_file(time: Duration) -> String {
    let millis = time.as_millis();
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{backend, forward};

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_round_trip_is_smoothed_and_timers_follow_in_steps() {
        let mut path = RoundTrip::default();
        assert!(!path.observe(Duration::from_micros(300), 2), "a local network is no distance");
        assert_eq!((path.smoothed(), path.settled()), (Some(Duration::from_micros(300)), Duration::ZERO));
        let mut path = RoundTrip::default();
        assert!(path.observe(ms(40), 2));
        assert_eq!(path.settled(), ms(40));
        assert!(!path.observe(ms(80), 2), "45 ms are within an eighth");
        assert_eq!(path.smoothed(), Some(ms(45)));
        let changes = (0..200).filter(|_| path.observe(ms(80), 2)).count();
        assert!(changes <= 8, "{changes}");
        assert!(path.settled() >= ms(70) && path.settled() <= ms(80), "{:?}", path.settled());
    }

    /// What trembles when ten thousand are asked is this edge. Each step has the timers of all services there solved anew.
    #[test]
    fn a_round_of_very_many_is_one_measurement_however_it_trembles() {
        let mut random = crate::random::Random::new(5);
        let mut path = RoundTrip::default();
        let mut steps = |path: &mut RoundTrip, most: u64| {
            let mut took = || {
                let most = ms(random.next() % most + 1);
                random.below(most)
            };
            (0..10_000).filter(|_| path.observe(took(), 10_000)).count()
        };
        let first = steps(&mut path, 40);
        assert!(first <= 12, "{first}");
        let more = steps(&mut path, 40);
        assert!(more <= 2, "{more}");
        let before = path.settled();
        for _ in 0..3 {
            steps(&mut path, 400);
        }
        assert!(path.settled() >= before * 8, "{before:?}, then {:?}: it follows within some rounds", path.settled());
    }

    #[test]
    fn a_long_path_gives_connects_their_time_unless_it_was_set_by_hand() {
        let mut short_contract = forward();
        short_contract.failover_within = ms(300);
        let timers = Timers::solve(&short_contract);
        let far = timers.reach(&short_contract, ms(60));
        assert_eq!((timers.connect, timers.stagger), (ms(150), ms(60)));
        assert_eq!((far.connect, far.stagger), (ms(372), ms(120)), "2 * (3 * 60 + 6), 2 * 60");
        short_contract.timeout.connect = Some(ms(200));
        let by_hand = Timers::solve(&short_contract).reach(&short_contract, ms(60));
        assert_eq!(by_hand.connect, ms(200));
        assert_eq!(timers.reach(&short_contract, ms(4)), timers.near(), "nothing changes nearby");
    }

    #[test]
    fn a_contract_that_the_path_breaks_is_told_with_its_numbers() {
        let forward = forward();
        let timers = Timers::solve(&forward);
        assert_eq!(timers.trouble(&forward, "thory", ms(12)), None);
        assert_eq!(timers.trouble(&forward, "thory", Duration::ZERO), None);
        let far = timers.explain_path(&forward, "thory", ms(120));
        assert!(
            far.ends_with("; a connect there is joined by another after 240 ms, and given up after 0.76 s"),
            "{far}"
        );
        assert_eq!(
            timers.trouble(&forward, "thory", ms(120)).unwrap(),
            "site thory is 120 ms away (measured): interval 250 ms + jitter 25 ms + timeout 380 ms + 3 more checks of \
             380 ms = 1.79 s is more than failover_within = 1 s; write failover_within = \"3s\""
        );
        assert_eq!(
            timers.explain_path(&forward, "thory", ms(12)),
            "site thory is 12 ms away (measured): no check there waits less than 56 ms, a silent cut of it is seen \
             within 0.71 s"
        );
    }

    #[test]
    fn where_no_contract_is_long_enough_the_timers_are_to_go() {
        let mut forward = forward();
        forward.health.interval = Some(ms(60_000));
        let told = Timers::solve(&forward).trouble(&forward, "thory", ms(12)).unwrap();
        assert!(told.ends_with("; no contract is long enough with these timers: take them out"), "{told}");
    }

    #[test]
    fn a_connect_that_is_given_up_before_it_can_be_answered_is_told() {
        let mut forward = forward();
        forward.timeout.connect = Some(ms(50));
        let told = |forward: &Forward, away| Timers::solve(forward).trouble(forward, "thory", ms(away));
        assert_eq!(
            told(&forward, 60).unwrap(),
            "site thory is 60 ms away (measured): timeout.connect = 50 ms is less than the 60 ms that a connect there \
             takes, living backends look dead; take timeout.connect out or make it longer"
        );
        assert_eq!(told(&forward, 40), None);
        let mut there = backend("thory", "10.0.2.1:443", 1);
        let tls = relais_config::UpstreamTls { sni: None, ca: None, verify: true };
        there.upstream = std::sync::Arc::new(relais_config::Upstream { tls: Some(tls), ..(*there.upstream).clone() });
        forward.backends = vec![backend("dijon", "10.0.1.1:80", 1), there];
        assert!(told(&forward, 40).unwrap().contains("is less than the 80 ms that a connect there takes"), "with TLS");
        assert_eq!(Timers::solve(&forward).trouble(&forward, "dijon", ms(40)), None);
        forward.health.kind = CheckKind::Off;
        assert!(told(&forward, 40).is_some(), "requests connect too");
    }

    #[test]
    fn a_timeout_shorter_than_the_path_is_told() {
        let mut forward = forward();
        forward.health.timeout = Some(ms(50));
        let timers = Timers::solve(&forward);
        let told = timers.trouble(&forward, "thory", ms(30)).unwrap();
        assert!(told.contains("timeout = 50 ms is less than the 110 ms"), "{told}");
        assert_eq!(timers.trouble(&forward, "thory", ms(9)), None);
        forward.health.kind = CheckKind::Off;
        assert_eq!(Timers::solve(&forward).trouble(&forward, "thory", ms(900)), None, "nobody checks");
    }
}

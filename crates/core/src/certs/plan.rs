//! The arithmetic of renewal: when a certificate is due, how long to wait after a failure. Pure functions of dates.

use std::time::Duration;

use super::types::{HeldCertificate, RenewalWindow};
use crate::random::Random;
use crate::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// Names gone from the config go on being renewed for so long: a file that was edited twice costs nothing.
pub(super) const GRACE: Duration = DAY;
/// How often a CA is asked about renewal when it does not say (RFC 9773, section 4.3.2).
pub(super) const ASK_EVERY: Duration = Duration::from_secs(6 * 3600);
/// Names asked for by clients are renewed when a client asked for them within this time.
pub(super) const WANTED: Duration = Duration::from_secs(30 * 86_400);
/// Longest pause of an authority that cannot be reached: in each hour in which it can, it is found more than once.
const LONGEST_PAUSE: Duration = Duration::from_secs(20 * 60);

/// How pressing a certificate is. Later is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// Not yet.
    Rest,
    /// It should be renewed, by the authority of first choice.
    Due,
    /// It should have been: whoever can may renew it.
    Late,
    /// Little time is left.
    Urgent,
    /// There is none, or it has ended.
    None,
}

/// The dates of one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dates {
    pub(super) due: Instant,
    pub(super) late: Instant,
    pub(super) urgent: Instant,
    pub(super) end: Instant,
}

impl Dates {
    /// With the CA's window and the moment drawn from it where there is one, else by the lifetime: a third of it left, give
    /// or take a sixtieth. `share`, in parts of 2^64, is the place drawn at random.
    pub(super) fn of(held: &HeldCertificate, window: Option<&RenewalWindow>, share: u64) -> Dates {
        let end = held.not_after;
        let life = end.since(held.not_before);
        let urgent = end - (life / 10).max(DAY.min(life / 4));
        let fourth = end - life / 4;
        let (due, late) = match window {
            // A window beyond the end, or upside down, is a mistake of the CA: the certificate must not end for it.
            Some(window) => {
                let due = window.start + part(window.end.since(window.start), share);
                (due.min(urgent), fourth.min(window.end + HOUR))
            }
            None => (end - life / 3 - life / 60 + part(life / 30, share), fourth),
        };
        Dates { due, late: late.max(due), urgent: urgent.max(due), end }
    }

    /// How pressing it is at a time.
    pub(super) fn need(&self, now: Instant) -> Need {
        match now {
            now if now >= self.end => Need::None,
            now if now >= self.urgent => Need::Urgent,
            now if now >= self.late => Need::Late,
            now if now >= self.due => Need::Due,
            _ => Need::Rest,
        }
    }

    /// When the need changes next.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        [self.due, self.late, self.urgent, self.end].into_iter().find(|at| *at > now)
    }
}

/// A share of a time, in parts of 2^64.
fn part(time: Duration, share: u64) -> Duration {
    let micros = u128::from(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)) * u128::from(share);
    Duration::from_micros(u64::try_from(micros >> 64).unwrap_or(0))
}

/// How long to wait after the `failures`th failure in a row of one name at one authority: 1 min, doubling, up to a limit
/// that is the shorter the more pressing it is. `share` gives a fifth more or less.
pub(super) fn back_off(failures: u32, need: Need, life: Option<Duration>, share: u64) -> Duration {
    let life = life.unwrap_or(Duration::MAX);
    let most = match need {
        Need::None => HOUR.min(life / 100),
        Need::Urgent => (MINUTE * 30).min(life / 100),
        Need::Rest | Need::Due | Need::Late => (HOUR * 6).min(life / 24),
    };
    spread(doubled(MINUTE, failures, most), share)
}

/// How long an authority is left alone after the `failures`th failure in a row that was its own.
pub(super) fn pause(failures: u32, random: &mut Random) -> Duration {
    spread(doubled(MINUTE, failures, LONGEST_PAUSE), random.next())
}

fn doubled(first: Duration, failures: u32, most: Duration) -> Duration {
    first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most)
}

/// A fifth more or less.
pub(super) fn spread(time: Duration, share: u64) -> Duration {
    time - time / 5 + part(time * 2 / 5, share)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: u64 = 1 << 63;

    fn held(days: u32) -> HeldCertificate {
        HeldCertificate {
            name: "a.fr".into(),
            hosts: vec!["a.fr".to_owned()],
            authority: "first".into(),
            not_before: Instant(0),
            not_after: Instant(0) + DAY * days,
            ari_id: None,
            fingerprint: String::new(),
        }
    }

    fn days(instant: Instant) -> f64 {
        instant.since(Instant(0)).as_secs_f64() / 86_400.0
    }

    #[test]
    fn without_a_window_a_third_of_the_lifetime_is_left() {
        for (life, due, late, urgent) in
            [(90, 60.0, 67.5, 81.0), (45, 30.0, 33.75, 40.5), (6, 4.0, 4.5, 5.0), (1, 0.6667, 0.75, 0.75)]
        {
            let dates = Dates::of(&held(life), None, HALF);
            let close =
                |at: Instant, want: f64| assert!((days(at) - want).abs() < 0.001, "{life}: {} {want}", days(at));
            close(dates.due, due);
            close(dates.late, late);
            close(dates.urgent, urgent);
        }
        let (first, last) = (Dates::of(&held(90), None, 0).due, Dates::of(&held(90), None, u64::MAX).due);
        assert!((days(first) - 58.5).abs() < 0.01 && (days(last) - 61.5).abs() < 0.01, "{first:?} {last:?}");
    }

    #[test]
    fn a_window_is_followed_but_never_past_the_end() {
        let window = |start: u32, end: u32| RenewalWindow {
            start: Instant(0) + DAY * start,
            end: Instant(0) + DAY * end,
            explanation: None,
        };
        let early = Dates::of(&held(90), Some(&window(10, 12)), HALF);
        assert!((days(early.due) - 11.0).abs() < 0.001);
        assert!((days(early.late) - 12.04).abs() < 0.01, "whoever can, when the window has passed");
        let wrong = Dates::of(&held(90), Some(&window(100, 200)), HALF);
        assert!((days(wrong.due) - 81.0).abs() < 0.001);
        let upside_down = Dates::of(&held(90), Some(&window(50, 40)), HALF);
        assert!((days(upside_down.due) - 50.0).abs() < 0.001);
    }

    #[test]
    fn needs_come_in_order_and_each_is_announced() {
        let dates = Dates::of(&held(90), None, HALF);
        let mut now = Instant(0);
        let mut seen = vec![dates.need(now)];
        while let Some(next) = dates.next(now) {
            now = next;
            seen.push(dates.need(now));
        }
        assert_eq!(seen, [Need::Rest, Need::Due, Need::Late, Need::Urgent, Need::None]);
    }

    #[test]
    fn waits_double_up_to_the_limit_of_the_need() {
        let life = Some(DAY * 90);
        let wait = |failures, need| back_off(failures, need, life, HALF).as_secs() / 60;
        assert_eq!([1, 2, 3, 9, 40].map(|n| wait(n, Need::Due)), [1, 2, 4, 256, 360]);
        assert_eq!([1, 9].map(|n| wait(n, Need::Urgent)), [1, 30]);
        assert_eq!(back_off(9, Need::None, None, HALF), HOUR);
        let six_days = Some(DAY * 6);
        assert_eq!(back_off(40, Need::Due, six_days, HALF), HOUR * 6);
        assert!(back_off(40, Need::Due, life, u64::MAX) > HOUR * 7 && back_off(40, Need::Due, life, 0) < HOUR * 5);
        let mut random = Random::new(1);
        assert!((0..100).all(|_| pause(30, &mut random) <= LONGEST_PAUSE * 6 / 5));
    }
}

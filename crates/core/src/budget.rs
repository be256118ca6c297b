//! The retry budget: retries are a share of requests plus a floor, so that a storm cannot feed itself.
//!
//! One budget per service, shared by all workers. It only counts; whether a retry makes sense is decided elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Instant;

/// What is not spent within this time is lost, in milliseconds: a quiet night must not pay for a storm in the morning.
const WINDOW: u64 = 10_000;

/// Thousandths in one retry.
const RETRY: u64 = 1_000;

/// Most thousandths the bucket holds: what fits beside the time, over four million retries.
const MOST: u64 = u32::MAX as u64;

/// Token bucket without locks; no two workers ever take the same retry.
///
/// It fills with `percent` of the requests that came in and `floor` retries per second, and holds at most what ten
/// seconds give of both. The first use finds ten seconds of the floor.
#[derive(Debug, Default)]
pub struct Budget {
    /// When it was made: over how long a time the first retry's share was earned.
    made: Instant,
    /// Thousandths earned by requests since the last [`Budget::spend`].
    earned: AtomicU64,
    /// Upper half: when the bucket was last brought up to date, in milliseconds that wrap every 49 days. Lower half: the
    /// thousandths in it then. One word, so that both change together. 0: never used.
    bucket: AtomicU64,
}

impl Budget {
    /// A budget for requests from `now` on. The default one takes what is earned before its first use as earned over
    /// ages, and gives nearly nothing for it.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { made: now, ..Self::default() }
    }

    /// A request came in: it earns `percent` hundredths of a retry.
    pub fn earn(&self, percent: u32) {
        if self.earned.load(Ordering::Relaxed) < MOST {
            self.earned.fetch_add(u64::from(percent) * (RETRY / 100), Ordering::Relaxed);
        }
    }

    /// Takes one retry if there is one. `floor` retries per second come by time alone; a `now` that goes back counts as
    /// no time passed.
    pub fn spend(&self, floor: u32, now: Instant) -> bool {
        let mut seen = self.bucket.load(Ordering::Acquire);
        // The load must come first: what is swapped out here was earned after the update that `seen` shows, or after a
        // later one, so `seen` never makes the time it was earned in look shorter than it was.
        let earned = self.earned.swap(0, Ordering::AcqRel);
        let earned = per_window(earned, if seen == 0 { whole_millis(now.since(self.made)) } else { passed(seen, now) });
        loop {
            let tokens = filled(seen, floor, now).saturating_add(earned).min(MOST);
            let (left, taken) = tokens.checked_sub(RETRY).map_or((tokens, false), |left| (left, true));
            let next = pack(left, time_of(seen, now));
            match self.bucket.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return taken,
                Err(changed) => seen = changed,
            }
        }
    }
}

/// Thousandths in the bucket by now: the old ones fade over the window, the floor's come in.
fn filled(bucket: u64, floor: u32, now: Instant) -> u64 {
    let passed = if bucket == 0 { WINDOW } else { passed(bucket, now).min(WINDOW) };
    let tokens = bucket & MOST;
    // What fades is rounded down: rounded up, a bucket asked every millisecond would never fill.
    let kept = tokens - tokens * passed / WINDOW;
    // A floor per second is as many thousandths per millisecond.
    kept + u64::from(floor) * passed
}

/// What counts of an amount that came in over `passed` milliseconds: its average per window when that is longer.
fn per_window(earned: u64, passed: u64) -> u64 {
    if passed > WINDOW { earned * WINDOW / passed } else { earned }
}

fn whole_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds from the bucket's last update to now; 0 when time went back.
fn passed(bucket: u64, now: Instant) -> u64 {
    let wrapped = (millis(now).wrapping_sub(bucket >> 32)) & MOST;
    // More than half of the wrap ahead is behind.
    if wrapped > MOST / 2 { 0 } else { wrapped }
}

/// The time to note: now, unless time went back.
fn time_of(bucket: u64, now: Instant) -> u64 {
    if bucket != 0 && passed(bucket, now) == 0 { bucket >> 32 } else { millis(now) }
}

/// Never 0, so that a bucket in use never reads as "never used".
fn millis(now: Instant) -> u64 {
    ((now.0 / 1_000) & MOST).max(1)
}

fn pack(tokens: u64, millis: u64) -> u64 {
    (millis << 32) | tokens
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    const NOW: Instant = Instant(1_700_000_000_000_000);

    fn drain(budget: &Budget, floor: u32, now: Instant) -> u32 {
        let mut taken = 0;
        while budget.spend(floor, now) {
            taken += 1;
            assert!(taken < 10_000_000, "the budget never ends");
        }
        taken
    }

    fn earn(budget: &Budget, requests: u32, percent: u32) {
        (0..requests).for_each(|_| budget.earn(percent));
    }

    #[test]
    fn the_first_use_finds_ten_seconds_of_the_floor() {
        assert_eq!(drain(&Budget::default(), 10, NOW), 100);
        assert_eq!(drain(&Budget::default(), 1, NOW), 10);
        assert_eq!(drain(&Budget::default(), 0, NOW), 0);
        assert_eq!(drain(&Budget::default(), 10, Instant(0)), 100, "also at the beginning of time");
    }

    #[test]
    fn the_floor_comes_back_with_time_and_stops_at_ten_seconds() {
        let budget = Budget::default();
        drain(&budget, 10, NOW);
        assert_eq!(drain(&budget, 10, NOW + Duration::from_millis(99)), 0);
        assert_eq!(drain(&budget, 10, NOW + Duration::from_millis(100)), 1);
        assert_eq!(drain(&budget, 10, NOW + Duration::from_millis(1_100)), 10);
        assert_eq!(drain(&budget, 10, NOW + Duration::from_secs(86_400)), 100, "not a day's worth");
    }

    #[test]
    fn small_steps_lose_nothing() {
        let budget = Budget::default();
        drain(&budget, 10, NOW);
        let taken = (1..=10_000).filter(|step| budget.spend(10, NOW + Duration::from_millis(1) * *step)).count();
        assert!((95..=100).contains(&taken), "{taken} of 100 in ten seconds, asked every millisecond");
        let budget = Budget::default();
        drain(&budget, 10, NOW);
        let taken = (1..=100_000).filter(|step| budget.spend(10, NOW + Duration::from_micros(100) * *step)).count();
        assert!((95..=100).contains(&taken), "{taken} of 100 in ten seconds, asked every tenth of a millisecond");
    }

    #[test]
    fn requests_earn_their_share() {
        let budget = Budget::new(NOW);
        earn(&budget, 1_000, 20);
        assert_eq!(drain(&budget, 0, NOW), 200);
        earn(&budget, 4, 20);
        assert_eq!(drain(&budget, 0, NOW), 0, "four fifths of a retry are none");
        earn(&budget, 1, 20);
        assert_eq!(drain(&budget, 0, NOW), 1, "and the fifth makes it whole");
        earn(&budget, 10, 100);
        assert_eq!(drain(&budget, 0, NOW), 10);
        earn(&budget, 10, 0);
        assert_eq!(drain(&budget, 0, NOW), 0);
    }

    #[test]
    fn a_quiet_night_does_not_pay_for_a_storm() {
        let budget = Budget::new(NOW);
        assert!(budget.spend(1, NOW));
        earn(&budget, 36_000, 20);
        let taken = drain(&budget, 0, NOW + Duration::from_secs(36_000));
        assert_eq!(taken, 2, "one request per second earns two retries in ten seconds");
    }

    #[test]
    fn a_long_calm_before_the_first_retry_does_not_either() {
        let budget = Budget::new(NOW);
        earn(&budget, 36_000, 20);
        assert_eq!(drain(&budget, 0, NOW + Duration::from_secs(36_000)), 2);
        let budget = Budget::default();
        earn(&budget, 36_000, 20);
        assert_eq!(drain(&budget, 10, NOW), 100, "made at an unknown time: the floor only");
    }

    #[test]
    fn unspent_retries_fade() {
        let budget = Budget::new(NOW);
        earn(&budget, 1_000, 100);
        assert!(budget.spend(0, NOW));
        let half = drain(&budget, 0, NOW + Duration::from_secs(5));
        assert_eq!(half, 499);
        assert_eq!(drain(&budget, 0, NOW + Duration::from_secs(20)), 0);
    }

    #[test]
    fn a_storm_gets_no_more_than_the_share_and_the_floor() {
        let budget = Budget::new(NOW);
        let (mut requests, mut taken) = (0_u32, 0_u32);
        for milli in 0..60_000 {
            let now = NOW + Duration::from_millis(1) * milli;
            for _ in 0..3 {
                requests += 1;
                budget.earn(20);
                // Every request fails, and so does every retry.
                taken += u32::from(budget.spend(10, now)) + u32::from(budget.spend(10, now));
            }
        }
        let allowed = requests / 5 + 60 * 10 + 100;
        assert!(taken <= allowed, "{taken} retries, {allowed} allowed");
        assert!(taken >= allowed * 9 / 10, "{taken} retries, {allowed} due");
    }

    #[test]
    fn time_that_goes_back_is_harmless() {
        let budget = Budget::new(NOW);
        drain(&budget, 10, NOW);
        for back in [1, 1_000, 3_600_000] {
            assert_eq!(drain(&budget, 10, NOW - Duration::from_millis(back)), 0, "nothing for {back} ms back");
        }
        assert_eq!(drain(&budget, 10, NOW), 0, "coming back to the same time earns nothing again");
        assert_eq!(drain(&budget, 10, NOW + Duration::from_secs(1)), 10);
    }

    #[test]
    fn the_ends_of_all_ranges_do_not_overflow() {
        let budget = Budget::new(NOW);
        for now in [0, u64::MAX, 0, NOW.0, u64::MAX / 2] {
            earn(&budget, 3, u32::MAX);
            assert!(budget.spend(u32::MAX, Instant(now)));
        }
        let full = budget.bucket.load(Ordering::Relaxed) & MOST;
        assert!(full < MOST);
    }

    #[test]
    fn the_wrap_of_the_noted_time_is_crossed() {
        let before = Instant(((1_u64 << 32) - 500) * 1_000);
        let budget = Budget::new(NOW);
        drain(&budget, 10, before);
        assert_eq!(drain(&budget, 10, before + Duration::from_secs(1)), 10);
    }

    #[test]
    fn workers_that_race_take_no_retry_twice() {
        let budget = Budget::new(NOW);
        let taken = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        budget.earn(20);
                        taken.fetch_add(u32::from(budget.spend(10, NOW)), Ordering::Relaxed);
                    }
                });
            }
        });
        let rest = drain(&budget, 10, NOW);
        assert_eq!(taken.into_inner() + rest, 40_000 / 5 + 100);
    }
}

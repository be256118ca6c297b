//! When a slow request is asked for elsewhere as well: what the answers of a pool's backends say so far.

use std::time::Duration;

use crate::Pool;
use crate::stats::BUCKETS;

/// Answers that must have been seen before they mean anything.
const LEAST_SEEN: u64 = 100;

/// One answer in so many may have been slower than what counts as the slowest.
const RARE: u64 = 10_000;

/// For a service that hedges: the time in which 95 % of its response heads came. `None`: too few were seen to know.
#[must_use]
pub fn slow_after(pool: &Pool) -> Option<Duration> {
    percentile(&heads(pool), 95).map(Duration::from_micros)
}

/// For all others: longer than that practically no response head took, and longer than it takes a dead connection to show
/// itself, as that it is dead others must know. `None`: too few were seen to know.
#[must_use]
pub fn unusual_after(pool: &Pool) -> Option<Duration> {
    let slowest = slowest(&heads(pool)).map(Duration::from_micros)?;
    Some(slowest.max(pool.timers.failover_within * 3 / 2))
}

/// What the pool's backends needed for a response head.
fn heads(pool: &Pool) -> [u64; BUCKETS.len() + 1] {
    let mut counts = [0_u64; BUCKETS.len() + 1];
    for member in &pool.members {
        let (buckets, _) = member.backend.stats.latency.read();
        for (sum, count) in counts.iter_mut().zip(buckets) {
            *sum += count;
        }
    }
    counts
}

/// The bound of a histogram, in microseconds, that practically nothing was above; `None` with too few answers, or where much
/// is above the last bound.
fn slowest(counts: &[u64; BUCKETS.len() + 1]) -> Option<u64> {
    let total: u64 = counts.iter().sum();
    let mut above = total;
    let mut bounds = counts.iter().zip(BUCKETS);
    let bound = bounds.find(|(count, _)| {
        above -= **count;
        above <= total / RARE
    });
    bound.filter(|_| total >= LEAST_SEEN).map(|(_, bound)| bound)
}

/// A percentile of a histogram in microseconds: linear inside its bucket; `None` with too few answers, or above the last bound.
fn percentile(counts: &[u64; BUCKETS.len() + 1], percent: u64) -> Option<u64> {
    let total: u64 = counts.iter().sum();
    if total < LEAST_SEEN {
        return None;
    }
    let mut left = total * percent / 100;
    let mut lower = 0;
    for (count, upper) in counts.iter().zip(BUCKETS) {
        if *count >= left && *count > 0 {
            return Some(lower + (upper - lower) * left / count);
        }
        left = left.saturating_sub(*count);
        lower = upper;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_answer_counts_and_one_in_ten_thousand_does_not() {
        let mut counts = [0; BUCKETS.len() + 1];
        counts[0] = 99;
        assert_eq!(slowest(&counts), None, "too few answers");
        counts[0] = 9_998;
        assert_eq!(slowest(&counts), Some(BUCKETS[0]));
        counts[9] = 1;
        assert_eq!(slowest(&counts), Some(BUCKETS[9]), "one of 9,999");
        counts[0] = 20_000;
        assert_eq!(slowest(&counts), Some(BUCKETS[0]));
        counts[BUCKETS.len()] = 3;
        assert_eq!(slowest(&counts), None);
    }

    #[test]
    fn the_percentile_lies_in_the_right_bucket() {
        let mut counts = [0; BUCKETS.len() + 1];
        counts[0] = 90;
        counts[4] = 10;
        let found = percentile(&counts, 95).unwrap();
        assert!((10_000..=25_000).contains(&found), "{found}");
        counts[0] = 50;
        assert_eq!(percentile(&counts, 95), None, "too few answers");
        let slow = {
            let mut counts = [0; BUCKETS.len() + 1];
            counts[BUCKETS.len()] = 1000;
            counts
        };
        assert_eq!(percentile(&slow, 95), None);
    }
}

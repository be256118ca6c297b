//! The retry budget: retries are a share of requests plus a floor, so that a storm cannot feed itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::time::Instant;

/// Token bucket shared by all workers of one service. Lock-free; two workers that race may both take the last token.
#[derive(Debug, Default)]
pub struct Budget {
    /// Thousandths of a retry.
    tokens: AtomicU64,
    refilled_at: AtomicU64,
}

/// Tokens a bucket can hold, in thousandths: ten seconds of the floor or this, whichever is more.
const MIN_BURST: u64 = 10_000;

impl Budget {
    /// A request came in: it earns `percent` hundredths of a retry.
    pub fn earn(&self, percent: u32) {
        let tokens = self.tokens.load(Relaxed);
        if tokens < 100 * MIN_BURST {
            self.tokens.fetch_add(u64::from(percent) * 10, Relaxed);
        }
    }

    /// Takes one retry if there is one; `floor` retries per second are earned by time alone.
    pub fn spend(&self, floor: u32, now: Instant) -> bool {
        let last = self.refilled_at.swap(now.0, Relaxed);
        let burst = (u64::from(floor) * 1_000).max(MIN_BURST);
        let earned = if last == 0 {
            burst
        } else {
            (now.0.saturating_sub(last)).saturating_mul(u64::from(floor)) / 1_000
        };
        if earned > 0 {
            let tokens = self.tokens.load(Relaxed);
            self.tokens.fetch_add(earned.min(burst.saturating_sub(tokens)), Relaxed);
        }
        self.tokens.fetch_update(Relaxed, Relaxed, |t| t.checked_sub(1_000)).is_ok()
    }
}

//! A small seeded generator for jitter and spreading. The seed comes from the caller: the same seed, the same run.
//!
//! Not for secrets.

use std::time::Duration;

/// splitmix64: one addition and a mix per number.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, all 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        crate::hash::mix(self.0)
    }

    /// A duration from zero up to, not including, `bound`; zero when `bound` is zero.
    pub(crate) fn below(&mut self, bound: Duration) -> Duration {
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        let wide = u128::from(self.next()) * u128::from(micros);
        Duration::from_micros(u64::try_from(wide >> 64).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_within_bounds() {
        let (mut one, mut two) = (Random::new(7), Random::new(7));
        let bound = Duration::from_millis(100);
        let drawn: Vec<Duration> = (0..1000).map(|_| one.below(bound)).collect();
        assert!(drawn.iter().all(|d| *d == two.below(bound) && *d < bound));
        let mean = drawn.iter().sum::<Duration>() / 1000;
        assert!(mean > Duration::from_millis(45) && mean < Duration::from_millis(55), "{mean:?}");
        assert_eq!(one.below(Duration::ZERO), Duration::ZERO);
    }
}

//! The one random number of a pick, drawn out into as many as a policy needs. Same roll, same draws.

use crate::random::Random;

/// A stream of numbers that starts at the caller's roll.
#[derive(Debug)]
pub(super) struct Dice(Random);

impl Dice {
    pub(super) fn new(roll: u64) -> Self {
        Self(Random::new(roll))
    }

    /// A whole number from 0 up to, not including, `end`; 0 when `end` is 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.0.next()) * u128::from(end);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// A number from 0.0 up to, not including, 1.0.
    pub(super) fn fraction(&mut self) -> f64 {
        fraction(self.0.next())
    }
}

/// The upper 53 bits of `bits` as a number from 0.0 up to, not including, 1.0.
pub(super) fn fraction(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

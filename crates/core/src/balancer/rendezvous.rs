//! Rendezvous hashing: every member gets a score for a key, the best takes it. Nobody else's keys move when a member
//! leaves, because the other scores do not change.

use super::dice::fraction;
use crate::hash::mix;

/// Load a member may have, as a multiple of its fair share of what is in flight, before its keys go to the next.
pub(super) const BOUND: f64 = 1.25;

/// The score of a member for a key, higher is better. Members win keys in proportion to `weight`, and a growing weight
/// only ever wins keys (so a ramp moves each key once).
pub(super) fn score(key: u64, member: u64, weight: f64) -> f64 {
    -weight / drawn(key, member).ln()
}

/// What a score comes from, above 0.0 and below 1.0: orders members of one weight as their scores do, at less work.
pub(super) fn drawn(key: u64, member: u64) -> f64 {
    let bits = mix(mix(key) ^ member);
    // 52 bits and a half step: never exactly 0 or 1, where the logarithm would leave no score.
    ((bits >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

/// A point from 0.0 to 1.0 that belongs to the key: which tier it falls to. Not related to the key's scores.
pub(super) fn point(key: u64) -> f64 {
    fraction(mix(key ^ 0x7469_6572_2d6f_6661))
}

/// Requests a member may have in flight, the next one included, when its group has `inflight` without it.
pub(super) fn limit(inflight: f64, weight: f64, all_weights: f64) -> f64 {
    (BOUND * (inflight + 1.0) * weight / all_weights).ceil()
}

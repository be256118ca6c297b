//! Choosing a backend.

use relais_config::Balance;

use crate::snapshot::{Ask, Choice, Member, Pool};

/// Precomputed.
#[derive(Debug, Default)]
pub struct Order {}

impl Order {
    /// Computes what `pick` needs. `members` must be the very list that goes into the pool beside it.
    pub(crate) fn new(_members: &[Member], _balance: &Balance) -> Order {
        Order {}
    }
}

impl Pool {
    /// Chooses a backend for one attempt.
    #[must_use]
    pub fn pick(&self, _ask: &Ask<'_>) -> Choice<'_> {
        Choice::Nobody
    }
}

/// Folds one latency sample into the backend's peak EWMA.
pub fn observe_latency(_backend: &crate::Backend, _took: std::time::Duration, _now: crate::Instant) {}

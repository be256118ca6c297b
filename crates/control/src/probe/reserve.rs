//! File descriptors kept back for probes. When clients have used up all others, probes that cannot connect would look
//! like silent backends; with a few in reserve the verdicts stay true.

use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many are kept: as many probes can be under way in a shortage.
const SPARES: usize = 8;

/// The reserve.
pub(super) struct Reserve(Mutex<Vec<File>>);

impl Reserve {
    pub(super) fn new() -> Self {
        let reserve = Self(Mutex::new(Vec::new()));
        reserve.refill();
        reserve
    }

    /// Gives one back to the system, for the caller to use at once. `false`: none is left.
    pub(super) fn spend(&self) -> bool {
        self.spares().pop().is_some()
    }

    /// Takes back what was spent, as far as the system has any.
    pub(super) fn refill(&self) {
        let mut spares = self.spares();
        while spares.len() < SPARES {
            let Ok(spare) = File::open("/dev/null") else { return };
            spares.push(spare);
        }
    }

    fn spares(&self) -> MutexGuard<'_, Vec<File>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

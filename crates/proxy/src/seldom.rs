//! Lines that a stranger could have written by the thousand: one each second is told, the others are counted.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long nothing more is told.
const QUIET: Duration = Duration::from_secs(1);

/// When something was told last, and how often not.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    state: Mutex<(Option<Instant>, u64)>,
}

impl Seldom {
    /// Whether it may be told `now`: then how many were not told since the last time.
    pub(crate) fn tell(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        let (last, untold) = &mut *state;
        if last.is_some_and(|last| now.saturating_duration_since(last) < QUIET) {
            *untold = untold.saturating_add(1);
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_each_second_is_told_with_the_number_of_the_others() {
        let (seldom, begin) = (Seldom::default(), Instant::now());
        let at = |millis| seldom.tell(begin + Duration::from_millis(millis));
        assert_eq!(
            [at(0), at(10), at(999), at(1_000), at(1_500), at(9_000)],
            [Some(0), None, None, Some(2), None, Some(1)]
        );
    }
}

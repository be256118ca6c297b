//! A deadline that counts only time in which the edge itself looked. Pure: how late a wake-up came is an argument.
//!
//! A clock alone cannot tell a silent backend from a stalled edge: a process that was stopped, starved or buried in work
//! finds its deadline passed and the answer, or the next step towards it, in its own queues. So a deadline is waited for in
//! slices, and a slice from which the edge woke late is waited for again.

use std::time::Duration;

/// A deadline is waited for in so many slices.
const SLICES: u32 = 4;
/// However short a deadline: a wake-up that is late by less than this is no stall.
const LATE: Duration = Duration::from_millis(5);
/// After so many late wake-ups nobody can say anything.
const STALLS: u32 = 8;

/// How long something may still take, as far as the edge looked.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    left: Duration,
    slice: Duration,
    stalls: u32,
}

/// How a patience ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// For all of its time: what did not come is late.
    Whole,
    /// The edge stalled again and again: nobody looked, and nothing is known.
    Unwatched,
}

impl Patience {
    /// For something that may take so long.
    #[must_use]
    pub fn new(deadline: Duration) -> Self {
        Self { left: deadline, slice: deadline / SLICES, stalls: 0 }
    }

    /// How long to wait before [`Patience::woke`] is to be told, or how it ended.
    ///
    /// # Errors
    /// There is nothing left to wait for.
    pub fn slice(&self) -> Result<Duration, Waited> {
        if self.stalls >= STALLS {
            Err(Waited::Unwatched)
        } else if self.left.is_zero() {
            Err(Waited::Whole)
        } else {
            // A rest of a few microseconds would be a wait of its own.
            Ok(if self.left < self.slice * 3 / 2 { self.left } else { self.slice })
        }
    }

    /// The wait for the last slice took so long. Later than planned by more than an eighth of the deadline (and by more than
    /// 5 ms): the edge stalled, and the slice does not count.
    pub fn woke(&mut self, took: Duration) {
        let Ok(planned) = self.slice() else { return };
        if took.saturating_sub(planned) > (self.slice / 2).max(LATE) {
            self.stalls += 1;
        } else {
            self.left = self.left.saturating_sub(took.max(planned));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Waits to the end with these delays of its wake-ups; how it ended, and after how long.
    fn wait(deadline: Duration, delays: impl IntoIterator<Item = Duration>) -> (Waited, Duration) {
        let (mut patience, mut all) = (Patience::new(deadline), Duration::ZERO);
        let mut delays = delays.into_iter().chain(std::iter::repeat(Duration::ZERO));
        loop {
            match patience.slice() {
                Err(end) => return (end, all),
                Ok(slice) => {
                    let took = slice + delays.next().unwrap();
                    all += took;
                    patience.woke(took);
                }
            }
        }
    }

    #[test]
    fn without_a_stall_it_is_the_deadline() {
        for deadline in [MS, MS * 24, MS * 80, MS * 200, Duration::from_secs(60)] {
            assert_eq!(wait(deadline, []), (Waited::Whole, deadline));
        }
        assert_eq!(wait(Duration::ZERO, []), (Waited::Whole, Duration::ZERO));
    }

    #[test]
    fn a_stall_is_not_counted_whenever_it_comes() {
        for before in 0..4 {
            let delays = std::iter::repeat_n(Duration::ZERO, before).chain([Duration::from_secs(3)]);
            let (end, took) = wait(MS * 200, delays);
            assert_eq!((end, took), (Waited::Whole, MS * 3250), "a stall in slice {before}");
        }
    }

    #[test]
    fn after_a_stall_a_whole_slice_is_left_to_look_at_what_has_come() {
        let mut patience = Patience::new(MS * 200);
        (0..3).for_each(|_| patience.woke(MS * 50));
        patience.woke(Duration::from_secs(3600));
        assert_eq!(patience.slice(), Ok(MS * 50));
    }

    #[test]
    fn small_delays_are_the_way_of_timers() {
        let (end, took) = wait(MS * 200, std::iter::repeat(MS * 2));
        assert_eq!(end, Waited::Whole);
        assert!(took < MS * 210, "{took:?}");
        assert_eq!(wait(MS * 24, std::iter::repeat(LATE)).0, Waited::Whole);
        assert_eq!(wait(MS * 200, std::iter::repeat(MS * 25)).0, Waited::Whole);
    }

    #[test]
    fn who_always_wakes_late_knows_nothing() {
        let (end, took) = wait(MS * 200, std::iter::repeat(MS * 26));
        assert_eq!(end, Waited::Unwatched);
        assert_eq!(took, MS * 76 * STALLS);
    }
}

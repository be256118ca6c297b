//! Whose time counts. Certificates are dated by the CA; our clock may be wrong, jump, or stand still while a machine is
//! suspended. What a CA has just signed proves what time it is there.

use std::time::Duration;

use super::types::HeldCertificate;
use crate::time::Instant;

/// CAs date certificates back by up to a day.
const BACKDATED: Duration = Duration::from_secs(26 * 3600);
/// CAs' clocks and ours may differ so much.
const SLACK: Duration = Duration::from_secs(600);
/// Let's Encrypt dates back by this.
const USUAL: Duration = Duration::from_secs(3600);
/// A difference of the wall clock that is a jump rather than a drift.
const JUMP: Duration = Duration::from_secs(3600);

/// The difference between the fleet's time and that of the CAs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    /// Wall clock less the fleet's time, in microseconds.
    wall: i64,
    /// The CAs' time less the wall clock, as far as it is proven, in microseconds.
    proven: i64,
}

impl Clock {
    /// The time at the CAs.
    pub(super) fn there(&self, now: Instant) -> Instant {
        Instant(now.0.saturating_add_signed(self.wall.saturating_add(self.proven)))
    }

    /// The fleet's time when it is `there` at the CAs.
    pub(super) fn here(&self, there: Instant) -> Instant {
        Instant(there.0.saturating_add_signed(self.wall.saturating_add(self.proven).saturating_neg()))
    }

    /// The wall clock was read. `true`: it jumped. A jump ahead is believed, as after a machine slept, or found the time
    /// at last; a jump back is not until a CA says so: ours runs no faster than theirs, and a certificate that is renewed
    /// too early costs one order where one that is renewed too late costs the site.
    pub(super) fn wall(&mut self, wall: Instant, now: Instant) -> bool {
        let (difference, believed) = (between(now, wall), self.wall.saturating_add(self.proven));
        let jumped = difference.abs_diff(self.wall) > micros(JUMP);
        if jumped {
            self.proven = believed.saturating_sub(difference).max(0);
        }
        self.wall = difference;
        jumped
    }

    /// A certificate is known, so the time of its beginning has passed. `true`: our clock was behind it.
    pub(super) fn held(&mut self, held: &HeldCertificate, now: Instant) -> bool {
        let there = self.there(now);
        if held.not_before > there + SLACK {
            self.proven = self.proven.saturating_add(between(there, held.not_before));
            return true;
        }
        false
    }

    /// A CA said what time it is. `true`: our clock was wrong.
    pub(super) fn told(&mut self, date: Instant, now: Instant) -> bool {
        let difference = between(self.there(now), date);
        let wrong = difference.unsigned_abs() > micros(SLACK);
        if wrong {
            self.proven = self.proven.saturating_add(difference);
        }
        wrong
    }

    /// A certificate was signed just now. `true`: our clock was wrong.
    pub(super) fn signed(&mut self, held: &HeldCertificate, now: Instant) -> bool {
        let there = self.there(now);
        if there.since(held.not_before) > BACKDATED {
            self.proven = self.proven.saturating_add(between(there, held.not_before + USUAL));
            return true;
        }
        self.held(held, now)
    }
}

fn between(from: Instant, to: Instant) -> i64 {
    let signed = |instant: Instant| i64::try_from(instant.0).unwrap_or(i64::MAX);
    signed(to).saturating_sub(signed(from))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const NOW: Instant = Instant(1_800_000_000_000_000);

    #[test]
    fn a_jump_ahead_is_believed_and_a_jump_back_only_when_a_ca_says_so() {
        let mut clock = Clock::default();
        assert!(!clock.wall(NOW + DAY / 48, NOW), "drift");
        assert!(clock.wall(NOW + DAY * 400, NOW));
        assert_eq!(clock.there(NOW), NOW + DAY * 400);
        assert!(clock.wall(NOW, NOW), "back, and nobody has said which of them was right");
        assert_eq!(clock.there(NOW), NOW + DAY * 400);
        assert!(clock.told(NOW + DAY, NOW));
        assert_eq!((clock.there(NOW), clock.here(NOW + DAY)), (NOW + DAY, NOW));
        assert!(!clock.told(NOW + DAY + SLACK, NOW));
        // Ahead again, set right by the CA, and then by the operator: no trace is left.
        assert!(clock.wall(NOW + DAY * 30, NOW) && clock.told(NOW, NOW));
        assert!(clock.wall(NOW, NOW));
        assert_eq!(clock, Clock::default());
    }
}

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

    /// The wall clock was read. `true`: it jumped, and nothing that was proven counts any longer.
    pub(super) fn wall(&mut self, wall: Instant, now: Instant) -> bool {
        let difference = between(now, wall);
        let jumped = difference.abs_diff(self.wall) > micros(JUMP);
        if jumped {
            self.proven = 0;
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

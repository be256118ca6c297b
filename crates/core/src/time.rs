//! Points in time as values. Core never reads a clock: callers pass `now`.

use std::time::Duration;

/// A point in time: microseconds since the Unix epoch, on a clock that never goes back while the process lives.
///
/// The process reads the wall clock once at start and adds monotonic time to it (see [`Anchor`]), so an `Instant`
/// can be stored, shown to people and compared after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct Instant(pub u64);

impl Instant {
    /// From microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, rhs: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl std::ops::Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, rhs: Duration) -> Instant {
        Instant(self.0.saturating_sub(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// Ties the monotonic clock to the wall clock, once per process. Reads no clock itself.
#[derive(Debug, Clone, Copy)]
pub struct Anchor {
    monotonic: std::time::Instant,
    at: Instant,
}

impl Anchor {
    /// `monotonic` and `wall` must have been read together.
    #[must_use]
    pub fn new(monotonic: std::time::Instant, wall: std::time::SystemTime) -> Self {
        let since_epoch = wall.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self { monotonic, at: Instant(0) + since_epoch }
    }

    /// The instant at a monotonic reading.
    #[must_use]
    pub fn at(&self, monotonic: std::time::Instant) -> Instant {
        self.at + monotonic.saturating_duration_since(self.monotonic)
    }

    /// The monotonic reading of an instant (the anchor's own reading for instants before it).
    #[must_use]
    pub fn monotonic(&self, instant: Instant) -> std::time::Instant {
        self.monotonic + instant.since(self.at)
    }
}

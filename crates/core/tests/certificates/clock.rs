//! Wall clocks that leap while the process runs: by minutes, days, years, ahead and back.

use relais_core::{Event, Instant};

use crate::engine::{Due, Run};
use crate::setting::{DAY, Kind, MINUTE};

impl Run {
    pub(crate) fn is_about_clocks(&self) -> bool {
        matches!(self.setting.kind, Kind::Jumps | Kind::Leaps)
    }

    /// The wall clock is right again, or wrong by some minutes, or by days up to years.
    pub(crate) fn leap(&mut self) {
        let little = i64::try_from(self.dice.below(50 * MINUTE)).unwrap();
        let far = i64::try_from(2 * DAY + self.dice.below(4000 * DAY)).unwrap();
        let days = i64::try_from(2 * DAY + self.dice.below(20 * DAY)).unwrap();
        let place = usize::try_from(self.dice.below(7)).unwrap();
        self.wall = [0, little, -little, days, -days, far, -far][place];
        if self.wall > i64::try_from(DAY).unwrap() {
            // What a clock that is ahead costs: one order that tells the time.
            (self.excused, self.ahead) = (self.excused.max(1), self.wall);
        }
    }

    pub(crate) fn read_wall(&mut self) {
        let wall = Instant(self.at.saturating_add_signed(self.wall));
        self.event(Event::WallClock { wall });
        self.plan(self.at + 10 * MINUTE, Due::Wall);
    }

    /// A process takes the time from the wall clock once, and counts from there by itself.
    pub(crate) fn start_by_the_wall(&mut self) {
        if self.setting.kind == Kind::Leaps {
            self.skew = self.wall;
            self.ahead = self.wall.max(0);
            self.excused = u64::from(self.wall > 0);
        }
    }
}

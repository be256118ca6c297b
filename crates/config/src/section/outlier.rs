//! `outlier`: when a backend that answers worse than the rest of its pool is left for a while.

use std::time::Duration;

use crate::fault::Fault;
use crate::reader::Reader;
use crate::shape;
use crate::value::measure::shown;
use crate::{Balance, Outlier, Sticky};

/// Reads `outlier`.
pub(crate) fn read(service: &Reader<'_>, balance: &Balance, sticky: Option<&Sticky>) -> Outlier {
    let table = service.section("outlier", &shape::OUTLIER);
    let default = Outlier::default();
    // Where each path, tenant or client has its own backend, one bad page or one slow client looks like a bad backend, and
    // like the next one when it moves there: only who asks for it gets that.
    let fair = !matches!(balance, Balance::Hash(_)) && sticky.is_none();
    let unless_unfair = |value: u32| if fair { value } else { 0 };
    let (hold, max_hold) = holds(&table, &default);
    Outlier {
        errors_percent: table.integer("errors_percent", 0..=100).unwrap_or(unless_unfair(default.errors_percent)),
        slow_factor: slow_factor(&table).unwrap_or(unless_unfair(default.slow_factor)),
        volume: table.integer("volume", 3..=10_000).unwrap_or(default.volume),
        hold,
        max_hold,
        max_ejected_percent: table.integer("max_ejected_percent", 0..=100).unwrap_or(default.max_ejected_percent),
    }
}

fn slow_factor(table: &Reader<'_>) -> Option<u32> {
    let factor = table.integer("slow_factor", 0..=1000)?;
    if factor != 1 {
        return Some(factor);
    }
    let node = table.get("slow_factor")?;
    let fault = Fault::new("`slow_factor = 1` would eject every backend that is not among the fastest");
    node.error(fault.label("times the median of the pool").help("write 2 or more, or 0 for never"));
    None
}

/// The first ejection and the longest. One that is set alone moves the other's default along.
fn holds(table: &Reader<'_>, default: &Outlier) -> (Duration, Duration) {
    let (hold, longest) = (table.some_time("hold"), table.some_time("max_hold"));
    if let (Some(hold), Some(longest), Some(node)) = (hold, longest, table.get("max_hold"))
        && longest < hold
    {
        let fault = Fault::new("`max_hold` is shorter than `hold`").label("the longest ejection");
        node.error(fault.help(format!("write `max_hold = \"{}\"` or more", shown(hold))));
    }
    let first = hold.unwrap_or_else(|| default.hold.min(longest.unwrap_or(default.hold)));
    (first, longest.unwrap_or(default.max_hold).max(first))
}

//! A steady beat finer than a millisecond, for loads that do not wait for answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::load::Plan;

/// Announces requests at a fixed rate, whatever becomes of them. On a thread of its own: the runtime's timers are as
/// coarse as a millisecond, and a request must be due at its own moment, not in a crowd.
pub(crate) fn drum(rate: f64, plan: Arc<Plan>) {
    let step = Duration::from_secs_f64(1.0 / rate);
    std::thread::spawn(move || {
        let mut next = Instant::now() + step;
        while !plan.ready.is_closed() {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            let (now, mut due) = (Instant::now(), Vec::new());
            while next <= now {
                due.push(next);
                next += step;
            }
            let n = due.len();
            if let Ok(mut queue) = plan.due.lock() {
                queue.extend(due);
            }
            plan.ready.add_permits(n);
        }
    });
}

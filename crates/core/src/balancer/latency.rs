//! Peak EWMA: what a backend's answer is expected to take. Worse news counts at once, better news slowly.

use std::time::Duration;

use crate::backend::Backend;
use crate::time::Instant;

/// Time in which an old measurement falls to 37 %.
const TAU: Duration = Duration::from_secs(10);

/// Folds one latency sample (attempt start to response head) into the backend's peak EWMA.
///
/// A sample above the estimate replaces it; one below pulls it down, the more the longer ago the last one was
/// (time constant 10 s). A `now` that goes back counts as no time passed.
pub fn observe_latency(backend: &Backend, took: Duration, now: Instant) {
    // A measured zero would read as "never measured".
    let sample = (took.as_secs_f64() * 1e6).max(1.0);
    let old = backend.latency();
    let estimate = if sample >= old {
        sample
    } else {
        let keep = fade(backend, now);
        old * keep + sample * (1.0 - keep)
    };
    backend.set_latency(estimate, now.0.max(backend.latency_at()));
}

/// The estimate in microseconds as of `now`: it fades while nobody asks, so that a once slow backend is tried again.
/// `None`: never measured.
pub(super) fn expected(backend: &Backend, now: Instant) -> Option<f64> {
    let estimate = backend.latency();
    (estimate > 0.0).then(|| estimate * fade(backend, now))
}

/// What is left of a measurement by now, 1.0 to 0.0.
fn fade(backend: &Backend, now: Instant) -> f64 {
    let age = now.since(Instant(backend.latency_at()));
    (-age.as_secs_f64() / TAU.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::fixture::pool;
    use relais_config::Balance;

    const START: Instant = Instant(1_000_000_000);

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn rises_at_once_and_decays_with_its_time_constant() {
        let pool = pool(Balance::LeastLatency, "1 dijon a up");
        let backend = &pool.members[0].backend;
        assert_eq!(expected(backend, START), None);
        observe_latency(backend, millis(10), START);
        assert_eq!(expected(backend, START), Some(10_000.0));
        observe_latency(backend, millis(100), START);
        assert_eq!(expected(backend, START), Some(100_000.0), "the peak counts at once");
        observe_latency(backend, millis(10), START);
        assert_eq!(expected(backend, START), Some(100_000.0), "no time passed: better news waits");
        let (soon, later) = (START + millis(10_000), START + millis(20_000));
        observe_latency(backend, millis(10), soon);
        let after = expected(backend, soon).unwrap();
        let due = 10_000.0 + 90_000.0 / std::f64::consts::E;
        assert!((after - due).abs() < 1.0, "{after} is not {due}");
        let idle = expected(backend, later).unwrap();
        assert!((idle - due / std::f64::consts::E).abs() < 1.0, "an idle estimate fades too: {idle}");
    }

    #[test]
    fn many_small_steps_decay_like_one_large_step() {
        let pool = pool(Balance::LeastLatency, "1 dijon a up, 1 dijon b up");
        let (often, once) = (&pool.members[0].backend, &pool.members[1].backend);
        for backend in [often, once] {
            observe_latency(backend, millis(500), START);
        }
        for step in 1..=1000 {
            observe_latency(often, millis(1), START + millis(10) * step);
        }
        observe_latency(once, millis(1), START + millis(10_000));
        let ratio = often.latency() / once.latency();
        assert!((0.99..1.01).contains(&ratio), "{ratio}");
    }

    #[test]
    fn odd_samples_do_no_harm() {
        let pool = pool(Balance::LeastLatency, "1 dijon a up");
        let backend = &pool.members[0].backend;
        observe_latency(backend, Duration::ZERO, START);
        assert_eq!(expected(backend, START), Some(1.0), "a zero is still a measurement");
        observe_latency(backend, Duration::MAX, START);
        assert!(backend.latency().is_finite());
        observe_latency(backend, millis(1), START - Duration::from_secs(5));
        assert_eq!(backend.latency_at(), START.0, "time does not go back");
        assert!(expected(backend, Instant(u64::MAX)).unwrap() < 1.0);
    }

    #[test]
    fn a_backend_stands_still_when_nothing_comes_and_a_request_waits() {
        let pool = pool(Balance::LeastLatency, "1 dijon a up");
        let backend = &pool.members[0].backend;
        let since = START + millis(1000);
        let still = |at: u64| backend.stands_still(since, millis(100), START + millis(at));
        observe_latency(backend, millis(1), since);
        assert!(!still(1100), "nobody waits");
        backend.found_overdue(START + millis(990));
        assert!(!still(1100), "that was before");
        backend.found_overdue(START + millis(1050));
        assert!(!still(1099) && still(1100));
        backend.comes(START + millis(1060));
        assert!(!still(1159) && still(1160));
        backend.hear(START + millis(1070));
        assert!(!still(1169) && still(1170));
        observe_latency(backend, millis(1), START + millis(1080));
        assert!(!still(1179) && still(1180));
        assert!(backend.stands_still(since, millis(1), START + millis(1100)), "exact to 10 ms only");
        assert!(!backend.stands_still(since, millis(1), START + millis(1099)));
    }
}

//! Tests of the solver: derived, set by hand, in words.

use super::*;
use crate::testing::forward;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn derived_timers_see_a_silent_cut_within_four_fifths_of_any_contract() {
    for contract in [300, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000].map(ms) {
        let mut forward = forward();
        forward.failover_within = contract;
        let timers = Timers::solve(&forward);
        assert_eq!(timers, Timers::derive(contract));
        assert!(timers.detection() < contract * 4 / 5, "{contract:?}: {:?}", timers.detection());
        assert!(timers.probe_timeout < timers.interval, "a probe must end before the next is due");
        assert!(timers.confirm_timeout <= timers.probe_timeout);
        assert!(timers.stagger < timers.connect);
        assert!(timers.fast_interval <= timers.interval);
        // A process that hangs answers connects: it needs whole timeouts, and still fits.
        let hang = timers.interval.mul_f64(1.0 + timers.jitter) + timers.probe_timeout * timers.fall;
        assert!(hang < contract, "{contract:?}: {hang:?}");
    }
}

#[test]
fn the_default_contract_gives_the_documented_numbers() {
    let timers = Timers::solve(&forward());
    assert_eq!(timers.interval, ms(250));
    assert_eq!(timers.probe_timeout, ms(200));
    assert_eq!(timers.confirm_timeout, ms(80));
    assert_eq!((timers.rise, timers.fall, timers.patience, timers.passive_fall), (2, 2, 4, 3));
    assert_eq!(timers.detection(), ms(715));
}

#[test]
fn what_is_set_by_hand_is_kept_and_shown() {
    let mut forward = forward();
    forward.health.interval = Some(ms(5_000));
    forward.health.timeout = Some(ms(2_000));
    forward.health.fall = Some(4);
    forward.health.rise = Some(3);
    forward.passive_fall = Some(0);
    forward.timeout.connect = Some(ms(700));
    forward.queue_timeout = Some(ms(9_000));
    let timers = Timers::solve(&forward);
    assert_eq!(timers.interval, ms(5_000));
    assert_eq!(timers.probe_timeout, ms(2_000));
    assert_eq!((timers.rise, timers.fall, timers.patience, timers.passive_fall), (3, 4, 4, 0));
    assert_eq!((timers.connect, timers.wait), (ms(700), ms(9_000)));
    assert_eq!(timers.detection(), ms(5_500) + ms(2_000) + ms(80) * 3);
    let said = timers.explain().join("\n");
    assert!(said.contains("longer than failover_within = 1 s"), "{said}");
    assert!(said.contains("set failover_within to 7.74 s or more"), "{said}");
    assert!(!said.contains("failed request"), "passive detection is off: {said}");
}

#[test]
fn a_short_hand_set_timeout_bounds_the_confirming_probe_and_zero_counts_mean_one() {
    let mut forward = forward();
    forward.health.timeout = Some(ms(40));
    forward.health.interval = Some(ms(20));
    forward.health.fall = Some(0);
    forward.health.rise = Some(0);
    let timers = Timers::solve(&forward);
    assert_eq!(timers.confirm_timeout, ms(40));
    assert_eq!(timers.fast_interval, ms(20));
    assert_eq!((timers.rise, timers.fall, timers.patience), (1, 1, 1));
    assert_eq!(timers.detection(), ms(22) + ms(40));
}

#[test]
fn the_words_name_the_numbers() {
    let said = Timers::solve(&forward()).explain();
    assert_eq!(said[0], "each backend is checked every 250 ms (+- 5 %), an answer is due within 200 ms");
    assert_eq!(
        said[1],
        "a silent cut of a site is seen within 0.71 s by checks alone: 275 ms until the next check, 200 ms without an \
         answer, 3 more checks of 80 ms"
    );
    assert_eq!(
        said[2],
        "a backend is down after 2 wrong answers in a row, 3 late ones, or 4 checks without any answer"
    );
    assert_eq!(
        said[3],
        "it is down after 3 failed requests in a row too, whatever its checks say: no answer in time, a broken connection, or a \
         status in `retry.statuses`, which a 500 is only if named there"
    );
    let mut unchecked = forward();
    unchecked.health.kind = CheckKind::Off;
    let said = Timers::solve(&unchecked).explain().join("\n");
    assert!(said.starts_with("no checks:"), "{said}");
}

#[test]
fn what_nobody_acknowledges_is_left_in_time_to_be_answered_elsewhere_and_not_before_one_repeat() {
    let after = |contract| Timers::derive(ms(contract)).near().unacknowledged();
    assert_eq!(after(1_000), ms(700), "two repeats of a lost packet, 0.2 and 0.6 s after it, and 0.3 s for elsewhere");
    assert_eq!(after(10_000), ms(7_000));
    assert_eq!(after(600), ms(450));
    assert_eq!(after(300), ms(300), "never more than the contract");
}

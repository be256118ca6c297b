//! Who is preferred, so that nobody else is asked, and answers its checks alone.

use super::*;
use crate::backend::Overdue;

/// Site `a` is preferred, `b` stands by.
fn preferred(edit: impl FnOnce(&mut relais_config::Forward)) -> Config {
    let backends = vec![backend("a", A1, 1), backend("a", A2, 1), backend("b", B1, 2), backend("b", B2, 2)];
    config(vec![service("api", backends, edit)])
}

/// With a past of good answers at the preferred site, each after `took`.
fn with_past(edit: impl FnOnce(&mut relais_config::Forward), took: Duration) -> Rig {
    let mut rig = started(preferred(edit));
    for _ in 0..5 {
        rig.answers(A1, 50, 0, took);
        rig.answers(A2, 50, 0, took);
        rig.run(ms(1_000));
    }
    rig
}

impl Rig {
    /// So many requests wait there for too long, until the guards drop.
    fn wait_at(&self, address: &str, waiting: usize) -> Vec<Overdue> {
        (0..waiting).map(|_| self.member(address).backend.wait_long()).collect()
    }

    fn fallen(&self) -> Vec<&str> {
        [A1, A2, B1, B2].into_iter().filter(|address| self.health(address) == Health::Down).collect()
    }
}

#[test]
fn a_preferred_site_that_answers_nothing_but_its_checks_is_left() {
    let mut rig = with_past(|_| {}, ms(20));
    let _waiting = (rig.wait_at(A1, 3), rig.wait_at(A2, 3));
    rig.run(ms(1_000));
    assert!(rig.fallen().is_empty(), "a pause is nothing yet");
    rig.until(ms(2_100), |rig| rig.fallen() == [A1, A2]);
    assert_eq!(rig.why(A1), "3 requests wait for longer than 1 s, none was answered");
    let member = rig.member(A1);
    assert!(member.stalled && !member.mute && !member.dead, "what may not be repeated goes on waiting");
    assert!(rig.fleet.report(rig.now).sites.iter().all(|site| site.health == Health::Up), "it accuses no site");
    rig.run(ms(8_000));
    assert_eq!(rig.fallen(), [A1, A2], "passed checks do not undo it");
    rig.run(ms(3_000));
    assert!(rig.fallen().is_empty());
    assert!(!rig.member(A1).stalled && rig.member(A1).ramp_from.is_some());
    rig.run(ms(20_000));
    assert!(rig.fallen().is_empty(), "those that were left waiting there are no new evidence");
    let _more = rig.wait_at(A1, 6);
    rig.until(ms(4_000), |rig| rig.fallen() == [A1]);
}

#[test]
fn who_answers_something_is_slow_and_not_stalled() {
    let mut rig = with_past(|_| {}, ms(20));
    let _waiting = (rig.wait_at(A1, 50), rig.wait_at(A2, 50));
    for _ in 0..20 {
        rig.answers(A1, 1, 0, ms(20));
        rig.answers(A2, 1, 0, ms(20));
        rig.run(ms(1_000));
    }
    assert!(rig.fallen().is_empty(), "{}", rig.why(A1));
    // What waits there while it answers is how its clients are; when it has nothing to answer, that is no stall.
    rig.run(ms(20_000));
    assert!(rig.fallen().is_empty(), "{}", rig.why(A1));
}

#[test]
fn who_is_slow_by_nature_is_not_stalled() {
    for took in [ms(20), ms(5_000)] {
        let mut rig = with_past(|_| {}, took);
        let _waiting = (rig.wait_at(A1, 50), rig.wait_at(A2, 50));
        rig.run(ms(5_000));
        assert_eq!(rig.fallen().is_empty(), took > ms(1_000), "{took:?}");
    }
    let mut rig = started(preferred(|_| {}));
    let _waiting = rig.wait_at(A1, 50);
    rig.run(ms(20_000));
    assert!(rig.fallen().is_empty(), "nothing is known of it");
}

#[test]
fn when_all_stall_nobody_is_left() {
    let mut rig = with_past(|_| {}, ms(20));
    let _waiting = [A1, A2, B1, B2].map(|address| rig.wait_at(address, 50));
    rig.run(ms(20_000));
    assert!(rig.fallen().is_empty());
    let mut rig = with_past(|forward| forward.outlier.slow_factor = 0, ms(20));
    let _waiting = rig.wait_at(A1, 50);
    rig.run(ms(20_000));
    assert!(rig.fallen().is_empty(), "switched off");
}

#[test]
fn a_preferred_site_that_answers_most_requests_wrongly_is_left() {
    let mut rig = with_past(|_| {}, ms(20));
    rig.answers(A1, 5, 5, ms(20));
    rig.answers(A2, 5, 5, ms(20));
    rig.run(ms(1_000));
    assert!(rig.fallen().is_empty(), "half is not most");
    rig.answers(A1, 0, 200, ms(20));
    rig.answers(A2, 0, 200, ms(20));
    rig.until(ms(1_100), |rig| rig.fallen() == [A1, A2]);
    assert!(rig.why(A1).ends_with("answers were errors, of all that were asked"), "{}", rig.why(A1));
    // The other site does no better: it is not left, and the preferred one not again.
    rig.answers(B1, 0, 50, ms(20));
    rig.answers(B2, 0, 50, ms(20));
    rig.run(ms(12_000));
    assert!(rig.fallen().is_empty());
    for _ in 0..10 {
        rig.answers(A1, 0, 50, ms(20));
        rig.answers(A2, 0, 50, ms(20));
        rig.run(ms(1_000));
    }
    assert!(rig.fallen().is_empty(), "{}", rig.why(A1));
}

#[test]
fn one_that_answers_well_in_a_preferred_site_keeps_it() {
    let mut rig = with_past(|forward| forward.outlier.max_ejected_percent = 25, ms(20));
    for _ in 0..10 {
        rig.answers(A1, 0, 50, ms(20));
        rig.answers(A2, 50, 0, ms(20));
        rig.run(ms(1_000));
    }
    assert_eq!(rig.fallen(), [A1], "by comparison");
}

//! Who is preferred, so that nobody else is asked, and answers its checks alone.

use super::*;
use crate::backend::Overdue;

/// Site `a` is preferred, `b` stands by.
fn preferred(edit: impl FnOnce(&mut relais_config::Forward)) -> Config {
    let backends = vec![backend("a", A1, 1), backend("a", A2, 1), backend("b", B1, 2), backend("b", B2, 2)];
    config(vec![service("api", backends, edit)])
}

const A3: &str = "10.0.1.3:80";

/// So many preferred ones at site `a`, one at `b` stands by. Alike: each has a past of good answers.
fn lopsided(preferred: &[&str]) -> Rig {
    let front = preferred.iter().map(|address| backend("a", address, 1));
    let mut rig = started(config(vec![service("api", front.chain([backend("b", B1, 2)]).collect(), |_| {})]));
    for _ in 0..5 {
        preferred.iter().for_each(|address| rig.answers(address, 50, 0, ms(20)));
        rig.run(ms(1_000));
    }
    rig
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

    /// Whether readers are told that nobody of the service answers.
    fn still(&self) -> bool {
        self.snapshot.pools[0].still
    }

    fn fallen(&self) -> Vec<&str> {
        let members = &self.snapshot.pools[0].members;
        let down = members.iter().filter(|member| member.health == Health::Down);
        down.map(|member| &*member.backend.id.address).collect()
    }
}

#[test]
fn what_waits_at_a_backend_that_is_left_for_answers_that_came_too_late_is_moved() {
    let mut rig = with_past(|_| {}, ms(20));
    // Too few for a stall: the others were asked for elsewhere in time, which counts as errors.
    let _waiting = (rig.wait_at(A1, 1), rig.wait_at(A2, 1));
    rig.until(ms(3_000), |rig| {
        for address in [A1, A2] {
            (0..30).for_each(|_| rig.member(address).backend.stats.fail(Fault::ResponseTimeout));
        }
        rig.fallen() == [A1, A2]
    });
    assert!([A1, A2].iter().all(|address| rig.member(address).stalled), "{}", rig.why(A1));
    assert!(rig.why(A1).ends_with(" requests failed, of all that were asked"), "{}", rig.why(A1));
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
fn it_is_timed_from_the_first_request_that_was_not_answered_though_its_checks_were() {
    let mut rig = with_past(|_| {}, ms(20));
    [A1, A2].iter().for_each(|address| rig.answered(address));
    rig.run(ms(300));
    let asked = rig.now;
    let _waiting = (rig.wait_at(A1, 3), rig.wait_at(A2, 3));
    rig.run(ms(1_000));
    rig.moved(A2, asked, Left::Overtaken);
    rig.until(ms(2_100), |rig| rig.fallen() == [A1, A2]);
    rig.moved(A1, asked + ms(100), Left::Rescued);
    rig.run(ms(3_000));
    let [record] = &rig.failovers()[..] else { panic!("{:?}", rig.failovers()) };
    assert_eq!((record.began, record.moved, record.rescued), (asked, 2, 1));
    assert!(record.overran() && record.slowest_micros > 1_000_000, "{record:?}");
}

/// Its checks pass and some of its answers come, so that nothing was cut.
#[test]
fn what_waited_too_long_at_one_that_is_left_for_its_errors_is_told_with_all_of_its_wait() {
    for late in [true, false] {
        let mut rig = with_past(|_| {}, ms(20));
        let asked = rig.now;
        rig.run(ms(1_600));
        rig.moved(A1, asked, if late { Left::Late } else { Left::Failed });
        [A1, A2].iter().for_each(|address| rig.answers(address, 0, 200, ms(20)));
        rig.until(ms(1_100), |rig| rig.fallen() == [A1, A2]);
        rig.moved(A2, asked + ms(1_000), if late { Left::Late } else { Left::Failed });
        rig.run(ms(3_000));
        let [record] = &rig.failovers()[..] else { panic!("{:?}", rig.failovers()) };
        assert_eq!((record.moved, record.slowest_micros >= 1_600_000), (2, late), "{record:?}");
        assert!(!record.overran(), "{record:?}");
    }
}

#[test]
fn what_left_one_that_is_left_for_its_errors_long_before_is_not_counted() {
    let mut rig = with_past(|_| {}, ms(20));
    for _ in 0..20 {
        rig.moved(A1, rig.now - ms(50), Left::Late);
        rig.run(ms(500));
    }
    [A1, A2].iter().for_each(|address| rig.answers(address, 0, 200, ms(20)));
    rig.until(ms(1_100), |rig| rig.fallen() == [A1, A2]);
    rig.run(ms(3_000));
    let [record] = &rig.failovers()[..] else { panic!("{:?}", rig.failovers()) };
    assert!((3..=7).contains(&record.moved), "those of three contracts: {record:?}");
}

/// By the second question, after one contract and a half: how fast the backend was left was told by then.
#[test]
fn what_leaves_late_one_that_is_left_for_its_errors_does_not_make_it_an_overrun() {
    let mut rig = with_past(|_| {}, ms(20));
    [A1, A2].iter().for_each(|address| rig.answers(address, 0, 200, ms(20)));
    rig.until(ms(1_100), |rig| rig.fallen() == [A1, A2]);
    let (asked, declared) = (rig.now - ms(1), rig.now);
    for later in [900, 600] {
        rig.run(ms(later));
        rig.moved(A1, asked, Left::Late);
    }
    rig.run(ms(3_000));
    let [record] = &rig.failovers()[..] else { panic!("{:?}", rig.failovers()) };
    assert_eq!((record.moved, record.ended), (2, declared), "{record:?}");
    assert!(!record.overran() && record.slowest_micros >= 1_500_000, "{record:?}");
}

/// What left before the last answer belongs to another trouble.
#[test]
fn a_stall_is_not_timed_by_what_an_earlier_trouble_left_unanswered() {
    let mut rig = with_past(|_| {}, ms(20));
    let earlier = rig.now;
    rig.run(ms(500));
    rig.moved(A1, earlier, Left::Overtaken);
    [A1, A2].iter().for_each(|address| rig.answered(address));
    rig.run(ms(100));
    let asked = rig.now;
    let _waiting = (rig.wait_at(A1, 3), rig.wait_at(A2, 3));
    rig.run(ms(1_000));
    rig.moved(A1, asked, Left::Overtaken);
    rig.until(ms(2_100), |rig| rig.fallen() == [A1, A2]);
    rig.run(ms(3_000));
    let [record] = &rig.failovers()[..] else { panic!("{:?}", rig.failovers()) };
    assert_eq!(record.began, asked, "not {earlier:?}, not {:?}", record.declared);
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

#[test]
fn a_preferred_tier_that_answers_wrongly_is_left_however_large_it_is() {
    for front in [&[A1, A2][..], &[A1, A2, A3]] {
        let mut rig = lopsided(front);
        front.iter().for_each(|address| rig.answers(address, 0, 200, ms(20)));
        rig.until(ms(1_100), |rig| rig.fallen() == front);
        for _ in 0..8 {
            rig.answers(B1, 50, 0, ms(20));
            rig.run(ms(1_000));
            assert_eq!(rig.fallen(), front, "the limit does not bring them back");
        }
        rig.run(ms(4_000));
        assert!(rig.fallen().is_empty(), "but they are tried again");
    }
}

#[test]
fn a_preferred_tier_that_answers_nothing_is_left_however_large_it_is() {
    for front in [&[A1, A2][..], &[A1, A2, A3]] {
        let mut rig = lopsided(front);
        let mut waiting = Vec::new();
        // One after the other, as the requests go to those that are left.
        for address in front {
            waiting.push(rig.wait_at(address, 3));
            rig.until(ms(3_100), |rig| rig.fallen().contains(address));
        }
        assert_eq!(rig.fallen(), front);
        assert!(front.iter().all(|address| rig.member(address).stalled));
        rig.run(ms(1_000));
        assert_eq!(rig.fallen(), front);
    }
}

#[test]
fn a_tier_of_which_one_hangs_and_one_answers_wrongly_is_left() {
    let mut rig = lopsided(&[A1, A2]);
    let _waiting = rig.wait_at(A1, 3);
    for _ in 0..3 {
        rig.answers(A2, 0, 50, ms(20));
        rig.run(ms(1_000));
    }
    assert_eq!(rig.fallen(), [A1, A2]);
    assert!(rig.member(A1).stalled && !rig.member(A2).stalled);
}

#[test]
fn a_left_tier_comes_back_when_who_stands_by_does_no_better_or_is_gone() {
    let mut rig = lopsided(&[A1, A2, A3]);
    [A1, A2, A3].iter().for_each(|address| rig.answers(address, 0, 200, ms(20)));
    rig.until(ms(1_100), |rig| rig.fallen().len() == 3);
    rig.answers(B1, 0, 50, ms(20));
    rig.until(ms(1_100), |rig| rig.fallen().len() == 2);
    assert_eq!(rig.health(B1), Health::Up, "within the limit again");

    let mut rig = lopsided(&[A1, A2, A3]);
    [A1, A2, A3].iter().for_each(|address| rig.answers(address, 0, 200, ms(20)));
    rig.until(ms(1_100), |rig| rig.fallen().len() == 3);
    rig.set(B1, Err(Fault::Refused));
    rig.until(ms(2_000), |rig| rig.fallen() == [B1]);
}

#[test]
fn who_was_not_asked_is_not_accused_of_what_the_others_answered() {
    for asked in [0, 2] {
        let mut rig = started(preferred(|_| {}));
        rig.answers(A1, 0, 100, ms(20));
        rig.answers(A2, 0, asked, ms(20));
        rig.until(ms(1_100), |rig| rig.fallen() == [A1]);
        rig.run(ms(3_000));
        assert_eq!(rig.fallen(), [A1], "{asked} answers say nothing");
        rig.answers(A2, 0, 100, ms(20));
        rig.until(ms(1_100), |rig| rig.fallen() == [A1, A2]);
    }
}

/// One backend with a past of answers that took so long.
fn alone(edit: impl FnOnce(&mut relais_config::Forward), took: Duration) -> Rig {
    let mut rig = started(config(vec![service("api", vec![backend("a", A1, 1)], edit)]));
    for _ in 0..5 {
        rig.answers(A1, 50, 0, took);
        rig.run(ms(1_000));
    }
    rig
}

#[test]
fn that_all_stand_still_is_said_and_nobody_goes_down_for_it() {
    for (mut rig, all) in [(alone(|_| {}, ms(20)), &[A1][..]), (with_past(|_| {}, ms(20)), &[A1, A2, B1, B2])] {
        for address in all {
            rig.answers(address, 50, 0, ms(20));
        }
        rig.run(ms(1_000));
        let waiting: Vec<_> = all.iter().map(|address| rig.wait_at(address, 3)).collect();
        rig.run(ms(4_000));
        assert!(!rig.still(), "a pause");
        rig.until(ms(1_100), Rig::still);
        let said = |still| move |note: &Transition| matches!(note, Transition::Still { still: s, .. } if *s == still);
        assert_eq!(rig.logged(said(true)), 1);
        assert!(rig.why(A1).contains("lets all requests wait"), "{}", rig.why(A1));
        rig.run(ms(60_000));
        assert!(rig.still() && rig.fallen().is_empty(), "as long as they wait");
        rig.answers(A1, 1, 0, ms(20));
        rig.until(ms(1_100), |rig| !rig.still());
        assert_eq!((rig.logged(said(true)), rig.logged(said(false))), (1, 1));
        drop(waiting);
    }
}

#[test]
fn what_waited_goes_and_nothing_is_said_of_those_that_nobody_waits_for() {
    let mut rig = alone(|_| {}, ms(20));
    let waiting = rig.wait_at(A1, 10);
    rig.until(ms(6_100), Rig::still);
    drop(waiting);
    rig.until(ms(1_100), |rig| !rig.still());
    // It falls: then that is what is wrong.
    let _waiting = rig.wait_at(A1, 10);
    rig.until(ms(6_100), Rig::still);
    rig.set(A1, Err(Fault::Refused));
    rig.until(ms(2_100), |rig| rig.fallen() == [A1] && !rig.still());
}

#[test]
fn a_pause_a_slow_service_and_one_that_answers_anything_do_not_stand_still() {
    let mut rig = alone(|_| {}, ms(20));
    for _ in 0..10 {
        let waiting = rig.wait_at(A1, 50);
        rig.run(ms(4_000));
        assert!(!rig.still(), "a pause");
        rig.answers(A1, 50, 0, ms(4_000));
        drop(waiting);
        rig.answers(A1, 2_000, 0, ms(20));
    }
    let _waiting = rig.wait_at(A1, 50);
    for _ in 0..20 {
        rig.run(ms(1_000));
        rig.answers(A1, 1, 0, ms(20));
        assert!(!rig.still(), "it answers");
    }
    rig.run(ms(20_000));
    assert!(!rig.still(), "what waited while it answered waits for something else");
    let never = |mut rig: Rig, waiting: usize| {
        let _waiting = rig.wait_at(A1, waiting);
        rig.run(ms(30_000));
        assert!(!rig.still());
    };
    never(alone(|_| {}, ms(5_000)), 50);
    never(alone(|_| {}, ms(20)), 2);
    never(alone(|forward| forward.outlier.slow_factor = 0, ms(20)), 50);
    never(alone(|forward| forward.outlier.max_ejected_percent = 0, ms(20)), 50);
    never(started(config(vec![service("api", vec![backend("a", A1, 1)], |_| {})])), 50);
    // One in twenty took so long: reports, or clients that wait for news.
    let mut mixed = alone(|_| {}, ms(20));
    mixed.answers(A1, 20, 0, ms(30_000));
    mixed.run(ms(1_000));
    never(mixed, 50);
}

#[test]
fn a_long_contract_lets_them_stand_still_for_longer() {
    let mut rig = alone(|forward| forward.failover_within = ms(5_000), ms(20));
    rig.run(ms(5_000));
    let _waiting = rig.wait_at(A1, 3);
    rig.run(ms(20_000));
    assert!(!rig.still());
    rig.until(ms(10_100), Rig::still);
}

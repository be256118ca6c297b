//! Who fails all that it is asked while another answers well, however many they are.

use super::*;

const C1: &str = "10.0.3.1:80";
const THREE: [&str; 3] = [A1, B1, C1];
const WRONG: Result<(), Fault> = Err(Fault::Status(503));

/// Three sites with one backend each.
fn three(edit: impl FnOnce(&mut relais_config::Forward)) -> Config {
    let backends = vec![backend("a", A1, 1), backend("b", B1, 1), backend("c", C1, 1)];
    config(vec![service("api", backends, edit)])
}

impl Rig {
    /// One request after the other as workers send them: to each usable one in turn, and on to the next while it fails at
    /// the `bad`; who has just failed comes last. Ends at the latest after so many; says how many each got.
    fn ask_in_turn(&mut self, requests: usize, pause: Duration, bad: &[&str], good: &[&str]) -> [usize; 3] {
        let mut asked = [0; 3];
        for n in 0..requests {
            let mut order: Vec<usize> = (0..3).map(|step| (n + step) % 3).collect();
            order[1..].sort_by_key(|place| self.member(THREE[*place]).backend.fails());
            for place in order.into_iter().filter(|place| self.member(THREE[*place]).usable()).collect::<Vec<_>>() {
                let address = THREE[place];
                asked[place] += 1;
                let fails = bad.contains(&address);
                self.member(address).backend.stats.latency.observe(ms(5));
                self.served(address, if fails { WRONG } else { Ok(()) });
                if !fails {
                    assert!(good.contains(&address));
                    break;
                }
            }
            self.run(pause);
        }
        asked
    }

    fn out(&self) -> Vec<&str> {
        THREE.into_iter().filter(|address| self.health(address) == Health::Down).collect()
    }
}

#[test]
fn two_of_three_that_only_fail_are_left_after_a_handful_of_requests_each() {
    for (pause, past) in [(ms(1), 0), (ms(1), 300), (ms(10), 300), (ms(1_000), 0), (ms(1_000), 60)] {
        let mut rig = started(three(|forward| forward.outlier.hold = ms(300_000)));
        rig.ask_in_turn(past, pause, &[], &THREE);
        let asked = rig.ask_in_turn(40, pause, &[A1, B1], &[C1]);
        assert_eq!(rig.out(), [A1, B1], "{pause:?} after {past}");
        assert!(asked[0] <= 16 && asked[1] <= 16, "{asked:?} every {pause:?} after {past}");
        assert!(rig.fleet.report(rig.now).sites.iter().all(|site| site.health == Health::Up), "it accuses no site");
        // It lasts, though less than half of the pool is left.
        let asked = rig.ask_in_turn(50, ms(100), &[A1, B1], &[C1]);
        assert_eq!(asked, [0, 0, 50]);
    }
}

#[test]
fn what_all_fail_alike_leaves_nobody() {
    for pause in [ms(1), ms(100), ms(1_000)] {
        for past in [0, 300] {
            let mut rig = started(three(|_| {}));
            rig.ask_in_turn(past, pause, &[], &THREE);
            rig.ask_in_turn(100, pause, &THREE, &[]);
            assert!(rig.out().is_empty(), "{pause:?}, {past}: {:?}", rig.notes());
        }
    }
}

/// Each fails three in ten, in every order, so that some fail often in a row.
#[test]
fn a_run_of_bad_luck_leaves_nobody() {
    for share in [3, 5] {
        let mut random = Random::new(share);
        let mut rig = started(three(|forward| forward.outlier.hold = ms(300_000)));
        for _ in 0..20_000 {
            let (who, luck) = (random.next() % 3, random.next() % 10);
            rig.served(THREE[usize::try_from(who).unwrap()], if luck < share { WRONG } else { Ok(()) });
            rig.run(ms(5));
        }
        assert!(rig.notes().is_empty(), "{share} in ten: {:?}", rig.notes());
    }
}

#[test]
fn answers_that_are_not_tried_elsewhere_tell_too() {
    let mut rig = started(three(|_| {}));
    for wrong in [0, 60, 60] {
        for address in THREE {
            rig.answers(
                address,
                if address == C1 { 60 } else { 60 - wrong },
                if address == C1 { 0 } else { wrong },
                ms(5),
            );
        }
        rig.run(ms(1_000));
    }
    assert_eq!(rig.out(), [A1, B1]);
    assert_eq!(rig.why(A1), "60 of 60 answers were errors, while another answers well");
    // Who is not answered at all gives no wrong answers.
    let mut rig = started(three(|_| {}));
    for _ in 0..3 {
        for address in [A1, B1] {
            let stats = &rig.member(address).backend.stats;
            (0..20).for_each(|_| stats.fail(Fault::ResponseTimeout));
        }
        rig.answers(C1, 60, 0, ms(5));
        rig.run(ms(1_000));
    }
    assert_eq!(rig.out(), [A1, B1]);
    assert!(rig.why(A1).ends_with("0 requests failed, while another answers well"), "{}", rig.why(A1));
    // Half is not most: by comparison with the median they are no outliers.
    let mut rig = started(three(|_| {}));
    for _ in 0..20 {
        rig.answers(A1, 30, 30, ms(5));
        rig.answers(B1, 30, 30, ms(5));
        rig.answers(C1, 60, 0, ms(5));
        rig.run(ms(1_000));
    }
    assert!(rig.out().is_empty(), "{:?}", rig.out());
}

/// All failed for long, and then one was mended.
#[test]
fn who_has_just_been_mended_is_worth_it_that_the_others_are_left() {
    let mut rig = started(three(|forward| forward.outlier.hold = ms(300_000)));
    rig.ask_in_turn(200, ms(50), &THREE, &[]);
    assert!(rig.out().is_empty());
    rig.ask_in_turn(40, ms(50), &[A1, B1], &[C1]);
    assert_eq!(rig.out(), [A1, B1]);
    let asked = rig.ask_in_turn(60, ms(50), &[A1, B1], &[C1]);
    assert_eq!(asked, [0, 0, 60]);
}

#[test]
fn they_come_back_when_the_good_one_cannot_carry_the_load() {
    for slow in [false, true] {
        let mut rig = started(three(|_| {}));
        rig.ask_in_turn(300, ms(10), &[], &THREE);
        rig.ask_in_turn(40, ms(10), &[A1, B1], &[C1]);
        assert_eq!(rig.out(), [A1, B1]);
        if slow {
            rig.answers(C1, 100, 0, ms(4_000));
        } else {
            rig.answers(C1, 70, 30, ms(5));
        }
        rig.until(ms(2_100), |rig| rig.out().len() < 2);
        let told = [A1, B1].map(|address| rig.why(address));
        assert!(told.contains(&"ejected, but too few others are left".to_owned()), "slow: {slow}: {told:?}");
        // For a while nobody is left for it; then once more.
        rig.ask_in_turn(40, ms(10), &[A1, B1], &[C1]);
        assert!(rig.out().len() < 2, "slow: {slow}");
        for _ in 0..100 {
            rig.ask_in_turn(10, ms(10), &[A1, B1], &[C1]);
        }
        assert_eq!(rig.out(), [A1, B1], "slow: {slow}");
    }
}

#[test]
fn they_come_back_when_the_good_one_has_no_place_for_more() {
    for queue in [0, 1_000] {
        let mut rig = started(three(|forward| {
            (forward.max_inflight, forward.max_queue) = (Some(4), queue);
            forward.outlier.hold = ms(300_000);
        }));
        rig.ask_in_turn(40, ms(10), &[A1, B1], &[C1]);
        assert_eq!(rig.out(), [A1, B1]);
        let good = rig.member(C1).backend;
        let busy: Vec<_> = (0..3).map(|_| good.enter()).collect();
        rig.ask_in_turn(400, ms(10), &[], &[C1]);
        assert_eq!(rig.out(), [A1, B1], "it has a place left");
        let full = good.enter();
        let stats = &rig.snapshot.pools[0].stats;
        stats.waiting.add(u64::from(queue > 0));
        rig.until(ms(1_100), |rig| rig.out().len() < 2);
        drop((busy, full));
    }
}

/// One is down, and the other that answers everything rightly is late with it already.
#[test]
fn nobody_is_left_for_one_that_cannot_carry_its_own_load() {
    for in_a_row in [false, true] {
        let mut rig = started(three(|_| {}));
        THREE.iter().for_each(|address| rig.answers(address, 3_000, 0, ms(5)));
        rig.run(ms(20_000));
        rig.set(B1, Err(Fault::Refused));
        rig.until(ms(2_000), |rig| rig.health(B1) == Health::Down);
        for step in 0..60 {
            rig.answers(C1, 10, 0, ms(4_000));
            if step < 8 {
                rig.answers(A1, 10, 0, ms(5));
            } else if in_a_row {
                (0..10).for_each(|_| rig.served(A1, WRONG));
            } else {
                rig.answers(A1, 4, 6, ms(5));
            }
            rig.run(ms(250));
        }
        let told = rig.notes();
        let fallen = told.iter().filter(|note| matches!(note, Transition::Health { to: Health::Down, .. }));
        assert_eq!(fallen.count(), 1, "in a row: {in_a_row}: {told:?}");
    }
}

#[test]
fn they_come_back_when_the_good_one_dies_or_fails_too() {
    let mut rig = started(three(|_| {}));
    rig.ask_in_turn(40, ms(10), &[A1, B1], &[C1]);
    assert_eq!(rig.out(), [A1, B1]);
    rig.set(C1, Err(Fault::Refused));
    (0..3).for_each(|_| rig.served(C1, Err(Fault::Refused)));
    rig.until(ms(1_500), |rig| rig.health(C1) == Health::Down && rig.member(A1).usable());

    let mut rig = started(three(|_| {}));
    rig.ask_in_turn(40, ms(10), &[A1, B1], &[C1]);
    rig.ask_in_turn(400, ms(10), &THREE, &[]);
    assert_ne!(rig.out(), [A1, B1], "all fail: nobody is left for another");
}

#[test]
fn the_operator_can_switch_it_off() {
    for edit in [(|forward| forward.outlier.errors_percent = 0) as fn(&mut relais_config::Forward), |forward| {
        forward.outlier.max_ejected_percent = 0
    }] {
        let mut rig = started(three(edit));
        rig.ask_in_turn(300, ms(10), &[A1, B1], &[C1]);
        assert!(rig.out().len() < 2, "{:?}", rig.out());
    }
    let mut rig = started(three(|forward| forward.passive_fall = Some(0)));
    rig.ask_in_turn(60, ms(10), &[A1, B1], &[C1]);
    assert!(rig.out().is_empty(), "failures in a row say nothing: {:?}", rig.out());
    rig.ask_in_turn(60, ms(10), &[A1, B1], &[C1]);
    assert_eq!(rig.out(), [A1, B1], "by comparison");
}

/// One was bad for long and has just begun to do well, when the other begins to fail.
#[test]
fn two_that_outdo_each_other_are_not_both_left() {
    let mut rig = started(pair(|forward| forward.outlier.max_ejected_percent = 10));
    rig.fleet.services[0].breathes_until = rig.now + ms(5_500);
    for _ in 0..5 {
        rig.answers(A1, 0, 60, ms(5));
        rig.answers(B1, 300, 0, ms(5));
        rig.run(ms(1_000));
    }
    rig.answers(A1, 58, 2, ms(5));
    rig.answers(B1, 2, 20, ms(5));
    rig.run(ms(1_000));
    let fallen = |note: &&Transition| matches!(note, Transition::Health { to: Health::Down, .. });
    assert_eq!(rig.notes().iter().filter(fallen).count(), 1, "{:?}", rig.notes());
}

/// Where one of two that are left may be lost: who was left for a better one and then died is missed like any other.
#[test]
fn who_has_died_since_it_was_left_is_missed() {
    for dies in [true, false] {
        let mut rig = started(three(|forward| forward.outlier.hold = ms(300_000)));
        rig.ask_in_turn(40, ms(10), &[A1, B1], &[C1]);
        assert_eq!(rig.out(), [A1, B1]);
        rig.fleet.services[0].breathes_until = rig.now + ms(60_000);
        let slot = rig.member(B1).backend.slot;
        rig.fleet.lift(slot, "mended", rig.now);
        if dies {
            rig.set(A1, Err(Fault::Refused));
        }
        for _ in 0..20 {
            rig.run(ms(1_000));
            rig.answers(B1, 70, 30, ms(5));
            rig.answers(C1, 100, 0, ms(5));
        }
        assert_eq!(rig.out().contains(&B1), !dies, "{:?}", rig.notes());
    }
}

#[test]
fn who_is_left_for_a_better_one_stays_so_after_a_restart() {
    let config = || three(|forward| forward.outlier.hold = ms(300_000));
    let mut rig = started(config());
    rig.ask_in_turn(40, ms(10), &[A1, B1], &[C1]);
    assert_eq!(rig.out(), [A1, B1]);
    let mut reborn = rig.reborn(ms(1_000), config());
    assert_eq!(reborn.ask_in_turn(100, ms(100), &[A1, B1], &[C1]), [0, 0, 100]);
    // For as long as that one does well.
    reborn.set(C1, Err(Fault::Refused));
    (0..3).for_each(|_| reborn.served(C1, Err(Fault::Refused)));
    reborn.until(ms(2_000), |rig| rig.out().len() < 3 && rig.out().contains(&C1));
    let again = reborn.reborn(ms(1_000), config());
    assert_ne!(again.out(), THREE);
}

/// What was answered before the stop is no sign that requests go on being answered.
#[test]
fn when_all_stop_to_answer_nobody_is_kept_for_what_it_answered_before() {
    for offset in 0..20 {
        let mut rig = started(three(|_| {}));
        rig.ask_in_turn(100, ms(10), &[], &THREE);
        rig.run(ms(offset * 13));
        rig.ask_in_turn(1, ms(0), &[], &THREE);
        THREE.iter().for_each(|address| rig.set(address, Err(Fault::ResponseTimeout)));
        rig.until(ms(4_000), |rig| rig.out() == THREE);
        THREE.iter().for_each(|address| rig.set(address, Ok(())));
        rig.until(ms(300), |rig| rig.out().len() < 3);
    }
}

//! Who is back and answers wrongly: its share stays small, and grows when that is over.

use super::*;
use crate::random::Random;
use crate::snapshot::{Ask, Choice};

const WRONG: Fault = Fault::Status(502);
/// The steps in which requests come.
const STEP: Duration = Duration::from_millis(50);

/// Requests that go where the pool sends them, and a dice for what comes of each.
struct Load {
    dice: Random,
    /// Requests in a step.
    some: u64,
    /// What a wrong answer is: a request that fails, or an answer for the client.
    fails: bool,
}

/// What A1 was asked, what it answered wrongly, and what all were asked.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Got {
    asked: u64,
    wrong: u64,
    all: u64,
}

impl Got {
    /// The part of all requests that went to A1.
    fn share(self) -> f64 {
        self.asked as f64 / self.all.max(1) as f64
    }
}

impl Load {
    fn new(seed: u64, some: u64) -> Self {
        Self { dice: Random::new(seed), some, fails: false }
    }

    fn run(&mut self, rig: &mut Rig, time: Duration, errors: impl Fn(&str) -> f64) -> Got {
        let end = rig.now + time;
        let mut got = Got::default();
        while rig.now < end {
            for _ in 0..self.some {
                let roll = self.dice.next();
                let ask =
                    Ask { tried: &[], roll, now: rig.now, key: None, sticky: None, avoid_site: None, stream: false };
                let Choice::Take(member) = rig.snapshot.pools[0].pick(&ask) else { panic!("nobody is left") };
                let address = Arc::clone(&member.backend.id.address);
                let wrong = (self.dice.next() % 10_000) as f64 / 10_000.0 < errors(&address);
                if wrong && self.fails {
                    rig.served(&address, Err(WRONG));
                } else {
                    rig.answers(&address, u64::from(!wrong), u64::from(wrong), ms(5));
                }
                let back = u64::from(*address == *A1);
                got = Got { asked: got.asked + back, wrong: got.wrong + back * u64::from(wrong), all: got.all + 1 };
            }
            rig.run(STEP);
        }
        got
    }
}

/// A1 has died and is just back.
fn back_in(config: Config, seed: u64, some: u64) -> (Rig, Load) {
    let (mut rig, mut load) = (started(config), Load::new(seed, some));
    load.run(&mut rig, ms(5_000), well);
    rig.set(A1, Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    load.run(&mut rig, ms(3_000), well);
    rig.set(A1, Ok(()));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Up);
    (rig, load)
}

/// With a hundred requests a second.
fn back(seed: u64) -> (Rig, Load) {
    back_in(two_sites(), seed, 5)
}

fn well(_: &str) -> f64 {
    0.0
}

fn of_a1(part: f64) -> impl Fn(&str) -> f64 {
    move |address| if address == A1 { part } else { 0.0 }
}

/// Two sites where nobody is ejected for less than half of its answers.
fn without_ejections() -> Config {
    let mut config = two_sites();
    forward(&mut config).outlier.max_ejected_percent = 1;
    config
}

fn forward(config: &mut Config) -> &mut relais_config::Forward {
    let relais_config::Action::Forward(forward) = &mut Arc::make_mut(&mut config.services[0]).action else { panic!() };
    forward
}

#[test]
fn a_share_does_not_grow_while_its_answers_are_worse_than_the_others() {
    for (fails, part) in [(false, 0.15), (true, 0.15), (false, 0.3)] {
        let mut wrong = 0;
        for seed in 0..50 {
            let (mut rig, mut load) = back_in(without_ejections(), seed, 5);
            load.fails = fails;
            wrong += load.run(&mut rig, ms(10_000), of_a1(part)).wrong;
            // However long that is: here nobody is ejected.
            let later = load.run(&mut rig, ms(100_000), of_a1(part));
            assert!(later.share() < 0.1, "{seed}: {later:?}");
        }
        let whole = 50.0 * 180.0 * part;
        assert!((wrong as f64) < whole / 2.0, "{wrong} wrong answers: a share that grows to whole has {whole}");
    }
}

#[test]
fn it_grows_when_its_errors_are_over() {
    for (part, some) in [(0.15, 5), (0.3, 5), (0.5, 5), (0.3, 1), (0.3, 50)] {
        for seed in 0..30 {
            let (mut rig, mut load) = back_in(without_ejections(), seed, some);
            load.run(&mut rig, ms(5_000), of_a1(part));
            // At a tenth it takes a while to show so with few requests.
            load.run(&mut rig, ms(if some == 1 { 35_000 } else { 15_000 }), well);
            let after = load.run(&mut rig, ms(10_000), well);
            assert!((after.share() - 0.25).abs() < 0.08, "{part} {some} {seed}: {after:?}");
            assert!(!rig.why(A1).contains("share"), "{}", rig.why(A1));
        }
    }
}

#[test]
fn what_all_have_in_common_stops_no_growth() {
    for (fails, part) in [(false, 0.01), (true, 0.01), (false, 0.05), (true, 0.05), (false, 0.15), (false, 0.5)] {
        for seed in 0..20 {
            let (mut rig, mut load) = back(seed);
            load.fails = fails;
            load.run(&mut rig, ms(12_000), |_| part);
            let after = load.run(&mut rig, ms(5_000), |_| part);
            assert!(after.share() > 0.18, "{part} {fails} {seed}: {after:?}");
        }
    }
}

/// Most of them have none then.
#[test]
fn few_errors_among_few_answers_of_many_stop_hardly_a_growth() {
    let mut anew = Vec::new();
    for (some, seed) in [20, 40].into_iter().flat_map(|some| (0..30).map(move |seed| (some, seed))) {
        let backends = (2..=40).map(|last| backend("b", &format!("10.0.2.{last}:80"), 1));
        let mut config = config(vec![service("api", backends.chain([backend("a", A1, 1)]).collect(), |_| {})]);
        forward(&mut config).outlier.max_ejected_percent = 1;
        let (mut rig, mut load) = back_in(config, seed, some);
        let from = rig.member(A1).ramp_from;
        load.run(&mut rig, ms(400_000 / some), |_| 0.02);
        if rig.member(A1).ramp_from != from {
            anew.push((some, seed));
        }
    }
    // Nine where only the median of the others counts.
    assert!(anew.len() <= 1, "{anew:?}");
}

#[test]
fn one_wrong_answer_stops_no_growth_and_two_do_only_at_first() {
    for wrong in [1, 2] {
        let (mut rig, mut load) = back(1);
        rig.answers(A1, 0, wrong, ms(5));
        [A2, B1, B2].iter().for_each(|address| rig.answers(address, 1_000, 0, ms(5)));
        rig.run(ms(1_000));
        assert_eq!(rig.why(A1).contains("its share does not grow: 2 of"), wrong == 2, "{}", rig.why(A1));
        load.run(&mut rig, ms(11_000), well);
        let after = load.run(&mut rig, ms(5_000), well);
        assert!(after.share() > 0.2, "{wrong}: {after:?}");
    }
}

#[test]
fn a_growth_that_is_over_stays_over() {
    let (mut rig, mut load) = back_in(without_ejections(), 1, 5);
    load.run(&mut rig, ms(10_000), well);
    let from = rig.member(A1).ramp_from;
    load.run(&mut rig, ms(10_000), of_a1(0.3));
    assert_eq!(rig.member(A1).ramp_from, from);
}

#[test]
fn where_growth_takes_little_more_than_a_look_what_is_seen_at_its_end_counts() {
    for seed in 0..20 {
        let mut config = without_ejections();
        forward(&mut config).failover_within = ms(300);
        let (mut rig, mut load) = back_in(config, seed, 5);
        load.run(&mut rig, ms(5_000), of_a1(0.3));
        let after = load.run(&mut rig, ms(5_000), of_a1(0.3));
        assert!(after.share() < 0.1, "{seed}: {after:?}");
    }
}

#[test]
fn where_the_others_have_no_place_for_more_it_grows() {
    for full in [false, true] {
        let mut config = without_ejections();
        (forward(&mut config).max_inflight, forward(&mut config).max_queue) = (Some(10), 10);
        let (mut rig, mut load) = back_in(config, 1, 5);
        let others = [A2, B1, B2].map(|address| rig.member(address).backend);
        let busy = if full { 9 } else { 8 };
        let busy: Vec<_> = others.iter().flat_map(|backend| (0..busy).map(|_| backend.enter())).collect();
        let one_more: Vec<_> = others.iter().filter(|_| full).map(|backend| backend.enter()).collect();
        rig.snapshot.pools[0].stats.waiting.add(u64::from(full));
        load.run(&mut rig, ms(6_000), of_a1(0.3));
        assert_eq!(!rig.why(A1).contains("share"), full, "{}", rig.why(A1));
        drop((busy, one_more));
    }
}

#[test]
fn where_the_others_have_no_place_for_more_all_that_are_small_grow() {
    for full in [false, true] {
        let mut config = without_ejections();
        (forward(&mut config).max_inflight, forward(&mut config).max_queue) = (Some(10), 0);
        let (mut rig, mut load) = (started(config), Load::new(1, 5));
        [A1, B1].iter().for_each(|address| rig.set(address, Err(Fault::Refused)));
        rig.until(ms(1_000), |rig| [A1, B1].iter().all(|address| rig.health(address) == Health::Down));
        load.run(&mut rig, ms(3_000), well);
        [A1, B1].iter().for_each(|address| rig.set(address, Ok(())));
        rig.until(ms(1_000), |rig| [A1, B1].iter().all(|address| rig.health(address) == Health::Up));
        let look = |rig: &mut Rig| {
            [A1, B1].iter().for_each(|address| rig.answers(address, 12, 2, ms(5)));
            [A2, B2].iter().for_each(|address| rig.answers(address, 100, 0, ms(5)));
            rig.run(ms(1_000));
            [A1, B1].map(|address| rig.why(address).contains("its share does not grow"))
        };
        look(&mut rig);
        look(&mut rig);
        assert_eq!(look(&mut rig), [true; 2], "{} {}", rig.why(A1), rig.why(B1));
        let others = [A2, B2].map(|address| rig.member(address).backend);
        let busy = if full { 10 } else { 8 };
        let busy: Vec<_> = others.iter().flat_map(|backend| (0..busy).map(|_| backend.enter())).collect();
        // Not at every other look: the one that may grow is no place for what the others cannot take.
        for _ in 0..4 {
            assert_eq!(look(&mut rig), [!full; 2], "{} {}", rig.why(A1), rig.why(B1));
        }
        drop(busy);
    }
}

#[test]
fn a_restart_begins_with_a_tenth_and_where_errors_are_not_compared_none_stops_a_growth() {
    let (mut rig, mut load) = back_in(without_ejections(), 1, 5);
    load.run(&mut rig, ms(7_000), of_a1(0.3));
    assert!(rig.why(A1).contains("its share does not grow"), "{}", rig.why(A1));
    let reborn = rig.reborn(ms(10), without_ejections());
    assert_eq!(reborn.member(A1).ramp_from, Some(reborn.now), "as it was");
    let mut off = without_ejections();
    forward(&mut off).outlier.errors_percent = 0;
    rig.event(Event::Reload(Arc::new(off)));
    load.run(&mut rig, ms(7_000), of_a1(0.3));
    let after = load.run(&mut rig, ms(5_000), of_a1(0.3));
    assert!(after.share() > 0.2, "{after:?}");
    assert!(!rig.why(A1).contains("share"), "{}", rig.why(A1));
}

/// Where little is asked the others take all of it.
#[test]
fn who_has_not_been_asked_since_is_not_kept_small_for_long() {
    let (mut rig, _) = back(1);
    rig.answers(A1, 2, 3, ms(5));
    [A2, B1, B2].iter().for_each(|address| rig.answers(address, 1_000, 0, ms(5)));
    rig.run(ms(9_000));
    assert!(rig.why(A1).contains("its share does not grow: 3 of 5"), "{}", rig.why(A1));
    rig.run(ms(9_000));
    assert!(!rig.why(A1).contains("share"), "{}", rig.why(A1));
    assert!(rig.member(A1).ramp_from.is_some_and(|from| rig.now.since(from) > ms(5_000)));
}

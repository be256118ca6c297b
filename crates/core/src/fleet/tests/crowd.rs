//! Our own stalls and our own limits: neither looks like a dead site.

use super::*;

/// So many backends at one site, all up.
fn crowd(backends: u32) -> Rig {
    let address = |n: u32| format!("10.{}.{}.{}:80", n >> 16, n >> 8 & 255, n & 255);
    let backends = (0..backends).map(|n| backend("a", &address(n), 1)).collect();
    let mut rig = Rig::new(config(vec![service("api", backends, |_| {})]));
    rig.until(ms(5_000), |rig| rig.snapshot.pools[0].members.iter().all(|member| member.health == Health::Up));
    rig.run(ms(1_000));
    rig.said.clear();
    rig.probes.clear();
    rig
}

/// How often each was asked: the least and the most.
fn asked(rig: &Rig) -> (usize, usize) {
    let mut asked: BTreeMap<u32, usize> =
        rig.snapshot.pools[0].members.iter().map(|member| (member.backend.slot, 0)).collect();
    for (_, order) in &rig.probes {
        *asked.get_mut(&order.backend.slot).unwrap() += 1;
    }
    (*asked.values().min().unwrap(), *asked.values().max().unwrap())
}

#[test]
fn an_edge_that_was_stopped_again_and_again_takes_nobody_down() {
    let mut rig = started(two_sites());
    for _ in 0..10 {
        rig.until(ms(1_000), |rig| !rig.answers.is_empty());
        // Nothing runs for a while. Then the clock is looked at first, and what has come meanwhile afterwards.
        rig.now = rig.now + ms(3_000);
        rig.fleet.handle_timeout(rig.now);
        rig.take();
        rig.run(ms(20));
    }
    assert_eq!(rig.notes(), [], "nothing to tell");
    let all = rig.snapshot.pools[0].members.iter().all(|member| member.health == Health::Up);
    assert!(all && rig.snapshot.pools[0].members.len() == 4);
}

#[test]
fn a_check_nobody_looked_at_is_no_evidence_and_is_made_again() {
    let mut rig = started(pair(|_| {}));
    rig.set(A1, Err(Fault::Unwatched));
    rig.run(ms(60_000));
    assert_eq!(rig.notes(), []);
    assert!(rig.probes.iter().filter(|(_, order)| order.backend.slot == 0).count() > 200);
    rig.set(A1, Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    rig.set(A1, Err(Fault::Unwatched));
    rig.run(ms(10_000));
    assert_eq!(rig.health(A1), Health::Down, "nor does it bring back what is down");
}

#[test]
fn a_question_whose_answer_nobody_looked_at_is_asked_again_at_once_and_as_it_was() {
    let mut rig = started(pair(|_| {}));
    let asked = |rig: &Rig| -> Vec<(Instant, Duration)> {
        rig.probes.iter().filter(|(_, order)| order.backend.slot == 0).map(|(at, order)| (*at, order.timeout)).collect()
    };
    // A worker waits there: a short question, and nobody could look.
    rig.set(A1, Err(Fault::Unwatched));
    rig.until(ms(1_000), |rig| rig.answers.values().all(|(slot, ..)| *slot != 0));
    rig.probes.clear();
    rig.event(Event::Overdue { slot: 0 });
    rig.until(ms(2_000), |rig| asked(rig).len() == 4);
    let all = asked(&rig);
    assert!(all.iter().all(|(_, timeout)| *timeout == ms(80)), "{all:?}");
    let fast = rig.fleet.services[0].timers.fast_interval;
    assert!(all.windows(2).all(|two| two[1].0.since(two[0].0) <= fast + ms(5)), "{all:?}");
    // It connects and gets no answer: that is for a whole one to say, and again nobody could look.
    rig.set(A1, Err(Fault::ResponseTimeout));
    rig.until(ms(1_000), |rig| asked(rig).len() == 5);
    rig.set(A1, Err(Fault::Unwatched));
    rig.until(ms(2_000), |rig| asked(rig).len() == 9);
    let all = asked(&rig).split_off(5);
    assert!(all.iter().all(|(_, timeout)| *timeout > ms(80)), "{all:?}");
    assert!(all.windows(2).all(|two| two[1].0.since(two[0].0) <= fast + ms(5)), "{all:?}");
    rig.set(A1, Ok(()));
    rig.run(ms(300));
    let before = asked(&rig).len();
    rig.run(ms(2_000));
    assert!(asked(&rig).len() - before <= 12, "an answer ends it");
}

#[test]
fn many_probes_that_are_due_together_go_out_in_turns() {
    let mut rig = crowd(1_000);
    rig.now = rig.now + ms(2_000);
    rig.run(ms(30));
    let mut turns: BTreeMap<Instant, usize> = BTreeMap::new();
    for (at, _) in &rig.probes {
        *turns.entry(*at).or_default() += 1;
    }
    assert!(turns.values().all(|sent| *sent <= 64), "{turns:?}");
    assert!(asked(&rig).0 >= 1, "all of them soon");
}

#[test]
fn with_a_limit_everybody_has_a_turn_and_the_contract_that_cannot_be_kept_is_told() {
    let mut rig = crowd(1_000);
    // An answer takes 5 ms: ten under way are 2,000 a second, half of what is wanted.
    rig.fleet.allow_probes(10);
    rig.run(ms(10));
    for _ in 0..5_000 {
        rig.run(ms(1));
        assert!(rig.fleet.report(rig.now).checks.under_way <= 10);
    }
    let (least, most) = asked(&rig);
    assert!(least >= 8 && most - least <= 2, "{least} to {most} in 5 s");
    let told = rig.notes();
    assert!(matches!(&told[..], [Transition::Checks { lag: Some(lag), services: 1 }] if *lag > ms(100)), "{told:?}");
    let report = rig.fleet.report(rig.now);
    assert!(report.checks.behind && report.checks.lag_micros > 100_000, "{:?}", report.checks);
    assert_eq!(report.services[0].trouble, Vec::<String>::new(), "no path is too long");
    let trouble = report.services[0].crowded.clone().unwrap();
    assert!(trouble.starts_with("1000 backends are checked, more than this machine can: checks come"), "{trouble}");
    assert!(rig.fleet.explain("api").unwrap().contains(&trouble), "and to who asks how the times come about");
    // What requests meet is asked after at once, however long the queue is.
    let idle = (0..1_000).find(|slot| rig.answers.values().all(|(busy, ..)| busy != slot)).unwrap();
    rig.probes.clear();
    rig.event(Event::Served { slot: idle, result: Err(Fault::Refused) });
    rig.until(ms(100), |rig| rig.probes.iter().any(|(_, order)| order.backend.slot == idle));

    rig.fleet.allow_probes(1_000);
    rig.run(ms(5_000));
    assert_eq!(rig.notes().last(), Some(&Transition::Checks { lag: None, services: 0 }));
    assert_eq!(rig.fleet.report(rig.now).services[0].crowded, None);
}

/// Times that just hold, as they may be when they are set by hand: no check may come late.
fn tight() -> Rig {
    let mut rig = crowd(100);
    let timers = &mut rig.fleet.services[0].timers;
    timers.failover_within = timers.detection();
    rig
}

/// Lets time pass with timers that are always a bit late.
fn run_late(rig: &mut Rig, time: Duration, by: Duration) {
    let end = rig.now + time;
    while let Some(at) = rig.fleet.poll_timeout().filter(|at| *at <= end) {
        let woken = rig.now.max(at + by);
        while let Some(answer) = rig.answers.first_entry().filter(|answer| answer.key().0 <= woken) {
            let ((at, id), (slot, result, took)) = answer.remove_entry();
            rig.now = rig.now.max(at);
            rig.event(Event::Probed { slot, id, result, took, said: None });
        }
        rig.now = woken;
        rig.fleet.handle_timeout(rig.now);
        rig.take();
    }
}

#[test]
fn timers_that_are_a_bit_late_are_no_lack_however_tight_the_times() {
    let mut rig = tight();
    run_late(&mut rig, ms(10_000), Duration::from_micros(900));
    assert_eq!(rig.notes(), []);
    assert!(!rig.fleet.report(rig.now).checks.behind);
    rig.fleet.allow_probes(1);
    rig.run(ms(5_000));
    assert!(rig.fleet.report(rig.now).checks.behind, "a lack is");
    rig.fleet.allow_probes(1_000);
    run_late(&mut rig, ms(10_000), Duration::from_micros(900));
    assert!(!rig.fleet.report(rig.now).checks.behind, "and it ends");
}

#[test]
fn when_nothing_is_checked_any_more_checks_are_not_late() {
    let mut rig = crowd(1_000);
    rig.fleet.allow_probes(10);
    rig.run(ms(5_000));
    assert!(rig.fleet.report(rig.now).checks.behind);
    rig.order("a", Admin::Disabled);
    rig.run(ms(1_000));
    let checks = rig.fleet.report(rig.now).checks;
    assert_eq!((checks.behind, checks.lag_micros, checks.most), (false, 0, 10));
    assert!(rig.notes().contains(&Transition::Checks { lag: None, services: 0 }));
}

#[test]
fn one_stall_is_no_lack() {
    let mut rig = crowd(1_000);
    for _ in 0..5 {
        rig.now = rig.now + ms(3_000);
        rig.run(ms(2_000));
    }
    assert_eq!(rig.notes(), []);
}

#[test]
fn some_dead_backends_of_very_many_do_not_put_their_site_in_doubt() {
    let mut rig = crowd(1_000);
    let members: Vec<String> =
        rig.snapshot.pools[0].members.iter().map(|member| member.backend.id.address.to_string()).collect();
    for address in members.iter().step_by(10) {
        rig.set(address, Err(Fault::ConnectTimeout));
    }
    rig.run(ms(10_000));
    let down = rig.snapshot.pools[0].members.iter().filter(|member| member.health == Health::Down).count();
    assert_eq!(down, 100);
    assert!(rig.notes().iter().all(|note| !matches!(note, Transition::Site { .. })), "{:?}", rig.notes());
}

#[test]
fn a_dead_site_of_many_is_found_though_few_may_be_asked_at_a_time() {
    let mut rig = crowd(1_000);
    rig.fleet.allow_probes(100);
    let members: Vec<String> =
        rig.snapshot.pools[0].members.iter().map(|member| member.backend.id.address.to_string()).collect();
    for address in &members {
        rig.set(address, Err(Fault::ConnectTimeout));
    }
    // Silence holds a place for 80 to 200 ms: 500 to 1,250 a second can be asked, each four times.
    rig.until(ms(10_000), |rig| rig.snapshot.pools[0].members.iter().all(|member| member.health == Health::Down));
}

#[test]
fn a_dead_site_of_very_many_is_found_within_the_contract_though_old_requests_still_end() {
    let mut rig = crowd(1_000);
    let members = rig.snapshot.pools[0].members.clone();
    for member in &members {
        // Answered long ago: the first that fails afterwards may look like a sign of life.
        member.backend.stats.succeed(200);
        rig.set(&member.backend.id.address, Err(Fault::ConnectTimeout));
    }
    let cut = rig.now;
    for member in &members {
        rig.event(Event::Served { slot: member.backend.slot, result: Err(Fault::ResponseTimeout) });
        rig.run(ms(10));
        if rig.snapshot.pools[0].members.iter().all(|member| member.health == Health::Down) {
            break;
        }
    }
    let whole = rig.notes().iter().any(|note| matches!(note, Transition::Site { to: Health::Down, .. }));
    assert!(whole && rig.now.since(cut) <= ms(1_000), "as one: {whole}, after {:?}", rig.now.since(cut));
}

#[test]
fn a_path_is_not_longer_because_checks_are_late() {
    let mut rig = crowd(1_000);
    let connects = |rig: &mut Rig, took| {
        (0..8_000).for_each(|n| rig.event(Event::Connected { slot: n % 1_000, took }));
    };
    let away = |rig: &Rig| rig.fleet.report(rig.now).sites[0].round_trip_micros;
    connects(&mut rig, ms(4));
    rig.fleet.allow_probes(10);
    rig.run(ms(5_000));
    assert!(rig.fleet.report(rig.now).checks.behind);
    let generation = rig.snapshot.generation;
    connects(&mut rig, ms(300));
    assert_eq!((away(&rig), rig.snapshot.generation), (Some(4_000), generation));
    connects(&mut rig, ms(2));
    assert!(away(&rig).is_some_and(|micros| micros < 2_100), "what is shorter is true: {:?}", away(&rig));
    rig.fleet.allow_probes(1_000);
    rig.run(ms(5_000));
    connects(&mut rig, ms(30));
    assert!(away(&rig).is_some_and(|micros| micros > 29_000), "it counts again: {:?}", away(&rig));
}

//! One backend: probes, requests, doubt, return.

use super::*;

#[test]
fn every_backend_is_probed_within_100_ms_and_up_at_its_first_good_answer() {
    let mut rig = Rig::new(two_sites());
    assert!(rig.snapshot.pools[0].members.iter().all(|member| member.health == Health::Probing));
    rig.run(ms(106));
    let first: BTreeMap<u32, Instant> = rig.probes.iter().rev().map(|(at, o)| (o.backend.slot, *at)).collect();
    assert!(first.values().all(|at| at.since(START) <= ms(100)));
    let first: std::collections::BTreeSet<Instant> = first.into_values().collect();
    assert_eq!(first.len(), 4, "not in lock-step");
    for address in [A1, A2, B1, B2] {
        assert_eq!(rig.health(address), Health::Up);
        assert!(rig.member(address).ramp_from.is_none(), "at start all are equally cold");
    }
    assert_eq!(&*rig.probes[0].1.host, "api.example");
    let first = &rig.probes[0].1;
    assert_eq!((first.connect, first.timeout), (ms(500), ms(1_000)), "nothing is known of the network yet");
    rig.run(ms(1_000));
    let last = &rig.probes.last().unwrap().1;
    assert_eq!((last.connect, last.timeout), (ms(200), ms(200)));
}

#[test]
fn probes_keep_their_pace_and_one_is_under_way_per_backend() {
    let mut rig = started(two_sites());
    rig.run(ms(30_000));
    assert!((476..=484).contains(&rig.probes.len()), "{}", rig.probes.len());
    for address in [A1, A2, B1, B2] {
        let mine: Vec<Instant> =
            rig.probes.iter().filter(|(_, o)| *o.backend.id.address == *address).map(|(at, _)| *at).collect();
        assert!(mine.windows(2).all(|w| w[1].since(w[0]) <= ms(275)));
    }
}

#[test]
fn a_silent_backend_goes_down_within_the_contract_and_its_transport_is_dead() {
    for offset in 0..30 {
        let mut rig = started(pair(|_| {}));
        rig.run(ms(offset * 11));
        rig.set(A1, Err(Fault::ConnectTimeout));
        let took = rig.until(ms(800), |rig| rig.health(A1) == Health::Down);
        assert!(took > ms(390), "three silences take at least their timeouts: {took:?}");
        assert!(rig.member(A1).dead);
        assert_eq!(rig.health(B1), Health::Up);
    }
}

#[test]
fn a_backend_that_connects_and_says_nothing_hangs_while_another_is_usable() {
    let mut rig = started(pair(|_| {}));
    rig.set(A1, Err(Fault::ResponseTimeout));
    rig.until(ms(950), |rig| rig.health(A1) == Health::Down);
    assert!(rig.member(A1).hung && rig.member(A1).mute && !rig.member(A1).dead);
    rig.set(B1, Err(Fault::Refused));
    rig.until(ms(950), |rig| rig.health(B1) == Health::Down);
    assert!(!rig.member(B1).hung, "who refuses does not hang");
    assert!(!rig.member(A1).hung, "its streams have nowhere to go");
    rig.set(B1, Ok(()));
    rig.until(ms(950), |rig| rig.health(B1) == Health::Up);
    assert!(rig.member(A1).hung);
    rig.set(A1, Ok(()));
    rig.until(ms(5_000), |rig| rig.health(A1) == Health::Up);
    assert!(!rig.member(A1).hung);
}

#[test]
fn late_requests_alone_do_not_make_a_backend_hang() {
    let mut rig = started(two_sites());
    for _ in 0..3 {
        rig.served(A1, Err(Fault::ResponseTimeout));
    }
    assert_eq!(rig.health(A1), Health::Down);
    assert!(rig.member(A1).mute && !rig.member(A1).hung, "its check passes");
}

#[test]
fn a_refusing_backend_goes_down_faster_and_is_not_dead_transport() {
    let mut rig = started(pair(|_| {}));
    rig.set(A1, Err(Fault::Refused));
    let took = rig.until(ms(450), |rig| rig.health(A1) == Health::Down);
    assert!(took > ms(40), "{took:?}");
    assert!(!rig.member(A1).dead);
    assert_eq!(rig.why(A1), "connection refused, 2 checks in a row");
}

#[test]
fn one_lost_packet_changes_nothing_a_reader_sees() {
    let mut rig = started(pair(|_| {}));
    let generation = rig.snapshot.generation;
    rig.set(A1, Err(Fault::ConnectTimeout));
    rig.until(ms(400), |rig| !rig.probes.is_empty() && *rig.probes.last().unwrap().1.backend.id.address == *A1);
    rig.set(A1, Ok(()));
    rig.run(ms(5_000));
    assert_eq!(rig.snapshot.generation, generation);
    assert!(rig.notes().is_empty(), "{:?}", rig.notes());
}

#[test]
fn silence_is_confirmed_fast_with_a_short_deadline_and_doubt_shows_as_suspect() {
    let mut rig = started(pair(|_| {}));
    rig.set(A1, Err(Fault::ConnectTimeout));
    rig.until(ms(800), |rig| rig.health(A1) == Health::Suspect);
    rig.until(ms(800), |rig| rig.health(A1) == Health::Down);
    let mine: Vec<&(Instant, ProbeOrder)> = rig.probes.iter().filter(|(_, o)| *o.backend.id.address == *A1).collect();
    let silent: Vec<Duration> = mine.iter().rev().take(4).rev().map(|(_, o)| o.connect).collect();
    assert_eq!(silent, [ms(200), ms(80), ms(80), ms(80)]);
}

#[test]
fn a_backend_rises_by_consecutive_checks_then_ramps() {
    let mut rig = started(pair(|_| {}));
    rig.set(A1, Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    rig.run(ms(3_000));
    rig.set(A1, Ok(()));
    let took = rig.until(ms(1_000), |rig| rig.health(A1) == Health::Up);
    assert!(took > ms(280), "two checks, one interval apart: {took:?}");
    assert!(rig.member(A1).ramp_from.is_some_and(|from| rig.now.since(from) <= ms(1)));
}

#[test]
fn alternating_checks_neither_bring_down_nor_up() {
    let mut rig = started(pair(|forward| forward.health.rise = Some(3)));
    let alternate = |rig: &mut Rig, steps: usize, expected: Health| {
        for _ in 0..steps {
            let asked = rig.probes.len();
            let good = rig.probes.iter().filter(|(_, o)| *o.backend.id.address == *A1).count() % 2 == 0;
            rig.set(A1, if good { Ok(()) } else { Err(Fault::Status(500)) });
            rig.until(ms(1_000), |rig| rig.probes[asked..].iter().any(|(_, o)| *o.backend.id.address == *A1));
            rig.run(ms(6));
            assert_eq!(rig.health(A1), expected);
        }
    };
    alternate(&mut rig, 40, Health::Up);
    rig.set(A1, Err(Fault::Status(500)));
    rig.until(ms(2_000), |rig| rig.health(A1) == Health::Down);
    alternate(&mut rig, 40, Health::Down);
}

#[test]
fn failed_requests_in_a_row_take_a_backend_down_and_one_success_between_does_not() {
    let mut rig = started(two_sites());
    for _ in 0..20 {
        rig.served(A1, Err(Fault::Status(503)));
        rig.served(A1, Err(Fault::Status(503)));
        rig.served(A1, Ok(()));
    }
    assert_eq!(rig.health(A1), Health::Up);
    rig.served(A1, Err(Fault::Status(503)));
    rig.served(A1, Err(Fault::Status(503)));
    assert_eq!(rig.health(A1), Health::Up);
    rig.served(A1, Err(Fault::Status(503)));
    assert_eq!(rig.health(A1), Health::Down);
    assert_eq!(rig.why(A1), "answered 503, 3 requests in a row");
    assert!(!rig.member(A1).dead);
}

#[test]
fn wrong_answers_never_take_more_than_the_pool_can_lose() {
    let mut rig = started(two_sites());
    for address in [A1, A1, A1, A2, A2, A2, B1, B1, B1, B1] {
        rig.served(address, Err(Fault::Status(502)));
        rig.served(B2, Ok(()));
    }
    let down = rig.snapshot.pools[0].members.iter().filter(|m| m.health == Health::Down).count();
    assert_eq!(down, 2, "half of the pool stays");
    assert!(rig.why(B1).contains("cannot spare"), "{}", rig.why(B1));
    let mut alone = started(config(vec![service("api", vec![backend("a", A1, 1)], |_| {})]));
    for _ in 0..10 {
        alone.served(A1, Err(Fault::Status(502)));
    }
    assert_eq!(alone.health(A1), Health::Up);
    assert!(alone.why(A1).contains("cannot spare"), "{}", alone.why(A1));
}

#[test]
fn failures_that_all_have_in_common_take_nobody_down() {
    let mut rig = started(two_sites());
    for _ in 0..20 {
        for address in [A1, A2, B1, B2] {
            rig.served(address, Err(Fault::Status(502)));
        }
    }
    assert!([A1, A2, B1, B2].iter().all(|address| rig.health(address) == Health::Up));
    assert_eq!(rig.why(A1), "requests fail (answered 502) but so they do at the others: kept");
    // The others recover: now it is this one alone.
    [A1, A2, B1, B2].iter().for_each(|address| rig.served(address, Ok(())));
    rig.run(ms(65_000));
    for _ in 0..3 {
        rig.served(A1, Err(Fault::Status(502)));
        [A2, B1, B2].iter().for_each(|address| rig.served(address, Ok(())));
    }
    assert_eq!(rig.health(A1), Health::Down);
    // A process that is gone is no matter of comparison.
    let mut rig = started(two_sites());
    for address in [A1, B1, A1, B1, A1, B1] {
        rig.served(address, Err(Fault::Refused));
    }
    assert_eq!((rig.health(A1), rig.health(B1)), (Health::Down, Health::Down));
}

#[test]
fn a_transport_fault_of_a_request_is_checked_at_once() {
    let mut rig = started(pair(|forward| forward.health.interval = Some(ms(20_000))));
    rig.run(ms(25_000));
    rig.probes.clear();
    rig.set(A1, Err(Fault::Refused));
    rig.served(A1, Err(Fault::Refused));
    let took = rig.until(ms(200), |rig| rig.health(A1) == Health::Down);
    assert!(took < ms(100), "{took:?}");
    assert!(rig.probes.iter().all(|(_, o)| *o.backend.id.address == *A1));
}

#[test]
fn silence_of_requests_needs_a_silent_probe_too() {
    let mut rig = started(pair(|forward| forward.health.interval = Some(ms(20_000))));
    rig.run(ms(25_000));
    for _ in 0..10 {
        rig.served(A1, Err(Fault::Unacknowledged));
        assert_eq!(rig.health(A1), Health::Up, "they are one sign");
    }
    rig.run(ms(100));
    assert!(rig.notes().is_empty(), "the probe was answered: {:?}", rig.notes());
    rig.set(A1, Err(Fault::ConnectTimeout));
    for _ in 0..10 {
        rig.served(A1, Err(Fault::Unacknowledged));
    }
    let took = rig.until(ms(300), |rig| rig.health(A1) == Health::Down);
    assert!(took <= ms(241), "{took:?}");
}

#[test]
fn probes_without_an_answer_say_nothing_while_requests_get_theirs() {
    let mut rig = started(two_sites());
    for fault in [Fault::ConnectTimeout, Fault::ResponseTimeout] {
        rig.set(A1, Err(fault));
        for _ in 0..100 {
            rig.served(A1, Ok(()));
            rig.run(ms(50));
            assert_eq!(rig.health(A1), Health::Up);
        }
    }
    // Requests have stopped. Its link is taken for a lossy one by now, so this takes longer than usual.
    rig.until(ms(4_000), |rig| rig.health(A1) == Health::Down);
}

#[test]
fn the_last_backend_is_not_removed_by_a_failing_check_while_requests_succeed() {
    // Wherever the requests fall between the checks: mostly not between the first two that fail.
    for offset in 0..20 {
        let mut rig = started(config(vec![service("api", vec![backend("a", A1, 1)], |_| {})]));
        rig.served(A1, Ok(()));
        rig.run(ms(offset * 13));
        rig.set(A1, Err(Fault::Status(500)));
        rig.run(ms(200 - offset * 13 % 200));
        for _ in 0..100 {
            rig.served(A1, Ok(()));
            rig.run(ms(200));
            assert_eq!(rig.health(A1), Health::Up, "{offset}");
        }
        assert!(rig.why(A1).contains("requests succeed"), "{}", rig.why(A1));
        rig.served(A1, Err(Fault::Status(500)));
        rig.served(A1, Err(Fault::Status(500)));
        rig.served(A1, Err(Fault::Status(500)));
        rig.run(ms(1_000));
        assert_eq!(rig.health(A1), Health::Down, "now neither works");
    }
}

#[test]
fn what_succeeded_before_the_last_backend_died_does_not_keep_it() {
    for fault in [Fault::Refused, Fault::Reset] {
        let mut rig = started(config(vec![service("api", vec![backend("a", A1, 1)], |_| {})]));
        rig.served(A1, Ok(()));
        rig.set(A1, Err(fault));
        rig.until(ms(1_500), |rig| rig.health(A1) == Health::Down);
        // On connections that were there before, requests may succeed on.
        let mut rig = started(config(vec![service("api", vec![backend("a", A1, 1)], |_| {})]));
        rig.set(A1, Err(fault));
        for _ in 0..300 {
            rig.served(A1, Ok(()));
            rig.run(ms(20));
        }
        assert_eq!(rig.health(A1), Health::Up, "{fault}");
    }
}

#[test]
fn a_broken_check_of_all_backends_does_not_take_a_working_service_down() {
    let mut rig = started(two_sites());
    for address in [A1, A2, B1, B2] {
        rig.set(address, Err(Fault::Status(404)));
    }
    for _ in 0..100 {
        for address in [A1, A2, B1, B2] {
            rig.served(address, Ok(()));
        }
        rig.run(ms(20));
    }
    for address in [A1, A2, B1, B2] {
        assert_eq!(rig.health(address), Health::Up);
    }
    // When the check of another one passes, the check is to be believed.
    rig.set(B2, Ok(()));
    for _ in 0..100 {
        for address in [A1, A2, B1, B2] {
            rig.served(address, Ok(()));
        }
        rig.run(ms(20));
    }
    for address in [A1, A2, B1] {
        assert_eq!(rig.health(address), Health::Down);
    }
}

#[test]
fn a_late_answer_to_a_short_probe_is_a_sign_of_life() {
    let mut rig = started(pair(|_| {}));
    rig.set(A1, Err(Fault::ConnectTimeout));
    rig.until(ms(800), |rig| rig.probes.last().is_some_and(|(_, o)| o.timeout == ms(80)));
    rig.set(A1, Err(Fault::ResponseTimeout));
    rig.run(ms(165));
    assert_eq!(rig.probes.last().unwrap().1.timeout, ms(200), "a whole probe follows");
    assert_eq!(rig.health(A1), Health::Suspect);
    rig.until(ms(1_200), |rig| rig.health(A1) == Health::Down);
    assert!(!rig.member(A1).dead, "something there takes connections");
}

#[test]
fn an_unchecked_backend_is_up_until_requests_fail_and_is_tried_again() {
    let mut rig = Rig::new(pair(|forward| forward.health.kind = CheckKind::Off));
    assert_eq!(rig.health(A1), Health::Up);
    rig.run(ms(1_000));
    assert!(rig.probes.is_empty());
    for _ in 0..3 {
        rig.served(A1, Err(Fault::Refused));
    }
    assert_eq!(rig.health(A1), Health::Down);
    let first = rig.until(ms(2_000), |rig| rig.health(A1) == Health::Up);
    assert_eq!(first, ms(1_000));
    rig.served(A1, Err(Fault::Refused));
    assert_eq!(rig.health(A1), Health::Down, "half open: one failure is enough");
    let second = rig.until(ms(5_000), |rig| rig.health(A1) == Health::Up);
    assert_eq!(second, ms(2_000), "the hold doubles");
}

#[test]
fn a_lost_probe_result_is_asked_for_again_and_a_stale_one_counts_for_nothing() {
    let mut rig = started(pair(|_| {}));
    rig.until(ms(400), |rig| rig.answers.values().any(|(slot, ..)| *slot == 0));
    let id = rig.answers.iter().find(|(_, (slot, ..))| *slot == 0).unwrap().0.1;
    rig.answers.retain(|_, (slot, ..)| *slot != 0);
    rig.probes.clear();
    rig.run(ms(2_150));
    assert!(rig.probes.iter().all(|(_, o)| o.backend.slot != 0), "one under way");
    assert_eq!(rig.health(A1), Health::Up);
    rig.run(ms(350));
    let again = rig.probes.iter().filter(|(_, o)| o.backend.slot == 0).count();
    assert!(again >= 1, "asked again after the deadline and 2 s");
    let before = rig.fleet.report(rig.now).services[0].backends[0].probes.len();
    rig.event(Event::Probed { slot: 0, id, result: Err(Fault::Refused), took: ms(1), said: None });
    assert_eq!(rig.fleet.report(rig.now).services[0].backends[0].probes.len(), before);
    rig.event(Event::Probed { slot: 99, id, result: Err(Fault::Refused), took: ms(1), said: None });
    rig.event(Event::Served { slot: 99, result: Err(Fault::Refused) });
}

#[test]
fn a_flapping_backend_is_held_down_longer_each_time() {
    let mut rig = started(pair(|_| {}));
    let mut waits = Vec::new();
    for round in 0..5 {
        rig.set(A1, Err(Fault::Refused));
        rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
        let fell = rig.now;
        rig.set(A1, Ok(()));
        waits.push(rig.until(ms(30_000), |rig| rig.health(A1) == Health::Up).as_millis());
        if round > 0 {
            let held = format!("held back until {} after its fall", crate::words::short(rig.now.since(fell)));
            let why = rig.why(A1);
            assert!(why.ends_with(&held), "{why}, not {held}");
        }
    }
    assert!(waits[0] < 1_000, "{waits:?}");
    for (wait, hold) in waits[1..].iter().zip([2_000, 4_000, 8_000, 16_000]) {
        assert!((hold..hold + 1_000).contains(wait), "{waits:?}");
    }
    rig.run(ms(601_000));
    rig.set(A1, Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    rig.set(A1, Ok(()));
    assert!(rig.until(ms(1_000), |rig| rig.health(A1) == Health::Up) < ms(1_000), "forgotten after ten minutes");
}

#[test]
fn nobody_is_held_down_when_nobody_else_is_left() {
    let mut rig = started(pair(|_| {}));
    for _ in 0..4 {
        rig.set(A1, Err(Fault::Refused));
        rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
        rig.set(A1, Ok(()));
        rig.until(ms(30_000), |rig| rig.health(A1) == Health::Up);
    }
    rig.set(A1, Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    rig.set(A1, Ok(()));
    rig.run(ms(1_000));
    assert_eq!(rig.health(A1), Health::Down, "held");
    rig.set(B1, Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health(B1) == Health::Down);
    assert_eq!(rig.health(A1), Health::Up, "in the same snapshot");
    assert!(rig.member(A1).ramp_from.is_none());
}

#[test]
fn the_first_return_of_a_dead_service_is_seen_within_300_ms() {
    for (contract, fault) in [
        (ms(1_000), Fault::ConnectTimeout),
        (ms(10_000), Fault::ConnectTimeout),
        (ms(60_000), Fault::Refused),
        (ms(60_000), Fault::ConnectTimeout),
    ] {
        for offset in 0..20 {
            let mut rig = started(pair(|forward| forward.failover_within = contract));
            rig.run(contract);
            for address in [A1, B1] {
                rig.set(address, Err(fault));
            }
            rig.run(contract * 5 + ms(offset * 337));
            assert!(rig.snapshot.pools[0].members.iter().all(|m| m.health == Health::Down));
            rig.set(B1, Ok(()));
            let took = rig.until(ms(300), |rig| rig.health(B1) == Health::Up);
            assert!(took < ms(300), "{took:?}");
        }
    }
}

#[test]
fn each_address_of_a_dead_service_has_its_time_to_connect() {
    let mut rig = started(pair(|forward| forward.failover_within = ms(10_000)));
    rig.run(ms(10_000));
    let slot = rig.member(B1).backend.slot;
    let many: Vec<_> = (1..=8).map(|n| format!("10.0.2.{n}:80").parse().unwrap()).collect();
    rig.fleet.entries.get_mut(&slot).unwrap().addresses = many.into();
    [A1, B1].iter().for_each(|address| rig.set(address, Err(Fault::Refused)));
    rig.until(ms(20_000), |rig| rig.snapshot.pools[0].members.iter().all(|m| m.health == Health::Down));
    rig.run(ms(1_000));
    let last = |of: &str| rig.probes.iter().rfind(|(_, order)| *order.backend.id.address == *of).unwrap().1.connect;
    assert_eq!((last(A1), last(B1)), (ms(100), ms(800)));
}

#[test]
fn who_is_up_and_drained_is_not_asked_in_haste() {
    let mut rig = started(pair(|forward| forward.failover_within = ms(10_000)));
    rig.run(ms(10_000));
    ["a", "b"].iter().for_each(|site| rig.order(site, Admin::Draining));
    rig.probes.clear();
    rig.run(ms(10_000));
    assert!(rig.probes.iter().all(|(_, order)| order.connect == ms(2_000)), "{:?}", rig.probes.last());
    assert!(rig.probes.len() > 2);
}

#[test]
fn a_pace_set_by_hand_is_kept_when_nobody_is_left() {
    let mut rig = started(pair(|forward| {
        forward.failover_within = ms(60_000);
        forward.health.interval = Some(ms(10_000));
    }));
    rig.run(ms(20_000));
    rig.set(A1, Err(Fault::Refused));
    rig.set(B1, Err(Fault::Refused));
    rig.run(ms(60_000));
    rig.probes.clear();
    rig.run(ms(20_000));
    assert!((2..=20).contains(&rig.probes.len()), "{}", rig.probes.len());
}

#[test]
fn who_returns_at_the_very_moment_of_the_last_outage_is_seen_at_the_fast_pace() {
    let mut rig = started(two_sites());
    for address in [A1, A2, B1, B2] {
        rig.set(address, Err(Fault::Refused));
    }
    rig.until(ms(1_000), |rig| rig.snapshot.pools[0].members.iter().all(|m| m.health == Health::Down));
    for address in [A1, A2, B1, B2] {
        rig.set(address, Ok(()));
    }
    let took = rig.until(ms(300), |rig| rig.snapshot.pools[0].members.iter().any(|m| m.health == Health::Up));
    assert!(took <= ms(60), "{took:?}");
}

#[test]
fn a_failing_request_during_the_ramp_starts_it_again() {
    // Where errors are not compared.
    let mut rig = without_comparison();
    rig.set(A1, Err(Fault::Refused));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Down);
    rig.set(A1, Ok(()));
    rig.until(ms(1_000), |rig| rig.health(A1) == Health::Up);
    let began = rig.member(A1).ramp_from;
    rig.served(A1, Err(Fault::Status(500)));
    assert_eq!(rig.member(A1).ramp_from, began, "not at once");
    rig.run(ms(2_000));
    rig.served(A1, Err(Fault::Status(500)));
    assert_eq!(rig.member(A1).ramp_from, Some(rig.now));
    rig.served(A1, Ok(()));
    rig.run(ms(6_000));
    let grown = rig.member(A1).ramp_from;
    rig.served(A1, Err(Fault::Status(500)));
    assert_eq!(rig.member(A1).ramp_from, grown, "a ramp that is over stays over");
}

/// Answers of a backend without comparison (hash, sticky), all begun well.
fn bodies(rig: &mut Rig, address: &str, ends: &[Result<(), Fault>]) {
    for end in ends {
        let backend = Arc::clone(&rig.member(address).backend);
        backend.stats.succeed(200);
        match *end {
            Ok(()) => {
                backend.stats.whole.inc();
                backend.stats.serve(200);
            }
            Err(fault) => {
                backend.stats.break_off();
                rig.event(Event::BrokeOff { slot: backend.slot, fault });
            }
        }
        rig.run(ms(10));
    }
}

fn without_comparison() -> Rig {
    started(pair(|forward| forward.outlier.max_ejected_percent = 0))
}

#[test]
fn a_backend_whose_bodies_all_break_off_is_left_though_their_heads_are_right() {
    for fault in [Fault::Reset, Fault::ResponseTimeout] {
        let mut rig = without_comparison();
        let fall = usize::try_from(rig.snapshot.pools[0].timers.passive_fall).unwrap();
        bodies(&mut rig, A1, &vec![Err(fault); fall - 1]);
        assert_eq!(rig.health(A1), Health::Up, "{fault}");
        bodies(&mut rig, A1, &[Err(fault)]);
        assert_eq!(rig.health(A1), Health::Down, "{fault}");
        assert!(!rig.member(A1).dead, "its transport lives");
        assert_eq!(rig.fleet.report(rig.now).sites[0].health, Health::Down, "it is the only one there");
        assert!(!rig.notes().iter().any(|note| matches!(note, Transition::Site { .. })), "its site is not accused");
    }
}

#[test]
fn a_body_that_comes_to_its_end_ends_the_run_and_heads_do_not() {
    let mut rig = without_comparison();
    for _ in 0..20 {
        bodies(&mut rig, A1, &[Err(Fault::Reset), Err(Fault::Reset), Ok(())]);
    }
    assert_eq!(rig.health(A1), Health::Up);
    // Heads that come while bodies break prove nothing.
    rig.member(A1).backend.stats.succeeded.add(100);
    bodies(&mut rig, A1, &[Err(Fault::Reset); 5]);
    assert_eq!(rig.health(A1), Health::Down);
}

#[test]
fn bodies_that_break_off_everywhere_take_nobody_away() {
    let mut rig = without_comparison();
    for _ in 0..20 {
        bodies(&mut rig, A1, &[Err(Fault::Reset)]);
        bodies(&mut rig, B1, &[Err(Fault::Reset)]);
    }
    assert_eq!((rig.health(A1), rig.health(B1)), (Health::Up, Health::Up));
}

#[test]
fn workers_that_press_do_not_put_off_the_verdict_about_a_site_that_hangs() {
    let mut longest = Duration::ZERO;
    for offset in 0..100 {
        let mut rig = started(two_sites());
        rig.run(ms(7 * offset));
        for address in [A1, A2] {
            rig.set(address, Err(Fault::ResponseTimeout));
        }
        let slots = [A1, A2].map(|address| rig.member(address).backend.slot);
        let overdue = rig.snapshot.pools[0].timers.near().overdue();
        let (from, mut pressed) = (rig.now, rig.now);
        while [A1, A2].iter().any(|address| rig.health(address) != Health::Down) {
            rig.run(ms(1));
            // Each worker says so as long as anything waits there.
            if rig.now.since(pressed) >= overdue {
                pressed = rig.now;
                slots.iter().for_each(|slot| rig.event(Event::Overdue { slot: *slot }));
            }
            assert!(rig.now.since(from) < ms(5_000), "{:#?}", rig.fleet.report(rig.now));
        }
        longest = longest.max(rig.now.since(from));
    }
    let contract = started(two_sites()).snapshot.pools[0].timers.failover_within;
    assert!(longest <= contract * 4 / 5, "{longest:?} of {contract:?}");
}

/// One worker waits there, or all do again and again.
#[test]
fn one_that_hangs_is_down_within_the_contract_however_often_workers_press() {
    let (mut longest, mut which) = (Duration::ZERO, (0, 0));
    for presses in [1, 2, 3, 10, 1000] {
        for offset in 0..100 {
            let mut rig = started(two_sites());
            rig.run(ms(1_000 + 7 * offset));
            rig.set(A1, Err(Fault::ResponseTimeout));
            let slot = rig.member(A1).backend.slot;
            let overdue = rig.snapshot.pools[0].timers.near().overdue();
            let (from, mut pressed, mut told) = (rig.now, rig.now, 0);
            while rig.health(A1) != Health::Down {
                rig.run(ms(1));
                if rig.now.since(pressed) >= overdue && told < presses {
                    (pressed, told) = (rig.now, told + 1);
                    rig.event(Event::Overdue { slot });
                }
                assert!(rig.now.since(from) < ms(5_000), "{:#?}", rig.fleet.report(rig.now));
            }
            if rig.now.since(from) > longest {
                (longest, which) = (rig.now.since(from), (presses, offset));
            }
        }
    }
    let contract = started(two_sites()).snapshot.pools[0].timers.failover_within;
    assert!(longest <= contract, "{longest:?} of {contract:?}, {which:?}");
}

/// However its checks fall between those of the other: that one does better must be known by when it is late.
#[test]
fn one_that_hangs_is_down_within_the_contract_without_any_request() {
    for (fail_open, interval) in [(false, None), (true, None), (false, Some(ms(300)))] {
        let mut took: Vec<(Duration, u64)> = (0..200)
            .map(|seed| {
                let config = pair(|forward| (forward.fail_open, forward.health.interval) = (fail_open, interval));
                let mut rig = Rig::seeded(seed, START, config, Saved::default());
                rig.run(ms(2_000));
                rig.set(A1, Err(Fault::ResponseTimeout));
                (rig.until(ms(5_000), |rig| rig.health(A1) == Health::Down), seed)
            })
            .collect();
        took.sort_unstable();
        assert!(took[199].0 <= ms(1_000), "{:?} of {}", &took[190..], took.partition_point(|one| one.0 <= ms(1_000)));
    }
}

/// One at each site, so that the one most likely to do better is the other that hangs.
#[test]
fn two_that_hang_are_down_within_the_contract_without_any_request() {
    let mut took: Vec<(Duration, u64)> = (0..400)
        .map(|seed| {
            let backends = vec![backend("a", A1, 1), backend("a", A2, 1), backend("b", B1, 1)];
            let config = config(vec![service("api", backends, |_| {})]);
            let mut rig = Rig::seeded(seed, START, config, Saved::default());
            rig.run(ms(2_000));
            [A1, B1].iter().for_each(|address| rig.set(address, Err(Fault::ResponseTimeout)));
            let down = |rig: &Rig| [A1, B1].iter().all(|address| rig.health(address) == Health::Down);
            (rig.until(ms(5_000), down), seed)
        })
        .collect();
    took.sort_unstable();
    assert!(took[399].0 <= ms(1_000), "{:?} of {}", &took[390..], took.partition_point(|one| one.0 <= ms(1_000)));
}

/// Nor is a program to run.
#[test]
fn where_the_timeout_is_set_by_hand_nobody_is_asked_for_another_that_is_late() {
    for by_hand in [false, true] {
        let mut hurried = 0;
        for seed in 0..50 {
            let timeout = by_hand.then_some(ms(200));
            let config = pair(|forward| forward.health.timeout = timeout);
            let mut rig = Rig::seeded(seed, START, config, Saved::default());
            rig.run(ms(2_000));
            rig.set(A1, Err(Fault::ResponseTimeout));
            rig.run(ms(400));
            let asked =
                rig.probes.iter().filter(|(at, order)| at.since(START) > ms(1_000) && *order.backend.id.address == *B1);
            let asked: Vec<Instant> = asked.map(|(at, _)| *at).collect();
            hurried += asked
                .windows(2)
                .filter(|pair| pair[1].since(pair[0]) < rig.snapshot.pools[0].timers.interval / 2)
                .count();
        }
        assert_eq!(hurried == 0, by_hand, "{hurried}");
    }
}

/// A check that happens to be under way has more time than is needed to tell silence.
#[test]
fn a_cut_that_requests_meet_is_doubted_soon_whatever_checks_are_under_way() {
    let (mut doubted, mut down) = (Duration::ZERO, Duration::ZERO);
    for offset in 0..100 {
        let mut rig = started(two_sites());
        rig.run(ms(1_000 + 7 * offset));
        let timers = rig.snapshot.pools[0].timers.clone();
        let slots = [A1, A2].map(|address| rig.member(address).backend.slot);
        for address in [A1, A2] {
            rig.set(address, Err(Fault::ConnectTimeout));
        }
        let from = rig.now;
        let mut suspected = None;
        while rig.health(A1) != Health::Down {
            rig.run(ms(1));
            if rig.now.since(from).as_millis().is_multiple_of(timers.near().overdue().as_millis()) {
                slots.iter().for_each(|slot| rig.event(Event::Overdue { slot: *slot }));
            }
            if rig.health(A1) == Health::Suspect && rig.health(A2) == Health::Suspect {
                suspected.get_or_insert(rig.now);
            }
            assert!(rig.now.since(from) < ms(5_000), "{:#?}", rig.fleet.report(rig.now));
        }
        let least = timers.near().overdue() + timers.fast_interval + timers.confirm_timeout;
        let suspected = suspected.unwrap_or(rig.now).since(from);
        assert!(suspected <= least + ms(10), "{offset}: doubted after {suspected:?}, {least:?} would do");
        (doubted, down) = (doubted.max(suspected), down.max(rig.now.since(from)));
    }
    assert!(down <= doubted + ms(200), "doubted within {doubted:?}, down within {down:?}");
}

#[test]
fn who_is_up_by_its_requests_alone_says_so() {
    let mut rig = started(pair(|_| {}));
    rig.set(A1, Err(Fault::ResponseTimeout));
    rig.set(B1, Err(Fault::ResponseTimeout));
    let busy = |rig: &mut Rig| {
        for _ in 0..100 {
            [A1, B1].iter().for_each(|address| rig.answers(address, 1, 0, ms(5)));
            rig.run(ms(30));
        }
    };
    busy(&mut rig);
    assert_eq!((rig.health(A1), rig.health(B1)), (Health::Up, Health::Up));
    assert_eq!(rig.why(A1), "check fails (no answer in time) but requests are answered: kept");
    rig.set(A1, Ok(()));
    busy(&mut rig);
    assert_eq!((rig.why(A1).contains("kept"), rig.why(B1).contains("kept")), (false, true), "{}", rig.why(A1));
}

/// One check may be lost on the way, and tells nobody anything.
#[test]
fn one_check_that_is_lost_is_not_told() {
    let mut rig = started(pair(|_| {}));
    rig.set(A1, Err(Fault::ResponseTimeout));
    let lost = |rig: &Rig| {
        let report = rig.fleet.report(rig.now);
        report.services[0].backends[0].probes.iter().filter(|probe| probe.fault.is_some()).count()
    };
    let step = |rig: &mut Rig| {
        [A1, B1].iter().for_each(|address| rig.answers(address, 1, 0, ms(5)));
        rig.run(ms(10));
    };
    while lost(&rig) < 2 {
        assert!(!rig.why(A1).contains("kept"), "{} lost: {}", lost(&rig), rig.why(A1));
        step(&mut rig);
    }
    (0..10).for_each(|_| step(&mut rig));
    assert!(rig.why(A1).contains("kept"), "{} lost: {}", lost(&rig), rig.why(A1));
}

#[test]
fn who_stays_down_for_another_reason_than_it_fell_for_says_both() {
    let mut rig = started(two_sites());
    rig.set(A1, Err(Fault::Refused));
    rig.until(ms(5_000), |rig| rig.health(A1) == Health::Down);
    assert_eq!(rig.why(A1), "connection refused, 2 checks in a row");
    rig.set(A1, Err(Fault::Tls));
    rig.run(ms(3_000));
    assert_eq!(rig.why(A1), "connection refused, 2 checks in a row; now: TLS to the backend failed");
    // What silence there is when the whole site is silent says nothing new.
    [A1, A2].iter().for_each(|address| rig.set(address, Err(Fault::ConnectTimeout)));
    rig.until(ms(9_000), |rig| rig.health(A2) == Health::Down);
    rig.run(ms(9_000));
    assert!(!rig.why(A2).contains("now:"), "{}", rig.why(A2));
    rig.set(A1, Ok(()));
    rig.until(ms(60_000), |rig| rig.health(A1) == Health::Up);
    assert!(!rig.why(A1).contains("now:"), "{}", rig.why(A1));
}

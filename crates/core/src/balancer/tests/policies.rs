//! What each policy does inside one tier.

use std::time::Duration;

use super::*;
use crate::backend::InFlight;
use crate::balancer::fixture::{NOW, large, pool};
use crate::balancer::observe_latency;
use crate::snapshot::Choice;

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Picks and stays in flight.
fn enter(pool: &Pool, ask: &Ask<'_>) -> InFlight {
    let Choice::Take(member) = pool.pick(ask) else { panic!("{}", pool.says(ask)) };
    member.backend.enter()
}

#[test]
fn an_idle_pool_is_shared_by_weight() {
    for balance in EVERY {
        let pool = pool(balance.clone(), "1 dijon a x5, 1 dijon b x3, 1 dijon c x2, 1 dijon d x9 down");
        let due = [("a", 0.5), ("b", 0.3), ("c", 0.2)];
        Shares::of(&pool, 30_000, client).must_be(&format!("{balance:?}"), &due);
    }
}

#[test]
fn a_ramp_grows_a_share_from_a_tenth_to_whole() {
    for balance in EVERY {
        let pool = pool(balance.clone(), "1 dijon a, 1 dijon b").changed(|members| members[1].ramp_from = Some(NOW));
        let ramp = pool.timers.ramp;
        let share = |at| Shares::of(&pool, 20_000, |i| Ask { now: at, ..client(i) }).at("b");
        let path = [share(NOW), share(NOW + ramp / 3), share(NOW + ramp * 2 / 3), share(NOW + ramp)];
        assert!((0.04..0.19).contains(&path[0]), "{balance:?} starts low: {path:?}");
        assert!(path.windows(2).all(|step| step[1] > step[0] + 0.05), "{balance:?} grows: {path:?}");
        assert!((path[3] - 0.5).abs() < 0.01, "{balance:?} ends whole: {path:?}");
    }
    let pool = pool(Balance::Random, "1 dijon a, 1 dijon b").changed(|members| members[1].ramp_from = Some(NOW));
    Shares::of(&pool, 30_000, client).must_be("exactly a tenth of its weight", &[("a", 1.0 / 1.1), ("b", 0.1 / 1.1)]);
}

#[test]
fn round_robin_is_exact_over_every_cycle() {
    let pool = pool(Balance::RoundRobin, "1 dijon a x3, 1 dijon b x2, 1 dijon c x1, 1 dijon d x7 down");
    let sequence: String = (0..12).map(|i| pool.says(&ask(roll(i))).to_owned()).collect();
    assert_eq!(sequence, "abacbaabacba");
}

#[test]
fn round_robin_workers_share_one_cursor() {
    let pool = pool(Balance::RoundRobin, "1 dijon a x2, 1 dijon b, 1 dijon c");
    let counts = std::thread::scope(|scope| {
        let worker = || (0..1_000).map(|i| pool.says(&ask(roll(i)))).collect::<Vec<_>>();
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        let picks: Vec<&str> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        ["a", "b", "c"].map(|name| picks.iter().filter(|pick| **pick == name).count())
    });
    assert_eq!(counts, [2_000, 1_000, 1_000]);
}

#[test]
fn a_retry_uses_up_no_turn() {
    let pool = pool(Balance::RoundRobin, "1 dijon a, 1 dijon b");
    let mut first_attempts = String::new();
    for i in 0..10 {
        let first = pool.says(&ask(roll(i))).to_owned();
        if first == "a" {
            assert_eq!(pool.says(&Ask { tried: &[0], ..ask(roll(i)) }), "b");
        }
        first_attempts.push_str(&first);
    }
    assert_eq!(first_attempts, "ababababab", "a dead member must not draw every first attempt to itself");
}

#[test]
fn round_robin_goes_on_where_it_was_after_a_change() {
    let pool = pool(Balance::RoundRobin, "1 dijon a, 1 dijon b, 1 dijon c");
    assert_eq!((0..4).map(|i| pool.says(&ask(i))).collect::<String>(), "abca");
    let pool = pool.changed(|members| members[0].health = crate::Health::Down);
    let after: String = (0..6).map(|i| pool.says(&ask(i)).to_owned()).collect();
    assert!(["bcbcbc", "cbcbcb"].contains(&after.as_str()), "{after}");
}

#[test]
fn least_inflight_levels_the_load_by_weight() {
    let pool = pool(Balance::LeastInflight, "1 dijon a x1, 1 dijon b x1, 1 dijon c x2, 1 dijon d x4");
    let _held: Vec<InFlight> = (0..800).map(|i| enter(&pool, &ask(roll(i)))).collect();
    for member in &pool.members {
        let due = f64::from(member.weight) * 100.0;
        let got = f64::from(member.backend.inflight());
        assert!((got - due).abs() <= due * 0.04 + 2.0, "{}: {got} in flight, due {due}", member.backend.id);
    }
}

#[test]
fn least_inflight_leaves_a_stuck_member_alone() {
    let pool = pool(Balance::LeastInflight, "1 dijon a, 1 dijon b, 1 dijon c");
    let _stuck: Vec<InFlight> = (0..5).map(|_| pool.named("a").backend.enter()).collect();
    let shares = Shares::of(&pool, 10_000, client_without_key);
    assert!(shares.at("a") < 0.001, "a loses every comparison: {:?}", shares.0);
    assert!((shares.at("b") - 0.5).abs() < 0.02, "{:?}", shares.0);
}

fn client_without_key(i: u64) -> Ask<'static> {
    ask(roll(i))
}

#[test]
fn least_inflight_does_not_push_one_more_request_to_a_light_member() {
    let pool = pool(Balance::LeastInflight, "1 dijon a x1000, 1 dijon b x1");
    let _one = pool.named("a").backend.enter();
    assert!(Shares::of(&pool, 10_000, client_without_key).at("a") > 0.99);
}

#[test]
fn least_latency_prefers_the_quick_and_never_forgets_the_slow() {
    let pool = pool(Balance::LeastLatency, "1 dijon a, 1 dijon b, 1 dijon c, 1 dijon d, 1 dijon e");
    for member in &pool.members {
        let slow = *member.backend.id.address == *"e";
        observe_latency(&member.backend, millis(if slow { 900 } else { 10 }), NOW);
    }
    let shares = Shares::of(&pool, 50_000, client);
    let fair = 1.0 / 5.0;
    assert!(shares.at("e") >= 0.02 * fair, "exploration: {:?}", shares.0);
    assert!(shares.at("e") < 0.05 * fair, "and no more: {:?}", shares.0);
    for quick in ["a", "b", "c", "d"] {
        assert!((shares.at(quick) - 0.25).abs() < 0.02, "{:?}", shares.0);
    }
    let two = super::pool_of_two(millis(10), millis(900));
    let slow = Shares::of(&two, 50_000, client).at("b");
    assert!((0.01..0.025).contains(&slow), "also of two: {slow}");
}

#[test]
fn least_latency_counts_the_queue() {
    let pool = super::pool_of_two(millis(10), millis(30));
    assert!(Shares::of(&pool, 2_000, client).at("a") > 0.9);
    let _queue: Vec<InFlight> = (0..5).map(|_| pool.named("a").backend.enter()).collect();
    assert!(Shares::of(&pool, 2_000, client).at("b") > 0.9, "six times 10 ms is more than 30 ms");
}

#[test]
fn least_latency_shares_evenly_among_equals() {
    let pool = pool(Balance::LeastLatency, "1 dijon a, 1 dijon b, 1 dijon c, 1 dijon d, 1 dijon e");
    let mut counts = BTreeMap::new();
    for i in 0..20_000_u32 {
        let now = NOW + millis(5) * i;
        let ask = Ask { now, ..client(u64::from(i)) };
        let Choice::Take(member) = pool.pick(&ask) else { panic!("somebody is there") };
        *counts.entry(&*member.backend.id.address).or_insert(0_u32) += 1;
        // 10 ms give or take 20 %, and now and then a pause of half a second.
        let pause = if roll(u64::from(i) + 7).is_multiple_of(2_000) { 500 } else { 0 };
        observe_latency(
            &member.backend,
            millis(pause) + Duration::from_micros(8_000 + roll(u64::from(i)) % 4_000),
            now,
        );
    }
    for (name, count) in &counts {
        assert!((2_000..6_500).contains(count), "{name} got {count} of 20000, a fifth is fair: {counts:?}");
    }
}

#[test]
fn least_latency_comes_back_to_a_member_that_recovered() {
    let pool = super::pool_of_two(millis(10), millis(300));
    let mut late = 0;
    for i in 0..30_000_u32 {
        let now = NOW + millis(3) * i;
        let Choice::Take(member) = pool.pick(&Ask { now, ..client(u64::from(i)) }) else { panic!("somebody is there") };
        observe_latency(&member.backend, millis(10), now);
        late += u32::from(i >= 25_000 && *member.backend.id.address == *"b");
    }
    assert!(late > 1_500, "after 75 s of good answers b serves {late} of 5000");
}

#[test]
fn least_latency_does_not_flood_a_newcomer() {
    let pool = super::pool_of_two(millis(10), millis(1)).changed(|members| members[1].ramp_from = Some(NOW));
    let share = Shares::of(&pool, 20_000, client).at("b");
    assert!(share < 0.2, "quick as it may be, a ramping member gets {share}");
    let unmeasured = super::pool_of_two(millis(10), Duration::ZERO);
    Shares::of(&unmeasured, 20_000, client).must_be("unmeasured is no news", &[("a", 0.5), ("b", 0.5)]);
}

#[test]
fn least_latency_measures_a_queue_by_the_weight_behind_it() {
    let pool = pool(Balance::LeastLatency, "1 dijon a x10, 1 dijon b x1");
    pool.members.iter().for_each(|member| observe_latency(&member.backend, millis(10), NOW));
    let _ten: Vec<InFlight> = (0..10).map(|_| pool.named("a").backend.enter()).collect();
    let _one = pool.named("b").backend.enter();
    let due = [("a", 10.0 / 11.0), ("b", 1.0 / 11.0)];
    Shares::of(&pool, 20_000, client).must_be("ten at ten is one at one", &due);
}

#[test]
fn two_left_of_a_thousand_are_compared() {
    let pool = large(Balance::LeastInflight, 1_000, |_| 1).declared(|forward| forward.max_inflight = Some(9));
    let load = |i: usize| if i == 3 { 0 } else { if i == 500 { 5 } else { 9 } };
    let held = pool.members.iter().enumerate().flat_map(|(i, m)| (0..load(i)).map(|_| m.backend.enter()));
    let _held: Vec<InFlight> = held.collect();
    assert_eq!(Shares::of(&pool, 200, client).at("m3"), 1.0);
}

#[test]
fn the_same_roll_gives_the_same_pick() {
    for balance in [Balance::LeastInflight, Balance::LeastLatency, Balance::Random, EVERY[4].clone()] {
        let pool = large(balance, 50, |i| 1 + u32::try_from(i % 7).unwrap());
        for i in 0..100 {
            assert_eq!(pool.says(&client(i)), pool.says(&client(i)));
        }
    }
}

#[test]
fn all_members_of_a_large_pool_are_reached() {
    for balance in EVERY {
        let pool = large(balance.clone(), 200, |i| if i % 2 == 0 { 1 } else { 3 });
        let shares = Shares::of(&pool, 20_000, client);
        assert_eq!(shares.0.len(), 200, "{balance:?}");
        let heavy: f64 = (0..200).filter(|i| i % 2 == 1).map(|i| shares.at(&format!("m{i}"))).sum();
        assert!((heavy - 0.75).abs() < 0.01, "{balance:?}: the heavy half gets {heavy}");
    }
}

#[test]
fn the_last_free_of_a_thousand_is_found() {
    for balance in EVERY {
        let pool = large(balance.clone(), 1_000, |i| 1 + u32::try_from(i % 3).unwrap());
        let pool = pool.declared(|forward| forward.max_inflight = Some(1));
        let free = ["m3", "m500", "m999"];
        let busy = pool.members.iter().filter(|member| !free.contains(&&*member.backend.id.address));
        let _held: Vec<InFlight> = busy.map(|member| member.backend.enter()).collect();
        let shares = Shares::of(&pool, 200, client);
        assert!(free.iter().all(|name| shares.at(name) > 0.05), "{balance:?}: {:?}", shares.0);
        assert_eq!(shares.0.len(), 3, "{balance:?}: {:?}", shares.0);
        let tried = Ask { tried: &[3, 999], ..client(1) };
        assert_eq!(pool.says(&tried), "m500", "{balance:?}");
    }
}

/// A pool whose members stream unevenly: who has most streams still gets its share of requests, and
/// streams even out by themselves.
#[test]
fn streams_and_requests_do_not_hide_each_other() {
    for balance in [Balance::LeastInflight, Balance::Hash(HashKey::ClientAddress)] {
        let pool = pool(balance.clone(), "1 dijon a, 1 dijon b, 1 thory c");
        let mut streams: Vec<InFlight> = (0..300).map(|_| pool.named("a").backend.enter().as_stream(true)).collect();
        let mut counts = std::collections::BTreeMap::<String, u64>::new();
        let mut under_way = std::collections::VecDeque::new();
        for i in 0..6_000 {
            let request = enter(&pool, &client(i));
            *counts.entry(request.backend().id.address.to_string()).or_default() += 1;
            under_way.push_back(request);
            if under_way.len() > 30 {
                under_way.pop_front();
            }
        }
        assert!(counts.len() == 3 && counts.values().all(|n| (1_700..2_300).contains(n)), "{balance:?}: {counts:?}");
        for i in 0..600 {
            let stream = Ask { stream: true, key: None, ..client(i) };
            streams.push(enter(&pool, &stream).as_stream(true));
        }
        let held: Vec<u32> = pool.members.iter().map(|member| member.backend.streams()).collect();
        assert!(held.iter().all(|n| (295..=310).contains(n)), "{balance:?}: {held:?}");
    }
}

#[test]
fn an_attempt_is_counted_once_whatever_it_becomes() {
    let pool = pool(Balance::LeastInflight, "1 dijon a");
    let backend = &pool.named("a").backend;
    let both = || (backend.inflight(), backend.streams(), backend.busy(false), backend.busy(true));
    let request = backend.enter();
    assert_eq!(both(), (1, 0, 1, 0));
    let stream = request.as_stream(true).as_stream(true);
    assert_eq!(both(), (1, 1, 0, 1));
    let refused = stream.as_stream(false);
    assert_eq!(both(), (1, 0, 1, 0));
    drop(refused);
    drop(backend.enter().as_stream(true));
    assert_eq!(both(), (0, 0, 0, 0));
    let capped = pool.declared(|forward| forward.max_inflight = Some(1));
    let _stream = capped.named("a").backend.enter().as_stream(true);
    assert_eq!(capped.says(&client(1)), "wait", "a cap counts both");
}

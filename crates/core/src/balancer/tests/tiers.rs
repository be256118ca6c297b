//! How new requests are shared between tiers when members are missing, and while they come back.

use std::time::Duration;

use super::*;
use crate::balancer::fixture::{NOW, pool};

/// The share of each tier's members, by the first letter of their address.
fn by_letter(pool: &Pool, letters: &[(&str, f64)], at: crate::Instant) {
    for clients in [false, true] {
        let ask = |i| Ask { now: at, ..if clients { client(i) } else { ask(roll(i)) } };
        let shares = Shares::of(pool, 20_000, ask);
        let mut sums: BTreeMap<String, f64> = BTreeMap::new();
        for (word, share) in &shares.0 {
            *sums.entry(word[..1].to_owned()).or_default() += share;
        }
        Shares(sums).must_be(&format!("{:?}", pool.forward().balance), letters);
    }
    // What is told is what is done.
    let told = pool.shares(at);
    let near = |((_, told), (_, done)): (&(u32, u32), &(&str, f64))| (f64::from(*told) - done * 100.0).abs() < 1.0;
    assert!(told.len() == letters.len() && told.iter().zip(letters).all(near), "{told:?}, not {letters:?}");
}

#[test]
fn a_tier_keeps_what_it_can_and_spills_the_rest() {
    let four = |good: usize| {
        let member = |i: usize| format!("1 dijon a{i} {}", if i < good { "up" } else { "down" });
        let tier: Vec<String> = (0..4).map(member).collect();
        format!("{}, 2 thory b0, 2 thory b1", tier.join(", "))
    };
    for balance in EVERY {
        let check = |good, kept| {
            let due = [("a", kept), ("b", 1.0 - kept)];
            let due = &due[if kept == 0.0 { 1 } else { 0 }..if kept == 1.0 { 1 } else { 2 }];
            by_letter(&pool(balance.clone(), &four(good)), due, NOW);
        };
        check(4, 1.0);
        check(3, 1.0);
        check(2, 0.7);
        check(1, 0.35);
        check(0, 0.0);
    }
}

#[test]
fn weights_say_how_much_is_missing() {
    let mostly = pool(Balance::Random, "1 dijon a x3, 1 dijon a2 x1 down, 2 thory b");
    by_letter(&mostly, &[("a", 1.0)], NOW);
    let barely = pool(Balance::Random, "1 dijon a x1, 1 dijon a2 x3 down, 2 thory b");
    by_letter(&barely, &[("a", 0.35), ("b", 0.65)], NOW);
}

#[test]
fn what_spills_goes_on_to_the_next_tiers() {
    let half = "1 dijon a, 1 dijon a2 down, 2 thory b, 2 thory b2 down, 2 thory b3 down, 2 thory b4 down, 3 ovh c";
    by_letter(&pool(Balance::Random, half), &[("a", 0.7), ("b", 0.3)], NOW);
    let quarters = "1 dijon a, 1 dijon a2 x3 down, 2 thory b, 2 thory b2 x3 down, 3 ovh c";
    by_letter(&pool(Balance::Random, quarters), &[("a", 0.35), ("b", 0.35), ("c", 0.3)], NOW);
}

#[test]
fn what_no_tier_can_keep_is_shared_out_in_proportion() {
    let weak = "1 dijon a, 1 dijon a2 x3 down, 2 thory b, 2 thory b2 x3 down";
    by_letter(&pool(Balance::Random, weak), &[("a", 0.5), ("b", 0.5)], NOW);
    let last = "1 dijon a x1, 1 dijon a2 x99 down";
    by_letter(&pool(Balance::Random, last), &[("a", 1.0)], NOW);
}

#[test]
fn members_taken_out_or_not_yet_known_are_no_lost_capacity() {
    let planned = "1 dijon a, 1 dijon a2 draining, 1 dijon a3 disabled down, 1 dijon a4 probing, 2 thory b";
    by_letter(&pool(Balance::Random, planned), &[("a", 1.0)], NOW);
    let doubted = "1 dijon a, 1 dijon a2 suspect, 2 thory b";
    by_letter(&pool(Balance::Random, doubted), &[("a", 0.7), ("b", 0.3)], NOW);
}

#[test]
fn a_tier_that_comes_back_as_a_whole_takes_its_traffic_back_slowly() {
    for balance in EVERY {
        let pool = pool(balance, "1 dijon a, 1 dijon a2, 2 thory b")
            .changed(|members| members[..2].iter_mut().for_each(|member| member.ramp_from = Some(NOW)));
        let ramp = pool.timers.ramp;
        by_letter(&pool, &[("a", 0.14), ("b", 0.86)], NOW);
        by_letter(&pool, &[("a", 0.455), ("b", 0.545)], NOW + ramp / 4);
        by_letter(&pool, &[("a", 0.77), ("b", 0.23)], NOW + ramp / 2);
        by_letter(&pool, &[("a", 1.0)], NOW + ramp * 3 / 4);
        by_letter(&pool, &[("a", 1.0)], NOW + Duration::from_secs(86_400));
        by_letter(&pool, &[("a", 0.14), ("b", 0.86)], NOW - Duration::from_secs(1));
    }
}

#[test]
fn the_only_tier_left_takes_all_however_young_it_is() {
    for balance in EVERY {
        let pool = pool(balance, "1 dijon a, 1 dijon a2, 2 thory b down")
            .changed(|members| members[..2].iter_mut().for_each(|member| member.ramp_from = Some(NOW)));
        by_letter(&pool, &[("a", 1.0)], NOW);
    }
}

//! Which keys the hash policy gives to whom, and which of them move.

use super::*;
use crate::backend::InFlight;
use crate::balancer::fixture::{NOW, large, pool};
use crate::health::{Admin, Health};

const HASH: Balance = Balance::Hash(HashKey::Uri);

/// The member of each of many keys.
fn placement(pool: &Pool, at: crate::Instant) -> Vec<String> {
    (0..5_000).map(|i| pool.says(&Ask { now: at, roll: roll(i * 31), ..client(i) }).to_owned()).collect()
}

#[test]
fn a_key_stays_with_its_member_whatever_the_roll() {
    let pool = pool(HASH, "1 dijon a, 1 dijon b, 1 dijon c, 1 dijon d down, 1 dijon e down, 2 thory f");
    for key in 0..200 {
        let says = |i| pool.says(&Ask { key: Some(key), ..ask(roll(i)) });
        let first = says(0).to_owned();
        assert!((1..50).all(|i| says(i) == first), "key {key} wanders, also between tiers");
    }
}

#[test]
fn only_the_keys_of_a_member_that_leaves_move_and_they_come_back() {
    let whole = large(HASH, 10, |i| 1 + u32::try_from(i % 3).unwrap());
    let before = placement(&whole, NOW);
    let without = whole.changed(|members| members[4].health = Health::Down);
    let after = placement(&without, NOW);
    for (was, is) in before.iter().zip(&after) {
        assert!(was == "m4" || was == is, "{was} is alive, yet its key moved to {is}");
        assert_ne!(is, "m4");
    }
    let moved: Vec<&String> = before.iter().zip(&after).filter(|(was, _)| *was == "m4").map(|(_, is)| is).collect();
    let heirs: std::collections::BTreeSet<&&String> = moved.iter().collect();
    assert!(moved.len() > 300 && heirs.len() == 9, "{} keys spread over {} heirs", moved.len(), heirs.len());
    let back = without.changed(|members| members[4].health = Health::Up);
    assert_eq!(placement(&back, NOW), before);
}

#[test]
fn placement_does_not_depend_on_the_order_of_the_file() {
    let one = pool(HASH, "1 dijon a, 1 dijon b x2, 1 dijon c");
    let other = pool(HASH, "1 dijon c, 1 dijon a, 1 dijon b x2");
    assert_eq!(placement(&one, NOW), placement(&other, NOW));
}

#[test]
fn placement_never_changes_between_versions() {
    let pool = pool(HASH, "1 dijon a, 1 dijon b x2, 2 thory c, 1 dijon d down");
    let word: String = (0..32).map(|key| pool.says(&Ask { key: Some(key), ..ask(0) }).to_owned()).collect();
    assert_eq!(word, "bbababbbababbaabbababbaabbbbbbaa");
}

#[test]
fn a_ramp_only_wins_keys() {
    let pool = pool(HASH, "1 dijon a, 1 dijon b, 1 dijon c").changed(|members| members[2].ramp_from = Some(NOW));
    let ramp = pool.timers.ramp;
    let mut before = placement(&pool, NOW);
    for step in 1..=10 {
        let after = placement(&pool, NOW + ramp * step / 10);
        assert!(before.iter().zip(&after).all(|(was, is)| was == is || is == "c"), "a key moved elsewhere than to c");
        assert_ne!(before, after, "step {step}");
        before = after;
    }
    assert_eq!(before, placement(&pool, NOW + ramp * 100), "whole is whole");
    let settled = pool.changed(|members| members[2].ramp_from = None);
    assert_eq!(before, placement(&settled, NOW));
}

#[test]
fn one_hot_key_does_not_drown_its_member() {
    let whole = pool(HASH, "1 dijon a, 1 dijon b, 1 dijon c x2");
    hold_one_key(&whole, [1.0, 1.0, 2.0]);
    let young = pool(HASH, "1 dijon a, 1 dijon b, 1 dijon c x2").changed(|members| members[2].ramp_from = Some(NOW));
    hold_one_key(&young, [1.0, 1.0, 0.2]);
}

/// Sends 400 requests with one key that never end; nobody may get more than 1.25 times what its weight says.
fn hold_one_key(pool: &Pool, weights: [f64; 3]) {
    let mut held: Vec<InFlight> = Vec::new();
    for i in 0..400 {
        let hot = Ask { key: Some(42), ..ask(roll(i)) };
        held.push(pool.named(pool.says(&hot)).backend.enter());
        for (member, weight) in pool.members.iter().zip(weights) {
            let fair = held.len() as f64 * weight / weights.iter().sum::<f64>();
            let most = (1.25 * fair).ceil();
            assert!(f64::from(member.backend.inflight()) <= most, "{}: more than {most}", member.backend.id);
        }
    }
}

#[test]
fn the_bound_yields_when_only_overloaded_members_are_left() {
    let pool = pool(HASH, "1 dijon a, 1 dijon b");
    let _held: Vec<InFlight> = (0..100).map(|_| pool.named("a").backend.enter()).collect();
    for i in 0..100 {
        assert_eq!(pool.says(&client(i)), "b", "a is over its bound");
        assert_eq!(pool.says(&Ask { tried: &[1], ..client(i) }), "a", "but better than nobody");
    }
}

#[test]
fn without_a_key_the_least_busy_takes_it() {
    let pool = pool(HASH, "1 dijon a, 1 dijon b");
    Shares::of(&pool, 20_000, |i| ask(roll(i))).must_be("idle", &[("a", 0.5), ("b", 0.5)]);
    let _busy: Vec<InFlight> = (0..3).map(|_| pool.named("a").backend.enter()).collect();
    assert_eq!(Shares::of(&pool, 500, |i| ask(roll(i))).at("b"), 1.0);
}

#[test]
fn in_a_large_tier_only_the_keys_of_a_member_that_leaves_move_to_all_others_alike_and_they_come_back() {
    let whole = large(HASH, 100, |i| 1 + u32::try_from(i % 3).unwrap());
    let before = placement(&whole, NOW);
    let without = whole.changed(|members| (members[5].health, members[6].admin) = (Health::Down, Admin::Draining));
    let after = placement(&without, NOW);
    let gone = |name: &str| name == "m5" || name == "m6";
    for (was, is) in before.iter().zip(&after) {
        assert!(!gone(is) && (gone(was) || was == is), "{was} to {is}");
    }
    let moved: Vec<&String> = before.iter().zip(&after).filter(|(was, _)| gone(was)).map(|(_, is)| is).collect();
    let heirs: std::collections::BTreeSet<&&String> = moved.iter().collect();
    assert!(moved.len() > 60 && heirs.len() > moved.len() / 2, "{} keys to {} heirs", moved.len(), heirs.len());
    let doubted = without.changed(|members| members.iter_mut().for_each(|m| m.health = Health::Suspect));
    let back = doubted.changed(|members| {
        members.iter_mut().for_each(|m| (m.health, m.admin) = (Health::Up, Admin::Enabled));
    });
    assert_eq!(placement(&back, NOW), before);
}

#[test]
fn a_large_tier_is_shared_by_weight() {
    let pool = large(HASH, 200, |i| [1, 2, 10, 100][i % 4]);
    let shares = Shares::of(&pool, 400_000, client);
    let mut classes = [0.0; 4];
    for (i, weight) in [1.0, 2.0, 10.0, 100.0].iter().cycle().take(200).enumerate() {
        let (got, due) = (shares.at(&format!("m{i}")), weight / (113.0 * 50.0));
        classes[i % 4] += got / (due * 50.0);
        // Five times what chance alone gives.
        assert!((got - due).abs() < 5.0 * (due / 400_000.0).sqrt(), "m{i}: {got}, due {due}");
    }
    assert!(classes.iter().all(|ratio| (0.96..1.04).contains(ratio)), "{classes:?}");
}

#[test]
fn a_member_more_or_less_in_a_large_tier_moves_few_keys_of_others() {
    let words: Vec<String> = (0..101).map(|i| format!("1 dijon m{i}")).collect();
    let less = placement(&pool(HASH, &words[..100].join(",")), NOW);
    let more = placement(&pool(HASH, &words.join(",")), NOW);
    let backwards: Vec<&str> = words.iter().rev().map(String::as_str).collect();
    assert_eq!(placement(&pool(HASH, &backwards.join(",")), NOW), more, "the order of the file does not matter");
    let moved = less.iter().zip(&more).filter(|(was, is)| was != is).count();
    let won = more.iter().filter(|is| *is == "m100").count();
    assert!((25..90).contains(&won), "{won} of 5000 keys are its own");
    assert!(moved < 250, "{moved} keys moved, {won} to the new one");
}

#[test]
fn a_ramp_in_a_large_tier_only_wins_keys() {
    let pool = large(HASH, 40, |_| 1).changed(|members| members[7].ramp_from = Some(NOW));
    let mut before = placement(&pool, NOW);
    for step in 1..=5 {
        let after = placement(&pool, NOW + pool.timers.ramp * step / 5);
        assert!(before.iter().zip(&after).all(|(was, is)| was == is || is == "m7"), "a key moved elsewhere");
        assert_ne!(before, after, "step {step}");
        before = after;
    }
    let settled = pool.changed(|members| members[7].ramp_from = None);
    assert_eq!(before, placement(&settled, NOW));
}

#[test]
fn one_hot_key_does_not_drown_its_member_in_a_large_tier() {
    let pool = large(HASH, 50, |_| 1);
    let mut held: Vec<InFlight> = Vec::new();
    for i in 0..1_000 {
        // Sums may be a moment old.
        let hot = Ask { key: Some(42), now: NOW + std::time::Duration::from_millis(i), ..ask(roll(i)) };
        held.push(pool.named(pool.says(&hot)).backend.enter());
        let most = (1.25 * held.len() as f64 / 50.0).ceil();
        let busiest = pool.members.iter().map(|member| member.backend.inflight()).max().unwrap();
        assert!(f64::from(busiest) <= most, "{busiest} of {i} at one member");
    }
    let others = Ask { key: Some(43), now: NOW + std::time::Duration::from_secs(9), ..ask(7) };
    assert_eq!(pool.says(&others), pool.says(&Ask { roll: 8, ..others }), "the roll has no part in it");
}

#[test]
fn a_large_tier_that_is_nearly_gone_still_serves_every_key() {
    let pool = large(HASH, 500, |_| 1).changed(|members| {
        members.iter_mut().skip(2).for_each(|member| member.health = Health::Down);
    });
    let shares = Shares::of(&pool, 4_000, client);
    assert!((0.4..0.6).contains(&shares.at("m0")) && (0.4..0.6).contains(&shares.at("m1")), "{:?}", shares.0);
    let tried: Vec<u32> = (0..500).filter(|slot| *slot != 1).collect();
    assert!((0..50).all(|i| pool.says(&Ask { tried: &tried, ..client(i) }) == "m1"));
}

//! Which members come into question at all: admin, health, tried, caps, sites, stickiness, waiting.

use super::*;
use crate::balancer::fixture::pool;

#[test]
fn only_enabled_members_with_good_health_are_picked() {
    for balance in EVERY {
        let pool = pool(
            balance.clone(),
            "1 dijon a, 1 dijon b down, 1 dijon c draining, 1 dijon d disabled, 1 dijon e probing, 1 dijon f suspect",
        );
        Shares::of(&pool, 2_000, client).must_be(&format!("{balance:?}"), &[("a", 1.0)]);
    }
}

#[test]
fn suspects_serve_only_when_nobody_up_is_left_at_any_tier() {
    for balance in EVERY {
        let mixed = pool(balance.clone(), "1 dijon a suspect, 1 dijon b suspect, 2 thory c");
        assert_eq!(Shares::of(&mixed, 500, client).at("c"), 1.0, "{balance:?}: the next tier before a suspect");
        let tried = Ask { tried: &[2], ..client(1) };
        assert!(["a", "b"].contains(&mixed.says(&tried)), "{balance:?}: then the suspects");
        let doubted = pool(balance.clone(), "1 dijon a suspect, 2 thory b suspect");
        assert_eq!(Shares::of(&doubted, 500, client).at("a"), 1.0, "{balance:?}: lower tier first");
    }
}

#[test]
fn a_tried_member_is_not_picked_again_while_another_is_left() {
    for balance in EVERY {
        let pool = pool(balance.clone(), "1 dijon a, 1 dijon b, 2 thory c, 3 ovh d suspect");
        for i in 0..500 {
            let first = |tried| pool.says(&Ask { tried, ..client(i) });
            assert_eq!(first(&[0]), "b", "{balance:?}");
            assert_eq!(first(&[1]), "a", "{balance:?}");
            assert_eq!(first(&[1, 0]), "c", "{balance:?}");
            assert_eq!(first(&[0, 2, 1]), "d", "{balance:?}");
            assert_eq!(first(&[3, 0, 2, 1]), "nobody", "{balance:?}");
        }
    }
}

#[test]
fn another_site_is_preferred_and_the_same_one_is_better_than_none() {
    for balance in EVERY {
        let pool = pool(balance.clone(), "1 dijon a, 1 dijon b, 1 thory c, 2 ovh d, 3 lyon e suspect");
        for i in 0..500 {
            let says = |tried, site| pool.says(&Ask { tried, avoid_site: Some(site), ..client(i) });
            assert_eq!(says(&[0], "dijon"), "c", "{balance:?}: another site of the same tier");
            assert_eq!(says(&[0, 2], "dijon"), "d", "{balance:?}: another site of the next tier");
            assert_eq!(says(&[0, 2, 3], "dijon"), "b", "{balance:?}: the same site before a suspect one");
            assert_eq!(says(&[0, 1, 2, 3], "lyon"), "e", "{balance:?}: the site to avoid before nobody");
        }
    }
}

#[test]
fn full_members_are_skipped_and_all_full_means_wait() {
    for balance in EVERY {
        let pool = pool(balance.clone(), "1 dijon a, 1 dijon b, 2 thory c").declared(|f| f.max_inflight = Some(2));
        let fill = |name: &str| [pool.named(name).backend.enter(), pool.named(name).backend.enter()];
        let _full = fill("a");
        assert_eq!(Shares::of(&pool, 500, client).at("a"), 0.0, "{balance:?}");
        let _also = fill("b");
        assert_eq!(Shares::of(&pool, 500, client).at("c"), 1.0, "{balance:?}");
        let last = fill("c");
        assert_eq!(pool.says(&client(1)), "wait", "{balance:?}");
        assert_eq!(pool.says(&Ask { tried: &[0, 1], ..client(1) }), "wait", "{balance:?}: c may become free");
        assert_eq!(pool.says(&Ask { tried: &[0, 1, 2], ..client(1) }), "nobody", "{balance:?}: all were tried");
        drop(last);
        assert_eq!(pool.says(&client(1)), "c", "{balance:?}");
    }
}

#[test]
fn a_verdict_that_is_due_is_waited_for() {
    for balance in EVERY {
        let says = |members: &str, tried| pool(balance.clone(), members).says(&Ask { tried, ..client(1) }).to_owned();
        assert_eq!(says("1 dijon a probing, 1 dijon b down", &[]), "wait");
        assert_eq!(says("1 dijon a, 2 dijon b probing", &[]), "a", "no waiting while somebody is there");
        assert_eq!(says("1 dijon a, 2 dijon b probing", &[0]), "wait", "the only one failed, another may come");
        assert_eq!(says("1 dijon a probing draining, 1 dijon b probing disabled", &[]), "nobody");
        assert_eq!(says("1 dijon a down, 1 dijon b draining", &[]), "nobody");
    }
}

#[test]
fn fail_open_tries_the_dead_by_weight_but_never_those_taken_out() {
    for balance in EVERY {
        let members = "1 dijon a x3 down, 2 thory b down, 1 dijon c down draining, 1 dijon d disabled";
        let closed = pool(balance.clone(), members);
        assert_eq!(closed.says(&client(1)), "nobody");
        let open = closed.declared(|forward| forward.fail_open = true);
        Shares::of(&open, 20_000, client).must_be(&format!("{balance:?}"), &[("a", 0.75), ("b", 0.25)]);
        assert_eq!(open.says(&Ask { tried: &[0], ..client(1) }), "b");
        assert_eq!(open.says(&Ask { tried: &[0, 1], ..client(1) }), "nobody");
        assert_eq!(Shares::of(&open, 500, |i| Ask { avoid_site: Some("dijon"), ..client(i) }).at("b"), 1.0);
        assert_eq!(open.says(&Ask { tried: &[1], avoid_site: Some("dijon"), ..client(1) }), "a");
    }
}

#[test]
fn fail_open_waits_for_a_verdict_and_keeps_caps() {
    let open = |members| pool(Balance::Random, members).declared(|forward| forward.fail_open = true);
    assert_eq!(open("1 dijon a down, 1 dijon b probing").says(&client(1)), "wait");
    let usable = open("1 dijon a down, 1 dijon b");
    assert_eq!(usable.says(&Ask { tried: &[1], ..client(1) }), "nobody", "not every member is down");
    let capped = open("1 dijon a down").declared(|forward| forward.max_inflight = Some(1));
    let _full = capped.named("a").backend.enter();
    assert_eq!(capped.says(&client(1)), "wait");
}

#[test]
fn a_sticky_client_stays_while_its_member_is_usable() {
    for balance in EVERY {
        let members = "1 dijon a, 1 dijon b, 2 thory c, 2 thory d suspect, 1 dijon e draining, 3 ovh f down";
        let pool = pool(balance.clone(), members).declared(|forward| forward.max_inflight = Some(1));
        let to = |name: &str| Some(pool.named(name).backend.hash);
        for i in 0..200 {
            let says = |name: &str| pool.says(&Ask { sticky: to(name), ..client(i) });
            for stays in ["a", "b", "c", "d"] {
                assert_eq!(says(stays), stays, "{balance:?}: whatever the tier");
            }
            for moved in ["e", "f"] {
                assert!(["a", "b"].contains(&says(moved)), "{balance:?}: {moved} takes nothing new");
            }
            let again = Ask { sticky: to("a"), tried: &[0], ..client(i) };
            assert_ne!(pool.says(&again), "a", "{balance:?}: it failed in this request");
            let forged = Ask { sticky: Some(12_345), ..client(i) };
            assert!(["a", "b"].contains(&pool.says(&forged)), "{balance:?}: an unknown hash is no hash");
        }
        let _full = pool.named("c").backend.enter();
        assert_ne!(pool.says(&Ask { sticky: to("c"), ..client(1) }), "c", "{balance:?}: full");
    }
}

#[test]
fn a_pool_without_members_has_nobody() {
    for balance in EVERY {
        let mut empty = pool(balance.clone(), "1 dijon a");
        empty.members.clear();
        let empty = empty.changed(|_| ());
        assert_eq!(empty.says(&Ask { sticky: Some(1), avoid_site: Some("dijon"), ..client(1) }), "nobody");
    }
}

#[test]
fn a_second_attempt_prefers_who_answered_the_last_request_rightly() {
    for balance in EVERY {
        let pool = pool(balance.clone(), "1 dijon a, 1 dijon b, 1 dijon c, 1 thory d, 2 ovh e");
        let fails = |address: &str| pool.named(address).backend.stats.fail(crate::Fault::Status(503));
        fails("b");
        pool.named("c").backend.stats.succeed(500);
        for i in 0..500 {
            let first = Shares::of(&pool, 1, |_| client(i)).at("b");
            assert!((0.0..=1.0).contains(&first));
            assert_eq!(pool.says(&Ask { tried: &[0], ..client(i) }), "d", "{balance:?}");
            assert_eq!(pool.says(&Ask { tried: &[0, 3], ..client(i) }), "e", "{balance:?}: whatever the tier");
            let left = pool.says(&Ask { tried: &[0, 3, 4], ..client(i) });
            assert!(["b", "c"].contains(&left), "{balance:?}: those that fail before nobody");
            let away = pool.says(&Ask { tried: &[3], avoid_site: Some("ovh"), ..client(i) });
            assert_eq!(away, "a", "{balance:?}");
            let dark = pool.says(&Ask { tried: &[3, 4], avoid_site: Some("dijon"), ..client(i) });
            assert!(["a", "b", "c"].contains(&dark), "{balance:?}");
        }
        let shares = Shares::of(&pool, 2_000, client);
        assert!(shares.at("b") > 0.1, "{balance:?}: first attempts are not kept from anybody");
        pool.named("b").backend.stats.serve(200);
        let shares = Shares::of(&pool, 2_000, |i| Ask { tried: &[0, 3, 4], ..client(i) });
        assert_eq!(shares.at("b"), 1.0, "{balance:?}: one right answer is enough");
    }
}

//! Failures, restarts, clocks that are wrong, and words that never come.

use relais_config::Challenge;

use super::*;

#[test]
fn failures_wait_longer_each_time_and_the_second_authority_is_for_need() {
    let mut rig = Rig::new(config(&["a.fr"], &["first", "second"]));
    let order = rig.order();
    assert_eq!(order.challenges[0], Challenge::Http01);
    rig.fail(&order, FaultKind::Challenge, None);
    assert_eq!(rig.next_step(), "waits 5 s: after a failure");
    rig.pass(Duration::from_secs(6));
    let second = rig.order();
    assert_eq!(&*second.authority.name, "second", "there is none yet: whoever can");
    assert_eq!(second.challenges[0], Challenge::TlsAlpn01, "another challenge first");
    rig.issue(&second, DAY * 90);
    rig.pass(DAY * 62);
    let renewal = rig.order();
    assert_eq!(&*renewal.authority.name, "first");
    rig.fail(&renewal, FaultKind::Challenge, None);
    let mut waits = Vec::new();
    for _ in 0..6 {
        let before = rig.now;
        rig.pass(DAY);
        waits.push(rig.now.since(before).as_secs());
        let order = rig.order();
        assert_eq!(&*order.authority.name, "first", "there is time");
        rig.fail(&order, FaultKind::Challenge, None);
    }
    assert!(waits.windows(2).all(|pair| pair[1] * 10 > pair[0] * 13), "{waits:?}");
    let mut names = std::collections::BTreeSet::new();
    while rig.now < START + DAY * 69 {
        rig.pass(DAY);
        for order in std::mem::take(&mut rig.orders) {
            names.insert(order.authority.name.to_string());
            rig.fail(&order, FaultKind::Challenge, None);
        }
    }
    assert_eq!(names.len(), 2, "time grows short: whoever can");
}

#[test]
fn the_word_of_the_ca_is_kept_and_three_refused_names_are_its_own_fault() {
    let mut rig = Rig::new(config(&["a.fr", "b.fr", "c.fr", "d.fr"], &["first"]));
    for order in std::mem::take(&mut rig.orders) {
        let word = (*order.name == *"a.fr").then_some(HOUR * 5);
        if *order.name == *"d.fr" {
            rig.issue(&order, DAY * 90);
        } else {
            rig.fail(&order, FaultKind::RateLimited, word);
        }
    }
    let end = rig.now + HOUR * 4;
    while rig.now < end {
        rig.pass(end.since(rig.now));
        for order in std::mem::take(&mut rig.orders) {
            assert_ne!(&*order.name, "a.fr", "five hours, it said");
            rig.issue(&order, DAY * 90);
        }
    }
    let paused = Rig::new(config(&["a.fr", "b.fr", "c.fr"], &["first"]));
    let mut rig = paused;
    for order in std::mem::take(&mut rig.orders) {
        rig.fail(&order, FaultKind::Refused, None);
    }
    assert!(rig.certs.report(rig.now).authorities[0].paused_until.is_some());
}

#[test]
fn a_restart_forgets_neither_failures_nor_orders_cut_short() {
    let hosts = ["a.fr"];
    let mut rig = Rig::new(config(&hosts, &["first"]));
    for _ in 0..5 {
        let order = rig.order();
        rig.fail(&order, FaultKind::Refused, None);
        rig.pass(DAY);
    }
    // Killed in the middle of the sixth.
    rig.restart(config(&hosts, &["first"]), rig.now + Duration::from_secs(1));
    assert!(rig.orders.is_empty());
    rig.pass(Duration::from_secs(60 * 12));
    assert!(rig.orders.is_empty(), "the sixth wait is half an hour, give or take");
    rig.pass(HOUR);
    let order = rig.order();
    rig.issue(&order, DAY * 90);
    rig.restart(config(&hosts, &["first"]), rig.now + DAY);
    rig.pass(DAY * 50);
    assert!(rig.orders.is_empty(), "never while a valid one is not due");
}

#[test]
fn an_order_that_can_go_on_goes_on_at_once_and_counts_once() {
    let hosts = ["a.fr"];
    let both = ["first", "second"];
    let limited = || {
        let mut config = config(&hosts, &both);
        for authority in &mut config.acme.authorities {
            Arc::make_mut(authority).limits.per_set = Some(2);
        }
        config
    };
    let mut rig = Rig::new(limited());
    let order = rig.order();
    rig.fail(&order, FaultKind::Challenge, None);
    rig.pass(Duration::from_secs(6));
    assert_eq!(&*rig.order().authority.name, "second");
    // Killed five times on the way.
    for _ in 0..5 {
        rig.begun = vec!["a.fr".into(), "x.fr".into()];
        rig.restart(limited(), rig.now + Duration::from_secs(1));
        assert_eq!(&*rig.orders[0].authority.name, "second", "who has it, whoever is first in the file");
    }
    let order = rig.order();
    rig.issue(&order, DAY * 90);
    assert_eq!(rig.state("a.fr"), CertificateState::Valid);
    // And one that the operator wanted, of a certificate that is not due.
    rig.certs.renew_now("a.fr", rig.now);
    rig.drain();
    rig.begun = vec!["a.fr".into()];
    rig.restart(limited(), rig.now + Duration::from_secs(1));
    let order = rig.order();
    rig.issue(&order, DAY * 90);
    rig.restart(limited(), rig.now + DAY);
    assert!(rig.orders.is_empty());
}

#[test]
fn a_clock_that_is_years_wrong_costs_one_order() {
    let hosts = ["a.fr", "b.fr", "c.fr"];
    let mut rig = Rig::new(config(&hosts, &["first"]));
    for order in std::mem::take(&mut rig.orders) {
        rig.issue(&order, DAY * 90);
    }
    let there = rig.now + DAY;
    rig.restart(config(&hosts, &["first"]), rig.now + DAY * 3650);
    assert_eq!(rig.orders.len(), 1, "the first goes alone");
    let order = rig.order();
    rig.issue_at(&order, DAY * 90, there);
    rig.pass(DAY * 40);
    assert!(rig.orders.is_empty(), "now the time is known");
    // And years behind: renewed in time nonetheless.
    rig.restart(config(&hosts, &["first"]), START - DAY * 3650);
    assert!(rig.orders.is_empty());
    rig.pass(DAY * 65);
    assert!(!rig.orders.is_empty(), "{:?}", rig.certs.report(rig.now).certificates[0]);
}

#[test]
fn an_order_without_any_word_is_taken_for_lost() {
    let mut rig = Rig::new(config(&["a.fr"], &["first"]));
    let order = rig.order();
    rig.pass(order.timeout + Duration::from_secs(59));
    assert!(rig.orders.is_empty());
    assert_eq!(rig.state("a.fr"), CertificateState::Ordering);
    rig.pass(HOUR);
    assert!(!rig.orders.is_empty());
    rig.issue(&order, DAY * 90);
    assert_eq!(rig.state("a.fr"), CertificateState::Ordering);
    assert!(rig.certs.report(rig.now).certificates[0].not_after.is_some(), "what comes late is used");
}

//! What is ordered, when, and of whom.

use super::*;

#[test]
fn nothing_is_ordered_before_it_is_known_what_there_is() {
    let mut certs = Certs::new(&Arc::new(config(&["a.fr"], &["first"])), &Saved::default(), 1, START);
    certs.due(START + DAY);
    certs.reload(&Arc::new(config(&["a.fr", "b.fr"], &["first"])), START + DAY);
    assert!(certs.take().effects.is_empty());
    assert_eq!(certs.next(), None);
    let held = HeldCertificate {
        name: "a.fr".into(),
        hosts: vec!["a.fr".to_owned()],
        authority: "first".into(),
        not_before: START,
        not_after: START + DAY * 90,
        ari_id: None,
        fingerprint: "x".to_owned(),
    };
    certs.inventory(Inventory { held: vec![held], covered: vec!["b.fr".to_owned()], begun: vec![] }, START + DAY);
    assert!(certs.take().effects.is_empty(), "one is held, a file covers the other");
}

#[test]
fn an_order_says_all_that_is_needed_and_the_renewal_what_it_replaces() {
    let mut rig = Rig::new(config(&["a.fr"], &["first", "second"]));
    let order = rig.order();
    assert_eq!((&*order.name, order.hosts.join(" "), &*order.authority.name), ("a.fr", "a.fr".to_owned(), "first"));
    assert_eq!((order.challenges.len(), order.replaces.as_deref(), order.profile.as_deref()), (2, None, None));
    rig.issue(&order, DAY * 90);
    assert_eq!(rig.state("a.fr"), CertificateState::Valid);
    rig.pass(DAY * 58);
    assert!(rig.orders.is_empty(), "not due");
    rig.pass(DAY * 4);
    let renewal = rig.order();
    assert_eq!(renewal.replaces, Some(format!("ari-{}", order.id)));
    rig.issue(&renewal, DAY * 90);
    assert_eq!(rig.state("a.fr"), CertificateState::Valid);
}

#[test]
fn an_address_is_ordered_as_an_address_and_short_lived() {
    let mut rig = Rig::new(config(&["[2001:db8::1]"], &["first"]));
    let order = rig.order();
    assert_eq!((&*order.name, order.hosts.join(" ")), ("[2001:db8::1]", "2001:db8::1".to_owned()));
    assert_eq!(order.profile.as_deref(), Some("shortlived"));
}

#[test]
fn the_window_of_the_ca_moves_the_renewal() {
    let mut rig = Rig::new(config(&["a.fr"], &["first"]));
    let order = rig.order();
    rig.issue(&order, DAY * 90);
    let window =
        |from: u32| RenewalWindow { start: START + DAY * from, end: START + DAY * (from + 1), explanation: None };
    rig.window = Some(window(40));
    rig.pass(DAY * 20);
    assert!((17..=27).contains(&rig.asked), "about a day between questions, whatever the CA says: {}", rig.asked);
    // Moved to the past: now, when it is asked next.
    rig.window = Some(window(10));
    rig.pass(DAY * 2);
    assert!(rig.order().replaces.is_some());
    assert!(rig.now < START + DAY * 22);
}

#[test]
fn orders_are_paced_and_after_trouble_the_first_goes_alone() {
    let hosts: Vec<String> = (0..20).map(|number| format!("n{number}.fr")).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let mut rig = Rig::new(config(&hosts, &["first"]));
    assert_eq!(rig.orders.len(), 4);
    let order = rig.orders.remove(0);
    rig.issue(&order, DAY * 90);
    assert_eq!(rig.orders.len(), 4, "one ended, one began");
    for order in std::mem::take(&mut rig.orders) {
        rig.fail(&order, FaultKind::Unreachable, None);
    }
    assert!(rig.orders.is_empty(), "the authority is left alone");
    rig.pass(HOUR);
    assert_eq!(rig.orders.len(), 1, "alone");
    let order = rig.orders.remove(0);
    rig.issue(&order, DAY * 90);
    assert_eq!(rig.orders.len(), 4);
}

#[test]
fn limits_are_kept_by_counting() {
    let mut config_of = config(&["a.fr", "x.a.fr", "y.a.fr"], &["first"]);
    let limit = |config: &mut Config, edit: fn(&mut relais_config::AuthorityLimits)| {
        let mut authority = (*config.acme.authorities[0]).clone();
        edit(&mut authority.limits);
        config.acme.authorities = vec![Arc::new(authority)];
    };
    limit(&mut config_of, |limits| limits.per_domain = Some(2));
    let mut rig = Rig::new(config_of);
    while let Some(order) = rig.orders.pop() {
        rig.issue(&order, DAY * 90);
    }
    rig.pass(DAY * 6);
    assert_eq!((rig.held.len(), rig.orders.len()), (2, 0), "two of three");
    rig.pass(DAY * 2);
    assert_eq!(rig.orders.len(), 1);

    let mut config_of = config(&["a.fr"], &["first"]);
    limit(&mut config_of, |limits| (limits.per_set, limits.failures) = (Some(2), Some(3)));
    let mut rig = Rig::new(config_of);
    let mut failures = 0;
    while rig.now < START + HOUR {
        for order in std::mem::take(&mut rig.orders) {
            failures += 1;
            rig.fail(&order, FaultKind::Challenge, None);
        }
        rig.pass(Duration::from_secs(10));
    }
    assert_eq!(failures, 3, "in the first hour");
}

#[test]
fn the_operator_can_have_one_now() {
    let mut rig = Rig::new(config(&["a.fr"], &["first"]));
    let order = rig.order();
    rig.issue(&order, DAY * 90);
    rig.certs.renew_now("x.fr", rig.now);
    rig.certs.renew_now("a.fr", rig.now);
    rig.drain();
    let forced = rig.order();
    rig.issue(&forced, DAY * 90);
    rig.pass(DAY);
    assert!(rig.orders.is_empty(), "once");
}

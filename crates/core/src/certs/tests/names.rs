//! Names that come and go: with the config, and with clients.

use relais_config::OnDemand;

use super::*;

#[test]
fn names_that_leave_are_renewed_for_a_day_and_cost_nothing_when_they_return() {
    let mut rig = Rig::new(config(&["a.fr"], &["first"]));
    let order = rig.order();
    rig.issue(&order, DAY * 6);
    let mut none = config(&["b.test"], &["first"]);
    none.services.clear();
    let without = Arc::new(none);
    let with = Arc::new(config(&["a.fr"], &["first"]));
    rig.certs.reload(&without, rig.now);
    rig.drain();
    rig.orders.clear();
    rig.pass(HOUR * 12);
    assert_eq!(rig.state("a.fr"), CertificateState::Gone);
    rig.certs.reload(&with, rig.now);
    rig.drain();
    assert!(rig.orders.is_empty(), "it is still good");
    rig.certs.reload(&without, rig.now);
    rig.drain();
    rig.pass(DAY * 5);
    assert!(rig.orders.iter().all(|order| *order.name != *"a.fr"), "after the grace it is not renewed");
    rig.pass(DAY * 10);
    assert!(rig.certs.report(rig.now).certificates.iter().all(|cert| *cert.name != *"a.fr"), "and forgotten");
    // What is held of it is not: a certificate of 90 days would still be good.
    let mut good = rig.held["a.fr"].clone();
    (good.not_after, good.fingerprint) = (rig.now + DAY * 70, "good".to_owned());
    rig.held.insert("a.fr".into(), good);
    rig.take_inventory(&[]);
    rig.certs.reload(&with, rig.now);
    rig.drain();
    assert!(rig.orders.is_empty() && rig.state("a.fr") == CertificateState::Valid);
}

#[test]
fn clients_names_are_ordered_within_their_budget() {
    let mut config = config(&["*"], &["first"]);
    config.acme.on_demand =
        Some(Arc::new(OnDemand { ask: "http://127.0.0.1/".to_owned(), root: None, per_hour: 2, burst: 3 }));
    let mut rig = Rig::new(config);
    for name in ["a.fr", "b.fr", "c.fr", "d.fr", "a.fr"] {
        rig.certs.wanted(name, rig.now);
        rig.drain();
    }
    let names: Vec<String> = rig.orders.iter().map(|order| order.name.to_string()).collect();
    assert_eq!(names, ["a.fr", "b.fr", "c.fr"]);
    assert_eq!(rig.certs.report(rig.now).on_demand_refused, 1);
    for order in std::mem::take(&mut rig.orders) {
        rig.issue(&order, DAY * 90);
    }
    rig.pass(HOUR);
    rig.certs.wanted("d.fr", rig.now);
    rig.drain();
    assert_eq!(rig.orders.len(), 1, "two an hour");
    let order = rig.order();
    rig.issue(&order, DAY * 90);
    rig.pass(DAY * 50);
    rig.certs.wanted("a.fr", rig.now);
    rig.drain();
    rig.pass(DAY * 20);
    let names: Vec<String> = rig.orders.iter().map(|order| order.name.to_string()).collect();
    assert_eq!(names, ["a.fr"], "only what clients still ask for is renewed");
}

//! Names that only the DNS can prove, from the config file to the certificate: a wildcard, and one whose challenge is
//! delegated by a CNAME. Debian's knot is the name server: relais writes into it, and the CA asks it.

use std::net::UdpSocket;

use crate::first::said;
use crate::knot::{Knot, resolver};
use crate::pebble::Pebble;
use crate::support::edge::Setup;
use crate::support::{own_ip, wait_for};

#[test]
fn a_wildcard_and_a_delegated_name_are_proven_by_the_dns() {
    let Some(knot) = Knot::start() else { return };
    let Some(mut pebble) = Pebble::start() else { return };
    pebble.ask(knot.address);
    let edge = Setup::file(&pebble.file(&["*.w.a.fr", "away.a.fr"], &knot.declared())).start();
    for host in ["one.w.a.fr", "two.w.a.fr", "away.a.fr"] {
        pebble.wait_for(&edge, host);
    }
    assert_eq!(pebble.orders(), 2);
    assert_eq!(said(&edge, "challenge answered: dns-01 for *.w.a.fr"), 1, "{}", edge.log());
    let refused = crate::support::certs::shown(pebble.https, "a.b.w.a.fr", pebble.roots());
    assert!(refused.is_err(), "a wildcard is one label");
    wait_for("the records are removed", || !knot.zone().contains("TXT"));
    assert!(knot.log().contains("DDNS"), "{}", knot.log());
    let (_, text, _) = edge.cli(&["certs"]);
    assert!(text.contains("*.w.a.fr") && text.matches("valid").count() == 2, "{text}");
}

/// The usual way where the zone of the name cannot be written: a CNAME for its challenge into one that can.
#[test]
fn challenges_are_delegated_into_another_zone() {
    let Some(knot) = Knot::start() else { return };
    let Some(mut pebble) = Pebble::start() else { return };
    pebble.ask(resolver(knot.address));
    let edge = Setup::file(&pebble.file(&["b.fr", "*.b.fr", "far.b.fr"], &knot.declared())).start();
    for host in ["b.fr", "any.b.fr", "far.b.fr"] {
        pebble.wait_for(&edge, host);
    }
    assert_eq!(pebble.orders(), 3, "{}", edge.log());
    wait_for("the records are removed", || !knot.zone().contains("TXT"));
    let log = knot.log();
    assert!(log.contains("[a.fr.] DDNS"), "{log}");
    assert!(!log.contains("[b.fr.] DDNS") && !log.contains("[c.fr.] DDNS"), "{log}");
}

#[test]
fn records_of_an_order_that_a_kill_cut_short_are_removed() {
    let Some(knot) = Knot::start() else { return };
    let Some(mut pebble) = Pebble::start() else { return };
    pebble.kill();
    // Nobody answers the CA's question: it looks for a while.
    let deaf = UdpSocket::bind((own_ip(), 0)).unwrap();
    pebble.ask(deaf.local_addr().unwrap());
    let mut edge = Setup::file(&pebble.file(&["*.w.a.fr"], &knot.declared())).start();
    wait_for("the record is there", || knot.zone().contains("TXT"));
    edge.crash();
    assert!(knot.zone().contains("TXT"), "nobody removed it");
    pebble.ask(knot.address);
    edge.restart();
    pebble.wait_for(&edge, "one.w.a.fr");
    wait_for("the records are removed", || !knot.zone().contains("TXT"));
}

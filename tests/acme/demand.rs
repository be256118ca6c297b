//! Certificates for names that nobody listed, made when a client asks for them.

use crate::pebble::Pebble;
use crate::support::certs;
use crate::support::edge::Setup;
use crate::support::raw::Plain;
use crate::support::wait_for;

#[test]
fn the_first_handshake_of_an_allowed_name_waits_for_its_certificate() {
    let Some(pebble) = Pebble::start() else { return };
    // Allows everything.
    let ask = Plain::saying("yes");
    let more = format!("[acme.on_demand]\nask = \"http://{}/ask\"\nper_hour = 2\nburst = 2\n", ask.serving.address);
    let mut edge = Setup::file(&pebble.file(&["*"], &more)).start();
    let first = pebble.shown("one.a.fr");
    assert!(first.is_some(), "{}", edge.log());
    assert_eq!(pebble.shown("one.a.fr"), first, "the second client gets the same");
    assert!(pebble.shown("two.a.fr").is_some());
    assert_eq!(pebble.orders(), 2);
    let refused = certs::shown(pebble.https, "three.a.fr", pebble.roots()).unwrap_err();
    assert!(refused.to_string().contains("alert"), "too many new names in this time: {refused}");
    assert_eq!(pebble.orders(), 2);
    edge.crash_and_restart();
    assert_eq!(pebble.shown("one.a.fr"), first, "kept as every other");
    assert_eq!(pebble.orders(), 2);
}

#[test]
fn a_name_that_is_not_allowed_is_refused_at_once() {
    let Some(pebble) = Pebble::start() else { return };
    let nobody = crate::support::free_address();
    let more = format!("[acme.on_demand]\nask = \"http://{nobody}/ask\"\n");
    let edge = Setup::file(&pebble.file(&["*"], &more)).start();
    let refused = certs::shown(pebble.https, "one.a.fr", pebble.roots()).unwrap_err();
    assert!(refused.to_string().contains("alert"), "{refused}");
    assert_eq!(pebble.orders(), 0);
    wait_for("it is told", || edge.log().contains("no certificate on demand"));
}

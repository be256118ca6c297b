//! A CA that is away, and one that cannot reach us: what is there serves on, and the alarm says it in the CA's words.

use crate::pebble::Pebble;
use crate::support::edge::Setup;
use crate::support::{free_address, wait_for};

fn alarm(edge: &crate::support::edge::Edge) -> Option<String> {
    let alarms = edge.status()["alarms"].clone();
    let acme = alarms.as_array().unwrap().iter().find(|alarm| alarm["about"] == "acme").cloned()?;
    Some(format!("{} / {}", acme["message"].as_str().unwrap(), acme["help"].as_str().unwrap()))
}

#[test]
fn a_ca_that_is_away_at_a_renewal_is_an_alarm_and_no_outage() {
    let Some(mut pebble) = Pebble::start() else { return };
    let edge = Setup::file(&pebble.file(&["a.fr"], "")).start();
    let first = pebble.wait_for(&edge, "a.fr");
    let roots = pebble.roots();
    pebble.kill();
    assert_eq!(edge.cli(&["certs", "renew", "a.fr"]).0, Some(0));
    wait_for("the alarm stands", || alarm(&edge).is_some());
    let words = alarm(&edge).unwrap();
    assert!(words.contains("a.fr keeps its certificate") && words.contains("refused"), "{words}");
    assert_eq!(crate::support::certs::shown(pebble.https, "a.fr", roots).unwrap(), first, "it serves on");
    let (_, text, _) = edge.cli(&["certs"]);
    assert!(text.contains(" ago, pebble: ") && text.contains("ENDS IN"), "{text}");
    assert_eq!(edge.sample("relais_acme_orders_total", &["result=\"unreachable\""]), 1.0);
    assert_eq!(edge.sample("relais_acme_authority_paused", &["authority=\"pebble\""]), 1.0);
}

#[test]
fn a_ca_that_cannot_reach_us_is_quoted_with_the_likely_cause() {
    let Some(mut pebble) = Pebble::start() else { return };
    pebble.kill();
    pebble.validate_at(free_address().port(), free_address().port());
    pebble.again();
    let edge = Setup::file(&pebble.file(&["a.fr"], "[acme]\nchallenges = [\"http-01\"]\n")).start();
    wait_for("the alarm stands", || alarm(&edge).is_some());
    let words = alarm(&edge).unwrap();
    assert!(words.contains("a.fr has no certificate yet") && words.contains("pebble says"), "{words}");
    assert!(words.contains("port 80 of a.fr cannot be reached"), "the likely cause: {words}");
    let (_, text, _) = edge.cli(&["status"]);
    assert!(text.contains("refused") && text.contains("port 80 of a.fr"), "{text}");
}

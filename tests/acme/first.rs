//! From nothing to HTTPS, and what is seen while it is not there yet.

use crate::pebble::Pebble;
use crate::support::edge::Edge;
use crate::support::edge::Setup;
use crate::support::wait_for;
use crate::support::wire::Conn;

fn get(pebble: &Pebble, host: &str) -> crate::support::wire::Answer {
    Conn::to(pebble.http).ask(format!("GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
}

/// Lines of the log that say so.
pub(crate) fn said(edge: &Edge, words: &str) -> usize {
    edge.lines().iter().filter(|line| line["message"].as_str().is_some_and(|text| text.contains(words))).count()
}

#[test]
fn from_nothing_to_https_and_a_restart_orders_nothing() {
    let Some(pebble) = Pebble::start() else { return };
    let mut edge = Setup::file(&pebble.file(&["a.fr", "www.a.fr"], "")).start();
    let first = pebble.wait_for(&edge, "a.fr");
    pebble.wait_for(&edge, "www.a.fr");
    wait_for("the order is told", || said(&edge, "certificate issued") == 2);
    for step in ["certificate ordered", "account kept", "order placed", "challenge answered", "every name is proven"] {
        assert!(said(&edge, step) >= 2, "{step} is not told: {}", edge.log());
    }
    assert_eq!(get(&pebble, "a.fr").status(), 308, "now there is an address to send clients to");
    let (code, text, _) = edge.cli(&["certs"]);
    assert!(code == Some(0) && text.contains("www.a.fr") && text.contains("valid"), "{text}");
    assert!(edge.status()["alarms"].as_array().unwrap().is_empty());
    assert_eq!(edge.sample("relais_acme_orders_total", &["result=\"issued\""]), 2.0);
    assert!(edge.sample("relais_certificate_expiry_timestamp_seconds", &["name=\"a.fr\""]) > 1.0e9);
    assert!(!edge.log().contains("PRIVATE KEY"));
    // A kill loses nothing: the same certificate is there at once, and nobody asks the CA.
    assert_eq!(pebble.orders(), 2);
    edge.crash_and_restart();
    assert_eq!(pebble.shown("a.fr"), Some(first));
    wait_for("the edge knows what it has", || edge.cli(&["certs"]).1.matches("valid").count() == 2);
    assert_eq!(pebble.orders(), 2);
}

#[test]
fn while_waiting_plain_http_does_what_the_config_says_and_tls_is_refused() {
    let Some(mut pebble) = Pebble::start() else { return };
    pebble.kill();
    for (waiting, status) in [("serve", 200), ("unavailable", 503)] {
        let more = format!("[acme]\nwaiting = {waiting:?}\n");
        let edge = Setup::file(&pebble.file(&["a.fr"], &more)).start();
        let answer = get(&pebble, "a.fr");
        assert_eq!(answer.status(), status, "{waiting}");
        assert_eq!(answer.head.has("retry-after"), status == 503);
        let refused = crate::support::certs::shown(pebble.https, "a.fr", rustls::RootCertStore::empty()).unwrap_err();
        assert!(refused.to_string().contains("alert"), "{refused}");
        drop(edge);
    }
}

#[test]
fn hosts_come_and_go_with_the_file() {
    let Some(pebble) = Pebble::start() else { return };
    let edge = Setup::file(&pebble.file(&["a.fr"], "")).start();
    pebble.wait_for(&edge, "a.fr");
    edge.apply(&pebble.file(&["a.fr", "b.fr"], ""));
    pebble.wait_for(&edge, "b.fr");
    assert_eq!(pebble.orders(), 2, "the first one was not ordered again");
    edge.apply(&pebble.file(&["a.fr"], ""));
    wait_for("the name is known to be gone", || edge.cli(&["certs"]).1.contains("gone"));
    edge.apply(&pebble.file(&["a.fr", "b.fr"], ""));
    wait_for("it is back", || edge.cli(&["certs"]).1.matches("valid").count() == 2);
    assert_eq!(pebble.orders(), 2, "back within the grace time: what there was is used");
}

/// Many names: orders are paced, and the next start serves them all at once.
#[test]
fn a_thousand_names_are_paced_and_served_from_the_next_start() {
    let Some(pebble) = Pebble::trusting() else { return };
    let names: Vec<String> = (0..1000).map(|n| format!("host-{n}.a.fr")).collect();
    let hosts: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut edge = Setup::file(&pebble.file(&hosts, "[acme]\norders = 12\n")).start();
    // As long as they keep coming.
    let mut there = 0;
    while there < hosts.len() {
        let before = there;
        wait_for("more of them", || {
            // The log is long, and this machine has other things to do.
            std::thread::sleep(std::time::Duration::from_millis(200));
            there = edge.log().matches("\"certificate issued\"").count();
            there > before
        });
    }
    let (mut open, mut most) = (0_i32, 0);
    for line in edge.lines() {
        match line["message"].as_str() {
            Some("certificate ordered") => open += 1,
            Some("certificate issued") => open -= 1,
            _ => {}
        }
        most = most.max(open);
    }
    assert!((1..=12).contains(&most), "{most} orders at once");
    assert_eq!(pebble.orders(), 1000);
    // A disk that takes longer than an order waits for it is said, and no reason to lose one.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while edge.status()["store"]["unsaved"] != 0 {
        assert!(std::time::Instant::now() < deadline, "{}", edge.status()["store"]);
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    edge.crash_and_restart();
    let roots = pebble.roots();
    for host in &hosts {
        let shown = crate::support::certs::shown(pebble.https, host, roots.clone());
        assert!(shown.is_ok(), "{host} is served from the start: {shown:?}");
    }
    assert_eq!(pebble.orders(), 1000);
}

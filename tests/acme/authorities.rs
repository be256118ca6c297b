//! More than one CA, one that wants an account of its own kind, and one that is hard to talk to.

use crate::first::said;
use crate::pebble::{HMAC, Pebble};
use crate::support::edge::Setup;
use crate::support::{free_address, wait_for};

const TLS_ONLY: &str = "[acme]\nchallenges = [\"tls-alpn-01\"]\n";

/// The first CA is away; the second wants an external account and rejects a third of all nonces: fifty of fifty names are
/// served, all proven on the TLS port, none was ordered twice, and nothing failed there.
#[test]
fn fifty_of_fifty_names_from_the_second_ca_though_it_rejects_nonces() {
    let Some(pebble) = Pebble::reluctant() else { return };
    let names: Vec<String> = (0..50).map(|n| format!("host-{n}.a.fr")).collect();
    let hosts: Vec<&str> = names.iter().map(String::as_str).collect();
    let away = format!("[authority.away]\ndirectory = \"https://{}/dir\"\n[authority.pebble]", free_address());
    let text = pebble.file(&hosts, &format!("eab_key_id = \"kid-1\"\neab_hmac = {HMAC:?}\n{TLS_ONLY}"));
    let edge = Setup::file(&text.replace("[authority.pebble]", &away)).start();
    let mut there = 0;
    while there < hosts.len() {
        let before = there;
        wait_for("more of them", || {
            there = said(&edge, "certificate issued");
            there > before
        });
    }
    let roots = pebble.roots();
    for host in &hosts {
        let shown = crate::support::certs::shown(pebble.https, host, roots.clone());
        assert!(shown.is_ok(), "{host}: {shown:?}");
    }
    assert_eq!(pebble.orders(), 50);
    let all = |labels: &[&str]| edge.sample("relais_acme_orders_total", labels);
    assert_eq!(all(&["authority=\"pebble\"", "result=\"issued\""]), 50.0);
    assert_eq!(all(&["authority=\"pebble\""]), 50.0, "none failed: {}", edge.metrics());
    assert!(all(&["authority=\"away\"", "result=\"unreachable\""]) >= 1.0);
    let (_, text, _) = edge.cli(&["certs"]);
    assert!(text.contains("away is left alone for"), "{text}");
}

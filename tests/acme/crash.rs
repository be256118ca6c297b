//! kill -9 at each step of an order, and a state directory that was damaged meanwhile.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::first::said;
use crate::pebble::Pebble;
use crate::support::edge::Setup;
use crate::support::wait_for;

/// After each, the next start gets its certificate, with the account it had, and by the order it had placed.
#[test]
fn a_kill_at_any_step_of_an_order_loses_neither_account_nor_order_nor_certificate() {
    // An order for which nobody answered when the CA looked is lost. The kill may come a little later than the line.
    let steps = [
        ("account kept", 2),
        ("order placed", 2),
        ("challenge answered", 2),
        ("every name is proven", 1),
        ("certificate asked for", 1),
    ];
    for (step, most) in steps {
        let Some(pebble) = Pebble::start() else { return };
        let mut edge = Setup::file(&pebble.file(&["a.fr"], "")).launch();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !edge.log().contains(step) {
            assert!(Instant::now() < deadline, "{step}: {}", edge.log());
            std::thread::yield_now();
        }
        edge.crash();
        let account = std::fs::read_to_string(edge.state_dir().join("certs/pebble/account.json")).unwrap();
        let account: serde_json::Value = serde_json::from_str(&account).unwrap();
        let account: serde_json::Value = serde_json::from_str(account["account"].as_str().unwrap()).unwrap();
        let (placed, unfinished) = (pebble.orders(), !edge.log().contains("certificate issued"));
        edge.restart();
        if step == "account kept" {
            // Nobody knows whether the CA counts an order: the next one waits a little. The operator need not.
            edge.cli(&["certs", "renew", "a.fr"]);
        }
        pebble.wait_for(&edge, "a.fr");
        wait_for("it is told", || !unfinished || said(&edge, "certificate issued") == 1);
        let after = std::fs::read_to_string(edge.state_dir().join("certs/pebble/account.json")).unwrap();
        assert!(after.contains(account["key_pkcs8"].as_str().unwrap()), "{step}: the account is another one");
        assert!(pebble.orders() <= most, "{step}: {placed}, then {} orders\n{}", pebble.orders(), edge.log());
        let goes_on = unfinished && step != "account kept";
        assert_eq!(said(&edge, "order goes on"), usize::from(goes_on), "{step}: {}", edge.log());
        // It is over: another renewal is another order.
        assert_eq!(edge.cli(&["certs", "renew", "a.fr"]).0, Some(0));
        let issued = 1 + usize::from(unfinished);
        wait_for("a second one", || said(&edge, "certificate issued") == issued);
        assert!(pebble.orders() > placed, "{step}: {}", edge.log());
    }
}

#[test]
fn a_damaged_store_takes_certificates_from_their_files() {
    let Some(pebble) = Pebble::start() else { return };
    let mut edge = Setup::file(&pebble.file(&["a.fr"], "")).start();
    let first = pebble.wait_for(&edge, "a.fr");
    wait_for("it is told", || said(&edge, "certificate issued") == 1);
    edge.crash();
    for entry in std::fs::read_dir(edge.state_dir()).unwrap().map(Result::unwrap) {
        if entry.file_name().to_str().unwrap().starts_with("store-") {
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "keys are in it: nobody else may look ({mode:o})");
            let data = entry.path().join("db");
            let mut bytes = std::fs::read(&data).unwrap();
            bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
            std::fs::write(data, bytes).unwrap();
        }
    }
    edge.restart();
    assert_eq!(pebble.shown("a.fr"), Some(first.clone()), "{}", edge.log());
    assert!(edge.log().contains("were taken from certs/"), "{}", edge.log());
    // The other copy alone.
    edge.crash();
    std::fs::remove_dir_all(edge.state_dir().join("certs")).unwrap();
    edge.restart();
    assert_eq!(pebble.shown("a.fr"), Some(first));
    wait_for("the files are written anew", || edge.state_dir().join("certs/pebble/a.fr/key.pem").exists());
    assert_eq!(pebble.orders(), 1);
}

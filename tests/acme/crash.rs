//! kill -9 at each step of an order, and a state directory that was damaged meanwhile.

use std::time::{Duration, Instant};

use crate::first::said;
use crate::pebble::Pebble;
use crate::support::edge::Setup;
use crate::support::wait_for;

/// After each, the next start gets its certificate, with the account it had.
#[test]
fn a_kill_at_any_step_of_an_order_loses_neither_account_nor_certificate() {
    for step in ["account kept", "order placed", "challenge answered", "every name is proven", "certificate asked for"]
    {
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
        edge.restart();
        // Where the last life may have counted against a limit of the CA the next order waits a little: the operator need not.
        edge.cli(&["certs", "renew", "a.fr"]);
        pebble.wait_for(&edge, "a.fr");
        let after = std::fs::read_to_string(edge.state_dir().join("certs/pebble/account.json")).unwrap();
        assert!(after.contains(account["key_pkcs8"].as_str().unwrap()), "{step}: the account is another one");
        assert!(pebble.orders() <= 2, "{step}: {} orders", pebble.orders());
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

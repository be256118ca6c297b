//! What is done with what is there: a new key for the account, taking a certificate back, an account the CA forgot.

use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use relais_core::config::{Challenge, Secret};
use relais_tls::acme::{self, FaultKind, Reason};

use crate::clerk::{Clerk, job};
use crate::pebble::{Manner, Pebble};

#[tokio::test]
async fn an_account_gets_a_new_key_and_the_old_one_opens_nothing() {
    let Some(pebble) = Pebble::start(Manner::default()).await else { return };
    let (clerk, ca, certs) = (Clerk::default(), pebble.ca(), &pebble.edge.certs);
    let wanted = job(&["r.a.test"], Challenge::Http01);
    clerk.order(&ca, &wanted, certs).await.unwrap();
    let old = clerk.held().unwrap();
    let new = acme::rollover(&ca, &old, &clerk.steps()).await.unwrap();
    assert_ne!(old, new);
    assert_eq!(clerk.held().as_ref(), Some(&new));
    let kept = clerk.kept.lock().len();
    clerk.order(&ca, &wanted, certs).await.unwrap();
    assert_eq!(clerk.kept.lock().len(), kept, "the account is used as it is");
    let late = Clerk::default();
    *late.account.lock() = Some(old);
    let fault = late.order(&ca, &wanted, certs).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
}

#[tokio::test]
async fn a_change_of_the_key_that_was_cut_off_anywhere_loses_no_account() {
    let Some(pebble) = Pebble::start(Manner::default()).await else { return };
    let (clerk, ca, certs) = (Clerk::default(), pebble.ca(), &pebble.edge.certs);
    let wanted = job(&["c.a.test"], Challenge::Http01);
    clerk.order(&ca, &wanted, certs).await.unwrap();
    let before = clerk.kept.lock().len();
    // Keeping fails: before the CA learns of the new key, and after it has learnt of it.
    for survives in [0, 1] {
        let held = clerk.held().unwrap();
        let kept = clerk.kept.lock().len();
        *clerk.fails_after.lock() = Some(kept + survives);
        let fault = acme::rollover(&ca, &held, &clerk.steps()).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Internal, "{fault}");
        *clerk.fails_after.lock() = None;
        clerk.order(&ca, &wanted, certs).await.unwrap();
    }
    assert!(clerk.kept.lock().len() > before);
    let accounts = |secret: &relais_core::config::Secret| {
        let kept: serde_json::Value = serde_json::from_str(secret.expose()).unwrap();
        kept["id"].as_str().map(str::to_string)
    };
    let mut ids: Vec<String> = clerk.kept.lock().iter().filter_map(accounts).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "one account all along: {ids:?}");
}

#[tokio::test]
async fn a_certificate_is_taken_back_once() {
    let Some(pebble) = Pebble::start(Manner::default()).await else { return };
    let (clerk, ca) = (Clerk::default(), pebble.ca());
    let product = clerk.order(&ca, &job(&["v.a.test"], Challenge::Http01), &pebble.edge.certs).await.unwrap();
    let held = clerk.held().unwrap();
    acme::revoke(&ca, &held, &product.chain_pem, Reason::Superseded, &clerk.steps()).await.unwrap();
    let fault = acme::revoke(&ca, &held, &product.chain_pem, Reason::Unspecified, &clerk.steps()).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused);
    assert!(fault.said.to_lowercase().contains("revoked"), "{fault}");
}

#[tokio::test]
async fn a_ca_that_forgot_the_account_is_given_it_again() {
    let Some(mut pebble) = Pebble::start(Manner::default()).await else { return };
    let (clerk, ca) = (Clerk::default(), pebble.ca());
    let wanted = job(&["f.a.test"], Challenge::Http01);
    clerk.order(&ca, &wanted, &pebble.edge.certs).await.unwrap();
    pebble.restart().await;
    clerk.order(&ca, &wanted, &pebble.edge.certs).await.unwrap();
    let key = |secret: &relais_core::config::Secret| {
        let kept: serde_json::Value = serde_json::from_str(secret.expose()).unwrap();
        kept["key_pkcs8"].as_str().unwrap().to_string()
    };
    let kept = clerk.kept.lock();
    assert!(kept.iter().all(|one| key(one) == key(&kept[0])), "the same key is registered again");
}

/// Caddy keeps the key of its account in the older form (SEC1): the account must be as good as before.
#[tokio::test]
async fn an_account_taken_over_from_another_program_is_used() {
    let Some(pebble) = Pebble::start(Manner::default()).await else { return };
    let (first, ca, certs) = (Clerk::default(), pebble.ca(), &pebble.edge.certs);
    let wanted = job(&["t.a.test"], Challenge::Http01);
    first.order(&ca, &wanted, certs).await.unwrap();
    let kept: serde_json::Value = serde_json::from_str(first.held().unwrap().expose()).unwrap();
    let (id, pkcs8) =
        (kept["id"].as_str().unwrap(), URL_SAFE_NO_PAD.decode(kept["key_pkcs8"].as_str().unwrap()).unwrap());
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8).unwrap();
    let sec1: EcPrivateKeyRfc5915Der<'_> = key.private_key().as_der().unwrap();
    for (kind, der) in [("EC PRIVATE KEY", sec1.as_ref()), ("PRIVATE KEY", &pkcs8)] {
        let pem = format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", STANDARD.encode(der));
        let account = acme::import(&ca.authority.directory, id, &Secret::new(&pem)).unwrap();
        let moved = Clerk::default();
        *moved.account.lock() = Some(account);
        moved.order(&ca, &wanted, certs).await.unwrap();
        let used: serde_json::Value = serde_json::from_str(moved.held().unwrap().expose()).unwrap();
        assert_eq!(used, kept, "{kind}: another account was made");
        let asked = moved.kept.lock().len();
        moved.order(&ca, &wanted, certs).await.unwrap();
        assert_eq!(moved.kept.lock().len(), asked, "{kind}: whose key it is was asked again");
    }
}

/// What a Caddy leaves behind that registered twice at once: the key of one account, the URL of another. And a key that the CA
/// has never seen.
#[tokio::test]
async fn the_key_says_which_account_was_taken_over() {
    let Some(pebble) = Pebble::start(Manner::default()).await else { return };
    let (ca, certs) = (pebble.ca(), &pebble.edge.certs);
    let wanted = job(&["u.a.test"], Challenge::Http01);
    let clerks = [Clerk::default(), Clerk::default()];
    let mut kept = Vec::new();
    for clerk in &clerks {
        clerk.order(&ca, &wanted, certs).await.unwrap();
        kept.push(serde_json::from_str::<serde_json::Value>(clerk.held().unwrap().expose()).unwrap());
    }
    assert_ne!(kept[0]["id"], kept[1]["id"]);
    let stranger = rcgen::KeyPair::generate().unwrap().serialize_der();
    let known = URL_SAFE_NO_PAD.decode(kept[0]["key_pkcs8"].as_str().unwrap()).unwrap();
    for (key, same) in [(known, true), (stranger, false)] {
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(&key));
        let url = kept[1]["id"].as_str().unwrap();
        let moved = Clerk::default();
        *moved.account.lock() = Some(acme::import(&ca.authority.directory, url, &Secret::new(&pem)).unwrap());
        moved.order(&ca, &wanted, certs).await.unwrap();
        let used: serde_json::Value = serde_json::from_str(moved.held().unwrap().expose()).unwrap();
        assert_eq!(used["key_pkcs8"].as_str().unwrap(), URL_SAFE_NO_PAD.encode(&key));
        assert_eq!(used["id"] == kept[0]["id"], same, "{used}");
        assert_ne!(used["id"], kept[1]["id"]);
    }
}

#[tokio::test]
async fn an_account_whose_key_cannot_sign_is_made_anew() {
    let Some(pebble) = Pebble::start(Manner::default()).await else { return };
    let (clerk, ca, certs) = (Clerk::default(), pebble.ca(), &pebble.edge.certs);
    let damaged = serde_json::json!({ "id": "https://x/1", "key_pkcs8": "AAAA", "directory": ca.authority.directory });
    *clerk.account.lock() = Some(Secret::new(&damaged.to_string()));
    clerk.order(&ca, &job(&["n.a.test"], Challenge::Http01), certs).await.unwrap();
    assert_ne!(clerk.held().unwrap().expose(), damaged.to_string());
}

//! Orders that succeed: every challenge, key and kind of name, external accounts, a CA that rejects nonces.

use std::sync::Arc;

use relais_core::config::{Challenge, ExternalAccount, KeyKind, Secret};
use relais_tls::acme::{FaultKind, OrderFault};
use relais_tls::{CertSource, Issued};

use crate::clerk::{self, Clerk, job};
use crate::pebble::{HMAC, Manner, Pebble};
use crate::support::{shake, trusting};

#[tokio::test]
async fn both_challenges_of_the_edge_lead_to_a_served_certificate() {
    let Some(pebble) = Pebble::start(Manner::default()).await else { return };
    let (clerk, certs) = (Clerk::default(), &pebble.edge.certs);
    let root = pebble.issuing_root().await;
    for (host, challenge) in [("web.a.test", Challenge::Http01), ("tls.a.test", Challenge::TlsAlpn01)] {
        let why = shake(&pebble.edge.server, &trusting(&[&root]), host).await.unwrap_err();
        assert!(why.contains("AccessDenied"), "{why}");
        let product = clerk.order(&pebble.ca(), &job(&[host], challenge), certs).await.unwrap();
        assert_eq!(product.hosts, [host]);
        assert!(
            product.not_before < product.not_after && product.ari_id.as_ref().unwrap().contains('.'),
            "{product:?}"
        );
        assert!(!format!("{product:?}").contains("PRIVATE"), "a key is never shown");
        let issued = Issued { name: host.into(), chain_pem: product.chain_pem, key_pem: product.key_pem };
        assert_eq!(certs.install_issued(&[issued]), []);
        let seen = shake(&pebble.edge.server, &trusting(&[&root]), host).await.unwrap();
        let infos = certs.certificates();
        let info = infos.iter().find(|info| info.name == host).unwrap();
        assert_eq!((info.source, info.problem.as_ref()), (CertSource::Acme, None));
        assert!(!seen.leaf.is_empty());
    }
    let log = clerk.logged();
    for line in ["order placed: https://", "challenge answered: http-01 for web.a.test", "every name is proven"] {
        assert!(log.contains(line), "{log}");
    }
    // Made, registered, and then used again.
    assert_eq!(clerk.kept.lock().len(), 2, "{log}");
}

#[tokio::test]
async fn one_order_covers_several_names_and_addresses() {
    let Some(pebble) = Pebble::start(Manner::default()).await else { return };
    let (clerk, certs) = (Clerk::default(), &pebble.edge.certs);
    let several = job(&["a.test", "b.a.test", "127.0.0.1"], Challenge::Http01);
    let mut hosts = clerk.order(&pebble.ca(), &several, certs).await.unwrap().hosts;
    hosts.sort();
    assert_eq!(hosts, ["127.0.0.1", "a.test", "b.a.test"]);
    let address = job(&["127.0.0.1"], Challenge::TlsAlpn01);
    assert_eq!(clerk.order(&pebble.ca(), &address, certs).await.unwrap().hosts, ["127.0.0.1"]);
}

#[tokio::test]
async fn the_key_is_of_the_kind_wanted_and_new_unless_reused() {
    let Some(pebble) = Pebble::start(Manner::default()).await else { return };
    let (clerk, certs) = (Clerk::default(), &pebble.edge.certs);
    let mut last: Option<Secret> = None;
    for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Rsa2048] {
        let mut wanted = job(&["k.a.test"], Challenge::Http01);
        wanted.key = kind;
        let first = clerk.order(&pebble.ca(), &wanted, certs).await.unwrap();
        let second = clerk.order(&pebble.ca(), &wanted, certs).await.unwrap();
        assert_ne!(first.key_pem, second.key_pem, "{kind:?}");
        wanted.reuse_key = Some(second.key_pem.clone());
        let third = clerk.order(&pebble.ca(), &wanted, certs).await.unwrap();
        assert_eq!(second.key_pem, third.key_pem, "{kind:?}");
        assert_ne!(last.replace(third.key_pem), Some(second.key_pem));
    }
}

#[tokio::test]
async fn fifty_orders_of_fifty_succeed_though_thirty_nonces_of_a_hundred_are_rejected() {
    for _ in 0..3 {
        let Some(pebble) = Pebble::start(Manner { bad_nonces: 30, ..Manner::default() }).await else { return };
        let failed = fifty_orders(&pebble).await;
        if failed.is_empty() {
            return;
        }
        assert!(stands_still(&pebble).await, "{} of 50 failed: {failed:?}", failed.len());
        eprintln!("pebble stands still: again, with another one");
    }
    panic!("three CAs stood still");
}

/// Those that fail, up to the first round in which any does.
async fn fifty_orders(pebble: &Pebble) -> Vec<OrderFault> {
    let (clerk, ca) = (Clerk::default(), pebble.ca());
    if let Err(fault) = clerk.order(&ca, &job(&["first.a.test"], Challenge::Http01), &pebble.edge.certs).await {
        return vec![fault];
    }
    for round in 0..7 {
        let hosts: Vec<String> = (0..7).map(|n| format!("n{round}x{n}.a.test")).collect();
        let mut orders = tokio::task::JoinSet::new();
        for host in hosts {
            let (clerk, ca, certs) = (clerk.clone(), ca.clone(), Arc::clone(&pebble.edge.certs));
            orders.spawn(async move { clerk.order(&ca, &job(&[&host], Challenge::Http01), &certs).await });
        }
        let failed: Vec<OrderFault> = orders.join_all().await.into_iter().filter_map(Result::err).collect();
        if !failed.is_empty() {
            return failed;
        }
    }
    Vec::new()
}

/// Whether the CA does not answer anybody any more, not even one who comes afresh and alone. pebble takes an order's lock for
/// reading twice, and stands still for ever when somebody wants to write in between (letsencrypt/pebble issue 554).
async fn stands_still(pebble: &Pebble) -> bool {
    let alone = job(&["alone.a.test"], Challenge::Http01);
    let fault = Clerk::default().order(&pebble.ca(), &alone, &pebble.edge.certs).await.err();
    fault.is_some_and(|fault| fault.kind == FaultKind::Unreachable)
}

#[tokio::test]
async fn an_external_account_is_bound_and_missing_or_wrong_ones_are_told() {
    let Some(pebble) = Pebble::start(Manner { external: true, ..Manner::default() }).await else { return };
    let certs = &pebble.edge.certs;
    let wanted = job(&["e.a.test"], Challenge::Http01);
    let fault = Clerk::default().order(&pebble.ca(), &wanted, certs).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused);
    assert!(fault.to_string().contains("eab_key_id"), "{fault}");
    let with = |key_id: &str, hmac: &str| {
        let external = ExternalAccount::Given { key_id: key_id.to_string(), hmac: Secret::new(hmac) };
        clerk::ca(relais_core::config::Authority { external_account: Some(external), ..pebble.authority() })
    };
    let fault = Clerk::default().order(&with("kid-9", HMAC), &wanted, certs).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
    let clerk = Clerk::default();
    clerk.order(&with("kid-1", HMAC), &wanted, certs).await.unwrap();
    // Once bound, it is known without.
    clerk.order(&pebble.ca(), &wanted, certs).await.unwrap();
}

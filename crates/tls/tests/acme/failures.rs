//! Orders that do not succeed: what is said, how long it takes, what is left behind.

use std::time::{Duration, Instant};

use relais_core::config::Challenge;
use relais_tls::acme::{FaultKind, Patience};
use tokio::net::TcpListener;

use crate::clerk::{self, Clerk, job};
use crate::edge::Edge;
use crate::pebble::{Manner, Pebble};

#[tokio::test]
async fn a_validation_that_fails_is_told_in_the_cas_words_with_the_cause() {
    let Some(pebble) = Pebble::start(Manner { closed: true, ..Manner::default() }).await else { return };
    let (clerk, certs) = (Clerk::default(), &pebble.edge.certs);
    for (challenge, port) in [(Challenge::Http01, "port 80"), (Challenge::TlsAlpn01, "port 443")] {
        let fault = clerk.order(&pebble.ca(), &job(&["x.a.test"], challenge), certs).await.unwrap_err();
        assert_eq!((fault.kind, fault.challenge), (FaultKind::Challenge, Some(challenge)), "{fault}");
        assert!(fault.said.to_lowercase().contains("connect"), "the CA's own sentence: {fault}");
        assert!(fault.likely.as_ref().unwrap().contains(port), "{fault}");
    }
}

#[tokio::test]
async fn another_server_in_our_place_is_told() {
    let Some(pebble) = Pebble::start(Manner::default()).await else { return };
    // The answers are put up on the board of another edge than the one that the CA asks.
    let elsewhere = Edge::new().await;
    let clerk = Clerk::default();
    for challenge in [Challenge::Http01, Challenge::TlsAlpn01] {
        let fault = clerk.order(&pebble.ca(), &job(&["y.a.test"], challenge), &elsewhere.certs).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Challenge, "{fault}");
        assert!(fault.to_string().contains("the DNS of y.a.test (A and AAAA) points elsewhere"), "{fault}");
    }
}

#[tokio::test]
async fn a_name_the_ca_will_not_sign_is_told() {
    let Some(pebble) = Pebble::start(Manner::default()).await else { return };
    let wanted = job(&["blocked.test"], Challenge::Http01);
    let fault = Clerk::default().order(&pebble.ca(), &wanted, &pebble.edge.certs).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
    assert!(fault.said.contains("blocked.test"), "the CA's own sentence: {fault}");
    assert!(fault.likely.is_some(), "{fault}");
}

#[tokio::test]
async fn a_ca_that_dies_in_an_order_ends_it_and_leaves_nothing_up() {
    let Some(mut pebble) = Pebble::start(Manner::default()).await else { return };
    let clerk = Clerk::default();
    let (ca, wanted) = (pebble.ca(), job(&["d.a.test"], Challenge::Http01));
    let certs = std::sync::Arc::clone(&pebble.edge.certs);
    let working = clerk.clone();
    let order = tokio::spawn(async move { working.order(&ca, &wanted, &certs).await });
    let deadline = Instant::now() + Duration::from_secs(30);
    while !clerk.logged().contains("order placed") {
        assert!(Instant::now() < deadline && !order.is_finished());
        tokio::task::yield_now().await;
    }
    pebble.kill();
    let fault = order.await.unwrap().unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unreachable, "{fault}");
    assert!(format!("{:?}", pebble.edge.certs.board()).contains("http: {}"), "{:?}", pebble.edge.certs.board());
    // It comes back without memory of us: the next order succeeds.
    pebble.restart().await;
    clerk.order(&pebble.ca(), &job(&["d.a.test"], Challenge::Http01), &pebble.edge.certs).await.unwrap();
}

#[tokio::test]
async fn a_ca_that_hangs_or_refuses_connections_costs_a_bounded_time() {
    let edge = Edge::new().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = TcpListener::bind("127.0.7.1:0").await.unwrap().local_addr().unwrap();
    for (address, said) in [(silent.local_addr().unwrap(), "gave no answer in 200ms"), (closed, "refused")] {
        let mut ca = clerk::ca(clerk::authority(format!("http://{address}/dir")));
        ca.patience =
            Patience { call: Duration::from_millis(200), order: Duration::from_secs(60), ..Patience::default() };
        let fault = Clerk::default().order(&ca, &job(&["h.a.test"], Challenge::Http01), &edge.certs).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Unreachable, "{fault}");
        assert!(fault.said.contains(said), "{fault}");
    }
}

#[tokio::test]
async fn an_account_that_cannot_be_kept_is_not_used() {
    let Some(pebble) = Pebble::start(Manner::default()).await else { return };
    let clerk = Clerk::default();
    *clerk.fails_after.lock() = Some(0);
    let wanted = job(&["u.a.test"], Challenge::Http01);
    let fault = clerk.order(&pebble.ca(), &wanted, &pebble.edge.certs).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Internal, "{fault}");
    assert!(fault.said.contains("could not be kept"), "{fault}");
    assert!(!clerk.logged().contains("order placed"), "{}", clerk.logged());
}

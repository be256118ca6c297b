//! RFC 2136 with TSIG, against Knot.

use std::sync::Arc;

use hickory_proto::op::Message;
use relais_core::config::{DnsChallenge, DnsProvider, Secret, TsigAlgorithm};
use relais_tls::acme::dns::Dns;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::knot::{Knot, SECRET};
use crate::{blind, dns, plan, present, refused, seeing};

const NAME: &str = "_acme-challenge.www.a.test";

#[tokio::test]
async fn a_record_is_written_seen_and_removed() {
    let Some(knot) = Knot::start(&[("a.test", "")]).await else { return };
    let dns = dns(seeing(knot.provider(), knot.address)).with_port(knot.address.port());
    let presented = present(&dns, &[("www.a.test", "-first_value")]).await.unwrap();
    assert_eq!(presented.undos()[0].fqdn, NAME);
    assert_eq!(knot.texts(NAME).await, ["-first_value"]);
    assert_eq!(presented.clean().await, []);
    assert!(knot.texts(NAME).await.is_empty());
    // Removing what is not there is no fault, nor is writing what is there.
    let again = plan(&dns, &[("www.a.test", "second")]).await.unwrap();
    dns.clean(&again[0]).await.unwrap();
    let one = dns.present(again.clone()).await.unwrap();
    let two = dns.present(again).await.unwrap();
    assert_eq!(knot.texts(NAME).await, ["second"]);
    assert_eq!((one.clean().await, two.clean().await), (vec![], vec![]));
}

#[tokio::test]
async fn a_wildcard_and_its_apex_are_proven_at_one_name_at_the_same_time() {
    let Some(knot) = Knot::start(&[("a.test", "_acme-challenge TXT \"somebody else's\"")]).await else { return };
    // Without `resolvers` of its own, those of the edge are asked.
    let declared = DnsChallenge { resolvers: Vec::new(), ..seeing(knot.provider(), knot.address) };
    let dns = Dns::new(&[Arc::new(declared)], &[knot.address]).unwrap().with_port(knot.address.port());
    let name = "_acme-challenge.a.test";
    let presented = present(&dns, &[("a.test", "apex"), ("*.a.test", "wildcard")]).await.unwrap();
    assert!(presented.undos().iter().all(|undo| undo.fqdn == name && undo.host == "a.test"), "{presented:?}");
    assert_eq!(knot.texts(name).await, ["apex", "somebody else's", "wildcard"]);
    // Another order ends meanwhile: each takes away its own.
    let other = present(&dns, &[("A.test", "other")]).await.unwrap();
    assert_eq!(presented.clean().await, []);
    assert_eq!(knot.texts(name).await, ["other", "somebody else's"]);
    assert_eq!(other.clean().await, []);
    assert_eq!(knot.texts(name).await, ["somebody else's"]);
}

#[tokio::test]
async fn more_values_than_a_udp_answer_holds_are_seen() {
    let Some(knot) = Knot::start(&[("a.test", "")]).await else { return };
    let dns = dns(seeing(knot.provider(), knot.address)).with_port(knot.address.port());
    let long = |number: usize| format!("{number:02}-{}", "v".repeat(120));
    let values: Vec<(String, String)> = (0..15).map(|number| ("a.test".to_owned(), long(number))).collect();
    let presented = dns.present(dns.plan(&values).await.unwrap()).await.unwrap();
    assert_eq!(knot.texts("_acme-challenge.a.test").await.len(), 15);
    assert_eq!(presented.clean().await, []);
    assert!(knot.texts("_acme-challenge.a.test").await.is_empty());
}

#[tokio::test]
async fn all_algorithms_sign() {
    let Some(knot) = Knot::start(&[("a.test", "")]).await else { return };
    for (key, algorithm) in [("relais-384", TsigAlgorithm::HmacSha384), ("RELAIS-512.", TsigAlgorithm::HmacSha512)] {
        let dns = dns(blind(knot.provider_with(key, algorithm, SECRET, Some("a.test"))));
        let presented = present(&dns, &[("www.a.test", key)]).await.unwrap();
        assert_eq!(knot.texts(NAME).await, [key]);
        assert_eq!(presented.clean().await, []);
    }
}

#[tokio::test]
async fn what_the_server_refuses_is_said_with_the_way_out() {
    let Some(knot) = Knot::start(&[("a.test", "")]).await else { return };
    let sha256 = TsigAlgorithm::HmacSha256;
    let wrong = "d3JvbmcgYnV0IG9mIHRoZSByaWdodCBsZW5ndGguLi4=";
    let of = |provider: DnsProvider| dns(blind(provider));
    let said = refused(&of(knot.provider_with("relais", sha256, wrong, Some("a.test"))), "a.test").await;
    assert!(said.contains("the signature is wrong; check `secret`"), "{said}");
    assert!(!said.contains(wrong), "{said}");
    let said = refused(&of(knot.provider_with("nobody", sha256, SECRET, Some("a.test"))), "a.test").await;
    assert!(said.contains("does not take the key; check `key_name` (nobody.)"), "{said}");
    let said = refused(&of(knot.provider_with("reader", sha256, SECRET, Some("a.test"))), "a.test").await;
    assert!(said.contains("may update TXT records of a.test."), "{said}");
    let said = refused(&of(knot.provider_with("relais", sha256, SECRET, Some("b.test"))), "www.b.test").await;
    assert!(said.contains("it is not the primary server of b.test."), "{said}");
    let said = refused(&of(knot.provider_with("relais", sha256, SECRET, Some("b.test"))), "www.a.test").await;
    assert!(said.contains("_acme-challenge.www.a.test. is not in the zone b.test."), "{said}");
    assert!(knot.texts("_acme-challenge.a.test").await.is_empty());
    drop(knot);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said() {
    let nobody = "127.0.0.1:1".parse().unwrap();
    let secret = Secret::new(SECRET);
    let provider = DnsProvider::Rfc2136 {
        server: nobody,
        zone: Some("a.test".to_owned()),
        key_name: "k".to_owned(),
        algorithm: TsigAlgorithm::HmacSha256,
        secret,
    };
    let said = refused(&dns(blind(provider)), "a.test").await;
    assert!(said.contains("at 127.0.0.1:1 failed: Connection refused"), "{said}");
    assert!(said.ends_with("check `server`, and that it can be reached by TCP"), "{said}");
}

/// Whoever is in between can say "done"; only the server can sign it.
#[tokio::test]
async fn an_answer_that_is_not_signed_is_not_believed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut message = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut message).await.unwrap();
            let update = Message::from_vec(&message).unwrap();
            assert!(update.signature().is_some());
            let done = Message::response(update.id, update.op_code).to_vec().unwrap();
            let length = u16::try_from(done.len()).unwrap().to_be_bytes();
            stream.write_all(&[&length, &done[..]].concat()).await.unwrap();
        }
    });
    let provider = DnsProvider::Rfc2136 {
        server: address,
        zone: Some("a.test".to_owned()),
        key_name: "k".to_owned(),
        algorithm: TsigAlgorithm::HmacSha256,
        secret: Secret::new(SECRET),
    };
    let said = refused(&dns(blind(provider)), "a.test").await;
    assert!(said.contains("the answer is not signed as it must be"), "{said}");
}

#[test]
fn a_key_that_is_none_is_said_at_once() {
    let provider = DnsProvider::Rfc2136 {
        server: "127.0.0.1:1".parse().unwrap(),
        zone: None,
        key_name: "k".to_owned(),
        algorithm: TsigAlgorithm::HmacSha256,
        secret: Secret::new("not/base=64"),
    };
    let said = Dns::new(&[Arc::new(blind(provider))], &[]).unwrap_err();
    assert!(said.contains("[acme.dns.test]: the `secret` of the TSIG key is not base64"), "{said}");
    assert!(!said.contains("not/base"), "{said}");
}

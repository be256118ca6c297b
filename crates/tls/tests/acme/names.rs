//! dns-01: the records are written by a webhook into the name server that the CA asks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use parking_lot::Mutex;
use relais_core::config::{Challenge, DnsChallenge, DnsProvider};
use relais_tls::acme::FaultKind;
use relais_tls::acme::client::Client;
use relais_tls::acme::dns::Dns;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::clerk::{Clerk, job};
use crate::pebble::{Manner, Pebble};

/// What the webhook was asked, as `present FQDN`.
type Calls = Arc<Mutex<Vec<String>>>;

/// A webhook that sets records at the management of `pebble-challtestsrv`; without one it only says so.
async fn webhook(names: Option<SocketAddr>) -> (Dns, Calls) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let calls = Calls::default();
    let noted = Arc::clone(&calls);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let noted = Arc::clone(&noted);
            tokio::spawn(async move { serve(stream, names, &noted).await });
        }
    });
    let declared = DnsChallenge {
        name: "hook".into(),
        zones: Vec::new(),
        provider: DnsProvider::Webhook { url, headers: Vec::new() },
        delegation: false,
        propagation_timeout: Duration::ZERO,
        resolvers: Vec::new(),
    };
    (Dns::new(&[Arc::new(declared)], &[]).unwrap(), calls)
}

async fn serve(stream: TcpStream, names: Option<SocketAddr>, calls: &Calls) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        while stream.read_line(&mut line).await.ok()? > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            line.clear();
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let asked: Value = serde_json::from_slice(&body).ok()?;
        let (action, fqdn) = (asked["action"].as_str()?, asked["fqdn"].as_str()?);
        if let Some(names) = names {
            let (path, record) = match action {
                "present" => ("set-txt", json!({"host": format!("{fqdn}."), "value": asked["value"]})),
                _ => ("clear-txt", json!({"host": format!("{fqdn}.")})),
            };
            let request =
                Request::post(format!("http://{names}/{path}")).body(Bytes::from(record.to_string())).unwrap();
            let set = Client::new(None).unwrap().send(request, Duration::from_secs(20)).await.unwrap();
            assert!(set.status().is_success(), "{set:?}");
        }
        calls.lock().push(format!("{action} {fqdn}"));
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.ok()?;
    }
}

#[tokio::test]
async fn a_wildcard_and_its_domain_are_proven_by_two_records_at_one_name() {
    let Some(pebble) = Pebble::start(Manner::default()).await else { return };
    let (dns, calls) = webhook(Some(pebble.dns_management)).await;
    let clerk = Clerk { dns: Some(dns), ..Clerk::default() };
    let wanted = job(&["*.w.a.test", "w.a.test"], Challenge::Dns01);
    let mut hosts = clerk.order(&pebble.ca(), &wanted, &pebble.edge.certs).await.unwrap().hosts;
    hosts.sort();
    assert_eq!(hosts, ["*.w.a.test", "w.a.test"]);
    let name = "_acme-challenge.w.a.test";
    let (present, cleanup) = (format!("present {name}"), format!("cleanup {name}"));
    assert_eq!(*calls.lock(), [present.clone(), present, cleanup.clone(), cleanup]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !clerk.records.lock().is_empty() {
        assert!(Instant::now() < deadline, "what was noted is not taken back: {}", clerk.logged());
        tokio::task::yield_now().await;
    }
    assert!(clerk.logged().contains("2 DNS records to be written"), "{}", clerk.logged());
}

#[tokio::test]
async fn records_that_the_ca_does_not_see_are_told_and_removed() {
    let Some(pebble) = Pebble::start(Manner::default()).await else { return };
    let (dns, calls) = webhook(None).await;
    let clerk = Clerk { dns: Some(dns), ..Clerk::default() };
    let fault =
        clerk.order(&pebble.ca(), &job(&["*.w.a.test"], Challenge::Dns01), &pebble.edge.certs).await.unwrap_err();
    assert_eq!((fault.kind, fault.challenge), (FaultKind::Challenge, Some(Challenge::Dns01)), "{fault}");
    assert!(fault.to_string().contains("did not see the TXT record of _acme-challenge.w.a.test"), "{fault}");
    assert_eq!(*calls.lock(), ["present _acme-challenge.w.a.test", "cleanup _acme-challenge.w.a.test"]);
}

#[tokio::test]
async fn a_wildcard_without_anybody_who_writes_is_told() {
    let Some(pebble) = Pebble::start(Manner::default()).await else { return };
    let wanted = job(&["*.w.a.test"], Challenge::Dns01);
    let fault = Clerk::default().order(&pebble.ca(), &wanted, &pebble.edge.certs).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Dns, "{fault}");
    assert!(fault.to_string().contains("declare an `[acme.dns.NAME]`"), "{fault}");
}

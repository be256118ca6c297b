//! Ordered certificates beside those of files and of the local CA: put in one by one, kept through a reload, served even
//! when expired; and the handshake of a CA that looks for a challenge certificate.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use relais_core::config::{Secret, TlsSource};
use relais_tls::{CertSource, CertStore, Issued};
use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};
use support::{Ca, DAY, Pair, config, curious, load, service, shake};

fn issued(name: &str, pair: &Pair) -> Issued {
    Issued { name: name.into(), chain_pem: pair.cert.clone(), key_pem: Secret::new(&pair.key) }
}

fn offering(protocols: &[&[u8]]) -> ClientConfig {
    let mut client = curious(&[&TLS13, &TLS12]);
    client.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    client
}

fn anyone() -> ClientConfig {
    curious(&[&TLS13, &TLS12])
}

#[tokio::test]
async fn they_come_and_go_one_by_one_and_touch_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let (file, first, second) = (ca.sign(&["file.test"]), ca.sign(&["a.test"]), ca.sign(&["a.test"]));
    let other = ca.sign(&["*.b.test", "file.test"]);
    let mut config = config(TlsSource::Files);
    config.certificates = vec![file.put(dir.path(), "file")];
    let store = load(&config, dir.path());
    let server = store.server_config(&config.edge.client_tls()).unwrap();
    assert_eq!(store.install_issued(&[issued("a.test", &first), issued("*.b.test", &other)]), []);
    let leaf = async |name: &str| shake(&server, &anyone(), name).await.map(|seen| seen.leaf);
    assert!(leaf("a.test").await.unwrap() == first.der);
    assert!(leaf("x.b.test").await.unwrap() == other.der);
    assert!(leaf("file.test").await.unwrap() == file.der, "the operator's own files win");

    assert_eq!(store.install_issued(&[issued("a.test", &second)]), []);
    assert!(leaf("a.test").await.unwrap() == second.der);
    store.install(CertStore::load(&config, dir.path()).unwrap());
    assert!(leaf("a.test").await.unwrap() == second.der, "a reload keeps it");
    let told: Vec<_> = store.certificates().into_iter().map(|info| (info.name, info.source)).collect();
    let acme = |name: &str| (name.to_string(), CertSource::Acme);
    assert_eq!(told, [("file".to_string(), CertSource::Files), acme("*.b.test"), acme("a.test")]);

    store.remove_issued("a.test");
    store.remove_issued("never.test");
    let why = leaf("a.test").await.unwrap_err();
    assert!(why.contains("AccessDenied"), "{why}");
    assert!(leaf("x.b.test").await.unwrap() == other.der);
}

#[tokio::test]
async fn one_that_cannot_be_served_leaves_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let (good, stranger) = (ca.sign(&["a.test"]), ca.sign(&["a.test"]));
    let config = config(TlsSource::Files);
    let store = load(&config, dir.path());
    assert_eq!(store.install_issued(&[issued("a.test", &good)]), []);
    let mixed = Pair { key: stranger.key.clone(), ..good.clone() };
    let empty = Pair { cert: String::new(), ..good.clone() };
    let problems = store.install_issued(&[issued("a.test", &mixed), issued("a.test", &empty)]);
    let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert!(said[0].contains("the key does not belong to the certificate"), "{said:?}");
    assert!(said[1].contains("there is no certificate in it"), "{said:?}");
    assert!(!said.join("").contains("PRIVATE"));
    let server = store.server_config(&config.edge.client_tls()).unwrap();
    assert!(shake(&server, &anyone(), "a.test").await.unwrap().leaf == good.der);
}

#[tokio::test]
async fn an_expired_one_is_served_and_its_end_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let expired = Ca::new().sign_for(&["a.test"], -90 * DAY, -2 * DAY - 60, &rcgen::KeyPair::generate().unwrap());
    let config = config(TlsSource::Files);
    let store = load(&config, dir.path());
    assert_eq!(store.install_issued(&[issued("a.test", &expired)]), []);
    assert!(
        shake(&store.server_config(&config.edge.client_tls()).unwrap(), &anyone(), "a.test").await.unwrap().leaf
            == expired.der
    );
    assert_eq!(store.certificates()[0].problem.as_deref(), Some("expired 2 days ago"));
}

#[tokio::test]
async fn who_sends_no_name_gets_the_certificate_of_an_address() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let (named, addressed) = (ca.sign(&["a.test"]), ca.sign(&["192.0.2.7"]));
    let config = config(TlsSource::Files);
    let store = load(&config, dir.path());
    assert_eq!(store.install_issued(&[issued("a.test", &named), issued("z", &addressed)]), []);
    // rustls sends no name for an address.
    assert!(
        shake(&store.server_config(&config.edge.client_tls()).unwrap(), &anyone(), "192.0.2.7").await.unwrap().leaf
            == addressed.der
    );
}

#[tokio::test]
async fn only_a_client_that_offers_nothing_else_is_taken_for_the_ca() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(TlsSource::Internal);
    config.services = vec![service("a", &["a.test"], TlsSource::Internal)];
    let store = load(&config, dir.path());
    let server = store.server_config(&config.edge.client_tls()).unwrap();
    // No challenge is under way: the CA's handshake fails, whatever else could be shown.
    let why = shake(&server, &offering(&[b"acme-tls/1"]), "a.test").await.unwrap_err();
    assert!(why.contains("AccessDenied"), "{why}");
    let seen = shake(&server, &offering(&[b"acme-tls/1", b"http/1.1"]), "a.test").await.unwrap();
    assert_eq!(seen.alpn.as_deref(), Some("http/1.1"));
    assert!(!CertStore::is_challenge(seen.alpn.as_ref().map(|name| name.as_bytes())));
    assert!(CertStore::is_challenge(Some(b"acme-tls/1")) && !CertStore::is_challenge(None));
}

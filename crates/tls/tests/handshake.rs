//! Handshakes with real clients: which certificate, version, protocol and key exchange they get.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;

use rcgen::{KeyPair, PKCS_RSA_SHA256};
use relais_core::config::{TlsSource, TlsVersion};
use relais_tls::{CertSource, CertStore};
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion, SignatureScheme};
use support::{Ca, DAY, config, curious, curious_with, load, service, shake, shake_shared, trusting};

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];

#[tokio::test]
async fn the_name_chooses_the_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let (exact, wild, other) = (ca.sign(&["api.a.fr", "a.fr"]), ca.sign(&["*.a.fr"]), ca.sign(&["b.fr", "192.0.2.7"]));
    let mut config = config(TlsSource::Files);
    config.certificates =
        vec![other.put(dir.path(), "other"), wild.put(dir.path(), "wild"), exact.put(dir.path(), "exact")];
    let server = load(&config, dir.path()).server_config(&config.edge.client_tls()).unwrap();
    let client = trusting(&[&ca.der]);
    for (name, expected) in [
        ("api.a.fr", &exact),
        ("a.fr", &exact),
        ("www.a.fr", &wild),
        ("WWW.A.fr", &wild),
        ("API.a.FR", &exact),
        ("b.fr", &other),
        // An address is sent as no name at all: the first certificate.
        ("192.0.2.7", &other),
    ] {
        let seen = shake(&server, &client, name).await.unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!(seen.leaf == expected.der, "wrong certificate for {name}");
    }
    for name in ["a.b.a.fr", "c.fr", "fr", "xa.fr"] {
        let why = shake(&server, &client, name).await.expect_err(name);
        assert!(why.contains("AccessDenied"), "{name}: {why}");
    }
    let mut silent = client.clone();
    silent.enable_sni = false;
    assert!(shake(&server, &silent, "b.fr").await.unwrap().leaf == other.der);
}

#[tokio::test]
async fn the_client_chooses_the_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(TlsSource::Internal);
    let server = load(&config, dir.path()).server_config(&config.edge.client_tls()).unwrap();
    for (offered, expected) in [
        (vec!["h2", "http/1.1"], Some("h2")),
        (vec!["http/1.1", "h2"], Some("h2")),
        (vec!["http/1.1"], Some("http/1.1")),
        (vec![], None),
    ] {
        let mut client = curious(BOTH);
        client.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        assert_eq!(shake(&server, &client, "localhost").await.unwrap().alpn.as_deref(), expected, "{offered:?}");
    }
    let mut client = curious(BOTH);
    client.alpn_protocols = vec![b"spdy/3".to_vec()];
    let why = shake(&server, &client, "localhost").await.unwrap_err();
    assert!(why.contains("NoApplicationProtocol"), "{why}");
}

#[tokio::test]
async fn the_lowest_version_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(TlsSource::Internal);
    let store = load(&config, dir.path());
    let from_12 = store.server_config(&config.edge.client_tls()).unwrap();
    config.edge.min_tls = TlsVersion::Tls13;
    let from_13 = store.server_config(&config.edge.client_tls()).unwrap();
    let (old, new) = (curious(&[&TLS12]), curious(BOTH));
    assert_eq!(shake(&from_12, &old, "localhost").await.unwrap().version, ProtocolVersion::TLSv1_2);
    assert_eq!(shake(&from_12, &new, "localhost").await.unwrap().version, ProtocolVersion::TLSv1_3);
    assert_eq!(shake(&from_13, &new, "localhost").await.unwrap().version, ProtocolVersion::TLSv1_3);
    let why = shake(&from_13, &old, "localhost").await.unwrap_err();
    assert!(why.contains("ProtocolVersion"), "{why}");
}

#[tokio::test]
async fn key_exchange_is_post_quantum_where_the_client_can() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(TlsSource::Internal);
    let server = load(&config, dir.path()).server_config(&config.edge.client_tls()).unwrap();
    let groups = |kx_groups| rustls::crypto::CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() };
    // A client that prefers the classic group and knows the hybrid one still gets the hybrid one.
    let modern = groups(vec![kx_group::X25519MLKEM768, kx_group::X25519]);
    let seen = shake(&server, &curious_with(modern, BOTH, None), "localhost").await.unwrap();
    assert_eq!(seen.group, Some(NamedGroup::X25519MLKEM768));
    let classic = groups(vec![kx_group::X25519]);
    let seen = shake(&server, &curious_with(classic, BOTH, None), "localhost").await.unwrap();
    assert_eq!(seen.group, Some(NamedGroup::X25519));
    let nist = groups(vec![kx_group::SECP256R1]);
    let seen = shake(&server, &curious_with(nist, &[&TLS12], None), "localhost").await.unwrap();
    assert_eq!(seen.group, Some(NamedGroup::secp256r1));
}

#[tokio::test]
async fn sessions_resume_also_after_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(TlsSource::Internal);
    let store = load(&config, dir.path());
    let server = store.server_config(&config.edge.client_tls()).unwrap();
    assert_eq!(server.max_early_data_size, 0);
    for versions in [&[&TLS13][..], &[&TLS12]] {
        let client = Arc::new(curious(versions));
        let kind =
            async |server: &Arc<rustls::ServerConfig>| shake_shared(server, &client, "localhost").await.unwrap().kind;
        let first = kind(&server).await;
        assert!(matches!(first, HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest), "{first:?}");
        assert_eq!(kind(&server).await, HandshakeKind::Resumed);
        store.install(CertStore::load(&config, dir.path()).unwrap());
        let server = store.server_config(&config.edge.client_tls()).unwrap();
        assert_eq!(kind(&server).await, HandshakeKind::Resumed, "after a reload");
        if versions == [&TLS13] {
            let mut stricter = config.clone();
            stricter.edge.min_tls = TlsVersion::Tls13;
            let strict = store.server_config(&stricter.edge.client_tls()).unwrap();
            assert_eq!(kind(&strict).await, HandshakeKind::Resumed, "with a stricter version");
        }
    }
}

#[tokio::test]
async fn install_swaps_while_serving() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let (old, new) = (ca.sign(&["a.fr"]), ca.sign(&["a.fr"]));
    let mut config = config(TlsSource::Files);
    config.certificates = vec![old.put(dir.path(), "a")];
    let store = load(&config, dir.path());
    let server = store.server_config(&config.edge.client_tls()).unwrap();
    // A new client each time: one that resumes its session sees no certificate.
    let client = || trusting(&[&ca.der]);
    assert!(shake(&server, &client(), "a.fr").await.unwrap().leaf == old.der);
    new.put(dir.path(), "a");
    assert!(shake(&server, &client(), "a.fr").await.unwrap().leaf == old.der, "files alone change nothing");
    store.install(CertStore::load(&config, dir.path()).unwrap());
    assert!(shake(&server, &client(), "a.fr").await.unwrap().leaf == new.der);
}

#[tokio::test]
async fn a_valid_certificate_wins_over_an_expired_one() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let expired = ca.sign_for(&["x.a.fr"], -90 * DAY, -3 * DAY - 60, &KeyPair::generate().unwrap());
    let renewed = ca.sign(&["*.a.fr", "b.fr"]);
    let mut config = config(TlsSource::Files);
    config.certificates = vec![expired.put(dir.path(), "expired"), renewed.put(dir.path(), "renewed")];
    let server = load(&config, dir.path()).server_config(&config.edge.client_tls()).unwrap();
    assert!(shake(&server, &trusting(&[&ca.der]), "x.a.fr").await.unwrap().leaf == renewed.der);
    // Alone it is served, with its dates said: a client that looks away still works.
    config.certificates.pop();
    let store = load(&config, dir.path());
    let problem = store.certificates()[0].problem.clone();
    assert_eq!(problem.as_deref(), Some("expired 3 days ago"));
    let server = store.server_config(&config.edge.client_tls()).unwrap();
    assert!(shake(&server, &curious(BOTH), "x.a.fr").await.unwrap().leaf == expired.der);
    let why = shake(&server, &trusting(&[&ca.der]), "x.a.fr").await.unwrap_err();
    assert!(why.contains("Expired") || why.contains("expired"), "{why}");
}

#[tokio::test]
async fn rsa_and_ecdsa_stand_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let ecdsa = ca.sign(&["a.fr"]);
    let rsa = ca.sign_for(&["a.fr"], -DAY, DAY, &KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap());
    let mut config = config(TlsSource::Files);
    config.certificates = vec![ecdsa.put(dir.path(), "ecdsa"), rsa.put(dir.path(), "rsa")];
    let server = load(&config, dir.path()).server_config(&config.edge.client_tls()).unwrap();
    let only = |scheme| curious_with(aws_lc_rs::default_provider(), BOTH, Some(vec![scheme]));
    let seen = shake(&server, &only(SignatureScheme::RSA_PSS_SHA256), "a.fr").await.unwrap();
    assert!(seen.leaf == rsa.der);
    let seen = shake(&server, &only(SignatureScheme::ECDSA_NISTP256_SHA256), "a.fr").await.unwrap();
    assert!(seen.leaf == ecdsa.der);
}

#[tokio::test]
async fn unknown_names_follow_the_catch_all_service() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(TlsSource::Files);
    config.services = vec![service("dev", &["dev.test"], TlsSource::Internal)];
    let store = load(&config, dir.path());
    let why =
        shake(&store.server_config(&config.edge.client_tls()).unwrap(), &curious(BOTH), "else.test").await.unwrap_err();
    assert!(why.contains("AccessDenied"), "{why}");
    assert_eq!(store.certificates().len(), 1);

    config.services.push(service("rest", &["*"], TlsSource::Internal));
    store.install(CertStore::load(&config, dir.path()).unwrap());
    let server = store.server_config(&config.edge.client_tls()).unwrap();
    let fallback = shake(&server, &curious(BOTH), "else.test").await.unwrap().leaf;
    let own = shake(&server, &curious(BOTH), "dev.test").await.unwrap().leaf;
    assert!(fallback != own);
    let infos = store.certificates();
    let default = infos.last().unwrap();
    assert_eq!((default.name.as_str(), default.source), ("default", CertSource::Internal));
    assert_eq!(default.hosts, ["localhost", "127.0.0.1", "::1", "192.0.2.9"]);

    config.edge.tls = TlsSource::Internal;
    config.services = vec![service("rest", &["*"], TlsSource::Files)];
    store.install(CertStore::load(&config, dir.path()).unwrap());
    assert_eq!(store.certificates(), []);
    shake(&server, &curious(BOTH), "else.test").await.unwrap_err();
}

//! TLS towards backends: whom relais believes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, IsCa, KeyPair};
use relais_core::config::{TlsSource, UpstreamProtocol, UpstreamTls};
use relais_tls::{CertStore, upstream};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::{NamedGroup, ServerConfig};
use support::{Ca, DAY, Pair, config, load, params, shake};

fn backend(pair: &Pair, alpn: &[&str]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![pair.der.clone()], PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap())
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

fn trust(ca: Option<&Path>, verify: bool) -> UpstreamTls {
    UpstreamTls { sni: None, ca: ca.map(Path::to_path_buf), verify }
}

/// As `openssl req -x509` makes them: its own CA.
fn self_signed(hosts: &[&str], from: i64, until: i64) -> Pair {
    let key = KeyPair::generate().unwrap();
    let mut params = params(hosts, from, until);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    Pair { cert: certificate.pem(), key: key.serialize_pem(), der: certificate.der().clone() }
}

async fn meets(pair: &Pair, tls: &UpstreamTls, name: &str) -> Result<support::Seen, String> {
    shake(&backend(pair, &[]), &*upstream::client_config(tls, UpstreamProtocol::H1)?, name).await
}

#[tokio::test]
async fn the_ca_of_the_file_is_believed_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Ca::new(), Ca::new());
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, &ours.pem).unwrap();
    let tls = trust(Some(&file), true);
    let seen = meets(&ours.sign(&["b.internal", "10.0.0.1"]), &tls, "b.internal").await.unwrap();
    assert_eq!(seen.group, Some(NamedGroup::X25519MLKEM768));
    meets(&ours.sign(&["10.0.0.1"]), &tls, "10.0.0.1").await.unwrap();
    for (pair, why) in [
        (theirs.sign(&["b.internal"]), "UnknownIssuer"),
        (ours.sign(&["c.internal"]), "not valid for name"),
        (ours.sign_for(&["b.internal"], -9 * DAY, -DAY, &KeyPair::generate().unwrap()), "expired"),
        (self_signed(&["b.internal"], -DAY, DAY), ""),
    ] {
        let said = meets(&pair, &tls, "b.internal").await.unwrap_err();
        assert!(said.contains(why), "{why} is missing in: {said}");
    }
    meets(&ours.sign(&["b.internal"]), &trust(None, true), "b.internal").await.unwrap_err();
}

#[tokio::test]
async fn a_self_signed_backend_is_declared_by_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backend.pem");
    let (good, old) = (self_signed(&["b.internal"], -DAY, DAY), self_signed(&["b.internal"], -9 * DAY, -DAY));
    let early = self_signed(&["b.internal"], DAY, 9 * DAY);
    std::fs::write(&file, good.cert.clone() + &old.cert + &early.cert).unwrap();
    let tls = trust(Some(&file), true);
    meets(&good, &tls, "b.internal").await.unwrap();
    for (pair, name, why) in [
        (&good, "c.internal", "NotValidForName"),
        (&old, "b.internal", "xpired"),
        (&early, "b.internal", "NotValidYet"),
    ] {
        let said = meets(pair, &tls, name).await.unwrap_err();
        assert!(said.contains(why) || said.contains("not valid"), "{why} is missing in: {said}");
    }
    let stranger = self_signed(&["b.internal"], -DAY, DAY);
    meets(&stranger, &tls, "b.internal").await.unwrap_err();
}

#[tokio::test]
async fn without_verification_anyone_is_believed() {
    meets(&self_signed(&["x"], -9 * DAY, -DAY), &trust(None, false), "b.internal").await.unwrap();
}

#[tokio::test]
async fn the_protocol_decides_what_is_offered() {
    let pair = Ca::new().sign(&["b.internal"]);
    for (protocol, spoken, expected) in [
        (UpstreamProtocol::H1, &["h2", "http/1.1"][..], Ok("http/1.1")),
        (UpstreamProtocol::H2, &["h2", "http/1.1"], Ok("h2")),
        (UpstreamProtocol::Auto, &["h2", "http/1.1"], Ok("h2")),
        (UpstreamProtocol::Auto, &["http/1.1"], Ok("http/1.1")),
        (UpstreamProtocol::H2, &["http/1.1"], Err("NoApplicationProtocol")),
    ] {
        let client = upstream::client_config(&trust(None, false), protocol).unwrap();
        match (shake(&backend(&pair, spoken), &client, "b.internal").await, expected) {
            (Ok(seen), Ok(expected)) => assert_eq!(seen.alpn.as_deref(), Some(expected), "{protocol:?}"),
            (Err(said), Err(why)) => assert!(said.contains(why), "{said}"),
            (seen, expected) => panic!("{protocol:?}: {seen:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn a_ca_file_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    let said = || upstream::client_config(&trust(Some(&file), true), UpstreamProtocol::H1).unwrap_err();
    assert!(said().contains("ca.pem does not exist; correct the path"), "{}", said());
    std::fs::write(&file, "junk").unwrap();
    assert!(said().starts_with(&format!("the CA file {} holds no PEM certificate", file.display())), "{}", said());
}

#[test]
fn settings_are_kept_until_the_next_reload() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(TlsSource::Files);
    let store = load(&config, dir.path());
    let file = dir.path().join("ca.pem");
    let tls = trust(Some(&file), true);
    store.client_config(&tls, UpstreamProtocol::H1).unwrap_err();
    std::fs::write(&file, Ca::new().pem).unwrap();
    let first = store.client_config(&tls, UpstreamProtocol::H1).expect("a failure is not kept");
    assert!(Arc::ptr_eq(&first, &store.client_config(&tls, UpstreamProtocol::H1).unwrap()));
    assert!(!Arc::ptr_eq(&first, &store.client_config(&tls, UpstreamProtocol::H2).unwrap()));
    store.install(CertStore::load(&config, dir.path()).unwrap());
    assert!(!Arc::ptr_eq(&first, &store.client_config(&tls, UpstreamProtocol::H1).unwrap()));
}

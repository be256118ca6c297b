//! The local CA: kept, believed, healed, and never a reason not to serve.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use relais_core::config::{Config, TlsSource};
use relais_tls::{CertSource, CertStore, internal_ca};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use support::{DAY, config, load, params, said, service, shake, tickets, trusting};

fn dev() -> Config {
    let mut config = config(TlsSource::Internal);
    let long = format!("{}.{}.test", "a".repeat(60), "b".repeat(60));
    config.services = vec![service("dev", &["dev.test", "*.dev.test", "*", "192.0.2.77", &long], TlsSource::Internal)];
    config
}

fn root(dir: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(internal_ca::root_path(dir)).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("internal-ca")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn clients_that_trust_the_root_believe_every_host() {
    let dir = tempfile::tempdir().unwrap();
    let config = dev();
    let loaded = CertStore::load(&config, dir.path()).unwrap();
    assert_eq!(said(loaded.warnings()), "");
    let store = CertStore::new(loaded, tickets());
    let server = store.server_config(&config.edge.client_tls()).unwrap();
    let client = trusting(&[&root(dir.path())]);
    let long = format!("{}.{}.test", "a".repeat(60), "b".repeat(60));
    for name in ["dev.test", "x.dev.test", "localhost", &long] {
        shake(&server, &client, name).await.unwrap_or_else(|why| panic!("{name}: {why}"));
    }
    for info in store.certificates() {
        assert_eq!((info.source, info.issuer.as_str(), info.file), (CertSource::Internal, "relais local CA", None));
        assert_eq!(info.problem, None);
        let left = info.not_after.0 as i64 / 1_000_000 - support::unix_now();
        assert!((29 * DAY..=30 * DAY).contains(&left), "{left}");
    }
    let next = store.next_change().unwrap().0 as i64 / 1_000_000 - support::unix_now();
    assert!((19 * DAY..=20 * DAY).contains(&next), "{next}");
}

#[test]
fn the_root_is_kept_and_its_key_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("not/made/yet");
    load(&dev(), &state);
    let first = root(&state);
    let key = state.join("internal-ca/root.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let loaded = CertStore::load(&dev(), &state).unwrap();
    assert_eq!(loaded.warnings(), []);
    assert!(root(&state) == first);
    let ensured = internal_ca::ensure(&state).unwrap();
    assert_eq!((&ensured.certificate, &ensured.key), (&internal_ca::root_path(&state), &key));
    assert_eq!(ensured.fingerprint.len(), 32 * 3 - 1);
    assert_eq!(names(&state), ["lock", "root.crt", "root.key"]);
    let years = ensured.not_after.0 / 1_000_000 / DAY as u64 / 365;
    assert_eq!(years, (support::unix_now() / DAY / 365) as u64 + 10);
}

#[test]
fn trust_can_be_asked_before_the_first_start_and_many_times_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let prints: Vec<String> = std::thread::scope(|scope| {
        let ask = || internal_ca::ensure(dir.path()).unwrap().fingerprint;
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(prints.iter().all(|print| *print == prints[0]), "{prints:?}");
    assert_eq!(names(dir.path()), ["lock", "root.crt", "root.key"]);
    let loaded = CertStore::load(&dev(), dir.path()).unwrap();
    assert_eq!(loaded.warnings(), []);
    assert_eq!(internal_ca::ensure(dir.path()).unwrap().fingerprint, prints[0]);
}

/// Damages the CA, loads, and gives the warning; the service must be there in any case.
async fn healed(damage: impl Fn(&Path)) -> (tempfile::TempDir, CertificateDer<'static>, String) {
    let dir = tempfile::tempdir().unwrap();
    load(&dev(), dir.path());
    let before = root(dir.path());
    damage(&dir.path().join("internal-ca"));
    let loaded = CertStore::load(&dev(), dir.path()).unwrap();
    let warnings = said(loaded.warnings());
    let store = CertStore::new(loaded, tickets());
    let client = trusting(&[&root(dir.path())]);
    shake(&store.server_config(&dev().edge.client_tls()).unwrap(), &client, "dev.test").await.unwrap();
    // Healed for good.
    assert_eq!(said(CertStore::load(&dev(), dir.path()).unwrap().warnings()), "");
    (dir, before, warnings)
}

#[tokio::test]
async fn a_damaged_ca_is_set_aside_and_made_anew() {
    for (file, bytes) in [("root.crt", &b"junk"[..]), ("root.key", b"junk"), ("root.key", b""), ("root.crt", b"")] {
        let (dir, before, warnings) = healed(|ca| std::fs::write(ca.join(file), bytes).unwrap()).await;
        assert!(root(dir.path()) != before);
        assert!(warnings.contains("a new local CA was made: ") && warnings.contains("relais trust"), "{warnings}");
        assert!(warnings.contains(&format!("{file} is damaged")), "{warnings}");
        let names = names(dir.path());
        assert_eq!(names.len(), 5, "{names:?}");
        assert!(names[2].starts_with("root.crt.broken-20") && names[4].starts_with("root.key.broken-20"), "{names:?}");
        assert_eq!(
            std::fs::read(dir.path().join("internal-ca").join(if file == "root.crt" { &names[2] } else { &names[4] }))
                .unwrap(),
            bytes
        );
    }
    let other = KeyPair::generate().unwrap().serialize_pem();
    let (_dir, _, warnings) = healed(|ca| std::fs::write(ca.join("root.key"), &other).unwrap()).await;
    assert!(warnings.contains("does not belong to"), "{warnings}");
    let (_dir, _, warnings) = healed(|ca| std::fs::remove_file(ca.join("root.key")).unwrap()).await;
    assert!(warnings.contains("root.key is gone"), "{warnings}");
}

#[tokio::test]
async fn a_lost_certificate_is_made_again_from_its_key() {
    let (dir, before, warnings) = healed(|ca| std::fs::remove_file(ca.join("root.crt")).unwrap()).await;
    assert_eq!(warnings, "");
    // Machines that trust the old one go on believing.
    let store = load(&dev(), dir.path());
    shake(&store.server_config(&dev().edge.client_tls()).unwrap(), &trusting(&[&before]), "dev.test").await.unwrap();
}

#[tokio::test]
async fn a_root_near_its_end_or_no_ca_is_replaced() {
    let write = |ca: &Path, mut params: CertificateParams, is_ca: bool| {
        let key = KeyPair::generate().unwrap();
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        }
        std::fs::write(ca.join("root.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(ca.join("root.key"), key.serialize_pem()).unwrap();
    };
    let (_dir, _, warnings) = healed(|ca| write(ca, params(&[], -DAY, 29 * DAY), true)).await;
    assert!(warnings.contains("is at the end of its life (20"), "{warnings}");
    let (_dir, _, warnings) = healed(|ca| write(ca, params(&["x.fr"], -DAY, 90 * DAY), false)).await;
    assert!(warnings.contains("is no CA certificate"), "{warnings}");
    // One's own CA put there by hand is used as it is.
    let (_dir, _, warnings) = healed(|ca| write(ca, params(&[], -DAY, 90 * DAY), true)).await;
    assert_eq!(warnings, "");
}

/// A clock that is years ahead: the trust people gave is not lost for it, and who looks at the clock is told.
#[test]
fn a_root_that_has_ended_by_our_clock_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    load(&dev(), dir.path());
    let ca = dir.path().join("internal-ca");
    let key = KeyPair::from_pem(&std::fs::read_to_string(ca.join("root.key")).unwrap()).unwrap();
    let mut params = params(&[], -3_652 * DAY, -DAY);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(ca.join("root.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    let before = root(dir.path());
    for _ in 0..2 {
        let warnings = said(CertStore::load(&dev(), dir.path()).unwrap().warnings());
        assert!(
            warnings.contains("the local CA ended on 20") && warnings.contains("if the clock is wrong"),
            "{warnings}"
        );
        assert_eq!(root(dir.path()), before);
        assert!(internal_ca::find(dir.path()).unwrap().is_some(), "`relais trust` shows it");
    }
    assert_eq!(names(dir.path()).len(), 3, "{:?}", names(dir.path()));
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_written_costs_trust_not_service() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    for state in [file.as_path(), Path::new("/proc/relais")] {
        let loaded = CertStore::load(&dev(), state).unwrap();
        let text = said(loaded.warnings());
        assert!(text.contains("the local CA cannot be kept: /") && text.contains("`state_dir` in `[edge]`"), "{text}");
        let store = CertStore::new(loaded, tickets());
        let client = support::curious(&[&rustls::version::TLS13]);
        shake(&store.server_config(&dev().edge.client_tls()).unwrap(), &client, "dev.test").await.unwrap();
        let fault = internal_ca::ensure(state).unwrap_err().to_string();
        assert!(fault.starts_with(&state.display().to_string()), "{fault}");
    }
}

#[tokio::test]
async fn addresses_are_covered_for_clients_that_send_no_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(TlsSource::Internal);
    config.services = vec![service("dev", &["192.0.2.77"], TlsSource::Internal)];
    let store = load(&config, dir.path());
    let client = trusting(&[&root(dir.path())]);
    for name in ["localhost", "127.0.0.1", "::1", "192.0.2.9", "192.0.2.77"] {
        shake(&store.server_config(&config.edge.client_tls()).unwrap(), &client, name)
            .await
            .unwrap_or_else(|why| panic!("{name}: {why}"));
    }
    shake(&store.server_config(&config.edge.client_tls()).unwrap(), &client, "192.0.2.78").await.unwrap_err();
}

#[test]
fn a_stopped_holder_of_the_lock_does_not_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    load(&dev(), dir.path());
    let holder = std::fs::File::open(dir.path().join("internal-ca/lock")).unwrap();
    holder.lock().unwrap();
    let (done, waiting) = std::sync::mpsc::channel();
    let path = dir.path().to_path_buf();
    std::thread::spawn(move || done.send(CertStore::load(&dev(), &path).map(|loaded| loaded.warnings().len())));
    let warnings = waiting.recv_timeout(Duration::from_secs(60)).expect("load waits for the lock").unwrap();
    assert_eq!(warnings, 0);
}

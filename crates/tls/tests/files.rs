//! Certificate files as operators get them wrong, and what they are told.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rcgen::KeyPair;
use relais_core::config::{CertificateFiles, Config, ListenerProtocol, TlsSource};
use relais_tls::{CertProblem, CertStore};
use support::{Ca, DAY, config, declared, load, params, private, said, service, tickets};

fn with(files: Vec<CertificateFiles>) -> Config {
    let mut config = config(TlsSource::Files);
    config.certificates = files;
    config
}

/// The problems of one pair whose files hold these bytes.
fn problems(cert: &[u8], key: &[u8]) -> Vec<CertProblem> {
    let dir = tempfile::tempdir().unwrap();
    let files = declared(dir.path(), "shop");
    std::fs::write(&files.cert, cert).unwrap();
    std::fs::write(&files.key, key).unwrap();
    private(&files.key);
    let config = with(vec![files]);
    let checked = CertStore::check(&config);
    let loaded = CertStore::load(&config, dir.path()).expect_err("a bad pair was taken");
    assert_eq!(checked.problems, loaded, "check and load disagree");
    loaded
}

#[track_caller]
fn one(cert: &[u8], key: &[u8], words: &[&str]) {
    let problems = problems(cert, key);
    assert_eq!(problems.len(), 1, "{}", said(&problems));
    let text = said(&problems);
    assert!(text.starts_with("certificate `shop` (/"), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in: {text}");
    }
}

#[test]
fn wrong_content_is_named_with_the_way_out() {
    let ca = Ca::new();
    let (good, other) = (ca.sign(&["a.fr"]), ca.sign(&["a.fr"]));
    let (cert, key) = (good.cert.as_bytes(), good.key.as_bytes());
    one(
        cert,
        other.key.as_bytes(),
        &["shop.pem)", "shop.key does not belong to this certificate", "openssl pkey -pubout"],
    );
    let leaf_last = ca.pem + good.cert.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    one(leaf_last.as_bytes(), key, &["shop.key belongs to certificate number 2", "own certificate first"]);
    one(key, key, &["shop.pem): holds a key and no certificate"]);
    one(cert, cert, &["shop.key): holds a certificate and no key"]);
    one(b" \n", key, &["shop.pem): is empty"]);
    one(b"hello", key, &["shop.pem): holds no PEM certificate", "-----BEGIN CERTIFICATE-----"]);
    one(cert, b"hello", &["shop.key): holds no PEM key", "-----BEGIN PRIVATE KEY-----"]);
    one(&good.der, key, &["is DER, not PEM", "openssl x509 -inform der -in /"]);
    one(&cert[..300], key, &["shop.pem): is damaged"]);
    one(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", key, &["cannot be parsed"]);
    let encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    one(cert, encrypted, &["shop.key): holds a key protected by a password", "openssl pkey -in /", "chmod 600"]);
    let junk_key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    one(cert, junk_key, &["shop.key): holds a kind of key that TLS cannot use", "prime256v1"]);
}

#[test]
fn all_problems_are_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let good = ca.sign(&["a.fr"]).put(dir.path(), "good");
    let mixed =
        CertificateFiles { name: "mixed".into(), key: ca.sign(&["b.fr"]).put(dir.path(), "b").key, ..good.clone() };
    let nowhere = declared(&dir.path().join("no/where"), "nowhere");
    let folder =
        CertificateFiles { name: "folder".into(), cert: dir.path().into(), key: dir.path().join("absent.key") };
    let config = with(vec![mixed, good, nowhere, folder]);
    let problems = CertStore::load(&config, dir.path()).unwrap_err();
    let text = said(&problems);
    assert_eq!(problems.len(), 5, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("certificate `mixed`") && lines[0].contains("does not belong"), "{text}");
    assert!(lines[1].contains("nowhere.pem") && lines[1].contains("there is no folder"), "{text}");
    assert!(lines[1].contains(&format!("no folder {}", dir.path().join("no").display())), "{text}");
    assert!(lines[2].contains("nowhere.key"), "{text}");
    assert!(lines[3].contains("certificate `folder`") && lines[3].contains("is not a file"), "{text}");
    assert!(lines[4].contains("absent.key") && lines[4].contains("does not exist; correct the path"), "{text}");
    assert!(!text.contains("`good`"), "{text}");
}

#[test]
fn a_pipe_in_place_of_a_file_does_not_hang() {
    let dir = tempfile::tempdir().unwrap();
    let files = declared(dir.path(), "pipe");
    for path in [&files.cert, &files.key] {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    }
    let problems = CertStore::load(&with(vec![files]), dir.path()).unwrap_err();
    assert_eq!(said(&problems).matches("is not a file").count(), 2);
}

#[test]
fn doubtful_certificates_are_served_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let key = || KeyPair::generate().unwrap();
    let expired = ca.sign_for(&["a.fr"], -9 * DAY, -5 * 3_600 - 30, &key()).put(dir.path(), "expired");
    let early = ca.sign_for(&["b.fr"], 2 * DAY, 9 * DAY, &key()).put(dir.path(), "early");
    let nameless_key = key();
    let mut nameless = params(&[], -DAY, DAY);
    nameless.distinguished_name.push(rcgen::DnType::CommonName, "C.fr");
    let nameless = nameless.self_signed(&nameless_key).unwrap();
    let nameless =
        support::Pair { cert: nameless.pem(), key: nameless_key.serialize_pem(), der: nameless.der().clone() }
            .put(dir.path(), "nameless");
    std::fs::set_permissions(&nameless.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let config = with(vec![expired, early, nameless]);
    let loaded = CertStore::load(&config, dir.path()).unwrap();
    let text = said(loaded.warnings());
    assert_eq!(CertStore::check(&config).warnings, loaded.warnings());
    assert_eq!(loaded.warnings().len(), 4, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].contains("`expired`") && lines[0].contains("expired 5 hours ago; it is served nonetheless"),
        "{text}"
    );
    assert!(lines[1].contains("`early`") && lines[1].contains("not valid before 20"), "{text}");
    assert!(lines[2].contains("`nameless`") && lines[2].contains("no subjectAltName"), "{text}");
    assert!(lines[3].contains("nameless.key") && lines[3].contains("chmod o-r /"), "{text}");
    let infos = CertStore::new(loaded, tickets()).certificates();
    assert_eq!(infos[0].problem.as_deref(), Some("expired 5 hours ago"));
    assert!(infos[1].problem.as_deref().unwrap().starts_with("not valid before "));
    assert_eq!((infos[2].problem.as_deref(), &infos[2].hosts[..]), (None, &["c.fr".to_string()][..]));
    let left = infos[1].not_after.0 as i64 / 1_000_000 - support::unix_now();
    assert!((9 * DAY - 60..=9 * DAY).contains(&left), "{left}");
}

#[test]
fn hosts_without_a_certificate_are_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = with(vec![Ca::new().sign(&["a.fr", "*.b.fr"]).put(dir.path(), "a")]);
    config.services = vec![
        service("ok", &["a.fr", "x.b.fr", "*.b.fr"], TlsSource::Files),
        service("lost", &["c.fr", "*.a.fr", "b.fr"], TlsSource::Files),
        service("rest", &["*"], TlsSource::Files),
    ];
    let loaded = CertStore::load(&config, dir.path()).unwrap();
    let text = said(loaded.warnings());
    let hosts: Vec<&str> = loaded.warnings().iter().map(|warning| warning.certificate.as_str()).collect();
    assert_eq!(hosts, ["c.fr", "*.a.fr", "b.fr"], "{text}");
    assert!(text.contains("of service `lost`, so TLS clients are refused; add `[certificate.NAME]`"), "{text}");
    // Nobody speaks TLS: nobody is refused, nothing is made.
    let mut plain = (*config.listeners[0]).clone();
    plain.protocol = ListenerProtocol::Http;
    config.listeners = vec![plain.into()];
    config.services.push(service("dev", &["dev.test"], TlsSource::Internal));
    let loaded = CertStore::load(&config, dir.path()).unwrap();
    assert_eq!(loaded.warnings(), []);
    assert!(!dir.path().join("internal-ca").exists());
}

#[test]
fn a_file_covers_what_the_local_ca_would_have_signed() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = with(vec![Ca::new().sign(&["a.fr"]).put(dir.path(), "a")]);
    config.services = vec![service("dev", &["a.fr", "dev.test"], TlsSource::Internal)];
    let infos = load(&config, dir.path()).certificates();
    let names: Vec<&str> = infos.iter().map(|info| info.name.as_str()).collect();
    assert_eq!(names, ["a", "dev.test"]);
}

/// Root may read everything: the test runs itself again as an ordinary user.
#[test]
fn a_closed_file_or_folder_is_named() {
    const AS_USER: &str = "RELAIS_TEST_CLOSED";
    if let Some(dir) = std::env::var_os(AS_USER) {
        let dir = Path::new(&dir);
        let config = with(vec![declared(dir, "shop"), declared(&dir.join("closed"), "inner")]);
        let text = said(&CertStore::load(&config, dir).unwrap_err());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].contains("shop.key): may not be read by relais: permission denied"), "{text}");
        assert!(lines[0].contains("chmod 640 /"), "{text}");
        for line in &lines[1..] {
            let folder = format!("may not enter the folder {}", dir.join("closed").display());
            assert!(line.contains(&folder) && line.contains("chmod g+x"), "{text}");
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(dir.path(), 0o755);
    let pair = Ca::new().sign(&["a.fr"]);
    mode(&pair.put(dir.path(), "shop").key, 0o000);
    std::fs::create_dir(dir.path().join("closed")).unwrap();
    pair.put(&dir.path().join("closed"), "inner");
    mode(&dir.path().join("closed"), 0o000);
    // The test program itself may lie in a folder that user cannot enter.
    let program = dir.path().join("test-program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    mode(&program, 0o755);
    let mut again = Command::new(&program);
    again.args(["--exact", "a_closed_file_or_folder_is_named"]).env(AS_USER, dir.path()).current_dir("/");
    if is_root() {
        again.uid(65_534).gid(65_534);
    }
    let output = again.output().unwrap();
    mode(&dir.path().join("closed"), 0o700);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

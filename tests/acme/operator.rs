//! What operators do: another key, a trial, a revocation, and moving in from Caddy or certbot.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::first::said;
use crate::pebble::Pebble;
use crate::support::certs;
use crate::support::edge::Setup;
use crate::support::tools::have;
use crate::support::{until, wait_for};

#[test]
fn renew_test_revoke_and_rollover() {
    let Some(pebble) = Pebble::start() else { return };
    let edge = Setup::file(&pebble.file(&["a.fr"], "")).start();
    let first = pebble.wait_for(&edge, "a.fr");
    wait_for("it is told", || said(&edge, "certificate issued") == 1);
    let (code, text, fault) = edge.cli(&["certs", "test", "a.fr"]);
    assert!(code == Some(0) && text.contains("a.fr: works"), "{text}{fault}");
    assert_eq!(pebble.shown("a.fr"), Some(first.clone()), "a trial changes nothing");
    let (code, text, fault) = edge.cli(&["certs", "rollover"]);
    assert!(code == Some(0) && text.contains("pebble: the account has a new key"), "{text}{fault}");
    let (code, _, fault) = edge.cli(&["certs", "renew", "a.fr"]);
    assert_eq!(code, Some(0), "{fault}");
    wait_for("a new one is shown", || pebble.shown("a.fr").is_some_and(|shown| shown != first));
    wait_for("it is told", || said(&edge, "certificate issued") == 2);
    let second = pebble.shown("a.fr");
    let (code, text, fault) = edge.cli(&["certs", "revoke", "a.fr", "--reason", "key-compromise"]);
    assert!(code == Some(0) && text.contains("another one is ordered"), "{text}{fault}");
    wait_for("another one is shown", || pebble.shown("a.fr").is_some_and(|shown| Some(shown) != second));
    let (code, _, fault) = edge.cli(&["certs", "renew", "b.fr"]);
    assert!(code == Some(1) && fault.contains("no certificate `b.fr`"), "{fault}");
    let json: serde_json::Value = serde_json::from_str(&edge.cli(&["certs", "--json"]).1).unwrap();
    assert_eq!(json["certificates"][0]["name"], "a.fr");
}

/// Clients that come one after the other while a certificate is renewed again and again: each is served.
#[test]
fn no_handshake_is_lost_over_renewals() {
    let Some(pebble) = Pebble::start() else { return };
    let edge = Setup::file(&pebble.file(&["a.fr"], "")).start();
    pebble.wait_for(&edge, "a.fr");
    let (over, roots) = (AtomicBool::new(false), pebble.roots());
    let shown = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    while !over.load(Relaxed) {
                        seen.push(certs::shown(pebble.https, "a.fr", roots.clone()));
                    }
                    seen
                })
            })
            .collect();
        for renewal in 2..5 {
            assert_eq!(edge.cli(&["certs", "renew", "a.fr"]).0, Some(0));
            wait_for("it is renewed", || said(&edge, "certificate issued") == renewal);
        }
        over.store(true, Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    let lost: Vec<String> = shown.iter().filter_map(|one| Some(one.as_ref().err()?.to_string())).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), shown.len());
    let different: BTreeSet<Vec<u8>> = shown.into_iter().flatten().collect();
    assert!((3..=4).contains(&different.len()), "{} certificates seen", different.len());
}

fn put(folder: &Path, files: &[(&str, &str)]) {
    std::fs::create_dir_all(folder).unwrap();
    for (name, text) in files {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

/// What another edge got from this CA, laid out as Caddy and certbot do: taken over by a relais that runs, and by one that
/// does not yet.
#[test]
fn moving_in_costs_no_order() {
    let Some(pebble) = Pebble::start() else { return };
    let old = Setup::file(&pebble.file(&["a.fr", "b.fr"], "")).start();
    let shown = ["a.fr", "b.fr"].map(|host| pebble.wait_for(&old, host));
    wait_for("both are kept", || said(&old, "certificate issued") == 2);
    let text = |host: &str, name: &str| {
        std::fs::read_to_string(old.state_dir().join("certs/pebble").join(host).join(name)).unwrap()
    };
    let foreign = tempfile::tempdir().unwrap();
    let ca = pebble.directory().trim_start_matches("https://").replace(['/', ':'], "-");
    let caddy = foreign.path().join("caddy");
    let folder = caddy.join("certificates").join(ca).join("a.fr");
    put(
        &folder,
        &[("a.fr.crt", &text("a.fr", "cert.pem")), ("a.fr.key", &text("a.fr", "key.pem")), ("a.fr.json", "{}")],
    );
    let certbot = foreign.path().join("letsencrypt");
    let files = [("fullchain.pem", text("b.fr", "cert.pem")), ("privkey.pem", text("b.fr", "key.pem"))];
    put(&certbot.join("live/b.fr"), &files.each_ref().map(|(name, text)| (*name, text.as_str())));
    put(&certbot.join("renewal"), &[("b.fr.conf", &format!("server = {}\n", pebble.directory()))]);
    drop(old);
    assert_eq!(pebble.orders(), 2);

    // Before the first start.
    let setup = Setup::file(&pebble.file(&["a.fr"], ""));
    let (state, config) = (setup.dir().join("state"), setup.dir().join("proxy.toml"));
    std::fs::write(&config, setup.text()).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_relais"));
    command.args(["certs", "import"]).arg(&caddy).arg("--state-dir").arg(&state).arg("--config").arg(&config);
    command.arg("--socket").arg(setup.dir().join("admin.sock"));
    let ran = crate::support::tools::run(&mut command);
    assert!(ran.code == Some(0) && ran.stdout.contains("taken over: a.fr"), "{ran:?}");
    let edge = setup.start();
    assert_eq!(pebble.shown("a.fr").as_ref(), Some(&shown[0]), "{}", edge.log());

    // While it runs, before the name is in the file.
    let (code, text, fault) = edge.cli(&["certs", "import", certbot.to_str().unwrap()]);
    assert!(code == Some(0) && text.contains("taken over: b.fr"), "{text}{fault}");
    edge.apply(&pebble.file(&["a.fr", "b.fr"], ""));
    assert_eq!(pebble.shown("b.fr").as_ref(), Some(&shown[1]));
    wait_for("both are known", || edge.cli(&["certs"]).1.matches("valid").count() == 2);
    assert_eq!(pebble.orders(), 2, "{}", edge.log());
}

/// A Caddy that ran here until now: its folder as it left it, its account as well.
#[test]
fn moving_in_from_a_caddy_takes_its_account_too() {
    if !have("caddy", "caddy") {
        return;
    }
    let Some(pebble) = Pebble::start() else { return };
    let home = tempfile::tempdir().unwrap();
    let (http, https) = (pebble.http, pebble.https);
    let file = format!(
        "{{\n email ops@a.fr\n admin off\n http_port {}\n https_port {}\n default_bind {}\n acme_ca {}\n acme_ca_root {}\n}}\n\
         a.fr, www.a.fr {{\n respond hello\n}}\n",
        http.port(),
        https.port(),
        http.ip(),
        pebble.directory(),
        pebble.dir().join("root.pem").display(),
    );
    std::fs::write(home.path().join("Caddyfile"), file).unwrap();
    let mut command = std::process::Command::new("/usr/bin/caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(home.path().join("Caddyfile"));
    command.env("HOME", home.path()).env("XDG_DATA_HOME", home.path().join("data"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut caddy = Running(command.spawn().unwrap());
    let names = ["a.fr", "www.a.fr"];
    let before = names.map(|host| until(host, || pebble.shown(host)));
    caddy.end();
    let orders = pebble.orders();

    let setup = Setup::file(&pebble.file(&names, ""));
    let (state, config) = (setup.dir().join("state"), setup.dir().join("proxy.toml"));
    std::fs::write(&config, setup.text()).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_relais"));
    command.args(["certs", "import"]).arg(home.path().join("data/caddy")).arg("--state-dir").arg(&state);
    command.arg("--config").arg(&config).arg("--socket").arg(setup.dir().join("admin.sock"));
    let ran = crate::support::tools::run(&mut command);
    assert!(ran.stdout.contains("2 certificates and 1 accounts taken over"), "{ran:?}");
    let key = || {
        let text = std::fs::read_to_string(state.join("certs/pebble/account.json")).unwrap();
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        let account: serde_json::Value = serde_json::from_str(file["account"].as_str().unwrap()).unwrap();
        account["key_pkcs8"].as_str().unwrap().to_owned()
    };
    let kept = key();
    let edge = setup.start();
    assert_eq!(names.map(|host| pebble.shown(host).unwrap()), before);
    wait_for("both are known", || edge.cli(&["certs"]).1.matches("valid").count() == 2);
    assert_eq!(pebble.orders(), orders, "{}", edge.log());
    // The next one is ordered with the account it came with.
    assert_eq!(edge.cli(&["certs", "renew", "a.fr"]).0, Some(0));
    wait_for("it is renewed", || said(&edge, "certificate issued") == 1);
    assert_eq!(key(), kept);
}

struct Running(std::process::Child);

impl Running {
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

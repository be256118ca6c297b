//! What `pebble` cannot show, with a CA of our own: profiles, its window for a renewal, certificates of six days, and every
//! kind of key.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use crate::clock::{shift, shifting};
use crate::fake::{Fake, Script, problem};
use crate::first::said;
use crate::support::certs::{self, Authority};
use crate::support::edge::{Edge, Setup};
use crate::support::tools::{have, run};
use crate::support::{own_ip, wait_for};

const DAY: i64 = 86_400;

/// The CA under TLS, as the executable wants it. Lives as long as the process.
struct House {
    fake: Fake,
    dir: tempfile::TempDir,
    /// Where the edge listens.
    ip: std::net::IpAddr,
}

impl House {
    fn start(script: Script) -> House {
        let own = Authority::new();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("root.pem"), &own.root).unwrap();
        let tls = TlsAcceptor::from(own.issue(&["127.0.0.1"]).server(&[b"http/1.1"]));
        let (started, fake) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                started.send(Fake::under(script, Some(tls)).await).ok().unwrap();
                std::future::pending::<()>().await;
            });
        });
        House { fake: fake.recv().unwrap(), dir, ip: own_ip() }
    }

    fn file(&self, acme: &str, services: &str) -> String {
        let (ip, root) = (self.ip, self.dir.path().join("root.pem"));
        format!(
            "[metrics]\naddress = false\n[listener.http]\naddress = \"{ip}:0\"\nprotocol = \"http\"\n\
             [listener.https]\naddress = \"{ip}:0\"\nprotocol = \"https\"\n\
             [authority.house]\ndirectory = {:?}\nroot = {root:?}\n[acme]\n{acme}\n\
             [service.web]\nhosts = [\"a.fr\"]\nrespond = {{ body = \"hello\" }}\n{services}",
            self.fake.directory()
        )
    }

    /// Orders it took, with what they asked for.
    fn orders(&self) -> Vec<Value> {
        self.fake.seen("/order").into_iter().filter(|order| order.get("identifiers").is_some()).collect()
    }

    fn shown(&self, edge: &Edge, host: &str) -> std::io::Result<Vec<u8>> {
        certs::shown(edge.https(), host, certs::roots(self.fake.root().as_bytes()))
    }
}

/// What it shows, whatever the dates say: PEM, empty when the handshake is refused.
fn seen(edge: &Edge, host: &str) -> String {
    let at = edge.https().to_string();
    let mut command = Command::new("/usr/bin/openssl");
    let ran = run(command.args(["s_client", "-connect", &at, "-servername", host]).stdin(std::process::Stdio::null()));
    let from = ran.stdout.find("-----BEGIN").unwrap_or_default();
    ran.stdout[from..].split_once("-----END").map_or_else(String::new, |(pem, _)| pem.to_owned())
}

/// An answer about renewal: days from now.
fn window(start: i64, end: i64) -> Value {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let at = |days: i64| {
        let ran = run(Command::new("/usr/bin/date").args(["-u", "+%FT%TZ", "-d", &format!("@{}", now + days * DAY)]));
        ran.stdout.trim().to_owned()
    };
    json!({ "suggestedWindow": { "start": at(start), "end": at(end) }, "explanationURL": "https://ca.example/why" })
}

/// A CA that calls a certificate back is heard at once, one that names a window is followed, and six days are time enough:
/// also when the edge was off while the window passed.
#[test]
fn a_short_lived_certificate_is_renewed_when_its_ca_wants_it() {
    if !have("cc", "gcc") || !have("openssl", "openssl") {
        return;
    }
    let profiles = vec!["classic", "shortlived", "tlsserver"];
    let script = Script { profiles, days: 6, renewal: Some(window(2, 3)), ..Script::default() };
    let called_back = (200, "content-type: application/json\r\n".to_owned(), window(-2, -1).to_string());
    script.instead.lock().insert("/ari/".into(), vec![called_back]);
    let (ahead, instead) = (std::sync::Arc::clone(&script.ahead), std::sync::Arc::clone(&script.instead));
    let house = House::start(script);
    let setup = Setup::file(&house.file("profile = \"shortlived\"", ""));
    let shell = shifting(setup.dir());
    let mut edge = setup.under(&shell).start();
    let start = |edge: &Edge| edge.sample("relais_certificate_ari_start_timestamp_seconds", &["name=\"a.fr\""]);
    wait_for("it is called back", || start(&edge) > 0.0);
    let (_, text, _) = edge.cli(&["certs"]);
    assert!(text.contains("a new one rests"), "a CA that is mistaken must not make one order after another: {text}");
    let later = |edge: &mut Edge, half_days: i64| {
        edge.crash();
        shift(edge.dir(), half_days * DAY / 2);
        ahead.store(half_days * DAY / 2, Relaxed);
        edge.restart();
    };
    later(&mut edge, 3);
    wait_for("another one is there", || said(&edge, "certificate issued") == 1);
    let orders = house.orders();
    assert!(orders.iter().all(|order| order["profile"] == "shortlived"), "{orders:?}");
    assert_eq!((orders.len(), orders[0].get("replaces")), (2, None), "{orders:?}");
    let first = house.fake.asked("/ari/")[0].clone();
    assert_eq!(orders[1]["replaces"], first.as_str());

    // The second one has a window: followed, shown, and told to Prometheus.
    wait_for("its window is known", || house.fake.asked("/ari/").len() == 2 && start(&edge) > 0.0);
    let start = start(&edge);
    let end = edge.sample("relais_certificate_ari_end_timestamp_seconds", &["name=\"a.fr\""]);
    let renewal = edge.sample("relais_certificate_renewal_timestamp_seconds", &["name=\"a.fr\""]);
    let expiry = edge.sample("relais_certificate_expiry_timestamp_seconds", &["name=\"a.fr\""]);
    assert!(start <= renewal && renewal <= end && end < expiry, "{start} {renewal} {end} {expiry}");
    let (code, text, _) = edge.cli(&["certs"]);
    assert!(code == Some(0) && text.contains("in the window of house"), "{text}");
    assert!(text.contains("a.fr: house says why: https://ca.example/why"), "{text}");
    let second = seen(&edge, "a.fr");

    // Off while the window passed; with a day and a half left it is renewed before anything else.
    let next = (200, "content-type: application/json\r\n".to_owned(), window(8, 9).to_string());
    instead.lock().insert("/ari/".to_owned(), vec![next; 1000]);
    later(&mut edge, 9);
    wait_for("it is renewed", || said(&edge, "certificate issued") == 1);
    let third = seen(&edge, "a.fr");
    assert!(second != third && !second.is_empty() && !third.is_empty());
    let orders = house.orders();
    assert_eq!(orders.len(), 3, "{}", edge.log());
    assert_eq!(orders[2]["replaces"], house.fake.asked("/ari/")[1].as_str());
    assert!(edge.status()["alarms"].as_array().unwrap().is_empty(), "a renewal is no alarm");

    // The CA is away: an alarm before the end, and after it; served in any case.
    let away = (503, "content-type: text/html\r\n".to_owned(), "<h1>maintenance</h1>".to_owned());
    instead.lock().insert("/dir".to_owned(), vec![away; 1000]);
    for (half_days, state) in [(20, "urgent"), (22, "expired")] {
        later(&mut edge, half_days);
        wait_for(state, || edge.cli(&["certs"]).1.contains(state));
        wait_for("the alarm stands", || edge.status()["alarms"].to_string().contains("a.fr"));
        assert_eq!(edge.cli(&["certs"]).0, Some(4));
        assert_eq!(seen(&edge, "a.fr"), third, "{state}");
    }
    let alarms = edge.status()["alarms"].to_string();
    assert!(alarms.contains("ended") && alarms.contains("503"), "{alarms}");
    // It is back: the operator need not wait for the next try.
    instead.lock().clear();
    let (code, text, fault) = edge.cli(&["certs", "renew", "a.fr", "--wait"]);
    assert!(code == Some(0) && text.contains("a.fr: renewed by house"), "{text}{fault}");
    assert_ne!(seen(&edge, "a.fr"), third);
}

/// What `openssl` says of the key of a certificate.
fn kind(dir: &Path, der: &[u8]) -> String {
    std::fs::write(dir.join("leaf.der"), der).unwrap();
    let mut command = Command::new("/usr/bin/openssl");
    command.args(["x509", "-inform", "DER", "-noout", "-text", "-in"]).arg(dir.join("leaf.der"));
    run(&mut command).stdout
}

/// Each is asked for, signed and served after a save of the file and the operator's wish; an address is ordered as one, by
/// the profile that there is for addresses.
#[test]
fn every_kind_of_key_and_an_address() {
    if !have("openssl", "openssl") {
        return;
    }
    let house = House::start(Script { profiles: vec!["shortlived", "tlsserver"], ..Script::default() });
    let edge = Setup::file(&house.file("", "")).start();
    wait_for("the first is there", || said(&edge, "certificate issued") == 1);
    let kinds = [
        ("p384", "(384 bit)"),
        ("rsa2048", "(2048 bit)"),
        ("rsa4096", "(4096 bit)"),
        ("ed25519", "ED25519"),
        ("p256", "(256 bit)"),
    ];
    for (at, (key, word)) in kinds.into_iter().enumerate() {
        edge.apply(&house.file(&format!("key = {key:?}"), ""));
        let (code, text, fault) = edge.cli(&["certs", "renew", "a.fr", "--wait"]);
        assert!(code == Some(0) && text.contains("a.fr: renewed"), "{text}{fault}");
        assert_eq!(house.orders().len(), at + 2);
        let text = kind(edge.dir(), &house.shown(&edge, "a.fr").unwrap());
        assert!(text.contains(word), "{key}: {text}");
    }
    let host = "203.0.113.7";
    let address = format!("[service.address]\nhosts = [{host:?}]\ntls = \"acme\"\nrespond = {{ body = \"hello\" }}\n");
    edge.apply(&house.file("", &address));
    wait_for("the address is served", || house.shown(&edge, host).is_ok());
    let order = house.orders().pop().unwrap();
    assert_eq!(order["identifiers"], json!([{ "type": "ip", "value": host }]));
    assert_eq!(order["profile"], "shortlived");
    assert!(house.orders().iter().rev().skip(1).all(|order| order.get("profile").is_none()));
}

/// A renewal that the CA refuses: its own sentence with what is likely behind it, at the command that waits for it and in
/// `status`; gone with the next certificate.
#[test]
fn what_a_ca_says_is_told_with_what_is_likely_behind_it() {
    let script = Script::default();
    let instead = std::sync::Arc::clone(&script.instead);
    let house = House::start(script);
    let edge = Setup::file(&house.file("", "")).start();
    // It is served before its order is over: who asks in between gets that one.
    wait_for("the first is there", || said(&edge, "certificate issued") == 1);
    let refusals = [
        ("caa", "CAA record for a.fr prevents issuance", "add `CAA 0 issue"),
        ("rejectedIdentifier", "a.fr is forbidden by policy", "take it out of `hosts`"),
        ("rateLimited", "too many certificates already issued for a.fr", "nothing is broken"),
        ("userActionRequired", "the terms have changed", "agree to them"),
    ];
    for (word, sentence, likely) in refusals {
        instead.lock().insert("/order".to_owned(), vec![problem(403, word, sentence, "")]);
        let (code, _, fault) = edge.cli(&["certs", "renew", "a.fr", "--wait"]);
        assert!(code == Some(1) && fault.contains(sentence) && fault.contains(likely), "{fault}");
        let (code, text, _) = edge.cli(&["status"]);
        assert_eq!(code, Some(4), "{text}");
        assert!(text.contains(&format!("house says: {sentence}")) && text.contains(likely), "{text}");
        assert!(house.shown(&edge, "a.fr").is_ok(), "what there is serves on");
    }
    let (code, text, fault) = edge.cli(&["certs", "renew", "a.fr", "--wait"]);
    assert!(code == Some(0) && text.contains("renewed by house"), "{text}{fault}");
    wait_for("the alarm is over", || edge.cli(&["status"]).0 == Some(0));
}

//! A certificate that asks to be served with a proof that it was not taken back: `openssl ocsp` is the CA's responder, and
//! `openssl s_client` the client.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rcgen::{CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, Issuer, KeyPair, SerialNumber};

use crate::support::edge::{Edge, Setup};
use crate::support::tools::{have, run};
use crate::support::wait_for;

const LISTENING: &str = "[listener.https]\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n";
const SERVICE: &str = "[certificate.a]\ncert = \"a.pem\"\nkey = \"a.key\"\n\
                       [service.web]\nhosts = [\"a.test\"]\nrespond = { body = \"hello\" }\n";

/// A CA with its list of certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: tempfile::TempDir,
    port: u16,
    responder: Option<Child>,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "a CA with a responder");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(dir.path().join("ca.key"), key.serialize_pem()).unwrap();
        let port = free_port();
        Authority { issuer: Issuer::new(params, key), dir, port, responder: None }
    }

    /// Chain and key of a certificate that asks for a proof, for `a.test`.
    fn issue(&self, serial: u8) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["a.test".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(vec![serial]));
        let url = format!("http://127.0.0.1:{}/", self.port);
        // AuthorityInfoAccess with one OCSP address, and the TLS feature status_request.
        let oid = [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01];
        let place = [&[0x86, u8::try_from(url.len()).unwrap()], url.as_bytes()].concat();
        let one = sequence(&[&oid[..], &place].concat());
        params.custom_extensions = vec![
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], sequence(&one)),
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 24], vec![0x30, 0x03, 0x02, 0x01, 0x05]),
        ];
        let leaf = params.signed_by(&key, &self.issuer).unwrap().pem();
        let ca = std::fs::read_to_string(self.dir.path().join("ca.pem")).unwrap();
        (leaf + &ca, key.serialize_pem())
    }

    /// Has somebody else sign its answers: a certificate that this CA made, meant for that or not.
    fn delegate(&self, name: &str, meant: bool) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![match meant {
            true => ExtendedKeyUsagePurpose::OcspSigning,
            false => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        std::fs::write(self.dir.path().join(format!("{name}.pem")), cert).unwrap();
        std::fs::write(self.dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// Answers from now on that certificates are good (`V`) or taken back (`R`).
    fn respond(&mut self, states: &[(u8, char)]) {
        self.respond_as("ca", states);
    }

    /// The same, signed by another: `name`.pem in its folder.
    fn respond_as(&mut self, name: &str, states: &[(u8, char)]) {
        self.stop();
        let line = |(serial, state): &(u8, char)| {
            let revoked = if *state == 'R' { "260101000000Z" } else { "" };
            format!("{state}\t400101000000Z\t{revoked}\t{serial:02X}\tunknown\t/CN=a.test\n")
        };
        std::fs::write(self.dir.path().join("index.txt"), states.iter().map(line).collect::<String>()).unwrap();
        let mut command = Command::new("/usr/bin/openssl");
        command.args(["ocsp", "-index", "index.txt", "-CA", "ca.pem"]);
        command.args(["-rsigner", &format!("{name}.pem"), "-rkey", &format!("{name}.key")]);
        command.args(["-port", &self.port.to_string(), "-nmin", "10"]).current_dir(self.dir.path());
        let told = self.dir.path().join("told");
        let log = std::fs::File::create(&told).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.responder = Some(command.spawn().unwrap());
        // By its own word: a connection that asks nothing would stop it for ever.
        let waits = "waiting for OCSP client connections";
        wait_for("the responder listens", || std::fs::read_to_string(&told).unwrap().contains(waits));
    }

    fn stop(&mut self) {
        if let Some(mut responder) = self.responder.take() {
            let _ = responder.kill();
            let _ = responder.wait();
        }
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The responder listens at every address of the machine, where connections of other tests use the ports that the system
/// gives away: one below those, and no other test's.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id() % 10_000 * 31;
    loop {
        let port = 10_000 + (start + NEXT.fetch_add(7, Relaxed)) % 10_000;
        let port = u16::try_from(port).unwrap();
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

fn sequence(content: &[u8]) -> Vec<u8> {
    [&[0x30, u8::try_from(content.len()).unwrap()], content].concat()
}

/// What openssl says of the proof it was shown.
fn shown(edge: &Edge, ca: &Path) -> String {
    let mut command = Command::new("/usr/bin/openssl");
    command.args(["s_client", "-status", "-servername", "a.test", "-connect", &edge.https().to_string()]);
    command.arg("-CAfile").arg(ca).stdin(Stdio::null());
    run(&mut command).stdout
}

fn start(authority: &Authority) -> Edge {
    let setup = Setup::services(SERVICE).listening(LISTENING);
    let (cert, key) = authority.issue(7);
    std::fs::write(setup.dir().join("a.pem"), cert).unwrap();
    std::fs::write(setup.dir().join("a.key"), key).unwrap();
    setup.start()
}

#[test]
fn a_certificate_that_asks_for_it_is_served_with_a_proof_that_is_fetched_checked_and_kept() {
    if !have("openssl", "openssl") {
        return;
    }
    let mut authority = Authority::new();
    authority.respond(&[(7, 'V'), (8, 'R')]);
    let ca = authority.dir.path().join("ca.pem");
    let mut edge = start(&authority);
    wait_for("the proof is stapled", || shown(&edge, &ca).contains("Cert Status: good"));
    let text = shown(&edge, &ca);
    assert!(text.contains("OCSP Response Status: successful") && text.contains("Verify return code: 0"), "{text}");
    // The next start has it at once, with nobody to ask.
    wait_for("it is told", || edge.log().contains("OCSP answer stapled"));
    edge.signal("TERM");
    edge.ended();
    authority.stop();
    edge.restart();
    let text = shown(&edge, &ca);
    assert!(text.contains("Cert Status: good"), "{text}{}", edge.log());
}

#[test]
fn an_answer_that_proves_nothing_is_not_stapled() {
    if !have("openssl", "openssl") {
        return;
    }
    let (mut authority, mut other) = (Authority::new(), Authority::new());
    authority.respond(&[(7, 'R')]);
    let ca = authority.dir.path().join("ca.pem");
    let edge = start(&authority);
    wait_for("it is told", || edge.log().contains("the CA has taken the certificate back"));
    assert!(shown(&edge, &ca).contains("no response sent"), "{}", shown(&edge, &ca));
    drop(edge);
    authority.respond(&[(9, 'V')]);
    let edge = start(&authority);
    wait_for("it is told", || edge.log().contains("the responder does not know the certificate"));
    drop(edge);
    // Somebody else answers in the CA's place.
    authority.stop();
    other.port = authority.port;
    other.respond(&[(7, 'V')]);
    let edge = start(&authority);
    let said = ["is about another certificate", "is not signed by the CA", "the responder said"];
    wait_for("it is told", || said.iter().any(|words| edge.log().contains(words)));
    assert!(shown(&edge, &ca).contains("no response sent"));
}

/// CAs let another key answer (RFC 6960, section 4.2.2.2). It counts when the CA says so, and when nobody else does.
#[test]
fn an_answer_may_be_signed_by_whom_the_ca_has_charged_with_it_and_by_nobody_else() {
    if !have("openssl", "openssl") {
        return;
    }
    let (mut authority, other) = (Authority::new(), Authority::new());
    authority.delegate("delegate", true);
    authority.delegate("server", false);
    // By name the same, by another CA.
    other.delegate("forged", true);
    for file in ["forged.pem", "forged.key"] {
        std::fs::copy(other.dir.path().join(file), authority.dir.path().join(file)).unwrap();
    }
    let ca = authority.dir.path().join("ca.pem");
    for (signer, counts) in [("delegate", true), ("server", false), ("forged", false)] {
        authority.respond_as(signer, &[(7, 'V')]);
        let edge = start(&authority);
        let word = if counts { "OCSP answer stapled" } else { "the answer is not signed by the CA" };
        wait_for(signer, || edge.log().contains(word));
        let text = shown(&edge, &ca);
        assert_eq!(text.contains("Cert Status: good"), counts, "{signer}: {text}");
        assert_eq!(text.contains("no response sent"), !counts, "{signer}: {text}");
    }
}

/// A certificate that clients refuse is an alarm until there is a proof.
#[test]
fn a_responder_that_is_away_is_an_alarm_until_it_answers() {
    if !have("openssl", "openssl") {
        return;
    }
    let mut authority = Authority::new();
    let edge = start(&authority);
    let alarm = || edge.status()["alarms"].as_array().unwrap().iter().find(|one| one["about"] == "ocsp").cloned();
    wait_for("the alarm stands", || alarm().is_some());
    let words = alarm().unwrap()["message"].as_str().unwrap().to_owned();
    assert!(words.contains("a: clients refuse its certificate") && words.contains("refused"), "{words}");
    let (code, text, _) = edge.cli(&["certs"]);
    assert!(code == Some(4) && text.contains("a: needs an OCSP answer and has none"), "{code:?} {text}");
    let until = || edge.sample("relais_certificate_ocsp_expiry_timestamp_seconds", &["name=\"a\""]);
    assert!(edge.metrics().contains("relais_certificate_ocsp_expiry_timestamp_seconds{name=\"a\"} 0"));
    authority.respond(&[(7, 'V')]);
    wait_for("the alarm is over", || alarm().is_none());
    assert!(until() > 1.0e9);
    let (code, text, _) = edge.cli(&["certs"]);
    assert!(code == Some(0) && text.contains("a: its OCSP answer ends in"), "{code:?} {text}");
}

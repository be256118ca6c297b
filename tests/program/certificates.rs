//! Who we are on the wire: certificates from files by name, exchanged while running; the local CA; curl as the client.

use crate::support::certs::{self, Authority};
use crate::support::edge::{Edge, Setup};
use crate::support::raw::Plain;
use crate::support::tools::{curl, have, resolve, run};
use crate::support::wait_for;

const HTTPS: &str = "[listener.https]\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n";

fn web(hosts: &str, backend: &Plain) -> Setup {
    Setup::services(&format!(
        "[service.web]\nhosts = {hosts}\nhealth = \"off\"\nbackends = [\"{}\"]\n",
        backend.serving.address
    ))
    .listening(HTTPS)
}

/// The root of the local CA as a path for curl.
fn root(edge: &Edge) -> String {
    edge.root().to_str().unwrap().to_owned()
}

#[test]
fn curl_trusts_the_local_ca_and_speaks_http2() {
    if !have("curl", "curl") {
        return;
    }
    let backend = Plain::saying("hello\n");
    let edge = web("[\"web.localhost\", \"*.dev.localhost\"]", &backend).start();
    for host in ["web.localhost", "any.dev.localhost"] {
        for (version, expected) in [("--http2", "2"), ("--http1.1", "1.1")] {
            let address = edge.https();
            let url = format!("https://{host}:{}/", address.port());
            let ran = run(&mut curl(&[
                "--cacert",
                &root(&edge),
                "--resolve",
                &resolve(host, address),
                version,
                "--write-out",
                "%{http_version} %{http_code}",
                &url,
            ]));
            assert_eq!(ran.code, Some(0), "{ran:?}");
            assert_eq!(ran.stdout, format!("hello\n{expected} 200"));
        }
    }
    // Without the root nobody believes it.
    let url = format!("https://web.localhost:{}/", edge.https().port());
    let ran = run(&mut curl(&["--resolve", &resolve("web.localhost", edge.https()), &url]));
    assert_eq!(ran.code, Some(60), "{ran:?}");
}

#[test]
fn the_certificate_is_the_one_for_the_name_that_is_asked_for() {
    let backend = Plain::saying("x");
    let (one, two) = (Authority::new(), Authority::new());
    let setup = web("[\"one.test\", \"*.two.test\"]", &backend).and(
        "[certificate.one]\ncert = \"one.pem\"\nkey = \"one.key\"\n[certificate.two]\ncert = \"two.pem\"\nkey = \"two.key\"",
    );
    one.issue(&["one.test"]).write(setup.dir(), "one");
    two.issue(&["*.two.test"]).write(setup.dir(), "two");
    let edge = setup.start();
    let ask = |host: &str, authority: &Authority| {
        let mut client = certs::connect(edge.https(), host, authority.trusted(), &[])?;
        Ok::<_, std::io::Error>(client.ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).status())
    };
    assert_eq!(ask("one.test", &one).unwrap(), 200);
    assert_eq!(ask("a.two.test", &two).unwrap(), 200);
    assert!(ask("one.test", &two).is_err(), "each its own");
    assert!(ask("unknown.test", &one).is_err(), "no certificate for a name nobody serves");
}

#[test]
fn a_certificate_that_changes_on_disk_is_used_from_then_on() {
    let backend = Plain::saying("x");
    let authority = Authority::new();
    let setup = web("[\"one.test\"]", &backend).and("[certificate.one]\ncert = \"one.pem\"\nkey = \"one.key\"");
    authority.issue(&["one.test"]).write(setup.dir(), "one");
    let edge = setup.start();
    let shown = || certs::shown(edge.https(), "one.test", authority.trusted()).unwrap();
    let first = shown();
    let mut open = certs::connect(edge.https(), "one.test", authority.trusted(), &[]).unwrap();
    authority.issue(&["one.test"]).write(edge.dir(), "one");
    wait_for("the new certificate is shown", || shown() != first);
    assert_eq!(open.ask("GET / HTTP/1.1\r\nHost: one.test\r\n\r\n").status(), 200, "what is open stays open");

    // A pair that does not fit is refused; the old one stays and status says why.
    let second = shown();
    let (a, b) = (authority.issue(&["one.test"]), authority.issue(&["one.test"]));
    std::fs::write(edge.dir().join("one.pem"), &a.cert).unwrap();
    std::fs::write(edge.dir().join("one.key"), &b.key).unwrap();
    wait_for("the mismatch is told", || {
        let alarms = edge.status()["alarms"].to_string();
        alarms.contains("certificate")
    });
    assert_eq!(shown(), second);
    b.write(edge.dir(), "one");
    wait_for("the good pair is shown", || shown() != second);
    wait_for("the alarm is over", || !edge.status()["alarms"].to_string().contains("certificate"));

    // What is wrong with the file has nothing to do with it.
    let third = shown();
    edge.save(&edge.text().replace("hosts", "posts"));
    wait_for("the file is refused", || edge.status()["reload"]["outcome"] == "refused");
    authority.issue(&["one.test"]).write(edge.dir(), "one");
    assert_ne!(edge.reload().0, 200);
    wait_for("the renewed pair is shown", || shown() != third);
}

#[test]
fn the_local_ca_survives_a_restart() {
    let backend = Plain::saying("x");
    let mut edge = web("[\"web.localhost\"]", &backend).start();
    let roots = certs::roots_of(&edge.root());
    assert!(certs::shown(edge.https(), "web.localhost", roots.clone()).is_ok());
    edge.crash_and_restart();
    assert!(certs::shown(edge.https(), "web.localhost", roots).is_ok(), "trusted by the same root");
}

#[test]
fn an_expired_certificate_is_served_and_told() {
    let backend = Plain::saying("x");
    let setup = web("[\"old.test\"]", &backend).and("[certificate.old]\ncert = \"old.pem\"\nkey = \"old.key\"");
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["old.test".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let old = params.self_signed(&key).unwrap();
    std::fs::write(setup.dir().join("old.pem"), old.pem()).unwrap();
    std::fs::write(setup.dir().join("old.key"), key.serialize_pem()).unwrap();
    let edge = setup.start();
    let certificates = edge.status()["certificates"].to_string();
    assert!(certificates.contains("expired"), "{certificates}");
    assert!(edge.log().contains("expired"), "{}", edge.log());
}

#[test]
fn old_tls_versions_are_refused_when_told() {
    if !have("curl", "curl") {
        return;
    }
    let backend = Plain::saying("x");
    let edge = web("[\"web.localhost\"]", &backend).and("[edge]\nmin_tls = \"1.3\"").start();
    let url = format!("https://web.localhost:{}/", edge.https().port());
    let ask = |arguments: &[&str]| {
        let resolved = resolve("web.localhost", edge.https());
        let root = root(&edge);
        let all: Vec<&str> = [&["--cacert", &root, "--resolve", &resolved], arguments, &[&url]].concat();
        run(&mut curl(&all)).code
    };
    assert_eq!(ask(&["--tlsv1.3"]), Some(0));
    assert_eq!(ask(&["--tls-max", "1.2"]), Some(35));
}

const PAIRS: &str = "[certificate.one]\ncert = \"one.pem\"\nkey = \"one.key\"\n\
                     [certificate.two]\ncert = \"two.pem\"\nkey = \"two.key\"";

/// A disk error, a half-written file, a wrong right: at boot nobody may be there to mend it.
#[test]
fn with_last_good_a_damaged_certificate_file_is_served_as_it_was() {
    let backend = Plain::saying("x");
    let authority = Authority::new();
    let setup = web("[\"one.test\", \"two.test\"]", &backend).and(PAIRS).under("exec \"$@\" --last-good");
    authority.issue(&["one.test"]).write(setup.dir(), "one");
    authority.issue(&["two.test"]).write(setup.dir(), "two");
    let mut edge = setup.start();
    let shown = |edge: &Edge| {
        ["one.test", "two.test"].map(|host| certs::shown(edge.https(), host, authority.trusted()).unwrap())
    };
    let before = shown(&edge);
    wait_for("it is on disk", || edge.status()["store"]["unsaved"] == 0);
    for (file, content) in [("one.pem", None), ("one.key", Some("-----BEGIN PRIVATE KEY-----\nhalf"))] {
        edge.crash();
        match content {
            Some(text) => std::fs::write(edge.dir().join(file), text).unwrap(),
            None => std::fs::remove_file(edge.dir().join(file)).unwrap(),
        }
        edge.restart();
        assert_eq!(shown(&edge), before, "{}", edge.log());
        let alarms = edge.status()["alarms"].to_string();
        assert!(alarms.contains("started without what is damaged") && alarms.contains(file), "{alarms}");
        assert_eq!(edge.cli(&["status"]).0, Some(4));
    }
    authority.issue(&["one.test"]).write(edge.dir(), "one");
    wait_for("the alarm is over", || !edge.status()["alarms"].to_string().contains("certificate"));
    let after = shown(&edge);
    assert!(after[0] != before[0] && after[1] == before[1], "the new pair is in use");
    // Without the flag no copy of a key is left, not even in a file that nobody reads any more.
    let pem = std::fs::read_to_string(edge.dir().join("two.key")).unwrap();
    let words = pem.lines().nth(1).unwrap();
    let kept = |edge: &Edge| {
        let files = run(std::process::Command::new("/usr/bin/grep").args(["-rlF", words]).arg(edge.state_dir()));
        files.stdout.lines().count()
    };
    wait_for("it is on disk", || edge.status()["store"]["unsaved"] == 0);
    assert_eq!(kept(&edge), 1);
    edge.shell = None;
    edge.crash_and_restart();
    wait_for("no copy is left", || kept(&edge) == 0);
}

#[test]
fn without_a_copy_the_other_names_are_served_and_a_plain_start_is_strict() {
    let backend = Plain::saying("x");
    let authority = Authority::new();
    let make = |shell: &str| {
        let setup = web("[\"one.test\", \"two.test\"]", &backend).and(PAIRS).under(shell);
        authority.issue(&["two.test"]).write(setup.dir(), "two");
        std::fs::write(setup.dir().join("one.pem"), "garbage").unwrap();
        setup
    };
    let mut strict = make("exec \"$@\"").launch();
    assert_eq!(strict.ended().code(), Some(1));
    assert!(strict.log().contains("one.pem") && strict.log().contains("one.key"), "{}", strict.log());
    let edge = make("exec \"$@\" --last-good").start();
    assert!(certs::shown(edge.https(), "two.test", authority.trusted()).is_ok());
    assert!(certs::shown(edge.https(), "one.test", authority.trusted()).is_err());
    let local = certs::roots_of(&edge.root());
    assert!(certs::shown(edge.https(), "one.test", local).is_ok(), "as a host without a file");
    assert!(edge.status()["alarms"].to_string().contains("one.pem"), "{}", edge.status()["alarms"]);
}

//! Backends over TLS with which there is no TLS: whoever set it up wrongly is told what is wrong.

use crate::support::certs::Authority;
use crate::support::edge::{Edge, Setup};
use crate::support::h2::Backend;
use crate::support::raw::{Addressed, Raw};
use crate::support::wait_for;
use crate::support::wire::get;

fn edge(backend: &dyn Addressed, ca: &Authority, tls: &str, health: &str) -> Edge {
    let setup = Setup::services(&format!(
        "[service.web]\nhosts = [\"*\"]\nhealth = \"{health}\"\nupstream = {{ tls = {{ {tls} }} }}\nbackends = [\"{}\"]\n",
        backend.address()
    ));
    std::fs::write(setup.dir().join("ca.pem"), &ca.root).unwrap();
    setup.start()
}

fn is_told(backend: &dyn Addressed, ca: &Authority, tls: &str, what: &str) {
    // By a check that does a handshake, in the status;
    let checked = edge(backend, ca, tls, "tls");
    checked.wait_for_health(backend, "down");
    let why = checked.backend(backend)["why"].as_str().unwrap().to_owned();
    assert!(why.contains(&format!("TLS to the backend failed: {what}")), "{why}");
    // and where only requests do, in the log, however many come.
    let unchecked = edge(backend, ca, tls, "tcp");
    unchecked.wait_for_health(backend, "up");
    let told = || unchecked.lines().iter().filter(|line| line["why"] == what && line["level"] == "WARN").count();
    wait_for("it is told", || {
        assert!([502, 503].contains(&unchecked.connect().ask(get("/")).status()));
        told() > 0
    });
}

#[test]
fn why_there_is_no_tls_with_a_backend_is_told() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let own = Backend::secure(&ours.issue(&["backend.test", "b.test"]));
    let other = Backend::secure(&theirs.issue(&["backend.test"]));
    // As `openssl req -x509` makes it: a CA.
    let itself = Backend::secure(&Authority::itself(&["backend.test"]));
    let plain = Raw::new().serve(|mut conn| {
        let _ = conn.try_send("HTTP/1.1 400 Bad Request\r\n\r\n");
        conn.wait_for_ever();
        let _ = conn.try_head();
    });
    is_told(
        &other,
        &ours,
        "sni = \"backend.test\", ca = \"ca.pem\"",
        // Their CA has the name of ours.
        "nobody that is trusted has signed its certificate (name its CA, or the certificate itself, in `ca`), or its key is \
         not the certificate's",
    );
    is_told(
        &own,
        &ours,
        "sni = \"a.test\", ca = \"ca.pem\"",
        "its certificate is for backend.test, b.test, and a.test was asked for; `sni` sets the name",
    );
    is_told(
        &itself,
        &theirs,
        "sni = \"backend.test\", ca = \"ca.pem\"",
        "its certificate is a CA's, as one signed by itself mostly is; name the certificate itself in `ca`",
    );
    is_told(&plain, &ours, "sni = \"backend.test\", ca = \"ca.pem\"", "it does not speak TLS there");
}

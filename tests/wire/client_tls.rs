//! What a service asks of its clients at the TLS handshake, and which requests belong on which connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

use crate::support::PATIENCE;
use crate::support::certs::{self, Authority, Identity, Tls};
use crate::support::edge::{Edge, Setup};
use crate::support::raw::Plain;
use crate::support::wire::{Conn, get, ok};

/// A session with a client's own settings, handshake done.
fn open(edge: &Edge, host: &str, config: &Arc<ClientConfig>) -> std::io::Result<Tls> {
    let mut stream = TcpStream::connect(edge.https())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut session = ClientConnection::new(Arc::clone(config), name).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(session, stream))
}

fn connect(edge: &Edge, host: &str, config: &Arc<ClientConfig>) -> Conn<Tls> {
    Conn::with(open(edge, host, config).unwrap())
}

fn asked(path: &str, host: &str) -> String {
    get(path).replace("Host: a.test", &format!("Host: {host}"))
}

/// The status of a request, or rustls' word for why there is none: in TLS 1.3 a client learns only then that it is refused.
fn status(session: std::io::Result<Tls>, request: &str) -> Result<u16, String> {
    let ask = |mut session: Tls| {
        session.write_all(request.as_bytes())?;
        let mut line = [0; 12];
        session.read_exact(&mut line)?;
        Ok(line)
    };
    let line = session.and_then(ask).map_err(|error| error.to_string())?;
    Ok(std::str::from_utf8(&line[9..]).unwrap().parse().unwrap())
}

/// Trusts the edge's local CA, and shows a certificate where it has one.
fn client(edge: &Edge, own: Option<&Identity>) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(certs::roots_of(&edge.root()));
    Arc::new(match own {
        None => config.with_no_client_auth(),
        Some(own) => {
            let chain = CertificateDer::pem_slice_iter(own.cert.as_bytes()).map(Result::unwrap).collect();
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap()).unwrap()
        }
    })
}

/// The same, but it sends no name.
fn nameless(config: &Arc<ClientConfig>) -> Arc<ClientConfig> {
    let mut config = (**config).clone();
    config.enable_sni = false;
    Arc::new(config)
}

/// Two services on hosts of their own; the lines are the second one's.
fn two(backend: &Plain, lines: &str) -> Setup {
    let address = backend.serving.address;
    Setup::services(&format!(
        "[service.one]\nhosts = [\"one.localhost\"]\nhealth = \"off\"\nbackends = [\"{address}\"]\n\
         [service.two]\nhosts = [\"two.localhost\"]\nhealth = \"off\"\nbackends = [\"{address}\"]\n{lines}\n"
    ))
    .secure()
}

/// Another connection would be of no use: this one was opened for no host by name, as one for an address is.
#[test]
fn a_host_that_nobody_serves_is_not_found_where_no_name_was_asked_for() {
    let backend = Plain::saying("x");
    let edge = two(&backend, "").start();
    let named = client(&edge, None);
    let mut conn = connect(&edge, "one.localhost", &nameless(&named));
    for (host, status) in [("one.localhost", 200), ("127.0.0.1", 404), ("else.localhost", 404)] {
        assert_eq!(conn.ask(asked("/", host)).status(), status, "{host}");
    }
    let mut conn = connect(&edge, "one.localhost", &named);
    assert_eq!(conn.ask(asked("/", "127.0.0.1")).status(), 421);
}

#[test]
fn a_host_of_another_certificate_is_misdirected() {
    let backend = Plain::saying("x");
    let authority = Authority::new();
    let setup = two(&backend, "").and("[certificate.both]\ncert = \"both.pem\"\nkey = \"both.key\"");
    let other = "[service.three]\nhosts = [\"three.localhost\"]\nrespond = { body = \"three\" }";
    let setup = setup.with(other);
    authority.issue(&["one.localhost", "two.localhost"]).write(setup.dir(), "both");
    let edge = setup.start();
    let trusted = certs::client_config(authority.trusted(), &[]);
    let mut conn = connect(&edge, "one.localhost", &trusted);
    for (host, expected) in [
        ("one.localhost", 200),
        ("two.localhost", 200),
        ("three.localhost", 421),
        ("else.localhost", 421),
        ("one.localhost", 200),
    ] {
        assert_eq!(conn.ask(asked("/", host)).status(), expected, "{host}");
    }
    let mut conn = connect(&edge, "three.localhost", &client(&edge, None));
    assert_eq!(conn.ask(asked("/", "three.localhost")).text(), "three");
    assert_eq!(conn.ask(asked("/", "one.localhost")).status(), 421);
}

#[test]
fn a_name_nobody_has_is_refused_where_told() {
    let backend = Plain::saying("x");
    let edge = two(&backend, "").and("[edge]\nstrict_sni = true\ntls = \"internal\"").start();
    let trusted = client(&edge, None);
    assert_eq!(status(open(&edge, "one.localhost", &trusted), &asked("/", "one.localhost")), Ok(200));
    for (name, config) in [("else.localhost", &trusted), ("one.localhost", &nameless(&trusted))] {
        let refused = status(open(&edge, name, config), &asked("/", "one.localhost"));
        assert!(refused.as_ref().is_err_and(|why| why.contains("AccessDenied")), "{name}: {refused:?}");
    }
    let lax = two(&backend, "").and("[edge]\ntls = \"internal\"").start();
    let config = nameless(&client(&lax, None));
    assert_eq!(status(open(&lax, "one.localhost", &config), &asked("/", "one.localhost")), Ok(200));
}

#[test]
fn each_service_has_its_lowest_version() {
    let backend = Plain::saying("x");
    let edge = two(&backend, "min_tls = \"1.3\"").start();
    let old = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(certs::roots_of(&edge.root()))
        .with_no_client_auth();
    let (old, new) = (Arc::new(old), client(&edge, None));
    assert_eq!(status(open(&edge, "one.localhost", &old), &asked("/", "one.localhost")), Ok(200));
    let refused = open(&edge, "two.localhost", &old).map(drop).unwrap_err().to_string();
    assert!(refused.contains("ProtocolVersion"), "{refused}");
    assert_eq!(status(open(&edge, "two.localhost", &new), &asked("/", "two.localhost")), Ok(200));
}

const PROVEN: &str = "client_certificate = { ca = \"clients.pem\" }";

/// An edge whose second service wants certificates of this authority.
fn proving(backend: &Plain, clients: &Authority, lines: &str) -> Edge {
    let setup = two(backend, lines);
    std::fs::write(setup.dir().join("clients.pem"), &clients.root).unwrap();
    setup.start()
}

/// A backend that says who its client is.
fn telling() -> Plain {
    Plain::new(|seen| {
        let field = |name| seen.head.all(name).join("|");
        let said =
            format!("{};{};{}", field("client-cert"), field("x-client-cert-subject"), field("client-cert-chain"));
        ok(&said).into_bytes()
    })
}

#[test]
fn a_client_without_the_right_certificate_is_refused() {
    let (clients, strangers) = (Authority::new(), Authority::new());
    let backend = telling();
    let edge = proving(&backend, &clients, PROVEN);
    let request = asked("/", "two.localhost");
    let ask = |own: Option<&Identity>| status(open(&edge, "two.localhost", &client(&edge, own)), &request);
    assert_eq!(ask(Some(&clients.issue(&["anna"]))), Ok(200));
    let bare = ask(None);
    assert!(bare.as_ref().is_err_and(|why| why.contains("CertificateRequired")), "{bare:?}");
    let stranger = ask(Some(&strangers.issue(&["anna"])));
    assert!(stranger.is_err(), "{stranger:?}");
    edge.line("the operator sees why", |line| {
        line["level"] == "WARN" && line["message"] == "the certificate of a client was refused"
    });
    // Not through another door either: the other host's handshake, no name at all, plain text.
    let free = client(&edge, None);
    assert_eq!(status(open(&edge, "one.localhost", &free), &request), Ok(421));
    assert_eq!(status(open(&edge, "one.localhost", &nameless(&free)), &request), Ok(421));
    assert_eq!(edge.connect().ask(&request).status(), 403);
    assert_eq!(status(open(&edge, "one.localhost", &free), &asked("/", "one.localhost")), Ok(200));
}

/// Started although the CA file of its clients is damaged: the service refuses everybody, at every door, the other one
/// serves, and the right file is enough.
#[test]
fn with_last_good_a_damaged_client_ca_closes_its_service_alone() {
    let clients = Authority::new();
    let backend = telling();
    let setup = two(&backend, PROVEN).under("exec \"$@\" --last-good");
    let ca = setup.dir().join("clients.pem");
    std::fs::write(&ca, &clients.root).unwrap();
    let mut edge = setup.start();
    let anna = clients.issue(&["anna"]);
    let ask =
        |edge: &Edge| status(open(edge, "two.localhost", &client(edge, Some(&anna))), &asked("/", "two.localhost"));
    assert_eq!(ask(&edge), Ok(200));
    edge.crash();
    std::fs::write(&ca, "-----BEGIN CERTIFICATE-----\nhalf").unwrap();
    edge.restart();
    assert!(ask(&edge).is_err(), "nobody can tell who is who");
    let free = client(&edge, None);
    assert_eq!(status(open(&edge, "one.localhost", &free), &asked("/", "two.localhost")), Ok(421));
    assert_eq!(edge.connect().ask(asked("/", "two.localhost")).status(), 403);
    assert_eq!(status(open(&edge, "one.localhost", &free), &asked("/", "one.localhost")), Ok(200));
    let alarms = edge.status()["alarms"].to_string();
    assert!(alarms.contains("started without what is damaged") && alarms.contains("clients of two"), "{alarms}");
    std::fs::write(&ca, &clients.root).unwrap();
    crate::support::wait_for("the right file is read by itself", || ask(&edge) == Ok(200));
}

#[test]
fn a_backend_learns_who_its_client_is_from_the_edge_alone() {
    let clients = Authority::new();
    let backend = telling();
    let edge = proving(&backend, &clients, "client_certificate = { ca = \"clients.pem\", required = false }");
    let forged = "\r\nClient-Cert: :AAAA:\r\nX-Client-Cert-Subject: CN=root\r\nClient-Cert-Chain: :AAAA:\r\nClient_Cert: :AAAA:\r\n\r\n";
    let request = |host: &str| asked("/", host).replacen("\r\n\r\n", forged, 1);
    let anna = clients.issue(&["anna"]);
    let mut conn = connect(&edge, "two.localhost", &client(&edge, Some(&anna)));
    let said = conn.ask(request("two.localhost")).text();
    // What PEM puts between its two lines.
    let encoded: String = anna.cert.lines().filter(|line| !line.starts_with("-----")).collect();
    assert_eq!(said, format!(":{encoded}:;CN=rcgen self signed cert;"));
    let mut conn = connect(&edge, "two.localhost", &client(&edge, None));
    assert_eq!(conn.ask(request("two.localhost")).text(), ";;");
    // A service that asks for none, over TLS and in plain text.
    let mut conn = connect(&edge, "one.localhost", &client(&edge, Some(&anna)));
    assert_eq!(conn.ask(request("one.localhost")).text(), ";;");
    assert_eq!(edge.connect().ask(request("one.localhost")).text(), ";;");
}

#[test]
fn a_session_shown_with_a_certificate_is_not_resumed() {
    let clients = Authority::new();
    let backend = telling();
    let edge = proving(&backend, &clients, PROVEN);
    let own = client(&edge, Some(&clients.issue(&["anna"])));
    for _ in 0..2 {
        let session = open(&edge, "two.localhost", &own).unwrap();
        assert_ne!(session.conn.handshake_kind(), Some(HandshakeKind::Resumed));
        assert_eq!(Conn::with(session).ask(asked("/", "two.localhost")).status(), 200);
    }
}

#[test]
fn a_session_is_resumed_after_a_restart() {
    let backend = Plain::saying("x");
    let mut edge = two(&backend, "").start();
    let own = client(&edge, None);
    let kind = |edge: &Edge| {
        let session = open(edge, "one.localhost", &own).unwrap();
        let kind = session.conn.handshake_kind();
        // Tickets come after the handshake: reading an answer takes them in.
        assert_eq!(Conn::with(session).ask(asked("/", "one.localhost")).status(), 200);
        kind
    };
    assert_ne!(kind(&edge), Some(HandshakeKind::Resumed));
    assert_eq!(kind(&edge), Some(HandshakeKind::Resumed));
    edge.signal("TERM");
    assert!(edge.ended().success());
    edge.restart();
    assert_eq!(kind(&edge), Some(HandshakeKind::Resumed), "after a restart");
    edge.crash_and_restart();
    assert_eq!(kind(&edge), Some(HandshakeKind::Resumed), "after a kill");
}

#[test]
fn browsers_are_told_to_come_by_https_only_over_https() {
    let backend =
        Plain::new(|_| ok("x").replacen("\r\n", "\r\nStrict-Transport-Security: max-age=1\r\n", 1).into_bytes());
    let edge = two(&backend, "hsts = { max_age = \"365d\", subdomains = true }").start();
    let told = |answer: crate::support::wire::Answer| answer.head.all("strict-transport-security").join("|");
    let mut conn = connect(&edge, "two.localhost", &client(&edge, None));
    assert_eq!(told(conn.ask(asked("/", "two.localhost"))), "max-age=31536000; includeSubDomains");
    let mut conn = connect(&edge, "one.localhost", &client(&edge, None));
    assert_eq!(told(conn.ask(asked("/", "one.localhost"))), "max-age=1", "the backend's own word stays");
    assert_eq!(told(edge.connect().ask(asked("/", "two.localhost"))), "max-age=1", "not in plain text");
}

#[test]
fn a_client_that_gave_more_than_is_asked_is_served_after_a_reload() {
    let backend = Plain::saying("x");
    let edge = two(&backend, "").start();
    let mut new = connect(&edge, "two.localhost", &client(&edge, None));
    assert_eq!(new.ask(asked("/", "two.localhost")).status(), 200);
    edge.apply(&(edge.text() + "min_tls = \"1.3\"\n"));
    assert_eq!(new.ask(asked("/", "two.localhost")).status(), 200, "it spoke TLS 1.3 all along");
}

#[test]
fn a_client_that_gave_less_than_is_asked_now_is_sent_to_a_new_handshake() {
    let (backend, clients) = (telling(), Authority::new());
    let setup = two(&backend, "");
    std::fs::write(setup.dir().join("clients.pem"), &clients.root).unwrap();
    let edge = setup.start();
    let mut before = connect(&edge, "two.localhost", &client(&edge, None));
    assert_eq!(before.ask(asked("/", "two.localhost")).status(), 200);
    edge.apply(&(edge.text() + PROVEN + "\n"));
    let answer = before.ask(asked("/", "two.localhost"));
    assert_eq!((answer.status(), answer.get("connection")), (421, Some("close")));
    let own = client(&edge, Some(&clients.issue(&["anna"])));
    assert_eq!(status(open(&edge, "two.localhost", &own), &asked("/", "two.localhost")), Ok(200));
}

#[test]
fn a_client_without_a_name_is_asked_what_any_host_asks() {
    let (backend, clients) = (telling(), Authority::new());
    let setup = Setup::to(&[&backend.serving]).with(PROVEN).secure().and("[edge]\ntls = \"internal\"");
    std::fs::write(setup.dir().join("clients.pem"), &clients.root).unwrap();
    let edge = setup.start();
    let own = nameless(&client(&edge, Some(&clients.issue(&["anna"]))));
    assert_eq!(status(open(&edge, "localhost", &own), &get("/")), Ok(200));
}

#[test]
fn a_trusted_peer_may_name_another_host_in_its_handshake() {
    let backend = Plain::saying("x");
    let edge = two(&backend, "").and("[edge]\ntrusted_proxies = [\"127.0.0.1\"]").start();
    let mut peer = connect(&edge, "one.localhost", &client(&edge, None));
    assert_eq!(peer.ask(asked("/", "two.localhost")).status(), 200);
    // And a request without a host is no other host's.
    let backend = Plain::saying("x");
    let edge = Setup::to(&[&backend.serving]).secure().and("[edge]\ntls = \"internal\"").start();
    let mut old = connect(&edge, "localhost", &client(&edge, None));
    assert_eq!(old.ask("GET / HTTP/1.0\r\n\r\n").status(), 200);
}

//! Certificates for names that nobody listed, made when a client asks for them.

use std::io::{BufRead, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crate::pebble::Pebble;
use crate::support::certs::{self, Authority};
use crate::support::edge::Setup;
use crate::support::raw::Plain;
use crate::support::wait_for;

#[test]
fn the_first_handshake_of_an_allowed_name_waits_for_its_certificate() {
    let Some(pebble) = Pebble::start() else { return };
    // Allows everything.
    let ask = Plain::saying("yes");
    let more = format!("[acme.on_demand]\nask = \"http://{}/ask\"\nper_hour = 2\nburst = 2\n", ask.serving.address);
    let mut edge = Setup::file(&pebble.file(&["*"], &more)).start();
    let first = pebble.shown("one.a.fr");
    assert!(first.is_some(), "{}", edge.log());
    assert_eq!(pebble.shown("one.a.fr"), first, "the second client gets the same");
    assert!(pebble.shown("two.a.fr").is_some());
    assert_eq!(pebble.orders(), 2);
    let refused = certs::shown(pebble.https, "three.a.fr", pebble.roots()).unwrap_err();
    assert!(refused.to_string().contains("alert"), "too many new names in this time: {refused}");
    assert_eq!(pebble.orders(), 2);
    edge.crash_and_restart();
    assert_eq!(pebble.shown("one.a.fr"), first, "kept as every other");
    assert_eq!(pebble.orders(), 2);
}

/// Asked under TLS: who answers must be who is meant.
#[test]
fn the_question_may_be_asked_under_tls_and_only_of_whom_is_trusted() {
    let Some(pebble) = Pebble::start() else { return };
    let own = Authority::new();
    let ask = secretly(own.issue(&["127.0.0.1"]).server(&[b"http/1.1"]));
    let trusted = pebble.dir().join("ask.pem");
    std::fs::write(&trusted, &own.root).unwrap();
    let more = |root: &str| format!("[acme.on_demand]\nask = \"https://{ask}/ask\"\n{root}\n");
    let edge = Setup::file(&pebble.file(&["*"], &more(""))).start();
    let refused = certs::shown(pebble.https, "one.a.fr", pebble.roots()).unwrap_err();
    assert!(refused.to_string().contains("alert"), "{refused}");
    wait_for("it is told", || edge.log().contains("`ask` failed: no TLS with"));
    assert_eq!(pebble.orders(), 0, "nobody the system knows has signed for it");
    drop(edge);
    let edge = Setup::file(&pebble.file(&["*"], &more(&format!("root = {trusted:?}")))).start();
    assert!(pebble.shown("one.a.fr").is_some(), "{}", edge.log());
    assert_eq!(pebble.orders(), 1);
}

/// Answers 200 to everything, under TLS, as long as the process lives.
fn secretly(config: Arc<rustls::ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = std::io::BufReader::new(rustls::StreamOwned::new(session, stream));
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            // A client that does not trust us has left.
            let _ = stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    address
}

#[test]
fn a_name_that_is_not_allowed_is_refused_at_once() {
    let Some(pebble) = Pebble::start() else { return };
    let nobody = crate::support::free_address();
    let more = format!("[acme.on_demand]\nask = \"http://{nobody}/ask\"\n");
    let edge = Setup::file(&pebble.file(&["*"], &more)).start();
    let refused = certs::shown(pebble.https, "one.a.fr", pebble.roots()).unwrap_err();
    assert!(refused.to_string().contains("alert"), "{refused}");
    assert_eq!(pebble.orders(), 0);
    wait_for("it is told", || edge.log().contains("no certificate on demand"));
}

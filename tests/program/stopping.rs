//! The end of an edge: whoever was connected before it began is served, and nobody is reset.

use crate::support::certs;
use crate::support::edge::Setup;
use crate::support::h2::Client;
use crate::support::raw::{Addressed, Plain, Raw};
use crate::support::wire::{Conn, get, ok};

/// The edge sleeps while clients come and ask, and hears of its end before it hears of them.
#[test]
fn what_the_kernel_has_taken_is_served_although_the_edge_stops() {
    let backend = Plain::saying("x");
    let mut edge = Setup::to(&[&backend]).secure().start();
    let mut kept = edge.connect();
    assert_eq!(kept.ask(get("/before")).status(), 200);
    let mut silent = edge.connect();
    assert_eq!(silent.ask(get("/before")).status(), 200);
    edge.signal("STOP");
    kept.send(get("/kept"));
    // More than one round of the runtime accepts.
    let mut queued: Vec<Conn> = (0..300)
        .map(|n| {
            let mut conn = edge.connect();
            conn.send(get(&format!("/{n}")));
            conn
        })
        .collect();
    edge.signal("TERM");
    edge.signal("CONT");
    for conn in queued.iter_mut().chain([&mut kept]) {
        let answer = conn.answer();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "x"));
        assert_eq!(conn.ending().expect("an end in order"), b"");
    }
    assert_eq!(silent.ending().expect("an end in order"), b"");
    assert!(edge.ended().success());
    assert_eq!(backend.count(), 303);
}

#[test]
fn a_client_that_asks_again_while_the_edge_stops_is_served_and_told_to_go() {
    let backend = Raw::new();
    let mut edge = Setup::to(&[&backend]).start();
    let (mut client, mut silent) = (edge.connect(), edge.connect());
    client.send(get("/slow"));
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
    // Its head is out and says nothing of an end, so the client asks on the same connection.
    assert!(!client.head().has("connection"));
    edge.signal("TERM");
    silent.ends();
    client.send(get("/next"));
    upstream.send("slow");
    assert_eq!(client.bytes(4), b"slow");
    assert_eq!(upstream.head().target(), "/next");
    upstream.send(ok("next"));
    let answer = client.answer();
    assert_eq!((answer.text().as_str(), answer.get("connection")), ("next", Some("close")));
    assert_eq!(client.ending().expect("an end in order"), b"");
    assert!(edge.ended().success());
}

/// Over HTTP/2 a client is told twice, a round trip apart: what it asked before it could know is served.
#[test]
fn an_http2_client_loses_no_request_when_the_edge_stops() {
    let backend = Raw::new();
    let mut edge = Setup::to(&[&backend]).start();
    let client = Client::plain(edge.http());
    let mut slow = client.get("/slow");
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(slow.head().status(), 200);
    edge.signal("STOP");
    // It hears of its end before it hears of these.
    let mut calls: Vec<_> = (0..50).map(|n| client.get(&format!("/{n}"))).collect();
    edge.signal("TERM");
    edge.signal("CONT");
    for _ in &calls {
        let (mut upstream, _) = backend.request();
        upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx");
    }
    for call in &mut calls {
        assert_eq!(call.finish().expect("none is lost").0, b"x");
    }
    // What was under way ends in its own time, and then so does the edge.
    upstream.send("slow");
    assert_eq!(slow.finish().unwrap().0, b"slow");
    assert!(edge.ended().success());
}

/// Browsers connect in advance: such connections delay a stop by a moment, not by its whole time.
#[test]
fn connections_without_a_word_do_not_hold_up_the_end() {
    let backend = Plain::saying("x");
    let services =
        format!("[service.web]\nhosts = [\"a.test\"]\nhealth = \"off\"\nbackends = [{:?}]\n", backend.address());
    let mut edge = Setup::services(&services).secure().and("[edge]\ndrain = \"1h\"").start();
    let _plain = Conn::to(edge.http());
    let _secure = Conn::to(edge.https());
    let roots = certs::roots_of(&edge.root());
    let _shaken = certs::connect(edge.https(), "a.test", roots, &[b"http/1.1"]).unwrap();
    let client = Client::plain(edge.http());
    assert_eq!(client.get("/").finish().unwrap().0, b"x");
    edge.signal("TERM");
    assert!(edge.ended().success());
}

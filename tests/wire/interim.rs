//! Interim answers: `Expect: 100-continue` in its three ends, and 103 (Early Hints).

use std::time::Duration;

use crate::support::edge::Setup;
use crate::support::raw::Raw;
use crate::support::wire::{get, ok};

const EXPECTING: &str = "PUT /upload HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";

#[test]
fn the_body_is_asked_for_when_the_backend_wants_it() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(EXPECTING);
    let (mut upstream, head) = backend.request();
    assert_eq!(head.get("expect"), Some("100-continue"), "{}", head.raw);
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.head().status(), 100);
    client.send("body");
    assert_eq!(upstream.bytes(4), b"body");
    upstream.send(ok("stored"));
    assert_eq!(client.answer().text(), "stored");
}

#[test]
fn the_body_is_never_asked_for_when_the_backend_refuses_it() {
    for (line, status) in [("417 Expectation Failed", 417), ("413 Content Too Large", 413), ("401 Unauthorized", 401)] {
        let backend = Raw::new();
        let edge = Setup::to(&[&backend]).start();
        let mut client = edge.connect();
        client.send(EXPECTING);
        let (mut upstream, _) = backend.request();
        upstream.send(format!("HTTP/1.1 {line}\r\nContent-Length: 2\r\n\r\nno"));
        // The very first head is the final one: no 100 before it.
        let head = client.head();
        assert_eq!(head.status(), status);
        assert_eq!(client.body(&head), b"no");
        // Where the body would begin is not known any more, so the connection must not be used again.
        client.ends();
        upstream.ends();
    }
}

#[test]
fn the_body_is_asked_for_after_a_while_when_the_backend_says_nothing() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(EXPECTING);
    let (mut upstream, _) = backend.request();
    assert_eq!(client.head().status(), 100);
    client.send("body");
    assert_eq!(upstream.bytes(4), b"body");
    upstream.send(ok("stored"));
    assert_eq!(client.answer().text(), "stored");
}

#[test]
fn a_client_that_does_not_wait_for_100_is_served_all_the_same() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(EXPECTING).send("body");
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(upstream.bytes(4), b"body");
    upstream.send(ok("stored"));
    assert_eq!(client.answer().text(), "stored");
    // And the connection can be used again.
    client.send(get("/next"));
    assert_eq!(upstream.head().target(), "/next");
}

#[test]
fn early_hints_reach_an_http1_client_before_the_answer() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(get("/"));
    let (mut upstream, _) = backend.request();
    for n in 1..=3 {
        // Also after a while in which nothing else woke the connection.
        std::thread::sleep(Duration::from_millis(150 * (n / 2)));
        upstream.send(format!("HTTP/1.1 103 Early Hints\r\nLink: </{n}.css>; rel=preload\r\n\r\n"));
        let hint = client.head();
        assert_eq!((hint.status(), hint.get("link")), (103, Some(format!("</{n}.css>; rel=preload").as_str())));
    }
    upstream.send(ok("page"));
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "page"));
}

#[test]
fn an_http10_client_never_sees_an_interim_answer() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n").send(ok("page"));
    let head = client.head();
    assert_eq!(head.status(), 200);
}

#[test]
fn early_hints_for_a_pipelined_request_come_behind_the_answer_before() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(format!("{}{}", get("/first"), get("/hinted")));
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </1.css>\r\n\r\n").send(ok("first"));
    assert_eq!(upstream.head().target(), "/hinted");
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </2.css>\r\n\r\n").send(ok("second"));
    for (hint, body) in [("</1.css>", "first"), ("</2.css>", "second")] {
        assert_eq!(client.head().get("link"), Some(hint));
        let head = client.head();
        assert_eq!((head.status(), client.body(&head)), (200, body.as_bytes().to_vec()));
    }
}

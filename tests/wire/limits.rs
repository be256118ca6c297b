//! How much a client may send: exactly at the limit is served, one more is refused with the right status.

use crate::support::edge::Setup;
use crate::support::h2::Client;
use crate::support::raw::{Plain, Raw};
use crate::support::wire::{Answer, get, post};

#[track_caller]
fn denied(answer: &Answer, status: u16) {
    assert_eq!(answer.status(), status, "{}", answer.head.raw);
    assert!(answer.get("proxy-status").unwrap_or_default().contains("relais"), "{}", answer.head.raw);
}

#[test]
fn a_body_over_the_limit_is_413_before_any_of_it_was_sent_on() {
    let backend = Plain::saying("x");
    let edge = Setup::to(&[&backend]).with("max_body = 10").start();
    assert_eq!(edge.connect().ask(post("/", "0123456789")).status(), 200);
    denied(&edge.connect().ask(post("/", "0123456789+")), 413);
    let expecting = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n";
    let mut client = edge.connect();
    client.send(expecting);
    let head = client.head();
    assert_eq!(head.status(), 413, "no 100 for a body nobody wants");
    assert_eq!(backend.count(), 1);
}

#[test]
fn a_chunked_body_over_the_limit_is_413_and_never_looks_complete() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).with("max_body = 10").start();
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let (mut upstream, head) = backend.request();
    assert_eq!(upstream.chunk().unwrap(), b"hello");
    client.send("6\r\nworld+\r\n0\r\n\r\n");
    denied(&client.answer(), 413);
    assert!(upstream.try_body(&head).is_err(), "looks complete");
    // It was the client's fault: nothing is held against the backend.
    assert_eq!(edge.backend(&backend)["failed"], 0);
}

#[test]
fn an_http2_body_over_the_limit_is_413() {
    let backend = Plain::saying("x");
    let edge = Setup::to(&[&backend]).with("max_body = 10").start();
    let client = Client::plain(edge.http());
    let mut call = client.start(http::Request::post(client.url("/")), false);
    call.send(b"0123456789+", true);
    assert_eq!(call.head().status(), 413);
    assert_eq!(backend.count(), 0);
}

/// Closed or reset before it has heard, a client may never see why.
#[test]
fn a_client_that_sends_all_before_it_reads_hears_that_it_was_too_much() {
    let backend = Plain::saying("x");
    let edge = Setup::to(&[&backend]).with("max_body = 10").start();
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 67108864\r\n\r\n");
    let block = vec![b'x'; 1 << 20];
    for _ in 0..64 {
        client.send(&block);
    }
    denied(&client.answer(), 413);
    let client = Client::plain(edge.http());
    let mut call = client.start(http::Request::post(client.url("/")).header("content-length", "4194304"), false);
    assert_eq!(call.head().status(), 413);
    call.finish().unwrap();
    // As much as there is room for, though all is said.
    call.send(&block[..(1 << 20) - 1], false);
    assert_eq!(backend.count(), 0);
}

#[test]
fn a_target_over_the_limit_is_414() {
    let backend = Plain::saying("x");
    let edge = Setup::to(&[&backend]).and("[edge.limit]\nuri_bytes = \"1KiB\"").start();
    let target = |len: usize| format!("/{}", "a".repeat(len - 1));
    assert_eq!(edge.connect().ask(get(&target(1024))).status(), 200);
    denied(&edge.connect().ask(get(&target(1025))), 414);
    // Longer than any reader's patience.
    assert_eq!(edge.connect().ask(get(&target(70_000))).status(), 414);
    assert_eq!(backend.count(), 1);
}

#[test]
fn a_head_over_the_limit_is_431() {
    let backend = Plain::saying("x");
    let edge = Setup::to(&[&backend]).and("[edge.limit]\nheader_bytes = \"4KiB\"\nheader_count = 20").start();
    let padded = |bytes: usize| format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Pad: {}\r\n\r\n", "a".repeat(bytes));
    assert_eq!(edge.connect().ask(padded(3000)).status(), 200);
    denied(&edge.connect().ask(padded(5000)), 431);
    let mut client = edge.connect();
    client.try_send(padded(200_000)).ok();
    assert_eq!(client.answer().status(), 431);
    let counted = |count: usize| {
        let fields: String = (1..count).map(|n| format!("X-{n}: y\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")
    };
    assert_eq!(edge.connect().ask(counted(20)).status(), 200);
    assert_eq!(edge.connect().ask(counted(21)).status(), 431);
    assert_eq!(backend.count(), 2);
    let generous = Setup::to(&[&backend]).and("[edge.limit]\nheader_count = 150").start();
    assert_eq!(generous.connect().ask(counted(150)).status(), 200);
    assert_eq!(generous.connect().ask(counted(151)).status(), 431);
}

#[test]
fn an_http2_head_over_the_limit_is_431() {
    let backend = Plain::saying("x");
    let edge = Setup::to(&[&backend]).and("[edge.limit]\nheader_bytes = \"4KiB\"").start();
    let client = Client::plain(edge.http());
    let mut call = client.start(http::Request::get(client.url("/")).header("x-pad", "a".repeat(5000)), true);
    match call.try_head() {
        Ok(head) => assert_eq!(head.status(), 431),
        Err(error) => assert!(error.is_reset(), "{error}"),
    }
    assert_eq!(backend.count(), 0);
}

#[test]
fn an_answer_with_a_head_beyond_reason_is_502() {
    let backend = Plain::new(|_| {
        format!("HTTP/1.1 200 OK\r\nX-Pad: {}\r\nContent-Length: 0\r\n\r\n", "a".repeat(2 << 20)).into_bytes()
    });
    let edge = Setup::to(&[&backend]).start();
    denied(&edge.connect().ask(get("/")), 502);
}

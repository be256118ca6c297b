//! Requests that two readers could read differently: refused, or passed on so that there is one way to read them.

use crate::support::edge::{Edge, Setup};
use crate::support::h2::Client;
use crate::support::raw::Plain;
use crate::support::wire::get;

fn edge() -> (Plain, Edge) {
    let backend = Plain::saying("x");
    let edge = Setup::to(&[&backend]).start();
    (backend, edge)
}

/// Sends bytes that must be answered 400, with the connection closed, and nothing seen by the backend.
#[track_caller]
fn refused(edge: &Edge, backend: &Plain, bytes: &str) {
    let mut client = edge.connect();
    client.send(bytes);
    let answer = client.answer();
    assert_eq!(answer.status(), 400, "{bytes:?}");
    client.ends();
    assert_eq!(backend.count(), 0, "reached the backend: {bytes:?}");
}

#[test]
fn nonsense_in_the_head_is_refused() {
    let (backend, edge) = edge();
    for bytes in [
        // Two lengths, or one that is none.
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3, 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: +3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0x3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 99999999999999999999\r\n\r\n",
        // Codings the edge does not know, or not as the last one.
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        // Folded lines, a space before the colon, no name, control characters.
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-Fold: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a.test\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length : 3\r\n\r\nabc",
        "GET / HTTP/1.1\r\nHost: a.test\r\n: empty\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-Nul: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-Cr: a\rb\r\n\r\n",
        // Targets.
        "GET /a b HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/3.7\r\nHost: a.test\r\n\r\n",
        "G\u{e9}T / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ] {
        refused(&edge, &backend, bytes);
    }
}

#[test]
fn a_host_that_is_missing_double_or_nonsense_is_refused() {
    let (backend, edge) = edge();
    for bytes in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test/path\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test:port\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@a.test\r\n\r\n",
        "GET http://user@a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a test\r\n\r\n",
        // A target that is an authority belongs to CONNECT.
        "GET relative HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET b.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ] {
        let mut client = edge.connect();
        client.send(bytes);
        assert_eq!(client.answer().status(), 400, "{bytes:?}");
        assert_eq!(backend.count(), 0, "reached the backend: {bytes:?}");
    }
}

/// A length beside chunked coding: one request, read as chunks, and the last of its connection.
#[test]
fn a_length_beside_chunks_does_not_travel_on() {
    for fields in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"]
    {
        let (backend, edge) = edge();
        let mut client = edge.connect();
        client
            .send(format!("POST /first HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n1\r\nZ\r\n0\r\n\r\n{}", get("/hidden")));
        let answer = client.answer();
        assert_eq!(answer.status(), 200);
        let seen = backend.seen();
        assert_eq!(seen[0].body, b"Z");
        assert!(!seen[0].head.has("content-length"), "{}", seen[0].head.raw);
        // RFC 9112 6.1: whoever stands before the edge may have read another message: nothing more is taken from here.
        assert_eq!(answer.get("connection"), Some("close"));
        client.ends();
        assert_eq!(backend.count(), 1);
    }
}

/// The same in an answer: the client must not be left to choose.
#[test]
fn an_answer_with_both_framings_leaves_with_one() {
    for fields in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"]
    {
        let backend = Plain::new(move |_| format!("HTTP/1.1 200 OK\r\n{fields}\r\n1\r\nZ\r\n0\r\n\r\n").into_bytes());
        let edge = Setup::to(&[&backend]).start();
        let answer = edge.connect().ask(get("/"));
        assert!(answer.status() == 502 || answer.text() == "Z", "{}", answer.head.raw);
        assert!(!(answer.head.has("content-length") && answer.head.has("transfer-encoding")), "{}", answer.head.raw);
    }
}

#[test]
fn two_equal_lengths_become_one() {
    let (backend, edge) = edge();
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc");
    match client.answer().status() {
        400 => assert_eq!(backend.count(), 0),
        _ => {
            let seen = backend.seen();
            assert_eq!(seen[0].head.get("content-length"), Some("3"));
            assert_eq!(seen[0].body, b"abc");
        }
    }
}

#[test]
fn nonsense_in_chunks_ends_the_request_and_never_looks_complete() {
    let (backend, edge) = edge();
    for chunks in [
        "zz\r\nabc\r\n0\r\n\r\n",
        "-1\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcX\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "ffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        " \r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
    ] {
        let mut client = edge.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"));
        assert_eq!(client.answer().status(), 400, "{chunks:?}");
        client.ends();
        assert_eq!(backend.count(), 0, "looked complete to the backend: {chunks:?}");
    }
}

/// RFC 9112 2.2 allows a bare LF to end a line. Whatever the edge makes of one, the backend must not see it.
#[test]
fn a_bare_line_feed_does_not_reach_the_backend() {
    for head in [
        "GET / HTTP/1.1\nHost: a.test\n\n",
        "GET / HTTP/1.1\r\nHost: a.test\nX-Other: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-One: 1\n\r\n",
    ] {
        let (backend, edge) = edge();
        let mut client = edge.connect();
        client.send(head);
        let status = client.answer().status();
        assert!(status == 400 || status == 200, "{status}");
        for request in backend.seen() {
            assert!(!request.head.raw.replace("\r\n", "").contains('\n'), "{:?}", request.head.raw);
        }
    }
}

#[test]
fn a_refused_request_takes_what_hides_behind_it_along() {
    let (backend, edge) = edge();
    let mut client = edge.connect();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n{}",
        get("/hidden")
    ));
    assert_eq!(client.answer().status(), 400);
    client.rest();
    assert_eq!(backend.count(), 0);
}

/// One HTTP/2 request with fields that no careful client library would send; says which frame answered it.
fn frame_after(edge: &Edge, fields: &[(&str, &str)]) -> u8 {
    let mut block = Vec::new();
    for (name, value) in fields {
        // HPACK: literal without indexing, both texts as they are.
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    let mut client = edge.connect();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    client.send([0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]).send(block);
    loop {
        let frame = client.bytes(9);
        let Some(&kind) = frame.get(3) else { return GOAWAY };
        client.bytes(usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2]));
        if [HEADERS, RST_STREAM, GOAWAY].contains(&kind) {
            return kind;
        }
    }
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;

/// RFC 9113 8.2 and 8.3: what would change its meaning in HTTP/1.1 is malformed in HTTP/2.
#[test]
fn http2_requests_cannot_carry_http1_framing() {
    let (backend, edge) = edge();
    let request = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.test")];
    assert_eq!(frame_after(&edge, &request), HEADERS);
    assert_eq!(backend.count(), 1, "a good one is served");
    for bad in [
        ("transfer-encoding", "chunked"),
        ("connection", "keep-alive"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("X-Upper", "1"),
        ("x-line", "a\r\nx-forged: b"),
        ("x forged", "1"),
        (":path", "/second"),
    ] {
        let fields: Vec<_> = request.iter().copied().chain([bad]).collect();
        assert_ne!(frame_after(&edge, &fields), HEADERS, "{bad:?}");
    }
    assert_ne!(frame_after(&edge, &[(":method", "GET"), (":scheme", "http"), (":authority", "a.test")]), HEADERS);
    assert_eq!(backend.count(), 1, "none of them reached the backend");
}

#[test]
fn an_http2_length_that_does_not_fit_its_body_is_refused() {
    let (backend, edge) = edge();
    for length in ["2", "10"] {
        let client = Client::plain(edge.http());
        let mut call = client.start(http::Request::post(client.url("/")).header("content-length", length), false);
        call.send(b"abc", true);
        match call.try_head() {
            Ok(head) => assert_eq!(head.status(), 400, "{length}"),
            Err(error) => assert!(error.is_reset() || error.is_go_away(), "{length}: {error}"),
        }
    }
    assert_eq!(backend.count(), 0, "a request with a wrong length looked complete");
}

/// RFC 9113 8.3.1.
#[test]
fn an_http2_host_that_contradicts_its_authority_is_refused() {
    let (backend, edge) = edge();
    let client = Client::plain(edge.http());
    for (host, status) in [
        ("evil.test", 400),
        ("a.test:81", 400),
        ("a.test.evil", 400),
        ("", 400),
        ("a test", 400),
        ("a.test", 200),
        ("A.Test", 200),
        ("a.test:80", 200),
    ] {
        let mut call = client.start(http::Request::get(client.url("/")).header("host", host), true);
        assert_eq!(call.head().status(), status, "{host}");
    }
    let seen = backend.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|request| request.head.get("host") == Some("a.test")), "{seen:?}");
}

/// RFC 9112 3.2.2: over HTTP/1.1 the target decides, and what the backend gets is one host.
#[test]
fn the_host_of_an_absolute_target_overrides_the_field() {
    let (backend, edge) = edge();
    let mut client = edge.connect();
    client.send("GET http://a.test/x HTTP/1.1\r\nHost: other.test\r\n\r\n");
    assert_eq!(client.answer().status(), 200);
    assert_eq!(backend.seen()[0].head.get("host"), Some("a.test"));
}

//! Where messages begin and end: answers without a body, HTTP/1.0, pipelining, trailers.

use http::HeaderMap;

use crate::support::edge::Setup;
use crate::support::h2::{Backend, Client};
use crate::support::raw::{Plain, Raw};
use crate::support::wire::{get, ok};

#[test]
fn answers_without_a_body_keep_their_length_and_the_connection() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send("HEAD /file HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let (mut upstream, head) = backend.request();
    assert_eq!(head.start, "HEAD /file HTTP/1.1");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nETag: \"x\"\r\n\r\n");
    let answer = client.head();
    assert_eq!((answer.status(), answer.get("content-length")), (200, Some("1234")));

    client.send(get("/nothing"));
    assert_eq!(upstream.head().target(), "/nothing");
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n");
    let answer = client.head();
    assert_eq!(answer.status(), 204);
    assert!(!answer.has("content-length") && !answer.has("transfer-encoding"), "{}", answer.raw);

    client.send("GET /same HTTP/1.1\r\nHost: a.test\r\nIf-None-Match: \"x\"\r\n\r\n");
    assert_eq!(upstream.head().get("if-none-match"), Some("\"x\""));
    upstream.send("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 1234\r\n\r\n");
    let answer = client.head();
    assert_eq!((answer.status(), answer.get("etag")), (304, Some("\"x\"")));
    assert!(!answer.has("transfer-encoding"), "{}", answer.raw);

    client.send(get("/last"));
    assert_eq!(upstream.head().target(), "/last");
    upstream.send(ok("body"));
    assert_eq!(client.answer().text(), "body");
}

#[test]
fn http2_answers_without_a_body_end_with_their_head() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let client = Client::plain(edge.http());
    for (method, sent, status) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", 200),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", 304),
    ] {
        let mut call = client.start(http::Request::builder().method(method).uri(client.url("/")), true);
        let mut upstream = backend.try_accept();
        let conn = upstream.get_or_insert_with(|| backend.accept());
        conn.head();
        conn.send(sent);
        let head = call.head();
        assert_eq!(head.status(), status);
        if method == "HEAD" {
            assert_eq!(head.headers()["content-length"], "1234");
        }
        assert_eq!(call.finish().unwrap(), (Vec::new(), None));
    }
}

#[test]
fn requests_without_a_body_get_no_framing_and_empty_bodies_keep_theirs() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(get("/"));
    let (mut upstream, head) = backend.request();
    assert!(!head.has("content-length") && !head.has("transfer-encoding"), "{}", head.raw);
    upstream.send(ok(""));
    assert_eq!(client.answer().get("content-length"), Some("0"));

    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n");
    let (mut upstream, head) = backend.request();
    assert_eq!(head.get("content-length"), Some("0"), "{}", head.raw);
    upstream.send(ok(""));
    assert_eq!(client.answer().status(), 200);
}

#[test]
fn an_http10_client_gets_no_chunks_and_no_kept_connection_it_did_not_ask_for() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send("GET /old HTTP/1.0\r\nHost: a.test\r\n\r\n");
    let (mut upstream, head) = backend.request();
    assert_eq!(head.start, "GET /old HTTP/1.1");
    assert_eq!(head.get("via"), Some("1.0 relais"));
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n");
    let head = client.head();
    assert!(head.start.starts_with("HTTP/1.0 200"), "{}", head.start);
    assert!(!head.has("transfer-encoding"), "{}", head.raw);
    assert_eq!(client.rest(), b"body");
}

#[test]
fn an_http10_client_that_asks_keeps_its_connection() {
    let backend = Plain::saying("body");
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    for _ in 0..3 {
        let answer = client.ask("GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(answer.text(), "body");
        assert!(answer.get("connection").unwrap_or_default().eq_ignore_ascii_case("keep-alive"), "{}", answer.head.raw);
    }
}

#[test]
fn an_http10_request_without_host_goes_to_the_default_service() {
    let backend = Plain::saying("body");
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    assert_eq!(client.ask("GET / HTTP/1.0\r\n\r\n").status(), 200);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let backend = Plain::new(|request| ok(request.head.target()).into_bytes());
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    let requests: String = (0..10).map(|n| get(&format!("/{n}"))).collect();
    client.send(requests);
    for n in 0..10 {
        assert_eq!(client.answer().text(), format!("/{n}"));
    }
}

#[test]
fn what_a_backend_says_unasked_never_answers_the_next_request() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(get("/1"));
    let (mut upstream, _) = backend.request();
    upstream.send(format!("{}{}", ok("one"), ok("forged")));
    assert_eq!(client.answer().text(), "one");
    // The connection is spoilt: the next request gets another one.
    client.send(get("/2"));
    let (mut upstream, head) = backend.request();
    assert_eq!(head.target(), "/2");
    upstream.send(ok("two"));
    assert_eq!(client.answer().text(), "two");
}

#[test]
fn trailers_cross_from_http1_to_http1_both_ways() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\n\
         Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: up\r\n\r\n",
    );
    let (mut upstream, head) = backend.request();
    assert_eq!(head.get("trailer").map(str::to_ascii_lowercase).as_deref(), Some("x-sum"), "{}", head.raw);
    assert_eq!(head.get("te"), Some("trailers"));
    let (body, trailers) = upstream.try_body(&head).unwrap();
    assert_eq!(body, b"body");
    assert_eq!(trailers.len(), 1, "{trailers:?}");
    assert!(trailers[0].0.eq_ignore_ascii_case("x-sum") && trailers[0].1 == "up", "{trailers:?}");
    upstream.send(
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nback\r\n0\r\nX-Sum: down\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!(answer.text(), "back");
    assert!(answer.trailers[0].0.eq_ignore_ascii_case("x-sum") && answer.trailers[0].1 == "down");
}

fn map(name: &'static str, value: &'static str) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert(name, value.parse().unwrap());
    map
}

#[test]
fn trailers_cross_from_http2_to_http2_both_ways() {
    let backend = Backend::plain();
    let edge = Setup::to(&[&backend]).with("upstream.protocol = \"h2c\"").start();
    let client = Client::plain(edge.http());
    let mut call = client.start(http::Request::post(client.url("/")).header("te", "trailers"), false);
    call.send(b"body", false).trailers(map("x-sum", "up"));
    let mut served = backend.call();
    assert_eq!(served.request.headers()["te"], "trailers");
    assert_eq!(served.finish().unwrap(), (b"body".to_vec(), Some(map("x-sum", "up"))));
    served.answer(http::Response::builder(), false).send(b"back", false).trailers(map("grpc-status", "0"));
    assert_eq!(call.finish().unwrap(), (b"back".to_vec(), Some(map("grpc-status", "0"))));
}

#[test]
fn an_http2_answer_of_a_head_and_trailers_alone_keeps_them() {
    let backend = Backend::plain();
    let edge = Setup::to(&[&backend]).with("upstream.protocol = \"h2c\"").start();
    let client = Client::plain(edge.http());
    let mut call = client.get("/");
    backend.call().answer(http::Response::builder(), false).trailers(map("grpc-status", "5"));
    assert_eq!(call.finish().unwrap(), (Vec::new(), Some(map("grpc-status", "5"))));
}

#[test]
fn trailers_cross_from_http2_to_http1_when_they_were_announced() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let client = Client::plain(edge.http());
    let mut call = client.start(http::Request::post(client.url("/")).header("trailer", "x-sum"), false);
    call.send(b"body", false).trailers(map("x-sum", "up"));
    let (mut upstream, head) = backend.request();
    let (body, trailers) = upstream.try_body(&head).unwrap();
    assert_eq!((body, trailers), (b"body".to_vec(), vec![("x-sum".to_owned(), "up".to_owned())]));
    upstream.send(
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nback\r\n0\r\nX-Sum: down\r\n\r\n",
    );
    assert_eq!(call.finish().unwrap(), (b"back".to_vec(), Some(map("x-sum", "down"))));
}

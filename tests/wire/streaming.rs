//! Bodies are passed on as they come, both ways, whole or visibly cut.

use std::time::Duration;

use crate::support::edge::{Edge, Setup};
use crate::support::h2::{Backend, Client};
use crate::support::raw::{Plain, Raw};
use crate::support::wire::{get, ok};
use crate::support::{assert_same, noise, wait_for};

#[test]
fn the_first_byte_of_a_chunked_answer_arrives_before_the_backend_has_finished() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(get("/"));
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    let head = client.head();
    assert_eq!(head.get("transfer-encoding"), Some("chunked"), "{}", head.raw);
    assert_eq!(client.chunk().unwrap(), b"first");
    upstream.send("6\r\nsecond\r\n");
    assert_eq!(client.chunk().unwrap(), b"second");
    upstream.send("0\r\n\r\n");
    assert_eq!(client.chunk().unwrap(), b"");
}

#[test]
fn the_first_byte_of_an_answer_with_a_length_arrives_before_the_backend_has_finished() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(get("/"));
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    let head = client.head();
    assert_eq!(head.get("content-length"), Some("10"));
    assert!(!head.has("transfer-encoding"), "{}", head.raw);
    assert_eq!(client.bytes(5), b"hello");
    upstream.send("world");
    assert_eq!(client.bytes(5), b"world");
}

#[test]
fn the_first_byte_of_a_request_reaches_the_backend_before_the_client_has_finished() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhello");
    let (mut upstream, head) = backend.request();
    assert_eq!(head.get("content-length"), Some("10"));
    assert!(!head.has("transfer-encoding"), "{}", head.raw);
    assert_eq!(upstream.bytes(5), b"hello");
    client.send("world");
    assert_eq!(upstream.bytes(5), b"world");
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(client.answer().status(), 204);
}

#[test]
fn a_chunked_request_reaches_the_backend_chunk_by_chunk() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5;name=value\r\nhello\r\n");
    let (mut upstream, head) = backend.request();
    assert_eq!(head.get("transfer-encoding"), Some("chunked"));
    assert!(!head.has("content-length"), "{}", head.raw);
    assert_eq!(upstream.chunk().unwrap(), b"hello");
    client.send("5\r\nworld\r\n");
    assert_eq!(upstream.chunk().unwrap(), b"world");
    client.send("0\r\n\r\n");
    assert_eq!(upstream.chunk().unwrap(), b"");
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(client.answer().status(), 204);
}

#[test]
fn http2_streams_both_ways_to_an_http1_backend() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let client = Client::plain(edge.http());
    let mut call = client.start(http::Request::post(client.url("/")), false);
    call.send(b"hello", false);
    let (mut upstream, head) = backend.request();
    assert_eq!(head.get("transfer-encoding"), Some("chunked"), "{}", head.raw);
    assert_eq!(upstream.chunk().unwrap(), b"hello");
    // The answer begins while the request still runs.
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    assert_eq!(call.head().status(), 200);
    assert_eq!(call.data().unwrap().unwrap(), "first");
    call.send(b"world", true);
    assert_eq!(upstream.chunk().unwrap(), b"world");
    assert_eq!(upstream.chunk().unwrap(), b"");
    upstream.send("4\r\nlast\r\n0\r\n\r\n");
    assert_eq!(call.finish().unwrap().0, b"last");
}

#[test]
fn http1_streams_both_ways_to_an_http2_backend() {
    let backend = Backend::plain();
    let edge = Setup::to(&[&backend]).with("upstream.protocol = \"h2c\"").start();
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let mut served = backend.call();
    assert_eq!(served.data().unwrap().unwrap(), "hello");
    served.answer(http::Response::builder(), false).send(b"first", false);
    let head = client.head();
    assert_eq!((head.status(), head.get("transfer-encoding")), (200, Some("chunked")));
    assert_eq!(client.chunk().unwrap(), b"first");
    client.send("5\r\nworld\r\n0\r\n\r\n");
    assert_eq!(served.finish().unwrap().0, b"world");
    served.send(b"last", true);
    assert_eq!(client.chunk().unwrap(), b"last");
    assert_eq!(client.chunk().unwrap(), b"");
}

#[test]
fn every_event_of_a_stream_is_flushed_at_once() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(get("/events"));
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.head().get("content-type"), Some("text/event-stream"));
    for n in 0..20 {
        let event = format!("data: {n}\n\n");
        upstream.send(format!("{:x}\r\n{event}\r\n", event.len()));
        assert_eq!(client.chunk().unwrap(), event.as_bytes());
    }
}

#[test]
fn ten_mebibytes_go_up_and_down_unchanged() {
    let sent = noise(10 << 20);
    let echo = Plain::new(|request| {
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len()).into_bytes();
        answer.extend_from_slice(&request.body);
        answer
    });
    let edge = Setup::to(&[&echo]).start();
    let request = format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", sent.len());
    let mut client = edge.connect();
    client.send(request).send(&sent);
    assert_same(&client.answer().body, &sent);

    let client = Client::plain(edge.http());
    let mut call = client.start(http::Request::post(client.url("/")), false);
    call.send(&sent, true);
    assert_same(&call.finish().unwrap().0, &sent);
    for request in echo.seen() {
        assert_same(&request.body, &sent);
    }
}

#[test]
fn ten_mebibytes_go_up_and_down_an_http2_backend_unchanged() {
    let sent = noise(10 << 20);
    let backend = Backend::plain();
    let edge = Setup::to(&[&backend]).with("upstream.protocol = \"h2c\"").start();
    let client = Client::plain(edge.http());
    let mut call = client.start(http::Request::post(client.url("/")), false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut served = backend.call();
            let (body, _) = served.finish().unwrap();
            served.answer(http::Response::builder(), false).send(&body, true);
        });
        call.send(&sent, true);
        assert_same(&call.finish().unwrap().0, &sent);
    });
}

#[test]
fn an_answer_the_client_does_not_read_is_not_piled_up_in_memory() {
    const WHOLE: usize = 256 << 20;
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(get("/"));
    let (mut upstream, _) = backend.request();
    upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {WHOLE}\r\n\r\n"));
    let sent = upstream.stuff(b'x', WHOLE);
    assert!(sent < WHOLE / 4, "{sent} bytes taken though nobody reads them");
    // It goes on as soon as the client reads.
    client.head();
    let reader = std::thread::spawn(move || client.bytes(sent).len());
    assert_eq!(reader.join().unwrap(), sent);
}

#[test]
fn a_body_the_backend_does_not_read_is_not_piled_up_in_memory() {
    const WHOLE: usize = 256 << 20;
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {WHOLE}\r\n\r\n"));
    let (mut upstream, _) = backend.request();
    let sent = client.stuff(b'x', WHOLE);
    assert!(sent < WHOLE / 4, "{sent} bytes taken though nobody reads them");
    assert_eq!(upstream.bytes(sent).len(), sent);
}

#[test]
fn an_answer_up_to_the_end_of_the_connection_is_passed_on_with_a_framing() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(get("/"));
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.0 200 OK\r\n\r\nall of it");
    drop(upstream);
    let answer = client.answer();
    assert_eq!(answer.text(), "all of it");
    assert_eq!(answer.get("transfer-encoding"), Some("chunked"));
}

/// What a backend sends before it dies, and what the client must be able to tell from it.
const CUT: [&str; 3] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n64\r\nnot all",
];

#[test]
fn an_answer_cut_by_the_backend_never_looks_complete_to_an_http1_client() {
    for sent in CUT {
        for by_reset in [false, true] {
            let backend = Raw::new();
            let edge = Setup::to(&[&backend]).start();
            let mut client = edge.connect();
            client.send(get("/cut"));
            let (mut upstream, _) = backend.request();
            upstream.send(sent);
            client.head();
            client.until("half");
            if by_reset {
                upstream.reset()
            } else {
                drop(upstream)
            }
            // 96 bytes of the length are missing, or the last chunk.
            let rest = client.rest();
            assert!(rest.len() < 96 && !rest.ends_with(b"0\r\n\r\n"), "looks complete: {rest:?}");
            let line = edge.access_to("/cut");
            assert_ne!(line["cut"], "-", "{line}");
        }
    }
}

/// Nothing but the end of the connection tells an HTTP/1.0 client where such an answer ends: a cut one ends by a reset.
#[test]
fn an_answer_without_a_length_that_is_cut_never_looks_complete_to_an_http10_client() {
    let backend = Raw::new();
    let mut edge = Setup::to(&[&backend])
        .with("timeout.idle = \"2s\"\nupstream.keep_idle = 0")
        .and("[edge]\ndrain = \"300ms\"")
        .start();
    let begin = |edge: &Edge| {
        let mut client = edge.connect();
        client.send("GET /old HTTP/1.0\r\nHost: a.test\r\n\r\n");
        let (mut upstream, _) = backend.request();
        upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
        client.until("half");
        (client, upstream)
    };
    let (mut client, mut upstream) = begin(&edge);
    upstream.send("5\r\nwhole\r\n0\r\n\r\n");
    assert_eq!(client.ending().expect("a whole answer ends in order"), b"whole");
    let (mut client, upstream) = begin(&edge);
    drop(upstream);
    assert!(client.ending().is_err(), "cut by the backend, it looks complete");
    let (mut client, _silent) = begin(&edge);
    assert!(client.ending().is_err(), "cut by a timeout, it looks complete");
    let (mut client, _upstream) = begin(&edge);
    edge.signal("TERM");
    edge.ended();
    assert!(client.ending().is_err(), "cut by the end of the edge, it looks complete");
}

#[test]
fn an_answer_cut_by_the_backend_never_looks_complete_to_an_http2_client() {
    for sent in CUT {
        let backend = Raw::new();
        let edge = Setup::to(&[&backend]).start();
        let client = Client::plain(edge.http());
        let mut call = client.get("/");
        let (mut upstream, _) = backend.request();
        upstream.send(sent);
        assert_eq!(call.head().status(), 200);
        assert_eq!(call.data().unwrap().unwrap(), "half");
        drop(upstream);
        let error = call.finish().expect_err("a cut body must end with RST_STREAM");
        assert!(error.is_reset(), "{error}");
        // The connection lives: only the stream was cut.
        let mut second = client.get("/again");
        let (mut upstream, _) = backend.request();
        upstream.send("HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(second.head().status(), 204);
    }
}

#[test]
fn an_http2_answer_reset_by_the_backend_never_looks_complete() {
    let backend = Backend::plain();
    let edge = Setup::to(&[&backend]).with("upstream.protocol = \"h2c\"").start();
    let mut client = edge.connect();
    client.send(get("/"));
    let mut served = backend.call();
    served.answer(http::Response::builder(), false).send(b"half", false);
    let head = client.head();
    assert_eq!(client.chunk().unwrap(), b"half");
    served.reset(h2::Reason::INTERNAL_ERROR);
    assert!(client.try_body(&head).is_err(), "looks complete");
}

#[test]
fn when_the_client_goes_away_the_backend_is_told_at_once() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    // While the backend still thinks.
    let mut client = edge.connect();
    client.send(get("/thinking"));
    let (mut upstream, _) = backend.request();
    drop(client);
    upstream.ends();
    assert_eq!(edge.access_to("/thinking")["status"], 499);
    // And in the middle of the answer.
    let mut client = edge.connect();
    client.send(get("/answering"));
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    client.until("half");
    drop(client);
    upstream.ends();
    assert_eq!(edge.access_to("/answering")["cut"], "client_gone");
}

#[test]
fn an_http2_client_that_resets_its_stream_frees_the_backend() {
    let backend = Backend::plain();
    let edge = Setup::to(&[&backend]).with("upstream.protocol = \"h2c\"").start();
    let client = Client::plain(edge.http());
    let mut call = client.start(http::Request::post(client.url("/")), false);
    call.send(b"half", false);
    let mut served = backend.call();
    assert_eq!(served.data().unwrap().unwrap(), "half");
    call.reset();
    let ended = served.data().expect("not the clean end of a body");
    assert!(ended.is_err(), "{ended:?}");
    wait_for("nothing is in flight", || edge.backend(&backend)["inflight"] == 0);
}

/// Also when its upload waits for a backend that does not read, and the answer has begun.
#[test]
fn an_upload_that_is_stuck_at_an_http2_backend_ends_with_its_client() {
    let backend = Backend::plain();
    let edge = Setup::to(&[&backend]).with("upstream.protocol = \"h2c\"").and("[edge]\nworkers = 1").start();
    for begun in [false, true] {
        let client = Client::plain(edge.http());
        let mut call = client.start(http::Request::post(client.url("/")), false);
        // More than the backend has room for without reading, less than the edge takes in.
        call.send(&[b'x'; 200_000], false);
        let mut served = backend.call();
        if begun {
            served.answer(http::Response::builder(), false).send(b"half", false);
            assert_eq!(call.head().status(), 200);
            assert_eq!(call.data().unwrap().unwrap(), "half");
        }
        call.reset();
        wait_for("nothing is in flight", || edge.backend(&backend)["inflight"] == 0);
        assert!(served.finish().is_err(), "looks complete");
    }
    // The connection is not spoilt: its streams were.
    let client = Client::plain(edge.http());
    let mut call = client.get("/again");
    backend.call().answer(http::Response::builder().status(204), true);
    assert_eq!(call.head().status(), 204);
    assert_eq!(backend.connections(), 1);
}

#[test]
fn a_request_body_cut_by_the_client_never_looks_complete_to_the_backend() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    for request in [
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nhalf",
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let mut client = edge.connect();
        client.send(request);
        let (mut upstream, _) = backend.request();
        upstream.until("half");
        drop(client);
        let rest = upstream.rest();
        assert!(rest.len() < 96 && !rest.ends_with(b"0\r\n\r\n"), "looks complete: {rest:?}");
    }
}

/// Linux would end a connection for unacknowledged bytes although its peer's kernel says all the time that it lives.
#[test]
fn a_backend_that_does_not_read_for_a_while_is_busy_and_not_dead() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).with("failover_within = \"300ms\"").start();
    let body = noise(16 << 20);
    let (mut client, expected) = (edge.connect(), body.clone());
    client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", body.len()));
    let sender = std::thread::spawn(move || {
        client.send(&body);
        client.answer().status()
    });
    let (mut upstream, _) = backend.request();
    // Longer than bytes may stay unacknowledged.
    std::thread::sleep(Duration::from_secs(5));
    assert!(upstream.bytes(expected.len()) == expected, "all of it came");
    upstream.send(ok("done"));
    assert_eq!(sender.join().unwrap(), 200);
}

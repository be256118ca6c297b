//! HTTP/2 towards clients: by ALPN, with prior knowledge, many at once, ended politely.

use crate::support::edge::Setup;
use crate::support::h2::Client;
use crate::support::raw::{Plain, Raw};
use crate::support::wire::{Conn, ok};
use crate::support::{assert_same, certs, noise, wait_for};

fn web(backend: &Plain) -> Setup {
    Setup::services(&format!(
        "[service.web]\nhosts = [\"a.test\"]\nhealth = \"off\"\nbackends = [\"{}\"]\n",
        backend.serving.address
    ))
}

#[test]
fn alpn_chooses_the_version() {
    let backend = Plain::saying("x");
    let edge = web(&backend).secure().start();
    let client = Client::secure(edge.https(), "a.test", certs::roots_of(&edge.root()));
    let mut call = client.get("/h2");
    assert_eq!(call.head().version(), http::Version::HTTP_2);
    assert_eq!(call.finish().unwrap().0, b"x");
    assert_eq!(edge.access_to("/h2")["proto"], "HTTP/2.0");
    let mut client = certs::connect(edge.https(), "a.test", certs::roots_of(&edge.root()), &[b"http/1.1"]).unwrap();
    assert_eq!(client.ask("GET /h1 HTTP/1.1\r\nHost: a.test\r\n\r\n").text(), "x");
    // Nobody who offers no protocol is turned away: HTTP/1.1.
    let mut client = certs::connect(edge.https(), "a.test", certs::roots_of(&edge.root()), &[]).unwrap();
    assert_eq!(client.ask("GET /h1 HTTP/1.1\r\nHost: a.test\r\n\r\n").text(), "x");
}

#[test]
fn a_hundred_streams_run_beside_one_another() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let client = Client::plain(edge.http());
    let mut calls: Vec<_> = (0..100).map(|n| client.get(&format!("/{n}"))).collect();
    let mut upstreams: Vec<_> = (0..100).map(|_| backend.request()).collect();
    for (upstream, head) in upstreams.iter_mut().rev() {
        upstream.send(ok(head.target()));
    }
    for (n, call) in calls.iter_mut().enumerate() {
        assert_eq!(call.finish().unwrap().0, format!("/{n}").as_bytes());
    }
}

#[test]
fn the_number_of_streams_is_the_one_that_was_set() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).and("[edge.limit]\nh2_streams = 2").start();
    let client = Client::plain(edge.http());
    let mut first = client.get("/1");
    let (mut upstream, _) = backend.request();
    // The client knows the limit by now.
    let second = client.get("/2");
    let _other = backend.request();
    let third = std::thread::spawn(move || {
        let mut call = client.get("/3");
        call.head().status()
    });
    upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(first.head().status(), 200);
    let (mut upstream, head) = backend.request();
    assert_eq!(head.target(), "/3");
    upstream.send(ok(""));
    assert_eq!(third.join().unwrap(), 200);
    drop(second);
}

#[test]
fn a_slow_stream_does_not_hold_up_the_others() {
    let big = Plain::new(|request| {
        let size = if request.head.target() == "/big" { 20 << 20 } else { 10 };
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + size, b'x');
        answer
    });
    let edge = Setup::to(&[&big]).start();
    let client = Client::plain(edge.http());
    let mut slow = client.get("/big");
    assert_eq!(slow.head().status(), 200);
    wait_for("the big answer is under way", || edge.sample("relais_requests_inflight", &[]) >= 1.0);
    // Nobody reads it; the others are served all the same.
    for _ in 0..10 {
        assert_eq!(client.get("/small").finish().unwrap().0, b"xxxxxxxxxx");
    }
}

/// Bytes of several windows in both directions of one connection, none of them in another stream's place.
#[test]
fn large_bodies_cross_beside_one_another() {
    let echo = Plain::new(|request| {
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len()).into_bytes();
        answer.extend_from_slice(&request.body);
        answer
    });
    let edge = Setup::to(&[&echo]).start();
    let client = Client::plain(edge.http());
    let bodies: Vec<Vec<u8>> = (0..8_usize).map(|n| noise((3 << 20) + n)[n..].repeat(1 + n % 2)).collect();
    let calls: Vec<_> = bodies.iter().map(|_| client.start(http::Request::post(client.url("/")), false)).collect();
    std::thread::scope(|scope| {
        for (mut call, body) in calls.into_iter().zip(&bodies) {
            scope.spawn(move || {
                call.send(body, true);
                assert_same(&call.finish().unwrap().0, body);
            });
        }
    });
}

#[test]
fn a_stream_that_the_client_resets_frees_its_http1_backend() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let client = Client::plain(edge.http());
    // While the backend thinks.
    let mut call = client.get("/thinking");
    let (mut upstream, _) = backend.request();
    call.reset();
    upstream.ends();
    assert_eq!(edge.access_to("/thinking")["status"], 499);
    // In the middle of the answer, when there is nothing to give.
    let mut call = client.get("/answering");
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    assert_eq!(call.head().status(), 200);
    assert_eq!(call.data().unwrap().unwrap(), "half");
    call.reset();
    upstream.ends();
    assert_eq!(edge.access_to("/answering")["cut"], "client_gone");
    // And while the answer waits for room.
    let narrow = Client::with_room(edge.http(), 1000);
    let mut call = narrow.get("/waiting");
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    assert_eq!(call.head().status(), 200);
    upstream.stuff(b'x', 1_000_000_000);
    call.reset();
    // What the edge had not read is lost with the connection: a reset, not an end in order.
    while upstream.try_send([b'x'; 1 << 16]).is_ok() {}
    assert_eq!(edge.access_to("/waiting")["cut"], "client_gone");
    // In the middle of an upload.
    let mut call = client.start(http::Request::post(client.url("/upload")), false);
    call.send(b"half", false);
    let (mut upstream, head) = backend.request();
    assert_eq!(upstream.chunk().unwrap(), b"half");
    call.reset();
    assert!(upstream.try_body(&head).is_err(), "looks complete");
    wait_for("nothing is in flight", || edge.backend(&backend)["inflight"] == 0);
}

/// A frame of HTTP/2 (RFC 9113 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// HPACK: GET, http, `/`, and `a.test` as the authority.
const REQUEST: &[u8] = b"\x82\x86\x84\x01\x06a.test";

/// CVE-2023-44487: a request and its reset, over and over, would keep the edge and its backends busy for nothing.
#[test]
fn a_client_that_resets_all_it_asks_for_is_sent_away() {
    const ENHANCE_YOUR_CALM: [u8; 4] = [0, 0, 0, 11];
    let backend = Plain::saying("x");
    let edge = Setup::to(&[&backend]).start();
    let beside = Client::plain(edge.http());
    assert_eq!(beside.get("/").finish().unwrap().0, b"x");
    let mut client = edge.connect();
    let flood: Vec<u8> = (0..10_000_u32)
        .flat_map(|n| [frame(1, 5, 2 * n + 1, REQUEST), frame(3, 0, 2 * n + 1, &[0, 0, 0, 8])].concat())
        .collect();
    let _ = client.try_send([PREFACE.as_bytes(), &flood].concat());
    let said = client.rest();
    let calm = said.windows(4).any(|window| window == ENHANCE_YOUR_CALM);
    assert!(calm || said.is_empty(), "neither sent away nor cut: {said:?}");
    assert!(backend.count() < 2000, "{} requests reached the backend", backend.count());
    assert_eq!(beside.get("/").finish().unwrap().0, b"x");
    wait_for("nothing is in flight", || edge.sample("relais_requests_inflight", &[]) == 0.0);
}

/// What was on its way when an early answer ended a stream is no mistake of the client: it cannot have known.
#[test]
fn a_client_whose_uploads_are_answered_early_is_not_sent_away() {
    const STREAMS: u32 = 100;
    let edge =
        Setup::services("[service.web]\nhosts = [\"a.test\"]\nrespond = { status = 403, body = \"no\" }\n").start();
    let mut client = edge.connect();
    client.send(PREFACE);
    let ids = || (0..STREAMS).map(|n| 2 * n + 1);
    let post = [b"\x83", &REQUEST[1..]].concat();
    client.send(ids().flat_map(|id| frame(1, 4, id, &post)).collect::<Vec<u8>>());
    let next = |client: &mut Conn| {
        let head = client.bytes(9);
        client.bytes(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize);
        assert_ne!(head[3], 7, "GOAWAY");
        (head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]))
    };
    // Each is answered, and then reset for its body.
    let mut resets = 0;
    while resets < STREAMS {
        resets += u32::from(next(&mut client).0 == 3);
    }
    for _ in 0..30 {
        client.send(ids().flat_map(|id| frame(0, 0, id, &[0; 300])).collect::<Vec<u8>>());
        // The answer to a question shows that what came before it was read.
        client.send(frame(6, 0, 0, b"question"));
        while next(&mut client).0 != 6 {}
    }
    let last = 2 * STREAMS + 1;
    client.send(frame(1, 5, last, REQUEST));
    while next(&mut client) != (1, 4, last) {}
}

#[test]
fn every_answer_has_a_date_and_a_length_where_there_is_one() {
    let backend = Plain::new(|request| match request.head.target() {
        "/dated" => b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 1\r\n\r\nx".to_vec(),
        "/endless" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n".to_vec(),
        _ => ok("x").into_bytes(),
    });
    let edge = web(&backend).start();
    let client = Client::plain(edge.http());
    let head = client.get("/dated").head();
    assert_eq!(head.headers()["date"], "Sun, 06 Nov 1994 08:49:37 GMT");
    for (path, length) in [("/", Some("1")), ("/endless", None)] {
        let head = client.get(path).head();
        let date = head.headers()["date"].to_str().unwrap();
        assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
        assert_eq!(head.headers().get("content-length").map(|value| value.to_str().unwrap()), length);
    }
    // Its own answers too.
    let nowhere = client.start(http::Request::get("http://b.test/"), true).head();
    assert_eq!((nowhere.status().as_u16(), nowhere.headers()["date"].len()), (404, 29));
    assert_ne!(nowhere.headers()["content-length"], "0");
}

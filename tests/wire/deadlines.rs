//! Nobody waits for ever: slow clients are closed at the deadline that is theirs, slow backends answered for.
//!
//! The deadline under test is short and all others are long, so that an end within the patience of a test is its doing.

use std::time::Duration;

use crate::support::certs;
use crate::support::edge::{Edge, Setup};
use crate::support::h2::Client;
use crate::support::keeping_up;
use crate::support::raw::{Plain, Raw};
use crate::support::wire::{Conn, get, ok, timed};

const SET: Duration = Duration::from_millis(500);
const LONG: [&str; 4] = ["handshake", "headers", "keep_alive", "body"];

/// An edge with one short deadline towards clients; all others are an hour.
fn short(name: &str, backend: &Raw) -> Edge {
    limited(name, "500ms", backend)
}

fn limited(name: &str, limit: &str, backend: &Raw) -> Edge {
    let lines: String = LONG
        .iter()
        .map(|deadline| format!("{deadline} = \"{}\"\n", if *deadline == name { limit } else { "1h" }))
        .collect();
    let text = format!(
        "[service.web]\nhosts = [\"web.test\", \"a.test\"]\nhealth = \"off\"\npassive_fall = 0\nbackends = [\"{}\"]\n",
        backend.address
    );
    Setup::services(&text).secure().and(&format!("[edge.timeout]\n{lines}")).start()
}

/// Waits for the end of a connection; it may not come before the deadline.
#[track_caller]
fn ends_at_its_deadline<S: std::io::Read + std::io::Write>(mut conn: Conn<S>) -> String {
    let (rest, took) = timed(|| conn.rest());
    assert!(took >= SET.mul_f32(0.8), "closed too early, after {took:?}");
    String::from_utf8_lossy(&rest).into_owned()
}

#[test]
fn a_silent_client_is_closed() {
    let edge = short("headers", &Raw::new());
    // Before it has said what it speaks, the deadline of the handshake holds: here an hour.
    let mut client = edge.connect();
    client.send("G");
    ends_at_its_deadline(client);
}

#[test]
fn a_client_that_never_says_a_byte_is_closed() {
    let edge = short("handshake", &Raw::new());
    assert_eq!(ends_at_its_deadline(edge.connect()), "");
}

#[test]
fn half_an_http2_preface_is_closed() {
    let edge = short("handshake", &Raw::new());
    let mut client = edge.connect();
    client.send("PR");
    assert_eq!(ends_at_its_deadline(client), "");
    let edge = short("headers", &Raw::new());
    let mut client = edge.connect();
    client.send("PRI * HTTP/2.0\r\n");
    ends_at_its_deadline(client);
}

#[test]
fn an_http2_connection_without_a_request_is_closed() {
    let edge = short("headers", &Raw::new());
    let mut client = edge.connect();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    ends_at_its_deadline(client);
}

#[test]
fn half_a_head_is_answered_408_and_closed() {
    keeping_up(SET / 2, || {
        let edge = short("headers", &Raw::new());
        let mut client = edge.connect();
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n");
        let rest = ends_at_its_deadline(client);
        assert!(rest.starts_with("HTTP/1.1 408 "), "{rest}");
    });
}

#[test]
fn the_408_speaks_for_the_edge_by_its_own_name() {
    keeping_up(SET / 5, || {
        let backend = Raw::new();
        let edge = Setup::to(&[&backend]).and("[edge]\nname = \"edge-7\"\ntimeout.headers = \"300ms\"").start();
        let mut client = edge.connect();
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n");
        let status = client.answer().get("proxy-status").unwrap().to_owned();
        assert!(status.starts_with("edge-7; error=http_request_error"), "{status}");
    });
}

#[test]
fn a_head_that_trickles_in_is_closed_all_the_same() {
    let edge = short("headers", &Raw::new());
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\n");
    let (sent, took) = timed(|| {
        (0..20_000)
            .take_while(|n| {
                std::thread::sleep(Duration::from_millis(20));
                client.try_send(format!("X-{n}: y\r\n")).is_ok()
            })
            .count()
    });
    assert!(took >= SET && sent < 20_000, "{sent} lines in {took:?}");
}

#[test]
fn a_tls_handshake_that_stalls_is_closed() {
    let edge = short("handshake", &Raw::new());
    ends_at_its_deadline(Conn::to(edge.https()));
    let mut client = Conn::to(edge.https());
    // A record header that promises a ClientHello.
    client.send([0x16, 3, 1, 2, 0]);
    ends_at_its_deadline(client);
}

#[test]
fn silence_after_the_tls_handshake_is_closed() {
    let edge = short("headers", &Raw::new());
    for alpn in [&b"http/1.1"[..], b"h2"] {
        let client = certs::connect(edge.https(), "web.test", certs::roots_of(&edge.root()), &[alpn]).unwrap();
        ends_at_its_deadline(client);
    }
}

#[test]
fn an_idle_connection_is_closed_at_its_own_deadline() {
    let backend = Raw::new();
    let edge = short("keep_alive", &backend);
    let mut client = edge.connect();
    client.send(get("/"));
    let (mut upstream, _) = backend.request();
    upstream.send(ok("x"));
    assert_eq!(client.answer().status(), 200);
    assert_eq!(ends_at_its_deadline(client), "");
}

#[test]
fn an_idle_connection_outlives_the_deadline_for_heads() {
    let backend = Plain::saying("x");
    let edge = Setup::to(&[&backend]).and("[edge.timeout]\nheaders = \"300ms\"\nkeep_alive = \"1h\"").start();
    let mut client = edge.connect();
    assert_eq!(client.ask(get("/1")).status(), 200);
    // Another connection, silent from the start, marks the time: when it is closed the deadline has passed.
    let mut clock = edge.connect();
    clock.send("G");
    clock.rest();
    assert_eq!(client.ask(get("/2")).status(), 200);
}

#[test]
fn a_request_that_takes_long_outlives_every_deadline_for_heads() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend])
        .and("[edge.timeout]\nhandshake = \"200ms\"\nheaders = \"200ms\"\nkeep_alive = \"200ms\"\nbody = \"200ms\"")
        .start();
    let mut client = edge.connect();
    client.send(get("/slow"));
    let (mut upstream, _) = backend.request();
    for _ in 0..3 {
        let mut clock = edge.connect();
        clock.send("G");
        clock.rest();
    }
    upstream.send(ok("at last"));
    assert_eq!(client.answer().text(), "at last");
}

#[test]
fn a_body_that_stalls_is_408() {
    keeping_up(SET / 2, || {
        let backend = Raw::new();
        let edge = short("body", &backend);
        let mut client = edge.connect();
        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhalf");
        let (mut upstream, head) = backend.request();
        let (answer, took) = timed(|| client.answer());
        assert_eq!(answer.status(), 408);
        assert!(took >= SET.mul_f32(0.8), "{took:?}");
        assert!(upstream.try_body(&head).is_err(), "looks complete");
        client.ends();
        assert_eq!(edge.backend(&backend)["failed"], 0, "not the backend's fault");
    });
}

#[test]
fn an_http2_body_that_stalls_is_408() {
    let backend = Raw::new();
    let edge = short("body", &backend);
    let client = Client::plain(edge.http());
    let mut call = client.start(http::Request::post(client.url("/")), false);
    call.send(b"half", false);
    assert_eq!(call.head().status(), 408);
}

#[test]
fn a_client_that_stops_reading_is_closed() {
    let backend = Raw::new();
    let edge = short("body", &backend);
    let mut client = edge.connect();
    client.send(get("/big"));
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    // The backend can push until the client's silence is too long; then its connection is closed.
    let mut pushed = 0;
    let block = vec![b'x'; 1 << 16];
    while upstream.try_send(&block).is_ok() {
        pushed += block.len();
        assert!(pushed < 1_000_000_000, "nobody stopped it");
    }
    assert_eq!(edge.access_to("/big")["status"], 200);
    drop(client);
}

/// The same over HTTP/2, where the socket takes bytes but the stream has no room for any: the backend and its place are
/// free again, and the other streams of the connection go on.
#[test]
fn an_http2_client_that_makes_no_room_for_its_answer_is_given_up() {
    for (room, size) in [(0, 4), (0, 1_000_000), (5000, 1_000_000)] {
        let backend = Raw::new();
        let edge = short("body", &backend);
        let client = Client::with_room(edge.http(), room);
        let mut call = client.get("/big");
        let (mut upstream, _) = backend.request();
        upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"));
        let push = std::thread::spawn(move || upstream.try_send(vec![b'x'; size]));
        assert_eq!(call.head().status(), 200);
        let line = edge.access_to("/big");
        assert_eq!(line["cut"], "client_stalled", "{line}");
        assert!(line["duration_ms"].as_f64().unwrap() >= 400.0, "given up too early: {line}");
        assert_eq!(edge.backend(&backend)["inflight"], 0);
        let _ = push.join().unwrap();
        assert!(call.finish().is_err(), "looks complete");
        let mut other = client.start(http::Request::head(client.url("/head")), true);
        let (mut upstream, _) = backend.request();
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n");
        assert_eq!(other.head().status(), 200);
    }
}

/// Slow is not silent: every byte in time counts, also when the whole takes many deadlines.
#[test]
fn an_http2_client_that_reads_slowly_gets_all_of_it() {
    keeping_up(SET, || {
        let backend = Raw::new();
        let edge = limited("body", "2s", &backend);
        let client = Client::with_room(edge.http(), 16 << 10);
        let mut call = client.get("/big");
        let (mut upstream, _) = backend.request();
        let body = crate::support::noise(200_000);
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n").send(&body);
        assert_eq!(call.head().status(), 200);
        let mut got = Vec::new();
        while let Some(data) = call.data() {
            got.extend_from_slice(&data.unwrap());
            std::thread::sleep(Duration::from_millis(250));
        }
        crate::support::assert_same(&got, &body);
    });
}

#[test]
fn a_backend_that_does_not_answer_is_504() {
    keeping_up(SET / 4, || {
        let backend = Raw::new();
        let edge = Setup::to(&[&backend]).with("timeout.response = \"300ms\"").start();
        let mut client = edge.connect();
        client.send(get("/"));
        let (mut upstream, _) = backend.request();
        let answer = client.answer();
        assert_eq!(answer.status(), 504);
        let status = answer.get("proxy-status").unwrap();
        assert!(status.contains("http_response_timeout"), "{status}");
        assert!(answer.get("retry-after").is_some(), "nobody answered, nothing was done: {}", answer.head.raw);
        upstream.ends();
        // What may have been done is not asked for again.
        client = edge.connect();
        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n");
        let (_upstream, _) = backend.request();
        let answer = client.answer();
        assert_eq!((answer.status(), answer.get("retry-after")), (504, None));
    });
}

#[test]
fn the_time_for_an_answer_counts_from_the_end_of_the_request() {
    keeping_up(SET / 2, || {
        let backend = Raw::new();
        let edge = Setup::to(&[&backend]).with("timeout.response = \"600ms\"").start();
        let mut client = edge.connect();
        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 12\r\n\r\n");
        let (mut upstream, _) = backend.request();
        // A slow body, in pieces closer together than the deadline, longer than it in all.
        for _ in 0..12 {
            std::thread::sleep(Duration::from_millis(100));
            client.send("x");
            assert_eq!(upstream.bytes(1), b"x");
        }
        upstream.send(ok("x"));
        assert_eq!(client.answer().status(), 200);
    });
}

/// The body was there at once: that it moved once is no reason to wait as long again.
#[test]
fn a_body_that_was_sent_at_once_does_not_double_the_time_for_an_answer() {
    keeping_up(SET, || {
        let backend = Raw::new();
        // No look at the body before that time, which was when it doubled.
        let times = "failover_within = \"5s\"\ntimeout.response = \"3s\"";
        let edge = Setup::to(&[&backend]).with(times).start();
        let mut client = edge.connect();
        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody");
        let (mut upstream, _) = backend.request();
        assert_eq!(upstream.bytes(4), b"body");
        let (answer, took) = timed(|| client.answer());
        assert_eq!(answer.status(), 504);
        assert!(took > SET * 5 && took < SET * 9, "{took:?}");
    });
}

#[test]
fn an_answer_that_falls_silent_is_cut() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).with("timeout.idle = \"300ms\"").start();
    let mut client = edge.connect();
    client.send(get("/stalls"));
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    let head = client.head();
    assert!(client.try_body(&head).is_err(), "looks complete");
    upstream.ends();
    assert_eq!(edge.access_to("/stalls")["cut"], "backend_stalled");
}

#[test]
fn the_whole_request_can_have_a_deadline() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).with("timeout.request = \"500ms\"").start();
    let mut client = edge.connect();
    client.send(get("/"));
    let (_upstream, _) = backend.request();
    assert_eq!(client.answer().status(), 504);
    // Bytes that keep coming do not help.
    let mut client = edge.connect();
    client.send(get("/drip"));
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    let drip = std::thread::spawn(move || {
        while upstream.try_send("1\r\nx\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let head = client.head();
    assert!(client.try_body(&head).is_err(), "looks complete");
    drop(client);
    drip.join().unwrap();
}

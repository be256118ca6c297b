//! HTTP/2 towards clients: by ALPN, with prior knowledge, many at once, ended politely.

use crate::support::edge::Setup;
use crate::support::h2::Client;
use crate::support::raw::{Plain, Raw};
use crate::support::wire::ok;
use crate::support::{certs, wait_for};

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

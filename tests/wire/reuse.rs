//! Connections to backends: kept, shared, given up in time.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::support::certs::Authority;
use crate::support::edge::Setup;
use crate::support::h2::{Backend, Client};
use crate::support::raw::{Plain, Raw};
use crate::support::wait_for;
use crate::support::wire::{get, ok};

#[test]
fn a_kept_connection_serves_request_after_request() {
    let backend = Plain::saying("x");
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    for n in 0..20 {
        assert_eq!(client.ask(get(&format!("/{n}"))).status(), 200);
    }
    assert_eq!((backend.count(), backend.connections()), (20, 1));
    assert_eq!(edge.sample("relais_upstream_connections_total", &["reused"]), 19.0);
}

#[test]
fn clients_of_one_worker_share_its_kept_connections() {
    let backend = Plain::saying("x");
    let edge = Setup::to(&[&backend]).and("[edge]\nworkers = 1").start();
    for n in 0..20 {
        let mut client = edge.connect();
        assert_eq!(client.ask(get(&format!("/{n}"))).status(), 200);
    }
    assert_eq!((backend.count(), backend.connections()), (20, 1));
}

#[test]
fn a_connection_the_backend_wants_closed_is_not_kept() {
    let backend = Plain::new(|_| b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx".to_vec());
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    for _ in 0..5 {
        let answer = client.ask(get("/"));
        assert_eq!(answer.status(), 200);
        // The backend's wish is about its own connection, not the client's.
        assert!(!answer.head.has("connection"), "{}", answer.head.raw);
    }
    assert_eq!(backend.connections(), 5);
}

#[test]
fn a_connection_is_not_kept_idle_for_longer_than_told() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).with("upstream.keep_idle_for = \"200ms\"").start();
    let mut client = edge.connect();
    client.send(get("/"));
    let (mut upstream, _) = backend.request();
    upstream.send(ok("x"));
    assert_eq!(client.answer().status(), 200);
    upstream.ends();
}

#[test]
fn no_more_connections_are_kept_than_told() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).with("upstream.keep_idle = 1").and("[edge]\nworkers = 1").start();
    let mut busy: Vec<_> = (0..3)
        .map(|n| {
            let mut client = edge.connect();
            client.send(get(&format!("/{n}")));
            let (upstream, _) = backend.request();
            (client, upstream)
        })
        .collect();
    for (client, upstream) in &mut busy {
        upstream.send(ok("x"));
        assert_eq!(client.answer().status(), 200);
    }
    // The oldest go: the last one is kept and serves the next request.
    let (_, mut last) = busy.pop().unwrap();
    for (_, upstream) in &mut busy {
        upstream.ends();
    }
    let mut client = edge.connect();
    client.send(get("/next"));
    assert_eq!(last.head().target(), "/next");
}

#[test]
fn http2_requests_share_one_connection_to_the_backend() {
    let backend = Backend::plain();
    let edge = Setup::to(&[&backend]).with("upstream.protocol = \"h2c\"").start();
    let client = Client::plain(edge.http());
    let mut calls: Vec<_> = (0..20).map(|n| client.get(&format!("/{n}"))).collect();
    let mut served: Vec<_> = (0..20).map(|_| backend.call()).collect();
    assert_eq!(backend.connections(), 1, "all at once on one connection");
    // Answered in reverse order: nobody waits for anybody.
    for one in served.iter_mut().rev() {
        let path = one.path().to_owned();
        one.answer(http::Response::builder(), false).send(path.as_bytes(), true);
    }
    for (n, call) in calls.iter_mut().enumerate() {
        assert_eq!(call.finish().unwrap().0, format!("/{n}").as_bytes());
    }
}

#[test]
fn http2_by_alpn_when_the_backend_speaks_it() {
    let authority = crate::support::certs::Authority::new();
    let backend = Backend::secure(&authority.issue(&["backend.test"]));
    let setup = Setup::to(&[&backend])
        .with("[service.web.upstream]\ntls = { sni = \"backend.test\", ca = \"ca.pem\" }")
        .and("");
    std::fs::write(setup.dir().join("ca.pem"), &authority.root).unwrap();
    let edge = setup.start();
    let mut client = edge.connect();
    for n in 0..3 {
        client.send(get(&format!("/{n}")));
        let mut served = backend.call();
        assert_eq!(served.path(), format!("/{n}"));
        assert_eq!(served.request.uri().scheme_str(), Some("https"));
        served.answer(http::Response::builder().status(204), true);
        assert_eq!(client.answer().status(), 204);
    }
    assert_eq!(backend.connections(), 1);
}

/// The CA of the backends changes, and so does their certificate: the file is read again, nothing is restarted.
#[test]
fn a_new_ca_file_for_backends_is_believed_as_soon_as_it_is_there() {
    let (before, after) = (Authority::new(), Authority::new());
    let backend = Backend::secure(&after.issue(&["backend.test"]));
    let setup =
        Setup::to(&[&backend]).with("[service.web.upstream]\ntls = { sni = \"backend.test\", ca = \"ca.pem\" }");
    let file = setup.dir().join("ca.pem");
    std::fs::write(&file, &before.root).unwrap();
    let edge = setup.start();
    let status = || edge.connect().ask(get("/")).status();
    assert_eq!(status(), 502);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                if let Some(mut served) = backend.try_call() {
                    served.answer(http::Response::builder().status(204), true);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let new = file.with_extension("new");
        std::fs::write(&new, &after.root).unwrap();
        std::fs::rename(&new, &file).unwrap();
        let seen = std::panic::catch_unwind(AssertUnwindSafe(|| wait_for("it is believed", || status() == 204)));
        stop.store(true, Relaxed);
        seen.unwrap();
    });
}

/// A backend that goes away says up to where it took requests: the others are sent elsewhere, whatever their method.
#[test]
fn no_request_is_lost_or_made_twice_when_a_backend_goes_away_again_and_again() {
    let backend = Backend::leaving_after(3);
    let edge = Setup::to(&[&backend]).with("upstream.protocol = \"h2c\"").start();
    let client = Client::plain(edge.http());
    let mut executed = Vec::new();
    for round in 0..15 {
        let post = |n| client.start(http::Request::post(client.url(&format!("/{}", round * 10 + n))), true);
        let mut calls: Vec<_> = (0..10).map(post).collect();
        for _ in 0..10 {
            let mut served = backend.call();
            executed.push(served.path().to_owned());
            served.answer(http::Response::builder().status(204), true);
        }
        for (n, call) in calls.iter_mut().enumerate() {
            assert_eq!(call.head().status(), 204, "round {round}, request {n}");
        }
    }
    executed.sort();
    executed.dedup();
    assert_eq!(executed.len(), 150, "each was executed, and once");
    assert!(backend.connections() > 10, "it went away: {} connections", backend.connections());
    assert_eq!(edge.backend(&backend)["failed"], 0, "and nothing is held against it");
}

#[test]
fn a_backend_with_the_wrong_certificate_gets_no_request() {
    let authority = crate::support::certs::Authority::new();
    let backend = Backend::secure(&authority.issue(&["other.test"]));
    let setup =
        Setup::to(&[&backend]).with("[service.web.upstream]\ntls = { sni = \"backend.test\", ca = \"ca.pem\" }");
    std::fs::write(setup.dir().join("ca.pem"), &authority.root).unwrap();
    let edge = setup.start();
    let answer = edge.connect().ask(get("/"));
    assert_eq!(answer.status(), 502);
    assert!(answer.get("proxy-status").unwrap().contains("tls"), "{}", answer.head.raw);
    assert!(backend.try_call().is_none());
}

#[test]
fn a_unix_socket_is_a_backend_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let edge = Setup::to(&[&format!("unix:{}", path.display())]).start();
    let mut client = edge.connect();
    client.send(get("/over-a-file"));
    let (stream, _) = listener.accept().unwrap();
    let mut upstream = crate::support::wire::Conn::with(stream);
    assert_eq!(upstream.head().target(), "/over-a-file");
    upstream.send(ok("x"));
    assert_eq!(client.answer().text(), "x");
}

//! A connection to a living backend that is dead, because something on the way forgot it: what waits on it leaves it, and
//! what waits beside it loses nothing by that.

use std::time::{Duration, Instant};

use crate::support::edge::{Edge, Setup};
use crate::support::raw::{Addressed, Plain, Raw};
use crate::support::wire::{Conn, get, ok};
use crate::support::{assert_same, noise, wait_for};

const SIZE: usize = 100_000;

const DOWNLOAD: &str = "HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nContent-Length: 100000\r\n\r\n";

/// One worker: what one request finds out the others know.
fn alone(backend: &Raw) -> Edge {
    Setup::to(&[backend]).with("failover_within = \"300ms\"").and("[edge]\nworkers = 1").start()
}

/// The first is preferred; the other one stands by.
fn pair(backend: &Raw, other: &Plain) -> Edge {
    pair_with(backend, other, "")
}

/// The same, with `more` of the service.
fn pair_with(backend: &Raw, other: &Plain, more: &str) -> Edge {
    let edge = Setup::services(&format!(
        "[edge]\nworkers = 1\n[sites]\ndijon = 1\nthory = 2\n[service.web]\nhosts = [\"*\"]\nhealth = \"off\"\npassive_fall = 0\n\
         failover_within = \"300ms\"\n{more}[service.web.backends]\ndijon = [\"{}\"]\nthory = [\"{}\"]\n",
        backend.address(),
        other.address()
    ))
    .start();
    edge.wait_for_health(other, "up");
    edge
}

/// Sends a request and lets the backend read its head.
fn begin(edge: &Edge, backend: &Raw, request: &str) -> (Conn, Conn) {
    let mut client = edge.connect();
    client.send(request);
    (client, backend.request().0)
}

/// The connection answers its request, is kept, and then nothing on it arrives any more.
fn forget((client, upstream): &mut (Conn, Conn)) {
    upstream.send(ok("x"));
    assert_eq!(client.answer().status(), 200);
    upstream.deafen();
}

#[test]
fn a_dead_connection_ends_nothing_beside_it_when_there_is_no_other_backend() {
    let backend = Raw::new();
    let edge = alone(&backend);
    let mut dead = begin(&edge, &backend, &get("/first"));
    let (mut slow, mut slow_upstream) = begin(&edge, &backend, &get("/slow"));
    let (mut film, mut film_upstream) = begin(&edge, &backend, &get("/film"));
    let body = noise(SIZE);
    film_upstream.send(DOWNLOAD).send(&body[..SIZE / 2]);
    let head = film.head();
    let mut seen = film.bytes(SIZE / 2);
    forget(&mut dead);
    dead.0.send(get("/again"));
    // Once more, on a new connection.
    backend.request().0.send(ok("again"));
    assert_eq!(dead.0.answer().text(), "again");
    // Whatever the worker made of that is done when it has served another one.
    let mut other = begin(&edge, &backend, &get("/other"));
    other.1.send(ok("x"));
    assert_eq!(other.0.answer().status(), 200);
    slow_upstream.send(ok("late"));
    film_upstream.send(&body[SIZE / 2..]);
    assert_eq!((slow.answer().text().as_str(), head.status()), ("late", 200));
    seen.extend(film.bytes(SIZE / 2));
    assert_same(&seen, &body);
}

#[test]
fn what_waits_beside_a_dead_connection_leaves_when_it_was_sent_and_not_while_it_is() {
    let (backend, other) = (Raw::new(), Plain::saying("other"));
    let edge = pair(&backend, &other);
    let mut dead = begin(&edge, &backend, &get("/first"));
    let put = "PUT /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: 8\r\n\r\nhalf";
    let (mut upload, mut upload_upstream) = begin(&edge, &backend, put);
    let (mut slow, _slow_upstream) = begin(&edge, &backend, &get("/slow"));
    forget(&mut dead);
    assert_eq!(dead.0.ask(get("/again")).text(), "other");
    assert_eq!(slow.answer().text(), "other");
    upload.send("done");
    assert_eq!(upload_upstream.bytes(8), b"halfdone");
    upload_upstream.send(ok("whole"));
    assert_eq!(upload.answer().text(), "whole");
}

/// A download of which half has come, beside a connection that is found dead; another backend answers what is asked
/// there for the rest with the entity tag `tag`.
fn half_a_film(tag: &'static str) -> (Edge, Plain, (Conn, Conn), Vec<u8>) {
    let body = noise(SIZE);
    let rest = body[SIZE / 2..].to_vec();
    let other = Plain::new(move |seen| match seen.head.get("range") {
        Some(range) => {
            assert_eq!((range, seen.head.get("if-range")), ("bytes=50000-99999", Some("\"v1\"")));
            let head =
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 50000-99999/100000\r\nContent-Length: 50000\r\n";
            [format!("{head}ETag: {tag}\r\n\r\n").as_bytes(), &rest].concat()
        }
        None => ok("other").into_bytes(),
    });
    let backend = Raw::new();
    let edge = pair(&backend, &other);
    let mut dead = begin(&edge, &backend, &get("/first"));
    let (mut film, mut film_upstream) = begin(&edge, &backend, &get("/film"));
    film_upstream.send(DOWNLOAD).send(&body[..SIZE / 2]);
    film.head();
    assert_same(&film.bytes(SIZE / 2), &body[..SIZE / 2]);
    forget(&mut dead);
    assert_eq!(dead.0.ask(get("/again")).text(), "other");
    (edge, other, (film, film_upstream), body)
}

#[test]
fn a_silent_download_beside_a_dead_connection_is_continued_by_who_has_the_same() {
    let (edge, _other, (mut film, _film_upstream), body) = half_a_film("\"v1\"");
    assert_same(&film.bytes(SIZE / 2), &body[SIZE / 2..]);
    assert_eq!(edge.sample("relais_downloads_resumed_total", &[]), 1.0);
    let line = edge.access_to("/film");
    assert!(line["attempts"].as_str().unwrap().contains("resumed") && line["cut"] == "-", "{line}");
}

#[test]
fn a_silent_download_that_nobody_else_has_waits_for_its_own_connection() {
    let (edge, other, (mut film, mut film_upstream), body) = half_a_film("\"v2\"");
    let asked = || other.seen().iter().filter(|seen| seen.head.has("range")).count();
    wait_for("the other one is asked", || asked() == 1);
    // Another request passes: whatever came of the question is known by then.
    assert_eq!(edge.connect().ask(get("/other")).text(), "other");
    film_upstream.send(&body[SIZE / 2..SIZE - 1]);
    assert_same(&film.bytes(SIZE / 2 - 1), &body[SIZE / 2..SIZE - 1]);
    film_upstream.send(&body[SIZE - 1..]);
    assert_same(&film.bytes(1), &body[SIZE - 1..]);
    assert_eq!(asked(), 1, "once is enough");
    film.send(get("/next"));
    assert_eq!(edge.access_to("/film")["cut"], "-");
}

#[test]
fn a_download_that_nobody_else_has_is_cut_when_its_own_connection_ends() {
    let (edge, other, (mut film, film_upstream), _) = half_a_film("\"v2\"");
    wait_for("the other one is asked", || other.seen().iter().any(|seen| seen.head.has("range")));
    film_upstream.reset();
    assert!(film.ending().is_err() || edge.access_to("/film")["cut"] == "backend_broke_off", "it looks complete");
    assert_eq!(edge.access_to("/film")["cut"], "backend_broke_off");
}

#[test]
fn a_connection_that_once_carried_much_is_left_when_it_is_dead() {
    let (backend, other) = (Raw::new(), Plain::saying("other"));
    let edge = pair(&backend, &other);
    let body = noise(100_000);
    let mut client = edge.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", body.len())).send(&body);
    let (mut upstream, _) = backend.request();
    assert_same(&upstream.bytes(body.len()), &body);
    let mut dead = (client, upstream);
    forget(&mut dead);
    assert_eq!(dead.0.ask(get("/again")).text(), "other");
    assert_eq!(edge.sample("relais_upstream_connections_total", &["reused"]), 1.0);
}

/// A request that has arrived and is acknowledged, on a connection that then loses all.
fn lost_after(edge: &Edge, backend: &Raw, request: &str) -> (Conn, Conn) {
    let waiting = begin(edge, backend, request);
    waiting.1.deafen();
    waiting
}

#[test]
fn an_answer_that_is_lost_is_asked_for_elsewhere_and_a_post_is_told() {
    let (backend, other) = (Raw::new(), Plain::saying("other"));
    // The calm questions of an idle connection would need seven seconds.
    let edge = pair_with(&backend, &other, "[service.web.timeout]\nresponse = \"6s\"\n");
    let (mut repeated, _upstream) = lost_after(&edge, &backend, &get("/get"));
    assert_eq!(repeated.answer().text(), "other");
    let post = "POST /post HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n";
    let (mut told, _upstream) = lost_after(&edge, &backend, post);
    assert_eq!(told.answer().status(), 504);
    for path in ["/get", "/post"] {
        let line = edge.access_to(path);
        assert!(line["attempts"].as_str().unwrap().contains(" unacknowledged "), "{line}");
    }
    assert!(other.seen().iter().all(|seen| seen.head.target() == "/get"), "a POST is never repeated");
}

#[test]
fn an_application_that_takes_its_time_is_waited_for() {
    let (backend, other) = (Raw::new(), Plain::saying("other"));
    let edge = pair(&backend, &other);
    let (mut slow, mut upstream) = begin(&edge, &backend, &get("/slow"));
    // Its kernel has answered some questions by then.
    std::thread::sleep(Duration::from_secs(4));
    upstream.send(ok("late"));
    assert_eq!(slow.answer().text(), "late");
    assert!(other.seen().is_empty());
}

/// At a contract of 1 s the first question comes after 2.5 s, and the second half a second later.
const LOST_QUESTION: Duration = Duration::from_millis(3300);

#[test]
fn an_application_that_takes_its_time_is_waited_for_where_a_question_is_lost() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).with("failover_within = \"1s\"").and("[edge]\nworkers = 1").start();
    // A test that was not woken in time has shown nothing.
    for _ in 0..10 {
        let begun = Instant::now();
        let (mut slow, mut upstream) = lost_after(&edge, &backend, &get("/slow"));
        std::thread::sleep(LOST_QUESTION);
        upstream.hear_again();
        if begun.elapsed() < LOST_QUESTION + Duration::from_millis(500) {
            upstream.send(ok("late"));
            assert_eq!(slow.answer().text(), "late");
            return;
        }
    }
    panic!("never in time");
}

//! A small answer of a stated length is held back for a moment until it is whole: what breaks before that is asked for
//! elsewhere, or refused, and not cut. Where nothing breaks, nobody is kept waiting.

use std::time::Duration;

use serde_json::Value;

use crate::support::edge::{Edge, Setup, request_id};
use crate::support::h2::{Backend, Client};
use crate::support::raw::{Addressed, Plain, Raw};
use crate::support::wire::{Conn, get, ok, post};
use crate::support::{until, wait_for};

const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";

/// Two backends; the first is preferred, the other one stands by. Nothing is checked.
fn edge(first: &dyn Addressed, other: &dyn Addressed, contract: &str) -> Edge {
    edge_with("passive_fall = 0", first, other, contract)
}

fn edge_with(line: &str, first: &dyn Addressed, other: &dyn Addressed, contract: &str) -> Edge {
    Setup::services(&format!(
        "[sites]\ndijon = 1\nthory = 2\n[service.web]\nhosts = [\"*\"]\nhealth = \"off\"\n{line}\n\
         outlier.max_ejected_percent = 0\nfailover_within = \"{contract}\"\n[service.web.backends]\n\
         dijon = [\"{}\"]\nthory = [\"{}\"]\n",
        first.address(),
        other.address()
    ))
    .start()
}

/// Sends a request and lets the first backend answer half of it.
fn half(edge: &Edge, first: &Raw, request: String) -> (Conn, Conn) {
    let mut client = edge.connect();
    client.send(request);
    let (mut upstream, _) = first.request();
    upstream.send(HALF);
    (client, upstream)
}

#[test]
fn what_breaks_before_it_is_whole_is_asked_for_elsewhere() {
    for by_reset in [false, true] {
        let (first, other) = (Raw::new(), Plain::saying("whole"));
        let edge = edge(&first, &other, "60s");
        let (mut client, upstream) = half(&edge, &first, get("/small"));
        if by_reset {
            upstream.reset();
        } else {
            drop(upstream);
        }
        let answer = client.answer();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "whole"));
        let line = edge.access(&request_id(&answer.head));
        let attempts = line["attempts"].as_str().unwrap();
        // On a busy machine its end may come after the moment.
        assert!(attempts.contains("reset") || attempts.contains("late"), "{attempts}");
        assert_eq!((line["cut"].as_str(), other.count()), (Some("-"), 1));
    }
}

/// Not what the first one said, as the request went on from there.
#[test]
fn a_retry_status_that_breaks_and_is_made_good_elsewhere_is_no_lost_request() {
    let (first, other) = (Raw::new(), Plain::saying("whole"));
    let text = format!(
        "[sites]\ndijon = 1\nthory = 2\n[service.web]\nhosts = [\"*\"]\nhealth = \"off\"\npassive_fall = 0\n\
         outlier.max_ejected_percent = 0\nfailover_within = \"60s\"\nretry.budget_percent = 0\n\
         retry.budget_floor = 0\n[service.web.backends]\ndijon = [\"{}\"]\nthory = [\"{}\"]\n",
        first.address(),
        other.address()
    );
    let edge = Setup::services(&text).start();
    let lost = || edge.sample("relais_requests_lost_total", &[]);
    // Again where its end came after the moment.
    wait_for("it breaks within the moment", || {
        let before = lost();
        let mut client = edge.connect();
        client.send(get("/"));
        first.request().0.send(HALF.replace("200 OK", "503 Busy"));
        let answer = client.head();
        assert!(answer.status() == 503 || lost() == before, "it was answered");
        answer.status() == 200
    });
}

#[test]
fn it_is_the_same_for_clients_and_backends_of_http2() {
    let (first, other) = (Backend::plain(), Backend::plain());
    let text = format!(
        "[sites]\ndijon = 1\nthory = 2\n[service.web]\nhosts = [\"*\"]\nhealth = \"off\"\npassive_fall = 0\n\
         upstream.protocol = \"h2c\"\n[service.web.backends]\ndijon = [\"{}\"]\nthory = [\"{}\"]\n",
        first.address(),
        other.address()
    );
    let edge = Setup::services(&text).start();
    let client = Client::plain(edge.http());
    let mut call = client.get("/small");
    let head = || http::Response::builder().header("content-length", "10");
    let mut broken = first.call();
    broken.answer(head(), false);
    broken.send(b"hello", false);
    broken.reset(h2::Reason::INTERNAL_ERROR);
    let mut served = other.call();
    served.answer(head(), false);
    served.send(b"all of it.", true);
    assert_eq!(call.finish().unwrap().0, b"all of it.");
}

/// Again and again: on a busy machine the end may come after the moment.
#[test]
fn a_post_is_refused_and_not_repeated() {
    let (first, other) = (Raw::new(), Plain::saying("whole"));
    let edge = edge(&first, &other, "60s");
    wait_for("it is refused", || {
        let (mut client, upstream) = half(&edge, &first, post("/small", "once"));
        drop(upstream);
        let head = client.head();
        assert!(head.status() == 502 || client.try_body(&head).is_err(), "looks complete");
        head.get("proxy-status").is_some_and(|why| why.contains("connection_terminated"))
    });
    assert_eq!(other.count(), 0);
}

#[test]
fn what_comes_in_pieces_arrives_as_it_was() {
    let (first, other) = (Raw::new(), Plain::saying("other"));
    let edge = edge(&first, &other, "60s");
    let (mut client, mut upstream) = half(&edge, &first, post("/1", "x"));
    upstream.send("wor").send("ld");
    let answer = client.answer();
    assert_eq!((answer.text().as_str(), answer.get("content-length")), ("helloworld", Some("10")));
    drop(upstream);
    let client = Client::plain(edge.http());
    let mut call = client.start(http::Request::post(client.url("/2")), true);
    let (mut upstream, _) = first.request();
    upstream.send(HALF).send("wor").send("ld");
    assert_eq!(call.finish().unwrap().0, b"helloworld");
    assert_eq!(other.count(), 0);
}

/// Nobody else is asked for what changes something: nothing broke, and after the moment it is passed on as far as it has come.
#[test]
fn what_comes_late_is_passed_on_as_it_comes() {
    for request in [post("/late", "once"), get("/late").replacen("GET", "DELETE", 1)] {
        let (first, other) = (Raw::new(), Plain::saying("other"));
        let edge = edge(&first, &other, "300ms");
        let (mut client, mut upstream) = half(&edge, &first, request);
        assert_eq!(client.head().get("content-length"), Some("10"));
        assert_eq!(client.bytes(5), b"hello");
        upstream.send("world");
        assert_eq!(client.bytes(5), b"world");
        assert_eq!(other.count(), 0);
    }
}

#[test]
fn what_falls_silent_before_it_is_whole_is_asked_for_elsewhere() {
    let (first, other) = (Raw::new(), Plain::saying("other"));
    let edge = edge(&first, &other, "300ms");
    let (mut client, _upstream) = half(&edge, &first, get("/silent"));
    assert_eq!(client.answer().text(), "other");
    let line = edge.access_to("/silent");
    assert!(line["attempts"].as_str().unwrap().contains(" late "), "{line}");
    assert_eq!(edge.sample("relais_retries_total", &["reason=\"late\""]), 1.0);
}

/// What broke off counts when its head counted as a success, and an error is not counted once more.
#[test]
fn an_error_that_breaks_off_is_counted_once() {
    for (status, errors) in [("200 OK", 1.0), ("500 Internal Server Error", 1.0), ("404 Not Found", 1.0)] {
        let (first, other) = (Raw::new(), Plain::saying("whole"));
        let edge = edge(&first, &other, "60s");
        let mut client = edge.connect();
        client.send(get("/broken"));
        let (mut upstream, _) = first.request();
        upstream.send(HALF.replacen("200 OK", status, 1));
        drop(upstream);
        assert_eq!(client.answer().text(), "whole");
        let counted = || edge.sample("relais_backend_errors_total", &[&first.address()]);
        wait_for("it is counted", || counted() >= errors);
        assert_eq!(counted(), errors, "{status}");
    }
}

/// One such answer is enough here.
#[test]
fn what_fell_silent_and_was_asked_for_elsewhere_is_moved_in_the_failover() {
    let (first, other) = (Raw::new(), Plain::saying("other"));
    let edge = edge_with("passive_fall = 1", &first, &other, "300ms");
    let (mut client, _upstream) = half(&edge, &first, get("/silent"));
    assert_eq!(client.answer().text(), "other");
    let record = until("the failover is booked", || {
        let (_, body) = edge.admin("GET", "/history", "");
        let history: Value = serde_json::from_str(&body).unwrap();
        history["failovers"].as_array().unwrap().first().cloned()
    });
    assert_eq!(record["moved"], 1, "{record:#}");
    assert!(record["slowest_micros"].as_u64().unwrap() >= 300_000, "{record:#}");
}

/// Where a service asks beside whatever is slow, nothing else tells that it was moved.
#[test]
fn what_was_answered_sooner_beside_is_moved_in_the_failover() {
    let first = Plain::new(|request| match request.head.target() {
        "/slow" => {
            std::thread::sleep(Duration::from_secs(2));
            ok("late").into_bytes()
        }
        "/fails" => b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => ok("first").into_bytes(),
    });
    let other = Plain::saying("other");
    let rule = "passive_fall = 1\nretry.hedge = true\nretry.statuses = [503]";
    let edge = edge_with(rule, &first, &other, "2s");
    let mut client = edge.connect();
    for _ in 0..110 {
        client.ask(get("/"));
    }
    assert_eq!(client.ask(get("/slow")).text(), "other");
    assert_eq!(client.ask(get("/fails")).text(), "other");
    let record = until("the failover is booked", || {
        let (_, body) = edge.admin("GET", "/history", "");
        let history: Value = serde_json::from_str(&body).unwrap();
        history["failovers"].as_array().unwrap().first().cloned()
    });
    assert!(record["moved"].as_u64().unwrap() >= 1, "{record:#}");
}

/// Without a stated length it is a stream: every byte is passed on at once.
#[test]
fn a_stream_is_held_back_by_nothing() {
    let (first, other) = (Raw::new(), Plain::saying("other"));
    let edge = edge(&first, &other, "60s");
    let mut client = edge.connect();
    client.send(get("/stream"));
    let (mut upstream, _) = first.request();
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    client.head();
    assert_eq!(client.chunk().unwrap(), b"first");
    drop(upstream);
    assert_eq!(client.chunk(), None);
    assert_eq!(other.count(), 0);
    wait_for("it is cut", || edge.access_to("/stream")["cut"] == "backend_broke_off");
}

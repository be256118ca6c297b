//! When a request may be tried again. Nothing sent: always. Sent, no answer: only what may be repeated. Answer begun:
//! never. And a kept connection that died is nobody's 502.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::support::edge::{Edge, Setup, request_id};
use crate::support::h2::{Backend, Client};
use crate::support::raw::{Addressed, Plain, Raw, Serving};
use crate::support::wire::{get, ok, post};
use crate::support::{assert_same, free_address, keeping_up, noise, wait_for};

/// Reads each request whole and closes without an answer; keeps the ids.
fn closing() -> (Serving, Arc<Mutex<Vec<String>>>) {
    let ids: Arc<Mutex<Vec<String>>> = Arc::default();
    let book = Arc::clone(&ids);
    let serving = Raw::new().serve(move |mut conn| {
        if let Some(head) = conn.try_head() {
            let _ = conn.try_body(&head);
            book.lock().unwrap().push(request_id(&head));
        }
    });
    (serving, ids)
}

#[test]
fn nothing_configured_and_one_of_two_backends_dead_fails_nobody() {
    let (alive, dead) = (Plain::saying("x"), free_address());
    let services = format!("[service.web]\nhosts = [\"*\"]\nbackends = [\"{dead}\", \"{}\"]\n", alive.address());
    let edge = Setup::services(&services).start();
    for n in 0..100 {
        assert_eq!(edge.connect().ask(get(&format!("/{n}"))).status(), 200);
        assert_eq!(edge.connect().ask(post(&format!("/{n}"), "body")).status(), 200);
    }
    assert_eq!(alive.count(), 200, "each executed once");
}

#[test]
fn a_refused_connect_goes_elsewhere_with_any_method() {
    let (alive, dead) = (Plain::saying("x"), free_address());
    let edge = Setup::to(&[&dead, &alive]).start();
    for n in 0..100 {
        assert_eq!(edge.connect().ask(get(&format!("/{n}"))).status(), 200);
        assert_eq!(edge.connect().ask(post(&format!("/{n}"), "body")).status(), 200);
    }
    assert_eq!(alive.count(), 200);
    assert!(edge.sample("relais_retries_total", &["refused"]) > 20.0, "half of them met the dead one first");
}

#[test]
fn closed_before_an_answer_a_get_goes_elsewhere() {
    let (alive, (closing, ids)) = (Plain::saying("x"), closing());
    let edge = Setup::to(&[&closing, &alive]).start();
    for n in 0..50 {
        assert_eq!(edge.connect().ask(get(&format!("/{n}"))).status(), 200);
    }
    assert_eq!(alive.count(), 50);
    assert!(!ids.lock().unwrap().is_empty(), "the closing one was tried");
}

#[test]
fn closed_before_an_answer_a_post_is_502_and_never_executed_twice() {
    let (alive, (closing, ids)) = (Plain::saying("x"), closing());
    let edge = Setup::to(&[&closing, &alive]).start();
    let (mut answered, mut failed) = (0, 0);
    for n in 0..60 {
        let answer = edge.connect().ask(post(&format!("/{n}"), "body"));
        match answer.status() {
            200 => answered += 1,
            502 => {
                failed += 1;
                let why = answer.get("proxy-status").unwrap();
                assert!(why.contains("may have received"), "{why}");
                let line = edge.access(&request_id(&answer.head));
                assert_eq!(line["not_replayed"], "not_idempotent", "{line}");
            }
            other => panic!("{other}"),
        }
    }
    assert!(answered > 0 && failed > 0, "{answered} answered, {failed} failed");
    let received: Vec<String> = ids.lock().unwrap().clone();
    let served: Vec<String> = alive.seen().iter().map(|request| request_id(&request.head)).collect();
    assert_eq!((received.len(), served.len()), (failed, answered));
    let all: HashSet<&String> = received.iter().chain(&served).collect();
    assert_eq!(all.len(), 60, "no request at two backends");
}

#[test]
fn an_idempotency_key_makes_a_post_repeatable() {
    let (alive, (closing, ids)) = (Plain::saying("x"), closing());
    let edge = Setup::to(&[&closing, &alive]).start();
    for n in 0..30 {
        let request =
            format!("POST /{n} HTTP/1.1\r\nHost: a.test\r\nIdempotency-Key: \"k{n}\"\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!(edge.connect().ask(request).status(), 200);
    }
    assert!(alive.seen().iter().all(|request| request.body == b"body"));
    assert!(!ids.lock().unwrap().is_empty(), "the closing one was tried");
}

#[test]
fn an_idempotency_key_that_is_not_sent_on_makes_nothing_repeatable() {
    let (alive, (closing, ids)) = (Plain::saying("x"), closing());
    let edge = Setup::to(&[&closing, &alive]).start();
    let ask = |n: &usize| {
        let fields = "Idempotency-Key: \"k\"\r\nConnection: idempotency-key\r\nContent-Length: 4";
        edge.connect().ask(format!("POST /{n} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n\r\nbody")).status()
    };
    let failed = (0..30_usize).filter(|n| ask(n) == 502).count();
    assert!(failed > 0, "the closing one was tried");
    assert_eq!((ids.lock().unwrap().len(), alive.count()), (failed, 30 - failed));
}

#[test]
fn a_backend_that_never_answers_costs_a_get_its_deadline_and_no_more() {
    keeping_up(Duration::from_millis(150), || {
        let silent = Raw::new();
        let alive = Plain::saying("x");
        let edge = Setup::to(&[&silent, &alive]).with("timeout.response = \"300ms\"").start();
        let statuses: Vec<u16> = (0..12).map(|n| edge.connect().ask(get(&format!("/{n}"))).status()).collect();
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        let posts: Vec<u16> = (0..12).map(|n| edge.connect().ask(post(&format!("/{n}"), "b")).status()).collect();
        assert!(posts.iter().all(|status| [200, 504].contains(status)), "{posts:?}");
        let answered = posts.iter().filter(|status| **status == 200).count();
        assert!(answered < 12, "the silent one was asked");
        assert_eq!(alive.count(), 12 + answered, "no POST went elsewhere");
    });
}

fn put(path: &str, body: &[u8]) -> Vec<u8> {
    let mut request =
        format!("PUT {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    request.extend_from_slice(body);
    request
}

#[test]
fn a_body_that_was_kept_is_sent_again_byte_by_byte() {
    let (alive, (closing, ids)) = (Plain::saying("x"), closing());
    let edge = Setup::to(&[&closing, &alive]).start();
    let body = noise(40 << 10);
    for n in 0..10 {
        assert_eq!(edge.connect().ask(put(&format!("/{n}"), &body)).status(), 200);
    }
    let chunked: Vec<u8> = [
        b"PUT /chunked HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3000\r\n".to_vec(),
        body[..0x3000].to_vec(),
        b"\r\n7000\r\n".to_vec(),
        body[0x3000..].to_vec(),
        b"\r\n0\r\n\r\n".to_vec(),
    ]
    .concat();
    for _ in 0..6 {
        assert_eq!(edge.connect().ask(&chunked).status(), 200);
    }
    for request in alive.seen() {
        assert_same(&request.body, &body);
    }
    assert!(!ids.lock().unwrap().is_empty(), "the closing one was tried");
}

#[test]
fn a_body_too_large_for_memory_is_sent_again_from_disk() {
    let (alive, (closing, ids)) = (Plain::saying("x"), closing());
    let edge = Setup::to(&[&closing, &alive]).start();
    let body = noise(5 << 20);
    // Which of the two is asked first is chance.
    for n in 0..64 {
        assert_eq!(edge.connect().ask(put(&format!("/{n}"), &body)).status(), 200);
        if n >= 4 && !ids.lock().unwrap().is_empty() {
            break;
        }
    }
    for request in alive.seen() {
        assert_same(&request.body, &body);
    }
    assert!(!ids.lock().unwrap().is_empty(), "the closing one was tried");
}

#[test]
fn a_body_too_large_to_keep_is_not_sent_again_and_the_log_says_so() {
    let (closing, _) = closing();
    let alive = Plain::saying("x");
    let edge = Setup::to(&[&closing, &alive]).with("retry.spool_bytes = 0").start();
    let body = noise(100 << 10);
    let (mut answered, mut failed) = (0, 0);
    for n in 0..20 {
        let answer = edge.connect().ask(put(&format!("/{n}"), &body));
        match answer.status() {
            200 => answered += 1,
            502 => {
                failed += 1;
                assert_eq!(edge.access(&request_id(&answer.head))["not_replayed"], "body_not_kept");
            }
            other => panic!("{other}"),
        }
    }
    assert!(answered > 0 && failed > 0, "{answered} answered, {failed} failed");
    assert_eq!(alive.count(), answered);
    assert_eq!(edge.sample("relais_requests_not_replayable_total", &[]), f64::from(failed));
}

/// Answers every request and closes the connection some time later, unannounced.
fn fickle(wait: impl Fn(usize) -> Duration + Send + Sync + 'static, by_reset: bool) -> (Serving, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let serving = Raw::new().serve(move |mut conn| {
        let Some(head) = conn.try_head() else { return };
        let Ok(_) = conn.try_body(&head) else { return };
        let n = counted.fetch_add(1, Relaxed);
        let _ = conn.try_send(ok("x"));
        std::thread::sleep(wait(n));
        if by_reset {
            conn.reset();
        }
    });
    (serving, count)
}

fn no_request_of_500_fails(backend: &Serving) {
    let edge = Setup::to(&[backend]).start();
    let mut client = edge.connect();
    for n in 0..500 {
        let answer = client.ask(get(&format!("/{n}")));
        assert_eq!(answer.status(), 200, "GET {n}: {}", answer.text());
    }
    for n in 0..500 {
        let answer = client.ask(post(&format!("/{n}"), "body"));
        assert_eq!(answer.status(), 200, "POST {n}: {}", answer.text());
    }
    assert_eq!(edge.backend(backend)["failed"], 0, "and nothing is held against the backend");
}

#[test]
fn a_backend_that_closes_right_after_each_answer_fails_nobody() {
    let (backend, count) = fickle(|_| Duration::ZERO, false);
    no_request_of_500_fails(&backend);
    assert_eq!(count.load(Relaxed), 1000, "each executed once");
}

#[test]
fn a_backend_that_closes_whenever_it_likes_fails_nobody() {
    // The moments at which the next request is just being written.
    let (backend, count) = fickle(|n| Duration::from_micros(37 * (n as u64 % 41)), false);
    no_request_of_500_fails(&backend);
    assert_eq!(count.load(Relaxed), 1000);
}

#[test]
fn a_backend_that_resets_whenever_it_likes_fails_nobody() {
    let (backend, count) = fickle(|n| Duration::from_micros(41 * (n as u64 % 37)), true);
    no_request_of_500_fails(&backend);
    assert_eq!(count.load(Relaxed), 1000);
}

fn outcomes(edge: &Edge, path: &str) -> Vec<String> {
    let line = edge.access_to(path);
    line["attempts"].as_str().unwrap().split(", ").map(str::to_owned).collect()
}

#[test]
fn a_backend_is_not_tried_twice_while_another_is_left() {
    let (one, two, three) = (closing(), closing(), closing());
    let alive = Plain::saying("x");
    let edge = Setup::to(&[&one.0, &two.0, &three.0, &alive]).start();
    for n in 0..40 {
        let path = format!("/{n}");
        assert_eq!(edge.connect().ask(get(&path)).status(), 200);
        let attempts = outcomes(&edge, &path);
        let addresses: HashSet<&str> = attempts.iter().map(|one| one.split(' ').next().unwrap()).collect();
        assert_eq!(addresses.len(), attempts.len(), "{attempts:?}");
    }
}

#[test]
fn attempts_are_bounded() {
    let backends: Vec<_> = (0..6).map(|_| closing()).collect();
    let list: Vec<&dyn Addressed> = backends.iter().map(|(serving, _)| serving as &dyn Addressed).collect();
    let edge = Setup::to(&list).with("retry.attempts = 3").start();
    for n in 1..=10 {
        let path = format!("/{n}");
        assert_eq!(edge.connect().ask(get(&path)).status(), 502);
        assert_eq!(outcomes(&edge, &path).len(), 3);
        let received: usize = backends.iter().map(|(_, ids)| ids.lock().unwrap().len()).sum();
        assert_eq!(received, 3 * n);
    }
    let dead: Vec<_> = (0..6).map(|_| free_address()).collect();
    let list: Vec<&dyn Addressed> = dead.iter().map(|address| address as &dyn Addressed).collect();
    // Where nothing was sent there may be more, but each is asked once before any is asked again, and there is an end.
    let edge = Setup::to(&list).with("retry.attempts = 3").start();
    assert_eq!(edge.connect().ask(get("/dead")).status(), 502);
    let connects = outcomes(&edge, "/dead");
    assert!(connects.len() <= 32, "{connects:?}");
    for round in connects.chunks(6) {
        let asked: HashSet<&str> = round.iter().map(|one| one.split(' ').next().unwrap()).collect();
        assert_eq!(asked.len(), round.len(), "{connects:?}");
    }
}

#[test]
fn an_answer_that_has_begun_is_never_asked_for_again() {
    // Larger than what is held back until it is whole.
    let half = Raw::new().serve(|mut conn| {
        conn.try_head();
        let _ = conn.try_send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhalf");
    });
    let alive = Plain::saying("x");
    let edge = Setup::to(&[&half, &alive]).start();
    let mut cut = 0;
    for n in 0..20 {
        let mut client = edge.connect();
        client.send(get(&format!("/{n}")));
        let head = client.head();
        if client.try_body(&head).is_err() {
            cut += 1;
        }
    }
    assert!(cut > 0);
    assert_eq!(alive.count(), 20 - cut);
}

#[test]
fn a_stream_the_http2_backend_refused_goes_elsewhere_with_any_method() {
    let refusing = Backend::plain();
    let alive = Backend::plain();
    let edge = Setup::to(&[&refusing, &alive]).with("upstream.protocol = \"h2c\"").start();
    let client = Client::plain(edge.http());
    let mut refused = 0;
    for n in 0..30 {
        let mut call = client.start(http::Request::post(client.url(&format!("/{n}"))), true);
        wait_for("one of the two was asked and did not refuse", || {
            if let Some(mut served) = refusing.try_call() {
                served.reset(h2::Reason::REFUSED_STREAM);
                refused += 1;
            }
            let Some(mut served) = alive.try_call() else { return false };
            served.answer(http::Response::builder().status(204), true);
            true
        });
        assert_eq!(call.head().status(), 204);
    }
    assert!(refused > 0, "the refusing one was tried");
}

#[test]
fn a_stream_the_http2_backend_broke_is_not_repeated_for_a_post() {
    let breaking = Backend::plain();
    let edge = Setup::to(&[&breaking]).with("upstream.protocol = \"h2c\"").start();
    let client = Client::plain(edge.http());
    let mut call = client.start(http::Request::post(client.url("/")), true);
    breaking.call().reset(h2::Reason::INTERNAL_ERROR);
    assert_eq!(call.head().status(), 502);
    assert!(breaking.try_call().is_none());
}

//! Answers that say "not here" (502, 503, 504): tried elsewhere when the request may be repeated and the retry budget
//! covers it, otherwise passed on as they are.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::edge::Setup;
use crate::support::raw::{Plain, Raw, Serving};
use crate::support::wait_for;
use crate::support::wire::{get, ok, post};

#[test]
fn a_503_is_tried_elsewhere_when_the_request_may_be_repeated() {
    let busy = Plain::new(|_| b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy".to_vec());
    let alive = Plain::saying("x");
    let edge = Setup::to(&[&busy, &alive]).with("retry.budget_floor = 1000").start();
    for n in 0..30 {
        assert_eq!(edge.connect().ask(get(&format!("/{n}"))).status(), 200);
    }
    assert!(busy.count() > 0 && alive.count() == 30, "{} {}", busy.count(), alive.count());
    let statuses: Vec<u16> = (0..30).map(|n| edge.connect().ask(post(&format!("/{n}"), "b")).status()).collect();
    assert!(statuses.contains(&503) && statuses.contains(&200), "a POST is passed on as it was answered: {statuses:?}");
    assert_eq!(busy.count() + alive.count(), 60 + busy.seen().iter().filter(|s| s.head.method() == "GET").count());
}

#[test]
fn a_503_is_passed_on_when_there_is_no_elsewhere() {
    let busy = || Plain::new(|_| b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy".to_vec());
    let alone = busy();
    let edge = Setup::to(&[&alone]).start();
    let answer = edge.connect().ask(get("/"));
    assert_eq!((answer.status(), answer.text().as_str(), answer.get("retry-after")), (503, "busy", Some("7")));
    assert_eq!(alone.count(), 1);
    // All say no: the last one's own words.
    let (one, two) = (busy(), busy());
    let edge = Setup::to(&[&one, &two]).start();
    let answer = edge.connect().ask(get("/"));
    assert_eq!((answer.status(), answer.text().as_str()), (503, "busy"));
    assert_eq!((one.count(), two.count()), (1, 1));
    // Others are left and attempts are not.
    let (one, two, three) = (busy(), busy(), busy());
    let edge = Setup::to(&[&one, &two, &three]).with("retry.attempts = 2").start();
    let answer = edge.connect().ask(get("/"));
    assert_eq!((answer.status(), answer.text().as_str()), (503, "busy"));
    assert_eq!(one.count() + two.count() + three.count(), 2);
}

#[test]
fn retries_after_bad_answers_are_bounded_by_a_budget() {
    let busy = Plain::new(|_| b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy".to_vec());
    let other = Plain::new(|_| b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy".to_vec());
    let edge = Setup::to(&[&busy, &other]).with("retry.budget_floor = 0\nretry.budget_percent = 10").start();
    for n in 0..200 {
        assert_eq!(edge.connect().ask(get(&format!("/{n}"))).status(), 503);
    }
    let attempts = busy.count() + other.count();
    assert!(attempts < 200 + 60, "{attempts} attempts for 200 requests");
    assert!(edge.sample("relais_retry_budget_exhausted_total", &[]) > 0.0);
}

/// Reads each request and closes; how many there were.
fn closing(count: &Arc<AtomicUsize>) -> Serving {
    let count = Arc::clone(count);
    Raw::new().serve(move |mut conn| {
        if conn.try_head().is_some() {
            count.fetch_add(1, Relaxed);
        }
    })
}

#[test]
fn where_every_backend_breaks_off_retries_are_bounded_too() {
    let asked: Arc<AtomicUsize> = Arc::default();
    let (one, two, three) = (closing(&asked), closing(&asked), closing(&asked));
    let budget = "retry.budget_floor = 1\nretry.budget_percent = 0";
    let edge = Setup::to(&[&one, &two, &three]).with(budget).start();
    let begun = Instant::now();
    for n in 0..100 {
        assert_eq!(edge.connect().ask(get(&format!("/{n}"))).status(), 502);
    }
    // One more for each is free. Then ten seconds of the floor, what came in since, the first request, which nobody had failed
    // before, and connections that were made but not needed.
    let most = 200 + 10 + usize::try_from(begun.elapsed().as_secs()).unwrap() + 1 + 20;
    let attempts = asked.load(Relaxed);
    assert!((210..=most).contains(&attempts), "{attempts} attempts for 100 requests");
    let line = edge.access_to("/99");
    assert_eq!(line["not_replayed"], "retry_budget", "{line}");
}

/// Reads each request, answers half of it, and closes a moment later; how many there were.
fn breaking(count: &Arc<AtomicUsize>) -> Serving {
    let count = Arc::clone(count);
    Raw::new().serve(move |mut conn| {
        if conn.try_head().is_some() {
            count.fetch_add(1, Relaxed);
            let _ = conn.try_send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
            std::thread::sleep(Duration::from_millis(5));
        }
    })
}

/// Its heads say nothing good of who never gets further.
#[test]
fn where_every_small_answer_breaks_off_retries_are_bounded_too() {
    const CLIENTS: usize = 4;
    let asked: Arc<AtomicUsize> = Arc::default();
    let (one, two, three) = (breaking(&asked), breaking(&asked), breaking(&asked));
    let budget = "failover_within = \"60s\"\nretry.budget_floor = 1\nretry.budget_percent = 0";
    let edge = Setup::to(&[&one, &two, &three]).with(budget).start();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let edge = &edge;
            scope.spawn(move || {
                for n in 0..50 {
                    let mut conn = edge.connect();
                    conn.send(get(&format!("/{client}/{n}")));
                    let head = conn.head();
                    // The last one there is has its answer passed on as far as it comes.
                    assert!(head.status() == 502 || conn.try_body(&head).is_err(), "{}", head.raw);
                }
            });
        }
    });
    // As above; on a busy machine some are late to break off, and are asked for elsewhere by the budget only.
    let most = 2 * 50 * CLIENTS + 10 + usize::try_from(begun.elapsed().as_secs()).unwrap() + 3 * CLIENTS + 20;
    let attempts = asked.load(Relaxed);
    assert!((50 * CLIENTS..=most).contains(&attempts), "{attempts} attempts for {} requests", 50 * CLIENTS);
    assert!(edge.sample("relais_retry_budget_exhausted_total", &[]) > 0.0);
}

#[test]
fn what_leaves_one_that_breaks_off_for_one_that_answers_costs_nothing() {
    let asked: Arc<AtomicUsize> = Arc::default();
    let (one, alive) = (closing(&asked), Plain::saying("x"));
    let budget = "balance = \"round-robin\"\nretry.budget_floor = 0\nretry.budget_percent = 0";
    let edge = Setup::to(&[&one, &alive]).with(budget).start();
    for n in 0..60 {
        assert_eq!(edge.connect().ask(get(&format!("/{n}"))).status(), 200);
    }
    assert!(asked.load(Relaxed) > 10, "{asked:?} met the one that breaks off");
}

#[test]
fn a_503_that_the_budget_does_not_cover_is_passed_on_as_it_is() {
    // Without `Retry-After`: that would keep requests away.
    let busy = Plain::new(|_| b"HTTP/1.1 503 Busy\r\nX-Mine: yes\r\nContent-Length: 4\r\n\r\nbusy".to_vec());
    let alive = Plain::saying("x");
    let budget = "balance = \"round-robin\"\nretry.budget_floor = 1\nretry.budget_percent = 0";
    let edge = Setup::to(&[&busy, &alive]).with(budget).start();
    let (begun, mut passed_on) = (Instant::now(), 0_usize);
    for n in 0..100 {
        let answer = edge.connect().ask(get(&format!("/{n}")));
        if answer.status() == 200 {
            continue;
        }
        passed_on += 1;
        assert_eq!((answer.status(), answer.text().as_str()), (503, "busy"));
        assert!(answer.get("x-mine") == Some("yes") && !answer.head.has("proxy-status"), "{}", answer.head.raw);
    }
    let retried = busy.count() - passed_on;
    assert_eq!(alive.count(), 100 - passed_on, "each that was retried was answered elsewhere");
    // The first retry finds what ten seconds give.
    let most = 11 + usize::try_from(begun.elapsed().as_secs()).unwrap();
    assert!((10..=most).contains(&retried), "{retried} of {} retried", busy.count());
    assert!(passed_on > 20, "{passed_on} of {} passed on", busy.count());
    assert_eq!(edge.sample("relais_retry_budget_exhausted_total", &[]).to_string(), passed_on.to_string());
    assert_eq!(edge.sample("relais_retries_total", &["reason=\"status\""]).to_string(), retried.to_string());
}

#[test]
fn the_second_of_two_that_answers_is_charged_with_its_own_time_only() {
    // All take their time, but for the second of two that get the same request.
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let backend = || {
        let seen = Arc::clone(&seen);
        Plain::new(move |request| {
            let target = request.head.target().to_owned();
            let first = seen.lock().unwrap().insert(target.clone());
            if first {
                std::thread::sleep(Duration::from_millis(if target.contains("hang") { 3_000 } else { 300 }));
            }
            ok("x").into_bytes()
        })
    };
    let (one, two) = (backend(), backend());
    let edge = Setup::to(&[&one, &two]).with("retry.hedge = true").start();
    std::thread::scope(|scope| {
        for client in 0..25 {
            let edge = &edge;
            scope.spawn(move || {
                (0..6).for_each(|n| drop(edge.connect().ask(get(&format!("/{client}/{n}")))));
            });
        }
    });
    let quick = || edge.sample("relais_backend_latency_seconds_bucket", &["le=\"0.25\""]);
    let before = quick();
    let mut n = 0;
    wait_for("an answer of the second one that took no time", || {
        n += 1;
        assert_eq!(edge.connect().ask(get(&format!("/hang/{n}"))).status(), 200);
        quick() > before
    });
    assert!(edge.sample("relais_retries_total", &["reason=\"hedged\""]) > 0.0);
}

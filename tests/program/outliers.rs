//! Gray failure: a backend that answers, but much worse than the others, is left, and says so.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::support::edge::{Edge, Setup};
use crate::support::raw::{Addressed, Plain, Raw};
use crate::support::wait_for;
use crate::support::wire::{get, ok};

/// An edge with one bad backend of three, whose ejection outlasts the test.
fn with(bad: &Plain, good: [&Plain; 2]) -> Edge {
    Setup::services(&format!(
        "[service.web]\nhosts = [\"*\"]\noutlier.hold = \"5m\"\nbackends = [\"{}\", \"{}\", \"{}\"]\n",
        bad.address(),
        good[0].address(),
        good[1].address()
    ))
    .start()
}

/// Asks until the bad one is left for this reason, and sees that nobody meets it any more.
#[track_caller]
fn is_left(bad: &Plain, reason: &str, word: &str) {
    let (one, two) = (Plain::saying("x"), Plain::saying("x"));
    let edge = with(bad, [&one, &two]);
    let mut client = edge.connect();
    wait_for("the bad one is ejected", || {
        (0..20).for_each(|n| drop(client.ask(get(&format!("/{n}")))));
        edge.backend(bad)["ejected"] == true
    });
    let before = bad.count();
    for n in 0..100 {
        assert_eq!(client.ask(get(&format!("/{n}"))).text(), "x");
    }
    assert_eq!(bad.count(), before, "it is asked no more");
    let state = edge.backend(bad);
    assert_eq!(state["health"], "down", "{state}");
    assert!(state["why"].as_str().unwrap().contains(word), "{state}");
    let here = format!("backend=\"{}\"", bad.address());
    assert_eq!(edge.sample("relais_backend_ejected", &[&here]), 1.0);
    assert_eq!(edge.sample("relais_backend_ejected", &[]), 1.0, "it alone");
    assert_eq!(edge.sample("relais_backend_ejections_total", &[&here, &format!("reason=\"{reason}\"")]), 1.0);
    assert_eq!(edge.sample("relais_backend_ejections_total", &[]), 1.0);
    assert_eq!(edge.sample("relais_site_up", &[]), 1.0, "its answers accuse no site");
}

#[test]
fn three_wrong_answers_in_ten_are_enough() {
    let count = AtomicUsize::new(0);
    let bad = Plain::new(move |_| {
        // Never many in a row: what leaves a backend for those is another rule.
        if count.fetch_add(7, Relaxed) % 10 < 3 {
            b"HTTP/1.1 500 Oh No\r\nContent-Length: 0\r\n\r\n".to_vec()
        } else {
            ok("x").into_bytes()
        }
    });
    is_left(&bad, "errors", "answers were errors");
}

#[test]
fn being_much_slower_than_the_others_is_enough() {
    let bad = Plain::new(|_| {
        std::thread::sleep(Duration::from_millis(500));
        ok("x").into_bytes()
    });
    is_left(&bad, "slow", "answers take");
}

/// Where clients stay with their backend nobody is compared; one that only ever breaks off is left all the same.
#[test]
fn a_backend_that_breaks_off_every_body_is_left_without_comparison() {
    let bad = Raw::new().serve(|mut conn| {
        if conn.try_head().is_some() {
            let _ = conn.try_send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        }
    });
    let good = Plain::saying("x");
    let edge = Setup::services(&format!(
        "[service.web]\nhosts = [\"*\"]\nbalance = {{ hash = \"uri\" }}\nbackends = [{:?}, {:?}]\n",
        bad.address(),
        good.address()
    ))
    .start();
    edge.wait_for_health(&bad, "up");
    let mut n = 0;
    wait_for("the bad one is left", || {
        n += 1;
        let mut client = edge.connect();
        client.send(get(&format!("/{n}")));
        let head = client.head();
        let whole = client.try_body(&head).is_ok();
        assert!(whole || n < 50, "{n} clients got half an answer");
        edge.backend(&bad)["health"] == "down"
    });
    let state = edge.backend(&bad);
    assert_eq!(state["ejected"], false, "{state}");
    assert!(state["why"].as_str().unwrap().contains("3 requests in a row"), "{state}");
}

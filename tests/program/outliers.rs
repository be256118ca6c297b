//! Gray failure: a backend that answers, but much worse than the others, is left, and says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::support::edge::{Edge, Setup};
use crate::support::raw::{Addressed, Plain, Raw};
use crate::support::wait_for;
use crate::support::wire::{get, ok, post};

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

/// Most of the pool fails, so that the bad are no outliers, and the limit of what it can lose would keep one of them.
#[test]
fn two_of_three_that_only_fail_are_left_however_many_they_are() {
    for status in [503, 500] {
        let failing = move || {
            Plain::new(move |seen| match seen.head.target() {
                "/health" => ok("x").into_bytes(),
                _ => format!("HTTP/1.1 {status} Oh No\r\nContent-Length: 0\r\n\r\n").into_bytes(),
            })
        };
        let (one, two, good) = (failing(), failing(), Plain::saying("x"));
        let edge = Setup::services(&format!(
            "[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\noutlier.hold = \"5m\"\nbackends = [\"{}\", \"{}\", \"{}\"]\n",
            one.address(),
            two.address(),
            good.address()
        ))
        .start();
        [&one, &two, &good].iter().for_each(|backend| edge.wait_for_health(*backend, "up"));
        let mut client = edge.connect();
        wait_for("both are left", || {
            let answer = client.ask(get("/"));
            // What is worth another attempt gets it.
            assert!(status == 500 || answer.status() == 200, "{}", answer.status());
            [&one, &two].iter().all(|backend| edge.backend(*backend)["health"] == "down")
        });
        (0..50).for_each(|_| assert_eq!(client.ask(get("/")).status(), 200));
        let why = [&one, &two].map(|backend| edge.backend(backend)["why"].as_str().unwrap().to_owned());
        assert!(why.iter().any(|why| why.contains("while another answers well")), "{why:?}");
        assert_eq!(edge.sample("relais_site_up", &[]), 1.0, "their answers accuse no site");
    }
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
    // Until it is, the other one cannot be spared.
    edge.wait_for_health(&good, "up");
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

/// An edge that asks `preferred` alone while it can.
fn preferring(preferred: &dyn Addressed, other: &dyn Addressed) -> Edge {
    let edge = Setup::services(&format!(
        "[sites]\ndijon = 1\nthory = 2\n[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\nfailover_within = \"2s\"\n\
         outlier.hold = \"5m\"\n[service.web.backends]\ndijon = {:?}\nthory = {:?}\n",
        preferred.address(),
        other.address()
    ))
    .start();
    edge.wait_for_health(preferred, "up");
    edge.wait_for_health(other, "up");
    edge
}

/// Small packets pass and large ones do not, or the application is stuck and its check is not: nobody else is asked, so
/// that there is nobody to compare it with.
#[test]
fn a_preferred_backend_that_answers_its_checks_alone_is_left() {
    let stuck: Arc<AtomicBool> = Arc::default();
    let heeded = Arc::clone(&stuck);
    let preferred = Raw::new().serve(move |mut conn| {
        while let Some(head) = conn.try_head() {
            while head.target() != "/health" && heeded.load(Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = conn.try_send(ok("preferred"));
        }
    });
    let other = Plain::saying("other");
    let edge = preferring(&preferred, &other);
    let mut client = edge.connect();
    (0..40).for_each(|n| assert_eq!(client.ask(get(&format!("/{n}"))).text(), "preferred"));
    stuck.store(true, Relaxed);
    let send = |request: String| {
        let mut client = edge.connect();
        client.send(request);
        client
    };
    let mut waiting: Vec<_> = (0..4).map(|n| send(get(&format!("/waits/{n}")))).collect();
    let mut posted = send(post("/posted", "once"));
    waiting.iter_mut().for_each(|client| assert_eq!(client.answer().text(), "other"));
    assert_eq!(edge.connect().ask(get("/later")).text(), "other");
    let state = edge.backend(&preferred);
    assert_eq!((&state["health"], &state["ejected"]), (&"down".into(), &true.into()), "{state}");
    assert!(state["why"].as_str().unwrap().contains("none was answered"), "{state}");
    assert_eq!(edge.sample("relais_backend_ejections_total", &["reason=\"slow\""]), 1.0);
    let sites = edge.status()["report"]["sites"].clone();
    assert!(sites.as_array().unwrap().iter().all(|site| site["health"] == "up"), "it accuses no site: {sites}");
    stuck.store(false, Relaxed);
    assert_eq!(posted.answer().text(), "preferred", "what may not be repeated goes on waiting");
}

#[test]
fn a_preferred_backend_that_answers_most_requests_wrongly_is_left() {
    let broken: Arc<AtomicBool> = Arc::default();
    let heeded = Arc::clone(&broken);
    let preferred = Plain::new(move |seen| {
        if seen.head.target() != "/health" && heeded.load(Relaxed) {
            b"HTTP/1.1 500 Oh No\r\nContent-Length: 0\r\n\r\n".to_vec()
        } else {
            ok("preferred").into_bytes()
        }
    });
    let other = Plain::saying("other");
    let edge = preferring(&preferred, &other);
    let mut client = edge.connect();
    (0..20).for_each(|n| assert_eq!(client.ask(get(&format!("/{n}"))).text(), "preferred"));
    broken.store(true, Relaxed);
    wait_for("the other one answers", || client.ask(get("/")).text() == "other");
    let state = edge.backend(&preferred);
    assert!(state["why"].as_str().unwrap().contains("were errors"), "{state}");
    broken.store(false, Relaxed);
    assert_eq!(client.ask(get("/")).text(), "other", "for a while");
}

/// What it takes while its share grows: a tenth as long as its errors are clearly more, all of it when they are over.
#[test]
fn who_is_back_and_answers_wrongly_gets_no_larger_share_until_that_is_over() {
    const GONE: usize = 0;
    const WRONG: usize = 1;
    const WELL: usize = 2;
    let state = Arc::new(AtomicUsize::new(WRONG));
    let (heeded, count) = (Arc::clone(&state), AtomicUsize::new(0));
    let back = Plain::new(move |seen| {
        let checked = seen.head.target() == "/health";
        let wrong = match heeded.load(Relaxed) {
            GONE => checked,
            WRONG => !checked && count.fetch_add(1, Relaxed).is_multiple_of(4),
            _ => false,
        };
        let answer = if wrong { "HTTP/1.1 500 Oh No\r\nContent-Length: 0\r\n\r\n".to_owned() } else { ok("x") };
        answer.into_bytes()
    });
    let asked = || back.seen().iter().filter(|seen| seen.head.target() != "/health").count();
    let others = [Plain::saying("x"), Plain::saying("x")];
    // One wrong answer in four is not enough to be left.
    let edge = Setup::services(&format!(
        "[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\noutlier.errors_percent = 60\noutlier.slow_factor = 0\n\
         backends = [\"{}\", \"{}\", \"{}\"]\n",
        back.address(),
        others[0].address(),
        others[1].address()
    ))
    .start();
    let mut client = edge.connect();
    let mut of_a_hundred = || {
        let before = asked();
        (0..100).for_each(|n| drop(client.ask(get(&format!("/{n}")))));
        asked() - before
    };
    wait_for("it has its share from the start", || of_a_hundred() > 20);
    state.store(GONE, Relaxed);
    edge.wait_for_health(&back, "down");
    state.store(WRONG, Relaxed);
    edge.wait_for_health(&back, "up");
    let why = || edge.backend(&back)["why"].as_str().unwrap().to_owned();
    wait_for("its share does not grow", || of_a_hundred() > 0 && why().starts_with("its share does not grow: "));
    // Longer than its share would take to be whole.
    let end = Instant::now() + Duration::from_secs(7);
    while Instant::now() < end {
        of_a_hundred();
    }
    let share: usize = (0..5).map(|_| of_a_hundred()).sum();
    assert!(share < 100, "{share} of 500, {}", why());
    assert_eq!(edge.sample("relais_backend_ejections_total", &[]), 0.0);
    state.store(WELL, Relaxed);
    wait_for("its share is whole", || of_a_hundred() > 25);
    assert!(!why().contains("share"), "{}", why());
}

/// Nothing follows from one alone, but whoever looks sees it.
#[test]
fn a_wrong_answer_that_is_passed_on_as_it_is_stands_under_failed() {
    let backend = Plain::new(|seen| match seen.head.target() {
        "/bad" => b"HTTP/1.1 500 Oh No\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => ok("x").into_bytes(),
    });
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    for (path, status) in [("/1", 200), ("/bad", 500), ("/2", 200), ("/bad", 500), ("/3", 200)] {
        assert_eq!(client.ask(get(path)).status(), status);
    }
    let (_, table, _) = edge.cli(&["status"]);
    let line = table.lines().find(|line| line.contains(&backend.address())).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    // In flight, answered well, failed.
    assert!(words.windows(3).any(|three| three == ["0", "3", "2"]), "{table}");
}

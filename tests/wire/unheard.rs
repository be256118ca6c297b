//! A backend that lives, answers what is small and acknowledges all, and whose other answers do not arrive, as where a tunnel
//! loses all large packets: what may be asked for elsewhere is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::edge::{Edge, Setup};
use crate::support::raw::{Addressed, Plain, Raw, Serving};
use crate::support::wire::{Conn, get, ok, post};
use crate::support::{assert_same, keeping_up, noise, wait_for};

const SIZE: usize = 100_000;

/// Answers that must be known of a service before one is unusually late.
const KNOWN: usize = 100;

/// Says nothing more until the edge goes.
fn hold(conn: &mut Conn) {
    conn.wait_for_ever();
    assert!(conn.try_head().is_none(), "nobody asks for more on it");
}

/// Answers of `/lost` do not arrive, of `/film` half of them, of `/post` late, of `/wrong` as errors, and all others do.
fn half_heard() -> Serving {
    let film = noise(SIZE);
    Raw::new().serve(move |mut conn: Conn| {
        while let Some(head) = conn.try_head() {
            match head.target() {
                "/lost" => hold(&mut conn),
                "/wrong" => drop(conn.send("HTTP/1.1 500 Oh No\r\nContent-Length: 0\r\n\r\n")),
                "/film" => {
                    let head = format!("HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nContent-Length: {SIZE}\r\n\r\n");
                    conn.send(head).send(&film[..SIZE / 2]);
                    hold(&mut conn);
                }
                "/post" => {
                    conn.body(&head);
                    // Longer than the contract, at which a GET would have gone.
                    std::thread::sleep(std::time::Duration::from_secs(2));
                    conn.send(ok("late"));
                }
                _ => drop(conn.send(ok("here"))),
            }
        }
    })
}

/// Has all of it.
fn whole() -> Plain {
    let film = noise(SIZE);
    Plain::new(move |seen| match seen.head.get("range") {
        Some(range) => {
            assert_eq!((range, seen.head.get("if-range")), ("bytes=50000-99999", Some("\"v1\"")));
            let head =
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 50000-99999/100000\r\nContent-Length: 50000\r\n";
            [format!("{head}ETag: \"v1\"\r\n\r\n").as_bytes(), &film[SIZE / 2..]].concat()
        }
        None => ok("other").into_bytes(),
    })
}

/// The first is preferred, and known to answer at once.
fn pair(backend: &Serving, other: &Plain) -> Edge {
    pair_within(backend, other, "300ms")
}

fn pair_within(backend: &Serving, other: &Plain, contract: &str) -> Edge {
    let edge = Setup::services(&format!(
        "[sites]\ndijon = 1\nthory = 2\n[service.web]\nhosts = [\"*\"]\nhealth = \"off\"\npassive_fall = 0\n\
         failover_within = \"{contract}\"\n[service.web.backends]\ndijon = [\"{}\"]\nthory = [\"{}\"]\n",
        backend.address(),
        other.address()
    ))
    .start();
    edge.wait_for_health(other, "up");
    let mut client = edge.connect();
    for _ in 0..KNOWN {
        assert_eq!(client.ask(get("/")).text(), "here");
    }
    edge
}

#[test]
fn a_get_whose_answer_does_not_come_is_asked_for_elsewhere_and_a_post_is_waited_for() {
    let (backend, other) = (half_heard(), whole());
    let edge = pair(&backend, &other);
    assert_eq!(edge.connect().ask(get("/lost")).text(), "other");
    let line = edge.access_to("/lost");
    assert!(line["attempts"].as_str().unwrap().contains(" hedge_slower "), "{line}");
    assert_eq!(edge.connect().ask(post("/post", "x")).text(), "late");
    assert!(other.seen().iter().all(|seen| seen.head.target() == "/lost"), "a POST is never repeated");
}

/// It answers the rest wrongly, and is left for that.
#[test]
fn how_long_a_get_waited_that_was_answered_elsewhere_is_told_with_the_failover() {
    let (backend, other) = (half_heard(), whole());
    let edge = pair_within(&backend, &other, "1s");
    let longest = || {
        let (_, body) = edge.admin("GET", "/history", "");
        let history: Value = serde_json::from_str(&body).unwrap();
        let failovers = history["failovers"].as_array().unwrap().iter();
        failovers.filter_map(|failover| failover["slowest_micros"].as_u64()).max()
    };
    wait_for("a failover in which it waited for one and a half contracts", || {
        assert_eq!(edge.connect().ask(get("/lost")).text(), "other");
        let mut client = edge.connect();
        (0..20).for_each(|_| drop(client.ask(get("/wrong"))));
        longest().is_some_and(|micros| micros >= 1_500_000)
    });
}

#[test]
fn a_download_whose_rest_does_not_come_is_continued_elsewhere_and_held_against_its_backend() {
    let (backend, other) = (half_heard(), whole());
    let edge = pair(&backend, &other);
    let mut client = edge.connect();
    client.send(get("/film"));
    let head = client.head();
    assert_same(&client.body(&head), &noise(SIZE));
    let line = edge.access_to("/film");
    assert!(line["attempts"].as_str().unwrap().contains(" resumed ") && line["cut"] == "-", "{line}");
    wait_for("it is counted", || {
        edge.sample("relais_backend_errors_total", &[&backend.address()]) == 1.0
            && edge.sample("relais_downloads_resumed_total", &[]) == 1.0
    });
}

/// The contract is long, and so is the time between the first doubt and the verdict.
#[test]
fn what_waits_at_a_suspect_backend_is_asked_for_elsewhere_before_the_verdict() {
    let (backend, other) = (half_heard(), whole());
    let edge = Setup::services(&format!(
        "[sites]\ndijon = 1\nthory = 2\n[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\nfailover_within = \"30s\"\n\
         [service.web.backends]\ndijon = [\"{}\"]\nthory = [\"{}\"]\n",
        backend.address(),
        other.address()
    ))
    .start();
    edge.wait_for_health(&backend, "up");
    edge.wait_for_health(&other, "up");
    let (mut lost, mut film) = (edge.connect(), edge.connect());
    lost.send(get("/lost"));
    film.send(get("/film"));
    let head = film.head();
    let begun = film.bytes(SIZE / 2);
    std::thread::scope(|scope| {
        scope.spawn(|| edge.cli(&["drill", "site", "dijon", "--for", "1m"]));
        // Who waits there has the fleet ask whether anybody lives.
        wait_for("the drill has begun", || edge.connect().ask(get("/")).text() == "other");
        assert_eq!((lost.answer().text().as_str(), head.status()), ("other", 200));
        let rest = film.bytes(SIZE / 2);
        // The log is written behind what it tells of.
        wait_for("the doubt is logged", || edge.log().contains("\"backend suspect\""));
        assert!(!edge.log().contains("\"backend down\""), "{}", edge.log());
        assert_same(&[begun, rest].concat(), &noise(SIZE));
        let line = edge.access_to("/lost");
        assert!(line["attempts"].as_str().unwrap().contains(" hedge_slower "), "{line}");
        assert_eq!(edge.sample("relais_downloads_resumed_total", &[]), 1.0);
        assert_eq!(edge.sample("relais_backend_errors_total", &[&backend.address()]), 0.0, "doubt is no fault");
        // Else the drill would be waited for.
        edge.signal("KILL");
    });
}

/// The contract is far longer than anybody here waits for anything.
fn far(backend: &Serving, other: &Plain, contract: &str) -> Edge {
    let edge = Setup::services(&format!(
        "[sites]\ndijon = 1\nthory = 2\n[service.web]\nhosts = [\"*\"]\nfailover_within = \"{contract}\"\n\
         health = {{ path = \"/health\", interval = \"5s\" }}\n\
         [service.web.backends]\ndijon = [\"{}\"]\nthory = [\"{}\"]\n",
        backend.address(),
        other.address()
    ))
    .start();
    edge.wait_for_health(backend, "up");
    edge.wait_for_health(other, "up");
    edge
}

#[test]
fn downloads_that_stand_still_with_all_else_there_are_continued_elsewhere_before_any_doubt() {
    let (backend, other) = (half_heard(), whole());
    let edge = far(&backend, &other, "60s");
    let (mut lost, mut films) = (edge.connect(), [edge.connect(), edge.connect()]);
    // One after the other: the first is silent for longer.
    let begun = films.each_mut().map(|film| {
        film.send(get("/film"));
        assert_eq!(film.head().status(), 200);
        film.bytes(SIZE / 2)
    });
    lost.send(get("/lost"));
    for (film, begun) in films.iter_mut().zip(begun) {
        let rest = film.bytes(SIZE / 2);
        assert_same(&[begun, rest].concat(), &noise(SIZE));
    }
    let line = edge.access_to("/film");
    assert!(line["attempts"].as_str().unwrap().contains(" resumed ") && line["cut"] == "-", "{line}");
    assert!(!edge.log().contains("\"backend suspect\""), "{}", edge.log());
    assert_eq!(edge.sample("relais_backend_errors_total", &[&backend.address()]), 0.0, "a moment is no fault");
}

/// Sends half a film, and the rest once `may`, who is told how many checks have come since; has the answers of [`half_heard`]
/// else.
fn pausing(may: impl Fn(usize) -> bool + Send + Sync + 'static) -> Serving {
    let (checks, film) = (AtomicUsize::new(0), noise(SIZE));
    Raw::new().serve(move |mut conn: Conn| {
        while let Some(head) = conn.try_head() {
            match head.target() {
                "/health" => {
                    checks.fetch_add(1, Relaxed);
                    let _ = conn.try_send(ok("well"));
                }
                "/film" => {
                    conn.send(format!("HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nContent-Length: {SIZE}\r\n\r\n"));
                    conn.send(&film[..SIZE / 2]);
                    let before = checks.load(Relaxed);
                    wait_for("the film may go on", || may(checks.load(Relaxed) - before));
                    conn.send(&film[SIZE / 2..]);
                }
                "/lost" => hold(&mut conn),
                _ => drop(conn.try_send(ok("here"))),
            }
        }
    })
}

/// Many pause for a moment: alone that is no reason to leave, but one to ask whether anybody lives.
#[test]
fn a_download_that_stands_still_alone_has_its_backend_checked_and_stays() {
    keeping_up(Duration::from_secs(1), || {
        let (backend, other) = (pausing(|checks| checks >= 1), whole());
        let edge = far(&backend, &other, "10s");
        let before = Instant::now();
        for _ in 0..5 {
            assert_same(&edge.connect().ask(get("/film")).body, &noise(SIZE));
        }
        // In turn a check would come every 5 s.
        assert!(before.elapsed() < Duration::from_secs(15), "not out of turn");
        stayed(&edge, &other);
    });
}

#[test]
fn a_download_that_stands_still_beside_others_that_move_stays() {
    keeping_up(Duration::from_millis(50), || {
        let goes_on = Arc::new(AtomicBool::new(false));
        let may = Arc::clone(&goes_on);
        let (backend, other) = (pausing(move |_| may.load(Relaxed)), whole());
        let edge = far(&backend, &other, "10s");
        let (mut lost, mut film) = (edge.connect(), edge.connect());
        lost.send(get("/lost"));
        film.send(get("/film"));
        film.head();
        let begun = film.bytes(SIZE / 2);
        let (mut small, until) = (edge.connect(), Instant::now() + Duration::from_secs(1));
        while Instant::now() < until {
            assert_eq!(small.ask(get("/")).text(), "here");
        }
        goes_on.store(true, Relaxed);
        let rest = film.bytes(SIZE / 2);
        assert_same(&[begun, rest].concat(), &noise(SIZE));
        stayed(&edge, &other);
    });
}

#[track_caller]
fn stayed(edge: &Edge, other: &Plain) {
    assert_eq!(edge.sample("relais_downloads_resumed_total", &[]), 0.0);
    assert!(other.seen().iter().all(|seen| seen.head.target() == "/health"), "nobody else was asked");
}

//! Connects that came too late: another backend was faster, and nobody has anything to ask on the connection.

use std::net::TcpStream;

use crate::support::edge::{Edge, Setup};
use crate::support::raw::{Addressed, Plain, Raw};
use crate::support::until;
use crate::support::wire::{get, ok, post};

/// An edge of one worker whose first connect to `late` was overtaken and is still under way; `late` alone is asked
/// from now on.
fn overtaken(late: &Raw, contract: &str) -> (Edge, Plain) {
    let quick = Plain::saying("quick");
    let edge = Setup::to(&[late, &quick])
        .with(&format!("failover_within = \"{contract}\""))
        .and("[edge]\nworkers = 1")
        .start();
    until("a connect is overtaken", || {
        assert_eq!(edge.connect().ask(get("/")).text(), "quick");
        (edge.sample("relais_retries_total", &["stagger"]) > 0.0).then_some(())
    });
    edge.order("draining", &format!("web/{}", quick.address()));
    (edge, quick)
}

/// What the log says that one attempt took, in milliseconds.
fn millis(attempt: &str) -> f64 {
    attempt.rsplit(' ').next().unwrap().trim_end_matches("ms").parse().unwrap()
}

#[test]
fn an_abandoned_connect_is_in_the_log_with_its_time() {
    let (late, _first) = Raw::full();
    let quick = Plain::saying("quick");
    let edge = Setup::to(&[&late, &quick]).with("failover_within = \"20s\"").start();
    let mut numbers = 0..;
    until("a request waited for a connect that was overtaken", || {
        let path = format!("/{}", numbers.next().unwrap());
        assert_eq!(edge.connect().ask(get(&path)).text(), "quick");
        let line = edge.access_to(&path);
        let attempts: Vec<&str> = line["attempts"].as_str().unwrap().split(", ").collect();
        let (answered, overtaken) = attempts.split_last().unwrap();
        assert!(answered.contains(&quick.address()) && answered.contains(" answered "), "{line}");
        let &[abandoned] = overtaken else { return None };
        assert!(abandoned.contains(&late.address()) && abandoned.contains(" connect_abandoned "), "{line}");
        // Where the quick one was asked first, and this machine stood still, it is not what the request waited for.
        (millis(abandoned) * 2.0 > line["head_ms"].as_f64().unwrap()).then_some(())
    });
}

/// The kernel asks for a full one again a second later.
#[test]
fn the_time_of_a_connect_is_a_part_of_its_attempt() {
    let (late, first) = Raw::full();
    let edge = Setup::to(&[&late]).with("failover_within = \"20s\"").start();
    let mut client = edge.connect();
    client.send(get("/late"));
    // However soon its connect came: as long as this it waits.
    std::thread::sleep(std::time::Duration::from_millis(200));
    make_room(&late, first);
    let (mut conn, _) = late.request();
    conn.send(ok("late"));
    assert_eq!(client.answer().text(), "late");
    let line = edge.access_to("/late");
    let attempt = line["attempts"].as_str().unwrap();
    assert!(attempt.contains(" answered ") && !attempt.contains(", "), "{line}");
    assert!(millis(attempt) * 2.0 > line["head_ms"].as_f64().unwrap(), "{line}");
}

/// Lets the connect under way through: the one that filled the queue leaves it.
fn make_room(late: &Raw, first: TcpStream) {
    drop(late.accept());
    drop(first);
}

#[test]
fn a_connect_that_came_too_late_serves_the_next_request() {
    let (late, first) = Raw::full();
    let (edge, _quick) = overtaken(&late, "20s");
    make_room(&late, first);
    let mut spare = late.accept();
    let mut client = edge.connect();
    client.send(get("/next"));
    assert_eq!(spare.head().target(), "/next");
    spare.send(ok("late"));
    assert_eq!(client.answer().text(), "late");
    assert!(late.try_accept().is_none(), "no other connection was opened");
}

#[test]
fn a_connection_nobody_asks_on_is_not_kept() {
    let (late, first) = Raw::full();
    let (_edge, _quick) = overtaken(&late, "4s");
    make_room(&late, first);
    late.accept().ends();
}

/// Many small servers take the next connection when the last one has ended, and wait for a request on it.
#[test]
fn a_backend_that_serves_one_connection_at_a_time_is_not_held_up_by_an_unused_one() {
    let (late, first) = Raw::full();
    let (edge, _quick) = overtaken(&late, "4s");
    make_room(&late, first);
    let mut unused = late.accept();
    let mut client = edge.connect();
    // A POST does not go out on a kept connection.
    client.send(post("/", "x"));
    unused.ends();
    let (mut conn, head) = late.request();
    assert_eq!(head.method(), "POST");
    conn.body(&head);
    conn.send(ok("done"));
    assert_eq!(client.answer().text(), "done");
}

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

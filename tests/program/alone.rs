//! A service that loses its only backend: who asked what may be repeated waits a moment for a return, and nobody is asked
//! twice for what may not.

use crate::support::edge::{Edge, Setup};
use crate::support::process::Process;
use crate::support::raw::Addressed;
use crate::support::wait_for;
use crate::support::wire::{Conn, get, post};

/// One backend, and no more; requests wait so long for it.
fn alone(backend: &Process, queue_timeout: &str) -> Edge {
    let edge = Setup::services(&format!(
        "[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\nqueue_timeout = \"{queue_timeout}\"\nbackends = [\"{}\"]\n",
        backend.address()
    ))
    .start();
    edge.wait_for_health(backend, "up");
    edge
}

/// Requests under way, each on a connection of its own on both sides: as long as nothing was answered none is kept.
fn under_way(edge: &Edge, backend: &Process, path: &str) -> (Vec<Conn>, Conn) {
    let gets: Vec<Conn> = (0..8)
        .map(|n| {
            let mut client = edge.connect();
            client.send(get(&format!("{path}/{n}")));
            client
        })
        .collect();
    let mut pays = edge.connect();
    pays.send(post(&format!("{path}/pay"), "x"));
    wait_for("all of them are under way", || backend.executed().len() == 9);
    (gets, pays)
}

#[test]
fn a_killed_backend_that_is_soon_back_fails_nobody_who_may_ask_again() {
    let mut backend = Process::start();
    let edge = alone(&backend, "30s");
    let (mut clients, mut pays) = under_way(&edge, &backend, "/slow/3000");
    backend.kill();
    // These come before anybody knows.
    clients.extend((0..8).map(|n| {
        let mut client = edge.connect();
        client.send(get(&format!("/late/{n}")));
        client
    }));
    let answer = pays.answer();
    assert_eq!(answer.status(), 502, "it may have been received: {}", answer.head.raw);
    backend.again();
    for (n, client) in clients.iter_mut().enumerate() {
        let answer = client.answer();
        assert_eq!(answer.status(), 200, "{n}: {}", answer.head.raw);
    }
    assert_eq!(backend.executed().iter().filter(|line| line.contains("/pay")).count(), 1);
}

#[test]
fn a_killed_backend_that_does_not_return_is_waited_for_and_no_longer_than_that() {
    let mut backend = Process::start();
    let edge = alone(&backend, "300ms");
    let (mut gets, mut pays) = under_way(&edge, &backend, "/slow/60000");
    backend.kill();
    assert_eq!(pays.answer().status(), 502);
    for client in &mut gets {
        let answer = client.answer();
        assert!([502, 503].contains(&answer.status()), "{}", answer.head.raw);
    }
    edge.wait_for_health(&backend, "down");
    let answer = edge.connect().ask(get("/"));
    assert_eq!(answer.status(), 503, "{}", answer.head.raw);
    assert!(answer.get("retry-after").is_some(), "{}", answer.head.raw);
}

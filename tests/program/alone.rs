//! A service that loses its only backend, or all: who asked what may be repeated waits a moment for a return, and nobody is
//! asked twice for what may not.

use crate::support::edge::{Edge, Setup};
use crate::support::process::Process;
use crate::support::raw::Addressed;
use crate::support::wait_for;
use crate::support::wire::{Conn, get, post};

/// A service whose only backend is killed while requests are under way, each on a connection of its own on both
/// sides (as long as nothing was answered none is kept): eight that may be repeated, and one that may not.
struct Killed {
    backend: Process,
    edge: Edge,
    gets: Vec<Conn>,
    pays: Conn,
}

/// Requests wait so long for its return. They ask for `path` and something behind it.
fn killed(queue_timeout: &str, path: &str) -> Killed {
    let mut backend = Process::start();
    let edge = Setup::services(&format!(
        "[service.web]\nhosts = [\"*\"]\nhealth = \"/health\"\nqueue_timeout = \"{queue_timeout}\"\nbackends = [\"{}\"]\n",
        backend.address()
    ))
    .start();
    edge.wait_for_health(&backend, "up");
    let send = |request| {
        let mut client = edge.connect();
        client.send(request);
        client
    };
    let gets: Vec<Conn> = (0..8).map(|n| send(get(&format!("{path}/{n}")))).collect();
    let pays = send(post(&format!("{path}/pay"), "x"));
    wait_for("all of them are under way", || backend.executed().len() == 9);
    backend.kill();
    Killed { backend, edge, gets, pays }
}

#[test]
fn a_killed_backend_that_is_soon_back_fails_nobody_who_may_ask_again() {
    let Killed { mut backend, edge, gets: mut clients, mut pays } = killed("30s", "/slow/8000");
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
    let Killed { backend, edge, mut gets, mut pays } = killed("300ms", "/slow/60000");
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

/// Their kernels take connections, which is all that is checked, and nobody answers.
#[test]
fn who_asks_where_all_stand_still_is_told_soon_and_who_waited_is_answered_when_they_go_on() {
    for number in [1, 2] {
        let backends: Vec<Process> = (0..number).map(|_| Process::start()).collect();
        let list: Vec<String> = backends.iter().map(|backend| format!("{:?}", backend.address())).collect();
        let edge =
            Setup::services(&format!("[service.web]\nhosts = [\"*\"]\nbackends = [{}]\n", list.join(", "))).start();
        backends.iter().for_each(|backend| edge.wait_for_health(backend, "up"));
        let mut client = edge.connect();
        for n in 0..150 * number {
            assert_eq!(client.ask(get(&format!("/before/{n}"))).status(), 200);
        }
        backends.iter().for_each(Process::stop);
        let mut patient: Vec<Conn> = (0..12)
            .map(|n| {
                let mut client = edge.connect();
                client.send(if n < 6 { get(&format!("/patient/{n}")) } else { post(&format!("/patient/{n}"), "x") });
                client
            })
            .collect();
        let still =
            |backend: &Process| edge.backend(backend)["why"].as_str().unwrap().contains("lets all requests wait");
        wait_for("status says so", || backends.iter().any(still));
        for _ in 0..3 {
            let answer = client.ask(get("/told"));
            assert_eq!(answer.status(), 503, "{}", answer.head.raw);
            assert!(answer.get("retry-after").is_some(), "{}", answer.head.raw);
            assert!(answer.text().contains("no backend answers"), "{}", answer.text());
        }
        backends.iter().for_each(Process::resume);
        for client in &mut patient {
            assert_eq!(client.answer().status(), 200);
        }
        assert_eq!(client.ask(get("/after")).status(), 200);
        wait_for("status says no more of it", || !backends.iter().any(still));
        let executed: Vec<String> = backends.iter().flat_map(Process::executed).collect();
        let paid = executed.iter().filter(|line| line.starts_with("POST")).count();
        assert_eq!(paid, 6, "each once");
    }
}

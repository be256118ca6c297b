//! Who is asked: by weight, by what is in flight, by a part of the request, by tier.

use std::collections::HashMap;

use crate::support::edge::{Edge, Setup};
use crate::support::raw::{Addressed, Plain, Raw, Serving};
use crate::support::wait_for;
use crate::support::wire::{get, ok};

/// Counts of the texts that came back.
fn ask(edge: &Edge, times: usize, request: impl Fn(usize) -> String) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    let mut client = edge.connect();
    for n in 0..times {
        *counts.entry(client.ask(request(n)).text()).or_default() += 1;
    }
    counts
}

#[test]
fn round_robin_goes_by_weight_exactly() {
    let (one, two) = (Plain::saying("one"), Plain::saying("two"));
    let edge = Setup::services(&format!(
        "[service.web]\nhosts = [\"*\"]\nhealth = \"off\"\nbalance = \"round-robin\"\n\
         backends = [{{ addr = \"{}\", weight = 2 }}, \"{}\"]\n",
        one.address(),
        two.address()
    ))
    .start();
    let counts = ask(&edge, 30, |_| get("/"));
    assert_eq!((counts["one"], counts["two"]), (20, 10));
}

#[test]
fn a_part_of_the_request_decides_when_told() {
    let backends: Vec<Plain> = ["a", "b", "c", "d"].map(Plain::saying).into();
    let list: Vec<&dyn Addressed> = backends.iter().map(|backend| backend as &dyn Addressed).collect();
    for (rule, by) in [("header:X-User", "X-User: "), ("cookie:user", "Cookie: x=y; user=")] {
        let edge = Setup::to(&list).with(&format!("balance = {{ hash = \"{rule}\" }}")).start();
        let mut places = HashMap::new();
        for user in 0..40 {
            let counts = ask(&edge, 3, |_| format!("GET / HTTP/1.1\r\nHost: a.test\r\n{by}{user}\r\n\r\n"));
            assert_eq!(counts.len(), 1, "user {user} stays at one: {counts:?}");
            *places.entry(counts.into_keys().next().unwrap()).or_insert(0) += 1;
        }
        assert_eq!(places.len(), 4, "users are spread: {places:?}");
    }
    let edge = Setup::to(&list).with("balance = { hash = \"uri\" }").start();
    assert_eq!(ask(&edge, 5, |_| get("/same?x=1")).len(), 1);
    assert!(ask(&edge, 40, |n| get(&format!("/{n}"))).len() > 1);
    let edge = Setup::to(&list).with("balance = { hash = \"client-address\" }").start();
    assert_eq!(ask(&edge, 10, |n| get(&format!("/{n}"))).len(), 1);
}

#[test]
fn who_is_busy_is_asked_less() {
    let (busy, free) = (Raw::new(), Plain::saying("free"));
    let edge = Setup::to(&[&busy, &free]).start();
    // Every request the busy one gets stays there: least in flight of two avoids it from then on.
    let mut waiting = Vec::new();
    for n in 0..60 {
        let before = free.count();
        let mut client = edge.connect();
        client.send(get(&format!("/{n}")));
        let mine = crate::support::until("somebody is asked", || match busy.try_request() {
            Some((conn, _)) => Some(Some(conn)),
            None => (free.count() > before).then_some(None),
        });
        match mine {
            Some(conn) => waiting.push((client, conn)),
            None => assert_eq!(client.answer().text(), "free"),
        }
    }
    assert!(waiting.len() <= 2, "{} requests at the busy one", waiting.len());
    for (mut client, mut conn) in waiting {
        conn.send(ok("busy"));
        assert_eq!(client.answer().text(), "busy");
    }
}

#[test]
fn the_lower_tier_serves_while_it_can() {
    let (first, second) = (Plain::saying("first"), Plain::saying("second"));
    let edge = Setup::services(&format!(
        "[sites]\ndijon = 1\nthory = 2\n[service.web]\nhosts = [\"*\"]\nhealth = \"off\"\npassive_fall = 0\n\
         [service.web.backends]\ndijon = \"{}\"\nthory = \"{}\"\n",
        first.address(),
        second.address()
    ))
    .start();
    assert_eq!(ask(&edge, 20, |_| get("/")), HashMap::from([("first".to_owned(), 20)]));
    edge.order("draining", "dijon");
    assert_eq!(ask(&edge, 20, |_| get("/")), HashMap::from([("second".to_owned(), 20)]));
}

/// Requests sent to both, all at once: how many reach each while none is answered.
fn at_once(edge: &Edge, backends: [&Raw; 2], request: &str, all: usize, there: usize) -> [usize; 2] {
    let mut clients: Vec<_> = (0..all).map(|_| edge.connect()).collect();
    for client in &mut clients {
        client.send(request);
    }
    wait_for("all of them are in", || edge.sample("relais_requests_inflight", &[]) >= all as f64);
    let mut taken = [Vec::new(), Vec::new()];
    wait_for("as many as may are at the backends", || {
        for (backend, taken) in backends.iter().zip(&mut taken) {
            taken.extend(std::iter::from_fn(|| backend.try_request()));
        }
        taken.iter().map(Vec::len).sum::<usize>() >= there
    });
    taken.map(|taken| taken.len())
}

#[test]
fn a_burst_is_spread_like_what_comes_one_after_another() {
    let ask = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
               Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for request in [ask, &get("/")] {
        let (one, two) = (Raw::new(), Raw::new());
        let edge = Setup::to(&[&one, &two]).and("[edge]\nworkers = 2").start();
        let got = at_once(&edge, [&one, &two], request, 60, 60);
        // Workers may choose in the same moment.
        assert!(got.iter().all(|got| (28..=32).contains(got)), "{got:?}");
    }
}

#[test]
fn a_burst_does_not_fill_a_backend_beyond_its_cap() {
    let (one, two) = (Raw::new(), Raw::new());
    let edge =
        Setup::to(&[&one, &two]).with("max_inflight = 10\nqueue_timeout = \"60s\"").and("[edge]\nworkers = 2").start();
    let got = at_once(&edge, [&one, &two], &get("/"), 60, 20);
    assert!(got.iter().all(|got| (10..=11).contains(got)), "{got:?}");
}

/// Answers at once, but for `/slow`, of which nothing comes.
fn mostly_quick() -> Serving {
    Raw::new().serve(|mut conn| {
        conn.wait_for_ever();
        while let Some(head) = conn.try_head() {
            if head.target() != "/slow" {
                let _ = conn.try_send(ok("quick"));
            }
        }
    })
}

/// The second question has to connect first: from then on it has the only place there.
#[test]
fn who_is_asked_beside_counts_what_connects_there() {
    let (first, (second, waits)) = (mostly_quick(), Raw::full());
    let edge = Setup::services(&format!(
        "[sites]\ndijon = 1\nthory = 2\n[service.web]\nhosts = [\"*\"]\nhealth = \"off\"\npassive_fall = 0\n\
         failover_within = \"30s\"\nretry.hedge = true\nmax_inflight = 1\nqueue_timeout = \"60s\"\n\
         [service.web.backends]\ndijon = \"{}\"\nthory = \"{}\"\n",
        first.address(),
        second.address()
    ))
    .start();
    // Now it is known how long an answer takes.
    assert_eq!(ask(&edge, 100, |_| get("/")), HashMap::from([("quick".to_owned(), 100)]));
    wait_for("the first is free", || edge.backend(&first)["inflight"] == 0);
    let (mut slow, mut other) = (edge.connect(), edge.connect());
    slow.send(get("/slow"));
    let there = || edge.backend(&second)["inflight"].clone();
    wait_for("somebody connects to the second", || there() == 1);
    other.send(get("/other"));
    wait_for("both are in", || edge.sample("relais_requests_inflight", &[]) >= 2.0);
    drop((second.accept(), waits));
    let (mut conn, head) = second.request();
    assert_eq!((head.target(), there()), ("/slow", 1.into()), "the other one waits for a place");
    conn.send(ok("beside"));
    assert_eq!((slow.answer().text(), other.answer().text()), ("beside".to_owned(), "quick".to_owned()));
}

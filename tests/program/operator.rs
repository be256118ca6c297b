//! The operator's words: drain, disable, enable, log level, stop. Each takes effect before its answer.

use crate::load::{Connections, Load};
use crate::support::edge::{Edge, Setup, request_id};
use crate::support::h2::Client;
use crate::support::raw::{Addressed, Plain, Raw};
use crate::support::wait_for;
use crate::support::wire::{get, ok};

fn two(one: &dyn Addressed, other: &dyn Addressed) -> Edge {
    Setup::services(&format!(
        "[sites]\ndijon = 1\nthory = 1\n[service.web]\nhosts = [\"*\"]\nhealth = \"off\"\npassive_fall = 0\n\
         [service.web.backends]\ndijon = [\"{}\"]\nthory = [\"{}\"]\n",
        one.address(),
        other.address()
    ))
    .start()
}

#[test]
fn a_drained_site_finishes_what_it_has_and_gets_nothing_new() {
    let (slow, other) = (Raw::new(), Plain::saying("other"));
    let edge = two(&slow, &other);
    // Ask until one request is at the site to be drained.
    let (mut client, mut upstream) = loop {
        let seen = other.count();
        let mut client = edge.connect();
        client.send(get("/slow"));
        let upstream = crate::support::until("one of the two was asked", || match slow.try_request() {
            Some((conn, _)) => Some(Some(conn)),
            None => (other.count() > seen).then_some(None),
        });
        match upstream {
            Some(upstream) => break (client, upstream),
            None => assert_eq!(client.answer().status(), 200),
        }
    };
    let reply = edge.order("draining", "dijon");
    assert_eq!(reply["inflight"], 1, "{reply}");
    // From the answer on, nothing new.
    for _ in 0..50 {
        assert_eq!(edge.connect().ask(get("/")).text(), "other");
    }
    assert!(slow.try_request().is_none());
    let waiting = {
        let (edge, done) = (&edge, std::sync::atomic::AtomicBool::new(false));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let said = edge.cli(&["drain", "dijon", "--wait"]);
                done.store(true, std::sync::atomic::Ordering::Relaxed);
                said
            });
            edge.line("the order of the CLI is heard", |line| {
                line["order"] == "draining" && line["about"] == "dijon" && line["pid"] != std::process::id()
            });
            assert!(!done.load(std::sync::atomic::Ordering::Relaxed), "it waits for the one in flight");
            upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 17\r\n\r\nfinished in peace");
            assert_eq!(client.answer().text(), "finished in peace");
            waiting.join().unwrap()
        })
    };
    assert_eq!(waiting.0, Some(0), "{}{}", waiting.1, waiting.2);
    assert!(waiting.1.contains("nothing in flight"), "{}", waiting.1);
    assert_eq!(edge.backend(&slow)["inflight"], 0);
    // And back.
    edge.order("enabled", "dijon");
    let mut asking = Vec::new();
    wait_for("the site is asked again", || {
        let mut client = edge.connect();
        client.send(get("/"));
        asking.push(client);
        slow.try_request().is_some()
    });
}

#[test]
fn a_backend_can_be_drained_by_its_name_and_a_wrong_name_is_helped() {
    let (one, other) = (Plain::saying("one"), Plain::saying("other"));
    let edge = two(&one, &other);
    edge.order("disabled", &format!("web/{}", one.address()));
    let before = one.count();
    for _ in 0..20 {
        assert_eq!(edge.connect().ask(get("/")).text(), "other");
    }
    assert_eq!(one.count(), before);
    let (code, answer) = edge.admin("POST", "/admin", r#"{"target": "dijn", "word": "draining"}"#);
    assert_eq!(code, 404, "{answer}");
    assert!(answer.contains("dijon"), "{answer}");
    let (code, answer) = edge.admin("POST", "/admin", r#"{"target": "dijon", "word": "asleep"}"#);
    assert_eq!(code, 400, "{answer}");
}

#[test]
fn everything_drained_is_503_at_once() {
    let (one, other) = (Plain::saying("one"), Plain::saying("other"));
    let edge = two(&one, &other);
    edge.order("draining", "dijon");
    edge.order("draining", "thory");
    let answer = edge.connect().ask(get("/"));
    assert_eq!(answer.status(), 503);
    assert!(answer.head.has("retry-after"));
    // Nothing is broken: whose doing it is stands in the answer and in the log.
    let why = "the operator drains every backend";
    assert!(answer.text().contains(why) && answer.get("proxy-status").unwrap().contains(why), "{}", answer.text());
    assert_eq!(edge.access(&request_id(&answer.head))["not_replayed"], why);
    edge.order("disabled", "thory");
    assert!(edge.connect().ask(get("/")).text().contains("the operator drains or has disabled every backend"));
}

#[test]
fn draining_and_enabling_under_load_fails_nobody() {
    let (one, other) = (Plain::saying("x"), Plain::saying("x"));
    let edge = two(&one, &other);
    let load = Load::start(edge.http(), 4, Connections::Kept, |path| crate::support::wire::post(path, "x"));
    for _ in 0..10 {
        for site in ["dijon", "thory"] {
            edge.order("draining", site);
            load.go_on_for(30);
            edge.order("enabled", site);
        }
    }
    let tally = load.stop();
    assert!(tally.bad.is_empty(), "{:?}", tally.bad);
}

#[test]
fn the_admin_socket_is_http_for_everybody_allowed() {
    use std::os::unix::fs::PermissionsExt;
    let (one, other) = (Plain::saying("one"), Plain::saying("other"));
    let edge = two(&one, &other);
    let socket = edge.dir().join("admin.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    if !crate::support::tools::have("curl", "curl") {
        return;
    }
    let mut curl = crate::support::tools::curl(&["--unix-socket", socket.to_str().unwrap(), "http://relais/status"]);
    let ran = crate::support::tools::run(&mut curl);
    let status: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(status["process"]["pid"], edge.pid());
}

#[test]
fn sigterm_lets_what_is_in_flight_finish() {
    let backend = Raw::new();
    let mut edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(get("/h1"));
    let (mut first, _) = backend.request();
    let http2 = Client::plain(edge.http());
    let mut call = http2.get("/h2");
    let (mut second, _) = backend.request();
    let mut idle = edge.connect();
    idle.send(get("/idle"));
    let (mut third, _) = backend.request();
    third.send(ok("x"));
    assert_eq!(idle.answer().status(), 200);
    let address = edge.http();
    edge.signal("TERM");
    // Idle connections end, new ones are refused, what runs goes on.
    idle.ends();
    wait_for("nothing new is accepted", || std::net::TcpStream::connect(address).is_err());
    assert!(edge.is_running());
    first.send(ok("one"));
    let answer = client.answer();
    assert_eq!(answer.text(), "one");
    assert_eq!(answer.get("connection").map(str::to_ascii_lowercase).as_deref(), Some("close"));
    assert!(edge.is_running());
    second.send(ok("two"));
    assert_eq!(call.finish().unwrap().0, b"two");
    assert_eq!(edge.ended().code(), Some(0));
}

#[test]
fn a_stop_does_not_wait_longer_than_told() {
    let backend = Raw::new();
    let mut edge = Setup::to(&[&backend]).and("[edge]\ndrain = \"500ms\"").start();
    let mut client = edge.connect();
    client.send(get("/never"));
    let (_upstream, _) = backend.request();
    edge.signal("TERM");
    assert_eq!(edge.ended().code(), Some(0));
    assert!(client.try_head().is_none());
}

#[test]
fn a_second_signal_cuts() {
    let backend = Raw::new();
    let mut edge = Setup::to(&[&backend]).and("[edge]\ndrain = \"1h\"").start();
    let mut client = edge.connect();
    client.send(get("/never"));
    let (_upstream, _) = backend.request();
    edge.signal("TERM");
    edge.line("the first signal is heard", |line| line["message"].to_string().contains("stopping"));
    // One that follows at once is taken for an echo of the first.
    wait_for("another signal ends it", || {
        edge.signal("INT");
        !edge.is_running()
    });
}

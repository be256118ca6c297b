//! What clients are told when it cannot be done: the right status, and why.

use crate::support::edge::Setup;
use crate::support::raw::{Plain, Raw};
use crate::support::wire::{Answer, get, ok, post};
use crate::support::{certs, free_address};

#[track_caller]
fn says(answer: &Answer, status: u16, reason: &str) {
    assert_eq!(answer.status(), status, "{}", answer.head.raw);
    let proxy_status = answer.get("proxy-status").unwrap_or_else(|| panic!("no Proxy-Status: {}", answer.head.raw));
    assert!(proxy_status.starts_with("relais; error="), "{proxy_status}");
    assert!(proxy_status.contains(&format!("error={reason};")), "{proxy_status}");
    assert!(answer.text().starts_with(&status.to_string()), "{}", answer.text());
}

#[test]
fn refused_everywhere_is_502_with_the_reason() {
    let edge = Setup::to(&[&free_address(), &free_address()]).start();
    says(&edge.connect().ask(get("/")), 502, "connection_refused");
    let line = edge.access_to("/");
    let attempts: Vec<&str> = line["attempts"].as_str().unwrap().split(", ").collect();
    assert!(attempts.iter().all(|one| one.contains(" refused ")), "{line}");
    // Both are tried again while it waits, with a pause in between, not in a loop.
    assert!(
        (2..=32).contains(&attempts.len()) && attempts[0].split(' ').next() != attempts[1].split(' ').next(),
        "{line}"
    );
}

#[test]
fn nobody_left_is_503_with_a_time_to_come_back() {
    let dead = free_address();
    let services = format!("[service.web]\nhosts = [\"*\"]\nbackends = [\"{dead}\"]\nqueue_timeout = \"100ms\"\n");
    let edge = Setup::services(&services).start();
    edge.wait_for_health(&dead, "down");
    let answer = edge.connect().ask(get("/"));
    says(&answer, 503, "destination_unavailable");
    let after: u64 = answer.get("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&after));
    assert_eq!(edge.cli(&["status"]).0, Some(5), "and relais status says so");
}

#[test]
fn a_backend_that_stays_full_is_503_and_not_taken_for_a_dead_one() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).with("max_inflight = 1\nqueue_timeout = \"100ms\"").start();
    let mut first = edge.connect();
    first.send(get("/1"));
    let (mut upstream, _) = backend.request();
    let answer = edge.connect().ask(get("/2"));
    says(&answer, 503, "destination_unavailable");
    assert!(answer.get("retry-after").is_some());
    assert!(answer.text().contains("every backend has as many requests as it may have"), "{}", answer.text());
    upstream.send(crate::support::wire::ok("one"));
    assert_eq!(first.answer().text(), "one");
}

/// Once more it is asked, as it may just have died and be back, if the request may be repeated.
#[test]
fn a_backend_that_closes_before_it_answers_is_502() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    for by_reset in [false, true] {
        let mut client = edge.connect();
        for request in [get("/"), post("/", "x")] {
            let times = if request.starts_with("GET") { 2 } else { 1 };
            client.send(request);
            for _ in 0..times {
                let (upstream, _) = backend.request();
                if by_reset { upstream.reset() } else { drop(upstream) }
            }
            says(&client.answer(), 502, "connection_terminated");
        }
    }
}

#[test]
fn an_answer_that_is_not_http_is_502() {
    for nonsense in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",
    ] {
        let backend = Raw::new();
        let edge = Setup::to(&[&backend]).start();
        let mut client = edge.connect();
        client.send(get("/"));
        let (mut upstream, _) = backend.request();
        upstream.send(nonsense);
        says(&client.answer(), 502, "http_protocol_error");
    }
}

#[test]
fn an_unknown_host_or_path_is_404_in_plain_text() {
    let backend = Plain::saying("x");
    let services = format!(
        "[service.web]\nhosts = [\"a.test\"]\npaths = [\"/app\"]\nhealth = \"off\"\nbackends = [\"{}\"]\n",
        backend.serving.address
    );
    let edge = Setup::services(&services).start();
    let mut client = edge.connect();
    assert_eq!(client.ask(get("/app/x")).status(), 200);
    says(&client.ask(get("/other")), 404, "destination_not_found");
    says(&client.ask(get("/application")), 404, "destination_not_found");
    says(&client.ask("GET /app HTTP/1.1\r\nHost: b.test\r\n\r\n"), 404, "destination_not_found");
    assert_eq!(backend.count(), 1);
}

#[test]
fn a_host_this_certificate_is_not_for_is_421() {
    let backend = Plain::saying("x");
    let services = format!(
        "[service.web]\nhosts = [\"web.test\"]\nhealth = \"off\"\nbackends = [\"{}\"]\n",
        backend.serving.address
    );
    let edge = Setup::services(&services).secure().start();
    let mut client = certs::connect(edge.https(), "web.test", certs::roots_of(&edge.root()), &[]).unwrap();
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: WEB.test\r\n\r\n").status(), 200);
    says(&client.ask("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n"), 421, "http_request_denied");
    assert_eq!(backend.count(), 1);
}

#[test]
fn what_a_backend_says_itself_carries_no_reason_of_ours() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(get("/"));
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 500 Oh No\r\nContent-Length: 4\r\n\r\nmine");
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str()), (500, "mine"));
    assert!(!answer.head.has("proxy-status"), "{}", answer.head.raw);
}

#[test]
fn a_client_can_go_on_after_an_error() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(get("/1"));
    (0..2).for_each(|_| drop(backend.request()));
    assert_eq!(client.answer().status(), 502);
    client.send(get("/2"));
    let (mut upstream, _) = backend.request();
    upstream.send(ok("fine"));
    assert_eq!(client.answer().text(), "fine");
}

#[test]
fn a_refusal_in_the_middle_of_an_upload_reaches_the_client() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\n").send(vec![b'x'; 1000]);
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 413 Too Much\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str()), (413, "no"));
}

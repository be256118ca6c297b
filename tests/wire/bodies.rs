//! Request bodies between two backends, and bodies that fail to come: kept, sent again, and nobody's fault but the client's.

use crate::support::edge::Setup;
use crate::support::raw::{Addressed, Plain, Raw, Seen};
use crate::support::wire::{Conn, Head, get, ok};
use crate::support::{assert_same, noise, until, wait_for};

/// The request at whichever of the two it comes to, and the other one.
fn either<'a>(one: &'a Raw, other: &'a Raw) -> (Conn, Head, &'a Raw) {
    let (mut conn, left) = until("a request comes to one of them", || {
        let first = one.try_accept().map(|conn| (conn, other));
        first.or_else(|| other.try_accept().map(|conn| (conn, one)))
    });
    let head = conn.head();
    (conn, head, left)
}

fn chunked(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// Its beginning comes from disk, its end from the client, and both backends see it in order.
#[test]
fn a_body_that_is_still_on_its_way_goes_on_at_another_backend() {
    let (one, other) = (Raw::new(), Raw::new());
    let edge = Setup::to(&[&one, &other]).start();
    let body = noise(700_000);
    let (early, late) = body.split_at(500_000);
    let mut client = edge.connect();
    client.send("PUT /big HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in early.chunks(9_999) {
        client.send(chunked(piece));
    }
    let (mut first, _, left) = either(&one, &other);
    let mut seen = Vec::new();
    while seen.len() < early.len() {
        seen.extend_from_slice(&first.chunk().expect("more of the body"));
    }
    assert_same(&seen, early);
    drop(first);
    let (mut second, head) = left.request();
    for piece in late.chunks(9_999) {
        client.send(chunked(piece));
    }
    client.send("0\r\n\r\n");
    let (again, _) = second.try_body(&head).unwrap();
    assert_same(&again, &body);
    second.send(ok("stored"));
    assert_eq!(client.answer().text(), "stored");
}

#[test]
fn a_body_in_single_bytes_is_sent_again_whole() {
    let (one, other) = (Raw::new(), Raw::new());
    let edge = Setup::to(&[&one, &other]).start();
    let body = noise(150_000);
    let mut client = edge.connect();
    let pieces: Vec<u8> = body.iter().flat_map(|byte| chunked(&[*byte])).collect();
    let head = b"PUT /bytes HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let push = std::thread::spawn(move || {
        client.send([head.as_slice(), &pieces, b"0\r\n\r\n"].concat());
        client
    });
    let (mut first, head, left) = either(&one, &other);
    assert_same(&first.try_body(&head).unwrap().0, &body);
    drop(first);
    let (mut second, head) = left.request();
    assert_same(&second.try_body(&head).unwrap().0, &body);
    second.send(ok("stored"));
    assert_eq!(push.join().unwrap().answer().text(), "stored");
}

#[test]
fn a_get_with_a_body_of_unknown_length_keeps_it() {
    let backend = Plain::saying("x");
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    for method in ["GET", "DELETE", "OPTIONS"] {
        client.send(format!("{method} /search HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"));
        client.send(chunked(b"what?")).send("0\r\n\r\n");
        assert_eq!(client.answer().status(), 200, "{method}");
        let seen = backend.seen().pop().unwrap();
        assert_eq!((seen.head.method(), seen.body.as_slice()), (method, &b"what?"[..]));
        assert_eq!(seen.head.get("transfer-encoding"), Some("chunked"));
    }
    assert_eq!(client.ask(get("/next")).status(), 200, "what is behind it is a request of its own");
}

/// Although one failed request is enough to take a backend out.
#[test]
fn clients_that_fall_silent_do_not_accuse_the_backend() {
    let backend = Raw::new();
    let services = format!(
        "[service.web]\nhosts = [\"*\"]\nhealth = \"off\"\npassive_fall = 1\nbackends = [\"{}\"]\n",
        backend.address
    );
    let edge = Setup::services(&services).and("[edge]\ntimeout.body = \"300ms\"").start();
    for request in [
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhalf",
        "PUT / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n",
    ] {
        let mut client = edge.connect();
        client.send(request);
        let (mut upstream, head) = backend.request();
        assert_eq!(client.answer().status(), 408);
        assert!(upstream.try_body(&head).is_err(), "looks complete");
        // Silence after the beginning of an answer, too.
        let mut client = edge.connect();
        client.send(request);
        let (mut upstream, _) = backend.request();
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nearly");
        client.until("early");
        client.rest();
    }
    let told = edge.backend(&backend);
    assert_eq!((&told["failed"], &told["health"]), (&0.into(), &"up".into()), "{told}");
}

/// Whatever its head said, and also where the request went on elsewhere.
#[test]
fn an_answer_that_breaks_off_or_falls_silent_is_one_failed_attempt() {
    const BROKEN: &str = "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nno chunk\r\n";
    let answers = |request: &Seen| match request.head.target() {
        "/broken" => format!("HTTP/1.1 200 OK\r\n{BROKEN}").into_bytes(),
        "/broken500" => format!("HTTP/1.1 500 Oops\r\n{BROKEN}").into_bytes(),
        "/broken503" => format!("HTTP/1.1 503 Busy\r\n{BROKEN}").into_bytes(),
        "/silent" => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec(),
        _ => ok("right").into_bytes(),
    };
    let (first, other) = (Plain::new(answers), Plain::saying("right"));
    let edge = Setup::services(&format!(
        "[sites]\ndijon = 1\nthory = 2\n[service.alone]\nhosts = [\"a.test\"]\nhealth = \"off\"\npassive_fall = 0\n\
         timeout.idle = \"200ms\"\nbackends = {{ dijon = [\"{0}\"] }}\n[service.two]\nhosts = [\"two.test\"]\n\
         health = \"off\"\npassive_fall = 0\noutlier.max_ejected_percent = 0\nfailover_within = \"1s\"\n\
         backends = {{ dijon = [\"{0}\"], thory = [\"{1}\"] }}\n",
        first.address(),
        other.address()
    ))
    .start();
    for path in ["/right", "/broken", "/broken500", "/broken503", "/silent"] {
        let mut client = edge.connect();
        client.send(get(path));
        let head = client.head();
        drop(client.try_body(&head));
    }
    // Held back, and asked for elsewhere.
    let mut client = edge.connect();
    client.send(get("/silent").replace("a.test", "two.test"));
    assert_eq!(client.answer().text(), "right");
    let status = edge.status();
    let services = status["report"]["services"].as_array().unwrap();
    let told = services.iter().map(|service| &service["backends"][0]).map(|told| (&told["succeeded"], &told["failed"]));
    let expected = [(1, 4), (0, 1)].map(|(succeeded, failed)| (succeeded.into(), failed.into()));
    assert!(told.eq(expected.iter().map(|(succeeded, failed)| (succeeded, failed))), "{status}");
}

/// Although the head of each of its answers was right.
#[test]
fn a_backend_whose_answers_break_off_or_fall_silent_is_left() {
    let broken = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nno chunk\r\n".as_slice();
    let silent = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".as_slice();
    for answer in [broken, silent] {
        let bad = Plain::new(move |_| answer.to_vec());
        let (one, two) = (Plain::saying("x"), Plain::saying("x"));
        let backends = [&bad, &one, &two].map(Addressed::address);
        let edge = Setup::services(&format!(
            "[service.web]\nhosts = [\"*\"]\nhealth = \"off\"\nbalance = \"round-robin\"\ntimeout.idle = \"200ms\"\n\
             outlier.hold = \"5m\"\nbackends = {backends:?}\n"
        ))
        .start();
        wait_for("the bad one is ejected", || {
            for n in 0..20 {
                let mut client = edge.connect();
                client.send(get(&format!("/{n}")));
                let head = client.head();
                drop(client.try_body(&head));
            }
            edge.backend(&bad)["ejected"] == true
        });
        let told = edge.backend(&bad);
        assert!(told["why"].as_str().unwrap().contains("answers were errors"), "{told}");
    }
}

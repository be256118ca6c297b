//! Interim answers: `Expect: 100-continue` in its three ends, and 103 (Early Hints), for clients of both versions.

use std::time::Duration;

use crate::support::edge::Setup;
use crate::support::h2::{Backend, Call, Client, Served};
use crate::support::raw::Raw;
use crate::support::wire::{get, ok};
use crate::support::{assert_same, keeping_up, noise, wait_for};

/// Less than the second after which the edge asks for the body by itself.
const SOON: Duration = Duration::from_millis(500);

const EXPECTING: &str = "PUT /upload HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";

#[test]
fn the_body_is_asked_for_when_the_backend_wants_it() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(EXPECTING);
    let (mut upstream, head) = backend.request();
    assert_eq!(head.get("expect"), Some("100-continue"), "{}", head.raw);
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.head().status(), 100);
    client.send("body");
    assert_eq!(upstream.bytes(4), b"body");
    upstream.send(ok("stored"));
    assert_eq!(client.answer().text(), "stored");
}

#[test]
fn the_body_is_never_asked_for_when_the_backend_refuses_it() {
    keeping_up(SOON, || {
        for (line, status) in
            [("417 Expectation Failed", 417), ("413 Content Too Large", 413), ("401 Unauthorized", 401)]
        {
            let backend = Raw::new();
            let edge = Setup::to(&[&backend]).start();
            let mut client = edge.connect();
            client.send(EXPECTING);
            let (mut upstream, _) = backend.request();
            upstream.send(format!("HTTP/1.1 {line}\r\nContent-Length: 2\r\n\r\nno"));
            // The very first head is the final one: no 100 before it.
            let head = client.head();
            assert_eq!(head.status(), status);
            assert_eq!(client.body(&head), b"no");
            // Where the body would begin is not known any more, so the connection must not be used again.
            client.ends();
            upstream.ends();
        }
    });
}

#[test]
fn the_body_is_asked_for_after_a_while_when_the_backend_says_nothing() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(EXPECTING);
    let (mut upstream, _) = backend.request();
    assert_eq!(client.head().status(), 100);
    client.send("body");
    assert_eq!(upstream.bytes(4), b"body");
    upstream.send(ok("stored"));
    assert_eq!(client.answer().text(), "stored");
}

#[test]
fn a_client_that_does_not_wait_for_100_is_served_all_the_same() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(EXPECTING).send("body");
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(upstream.bytes(4), b"body");
    upstream.send(ok("stored"));
    assert_eq!(client.answer().text(), "stored");
    // And the connection can be used again.
    client.send(get("/next"));
    assert_eq!(upstream.head().target(), "/next");
}

#[test]
fn early_hints_reach_an_http1_client_before_the_answer() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(get("/"));
    let (mut upstream, _) = backend.request();
    for n in 1..=3 {
        // Also after a while in which nothing else woke the connection.
        std::thread::sleep(Duration::from_millis(150 * (n / 2)));
        upstream.send(format!("HTTP/1.1 103 Early Hints\r\nLink: </{n}.css>; rel=preload\r\n\r\n"));
        let hint = client.head();
        assert_eq!((hint.status(), hint.get("link")), (103, Some(format!("</{n}.css>; rel=preload").as_str())));
    }
    upstream.send(ok("page"));
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "page"));
}

#[test]
fn an_http10_client_never_sees_an_interim_answer() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n").send(ok("page"));
    let head = client.head();
    assert_eq!(head.status(), 200);
}

#[test]
fn early_hints_for_a_pipelined_request_come_behind_the_answer_before() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(format!("{}{}", get("/first"), get("/hinted")));
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </1.css>\r\n\r\n").send(ok("first"));
    assert_eq!(upstream.head().target(), "/hinted");
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </2.css>\r\n\r\n").send(ok("second"));
    for (hint, body) in [("</1.css>", "first"), ("</2.css>", "second")] {
        assert_eq!(client.head().get("link"), Some(hint));
        let head = client.head();
        assert_eq!((head.status(), client.body(&head)), (200, body.as_bytes().to_vec()));
    }
}

fn hint(link: &str) -> String {
    format!("HTTP/1.1 103 Early Hints\r\nLink: {link}\r\n\r\n")
}

#[test]
fn early_hints_reach_an_http2_client_before_the_answer() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let client = Client::plain(edge.http());
    let mut call = client.get("/");
    let (mut upstream, _) = backend.request();
    for n in 1..=3 {
        // Also after a while in which nothing else woke the connection.
        std::thread::sleep(Duration::from_millis(150 * (n / 2)));
        upstream.send(format!(
            "HTTP/1.1 103 Early Hints\r\nLink: </{n}.css>\r\nConnection: X-Own\r\nX-Own: 1\r\nKeep-Alive: 5\r\n\r\n"
        ));
        let interim = call.interim().expect("a hint");
        assert_eq!(interim.status(), 103);
        let fields: Vec<_> = interim.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(fields, [("link", format!("</{n}.css>").as_bytes())], "fields of one connection do not cross");
    }
    upstream.send(ok("page"));
    assert!(call.interim().is_none());
    let head = call.head();
    assert_eq!((head.status().as_u16(), head.headers().contains_key("link")), (200, false));
    assert_eq!(call.finish().unwrap().0, b"page");
    // And the connection, and that to the backend, serve on.
    let mut call = client.get("/next");
    upstream.head();
    upstream.send("HTTP/1.1 102 Processing\r\n\r\n").send(ok("next"));
    assert_eq!(call.interim().unwrap().status(), 102);
    assert_eq!(call.finish().unwrap().0, b"next");
}

#[test]
fn interim_answers_in_one_packet_with_the_final_one_all_come_before_it() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let client = Client::plain(edge.http());
    for _ in 0..20 {
        let mut call = client.get("/");
        let (mut upstream, _) = backend.request();
        let hints: String = (0..30).map(|n| hint(&format!("</{n}>"))).collect();
        upstream.send(format!("{hints}HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\npage"));
        assert_eq!(call.hints(), (0..30).map(|n| format!("</{n}>")).collect::<Vec<_>>());
        assert_eq!(call.finish().unwrap().0, b"page");
    }
}

/// No window holds interim answers back, so that they may not be without number.
#[test]
fn a_flood_of_interim_answers_does_not_pile_up() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let client = Client::plain(edge.http());
    let mut call = client.get("/");
    let (mut upstream, _) = backend.request();
    for n in 0..2000 {
        upstream.send(hint(&format!("</{n}>")));
    }
    upstream.send(ok("page"));
    let hints = call.hints().len();
    assert!((1..1000).contains(&hints), "{hints}");
    assert_eq!(call.finish().unwrap().0, b"page");
}

/// Nor for a client of HTTP/1.1 that does not read.
#[test]
fn a_flood_of_interim_answers_does_not_pile_up_for_an_http1_client() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(get("/"));
    let (mut upstream, _) = backend.request();
    let large = hint(&"x".repeat(8 << 10));
    let (each, most) = (large.len(), 8000);
    for _ in 0..most {
        upstream.send(&large);
    }
    upstream.send(ok("page"));
    // What the kernel's buffers took is out; of the rest little is kept.
    wait_for("the final answer is made", || edge.backend(&backend)["inflight"] == 0);
    let mut hints = 0;
    let answer = loop {
        let head = client.head();
        if head.status() != 103 {
            break head;
        }
        hints += 1;
    };
    assert_eq!((answer.status(), client.body(&answer)), (200, b"page".to_vec()));
    assert!((1..most / 2).contains(&hints), "{hints} of {most}, {each} bytes each");
}

/// What a backend hinted at before it failed stands: hints bind nobody. What comes from it later goes nowhere.
#[test]
fn an_abandoned_attempt_gives_no_more_hints() {
    let (one, two) = (Raw::new(), Raw::new());
    let edge = Setup::to(&[&one, &two]).with("timeout.response = \"500ms\"").start();
    let client = Client::plain(edge.http());
    let mut call = client.get("/");
    let ((mut first, _), other) = crate::support::until("a request at either", || {
        let here = one.try_request().map(|request| (request, &two));
        here.or_else(|| two.try_request().map(|request| (request, &one)))
    });
    first.send(hint("</first>"));
    assert_eq!(call.interim().expect("a hint").headers()["link"], "</first>");
    let (mut second, _) = other.request();
    // The edge has left: if it still listens at all, it does not pass this on.
    let _ = first.try_send(hint("</late>"));
    second.send(hint("</second>")).send(ok("page"));
    assert_eq!(call.hints(), ["</second>"]);
    assert_eq!(call.finish().unwrap().0, b"page");
}

/// A hint behind the head would be taken for trailers, or for a mistake of the whole connection.
#[test]
fn a_download_that_is_continued_elsewhere_brings_no_hints() {
    const SIZE: usize = 300_000;
    let half = || {
        Raw::new().serve(|mut conn| {
            while let Some(request) = conn.try_head() {
                let Some(range) = request.get("range") else {
                    let head = format!("HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nContent-Length: {SIZE}\r\n\r\n");
                    let _ = conn.try_send(hint("</first>"));
                    let _ = conn.try_send(head);
                    let _ = conn.try_send(&noise(SIZE)[..SIZE / 2]);
                    return;
                };
                let range = range.strip_prefix("bytes=").unwrap().to_owned();
                let first: usize = range.split('-').next().unwrap().parse().unwrap();
                let _ = conn.try_send(hint("</second>"));
                let _ = conn.try_send(format!(
                    "HTTP/1.1 206 Partial Content\r\nETag: \"v1\"\r\nContent-Range: bytes {range}/{SIZE}\r\n\
                     Content-Length: {}\r\n\r\n",
                    SIZE - first
                ));
                let _ = conn.try_send(&noise(SIZE)[first..]);
            }
        })
    };
    let (one, two) = (half(), half());
    let edge = Setup::to(&[&one, &two]).start();
    let client = Client::plain(edge.http());
    for _ in 0..3 {
        let mut call = client.get("/film");
        assert_eq!(call.hints(), ["</first>"]);
        let (body, trailers) = call.finish().unwrap();
        assert_same(&body, &noise(SIZE));
        assert_eq!(trailers, None);
    }
}

/// The same as with `EXPECTING`, over HTTP/2.
fn expecting(client: &Client) -> Call {
    let request = http::Request::put(client.url("/upload")).header("content-length", "4");
    client.start(request.header("expect", "100-continue"), false)
}

#[test]
fn the_body_of_an_http2_client_is_asked_for_when_the_backend_wants_it() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let client = Client::plain(edge.http());
    let mut call = expecting(&client);
    let (mut upstream, head) = backend.request();
    assert_eq!(head.get("expect"), Some("100-continue"), "{}", head.raw);
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(call.interim().expect("100").status(), 100);
    call.send(b"body", true);
    assert_eq!(upstream.bytes(4), b"body");
    upstream.send(ok("stored"));
    assert!(call.interim().is_none(), "100 comes once");
    assert_eq!(call.finish().unwrap().0, b"stored");
}

#[test]
fn the_body_of_an_http2_client_is_never_asked_for_when_the_backend_refuses_it() {
    keeping_up(SOON, || {
        for (line, status) in
            [("417 Expectation Failed", 417), ("413 Content Too Large", 413), ("401 Unauthorized", 401)]
        {
            let backend = Raw::new();
            let edge = Setup::to(&[&backend]).start();
            let client = Client::plain(edge.http());
            let mut call = expecting(&client);
            let (mut upstream, _) = backend.request();
            upstream.send(format!("HTTP/1.1 {line}\r\nContent-Length: 2\r\n\r\nno"));
            assert!(call.interim().is_none(), "the very first head is the final one");
            assert_eq!(call.head().status(), status);
            assert_eq!(call.finish().unwrap().0, b"no");
            upstream.ends();
            // Only the stream is over.
            let mut call = client.get("/next");
            let (mut upstream, _) = backend.request();
            upstream.send(ok("next"));
            assert_eq!(call.finish().unwrap().0, b"next");
        }
    });
}

#[test]
fn the_body_of_an_http2_client_is_asked_for_after_a_while_when_the_backend_says_nothing() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let client = Client::plain(edge.http());
    let mut call = expecting(&client);
    let (mut upstream, _) = backend.request();
    assert_eq!(call.interim().expect("100").status(), 100);
    call.send(b"body", true);
    assert_eq!(upstream.bytes(4), b"body");
    upstream.send(ok("stored"));
    assert_eq!(call.finish().unwrap().0, b"stored");
}

#[test]
fn an_http2_client_that_does_not_wait_for_100_is_not_told_to_go_on() {
    keeping_up(SOON, || {
        let backend = Raw::new();
        let edge = Setup::to(&[&backend]).start();
        let client = Client::plain(edge.http());
        let mut call = expecting(&client);
        let (mut upstream, _) = backend.request();
        call.send(b"body", true);
        // A second request that was answered shows that the edge has read what came before it.
        let mut other = client.get("/other");
        let (mut beside, _) = backend.request();
        beside.send(ok("other"));
        assert_eq!(other.finish().unwrap().0, b"other");
        upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(upstream.bytes(4), b"body");
        upstream.send(ok("stored"));
        assert!(call.interim().is_none());
        assert_eq!(call.finish().unwrap().0, b"stored");
    });
}

#[test]
fn a_body_that_is_too_large_for_the_service_is_not_asked_for_over_http2() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).with("max_body = 3").start();
    let client = Client::plain(edge.http());
    let mut call = expecting(&client);
    assert!(call.interim().is_none());
    assert_eq!(call.head().status(), 413);
}

#[test]
fn early_hints_of_an_http2_backend_reach_clients_of_both_versions() {
    let backend = Backend::plain();
    let edge = Setup::to(&[&backend]).with("upstream.protocol = \"h2c\"").and("[edge]\nworkers = 1").start();
    let hint = |n: usize| http::Response::builder().status(103).header("link", format!("</{n}>"));
    let mut one = edge.connect();
    one.send(get("/one"));
    let mut served = backend.call();
    for n in 0..3 {
        std::thread::sleep(Duration::from_millis(150 * (n as u64 / 2)));
        served.interim(hint(n));
        let head = one.head();
        assert_eq!((head.status(), head.get("link")), (103, Some(format!("</{n}>").as_str())));
    }
    served.answer(http::Response::builder(), false).send(b"page", true);
    assert_eq!(one.answer().text(), "page");

    let two = Client::plain(edge.http());
    for _ in 0..3 {
        let mut call = two.get("/two");
        let mut served = backend.call();
        served.interim(hint(0));
        assert_eq!(call.interim().expect("a hint").headers()["link"], "</0>");
        served.interim(hint(1)).interim(hint(2)).answer(http::Response::builder(), false).send(b"page", true);
        assert_eq!(call.hints(), ["</1>", "</2>"]);
        assert_eq!(call.finish().unwrap().0, b"page");
    }
    assert_eq!(backend.connections(), 1);
}

/// The edge asks for the body by itself after a second. A test that was held up for as long proves nothing, and is made again.
fn before_the_edge_asks(attempt: impl Fn() -> bool) {
    assert!((0..5).any(|_| attempt()), "100 came by itself, five times");
}

fn upload_to_http2(backend: &Backend) -> crate::support::edge::Edge {
    Setup::to(&[backend]).with("upstream.protocol = \"h2c\"").and("[edge]\nworkers = 1").start()
}

#[test]
fn the_body_is_asked_for_when_an_http2_backend_wants_it() {
    let backend = Backend::plain();
    let edge = upload_to_http2(&backend);
    let hint = || http::Response::builder().status(103);
    let wants = |served: &mut Served| {
        assert_eq!(served.request.headers()["expect"], "100-continue");
        served.interim(hint()).interim(http::Response::builder().status(100));
    };
    let stores = |mut served: Served| {
        assert_eq!(served.finish().unwrap().0, b"body");
        // 100 that nobody waits for goes nowhere.
        served.interim(http::Response::builder().status(100));
        served.answer(http::Response::builder(), false).send(b"stored", true);
    };
    before_the_edge_asks(|| {
        let mut one = edge.connect();
        one.send(EXPECTING);
        let mut served = backend.call();
        wants(&mut served);
        // A hint that the backend gave before comes before: 100 is its own.
        let first = one.head().status();
        let second = one.head().status();
        assert_eq!(first + second, 203);
        one.send("body");
        stores(served);
        assert_eq!(one.answer().text(), "stored");
        first == 103
    });
    let two = Client::plain(edge.http());
    before_the_edge_asks(|| {
        let mut call = expecting(&two);
        let mut served = backend.call();
        wants(&mut served);
        let first = call.interim().expect("a hint").status().as_u16();
        let second = call.interim().expect("100").status().as_u16();
        assert_eq!(first + second, 203);
        call.send(b"body", true);
        stores(served);
        assert!(call.interim().is_none(), "100 comes once");
        assert_eq!(call.finish().unwrap().0, b"stored");
        first == 103
    });
    assert_eq!(backend.connections(), 1);
}

#[test]
fn the_body_is_never_asked_for_when_an_http2_backend_refuses_it() {
    let backend = Backend::plain();
    let edge = upload_to_http2(&backend);
    let two = Client::plain(edge.http());
    for status in [417, 401] {
        let refuse = || {
            let mut served = backend.call();
            served.answer(http::Response::builder().status(status), false).send(b"no", true);
            served
        };
        before_the_edge_asks(|| {
            let mut one = edge.connect();
            one.send(EXPECTING);
            let mut served = refuse();
            let head = one.head();
            if head.status() == 100 {
                return false;
            }
            assert_eq!((head.status(), one.body(&head)), (status, b"no".to_vec()));
            // Where the body would begin is not known any more.
            one.ends();
            assert!(served.finish().is_err(), "looks complete");
            true
        });
        before_the_edge_asks(|| {
            let mut call = expecting(&two);
            let mut served = refuse();
            if call.interim().is_some() {
                return false;
            }
            assert_eq!(call.head().status(), status);
            assert_eq!(call.finish().unwrap().0, b"no");
            assert!(served.finish().is_err(), "looks complete");
            true
        });
    }
    let mut call = two.get("/next");
    backend.call().answer(http::Response::builder().status(204), true);
    assert_eq!(call.head().status(), 204);
}

#[test]
fn the_body_is_asked_for_after_a_while_when_an_http2_backend_says_nothing() {
    let backend = Backend::plain();
    let edge = upload_to_http2(&backend);
    let two = Client::plain(edge.http());
    let mut one = edge.connect();
    one.send(EXPECTING);
    let mut call = expecting(&two);
    assert_eq!(one.head().status(), 100);
    assert_eq!(call.interim().expect("100").status(), 100);
    one.send("body");
    call.send(b"body", true);
    for _ in 0..2 {
        let mut served = backend.call();
        assert_eq!(served.finish().unwrap().0, b"body");
        served.answer(http::Response::builder(), false).send(b"stored", true);
    }
    assert_eq!(one.answer().text(), "stored");
    assert_eq!(call.finish().unwrap().0, b"stored");
}

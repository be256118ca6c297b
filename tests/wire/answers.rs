//! What relais answers by itself: redirects, fixed pages, the page of a service that is down.

use crate::support::edge::Setup;
use crate::support::h2::Client;
use crate::support::raw::{Plain, Raw};
use crate::support::wire::get;
use crate::support::{certs, free_address};

fn ask(host: &str, target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[test]
fn plain_http_is_redirected_to_https() {
    let backend = Plain::saying("x");
    let services = format!(
        "[service.web]\nhosts = [\"web.test\"]\nhealth = \"off\"\nbackends = [\"{}\"]\n",
        backend.serving.address
    );
    let listeners = "[listener.http]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
                     [listener.https]\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n";
    let edge = Setup::services(&services).listening(listeners).start();
    let answer = edge.connect().ask(ask("web.test:8080", "/a/b?c=%20d"));
    assert_eq!(answer.status(), 308);
    let port = edge.https().port();
    assert_eq!(answer.get("location"), Some(format!("https://web.test:{port}/a/b?c=%20d").as_str()));
    assert_eq!(edge.connect().ask(ask("other.test", "/")).status(), 404, "no open redirect");
    assert_eq!(backend.count(), 0);
    let mut client = certs::connect(edge.https(), "web.test", certs::roots_of(&edge.root()), &[]).unwrap();
    assert_eq!(client.ask(ask("web.test", "/")).text(), "x");
}

#[test]
fn hosts_are_redirected_to_the_canonical_one() {
    let backend = Plain::saying("x");
    let services = format!(
        "[service.web]\nhosts = [\"web.test\", \"www.web.test\"]\ncanonical = \"web.test\"\nhealth = \"off\"\nbackends = [\"{}\"]\n",
        backend.serving.address
    );
    let edge = Setup::services(&services).start();
    let mut client = edge.connect();
    let answer = client.ask(ask("www.web.test:81", "/a?b"));
    assert_eq!((answer.status(), answer.get("location")), (308, Some("http://web.test:81/a?b")));
    assert_eq!(client.ask(ask("web.test", "/")).status(), 200);
}

#[test]
fn a_service_can_redirect() {
    let edge = Setup::services(
        "[service.short]\nhosts = [\"old.test\"]\nredirect = \"https://new.test/base\"\n\
         [service.long]\nhosts = [\"older.test\"]\npaths = [\"/a\"]\n[service.long.redirect]\nto = \"/there\"\nstatus = 302\nkeep_path = false\n",
    )
    .start();
    let mut client = edge.connect();
    let answer = client.ask(ask("old.test", "/a?b"));
    assert_eq!((answer.status(), answer.get("location")), (308, Some("https://new.test/base/a?b")));
    let answer = client.ask(ask("older.test", "/a?b"));
    assert_eq!((answer.status(), answer.get("location")), (302, Some("/there")));
    assert_eq!(answer.get("content-length"), Some("0"));
}

#[test]
fn a_service_can_answer_by_itself() {
    let edge = Setup::services(
        "[service.robots]\nhosts = [\"*\"]\npaths = [\"/robots.txt\"]\n[service.robots.respond]\n\
         body = \"User-agent: *\\n\"\nheaders = { Cache-Control = \"max-age=60\" }\n\
         [service.gone]\nhosts = [\"*\"]\nrespond = { status = 410, body = \"gone\", content_type = \"text/x\" }\n\
         response_headers.set = { X-Edge = \"relais\" }\n",
    )
    .start();
    let mut client = edge.connect();
    let answer = client.ask(get("/robots.txt"));
    assert_eq!((answer.status(), answer.text().as_str()), (200, "User-agent: *\n"));
    assert_eq!(answer.get("cache-control"), Some("max-age=60"));
    assert_eq!(answer.get("content-type"), Some("text/plain; charset=utf-8"));
    let answer = client.ask(get("/else"));
    assert_eq!((answer.status(), answer.text().as_str()), (410, "gone"));
    assert_eq!((answer.get("content-type"), answer.get("x-edge")), (Some("text/x"), Some("relais")));
    // HEAD gets the same head without the page.
    client.send("HEAD /robots.txt HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let head = client.head();
    assert_eq!((head.status(), head.get("content-length")), (200, Some("14")));
    assert_eq!(client.ask(get("/else")).status(), 410);
    // Over HTTP/2 as well, also when nobody has the answer.
    let client2 = Client::plain(edge.http());
    for (path, status, length) in [("/robots.txt", 200, "14"), ("/else", 410, "4")] {
        let mut call = client2.start(http::Request::head(client2.url(path)), true);
        let head = call.head();
        assert_eq!((head.status().as_u16(), &head.headers()["content-length"]), (status, &length.parse().unwrap()));
        assert_eq!(call.finish().unwrap(), (Vec::new(), None));
    }
    // A body nobody wants does not spoil the connection, or ends it.
    let answer = client.ask("POST /else HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(answer.status(), 410);
}

#[test]
fn a_service_that_is_down_shows_its_page() {
    let dead = free_address();
    let setup = Setup::services(&format!(
        "[service.web]\nhosts = [\"*\"]\nbackends = [\"{dead}\"]\n[service.web.maintenance]\nbody_file = \"page.html\"\n"
    ));
    std::fs::write(setup.dir().join("page.html"), "<p>Back soon").unwrap();
    let edge = setup.start();
    edge.wait_for_health(&dead, "down");
    let answer = edge.connect().ask(get("/"));
    assert_eq!((answer.status(), answer.text().as_str()), (503, "<p>Back soon"));
    assert_eq!(answer.get("content-type"), Some("text/html; charset=utf-8"));
    assert!(answer.head.has("retry-after"), "{}", answer.head.raw);
}

#[test]
fn a_sticky_cookie_keeps_a_client_at_its_backend() {
    let (one, two, three) = (Plain::saying("one"), Plain::saying("two"), Plain::saying("three"));
    let edge = Setup::to(&[&one, &two, &three]).with("sticky = \"where\"").start();
    let first = edge.connect().ask(get("/"));
    let cookie = first.get("set-cookie").unwrap().to_owned();
    let pair = cookie.split(';').next().unwrap();
    assert!(cookie.contains("HttpOnly") && pair.starts_with("where="), "{cookie}");
    for _ in 0..20 {
        let answer = edge.connect().ask(format!("GET / HTTP/1.1\r\nHost: a.test\r\nCookie: x=y; {pair}\r\n\r\n"));
        assert_eq!(answer.text(), first.text());
        assert!(!answer.head.has("set-cookie"), "known already");
    }
    // One that is not ours is replaced.
    let answer = edge.connect().ask("GET / HTTP/1.1\r\nHost: a.test\r\nCookie: where=AAAAAAAAAAAAAAAA\r\n\r\n");
    assert!(answer.head.has("set-cookie"));
}

#[test]
fn a_full_backend_makes_requests_wait_not_fail() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).with("max_inflight = 1\nqueue_timeout = \"15s\"").start();
    let mut first = edge.connect();
    first.send(get("/1"));
    let (mut upstream, _) = backend.request();
    let mut second = edge.connect();
    second.send(get("/2"));
    crate::support::wait_for("the second request is in", || edge.sample("relais_requests_inflight", &[]) >= 2.0);
    assert!(backend.try_accept().is_none(), "one at a time");
    upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\none");
    assert_eq!(first.answer().text(), "one");
    let (mut upstream, _) = backend.request();
    upstream.send(crate::support::wire::ok("two"));
    assert_eq!(second.answer().text(), "two");
}

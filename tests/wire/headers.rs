//! Which fields cross the edge, which are set, which are believed.

use crate::support::edge::{Setup, request_id};
use crate::support::h2::{Backend, Client};
use crate::support::raw::{Plain, Raw};
use crate::support::wire::{Answer, Head, get, ok};

/// One request through an edge: what the backend saw and what the client got.
fn exchange(setup: fn(Setup) -> Setup, request: &str, answer: &str) -> (Head, Answer) {
    let backend = Raw::new();
    let edge = setup(Setup::to(&[&backend])).start();
    let mut client = edge.connect();
    client.send(request);
    let (mut upstream, head) = backend.request();
    upstream.send(answer);
    (head, client.answer())
}

fn as_it_is(setup: Setup) -> Setup {
    setup
}

fn trusting(setup: Setup) -> Setup {
    setup.and("[edge]\ntrusted_proxies = [\"127.0.0.0/8\"]")
}

#[test]
fn fields_of_one_connection_do_not_cross_it() {
    let (request, answer) = exchange(
        as_it_is,
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, X-Private\r\nConnection: X-Also\r\nX-Private: 1\r\n\
         X-Also: 2\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: websocket\r\n\
         X-Public: 3\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nX-Public: 3\r\nContent-Length: 2\r\n\r\nok",
    );
    for name in ["x-private", "x-also", "keep-alive", "proxy-connection", "te", "upgrade", "connection"] {
        assert!(!request.has(name), "{name} crossed: {}", request.raw);
    }
    assert_eq!(request.get("x-public"), Some("3"));
    for name in ["x-private", "keep-alive", "proxy-connection"] {
        assert!(!answer.head.has(name), "{name} crossed: {}", answer.head.raw);
    }
    assert_eq!(answer.get("x-public"), Some("3"));
}

#[test]
fn te_crosses_only_as_trailers_and_named_in_connection() {
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: TE\r\nTE: trailers, deflate;q=0.5\r\n\r\n";
    let (request, _) = exchange(as_it_is, request, &ok(""));
    assert_eq!(request.get("te"), Some("trailers"));
    assert_eq!(request.get("connection").map(str::to_ascii_lowercase).as_deref(), Some("te"));
}

#[test]
fn via_tells_the_way_in_both_directions() {
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nVia: 1.0 before\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nVia: 1.1 behind\r\nContent-Length: 0\r\n\r\n";
    let (request, answer) = exchange(as_it_is, request, answer);
    assert_eq!(request.all("via").join(", "), "1.0 before, 1.1 relais");
    assert_eq!(answer.head.all("via").join(", "), "1.1 behind, 1.1 relais");
}

const LYING: &str = "GET / HTTP/1.1\r\nHost: a.test:8080\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
                     X-Forwarded-Host: evil.test\r\nX-Forwarded-Port: 1\r\nX-Real-IP: 6.6.6.6\r\n\
                     Forwarded: for=6.6.6.6\r\nX-Request-Id: chosen-by-client\r\n\r\n";

#[test]
fn what_a_stranger_says_about_the_client_is_dropped() {
    let (request, answer) = exchange(as_it_is, LYING, &ok(""));
    assert_eq!(request.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.get("x-forwarded-proto"), Some("http"));
    assert_eq!(request.get("x-forwarded-host"), Some("a.test:8080"));
    assert_eq!(request.get("forwarded"), Some("for=127.0.0.1;host=\"a.test:8080\";proto=http"));
    assert!(!request.raw.contains("6.6.6.6") && !request.raw.contains("evil"), "{}", request.raw);
    assert_ne!(request.get("x-request-id"), Some("chosen-by-client"));
    assert_ne!(answer.get("x-request-id"), Some("chosen-by-client"));
}

#[test]
fn what_a_trusted_proxy_says_is_kept_and_added_to() {
    let (request, answer) = exchange(trusting, LYING, &ok(""));
    assert_eq!(request.get("x-forwarded-for"), Some("6.6.6.6, 127.0.0.1"));
    assert_eq!(request.get("x-forwarded-proto"), Some("https"));
    assert_eq!(request.get("x-forwarded-host"), Some("evil.test"));
    let forwarded = request.get("forwarded").unwrap();
    assert!(forwarded.starts_with("for=6.6.6.6, for=127.0.0.1;"), "{forwarded}");
    assert_eq!(request.get("x-request-id"), Some("chosen-by-client"));
    assert_eq!(answer.get("x-request-id"), Some("chosen-by-client"));
}

#[test]
fn a_later_attempt_says_what_the_first_one_said() {
    for setup in [as_it_is, trusting] {
        let busy = || Plain::new(|_| b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy".to_vec());
        let backends = [busy(), busy(), busy()];
        let [one, two, three] = &backends;
        let edge = setup(Setup::to(&[one, two, three])).with("retry = { attempts = 3, budget_floor = 1000 }").start();
        let request = LYING.replace("\r\n\r\n", "\r\nVia: 1.0 a\r\nX-Own: 1\r\nVia: 1.1 b\r\nX-Own: 2\r\n\r\n");
        assert_eq!(edge.connect().ask(&request).status(), 503);
        let heads = backends.iter().flat_map(|backend| backend.seen());
        let said: Vec<Vec<String>> = heads
            .map(|seen| {
                assert_eq!(seen.head.all("via").join(", "), "1.0 a, 1.1 b, 1.1 relais", "{}", seen.head.raw);
                assert_eq!(seen.head.all("x-own"), ["1", "2"], "{}", seen.head.raw);
                let mut lines: Vec<String> = seen.head.raw.lines().map(str::to_owned).collect();
                lines.sort();
                lines
            })
            .collect();
        assert_eq!(said.len(), 3);
        assert!(said.iter().all(|lines| *lines == said[0]), "{said:#?}");
    }
}

#[test]
fn a_client_cannot_have_the_edges_own_fields_removed() {
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nAuthorization: secret\r\n\
                   Connection: X-Forwarded-For, X-Forwarded-Proto, Forwarded, Host, Authorization, X-Request-Id\r\n\r\n";
    let (request, _) = exchange(as_it_is, request, &ok(""));
    assert_eq!(request.get("x-forwarded-for"), Some("127.0.0.1"));
    assert!(request.has("forwarded") && request.has("x-forwarded-proto") && request.has("x-request-id"));
    assert_eq!((request.get("host"), request.get("authorization")), (Some("a.test"), Some("secret")));
}

#[test]
fn https_is_told_to_the_backend() {
    let backend = Raw::new();
    let setup = Setup::services(&format!(
        "[service.web]\nhosts = [\"web.test\"]\nhealth = \"off\"\nbackends = [\"{}\"]\n",
        backend.address
    ));
    let edge = setup.secure().start();
    let roots = crate::support::certs::roots_of(&edge.root());
    let mut client = crate::support::certs::connect(edge.https(), "web.test", roots, &[b"http/1.1"]).unwrap();
    client.send("GET / HTTP/1.1\r\nHost: web.test\r\n\r\n");
    let (mut upstream, head) = backend.request();
    assert_eq!(head.get("x-forwarded-proto"), Some("https"));
    assert!(head.get("forwarded").unwrap().ends_with("proto=https"), "{}", head.raw);
    upstream.send(ok("secret"));
    assert_eq!(client.answer().text(), "secret");
}

#[test]
fn an_ipv6_client_is_named_as_one() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        crate::support::tools::skipped("this machine has no IPv6");
        return;
    }
    let backend = Raw::new();
    let listener = "[listener.http]\naddress = \"[::1]:0\"\nprotocol = \"http\"\nredirect = false\n";
    let edge = Setup::to(&[&backend]).listening(listener).start();
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n");
    let (mut upstream, head) = backend.request();
    assert_eq!(head.get("x-forwarded-for"), Some("::1"));
    assert_eq!(head.get("forwarded"), Some("for=\"[::1]\";host=\"[::1]:8080\";proto=http"));
    assert_eq!(head.get("host"), Some("[::1]:8080"));
    upstream.send(ok(""));
    assert_eq!(client.answer().status(), 200);
}

#[test]
fn host_is_kept_or_set_or_the_backends() {
    for (rule, expected) in [
        ("", Some("a.test:8080")),
        ("upstream.host = \"b.test\"", Some("b.test")),
        ("upstream.host = \"backend\"", None),
    ] {
        let backend = Raw::new();
        let edge = Setup::to(&[&backend]).with(rule).start();
        let mut client = edge.connect();
        client.send("GET / HTTP/1.1\r\nHost: a.test:8080\r\n\r\n");
        let (mut upstream, head) = backend.request();
        let address = backend.address.to_string();
        assert_eq!(head.get("host"), Some(expected.unwrap_or(&address)));
        assert_eq!(head.get("x-forwarded-host"), Some("a.test:8080"));
        upstream.send(ok(""));
        assert_eq!(client.answer().status(), 200);

        let backend = Backend::plain();
        let edge = Setup::to(&[&backend]).with(rule).with("upstream.protocol = \"h2c\"").start();
        let mut client = edge.connect();
        client.send("GET / HTTP/1.1\r\nHost: a.test:8080\r\n\r\n");
        let mut served = backend.call();
        let address = backend.address.to_string();
        assert_eq!(served.request.uri().authority().unwrap(), expected.unwrap_or(&address));
        assert!(!served.request.headers().contains_key("host"));
        served.answer(http::Response::builder().status(204), true);
        assert_eq!(client.answer().status(), 204);
    }
}

#[test]
fn one_request_has_one_id_everywhere() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    let mut seen = Vec::new();
    for path in ["/1", "/2"] {
        client.send(get(path));
        let head = if path == "/1" {
            let (mut upstream, head) = backend.request();
            upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            head
        } else {
            let (mut upstream, head) = backend.request();
            upstream.send(ok(""));
            head
        };
        let answer = client.answer();
        let id = request_id(&answer.head);
        assert_eq!(request_id(&head), id);
        let line = edge.access(&id);
        assert_eq!((line["path"].as_str(), line["status"].as_u64()), (Some(path), Some(200)));
        assert!(!seen.contains(&id));
        seen.push(id);
    }
    // Answers of relais itself carry one too.
    let answer = client.ask("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n");
    assert_eq!(edge.access(&request_id(&answer.head))["status"], 405);
}

#[test]
fn the_header_of_the_id_can_be_named() {
    let named = |setup: Setup| setup.and("[edge]\nrequest_id_header = \"X-Trace\"");
    let (request, answer) = exchange(named, &get("/"), &ok(""));
    assert_eq!(request.get("x-trace"), answer.get("x-trace"));
    assert!(request.has("x-trace") && !request.has("x-request-id"));
}

/// What a client says under such a name is dropped, and the edge's own word with it if that stood there already.
#[test]
fn an_id_named_like_a_field_that_is_dropped_arrives() {
    for name in ["X-Real-IP", "X-Client-Cert-Subject", "X_Forwarded_Trace"] {
        let backend = Raw::new();
        let edge = Setup::to(&[&backend]).and(&format!("[edge]\nrequest_id_header = \"{name}\"")).start();
        let mut client = edge.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{name}: mine\r\n\r\n"));
        let (mut upstream, head) = backend.request();
        upstream.send(ok(""));
        let answer = client.answer();
        let id = answer.get(name).unwrap();
        assert_eq!(head.get(name), Some(id), "{}", head.raw);
        assert_eq!(edge.access(id)["path"], "/");
    }
}

#[test]
fn cookies_that_http2_split_arrive_as_one() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let client = Client::plain(edge.http());
    let request = http::Request::get(client.url("/")).header("cookie", "a=1").header("cookie", "b=2");
    let mut call = client.start(request, true);
    let (mut upstream, head) = backend.request();
    assert_eq!(head.get("cookie"), Some("a=1; b=2"));
    assert_eq!(head.get("host"), Some("a.test"));
    assert_eq!(head.get("via"), Some("2 relais"));
    upstream.send(ok(""));
    assert_eq!(call.head().status(), 200);
}

#[test]
fn repeated_fields_stay_apart_and_in_order() {
    let (request, answer) = exchange(
        as_it_is,
        "GET / HTTP/1.1\r\nHost: a.test\r\nAccept: a\r\nAccept: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(request.all("accept"), ["a", "b"]);
    assert_eq!(answer.head.all("set-cookie"), ["a=1", "b=2"]);
}

#[test]
fn targets_arrive_as_they_were_sent() {
    for target in ["/a//b/../c/./d?x=1&y=%20%2F&&", "/%7Euser/%e2%82%ac", "/?", "/a;b=c", "/a?b?c"] {
        let (request, _) = exchange(as_it_is, &get(target), &ok(""));
        assert_eq!(request.start, format!("GET {target} HTTP/1.1"));
    }
    let (request, _) = exchange(as_it_is, "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", &ok(""));
    assert_eq!(request.start, "OPTIONS * HTTP/1.1");
}

#[test]
fn an_absolute_target_decides_over_host() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send("GET http://b.test/path?q HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let (mut upstream, head) = backend.request();
    assert_eq!((head.start.as_str(), head.get("host")), ("GET /path?q HTTP/1.1", Some("b.test")));
    upstream.send(ok(""));
    let answer = client.answer();
    assert_eq!(edge.access(&request_id(&answer.head))["host"], "b.test");
}

#[test]
fn edits_remove_then_set_then_add() {
    let edited = |setup: Setup| {
        setup.with(
            "[service.web.request_headers]\nremove = [\"X-Out\"]\nset = { X-Set = \"new\" }\nadd = { X-Add = [\"b\", \"c\"] }\n\
             [service.web.response_headers]\nremove = [\"Server\"]\nset = { X-Set = \"new\" }\nadd = { Vary = \"Accept\" }\n",
        )
    };
    let (request, answer) = exchange(
        edited,
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-Out: 1\r\nX-Set: old\r\nX-Add: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nServer: nosy\r\nX-Set: old\r\nVary: Cookie\r\nContent-Length: 0\r\n\r\n",
    );
    assert!(!request.has("x-out"));
    assert_eq!(request.get("x-set"), Some("new"));
    assert_eq!(request.all("x-add").join(","), "a,b,c");
    assert!(!answer.head.has("server"));
    assert_eq!(answer.get("x-set"), Some("new"));
    assert_eq!(answer.head.all("vary").join(","), "Cookie,Accept");
}

//! Upgraded connections: bytes both ways once both sides agreed, and no upgrade that was not asked for.

use crate::support::edge::{Edge, Setup};
use crate::support::h2::{Backend, Client};
use crate::support::raw::{Plain, Raw};
use crate::support::wire::{Conn, get, ok};
use crate::support::{certs, wait_for};

const ASK: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const YES: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn open(edge: &Edge, backend: &Raw) -> (Conn, Conn) {
    let mut client = edge.connect();
    client.send(ASK);
    let (mut upstream, head) = backend.request();
    assert_eq!(head.start, "GET /chat?room=1 HTTP/1.1");
    assert_eq!(head.get("upgrade"), Some("websocket"));
    assert!(head.get("connection").unwrap().eq_ignore_ascii_case("upgrade"), "{}", head.raw);
    assert_eq!(head.get("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    upstream.send(YES);
    let head = client.head();
    assert_eq!((head.status(), head.get("upgrade")), (101, Some("websocket")));
    assert!(head.get("connection").unwrap().eq_ignore_ascii_case("upgrade"), "{}", head.raw);
    assert_eq!(head.get("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    (client, upstream)
}

#[test]
fn a_websocket_carries_bytes_both_ways_and_ends_with_either_side() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    for client_first in [true, false] {
        let (mut client, mut upstream) = open(&edge, &backend);
        for n in 0..10 {
            client.send(format!("up {n}."));
            assert_eq!(upstream.until("."), format!("up {n}."));
            upstream.send(format!("down {n}."));
            assert_eq!(client.until("."), format!("down {n}."));
        }
        assert_eq!(edge.sample("relais_tunnels_open", &[]), 1.0);
        if client_first {
            drop(client);
            upstream.ends();
            drop(upstream);
        } else {
            drop(upstream);
            client.ends();
            drop(client);
        }
        wait_for("the tunnel is over", || edge.sample("relais_tunnels_open", &[]) == 0.0);
    }
}

#[test]
fn one_direction_can_end_before_the_other() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let (mut client, mut upstream) = open(&edge, &backend);
    client.send("last words");
    client.finish_sending();
    assert_eq!(upstream.rest(), b"last words");
    upstream.send("an answer to them");
    upstream.finish_sending();
    assert_eq!(client.rest(), b"an answer to them");
}

#[test]
fn bytes_sent_along_with_the_handshake_are_not_lost() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(format!("{ASK}early"));
    let (mut upstream, _) = backend.request();
    upstream.send(format!("{YES}early too"));
    assert_eq!(client.head().status(), 101);
    assert_eq!(client.bytes(9), b"early too");
    assert_eq!(upstream.bytes(5), b"early");
}

#[test]
fn a_silent_tunnel_is_closed_on_both_sides() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).with("timeout.tunnel = \"400ms\"").start();
    let (mut client, mut upstream) = open(&edge, &backend);
    upstream.send("x");
    assert_eq!(client.bytes(1), b"x");
    client.rest();
    upstream.rest();
    assert_eq!(edge.access_to("/chat")["cut"], "idle");
}

/// Code 1012: the client comes back, and to another backend.
const TOLD: [u8; 4] = [0x88, 0x02, 0x03, 0xf4];

#[test]
fn a_websocket_whose_backend_ends_without_a_word_is_told() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    for broken in [false, true] {
        let (mut client, mut upstream) = open(&edge, &backend);
        upstream.send(b"\x81\x02hi");
        assert_eq!(client.bytes(4), b"\x81\x02hi");
        if broken {
            upstream.reset()
        } else {
            drop(upstream)
        }
        assert_eq!(client.rest(), TOLD);
        drop(client);
        let lines = || edge.lines().into_iter().filter(|line| line["path"] == "/chat");
        wait_for("it is logged", || lines().count() == if broken { 2 } else { 1 });
        assert!(lines().all(|line| line["cut"] == "backend_broke_off"));
    }
}

#[test]
fn a_websocket_that_breaks_in_the_middle_of_a_frame_is_broken_for_its_client() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let (mut client, mut upstream) = open(&edge, &backend);
    upstream.send(b"\x81\x05hel");
    assert_eq!(client.bytes(5), b"\x81\x05hel");
    upstream.reset();
    assert!(client.is_reset(), "nothing is put into a frame");
}

/// It would hold its backend for as long as the limit of silence.
#[test]
fn a_client_of_a_tunnel_that_takes_no_bytes_is_given_up() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).and("[edge.timeout]\nbody = \"1s\"").start();
    let (client, mut upstream) = open(&edge, &backend);
    while upstream.try_send([b'x'; 1 << 16]).is_ok() {}
    assert_eq!(edge.access_to("/chat")["cut"], "client_stalled");
    drop(client);
}

/// A drain ends streams too, each at its own moment, and clients come back to another backend.
#[test]
fn a_websocket_at_a_drained_backend_is_told() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).and("[edge]\ndrain = \"1s\"").start();
    let (mut client, mut upstream) = open(&edge, &backend);
    upstream.send(b"\x81\x02hi");
    assert_eq!(client.bytes(4), b"\x81\x02hi");
    edge.order("draining", &format!("web/{}", backend.address));
    assert_eq!(client.rest(), TOLD);
    drop(client);
    assert_eq!(edge.access_to("/chat")["cut"], "drained");
}

/// Over TLS the versions are agreed on before the request is known: for an upgrade only the one that has upgrades is offered.
#[test]
fn an_upgrade_goes_over_http1_to_a_backend_that_would_choose_http2() {
    let authority = certs::Authority::new();
    let config = authority.issue(&["backend.test"]).server(&[b"h2", b"http/1.1"]);
    let listener = std::net::TcpListener::bind((crate::support::own_ip(), 0)).unwrap();
    let setup = Setup::to(&[&listener.local_addr().unwrap()])
        .with("[service.web.upstream]\ntls = { sni = \"backend.test\", ca = \"ca.pem\" }");
    std::fs::write(setup.dir().join("ca.pem"), &authority.root).unwrap();
    let edge = setup.start();
    let mut client = edge.connect();
    client.send(ASK);
    let mut stream = listener.accept().unwrap().0;
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let mut session = rustls::ServerConnection::new(config).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut stream).unwrap();
    }
    assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut upstream = Conn::with(rustls::StreamOwned::new(session, stream));
    assert_eq!(upstream.head().get("upgrade"), Some("websocket"));
    upstream.send(YES).send("down");
    assert_eq!(client.head().status(), 101);
    assert_eq!(client.bytes(4), b"down");
    client.send("up");
    assert_eq!(upstream.bytes(2), b"up");
}

#[test]
fn nothing_follows_a_close_frame() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    for client_first in [true, false] {
        let (mut client, mut upstream) = open(&edge, &backend);
        let said: &[u8] = if client_first {
            client.send(b"\x88\x82\0\0\0\0\x03\xe8");
            assert_eq!(upstream.bytes(8).len(), 8);
            b""
        } else {
            upstream.send(b"\x88\x02\x03\xe8");
            b"\x88\x02\x03\xe8"
        };
        drop(upstream);
        assert_eq!(client.rest(), said);
    }
}

#[test]
fn other_tunnels_break_as_their_backend_does() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    for broken in [false, true] {
        let mut client = edge.connect();
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: tictactoe/2\r\n\r\n");
        let (mut upstream, _) = backend.request();
        upstream.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: tictactoe/2\r\n\r\nx");
        assert_eq!(client.head().status(), 101);
        assert_eq!(client.bytes(1), b"x");
        if broken {
            upstream.reset()
        } else {
            drop(upstream)
        }
        assert_eq!(client.is_reset(), broken);
    }
}

#[test]
fn any_protocol_can_be_tunnelled() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: tictactoe/2\r\n\r\n");
    let (mut upstream, head) = backend.request();
    assert_eq!(head.get("upgrade"), Some("tictactoe/2"));
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: tictactoe/2\r\n\r\n");
    assert_eq!(client.head().get("upgrade"), Some("tictactoe/2"));
    client.send([0, 255, 13, 10]);
    assert_eq!(upstream.bytes(4), [0, 255, 13, 10]);
}

#[test]
fn a_backend_may_decline_an_upgrade() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(ASK);
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str()), (403, "no"));
}

/// RFC 9113 3.1 withdrew this upgrade; forwarded, it would let a client speak past the edge.
#[test]
fn an_upgrade_to_http2_is_not_passed_on() {
    for protocols in ["h2c", "H2C", "h2c, websocket", "websocket, h2c"] {
        let backend = Raw::new();
        let edge = Setup::to(&[&backend]).start();
        let mut client = edge.connect();
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocols}\r\n\
             HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
        ));
        let (mut upstream, head) = backend.request();
        assert!(!head.raw.to_ascii_lowercase().contains("h2c"), "{}", head.raw);
        assert!(!head.has("http2-settings"), "{}", head.raw);
        upstream.send(ok("plain"));
        assert_eq!(client.answer().text(), "plain");
    }
}

#[test]
fn an_upgrade_nobody_asked_for_is_a_bad_answer() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.answer().status(), 502);
}

#[test]
fn a_backend_cannot_switch_to_another_protocol_than_was_asked_for() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    client.send(ASK);
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n");
    assert_eq!(client.answer().status(), 502);
}

#[test]
fn an_http2_backend_gets_a_plain_request() {
    let backend = Backend::plain();
    let edge = Setup::to(&[&backend]).with("upstream.protocol = \"h2c\"").start();
    let mut client = edge.connect();
    client.send(ASK);
    let mut served = backend.call();
    assert!(!served.request.headers().contains_key("upgrade"));
    assert!(!served.request.headers().contains_key("connection"));
    served.answer(http::Response::builder().status(426), true);
    assert_eq!(client.answer().status(), 426);
}

#[test]
fn connect_is_refused() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).start();
    let mut client = edge.connect();
    let answer = client.ask("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n");
    assert_eq!(answer.status(), 405);
    assert!(answer.head.has("allow") && answer.get("proxy-status").unwrap().contains("http_request_denied"));

    let client = Client::plain(edge.http());
    let mut call = client.start(http::Request::connect("a.test:443"), false);
    match call.try_head() {
        Ok(head) => assert_eq!(head.status(), 405),
        Err(error) => assert!(error.is_reset(), "{error}"),
    }
    assert!(backend.try_accept().is_none(), "nothing reached the backend");
}

/// Opens a stream; says who took it.
fn stream(edge: &Edge, ask: &str) -> (Conn, String) {
    let mut client = edge.connect();
    client.send(ask);
    let who = client.head().get("x-who").unwrap().to_owned();
    (client, who)
}

/// Streams stay, requests do not: neither keeps the other away from a backend.
#[test]
fn streams_go_where_fewest_streams_are_and_requests_do_not_mind_them() {
    let backend = |who: &'static str| {
        Plain::new(move |seen| match seen.head.target() {
            "/events" => {
                format!("HTTP/1.1 200 OK\r\nX-Who: {who}\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
                    .into_bytes()
            }
            "/chat?room=1" => YES.replace("\r\n\r\n", &format!("\r\nX-Who: {who}\r\n\r\n")).into_bytes(),
            _ => ok(who).into_bytes(),
        })
    };
    let (a, b) = (backend("a"), backend("b"));
    let edge = Setup::to(&[&a, &b]).start();
    let events = "GET /events HTTP/1.1\r\nHost: a.test\r\nAccept: text/event-stream\r\n\r\n";
    let mut streams: Vec<(Conn, String)> =
        (0..20).map(|n| stream(&edge, if n % 2 == 0 { ASK } else { events })).collect();
    let held = |streams: &[(Conn, String)], name| streams.iter().filter(|(_, who)| who == name).count();
    assert_eq!((held(&streams, "a"), held(&streams, "b")), (10, 10));
    // All of one end: the next ones go there until both have as many again, while requests go to both.
    streams.retain(|(_, who)| who == "b");
    wait_for("they are over", || edge.backend(&a)["inflight"] == 0);
    assert_eq!(edge.backend(&b)["inflight"], 10);
    let mut client = edge.connect();
    let answers: Vec<String> = (0..200).map(|_| client.ask(get("/")).text()).collect();
    let to_b = answers.iter().filter(|who| *who == "b").count();
    assert!((50..150).contains(&to_b), "{to_b} of 200 where the streams are");
    streams.extend((0..10).map(|_| stream(&edge, ASK)));
    assert_eq!((held(&streams, "a"), held(&streams, "b")), (10, 10));
}

//! WebSockets over HTTP/2 (RFC 8441): one stream of a connection is a tunnel, whose backend is asked by an upgrade. What
//! ends it ends the stream and not the connection.

use crate::support::edge::{Edge, Setup};
use crate::support::h2::{Backend, Call, Client};
use crate::support::raw::{Plain, Raw};
use crate::support::websocket::{TOLD, connect, start, yes};
use crate::support::wire::{Conn, ok};
use crate::support::{assert_same, certs, noise, wait_for};

fn open(client: &Client, backend: &Raw) -> (Call, Conn) {
    let mut call = start(client, "/chat?room=1");
    let (mut upstream, head) = backend.request();
    upstream.send(yes(&head));
    assert_eq!(call.head().status(), 200);
    (call, upstream)
}

fn setup(backend: &Raw) -> (Edge, Client) {
    let edge = Setup::to(&[backend]).start();
    let client = Client::plain(edge.http());
    (edge, client)
}

/// The connection is not the stream: it serves on.
#[track_caller]
fn serves_on(client: &Client, backend: &Raw) {
    let mut call = client.get("/next");
    let (mut upstream, _) = backend.request();
    upstream.send(ok("on"));
    assert_eq!(call.finish().unwrap().0, b"on");
}

#[test]
fn the_backend_is_asked_by_an_upgrade_and_its_key_never_crosses() {
    let backend = Raw::new();
    let (edge, client) = setup(&backend);
    let mut keys = Vec::new();
    for n in 1..=2 {
        let asked = connect(&client, "/chat?room=1", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", "chat, superchat")
            .header("sec-websocket-extensions", "permessage-deflate")
            .header("origin", "https://a.test")
            .header("cookie", "a=1")
            .header("cookie", "b=2");
        let mut call = client.start(asked, false);
        let (mut upstream, head) = backend.request();
        assert_eq!(head.start, "GET /chat?room=1 HTTP/1.1");
        for (name, value) in [
            ("host", "a.test"),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat, superchat"),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("origin", "https://a.test"),
            ("cookie", "a=1; b=2"),
            ("x-forwarded-proto", "http"),
            ("via", "2 relais"),
        ] {
            assert_eq!(head.get(name), Some(value), "{}", head.raw);
        }
        assert!(!head.has("content-length") && !head.has("transfer-encoding"), "{}", head.raw);
        keys.push(head.get("sec-websocket-key").unwrap().to_owned());
        upstream.send(yes(&head).replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n"));
        let answer = call.head();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["sec-websocket-protocol"]),
            (200, &"chat".parse().unwrap())
        );
        for name in ["sec-websocket-accept", "connection", "upgrade", "content-length"] {
            assert!(!answer.headers().contains_key(name), "{answer:?}");
        }
        call.send(b"up", false);
        assert_eq!(upstream.bytes(2), b"up");
        upstream.send("down");
        assert_eq!(call.bytes(4), b"down");
        assert_eq!(edge.sample("relais_tunnels_open", &[]), f64::from(n), "both are open");
        std::mem::forget((call, upstream));
    }
    assert!(
        keys[0] != keys[1] && keys.iter().all(|key| key.len() == 24 && key != "dGhlIHNhbXBsZSBub25jZQ=="),
        "{keys:?}"
    );
}

#[test]
fn a_client_may_ask_and_is_told_so() {
    let backend = Plain::saying("x");
    let edge = Setup::services(&format!(
        "[service.web]\nhosts = [\"a.test\"]\nhealth = \"off\"\nbackends = [\"{}\"]\n",
        backend.serving.address
    ))
    .secure()
    .start();
    for client in [Client::plain(edge.http()), Client::secure(edge.https(), "a.test", certs::roots_of(&edge.root()))] {
        assert_eq!(client.get("/").head().status(), 200);
        assert!(client.may_connect(), "the edge does not say so");
    }
}

#[test]
fn either_end_may_end_it_and_the_other_hears_of_it() {
    let backend = Raw::new();
    let (edge, client) = setup(&backend);
    // In order: with the client's last word, and with the backend's.
    let (mut call, mut upstream) = open(&client, &backend);
    call.send(b"last words", true);
    assert_eq!(upstream.rest(), b"last words");
    upstream.send("an answer to them");
    upstream.finish_sending();
    assert_eq!(call.finish().unwrap().0, b"an answer to them");
    drop(upstream);
    let (mut call, mut upstream) = open(&client, &backend);
    upstream.send(b"\x88\x02\x03\xe8");
    upstream.finish_sending();
    assert_eq!(call.finish().unwrap().0, b"\x88\x02\x03\xe8", "nothing follows a close frame");
    call.send(b"\x88\x80\0\0\0\0", true);
    assert_eq!(upstream.rest(), b"\x88\x80\0\0\0\0");
    drop(upstream);
    // And not in order.
    let (mut call, mut upstream) = open(&client, &backend);
    call.reset();
    upstream.ends();
    drop(upstream);
    wait_for("all are over", || edge.sample("relais_tunnels_open", &[]) == 0.0);
    let lines = || edge.lines().into_iter().filter(|line| line["path"] == "/chat").collect::<Vec<_>>();
    wait_for("all are logged", || lines().len() == 3);
    for line in lines() {
        assert_eq!((&line["method"], &line["status"]), (&"CONNECT".into(), &200.into()), "{line}");
        assert_eq!((&line["proto"], &line["service"]), (&"HTTP/2.0".into(), &"web".into()), "{line}");
    }
    assert_eq!((&lines()[0]["bytes_in"], &lines()[0]["bytes_out"]), (&10.into(), &17.into()));
    serves_on(&client, &backend);
}

#[test]
fn bytes_that_come_before_the_answer_are_not_lost() {
    let backend = Raw::new();
    let (_edge, client) = setup(&backend);
    let mut call = start(&client, "/");
    call.send(b"early", false);
    let (mut upstream, head) = backend.request();
    upstream.send([yes(&head).as_bytes(), b"early too"].concat());
    assert_eq!(call.head().status(), 200);
    assert_eq!(call.bytes(9), b"early too");
    assert_eq!(upstream.bytes(5), b"early");
}

/// Several windows each way, at once, on two streams of one connection.
#[test]
fn much_crosses_both_ways_and_nothing_takes_the_place_of_anything() {
    let backend = Raw::new();
    let (_edge, client) = setup(&backend);
    let pairs: Vec<(Call, Conn)> = (0..2).map(|_| open(&client, &backend)).collect();
    let much = noise(5 << 20);
    std::thread::scope(|scope| {
        for (mut call, mut upstream) in pairs {
            let much = &much;
            scope.spawn(move || {
                let got = upstream.bytes(much.len());
                upstream.send(&got);
                upstream
            });
            scope.spawn(move || {
                call.send(much, false);
                assert_same(&call.bytes(much.len()), much);
            });
        }
    });
}

/// What a backend does not read of a stream fills that stream's window alone.
#[test]
fn tunnels_that_nobody_reads_do_not_hold_up_an_upload_beside_them() {
    let backend = Raw::new();
    let (_edge, client) = setup(&backend);
    let mut pairs: Vec<(Call, Conn)> = (0..2).map(|_| open(&client, &backend)).collect();
    pairs.iter_mut().for_each(|(call, _)| call.stuff());
    let mut upload = client.start(http::Request::post(client.url("/upload")), false);
    let (mut upstream, head) = backend.request();
    upload.send(b"small", true);
    assert_eq!(upstream.body(&head), b"small");
    upstream.send(ok("got it"));
    assert_eq!(upload.finish().unwrap().0, b"got it");
}

/// Its number is free for another one at once: what the edge keeps for it must be too.
#[test]
fn a_stream_that_the_client_resets_is_over_whatever_its_backend_does() {
    let backend = Raw::new();
    let (edge, client) = setup(&backend);
    // It takes no notice of an end, and then does not even read.
    for stuffed in [false, true] {
        let path = format!("/{stuffed}");
        let mut call = start(&client, &path);
        let (mut upstream, head) = backend.request();
        upstream.send(yes(&head));
        assert_eq!(call.head().status(), 200);
        if stuffed {
            call.stuff();
        }
        call.reset();
        assert_eq!(edge.access_to(&path)["cut"], "client_gone");
        wait_for("it is over", || edge.sample("relais_tunnels_open", &[]) == 0.0);
        wait_for("nothing is in flight", || edge.backend(&backend)["inflight"] == 0);
        drop(upstream);
    }
    serves_on(&client, &backend);
}

#[test]
fn a_backend_that_ends_without_a_word_is_told_of_on_the_stream_alone() {
    let backend = Raw::new();
    let (edge, client) = setup(&backend);
    for (broken, path) in [(false, "a"), (true, "b")] {
        let mut call = start(&client, &format!("/{path}"));
        let (mut upstream, head) = backend.request();
        upstream.send([yes(&head).as_bytes(), b"\x81\x02hi"].concat());
        assert_eq!(call.head().status(), 200);
        assert_eq!(call.bytes(4), b"\x81\x02hi");
        if broken {
            upstream.reset()
        } else {
            drop(upstream)
        }
        assert_eq!(call.finish().unwrap().0, TOLD);
        call.send(b"", true);
        assert_eq!(edge.access_to(&format!("/{path}"))["cut"], "backend_broke_off");
        serves_on(&client, &backend);
    }
}

#[test]
fn a_frame_that_breaks_in_the_middle_is_broken_for_the_client() {
    let backend = Raw::new();
    let (_edge, client) = setup(&backend);
    let (mut call, mut upstream) = open(&client, &backend);
    upstream.send(b"\x81\x05hel");
    assert_eq!(call.bytes(5), b"\x81\x05hel");
    upstream.reset();
    assert_eq!(call.finish().unwrap_err().reason(), Some(h2::Reason::CANCEL), "nothing is put into a frame");
    serves_on(&client, &backend);
}

#[test]
fn a_drained_backend_is_left_by_its_streams_and_silence_ends_them_too() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).with("timeout.tunnel = \"2s\"").start();
    let client = Client::plain(edge.http());
    let (mut call, _upstream) = open(&client, &backend);
    call.finish().unwrap();
    assert_eq!(edge.access_to("/chat")["cut"], "idle");
    // Another edge, so that no silence comes before the order.
    let edge = Setup::to(&[&backend]).and("[edge]\ndrain = \"1s\"").start();
    let client = Client::plain(edge.http());
    let (mut call, _upstream) = open(&client, &backend);
    edge.order("draining", &format!("web/{}", backend.address));
    assert_eq!(call.finish().unwrap().0, TOLD);
    assert_eq!(edge.access_to("/chat")["cut"], "drained");
}

/// An edge that stops tells its streams and lets the connection go.
#[test]
fn an_edge_that_stops_tells_its_streams() {
    let backend = Raw::new();
    let mut edge = Setup::to(&[&backend]).and("[edge]\ndrain = \"10s\"").start();
    let client = Client::plain(edge.http());
    let (mut call, mut upstream) = open(&client, &backend);
    upstream.send(b"\x81\x02hi");
    assert_eq!(call.bytes(4), b"\x81\x02hi");
    edge.signal("TERM");
    assert_eq!(call.finish().unwrap().0, TOLD);
    assert!(edge.ended().success());
}

#[test]
fn a_client_that_makes_no_room_is_given_up_and_its_connection_is_not() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend]).and("[edge.timeout]\nbody = \"1s\"").start();
    let client = Client::with_room(edge.http(), 1000);
    let (mut call, mut upstream) = open(&client, &backend);
    while upstream.try_send([b'x'; 1 << 16]).is_ok() {}
    assert_eq!(edge.access_to("/chat")["cut"], "client_stalled");
    // A stream that is reset loses what was not read.
    let mut ended = None;
    while ended.is_none() {
        ended = call.data().expect("a reset, not an end in order").err();
    }
    assert_eq!(ended.unwrap().reason(), Some(h2::Reason::CANCEL));
    wait_for("it is over", || edge.sample("relais_tunnels_open", &[]) == 0.0);
    serves_on(&client, &backend);
}

#[test]
fn only_the_right_answer_to_the_key_opens_a_tunnel() {
    let backend = Raw::new();
    let (_edge, client) = setup(&backend);
    let wrong = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    for accept in [wrong, ""] {
        let mut call = start(&client, "/");
        let (mut upstream, _) = backend.request();
        upstream.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{accept}\r\n"
        ));
        let head = call.head();
        assert_eq!(head.status(), 502);
        assert!(head.headers()["proxy-status"].to_str().unwrap().contains("http_protocol_error"), "{head:?}");
        upstream.ends();
    }
}

/// 200 would say that there is a tunnel: a page is not one.
#[test]
fn an_answer_that_is_no_switch_is_never_taken_for_one() {
    let backend = Raw::new();
    let (edge, client) = setup(&backend);
    let mut call = start(&client, "/page");
    let (mut upstream, _) = backend.request();
    upstream.send(ok("a page"));
    let head = call.head();
    assert_eq!(head.status(), 502);
    assert!(head.headers()["proxy-status"].to_str().unwrap().contains("http_upgrade_failed"), "{head:?}");
    assert!(head.headers().contains_key("x-request-id"), "{head:?}");
    assert!(!String::from_utf8(call.finish().unwrap().0).unwrap().contains("a page"));
    assert_eq!(edge.access_to("/page")["status"], 502);
    // What declines says so itself.
    let mut call = start(&client, "/");
    let (mut upstream, _) = backend.request();
    upstream.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    assert_eq!(call.head().status(), 403);
    assert_eq!(call.finish().unwrap().0, b"no");
    // The edge's own pages too.
    let edge = Setup::services("[service.web]\nhosts = [\"*\"]\nrespond = { status = 200, body = \"page\" }\n").start();
    assert_eq!(start(&Client::plain(edge.http()), "/").head().status(), 502);
}

/// As for an upgrade: a backend that is spoken to by HTTP/2 gets a plain request.
#[test]
fn an_http2_backend_gets_a_plain_request() {
    let backend = Backend::plain();
    let edge = Setup::to(&[&backend]).with("upstream.protocol = \"h2c\"").start();
    let client = Client::plain(edge.http());
    let mut call = start(&client, "/chat");
    let mut served = backend.call();
    assert_eq!(served.request.method(), "GET");
    assert!(!served.request.headers().contains_key("upgrade"));
    served.answer(http::Response::builder().status(426), true);
    assert_eq!(call.head().status(), 426);
}

#[test]
fn it_goes_to_another_backend_while_nothing_is_answered() {
    let (dead, silent) = (crate::support::free_address(), Raw::new());
    let good = Plain::new(|seen| yes(&seen.head).into_bytes());
    for (first, how) in [(&dead as &dyn crate::support::raw::Addressed, "refused"), (&silent, "reset")] {
        let edge = Setup::services(&format!(
            "[sites]\na = 1\nb = 2\n[service.web]\nhosts = [\"*\"]\nhealth = \"off\"\npassive_fall = 0\n\
             outlier.max_ejected_percent = 0\nbackends = {{ a = [\"{}\"], b = [\"{}\"] }}\n",
            first.address(),
            crate::support::raw::Addressed::address(&good)
        ))
        .start();
        let client = Client::plain(edge.http());
        let mut call = start(&client, "/chat");
        if how == "reset" {
            silent.request().0.reset();
        }
        assert_eq!(call.head().status(), 200);
        call.send(b"", true);
        drop(call);
        let line = edge.access_to("/chat");
        assert!(line["attempts"].as_str().unwrap().contains(how), "{line}");
        assert_eq!(line["site"], "b");
    }
}

#[test]
fn other_protocols_are_not_served() {
    let backend = Raw::new();
    let (edge, client) = setup(&backend);
    for protocol in ["connect-udp", "webtransport"] {
        let head = client.start(connect(&client, "/x", protocol), false).head();
        assert_eq!(head.status(), 501);
        assert!(head.headers()["proxy-status"].to_str().unwrap().contains("only websocket"), "{head:?}");
    }
    assert_eq!(edge.access_to("/x")["method"], "CONNECT");
    assert!(backend.try_accept().is_none(), "nothing reached the backend");
}

//! HTTP/2 towards backends, as far as it is not a matter of the message: whose connection it is, what ends one stream and
//! what ends all of them.

use std::time::{Duration, Instant};

use crate::support::edge::{Edge, Setup};
use crate::support::h2::{Backend, Call, Client};
use crate::support::raw::{Addressed, Raw};
use crate::support::wire::{Conn, get};
use crate::support::{assert_same, noise, wait_for};

fn edge_to(backends: &[&dyn Addressed]) -> Edge {
    Setup::to(backends).with("upstream.protocol = \"h2c\"").and("[edge]\nworkers = 1").start()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// SETTINGS_MAX_CONCURRENT_STREAMS: 1 (RFC 9113 6.5.2).
const ONE_AT_A_TIME: [u8; 6] = [0, 3, 0, 0, 0, 1];
/// HPACK: 200.
const OK: &[u8] = b"\x88";

/// A backend's end of one connection, frame by frame (RFC 9113 4.1).
struct Frames(Conn);

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frames {
    #[track_caller]
    fn accept(backend: &Raw) -> Frames {
        let mut conn = backend.accept();
        assert!(conn.bytes(24).starts_with(b"PRI * HTTP/2.0"));
        let mut frames = Frames(conn);
        frames.next(SETTINGS);
        // Only what was acknowledged holds, as the size of windows.
        frames.send(SETTINGS, 0, 0, b"").send(SETTINGS, 1, 0, b"");
        frames
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> &mut Self {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.0.send(frame);
        self
    }

    /// The next frame of this kind. Questions before it are answered; nobody goes away.
    #[track_caller]
    fn next(&mut self, kind: u8) -> Frame {
        loop {
            let head = self.0.bytes(9);
            let payload = self.0.bytes(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let frame = Frame { kind: head[3], flags: head[4], stream, payload };
            if frame.kind == kind {
                return frame;
            }
            match (frame.kind, frame.flags) {
                (PING, 0) => drop(self.send(PING, 1, 0, &frame.payload)),
                (GOAWAY, _) => panic!("the edge went away: {:?}", frame.payload),
                _ => {}
            }
        }
    }

    /// The next request's stream.
    #[track_caller]
    fn request(&mut self) -> u32 {
        self.next(HEADERS).stream
    }

    /// All that was sent has been read: what it was asked behind it the edge has answered.
    #[track_caller]
    fn is_heard(&mut self) {
        self.send(PING, 0, 0, b"question");
        loop {
            let ping = self.next(PING);
            if ping.flags == 1 {
                return;
            }
            self.send(PING, 1, 0, &ping.payload);
        }
    }

    fn answer(&mut self, stream: u32, body: &[u8]) {
        self.send(HEADERS, END_HEADERS, stream, OK).send(DATA, END_STREAM, stream, body);
    }
}

fn post(client: &Client, path: &str) -> Call {
    client.start(http::Request::post(client.url(path)), true)
}

/// Whatever its reason: what it did not take goes elsewhere, what it took is waited for.
#[test]
fn what_a_backend_did_not_take_before_it_went_away_in_anger_is_made_elsewhere() {
    const ENHANCE_YOUR_CALM: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 11];
    let backend = Raw::new();
    let edge = edge_to(&[&backend]);
    let client = Client::plain(edge.http());
    let mut taken = post(&client, "/taken");
    let mut before = Frames::accept(&backend);
    assert_eq!(before.request(), 1);
    let mut left = post(&client, "/left");
    assert_eq!(before.request(), 3);
    before.send(GOAWAY, 0, 0, &ENHANCE_YOUR_CALM);
    let mut after = Frames::accept(&backend);
    let stream = after.request();
    after.answer(stream, b"made elsewhere");
    assert_eq!(left.finish().unwrap().0, b"made elsewhere");
    before.answer(1, b"made here");
    assert_eq!(taken.finish().unwrap().0, b"made here");
    assert_eq!(edge.backend(&backend)["failed"], 0, "and nothing is held against it");
}

/// What was on its way when clients went is no mistake of the backend: those who stay keep their connection.
#[test]
fn clients_that_leave_together_take_nobody_elses_connection_along() {
    const MANY: usize = 100;
    let backend = Raw::new();
    let edge = edge_to(&[&backend]);
    let stays = Client::plain(edge.http());
    let mut stay = stays.get("/stays");
    let mut frames = Frames::accept(&backend);
    let staying = frames.request();
    let leave = Client::plain(edge.http());
    let mut calls: Vec<_> = (0..MANY).map(|_| leave.get("/leaves")).collect();
    // The edge opens no more than a hundred before it knows what the backend takes, and that the settings told.
    let leaving: Vec<u32> = (0..MANY).map(|_| frames.request()).collect();
    for stream in &leaving {
        frames.send(HEADERS, END_HEADERS, *stream, OK);
    }
    calls.iter_mut().for_each(Call::reset);
    for _ in &leaving {
        assert!(leaving.contains(&frames.next(RESET).stream));
    }
    for _ in 0..30 {
        for stream in &leaving {
            frames.send(DATA, 0, *stream, &[b'x'; 300]);
        }
        frames.is_heard();
    }
    frames.answer(staying, b"stayed");
    assert_eq!(stay.finish().unwrap().0, b"stayed");
    let mut next = stays.get("/next");
    let stream = frames.request();
    frames.answer(stream, b"next");
    assert_eq!(next.finish().unwrap().0, b"next");
}

/// A stream of small messages that nobody reads fills its window, and costs nobody else the connection.
#[test]
fn a_client_that_does_not_read_small_messages_is_alone_in_it() {
    const MESSAGES: usize = 20_000;
    let backend = Raw::new();
    let edge = edge_to(&[&backend]);
    let slow = Client::with_room(edge.http(), 1000);
    let mut unread = slow.get("/messages");
    let mut frames = Frames::accept(&backend);
    let stream = frames.request();
    frames.send(HEADERS, END_HEADERS, stream, OK);
    for _ in 0..MESSAGES {
        frames.send(DATA, 0, stream, b"twenty bytes of news");
    }
    let other = Client::plain(edge.http());
    let mut call = other.get("/other");
    let stream_of_other = frames.request();
    frames.answer(stream_of_other, b"other");
    assert_eq!(call.finish().unwrap().0, b"other");
    frames.send(DATA, END_STREAM, stream, b"");
    assert_eq!(unread.finish().unwrap().0.len(), MESSAGES * 20);
}

/// What was on its way to clients that went counts for no window any more.
#[test]
fn downloads_that_are_given_up_leave_their_room_to_the_others() {
    // Less than there is room for in one stream, and many times more than on the connection.
    const SIZE: usize = 900_000;
    let backend = Backend::plain();
    let edge = edge_to(&[&backend]);
    let slow = Client::with_room(edge.http(), 1000);
    for _ in 0..8 {
        let mut call = slow.get("/");
        let mut served = backend.call();
        served.answer(http::Response::builder(), false).send(&noise(SIZE), false);
        assert_eq!(call.head().status(), 200);
        call.reset();
        wait_for("nothing is in flight", || edge.backend(&backend)["inflight"] == 0);
    }
    let client = Client::plain(edge.http());
    let mut call = client.get("/");
    backend.call().answer(http::Response::builder(), false).send(&noise(SIZE), true);
    assert_same(&call.finish().unwrap().0, &noise(SIZE));
    assert_eq!(backend.connections(), 1);
}

/// RFC 9113 8.1: a reset without error says that the rest of the request is not wanted; it is no end of an answer.
#[test]
fn a_reset_without_error_ends_no_answer_that_had_not_ended() {
    const NO_ERROR: [u8; 4] = [0; 4];
    let backend = Raw::new();
    let edge = edge_to(&[&backend]);
    let client = Client::plain(edge.http());
    let start = || client.start(http::Request::post(client.url("/")), false);
    let mut half = start();
    let mut frames = Frames::accept(&backend);
    let stream = frames.request();
    frames.send(HEADERS, END_HEADERS, stream, OK).send(DATA, 0, stream, b"half");
    assert_eq!(half.head().status(), 200);
    assert_eq!(half.data().unwrap().unwrap(), "half");
    frames.send(RESET, 0, stream, &NO_ERROR);
    assert!(half.finish().is_err(), "looks complete");
    // One that had ended is whole, however soon the reset comes behind it.
    for _ in 0..20 {
        let mut whole = start();
        let stream = frames.request();
        let end = frames.send(HEADERS, END_HEADERS, stream, OK).send(DATA, END_STREAM, stream, b"whole");
        end.send(RESET, 0, stream, &NO_ERROR);
        assert_eq!(whole.finish().unwrap().0, b"whole");
    }
}

#[test]
fn an_upload_that_an_http2_backend_does_not_read_is_answered_early() {
    let backend = Backend::plain();
    let edge = edge_to(&[&backend]);
    let refuse = || {
        let mut served = backend.call();
        served.answer(http::Response::builder().status(403), false).send(b"no", true);
        served
    };
    // It says so with a reset, or just does not read on.
    let mut waiting = Vec::new();
    for n in 0..20 {
        let client = Client::plain(edge.http());
        let mut call = client.start(http::Request::post(client.url("/")).header("content-length", "300000"), false);
        // More than the backend has room for, less than the edge takes in.
        call.send(&[b'x'; 200_000], false);
        let served = refuse();
        if n % 2 == 0 {
            waiting.push(served);
        }
        assert_eq!(call.head().status(), 403);
        assert_eq!(call.finish().unwrap().0, b"no");

        let mut one = edge.connect();
        one.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 300000\r\n\r\n").send([b'x'; 50_000]);
        waiting.push(refuse());
        let answer = one.answer();
        assert_eq!((answer.status(), answer.text().as_str()), (403, "no"));
    }
    assert_eq!(backend.connections(), 1);
    assert_eq!(edge.backend(&backend)["failed"], 0);
}

/// The backend counts its stream until both ends are closed, and so do we: the next request does not wait behind it.
#[test]
fn an_upload_that_nobody_reads_counts_as_long_as_it_lasts() {
    let backend = Raw::new();
    let edge = edge_to(&[&backend]);
    let client = Client::plain(edge.http());
    let mut call = client.start(http::Request::get(client.url("/")), true);
    let mut full = Frames::accept(&backend);
    let stream = full.request();
    full.send(SETTINGS, 0, 0, &ONE_AT_A_TIME).is_heard();
    full.answer(stream, b"first");
    assert_eq!(call.finish().unwrap().0, b"first");

    let mut call = client.start(http::Request::post(client.url("/")).header("content-length", "300000"), false);
    call.send(&[b'x'; 200_000], false);
    let stream = full.request();
    full.answer(stream, b"enough");
    assert_eq!(call.finish().unwrap().0, b"enough");

    let mut call = client.start(http::Request::get(client.url("/")), true);
    let mut fresh = Frames::accept(&backend);
    let stream = fresh.request();
    fresh.answer(stream, b"second");
    assert_eq!(call.finish().unwrap().0, b"second");
}

/// It answered, though nothing of use: that is no sign against its site, as a reset would be.
#[test]
fn a_backend_that_breaks_the_protocol_or_has_too_large_a_head_is_malformed_and_not_reset() {
    let backend = Backend::plain();
    let edge = edge_to(&[&backend]);
    let client = Client::plain(edge.http());
    let mut call = client.get("/large");
    let large = "x".repeat(300_000);
    backend.call().answer(http::Response::builder().header("x-large", large), true);
    malformed(&call.head());
    let backend = Raw::new();
    let edge = edge_to(&[&backend]);
    let client = Client::plain(edge.http());
    let mut call = client.get("/data");
    let mut frames = Frames::accept(&backend);
    frames.request();
    frames.send(DATA, 0, 0, b"of no stream");
    malformed(&call.head());
}

#[track_caller]
fn malformed(head: &http::Response<()>) {
    let why = head.headers()["proxy-status"].to_str().unwrap();
    assert!(head.status() == 502 && why.contains("error=http_protocol_error"), "{why}");
}

/// An upgrade is a thing of HTTP/1.1, and its client would believe a head that says 101.
#[test]
fn no_http2_backend_switches_protocols() {
    let backend = Raw::new();
    let edge = edge_to(&[&backend]);
    let mut client = edge.connect();
    client.send(get("/"));
    let mut frames = Frames::accept(&backend);
    let stream = frames.request();
    // HPACK: `:status` by its index, 101 in plain letters.
    frames.send(HEADERS, END_HEADERS, stream, b"\x08\x03101").answer(stream, b"page");
    let head = client.head();
    assert_eq!(head.status(), 200, "{}", head.raw);
}

/// A backend that answers slowly is asked whether it is there once in each silence, not again with each answer.
#[test]
fn a_backend_that_thinks_for_long_is_asked_now_and_then() {
    let backend = Raw::new();
    let edge = edge_to(&[&backend]);
    let mut client = edge.connect();
    client.send(get("/"));
    let mut frames = Frames::accept(&backend);
    let stream = frames.request();
    let mut asked = Vec::new();
    for _ in 0..3 {
        let question = frames.next(PING);
        asked.push(Instant::now());
        frames.send(PING, 1, 0, &question.payload);
    }
    let silences: Vec<Duration> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(silences.iter().any(|silence| *silence > Duration::from_secs(1)), "{silences:?}");
    frames.answer(stream, b"at last");
    assert_eq!(client.answer().text(), "at last");
}

#[test]
fn a_backend_that_does_not_answer_the_question_is_given_up_with_all_it_took() {
    let backend = Raw::new();
    let edge = Setup::to(&[&backend])
        .with("upstream.protocol = \"h2c\"\ntimeout.response = \"5m\"")
        .and("[edge]\nworkers = 1")
        .start();
    let client = Client::plain(edge.http());
    let mut calls: Vec<_> = (0..3).map(|_| post(&client, "/")).collect();
    let mut frames = Frames::accept(&backend);
    frames.next(PING);
    for call in &mut calls {
        assert_eq!(call.head().status(), 504);
    }
    frames.0.rest();
}
